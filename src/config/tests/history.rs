//! How much of a history is told.

use std::time::Duration;

use super::*;

#[test]
fn a_history_is_told_by_number_and_age_or_however_old_it_is() {
    let history = |text: &str| parse(text).map(|config| config.history);
    let day = Duration::from_secs(24 * 3600);
    let usual = Retention { entries_max: 1_000, kept: Some(30 * day) };
    assert_eq!(history("").unwrap(), usual);
    let ever = history("history: {kept_days: 0, entries_max: 100_000}").unwrap();
    assert_eq!(ever, Retention { entries_max: 100_000, kept: None });
    for (wrong, told) in [
        ("{entries_max: 0}", "1: history.entries_max: must be from 1 to 100000"),
        ("{entries_max: 100_001}", "1: history.entries_max: must be from 1 to 100000"),
        ("{kept_days: 36_501}", "1: history.kept_days: must be at most 36500; 0 for ever"),
    ] {
        let mistakes = parse(&format!("history: {wrong}")).unwrap_err().to_string();
        assert!(mistakes.contains(told), "{mistakes}");
    }
}
