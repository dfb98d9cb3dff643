//! The backend against real servers, and what it does when they fail. That it agrees with the
//! book step by step is `tests/sim/`.

use std::collections::BTreeSet;
use std::time::Duration;

use nutgate_sandbox::{Redis as Server, RedisCluster, RedisOptions, RedisSentinel};

use super::fake::Fake;
use super::*;
use crate::clock::{Stopwatch, UnixMs};
use crate::ids::{DepositId, ReservationId};
use crate::ledger::terms::{Limits, Terms};
use crate::ledger::{Ended, HISTORY_PAGE_MAX, Record, UsageSource, WithdrawalState, reaper};

const PATIENCE: Duration = Duration::from_millis(250);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

fn msat(amount: u64) -> Msat {
    Msat::new(amount).unwrap()
}

/// An account in the shard of this number.
fn account(shard: u8) -> AccountId {
    AccountId::stored(format!("{shard:02x}-account"))
}

async fn started() -> (Server, Redis) {
    let server = Server::start(RedisOptions::default()).await.unwrap();
    let ledger = Redis::open(&server.url(), PATIENCE).unwrap();
    (server, ledger)
}

async fn fund(ledger: &Redis, account: &AccountId, amount: u64) {
    let id = DepositId::stored(format!("deposit-of-{account}"));
    let deposit = Deposit { id, account: account.clone(), amount: msat(amount) };
    ledger.deposit(deposit).await.unwrap();
}

fn asking(account: &AccountId, ceiling: u64) -> Admission {
    Admission {
        reservation: ReservationId::fresh(),
        account: account.clone(),
        ceiling: msat(ceiling),
        tokens: 1,
        lifetime: MINUTE,
        limits: Limits::NONE,
        once: None,
    }
}

async fn admit(ledger: &Redis, account: &AccountId, ceiling: u64) -> Reservation {
    ledger.admit(asking(account, ceiling)).await.unwrap().unwrap().reservation
}

/// available, reserved, spent, refunded
async fn parts(ledger: &Redis, account: &AccountId) -> [u64; 4] {
    let found = ledger.account(account.clone()).await.unwrap().unwrap();
    assert!(found.is_balanced(), "{found:?}");
    [found.available, found.reserved, found.spent, found.refunded].map(Msat::get)
}

/// What a killed process does with its reservations: nothing at all.
#[expect(clippy::mem_forget, reason = "dropping it would tell the reaper")]
fn forget(reservation: Reservation) {
    std::mem::forget(reservation);
}

/// Asks until the ledger answers, and says how long that took.
async fn until_it_answers(ledger: &Redis) -> Duration {
    let since = Stopwatch::start();
    while ledger.account(account(0)).await.is_err() {
        assert!(since.elapsed() < MINUTE, "it never answered");
    }
    since.elapsed()
}

/// A deposit, and one request from admission to settle, on every sixteenth shard.
async fn sell_everywhere(ledger: &Redis, ceiling: u64) {
    for shard in (0..=u8::MAX).step_by(16) {
        fund(ledger, &account(shard), 1_000).await;
        let reservation = admit(ledger, &account(shard), ceiling).await;
        ledger.settle(reservation, msat(1), Record::default()).await.unwrap();
    }
}

#[tokio::test]
async fn a_reservation_is_made_raised_renewed_and_settled_once() {
    let (_server, ledger) = started().await;
    let alice = account(0xa1);
    fund(&ledger, &alice, 1_000).await;
    fund(&ledger, &alice, 1_000).await;
    let mut reservation = admit(&ledger, &alice, 300).await;
    assert_eq!(ledger.extend(&mut reservation, msat(400)).await.unwrap(), Ok(msat(600)));
    reservation.note_accrued(msat(50));
    assert!(reaper::tick(&ledger, MINUTE, true).await);
    assert_eq!(parts(&ledger, &alice).await, [600, 400, 0, 0]);
    let (id, live) = (reservation.id.clone(), ledger.live().clone());
    let receipt = ledger.settle(reservation, msat(120), Record::default()).await.unwrap();
    assert_eq!((receipt.spent, receipt.returned), (msat(120), msat(280)));
    let again = Reservation::open(id, alice.clone(), msat(400), &live);
    let repeated = ledger.settle(again, msat(999), Record::default()).await.unwrap();
    assert_eq!(repeated, receipt);
    assert_eq!(parts(&ledger, &alice).await, [880, 0, 120, 0]);
}

#[tokio::test]
async fn an_abandoned_reservation_is_charged_what_accrued_and_a_forgotten_one_says_so() {
    let (_server, ledger) = started().await;
    let alice = account(1);
    fund(&ledger, &alice, 1_000).await;
    let dropped = admit(&ledger, &alice, 300).await;
    dropped.note_accrued(msat(77));
    drop(dropped);
    assert!(reaper::tick(&ledger, MINUTE, true).await);
    assert_eq!(parts(&ledger, &alice).await, [923, 0, 77, 0]);
    assert_eq!(ledger.live().open_count(), 0);
    let unknown = Reservation::open(ReservationId::fresh(), alice, msat(1), ledger.live());
    let ended = ledger.settle(unknown, msat(1), Record::default()).await;
    assert!(matches!(ended, Err(Unsettled::Forgotten)));
}

#[tokio::test]
async fn any_gateway_expires_what_a_dead_one_left_and_only_at_its_deadline() {
    let server = Server::start(RedisOptions::default()).await.unwrap();
    let clock = Clock::manual(UnixMs(1_000_000));
    let open = || Redis::with(&server.url(), PATIENCE, clock.clone(), Scripts::default()).unwrap();
    let (dead, alive) = (open(), open());
    let alice = account(2);
    fund(&dead, &alice, 1_000).await;
    forget(admit(&dead, &alice, 300).await);
    drop(dead);
    clock.set(UnixMs(1_059_999));
    assert_eq!(alive.expire().await.unwrap(), []);
    clock.set(UnixMs(1_060_000));
    let receipts = alive.expire().await.unwrap();
    assert_eq!(receipts.iter().map(|receipt| receipt.how).collect::<Vec<_>>(), [Ended::Expired]);
    assert_eq!(parts(&alive, &alice).await, [1_000, 0, 0, 0]);
}

#[tokio::test]
async fn a_withdrawal_begins_once_and_is_found_until_it_ends() {
    let (_server, ledger) = started().await;
    let alice = account(3);
    fund(&ledger, &alice, 5_700).await;
    let ask = WithdrawalAsk {
        id: WithdrawalId::nth(&alice, 0),
        account: alice.clone(),
        amount: Amount::Everything { unit: msat(1_000) },
        mint: "http://mint with a space".to_owned(),
        unit: "sat".to_owned(),
    };
    let begun = ledger.withdraw_begin(ask.clone()).await.unwrap().unwrap();
    assert_eq!(begun.amount, msat(5_000));
    assert_eq!(ledger.withdraw_begin(ask).await.unwrap().unwrap(), begun);
    assert_eq!(ledger.withdrawals_open().await.unwrap(), std::slice::from_ref(&begun));
    ledger.withdraw_commit(alice.clone(), begun.id.clone()).await.unwrap();
    ledger.withdraw_revert(alice.clone(), begun.id.clone()).await.unwrap();
    assert_eq!(ledger.withdrawals_open().await.unwrap(), []);
    let committed = Withdrawal { state: WithdrawalState::Committed, ..begun };
    let found = ledger.withdrawal(alice.clone(), committed.id.clone()).await.unwrap();
    assert_eq!(found, Some(committed));
    assert_eq!(parts(&ledger, &alice).await, [700, 0, 0, 5_000]);
}

#[tokio::test]
async fn a_child_belongs_in_its_parents_shard() {
    let (_server, ledger) = started().await;
    fund(&ledger, &account(4), 1_000).await;
    let child = |shard| AccountId::stored(format!("{shard:02x}-child"));
    let children = |shard| Children {
        parent: account(4),
        accounts: vec![child(shard)],
        terms: Terms { concurrent: Some(1), ..Terms::default() },
    };
    assert!(ledger.open_children(children(5)).await.is_err());
    ledger.open_children(children(4)).await.unwrap().unwrap();
    let opened = ledger.account(child(4)).await.unwrap().unwrap();
    assert_eq!((opened.parent, opened.terms.concurrent), (Some(account(4)), Some(1)));
    let revoke = Amendment { parent: account(4), child: child(5), change: Change::Revoke };
    assert_eq!(ledger.amend(revoke).await.unwrap(), None, "none of its own");
    let reservation = admit(&ledger, &child(4), 300).await;
    assert_eq!(parts(&ledger, &account(4)).await, [700, 300, 0, 0]);
    ledger.release(reservation).await.unwrap();
}

/// Behind the newest the oldest are forgotten, and all of them when the last is old.
#[tokio::test]
async fn a_history_keeps_its_newest_entries_for_as_long_as_it_is_told() {
    let (server, _) = started().await;
    let clock = Clock::manual(UnixMs(1_000_000));
    let retention = Retention { entries_max: 1_000, kept: Some(HOUR) };
    let scripts = Scripts::keeping(retention);
    let ledger = Redis::with(&server.url(), PATIENCE, clock.clone(), scripts).unwrap();
    let alice = account(6);
    let deposits = (0..=1_000).map(|nth| Deposit {
        id: DepositId::stored(format!("deposit-{nth}")),
        account: alice.clone(),
        amount: msat(1),
    });
    for deposit in join_all(deposits.map(|deposit| ledger.deposit(deposit))).await {
        deposit.unwrap();
    }
    let (mut ids, mut before) = (BTreeSet::new(), None);
    let oldest = loop {
        let page = ledger.history(alice.clone(), before, HISTORY_PAGE_MAX).await.unwrap();
        assert_eq!(page.entries.len(), 100);
        ids.extend(page.entries.into_iter().map(|entry| format!("{:?}", entry.what)));
        match page.next {
            None => break before.unwrap(),
            next => before = next,
        }
    };
    assert_eq!((ids.len(), oldest.nth()), (1_000, 102), "of 1,001");
    assert!(!ids.iter().any(|deposit| deposit.contains("\"deposit-0\"")));
    let forgotten = ledger.history(alice.clone(), Cursor::below(2), 1).await.unwrap();
    assert_eq!(forgotten, Page::default());
    assert_eq!(ledger.history(account(7), None, 1).await.unwrap(), Page::default());
    let left = server.cli(&["PTTL", "ng:{06}:h:06-account"]).await.unwrap();
    let hour = HOUR.as_millis();
    assert!((hour - 60_000..=hour).contains(&left.parse().unwrap()), "{left}");
    clock.set(UnixMs(1_000_000).plus(HOUR));
    let told = ledger.history(alice.clone(), None, 1).await.unwrap();
    assert!(told.next.is_some(), "told until then");
    clock.set(UnixMs(1_000_001).plus(HOUR));
    assert_eq!(ledger.history(alice.clone(), None, 1).await.unwrap(), Page::default());
    assert_eq!(ledger.history(alice.clone(), told.next, 1).await.unwrap(), Page::default());
    let last = Deposit { id: DepositId::stored("last"), account: alice.clone(), amount: msat(1) };
    ledger.deposit(last).await.unwrap();
    let page = ledger.history(alice, None, HISTORY_PAGE_MAX).await.unwrap();
    assert_eq!((page.entries.len(), page.next), (1, None), "the last, and nothing behind it");
}

/// The gateways of the version before read these fields of a receipt and no others, and make
/// receipts that have more.
#[tokio::test]
async fn receipts_and_gateways_of_two_versions_agree() {
    let (server, ledger) = started().await;
    let alice = account(8);
    fund(&ledger, &alice, 1_000).await;
    let reservation = admit(&ledger, &alice, 300).await;
    let key = format!("ng:{{08}}:r:{}", reservation.id);
    let record = Record { model: "m".to_owned(), input_tokens: 3, ..Record::default() };
    ledger.settle(reservation, msat(120), record).await.unwrap();
    let fields = server.cli(&["HKEYS", &key]).await.unwrap();
    let fields: BTreeSet<&str> = fields.lines().collect();
    assert_eq!(fields, BTreeSet::from(["ac", "av", "how", "rt", "sh", "sp"]));

    let theirs = ReservationId::fresh();
    let key = format!("ng:{{08}}:r:{theirs}");
    let mut receipt = vec!["HSET", &key, "ac", "08-account", "ky", "08-account", "am", "300"];
    receipt.extend(["tk", "1", "cr", "5", "how", "settled", "sp", "100", "rt", "200", "sh", "0"]);
    receipt.extend(["av", "780", "id", "req", "mo", "m", "us", "upstream", "in", "1", "ou", "2"]);
    server.cli(&receipt).await.unwrap();
    let again = Reservation::open(theirs, alice.clone(), msat(300), ledger.live());
    let repeated = ledger.settle(again, msat(120), Record::default()).await.unwrap();
    assert_eq!((repeated.spent, repeated.returned), (msat(100), msat(200)));
    assert_eq!(parts(&ledger, &alice).await, [880, 0, 120, 0]);
    assert_eq!(ledger.history(alice, None, 9).await.unwrap().entries.len(), 2);
}

/// What a request leaves behind, in bytes of a server's memory. Receipts are kept by the million.
#[tokio::test]
async fn what_is_kept_of_a_request_is_small() {
    let (server, ledger) = started().await;
    let alice = AccountId::stored(format!("0a{}", "7".repeat(62)));
    fund(&ledger, &AccountId::stored(format!("0a{}", "8".repeat(62))), 1_000).await;
    let id = DepositId::of_cashu_token("a Cashu token");
    ledger.deposit(Deposit { id, account: alice.clone(), amount: msat(9_000_000) }).await.unwrap();
    let bytes = async |key: String| -> u64 {
        server.cli(&["MEMORY", "USAGE", &key]).await.unwrap().parse().unwrap()
    };
    let usage = r#"{"input_tokens":1234,"cached_input_tokens":1000,"output_tokens":567}"#;
    let record = |nth: usize| Record {
        request_id: format!("01a2b3c4-d5e6-7f80-9a1b-{nth:012}"),
        route: "/chat/completions".to_owned(),
        model: "maker/model-4-large".to_owned(),
        usage_source: Some(UsageSource::Upstream),
        input_tokens: 1_234,
        output_tokens: 567,
        usage: usage.to_owned(),
    };
    let (mut receipt, mut histories) = (0, Vec::new());
    for nth in 0..100 {
        let reservation = admit(&ledger, &alice, 45_678).await;
        let key = format!("ng:{{0a}}:r:{}", reservation.id);
        ledger.settle(reservation, msat(12_345), record(nth)).await.unwrap();
        receipt = bytes(key).await;
        histories.push(bytes(format!("ng:{{0a}}:h:{alice}")).await);
    }
    let account = bytes(format!("ng:{{0a}}:a:{alice}")).await;
    let entry = (histories[99] - histories[49]) / 50;
    println!(
        "account {account} bytes, receipt {receipt}, its entry in the history {entry}, a history \
         of two entries {}, of 101 {}",
        histories[0], histories[99]
    );
    assert!(account <= 360 && receipt <= 300 && entry <= 300);
}

#[tokio::test]
async fn a_server_that_forgot_the_scripts_gets_them_again() {
    let (server, ledger) = started().await;
    fund(&ledger, &account(0), 1_000).await;
    server.cli(&["SCRIPT", "FLUSH"]).await.unwrap();
    let reservation = admit(&ledger, &account(0), 100).await;
    server.cli(&["SCRIPT", "FLUSH"]).await.unwrap();
    fund(&ledger, &account(1), 1_000).await;
    ledger.release(reservation).await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_gone_is_told_in_time_and_served_again_when_it_is_back() {
    let (mut server, ledger) = started().await;
    fund(&ledger, &account(0), 1_000).await;
    let reservation = admit(&ledger, &account(0), 100).await;
    server.kill().await.unwrap();
    let waited = Stopwatch::start();
    assert!(ledger.admit(asking(&account(0), 1)).await.is_err());
    assert!(waited.elapsed() < PATIENCE + Duration::from_millis(50), "{:?}", waited.elapsed());
    let unsettled = ledger.settle(reservation, msat(40), Record::default()).await.unwrap_err();
    let Unsettled::NoAnswer { reservation, .. } = unsettled else { panic!("{unsettled:?}") };
    server.restart().await.unwrap();
    assert!(until_it_answers(&ledger).await < Duration::from_secs(1));
    ledger.settle(reservation, msat(40), Record::default()).await.unwrap();
    assert_eq!(parts(&ledger, &account(0)).await, [960, 0, 40, 0]);
    // What was asked in vain is handed back: nobody knows that it was not made.
    assert!(reaper::tick(&ledger, MINUTE, true).await);
    assert_eq!(ledger.live().open_count(), 0);
}

#[tokio::test]
async fn a_server_that_pauses_is_told_in_time_and_what_it_did_late_is_handed_back() {
    let (server, ledger) = started().await;
    fund(&ledger, &account(0), 1_000).await;
    server.pause().unwrap();
    let asked = (0..50).map(|_| ledger.admit(asking(&account(0), 10)));
    let waited = Stopwatch::start();
    assert!(join_all(asked).await.iter().all(Result::is_err));
    assert!(waited.elapsed() < PATIENCE + Duration::from_millis(50), "{:?}", waited.elapsed());
    server.resume().unwrap();
    assert!(until_it_answers(&ledger).await < Duration::from_secs(1));
    assert!(reaper::tick(&ledger, MINUTE, true).await);
    assert_eq!(parts(&ledger, &account(0)).await, [1_000, 0, 0, 0]);
}

#[tokio::test]
async fn a_server_that_became_a_replica_is_left_for_one_that_is_not() {
    let (server, ledger) = started().await;
    fund(&ledger, &account(0), 1_000).await;
    server.cli(&["REPLICAOF", "127.0.0.1", "1"]).await.unwrap();
    assert!(ledger.admit(asking(&account(0), 1)).await.is_err());
    server.cli(&["REPLICAOF", "NO", "ONE"]).await.unwrap();
    let reservation = admit(&ledger, &account(0), 1).await;
    ledger.release(reservation).await.unwrap();
    // The connection for durable writes has to leave it too.
    server.cli(&["REPLICAOF", "127.0.0.1", "1"]).await.unwrap();
    let late = ledger.clone();
    let deposit = ledger.handle().spawn(async move { fund(&late, &account(1), 5).await });
    server.cli(&["REPLICAOF", "NO", "ONE"]).await.unwrap();
    deposit.await.unwrap();
    assert_eq!(parts(&ledger, &account(1)).await, [5, 0, 0, 0]);
}

#[tokio::test]
async fn a_server_that_loads_its_data_is_asked_again_until_it_has() {
    let server = Fake::start(|command, before| match command {
        "HMGET" if before < 3 => "-LOADING Redis is loading the dataset in memory\r\n",
        "HMGET" => "*0\r\n",
        _ => "+OK\r\n",
    })
    .await;
    let ledger = Redis::open(server.url(), PATIENCE).unwrap();
    assert_eq!(ledger.account(account(0)).await.unwrap(), None);
    assert_eq!(server.count("HMGET"), 4);
}

/// The server says which of its disks have it: its own, and how many replicas'.
#[tokio::test]
async fn a_deposit_is_acknowledged_when_the_server_says_that_it_is_on_its_disk() {
    const ACCOUNT: &str = "*27\r\n:5\r\n:5\r\n:0\r\n:0\r\n:0\r\n:0\r\n:0\r\n:0\r\n:0\r\n:0\r\n$-1\r\n\
        $-1\r\n$-1\r\n$-1\r\n$-1\r\n$-1\r\n$-1\r\n:0\r\n:0\r\n:0\r\n:0\r\n:0\r\n:0\r\n:0\r\n:0\r\n\
        :0\r\n:0\r\n";
    let answers = |command: &str, before| match (command, before) {
        ("EVALSHA", _) => ACCOUNT,
        ("WAITAOF", 0) => "*2\r\n:1\r\n:0\r\n",
        ("WAITAOF", _) => "*2\r\n:0\r\n:0\r\n",
        _ => "+OK\r\n",
    };
    let server = Fake::start(answers).await;
    let ledger = Redis::open(server.url(), PATIENCE).unwrap();
    let deposit =
        |id: &str| Deposit { id: DepositId::stored(id), account: account(0), amount: msat(5) };
    assert_eq!(ledger.deposit(deposit("on disk")).await.unwrap().available, msat(5));
    assert_eq!(server.count("WAITAOF"), 1);
    assert!(ledger.deposit(deposit("in memory")).await.is_err());
    assert_eq!(server.count("WAITAOF"), 2);
}

#[tokio::test]
async fn connections_do_not_pile_up_over_outages() {
    let (mut server, ledger) = started().await;
    let clients = async |server: &Server| {
        let list = server.cli(&["CLIENT", "LIST", "TYPE", "normal"]).await.unwrap();
        list.lines().filter(|line| !line.contains("cmd=client")).count()
    };
    fund(&ledger, &account(0), 1_000).await;
    let before = clients(&server).await;
    for _ in 0..5 {
        server.kill().await.unwrap();
        assert!(ledger.account(account(0)).await.is_err());
        server.restart().await.unwrap();
        until_it_answers(&ledger).await;
        fund(&ledger, &account(0), 1_000).await;
    }
    assert_eq!(clients(&server).await, before);
}

#[tokio::test]
async fn a_cluster_of_three_serves_every_shard_while_slots_move_and_a_master_fails() {
    let mut cluster = RedisCluster::start_with_replicas(3).await.unwrap();
    let ledger = Redis::open(&cluster.url(), Duration::from_secs(2)).unwrap();
    sell_everywhere(&ledger, 100).await;
    let slot = cluster.nodes().next().unwrap().cli(&["CLUSTER", "KEYSLOT", "{00}"]).await.unwrap();
    let slot: u16 = slot.parse().unwrap();
    for to in [0, 1, 2] {
        for from in [0, 1, 2] {
            if from != to && cluster.move_slot(slot, from, to).await.is_ok() {
                break;
            }
        }
        sell_everywhere(&ledger, 100).await;
    }
    cluster.fail_over(0).await.unwrap();
    sell_everywhere(&ledger, 100).await;
    assert!(reaper::tick(&ledger, MINUTE, true).await);
    for shard in (0..=u8::MAX).step_by(16) {
        assert_eq!(parts(&ledger, &account(shard)).await, [995, 0, 5, 0]);
    }
}

#[tokio::test]
async fn a_sentinel_says_who_is_master_after_a_failover() {
    let mut sentinel = RedisSentinel::start().await.unwrap();
    let ledger = Redis::open(&sentinel.url(), PATIENCE).unwrap();
    until_it_answers(&ledger).await;
    fund(&ledger, &account(0), 1_000).await;
    let reservation = admit(&ledger, &account(0), 100).await;
    sentinel.await_replicated().await.unwrap();
    sentinel.kill_master().await.unwrap();
    assert!(ledger.account(account(0)).await.is_err());
    sentinel.await_failover().await.unwrap();
    until_it_answers(&ledger).await;
    ledger.settle(reservation, msat(40), Record::default()).await.unwrap();
    assert_eq!(parts(&ledger, &account(0)).await, [960, 0, 40, 0]);
}

#[tokio::test]
async fn a_walk_looks_at_every_account_once_in_a_cluster_too() {
    let server = Server::start(RedisOptions::default()).await.unwrap();
    let cluster = RedisCluster::start(3).await.unwrap();
    for url in [server.url(), cluster.url()] {
        let ledger = Redis::open(&url, Duration::from_secs(2)).unwrap();
        for shard in (0..=u8::MAX).step_by(4) {
            fund(&ledger, &account(shard), u64::from(shard) + 1).await;
        }
        let held = admit(&ledger, &account(8), 5).await;
        let mut looks = Vec::new();
        assert_eq!(ledger.walk(&mut |look| looks.push(look)).await.unwrap(), BTreeSet::new());
        looks.sort_by(|one, other| one.id.cmp(&other.id));
        let ids: Vec<_> = looks.iter().map(|look| look.id.clone()).collect();
        assert_eq!(ids, (0..=u8::MAX).step_by(4).map(account).collect::<Vec<_>>());
        for look in &looks {
            let sum: u64 = look.deposits.iter().map(|(_, amount)| amount.get()).sum();
            assert_eq!(sum, look.account.deposited.get());
            let holds = if look.id == account(8) { (msat(5), 1) } else { (Msat::ZERO, 0) };
            assert_eq!((look.paid, look.through), (holds, holds));
        }
        ledger.release(held).await.unwrap();
    }
}

#[tokio::test]
async fn a_walk_tells_reservations_that_nobody_would_end() {
    let (server, ledger) = started().await;
    fund(&ledger, &account(0), 1_000).await;
    fund(&ledger, &account(1), 1_000).await;
    let (lost, orphan) =
        (admit(&ledger, &account(0), 5).await, admit(&ledger, &account(1), 5).await);
    server.cli(&["ZREM", "ng:{00}:due", lost.id.as_str()]).await.unwrap();
    server.cli(&["DEL", "ng:{01}:a:01-account"]).await.unwrap();
    let expect = BTreeSet::from([lost.id.to_string(), orphan.id.to_string()]);
    assert_eq!(ledger.walk(&mut |_| {}).await.unwrap(), expect);
}
