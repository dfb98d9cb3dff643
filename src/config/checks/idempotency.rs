//! What is kept for requests that are repeated.

use super::super::mistake::KeyPath;
use super::super::{Idempotency, schema};
use super::{BYTES_MAX, Checks};

impl Checks<'_> {
    /// An account that may keep less than one answer and what belongs to it could repeat nothing.
    pub(super) fn idempotency(&mut self, given: &schema::Idempotency) -> Idempotency {
        let at = KeyPath::from("idempotency");
        let account_bytes_max = given.account_bytes_max.0;
        if !(ACCOUNT_BYTES_MIN..=BYTES_MAX).contains(&account_bytes_max) {
            let problem = format!("must be from {ACCOUNT_BYTES_MIN} to {BYTES_MAX}");
            self.found.add(at.key("account_bytes_max"), problem);
        }
        let answer = given.answer_bytes_max;
        let answer_bytes_max = self.size(answer, 0, ANSWER_BYTES_MAX, &at.key("answer_bytes_max"));
        if answer.0 > account_bytes_max {
            self.found.add(at.key("answer_bytes_max"), "is more than `account_bytes_max`");
        }
        Idempotency { answer_bytes_max, account_bytes_max }
    }
}

/// Room for the calls of an hour that keep nothing but that they were made.
const ACCOUNT_BYTES_MIN: u64 = 65_536;

/// A ledger is no place for more: it keeps the answer in memory, and on every replica.
const ANSWER_BYTES_MAX: u64 = 16 << 20;
