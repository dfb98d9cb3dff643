//! What a simulation can do to a ledger, as data, and what a ledger answers to it.

use nutgate::clock::UnixMs;
use nutgate::ids::{AccountId, AttemptId, OnceId, ReservationId, WithdrawalId};
use nutgate::ledger::once::{Claim, Claimed, Keep};
use nutgate::ledger::terms::Standing;
use nutgate::ledger::{
    Account, Admission, Amendment, Children, Cursor, Denial, Denied, Deposit, Family, Ledger,
    NotOpened, Opening, Page, Receipt, Record, Renewal, Reservation, Unavailable, Unsettled,
    Withdrawal, WithdrawalAsk, WithdrawalDenied,
};
use nutgate::money::Msat;

/// One step of a simulation.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Say(Command),
    /// Executed, but the answer is lost: said again, perhaps by a process started anew.
    SayTwice {
        command: Command,
        crash_between: bool,
    },
    SetClock(UnixMs),
    /// Everything that is in memory is gone.
    Crash,
}

#[derive(Clone, Debug)]
pub(crate) enum Command {
    Open(Opening),
    OpenChildren(Children),
    Amend(Amendment),
    Deposit(Deposit),
    Admit(Admission),
    Extend(Known, Msat),
    Renew(Vec<Renewal>),
    Settle(Known, Msat, Record),
    Release(Known),
    Expire,
    WithdrawBegin(WithdrawalAsk),
    WithdrawCommit(AccountId, WithdrawalId),
    WithdrawRevert(AccountId, WithdrawalId),
    Withdrawal(AccountId, WithdrawalId),
    WithdrawalsOpen,
    Account(AccountId),
    Family(AccountId),
    History(AccountId, Option<Cursor>, u32),
    Claim(Claim),
    Keep(Keep),
    Forget(AccountId, OnceId, AttemptId),
    Kept(AccountId, OnceId),
}

/// What a process needs to remember of a reservation to end it.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) id: ReservationId,
    pub(crate) account: AccountId,
    pub(crate) amount: Msat,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Account(Option<Account>),
    /// The parent.
    Opened(Result<Account, NotOpened>),
    Family(Box<Option<Family>>),
    Admitted(Result<(Msat, Standing), Denial>),
    Extended(Result<Msat, Denied>),
    /// `None`: forgotten.
    Ended(Option<Receipt>),
    /// Of several accounts in an order that backends may choose, so sorted.
    Expired(Vec<Receipt>),
    Begun(Result<Withdrawal, WithdrawalDenied>),
    /// Sorted.
    Withdrawals(Vec<Withdrawal>),
    Page(Page),
    Claimed(Claimed),
    Keeps(bool),
    Kept(Option<Vec<u8>>),
    Done,
    /// Why is each backend's own.
    Unavailable,
}

impl Command {
    pub(crate) async fn say<L: Ledger>(&self, ledger: &L) -> Answer {
        self.try_say(ledger).await.unwrap_or(Answer::Unavailable)
    }

    async fn try_say<L: Ledger>(&self, ledger: &L) -> Result<Answer, Unavailable> {
        Ok(match self.clone() {
            Self::Open(opening) => Answer::Account(Some(ledger.open(opening).await?)),
            Self::OpenChildren(children) => Answer::Opened(ledger.open_children(children).await?),
            Self::Amend(amendment) => Answer::Account(ledger.amend(amendment).await?),
            Self::Deposit(deposit) => Answer::Account(Some(ledger.deposit(deposit).await?)),
            Self::Admit(ask) => {
                let admitted = ledger.admit(ask).await?;
                Answer::Admitted(admitted.map(|admitted| (admitted.available, admitted.standing)))
            }
            Self::Extend(known, amount) => {
                Answer::Extended(ledger.extend(&mut known.reservation(ledger), amount).await?)
            }
            Self::Renew(renewals) => {
                ledger.renew(renewals).await?;
                Answer::Done
            }
            Self::Settle(known, cost, record) => {
                ended(ledger.settle(known.reservation(ledger), cost, record).await)?
            }
            Self::Release(known) => ended(ledger.release(known.reservation(ledger)).await)?,
            Self::Expire => {
                let mut receipts = ledger.expire().await?;
                receipts.sort_by_key(|receipt| format!("{receipt:?}"));
                Answer::Expired(receipts)
            }
            Self::WithdrawBegin(ask) => Answer::Begun(ledger.withdraw_begin(ask).await?),
            Self::WithdrawCommit(account, id) => {
                ledger.withdraw_commit(account, id).await?;
                Answer::Done
            }
            Self::WithdrawRevert(account, id) => {
                ledger.withdraw_revert(account, id).await?;
                Answer::Done
            }
            Self::Withdrawal(account, id) => {
                Answer::Withdrawals(ledger.withdrawal(account, id).await?.into_iter().collect())
            }
            Self::WithdrawalsOpen => {
                let mut open = ledger.withdrawals_open().await?;
                open.sort_by(|one, other| one.id.cmp(&other.id));
                Answer::Withdrawals(open)
            }
            Self::Account(id) => Answer::Account(ledger.account(id).await?),
            Self::Family(id) => Answer::Family(Box::new(ledger.family(id).await?)),
            Self::Claim(claim) => Answer::Claimed(ledger.claim(claim).await?),
            Self::Keep(keep) => Answer::Keeps(ledger.keep(keep).await?),
            Self::Forget(account, once, attempt) => {
                ledger.forget(account, once, attempt).await?;
                Answer::Done
            }
            Self::Kept(account, once) => Answer::Kept(ledger.kept(account, once).await?),
            Self::History(id, before, limit) => {
                Answer::Page(ledger.history(id, before, limit).await?)
            }
        })
    }
}

impl Known {
    fn reservation<L: Ledger>(self, ledger: &L) -> Reservation {
        Reservation::open(self.id, self.account, self.amount, ledger.live())
    }
}

fn ended(receipt: Result<Receipt, Unsettled>) -> Result<Answer, Unavailable> {
    match receipt {
        Ok(receipt) => Ok(Answer::Ended(Some(receipt))),
        Err(Unsettled::Forgotten) => Ok(Answer::Ended(None)),
        Err(Unsettled::NoAnswer { why, .. }) => Err(why),
    }
}
