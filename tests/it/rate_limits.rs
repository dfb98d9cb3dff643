//! How much one key may ask for: exact, for nothing, and with a word on when to come again.

use std::sync::Arc;

use nutgate::clock::UnixMs;
use tokio::task::JoinSet;

use crate::support::{
    Answer, Key, Misbehaviour, PRICE, Pay, Setting, Value, World, chat, json, length, model,
    model_of, prompt_tokens, with, within,
};

/// A world whose `-slow` models wait at a gate, under these limits.
async fn world(limits: Value) -> Arc<World> {
    let config = json!({"rate_limits": limits});
    Arc::new(World::with(Setting { config, ..Setting::gated() }).await)
}

fn request(model: &str) -> Value {
    with(chat(model), json!({"max_tokens": OUTPUT_TOKENS}))
}

fn cost() -> u64 {
    PRICE.cost(prompt_tokens(&chat("demo")), OUTPUT_TOKENS)
}

/// What a request counts as while it is open.
fn held(body: &Value) -> u64 {
    length(body.to_string()) + OUTPUT_TOKENS
}

/// A request that is at the gate, and waits there for its answer.
async fn at_the_gate(world: &Arc<World>, key: &Key, open: &mut JoinSet<Answer>) {
    let asked = world.upstream.count() + 1;
    let (asking, key) = (world.clone(), key.clone());
    open.spawn(async move { asking.chat(&key, &slow()).await });
    world.asked(asked).await;
}

fn slow() -> Value {
    request(&model_of(Misbehaviour::Slow))
}

/// Refused for this limit, and told to come again in so many seconds at most.
#[track_caller]
fn check_limited(answer: Answer, which: &str, limit: u64, wait_s: u64) -> Answer {
    let answer = answer.expect_error(429, "rate_limit_exceeded", "rate_limit_exceeded");
    let details = answer.json()["error"]["details"].clone();
    assert_eq!(details, json!({"limit": limit, "which": which}));
    let wait = answer.number("retry-after");
    assert!((1..=wait_s).contains(&wait), "{wait} s");
    answer
}

#[tokio::test]
async fn of_many_requests_in_a_minute_exactly_the_limit_is_served() {
    let world = world(json!({"requests_per_minute": 20})).await;
    let key = world.key(1000).await;
    let mut asked = JoinSet::new();
    for _ in 0..60 {
        let (world, key) = (world.clone(), key.clone());
        asked.spawn(async move { world.chat(&key, &request("demo")).await });
    }
    let (served, refused): (Vec<_>, Vec<_>) =
        asked.join_all().await.into_iter().partition(|answer| answer.status == 200);
    assert_eq!((served.len(), refused.len()), (20, 40));
    for answer in refused {
        let answer = check_limited(answer, "requests_per_minute", 20, 60);
        assert_eq!(answer.header("x-should-retry"), None);
    }
    let balance = world.settled(&key).await;
    assert_eq!((balance.spent, balance.available), (20 * cost(), 1_000_000 - 20 * cost()));
    assert_eq!(world.upstream.count(), 20);
    // Limits are each key's own.
    let other = world.key(100).await;
    world.chat(&other, &request("demo")).await.expect(200);
    world.check_balanced().await;
}

#[tokio::test]
async fn no_more_than_the_limit_is_open_at_once_and_an_end_makes_room() {
    let world = world(json!({"concurrent": 3})).await;
    let key = world.key(1000).await;
    let ceiling = PRICE.ceiling(length(slow().to_string()), OUTPUT_TOKENS, 1);
    let mut asked = JoinSet::new();
    for _ in 0..10 {
        let (world, key) = (world.clone(), key.clone());
        asked.spawn(async move { world.chat(&key, &slow()).await });
    }
    for _ in 0..7 {
        let refused = within("a refusal", asked.join_next()).await.unwrap().unwrap();
        check_limited(refused, "concurrent_requests", 3, 1);
    }
    world.asked(3).await;
    assert_eq!(world.info(&key).await.reserved, 3 * ceiling, "a refusal holds nothing");
    world.upstream.open_gate();
    for served in asked.join_all().await {
        served.expect(200);
    }
    let balance = world.settled(&key).await;
    assert_eq!((balance.spent, world.upstream.count()), (3 * cost(), 3));
    world.chat(&key, &slow()).await.expect(200);
}

#[tokio::test]
async fn a_context_longer_than_the_hourly_limit_can_be_used() {
    let wide = with(model("demo-wide", &["sandbox"]), json!({"context_length": 2_000_000}));
    let world = World::with(Setting { more_models: vec![wide], ..Setting::default() }).await;
    let key = world.key(10_000).await;
    let image = json!({"type": "image_url", "image_url": {"url": "https://a.invalid/a.png"}});
    let body = json!({
        "model": "demo-wide", "messages": [{"role": "user", "content": [image]}],
    });
    world.chat(&key, &body).await.expect(200);
}

#[tokio::test]
async fn an_open_request_counts_as_its_most_and_an_ended_one_as_what_it_used() {
    let used = prompt_tokens(&chat("demo")) + OUTPUT_TOKENS;
    // One open request and the usage of two fit, to the last one; two open requests do not.
    let limit = held(&slow()) + 2 * used;
    assert!(limit < 2 * held(&slow()));
    let world = world(json!({"tokens_per_hour": limit})).await;
    let key = world.key(1000).await;
    for _ in 0..3 {
        world.upstream.close_gate();
        let mut open = JoinSet::new();
        at_the_gate(&world, &key, &mut open).await;
        check_limited(world.chat(&key, &slow()).await, "tokens_per_hour", limit, 3600);
        world.upstream.open_gate();
        open.join_next().await.unwrap().unwrap().expect(200);
        world.settled(&key).await;
    }
    check_limited(world.chat(&key, &slow()).await, "tokens_per_hour", limit, 3600);
    let balance = world.settled(&key).await;
    assert_eq!((balance.spent, balance.requests), (3 * cost(), 3));
    assert_eq!(world.upstream.count(), 3);
}

#[tokio::test]
async fn what_is_limited_after_it_was_redeemed_comes_back() {
    let world = world(json!({"concurrent": 1})).await;
    let paid = world.sats(100).await;
    let mut open = JoinSet::new();
    for _ in 0..2 {
        let (world, paid) = (world.clone(), paid.clone());
        open.spawn(async move { world.chat(Pay::XCashu(&paid), &slow()).await });
    }
    let refused = within("a refusal", open.join_next()).await.unwrap().unwrap();
    let refused = check_limited(refused, "concurrent_requests", 1, 1);
    assert_eq!(refused.header("x-should-retry"), Some("false"));
    assert_eq!(refused.change(), None, "the open request gives the change");
    world.asked(1).await;
    world.upstream.open_gate();
    let served = within("an answer", open.join_next()).await.unwrap().unwrap().expect(200);
    let change = served.change().unwrap();
    assert_eq!(world.worth(change).await, (100_000 - cost()) / 1000);
    world.check_balanced().await;
}

#[tokio::test]
async fn a_request_that_is_over_the_limit_by_itself_takes_no_ecash() {
    let body = request("demo");
    let limit = held(&body) - 1;
    let world = world(json!({"tokens_per_hour": limit})).await;
    let paid = world.sats(100).await;
    let refused = world.chat(Pay::XCashu(&paid), &body).await;
    let refused = check_limited(refused, "tokens_per_hour", limit, 3600);
    assert_eq!(refused.change(), Some(&*paid), "the untouched token is echoed");
    assert_eq!(refused.header("x-should-retry"), Some("false"));
    let refused = world.chat(Pay::Bearer(&paid), &body).await;
    check_limited(refused, "tokens_per_hour", limit, 3600);
    assert!(!world.is_spent(&paid).await);
    assert_eq!(world.upstream.count(), 0);
}

#[tokio::test]
async fn every_key_and_every_child_has_its_own_limits() {
    let world = world(json!({"requests_per_minute": 2})).await;
    let (parent, other) = (world.key(1000).await, world.key(1000).await);
    let asked = json!({"count": 1});
    let made = world.post("/v1/balance/child-key", Pay::from(&parent), &asked).await;
    let made = made.expect(200).json();
    let child = Key(made["api_keys"][0].as_str().unwrap().to_owned());
    for key in [&parent, &child, &other] {
        for _ in 0..2 {
            world.chat(key, &request("demo")).await.expect(200);
        }
        check_limited(world.chat(key, &request("demo")).await, "requests_per_minute", 2, 60);
    }
    assert_eq!(world.settled(&parent).await.spent, 4 * cost(), "the child's are its parent's");
}

#[tokio::test]
async fn every_answer_says_what_is_left_in_all_dialects_and_a_refusal_costs_nothing_of_it() {
    let used = prompt_tokens(&chat("demo")) + OUTPUT_TOKENS;
    let most = 10 * held(&request("demo"));
    let limits = json!({"requests_per_minute": 5, "tokens_per_hour": most});
    let world = World::with(Setting::config(json!({"rate_limits": limits}))).await;
    let key = world.key(1000).await;
    let bodies = [request("demo"), with(request("demo"), json!({"stream": true}))];
    for (made, body) in (1..=2).zip(&bodies) {
        let answer = world.chat(&key, body).await.expect(200);
        check_left(&answer, (5, 5 - made), (most, most - (made - 1) * used - held(body)));
        world.settled(&key).await;
    }
    let told = world.chat(&key, &request("no-such-model")).await.expect(404);
    assert_eq!(told.header("x-ratelimit-limit"), None, "the ledger was not asked");
    // Local answers count nothing.
    let rest = (most, most - 2 * used);
    for path in ["/v1/balance/info", "/v1/balance/history", "/v1/wallet/info"] {
        check_left(&world.fetch(path, Pay::from(&key)).await.expect(200), (5, 3), rest);
    }
    let topup = json!({"cashu_token": "cashuAnonsense"});
    let refused = world.post("/v1/balance/topup", Pay::from(&key), &topup).await.expect(400);
    check_left(&refused, (5, 3), rest);
    for path in ["/v1/models", "/v1/info", "/v1/balance/info"] {
        let answer = world.fetch(path, Pay::Nothing).await;
        assert_eq!(answer.header("x-ratelimit-limit"), None, "{path}: no key was shown");
    }
    // What it cannot pay for, and what an upstream does not answer.
    let dear = with(chat("demo"), json!({"max_tokens": 100_000, "n": 4}));
    let refused = world.chat(&key, &dear).await;
    assert!(matches!(refused.status, 402 | 429), "{}", refused.text());
    check_left(&refused, (5, 3), rest);
    let broken = world.chat(&key, &request(&model_of(Misbehaviour::Status500))).await;
    assert_eq!(broken.status, 502, "{}", broken.text());
    assert_eq!(broken.number("x-ratelimit-remaining"), 2);
    world.settled(&key).await;
    for left in [1, 0] {
        assert_eq!(world.chat(&key, &bodies[0]).await.number("x-ratelimit-remaining"), left);
        world.settled(&key).await;
    }
    let rest = (most, most - 4 * used);
    let refused = check_limited(world.chat(&key, &bodies[0]).await, "requests_per_minute", 5, 60);
    check_left(&refused, (5, 0), rest);
    check_left(&world.refund(&key).await.expect(200), (5, 0), rest);
}

#[tokio::test]
async fn an_answer_paid_by_ecash_says_what_is_left_too_whether_it_is_held_or_refused() {
    let limits = json!({"requests_per_minute": 2});
    let world = World::with(Setting::config(json!({"rate_limits": limits}))).await;
    let paid = world.sats(100).await;
    let streamed = with(request("demo"), json!({"stream": true}));
    let served = world.chat(Pay::XCashu(&paid), &streamed).await.expect(200);
    assert!(served.change().is_some());
    assert_eq!(served.number("x-ratelimit-remaining-requests"), 1);
    let spent = world.chat(Pay::XCashu(&paid), &streamed).await.expect(400);
    assert_eq!(spent.number("x-ratelimit-remaining-requests"), 1);
    assert_eq!(world.claim(&paid).await.number("x-ratelimit-remaining"), 1);
    let foreign = world.chat(Pay::XCashu("cashuAnonsense"), &streamed).await.expect(400);
    assert_eq!(foreign.header("x-ratelimit-limit"), None, "it has no account");
}

/// Limits and what is left of them, of requests and of tokens, as every dialect tells them.
#[track_caller]
fn check_left(answer: &Answer, requests: (u64, u64), tokens: (u64, u64)) {
    let pair = |of: &str| {
        let number = |what: &str| answer.number(&format!("x-ratelimit-{what}{of}"));
        (number("limit"), number("remaining"))
    };
    assert_eq!(pair(""), requests);
    assert_eq!(pair("-requests"), requests);
    assert_eq!(pair("-tokens"), tokens);
    let now = UnixMs::now().whole_seconds();
    let reset = answer.number("x-ratelimit-reset");
    assert!((now..=now + 61).contains(&reset), "{reset} at {now}");
    let policy =
        format!(r#""requests";q={};w=60, "tokens";q={};qu="tokens";w=3600"#, requests.0, tokens.0);
    assert_eq!(answer.header("ratelimit-policy"), Some(&*policy));
    let state = answer.header("ratelimit").unwrap();
    assert!(state.starts_with(&format!(r#""requests";r={};t="#, requests.1)), "{state}");
    assert!(state.contains(&format!(r#""tokens";r={};t="#, tokens.1)), "{state}");
    for name in ["x-ratelimit-reset-requests", "x-ratelimit-reset-tokens"] {
        assert!(answer.header(name).unwrap().ends_with('s'));
    }
    let exposed = answer.header("access-control-expose-headers").unwrap();
    for name in ["RateLimit,", "RateLimit-Policy,", "X-RateLimit-Remaining,"] {
        assert!(exposed.contains(name), "{exposed}");
    }
}

const OUTPUT_TOKENS: u64 = 5;
