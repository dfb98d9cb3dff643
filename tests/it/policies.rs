//! What is charged when a client leaves, or when the upstream does not say what was used: each
//! policy by its name, to the msat.

use nutgate_sandbox::upstream::Ended;

use crate::support::{
    Events, LOOK_AGAIN, MODEL_OUTPUT_TOKENS, Misbehaviour, PRICE, PURSE_SATS, Pay, Purse, Raw,
    ReservationRow, Setting, Value, Way, World, chat, json, length, model, streamed, with, within,
};
use crate::telemetry::value;

const CHAT: &str = "/v1/chat/completions";
const MESSAGES: &str = "/v1/messages";
const MISSING: [&str; 3] = ["estimate", "floor", "ceiling"];

/// A model of these policies whose upstream does this: `<abort>-<missing>-<misbehaviour>`.
fn policy(abort: &str, missing: &str, upstream_model: &str) -> Value {
    let id = format!("{abort}-{missing}-{upstream_model}");
    let policies =
        json!({"abort": abort, "missing_usage": missing, "upstream_model": upstream_model});
    with(model(&id, &["sandbox"]), policies)
}

/// A gated upstream, and a model for each of the policies and each of these ways to answer.
fn setting(upstream_models: &[&str]) -> Setting {
    let policies = |model: &&str| {
        let abort = |abort| MISSING.map(|missing| policy(abort, missing, model));
        ["cancel", "drain"].map(abort).concat()
    };
    let more_models = upstream_models.iter().flat_map(policies).collect();
    Setting { more_models, ..Setting::gated() }
}

/// Anthropic's question, of the same 7 tokens.
fn message(model: &str) -> Value {
    with(streamed(model), json!({"max_tokens": MODEL_OUTPUT_TOKENS}))
}

/// What was delivered in so many events with text, less than all: tokens of output by the estimate.
fn estimated_output(events: u64, text: u64) -> u64 {
    events.max(text.div_ceil(4))
}

async fn post(world: &World, purse: &Purse, path: &str, body: &Value) -> Raw {
    let mut raw = world.raw().await;
    let lines = purse.pay().line() + "anthropic-version: 2023-06-01\r\n";
    raw.post(path, &lines, &body.to_string()).await;
    raw
}

/// A client that leaves an open stream after its first word, which is `Every`.
async fn leave_after_a_word(world: &World, purse: &Purse, path: &str, body: &Value) {
    let mut raw = post(world, purse, path, body).await;
    assert_eq!(raw.head().await.status, 200);
    let first = raw.through("\"Every\"").await.unwrap();
    assert!(first.contains("data: "), "{first}");
    raw.through("\n\n").await.unwrap();
    raw.reset();
}

/// A client that leaves when the upstream has its request and has said nothing yet.
async fn leave_before_a_byte(world: &World, purse: &Purse, body: &Value) {
    let asked = world.upstream.count() + 1;
    let raw = post(world, purse, CHAT, body).await;
    world.asked(asked).await;
    raw.reset();
}

/// The receipt of the only request that this purse has paid for.
async fn receipt(world: &World, purse: &Purse) -> Value {
    let receipts = world.receipts(Pay::Bearer(&purse.key.0)).await;
    assert_eq!(receipts.len(), 1, "{receipts:?}");
    receipts[0].clone()
}

/// The upstream was heard to its end by nobody but the gateway, which charged what it said.
async fn check_drained(world: &World, purse: &Purse, nth: u64) {
    within("it is drained", world.upstream.await_produced(nth)).await;
    assert_eq!(world.cost(purse, None).await, PRICE.cost(7, 20));
    let produced = world.upstream.produced().pop().unwrap();
    assert_eq!((produced.ended, produced.output), (Ended::Complete, 20));
    assert_eq!(world.upstream.client_gone(), 0, "it was never hung up on");
    assert_eq!(receipt(world, purse).await["usage_source"], "upstream");
}

#[tokio::test]
async fn drain_hears_a_stream_to_its_end_for_a_client_that_left_and_charges_all_of_it() {
    let world = World::with(setting(&["demo-slow"])).await;
    for (nth, missing) in (1..).zip(MISSING) {
        world.upstream.close_gate();
        let purse = world.purse(Way::Key).await;
        let body = streamed(&format!("drain-{missing}-demo-slow"));
        leave_after_a_word(&world, &purse, CHAT, &body).await;
        world.upstream.open_gate();
        check_drained(&world, &purse, nth).await;
    }
    world.check_balanced().await;
}

#[tokio::test]
async fn drain_charges_a_document_that_was_made_for_a_client_that_left() {
    let world = World::with(setting(&["demo-slow"])).await;
    let purse = world.purse(Way::Key).await;
    leave_before_a_byte(&world, &purse, &chat("drain-estimate-demo-slow")).await;
    world.upstream.open_gate();
    check_drained(&world, &purse, 1).await;
    world.check_balanced().await;
}

#[tokio::test]
async fn the_change_of_what_was_drained_is_claimed_with_the_original_token() {
    let world = World::with(setting(&["demo-slow"])).await;
    let model = "drain-estimate-demo-slow";
    for (nth, body) in (1..).zip([chat(model), streamed(model)]) {
        world.upstream.close_gate();
        let purse = world.purse(Way::XCashu).await;
        leave_before_a_byte(&world, &purse, &body).await;
        world.upstream.open_gate();
        check_drained(&world, &purse, nth).await;
    }
    world.check_balanced().await;
}

#[tokio::test]
async fn a_drained_stream_stops_where_its_money_ends() {
    let model = "demo-slow-hangs-mid-stream";
    let config = json!({"reservation": {"slice_output_tokens": 4}});
    let world = World::with(Setting { config, ..with_msat(setting(&[model])) }).await;
    let body = streamed(&format!("drain-estimate-{model}"));
    let balance = PRICE.ceiling(length(body.to_string()), 8, 1);
    let key = world.key_of_msat(balance).await;
    let purse = Purse { way: Way::Key, ecash: String::new(), key };
    leave_after_a_word(&world, &purse, CHAT, &body).await;
    world.upstream.open_gate();
    // Eleven words wait to be heard, and there is money for eight tokens.
    world.upstream_left(1).await;
    let mut output = 0;
    let mut text = String::new();
    for word in ["Every", " satoshi", " that", " came", " in", " is", " either", " spent"] {
        text.push_str(word);
        match estimated_output(output + 1, length(&text)) {
            more if more <= 8 => output = more,
            _ => break,
        }
    }
    let balance_left = world.settled(&purse.key).await;
    let cost = PRICE.cost(length(body.to_string()).div_ceil(4), output);
    assert_eq!((balance_left.spent, balance_left.available), (cost, balance - cost));
    world.check_balanced().await;
}

fn with_msat(setting: Setting) -> Setting {
    Setting { mint: Setting::msat().mint, ..setting }
}

#[tokio::test]
async fn a_drained_upstream_that_hangs_is_given_up_in_time() {
    let models = ["demo-hangs-mid-stream", "demo-hangs"];
    let timeouts = json!({"first_byte": "300ms", "idle": "300ms"});
    let world = World::with(Setting { timeouts, ..setting(&models) }).await;
    let purse = world.purse(Way::Key).await;
    let body = streamed("drain-estimate-demo-hangs-mid-stream");
    leave_after_a_word(&world, &purse, CHAT, &body).await;
    world.upstream_left(1).await;
    let words = "Every satoshi that came in is either spent on this very";
    let output = estimated_output(11, length(words));
    let cost = PRICE.cost(length(body.to_string()).div_ceil(4), output);
    assert_eq!(world.cost(&purse, None).await, cost, "all that came is charged");
    let purse = world.purse(Way::Key).await;
    leave_before_a_byte(&world, &purse, &chat("drain-estimate-demo-hangs")).await;
    world.upstream_left(2).await;
    assert_eq!(world.cost(&purse, None).await, 0, "nothing came");
}

#[tokio::test]
async fn sigterm_waits_for_what_is_drained() {
    let mut world = World::with(setting(&["demo-slow"])).await;
    let purse = world.purse(Way::Key).await;
    let body = streamed("drain-estimate-demo-slow");
    leave_after_a_word(&world, &purse, CHAT, &body).await;
    world.gateway.sigterm();
    let refused = async {
        while Raw::try_connect(world.gateway.address()).await.is_ok() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    within("nobody new is let in", refused).await;
    world.upstream.open_gate();
    assert!(world.gateway.ended().await.success());
    world.gateway.restart().await;
    let balance = world.info(&purse.key).await;
    assert_eq!((balance.reserved, balance.spent), (0, PRICE.cost(7, 20)), "not expired");
    world.check_balanced().await;
}

#[tokio::test]
async fn sigterm_waits_for_what_is_drained_no_longer_than_configured() {
    let config = json!({"listen": {"drain": "300ms"}});
    let mut world = World::with(Setting { config, ..setting(&["demo-slow"]) }).await;
    let purse = world.purse(Way::Key).await;
    let body = streamed("drain-estimate-demo-slow");
    leave_after_a_word(&world, &purse, CHAT, &body).await;
    world.gateway.sigterm();
    world.gateway.ended().await;
    world.gateway.restart().await;
    let balance = world.settled(&purse.key).await;
    assert!(balance.spent <= PRICE.estimate(length(body.to_string()), 1, length("Every")));
    assert_eq!(balance.available + balance.spent, PURSE_SATS * 1000);
    world.check_balanced().await;
}

#[tokio::test]
async fn cancel_hangs_up_at_once_and_charges_what_passed() {
    let world = World::with(setting(&["demo-slow"])).await;
    for (nth, missing) in (1..).zip(MISSING) {
        let purse = world.purse(Way::Key).await;
        let body = streamed(&format!("cancel-{missing}-demo-slow"));
        leave_after_a_word(&world, &purse, CHAT, &body).await;
        world.upstream_left(nth).await;
        let bytes = length(body.to_string());
        let cost = match missing {
            "estimate" => PRICE.estimate(bytes, 1, length("Every")),
            "floor" => PRICE.cost(0, 1),
            _ => PRICE.ceiling(bytes, MODEL_OUTPUT_TOKENS, 1),
        };
        assert_eq!(world.cost(&purse, None).await, cost, "{missing}");
        let source = if missing == "estimate" { "estimated" } else { missing };
        assert_eq!(receipt(&world, &purse).await["usage_source"], source);
        let produced = world.upstream.produced().pop().unwrap();
        assert_eq!((produced.ended, produced.output), (Ended::ClientGone, 1));
    }
    world.check_balanced().await;
}

#[tokio::test]
async fn nobody_is_asked_for_a_client_that_left_while_its_token_was_redeemed() {
    let world = World::with(setting(&["demo"])).await;
    let mut released = 0;
    for abort in ["cancel", "drain"] {
        for body in [chat as fn(&str) -> Value, streamed] {
            let purse = world.purse(Way::XCashu).await;
            let swaps = world.mint.swap_count();
            world.mint.hold_swaps(true);
            let raw = post(&world, &purse, CHAT, &body(&format!("{abort}-estimate-demo"))).await;
            within("the mint is asked", world.mint.await_swaps(swaps + 1)).await;
            raw.reset();
            world.mint.hold_swaps(false);
            released += 1;
            let ended = async {
                let is_released = |row: &ReservationRow| row.how.as_deref() == Some("released");
                while world.gateway.reservations().iter().filter(|row| is_released(row)).count()
                    < released
                {
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
            };
            within("what was reserved is released", ended).await;
            assert_eq!(world.cost(&purse, None).await, 0, "{abort}");
            assert_eq!(world.upstream.count(), 0, "{abort}");
        }
    }
    world.check_balanced().await;
}

#[tokio::test]
async fn missing_usage_is_charged_as_the_model_says_and_tells_how() {
    let world = World::with(setting(&["demo-no-usage"])).await;
    let text = length(world.ask_upstream(&streamed("demo")).await.events().content());
    for missing in MISSING {
        let source = if missing == "estimate" { "estimated" } else { missing };
        let series = format!("nutgate_usage_total{{source=\"{source}\"}}");
        let model = format!("cancel-{missing}-demo-no-usage");
        // A document is one event; a stream has twenty words, and says why it ended.
        for (body, events) in [(chat(&model), 1), (streamed(&model), 21)] {
            let before = value(&world, &series).await.unwrap_or(0);
            let bytes = length(body.to_string());
            let cost = match missing {
                "estimate" => PRICE.estimate(bytes, events, text),
                "floor" => PRICE.cost(0, events),
                _ => PRICE.ceiling(bytes, MODEL_OUTPUT_TOKENS, 1),
            };
            for way in Way::BOTH {
                let purse = world.purse(way).await;
                let answer = world.chat(purse.pay(), &body).await.expect(200);
                assert_eq!(world.cost(&purse, Some(&answer)).await, cost, "{way:?} {body}");
                let receipt = receipt(&world, &purse).await;
                assert_eq!(receipt["usage_source"], source);
                assert_eq!(receipt["cost_msats"], cost);
                let log = world.gateway.log();
                let id = format!("id={} ", answer.header("x-request-id").unwrap());
                let line = log.lines().find(|line| line.contains(&id)).expect("a line");
                assert!(line.contains(&format!("usage_source={source} ")), "{line}");
                assert!(line.contains(&format!("cost_msat={cost} ")), "{line}");
            }
            assert_eq!(value(&world, &series).await, Some(before + 2), "{series}");
        }
    }
    world.check_balanced().await;
}

#[tokio::test]
async fn a_message_that_breaks_after_its_start_costs_the_input_that_was_said_and_what_came() {
    let model = "demo-drops-mid-stream";
    let world = World::with(setting(&[model, "demo-slow"])).await;
    for missing in ["estimate", "floor"] {
        let purse = world.purse(Way::Key).await;
        let body = message(&format!("cancel-{missing}-{model}"));
        let mut raw = post(&world, &purse, MESSAGES, &body).await;
        assert_eq!(raw.head().await.status, 200);
        let came = raw.chunked().await;
        assert!(!came.complete);
        let events = Events::read(std::str::from_utf8(&came.bytes).unwrap()).json();
        let texts: Vec<&str> =
            events.iter().filter_map(|event| event["delta"]["text"].as_str()).collect();
        let words = u64::try_from(texts.len()).unwrap();
        assert!(words > 1 && words < 20, "{words}");
        let output = match missing {
            "estimate" => estimated_output(words, length(texts.concat())),
            _ => words,
        };
        assert_eq!(world.cost(&purse, None).await, PRICE.cost(7, output), "{missing}");
        let purse = world.purse(Way::Key).await;
        let body = message(&format!("cancel-{missing}-demo-slow"));
        leave_after_a_word(&world, &purse, MESSAGES, &body).await;
        let output = if missing == "estimate" { 2 } else { 1 };
        assert_eq!(world.cost(&purse, None).await, PRICE.cost(7, output), "{missing}, left");
    }
    world.check_balanced().await;
}

#[tokio::test]
async fn a_ceiling_is_what_a_rolling_reservation_has_come_to() {
    let no_usage = Misbehaviour::NoUsage.model();
    let config = json!({"reservation": {"slice_output_tokens": 4}});
    let setting = Setting { config, ..with_msat(setting(&[&no_usage])) };
    let world = World::with(setting).await;
    let body = streamed(&format!("cancel-ceiling-{no_usage}"));
    let bytes = length(body.to_string());
    let whole = PRICE.ceiling(bytes, MODEL_OUTPUT_TOKENS, 1);

    let key = world.key_of_msat(1_000_000).await;
    let events = world.chat(&key, &body).await.expect(200).events();
    assert_eq!(events.deliveries(), 20);
    let spent = world.settled(&key).await.spent;
    let row = world.gateway.reservations().pop().unwrap();
    assert_eq!((row.amount, row.shortfall, row.usage_source.as_str()), (spent, 0, "ceiling"));
    assert!(spent < whole, "slice by slice");
    assert!(spent >= PRICE.ceiling(bytes, estimated_output(20, length(events.content())), 1));

    let balance = PRICE.ceiling(bytes, 8, 1);
    let key = world.key_of_msat(balance).await;
    let events = world.chat(&key, &body).await.expect(200).events();
    assert!(events.deliveries() > 0, "as far as there is money");
    let left = world.settled(&key).await;
    assert_eq!((left.spent, left.available), (balance, 0));
    assert_eq!(world.gateway.reservations().pop().unwrap().shortfall, 0);
    world.check_balanced().await;
}
