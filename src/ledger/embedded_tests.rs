//! The embedded backend against the book, and across restarts.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::ids::DepositId;
use crate::ledger::{Amount, reaper};

fn msat(amount: u64) -> Msat {
    Msat::new(amount).unwrap()
}

fn account(name: u8) -> AccountId {
    AccountId::stored(format!("account-{name}"))
}

fn open(dir: &tempfile::TempDir) -> Embedded {
    loop {
        // The store of a ledger just dropped lets go of its lock a moment later.
        match Store::open(&dir.path().join("ledger.db"), SCHEMA) {
            Ok(store) => return Embedded::new(store),
            Err(_) => std::thread::yield_now(),
        }
    }
}

async fn fund(ledger: &Embedded, name: u8, amount: u64) {
    let id = DepositId::stored(format!("deposit-{name}-{amount}"));
    ledger.deposit(Deposit { id, account: account(name), amount: msat(amount) }).await.unwrap();
}

async fn admit(ledger: &Embedded, name: u8, ceiling: u64) -> Reservation {
    let ask = Admission {
        reservation: ReservationId::fresh(),
        account: account(name),
        ceiling: msat(ceiling),
        deadline: UnixMs::now().plus(Duration::from_secs(60)),
    };
    ledger.admit(ask).await.unwrap().unwrap().reservation
}

async fn parts(ledger: &Embedded, name: u8) -> [u64; 4] {
    let account = ledger.account(account(name)).await.unwrap().unwrap();
    [account.available, account.reserved, account.spent, account.refunded].map(Msat::get)
}

/// What a killed process does with its reservations: nothing at all.
#[expect(clippy::mem_forget, reason = "dropping it would tell the reaper")]
fn forget(reservation: Reservation) {
    std::mem::forget(reservation);
}

#[tokio::test]
async fn balances_survive_a_restart_and_open_reservations_are_returned() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(&dir);
    fund(&ledger, 1, 1_000).await;
    let settled = admit(&ledger, 1, 300).await;
    ledger.settle(settled, msat(120), Record::default()).await.unwrap();
    let forgotten = admit(&ledger, 1, 200).await;
    assert_eq!(parts(&ledger, 1).await, [680, 200, 120, 0]);
    forget(forgotten);
    drop(ledger);

    let ledger = open(&dir);
    assert_eq!(parts(&ledger, 1).await, [680, 200, 120, 0]);
    assert_eq!(ledger.expire_all().await.unwrap().len(), 1);
    assert_eq!(parts(&ledger, 1).await, [880, 0, 120, 0]);
}

#[tokio::test]
async fn a_dropped_reservation_is_ended_by_the_reaper_at_what_had_accrued() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(&dir);
    fund(&ledger, 1, 1_000).await;
    let kept = admit(&ledger, 1, 300).await;
    let dropped = admit(&ledger, 1, 300).await;
    dropped.note_accrued(msat(77));
    drop(dropped);
    let lifetime = Duration::from_secs(60);
    reaper::tick(&ledger, ledger.live(), lifetime).await;
    assert_eq!(parts(&ledger, 1).await, [623, 300, 77, 0], "the kept one is renewed, not ended");
    ledger.release(kept).await.unwrap();
    assert_eq!(ledger.live().open_count(), 0);
    assert_eq!(parts(&ledger, 1).await, [923, 0, 77, 0]);
}

#[tokio::test]
async fn fifty_parallel_admissions_on_a_balance_for_ten_reserve_ten() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(&dir);
    fund(&ledger, 1, 1_099).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let ledger = ledger.clone();
        tasks.spawn(async move {
            let ask = Admission {
                reservation: ReservationId::fresh(),
                account: account(1),
                ceiling: msat(100),
                deadline: UnixMs::now().plus(Duration::from_secs(60)),
            };
            ledger.admit(ask).await.unwrap()
        });
    }
    let admitted: Vec<_> = tasks.join_all().await.into_iter().filter_map(Result::ok).collect();
    assert_eq!(admitted.len(), 10);
    assert_eq!(parts(&ledger, 1).await, [99, 1_000, 0, 0]);
}

/// One step of a random day; indices choose among what exists.
#[derive(Clone, Debug)]
enum Step {
    Deposit { name: u8, id: u8, amount: u64 },
    Admit { name: u8, id: u8, ceiling: u64 },
    Settle { id: u8, cost: u64 },
    Withdraw { name: u8, id: u8, amount: Option<u64> },
    Commit { id: u8 },
    Revert { id: u8 },
    Expire { now: u64 },
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let (name, id, amount) = (0..3u8, 0..10u8, 1..5_000u64);
    prop_oneof![
        3 => (name.clone(), id.clone(), amount.clone())
            .prop_map(|(name, id, amount)| Step::Deposit { name, id, amount }),
        5 => (name.clone(), id.clone(), amount.clone())
            .prop_map(|(name, id, ceiling)| Step::Admit { name, id, ceiling }),
        5 => (id.clone(), amount.clone()).prop_map(|(id, cost)| Step::Settle { id, cost }),
        3 => (name, id.clone(), proptest::option::of(amount))
            .prop_map(|(name, id, amount)| Step::Withdraw { name, id, amount }),
        1 => id.clone().prop_map(|id| Step::Commit { id }),
        1 => id.prop_map(|id| Step::Revert { id }),
        1 => (0..2_000u64).prop_map(|now| Step::Expire { now }),
        1 => Just(Step::Restart),
    ]
}

/// Runs a step on both and answers what each said, as text that must agree.
async fn both(ledger: &Embedded, book: &mut Book, step: &Step) -> (String, String) {
    let reservation = |id: &u8| ReservationId::stored(format!("r{id}"));
    let withdrawal = |id: &u8| WithdrawalId::stored(format!("w{id}"));
    match step {
        Step::Deposit { name, id, amount } => {
            let deposit = Deposit {
                id: DepositId::stored(format!("d{id}")),
                account: account(*name),
                amount: msat(*amount),
            };
            let expect = book.deposit(deposit.clone()).unwrap();
            (said(&ledger.deposit(deposit).await.unwrap()), said(&expect))
        }
        Step::Admit { name, id, ceiling } => {
            let ask = Admission {
                reservation: reservation(id),
                account: account(*name),
                ceiling: msat(*ceiling),
                deadline: UnixMs(u64::from(*id) * 150),
            };
            let expect = book.admit(&ask);
            let found = ledger.admit(ask).await.unwrap().map(|admitted| {
                forget(admitted.reservation);
                admitted.available
            });
            (said(&found), said(&expect))
        }
        Step::Settle { id, cost } => {
            let expect = book.end(&reservation(id), Ended::Settled, msat(*cost), Record::default());
            let held = Reservation {
                id: reservation(id),
                account: account(0),
                amount: Msat::ZERO,
                live: None,
            };
            let found = ledger.settle(held, msat(*cost), Record::default()).await.ok();
            (said(&found), said(&expect))
        }
        Step::Withdraw { name, id, amount } => {
            let everything = Amount::Everything { unit: msat(1_000) };
            let ask = WithdrawalAsk {
                id: withdrawal(id),
                account: account(*name),
                amount: amount.map_or(everything, |amount| Amount::Exactly(msat(amount))),
                mint: "http://mint".to_owned(),
                unit: "sat".to_owned(),
            };
            let expect = book.withdraw_begin(&ask);
            (said(&ledger.withdraw_begin(ask).await.unwrap()), said(&expect))
        }
        Step::Commit { id } => {
            book.withdraw_commit(&withdrawal(id));
            ledger.withdraw_commit(withdrawal(id)).await.unwrap();
            (String::new(), String::new())
        }
        Step::Revert { id } => {
            book.withdraw_revert(&withdrawal(id));
            ledger.withdraw_revert(withdrawal(id)).await.unwrap();
            (String::new(), String::new())
        }
        Step::Expire { now } => {
            let mut due: Vec<_> = book.reservations.keys().cloned().collect();
            due.sort_by_key(|id| book.reservations[id].deadline);
            let expect: Vec<_> =
                due.iter().filter_map(|id| book.expire(id, UnixMs(*now))).collect();
            (said(&ledger.expire(UnixMs(*now)).await.unwrap()), said(&expect))
        }
        Step::Restart => (String::new(), String::new()),
    }
}

fn said(answer: &impl std::fmt::Debug) -> String {
    format!("{answer:?}")
}

#[test]
fn the_embedded_ledger_agrees_with_the_book_step_by_step_and_across_restarts() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let mut runner =
        TestRunner::new(Config { cases: 40, failure_persistence: None, ..Config::default() });
    let steps = proptest::collection::vec(step(), 1..120);
    let agree = |steps: Vec<Step>| {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = open(&dir);
        let mut book = Book::default();
        for step in &steps {
            if matches!(step, Step::Restart) {
                drop(ledger);
                ledger = open(&dir);
            }
            let (found, expect) = runtime.block_on(both(&ledger, &mut book, step));
            prop_assert_eq!(found, expect, "{:?}", step);
            for name in 0..3 {
                let found = runtime.block_on(ledger.account(account(name))).unwrap();
                prop_assert_eq!(found.as_ref(), book.account(&account(name)), "{:?}", step);
            }
        }
        Ok(())
    };
    runner.run(&steps, agree).unwrap();
}
