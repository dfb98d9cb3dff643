//! What is kept for requests that are repeated.

use super::{check_mistakes, parse};

#[test]
fn the_bounds_are_what_the_file_says() {
    let default = parse("").unwrap().idempotency;
    assert_eq!((default.answer_bytes_max, default.account_bytes_max), (262_144, 16_777_216));
    let text = "idempotency: {answer_bytes_max: 0, account_bytes_max: 65_536}\n";
    let least = parse(text).unwrap().idempotency;
    assert_eq!((least.answer_bytes_max, least.account_bytes_max), (0, 65_536));
}

#[test]
fn bounds_that_make_no_sense_are_reported() {
    check_mistakes(&[
        (
            "idempotency:\n  answer_bytes_max: 16_777_217\n  account_bytes_max: 33_554_432\n",
            &["2: idempotency.answer_bytes_max: must be from 0 to 16777216"],
        ),
        (
            "idempotency:\n  answer_bytes_max: 65_537\n  account_bytes_max: 65_536\n",
            &["2: idempotency.answer_bytes_max: is more than `account_bytes_max`"],
        ),
        (
            "idempotency:\n  answer_bytes_max: 0\n  account_bytes_max: 65_535\n",
            &["3: idempotency.account_bytes_max: must be from 65536 to 4294967296"],
        ),
        (
            "idempotency:\n  answer_byte_max: 0\n",
            &["2: idempotency.answer_byte_max: unknown key (did you mean `answer_bytes_max`?)"],
        ),
    ]);
}
