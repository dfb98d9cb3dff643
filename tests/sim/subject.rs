//! What is simulated: a ledger that can be crashed, and whose rows can be read behind its back.

use std::collections::BTreeMap;

use nutgate::clock::Clock;
use nutgate::ids::AccountId;
use nutgate::ledger::Ledger;

use crate::oracle::Oracle;

pub(crate) trait Subject {
    type Ledger: Ledger;

    /// Begins anew, empty.
    async fn fresh(&mut self, clock: &Clock);

    fn ledger(&self) -> &Self::Ledger;

    /// Drops every handle and opens the same data again.
    async fn crash(&mut self);

    /// The rows of these accounts and all open reservations; an error if one makes no sense.
    async fn rows(&mut self, accounts: &[AccountId]) -> Result<Rows, String>;
}

/// What is written, read without the ledger's help.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Rows {
    pub(crate) accounts: BTreeMap<String, AccountRow>,
    /// Sorted.
    pub(crate) open: Vec<OpenRow>,
}

/// In msat, but for `open`. Signed, so that what must not be negative can be seen to be.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct AccountRow {
    pub(crate) deposited: i64,
    pub(crate) available: i64,
    pub(crate) reserved: i64,
    pub(crate) spent: i64,
    pub(crate) refunded: i64,
    pub(crate) shortfall: i64,
    /// How many reservations it says are open.
    pub(crate) open: i64,
    /// What its deposits add up to.
    pub(crate) deposits: i64,
    /// What its withdrawals add up to that were not reverted.
    pub(crate) withdrawn: i64,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct OpenRow {
    pub(crate) id: String,
    pub(crate) payer: String,
    pub(crate) key: String,
    pub(crate) amount: i64,
    pub(crate) deadline_ms: i64,
    pub(crate) accrued: i64,
}

impl Rows {
    /// That no money was made or lost, whatever the book says.
    pub(crate) fn check(&self) -> Result<(), String> {
        for (id, row) in &self.accounts {
            let mine = self.open.iter().filter(|open| open.payer == *id);
            let (count, held) =
                mine.fold((0, 0), |(count, sum), open| (count + 1, sum + open.amount));
            let parts = [row.available, row.reserved, row.spent, row.refunded];
            let wrong = if parts.iter().chain([&row.shortfall]).any(|part| *part < 0) {
                "something is negative"
            } else if parts.iter().sum::<i64>() != row.deposited {
                "deposited is not available + reserved + spent + refunded"
            } else if (row.reserved, row.open) != (held, count) {
                "reserved is not the sum of the open reservations"
            } else if row.deposits != row.deposited {
                "deposited is not the sum of the deposits"
            } else if row.withdrawn != row.refunded {
                "refunded is not the sum of the withdrawals"
            } else {
                continue;
            };
            return Err(format!("{wrong}: account {id}: {row:?}, open: {held} in {count}"));
        }
        let strange = self.open.iter().find(|open| !self.accounts.contains_key(&open.payer));
        strange.map_or(Ok(()), |open| Err(format!("nobody pays for {open:?}")))
    }

    pub(crate) fn spent(&self) -> i64 {
        self.accounts.values().map(|row| row.spent).sum()
    }

    pub(crate) fn deposited(&self) -> i64 {
        self.accounts.values().map(|row| row.deposited).sum()
    }
}

/// The book alone: nothing of it is ever lost, so a crash is nothing to it.
pub(crate) struct InMemory(pub(crate) Option<Oracle>);

impl Subject for InMemory {
    type Ledger = Oracle;

    async fn fresh(&mut self, clock: &Clock) {
        self.0 = Some(Oracle::new(clock.clone()));
    }

    fn ledger(&self) -> &Oracle {
        self.0.as_ref().expect("it was begun")
    }

    async fn crash(&mut self) {}

    async fn rows(&mut self, _: &[AccountId]) -> Result<Rows, String> {
        self.ledger().check_invariants()?;
        self.ledger().rows()
    }
}
