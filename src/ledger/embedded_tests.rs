//! The embedded backend across restarts and with many callers. That it agrees with the book
//! step by step is `tests/sim/`.

use super::*;
use crate::ids::{DepositId, ReservationId};
use crate::ledger::terms::Limits;
use crate::ledger::{Record, UsageSource, What, reaper};

fn msat(amount: u64) -> Msat {
    Msat::new(amount).unwrap()
}

fn account(name: u8) -> AccountId {
    AccountId::stored(format!("account-{name}"))
}

fn open(dir: &tempfile::TempDir) -> Embedded {
    open_at(dir, &Clock::System)
}

fn open_at(dir: &tempfile::TempDir, clock: &Clock) -> Embedded {
    loop {
        // The store of a ledger just dropped lets go of its lock a moment later.
        match open_store(&dir.path().join("ledger.db")) {
            Ok(store) => return Embedded::new(store, clock.clone()),
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
        tokens: 0,
        lifetime: Duration::from_secs(60),
        limits: Limits::NONE,
        once: None,
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
    assert!(reaper::tick(&ledger, lifetime, true).await);
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
                tokens: 0,
                lifetime: Duration::from_secs(60),
                limits: Limits::NONE,
                once: None,
            };
            ledger.admit(ask).await.unwrap()
        });
    }
    let admitted: Vec<_> = tasks.join_all().await.into_iter().filter_map(Result::ok).collect();
    assert_eq!(admitted.len(), 10);
    assert_eq!(parts(&ledger, 1).await, [99, 1_000, 0, 0]);
}

#[tokio::test]
async fn a_history_goes_on_where_it_was_when_the_process_died() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(&dir);
    fund(&ledger, 1, 1_000).await;
    let settled = admit(&ledger, 1, 300).await;
    let record = Record { model: "m".to_owned(), usage: "{}".to_owned(), ..Record::default() };
    ledger.settle(settled, msat(120), record.clone()).await.unwrap();
    forget(admit(&ledger, 1, 200).await);
    let before = ledger.history(account(1), None, 1).await.unwrap();
    drop(ledger);

    let ledger = open(&dir);
    assert_eq!(ledger.history(account(1), None, 1).await.unwrap(), before);
    ledger.expire_all().await.unwrap();
    fund(&ledger, 1, 7).await;
    let page = ledger.history(account(1), None, 10).await.unwrap();
    let told = page.entries.into_iter().map(|entry| match entry.what {
        What::Deposit { amount, .. } | What::Withdrawal { amount, .. } => (amount, None),
        What::Request { spent, record, .. } => (spent, Some(record)),
    });
    let floor = Record { usage_source: Some(UsageSource::Floor), ..Record::default() };
    let expect = [
        (msat(7), None),
        (Msat::ZERO, Some(floor)),
        (msat(120), Some(record)),
        (msat(1_000), None),
    ];
    assert_eq!(told.collect::<Vec<_>>(), expect);
}
