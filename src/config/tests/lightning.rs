//! What may be paid out over Lightning.

use super::*;

#[test]
fn what_a_payment_may_cost_is_bounded_and_paying_out_can_be_turned_off() {
    let refunds = |text: &str| {
        let parsed = parse(&format!("lightning:\n  refunds:\n{text}"));
        parsed.map(|config| config.lightning.refunds).map_err(|all| all.to_string())
    };
    let usual = LightningRefunds { fee_sats_max: 5, fee_percent_max: 2, private_hosts: false };
    assert_eq!(refunds("    enabled: true\n"), Ok(Some(usual)));
    assert_eq!(refunds("    enabled: false\n"), Ok(None));
    let most = "    fee_sats_max: 1_000_000\n    fee_percent_max: 100\n    private_hosts: true\n";
    let all =
        LightningRefunds { fee_sats_max: 1_000_000, fee_percent_max: 100, private_hosts: true };
    assert_eq!(refunds(most), Ok(Some(all)));
    let more = "    enabled: false\n    fee_sats_max: 1_000_001\n    fee_percent_max: 101\n";
    let wrong = refunds(more).unwrap_err();
    for mistake in [
        "f.yaml:4: lightning.refunds.fee_sats_max: must be from 0 to 1000000",
        "f.yaml:5: lightning.refunds.fee_percent_max: must be from 0 to 100",
    ] {
        assert!(wrong.contains(mistake), "{wrong}");
    }
}
