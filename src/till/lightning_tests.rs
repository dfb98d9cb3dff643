//! Invoices over a real mint, whose Lightning pays them at once unless it is told not to.

use std::time::Duration;

use nutgate_sandbox::{CurrencyUnit, MintOptions};
use tokio::task::JoinSet;

use super::support::{Bench, Gateway, PATIENT, holds, sat};
use super::{Goes, Invoice, InvoiceAsk, InvoiceRefused, InvoiceState, RefundAsk, Till};
use crate::clock::UnixMs;
use crate::ids::{AccountId, ApiKey, DepositId};
use crate::ledger::Ledger;
use crate::ledger::embedded::Embedded;
use crate::ledger::terms::{Cap, Reset, Terms};
use crate::money::Msat;
use crate::store::place::{Over, over_both, statement};
use crate::store::{Value, values};
use crate::wallet::{Looked, PaidQuote};

fn to_its_own_key(sats: u64) -> InvoiceAsk {
    InvoiceAsk { amount: sat(sats), goes: Goes::ToItsOwnKey(Terms::default()), mint: None }
}

fn owner(invoice: &Invoice) -> AccountId {
    ApiKey::of_invoice(&invoice.id).account()
}

/// Asks again and again, as if time passed between, until it is paid.
async fn paid(bench: &Bench, till: &Till<Embedded>, invoice: &Invoice) {
    let paid = async {
        while state(bench, till, invoice).await != Some(InvoiceState::Paid) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENT, paid).await.expect("it is paid");
}

async fn state(bench: &Bench, till: &Gateway, invoice: &Invoice) -> Option<InvoiceState> {
    changed(bench, "checked_ms = 0", values![]).await;
    till.invoice_status(&invoice.id).await.unwrap().map(|status| status.state)
}

/// The mint says that it is paid, and nothing is done about that.
async fn seen_paid(bench: &Bench, invoice: &Invoice) -> Box<PaidQuote> {
    let id = DepositId::of_invoice(&invoice.id);
    loop {
        if let Looked::Paid(seen) = bench.till.wallet().look_at_quote(&id).await {
            return seen;
        }
    }
}

async fn changed(bench: &Bench, what: &str, values: &[Value]) -> u64 {
    statement(&bench.db, &format!("UPDATE quotes SET {what}"), values).await
}

async fn a_payment_is_credited_once_however_often_it_is_looked_at(over: Over) {
    let bench = Bench::start(over).await;
    for sats in [1, 37] {
        let invoice = bench.till.invoice(to_its_own_key(sats)).await.unwrap();
        assert!(bench.till.ledger().account(owner(&invoice)).await.unwrap().is_none());
        let issued = bench.mint.issue_count();
        let mut looks = JoinSet::new();
        for _ in 0..8 {
            let (till, id) = (bench.till.clone(), invoice.id.clone());
            looks.spawn(async move { till.invoice_status(&id).await.unwrap().unwrap() });
        }
        looks.join_all().await;
        paid(&bench, &bench.till, &invoice).await;
        let status = bench.till.invoice_status(&invoice.id).await.unwrap().unwrap();
        assert_eq!(status.key.unwrap().account(), owner(&invoice));
        assert!(status.paid.unwrap() >= status.created);
        assert_eq!(holds(&bench.till, &owner(&invoice)).await.deposited, sat(sats));
        assert_eq!(bench.mint.issue_count(), issued + 1);
        bench.audit().await;
    }
    let locked = changed(&bench, "checked_ms = 0 WHERE locked = 1", values![]).await;
    assert_eq!(locked, 2, "the mint signs for nobody who only knows the quotes");
    let audit = bench.audit().await;
    assert_eq!((audit.credited, audit.pool), (sat(38), sat(38)));
}

async fn what_is_not_paid_is_never_credited_and_a_late_payment_is(over: Over) {
    let bench = Bench::start(over).await;
    bench.mint.leave_unpaid(true);
    let invoice = bench.till.invoice(to_its_own_key(21)).await.unwrap();
    assert_eq!(state(&bench, &bench.till, &invoice).await, Some(InvoiceState::Pending));
    let days = |days: u64| UnixMs::now().0 - days * 86_400_000;
    changed(&bench, "expires_ms = ?1", values![days(6).cast_signed()]).await;
    assert_eq!(state(&bench, &bench.till, &invoice).await, Some(InvoiceState::Expired));
    assert!(bench.till.ledger().account(owner(&invoice)).await.unwrap().is_none());
    assert_eq!((bench.mint.issue_count(), bench.audit().await.pool), (0, Msat::ZERO));
    bench.mint.leave_unpaid(false);
    paid(&bench, &bench.till, &invoice).await;
    assert_eq!(holds(&bench.till, &owner(&invoice)).await.available, sat(21));

    bench.mint.leave_unpaid(true);
    let invoice = bench.till.invoice(to_its_own_key(22)).await.unwrap();
    let late = values![days(7).cast_signed()];
    let sql = "UPDATE quotes SET expires_ms = ?1 WHERE state = 'offered'";
    assert_eq!(statement(&bench.db, sql, late).await, 1);
    assert_eq!(state(&bench, &bench.till, &invoice).await, None, "nobody paid it in all this time");
    bench.audit().await;
}

async fn a_mint_that_is_away_when_it_is_paid_loses_nobody_anything(over: Over) {
    let mut bench = Bench::start(over).await;
    let invoice = bench.till.invoice(to_its_own_key(50)).await.unwrap();
    bench.mint.stop().await;
    assert_eq!(state(&bench, &bench.till, &invoice).await, Some(InvoiceState::Pending));
    let refused = bench.till.invoice(to_its_own_key(50)).await;
    assert_eq!(refused.unwrap_err(), InvoiceRefused::NoInvoice);
    bench.mint.start_again().await.unwrap();
    paid(&bench, &bench.till, &invoice).await;
    assert_eq!(holds(&bench.till, &owner(&invoice)).await.available, sat(50));
    bench.audit().await;
}

async fn signatures_whose_answer_got_lost_are_restored(over: Over) {
    let bench = Bench::start(over).await;
    bench.mint.lose_issue_answers(true);
    let invoice = bench.till.invoice(to_its_own_key(50)).await.unwrap();
    paid(&bench, &bench.till, &invoice).await;
    assert_eq!(holds(&bench.till, &owner(&invoice)).await.deposited, sat(50));
    bench.audit().await;
}

async fn signatures_that_a_dead_process_never_saw_are_restored(over: Over) {
    let bench = Bench::start(over).await;
    let invoice = bench.till.invoice(to_its_own_key(50)).await.unwrap();
    let seen = seen_paid(&bench, &invoice).await;
    let (_machine, other) = bench.after_a_crash().await;
    assert!(bench.till.wallet().redeem_quote(*seen).await.is_some());
    // Without being asked for: what is paid is looked at first.
    let recovery = other.recover().await;
    assert_eq!(recovery.invoices_completed, 1, "{recovery:?}");
    let status = other.invoice_status(&invoice.id).await.unwrap().unwrap();
    assert_eq!(status.state, InvoiceState::Paid);
    assert_eq!(holds(&other, &owner(&invoice)).await.deposited, sat(50));
    assert_eq!(bench.mint.issue_count(), 1, "it was not signed for twice");
    let refund = other.refund(owner(&invoice), RefundAsk::default()).await.unwrap();
    let worth = bench.faucet.value_in_fresh_wallet(refund.cashu_token.reveal()).await.unwrap();
    assert_eq!(worth, 50, "the proofs are good");
}

async fn a_keyset_that_is_retired_before_the_signing_is_changed(over: Over) {
    let bench = Bench::start(over).await;
    let invoice = bench.till.invoice(to_its_own_key(13)).await.unwrap();
    let seen = seen_paid(&bench, &invoice).await;
    bench.mint.rotate_keyset(CurrencyUnit::Sat).await.unwrap();
    assert!(bench.till.wallet().redeem_quote(*seen).await.is_some());
    paid(&bench, &bench.till, &invoice).await;
    assert_eq!(holds(&bench.till, &owner(&invoice)).await.deposited, sat(13));
    bench.audit().await;
}

/// The database is a copy of an earlier one: it would give counters out again.
async fn counters_that_were_used_in_another_life_are_passed_over(over: Over) {
    let bench = Bench::start(over).await;
    let account = bench.funded(7).await;
    bench.refund(&account).await.unwrap();
    statement(&bench.db, "UPDATE counters SET next = 0", values![]).await;
    let invoice = bench.till.invoice(to_its_own_key(7)).await.unwrap();
    paid(&bench, &bench.till, &invoice).await;
    assert_eq!(holds(&bench.till, &owner(&invoice)).await.deposited, sat(7));
    bench.audit().await;
}

async fn what_was_signed_for_elsewhere_is_not_credited(over: Over) {
    let bench = Bench::start(over).await;
    let invoice = bench.till.invoice(to_its_own_key(7)).await.unwrap();
    paid(&bench, &bench.till, &invoice).await;
    // As if that had happened with another database.
    changed(&bench, "state = 'offered', keyset = NULL", values![]).await;
    statement(&bench.db, "DELETE FROM redemptions", values![]).await;
    assert_eq!(state(&bench, &bench.till, &invoice).await, Some(InvoiceState::Lost));
    assert_eq!(state(&bench, &bench.till, &invoice).await, Some(InvoiceState::Lost), "for good");
    assert_eq!(bench.mint.issue_count(), 1);
}

async fn a_key_is_opened_under_its_terms_and_a_top_up_keeps_them(over: Over) {
    let bench = Bench::start(over).await;
    let cap = Some(Cap { amount: sat(5), reset: Reset::Daily });
    let expires = Some(UnixMs::now().plus(Duration::from_secs(3600)));
    let terms = Terms { cap, expires, ..Terms::default() };
    let goes = Goes::ToItsOwnKey(terms.clone());
    let ask = InvoiceAsk { amount: sat(10), goes, mint: Some(bench.mint.url()) };
    let invoice = bench.till.invoice(ask).await.unwrap();
    paid(&bench, &bench.till, &invoice).await;
    assert_eq!(holds(&bench.till, &owner(&invoice)).await.terms, terms);
    let goes = Goes::ToAccount(owner(&invoice));
    let more = InvoiceAsk { amount: sat(3), goes, mint: None };
    let more = bench.till.invoice(more).await.unwrap();
    paid(&bench, &bench.till, &more).await;
    assert_eq!(bench.till.invoice_status(&more.id).await.unwrap().unwrap().key, None);
    let account = holds(&bench.till, &owner(&invoice)).await;
    assert_eq!((account.available, account.terms), (sat(13), terms));
    assert!(bench.till.ledger().account(owner(&more)).await.unwrap().is_none());
}

async fn the_keeper_credits_what_nobody_asks_for(over: Over) {
    let bench = Bench::start(over).await;
    bench.till.recover().await;
    let invoice = bench.till.invoice(to_its_own_key(8)).await.unwrap();
    let credited = async {
        while holds(&bench.till, &owner(&invoice)).await.deposited != sat(8) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENT, credited).await.expect("the keeper looks");
    bench.audit().await;
}

async fn only_so_many_invoices_wait_for_their_payment(over: Over) {
    let bench = Bench::start(over).await;
    bench.mint.leave_unpaid(true);
    let waiting = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 9999)
        INSERT INTO quotes (id, account, purpose, mint, unit, amount, amount_msat, quote, state,
            created_ms, expires_ms, checked_ms, next_ms)
        SELECT 'i' || n, 'a', 'create', 'm', 'sat', 1, 1000, 'q' || n, 'offered', 1, ?1, ?1, ?1
        FROM n";
    let far = i64::MAX / 2;
    assert_eq!(statement(&bench.db, waiting, values![far]).await, 9_999);
    bench.till.invoice(to_its_own_key(1)).await.unwrap();
    let refused = bench.till.invoice(to_its_own_key(1)).await;
    assert_eq!(refused.unwrap_err(), InvoiceRefused::TooMany);
    // Those that expired are not waited for, only looked at now and then.
    let sql = "UPDATE quotes SET expires_ms = 1 WHERE id = 'i1'";
    statement(&bench.db, sql, values![]).await;
    bench.till.invoice(to_its_own_key(1)).await.unwrap();
}

async fn an_invoice_changed_by_hand_is_found_by_the_audit(over: Over) {
    let bench = Bench::start(over).await;
    let invoice = bench.till.invoice(to_its_own_key(7)).await.unwrap();
    paid(&bench, &bench.till, &invoice).await;
    for (tampered, original) in [
        ("amount = 8, amount_msat = 8000", "amount = 7, amount_msat = 7000"),
        ("amount_msat = 6999", "amount_msat = 7000"),
        ("account = 'thief' || account", "account = SUBSTR(account, 6)"),
        ("state = 'offered'", "state = 'redeemed'"),
    ] {
        changed(&bench, tampered, values![]).await;
        assert_eq!(bench.audited().await.redemptions_mismatched, 1, "{tampered}");
        changed(&bench, original, values![]).await;
        bench.audit().await;
    }
}

async fn only_an_accepted_mint_is_asked(over: Over) {
    let bench = Bench::start(over).await;
    let other = "https://mint.example".to_owned();
    let ask = InvoiceAsk { mint: Some(other), ..to_its_own_key(1) };
    assert_eq!(bench.till.invoice(ask).await.unwrap_err(), InvoiceRefused::MintNotAccepted);
}

over_both! {
    a_payment_is_credited_once_however_often_it_is_looked_at
    what_is_not_paid_is_never_credited_and_a_late_payment_is
    a_mint_that_is_away_when_it_is_paid_loses_nobody_anything
    signatures_whose_answer_got_lost_are_restored
    signatures_that_a_dead_process_never_saw_are_restored
    a_keyset_that_is_retired_before_the_signing_is_changed
    counters_that_were_used_in_another_life_are_passed_over
    what_was_signed_for_elsewhere_is_not_credited
    a_key_is_opened_under_its_terms_and_a_top_up_keeps_them
    the_keeper_credits_what_nobody_asks_for
    only_so_many_invoices_wait_for_their_payment
    an_invoice_changed_by_hand_is_found_by_the_audit
    only_an_accepted_mint_is_asked
}

#[tokio::test(flavor = "multi_thread")]
async fn two_gateways_that_look_at_once_credit_once() {
    let bench = Bench::with(Over::Postgres, MintOptions::default()).await;
    let other = bench.another_gateway(PATIENT).await;
    for round in 1..=10 {
        let invoice = bench.till.invoice(to_its_own_key(20 + round)).await.unwrap();
        let id = DepositId::of_invoice(&invoice.id);
        let issued = bench.mint.issue_count();
        while holds(&bench.till, &owner(&invoice)).await.deposited != sat(20 + round) {
            let mut looks = JoinSet::new();
            for till in [bench.till.clone(), other.clone(), bench.till.clone(), other.clone()] {
                let id = id.clone();
                looks.spawn(async move { till.look_at_quote(id).await });
            }
            looks.join_all().await;
        }
        paid(&bench, &other, &invoice).await;
        assert_eq!(holds(&other, &owner(&invoice)).await.deposited, sat(20 + round));
        assert_eq!(bench.mint.issue_count(), issued + 1);
    }
    bench.audit().await;
}
