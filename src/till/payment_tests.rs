//! Payments to Lightning addresses, against a real mint: each is made once or not at all, and
//! every sat is with the recipient, on the account, or was the fee.

use nutgate_sandbox::{MintOptions, Payee, Payments};
use tokio::task::JoinSet;

use super::support::{Bench, Gateway, PATIENT, holds, sat};
use super::{
    FeeMax, LightningAddress, NoInvoice, PaidOut, PayAsk, PayOut, PayRefused, Payees, RefundRefused,
};
use crate::fetch::Fetch;
use crate::ids::AccountId;
use crate::money::Msat;
use crate::store::place::{Over, over_both, statement};
use crate::store::values;

struct Paying {
    bench: Bench,
    payee: Payee,
    by: PayOut,
}

impl Paying {
    async fn start(over: Over) -> Self {
        Self::with(over, MintOptions::default()).await
    }

    async fn with(over: Over, options: MintOptions) -> Self {
        let bench = Bench::with(over, options).await;
        let payee = Payee::start().await.unwrap();
        let payees = Payees::new(Fetch::new(None).unwrap(), true);
        let by = PayOut { payees, fee_max: FeeMax { sats: 5, percent: 2 } };
        Self { bench, payee, by }
    }

    fn ask(&self, user: &str, sats: Option<u64>) -> PayAsk {
        let to = LightningAddress::parse(&self.payee.address(user)).unwrap();
        PayAsk { amount: sats.map(sat), mint: None, to }
    }

    async fn pay(&self, account: &AccountId, sats: Option<u64>) -> Result<PaidOut, PayRefused> {
        self.pay_at(&self.bench.till, account, sats).await
    }

    async fn pay_at(
        &self,
        till: &Gateway,
        account: &AccountId,
        sats: Option<u64>,
    ) -> Result<PaidOut, PayRefused> {
        till.pay_out(account.clone(), self.ask("alice", sats), &self.by).await
    }

    /// So many calls at once.
    fn calls(
        &self,
        account: &AccountId,
        sats: Option<u64>,
        count: usize,
    ) -> JoinSet<Result<PaidOut, PayRefused>> {
        let mut calls = JoinSet::new();
        for _ in 0..count {
            let (till, account) = (self.bench.till.clone(), account.clone());
            let (ask, by) = (self.ask("alice", sats), self.by.clone());
            calls.spawn(async move { till.pay_out(account, ask, &by).await });
        }
        calls
    }

    /// Returns when the mint has tried to pay so often in all.
    async fn tried(&self, count: u64) {
        while self.bench.mint.payment_count() < count {
            tokio::task::yield_now().await;
        }
    }

    fn paid(&self, sats: u64) -> PaidOut {
        PaidOut { recipient: self.payee.address("alice"), amount: sat(sats), fee: sat(1) }
    }

    /// What the account has, and what of it is on its way, when everything adds up.
    async fn left(&self, account: &AccountId) -> Msat {
        self.bench.audit().await;
        let holder = holds(&self.bench.till, account).await;
        assert!(holder.is_balanced(), "{holder:?}");
        holder.available
    }
}

async fn everything_is_paid_once_and_what_the_fee_did_not_need_comes_back(over: Over) {
    let paying = Paying::start(over).await;
    let account = paying.bench.funded(1000).await;
    assert_eq!(paying.pay(&account, None).await, Ok(paying.paid(980)));
    assert_eq!(paying.left(&account).await, sat(19));
    for _ in 0..3 {
        assert_eq!(paying.pay(&account, None).await, Ok(paying.paid(980)), "the same again");
    }
    assert_eq!(paying.bench.mint.paid_out(), 980_000);
    // What came back is as good as any other balance.
    let change = paying.bench.refund(&account).await.unwrap();
    assert_eq!(paying.bench.value_of(&change).await, 19);
    paying.bench.redeem(&paying.bench.sats(50).await).await.unwrap();
    assert_eq!(paying.left(&account).await, Msat::ZERO);
}

async fn a_part_is_paid_once_and_the_rest_stays(over: Over) {
    let paying = Paying::start(over).await;
    let account = paying.bench.funded(100).await;
    for _ in 0..2 {
        assert_eq!(paying.pay(&account, Some(30)).await, Ok(paying.paid(30)));
    }
    assert_eq!(paying.left(&account).await, sat(69));
    assert_eq!(paying.pay(&account, Some(31)).await, Ok(paying.paid(31)), "another wish");
    assert_eq!(paying.left(&account).await, sat(37));
    let (available, fee_max) = (sat(37), sat(5));
    let refused = paying.pay(&account, Some(33)).await;
    assert_eq!(refused, Err(PayRefused::Insufficient { available, fee_max }));
    assert_eq!(paying.pay(&account, Some(32)).await, Ok(paying.paid(32)), "to the last sat");
    assert_eq!(paying.left(&account).await, sat(4));
    let refused = paying.pay(&account, None).await;
    let small = PayRefused::Refund(RefundRefused::TooSmall { available: sat(4) });
    assert_eq!(refused, Err(small));
    assert_eq!(paying.bench.mint.paid_out(), 93_000);
}

async fn a_payment_that_fails_is_on_the_account_again(over: Over) {
    let paying = Paying::start(over).await;
    let account = paying.bench.funded(100).await;
    paying.bench.mint.payments(Payments::Fail);
    for _ in 0..2 {
        assert_eq!(paying.pay(&account, None).await, Err(PayRefused::Failed));
        assert_eq!(paying.left(&account).await, sat(100));
    }
    paying.bench.mint.payments(Payments::Succeed);
    assert_eq!(paying.pay(&account, None).await, Ok(paying.paid(95)), "tried again");
    assert_eq!(paying.left(&account).await, sat(4));
    assert_eq!(paying.bench.mint.paid_out(), 95_000);
}

async fn a_pending_payment_is_neither_repeated_nor_undone(over: Over) {
    let paying = Paying::start(over).await;
    let account = paying.bench.funded(100).await;
    paying.bench.mint.payments(Payments::Stall);
    let mut calls = paying.calls(&account, Some(50), 3);
    paying.tried(1).await;
    assert_eq!(paying.left(&account).await, sat(45), "booked with the most that it may cost");
    paying.bench.mint.payments(Payments::Succeed);
    while let Some(outcome) = calls.join_next().await {
        assert_eq!(outcome.unwrap(), Ok(paying.paid(50)));
    }
    assert_eq!(paying.left(&account).await, sat(49));
    assert_eq!(paying.bench.mint.payment_count(), 1);

    paying.bench.mint.payments(Payments::Stall);
    let mut calls = paying.calls(&account, Some(20), 1);
    paying.tried(2).await;
    assert_eq!(paying.left(&account).await, sat(24));
    paying.bench.mint.payments(Payments::Fail);
    let outcome = calls.join_next().await.unwrap().unwrap();
    assert_eq!(outcome, Err(PayRefused::Failed));
    assert_eq!(paying.left(&account).await, sat(49), "there again");
    assert_eq!(paying.bench.mint.payment_count(), 2);
    assert_eq!(paying.bench.mint.paid_out(), 50_000);
}

async fn a_payment_whose_answer_is_lost_is_found(over: Over) {
    let paying = Paying::start(over).await;
    let account = paying.bench.funded(100).await;
    paying.bench.mint.lose_payment_answers(true);
    assert_eq!(paying.pay(&account, None).await, Ok(paying.paid(95)));
    assert_eq!(paying.left(&account).await, sat(4), "its change was restored");
    assert_eq!(paying.bench.mint.paid_out(), 95_000);
}

async fn value_is_given_back_only_when_no_request_can_be_on_its_way(over: Over) {
    let mut paying = Paying::start(over).await;
    let account = paying.bench.funded(100).await;
    paying.bench.mint.payments(Payments::Fail);
    paying.bench.mint.lose_payment_answers(true);
    let pending = || Err(PayRefused::Refund(RefundRefused::Pending));
    assert_eq!(paying.pay(&account, None).await, pending(), "refused, as far as it was seen");
    paying.bench.mint.lose_payment_answers(false);
    assert_eq!(paying.pay(&account, None).await, pending(), "the first might still arrive");
    assert_eq!(paying.left(&account).await, Msat::ZERO);
    paying.bench.mint.stop().await;
    assert_eq!(paying.pay(&account, None).await, pending());
    paying.bench.mint.start_again().await.unwrap();
    statement(&paying.bench.db, "UPDATE payments SET asked_ms = 0", values![]).await;
    let change = paying.bench.refund(&account).await.unwrap();
    assert_eq!(paying.bench.value_of(&change).await, 100);
    assert_eq!(paying.left(&account).await, Msat::ZERO);
    assert_eq!(paying.bench.mint.paid_out(), 0);
}

async fn a_mint_that_is_down_pays_nothing_and_takes_nothing(over: Over) {
    let mut paying = Paying::start(over).await;
    let account = paying.bench.funded(100).await;
    paying.bench.mint.stop().await;
    assert_eq!(paying.pay(&account, None).await, Err(PayRefused::MintSilent));
    paying.bench.mint.start_again().await.unwrap();
    assert_eq!(paying.left(&account).await, sat(100));
    assert_eq!(holds(&paying.bench.till, &account).await.withdrawals, 0);
}

async fn fees_are_bounded_before_anything_leaves(over: Over) {
    let mut paying = Paying::start(over).await;
    let account = paying.bench.funded(100).await;
    paying.by.fee_max = FeeMax { sats: 1, percent: 0 };
    let refused = paying.pay(&account, None).await;
    assert_eq!(refused, Err(PayRefused::FeeTooHigh { asked: sat(2), most: sat(1) }));
    assert_eq!(holds(&paying.bench.till, &account).await.withdrawals, 0);

    // A fee for each proof besides, which is known only when they are set aside.
    let options = MintOptions { input_fee_ppk: 1000, ..MintOptions::default() };
    let mut paying = Paying::with(over, options).await;
    let text = paying.bench.sats(100).await;
    let account = paying.bench.redeem(&text).await.unwrap().account;
    let before = paying.left(&account).await;
    paying.by.fee_max = FeeMax { sats: 2, percent: 0 };
    assert_eq!(paying.pay(&account, None).await, Err(PayRefused::Failed));
    assert_eq!(paying.left(&account).await, before);
    assert_eq!(paying.bench.mint.payment_count(), 0);
    paying.by.fee_max = FeeMax { sats: 20, percent: 0 };
    let paid = paying.pay(&account, None).await.unwrap();
    assert!(paid.fee > sat(1) && paid.fee <= sat(20), "{paid:?}");
    let spent = paid.amount.checked_add(paid.fee).unwrap();
    assert_eq!(paying.left(&account).await, before.checked_sub(spent).unwrap());
}

async fn an_address_that_gives_no_invoice_takes_nothing(over: Over) {
    let paying = Paying::start(over).await;
    let account = paying.bench.funded(100).await;
    let range = NoInvoice::OutOfRange { min: sat(1), max: sat(5) };
    for (user, why) in [
        ("missing", NoInvoice::Refused),
        ("broken", NoInvoice::Unusable),
        ("moved", NoInvoice::Silent),
        ("huge", NoInvoice::Unusable),
        ("error", NoInvoice::Refused),
        ("withdraw", NoInvoice::Refused),
        ("small", range),
        ("inside", NoInvoice::Unwelcome),
        ("refusing", NoInvoice::Refused),
        ("garbage", NoInvoice::Unusable),
        ("dear", NoInvoice::Unusable),
    ] {
        let ask = paying.ask(user, None);
        let refused = paying.bench.till.pay_out(account.clone(), ask, &paying.by).await;
        assert_eq!(refused, Err(PayRefused::NoInvoice(why)), "{user}");
    }
    assert_eq!(paying.left(&account).await, sat(100));
    assert_eq!(holds(&paying.bench.till, &account).await.withdrawals, 0);
    assert_eq!(paying.bench.mint.payment_count(), 0);
    // And by the rules that hold unless configuration says otherwise.
    let public = Payees::new(Fetch::new(None).unwrap(), false);
    let by = PayOut { payees: public, fee_max: paying.by.fee_max };
    let refused = paying.bench.till.pay_out(account, paying.ask("alice", None), &by).await;
    assert_eq!(refused, Err(PayRefused::NoInvoice(NoInvoice::Unwelcome)));
}

async fn simultaneous_payments_of_one_account_are_one(over: Over) {
    let paying = Paying::start(over).await;
    let account = paying.bench.funded(200).await;
    let calls = paying.calls(&account, None, 20);
    for answer in calls.join_all().await {
        assert_eq!(answer, Ok(paying.paid(195)));
    }
    assert_eq!(paying.left(&account).await, sat(4));
    assert_eq!(paying.bench.mint.paid_out(), 195_000);
}

async fn what_a_dead_process_left_is_finished_by_the_next(over: Over) {
    let paying = Paying::start(over).await;
    let account = paying.bench.funded(100).await;
    paying.bench.mint.payments(Payments::Stall);
    let _calls = paying.calls(&account, None, 1);
    paying.tried(1).await;
    let (_machine, till) = paying.bench.after_a_crash().await;
    till.recover().await;
    assert_eq!(holds(&till, &account).await.available, Msat::ZERO, "pending still");
    paying.bench.mint.payments(Payments::Succeed);
    assert_eq!(paying.pay_at(&till, &account, None).await, Ok(paying.paid(95)));
    assert_eq!(holds(&till, &account).await.available, sat(4));
    assert_eq!(paying.bench.mint.paid_out(), 95_000);
}

over_both! {
    everything_is_paid_once_and_what_the_fee_did_not_need_comes_back
    a_part_is_paid_once_and_the_rest_stays
    a_payment_that_fails_is_on_the_account_again
    a_pending_payment_is_neither_repeated_nor_undone
    a_payment_whose_answer_is_lost_is_found
    value_is_given_back_only_when_no_request_can_be_on_its_way
    a_mint_that_is_down_pays_nothing_and_takes_nothing
    fees_are_bounded_before_anything_leaves
    an_address_that_gives_no_invoice_takes_nothing
    simultaneous_payments_of_one_account_are_one
    what_a_dead_process_left_is_finished_by_the_next
}

/// Each gateway asks the address for an invoice of its own; one of them is paid.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_of_a_fleet_asked_at_once_pay_once() {
    let paying = Paying::start(Over::Postgres).await;
    let other = paying.bench.another_gateway(PATIENT).await;
    for round in 0..5 {
        let account = paying.bench.funded(200).await;
        let mut calls = JoinSet::new();
        for till in [paying.bench.till.clone(), other.clone()] {
            let (account, ask, by) =
                (account.clone(), paying.ask("alice", None), paying.by.clone());
            calls.spawn(async move {
                loop {
                    match till.pay_out(account.clone(), ask.clone(), &by).await {
                        Err(PayRefused::Refund(RefundRefused::Pending)) => {
                            tokio::task::yield_now().await;
                        }
                        outcome => return outcome,
                    }
                }
            });
        }
        for answer in calls.join_all().await {
            assert_eq!(answer, Ok(paying.paid(195)), "round {round}");
        }
        assert_eq!(paying.left(&account).await, sat(4));
        assert_eq!(paying.bench.mint.paid_out(), 195_000 * (round + 1));
    }
}
