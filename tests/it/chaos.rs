//! Gateways and Redis die at random instants under mixed load. Afterwards every token that a
//! client ever had is accounted for: untouched, in its hands as change, on a balance, or spent.
//!
//! A few deaths here; `make chaos` asks for the full numbers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use nutgate_sandbox::{AppendOnly, Faucet};
use reqwest::{Client, Method};
use tokio::task::JoinSet;

use crate::support::{
    Answer, CurrencyUnit, Fleet, Key, LOOK_AGAIN, Pay, Setting, TokenFormat, Value, World, chat,
    is_full_chaos, json, streamed,
};

#[tokio::test]
async fn gateways_that_are_killed_lose_and_make_nothing() {
    let mut chaos = Chaos::start(AppendOnly::Always, 1).await;
    for _ in 0..deaths(12, 300) {
        chaos.pause_for(20, 200).await;
        let which = chaos.random.below(GATEWAYS);
        let gateway = match which {
            0 => &mut chaos.world.gateway,
            other => &mut chaos.world.others[other - 1],
        };
        gateway.restart().await;
        chaos.deaths += 1;
        if chaos.deaths.is_multiple_of(4) {
            // In the middle of it all: an audit needs no quiet.
            chaos.world.check_balanced().await;
        }
    }
    chaos.account("kill -9 of a gateway").await;
}

#[tokio::test]
async fn a_redis_that_is_killed_or_restarted_loses_and_makes_nothing() {
    let mut chaos = Chaos::start(AppendOnly::Always, 2).await;
    for turn in 0..deaths(8, 100) {
        chaos.pause_for(50, 400).await;
        if turn % 2 == 0 {
            chaos.world.redis_mut().kill().await.unwrap();
        } else {
            chaos.world.redis_mut().stop().await.unwrap();
        }
        chaos.pause_for(0, 300).await;
        chaos.world.redis_mut().restart().await.unwrap();
        chaos.deaths += 1;
    }
    chaos.account("kill -9 or restart of Redis, appendfsync always").await;
}

/// With this setting a server may answer before it has written anything, while it forces earlier
/// changes to disk. What a client loses by that is told by the audit.
#[tokio::test]
async fn what_a_redis_loses_with_everysec_is_told_by_the_audit() {
    let mut chaos = Chaos::start(AppendOnly::Everysec, 3).await;
    for _ in 0..deaths(4, 50) {
        chaos.pause_for(50, 400).await;
        chaos.world.redis_mut().kill().await.unwrap();
        chaos.world.redis_mut().restart().await.unwrap();
        chaos.deaths += 1;
    }
    let (world, lost, _) = chaos.count("kill -9 of Redis, appendfsync everysec").await;
    let (code, said) = world.gateway.run("audit").await;
    assert!(code == Some(0) || code == Some(1), "{said}");
    assert!(lost == 0 || code == Some(1), "{lost} msat lost, and {said}");
}

/// How many are asked for: a few in every run of the tests, all of them by `make chaos`.
fn deaths(some: usize, all: usize) -> usize {
    if is_full_chaos() { all } else { some }
}

struct Chaos {
    world: World,
    random: Random,
    deaths: usize,
    stop: Arc<AtomicBool>,
    requests: Arc<AtomicU64>,
    clients: JoinSet<Customer>,
}

impl Chaos {
    async fn start(append_only: AppendOnly, seed: u64) -> Self {
        let config = json!({
            "log": "info",
            "reservation": {"lifetime": "2s", "renew_every": "400ms"},
        });
        let fleet = Some(Fleet { gateways: GATEWAYS, append_only });
        let setting = Setting { fleet, ..Setting::config(config) };
        let world = World::with(setting).await;
        let (stop, requests) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let urls: Vec<String> = (0..GATEWAYS).map(|turn| world.gateway_of(turn).url()).collect();
        let mut clients = JoinSet::new();
        for number in 0..CUSTOMERS {
            let customer = Customer {
                faucet: world.faucet.clone(),
                client: world.client.clone(),
                urls: urls.clone(),
                requests: requests.clone(),
                random: Random(seed * 1_000 + number + 1),
                key: None,
                given: 0,
                in_hand: BTreeSet::new(),
                paid: Vec::new(),
            };
            clients.spawn(customer.live(stop.clone()));
        }
        Self { world, random: Random(seed), deaths: 0, stop, requests, clients }
    }

    async fn pause_for(&mut self, least: u64, most: u64) {
        let pause = least + self.random.next() % (most - least);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }

    /// Nobody has lost or made anything.
    async fn account(self, what: &str) {
        let (world, lost, made) = self.count(what).await;
        assert_eq!((lost, made), (0, 0));
        world.check_balanced().await;
    }

    /// Lets everybody finish, and counts what was lost and what was made, in msat.
    #[expect(clippy::print_stdout, reason = "the figures are what the test is for")]
    async fn count(mut self, what: &str) -> (World, u64, u64) {
        self.stop.store(true, Ordering::SeqCst);
        let (mut given, mut found) = (0, 0);
        for mut customer in std::mem::take(&mut self.clients).join_all().await {
            given += customer.given;
            found += customer.count(&self.world).await;
        }
        let (lost, made) = (given.saturating_sub(found), found.saturating_sub(given));
        let requests = self.requests.load(Ordering::SeqCst);
        println!(
            "| {what} | {} deaths | {requests} requests | {lost} msat lost | {made} msat made |",
            self.deaths
        );
        (self.world, lost, made)
    }
}

/// Somebody who buys, tops up and takes money back, and remembers every token.
struct Customer {
    faucet: Arc<Faucet>,
    client: Client,
    urls: Vec<String>,
    requests: Arc<AtomicU64>,
    random: Random,
    key: Option<Key>,
    /// The value of all ecash it ever had from outside, in msat.
    given: u64,
    /// What came back as change and refunds.
    in_hand: BTreeSet<String>,
    /// Tokens that were shown in `X-Cashu`.
    paid: Vec<String>,
}

impl Customer {
    async fn live(mut self, stop: Arc<AtomicBool>) -> Self {
        while !stop.load(Ordering::SeqCst) {
            match (self.random.below(10), self.key.clone()) {
                (0..=3, Some(key)) => drop(self.buy(Pay::from(&key), &chat("demo")).await),
                (4..=5, Some(key)) => drop(self.buy(Pay::from(&key), &streamed("demo")).await),
                (6, Some(key)) => self.take_back(&key).await,
                (7..=8, _) => self.pay_once().await,
                _ => self.put_in().await,
            }
        }
        self
    }

    async fn ecash(&mut self, sats: u64) -> String {
        self.given += sats * 1000;
        self.faucet.cashu(sats, CurrencyUnit::Sat, TokenFormat::B).await.unwrap()
    }

    /// A request to some gateway; nothing if it could not be reached or broke off.
    async fn post(&mut self, path: &str, pay: Pay<'_>, body: &Value) -> Option<Answer> {
        self.requests.fetch_add(1, Ordering::SeqCst);
        let url = self.urls[self.random.below(self.urls.len())].clone() + path;
        let request = self.client.request(Method::POST, url).body(body.to_string());
        let request = request.header("content-type", "application/json");
        let request = match pay.header() {
            Some((name, value)) => request.header(name, value),
            None => request,
        };
        Answer::read(request.send().await.ok()?).await.ok()
    }

    async fn buy(&mut self, pay: Pay<'_>, body: &Value) -> Option<Answer> {
        self.post("/v1/chat/completions", pay, body).await
    }

    async fn pay_once(&mut self) {
        let ecash = self.ecash(50).await;
        let body = if self.random.below(2) == 0 { chat("demo") } else { streamed("demo") };
        let answer = self.buy(Pay::XCashu(&ecash), &body).await;
        let change = answer.as_ref().and_then(Answer::change);
        if let Some(change) = change.filter(|change| **change != ecash) {
            self.in_hand.insert(change.to_owned());
        }
        self.paid.push(ecash);
    }

    /// Opens the key or tops it up, until somebody says that it is done.
    async fn put_in(&mut self) {
        let ecash = self.ecash(60).await;
        let done = match self.key.clone() {
            Some(key) => {
                let body = json!({"cashu_token": ecash});
                self.until(&[401], "/v1/balance/topup", Pay::from(&key), &body).await
            }
            None => {
                let body = json!({"initial_balance_token": ecash});
                self.until(&[], "/v1/balance/create", Pay::Nothing, &body).await
            }
        };
        if done.status != 200 {
            // A ledger that forgets has forgotten the key.
            self.key = None;
            self.in_hand.insert(ecash);
        } else if self.key.is_none() {
            self.key = Some(Key(done.json()["api_key"].as_str().unwrap().to_owned()));
        }
    }

    /// Takes everything back, unless something is still open or nothing is there.
    async fn take_back(&mut self, key: &Key) {
        let (path, nothing) = ("/v1/balance/refund", [400, 401]);
        let refunded = self.until(&nothing, path, Pay::from(key), &json!({})).await;
        if refunded.status == 200 {
            self.in_hand.insert(refunded.json()["token"].as_str().unwrap().to_owned());
        }
    }

    /// Asks again until the answer is 200, or another status that is an answer too, or for as
    /// long as no dead gateway's work needs to be taken over.
    async fn until(&mut self, others: &[u16], path: &str, pay: Pay<'_>, body: &Value) -> Answer {
        let mut tries = 0;
        loop {
            match self.post(path, pay, body).await {
                Some(answer)
                    if answer.status == 200
                        || others.contains(&answer.status)
                        || tries > TRIES_MAX =>
                {
                    return answer;
                }
                _ => tokio::time::sleep(LOOK_AGAIN * 10).await,
            }
            tries += 1;
        }
    }

    /// What all of it is worth now, in msat.
    async fn count(&mut self, world: &World) -> u64 {
        let mut found = 0;
        for ecash in std::mem::take(&mut self.paid) {
            let claimed = self.claimed(&ecash).await;
            match claimed.status {
                200 => {
                    self.in_hand.insert(claimed.json()["token"].as_str().unwrap().to_owned());
                }
                404 => {
                    self.in_hand.insert(ecash);
                    continue;
                }
                _ => assert_eq!(claimed.status, 400, "{}", claimed.text()),
            }
            found += held_by(world, &Key::of(&ecash)).await;
        }
        if let Some(key) = &self.key {
            found += held_by(world, key).await;
        }
        for ecash in &self.in_hand {
            if !world.is_spent(ecash).await {
                found += world.worth(ecash).await * 1000;
            }
        }
        found
    }

    /// The claim's last word: 425 and 503 ask to come again, and so do requests that a dead
    /// gateway had open until they expire.
    async fn claimed(&mut self, ecash: &str) -> Answer {
        loop {
            let path = "/v1/balance/refund";
            let answer = self.post(path, Pay::XCashu(ecash), &json!({})).await.unwrap();
            let code = answer.json()["error"]["code"].as_str().unwrap_or_default().to_owned();
            if !matches!(answer.status, 425 | 503 | 500) && code != "requests_in_progress" {
                return answer;
            }
            tokio::time::sleep(LOOK_AGAIN * 10).await;
        }
    }
}

/// Balance and spending of a key, once nothing is reserved; nothing if the ledger has forgotten it.
async fn held_by(world: &World, key: &Key) -> u64 {
    if world.fetch("/v1/balance/info", Pay::from(key)).await.status == 401 {
        return 0;
    }
    let balance = world.settled(key).await;
    balance.available + balance.spent
}

/// Marsaglia's xorshift: the same deaths and purchases for the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }
}

const GATEWAYS: usize = 3;
const CUSTOMERS: u64 = 6;
/// With a pause after each: more than twice as long as a dead gateway counts as alive.
const TRIES_MAX: u32 = 1_500;
