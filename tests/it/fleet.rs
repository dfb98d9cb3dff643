//! Many gateways over one Redis and one PostgreSQL: what one machine promises, all of them
//! promise together.

use std::sync::Arc;
use std::time::Duration;

use nutgate::clock::Stopwatch;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::support::{
    Answer, Fleet, Key, LOOK_AGAIN, Misbehaviour, PRICE, Pay, Setting, Value, World, chat,
    is_full_chaos, json, model_of, streamed, with, within,
};

/// Four gateways, one account with money for exactly a thousand requests, four thousand asked.
#[tokio::test]
async fn of_4000_requests_a_balance_for_1000_serves_1000() {
    let world = Arc::new(fleet_of(4, patient(json!({})), vec![flat_model()]).await);
    let key = world.key(1_000).await;
    let asked = storm(&world, &key, &chat("flat"), 4_000, 64).await;
    assert_eq!(asked.served, 1_000);
    assert_eq!(asked.refused_with("payment_required"), 3_000);
    let balance = world.settled(&key).await;
    assert_eq!((balance.available, balance.spent, balance.requests), (0, 1_000_000, 1_000));
    assert_eq!(world.upstream.count(), 1_000);
    world.check_balanced().await;
}

#[tokio::test]
async fn a_limit_of_concurrent_requests_is_exact_across_four_gateways() {
    let limits = json!({"rate_limits": {"concurrent": 10}});
    let world = Arc::new(fleet_of(4, patient(limits), Vec::new()).await);
    let key = world.key(1_000).await;
    let slow = chat(&model_of(Misbehaviour::Slow));
    let mut asked = JoinSet::new();
    for turn in 0..40 {
        let (world, key, slow) = (world.clone(), key.clone(), slow.clone());
        asked.spawn(async move { world.chat_at(turn, &key, &slow).await });
    }
    for _ in 0..30 {
        let refused = within("a refusal", asked.join_next()).await.unwrap().unwrap();
        let refused = refused.expect_error(429, "rate_limit_exceeded", "rate_limit_exceeded");
        assert!(refused.number("retry-after") >= 1);
    }
    within("ten are forwarded", world.upstream.await_request(10)).await;
    world.upstream.open_gate();
    for answer in asked.join_all().await {
        answer.expect(200);
    }
    assert_eq!(world.upstream.count(), 10);
    world.settled(&key).await;
    world.chat_at(1, &key, &slow).await.expect(200);
}

#[tokio::test]
async fn a_billed_request_costs_two_commands_and_one_of_them_before_the_upstream() {
    // No tick of the reaper falls into the count.
    let calm = json!({"reservation": {"lifetime": "1h", "renew_every": "20m"}});
    let world = fleet_of(1, calm, Vec::new()).await;
    let key = world.key(1_000).await;
    world.chat(&key, &chat("demo")).await.expect(200);
    world.settled(&key).await;
    let before = world.scripts_run().await;
    let slow = world.chat_later(&key, &chat(&model_of(Misbehaviour::Slow)));
    within("it is forwarded", world.upstream.await_request(2)).await;
    assert_eq!(world.scripts_run().await - before, 1, "the reservation");
    world.upstream.open_gate();
    slow.ended().await.unwrap().expect(200);
    for body in [chat("demo"), streamed("demo")] {
        for _ in 0..24 {
            world.chat(&key, &body).await.expect(200);
        }
    }
    assert_eq!(world.settled(&key).await.requests, 50);
    let commands = world.scripts_run().await - before;
    println!("49 billed requests, {commands} commands to Redis");
    assert_eq!(commands, 2 * 49);
}

/// No word from Redis, under two hundred requests at once.
#[tokio::test]
async fn a_ledger_that_pauses_is_told_in_time_and_served_within_a_second_of_its_return() {
    let world = Arc::new(fleet_of(4, json!({}), vec![flat_model()]).await);
    let key = world.key(10_000).await;
    world.chat(&key, &chat("flat")).await.expect(200);
    world.servers().redis.pause().unwrap();
    let paused = Stopwatch::start();
    while paused.elapsed() < pause() {
        let mut asked = JoinSet::new();
        for turn in 0..200 {
            let (world, key) = (world.clone(), key.clone());
            asked.spawn(async move {
                let since = Stopwatch::start();
                let answer = world.chat_at(turn, &key, &chat("flat")).await;
                (answer, since.elapsed())
            });
        }
        for (answer, took) in asked.join_all().await {
            let refused = answer.expect_error(503, "service_unavailable", "ledger_unavailable");
            assert!(refused.number("retry-after") >= 1);
            // Two hundred at once on a small machine wait for each other too.
            assert!(took < DEADLINE + CROWD, "{took:?}");
        }
        let models = world.fetch("/v1/models", Pay::Nothing).await;
        models.expect(200);
    }
    world.servers().redis.resume().unwrap();
    let resumed = Stopwatch::start();
    for turn in 0..4 {
        while world.chat_at(turn, &key, &chat("flat")).await.status != 200 {
            assert!(resumed.elapsed() < Duration::from_secs(1), "gateway {turn}");
        }
    }
    assert!(resumed.elapsed() < Duration::from_secs(1));
    world.settled(&key).await;
    world.check_balanced().await;
}

/// A stream three times as long as a reservation lives is charged in full.
#[tokio::test]
async fn a_stream_that_outlives_its_reservations_deadline_is_charged_in_full() {
    let brief = json!({"reservation": {"lifetime": "1s", "renew_every": "300ms"}});
    let world = fleet_of(2, brief, Vec::new()).await;
    let key = world.key(1_000).await;
    let body = streamed(&model_of(Misbehaviour::Slow));
    let asked = world.chat_later(&key, &body);
    within("it is forwarded", world.upstream.await_request(1)).await;
    let streaming = Stopwatch::start();
    while streaming.elapsed() < Duration::from_secs(3) {
        assert!(world.info(&key).await.reserved > 0, "it must stay reserved");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    world.upstream.open_gate();
    let answer = asked.ended().await.unwrap().expect(200);
    let deliveries = answer.events().deliveries();
    assert_eq!(world.settled(&key).await.spent, PRICE.cost(PROMPT_TOKENS, deliveries));
    world.check_balanced().await;
}

/// A gateway killed in a stream: the others end its reservation, at what it had renewed last.
#[tokio::test]
async fn what_a_dead_gateway_had_reserved_comes_back_at_its_deadline() {
    let brief = json!({"reservation": {"lifetime": "1s", "renew_every": "200ms"}});
    let mut world = fleet_of(2, brief, Vec::new()).await;
    let key = world.key(1_000).await;
    let asked = world.chat_later(&key, &streamed(&model_of(Misbehaviour::Slow)));
    within("it is forwarded", world.upstream.await_request(1)).await;
    assert!(world.info(&key).await.reserved > 0);
    world.gateway.kill().await;
    assert!(asked.ended().await.is_err());
    let other = world.others.remove(0);
    let dead = std::mem::replace(&mut world.gateway, other);
    let balance = world.settled(&key).await;
    assert_eq!(balance.available + balance.spent, 1_000_000);
    assert!(balance.spent <= PRICE.cost(PROMPT_TOKENS, 20));
    drop(dead);
    world.check_balanced().await;
}

/// The ledger is away when a stream ends, and the gateway dies before it is back: what was
/// delivered is charged all the same, once.
#[tokio::test]
async fn an_end_that_the_ledger_did_not_hear_is_told_again_by_the_next_process() {
    let mut world = fleet_of(2, json!({}), Vec::new()).await;
    let key = world.key(1_000).await;
    let asked = world.chat_later(&key, &streamed(&model_of(Misbehaviour::Slow)));
    within("it is forwarded", world.upstream.await_request(1)).await;
    world.redis_mut().kill().await.unwrap();
    world.upstream.open_gate();
    let answer = asked.answer().await.expect(200);
    assert!(answer.events().is_done(), "the client does not wait for the ledger");
    let kept = async {
        while spool_entries(&world).await != 1 {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    within("the end is kept", kept).await;
    world.gateway.kill().await;
    world.redis_mut().restart().await.unwrap();
    world.gateway.restart().await;
    let cost = PRICE.cost(PROMPT_TOKENS, answer.events().deliveries());
    let balance = world.settled(&key).await;
    assert_eq!((balance.spent, balance.available), (cost, 1_000_000 - cost));
    assert_eq!(spool_entries(&world).await, 0);
    world.check_balanced().await;
}

/// Slices of a stream's reservation are asked for from Redis as from any ledger.
#[tokio::test]
async fn a_stream_whose_money_ends_is_cut_cleanly_over_redis_too() {
    let config = json!({"reservation": {"slice_output_tokens": 10}});
    let world = fleet_of(2, config, Vec::new()).await;
    let body = with(streamed(&model_of(Misbehaviour::Long)), json!({"max_tokens": 256}));
    let key = world.key(12).await;
    let events = world.chat_at(1, &key, &body).await.expect(200).events();
    assert!(events.is_done(), "{events:?}");
    let json = events.json();
    let [.., last, error] = &json[..] else { panic!("{events:?}") };
    assert_eq!(last["choices"][0]["finish_reason"], "length");
    assert_eq!(error["error"]["type"], "insufficient_balance");
    let balance = world.settled(&key).await;
    assert!(events.deliveries() > 10, "more than the first slice: {}", events.deliveries());
    assert_eq!(balance.available + balance.spent, 12_000);
    world.check_balanced().await;
}

/// A token shown while the ledger is away is not taken: it could not be credited.
#[tokio::test]
async fn nothing_is_redeemed_while_the_ledger_is_away() {
    let mut world = fleet_of(1, json!({}), Vec::new()).await;
    let ecash = world.sats(10).await;
    world.redis_mut().kill().await.unwrap();
    let asked = json!({"initial_balance_token": ecash});
    let refused = world.post("/v1/balance/create", Pay::Nothing, &asked).await;
    refused.expect_error(503, "service_unavailable", "ledger_unavailable");
    assert!(!world.is_spent(&ecash).await);
    world.redis_mut().restart().await.unwrap();
    let key = world.key_of(&ecash).await;
    assert_eq!(world.info(&key).await.available, 10_000);
    world.check_balanced().await;
}

/// What the first gateway's monitoring reads.
async fn spool_entries(world: &World) -> u64 {
    let url = format!("http://{}/metrics", world.gateway.admin_address());
    let metrics = world.client.get(url).send().await.unwrap().text().await.unwrap();
    let line = metrics.lines().find_map(|line| line.strip_prefix("nutgate_spool_entries "));
    line.unwrap().parse().unwrap()
}

/// What a client does at one gateway it can go on with at any other.
#[tokio::test]
async fn any_gateway_tops_up_refunds_and_claims_what_another_began() {
    let world = fleet_of(3, json!({}), Vec::new()).await;
    let ecash = world.sats(100).await;
    let paid = world.chat_at(1, Pay::XCashu(&ecash), &chat("demo")).await.expect(200);
    let change = paid.change().expect("change").to_owned();
    let at = async |turn: usize, pay: Pay<'_>, path: &str, body: &Value| {
        let request = world.request_to(world.gateway_of(turn), reqwest::Method::POST, path, pay);
        Answer::read(request.body(body.to_string()).send().await.unwrap()).await.unwrap()
    };
    let refund = "/v1/balance/refund";
    let claimed = at(2, Pay::XCashu(&ecash), refund, &json!({})).await.expect(200).json();
    assert_eq!(claimed["token"], change);
    let key = world.key(50).await;
    let more = world.sats(25).await;
    let asked = json!({"cashu_token": more});
    let added = at(1, Pay::from(&key), "/v1/balance/topup", &asked).await.expect(200).json();
    assert_eq!(added["msats"], 25_000);
    let first = at(2, Pay::from(&key), refund, &json!({})).await.expect(200).json();
    let again = at(0, Pay::from(&key), refund, &json!({})).await.expect(200).json();
    assert_eq!(first["token"], again["token"]);
    assert_eq!(world.worth(first["token"].as_str().unwrap()).await, 75);
    world.check_balanced().await;
}

/// Gateways before an upstream whose slow models wait at a gate.
async fn fleet_of(gateways: usize, config: Value, more_models: Vec<Value>) -> World {
    let fleet = Some(Fleet::of(gateways));
    World::with(Setting { fleet, config, more_models, ..Setting::gated() }).await
}

/// Where requests are counted, none may be refused because the machine is busy.
fn patient(config: Value) -> Value {
    with(config, json!({"fleet": {"ledger_timeout": "10s"}}))
}

/// A model that costs one sat per request, whatever is said.
fn flat_model() -> Value {
    with(
        crate::support::model("flat", &["sandbox"]),
        json!({"price": {"currency": "sat", "request": 1, "input": 0, "output": 0}}),
    )
}

/// How many requests were served, and the codes of those that were not.
#[derive(Default)]
struct Storm {
    served: usize,
    codes: Vec<String>,
}

impl Storm {
    fn refused_with(&self, code: &str) -> usize {
        self.codes.iter().filter(|refused| *refused == code).count()
    }
}

/// Asks this often at all gateways in turn, `at_once` of them at any time, while the balance is
/// watched: an amount below zero could not be read at all.
async fn storm(
    world: &Arc<World>,
    key: &Key,
    body: &Value,
    requests: usize,
    at_once: usize,
) -> Storm {
    let mut storm = Storm::default();
    for answer in asked_at_once(world, key, body, requests, at_once).await {
        match answer.status {
            200 => storm.served += 1,
            _ => storm.codes.push(answer.json()["error"]["code"].as_str().unwrap().to_owned()),
        }
    }
    storm
}

/// All answers of so many requests, spread over all gateways, `at_once` of them at a time.
async fn asked_at_once(
    world: &Arc<World>,
    key: &Key,
    body: &Value,
    requests: usize,
    at_once: usize,
) -> Vec<Answer> {
    let slots = Arc::new(Semaphore::new(at_once));
    let mut asked = JoinSet::new();
    for turn in 0..requests {
        let slot = slots.clone().acquire_owned().await.unwrap();
        let (at, by, what) = (world.clone(), key.clone(), body.clone());
        asked.spawn(async move {
            let answer = at.chat_at(turn, &by, &what).await;
            drop(slot);
            answer
        });
        if turn % 100 == 0 {
            let balance = world.info(key).await;
            assert!(balance.available + balance.reserved + balance.spent <= 10_000_000);
        }
    }
    asked.join_all().await
}

/// How long Redis says nothing.
fn pause() -> Duration {
    Duration::from_secs(if is_full_chaos() { 10 } else { 2 })
}

const DEADLINE: Duration = Duration::from_millis(250);
const CROWD: Duration = Duration::from_millis(400);
/// Of the tests' usual prompt.
const PROMPT_TOKENS: u64 = 7;
