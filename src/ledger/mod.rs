//! The ledger: balances, reservations, and the rules by which money moves between them.
//!
//! Every verb is idempotent by an id that its caller made first; the answer to a repeated
//! command is the answer to the first. For every account and at every moment
//! `deposited = available + reserved + spent + refunded`, and nothing is ever negative.
//! [`book`] is these rules without I/O; [`embedded`] keeps them in SQLite for one machine.
//! Time is the ledger's own: callers say how long, never until when.

pub mod audit;
pub mod book;
mod children;
pub mod embedded;
mod history;
mod history_rows;
mod journal;
mod news;
pub mod once;
mod once_rows;
pub mod reaper;
mod record;
pub mod redis;
mod reservation;
mod schema;
pub mod spool;
pub mod terms;

use std::future::Future;
use std::time::Duration;

use crate::ids::{AccountId, AttemptId, DepositId, OnceId, ReservationId, WithdrawalId};
use crate::money::Msat;

pub use self::children::{Amendment, CHILDREN_MAX, Change, Children, Family, NotOpened};
pub use self::history::{Cursor, Entry, HISTORY_PAGE_MAX, NoCursor, Page, Retention, What};
pub use self::news::News;
use self::once::{Claim, Claimed, Keep, Once};
pub use self::record::{Facts, Record, USAGE_BYTES_MAX, UsageSource, record_usage};
pub use self::reservation::{Live, Reservation};
use self::terms::{Limits, Standing, Terms, Usage};

/// One account as the ledger holds it. `balance` is `available + reserved` and is not stored.
///
/// A child has a key and terms of its own and no money: it spends its parent's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    pub deposited: Msat,
    pub available: Msat,
    pub reserved: Msat,
    pub spent: Msat,
    pub refunded: Msat,
    /// Cost above what was reserved that the balance could not cover. Not part of the identity.
    pub shortfall: Msat,
    /// Reservations made with this key and settled so far.
    pub requests: u64,
    /// Withdrawals begun so far and not reverted; the next one's sequence number.
    pub withdrawals: u64,
    /// Open reservations that this account pays for, its children's included.
    pub open_reservations: u64,
    /// Entries of its history so far, and so the number of the newest.
    pub entries: u64,
    pub parent: Option<AccountId>,
    pub terms: Terms,
    pub usage: Usage,
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

/// A key to be that pays for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    pub account: AccountId,
    pub terms: Terms,
}

/// Value that reached us and belongs to an account, or to its parent. Opens the account if it
/// is new. One id is always for the same account.
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
    /// Whose key was shown; a child's parent pays.
    pub account: AccountId,
    /// The most this request may cost.
    pub ceiling: Msat,
    /// The most input and output it may use: held against the hourly limit while it is open.
    pub tokens: u64,
    /// How long the reservation lives unless it is renewed.
    pub lifetime: Duration,
    /// For a key that has no limits of its own.
    pub limits: Limits,
    /// Of a request that is to be made once.
    pub once: Option<Once>,
}

/// Why a reservation was not made or not raised. Nothing was held and nothing was charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    NoAccount,
    /// The key is not valid any more.
    Expired,
    Limited(Limited),
    /// The key's cap leaves this much.
    Capped {
        left: Msat,
    },
    Insufficient {
        available: Msat,
        account_idle: bool,
    },
    /// A repetition that came after its reservation had ended.
    AlreadyEnded,
    /// The same request is under way.
    InFlight,
    /// The same request was served and charged.
    Served,
    /// Another request was made under the same `Idempotency-Key`.
    Reused,
}

/// A rate limit was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limited {
    pub which: Limit,
    /// What the limit is.
    pub limit: u64,
    /// When to come again: a window's end, or a guess where only another request's end helps.
    pub retry_after: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    Requests,
    Tokens,
    Concurrent,
}

/// When to come again after too many requests at once: about when one of them may have ended.
pub const CONCURRENT_RETRY: Duration = Duration::from_secs(1);

/// A reservation the ledger holds, and what is left beside it.
#[derive(Debug)]
pub struct Admitted {
    pub reservation: Reservation,
    pub available: Msat,
    /// With this request counted.
    pub standing: Standing,
}

/// Why a request was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denial {
    pub denied: Denied,
    /// Of a key that may ask at all.
    pub standing: Option<Standing>,
}

impl From<Denied> for Denial {
    fn from(denied: Denied) -> Self {
        Self { denied, standing: None }
    }
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

/// How a reservation is to end, and what its receipt is to remember.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    Settle {
        cost: Msat,
        record: Record,
    },
    /// Charges nothing.
    Release {
        record: Record,
    },
}

impl End {
    pub fn cost(&self) -> Msat {
        match self {
            Self::Settle { cost, .. } => *cost,
            Self::Release { .. } => Msat::ZERO,
        }
    }

    pub fn how(&self) -> Ended {
        match self {
            Self::Settle { .. } => Ended::Settled,
            Self::Release { .. } => Ended::Released,
        }
    }

    pub fn into_record(self) -> Record {
        match self {
            Self::Settle { record, .. } | Self::Release { record } => record,
        }
    }
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

/// Value about to leave an account as ecash of one mint and unit, or as a payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WithdrawalAsk {
    pub id: WithdrawalId,
    pub account: AccountId,
    pub amount: Amount,
    /// The mint's URL, or the till's name for a payment.
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
    /// A child has nothing of its own to withdraw.
    Child,
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

/// Why a settle or release has no receipt.
#[derive(Debug)]
pub enum Unsettled {
    /// No answer. The obligation is given back.
    NoAnswer { reservation: Reservation, why: Unavailable },
    /// It ended longer ago than receipts are kept, or was lost with a ledger that lost data.
    Forgotten,
}

/// What a live request last reported, for the reaper's batched renewals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewal {
    pub reservation: ReservationId,
    pub account: AccountId,
    /// From now; zero ends it at once.
    pub lifetime: Duration,
    /// What an expiry would charge: the cost of what was delivered so far.
    pub accrued: Msat,
}

/// The verbs. All are idempotent by id; none waits for anything but the ledger, and for that
/// only a bounded time.
pub trait Ledger: Clone + Send + Sync + 'static {
    /// The reservations that this process holds open.
    fn live(&self) -> &Live;

    /// Opens a key under terms; one that exists keeps the terms it has.
    fn open(&self, opening: Opening) -> impl Future<Output = Result<Account, Unavailable>> + Send;

    /// Opens children of a parent, all of them or none; one that exists keeps the terms it has.
    /// Answers the parent.
    fn open_children(
        &self,
        children: Children,
    ) -> impl Future<Output = Result<Result<Account, NotOpened>, Unavailable>> + Send;

    /// Changes a child in the name of its parent; to revoke it again changes nothing. `None`: the
    /// parent has no such child.
    fn amend(
        &self,
        amendment: Amendment,
    ) -> impl Future<Output = Result<Option<Account>, Unavailable>> + Send;

    /// An account and its family, in one look.
    fn family(
        &self,
        account: AccountId,
    ) -> impl Future<Output = Result<Option<Family>, Unavailable>> + Send;

    /// Durable on disk when it returns. Answers what the paying account has afterwards.
    fn deposit(
        &self,
        deposit: Deposit,
    ) -> impl Future<Output = Result<Account, Unavailable>> + Send;

    /// Checks key, limits, cap and balance and reserves the ceiling, in one atomic step, which
    /// also says where the key stands after it. A request that is to be made once is none of that
    /// when it was made.
    fn admit(
        &self,
        ask: Admission,
    ) -> impl Future<Output = Result<Result<Admitted, Denial>, Unavailable>> + Send;

    /// Raises a reservation to `amount` if the cap and the balance allow; answers what is
    /// available beside it. An amount it already has changes nothing.
    fn extend(
        &self,
        reservation: &mut Reservation,
        amount: Msat,
    ) -> impl Future<Output = Result<Result<Msat, Denied>, Unavailable>> + Send;

    /// Gives live reservations their lifetime anew and records what has accrued; one without any
    /// lifetime ends at that, as if it had expired. Unknown or ended ones are passed over.
    fn renew(&self, renewals: Vec<Renewal>)
    -> impl Future<Output = Result<(), Unavailable>> + Send;

    /// Ends a reservation: charges the cost and returns the rest. A cost above the reservation
    /// takes what is available and records the rest as a shortfall.
    fn end(
        &self,
        reservation: Reservation,
        end: End,
    ) -> impl Future<Output = Result<Receipt, Unsettled>> + Send;

    fn settle(
        &self,
        reservation: Reservation,
        cost: Msat,
        record: Record,
    ) -> impl Future<Output = Result<Receipt, Unsettled>> + Send {
        self.end(reservation, End::Settle { cost, record })
    }

    /// Releases a reservation of which nothing needs to be remembered.
    fn release(
        &self,
        reservation: Reservation,
    ) -> impl Future<Output = Result<Receipt, Unsettled>> + Send {
        self.end(reservation, End::Release { record: Record::default() })
    }

    /// Ends reservations whose deadline has passed, whoever made them, charging what had
    /// accrued. A bounded number in one call; to be repeated while it answers any.
    fn expire(&self) -> impl Future<Output = Result<Vec<Receipt>, Unavailable>> + Send;

    /// Durable on disk when it returns, as are its ends.
    fn withdraw_begin(
        &self,
        ask: WithdrawalAsk,
    ) -> impl Future<Output = Result<Result<Withdrawal, WithdrawalDenied>, Unavailable>> + Send;

    fn withdraw_commit(
        &self,
        account: AccountId,
        id: WithdrawalId,
    ) -> impl Future<Output = Result<(), Unavailable>> + Send;

    /// Gives the amount back; only for a withdrawal the wallet never began.
    fn withdraw_revert(
        &self,
        account: AccountId,
        id: WithdrawalId,
    ) -> impl Future<Output = Result<(), Unavailable>> + Send;

    fn withdrawal(
        &self,
        account: AccountId,
        id: WithdrawalId,
    ) -> impl Future<Output = Result<Option<Withdrawal>, Unavailable>> + Send;

    /// Withdrawals begun and neither committed nor reverted, oldest first.
    fn withdrawals_open(&self)
    -> impl Future<Output = Result<Vec<Withdrawal>, Unavailable>> + Send;

    /// Claims a call that the gateway answers itself, if it is to be executed.
    fn claim(&self, claim: Claim) -> impl Future<Output = Result<Claimed, Unavailable>> + Send;

    /// Keeps an answer for repetitions. False: there is no room for it.
    fn keep(&self, keep: Keep) -> impl Future<Output = Result<bool, Unavailable>> + Send;

    /// Frees the key of a claim that came to nothing.
    fn forget(
        &self,
        account: AccountId,
        once: OnceId,
        attempt: AttemptId,
    ) -> impl Future<Output = Result<(), Unavailable>> + Send;

    /// The answer that is kept for repetitions.
    fn kept(
        &self,
        account: AccountId,
        once: OnceId,
    ) -> impl Future<Output = Result<Option<Vec<u8>>, Unavailable>> + Send;

    fn account(
        &self,
        account: AccountId,
    ) -> impl Future<Output = Result<Option<Account>, Unavailable>> + Send;

    /// At most `limit` entries of an account's history, and never more than
    /// [`HISTORY_PAGE_MAX`], from the newest on or from where an earlier page ended. An account
    /// that does not exist has none.
    fn history(
        &self,
        account: AccountId,
        before: Option<Cursor>,
        limit: u32,
    ) -> impl Future<Output = Result<Page, Unavailable>> + Send;
}
