//! Withdraw, then pay: balance leaves over Lightning, booked before it leaves.
//!
//! ```text
//! host: invoice    wallet: planned     ledger: withdrawal begun (it names the payment)
//! wallet: paying → paid | failed       ledger: deposit of what came back     wallet: credited
//!                                      ledger: committed
//! ```
//!
//! What is booked is the amount and the most that it may cost; what was not needed for that, and
//! all of a payment that failed, comes back as a deposit under an id of the payment's own. So the
//! identity holds at every arrow, and nothing is ever undone.
//!
//! The ledger decides: a plan is carried out when the withdrawal names it. Of several requests at
//! once, also at several gateways, one plan is named; the others are forgotten and follow it. A
//! payment that is under way is asked about, never repeated with another invoice.

use std::time::Duration;

use super::address::{LightningAddress, NoInvoice, Payees};
use super::flights::{Boarding, Flight};
use super::refund::{denied, unanswered};
use super::{RedeemRefused, RefundAsk, RefundFlown, RefundRefused, Till};
use crate::clock::UnixMs;
use crate::crash::{self, Step};
use crate::ids::{AccountId, PaymentId, WithdrawalId};
use crate::ledger::{Account, Amount, Ledger, Withdrawal, WithdrawalAsk, WithdrawalState};
use crate::money::{MSAT_PER_SAT, Msat};
use crate::wallet::{self, Payment, PaymentPlan, PaymentState, PlanRefused};

/// What is asked to be paid, and to whom: so much, or with `None` everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PayAsk {
    /// What the recipient gets; the fee comes on top.
    pub amount: Option<Msat>,
    /// Which mint pays; `None` is the one the account was last paid with.
    pub mint: Option<String>,
    pub to: LightningAddress,
}

/// What a payment may cost at most: the larger of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeeMax {
    pub sats: u64,
    pub percent: u64,
}

/// How payments are made: who is asked for invoices, and what they may cost.
#[derive(Clone, Debug)]
pub struct PayOut {
    pub payees: Payees,
    pub fee_max: FeeMax,
}

/// A payment that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaidOut {
    pub recipient: String,
    pub amount: Msat,
    /// What it cost.
    pub fee: Msat,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayRefused {
    /// As a refund in ecash would be.
    #[error("{0}")]
    Refund(RefundRefused),
    #[error("the address: {0}")]
    NoInvoice(NoInvoice),
    #[error("with a fee of up to {} msat that is more than the {} msat available",
        fee_max.get(), available.get())]
    Insufficient { available: Msat, fee_max: Msat },
    #[error("the mint asks for up to {} msat, {} msat are allowed", asked.get(), most.get())]
    FeeTooHigh { asked: Msat, most: Msat },
    #[error("no mint pays this invoice")]
    MintRefused,
    #[error("the mint does not answer")]
    MintSilent,
    /// The account has its value again.
    #[error("the payment failed")]
    Failed,
}

type Outcome = Result<PaidOut, PayRefused>;

impl From<RefundRefused> for PayRefused {
    fn from(refused: RefundRefused) -> Self {
        Self::Refund(refused)
    }
}

impl FeeMax {
    /// The most that a payment of this amount may cost, in whole sats.
    pub fn of(self, amount: Msat) -> Msat {
        let sats = u128::from(amount.get()) * u128::from(self.percent);
        let sats = u64::try_from(sats.div_ceil(100 * u128::from(MSAT_PER_SAT)));
        Msat::from_sats(sats.unwrap_or(u64::MAX).max(self.sats)).unwrap_or(Msat::MAX)
    }

    /// The largest amount in whole sats that can be paid, with its fee, from so much.
    pub fn payable(self, from: Msat) -> Option<Msat> {
        let sats = from.whole_sats();
        let share = u128::from(sats) * 100 / (100 + u128::from(self.percent));
        let most = u64::try_from(share).ok()?.min(sats.saturating_sub(self.sats));
        // The share is rounded down and the fee up: at most one too many.
        (most.saturating_sub(2)..=most).rev().filter(|sats| *sats > 0).find_map(|sats| {
            let amount = Msat::from_sats(sats)?;
            (amount.checked_add(self.of(amount))? <= from).then_some(amount)
        })
    }
}

/// Which payment a withdrawal is for; `None` for one in ecash. It stands where the mint would.
pub(super) fn payment_of(withdrawal: &Withdrawal) -> Option<PaymentId> {
    withdrawal.mint.strip_prefix(PAYMENT).map(PaymentId::stored)
}

impl<L: Ledger> Till<L> {
    /// Pays what is left, or a part of it, to a Lightning address. The same again answers the
    /// same payment: see [`is_repeated`].
    pub async fn pay_out(&self, account: AccountId, ask: PayAsk, by: &PayOut) -> Outcome {
        let patience = self.wallet().timeout();
        for _ in 0..FLIGHTS_MAX {
            let waiting = match self.0.refunds.board(&account) {
                Boarding::Pilot(flight) => {
                    let waiting = flight.waiting();
                    let flown =
                        self.clone().fly_payment(flight, account.clone(), ask.clone(), by.clone());
                    self.wallet().handle().spawn(flown);
                    waiting
                }
                Boarding::Passenger(waiting) => waiting,
            };
            match waiting.outcome(patience).await {
                Some(RefundFlown::Lightning(asked, outcome)) if asked == ask => return outcome,
                Some(_) => {}
                None => return Err(RefundRefused::Pending.into()),
            }
        }
        Err(RefundRefused::Pending.into())
    }

    async fn fly_payment(
        self,
        flight: Flight<AccountId, RefundFlown>,
        account: AccountId,
        ask: PayAsk,
        by: PayOut,
    ) {
        let outcome = self.pay_now(&flight, &account, &ask, &by).await;
        flight.land(RefundFlown::Lightning(ask, outcome));
    }

    async fn pay_now(
        &self,
        flight: &Flight<AccountId, RefundFlown>,
        account: &AccountId,
        ask: &PayAsk,
        by: &PayOut,
    ) -> Outcome {
        for _ in 0..ROUNDS_MAX {
            let holder = self.ledger().account(account.clone()).await.map_err(unanswered)?;
            let holder = holder.ok_or(RefundRefused::NoAccount)?;
            if holder.parent.is_some() {
                return Err(RefundRefused::Child.into());
            }
            if let Some(last) = self.last_withdrawal(account, &holder).await? {
                match (payment_of(&last), last.state) {
                    (Some(_), WithdrawalState::Begun) => {
                        flight.asked();
                        // One that ends as failed now was somebody's earlier wish, not this one.
                        match self.conclude(&last).await {
                            Err(PayRefused::Failed) | Ok(_) => continue,
                            refused => return refused,
                        }
                    }
                    (None, WithdrawalState::Begun) => {
                        self.finish(&last, self.wallet().timeout()).await?;
                        continue;
                    }
                    (Some(id), _) => {
                        let paid = self.known_payment(&id).await?;
                        if is_repeated(&paid, ask, &holder, UnixMs::now()) {
                            return Ok(paid_out(&paid));
                        }
                    }
                    (None, _) => {}
                }
            }
            if let Some(begun) = self.begin(account, ask, &holder, by).await? {
                flight.asked();
                return self.conclude(&begun).await;
            }
        }
        Err(RefundRefused::Pending.into())
    }

    /// Plans a payment and gets it booked. `None` when something else was booked meanwhile.
    async fn begin(
        &self,
        account: &AccountId,
        ask: &PayAsk,
        holder: &Account,
        by: &PayOut,
    ) -> Result<Option<Withdrawal>, PayRefused> {
        if ask.amount.is_none() && holder.open_reservations > 0 {
            return Err(RefundRefused::InProgress { open: holder.open_reservations }.into());
        }
        let (amount, booked) = affordable(ask, holder.available, by.fee_max)?;
        let refund = RefundAsk { amount: ask.amount, mint: ask.mint.clone(), once: None };
        let sources = self.sources(account, &refund).await?;
        let sources = sources.into_iter().map(|(mint, unit)| (mint, unit, booked)).collect();
        let Some((mint, unit, _)) = self.source_that_holds(sources).await else {
            log::warn!("payment for {account}: no mint's pool holds it");
            return Err(match ask.mint {
                Some(_) => RefundRefused::MintHasTooLittle.into(),
                None => RefundRefused::Pending.into(),
            });
        };
        let bolt11 = by.payees.invoice(&ask.to, amount).await.map_err(PayRefused::NoInvoice)?;
        let plan = PaymentPlan {
            id: PaymentId::fresh(),
            withdrawal: WithdrawalId::nth(account, holder.withdrawals),
            account: account.clone(),
            recipient: ask.to.to_string(),
            everything: ask.amount.is_none(),
            deposited: holder.deposited,
            mint,
            unit,
            amount,
            booked,
        };
        let refused = |refused| plan_refused(refused, booked.saturating_sub(amount));
        self.wallet().plan_payment(plan.clone(), &bolt11).await.map_err(refused)?;
        self.book(&plan).await
    }

    async fn book(&self, plan: &PaymentPlan) -> Result<Option<Withdrawal>, PayRefused> {
        let begin = WithdrawalAsk {
            id: plan.withdrawal.clone(),
            account: plan.account.clone(),
            amount: Amount::Exactly(plan.booked),
            mint: format!("{PAYMENT}{}", plan.id),
            unit: plan.unit.name.clone(),
        };
        // Where the ledger does not answer it may have booked it, and the plan must stay.
        let begun = self.ledger().withdraw_begin(begin).await.map_err(unanswered)?;
        match begun {
            Ok(begun) if payment_of(&begun).as_ref() == Some(&plan.id) => {
                crash::point(Step::WithdrawBegun);
                Ok(Some(begun))
            }
            Ok(_) => {
                self.wallet().forget_plan(&plan.id).await;
                Ok(None)
            }
            Err(refused) => {
                self.wallet().forget_plan(&plan.id).await;
                Err(denied(refused).into())
            }
        }
    }

    /// Makes a booked payment, or finds out what became of it. Repeated, it is the same one, also
    /// by several gateways at once.
    pub(super) async fn conclude(&self, withdrawal: &Withdrawal) -> Outcome {
        let id = payment_of(withdrawal).ok_or(RefundRefused::Pending)?;
        let paid = self.wallet().pay(&id).await.map_err(|error| {
            log::error!("withdrawal {}: not paid yet: {error}", withdrawal.id);
            RefundRefused::Pending
        })?;
        let wallet::Paid::Ended(payment, back) = paid else {
            return Err(RefundRefused::Pending.into());
        };
        if let Some(redemption) = back {
            let credited = self.credit(redemption).await;
            credited.map_err(|_: RedeemRefused| RefundRefused::LedgerUnavailable)?;
        }
        if withdrawal.state == WithdrawalState::Begun {
            let (account, id) = (withdrawal.account.clone(), withdrawal.id.clone());
            let committed = self.ledger().withdraw_commit(account, id).await;
            committed.map_err(unanswered)?;
            crash::point(Step::WithdrawCommitted);
        }
        match payment.state {
            PaymentState::Paid => Ok(paid_out(&payment)),
            _ => Err(PayRefused::Failed),
        }
    }

    async fn known_payment(&self, id: &PaymentId) -> Result<Payment, RefundRefused> {
        let found = self.wallet().payment(id).await.ok().flatten();
        found.ok_or_else(|| {
            log::error!("payment {id}: booked, and the wallet does not tell of it");
            RefundRefused::LedgerUnavailable
        })
    }
}

/// Whether the last withdrawal is what is asked for now, so that an answer that was lost is given
/// again and nothing is paid twice: everything, and nothing was paid in since; or the same amount
/// a moment ago.
fn is_repeated(last: &Payment, ask: &PayAsk, holder: &Account, now: UnixMs) -> bool {
    if last.state != PaymentState::Paid || last.recipient != ask.to.to_string() {
        return false;
    }
    match ask.amount {
        None => {
            let deposited = last.deposited.checked_add(last.returned);
            last.everything && deposited == Some(holder.deposited)
        }
        Some(amount) => {
            let recent = last.ended.is_some_and(|ended| now < ended.plus(REPEATED_WITHIN));
            !last.everything && last.amount == amount && recent
        }
    }
}

/// What the recipient gets, and what is booked for that.
fn affordable(ask: &PayAsk, available: Msat, fee_max: FeeMax) -> Result<(Msat, Msat), PayRefused> {
    if available == Msat::ZERO {
        return Err(RefundRefused::NothingToRefund.into());
    }
    let amount = match ask.amount {
        Some(amount) => amount,
        None => {
            let payable = fee_max.payable(available);
            payable.ok_or(RefundRefused::TooSmall { available })?
        }
    };
    let fee_max = fee_max.of(amount);
    match amount.checked_add(fee_max).filter(|booked| *booked <= available) {
        Some(booked) => Ok((amount, booked)),
        None => Err(PayRefused::Insufficient { available, fee_max }),
    }
}

fn paid_out(payment: &Payment) -> PaidOut {
    let cost = payment.booked.saturating_sub(payment.returned);
    PaidOut {
        recipient: payment.recipient.clone(),
        amount: payment.amount,
        fee: cost.saturating_sub(payment.amount),
    }
}

fn plan_refused(refused: PlanRefused, most: Msat) -> PayRefused {
    match refused {
        PlanRefused::Invoice(why) => {
            log::info!("a Lightning address: {why}");
            PayRefused::NoInvoice(NoInvoice::Unusable)
        }
        PlanRefused::Fee { asked } => PayRefused::FeeTooHigh { asked, most },
        PlanRefused::MintSilent => PayRefused::MintSilent,
        PlanRefused::MintRefused => PayRefused::MintRefused,
        PlanRefused::NotRecorded => RefundRefused::LedgerUnavailable.into(),
    }
}

/// What stands before a payment's id where a withdrawal's mint would be.
const PAYMENT: &str = "lightning:";

/// The same amount to the same address within this time is a repetition.
const REPEATED_WITHIN: Duration = Duration::from_secs(600);

/// Flights a caller boards before it is told to come back: the others were asked otherwise.
const FLIGHTS_MAX: u32 = 8;

/// How often something else may have been booked before who asks is told to come back.
const ROUNDS_MAX: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    const FEE: FeeMax = FeeMax { sats: 2, percent: 1 };

    fn sats(amount: u64) -> Msat {
        Msat::from_sats(amount).unwrap()
    }

    #[test]
    fn the_fee_is_bounded_by_the_larger_of_the_two_in_whole_sats() {
        for (amount, fee) in [(1, 2), (100, 2), (200, 2), (201, 3), (1000, 10), (1001, 11)] {
            assert_eq!(FEE.of(sats(amount)), sats(fee), "{amount}");
        }
        assert_eq!(FeeMax { sats: 0, percent: 0 }.of(sats(1000)), Msat::ZERO);
        assert_eq!(FeeMax { sats: 0, percent: 100 }.of(Msat::MAX).whole_sats(), 9_007_199_254_740);
    }

    #[test]
    fn everything_is_the_most_that_can_be_paid_with_its_fee() {
        for percent in [0, 1, 2, 7, 100] {
            for floor in [0, 1, 2, 5] {
                let fee = FeeMax { sats: floor, percent };
                for balance in 0..1_500_u64 {
                    let from = Msat::new(balance * 1000 + 999).unwrap();
                    let fits =
                        |amount| sats(amount).checked_add(fee.of(sats(amount))) <= Some(from);
                    let most = (1..=balance).rev().find(|amount| fits(*amount));
                    assert_eq!(fee.payable(from), most.map(sats), "{balance} at {fee:?}");
                }
            }
        }
    }

    #[test]
    fn a_repetition_is_told_from_a_new_wish() {
        let ask =
            |amount| PayAsk { amount, mint: None, to: LightningAddress::parse("a@b.c").unwrap() };
        let last = Payment {
            state: PaymentState::Paid,
            recipient: "a@b.c".to_owned(),
            everything: true,
            deposited: sats(100),
            amount: sats(90),
            booked: sats(95),
            returned: sats(4),
            ended: Some(UnixMs(1_000)),
        };
        let holder = |deposited| Account { deposited: sats(deposited), ..Account::default() };
        let now = UnixMs(2_000);
        assert!(is_repeated(&last, &ask(None), &holder(104), now));
        assert!(!is_repeated(&last, &ask(None), &holder(105), now), "paid in since");
        assert!(!is_repeated(&last, &ask(Some(sats(90))), &holder(104), now));
        let failed = Payment { state: PaymentState::Failed, ..last.clone() };
        assert!(!is_repeated(&failed, &ask(None), &holder(104), now), "worth another try");
        let other = Payment { recipient: "b@b.c".to_owned(), ..last.clone() };
        assert!(!is_repeated(&other, &ask(None), &holder(104), now));
        let part = Payment { everything: false, ..last };
        let end = UnixMs(1_000).plus(REPEATED_WITHIN);
        assert!(is_repeated(&part, &ask(Some(sats(90))), &holder(999), now));
        assert!(!is_repeated(&part, &ask(Some(sats(90))), &holder(999), end));
        assert!(!is_repeated(&part, &ask(Some(sats(91))), &holder(999), now));
        assert!(!is_repeated(&part, &ask(None), &holder(104), now));
    }
}
