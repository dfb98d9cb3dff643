//! A ledger whose answers are counted and whose changes are told on, whichever it is.

use crate::ids::{AccountId, AttemptId, OnceId, WithdrawalId};
use crate::ledger::once::{Claim, Claimed, Keep};
use crate::ledger::{
    Account, Admission, Admitted, Amendment, Children, Cursor, Denial, Denied, Deposit, End,
    Family, Ledger, Live, News, NotOpened, Opening, Page, Receipt, Renewal, Reservation,
    Unavailable, Unsettled, Withdrawal, WithdrawalAsk, WithdrawalDenied,
};
use crate::money::Msat;

use super::Metrics;

/// Passes every verb on; notes whether it was answered, and how reservations ended.
#[derive(Clone, Debug)]
pub struct Counted<L> {
    ledger: L,
    metrics: Metrics,
    news: News,
}

impl<L: Ledger> Counted<L> {
    pub fn new(ledger: L, metrics: Metrics) -> Self {
        Self { ledger, metrics, news: News::default() }
    }

    /// Who is told which accounts have changed.
    pub fn news(&self) -> &News {
        &self.news
    }

    fn noted<T>(&self, answer: Result<T, Unavailable>) -> Result<T, Unavailable> {
        self.metrics.ledger_answered(answer.is_ok());
        answer
    }
}

impl<L: Ledger> Ledger for Counted<L> {
    fn live(&self) -> &Live {
        self.ledger.live()
    }

    async fn open(&self, opening: Opening) -> Result<Account, Unavailable> {
        self.noted(self.ledger.open(opening).await)
    }

    async fn open_children(
        &self,
        children: Children,
    ) -> Result<Result<Account, NotOpened>, Unavailable> {
        self.noted(self.ledger.open_children(children).await)
    }

    async fn amend(&self, amendment: Amendment) -> Result<Option<Account>, Unavailable> {
        let child = amendment.child.clone();
        let answer = self.noted(self.ledger.amend(amendment).await);
        self.news.changed(&child);
        answer
    }

    async fn family(&self, account: AccountId) -> Result<Option<Family>, Unavailable> {
        self.noted(self.ledger.family(account).await)
    }

    async fn deposit(&self, deposit: Deposit) -> Result<Account, Unavailable> {
        let account = deposit.account.clone();
        let answer = self.noted(self.ledger.deposit(deposit).await);
        self.news.changed(&account);
        answer
    }

    async fn admit(&self, ask: Admission) -> Result<Result<Admitted, Denial>, Unavailable> {
        self.noted(self.ledger.admit(ask).await)
    }

    async fn extend(
        &self,
        reservation: &mut Reservation,
        amount: Msat,
    ) -> Result<Result<Msat, Denied>, Unavailable> {
        self.noted(self.ledger.extend(reservation, amount).await)
    }

    async fn renew(&self, renewals: Vec<Renewal>) -> Result<(), Unavailable> {
        // Nothing to renew is nothing asked, and says nothing about the ledger.
        let asks = !renewals.is_empty();
        let answer = self.ledger.renew(renewals).await;
        if asks { self.noted(answer) } else { answer }
    }

    async fn end(&self, reservation: Reservation, end: End) -> Result<Receipt, Unsettled> {
        let (how, account) = (end.how(), reservation.account.clone());
        let answer = self.ledger.end(reservation, end).await;
        self.news.changed(&account);
        self.metrics.ledger_answered(!matches!(answer, Err(Unsettled::NoAnswer { .. })));
        // An end that somebody else had made before was counted by them.
        if let Ok(receipt) = &answer
            && receipt.how == how
        {
            self.metrics.ended(receipt);
        }
        answer
    }

    async fn expire(&self) -> Result<Vec<Receipt>, Unavailable> {
        let expired = self.noted(self.ledger.expire().await)?;
        expired.iter().for_each(|receipt| self.metrics.ended(receipt));
        Ok(expired)
    }

    async fn withdraw_begin(
        &self,
        ask: WithdrawalAsk,
    ) -> Result<Result<Withdrawal, WithdrawalDenied>, Unavailable> {
        let account = ask.account.clone();
        let answer = self.noted(self.ledger.withdraw_begin(ask).await);
        self.news.changed(&account);
        answer
    }

    async fn withdraw_commit(
        &self,
        account: AccountId,
        id: WithdrawalId,
    ) -> Result<(), Unavailable> {
        self.noted(self.ledger.withdraw_commit(account, id).await)
    }

    async fn withdraw_revert(
        &self,
        account: AccountId,
        id: WithdrawalId,
    ) -> Result<(), Unavailable> {
        self.noted(self.ledger.withdraw_revert(account, id).await)
    }

    async fn withdrawal(
        &self,
        account: AccountId,
        id: WithdrawalId,
    ) -> Result<Option<Withdrawal>, Unavailable> {
        self.noted(self.ledger.withdrawal(account, id).await)
    }

    async fn withdrawals_open(&self) -> Result<Vec<Withdrawal>, Unavailable> {
        self.noted(self.ledger.withdrawals_open().await)
    }

    async fn claim(&self, claim: Claim) -> Result<Claimed, Unavailable> {
        self.noted(self.ledger.claim(claim).await)
    }

    async fn keep(&self, keep: Keep) -> Result<bool, Unavailable> {
        self.noted(self.ledger.keep(keep).await)
    }

    async fn forget(
        &self,
        account: AccountId,
        once: OnceId,
        attempt: AttemptId,
    ) -> Result<(), Unavailable> {
        self.noted(self.ledger.forget(account, once, attempt).await)
    }

    async fn kept(&self, account: AccountId, once: OnceId) -> Result<Option<Vec<u8>>, Unavailable> {
        self.noted(self.ledger.kept(account, once).await)
    }

    async fn account(&self, account: AccountId) -> Result<Option<Account>, Unavailable> {
        self.noted(self.ledger.account(account).await)
    }

    async fn history(
        &self,
        account: AccountId,
        before: Option<Cursor>,
        limit: u32,
    ) -> Result<Page, Unavailable> {
        self.noted(self.ledger.history(account, before, limit).await)
    }
}
