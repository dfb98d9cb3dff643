//! Refunds against a real mint: what comes back is worth what was booked, once.

use std::time::Duration;

use nutgate_sandbox::CurrencyUnit;
use tokio::task::JoinSet;

use super::support::{Bench, holds, sat};
use super::{Recovery, RefundAsk, RefundRefused};
use crate::ids::{AccountId, WithdrawalId};
use crate::ledger::{Amount, Ledger, WithdrawalAsk};
use crate::money::Msat;
use crate::store::place::{Over, over_both, statement};
use crate::store::{Durability, Tx, values};
use crate::wallet::{Issue, audit_rows};

async fn change_is_worth_what_is_left_and_repeating_gives_the_same_text(over: Over) {
    let bench = Bench::start(over).await;
    let account = bench.funded(100).await;
    bench.spend(&account, Msat::new(30_400).unwrap()).await;
    let swaps = bench.mint.swap_count();
    let change = bench.refund(&account).await.unwrap();
    assert_eq!((change.amount, change.unit.as_str()), (sat(69), "sat"));
    assert_eq!(change.mint, bench.mint.url());
    assert_eq!(bench.refund(&account).await.unwrap(), change);
    assert_eq!(bench.mint.swap_count(), swaps, "no mint is needed");
    assert_eq!(holds(&bench.till, &account).await.available.get(), 600, "less than a sat stays");
    assert_eq!(bench.value_of(&change).await, 69);
    let audit = bench.audit().await;
    assert_eq!((audit.issued, audit.pool), (sat(69), sat(31)));
}

async fn simultaneous_refunds_of_one_account_are_one(over: Over) {
    let bench = Bench::start(over).await;
    let account = bench.funded(50).await;
    let mut calls = JoinSet::new();
    for _ in 0..20 {
        let (till, account) = (bench.till.clone(), account.clone());
        calls.spawn(async move { till.refund(account, RefundAsk::default()).await });
    }
    let answers: Vec<_> = calls.join_all().await.into_iter().map(Result::unwrap).collect();
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    assert_eq!(answers[0].amount, sat(50));
    assert_eq!(holds(&bench.till, &account).await.refunded, sat(50));
    bench.audit().await;
}

async fn what_cannot_be_refunded_is_refused_by_its_reason(over: Over) {
    let bench = Bench::start(over).await;
    let nobody = AccountId::stored("nobody");
    assert_eq!(bench.refund(&nobody).await, Err(RefundRefused::NoAccount));
    let account = bench.funded(2).await;
    let available = sat(2);
    let refused = bench.refund_sats(&account, 3).await;
    assert_eq!(refused, Err(RefundRefused::Insufficient { available }));
    let elsewhere =
        RefundAsk { amount: None, mint: Some("https://mint.example".to_owned()), once: None };
    let refused = bench.till.refund(account.clone(), elsewhere).await;
    assert_eq!(refused, Err(RefundRefused::MintNotAccepted));
    let half = RefundAsk { amount: Msat::new(1_500), mint: None, once: None };
    let refused = bench.till.refund(account.clone(), half).await;
    assert_eq!(refused, Err(RefundRefused::TooSmall { available }), "half a sat");
    bench.spend(&account, Msat::new(1_500).unwrap()).await;
    let available = Msat::new(500).unwrap();
    assert_eq!(bench.refund(&account).await, Err(RefundRefused::TooSmall { available }));
    bench.spend(&account, available).await;
    assert_eq!(bench.refund(&account).await, Err(RefundRefused::NothingToRefund));
}

async fn every_account_is_refunded_in_full_or_in_part_while_the_mint_is_down(over: Over) {
    let mut bench = Bench::start(over).await;
    let mut accounts = Vec::new();
    for amount in [1, 2, 3, 5, 7, 10, 21, 33, 64, 100, 255, 1000] {
        accounts.push((bench.funded(amount).await, amount));
    }
    for (account, amount) in &accounts {
        bench.spend(account, Msat::new(amount * 313).unwrap()).await;
    }
    bench.mint.stop().await;
    let mut changes = Vec::new();
    for (account, amount) in accounts.iter().filter(|(_, amount)| *amount > 1) {
        let change = bench.refund(account).await.unwrap();
        assert_eq!(change.amount.get(), amount * 687 / 1000 * 1000);
        changes.push(change);
    }
    bench.mint.start_again().await.unwrap();
    for change in changes {
        assert_eq!(bench.value_of(&change).await, change.amount.whole_sats());
    }
    bench.audit().await;
}

/// Leaves 6 sats in {1, 1, 4}, of which 3 cannot be composed.
async fn uncomposable(bench: &Bench) -> AccountId {
    let account = bench.funded(8).await;
    assert_eq!(bench.refund_sats(&account, 2).await.unwrap().amount, sat(2));
    account
}

async fn what_the_pool_cannot_compose_is_exchanged_at_the_mint(over: Over) {
    let bench = Bench::start(over).await;
    let account = uncomposable(&bench).await;
    let swaps = bench.mint.swap_count();
    let change = bench.refund_sats(&account, 3).await.unwrap();
    assert_eq!(bench.mint.swap_count(), swaps + 1);
    assert_eq!(bench.value_of(&change).await, 3);
    assert_eq!(bench.refund(&account).await.unwrap().amount, sat(3));
    bench.audit().await;
}

async fn an_exchange_whose_answer_is_lost_still_pays(over: Over) {
    let bench = Bench::start(over).await;
    let account = uncomposable(&bench).await;
    bench.mint.lose_swap_answers(true);
    let change = bench.refund_sats(&account, 3).await.unwrap();
    bench.mint.lose_swap_answers(false);
    assert_eq!(bench.value_of(&change).await, 3);
    bench.audit().await;
}

async fn a_refund_that_needs_a_mint_that_is_down_is_pending_and_done_when_it_is_back(over: Over) {
    let mut bench = Bench::start(over).await;
    let account = uncomposable(&bench).await;
    bench.mint.stop().await;
    assert_eq!(bench.refund_sats(&account, 3).await, Err(RefundRefused::Pending));
    assert_eq!(bench.refund(&account).await, Err(RefundRefused::Pending), "it is the same one");
    assert_eq!(holds(&bench.till, &account).await.available, sat(3));
    assert_eq!(bench.audit().await.pool, sat(6), "its proofs pay others meanwhile");
    bench.mint.start_again().await.unwrap();
    let recovery = bench.till.recover().await;
    assert_eq!(recovery, Recovery { withdrawals_completed: 1, ..Recovery::default() });
    let change = bench.refund(&account).await.unwrap();
    assert_eq!(change.amount, sat(3), "what nobody was given yet");
    let rest = bench.refund(&account).await.unwrap();
    assert_eq!(rest.amount, sat(3), "what was left is a refund of its own");
    assert_ne!(rest, change);
    bench.audit().await;
}

async fn an_exchange_that_hangs_is_finished_by_the_next_process(over: Over) {
    let bench = Bench::start(over).await;
    let account = uncomposable(&bench).await;
    bench.mint.hold_swaps(true);
    let (till, asking) = (bench.till.clone(), account.clone());
    let ask = RefundAsk { amount: Some(sat(3)), mint: None, once: None };
    let mut hanging = JoinSet::new();
    hanging.spawn(async move { till.refund(asking, ask).await });
    bench.mint.await_swaps(2).await;
    let (_copy, till) = bench.after_a_crash().await;
    assert_eq!(till.recover().await.withdrawals_completed, 1);
    let change = till.refund(account, RefundAsk::default()).await.unwrap();
    bench.mint.hold_swaps(false);
    assert_eq!(change.amount, sat(3));
    assert_eq!(bench.value_of(&change).await, 3);
}

async fn killed_at_any_step_of_a_refund_the_next_process_gives_the_same_token_once(over: Over) {
    let bench = Bench::start(over).await;
    let account = bench.funded(40).await;
    let id = WithdrawalId::nth(&account, 0);
    let (mint, unit) = (bench.mint.url(), "sat".to_owned());
    let amount = Amount::Everything { unit: sat(1) };
    let ask = WithdrawalAsk {
        id: id.clone(),
        account: account.clone(),
        amount,
        mint: mint.clone(),
        unit: unit.clone(),
    };
    bench.till.ledger().withdraw_begin(ask).await.unwrap().unwrap();
    let (_begun, after_begun) = bench.after_a_crash().await;
    let issue = Issue { id, account: account.clone(), mint, unit, amount: sat(40) };
    let issued = bench.till.wallet().issue(&issue, Duration::ZERO).await.unwrap().unwrap();
    let (_issued, after_issued) = bench.after_a_crash().await;
    for till in [after_begun, after_issued] {
        assert_eq!(till.recover().await.withdrawals_completed, 1);
        let change = till.refund(account.clone(), RefundAsk::default()).await.unwrap();
        assert_eq!(change.cashu_token, issued, "derived from the same rows and seed");
        assert_eq!(till.recover().await, Recovery::default());
    }
    assert_eq!(bench.faucet.value_in_fresh_wallet(issued.reveal()).await.unwrap(), 40);
}

async fn what_nobody_heard_of_is_given_before_anything_new(over: Over) {
    let bench = Bench::start(over).await;
    let account = bench.funded(40).await;
    let begin = WithdrawalAsk {
        id: WithdrawalId::nth(&account, 0),
        account: account.clone(),
        amount: Amount::Everything { unit: sat(1) },
        mint: bench.mint.url(),
        unit: "sat".to_owned(),
    };
    bench.till.ledger().withdraw_begin(begin).await.unwrap().unwrap();
    assert_eq!(bench.till.recover().await.withdrawals_completed, 1);
    let more = bench.sats(10).await;
    bench.till.redeem(&more, account.clone(), Msat::ZERO).await.unwrap();
    for (amount, left) in [(40, 10), (10, 0)] {
        let change = bench.refund(&account).await.unwrap();
        assert_eq!(change.amount, sat(amount));
        assert_eq!(bench.value_of(&change).await, amount);
        assert_eq!(holds(&bench.till, &account).await.available, sat(left));
    }
    bench.audit().await;
}

async fn an_amount_is_the_same_token_until_that_is_redeemed(over: Over) {
    let bench = Bench::start(over).await;
    let account = bench.funded(100).await;
    let first = bench.refund_sats(&account, 30).await.unwrap();
    assert_eq!(bench.refund_sats(&account, 30).await.unwrap(), first, "its answer was lost");
    assert_eq!(holds(&bench.till, &account).await.available, sat(70));
    assert_eq!(bench.value_of(&first).await, 30);
    let second = bench.refund_sats(&account, 30).await.unwrap();
    assert_eq!(bench.value_of(&second).await, 30, "another wish");
    assert_eq!(holds(&bench.till, &account).await.available, sat(40));
    bench.audit().await;
}

async fn proofs_of_a_retired_keyset_are_swapped_out_and_still_pay(over: Over) {
    let bench = Bench::start(over).await;
    let account = bench.funded(30).await;
    bench.mint.rotate_keyset(CurrencyUnit::Sat).await.unwrap();
    bench.till.wallet().refresh_keysets().await;
    assert!(bench.till.wallet().leave_inactive_keysets().await.unwrap() > 0);
    assert_eq!(bench.till.wallet().leave_inactive_keysets().await.unwrap(), 0);
    let change = bench.refund(&account).await.unwrap();
    assert_eq!(bench.value_of(&change).await, 30);
    bench.audit().await;
}

async fn tampering_with_a_row_of_money_shows_in_the_audit(over: Over) {
    let bench = Bench::start(over).await;
    let account = bench.funded(12).await;
    bench.refund_sats(&account, 5).await.unwrap();
    bench.audit().await;
    for tampering in [
        "UPDATE proofs SET amount = amount * 2 WHERE holder IS NULL AND amount = 1",
        "UPDATE proofs SET amount = 16 WHERE holder IS NOT NULL AND amount = 4",
        "DELETE FROM proofs WHERE holder IS NULL",
        "UPDATE outgoing SET amount_msat = amount_msat - 1000",
        "UPDATE redemptions SET amount_msat = amount_msat + 1000",
        "DELETE FROM redemptions",
    ] {
        let probe = move |tx: &mut Tx<'_>| {
            tx.execute("SAVEPOINT probe", values![])?;
            assert!(tx.execute(tampering, values![])? > 0, "{tampering}");
            let audit = audit_rows(tx)?;
            tx.execute("ROLLBACK TO probe", values![])?;
            Ok(audit)
        };
        let audit = bench.db.write(Durability::Process, probe).await.unwrap();
        assert!(!audit.is_consistent(), "{tampering}");
    }
    bench.audit().await;
}

async fn a_token_that_was_claimed_is_noted_as_such(over: Over) {
    let bench = Bench::start(over).await;
    let account = bench.funded(9).await;
    let change = bench.refund(&account).await.unwrap();
    let age = async || statement(&bench.db, "UPDATE outgoing SET checked_ms = 0", values![]).await;
    age().await;
    assert_eq!(bench.till.wallet().note_claimed().await.unwrap(), 0);
    assert_eq!(bench.value_of(&change).await, 9);
    age().await;
    assert_eq!(bench.till.wallet().note_claimed().await.unwrap(), 1);
    let audit = bench.audit().await;
    assert_eq!((audit.issued, audit.claimed), (sat(9), sat(9)));
    assert_eq!(bench.refund(&account).await.unwrap(), change, "and it stays the last refund");
}

async fn what_was_pending_is_finished_in_the_background_when_the_mint_is_back(over: Over) {
    let mut bench = Bench::start(over).await;
    let account = uncomposable(&bench).await;
    assert_eq!(bench.till.recover().await, Recovery::default());
    bench.mint.stop().await;
    assert_eq!(bench.refund_sats(&account, 3).await, Err(RefundRefused::Pending));
    bench.mint.start_again().await.unwrap();
    // Nothing announces the keeper's rounds; whether it has been there is asked of the ledger.
    let mut ask = tokio::time::interval(Duration::from_millis(20));
    while !bench.till.ledger().withdrawals_open().await.unwrap().is_empty() {
        ask.tick().await;
    }
    bench.till.idle().await;
    assert_eq!(bench.audit().await.issued, sat(5), "two before, and these three");
}

over_both! {
    what_nobody_heard_of_is_given_before_anything_new
    an_amount_is_the_same_token_until_that_is_redeemed
    change_is_worth_what_is_left_and_repeating_gives_the_same_text
    simultaneous_refunds_of_one_account_are_one
    what_cannot_be_refunded_is_refused_by_its_reason
    every_account_is_refunded_in_full_or_in_part_while_the_mint_is_down
    what_the_pool_cannot_compose_is_exchanged_at_the_mint
    an_exchange_whose_answer_is_lost_still_pays
    a_refund_that_needs_a_mint_that_is_down_is_pending_and_done_when_it_is_back
    an_exchange_that_hangs_is_finished_by_the_next_process
    killed_at_any_step_of_a_refund_the_next_process_gives_the_same_token_once
    proofs_of_a_retired_keyset_are_swapped_out_and_still_pay
    tampering_with_a_row_of_money_shows_in_the_audit
    a_token_that_was_claimed_is_noted_as_such
    what_was_pending_is_finished_in_the_background_when_the_mint_is_back
}
