//! What nobody claims is swept once, after its time, and never when anything has happened to it.

use std::time::Duration;

use nutgate_sandbox::MintOptions;

use super::support::{Bench, Gateway, PATIENT, holds, owner, sat};
use super::{RefundAsk, RefundRefused, Till};
use crate::clock::UnixMs;
use crate::ids::{AccountId, ReservationId};
use crate::ledger::terms::{Limits, Terms};
use crate::ledger::{Admission, Admitted, Ledger, Opening, Record, What};
use crate::money::Msat;
use crate::store::place::{Over, over_both, statement};
use crate::store::values;

/// The same books under a till that sweeps.
fn sweeping(bench: &Bench) -> Gateway {
    sweeping_too(&bench.till)
}

fn sweeping_too(till: &Gateway) -> Gateway {
    Till::sweeping(till.ledger().clone(), till.wallet().clone(), Some(AFTER))
}

/// What was left was left earlier by this.
async fn age(bench: &Bench, by: Duration) {
    let by_ms = i64::try_from(by.as_millis()).unwrap();
    statement(&bench.db, "UPDATE unclaimed SET since_ms = since_ms - ?1", values![by_ms]).await;
}

/// An account whose change was left longer ago than it is left to be claimed.
async fn left(bench: &Bench, till: &Gateway, amount: u64) -> AccountId {
    let account = bench.funded(amount).await;
    till.note_unclaimed(&account).await.unwrap();
    age(bench, AFTER + MINUTE).await;
    account
}

async fn refund(till: &Gateway, account: &AccountId) -> Result<Msat, RefundRefused> {
    till.refund(account.clone(), RefundAsk::default()).await.map(|refunded| refunded.amount)
}

async fn assert_swept(till: &Gateway, account: &AccountId, amount: u64) {
    let held = holds(till, account).await;
    assert_eq!((held.available, held.spent, held.reserved), (Msat::ZERO, sat(amount), Msat::ZERO));
    let refused = refund(till, account).await.unwrap_err();
    assert!(matches!(refused, RefundRefused::Swept { .. }), "{refused:?}");
}

/// What a sweep has reserved when it is interrupted.
async fn interrupted(till: &Gateway, account: &AccountId) -> Admitted {
    let held = holds(till, account).await;
    let admission = Admission {
        reservation: ReservationId::of_sweep(account, held.entries),
        account: account.clone(),
        ceiling: held.available,
        tokens: 0,
        lifetime: MINUTE,
        limits: Limits::NONE,
        once: None,
    };
    till.ledger().admit(admission).await.unwrap().unwrap()
}

async fn nothing_is_swept_before_its_time_and_all_of_it_after(over: Over) {
    let bench = Bench::start(over).await;
    let till = sweeping(&bench);
    let account = bench.funded(10).await;
    till.note_unclaimed(&account).await.unwrap();
    for by in [Duration::ZERO, AFTER - MINUTE] {
        age(&bench, by).await;
        till.sweep().await;
        assert_eq!(holds(&till, &account).await.available, sat(10));
        // To leave it once more is not to leave it later.
        till.note_unclaimed(&account).await.unwrap();
    }
    age(&bench, MINUTE + MINUTE).await;
    for _ in 0..2 {
        till.sweep().await;
        assert_swept(&till, &account, 10).await;
    }
    let newest = till.ledger().history(account.clone(), None, 1).await.unwrap().entries.remove(0);
    let What::Request { record, spent, .. } = newest.what else { panic!("{newest:?}") };
    assert_eq!((record.route.as_str(), record.model.as_str()), ("swept", "swept"));
    assert_eq!(spent, sat(10));
    let unaware = refund(&bench.till, &account).await;
    assert_eq!(unaware, Err(RefundRefused::NothingToRefund), "where nothing is ever swept");
    let audit = bench.audit().await;
    assert_eq!((audit.pool, audit.issued), (sat(10), Msat::ZERO));
}

async fn whoever_does_not_sweep_leaves_everything(over: Over) {
    let bench = Bench::start(over).await;
    let account = left(&bench, &sweeping(&bench), 10).await;
    bench.till.sweep().await;
    assert_eq!(refund(&bench.till, &account).await, Ok(sat(10)));
    bench.audit().await;
}

async fn whatever_happens_to_an_account_ends_what_was_left(over: Over) {
    let bench = Bench::start(over).await;
    let till = sweeping(&bench);
    let [claimed, part, spent] =
        [left(&bench, &till, 5).await, left(&bench, &till, 6).await, left(&bench, &till, 7).await];
    let change = bench.refund(&claimed).await.unwrap();
    bench.refund_sats(&part, 2).await.unwrap();
    bench.spend(&spent, sat(3)).await;
    for _ in 0..2 {
        till.sweep().await;
    }
    assert_eq!(till.refund(claimed, RefundAsk::default()).await, Ok(change), "it repeats");
    for account in [&part, &spent] {
        assert_eq!(holds(&till, account).await.available, sat(4));
    }
    // What is left then is left anew.
    till.note_unclaimed(&spent).await.unwrap();
    age(&bench, AFTER - MINUTE).await;
    till.sweep().await;
    assert_eq!(holds(&till, &spent).await.available, sat(4));
    age(&bench, MINUTE + MINUTE).await;
    till.sweep().await;
    assert_swept(&till, &spent, 7).await;
    assert_eq!(holds(&till, &part).await.available, sat(4), "never left again");
    assert_eq!(till.refund(part, RefundAsk::default()).await.unwrap().amount, sat(4));
    bench.audit().await;
}

async fn what_was_claimed_and_could_not_be_given_is_never_swept(over: Over) {
    let bench = Bench::start(over).await;
    let till = sweeping(&bench);
    let account = left(&bench, &till, 8).await;
    let elsewhere = "UPDATE proofs SET holder = 'elsewhere' WHERE holder IS NULL";
    statement(&bench.db, elsewhere, values![]).await;
    assert_eq!(refund(&till, &account).await, Err(RefundRefused::Pending), "the pool is empty");
    let back = "UPDATE proofs SET holder = NULL WHERE holder = 'elsewhere'";
    statement(&bench.db, back, values![]).await;
    till.sweep().await;
    assert_eq!(refund(&till, &account).await, Ok(sat(8)));
    bench.audit().await;
}

async fn nothing_is_swept_beyond_the_terms_of_a_key(over: Over) {
    let bench = Bench::start(over).await;
    let till = sweeping(&bench);
    let text = bench.sats(8).await;
    let terms = Terms { expires: Some(UnixMs(1)), ..Terms::default() };
    let opening = Opening { account: owner(&text), terms };
    till.ledger().open(opening).await.unwrap();
    let account = bench.redeem(&text).await.unwrap().account;
    till.note_unclaimed(&account).await.unwrap();
    age(&bench, AFTER + MINUTE).await;
    till.sweep().await;
    let waiting = till.wallet().unclaimed_for(AFTER).await.unwrap();
    assert!(waiting.is_empty(), "it keeps nobody else waiting");
    assert_eq!(refund(&till, &account).await, Ok(sat(8)));
}

async fn what_an_open_request_holds_is_not_left(over: Over) {
    let bench = Bench::start(over).await;
    let till = sweeping(&bench);
    let account = left(&bench, &till, 9).await;
    let admission = Admission {
        reservation: ReservationId::fresh(),
        account: account.clone(),
        ceiling: sat(1),
        tokens: 0,
        lifetime: MINUTE,
        limits: Limits::NONE,
        once: None,
    };
    let open = till.ledger().admit(admission).await.unwrap().unwrap();
    till.sweep().await;
    let held = holds(&till, &account).await;
    assert_eq!((held.available, held.reserved), (sat(8), sat(1)));
    till.ledger().release(open.reservation).await.unwrap();
    till.sweep().await;
    assert_eq!(holds(&till, &account).await.available, sat(9), "something happened to it");
    bench.audit().await;
}

async fn a_sweep_that_was_interrupted_anywhere_is_done_once(over: Over) {
    let bench = Bench::start(over).await;
    let till = sweeping(&bench);
    // Reserved.
    let account = left(&bench, &till, 11).await;
    let open = interrupted(&till, &account).await;
    assert_eq!(refund(&till, &account).await, Err(RefundRefused::InProgress { open: 1 }));
    till.sweep().await;
    assert_swept(&till, &account, 11).await;
    drop(open);
    // Given back since, because nobody came for so long.
    let account = left(&bench, &till, 12).await;
    let open = interrupted(&till, &account).await;
    till.ledger().release(open.reservation).await.unwrap();
    till.sweep().await;
    assert_swept(&till, &account, 12).await;
    // The same, and claimed since.
    let account = left(&bench, &till, 13).await;
    let open = interrupted(&till, &account).await;
    till.ledger().release(open.reservation).await.unwrap();
    bench.refund_sats(&account, 3).await.unwrap();
    till.sweep().await;
    assert_eq!(holds(&till, &account).await.available, sat(10));
    // Settled.
    let account = left(&bench, &till, 14).await;
    let open = interrupted(&till, &account).await;
    till.ledger().settle(open.reservation, sat(14), Record::default()).await.unwrap();
    till.sweep().await;
    assert_swept(&till, &account, 14).await;
    bench.audit().await;
}

async fn a_claim_and_a_sweep_at_once_give_it_to_one_of_them(over: Over) {
    let bench = Bench::start(over).await;
    let till = sweeping(&bench);
    for amount in 1..=10 {
        let account = left(&bench, &till, amount).await;
        let (claimed, ()) = tokio::join!(refund(&till, &account), till.sweep());
        let held = holds(&till, &account).await;
        let kept =
            if claimed.is_ok() { (sat(amount), Msat::ZERO) } else { (Msat::ZERO, sat(amount)) };
        assert_eq!((held.refunded, held.spent), kept, "{claimed:?}");
    }
    bench.audit().await;
}

over_both! {
    nothing_is_swept_before_its_time_and_all_of_it_after
    whoever_does_not_sweep_leaves_everything
    whatever_happens_to_an_account_ends_what_was_left
    what_was_claimed_and_could_not_be_given_is_never_swept
    nothing_is_swept_beyond_the_terms_of_a_key
    what_an_open_request_holds_is_not_left
    a_sweep_that_was_interrupted_anywhere_is_done_once
    a_claim_and_a_sweep_at_once_give_it_to_one_of_them
}

#[tokio::test(flavor = "multi_thread")]
async fn many_gateways_at_once_sweep_once() {
    let bench = Bench::with(Over::Postgres, MintOptions::default()).await;
    let till = sweeping(&bench);
    let other = sweeping_too(&bench.another_gateway(PATIENT).await);
    let mut accounts = Vec::new();
    for amount in 1..=10 {
        accounts.push((left(&bench, &till, amount).await, amount));
    }
    for _ in 0..2 {
        tokio::join!(till.sweep(), other.sweep(), till.sweep());
    }
    for (account, amount) in accounts {
        assert_swept(&other, &account, amount).await;
    }
    bench.audit().await;
}

const AFTER: Duration = Duration::from_secs(90 * 24 * 3600);
const MINUTE: Duration = Duration::from_secs(60);
