//! How long change is left to be claimed.

use std::time::Duration;

use super::super::mistake::KeyPath;
use super::super::schema;
use super::Checks;

impl Checks<'_> {
    pub(super) fn sweep_after(&mut self, refunds: &schema::Refunds) -> Option<Duration> {
        let days = refunds.sweep_after_days?.0;
        if !(DAYS_LEAST..=DAYS_MOST).contains(&days) {
            let problem = format!("must be from {DAYS_LEAST} to {DAYS_MOST}, or null for never");
            self.found.add(KeyPath::from("refunds").key("sweep_after_days"), problem);
        }
        Some(Duration::from_secs(days.clamp(DAYS_LEAST, DAYS_MOST).saturating_mul(DAY_S)))
    }
}

/// A client may be away for a month.
const DAYS_LEAST: u64 = 30;
const DAYS_MOST: u64 = 3_650;
const DAY_S: u64 = 24 * 3600;
