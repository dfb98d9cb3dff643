//! What an upstream lists is for sale at the prices that it lists, follows the list while the
//! gateway runs, and is left out where it could not be charged for.

use crate::support::{
    Key, LOOK_AGAIN, PRICE, Pay, Setting, Source, Value, World, chat, json, model, within,
};
use crate::telemetry::value;

const LIST: &str = "/v1/models";
const CHAT: &str = "/v1/chat/completions";

/// An entry whose price is that of every model of the world, at a hundred thousand dollars.
fn entry(id: &str) -> Value {
    json!({
        "id": id, "name": "Listed", "created": 1_700_000_000, "context_length": 8_000,
        "architecture": {"modality": "text->text"},
        "top_provider": {"context_length": 8_000, "max_completion_tokens": 100},
        "pricing": {
            "prompt": "0.000002", "completion": "0.000007", "request": "0.011", "image": "0",
            "web_search": "0", "internal_reasoning": "0", "input_cache_read": "0.0000005",
        },
    })
}

fn list(entries: &[Value]) -> Value {
    json!({"object": "list", "data": entries})
}

/// Its answer to every chat.
fn answer() -> Value {
    json!({
        "id": "chat-1", "object": "chat.completion", "created": 1, "model": "any",
        "choices": [{
            "index": 0, "finish_reason": "stop",
            "message": {"role": "assistant", "content": "A seed."},
        }],
        "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12},
    })
}

/// A gateway with this upstream beside the world's own. `policy` is merged over a short `every`.
fn setting(source: &Source, policy: Value) -> Setting {
    source.says(CHAT, answer());
    let mut models = json!({"every": "20ms"});
    models.as_object_mut().unwrap().extend(policy.as_object().unwrap().clone());
    let listing = json!({
        "name": "lists", "base_url": source.url("/v1"), "api_key": "sk-lists", "models": models,
    });
    let config = json!({"btc_usd": 100_000});
    Setting { config, more_upstreams: vec![listing], ..Setting::default() }
}

/// The ids that begin with `listed`, as clients see them.
async fn offered(world: &World) -> Vec<String> {
    let list = world.fetch("/v1/models", Pay::Nothing).await.expect(200).json();
    let ids = list["data"].as_array().unwrap().iter().map(|entry| entry["id"].as_str().unwrap());
    ids.filter(|id| id.starts_with("listed")).map(str::to_owned).collect()
}

async fn reaches(world: &World, expected: &[&str]) {
    let reached = async {
        while offered(world).await != expected {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    within(&format!("{expected:?} are offered"), reached).await;
}

/// Buys one answer of a model that costs what every other does.
async fn buys(world: &World, key: &Key, model: &str) {
    let before = world.settled(key).await.spent;
    world.chat(key, &chat(model)).await.expect(200);
    assert_eq!(world.settled(key).await.spent - before, PRICE.cost(7, 5));
}

#[tokio::test]
async fn what_is_listed_with_a_price_is_sold_at_it_and_nothing_else_is() {
    let source = Source::start().await;
    let negative = json!({"prompt": "-1", "completion": "-1"});
    let mut depends = entry("listed/depends");
    depends["pricing"] = negative;
    let mut unknown = entry("listed/unknown-unit");
    unknown["pricing"]["audio"] = json!("0.000001");
    let bare = json!({"id": "listed/bare", "object": "model", "created": 1, "owned_by": "x"});
    let free = json!({"id": "listed/no-context", "pricing": entry("x")["pricing"]});
    source.says(LIST, list(&[entry("listed/a"), depends, unknown, bare, free, entry("other/b")]));
    let world = World::with(setting(&source, json!({"include": ["listed/*"]}))).await;
    assert_eq!(offered(&world).await, ["listed/a"]);
    let shown = world.fetch("/v1/models/listed/a", Pay::Nothing).await.expect(200).json();
    assert_eq!(shown["name"], "Listed");
    assert_eq!(shown["context_length"], 8_000);
    assert_eq!(shown["top_provider"]["max_completion_tokens"], 100);
    assert_eq!(shown["pricing"]["prompt"], json!(0.000_002));
    assert_eq!(shown["sats_pricing"]["input_cache_read"], json!(0.0005));

    let key = world.key(200).await;
    buys(&world, &key, "listed/a").await;
    for id in ["listed/depends", "listed/unknown-unit", "listed/bare", "other/b"] {
        let refused = world.chat(&key, &chat(id)).await;
        refused.expect_error(404, "not_found", "model_not_found");
    }
    assert_eq!(source.asked(CHAT).len(), 1);
    assert_eq!(source.asked(LIST)[0]["authorization"], "Bearer sk-lists");
    let left_out = |reason: &str| {
        format!("nutgate_listed_models_left_out{{reason=\"{reason}\",upstream=\"lists\"}}")
    };
    for reason in ["negative_price", "unknown_unit", "no_price", "no_context_length"] {
        assert_eq!(value(&world, &left_out(reason)).await, Some(1), "{reason}");
    }
    assert_eq!(value(&world, "nutgate_listed_models{upstream=\"lists\"}").await, Some(1));
    source.asked_again(LIST, 3).await;
    let lines = world.gateway.log().matches("models of lists: ").count();
    assert_eq!(lines, 1, "the same again is not worth a line");
}

#[tokio::test]
async fn a_list_that_changes_is_swapped_and_one_that_cannot_be_had_is_kept() {
    let source = Source::start().await;
    source.says(LIST, list(&[entry("listed/a"), entry("listed/b")]));
    let world = World::with(setting(&source, json!({}))).await;
    let key = world.key(200).await;
    assert_eq!(offered(&world).await, ["listed/a", "listed/b"]);
    source.says(LIST, list(&[entry("listed/b"), entry("listed/c")]));
    reaches(&world, &["listed/b", "listed/c"]).await;
    world.chat(&key, &chat("listed/a")).await.expect_error(404, "not_found", "model_not_found");
    buys(&world, &key, "listed/c").await;

    // Neither a failure, nor what is no list, nor a list of nothing empties the shop.
    source.fails(LIST, 500);
    source.asked_again(LIST, 2).await;
    for nothing in [json!({"error": "busy"}), list(&[])] {
        source.says(LIST, nothing);
        source.asked_again(LIST, 2).await;
        assert_eq!(offered(&world).await, ["listed/b", "listed/c"]);
    }
    buys(&world, &key, "listed/b").await;
    let failures = "nutgate_listing_failures_total{upstream=\"lists\"}";
    assert!(value(&world, failures).await.unwrap() >= 3);
    source.says(LIST, list(&[entry("listed/a")]));
    reaches(&world, &["listed/a"]).await;
}

#[tokio::test]
async fn a_list_that_nobody_confirms_any_more_is_withdrawn() {
    let source = Source::start().await;
    source.says(LIST, list(&[entry("listed/a")]));
    let world = World::with(setting(&source, json!({"stale_after": "3s"}))).await;
    reaches(&world, &["listed/a"]).await;
    source.fails(LIST, 503);
    reaches(&world, &[]).await;
    let key = world.key(200).await;
    world.chat(&key, &chat("listed/a")).await.expect_error(404, "not_found", "model_not_found");
    world.chat(&key, &chat("demo")).await.expect(200);
    source.says(LIST, list(&[entry("listed/a")]));
    reaches(&world, &["listed/a"]).await;
    buys(&world, &key, "listed/a").await;
}

#[tokio::test]
async fn a_model_of_the_configuration_wins_over_a_listed_one() {
    let source = Source::start().await;
    let mut dear = entry("listed/mine");
    dear["pricing"]["prompt"] = json!("1");
    source.says(LIST, list(&[dear, entry("listed/theirs")]));
    let mut setting = setting(&source, json!({}));
    setting.more_models = vec![model("listed/mine", &["lists"])];
    let world = World::with(setting).await;
    assert_eq!(offered(&world).await, ["listed/mine", "listed/theirs"]);
    let key = world.key(200).await;
    buys(&world, &key, "listed/mine").await;
}

#[tokio::test]
async fn a_list_that_hangs_does_not_keep_the_gateway_from_selling() {
    let source = Source::start().await;
    source.hangs(LIST);
    let world = World::with(setting(&source, json!({}))).await;
    let key = world.key(200).await;
    assert!(offered(&world).await.is_empty());
    world.chat(&key, &chat("demo")).await.expect(200);
}
