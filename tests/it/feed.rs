//! The dollar rate is what most sources say, it follows them while the gateway runs, and nothing
//! is sold in dollars at a rate that nobody stands by.

use crate::support::{
    Answer, LOOK_AGAIN, MODEL_OUTPUT_TOKENS, PRICE, Pay, Setting, Source, Value, World, chat, json,
    length, within,
};
use crate::telemetry::value;

/// At this rate, in dollars, [`in_dollars`] is the price of every model of the world.
const RATE: u64 = 100_000;

/// A model that costs in dollars what the others cost in sats.
fn in_dollars() -> Value {
    json!({
        "id": "dollars",
        "upstream_model": "demo",
        "upstreams": ["sandbox"],
        "context_length": 128_000,
        "max_output_tokens": MODEL_OUTPUT_TOKENS,
        "price": {
            "currency": "usd", "request": 0.011, "input": 2, "cached_input": 0.5, "output": 7,
        },
    })
}

/// A rate as each source has it, at the path that [`setting`] names.
fn rate(dollars: u64) -> Value {
    json!({"data": [{"amount": format!("{dollars}.00")}]})
}

/// A gateway with `dollars` beside the others, and these paths of the source as its sources.
fn setting(source: &Source, paths: &[&str], stale_after: &str) -> Setting {
    let one =
        |path: &&str| json!({"url": source.url(path) + "?key=secret", "path": "data.0.amount"});
    let feed = json!({
        "sources": paths.iter().map(one).collect::<Vec<_>>(),
        "every": "20ms",
        "stale_after": stale_after,
    });
    let config = json!({"btc_usd_feed": feed});
    Setting { config, more_models: vec![in_dollars()], ..Setting::default() }
}

/// What the models list says `dollars` costs per input token, in sats.
async fn listed(world: &World) -> Option<Value> {
    let answer = world.fetch("/v1/models", Pay::Nothing).await.expect(200);
    let list = answer.json();
    let entry = list["data"].as_array().unwrap().iter().find(|entry| entry["id"] == "dollars")?;
    Some(entry["sats_pricing"]["prompt"].clone())
}

async fn reaches(world: &World, expected: Option<Value>) {
    let reached = async {
        while listed(world).await != expected {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    within(&format!("the price is {expected:?}"), reached).await;
}

#[track_caller]
fn refused(answer: Answer) {
    assert!(answer.number("retry-after") > 0);
    answer.expect_error(503, "service_unavailable", "price_unavailable");
}

#[tokio::test]
async fn the_rate_is_the_median_of_those_that_agree_from_the_first_request_on() {
    let source = Source::start().await;
    for (path, dollars) in [("/a", 900_000), ("/b", 99_000), ("/c", 101_000), ("/d", RATE)] {
        source.says(path, rate(dollars));
    }
    let world = World::with(setting(&source, &["/a", "/b", "/c", "/d"], "15m")).await;
    // It was asked for before anybody was let in.
    assert_eq!(listed(&world).await, Some(json!(0.002)));
    assert!(!world.gateway.log().contains("starting without"), "nobody was waited for in vain");
    let key = world.key(100).await;
    let body = chat("dollars");
    let answer = world.chat(&key, &body).await.expect(200).json();
    let used = |name: &str| answer["usage"][name].as_u64().unwrap();
    let owed = PRICE.cost(used("prompt_tokens"), used("completion_tokens"));
    assert_eq!(world.settled(&key).await.spent, owed);
    assert!(owed < PRICE.ceiling(length(body.to_string()), MODEL_OUTPUT_TOKENS, 1));

    assert_eq!(value(&world, "nutgate_btc_usd_cents").await, Some(RATE * 100));
    assert!(value(&world, "nutgate_btc_usd_age_seconds").await.unwrap() < 60);
    let failed = |label: &str| {
        format!("nutgate_price_source_failures_total{{source=\"{label}/127.0.0.1\"}}")
    };
    assert!(value(&world, &failed("0")).await.unwrap() > 0, "the outlier is a failure");
    assert_eq!(value(&world, &failed("1")).await, Some(0));
    assert!(!world.gateway.log().contains("key=secret"), "a query may be a secret");
}

#[tokio::test]
async fn a_rate_that_changes_is_sold_at_without_a_restart() {
    let source = Source::start().await;
    source.says("/a", rate(RATE));
    source.says("/b", rate(RATE));
    let world = World::with(setting(&source, &["/a", "/b"], "15m")).await;
    let key = world.key(100).await;
    assert_eq!(listed(&world).await, Some(json!(0.002)));
    // One alone moves nothing.
    source.says("/a", rate(2 * RATE));
    source.asked_again("/a", 3).await;
    assert_eq!(listed(&world).await, Some(json!(0.002)));
    source.says("/b", rate(2 * RATE));
    reaches(&world, Some(json!(0.001))).await;
    let answer = world.chat(&key, &chat("dollars")).await.expect(200).json();
    let used = |name: &str| answer["usage"][name].as_u64().unwrap();
    let owed = PRICE.cost(used("prompt_tokens"), used("completion_tokens")).div_ceil(2);
    assert_eq!(world.settled(&key).await.spent, owed);
}

#[tokio::test]
async fn at_a_stale_rate_nothing_is_sold_in_dollars_and_everything_in_sats() {
    let source = Source::start().await;
    source.says("/a", rate(RATE));
    source.says("/b", json!({"data": "down for maintenance"}));
    let world = World::with(setting(&source, &["/a", "/b"], "3s")).await;
    let key = world.key(200).await;
    // There was no rate at the start, and the gateway is there all the same.
    assert_eq!(listed(&world).await, None);
    refused(world.chat(&key, &chat("dollars")).await);
    refused(world.fetch("/v1/models/dollars", Pay::Nothing).await);
    assert_eq!(value(&world, "nutgate_btc_usd_cents").await, Some(0));
    world.chat(&key, &chat("demo")).await.expect(200);
    source.says("/b", rate(RATE));
    reaches(&world, Some(json!(0.002))).await;
    world.chat(&key, &chat("dollars")).await.expect(200);

    source.fails("/a", 500);
    reaches(&world, None).await;
    let before = world.settled(&key).await;
    refused(world.chat(&key, &chat("dollars")).await);
    assert_eq!(world.settled(&key).await, before, "a refusal costs and holds nothing");
    world.chat(&key, &chat("demo")).await.expect(200);
    let asked = world.upstream.count();
    assert_eq!(asked, 3, "only what was sold was forwarded");
    source.says("/a", rate(2 * RATE));
    source.says("/b", rate(2 * RATE));
    reaches(&world, Some(json!(0.001))).await;
    world.chat(&key, &chat("dollars")).await.expect(200);
}

#[tokio::test]
async fn a_source_that_hangs_keeps_nobody_waiting() {
    let source = Source::start().await;
    source.hangs("/a");
    source.says("/b", rate(RATE));
    source.says("/c", rate(RATE));
    let world = World::with(setting(&source, &["/a", "/b", "/c"], "15m")).await;
    assert_eq!(listed(&world).await, Some(json!(0.002)), "the others were enough");
    assert!(
        !world.gateway.log().contains("starting without"),
        "nor does it keep the start waiting"
    );
    source.says("/b", rate(2 * RATE));
    source.says("/c", rate(2 * RATE));
    reaches(&world, Some(json!(0.001))).await;
}

#[tokio::test]
async fn a_fixed_rate_wins_and_asks_nobody() {
    let source = Source::start().await;
    source.says("/a", rate(5 * RATE));
    source.says("/b", rate(5 * RATE));
    let mut setting = setting(&source, &["/a", "/b"], "15m");
    setting.config["btc_usd"] = json!(RATE);
    let world = World::with(setting).await;
    assert_eq!(listed(&world).await, Some(json!(0.002)));
    assert!(source.asked("/a").is_empty());
}
