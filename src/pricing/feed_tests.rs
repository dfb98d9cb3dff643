//! Numbers read from text, and what sources agree on.

use proptest::prelude::*;

use super::*;

fn path(text: &str) -> Vec<String> {
    text.split('.').map(str::to_owned).collect()
}

const TWO_PERCENT: Decimal = Decimal { billionths: 2_000_000_000 };

#[test]
fn a_number_is_read_exactly_or_not_at_all() {
    let down = |text| exact(text, 2, Round::Down);
    for (text, cents) in [
        ("97123.45", 9_712_345),
        ("97123.459999", 9_712_345),
        ("97123", 9_712_300),
        ("9.712345e4", 9_712_345),
        ("9.712345E+4", 9_712_345),
        ("9712345000e-5", 9_712_345),
        (".5", 50),
        ("5.", 500),
        ("-0.0", 0),
        ("0.001", 0),
        ("1e-40", 0),
        ("000000000000000000000000000000000000000000000001.00000000000000000000000000000", 100),
    ] {
        assert_eq!(down(text), Ok(cents), "{text}");
    }
    for text in ["", ".", "-", "e5", "1e", "1e1.5", "+1", "1,000", " 1", "1 ", "NaN", "inf", "0x1"]
    {
        assert_eq!(down(text), Err(NoNumber::Unreadable), "{text}");
    }
    for text in ["-1", "-0.00000000001", "-1e-9"] {
        assert_eq!(down(text), Err(NoNumber::Negative), "{text}");
    }
    assert_eq!(exact("0.0000001", 6, Round::Up), Ok(1));
    assert_eq!(exact("1e-40", 0, Round::Up), Ok(1));
    assert_eq!(exact("0.00000015", 15, Round::Up), Ok(150_000_000));
}

#[test]
fn numbers_end_where_their_bounds_do() {
    let nines = "9".repeat(DIGITS_MAX);
    assert_eq!(exact(&nines, 0, Round::Down), Ok(10_u128.pow(38) - 1));
    assert_eq!(exact(&format!("1{nines}"), 0, Round::Down), Err(NoNumber::Unreadable));
    assert_eq!(exact("1e38", 0, Round::Down), Ok(10_u128.pow(38)));
    assert_eq!(exact("1e39", 0, Round::Down), Err(NoNumber::Unreadable));
    assert_eq!(exact(&format!("1e-{EXPONENT_MAX}"), 40, Round::Down), Ok(1));
    assert_eq!(
        exact(&format!("1e-{}", EXPONENT_MAX + 1), 41, Round::Down),
        Err(NoNumber::Unreadable)
    );
    assert_eq!(cents("0.01"), Ok(CENTS_MIN));
    assert_eq!(cents("10000000000"), Ok(CENTS_MAX));
    for text in ["0", "0.009", "10000000000.01", "1e30", "-1"] {
        assert!(cents(text).is_err(), "{text}");
    }
}

#[test]
fn the_number_at_a_path_is_the_text_it_was_written_as() {
    let document = br#"{"data": {"amount": "97123.45", "x.y": 1, "on": true},
        "result": {"XXBTZUSD": {"c": [97123.450000000000001, "0.1"]}}, "\u0061": 5}"#;
    let at = |text| number_at(document, &path(text));
    assert_eq!(at("data.amount").as_deref(), Some("97123.45"));
    assert_eq!(at("result.XXBTZUSD.c.0").as_deref(), Some("97123.450000000000001"));
    assert_eq!(at("result.XXBTZUSD.c.1").as_deref(), Some("0.1"));
    assert_eq!(at("a").as_deref(), Some("5"));
    for nothing in
        ["data", "data.x.y", "data.on", "result.XXBTZUSD.c.2", "result.XXBTZUSD.c.-1", ""]
    {
        assert_eq!(at(nothing), None, "{nothing}");
    }
    assert_eq!(number_at(b"not json", &path("a")), None);
    assert_eq!(number_at(b"[1, 2]", &path("1")).as_deref(), Some("2"));
}

#[test]
fn enough_sources_agree_or_there_is_no_rate() {
    let two = |rates: &[u64]| agree(rates, TWO_PERCENT, 2);
    assert_eq!(two(&[10_000, 10_100, 90_000]), Some(10_050), "an outlier of three does not count");
    assert_eq!(two(&[10_000, 10_100, 10_200]), Some(10_100));
    assert_eq!(two(&[10_000, 10_101]), Some(10_050), "half a cent is rounded down");
    assert_eq!(two(&[10_000]), None);
    assert_eq!(two(&[10_000, 11_000]), None, "who is right?");
    assert_eq!(two(&[10_000, 10_001, 20_000, 20_001]), None, "which half is right?");
    assert_eq!(agree(&[10_000], TWO_PERCENT, 1), Some(10_000));
    assert_eq!(agree(&[], TWO_PERCENT, 0), None);
    // The median is 10,000: two percent of it is 200, and not one more.
    assert_eq!(agree(&[9_800, 10_000, 10_200], TWO_PERCENT, 3), Some(10_000));
    assert_eq!(agree(&[9_799, 10_000, 10_200], TWO_PERCENT, 3), None);
    assert_eq!(agree(&[CENTS_MAX, CENTS_MAX], TWO_PERCENT, 2), Some(CENTS_MAX));
}

#[test]
fn a_rate_lasts_until_it_is_stale() {
    let ms = Duration::from_millis;
    assert_eq!(lasts(ms(0), ms(5)), Some(ms(5)));
    assert_eq!(lasts(ms(4), ms(5)), Some(ms(1)));
    assert_eq!(lasts(ms(5), ms(5)), None);
    assert_eq!(lasts(ms(6), ms(5)), None);
}

proptest! {
    #[test]
    fn an_outlier_never_moves_the_rate_beyond_those_that_agree(
        rates in prop::collection::vec(9_900_000..10_000_000u64, 3..8),
        outlier in CENTS_MIN..=CENTS_MAX,
    ) {
        let (least, most) = (*rates.iter().min().unwrap(), *rates.iter().max().unwrap());
        let all: Vec<u64> = rates.iter().copied().chain([outlier]).collect();
        // Within one percent of each other, so all of them count.
        let agreed = agree(&all, TWO_PERCENT, rates.len()).unwrap();
        if stray(outlier, &all, TWO_PERCENT) {
            prop_assert!((least..=most).contains(&agreed));
        } else {
            prop_assert!((least.min(outlier)..=most.max(outlier)).contains(&agreed));
        }
    }

    #[test]
    fn the_order_of_the_sources_does_not_matter(
        rates in prop::collection::vec(1..1_000u64, 0..8), by in 0..8usize, min in 0..5usize,
    ) {
        let percent = Decimal { billionths: 30_000_000_000 };
        let agreed = agree(&rates, percent, min);
        let mut turned = rates.clone();
        turned.rotate_left(by % rates.len().max(1));
        prop_assert_eq!(agree(&turned, percent, min), agreed);
        turned.reverse();
        prop_assert_eq!(agree(&turned, percent, min), agreed);
        if let Some(agreed) = agreed {
            let near = |rate: &&u64| !stray(**rate, &rates, percent);
            let count = rates.iter().filter(near).count();
            prop_assert!(count >= min);
            prop_assert!(rates.iter().filter(near).min().unwrap() <= &agreed);
            prop_assert!(rates.iter().filter(near).max().unwrap() >= &agreed);
        }
    }

    #[test]
    fn what_is_written_with_an_exponent_is_the_same_number(
        number in 0..u64::MAX, places in 0..9u32, down in 0..9u32,
    ) {
        let plain = exact(&number.to_string(), places + down, Round::Down);
        let moved = exact(&format!("{number}e-{down}"), places + 2 * down, Round::Down);
        prop_assert_eq!(plain, moved);
        let up = exact(&format!("{number}e-{down}"), 0, Round::Up).unwrap();
        let floor = exact(&format!("{number}e-{down}"), 0, Round::Down).unwrap();
        prop_assert!(up - floor <= 1 && (up == floor) == number.is_multiple_of(10u64.pow(down)));
    }
}
