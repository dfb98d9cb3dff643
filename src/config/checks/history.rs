//! How much of a history is told.

use std::time::Duration;

use super::super::mistake::KeyPath;
use super::super::schema;
use super::Checks;
use crate::ledger::Retention;

impl Checks<'_> {
    pub(super) fn history(&mut self, history: &schema::History) -> Retention {
        let at = KeyPath::from("history");
        let entries_max = history.entries_max.0;
        if !(1..=ENTRIES_MOST).contains(&entries_max) {
            let problem = format!("must be from 1 to {ENTRIES_MOST}");
            self.found.add(at.key("entries_max"), problem);
        }
        let days = history.kept_days.0;
        if days > DAYS_MOST {
            self.found.add(at.key("kept_days"), format!("must be at most {DAYS_MOST}; 0 for ever"));
        }
        let kept = Duration::from_secs(days.min(DAYS_MOST).saturating_mul(DAY_S));
        Retention { entries_max, kept: (days > 0).then_some(kept) }
    }
}

/// A page that begins behind what is told looks at no more than this.
const ENTRIES_MOST: u64 = 100_000;
const DAYS_MOST: u64 = 36_500;
const DAY_S: u64 = 24 * 3600;
