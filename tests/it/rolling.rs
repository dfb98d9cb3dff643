//! Money set aside slice by slice: a stream that outlives it ends cleanly and is charged for what
//! was delivered, and no balance is ever below zero.

use rusqlite::{Connection, TransactionBehavior};
use tokio::task::JoinSet;

use crate::support::{
    Answer, Events, Key, LOOK_AGAIN, MODEL_OUTPUT_TOKENS, Misbehaviour, PRICE, Pay, Setting, Value,
    World, chat, json, length, model_of, prompt_tokens, streamed, with, within,
};

/// Whose streams reserve so many output tokens at a time.
async fn world(slice: u64) -> World {
    let config = json!({
        "reservation": {"slice_output_tokens": slice, "lifetime": "10s", "renew_every": "100ms"},
    });
    let gated = Setting::gated();
    World::with(Setting { config, upstream: gated.upstream, ..Setting::msat() }).await
}

fn long() -> Value {
    with(streamed(&model_of(Misbehaviour::Long)), json!({"max_tokens": MODEL_OUTPUT_TOKENS}))
}

/// What is reserved for this body and so much output.
fn reserve(body: &Value, output: u64) -> u64 {
    PRICE.ceiling(length(body.to_string()), output, 1)
}

/// The output that an estimate counts for these deliveries.
fn output(deliveries: u64, text: &str) -> u64 {
    deliveries.max(length(text).div_ceil(4))
}

/// As much of the upstream's own answer as this output pays for, in whole events.
async fn affordable(world: &World, body: &Value, covered: u64) -> (String, u64) {
    let events = world.ask_upstream(body).await.events().json();
    let (mut text, mut deliveries) = (String::new(), 0);
    for event in events {
        let piece = event["choices"][0]["delta"]["content"].as_str().unwrap_or_default();
        if output(deliveries + 1, &format!("{text}{piece}")) > covered {
            break;
        }
        if !piece.is_empty() {
            text.push_str(piece);
            deliveries += 1;
        }
    }
    (text, deliveries)
}

/// A last chunk like all others, the error event, `[DONE]`, and the usual end of the body.
#[track_caller]
fn check_cut(events: &Events, kind: &str, code: &str) {
    assert!(events.is_done(), "{events:?}");
    let json = events.json();
    let [first, .., last, error] = &json[..] else { panic!("{events:?}") };
    let ended = json!([{"index": 0, "delta": {}, "finish_reason": "length"}]);
    assert_eq!(last["choices"], ended);
    for same in ["id", "object", "created", "model"] {
        assert!(!last[same].is_null() && last[same] == first[same], "{same}: {last}");
    }
    assert_eq!((&error["error"]["type"], &error["error"]["code"]), (&json!(kind), &json!(code)));
    assert!(error["error"]["message"].is_string() && error["request_id"].is_string());
}

/// The stream was cut with this text, and costs what was delivered to the msat.
async fn check_charged(world: &World, key: &Key, balance: u64, body: &Value, events: &Events) {
    let delivered = output(events.deliveries(), &events.content());
    let cost = PRICE.cost(length(body.to_string()).div_ceil(4), delivered);
    let left = world.settled(key).await;
    assert_eq!((left.spent, left.available), (cost, balance - cost));
    let row = world.gateway.reservations().pop().unwrap();
    assert_eq!((row.spent, row.shortfall, row.usage_source.as_str()), (cost, 0, "estimated"));
    assert!(row.spent <= row.amount, "never above what was reserved");
}

#[tokio::test]
async fn money_for_so_many_slices_is_delivered_to_the_last_event_and_charged_to_the_msat() {
    let world = world(10).await;
    let body = long();
    for slices in [1, 2, 5, 9] {
        // One msat less than one slice more.
        let balance = reserve(&body, 10 * slices + 10) - 1;
        let key = world.key_of_msat(balance).await;
        let events = world.chat(&key, &body).await.expect(200).events();
        check_cut(&events, "insufficient_balance", "payment_required");
        assert_eq!(events.content(), affordable(&world, &body, 10 * slices).await.0);
        check_charged(&world, &key, balance, &body, &events).await;
        let row = world.gateway.reservations().pop().unwrap();
        assert_eq!(row.amount, reserve(&body, 10 * slices));
    }
    world.check_balanced().await;
}

#[tokio::test]
async fn an_upstream_is_hung_up_on_when_the_money_for_it_ends() {
    let world = world(3).await;
    let body = streamed(&model_of(Misbehaviour::HangsMidStream));
    let key = world.key_of_msat(reserve(&body, 6)).await;
    let events = world.chat(&key, &body).await.expect(200).events();
    check_cut(&events, "insufficient_balance", "payment_required");
    world.upstream_left(1).await;
}

#[tokio::test]
async fn the_cut_does_not_depend_on_how_the_bytes_came() {
    let world = world(3).await;
    for misbehaviour in [Misbehaviour::ByteByByte, Misbehaviour::ContentLength, Misbehaviour::Crlf]
    {
        let body = streamed(&model_of(misbehaviour));
        let balance = reserve(&body, 12);
        let key = world.key_of_msat(balance).await;
        let events = world.chat(&key, &body).await.expect(200).events();
        check_cut(&events, "insufficient_balance", "payment_required");
        assert_eq!(events.content(), affordable(&world, &body, 12).await.0, "{misbehaviour:?}");
        check_charged(&world, &key, balance, &body, &events).await;
    }
    world.check_balanced().await;
}

#[tokio::test]
async fn a_stream_that_can_be_paid_is_the_same_byte_for_byte() {
    let world = world(4).await;
    for body in [streamed("demo"), long(), streamed(&model_of(Misbehaviour::ByteByByte))] {
        let theirs = world.ask_upstream(&body).await;
        let key = world.key_of_msat(1_000_000).await;
        let answer = world.chat(&key, &body).await.expect(200);
        assert_eq!(answer.text(), theirs.text());
        let words = theirs.events().deliveries();
        let cost = PRICE.cost(prompt_tokens(&body), words);
        let balance = world.settled(&key).await;
        assert_eq!((balance.spent, balance.available), (cost, 1_000_000 - cost));
        let row = world.gateway.reservations().pop().unwrap();
        assert!(row.amount > reserve(&body, 4) && row.amount <= reserve(&body, 256));
        assert_eq!(row.usage_source, "upstream");
    }
    world.check_balanced().await;
}

#[tokio::test]
async fn the_next_slice_is_set_aside_while_the_stream_goes_on() {
    let world = world(4).await;
    let body = streamed(&model_of(Misbehaviour::Slow));
    let key = world.key_of_msat(100_000).await;
    let later = world.chat_later(&key, &body);
    world.asked(1).await;
    // The first word waits for nobody, and uses half of the first slice.
    let extended = async {
        while world.info(&key).await.reserved != reserve(&body, 8) {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    within("the next slice", extended).await;
    world.upstream.open_gate();
    assert!(later.answer().await.expect(200).events().is_done());
}

#[tokio::test]
async fn only_streams_paid_by_key_are_reserved_by_the_slice() {
    let world = world(4).await;
    let paid = world.sats(100).await;
    let key = world.key(100).await;
    for (pay, body) in [
        (Pay::XCashu(&paid), streamed("demo")),
        (Pay::from(&key), chat("demo")),
        (Pay::from(&key), with(streamed("demo"), json!({"max_tokens": 4}))),
    ] {
        world.chat(pay, &body).await.expect(200);
        world.settled(&key).await;
        let row = world.gateway.reservations().pop().unwrap();
        let limit = body.get("max_tokens").map_or(MODEL_OUTPUT_TOKENS, |max| max.as_u64().unwrap());
        assert_eq!(row.amount, reserve(&body, limit), "{body}");
    }
}

#[tokio::test]
async fn a_document_in_the_place_of_a_stream_is_paid_in_full_or_not_delivered() {
    let world = world(4).await;
    let body = streamed(&model_of(Misbehaviour::Unstreamed));
    let enough = reserve(&body, MODEL_OUTPUT_TOKENS);
    let key = world.key_of_msat(enough).await;
    let answer = world.chat(&key, &body).await.expect(200);
    assert_eq!(answer.json()["object"], "chat.completion");
    assert_eq!(world.settled(&key).await.spent, PRICE.cost(prompt_tokens(&body), 20));

    let key = world.key_of_msat(enough - 1).await;
    let refused = world.chat(&key, &body).await;
    refused.expect_error(402, "insufficient_balance", "payment_required");
    let balance = world.settled(&key).await;
    assert_eq!((balance.available, balance.spent), (enough - 1, 0));
    world.check_balanced().await;
}

#[tokio::test]
async fn streams_that_compete_for_one_balance_share_it_and_nothing_more() {
    let world = world(10).await;
    let body = long();
    // They want a thousand output tokens, and there is money for 140.
    let balance = 4 * reserve(&body, 10) + 100 * PRICE.output;
    let key = world.key_of_msat(balance).await;
    let mut asked: JoinSet<Answer> = JoinSet::new();
    for _ in 0..4 {
        let request = world.request(reqwest::Method::POST, "/v1/chat/completions", (&key).into());
        let request = request.body(body.to_string());
        asked.spawn(async move { Answer::read(request.send().await.unwrap()).await.unwrap() });
    }
    let mut cost = 0;
    let mut cuts = 0;
    for answer in asked.join_all().await {
        let events = answer.expect(200).events();
        // What was delivered whole reported its usage.
        let error = events.json().iter().any(|event| event.get("error").is_some());
        cost += if error {
            cuts += 1;
            check_cut(&events, "insufficient_balance", "payment_required");
            let delivered = output(events.deliveries(), &events.content());
            PRICE.cost(length(body.to_string()).div_ceil(4), delivered)
        } else {
            PRICE.cost(prompt_tokens(&body), MODEL_OUTPUT_TOKENS)
        };
    }
    assert!(cuts > 0, "there is money for less than all of them");
    let left = world.settled(&key).await;
    assert_eq!((left.spent, left.available), (cost, balance - cost));
    world.check_balanced().await;
}

#[tokio::test]
async fn a_ledger_that_does_not_answer_ends_a_stream_when_the_money_in_hand_is_used_up() {
    let world = world(4).await;
    let body = streamed(&model_of(Misbehaviour::Slow));
    let key = world.key_of_msat(100_000).await;
    world.upstream.open_gate();
    let (_, deliveries) = affordable(&world, &body, 4).await;
    world.upstream.close_gate();
    let later = world.chat_later(&key, &body);
    world.asked(2).await;
    let extended = async {
        while world.info(&key).await.reserved != reserve(&body, 8) {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    within("the next slice", extended).await;
    let mut database = Connection::open(world.gateway.data_dir().join("nutgate.db")).unwrap();
    let locked = database.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
    world.upstream.open_gate();
    let events = later.answer().await.expect(200).events();
    check_cut(&events, "service_unavailable", "ledger_unavailable");
    assert!(events.deliveries() > deliveries, "it goes on for as long as there is money");
    assert_eq!(events.content(), affordable(&world, &body, 8).await.0);
    drop(locked);
    check_charged(&world, &key, 100_000, &body, &events).await;
    world.check_balanced().await;
}
