//! Requests that are made once: what is remembered of a client's `Idempotency-Key`, so that the
//! same request under the same key never moves money twice.
//!
//! What is remembered of a billable request names its reservation, and the reservation says the
//! rest: open, it is under way; ended with a charge, it was served; ended for nothing, it is as if
//! nobody had asked. So it costs no step of its own, and nothing has to be told how it ended. A
//! call that the gateway answers itself has no reservation and is claimed for a while instead; when
//! that is over and it has no answer, its process has died, and a repetition executes it again.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]

use std::time::Duration;

use super::Denied;
use super::book::Book;
use super::terms::Window;
use super::{Admission, Ended};
use crate::clock::UnixMs;
use crate::ids::{AccountId, AttemptId, OnceId, ReservationId};
use crate::money::Msat;

/// A request that is to be made once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Once {
    /// Whose key and which.
    pub id: OnceId,
    /// A hash of what is asked.
    pub fingerprint: String,
}

/// A call that the gateway answers itself, about to be executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub account: AccountId,
    pub once: Once,
    pub attempt: AttemptId,
    /// After this a repetition takes its executor for dead.
    pub lease: Duration,
    /// What the account may have kept in a day; beyond it nothing more is claimed.
    pub bytes_max: u64,
}

/// What comes of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// To be executed. `first` is the attempt that began it, this one or one that died: what an
    /// execution names after it is the same again.
    Ours {
        first: AttemptId,
    },
    InFlight,
    /// The key was used for something else.
    Reused,
    Answered(Vec<u8>),
    TooMuch {
        retry_after: Duration,
    },
}

/// An answer to be kept for repetitions, sealed by whoever can open it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keep {
    pub account: AccountId,
    pub once: OnceId,
    pub attempt: AttemptId,
    pub answer: Vec<u8>,
    /// What the account may have kept in a day, this included.
    pub bytes_max: u64,
}

/// What is remembered under one key of one account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    pub fingerprint: String,
    pub attempt: AttemptId,
    pub first: AttemptId,
    pub until: UnixMs,
    /// Of a call that the gateway answers itself.
    pub lease: Option<UnixMs>,
    pub answer: Option<Vec<u8>>,
}

impl Book {
    /// Whether an earlier request under the same key is in the way of this one.
    pub(super) fn is_first(&self, ask: &Admission, now: UnixMs) -> Result<(), Denied> {
        let Some(once) = &ask.once else { return Ok(()) };
        let Some(known) = self.remembered(&once.id, now) else { return Ok(()) };
        if known.lease.is_some() {
            return Err(Denied::Reused);
        }
        let reservation = ReservationId::stored(known.attempt.as_str());
        let Some(held) = self.reservations.get(&reservation) else { return Ok(()) };
        let denied = match held.end.as_ref().map(|end| end.receipt) {
            None => Denied::InFlight,
            Some(end) if end.how == Ended::Settled || end.spent > Msat::ZERO => Denied::Served,
            Some(_) => return Ok(()),
        };
        Err(if known.fingerprint == once.fingerprint { denied } else { Denied::Reused })
    }

    pub(super) fn remember(&mut self, ask: &Admission, now: UnixMs) {
        let Some(Once { id, fingerprint }) = &ask.once else { return };
        let attempt = AttemptId::of(&ask.reservation);
        let remembered = Remembered {
            fingerprint: fingerprint.clone(),
            first: attempt.clone(),
            attempt,
            until: now.plus(ONCE_KEPT),
            lease: None,
            answer: None,
        };
        self.touched.once.insert(id.clone());
        self.once.insert(id.clone(), remembered);
    }

    /// Claims a call for execution, unless it is being executed or has its answer. Said again by
    /// the same attempt it has the lease anew; with none the claim is let go of, and whoever is
    /// next goes on with it.
    pub fn claim(&mut self, claim: &Claim, now: UnixMs) -> Claimed {
        let Claim { account, once, attempt, lease, bytes_max } = claim;
        let mut first = attempt.clone();
        if let Some(known) = self.remembered(&once.id, now) {
            let Some(lease) = known.lease.filter(|_| known.fingerprint == once.fingerprint) else {
                return Claimed::Reused;
            };
            if let Some(answer) = &known.answer {
                return Claimed::Answered(answer.clone());
            }
            if lease > now && known.attempt != *attempt {
                return Claimed::InFlight;
            }
            first = known.first.clone();
        } else {
            let kept = self.kept_by(account, now);
            if kept.count.saturating_add(ONCE_BYTES) > *bytes_max {
                return Claimed::TooMuch { retry_after: kept.ends_in(now, KEPT_WINDOW) };
            }
        }
        let remembered = Remembered {
            fingerprint: once.fingerprint.clone(),
            attempt: attempt.clone(),
            first: first.clone(),
            until: now.plus(ONCE_KEPT),
            lease: Some(now.plus(*lease)),
            answer: None,
        };
        self.touched.once.insert(once.id.clone());
        self.once.insert(once.id.clone(), remembered);
        Claimed::Ours { first }
    }

    /// Keeps the answer of an attempt that is still the one. False: it is not, or the account
    /// would have more than it may.
    pub fn keep(&mut self, keep: &Keep, now: UnixMs) -> bool {
        let known = self.remembered(&keep.once, now);
        let Some(known) = known.filter(|known| known.attempt == keep.attempt) else { return false };
        if known.answer.is_some() {
            return true;
        }
        let bytes = u64::try_from(keep.answer.len()).unwrap_or(u64::MAX).saturating_add(ONCE_BYTES);
        let kept = self.kept_by(&keep.account, now);
        if kept.count.saturating_add(bytes) > keep.bytes_max {
            return false;
        }
        self.kept.insert(keep.account.clone(), kept.plus(bytes));
        self.touched.kept.insert(keep.account.clone());
        if let Some(known) = self.once.get_mut(&keep.once) {
            known.answer = Some(keep.answer.clone());
            self.touched.once.insert(keep.once.clone());
        }
        true
    }

    /// Frees the key of an attempt that came to nothing.
    pub fn forget(&mut self, once: &OnceId, attempt: &AttemptId) {
        let known = self.once.get(once);
        if known.is_some_and(|known| known.attempt == *attempt && known.answer.is_none()) {
            self.once.remove(once);
            self.touched.once.insert(once.clone());
        }
    }

    /// The answer that is kept under a key.
    pub fn kept(&self, once: &OnceId, now: UnixMs) -> Option<Vec<u8>> {
        self.remembered(once, now)?.answer.clone()
    }

    pub(super) fn remembered(&self, once: &OnceId, now: UnixMs) -> Option<&Remembered> {
        self.once.get(once).filter(|known| known.until > now)
    }

    fn kept_by(&self, account: &AccountId, now: UnixMs) -> Window {
        self.kept.get(account).copied().unwrap_or_default().at(now, KEPT_WINDOW)
    }
}

/// How long a key is remembered after its request began: a day after the end of one that took no
/// longer than a day.
pub const ONCE_KEPT: Duration = Duration::from_secs(48 * 3_600);

/// In what time an account may have so many bytes kept.
pub const KEPT_WINDOW: Duration = Duration::from_secs(24 * 3_600);

/// What an answer counts besides its own length.
pub const ONCE_BYTES: u64 = 512;

#[cfg(test)]
#[path = "once_tests.rs"]
mod tests;
