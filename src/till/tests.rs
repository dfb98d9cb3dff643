//! Redeeming against a real mint: what is credited, and what a mint's failures leave.

use nutgate_sandbox::{CurrencyUnit, MintOptions, TokenFormat};
use tokio::task::JoinSet;

use super::support::{Bench, PATIENT, holds, owner, sat};
use super::{Recovery, RedeemRefused};
use crate::ids::{AccountId, DepositId};
use crate::money::Msat;
use crate::store::place::{Over, over_both, statement};
use crate::store::{Db, values};
use crate::wallet::tests::as_v3;
use crate::wallet::{Resolved, came_in_after, went_out_after};

async fn fifty_simultaneous_first_uses_are_credited_once(over: Over) {
    let bench = Bench::start(over).await;
    let text = bench.sats(100).await;
    let mut calls = JoinSet::new();
    for _ in 0..50 {
        let (till, text) = (bench.till.clone(), text.clone());
        calls.spawn(async move { till.redeem(&text, owner(&text), Msat::ZERO).await });
    }
    let answers: Vec<_> = calls.join_all().await.into_iter().map(Result::unwrap).collect();
    assert!(answers.iter().all(|answer| answer.amount == sat(100)));
    assert_eq!(answers.iter().filter(|answer| answer.fresh).count(), 1);
    assert_eq!(bench.mint.swap_count(), 1);
    assert_eq!(holds(&bench.till, &owner(&text)).await.deposited, sat(100));
    let again = bench.redeem(&text).await.unwrap();
    assert!(!again.fresh && again.amount == sat(100));
    assert_eq!(bench.audit().await.credited, sat(100));
}

async fn a_token_redeemed_for_one_account_is_spent_for_every_other(over: Over) {
    let bench = Bench::start(over).await;
    let text = bench.sats(5).await;
    bench.redeem(&text).await.unwrap();
    let stranger = AccountId::stored("stranger");
    let refused = bench.till.redeem(&text, stranger.clone(), Msat::ZERO).await;
    assert_eq!(refused, Err(RedeemRefused::AlreadySpent));
    assert_eq!(holds(&bench.till, &stranger).await.deposited, Msat::ZERO);
}

async fn two_encodings_of_the_same_proofs_are_credited_once(over: Over) {
    let bench = Bench::start(over).await;
    for simultaneous in [false, true] {
        let v4 = bench.sats(21).await;
        let v3 = as_v3(&v4);
        let (first, second) = if simultaneous {
            tokio::join!(bench.redeem(&v4), bench.redeem(&v3))
        } else {
            (bench.redeem(&v3).await, bench.redeem(&v4).await)
        };
        assert!(first.is_ok() != second.is_ok(), "{first:?} {second:?}");
        let (one, other) = (owner(&v4), owner(&v3));
        let credited = [holds(&bench.till, &one).await, holds(&bench.till, &other).await];
        let total = credited[0].deposited.checked_add(credited[1].deposited);
        assert_eq!(total, Some(sat(21)));
    }
    bench.audit().await;
}

async fn an_answer_lost_on_its_way_is_found_out_at_once(over: Over) {
    let bench = Bench::start(over).await;
    let text = bench.sats(64).await;
    bench.mint.lose_swap_answers(true);
    let redeemed = bench.redeem(&text).await.unwrap();
    assert_eq!(redeemed.amount, sat(64));
    bench.mint.lose_swap_answers(false);
    assert!(!bench.redeem(&text).await.unwrap().fresh);
    assert_eq!(bench.mint.swap_count(), 1);
    assert_eq!(holds(&bench.till, &owner(&text)).await.deposited, sat(64));
    bench.audit().await;
}

async fn an_answer_that_does_not_come_is_unknown_until_a_repetition_finds_out(over: Over) {
    let bench = Bench::start(over).await;
    let text = bench.sats(9).await;
    bench.funded(1).await;
    let bench = bench.impatient().await;
    bench.mint.hold_swaps(true);
    assert_eq!(bench.redeem(&text).await, Err(RedeemRefused::Unknown));
    assert!(bench.till.is_redeeming(&text).await);
    bench.mint.hold_swaps(false);
    let found = loop {
        match bench.redeem(&text).await {
            Err(RedeemRefused::Unknown) => {}
            found => break found.unwrap(),
        }
    };
    assert_eq!(found.amount, sat(9));
    assert!(!bench.till.is_redeeming(&text).await);
    assert_eq!(holds(&bench.till, &owner(&text)).await.deposited, sat(9));
    bench.audit().await;
}

async fn a_swap_that_hangs_keeps_no_other_token_waiting(over: Over) {
    let bench = Bench::start(over).await;
    bench.funded(1).await;
    bench.mint.hold_swaps(true);
    let mut calls = JoinSet::new();
    for amount in 1..=8 {
        let (till, text) = (bench.till.clone(), bench.sats(amount).await);
        calls.spawn(async move { till.redeem(&text, owner(&text), Msat::ZERO).await });
    }
    bench.mint.await_swaps(9).await;
    bench.mint.hold_swaps(false);
    assert!(calls.join_all().await.iter().all(Result::is_ok));
}

async fn a_mint_that_is_down_leaves_the_token_untouched(over: Over) {
    let mut bench = Bench::start(over).await;
    let text = bench.sats(8).await;
    let late = bench.sats(8).await;
    bench.funded(1).await;
    bench.mint.stop().await;
    let refused = bench.redeem(&text).await.unwrap_err();
    assert_eq!(refused, RedeemRefused::MintUnreachable);
    assert!(refused.is_untouched());
    assert!(!bench.till.is_redeeming(&text).await);
    bench.mint.start_again().await.unwrap();
    assert!(!bench.faucet.is_spent(&text).await.unwrap());
    assert!(bench.redeem(&text).await.unwrap().fresh);
    assert_eq!(bench.faucet.value_in_fresh_wallet(&late).await.unwrap(), 8);
    assert_eq!(bench.redeem(&late).await, Err(RedeemRefused::AlreadySpent));
    assert_eq!(bench.redeem(&late).await, Err(RedeemRefused::AlreadySpent));
    bench.audit().await;
}

async fn a_mint_never_reached_leaves_no_trace_and_loses_nothing(over: Over) {
    let mut bench = Bench::start(over).await;
    let text = bench.sats(8).await;
    bench.mint.stop().await;
    assert_eq!(bench.redeem(&text).await, Err(RedeemRefused::MintUnreachable));
    bench.mint.start_again().await.unwrap();
    assert!(bench.redeem(&text).await.is_ok());
}

async fn units_and_fees_are_counted_to_the_msat(over: Over) {
    let units = vec![CurrencyUnit::Sat, CurrencyUnit::Msat];
    let options = MintOptions { units, input_fee_ppk: 400, ..MintOptions::default() };
    let bench = Bench::with(over, options).await;
    for (unit, format, size) in [
        (CurrencyUnit::Sat, TokenFormat::A, 1000),
        (CurrencyUnit::Sat, TokenFormat::B, 1000),
        (CurrencyUnit::Msat, TokenFormat::B, 1),
    ] {
        let text = bench.faucet.cashu(0b1011, unit, format).await.unwrap();
        let redeemed = bench.redeem(&text).await.unwrap();
        // Three proofs cost 1.2 of the unit, rounded up.
        assert_eq!(redeemed.amount.get(), (0b1011 - 2) * size);
        let change = bench.refund(&redeemed.account).await.unwrap();
        assert_eq!(change.amount, redeemed.amount);
    }
    let audit = bench.audit().await;
    assert_eq!(audit.redemption_fees.get(), 2 * 2000 + 2);
}

async fn nothing_is_taken_of_a_token_that_is_too_small_or_eaten_by_fees(over: Over) {
    let options = MintOptions { input_fee_ppk: 1000, ..MintOptions::default() };
    let bench = Bench::with(over, options).await;
    let one = bench.sats(1).await;
    assert_eq!(bench.redeem(&one).await, Err(RedeemRefused::FeesExceedAmount));
    let small = bench.sats(8).await;
    let refused = bench.till.redeem(&small, owner(&small), sat(8)).await.unwrap_err();
    assert_eq!(refused, RedeemRefused::TooSmall { required: sat(8), value: sat(7) });
    for text in [one, small.clone()] {
        assert!(!bench.faucet.is_spent(&text).await.unwrap());
    }
    assert!(bench.till.redeem(&small, owner(&small), sat(7)).await.is_ok());
}

async fn a_keyset_rotated_meanwhile_is_noticed_by_the_first_token(over: Over) {
    let bench = Bench::start(over).await;
    bench.funded(5).await;
    let old = bench.sats(11).await;
    bench.mint.rotate_keyset(CurrencyUnit::Sat).await.unwrap();
    assert_eq!(bench.redeem(&old).await.unwrap().amount, sat(11));
    bench.faucet.forget_stock().await;
    let new = bench.sats(13).await;
    assert_eq!(bench.redeem(&new).await.unwrap().amount, sat(13));
    bench.audit().await;
}

async fn killed_after_the_mint_has_signed_the_value_is_found_at_the_start(over: Over) {
    let bench = Bench::start(over).await;
    let text = bench.sats(77).await;
    bench.funded(1).await;
    bench.mint.hold_swaps(true);
    let (till, shown) = (bench.till.clone(), text.clone());
    let mut hanging = JoinSet::new();
    hanging.spawn(async move { till.redeem(&shown, owner(&shown), Msat::ZERO).await });
    bench.mint.await_swaps(2).await;
    let (_copy, till) = bench.after_a_crash().await;
    let recovery = till.recover().await;
    assert_eq!(recovery, Recovery { redemptions_completed: 1, ..Recovery::default() });
    assert_eq!(holds(&till, &owner(&text)).await.deposited, sat(77));
    assert!(!till.redeem(&text, owner(&text), Msat::ZERO).await.unwrap().fresh);
}

async fn killed_between_redeeming_and_crediting_the_deposit_is_made_at_the_start(over: Over) {
    let bench = Bench::start(over).await;
    let text = bench.sats(3).await;
    let redeemed = bench.till.wallet().redeem(&text, owner(&text), Msat::ZERO, &|| {}).await;
    assert!(redeemed.unwrap().fresh);
    assert_eq!(bench.audit().await.uncredited, sat(3));
    let (_copy, till) = bench.after_a_crash().await;
    let recovery = till.recover().await;
    assert_eq!(recovery, Recovery { redemptions_completed: 1, ..Recovery::default() });
    assert_eq!(holds(&till, &owner(&text)).await.deposited, sat(3));
    assert_eq!(till.recover().await, Recovery::default());
}

async fn a_start_with_a_mint_that_is_down_is_bounded_and_leaves_the_rest_for_later(over: Over) {
    let mut bench = Bench::start(over).await;
    let text = bench.sats(6).await;
    bench.funded(1).await;
    bench.mint.hold_swaps(true);
    let (till, shown) = (bench.till.clone(), text.clone());
    let mut hanging = JoinSet::new();
    hanging.spawn(async move { till.redeem(&shown, owner(&shown), Msat::ZERO).await });
    bench.mint.await_swaps(2).await;
    let (copy, till) = bench.after_a_crash().await;
    bench.mint.stop().await;
    let recovery = till.recover().await;
    assert_eq!(recovery, Recovery { redemptions_unknown: 1, ..Recovery::default() });
    drop(till);
    bench.mint.start_again().await.unwrap();
    let (_db, till) = copy.open(&bench.mint.url(), PATIENT).await;
    assert_eq!(till.recover().await.redemptions_completed, 1);
    assert_eq!(holds(&till, &owner(&text)).await.deposited, sat(6));
}

async fn a_database_restored_from_an_old_copy_credits_only_what_it_takes(over: Over) {
    let bench = Bench::start(over).await;
    bench.funded(1).await;
    let (_copy, restored) = bench.after_a_crash().await;
    bench.funded(1000).await;
    let text = bench.sats(77).await;
    let redeemed = restored.redeem(&text, owner(&text), Msat::ZERO).await.unwrap();
    assert_eq!(redeemed.amount, sat(77));
    assert!(bench.faucet.is_spent(&text).await.unwrap(), "under counters never used before");
    let change = restored.refund(redeemed.account, Default::default()).await.unwrap();
    assert_eq!(bench.value_of(&change).await, 77);
}

/// Ages every redemption so that its late look is due.
async fn age(db: &Db, state: &str) {
    let sql = "UPDATE redemptions SET asked_ms = 0, next_ms = 0, state = ?1
               WHERE state IN ('recorded', 'lapsed')";
    assert_eq!(statement(db, sql, values![state]).await, 1);
}

async fn a_request_given_up_for_unseen_is_credited_if_the_mint_had_seen_it(over: Over) {
    let bench = Bench::start(over).await;
    let text = bench.sats(18).await;
    bench.funded(1).await;
    bench.mint.hold_swaps(true);
    let (till, shown) = (bench.till.clone(), text.clone());
    let mut hanging = JoinSet::new();
    hanging.spawn(async move { till.redeem(&shown, owner(&shown), Msat::ZERO).await });
    bench.mint.await_swaps(2).await;
    let (copy, till) = bench.after_a_crash().await;
    drop(till);
    let (db, till) = copy.open(&bench.mint.url(), PATIENT).await;
    age(&db, "lapsed").await;
    assert!(!till.is_redeeming(&text).await);
    assert_eq!(till.recover().await.redemptions_completed, 1);
    assert_eq!(holds(&till, &owner(&text)).await.deposited, sat(18));
}

async fn a_request_the_mint_never_saw_is_forgotten_after_a_late_look(over: Over) {
    let mut bench = Bench::start(over).await;
    let text = bench.sats(18).await;
    bench.funded(1).await;
    bench.mint.stop().await;
    assert_eq!(bench.redeem(&text).await, Err(RedeemRefused::MintUnreachable));
    assert_eq!(bench.till.recover().await, Recovery::default(), "not before it is due");
    age(&bench.db, "lapsed").await;
    bench.mint.start_again().await.unwrap();
    let id = DepositId::of_cashu_token(&text);
    assert_eq!(bench.till.wallet().resolve_redemption(&id).await, Resolved::Forgotten);
    assert_eq!(bench.till.wallet().resolve_redemption(&id).await, Resolved::Unknown, "no row");
    assert!(bench.redeem(&text).await.unwrap().fresh);
}

fn total(amounts: impl Iterator<Item = Msat>) -> Msat {
    amounts.fold(Msat::ZERO, Msat::saturating_add)
}

async fn what_came_in_and_went_out_is_listed_and_adds_up(over: Over) {
    let bench = Bench::start(over).await;
    let account = bench.funded(40).await;
    let uncredited = bench.sats(3).await;
    let wallet = bench.till.wallet();
    wallet.redeem(&uncredited, owner(&uncredited), Msat::ZERO, &|| {}).await.unwrap();
    let change = bench.refund(&account).await.unwrap();
    let listed = bench.db.snapshot(|tx| {
        let came = came_in_after(tx, None)?;
        assert_eq!(came_in_after(tx, came.last().map(|last| &last.id))?, []);
        assert_eq!(total(came.iter().map(|came| came.amount)), sat(43));
        let went = went_out_after(tx, None)?;
        assert_eq!(went_out_after(tx, went.last().map(|last| &last.id))?, []);
        assert_eq!(total(went.iter().map(|went| went.amount)), sat(40));
        Ok((came, went))
    });
    let (came, went) = listed.await.unwrap();
    let mut credited: Vec<_> = came.iter().map(|came| (came.amount, came.credited)).collect();
    credited.sort();
    assert_eq!(credited, [(sat(3), false), (sat(40), true)]);
    let went: Vec<_> = went.into_iter().map(|went| (went.account, went.amount)).collect();
    assert_eq!(went, [(account, change.amount)]);
}

over_both! {
    what_came_in_and_went_out_is_listed_and_adds_up
    fifty_simultaneous_first_uses_are_credited_once
    a_token_redeemed_for_one_account_is_spent_for_every_other
    two_encodings_of_the_same_proofs_are_credited_once
    an_answer_lost_on_its_way_is_found_out_at_once
    an_answer_that_does_not_come_is_unknown_until_a_repetition_finds_out
    a_swap_that_hangs_keeps_no_other_token_waiting
    a_mint_that_is_down_leaves_the_token_untouched
    a_mint_never_reached_leaves_no_trace_and_loses_nothing
    units_and_fees_are_counted_to_the_msat
    nothing_is_taken_of_a_token_that_is_too_small_or_eaten_by_fees
    a_keyset_rotated_meanwhile_is_noticed_by_the_first_token
    killed_after_the_mint_has_signed_the_value_is_found_at_the_start
    killed_between_redeeming_and_crediting_the_deposit_is_made_at_the_start
    a_start_with_a_mint_that_is_down_is_bounded_and_leaves_the_rest_for_later
    a_database_restored_from_an_old_copy_credits_only_what_it_takes
    a_request_given_up_for_unseen_is_credited_if_the_mint_had_seen_it
    a_request_the_mint_never_saw_is_forgotten_after_a_late_look
}
