//! The book as a ledger in memory: what every backend is held against.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nutgate::clock::{Clock, UnixMs};
use nutgate::ids::{AccountId, AttemptId, DepositId, OnceId, ReservationId, WithdrawalId};
use nutgate::ledger::book::{Book, Held};
use nutgate::ledger::once::{Claim, Claimed, Keep};
use nutgate::ledger::{
    Account, Admission, Admitted, Amendment, Children, Cursor, Denial, Denied, Deposit, End,
    Family, Ledger, Live, NotOpened, Opening, Page, Receipt, Renewal, Reservation, Unavailable,
    Unsettled, Withdrawal, WithdrawalAsk, WithdrawalDenied, WithdrawalState,
};
use nutgate::money::Msat;

use crate::command::Known;
use crate::subject::{AccountRow, OpenRow, Rows};

#[derive(Clone)]
pub(crate) struct Oracle {
    clock: Clock,
    live: Live,
    pages: Arc<Mutex<Pages>>,
}

/// The book, and what to ask it about.
#[derive(Default)]
struct Pages {
    book: Book,
    accounts: BTreeSet<AccountId>,
    /// The open ones, and what has ended since somebody last looked.
    reservations: BTreeSet<ReservationId>,
    withdrawals: BTreeSet<WithdrawalId>,
    /// Who has them, and how much.
    deposits: BTreeMap<DepositId, (AccountId, Msat)>,
}

impl Oracle {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, live: Live::default(), pages: Arc::default() }
    }

    pub(crate) fn knows(&self, id: &AccountId) -> Option<Account> {
        self.pages().book.account(id).cloned()
    }

    /// What could be ended now.
    pub(crate) fn open(&self) -> Vec<Known> {
        let known = |(id, held): (&ReservationId, &Held)| Known {
            id: id.clone(),
            account: held.key.clone(),
            amount: held.amount,
        };
        let mut pages = self.pages();
        pages.forget_ended();
        pages.open().map(known).collect()
    }

    /// What the rows of a backend that did the same must be.
    pub(crate) fn rows(&self) -> Result<Rows, String> {
        let mut pages = self.pages();
        pages.forget_ended();
        let mut accounts = BTreeMap::new();
        for (id, account) in
            pages.accounts.iter().filter_map(|id| Some((id, pages.book.account(id)?)))
        {
            let row = AccountRow {
                deposited: account.deposited.to_i64(),
                available: account.available.to_i64(),
                reserved: account.reserved.to_i64(),
                spent: account.spent.to_i64(),
                refunded: account.refunded.to_i64(),
                shortfall: account.shortfall.to_i64(),
                open: account.open_reservations.cast_signed(),
                ..AccountRow::default()
            };
            accounts.insert(id.to_string(), row);
        }
        for (owner, amount) in pages.deposits.values() {
            let row = accounts.get_mut(owner.as_str()).ok_or("a deposit is nobody's")?;
            row.deposits += amount.to_i64();
        }
        for withdrawal in pages.withdrawals.iter().filter_map(|id| pages.book.withdrawal(id)) {
            let owner = withdrawal.account.as_str();
            let row = accounts.get_mut(owner).ok_or("a withdrawal is nobody's")?;
            let gone = withdrawal.state != WithdrawalState::Reverted;
            row.withdrawn += if gone { withdrawal.amount.to_i64() } else { 0 };
        }
        let open = pages.open().map(|(id, held)| OpenRow {
            id: id.to_string(),
            payer: held.account.to_string(),
            key: held.key.to_string(),
            amount: held.amount.to_i64(),
            deadline_ms: held.deadline.to_i64(),
            accrued: held.accrued.to_i64(),
        });
        Ok(Rows { accounts, open: open.collect() })
    }

    pub(crate) fn check_invariants(&self) -> Result<(), String> {
        self.pages().book.check_invariants()
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pages {
    fn open(&self) -> impl Iterator<Item = (&ReservationId, &Held)> {
        let held = |id| self.book.reservation(id).filter(|held| held.end.is_none());
        self.reservations.iter().filter_map(move |id| Some((id, held(id)?)))
    }

    /// Nobody asks for them again, and looking at them takes time.
    fn forget_ended(&mut self) {
        let open = self.open().map(|(id, _)| id.clone()).collect();
        self.reservations = open;
    }

    /// The longest overdue first.
    fn due(&self, now: UnixMs) -> Vec<ReservationId> {
        let due = self.open().filter(|(_, held)| held.deadline <= now);
        let mut due: Vec<_> = due.map(|(id, held)| (held.deadline, id.clone())).collect();
        due.sort();
        due.into_iter().map(|(_, id)| id).collect()
    }
}

impl Ledger for Oracle {
    fn live(&self) -> &Live {
        &self.live
    }

    async fn open(&self, opening: Opening) -> Result<Account, Unavailable> {
        let mut pages = self.pages();
        pages.accounts.insert(opening.account.clone());
        Ok(pages.book.open(&opening))
    }

    async fn open_children(
        &self,
        children: Children,
    ) -> Result<Result<Account, NotOpened>, Unavailable> {
        let mut pages = self.pages();
        pages.accounts.extend(children.accounts.iter().cloned());
        Ok(pages.book.open_children(&children))
    }

    async fn amend(&self, amendment: Amendment) -> Result<Option<Account>, Unavailable> {
        Ok(self.pages().book.amend(&amendment))
    }

    async fn family(&self, account: AccountId) -> Result<Option<Family>, Unavailable> {
        Ok(self.pages().book.family(&account))
    }

    async fn deposit(&self, deposit: Deposit) -> Result<Account, Unavailable> {
        let mut pages = self.pages();
        let beyond = || Unavailable("more than can be counted".to_owned());
        let account = pages.book.deposit(deposit.clone(), self.clock.now()).ok_or_else(beyond)?;
        let known = pages.book.account(&deposit.account);
        let payer = known.and_then(|known| known.parent.clone()).unwrap_or(deposit.account);
        pages.accounts.insert(payer.clone());
        pages.deposits.entry(deposit.id).or_insert((payer, deposit.amount));
        Ok(account)
    }

    async fn admit(&self, ask: Admission) -> Result<Result<Admitted, Denial>, Unavailable> {
        let mut pages = self.pages();
        let admitted = pages.book.admit(&ask, self.clock.now());
        if admitted.is_ok() {
            pages.reservations.insert(ask.reservation.clone());
        }
        let reservation = Reservation::open(ask.reservation, ask.account, ask.ceiling, &self.live);
        Ok(admitted.map(|(available, standing)| Admitted { reservation, available, standing }))
    }

    async fn extend(
        &self,
        reservation: &mut Reservation,
        amount: Msat,
    ) -> Result<Result<Msat, Denied>, Unavailable> {
        Ok(self.pages().book.extend(&reservation.id, amount, self.clock.now()))
    }

    async fn renew(&self, renewals: Vec<Renewal>) -> Result<(), Unavailable> {
        let now = self.clock.now();
        renewals.iter().for_each(|renewal| self.pages().book.renew(renewal, now));
        Ok(())
    }

    async fn end(&self, reservation: Reservation, end: End) -> Result<Receipt, Unsettled> {
        let (now, how, cost) = (self.clock.now(), end.how(), end.cost());
        let receipt = self.pages().book.end(&reservation.id, how, cost, end.into_record(), now);
        receipt.ok_or(Unsettled::Forgotten)
    }

    async fn expire(&self) -> Result<Vec<Receipt>, Unavailable> {
        let (now, mut pages) = (self.clock.now(), self.pages());
        let due = pages.due(now);
        Ok(due.iter().filter_map(|id| pages.book.expire(id, now, now)).collect())
    }

    async fn withdraw_begin(
        &self,
        ask: WithdrawalAsk,
    ) -> Result<Result<Withdrawal, WithdrawalDenied>, Unavailable> {
        let mut pages = self.pages();
        pages.withdrawals.insert(ask.id.clone());
        Ok(pages.book.withdraw_begin(&ask, self.clock.now()))
    }

    async fn withdraw_commit(&self, _: AccountId, id: WithdrawalId) -> Result<(), Unavailable> {
        self.pages().book.withdraw_commit(&id);
        Ok(())
    }

    async fn withdraw_revert(&self, _: AccountId, id: WithdrawalId) -> Result<(), Unavailable> {
        self.pages().book.withdraw_revert(&id);
        Ok(())
    }

    async fn withdrawal(
        &self,
        _: AccountId,
        id: WithdrawalId,
    ) -> Result<Option<Withdrawal>, Unavailable> {
        Ok(self.pages().book.withdrawal(&id).cloned())
    }

    async fn withdrawals_open(&self) -> Result<Vec<Withdrawal>, Unavailable> {
        let pages = self.pages();
        let known = pages.withdrawals.iter().filter_map(|id| pages.book.withdrawal(id));
        Ok(known.filter(|known| known.state == WithdrawalState::Begun).cloned().collect())
    }

    async fn claim(&self, claim: Claim) -> Result<Claimed, Unavailable> {
        Ok(self.pages().book.claim(&claim, self.clock.now()))
    }

    async fn keep(&self, keep: Keep) -> Result<bool, Unavailable> {
        Ok(self.pages().book.keep(&keep, self.clock.now()))
    }

    async fn forget(
        &self,
        _: AccountId,
        once: OnceId,
        attempt: AttemptId,
    ) -> Result<(), Unavailable> {
        self.pages().book.forget(&once, &attempt);
        Ok(())
    }

    async fn kept(&self, _: AccountId, once: OnceId) -> Result<Option<Vec<u8>>, Unavailable> {
        Ok(self.pages().book.kept(&once, self.clock.now()))
    }

    async fn account(&self, account: AccountId) -> Result<Option<Account>, Unavailable> {
        Ok(self.knows(&account))
    }

    async fn history(
        &self,
        account: AccountId,
        before: Option<Cursor>,
        limit: u32,
    ) -> Result<Page, Unavailable> {
        Ok(self.pages().book.history(&account, before, limit))
    }
}
