use std::io;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::rows::{Held, QUEUE_MAX};
use super::*;
use crate::clock::{Clock, UnixMs};
use crate::fetch::guard::Names;
use crate::ids::{DepositId, WithdrawalId};
use crate::ledger::embedded::{Embedded, open_store};
use crate::ledger::terms::Terms;
use crate::ledger::{Amount, Deposit, Opening, WithdrawalAsk};
use crate::money::Msat;
use crate::store::place::{Over, Place, over_both, statement};
use crate::store::values;

const TOPUPS: [EventKind; 1] = [EventKind::BalanceTopup];

/// A name server whose answer a test changes.
#[derive(Clone)]
struct Says(Arc<Mutex<IpAddr>>);

impl Says {
    fn new(address: &str) -> Self {
        Self(Arc::new(Mutex::new(address.parse().unwrap())))
    }

    fn now(&self, address: &str) {
        *self.0.lock().unwrap() = address.parse().unwrap();
    }
}

#[async_trait]
impl Names for Says {
    async fn addresses(&self, _: &str) -> io::Result<Vec<IpAddr>> {
        Ok(vec![*self.0.lock().unwrap()])
    }
}

/// The gateways of one fleet, or one machine, on which nothing runs by itself.
struct Bench {
    dir: tempfile::TempDir,
    ledger: Embedded,
    store: crate::store::Store,
    place: Place,
    names: Says,
}

impl Bench {
    async fn over(over: Over) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = open_store(&dir.path().join("db")).unwrap();
        let ledger = Embedded::new(store.clone(), Clock::System);
        let names = Says::new("93.184.215.14");
        Self { dir, ledger, store, place: Place::fresh(over).await, names }
    }

    async fn gateway(&self, private: bool) -> Webhooks<Embedded> {
        let db = self.place.open(&self.store);
        let seed = self.dir.path().join("seed");
        let wallet = Wallet::open(db, &seed, &[], Duration::from_secs(1)).await.unwrap();
        let config = config::Webhooks {
            enabled: true,
            allow_private: private,
            low_balance: Msat::new(500).unwrap(),
            timeout: Duration::from_secs(5),
            retries: vec![Duration::from_secs(3_600)],
        };
        let (news, metrics) = (News::default(), Metrics::default());
        let open = Webhooks::open(self.ledger.clone(), news, &wallet, config, metrics);
        let mut inner = Arc::into_inner(open.await.unwrap().0).unwrap();
        inner.guard = Guard::with_names(private, Arc::new(self.names.clone()));
        // The wallet's runtime is not used here, and its lease is not needed.
        Webhooks(Arc::new(inner))
    }

    async fn pay_in(&self, nth: u64) {
        let id = DepositId::stored(format!("d-{nth}"));
        let deposit = Deposit { id, account: alice(), amount: Msat::new(1_000).unwrap() };
        self.ledger.deposit(deposit).await.unwrap();
    }
}

impl Bench {
    async fn pay_out(&self, nth: u64, amount: u64) {
        let ask = WithdrawalAsk {
            id: WithdrawalId::nth(&alice(), nth),
            account: alice(),
            amount: Amount::Exactly(Msat::new(amount).unwrap()),
            mint: "mint".to_owned(),
            unit: "sat".to_owned(),
        };
        self.ledger.withdraw_begin(ask).await.unwrap().unwrap();
    }
}

fn alice() -> AccountId {
    AccountId::stored("alice")
}

fn to(url: &str, events: &[EventKind]) -> Registration {
    Registration { account: alice(), url: url.to_owned(), events: events.to_vec(), secret: None }
}

async fn queued(webhooks: &Webhooks<Embedded>) -> Vec<u64> {
    webhooks.list(alice()).await.unwrap().iter().map(|it| it.queued).collect()
}

/// What is due, as if it were this gateway's turn.
async fn taken(webhooks: &Webhooks<Embedded>) -> Vec<Held> {
    let gateway = webhooks.0.gateway.clone();
    let take = move |tx: &mut crate::store::Tx<'_>| Held::take_due(tx, &gateway, 60_000, 10);
    webhooks.0.db.write(Durability::Process, take).await.unwrap()
}

async fn what_happened_is_queued_once_by_whichever_gateways_look(over: Over) {
    let bench = Bench::over(over).await;
    let (one, other) = (bench.gateway(false).await, bench.gateway(false).await);
    bench.pay_in(0).await;
    one.register(to("https://a.example.com/", &TOPUPS)).await.unwrap();
    for nth in 1..=250 {
        bench.pay_in(nth).await;
    }
    let all = alice();
    let (first, second) = tokio::join!(one.look_at(&all), other.look_at(&all));
    first.unwrap();
    second.unwrap();
    one.look_at(&all).await.unwrap();
    assert_eq!(queued(&one).await, [250], "what was before is not told");
    // One that comes later hears of what comes after it.
    other.register(to("https://b.example.com/", &TOPUPS)).await.unwrap();
    bench.pay_in(251).await;
    one.look_at(&all).await.unwrap();
    other.look_at(&all).await.unwrap();
    assert_eq!(queued(&one).await, [251, 1]);
}

async fn a_queue_is_bounded_and_what_finds_no_room_is_counted(over: Over) {
    let bench = Bench::over(over).await;
    let webhooks = bench.gateway(false).await;
    bench.pay_in(0).await;
    webhooks.register(to("https://a.example.com/", &TOPUPS)).await.unwrap();
    for nth in 1..=QUEUE_MAX {
        bench.pay_in(nth).await;
    }
    webhooks.look_at(&alice()).await.unwrap();
    let dropped = "nutgate_webhook_deliveries_total{outcome=\"dropped\"}";
    let count = |count: u64| format!("{dropped} {count}");
    assert_eq!(queued(&webhooks).await, [QUEUE_MAX]);
    assert!(webhooks.0.metrics.text().contains(&count(0)));
    bench.pay_in(QUEUE_MAX + 1).await;
    bench.pay_in(QUEUE_MAX + 2).await;
    webhooks.look_at(&alice()).await.unwrap();
    assert_eq!(queued(&webhooks).await, [QUEUE_MAX]);
    assert!(webhooks.0.metrics.text().contains(&count(2)));
}

async fn one_gateway_is_at_a_webhook_until_it_lets_go_or_its_time_is_over(over: Over) {
    let bench = Bench::over(over).await;
    let (one, other) = (bench.gateway(false).await, bench.gateway(false).await);
    bench.pay_in(0).await;
    one.register(to("https://a.example.com/", &TOPUPS)).await.unwrap();
    assert!(taken(&one).await.is_empty(), "nothing is due");
    bench.pay_in(1).await;
    one.look_at(&alice()).await.unwrap();
    let held = taken(&one).await;
    assert_eq!(held.len(), 1);
    assert!(taken(&other).await.is_empty(), "somebody is at it");
    // What is queued meanwhile is not forgotten when it is let go.
    bench.pay_in(2).await;
    other.look_at(&alice()).await.unwrap();
    let (gateway, mine) = (one.0.gateway.clone(), held[0].clone());
    let release = move |tx: &mut crate::store::Tx<'_>| {
        assert!(mine.still_held(tx, &gateway)?.is_some());
        mine.release(tx)
    };
    one.0.db.write(Durability::Process, release).await.unwrap();
    assert_eq!(taken(&other).await.len(), 1);
    // It was paused for too long: the other one takes over, and it changes nothing any more.
    statement(&one.0.db, "UPDATE webhooks SET held_ms = 1", values![]).await;
    assert_eq!(taken(&one).await.len(), 1);
    let (gateway, theirs) = (other.0.gateway.clone(), held[0].clone());
    let late = move |tx: &mut crate::store::Tx<'_>| theirs.still_held(tx, &gateway);
    assert_eq!(other.0.db.write(Durability::Process, late).await.unwrap(), None);
}

async fn an_accounts_turn_is_one_gateways_and_comes_when_its_validity_ends(over: Over) {
    let bench = Bench::over(over).await;
    let (one, other) = (bench.gateway(false).await, bench.gateway(false).await);
    bench.pay_in(0).await;
    one.register(to("https://a.example.com/", &TOPUPS)).await.unwrap();
    let turns = |webhooks: &Webhooks<Embedded>| {
        let db = webhooks.0.db.clone();
        async move {
            let take = |tx: &mut crate::store::Tx<'_>| rows::take_due_accounts(tx, 10);
            db.write(Durability::Process, take).await.unwrap()
        }
    };
    for _ in 0..8 {
        assert_eq!(turns(&one).await, [alice()]);
        assert!(turns(&other).await.is_empty(), "it has just been looked at");
        statement(&one.0.db, "UPDATE listeners SET next_ms = now_ms()", values![]).await;
    }
    assert_eq!(turns(&other).await, [alice()]);
    let left = |tx: &mut crate::store::Tx<'_>| {
        let sql = "SELECT next_ms - now_ms() FROM listeners";
        tx.row(sql, values![])?.unwrap().get::<i64>(0)
    };
    let left_s = one.0.db.write(Durability::Process, left).await.unwrap() / 1_000;
    assert!((55..=64).contains(&left_s), "a minute when nothing happens: {left_s} s");
    let now = UnixMs::now();
    let soon = move |tx: &mut crate::store::Tx<'_>| Listener::look_again_at(tx, &alice(), now);
    one.0.db.write(Durability::Process, soon).await.unwrap();
    assert_eq!(turns(&one).await, [alice()]);
    bench.pay_in(1).await;
    one.look_at(&alice()).await.unwrap();
    let (waiting, _) = one.0.db.snapshot(rows::backlog).await.unwrap();
    assert_eq!(waiting, 1);
}

async fn a_secret_is_nowhere_in_the_database(over: Over) {
    let bench = Bench::over(over).await;
    let webhooks = bench.gateway(false).await;
    bench.pay_in(0).await;
    let (_, secret) = webhooks.register(to("https://a.example.com/", &TOPUPS)).await.unwrap();
    let read = |tx: &mut crate::store::Tx<'_>| tx.rows("SELECT * FROM webhooks", values![]);
    let rows = webhooks.0.db.write(Durability::Process, read).await.unwrap();
    assert_eq!(rows.len(), 1);
    let sealed: Vec<u8> = rows[0].get(4).unwrap();
    let shown = secret.reveal().as_bytes();
    assert!(!sealed.windows(8).any(|part| shown.windows(8).any(|other| other == part)));
    assert!(!format!("{rows:?}").contains(secret.reveal()));
    // Another gateway of the same seed can sign with it.
    let other = bench.gateway(false).await;
    let id = rows[0].get::<String>(0).unwrap();
    assert_eq!(WebhookSecret::opened(&other.0.seal, &id, &sealed).unwrap(), secret);
}

over_both! {
    what_happened_is_queued_once_by_whichever_gateways_look
    a_queue_is_bounded_and_what_finds_no_room_is_counted
    one_gateway_is_at_a_webhook_until_it_lets_go_or_its_time_is_over
    an_accounts_turn_is_one_gateways_and_comes_when_its_validity_ends
    a_secret_is_nowhere_in_the_database
}

/// By the clock, and once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_whose_validity_ends_is_told_of_once() {
    let bench = Bench::over(Over::Sqlite).await;
    let webhooks = bench.gateway(false).await;
    let expires = UnixMs::now().plus(Duration::from_millis(300));
    let terms = Terms { expires: Some(expires), ..Terms::default() };
    bench.ledger.open(Opening { account: alice(), terms }).await.unwrap();
    let kinds = [EventKind::KeyExpired, EventKind::BalanceLow];
    webhooks.register(to("https://a.example.com/", &kinds)).await.unwrap();
    while queued(&webhooks).await == [0] {
        webhooks.look_at(&alice()).await.unwrap();
    }
    assert!(UnixMs::now() >= expires);
    webhooks.look_at(&alice()).await.unwrap();
    assert_eq!(queued(&webhooks).await, [1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_balance_that_falls_is_told_of_once_until_it_has_risen() {
    let bench = Bench::over(Over::Sqlite).await;
    let webhooks = bench.gateway(false).await;
    bench.pay_in(0).await;
    webhooks.register(to("https://a.example.com/", &[EventKind::BalanceLow])).await.unwrap();
    let mut withdrawn = 0;
    // From 1,000 by 400 each; the threshold is 500.
    for (pays_in, told) in [(false, 0), (false, 1), (true, 1), (true, 1), (false, 1), (false, 1)]
        .into_iter()
        .chain([(false, 1), (false, 1), (false, 2)])
    {
        if pays_in {
            bench.pay_in(100 + withdrawn).await;
            withdrawn += 1;
        } else {
            bench.pay_out(withdrawn, 400).await;
            withdrawn += 1;
        }
        webhooks.look_at(&alice()).await.unwrap();
        webhooks.look_at(&alice()).await.unwrap();
        assert_eq!(queued(&webhooks).await, [told], "after {withdrawn}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_ledger_has_forgotten_is_counted() {
    let bench = Bench::over(Over::Sqlite).await;
    let webhooks = bench.gateway(false).await;
    for nth in 0..3 {
        bench.pay_in(nth).await;
    }
    let at = |mark| Listener { mark, low: false, expired: None };
    // As if there had been five.
    let events = webhooks.events(&alice(), &at(1), &at(5)).await.unwrap();
    assert_eq!(events.iter().map(|it| it.nth).collect::<Vec<_>>(), [Some(2), Some(3)]);
    assert!(webhooks.0.metrics.text().contains("nutgate_webhook_events_missed_total 2"));
}

/// A ledger that is set back gives numbers again that it had given before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happens_after_the_ledger_was_set_back_is_told() {
    let bench = Bench::over(Over::Sqlite).await;
    let webhooks = bench.gateway(false).await;
    bench.pay_in(0).await;
    webhooks.register(to("https://a.example.com/", &TOPUPS)).await.unwrap();
    for table in ["listeners SET mark", "webhooks SET since"] {
        statement(&webhooks.0.db, &format!("UPDATE {table} = 100"), values![]).await;
    }
    webhooks.look_at(&alice()).await.unwrap();
    bench.pay_in(1).await;
    webhooks.look_at(&alice()).await.unwrap();
    assert_eq!(queued(&webhooks).await, [1]);
}

/// A name that was public when it was registered, and means this machine when it is delivered to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_has_moved_inside_is_not_connected_to() {
    let bench = Bench::over(Over::Sqlite).await;
    let webhooks = bench.gateway(false).await;
    bench.pay_in(0).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let url = format!("https://rebinding.example.com:{port}/");
    webhooks.register(to(&url, &TOPUPS)).await.unwrap();
    bench.pay_in(1).await;
    webhooks.look_at(&alice()).await.unwrap();
    bench.names.now("127.0.0.1");
    let held = taken(&webhooks).await.remove(0);
    tokio::select! {
        biased;
        _ = listener.accept() => panic!("it was connected to"),
        () = webhooks.turn(held) => {}
    }
    let shown = webhooks.list(alice()).await.unwrap().remove(0);
    let (_, why) = shown.last_failure.unwrap();
    assert_eq!(why, "the url does not name a host with a public address");
    assert_eq!((shown.queued, shown.disabled), (1, None), "it may move back");
}

/// A consumer may put the next attempt off, and not bring it forward.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_comes_when_the_consumer_asks_for_it_and_not_before_it_is_planned() {
    let bench = Bench::over(Over::Sqlite).await;
    let webhooks = bench.gateway(true).await;
    bench.names.now("127.0.0.1");
    bench.pay_in(0).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://a.example.com:{}/", listener.local_addr().unwrap().port());
    webhooks.register(to(&url, &TOPUPS)).await.unwrap();
    for (nth, retry_after, least_s, most_s) in
        [(1, "1", 2_800, 4_400), (2, "7200", 7_100, 7_200), (3, "999999999", 86_300, 86_400)]
    {
        bench.pay_in(nth).await;
        webhooks.look_at(&alice()).await.unwrap();
        let held = taken(&webhooks).await.remove(0);
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\"balance.topup\"}") {
                assert!(stream.read_buf(&mut asked).await.unwrap() > 0);
            }
            let answer = format!(
                "HTTP/1.1 503 Busy\r\nretry-after: {retry_after}\r\ncontent-length: 0\r\n\r\n"
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
        };
        tokio::join!(webhooks.turn(held), serve);
        let left = |tx: &mut crate::store::Tx<'_>| {
            let sql = "SELECT next_ms - now_ms() FROM deliveries WHERE tries = 1";
            tx.row(sql, values![])?.unwrap().get::<i64>(0)
        };
        let left_s = webhooks.0.db.write(Durability::Process, left).await.unwrap() / 1_000;
        assert!((least_s..=most_s).contains(&left_s), "{left_s} s after {retry_after}");
        statement(&webhooks.0.db, "DELETE FROM deliveries", values![]).await;
    }
}
