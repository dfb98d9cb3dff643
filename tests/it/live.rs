//! Live streams paid by `X-Cashu`: every event as it comes, the change after the last one, and not
//! a msat lost however the stream ends.

use nix::sys::signal::Signal;
use nutgate::crash::Step;
use reqwest::Method;
use rusqlite::{Connection, TransactionBehavior};
use std::os::unix::process::ExitStatusExt;

use crate::support::{
    Answer, Events, Fleet, Key, Kind, Misbehaviour, PRICE, PURSE_SATS, Pay, Purse, Setting, Sold,
    Value, Way, World, chat, json, length, model_of, prompt_tokens, streamed, with,
};

const PATH: &str = "/v1/chat/completions";
const LIVE: &str = "x-cashu-stream: live\r\n";
const TRAILERS: &str = "te: trailers\r\n";

/// The change in the comments of a stream; there is one at most.
#[track_caller]
pub(crate) fn comment(text: &str) -> Option<&str> {
    let mut told = text.split('\n').filter_map(|line| line.strip_prefix(": x-cashu "));
    let change = told.next();
    assert_eq!(told.next(), None, "{text}");
    change
}

/// A purse for one request, paid by `X-Cashu`.
async fn purse(world: &World) -> Purse {
    world.purse(Way::XCashu).await
}

/// The whole answer to a live stream.
async fn live(world: &World, pay: Pay<'_>, body: &Value) -> Answer {
    let request = world.request(Method::POST, PATH, pay).header("x-cashu-stream", "Live");
    Answer::read(request.body(body.to_string()).send().await.unwrap()).await.unwrap()
}

/// What it cost. The change that a client was told, if it was, is what a claim answers with.
async fn cost(world: &World, purse: &Purse, told: Option<&str>) -> u64 {
    let cost = world.cost(purse, None).await;
    if let Some(told) = told {
        let claimed = world.claim(&purse.ecash).await.expect(200);
        assert_eq!(claimed.json()["token"], told, "a claim repeats the change");
    }
    cost
}

/// What is owed for what was delivered of a stream that did not tell its usage.
fn estimate(body: &Value, events: &Events) -> u64 {
    PRICE.estimate(length(body.to_string()), events.deliveries(), length(events.content()))
}

#[tokio::test]
async fn events_come_at_once_and_the_change_after_the_last_one() {
    let world = World::with(Setting::gated()).await;
    let body = streamed(&model_of(Misbehaviour::Slow));
    let purse = purse(&world).await;
    let mut raw = world.raw().await;
    raw.post(PATH, &(purse.pay().line() + LIVE), &body.to_string()).await;
    let head = raw.head().await;
    assert_eq!((head.status, head.header("x-cashu"), head.header("trailer")), (200, None, None));
    // The rest waits at the gate of the upstream.
    raw.through("\"Every\"").await.unwrap();
    world.upstream.open_gate();
    let end = raw.through("0\r\n\r\n").await.unwrap();
    let last = end.split_once("data: [DONE]\n\n").expect("the last event").1;
    let change = comment(last).expect("the change");
    assert!(last.contains(&format!("\r\n: x-cashu {change}\n\n\r\n")), "{last}");
    assert_eq!(cost(&world, &purse, Some(change)).await, PRICE.cost(prompt_tokens(&body), 20));
}

#[tokio::test]
async fn the_events_are_those_that_a_key_pays_for_byte_for_byte() {
    let world = World::start().await;
    for misbehaviour in [Misbehaviour::ByteByByte, Misbehaviour::Crlf, Misbehaviour::NoDone] {
        let body = streamed(&model_of(misbehaviour));
        let (by_key, due) = world.buy(Way::Key, &body).await;
        let purse = purse(&world).await;
        let answer = live(&world, purse.pay(), &body).await.expect(200);
        let text = answer.text();
        let change = comment(&text).expect("the change");
        assert_eq!(text, by_key.text() + &format!(": x-cashu {change}\n\n"), "{misbehaviour:?}");
        assert_eq!(answer.events(), by_key.events());
        assert_eq!(cost(&world, &purse, Some(change)).await, due);
    }
    world.check_balanced().await;
}

#[tokio::test]
async fn every_route_that_streams_events_streams_them_live() {
    let world = World::start().await;
    for sold in [Sold::Chat, Sold::Completions, Sold::Responses, Sold::Messages] {
        let ask = Kind { sold, streamed: true }.ask("demo");
        let (_, due) = world.buy_ask(Way::Key, &ask).await;
        let purse = purse(&world).await;
        let request = world.asking(&ask.path(), purse.pay(), &ask).header("x-cashu-stream", "live");
        let answer = Answer::read(request.send().await.unwrap()).await.unwrap().expect(200);
        let text = answer.text();
        assert_eq!(cost(&world, &purse, comment(&text)).await, due, "{sold:?}");
        assert!(comment(&text).is_some(), "{sold:?}: {text}");
    }
}

#[tokio::test]
async fn whoever_takes_trailers_has_the_change_there_too_and_the_connection_goes_on() {
    let world = World::start().await;
    let body = streamed("demo");
    let mut raw = world.raw().await;
    for lines in [TRAILERS.to_owned(), format!("te: gzip, Trailers\r\n{LIVE}")] {
        let purse = purse(&world).await;
        raw.post(PATH, &(purse.pay().line() + &lines), &body.to_string()).await;
        let head = raw.head().await;
        assert_eq!(head.header("trailer"), Some("x-cashu, x-cashu-refund"));
        assert_eq!(head.header("transfer-encoding"), Some("chunked"));
        let answer = raw.chunked().await;
        assert!(answer.complete);
        let text = String::from_utf8(answer.bytes).unwrap();
        let change = comment(&text).expect("the change");
        let trailers = format!("x-cashu: {change}\r\nx-cashu-refund: {change}\r\n");
        assert_eq!(answer.trailers, trailers);
        assert_eq!(cost(&world, &purse, Some(change)).await, PRICE.cost(7, 20));
        // Answers of every framing follow on the same connection, without what was before them.
        for (body, pay) in [(chat("demo"), Way::Key), (streamed("demo"), Way::Key)] {
            let purse = world.purse(pay).await;
            raw.post(PATH, &purse.pay().line(), &body.to_string()).await;
            let head = raw.head().await;
            assert_eq!(head.status, 200);
            match head.header("content-length") {
                Some(_) => assert!(raw.body(&head).await.starts_with(b"{")),
                None => {
                    let answer = raw.chunked().await;
                    assert_eq!((answer.complete, &*answer.trailers), (true, ""));
                }
            }
        }
    }
}

#[tokio::test]
async fn without_the_alias_the_trailer_stands_alone() {
    let config = json!({"headers": {"refund_alias": false}});
    let world = World::with(Setting::config(config)).await;
    let purse = purse(&world).await;
    let mut raw = world.raw().await;
    raw.post(PATH, &(purse.pay().line() + TRAILERS), &streamed("demo").to_string()).await;
    assert_eq!(raw.head().await.header("trailer"), Some("x-cashu"));
    let answer = raw.chunked().await;
    let text = String::from_utf8(answer.bytes).unwrap();
    let change = comment(&text).expect("the change");
    assert_eq!(answer.trailers, format!("x-cashu: {change}\r\n"));
}

#[tokio::test]
async fn an_http_1_0_client_has_the_change_in_the_comment() {
    let world = World::start().await;
    let purse = purse(&world).await;
    let body = streamed("demo").to_string();
    let lines = format!("{}{LIVE}{TRAILERS}", purse.pay().line());
    let mut raw = world.raw().await;
    raw.send(format!(
        "POST {PATH} HTTP/1.0\r\nhost: x\r\ncontent-length: {}\r\n{lines}\r\n{body}",
        body.len()
    ))
    .await;
    let head = raw.head().await;
    assert_eq!((head.header("trailer"), head.header("transfer-encoding")), (None, None));
    let text = String::from_utf8(raw.rest().await).unwrap();
    let change = comment(&text).expect("the change");
    assert!(text.ends_with(&format!("data: [DONE]\n\n: x-cashu {change}\n\n")));
    assert_eq!(cost(&world, &purse, Some(change)).await, PRICE.cost(7, 20));
}

#[tokio::test]
async fn a_stream_is_held_unless_it_is_asked_for_live() {
    let world = World::start().await;
    let held = format!("{TRAILERS}x-cashu-stream: held\r\n");
    for (lines, body) in [
        ("", streamed("demo")),
        (&held, streamed("demo")),
        // Documents have their change in the head, whatever was asked for.
        (LIVE, chat("demo")),
        (LIVE, streamed(&model_of(Misbehaviour::Unstreamed))),
    ] {
        let purse = purse(&world).await;
        let mut raw = world.raw().await;
        raw.post(PATH, &(purse.pay().line() + lines), &body.to_string()).await;
        let head = raw.head().await;
        let change = head.header("x-cashu").expect("change in the head");
        assert_eq!(head.header("trailer"), None);
        let text = String::from_utf8(raw.body(&head).await).unwrap();
        assert_eq!(comment(&text), None);
        cost(&world, &purse, Some(change)).await;
    }
}

#[tokio::test]
async fn by_key_nothing_of_it_is_heard() {
    let world = World::start().await;
    let key = world.key(100).await;
    let mut raw = world.raw().await;
    let lines = format!("{}{LIVE}{TRAILERS}", Pay::from(&key).line());
    raw.post(PATH, &lines, &streamed("demo").to_string()).await;
    assert_eq!(raw.head().await.header("trailer"), None);
    let answer = raw.chunked().await;
    assert_eq!((answer.complete, &*answer.trailers), (true, ""));
    assert_eq!(comment(std::str::from_utf8(&answer.bytes).unwrap()), None);
}

#[tokio::test]
async fn nothing_of_it_reaches_the_upstream() {
    let world = World::start().await;
    let purse = purse(&world).await;
    let mut raw = world.raw().await;
    let lines = format!("{}{LIVE}{TRAILERS}connection: te\r\n", purse.pay().line());
    raw.post(PATH, &lines, &streamed("demo").to_string()).await;
    raw.head().await;
    assert!(raw.chunked().await.complete);
    let seen = world.upstream.requests().pop().unwrap();
    for name in ["te", "x-cashu-stream", "x-cashu"] {
        assert_eq!(seen.header(name), None, "{name}");
    }
}

#[tokio::test]
async fn a_stream_that_breaks_off_says_so_and_gives_its_change_before_it_does() {
    let world = World::start().await;
    for lines in [LIVE, TRAILERS] {
        let body = streamed(&model_of(Misbehaviour::DropsMidStream));
        let purse = purse(&world).await;
        let mut raw = world.raw().await;
        raw.post(PATH, &(purse.pay().line() + lines), &body.to_string()).await;
        assert_eq!(raw.head().await.status, 200);
        let came = raw.chunked().await;
        assert!(!came.complete, "the end of the body says that it was whole");
        let text = String::from_utf8(came.bytes).unwrap();
        let mut events = Events::read(&text);
        let error: Value = serde_json::from_str(&events.0.pop().unwrap()).unwrap();
        assert_eq!(error["error"]["code"], "upstream_broke");
        let change = comment(&text).expect("the change");
        assert_eq!(cost(&world, &purse, Some(change)).await, estimate(&body, &events));
    }
    world.check_balanced().await;
}

#[tokio::test]
async fn an_error_event_of_the_upstream_is_followed_by_the_change() {
    let world = World::start().await;
    let body = streamed(&model_of(Misbehaviour::ErrorEvent));
    let purse = purse(&world).await;
    let answer = live(&world, purse.pay(), &body).await.expect(200);
    let text = answer.text();
    let change = comment(&text).expect("the change");
    assert_eq!(cost(&world, &purse, Some(change)).await, estimate(&body, &answer.events()));
}

#[tokio::test]
async fn a_refusal_gives_everything_back_in_its_head() {
    let world = World::start().await;
    for (model, status) in [("demo-400", 400), ("demo-500", 502), ("no-such-model", 404)] {
        let purse = purse(&world).await;
        let answer = live(&world, purse.pay(), &streamed(model)).await.expect(status);
        let change = answer.change().expect("change or the token itself").to_owned();
        assert_eq!(world.worth(&change).await, PURSE_SATS, "{model}");
    }
}

#[tokio::test]
async fn whoever_leaves_pays_for_what_it_got_and_claims_the_rest() {
    let world = World::with(Setting::gated()).await;
    let body = streamed(&model_of(Misbehaviour::Slow));
    let purse = purse(&world).await;
    let mut raw = world.raw().await;
    raw.post(PATH, &(purse.pay().line() + LIVE), &body.to_string()).await;
    raw.through("\"Every\"").await.unwrap();
    raw.reset();
    world.upstream_left(1).await;
    let expected = PRICE.estimate(length(body.to_string()), 1, 5);
    assert_eq!(cost(&world, &purse, None).await, expected);
    world.check_balanced().await;
}

#[tokio::test]
async fn of_two_streams_by_one_token_the_last_one_gives_the_change_of_both() {
    let world = World::with(Setting::gated()).await;
    let purse = purse(&world).await;
    let slow = streamed(&model_of(Misbehaviour::Slow));
    let request = world.request(Method::POST, PATH, purse.pay()).header("x-cashu-stream", "live");
    let mut open = request.body(slow.to_string()).send().await.unwrap();
    let mut text = String::new();
    while !text.contains("\"Every\"") {
        text.push_str(std::str::from_utf8(&open.chunk().await.unwrap().unwrap()).unwrap());
    }
    let quick = live(&world, purse.pay(), &streamed("demo")).await.expect(200);
    assert_eq!(comment(&quick.text()), None, "another request of it is open");
    assert!(quick.events().is_done());
    world.upstream.open_gate();
    text.push_str(&open.text().await.unwrap());
    let change = comment(&text).expect("the change");
    let both = PRICE.cost(prompt_tokens(&slow), 20) + PRICE.cost(7, 20);
    assert_eq!(cost(&world, &purse, Some(change)).await, both);
}

#[tokio::test]
async fn money_that_is_set_aside_by_the_slice_ends_cleanly_with_its_change() {
    let config = json!({"reservation": {"slice_output_tokens": 10}});
    let world = World::with(Setting { config, ..Setting::msat() }).await;
    let body = with(streamed(&model_of(Misbehaviour::Long)), json!({"max_tokens": 256}));
    let reserve = |output| PRICE.ceiling(length(body.to_string()), output, 1);
    for slices in [1, 4] {
        // One msat less than one slice more.
        let balance = reserve(10 * slices + 10) - 1;
        let units = crate::support::CurrencyUnit::Msat;
        let format = crate::support::TokenFormat::B;
        let paid = world.faucet.cashu(balance, units, format).await.unwrap();
        let answer = live(&world, Pay::XCashu(&paid), &body).await.expect(200);
        let (text, events) = (answer.text(), answer.events());
        assert!(events.is_done(), "{text}");
        let error = events.json().pop().unwrap();
        assert_eq!(error["error"]["code"], "payment_required");
        let change = comment(&text).expect("the change");
        assert!(text.ends_with(&format!("data: [DONE]\n\n: x-cashu {change}\n\n")));
        let left = world.settled(&Key::of(&paid)).await;
        assert_eq!(left.spent, estimate(&body, &events));
        assert_eq!(world.worth(change).await + left.available + left.spent, balance);
        assert_eq!(left.available, 0, "msat are exact");
        let row = world.gateway.reservations().pop().unwrap();
        assert_eq!((row.amount, row.shortfall), (reserve(10 * slices), 0));
    }
    world.check_balanced().await;
}

#[tokio::test]
async fn change_that_is_late_is_claimed_and_the_stream_ends_without_it() {
    let world = World::with(Setting::gated()).await;
    let body = streamed(&model_of(Misbehaviour::Slow));
    let purse = purse(&world).await;
    let mut raw = world.raw().await;
    raw.post(PATH, &(purse.pay().line() + TRAILERS), &body.to_string()).await;
    assert!(raw.head().await.header("trailer").is_some());
    raw.through("\"Every\"").await.unwrap();
    let mut database = Connection::open(world.gateway.data_dir().join("nutgate.db")).unwrap();
    let locked = database.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
    world.upstream.open_gate();
    // The last event does not wait for anybody.
    raw.through("data: [DONE]\n\n\r\n").await.unwrap();
    let end = raw.chunked().await;
    assert!(end.complete && end.bytes.is_empty() && end.trailers.is_empty(), "{end:?}");
    drop(locked);
    let whole = PRICE.cost(prompt_tokens(&body), 20);
    let cost = cost(&world, &purse, None).await;
    assert!(cost <= whole, "at most what was delivered");
    world.check_balanced().await;
}

#[tokio::test]
async fn any_gateway_of_a_fleet_streams_live_and_any_other_repeats_the_change() {
    let world = World::with(Setting { fleet: Some(Fleet::of(2)), ..Setting::default() }).await;
    let purse = purse(&world).await;
    let (here, there) = (world.gateway_of(0), world.gateway_of(1));
    let request = world.request_to(here, Method::POST, PATH, purse.pay());
    let request = request.header("x-cashu-stream", "live").body(streamed("demo").to_string());
    let answer = Answer::read(request.send().await.unwrap()).await.unwrap().expect(200);
    let text = answer.text();
    let change = comment(&text).expect("the change");
    let claim = world.request_to(there, Method::POST, "/v1/balance/refund", purse.pay());
    let claimed = Answer::read(claim.body("{}").send().await.unwrap()).await.unwrap();
    assert_eq!(claimed.expect(200).json()["token"], change);
    assert_eq!(cost(&world, &purse, Some(change)).await, PRICE.cost(7, 20));
}

#[tokio::test]
async fn a_crash_at_any_step_of_a_live_stream_costs_nobody_anything() {
    let mut world = World::start().await;
    let body = streamed("demo");
    let settled = Step::ALL.iter().position(|step| *step == Step::Settled).unwrap();
    for (nth, step) in Step::ALL.into_iter().enumerate() {
        let purse = purse(&world).await;
        world.gateway.set_env("NUTGATE_CRASH_AT", &step.name());
        world.gateway.restart().await;
        let request =
            world.request(Method::POST, PATH, purse.pay()).header("x-cashu-stream", "live");
        let told = match request.body(body.to_string()).send().await {
            Ok(mut response) => {
                let mut text = Vec::new();
                while let Ok(Some(chunk)) = response.chunk().await {
                    text.extend_from_slice(&chunk);
                }
                comment(std::str::from_utf8(&text).unwrap()).map(str::to_owned)
            }
            Err(_) => None,
        };
        let status = world.gateway.ended().await;
        assert_eq!(status.signal(), Some(Signal::SIGKILL as i32), "at {step:?}: {status}");
        assert_eq!(told.is_some(), step == Step::Delivered, "{step:?}");
        world.gateway.clear_env("NUTGATE_CRASH_AT");
        world.gateway.restart().await;
        if step == Step::RedeemRecorded {
            let claim = world.claim(&purse.ecash).await;
            claim.expect_error(404, "not_found", "refund_not_found");
            assert_eq!(world.worth(&purse.ecash).await, PURSE_SATS, "the token is untouched");
            continue;
        }
        let due = if nth < settled { 0 } else { PRICE.cost(7, 20) };
        assert_eq!(cost(&world, &purse, told.as_deref()).await, due, "{step:?}");
        world.check_balanced().await;
    }
}
