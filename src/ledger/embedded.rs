//! The ledger of one machine: the [`Book`] written through to SQLite.
//!
//! A verb runs on the store's writer thread: it pages in the rows it needs, applies the book's
//! rule, writes what changed, and is answered when the commit that holds it is known. Deposits
//! and withdrawals are forced to disk; reservations and their ends survive the death of the
//! process, and are forced with the next deposit.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::Connection;

use super::book::Book;
use super::once::{Claim, Claimed, Keep};
use super::{
    Account, Admission, Admitted, Amendment, Children, Cursor, Denial, Denied, Deposit, End,
    Family, Ledger, Live, NotOpened, Opening, Page, Receipt, Renewal, Reservation, Retention,
    Unavailable, Unsettled, Withdrawal, WithdrawalAsk, WithdrawalDenied,
};
use super::{history_rows, journal, once_rows, schema};
use crate::clock::{Clock, UnixMs};
use crate::ids::{AccountId, AttemptId, OnceId, WithdrawalId};
use crate::money::Msat;
use crate::store::{Durability, Store, StoreError};

/// Opens or creates the database that an [`Embedded`] stands on; one of an earlier version is
/// brought to this one's form first.
///
/// # Errors
/// It cannot be opened, or another process has it.
pub fn open_store(path: &Path) -> Result<Store, StoreError> {
    Store::prepared(path, schema::prepare)
}

/// The embedded backend; cheap to clone. One process owns its database.
#[derive(Clone, Debug)]
pub struct Embedded {
    store: Store,
    clock: Clock,
    pages: Arc<Mutex<Pages>>,
    live: Live,
    retention: Retention,
}

/// The part of the book that is in memory, and how many failed commits it knows of.
#[derive(Debug, Default)]
struct Pages {
    book: Book,
    failures_seen: u64,
}

impl Embedded {
    /// `store` must come from [`open_store`].
    pub fn new(store: Store, clock: Clock) -> Self {
        let (pages, live) = (Arc::default(), Live::default());
        Self { store, clock, pages, live, retention: Retention::default() }
    }

    /// The same, whose histories are told so far.
    #[must_use]
    pub fn keeping(self, retention: Retention) -> Self {
        Self { retention, ..self }
    }

    /// Forgets what no history tells, a bounded step at a time, until the caller drops it.
    pub async fn forget_for_ever(self) {
        loop {
            let mut last = String::new();
            while let Ok(Some(next)) = self.forget_history(last).await {
                last = next;
                tokio::time::sleep(FORGET_EVERY).await;
            }
            tokio::time::sleep(FORGET_ROUND).await;
        }
    }

    /// One step behind the request of this id. Answers where to go on.
    pub async fn forget_history(&self, last: String) -> Result<Option<String>, Unavailable> {
        let retention = self.retention;
        self.apply(Durability::Process, move |connection, _, now| {
            history_rows::forget(connection, &last, retention, now)
        })
        .await
    }

    /// Ends everything that was open: at start it all belongs to a process that is dead.
    pub async fn expire_all(&self) -> Result<Vec<Receipt>, Unavailable> {
        let mut receipts = Vec::new();
        loop {
            let some = self.expire_due(UnixMs(i64::MAX.cast_unsigned())).await?;
            if some.is_empty() {
                return Ok(receipts);
            }
            receipts.extend(some);
        }
    }

    /// One verb: `rule` pages in what it needs and applies itself to the book.
    async fn apply<T: Send + 'static>(
        &self,
        durability: Durability,
        rule: impl FnOnce(&Connection, &mut Book, UnixMs) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Unavailable> {
        let (pages, store) = (self.pages.clone(), self.store.clone());
        let clock = self.clock.clone();
        let work = move |connection: &Connection| {
            let mut pages = pages.lock().unwrap_or_else(PoisonError::into_inner);
            pages.drop_what_a_failed_commit_took_back(store.failures());
            let now = clock.now();
            let done = rule(connection, &mut pages.book, now)
                .and_then(|answer| pages.write_through(connection, now).map(|()| answer));
            if done.is_err() {
                pages.book = Book::default();
            }
            done
        };
        let unavailable = |error: StoreError| Unavailable(error.0);
        tokio::time::timeout(ANSWER_MAX, self.store.write(durability, work))
            .await
            .map_err(|_| Unavailable("no answer in time".to_owned()))?
            .map_err(unavailable)
    }

    async fn expire_due(&self, due: UnixMs) -> Result<Vec<Receipt>, Unavailable> {
        self.apply(Durability::Process, move |connection, book, now| {
            let mut receipts = Vec::new();
            for id in journal::due(connection, due, EXPIRED_AT_ONCE_MAX)? {
                journal::load_reservation(connection, book, &id)?;
                receipts.extend(book.expire(&id, due, now));
            }
            once_rows::prune_once(connection, now)?;
            Ok(receipts)
        })
        .await
    }
}

impl Pages {
    fn drop_what_a_failed_commit_took_back(&mut self, failures: u64) {
        if self.failures_seen != failures {
            self.book = Book::default();
            self.failures_seen = failures;
        }
    }

    /// Writes what changed, then forgets what no rule will ask for again.
    fn write_through(&mut self, connection: &Connection, now: UnixMs) -> Result<(), StoreError> {
        debug_assert_eq!(self.book.check_invariants(), Ok(()));
        let touched = self.book.take_touched();
        journal::save(connection, &self.book, &touched, now)?;
        let book = &mut self.book;
        book.deposits.clear();
        book.withdrawals.clear();
        book.once.clear();
        book.kept.clear();
        for id in touched.reservations.union(&touched.ended) {
            if book.reservations.get(id).is_some_and(|held| held.end.is_some()) {
                book.reservations.remove(id);
            }
        }
        if book.accounts.len() > ACCOUNTS_MAX {
            book.accounts.retain(|_, account| account.open_reservations > 0);
        }
        Ok(())
    }
}

impl Ledger for Embedded {
    fn live(&self) -> &Live {
        &self.live
    }

    async fn open(&self, opening: Opening) -> Result<Account, Unavailable> {
        self.apply(Durability::Disk, move |connection, book, _| {
            journal::load_account(connection, book, &opening.account)?;
            Ok(book.open(&opening))
        })
        .await
    }

    async fn open_children(
        &self,
        children: Children,
    ) -> Result<Result<Account, NotOpened>, Unavailable> {
        self.apply(Durability::Disk, move |connection, book, _| {
            journal::load_family(connection, book, &children.parent)?;
            for id in &children.accounts {
                journal::load_account(connection, book, id)?;
            }
            Ok(book.open_children(&children))
        })
        .await
    }

    async fn amend(&self, amendment: Amendment) -> Result<Option<Account>, Unavailable> {
        self.apply(Durability::Disk, move |connection, book, _| {
            journal::load_account(connection, book, &amendment.child)?;
            Ok(book.amend(&amendment))
        })
        .await
    }

    async fn family(&self, account: AccountId) -> Result<Option<Family>, Unavailable> {
        self.apply(Durability::Process, move |connection, book, _| {
            let children = journal::load_family(connection, book, &account)?;
            Ok(book.family_of(&account, &children))
        })
        .await
    }

    async fn deposit(&self, deposit: Deposit) -> Result<Account, Unavailable> {
        self.apply(Durability::Disk, move |connection, book, now| {
            journal::load_deposit(connection, book, &deposit.id)?;
            journal::load_account(connection, book, &deposit.account)?;
            book.deposit(deposit, now)
                .ok_or_else(|| StoreError("more than can be counted".to_owned()))
        })
        .await
    }

    async fn admit(&self, ask: Admission) -> Result<Result<Admitted, Denial>, Unavailable> {
        let (id, account) = (ask.reservation.clone(), ask.account.clone());
        let reservation = Reservation::open(id, account, ask.ceiling, &self.live);
        let admitted = self
            .apply(Durability::Process, move |connection, book, now| {
                // Also for a fresh id: a repetition must meet the end it already had.
                journal::load_reservation(connection, book, &ask.reservation)?;
                journal::load_account(connection, book, &ask.account)?;
                if let Some(once) = &ask.once {
                    once_rows::load_once(connection, book, &once.id)?;
                }
                Ok(book.admit(&ask, now))
            })
            .await?;
        Ok(match admitted {
            Ok((available, standing)) => Ok(Admitted { reservation, available, standing }),
            Err(denial) => {
                reservation.ended();
                Err(denial)
            }
        })
    }

    async fn extend(
        &self,
        reservation: &mut Reservation,
        amount: Msat,
    ) -> Result<Result<Msat, Denied>, Unavailable> {
        let id = reservation.id.clone();
        let extended = self
            .apply(Durability::Process, move |connection, book, now| {
                journal::load_reservation(connection, book, &id)?;
                Ok(book.extend(&id, amount, now))
            })
            .await?;
        if extended.is_ok() {
            reservation.amount = reservation.amount.max(amount);
        }
        Ok(extended)
    }

    async fn renew(&self, renewals: Vec<Renewal>) -> Result<(), Unavailable> {
        if renewals.is_empty() {
            return Ok(());
        }
        self.apply(Durability::Process, move |connection, book, now| {
            for renewal in &renewals {
                journal::load_reservation(connection, book, &renewal.reservation)?;
                book.renew(renewal, now);
            }
            Ok(())
        })
        .await
    }

    async fn end(&self, reservation: Reservation, end: End) -> Result<Receipt, Unsettled> {
        let id = reservation.id.clone();
        let (how, cost, record) = (end.how(), end.cost(), end.into_record());
        let ended = self
            .apply(Durability::Process, move |connection, book, now| {
                journal::load_reservation(connection, book, &id)?;
                Ok(book.end(&id, how, cost, record, now))
            })
            .await;
        match ended {
            Ok(receipt) => {
                reservation.ended();
                receipt.ok_or(Unsettled::Forgotten)
            }
            Err(why) => Err(Unsettled::NoAnswer { reservation, why }),
        }
    }

    async fn expire(&self) -> Result<Vec<Receipt>, Unavailable> {
        self.expire_due(self.clock.now()).await
    }

    async fn withdraw_begin(
        &self,
        ask: WithdrawalAsk,
    ) -> Result<Result<Withdrawal, WithdrawalDenied>, Unavailable> {
        self.apply(Durability::Disk, move |connection, book, now| {
            journal::load_withdrawal(connection, book, &ask.id)?;
            journal::load_account(connection, book, &ask.account)?;
            Ok(book.withdraw_begin(&ask, now))
        })
        .await
    }

    async fn withdraw_commit(&self, _: AccountId, id: WithdrawalId) -> Result<(), Unavailable> {
        self.apply(Durability::Disk, move |connection, book, _| {
            journal::load_withdrawal(connection, book, &id)?;
            book.withdraw_commit(&id);
            Ok(())
        })
        .await
    }

    async fn withdraw_revert(&self, _: AccountId, id: WithdrawalId) -> Result<(), Unavailable> {
        self.apply(Durability::Disk, move |connection, book, _| {
            journal::load_withdrawal(connection, book, &id)?;
            book.withdraw_revert(&id);
            Ok(())
        })
        .await
    }

    async fn withdrawal(
        &self,
        _: AccountId,
        id: WithdrawalId,
    ) -> Result<Option<Withdrawal>, Unavailable> {
        self.apply(Durability::Process, move |connection, book, _| {
            journal::load_withdrawal(connection, book, &id)?;
            Ok(book.withdrawal(&id).cloned())
        })
        .await
    }

    async fn withdrawals_open(&self) -> Result<Vec<Withdrawal>, Unavailable> {
        self.apply(Durability::Process, |connection, _, _| journal::withdrawals_begun(connection))
            .await
    }

    async fn claim(&self, claim: Claim) -> Result<Claimed, Unavailable> {
        self.apply(Durability::Process, move |connection, book, now| {
            once_rows::load_once(connection, book, &claim.once.id)?;
            once_rows::load_kept(connection, book, &claim.account)?;
            Ok(book.claim(&claim, now))
        })
        .await
    }

    async fn keep(&self, keep: Keep) -> Result<bool, Unavailable> {
        self.apply(Durability::Process, move |connection, book, now| {
            once_rows::load_once(connection, book, &keep.once)?;
            once_rows::load_kept(connection, book, &keep.account)?;
            Ok(book.keep(&keep, now))
        })
        .await
    }

    async fn forget(
        &self,
        _: AccountId,
        once: OnceId,
        attempt: AttemptId,
    ) -> Result<(), Unavailable> {
        self.apply(Durability::Process, move |connection, book, _| {
            once_rows::load_once(connection, book, &once)?;
            book.forget(&once, &attempt);
            Ok(())
        })
        .await
    }

    async fn kept(&self, _: AccountId, once: OnceId) -> Result<Option<Vec<u8>>, Unavailable> {
        self.apply(Durability::Process, move |connection, book, now| {
            once_rows::load_once(connection, book, &once)?;
            Ok(book.kept(&once, now))
        })
        .await
    }

    async fn account(&self, account: AccountId) -> Result<Option<Account>, Unavailable> {
        self.apply(Durability::Process, move |connection, book, _| {
            journal::load_account(connection, book, &account)?;
            Ok(book.account(&account).cloned())
        })
        .await
    }

    async fn history(
        &self,
        account: AccountId,
        before: Option<Cursor>,
        limit: u32,
    ) -> Result<Page, Unavailable> {
        let retention = self.retention;
        self.apply(Durability::Process, move |connection, _, now| {
            history_rows::history(connection, &account, before, limit, retention, now)
        })
        .await
    }
}

/// How long a verb may take before its caller is told that the ledger does not answer. It may
/// still happen; a reservation made that way expires at its deadline.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// Accounts kept in memory; beyond it those without open reservations are paged out.
const ACCOUNTS_MAX: usize = 50_000;

/// Between two steps of forgetting, and between two rounds of them.
const FORGET_EVERY: Duration = Duration::from_secs(1);
const FORGET_ROUND: Duration = Duration::from_secs(600);

/// Reservations ended by one call of `expire`, so that it never holds the writer for long.
const EXPIRED_AT_ONCE_MAX: usize = 1_000;

#[cfg(test)]
#[path = "embedded_tests.rs"]
mod tests;
