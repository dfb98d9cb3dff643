//! The embedded backend across restarts and with many callers. That it agrees with the book
//! step by step is `tests/sim/`.

use super::*;
use crate::ids::{DepositId, ReservationId};
use crate::ledger::redis::RECEIPTS_KEPT;
use crate::ledger::terms::Limits;
use crate::ledger::{Record, UsageSource, What, audit, reaper};

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
async fn what_has_ended_is_not_held_in_memory_however_often_it_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(&dir);
    fund(&ledger, 1, 1_000).await;
    let settled = admit(&ledger, 1, 300).await;
    let ask = Admission {
        reservation: settled.id.clone(),
        account: account(1),
        ceiling: msat(300),
        tokens: 0,
        lifetime: Duration::from_secs(60),
        limits: Limits::NONE,
        once: None,
    };
    ledger.settle(settled, msat(120), Record::default()).await.unwrap();
    let again = ledger.admit(ask).await.unwrap().unwrap_err();
    assert_eq!(again.denied, Denied::AlreadyEnded);
    let pages = ledger.pages.lock().unwrap();
    assert_eq!(pages.book.reservations.len(), 0);
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

/// By age and by number, with the books and repeated ends as they were.
#[tokio::test]
async fn what_a_history_does_not_tell_is_forgotten_and_the_books_add_up() {
    let dir = tempfile::tempdir().unwrap();
    let day = RECEIPTS_KEPT;
    let clock = Clock::manual(UnixMs(1_000_000).plus(day));
    let ledger = open_at(&dir, &clock);
    fund(&ledger, 1, 1_000).await;
    let mut ended = Vec::new();
    for _ in 0..6 {
        let reservation = admit(&ledger, 1, 10).await;
        ended.push(reservation.id.clone());
        ledger.settle(reservation, msat(7), Record::default()).await.unwrap();
    }
    let open = admit(&ledger, 1, 10).await;
    let told = |ledger: &Embedded| {
        let ledger = ledger.clone();
        async move { ledger.history(account(1), None, 100).await.unwrap().entries.len() }
    };
    let rows = |ledger: &Embedded| {
        let store = ledger.store.clone();
        let count = |connection: &Connection| {
            let sql = "SELECT COUNT(*) FROM reservations";
            Ok(connection.query_row(sql, [], |row| row.get::<_, i64>(0))?)
        };
        async move { store.write(Durability::Process, count).await.unwrap() }
    };
    let again = |ledger: &Embedded, nth: usize| {
        let id = ended[nth].clone();
        let reservation = Reservation::open(id, account(1), msat(10), ledger.live());
        let ledger = ledger.clone();
        async move { ledger.settle(reservation, msat(9), Record::default()).await }
    };
    assert_eq!((told(&ledger).await, rows(&ledger).await), (7, 7));
    let page = ledger.history(account(1), None, 2).await.unwrap();

    // By number: the newest three. Their receipts are kept for a day all the same.
    let few = ledger.clone().keeping(Retention { entries_max: 3, kept: None });
    assert_eq!(told(&few).await, 3);
    assert_eq!(few.forget_history(String::new()).await.unwrap(), None);
    assert_eq!(rows(&few).await, 7);
    assert_eq!(again(&few, 0).await.unwrap().spent, msat(7), "as it ended first");
    clock.set(UnixMs(1_000_001).plus(day).plus(day));
    assert_eq!(few.forget_history(String::new()).await.unwrap(), None);
    assert_eq!((told(&few).await, rows(&few).await), (3, 4), "three told, one open");
    let rest = few.history(account(1), page.next, 2).await.unwrap();
    assert_eq!((rest.entries.len(), rest.next), (1, None), "a cursor ends where the history does");
    assert!(matches!(again(&few, 1).await, Err(Unsettled::Forgotten)));
    assert_eq!(parts(&few, 1).await, [948, 10, 42, 0]);
    check_audited(&dir);

    // By age: none of them. What came in is not told and still known.
    let brief = Retention { entries_max: 3, kept: Some(Duration::from_secs(60)) };
    let brief = few.keeping(brief);
    assert_eq!(told(&brief).await, 0);
    assert_eq!(brief.forget_history(String::new()).await.unwrap(), None);
    assert_eq!(rows(&brief).await, 1, "the open one");
    fund(&brief, 1, 1_000).await;
    brief.settle(open, msat(5), Record::default()).await.unwrap();
    assert_eq!((told(&brief).await, parts(&brief, 1).await), (1, [953, 0, 47, 0]));
    check_audited(&dir);
}

#[tokio::test]
async fn a_step_of_forgetting_is_bounded_and_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(UnixMs(1_000_000));
    let brief = Retention { entries_max: 1, kept: Some(Duration::from_secs(60)) };
    let ledger = open_at(&dir, &clock).keeping(brief);
    fund(&ledger, 1, 1_000).await;
    let most = history_rows::LOOKED_AT_ONCE_MAX;
    for _ in 0..=most {
        let reservation = admit(&ledger, 1, 1).await;
        ledger.settle(reservation, msat(1), Record::default()).await.unwrap();
    }
    clock.set(UnixMs(1_000_001).plus(RECEIPTS_KEPT));
    let left = || {
        let database = Connection::open(dir.path().join("ledger.db")).unwrap();
        let sql = "SELECT COUNT(*) FROM reservations";
        database.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap()
    };
    let next = ledger.forget_history(String::new()).await.unwrap().unwrap();
    assert_eq!(left(), 1);
    assert_eq!(ledger.forget_history(next).await.unwrap(), None);
    assert_eq!(left(), 0);
    let spent = 1 + u64::try_from(most).unwrap();
    assert_eq!(parts(&ledger, 1).await, [1_000 - spent, 0, spent, 0]);
    check_audited(&dir);
}

/// The accounts' columns against their rows; the wallet is not here.
fn check_audited(dir: &tempfile::TempDir) {
    let database = Connection::open(dir.path().join("ledger.db")).unwrap();
    assert_eq!(audit::accounts_off(&database).unwrap(), Vec::<String>::new());
}
