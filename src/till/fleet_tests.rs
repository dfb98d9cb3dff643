//! Many gateways over one wallet: whoever is asked gives the same answer, and what one leaves
//! unfinished one other finishes, when it is dead and not before.

use nutgate_sandbox::MintOptions;
use tokio::task::JoinSet;

use super::support::{Bench, Gateway, PATIENT, holds, owner, sat};
use super::{Recovery, RefundAsk};
use crate::ids::AccountId;
use crate::ledger::Ledger;
use crate::money::Msat;
use crate::store::place::{Over, statement};
use crate::store::values;

async fn bench() -> Bench {
    Bench::with(Over::Postgres, MintOptions::default()).await
}

/// Whoever is at something is at once somebody else, of whom nothing is heard.
async fn make_ghost(bench: &Bench, table: &str) {
    let sql = format!("UPDATE {table} SET owner = 'ghost' WHERE owner IS NOT NULL");
    assert!(statement(&bench.db, &sql, values![]).await > 0, "somebody was at it");
    let sql = "INSERT INTO gateways (id, lease_until) VALUES ('ghost', now_ms() + 3600000)";
    statement(&bench.db, sql, values![]).await;
}

async fn end_lease_of_ghost(bench: &Bench) {
    let sql = "UPDATE gateways SET lease_until = now_ms() - 1 WHERE id = 'ghost'";
    assert_eq!(statement(&bench.db, sql, values![]).await, 1);
}

/// A gateway's redemption that the mint has signed and not answered.
async fn hang(bench: &Bench, gateway: &Gateway, text: &str) -> JoinSet<Msat> {
    let (till, shown) = (gateway.clone(), text.to_owned());
    let before = bench.mint.swap_count();
    let mut hanging = JoinSet::new();
    hanging
        .spawn(async move { till.redeem(&shown, owner(&shown), Msat::ZERO).await.unwrap().amount });
    bench.mint.await_swaps(before + 1).await;
    hanging
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_shown_to_two_gateways_at_once_is_redeemed_and_credited_once() {
    let bench = bench().await;
    let other = bench.another_gateway(PATIENT).await;
    bench.funded(1).await;
    for round in 1..=10 {
        let text = bench.sats(20 + round).await;
        let swaps = bench.mint.swap_count();
        let mut calls = JoinSet::new();
        for till in [bench.till.clone(), other.clone(), bench.till.clone(), other.clone()] {
            let text = text.clone();
            calls.spawn(async move { till.redeem(&text, owner(&text), Msat::ZERO).await });
        }
        let answers: Vec<_> = calls.join_all().await.into_iter().map(Result::unwrap).collect();
        assert!(answers.iter().all(|answer| answer.amount == sat(20 + round)));
        assert_eq!(answers.iter().filter(|answer| answer.fresh).count(), 1);
        assert_eq!(bench.mint.swap_count(), swaps + 1);
        assert_eq!(holds(&bench.till, &owner(&text)).await.deposited, sat(20 + round));
    }
    bench.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_asked_of_two_gateways_at_once_is_one_and_any_of_them_gives_it_again() {
    let bench = bench().await;
    let other = bench.another_gateway(PATIENT).await;
    for amount in [5, 77, 1000] {
        let account = bench.funded(amount).await;
        let ask = RefundAsk::default;
        let (one, two) = tokio::join!(
            bench.till.refund(account.clone(), ask()),
            other.refund(account.clone(), ask()),
        );
        assert_eq!(one.as_ref().unwrap().amount, sat(amount));
        assert_eq!(one, two);
        assert_eq!(other.refund(account, ask()).await, one, "claimed from whom it was not asked");
    }
    bench.audit().await;
}

/// Leaves 6 sats in {1, 1, 4}, of which 3 cannot be composed.
async fn uncomposable(bench: &Bench) -> AccountId {
    let account = bench.funded(8).await;
    assert_eq!(bench.refund_sats(&account, 2).await.unwrap().amount, sat(2));
    account
}

fn three() -> RefundAsk {
    RefundAsk { amount: Some(sat(3)), mint: None, once: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_gateways_that_need_the_mint_for_one_refund_one_asks_it() {
    let bench = bench().await;
    let other = bench.another_gateway(PATIENT).await;
    let account = uncomposable(&bench).await;
    bench.spend(&account, sat(3)).await;
    let swaps = bench.mint.swap_count();
    let everything = RefundAsk::default;
    let (one, two) = tokio::join!(
        bench.till.refund(account.clone(), everything()),
        other.refund(account.clone(), everything()),
    );
    assert_eq!(one.as_ref().unwrap().amount, sat(3));
    assert_eq!(one, two);
    assert_eq!(bench.mint.swap_count(), swaps + 1);
    bench.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redemption_is_taken_over_when_its_owners_lease_has_run_out_and_not_before() {
    let bench = bench().await;
    let other = bench.another_gateway(PATIENT).await;
    bench.funded(1).await;
    bench.mint.hold_swaps(true);
    let text = bench.sats(30).await;
    let mut paused = hang(&bench, &bench.till, &text).await;
    assert_eq!(other.recover().await, Recovery::default(), "its owner lives");
    make_ghost(&bench, "redemptions").await;
    assert_eq!(other.recover().await, Recovery::default(), "and so does this one");
    end_lease_of_ghost(&bench).await;
    let recovery = other.recover().await;
    assert_eq!(recovery, Recovery { redemptions_completed: 1, ..Recovery::default() });
    let before = bench.audit().await;
    assert_eq!(holds(&bench.till, &owner(&text)).await.deposited, sat(30));
    // Whoever was at it wakes and hears from the mint: it is told what came of it.
    bench.mint.hold_swaps(false);
    assert_eq!(paused.join_next().await.unwrap().unwrap(), sat(30));
    assert_eq!(holds(&bench.till, &owner(&text)).await.deposited, sat(30));
    assert_eq!(bench.audit().await, before, "and has changed nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_survivors_one_resumes_each_redemption() {
    let bench = bench().await;
    bench.funded(1).await;
    bench.mint.hold_swaps(true);
    let mut hanging = Vec::new();
    for amount in 1..=12 {
        let text = bench.sats(amount).await;
        hanging.push(hang(&bench, &bench.till, &text).await);
    }
    make_ghost(&bench, "redemptions").await;
    end_lease_of_ghost(&bench).await;
    let (one, two) = (bench.another_gateway(PATIENT).await, bench.another_gateway(PATIENT).await);
    let (one, two) = tokio::join!(one.recover(), two.recover());
    assert_eq!(one.redemptions_completed + two.redemptions_completed, 12, "{one:?} {two:?}");
    assert_eq!(one.redemptions_unknown + two.redemptions_unknown, 0, "{one:?} {two:?}");
    assert_eq!(bench.audit().await.credited, sat(1 + 12 * 13 / 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_is_taken_over_when_its_owners_lease_has_run_out_and_not_before() {
    let bench = bench().await;
    let other = bench.another_gateway(PATIENT).await;
    let account = uncomposable(&bench).await;
    bench.mint.hold_swaps(true);
    let till = bench.till.clone();
    let before = bench.mint.swap_count();
    let mut paused = JoinSet::new();
    paused.spawn(async move { till.refund(account, three()).await });
    bench.mint.await_swaps(before + 1).await;
    let pending = Recovery { withdrawals_pending: 1, ..Recovery::default() };
    assert_eq!(other.recover().await, pending, "its owner lives");
    make_ghost(&bench, "exchanges").await;
    assert_eq!(other.recover().await, pending, "and so does this one");
    end_lease_of_ghost(&bench).await;
    assert_eq!(other.recover().await.withdrawals_completed, 1);
    bench.mint.hold_swaps(false);
    // Whoever was at it wakes, and gives what the other made of it.
    let change = paused.join_next().await.unwrap().unwrap().unwrap();
    assert_eq!(bench.value_of(&change).await, 3);
    assert_eq!(bench.till.ledger().withdrawals_open().await.unwrap(), []);
    bench.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_lives_is_waited_for_no_longer_than_a_mint_would_be() {
    let bench = bench().await;
    let text = bench.sats(4).await;
    bench.funded(1).await;
    bench.mint.hold_swaps(true);
    let mut hanging = hang(&bench, &bench.till, &text).await;
    let impatient = bench.another_gateway(super::support::IMPATIENT).await;
    let told = impatient.redeem(&text, owner(&text), Msat::ZERO).await;
    assert_eq!(told, Err(super::RedeemRefused::Unknown));
    assert!(impatient.is_redeeming(&text).await);
    bench.mint.hold_swaps(false);
    assert_eq!(hanging.join_next().await.unwrap().unwrap(), sat(4));
    let again = impatient.redeem(&text, owner(&text), Msat::ZERO).await.unwrap();
    assert!(!again.fresh && again.amount == sat(4));
}
