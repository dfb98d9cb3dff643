//! The ledger: balances, reservations, and the rules by which money moves between them.
//!
//! Every verb is idempotent by an id that its caller made first; the answer to a repeated
//! command is the answer to the first. For every account and at every moment
//! `deposited = available + reserved + spent + refunded`, and nothing is ever negative.
//! [`book`] is these rules without I/O; [`embedded`] keeps them in SQLite.

pub mod audit;
pub mod book;
pub mod embedded;
mod journal;
pub mod reaper;

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock::UnixMs;
use crate::ids::{AccountId, DepositId, ReservationId, WithdrawalId};
use crate::money::Msat;

/// One account as the ledger holds it. `balance` is `available + reserved` and is not stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    pub deposited: Msat,
    pub available: Msat,
    pub reserved: Msat,
    pub spent: Msat,
    pub refunded: Msat,
    /// Cost above what was reserved that the balance could not cover. Not part of the identity.
    pub shortfall: Msat,
    /// Reservations settled so far.
    pub requests: u64,
    /// Withdrawals begun so far and not reverted; the next one's sequence number.
    pub withdrawals: u64,
    pub open_reservations: u64,
}

impl Account {
    /// The identity of this page's head. `None` when the parts do not even add up to an amount.
    pub fn is_balanced(&self) -> bool {
        self.available
            .checked_add(self.reserved)
            .and_then(|sum| sum.checked_add(self.spent))
            .and_then(|sum| sum.checked_add(self.refunded))
            == Some(self.deposited)
    }
}

/// Value that reached us and belongs to an account. Opens the account if it is new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deposit {
    pub id: DepositId,
    pub account: AccountId,
    pub amount: Msat,
}

/// What a request asks before it may be forwarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    pub reservation: ReservationId,
    pub account: AccountId,
    /// The most this request may cost.
    pub ceiling: Msat,
    /// When anybody may expire the reservation unless it was renewed.
    pub deadline: UnixMs,
}

/// Why a reservation was not made. Nothing was held and nothing was charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    NoAccount,
    Insufficient {
        available: Msat,
        account_idle: bool,
    },
    /// A repetition that came after its reservation had ended.
    AlreadyEnded,
}

/// A reservation the ledger holds, and what is left beside it.
#[derive(Debug)]
pub struct Admitted {
    pub reservation: Reservation,
    pub available: Msat,
}

/// How a reservation ended. `spent + returned + (what extensions gave)` is what was reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    pub spent: Msat,
    pub returned: Msat,
    pub shortfall: Msat,
    /// What the account can spend after this end.
    pub available: Msat,
    pub how: Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ended {
    Settled,
    Released,
    Expired,
}

impl Ended {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Settled => "settled",
            Self::Released => "released",
            Self::Expired => "expired",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        [Self::Settled, Self::Released, Self::Expired].into_iter().find(|how| how.name() == name)
    }
}

/// What a receipt remembers about the request, for history and support. No secret in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    pub request_id: String,
    pub model: String,
    pub usage_source: &'static str,
    pub input_tokens: u64,
    pub cached_input_tokens: u64,
    pub output_tokens: u64,
}

/// How much is to leave an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    Exactly(Msat),
    /// All that is available in whole units of this size, and only while no reservation is open.
    Everything {
        unit: Msat,
    },
}

/// Value about to leave an account as ecash of one mint and unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WithdrawalAsk {
    pub id: WithdrawalId,
    pub account: AccountId,
    pub amount: Amount,
    pub mint: String,
    pub unit: String,
}

/// A withdrawal the ledger has booked: the amount is out of `available` from here on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Withdrawal {
    pub id: WithdrawalId,
    pub account: AccountId,
    pub amount: Msat,
    pub mint: String,
    pub unit: String,
    pub state: WithdrawalState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WithdrawalState {
    /// Booked; the wallet has perhaps not set its proofs aside yet.
    Begun,
    /// The wallet has; the value belongs to whoever holds the issued ecash.
    Committed,
    /// Undone before the wallet did anything.
    Reverted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WithdrawalDenied {
    NoAccount,
    Insufficient {
        available: Msat,
    },
    /// Nothing of a whole unit is there to withdraw.
    TooSmall {
        available: Msat,
    },
    RequestsInProgress {
        open: u64,
    },
}

/// The ledger did not answer, or not in time. Whether the verb happened is unknown; repeating
/// it with the same id is safe.
#[derive(Clone, Debug, thiserror::Error)]
#[error("ledger unavailable: {0}")]
pub struct Unavailable(pub String);

/// A settle or release that got no answer gives the obligation back.
#[derive(Debug)]
pub struct Unsettled {
    pub reservation: Reservation,
    pub why: Unavailable,
}

/// What a live request last reported, for the reaper's batched renewals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewal {
    pub reservation: ReservationId,
    pub deadline: UnixMs,
    /// What an expiry would charge: the cost of what was delivered so far.
    pub accrued: Msat,
}

/// The verbs. All are idempotent by id; none waits for anything but the ledger.
pub trait Ledger: Clone + Send + Sync + 'static {
    /// Durable on disk when it returns. Answers what the account has afterwards.
    fn deposit(
        &self,
        deposit: Deposit,
    ) -> impl Future<Output = Result<Account, Unavailable>> + Send;

    /// Checks the balance and reserves the ceiling, in one atomic step.
    fn admit(
        &self,
        ask: Admission,
    ) -> impl Future<Output = Result<Result<Admitted, Denied>, Unavailable>> + Send;

    /// Extends deadlines and records what has accrued; unknown or ended ids are passed over.
    fn renew(&self, renewals: Vec<Renewal>)
    -> impl Future<Output = Result<(), Unavailable>> + Send;

    /// Charges `cost` and returns the rest. A cost above the reservation takes what is available
    /// and records the rest as a shortfall.
    fn settle(
        &self,
        reservation: Reservation,
        cost: Msat,
        record: Record,
    ) -> impl Future<Output = Result<Receipt, Unsettled>> + Send;

    /// Charges nothing.
    fn release(
        &self,
        reservation: Reservation,
    ) -> impl Future<Output = Result<Receipt, Unsettled>> + Send;

    /// Ends every reservation whose deadline has passed, charging what had accrued.
    fn expire(&self, now: UnixMs)
    -> impl Future<Output = Result<Vec<Receipt>, Unavailable>> + Send;

    fn withdraw_begin(
        &self,
        ask: WithdrawalAsk,
    ) -> impl Future<Output = Result<Result<Withdrawal, WithdrawalDenied>, Unavailable>> + Send;

    fn withdraw_commit(
        &self,
        id: WithdrawalId,
    ) -> impl Future<Output = Result<(), Unavailable>> + Send;

    /// Gives the amount back; only for a withdrawal the wallet never began.
    fn withdraw_revert(
        &self,
        id: WithdrawalId,
    ) -> impl Future<Output = Result<(), Unavailable>> + Send;

    fn withdrawal(
        &self,
        id: WithdrawalId,
    ) -> impl Future<Output = Result<Option<Withdrawal>, Unavailable>> + Send;

    /// Withdrawals begun and neither committed nor reverted, oldest first.
    fn withdrawals_open(&self)
    -> impl Future<Output = Result<Vec<Withdrawal>, Unavailable>> + Send;

    fn account(
        &self,
        account: AccountId,
    ) -> impl Future<Output = Result<Option<Account>, Unavailable>> + Send;
}

/// An open reservation: an obligation to end it. Consumed by [`Ledger::settle`] or
/// [`Ledger::release`]; dropped on any other path, the reaper ends it with what had accrued.
///
/// ```compile_fail
/// fn twice(reservation: nutgate::ledger::Reservation) {
///     let _copy = reservation.clone();
/// }
/// ```
#[must_use = "a reservation ends in `settle` or `release`"]
#[derive(Debug)]
pub struct Reservation {
    pub id: ReservationId,
    pub account: AccountId,
    pub amount: Msat,
    live: Option<(Live, Accrued)>,
}

impl Reservation {
    pub fn open(id: ReservationId, account: AccountId, amount: Msat, live: &Live) -> Self {
        let accrued = live.enter(&id);
        Self { id, account, amount, live: Some((live.clone(), accrued)) }
    }

    /// Notes the cost of what has been delivered so far: what an expiry would charge.
    pub fn note_accrued(&self, cost: Msat) {
        if let Some((_, accrued)) = &self.live {
            accrued.note(cost);
        }
    }

    /// The ledger has recorded the end: nobody needs to renew or end it any more.
    pub(in crate::ledger) fn ended(mut self) {
        if let Some((live, _)) = self.live.take() {
            live.leave(&self.id);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some((live, _)) = self.live.take() {
            live.abandon(&self.id);
        }
    }
}

/// The cost accrued by one live request, in msat; written by its exchange, read by the reaper.
#[derive(Clone, Debug, Default)]
struct Accrued(Arc<AtomicU64>);

impl Accrued {
    fn note(&self, cost: Msat) {
        self.0.store(cost.get(), Ordering::Relaxed);
    }

    fn read(&self) -> Msat {
        Msat::new(self.0.load(Ordering::Relaxed)).unwrap_or(Msat::MAX)
    }
}

/// The reservations that this process holds open, and those it lost track of.
#[derive(Clone, Debug, Default)]
pub struct Live(Arc<Mutex<HashMap<ReservationId, Entry>>>);

#[derive(Debug)]
struct Entry {
    accrued: Accrued,
    abandoned: bool,
}

impl Live {
    pub fn open_count(&self) -> usize {
        self.entries().len()
    }

    fn enter(&self, id: &ReservationId) -> Accrued {
        let accrued = Accrued::default();
        let entry = Entry { accrued: accrued.clone(), abandoned: false };
        self.entries().insert(id.clone(), entry);
        accrued
    }

    fn leave(&self, id: &ReservationId) {
        self.entries().remove(id);
    }

    fn abandon(&self, id: &ReservationId) {
        if let Some(entry) = self.entries().get_mut(id) {
            entry.abandoned = true;
        }
    }

    /// What to renew until `deadline`, and what to let expire at once because nobody will end it.
    fn renewals(&self, now: UnixMs, deadline: UnixMs) -> Vec<Renewal> {
        let renewal = |(id, entry): (&ReservationId, &Entry)| Renewal {
            reservation: id.clone(),
            deadline: if entry.abandoned { now } else { deadline },
            accrued: entry.accrued.read(),
        };
        self.entries().iter().map(renewal).collect()
    }

    /// Forgets the abandoned once the ledger knows that they may expire.
    fn forget_abandoned(&self, renewed: &[Renewal], now: UnixMs) {
        let mut entries = self.entries();
        for renewal in renewed.iter().filter(|renewal| renewal.deadline == now) {
            entries.remove(&renewal.reservation);
        }
    }

    // The map is sound after a panic elsewhere: every change to it is a single call.
    fn entries(&self) -> MutexGuard<'_, HashMap<ReservationId, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
