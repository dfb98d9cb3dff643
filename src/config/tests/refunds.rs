//! How long change is left to be claimed.

use std::time::Duration;

use super::*;

#[test]
fn change_is_left_to_be_claimed_for_ever_or_for_so_many_days() {
    let sweep_after = |text: &str| parse(text).map(|config| config.sweep_after);
    let day = Duration::from_secs(24 * 3600);
    assert_eq!(sweep_after("").unwrap(), None, "off by default");
    assert_eq!(sweep_after("refunds: {sweep_after_days: null}").unwrap(), None);
    for days in [30, 3_650] {
        let text = format!("refunds: {{sweep_after_days: {days}}}");
        assert_eq!(sweep_after(&text).unwrap(), Some(days * day));
    }
    for days in ["0", "29", "3_651"] {
        let text = format!("refunds: {{sweep_after_days: {days}}}");
        let mistakes = parse(&text).unwrap_err().to_string();
        let told = "1: refunds.sweep_after_days: must be from 30 to 3650, or null for never";
        assert!(mistakes.contains(told), "{mistakes}");
    }
}
