//! Requests that are to be made once: few keys, so that they come again, mostly for the same.

use nutgate::ids::{AccountId, AttemptId, OnceId};
use nutgate::ledger::once::{Claim, Keep, ONCE_BYTES, Once};

use super::{Teller, recent};
use crate::command::Command;
use crate::oracle::Oracle;

impl Teller {
    /// A key of this account, and what is asked under it.
    pub(super) fn once_of(&mut self, account: &AccountId) -> Once {
        let id = OnceId::stored(format!("{account}-{}", self.dice.below(8)));
        let asks = if self.dice.percent(85) { "one thing" } else { "another" };
        Once { id, fingerprint: asks.to_owned() }
    }

    pub(super) fn maybe_once_of(&mut self, account: &AccountId) -> Option<Once> {
        self.dice.percent(50).then(|| self.once_of(account))
    }

    pub(super) fn claim(&mut self, _: &Oracle) -> Option<Command> {
        let again = self.dice.percent(15).then(|| recent(&mut self.dice, &self.claims).cloned());
        let claim = match again.flatten() {
            Some(again) => again,
            None => {
                let account = self.somebody(40)?;
                Claim {
                    once: self.once_of(&account),
                    account,
                    attempt: AttemptId::stored(format!("attempt-{:04}", self.claims.len())),
                    lease: self.lifetime(),
                    bytes_max: self.bytes_max(),
                }
            }
        };
        self.claims.push(claim.clone());
        Some(Command::Claim(claim))
    }

    pub(super) fn keep(&mut self, _: &Oracle) -> Option<Command> {
        let (account, once, attempt) = self.attempt()?;
        let bytes = self.dice.below(700);
        let answer = (0..bytes).map(|_| self.dice.below(256).to_le_bytes()[0]).collect();
        let bytes_max = self.bytes_max();
        Some(Command::Keep(Keep { account, once, attempt, answer, bytes_max }))
    }

    pub(super) fn forget(&mut self, _: &Oracle) -> Option<Command> {
        let (account, once, attempt) = self.attempt()?;
        Some(Command::Forget(account, once, attempt))
    }

    pub(super) fn look_at_kept(&mut self, _: &Oracle) -> Option<Command> {
        let (account, once, _) = self.attempt()?;
        Some(Command::Kept(account, once))
    }

    /// Of a claim or of a billable request, perhaps one that another has followed.
    fn attempt(&mut self) -> Option<(AccountId, OnceId, AttemptId)> {
        if self.dice.percent(50) {
            let claim = recent(&mut self.dice, &self.claims)?.clone();
            return Some((claim.account, claim.once.id, claim.attempt));
        }
        let ask = recent(&mut self.dice, &self.asks)?.clone();
        let attempt = AttemptId::of(&ask.reservation);
        Some((ask.account, ask.once?.id, attempt))
    }

    /// Often as much as a few answers.
    fn bytes_max(&mut self) -> u64 {
        ONCE_BYTES + self.dice.below(6 * ONCE_BYTES)
    }
}
