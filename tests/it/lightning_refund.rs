//! A balance is paid to a Lightning address once or not at all, whatever crashes, is lost or comes
//! at the same time; what the fee did not need is on the account again.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use nutgate::crash::Step;
use nutgate_sandbox::{Payee, Payments};
use reqwest::{Client, Method};
use tokio::task::JoinSet;

use crate::support::{
    Answer, CRASH_AT, Dice, Fleet, Key, LOOK_AGAIN, Pay, Setting, Value, World, assert_killed,
    chat, json, start_to_die_at, within,
};

#[tokio::test]
async fn a_balance_is_paid_to_an_address_and_the_answer_repeats() {
    let (world, payee) = start(Setting::default()).await;
    let key = world.key(1000).await;
    let address = payee.address("alice");
    let asked = json!({"lightning_address": address.to_uppercase()});
    let paid = world.post(REFUND, Pay::from(&key), &asked).await.expect(200);
    let told = json!({
        "recipient": address, "sats": "980", "msats": "980000", "fee_msats": "1000",
    });
    assert_eq!(paid.json(), told);
    assert_eq!(paid.change(), None);
    for path in [REFUND, "/v1/wallet/refund"] {
        assert_eq!(world.post(path, Pay::from(&key), &asked).await.expect(200).json(), told);
    }
    assert_eq!(world.mint.paid_out(), 980_000);
    assert_eq!(world.info(&key).await.available, 19_000);
    let rest = world.refund(&key).await.expect(200);
    assert_eq!(world.worth(rest.change().unwrap()).await, 19);
    world.check_balanced().await;
}

#[tokio::test]
async fn an_amount_is_paid_from_the_mint_that_is_named() {
    let (world, payee) = start(Setting::default()).await;
    let key = world.key(100).await;
    let with = |more: Value| {
        let mut asked = json!({"lightning_address": payee.address("alice")});
        asked.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        asked
    };
    let asked = with(json!({"amount_sats": 40, "mint": world.mint.url() + "/"}));
    let paid = world.post(REFUND, Pay::from(&key), &asked).await.expect(200).json();
    assert_eq!((&paid["msats"], &paid["fee_msats"]), (&json!("40000"), &json!("1000")));
    assert_eq!(world.info(&key).await.available, 59_000);
    for (more, code, param) in [
        (json!({"amount_sats": 0}), "invalid_value", Some("amount_sats")),
        (json!({"amount_sats": -1}), "invalid_value", Some("amount_sats")),
        (json!({"amount_sats": 1.5}), "invalid_value", Some("amount_sats")),
        (json!({"amount_sats": "40"}), "invalid_value", Some("amount_sats")),
        (json!({"amount_sats": 55}), "balance_too_small_to_refund", Some("amount_sats")),
        (json!({"mint": 7}), "invalid_value", Some("mint")),
        (json!({"mint": "https://mint.example"}), "mint_not_accepted", None),
        (json!({"lightning_address": 7}), "invalid_value", Some("lightning_address")),
        (json!({"lightning_address": ""}), "invalid_value", Some("lightning_address")),
        (json!({"lightning_address": "alice"}), "invalid_value", Some("lightning_address")),
        (
            json!({"lightning_address": payee.address("missing")}),
            "invalid_value",
            Some("lightning_address"),
        ),
        (
            json!({"lightning_address": payee.address("small")}),
            "invalid_value",
            Some("amount_sats"),
        ),
    ] {
        let answer = world.post(REFUND, Pay::from(&key), &with(more.clone())).await;
        let answer = answer.expect_error(400, "invalid_request", code).json();
        assert_eq!(answer["error"]["details"]["param"].as_str(), param, "{more}");
    }
    let dear = with(json!({"lightning_address": payee.address("dear")}));
    let answer = world.post(REFUND, Pay::from(&key), &dear).await;
    let answer = answer.expect_error(502, "upstream_error", "lightning_address_failed");
    assert!(!answer.text().contains("127.0.0.1"), "nothing of the host is repeated");
    assert_eq!(world.info(&key).await.available, 59_000);
    assert_eq!(world.mint.paid_out(), 40_000);
    world.check_balanced().await;
}

#[tokio::test]
async fn who_may_not_take_value_out_may_not_have_it_paid_out() {
    let (world, payee) = start(Setting::default()).await;
    let asked = json!({"lightning_address": payee.address("alice")});
    let key = world.key(100).await;
    let path = "/v1/balance/child-key";
    let made = world.post(path, Pay::from(&key), &json!({"count": 1})).await.expect(200).json();
    let child = made["api_keys"][0].as_str().unwrap();
    let answer = world.post(REFUND, Pay::Bearer(child), &asked).await;
    answer.expect_error(403, "forbidden", "child_key");
    let unknown = format!("sk-{}", "0".repeat(32));
    let answer = world.post(REFUND, Pay::Bearer(&unknown), &asked).await;
    answer.expect_error(401, "authentication_failed", "invalid_api_key");
    let ecash = world.sats(100).await;
    world.chat(Pay::XCashu(&ecash), &chat("demo")).await.expect(200);
    let answer = world.post(REFUND, Pay::XCashu(&ecash), &asked).await;
    let answer = answer.expect_error(400, "invalid_request", "invalid_value").json();
    assert_eq!(answer["error"]["details"]["param"], "lightning_address");
    assert_eq!(world.mint.payment_count(), 0);
    assert!(payee.invoices().is_empty(), "nobody was asked for an invoice");
    world.check_balanced().await;
}

#[tokio::test]
async fn only_public_hosts_are_asked_and_nobody_where_it_is_not_offered() {
    let world = World::start().await;
    let payee = Payee::start().await.unwrap();
    let key = world.key(100).await;
    for address in [&*payee.address("alice"), "a@localhost", "a@10.0.0.1", "a@2130706433", "a@x"] {
        let asked = json!({"lightning_address": address});
        let answer = world.post(REFUND, Pay::from(&key), &asked).await;
        let answer = answer.expect_error(400, "invalid_request", "invalid_value").json();
        assert_eq!(answer["error"]["details"]["param"], "lightning_address", "{address}");
    }
    let closed = json!({"lightning": {"refunds": {"enabled": false}}});
    let world = World::with(Setting::config(closed)).await;
    let key = world.key(100).await;
    let asked = json!({"lightning_address": payee.address("alice")});
    let answer = world.post(REFUND, Pay::from(&key), &asked).await;
    answer.expect_error(400, "invalid_request", "invalid_value");
    assert!(payee.invoices().is_empty());
}

#[tokio::test]
async fn a_pending_payment_is_425_until_the_mint_knows() {
    let (mut world, payee) = start(Setting::default()).await;
    let key = world.key(100).await;
    let asked = json!({"lightning_address": payee.address("alice")});
    for (rule, status) in [(Payments::Fail, 502), (Payments::Succeed, 200)] {
        world.mint.payments(Payments::Stall);
        let answer = world.post(REFUND, Pay::from(&key), &asked).await;
        let answer = answer.expect_error(425, "invalid_request", "refund_pending");
        assert!(answer.number("retry-after") >= 1);
        world.gateway.kill().await;
        world.check_balanced().await;
        world.gateway.restart().await;
        let answer = world.post(REFUND, Pay::from(&key), &asked).await;
        answer.expect_error(425, "invalid_request", "refund_pending");
        world.mint.payments(rule);
        let answer = decided(&world, &key, &asked).await;
        assert_eq!(answer.status, status);
        world.check_balanced().await;
    }
    assert_eq!(world.mint.paid_out(), 95_000);
    assert_eq!(world.info(&key).await.available, 4_000);
}

#[tokio::test]
async fn no_crash_costs_anybody_who_is_paid_over_lightning() {
    let (mut world, payee) = start(Setting::default()).await;
    let asked = json!({"lightning_address": payee.address("alice")});
    for (round, step) in Step::OF_PAYMENT.into_iter().enumerate() {
        let key = world.key(100).await;
        start_to_die_at(&mut world, step).await;
        let request = world.request(Method::POST, REFUND, Pay::from(&key));
        assert!(request.body(asked.to_string()).send().await.is_err(), "{step:?}");
        assert_killed(&mut world, step).await;
        world.check_balanced().await;
        world.gateway.clear_env(CRASH_AT);
        world.gateway.restart().await;
        let paid = decided(&world, &key, &asked).await.expect(200).json();
        assert_eq!((&paid["sats"], &paid["fee_msats"]), (&json!("95"), &json!("1000")));
        assert_eq!(world.mint.paid_out(), 95_000 * (round as u64 + 1), "{step:?}");
        assert_eq!(world.info(&key).await.available, 4_000, "{step:?}");
        world.check_balanced().await;
    }
}

/// One payment that meets a crash at each step in turn, all but the first in recovery.
#[tokio::test]
async fn a_payment_out_survives_a_crash_at_every_step_one_after_the_other() {
    let (mut world, payee) = start(Setting::default()).await;
    let asked = json!({"lightning_address": payee.address("alice")});
    let key = world.key(100).await;
    start_to_die_at(&mut world, Step::WithdrawBegun).await;
    let request = world.request(Method::POST, REFUND, Pay::from(&key));
    assert!(request.body(asked.to_string()).send().await.is_err());
    assert_killed(&mut world, Step::WithdrawBegun).await;
    for step in Step::OF_PAYMENT.into_iter().skip(2) {
        world.gateway.set_env(CRASH_AT, &step.name());
        let died = world.gateway.try_restart().await.expect_err("recovery goes past the step");
        assert_eq!(died.signal(), Some(Signal::SIGKILL as i32), "{step:?}");
        world.check_balanced().await;
    }
    world.gateway.clear_env(CRASH_AT);
    world.gateway.restart().await;
    decided(&world, &key, &asked).await.expect(200);
    assert_eq!(world.mint.paid_out(), 95_000);
    assert_eq!(world.info(&key).await.available, 4_000);
    world.check_balanced().await;
}

/// Top-ups race refunds of everything, of amounts and over Lightning on one account, at two
/// gateways, of which one is killed again and again while its clients hang up.
#[tokio::test]
async fn top_ups_that_race_refunds_lose_and_make_nothing() {
    let setting = Setting { fleet: Some(Fleet::of(2)), ..Setting::default() };
    let (mut world, payee) = start(setting).await;
    let key = world.key(200).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut racers = JoinSet::new();
    for number in 0..RACERS {
        let at = if number % 2 == 0 { &world.gateway } else { &world.others[0] };
        let mut tokens = Vec::new();
        for sats in 0..TOPUPS {
            tokens.push(world.sats(10 + sats).await);
        }
        let racer = Racer {
            client: world.client.clone(),
            url: at.url(),
            key: key.clone(),
            address: payee.address("alice"),
            dies: number % 2 == 1,
            dice: Dice::new(number + 1),
            tokens,
            unsure: Vec::new(),
            in_hand: BTreeSet::new(),
        };
        racers.spawn(racer.run(stop.clone()));
    }
    let mut kills = 0;
    let ended = async {
        let mut ended = Vec::new();
        while !racers.is_empty() {
            tokio::select! {
                racer = racers.join_next() => ended.push(racer.unwrap().unwrap()),
                () = tokio::time::sleep(Duration::from_millis(400)) => {
                    world.others[0].restart().await;
                    kills += 1;
                }
            }
        }
        ended
    };
    let ended = tokio::time::timeout(Duration::from_secs(300), ended).await.expect("an end");
    stop.store(true, Ordering::SeqCst);
    let given = 200 + RACERS * (0..TOPUPS).map(|sats| 10 + sats).sum::<u64>();
    let mut in_hand = BTreeSet::new();
    for racer in ended {
        for ecash in &racer.unsure {
            topped_up(&world, &key, ecash).await;
        }
        in_hand.extend(racer.in_hand);
    }
    world.mint.payments(Payments::Succeed);
    // First what nobody heard of, then what is left, then nothing new.
    while let Some(ecash) = ecash_in(&decided(&world, &key, &json!({})).await) {
        if !in_hand.insert(ecash) {
            break;
        }
    }
    let mut worth = 0;
    for ecash in &in_hand {
        worth += world.worth(ecash).await;
    }
    let left = world.info(&key).await;
    let paid = world.mint.paid_out();
    let fees = 1000 * world.mint.paid_count();
    let found = worth * 1000 + paid + fees + left.available + left.spent + left.reserved;
    assert!(paid > 0 && !in_hand.is_empty() && kills > 0);
    assert_eq!(found, given * 1000, "{left:?}, {worth} in hand, {paid} paid, {fees}");
    world.check_balanced().await;
}

/// A client that tops the account up and takes back from it, in any order.
struct Racer {
    client: Client,
    url: String,
    key: Key,
    address: String,
    /// Whether its gateway is killed, and it hangs up on it: then it takes no ecash, because
    /// of several clients none could tell whose answer was lost.
    dies: bool,
    dice: Dice,
    tokens: Vec<String>,
    /// Tokens that no answer was heard of.
    unsure: Vec<String>,
    in_hand: BTreeSet<String>,
}

impl Racer {
    async fn run(mut self, stop: Arc<AtomicBool>) -> Self {
        while !stop.load(Ordering::SeqCst) {
            let asked = match self.dice.below(if self.dies { 4 } else { 7 }) {
                0 | 1 => {
                    let Some(ecash) = self.tokens.pop() else { break };
                    let asked = json!({"cashu_token": ecash});
                    let answer = self.post("/v1/balance/topup", &asked).await;
                    if answer.is_none_or(|answer| answer.status != 200) {
                        self.unsure.push(ecash);
                    }
                    continue;
                }
                2 => json!({"lightning_address": self.address}),
                3 => json!({"lightning_address": self.address, "amount_sats": self.amount()}),
                4 | 5 => json!({"amount_sats": self.amount()}),
                _ => json!({}),
            };
            if let Some(answer) = self.post(REFUND, &asked).await {
                self.in_hand.extend(ecash_in(&answer));
            }
        }
        self
    }

    fn amount(&mut self) -> u64 {
        1 + self.dice.below(12)
    }

    async fn post(&mut self, path: &str, body: &Value) -> Option<Answer> {
        let request = self.client.request(Method::POST, self.url.clone() + path);
        let request = request.bearer_auth(&self.key.0).header("content-type", "application/json");
        let asked = async { Answer::read(request.body(body.to_string()).send().await?).await };
        if self.dies && self.dice.below(3) == 0 {
            let patience = Duration::from_millis(self.dice.below(40));
            return tokio::time::timeout(patience, asked).await.ok()?.ok();
        }
        asked.await.ok()
    }
}

/// The ecash of a refund. Of many small proofs it is too long for the head.
fn ecash_in(answer: &Answer) -> Option<String> {
    if answer.status != 200 {
        return None;
    }
    answer.json()["token"].as_str().map(str::to_owned)
}

/// Shows the token until the account certainly has it.
async fn topped_up(world: &World, key: &Key, ecash: &str) {
    let asked = json!({"cashu_token": ecash});
    let credited = async {
        loop {
            let answer = world.post("/v1/balance/topup", Pay::from(key), &asked).await;
            if answer.status == 200 {
                return;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    within("the token is credited", credited).await;
}

/// The answer once it is not pending any more, and the ledger has had the time to give one.
async fn decided(world: &World, key: &Key, asked: &Value) -> Answer {
    let decided = async {
        loop {
            let answer = world.post(REFUND, Pay::from(key), asked).await;
            if ![425, 503].contains(&answer.status) {
                return answer;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    within("the refund is decided", decided).await
}

async fn start(setting: Setting) -> (World, Payee) {
    let config = json!({"lightning": {"refunds": {"private_hosts": true}}});
    let world = World::with(Setting { config, ..setting }).await;
    (world, Payee::start().await.unwrap())
}

const REFUND: &str = "/v1/balance/refund";

const RACERS: u64 = 6;
const TOPUPS: u64 = 8;
