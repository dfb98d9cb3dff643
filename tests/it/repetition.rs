//! Clients that repeat themselves: everything that moves money, each under an `Idempotency-Key`,
//! sent again and again and twice at once, and of the answers a third dropped on purpose. In the
//! end each of them has what it asked for, once.
//!
//! What is held against what:
//!
//! * A request that was served has one charge in the history, whatever was sent; what came of it
//!   twice is the same, byte by byte. One that is not streamed has been made once by the upstream.
//! * Every refund is another ecash token, and what they add up to has left the account; every
//!   token that was paid in is credited once; a child key is made for each that was asked for.
//! * What is available and spent is what was paid in, less what was paid back.
//!
//! A short run here; `make chaos` asks for the full one.

mod client;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio::task::JoinSet;

use crate::support::{Fleet, Key, Setting, Value, World, is_full_chaos, json};

use client::{Client, Counts, Operation};

const CLIENTS: usize = 16;

/// Each is sent about three times: more than 100,000 retries and duplicates.
const FULL: usize = 40_000;

/// Operations on an account before another one is opened. At length not many accounts: a debug
/// build adds up all that it has in memory after each step.
fn per_account() -> usize {
    if is_full_chaos() { 200 } else { 40 }
}

const ACCOUNT_SATS: u64 = 4_000;

/// An account, and what its client expects of it.
#[derive(Default)]
struct Expected {
    key: String,
    paid_in: u64,
    paid_back: u64,
    /// By the name of each request that was served: whether it was streamed.
    served: HashMap<String, bool>,
    children: HashSet<String>,
}

#[tokio::test]
async fn on_one_machine_nothing_is_charged_twice_or_lost() {
    let most = if is_full_chaos() { FULL } else { 1_600 };
    repeat(World::with(Setting::config(json!({"log": "info"}))).await, most).await;
}

#[tokio::test]
async fn in_a_fleet_nothing_is_charged_twice_or_lost() {
    let most = if is_full_chaos() { FULL } else { 800 };
    let fleet = Some(Fleet::of(2));
    let config = json!({"log": "info", "fleet": {"ledger_timeout": "2s"}});
    repeat(World::with(Setting { fleet, config, ..Setting::default() }).await, most).await;
}

async fn repeat(world: World, operations: usize) {
    let world = Arc::new(world);
    let mut clients = JoinSet::new();
    for nth in 0..CLIENTS {
        clients.spawn(live(world.clone(), nth, operations / CLIENTS));
    }
    let (mut counts, mut accounts) = (Counts::default(), Vec::new());
    for (lived, own) in clients.join_all().await {
        counts.add(&lived);
        accounts.extend(own);
    }
    let mut found = Found::default();
    let made = made_by_upstream(&world);
    for expected in &accounts {
        found.check(&world, expected, &made).await;
    }
    world.check_balanced().await;
    report(&counts, &found, accounts.len());
}

/// One client, which makes its operations one after the other.
async fn live(world: Arc<World>, nth: usize, operations: usize) -> (Counts, Vec<Expected>) {
    let mut client = Client::new(world.clone(), nth);
    let mut accounts: Vec<Expected> = Vec::new();
    for at in 0..operations {
        if at % per_account() == 0 {
            let ecash = world.sats(ACCOUNT_SATS).await;
            let created = client.make(Operation::Create(ecash.clone()), "").await.json();
            let key = created["api_key"].as_str().unwrap().to_owned();
            assert_eq!(key, Key::of(&ecash).0);
            assert_eq!(created["balance"], ACCOUNT_SATS * 1000, "nothing was spent yet");
            accounts.push(Expected { key, paid_in: ACCOUNT_SATS * 1000, ..Expected::default() });
        }
        let expected = accounts.last_mut().unwrap();
        one(&world, &mut client, expected).await;
    }
    (client.counts, accounts)
}

async fn one(world: &World, client: &mut Client, expected: &mut Expected) {
    let operation = match client.dice.below(100) {
        0..5 => Operation::TopUp(world.sats(3).await),
        5..20 => Operation::Refund(1 + client.dice.below(3)),
        20..24 => Operation::ChildKey,
        24..75 => Operation::Whole,
        _ => Operation::Stream,
    };
    let answer = client.make(operation.clone(), &expected.key).await;
    match operation {
        Operation::Create(_) => unreachable!("an account is created elsewhere"),
        Operation::TopUp(_) => {
            assert_eq!(answer.json(), json!({"msats": 3_000}));
            expected.paid_in += 3_000;
        }
        Operation::Refund(sats) => {
            let paid = answer.json();
            assert_eq!(paid["sats"], sats.to_string(), "{paid}");
            let ecash = paid["token"].as_str().unwrap().to_owned();
            assert!(client.refunds.insert(ecash.clone()), "two refunds are one token");
            if client.dice.below(8) == 0 {
                assert_eq!(world.worth(&ecash).await, sats);
            }
            expected.paid_back += sats * 1000;
        }
        Operation::ChildKey => {
            let keys = answer.json()["api_keys"].as_array().unwrap().clone();
            assert_eq!(keys.len(), 1);
            let fresh = expected.children.insert(keys[0].as_str().unwrap().to_owned());
            assert!(fresh, "two child keys are one");
        }
        Operation::Whole | Operation::Stream => {
            let is_stream = operation == Operation::Stream;
            expected.served.insert(client.name(), is_stream);
        }
    }
}

/// How often the upstream was asked under each name.
fn made_by_upstream(world: &World) -> HashMap<String, u64> {
    let mut made = HashMap::new();
    for seen in world.upstream.requests() {
        let name = seen.json()["user"].as_str().unwrap().to_owned();
        *made.entry(name).or_default() += 1;
    }
    made
}

#[derive(Default)]
struct Found {
    charged: u64,
    extra_charges: u64,
    extra_msat: u64,
    lost: u64,
    lost_msat: u64,
    made: u64,
    made_again: u64,
}

impl Found {
    async fn check(&mut self, world: &World, expected: &Expected, made: &HashMap<String, u64>) {
        let key = Key(expected.key.clone());
        let balance = world.settled(&key).await;
        let mut charges: HashMap<String, Vec<u64>> = HashMap::new();
        for receipt in world.receipts(&key).await {
            let cost = receipt["cost_msats"].as_u64().unwrap();
            // `<name>/<nth sending>`; one that nobody was answered has none, and cost nothing.
            let id = receipt["request_id"].as_str().unwrap_or_default();
            let name = id.split('/').next().unwrap_or_default().to_owned();
            if cost > 0 {
                charges.entry(name).or_default().push(cost);
            }
        }
        for (name, is_stream) in &expected.served {
            let charged = charges.remove(name).unwrap_or_default();
            self.charged += u64::try_from(charged.len().min(1)).unwrap();
            self.lost += u64::from(charged.is_empty());
            self.extra_charges += u64::try_from(charged.len().saturating_sub(1)).unwrap();
            self.extra_msat += charged.iter().skip(1).sum::<u64>();
            let times = made.get(name).copied().unwrap_or(0);
            self.made += times;
            self.made_again += times - 1;
            assert!(*is_stream || times == 1, "{name} was made {times} times");
        }
        assert!(charges.is_empty(), "charged and never served: {charges:?}");
        let has = balance.available + balance.spent + expected.paid_back;
        self.lost_msat += expected.paid_in.saturating_sub(has);
        self.extra_msat += has.saturating_sub(expected.paid_in);
        let info = world.fetch("/v1/balance/info", crate::support::Pay::from(&key)).await.json();
        let children = info["child_keys"].as_array().map_or(0, Vec::len);
        assert_eq!(children, expected.children.len(), "{info}");
    }
}

#[expect(clippy::print_stdout, reason = "the figures are what the test is for")]
fn report(counts: &Counts, found: &Found, accounts: usize) {
    let Counts { operations, sent, dropped, replayed, in_flight, .. } = counts;
    println!(
        "{operations} operations on {accounts} accounts, sent {sent} times, {dropped} answers \
         dropped, {replayed} answered again, {in_flight} told that it was under way"
    );
    println!("by operation: {:?}", counts.by_operation());
    let Found { charged, extra_charges, extra_msat, lost, lost_msat, made, made_again } = found;
    println!(
        "charged {charged}, made {made} ({made_again} again, of streams that were left before \
         anything came); extra charges {extra_charges}, {extra_msat} msat; lost {lost}, \
         {lost_msat} msat"
    );
    assert_eq!((*extra_charges, *extra_msat, *lost, *lost_msat), (0, 0, 0, 0));
    assert!(!is_full_chaos() || *sent > 100_000);
    assert!(3 * dropped >= *sent, "a third of the answers was dropped");
    assert!(*replayed > 0 && *in_flight > 0);
}

fn body_of(name: &str, stream: bool) -> Value {
    json!({
        "model": "demo", "stream": stream, "user": name, "max_tokens": 30,
        "messages": [{"role": "user", "content": "What is a nut?"}],
    })
}
