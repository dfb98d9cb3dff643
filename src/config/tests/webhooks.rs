//! The section of webhooks.

use super::*;
use crate::config::{RETRIES_MAX, TIMEOUT_MAX};

#[test]
fn webhooks_are_delivered_to_the_public_by_the_schedule_of_the_standard() {
    let webhooks = Config::default().webhooks;
    assert!(webhooks.enabled && !webhooks.allow_private);
    let days = webhooks.retries.iter().sum::<std::time::Duration>().as_secs() / 86_400;
    assert_eq!((webhooks.retries.len(), days), (9, 3));
}

#[test]
fn webhooks_have_their_bounds() {
    let with = |text: &str| parse(&format!("webhooks: {{{text}}}"));
    let retries = |count: usize| format!("retries: [{}]", vec!["1s"; count].join(", "));
    let timeout = |more: u64| format!("timeout: {}s", TIMEOUT_MAX.as_secs() + more);
    for fits in [retries(1), retries(RETRIES_MAX), timeout(0), "low_balance_msats: 0".to_owned()] {
        assert!(with(&fits).is_ok(), "{fits}");
    }
    for (wrong, key) in [
        (retries(0), "webhooks.retries"),
        (retries(RETRIES_MAX + 1), "webhooks.retries"),
        (timeout(1), "webhooks.timeout"),
        ("low_balance_msats: 9_007_199_254_740_992".to_owned(), "webhooks.low_balance_msats"),
        ("allow_privates: true".to_owned(), "webhooks.allow_privates"),
    ] {
        let mistakes = with(&wrong).unwrap_err().to_string();
        assert!(mistakes.contains(key), "{mistakes}");
    }
}
