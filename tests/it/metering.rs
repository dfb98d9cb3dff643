//! Price times usage, to the msat, and nothing else changed on the way.

use crate::support::{
    Answer, Misbehaviour, PRICE, PURSE_SATS, Pay, Setting, Value, Way, World, chat, json, length,
    model_of, prompt_tokens, streamed, with,
};

/// What the plain answer to a body costs: its prompt and twenty words.
fn plain_cost(body: &Value) -> u64 {
    PRICE.cost(prompt_tokens(body), 20)
}

fn asked(body: Value) -> Value {
    with(body, json!({"stream_options": {"include_usage": true}}))
}

fn bytes(body: &Value) -> u64 {
    length(body.to_string())
}

#[tokio::test]
async fn a_document_costs_price_times_usage_however_it_is_paid() {
    let world = World::start().await;
    let body = chat("demo");
    for way in Way::ALL {
        let (answer, cost) = world.buy(way, &body).await;
        assert_eq!(cost, plain_cost(&body), "{way:?}");
        let answer = answer.expect(200);
        assert_eq!(answer.number("x-routstr-cost-msats"), cost);
        let input = answer.number("x-routstr-input-cost-msats");
        assert_eq!(input, PRICE.input * prompt_tokens(&body));
        assert_eq!(answer.number("x-routstr-output-cost-msats"), PRICE.output * 20);
        assert_eq!(answer.number("content-length"), length(&answer.body));
        assert_eq!(answer.change().is_some(), way == Way::XCashu);
    }
}

#[tokio::test]
async fn a_stream_costs_price_times_usage_however_it_is_paid() {
    let world = World::start().await;
    let body = streamed("demo");
    let asked_body = asked(body.clone());
    for way in Way::ALL {
        let (answer, cost) = world.buy(way, &body).await;
        assert_eq!(cost, plain_cost(&body), "{way:?}");
        let answer = answer.expect(200);
        assert!(answer.events().is_done());
        // Only an answer that was held knows its cost when its head leaves.
        let told = answer.header("x-routstr-cost-msats").map(str::to_owned);
        assert_eq!(told, (way == Way::XCashu).then(|| cost.to_string()));
        let (answer, cost) = world.buy(way, &asked_body).await;
        assert_eq!(cost, plain_cost(&body), "{way:?}");
        assert_eq!(answer.events().usages().len(), 1);
    }
}

#[tokio::test]
async fn usage_is_read_from_whatever_shape_an_answer_has() {
    use Misbehaviour::*;
    let world = World::start().await;
    let shapes =
        [ByteByByte, ContentLength, DataColonText, UsageWithContent, UsageNullChunks, Crlf, NoDone];
    for misbehaviour in shapes.into_iter().chain([EarlyHints]) {
        for body in [chat(&model_of(misbehaviour)), streamed(&model_of(misbehaviour))] {
            for way in Way::BOTH {
                let (answer, cost) = world.buy(way, &body).await;
                assert_eq!(cost, plain_cost(&body), "{misbehaviour:?} {way:?} {body}");
                answer.expect(200);
            }
        }
    }
}

#[tokio::test]
async fn more_output_and_more_choices_cost_more() {
    let world = World::start().await;
    let long = with(chat("demo-long"), json!({"max_tokens": 1500}));
    let (_, cost) = world.buy(Way::Key, &long).await;
    assert_eq!(cost, PRICE.cost(prompt_tokens(&long), 1500));
    let many = with(streamed("demo"), json!({"n": 3, "max_completion_tokens": 5}));
    let (_, cost) = world.buy(Way::XCashu, &many).await;
    assert_eq!(cost, PRICE.cost(prompt_tokens(&many), 15));
}

#[tokio::test]
async fn cached_input_has_its_own_price_and_is_counted_once() {
    let world = World::start().await;
    let model = model_of(Misbehaviour::Cached);
    for body in [chat(&model), asked(streamed(&model))] {
        for way in Way::BOTH {
            let (answer, cost) = world.buy(way, &body).await;
            let input = prompt_tokens(&body);
            assert_eq!(input / 2, 3, "an odd half, so that rounding shows");
            assert_eq!(cost, PRICE.cost_cached(input, input / 2, 20), "{way:?}");
            let usage = match answer.events().usages().pop() {
                Some(usage) => usage,
                None => answer.json()["usage"].clone(),
            };
            check_cost_members(&usage, cost);
            assert_eq!(usage["cost"]["cache_read_msats"], 2, "three halves, rounded up");
        }
    }
}

/// The members that WIRE.md section 5 adds to a usage object.
#[track_caller]
fn check_cost_members(usage: &Value, cost: u64) {
    let msats = |name: &str| usage["cost"][name].as_u64().unwrap_or_else(|| panic!("{name}"));
    assert_eq!(msats("total_msats"), cost);
    let parts = ["input_msats", "output_msats", "cache_read_msats", "base_msats"];
    assert_eq!(parts.map(msats).iter().sum::<u64>(), cost, "{usage}");
    assert_eq!(msats("cache_creation_msats"), 0);
    assert_eq!(msats("base_msats"), PRICE.request);
    assert_eq!(usage["cost"]["total_usd"], 0);
    let sats = format!("{}.{:03}", cost / 1000, cost % 1000);
    assert_eq!(usage["cost_sats"].to_string(), sats.trim_end_matches('0'));
}

#[tokio::test]
async fn the_cost_is_in_the_usage_of_every_answer_that_shows_usage() {
    let world = World::start().await;
    for body in [chat("demo"), asked(streamed("demo"))] {
        for way in Way::BOTH {
            let (answer, cost) = world.buy(way, &body).await;
            let usage = match answer.events().usages().pop() {
                Some(usage) => usage,
                None => answer.json()["usage"].clone(),
            };
            check_cost_members(&usage, cost);
            let remaining = usage["remaining_balance_msats"].as_u64();
            assert_eq!(remaining, Some(PURSE_SATS * 1000 - cost), "{way:?}");
        }
    }
}

#[tokio::test]
async fn nothing_but_the_cost_is_added_to_an_answer() {
    let world = World::start().await;
    let key = world.key(1000).await;
    for model in MODELS {
        for body in [chat(model), asked(streamed(model))] {
            let ours = world.chat(&key, &body).await.expect(200);
            let is_document = body.get("stream").is_none();
            assert_eq!(ours.headers.contains_key("content-length"), is_document, "{body}");
            let ours = ours.text();
            let theirs = world.ask_upstream(&body).await.expect(200).text();
            assert_eq!(without_cost(&ours), theirs, "{body}");
        }
    }
}

const MODELS: [&str; 6] = [
    "demo",
    "demo-content-length",
    "demo-byte-by-byte",
    "demo-data-colon-text",
    "demo-crlf",
    "demo-no-done",
];

/// The same text without the members that the gateway adds, which stand together.
#[track_caller]
fn without_cost(text: &str) -> String {
    let (before, rest) = text.split_once(",\"cost\":{").expect("a cost");
    let (_, rest) = rest.split_once("\"remaining_balance_msats\":").expect("a balance");
    before.to_owned() + rest.trim_start_matches(|digit: char| digit.is_ascii_digit())
}

#[tokio::test]
async fn a_client_that_did_not_ask_for_usage_gets_the_upstreams_bytes() {
    use Misbehaviour::*;
    let world = World::start().await;
    let key = world.key(1000).await;
    let untouched =
        [Crlf, DataColonText, NoDone, NoUsage, ByteByByte, ContentLength, EarlyHints, Cached];
    let models = untouched.into_iter().map(model_of).chain(["demo".to_owned()]);
    for model in models {
        let body = streamed(&model);
        let theirs = world.ask_upstream(&body).await.expect(200);
        let ours = world.chat(&key, &body).await.expect(200);
        assert_eq!(ours.text(), theirs.text(), "{model}");
        let held = world.buy(Way::XCashu, &body).await.0;
        assert_eq!(held.text(), theirs.text(), "{model}, held");
        assert_eq!(ours.header("content-type"), theirs.header("content-type"));
    }
}

#[tokio::test]
async fn usage_that_comes_with_content_is_hidden_and_the_content_stays() {
    let world = World::start().await;
    let key = world.key(1000).await;
    let body = streamed(&model_of(Misbehaviour::UsageWithContent));
    let theirs = world.ask_upstream(&body).await.expect(200).events();
    assert_eq!(theirs.usages().len(), 1);
    let ours = world.chat(&key, &body).await.expect(200).events();
    assert_eq!(ours.content(), theirs.content());
    assert_eq!(ours.usages(), Vec::<Value>::new());
    let shown = world.chat(&key, &asked(body.clone())).await.expect(200).events();
    assert_eq!(shown.content(), theirs.content());
    check_cost_members(&shown.usages()[0], plain_cost(&body));
}

#[tokio::test]
async fn the_upstream_is_always_asked_for_the_usage_of_a_stream() {
    let world = World::start().await;
    let key = world.key(1000).await;
    for options in [json!(null), json!({}), json!({"include_usage": false})] {
        let body = with(streamed("demo"), json!({"stream_options": options}));
        let answer = world.chat(&key, &body).await.expect(200);
        assert_eq!(answer.events().usages(), Vec::<Value>::new(), "{body}");
        let seen = world.upstream.requests().pop().unwrap().json();
        assert_eq!(seen["stream_options"], json!({"include_usage": true}));
        assert_eq!(seen["messages"], body["messages"]);
    }
}

#[tokio::test]
async fn configuration_can_show_the_cost_to_everybody() {
    let setting = Setting::config(json!({"stream": {"cost_chunk": "always"}}));
    let world = World::with(setting).await;
    let body = streamed("demo");
    let (answer, cost) = world.buy(Way::Key, &body).await;
    let events = answer.events();
    assert!(events.is_done());
    let chunk = events.json().pop().unwrap();
    assert_eq!(chunk["choices"], json!([]));
    assert!(chunk["id"].is_string());
    check_cost_members(&chunk["usage"], cost);
}

#[tokio::test]
async fn missing_usage_is_estimated_from_what_was_delivered_and_says_so() {
    let mut world = World::start().await;
    let model = model_of(Misbehaviour::NoUsage);
    let document = chat(&model);
    let stream = asked(streamed(&model));
    for way in Way::BOTH {
        let (answer, cost) = world.buy(way, &document).await;
        let body = answer.json();
        let text = length(body["choices"][0]["message"]["content"].as_str().unwrap());
        assert_eq!(cost, PRICE.estimate(bytes(&document), 1, text));
        let (answer, cost) = world.buy(way, &stream).await;
        let events = answer.events();
        let text = length(events.content());
        assert_eq!(events.deliveries(), 20);
        assert_eq!(cost, PRICE.estimate(bytes(&stream), 20, text));
    }
    let (_, reported) = world.buy(Way::Key, &chat("demo")).await;
    world.gateway.kill().await;
    let rows = world.gateway.reservations();
    let source: Vec<&str> = rows.iter().map(|row| row.usage_source.as_str()).collect();
    assert_eq!(source, ["estimated", "estimated", "estimated", "estimated", "upstream"]);
    let last = rows.last().unwrap();
    assert_eq!((last.spent, last.model.as_str()), (reported, "demo"));
    assert_eq!((last.input_tokens, last.output_tokens), (7, 20));
}

#[tokio::test]
async fn an_answer_too_long_to_be_held_is_delivered_charged_and_its_change_claimed() {
    let setting = Setting::config(json!({"limits": {"held_bytes_max": 1_000_000}}));
    let world = World::with(setting).await;
    let model = model_of(Misbehaviour::Big);
    let stream = streamed(&model);
    for way in Way::BOTH {
        let purse = world.purse(way).await;
        let answer = world.chat(purse.pay(), &stream).await.expect(200);
        assert!(answer.body.len() > 4_000_000 && answer.events().is_done(), "{way:?}");
        assert_eq!(answer.change(), None, "the head left before the cost was known");
        assert_eq!(world.cost(&purse, None).await, plain_cost(&stream), "{way:?}");
    }
    // The usage of a document that is not held is read as it passes, and cannot be added to.
    let document = chat(&model);
    for way in Way::BOTH {
        let purse = world.purse(way).await;
        let answer = world.chat(purse.pay(), &document).await.expect(200);
        assert_eq!(answer.json()["usage"].get("cost"), None);
        assert_eq!(world.cost(&purse, None).await, plain_cost(&document), "{way:?}");
    }
}

#[tokio::test]
async fn two_answers_on_one_account_are_charged_for_both() {
    let world = World::start().await;
    let key = world.key(100).await;
    let (document, stream) = (chat("demo"), streamed("demo"));
    let both: (Answer, Answer) =
        tokio::join!(world.chat(&key, &document), world.chat(&key, &stream));
    both.0.expect(200);
    both.1.expect(200);
    let balance = world.settled(&key).await;
    assert_eq!(balance.spent, 2 * plain_cost(&document));
    assert_eq!(balance.requests, 2);
}

#[tokio::test]
async fn a_balance_asked_for_after_an_answer_has_its_cost() {
    let world = World::start().await;
    let key = world.key(1000).await;
    let mut spent = 0;
    for _ in 0..20 {
        for body in [chat("demo"), streamed("demo")] {
            world.chat(&key, &body).await.expect(200);
            spent += plain_cost(&body);
            let balance = world.info(&key).await;
            assert_eq!((balance.reserved, balance.spent), (0, spent), "{body}");
        }
    }
}

#[tokio::test]
async fn the_path_without_its_version_is_sold_like_the_other() {
    let world = World::start().await;
    let key = world.key(100).await;
    let body = chat("demo");
    for path in ["/chat/completions", "/v1/chat/completions?trace=1"] {
        world.post(path, Pay::from(&key), &body).await.expect(200);
        assert_eq!(world.upstream.requests().pop().unwrap().path, "/v1/chat/completions");
    }
    assert_eq!(world.settled(&key).await.spent, 2 * plain_cost(&body));
}
