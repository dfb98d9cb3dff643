//! Foreign mints: every mistake that they can have.

use super::*;

const MINTS: &str = "mints: [{url: https://ours}]\nforeign_mints:\n";

#[test]
fn a_foreign_mint_is_written_like_one_that_is_accepted() {
    let text = format!("{MINTS}  mints: [{{url: https://theirs/Bitcoin/}}]\n  fee_sats_max: 0\n");
    let ForeignMints { mints, fee_sats_max, fee_permille_max } =
        parse(&text).map_err(|all| all.to_string()).unwrap().foreign_mints;
    assert_eq!((mints.len(), mints[0].units.as_slice()), (1, ["sat".to_owned()].as_slice()));
    assert_eq!(mints[0].url, "https://theirs/Bitcoin");
    assert_eq!((fee_sats_max, fee_permille_max), (0, 20));
    assert!(parse("mints: []\n").unwrap().foreign_mints.mints.is_empty(), "off by default");
}

#[test]
fn a_foreign_mint_is_no_accepted_one_and_its_fees_are_no_mistake() {
    let check = |text: &str, told: &str| {
        let mistakes = parse(text).unwrap_err().to_string();
        assert!(mistakes.contains(told), "{mistakes}");
    };
    check(
        &format!("{MINTS}  mints: [{{url: https://ours/}}]\n"),
        "3: foreign_mints.mints[0].url: is accepted already: it is one of `mints`",
    );
    check(
        "foreign_mints:\n  mints: [{url: https://theirs}]\n",
        "2: foreign_mints.mints: needs a mint in `mints` that issues instead",
    );
    check(&format!("{MINTS}  mints: [{{}}]\n"), "3: foreign_mints.mints[0].url: is required");
    for (key, most) in [("fee_sats_max", 100_000_u64), ("fee_permille_max", 500)] {
        assert!(parse(&format!("{MINTS}  {key}: {most}\n")).is_ok());
        let told = format!("3: foreign_mints.{key}: must be at most {most}");
        check(&format!("{MINTS}  {key}: {}\n", most + 1), &told);
    }
}
