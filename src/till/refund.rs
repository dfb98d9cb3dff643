//! Withdraw, then issue: balance becomes a token, booked before it leaves.
//!
//! What a repetition answers is the token that was lost on its way, not a second one: first a
//! withdrawal that was begun and not finished, or that nobody was there to be given; then the same
//! amount if nobody has redeemed it yet; then whatever can newly be withdrawn; then the last
//! withdrawal again.

use std::time::Duration;

use super::flights::{Boarding, Flight};
use super::payment::payment_of;
use super::{PayRefused, RefundAsk, RefundFlown, RefundRefused, Refunded, Till};
use crate::crash::{self, Step};
use crate::ids::{AccountId, WithdrawalId};
use crate::ledger::{
    Account, Amount, Ledger, Unavailable, Withdrawal, WithdrawalAsk, WithdrawalDenied,
    WithdrawalState,
};
use crate::money::Msat;
use crate::wallet::{Issue, Unit, WalletError};

type Outcome = Result<Refunded, RefundRefused>;

impl<L: Ledger> Till<L> {
    /// Gives value back as ecash. Repeated when nothing more is left, it answers the last
    /// refund again.
    pub async fn refund(&self, account: AccountId, ask: RefundAsk) -> Outcome {
        let patience = self.wallet().timeout();
        for _ in 0..FLIGHTS_MAX {
            let waiting = match self.0.refunds.board(&account) {
                Boarding::Pilot(flight) => {
                    flight.asked();
                    let waiting = flight.waiting();
                    let flown = self.clone().fly_refund(flight, account.clone(), ask.clone());
                    self.wallet().handle().spawn(flown);
                    waiting
                }
                Boarding::Passenger(waiting) => waiting,
            };
            match waiting.outcome(patience).await {
                Some(RefundFlown::Ecash(asked, outcome)) if asked == ask => {
                    if let Ok(refunded) = &outcome {
                        self.wallet().note_handed_out(&refunded.id).await;
                    }
                    return outcome;
                }
                Some(_) => {}
                None => return Err(RefundRefused::Pending),
            }
        }
        Err(RefundRefused::Pending)
    }

    async fn fly_refund(
        self,
        flight: Flight<AccountId, RefundFlown>,
        account: AccountId,
        ask: RefundAsk,
    ) {
        let outcome = self.refund_now(&account, &ask).await;
        flight.land(RefundFlown::Ecash(ask, outcome));
    }

    async fn refund_now(&self, account: &AccountId, ask: &RefundAsk) -> Outcome {
        let (mut holder, mut last) = self.holder(account).await?;
        if let Some(made) = self.made_once(account, ask).await? {
            return self.finish(&made, self.wallet().timeout()).await;
        }
        if let Some(begun) = last.as_ref().filter(|last| last.state == WithdrawalState::Begun) {
            if payment_of(begun).is_some() {
                // Whatever becomes of that payment: what it leaves is what can be refunded.
                self.end_payment(begun).await?;
                (holder, last) = self.holder(account).await?;
            } else if !ask.is_its_own() {
                return self.finish(begun, self.wallet().timeout()).await;
            }
        }
        if let Some(repeated) = self.repeated(account, ask, last.as_ref()).await? {
            return self.finish(&repeated, Duration::ZERO).await;
        }
        if ask.amount.is_none() && holder.open_reservations > 0 {
            return Err(RefundRefused::InProgress { open: holder.open_reservations });
        }
        let sources = self.sources(account, ask).await?;
        let payable: Vec<(String, Unit, Msat)> = sources
            .into_iter()
            .filter_map(|(mint, unit)| {
                let amount = whole(&unit, ask.amount, holder.available)?;
                Some((mint, unit, amount))
            })
            .collect();
        if payable.is_empty() {
            return self.nothing_new(account, ask, &holder, last.as_ref()).await;
        }
        let Some((mint, unit, _)) = self.source_that_holds(payable).await else {
            // Another gateway may have booked this very refund since, and emptied the pool.
            let id = ask.id(account, &holder);
            let begun = self.ledger().withdrawal(account.clone(), id).await;
            if let Some(begun) = begun.map_err(unanswered)? {
                return self.finish(&begun, self.wallet().timeout()).await;
            }
            self.could_not_give(account, &holder).await;
            if ask.mint.is_some() {
                return Err(RefundRefused::MintHasTooLittle);
            }
            log::error!("refund of {account}: no mint's pool holds what the ledger owes");
            return Err(RefundRefused::Pending);
        };
        self.withdraw(account, ask, &holder, mint, unit).await
    }

    /// What was given before and may not have arrived, unless this ask is for one of its own.
    async fn repeated(
        &self,
        account: &AccountId,
        ask: &RefundAsk,
        last: Option<&Withdrawal>,
    ) -> Result<Option<Withdrawal>, RefundRefused> {
        if ask.is_its_own() {
            return Ok(None);
        }
        if let Some(kept) = self.kept_back(account).await? {
            return Ok(Some(kept));
        }
        match last {
            Some(last) if self.is_repeated(ask, last).await? => Ok(Some(last.clone())),
            Some(_) | None => Ok(None),
        }
    }

    /// A withdrawal whose token nobody was there to be given, and nobody has redeemed: it comes
    /// before any new one, or it would never reach anybody.
    async fn kept_back(&self, account: &AccountId) -> Result<Option<Withdrawal>, RefundRefused> {
        for _ in 0..KEPT_BACK_MAX {
            let kept = self.wallet().kept_back(account).await.map_err(|error| unread(&error))?;
            let Some(id) = kept else { return Ok(None) };
            if !self.wallet().is_claimed(&id).await.map_err(|error| unread(&error))? {
                return self.ledger().withdrawal(account.clone(), id).await.map_err(unanswered);
            }
            self.wallet().note_handed_out(&id).await;
        }
        Ok(None)
    }

    /// Whether this amount is what was given last, and its answer may have been lost: its token
    /// has not been redeemed. Of everything there is no such telling: it is what there is now.
    async fn is_repeated(&self, ask: &RefundAsk, last: &Withdrawal) -> Result<bool, RefundRefused> {
        let elsewhere =
            |asked: &String| self.wallet().accepted_url(asked).is_none_or(|url| url != last.mint);
        if ask.amount != Some(last.amount)
            || last.state != WithdrawalState::Committed
            || payment_of(last).is_some()
            || ask.mint.as_ref().is_some_and(elsewhere)
        {
            return Ok(false);
        }
        Ok(!self.wallet().is_claimed(&last.id).await.map_err(|error| unread(&error))?)
    }

    /// The account, which is nobody's child, and its last withdrawal.
    async fn holder(
        &self,
        account: &AccountId,
    ) -> Result<(Account, Option<Withdrawal>), RefundRefused> {
        let holder = self.ledger().account(account.clone()).await.map_err(unanswered)?;
        let holder = holder.ok_or(RefundRefused::NoAccount)?;
        if holder.parent.is_some() {
            return Err(RefundRefused::Child);
        }
        let last = self.last_withdrawal(account, &holder).await?;
        Ok((holder, last))
    }

    async fn withdraw(
        &self,
        account: &AccountId,
        ask: &RefundAsk,
        holder: &Account,
        mint: String,
        unit: Unit,
    ) -> Outcome {
        let amount = match ask.amount {
            Some(amount) => Amount::Exactly(amount),
            None => Amount::Everything { unit: unit.size },
        };
        let id = ask.id(account, holder);
        let account = account.clone();
        let begin = WithdrawalAsk { id, account, amount, mint, unit: unit.name };
        let begun = self.ledger().withdraw_begin(begin).await.map_err(unanswered)?;
        let withdrawal = begun.map_err(denied)?;
        crash::point(Step::WithdrawBegun);
        self.finish(&withdrawal, self.wallet().timeout()).await
    }

    /// Issues what is booked and says so to the ledger. Repeated, it is the same token, also
    /// by several gateways at once.
    pub(super) async fn finish(&self, withdrawal: &Withdrawal, patience: Duration) -> Outcome {
        if payment_of(withdrawal).is_some() {
            // It has no ecash; who asks for some comes again when it is decided.
            self.end_payment(withdrawal).await?;
            return Err(RefundRefused::Pending);
        }
        let issue = Issue {
            id: withdrawal.id.clone(),
            account: withdrawal.account.clone(),
            mint: withdrawal.mint.clone(),
            unit: withdrawal.unit.clone(),
            amount: withdrawal.amount,
        };
        let issued = self.wallet().issue(&issue, patience).await.map_err(|error| {
            log::error!("withdrawal {}: not issued yet: {error}", withdrawal.id);
            RefundRefused::Pending
        })?;
        let cashu_token = issued.ok_or(RefundRefused::Pending)?;
        crash::point(Step::ChangeIssued);
        if withdrawal.state == WithdrawalState::Begun {
            let (account, id) = (withdrawal.account.clone(), withdrawal.id.clone());
            let committed = self.ledger().withdraw_commit(account, id).await;
            committed.map_err(unanswered)?;
            crash::point(Step::WithdrawCommitted);
        }
        Ok(Refunded {
            id: withdrawal.id.clone(),
            cashu_token,
            amount: withdrawal.amount,
            mint: withdrawal.mint.clone(),
            unit: withdrawal.unit.clone(),
        })
    }

    /// What this very request has booked before.
    async fn made_once(
        &self,
        account: &AccountId,
        ask: &RefundAsk,
    ) -> Result<Option<Withdrawal>, RefundRefused> {
        let Some(id) = ask.once.clone() else { return Ok(None) };
        let made = self.ledger().withdrawal(account.clone(), id).await.map_err(unanswered)?;
        Ok(made.filter(|made| made.state != WithdrawalState::Reverted))
    }

    /// Brings a payment to its end, if the mint says now what that is.
    pub(super) async fn end_payment(&self, begun: &Withdrawal) -> Result<(), RefundRefused> {
        match self.conclude(begun).await {
            Ok(_) | Err(PayRefused::Failed) => Ok(()),
            Err(PayRefused::Refund(refused)) => Err(refused),
            Err(_) => Err(RefundRefused::Pending),
        }
    }

    pub(super) async fn last_withdrawal(
        &self,
        account: &AccountId,
        holder: &Account,
    ) -> Result<Option<Withdrawal>, RefundRefused> {
        let Some(sequence) = holder.withdrawals.checked_sub(1) else { return Ok(None) };
        let id = WithdrawalId::nth(account, sequence);
        self.ledger().withdrawal(account.clone(), id).await.map_err(unanswered)
    }

    /// Nothing can newly be withdrawn: the last withdrawal again, if it is what was asked.
    async fn nothing_new(
        &self,
        account: &AccountId,
        ask: &RefundAsk,
        holder: &Account,
        last: Option<&Withdrawal>,
    ) -> Outcome {
        let available = holder.available;
        let is_ecash = |last: &&Withdrawal| payment_of(last).is_none();
        let last = last.filter(|last| last.state == WithdrawalState::Committed).filter(is_ecash);
        match (ask.amount, last) {
            (None, Some(last)) => self.finish(last, Duration::ZERO).await,
            (Some(amount), Some(last)) if last.amount == amount && !ask.is_its_own() => {
                self.finish(last, Duration::ZERO).await
            }
            _ if available == Msat::ZERO => Err(self.nothing_left(account, holder).await?),
            (Some(amount), _) if amount > available => {
                Err(RefundRefused::Insufficient { available })
            }
            _ => Err(RefundRefused::TooSmall { available }),
        }
    }

    /// The mints and units to pay from, best first: what the account was last paid with, then
    /// the accepted ones in configuration's order. Another unit only if the mint asked for has
    /// not that one: else what is below one sat would be a refund of its own in msat, and a
    /// repetition not the same token.
    pub(super) async fn sources(
        &self,
        account: &AccountId,
        ask: &RefundAsk,
    ) -> Result<Vec<(String, Unit)>, RefundRefused> {
        let asked = match &ask.mint {
            Some(url) => {
                let accepted = self.wallet().accepted_url(url);
                Some(accepted.ok_or(RefundRefused::MintNotAccepted)?)
            }
            None => None,
        };
        let paid = self.wallet().last_paid_with(account).await.unwrap_or_default();
        let paid = paid.and_then(|(mint, unit)| Some((mint, Unit::named(&unit)?)));
        let paid_unit = paid.as_ref().map(|(_, unit)| unit.clone());
        let accepted = self.wallet().accepted().into_iter().flat_map(|mint| {
            let url = mint.url;
            mint.units.into_iter().map(move |unit| (url.clone(), unit))
        });
        let mut sources: Vec<(String, Unit)> = paid.into_iter().chain(accepted).collect();
        sources.retain(|(mint, _)| asked.as_ref().is_none_or(|asked| asked == mint));
        if sources.iter().any(|(_, unit)| Some(unit) == paid_unit.as_ref()) {
            sources.retain(|(_, unit)| Some(unit) == paid_unit.as_ref());
        }
        Ok(sources)
    }

    /// The first source whose pool is worth its amount.
    pub(super) async fn source_that_holds(
        &self,
        sources: Vec<(String, Unit, Msat)>,
    ) -> Option<(String, Unit, Msat)> {
        for (mint, unit, amount) in sources {
            if self.wallet().holds(&mint, &unit, amount).await {
                return Some((mint, unit, amount));
            }
        }
        None
    }
}

impl RefundAsk {
    fn id(&self, account: &AccountId, holder: &Account) -> WithdrawalId {
        self.once.clone().unwrap_or_else(|| WithdrawalId::nth(account, holder.withdrawals))
    }

    /// An exact amount under a key of its own: another refund of as much is not this one.
    fn is_its_own(&self) -> bool {
        self.once.is_some() && self.amount.is_some()
    }
}

/// What of this unit can be paid: the exact amount if it is whole units and there, or all that
/// is there in whole units.
fn whole(unit: &Unit, asked: Option<Msat>, available: Msat) -> Option<Msat> {
    let amount = asked.unwrap_or(available.floor_to(unit.size));
    let payable =
        amount > Msat::ZERO && amount <= available && amount.floor_to(unit.size) == amount;
    payable.then_some(amount)
}

pub(super) fn denied(denied: WithdrawalDenied) -> RefundRefused {
    match denied {
        WithdrawalDenied::NoAccount => RefundRefused::NoAccount,
        WithdrawalDenied::Child => RefundRefused::Child,
        WithdrawalDenied::Insufficient { available } => RefundRefused::Insufficient { available },
        WithdrawalDenied::TooSmall { available } => RefundRefused::TooSmall { available },
        WithdrawalDenied::RequestsInProgress { open } => RefundRefused::InProgress { open },
    }
}

pub(super) fn unanswered(why: Unavailable) -> RefundRefused {
    log::warn!("refund: the ledger does not answer: {why:?}");
    RefundRefused::LedgerUnavailable
}

pub(super) fn unread(error: &WalletError) -> RefundRefused {
    log::warn!("refund: the wallet's rows cannot be read: {error}");
    RefundRefused::LedgerUnavailable
}

/// Tokens that were redeemed without being given out, looked at in one refund: there are none but
/// after a crash.
const KEPT_BACK_MAX: u32 = 8;

/// Flights a caller boards before it is told to come back: the others were asked otherwise.
const FLIGHTS_MAX: u32 = 8;
