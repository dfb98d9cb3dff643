//! Every way in which a request can end, paid by key and by `X-Cashu`: right to the msat.

use nutgate_sandbox::{Upstream, UpstreamOptions};

use crate::support::{
    Answer, Events, MODEL_OUTPUT_TOKENS, Misbehaviour, PRICE, PURSE_SATS, Pay, Purse, Raw, Setting,
    Value, Way, World, chat, json, length, model, model_of, streamed, upstream, with,
};

const PATH: &str = "/v1/chat/completions";

/// What is owed for the events that reached the client before the stream broke.
fn estimate(body: &Value, delivered: &Events) -> u64 {
    let text = length(delivered.content());
    PRICE.estimate(length(body.to_string()), delivered.deliveries(), text)
}

/// Buys in both ways and asserts that the answer is this error, and that it cost nothing.
async fn check_repaid(world: &World, body: &Value, status: u16, kind: &str, code: &str) -> Answer {
    let mut last = None;
    for way in Way::BOTH {
        let (answer, cost) = world.buy(way, body).await;
        assert_eq!(cost, 0, "{way:?} {body}");
        let answer = answer.expect_error(status, kind, code);
        check_secrets(&answer);
        let retries = (way == Way::XCashu).then_some("false");
        assert_eq!(answer.header("x-should-retry"), retries, "{way:?}");
        assert_eq!(answer.change().is_some(), way == Way::XCashu);
        last = Some(answer);
    }
    last.unwrap()
}

/// Nothing of our account at the upstream, and nothing of where it is.
#[track_caller]
fn check_secrets(answer: &Answer) {
    let whole = format!("{:?}{}", answer.headers, answer.text());
    for secret in ["sk-sandbox", "org-sandbox", "127.0.0.1", "session=sandbox"] {
        assert!(!whole.contains(secret), "{secret} in {whole}");
    }
}

#[tokio::test]
async fn what_the_upstream_says_of_us_is_502_and_costs_nothing() {
    use Misbehaviour::*;
    let world = World::start().await;
    for (misbehaviour, code) in [
        (Status401, "upstream_refused"),
        (Status402, "upstream_refused"),
        (Status500, "upstream_failed"),
        (Redirect, "upstream_failed"),
        (Html, "upstream_unreadable"),
        (Refuses, "upstream_broke"),
    ] {
        for body in [chat(&model_of(misbehaviour)), streamed(&model_of(misbehaviour))] {
            check_repaid(&world, &body, 502, "upstream_error", code).await;
        }
    }
}

#[tokio::test]
async fn an_upstreams_429_says_when_to_come_back_and_costs_nothing() {
    let world = World::start().await;
    for body in [chat("demo-429"), streamed("demo-429")] {
        let code = "upstream_rate_limited";
        let answer = check_repaid(&world, &body, 429, "rate_limit_exceeded", code).await;
        assert_eq!(answer.header("retry-after"), Some("7"));
    }
}

#[tokio::test]
async fn the_clients_own_mistake_passes_through_with_its_body_and_costs_nothing() {
    let world = World::start().await;
    for body in [chat("demo-400"), streamed("demo-400")] {
        let theirs = world.ask_upstream(&body).await;
        for way in Way::BOTH {
            let (answer, cost) = world.buy(way, &body).await;
            assert_eq!(cost, 0, "{way:?}");
            let answer = answer.expect(400);
            assert_eq!(answer.text(), theirs.text());
            check_secrets(&answer);
            let retries = (way == Way::XCashu).then_some("false");
            assert_eq!(answer.header("x-should-retry"), retries);
        }
    }
}

#[tokio::test]
async fn a_document_that_is_cut_or_no_json_is_502_and_costs_nothing() {
    let world = World::start().await;
    let invalid = chat(&model_of(Misbehaviour::InvalidJson));
    check_repaid(&world, &invalid, 502, "upstream_error", "upstream_unreadable").await;
    let cut = chat(&model_of(Misbehaviour::DropsMidStream));
    check_repaid(&world, &cut, 502, "upstream_error", "upstream_broke").await;
}

#[tokio::test]
async fn an_upstream_that_cannot_be_reached_is_502_and_costs_nothing() {
    let mut world = World::start().await;
    world.upstream.stop().await;
    for body in [chat("demo"), streamed("demo")] {
        check_repaid(&world, &body, 502, "upstream_error", "upstream_unreachable").await;
    }
    world.upstream.start_again().await.unwrap();
    let (answer, _) = world.buy(Way::Key, &chat("demo")).await;
    answer.expect(200);
}

#[tokio::test]
async fn an_upstream_that_hangs_is_502_in_time_and_costs_nothing() {
    let world = World::with(Setting::impatient(200)).await;
    let hangs = model_of(Misbehaviour::Hangs);
    for body in [chat(&hangs), streamed(&hangs)] {
        check_repaid(&world, &body, 502, "upstream_error", "upstream_timeout").await;
    }
    let half = chat(&model_of(Misbehaviour::HangsMidStream));
    check_repaid(&world, &half, 502, "upstream_error", "upstream_timeout").await;
    world.upstream_left(6).await;
}

#[tokio::test]
async fn the_total_timeout_ends_an_answer_that_never_pauses() {
    let timeouts = json!({"total": "100ms"});
    let world = World::with(Setting { timeouts, ..Setting::default() }).await;
    // Its first byte comes after 200 ms.
    let body = chat(&model_of(Misbehaviour::Slow));
    check_repaid(&world, &body, 502, "upstream_error", "upstream_timeout").await;
}

/// A stream that breaks by itself: the client, if it was flowing, sees that, and pays for what
/// it got; if it was held, gets everything back.
async fn check_broken_stream(world: &World, body: &Value, code: &str) {
    let purse = world.purse(Way::Key).await;
    let mut raw = world.raw().await;
    raw.post(PATH, &purse.pay().line(), &body.to_string()).await;
    assert_eq!(raw.head().await.status, 200);
    let came = raw.chunked().await;
    assert!(!came.complete, "the end of the body says that it was whole");
    let mut events = Events::read(std::str::from_utf8(&came.bytes).unwrap());
    let error: Value = serde_json::from_str(&events.0.pop().unwrap()).unwrap();
    assert_eq!(error["error"]["type"], "upstream_error");
    assert_eq!(error["error"]["code"], code);
    assert_eq!(events.deliveries(), 11, "half of the events");
    assert_eq!(world.cost(&purse, None).await, estimate(body, &events));

    let (answer, cost) = world.buy(Way::XCashu, body).await;
    answer.expect_error(502, "upstream_error", code);
    assert_eq!(cost, 0);
}

#[tokio::test]
async fn a_stream_that_the_upstream_drops_breaks_for_the_client_too() {
    let world = World::start().await;
    let body = streamed(&model_of(Misbehaviour::DropsMidStream));
    check_broken_stream(&world, &body, "upstream_broke").await;
    let client = world.try_chat(&world.key(100).await, &body).await;
    assert!(client.is_err(), "an HTTP client reports it");
}

#[tokio::test]
async fn a_stream_that_hangs_half_way_breaks_in_time() {
    let world = World::with(Setting::impatient(200)).await;
    let body = streamed(&model_of(Misbehaviour::HangsMidStream));
    check_broken_stream(&world, &body, "upstream_timeout").await;
}

#[tokio::test]
async fn an_error_event_reaches_the_client_and_what_came_before_it_is_charged() {
    let world = World::start().await;
    let body = streamed(&model_of(Misbehaviour::ErrorEvent));
    let theirs = world.ask_upstream(&body).await;
    for way in Way::BOTH {
        let (answer, cost) = world.buy(way, &body).await;
        let answer = answer.expect(200);
        assert_eq!(answer.text(), theirs.text(), "{way:?}");
        assert!(answer.events().deliveries() > 0);
        assert_eq!(cost, estimate(&body, &answer.events()), "{way:?}");
    }
}

#[tokio::test]
async fn an_error_instead_of_an_answer_costs_nothing() {
    let world = World::start().await;
    let body = chat(&model_of(Misbehaviour::ErrorEvent));
    let theirs = world.ask_upstream(&body).await;
    for way in Way::BOTH {
        let (answer, cost) = world.buy(way, &body).await;
        assert_eq!(answer.expect(200).text(), theirs.text());
        assert_eq!(cost, 0, "{way:?}");
    }
}

#[tokio::test]
async fn a_stream_of_nonsense_passes_and_costs_what_can_be_made_out_in_it() {
    let world = World::start().await;
    let body = streamed(&model_of(Misbehaviour::InvalidJson));
    // An event that cannot be read cannot be known to be the one that only we asked for.
    let asked = with(body.clone(), json!({"stream_options": {"include_usage": true}}));
    let theirs = world.ask_upstream(&asked).await;
    let text = length(world.ask_upstream(&streamed("demo")).await.events().content());
    for way in Way::BOTH {
        let (answer, cost) = world.buy(way, &body).await;
        assert_eq!(answer.expect(200).text(), theirs.text(), "{way:?}");
        assert_eq!(cost, PRICE.estimate(length(body.to_string()), 20, text), "{way:?}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_mid_stream_pays_for_what_it_got_and_the_upstream_is_dropped() {
    let world = World::with(Setting::gated()).await;
    let body = streamed(&model_of(Misbehaviour::Slow));
    for (round, leave) in (1..).zip([Raw::reset as fn(Raw), drop]) {
        let purse = world.purse(Way::Key).await;
        let mut raw = world.raw().await;
        raw.post(PATH, &purse.pay().line(), &body.to_string()).await;
        assert_eq!(raw.head().await.status, 200);
        let first = raw.through("\"Every\"").await.unwrap();
        assert!(first.contains("assistant"));
        leave(raw);
        world.upstream_left(round).await;
        let expected = PRICE.estimate(length(body.to_string()), 1, 5);
        assert_eq!(world.cost(&purse, None).await, expected);
    }
}

/// A client that sends this and leaves when the upstream has its request.
async fn ask_and_leave(world: &World, purse: &Purse, body: &Value) {
    let (asked, gone) = (world.upstream.count() + 1, world.upstream.client_gone() + 1);
    let mut raw = world.raw().await;
    raw.post(PATH, &purse.pay().line(), &body.to_string()).await;
    world.asked(asked).await;
    raw.reset();
    world.upstream_left(gone).await;
}

#[tokio::test]
async fn a_client_that_leaves_before_anything_came_pays_for_what_the_upstream_was_asked() {
    let world = World::start().await;
    let hangs = model_of(Misbehaviour::Hangs);
    for body in [chat(&hangs), streamed(&hangs)] {
        for way in Way::ALL {
            let purse = world.purse(way).await;
            ask_and_leave(&world, &purse, &body).await;
            let asked = PRICE.cost(length(body.to_string()).div_ceil(4), 0);
            assert_eq!(world.cost(&purse, None).await, asked, "{way:?} {body}");
        }
    }
}

#[tokio::test]
async fn a_client_that_leaves_while_its_answer_is_held_pays_for_what_was_asked_and_no_more() {
    let world = World::start().await;
    let half = model_of(Misbehaviour::HangsMidStream);
    for (way, body) in
        [(Way::Key, chat(&half)), (Way::XCashu, chat(&half)), (Way::XCashu, streamed(&half))]
    {
        let purse = world.purse(way).await;
        ask_and_leave(&world, &purse, &body).await;
        let asked = PRICE.cost(length(body.to_string()).div_ceil(4), 0);
        assert_eq!(world.cost(&purse, None).await, asked, "{way:?} {body}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_an_answer_too_long_to_be_held_gets_its_change() {
    let setting = Setting::config(json!({"limits": {"held_bytes_max": 10_000}}));
    let world = World::with(setting).await;
    let body = streamed(&model_of(Misbehaviour::Big));
    let purse = world.purse(Way::XCashu).await;
    let mut raw = world.raw().await;
    raw.post(PATH, &purse.pay().line(), &body.to_string()).await;
    let head = raw.head().await;
    assert_eq!((head.status, head.header("x-cashu")), (200, None));
    raw.exactly(10_000).await;
    raw.reset();
    // How much of it had left by then is up to the sockets, but more than was asked for.
    let most = PRICE.cost(length(body.to_string()).div_ceil(4), MODEL_OUTPUT_TOKENS);
    assert_eq!(world.cost(&purse, None).await, most);
}

#[tokio::test]
async fn a_client_that_leaves_while_it_sends_is_not_asked_to_pay() {
    let world = World::start().await;
    let ecash = world.sats(PURSE_SATS).await;
    let mut raw = world.raw().await;
    let line = Pay::XCashu(&ecash).line();
    raw.send(format!("POST {PATH} HTTP/1.1\r\nhost: x\r\n{line}content-length: 100\r\n\r\n{{"))
        .await;
    raw.reset();
    // An answer to somebody else says that the gateway has gone on.
    world.buy(Way::Key, &chat("demo")).await.0.expect(200);
    assert!(!world.is_spent(&ecash).await);
    assert_eq!(world.upstream.count(), 1);
}

#[tokio::test]
async fn the_next_upstream_serves_when_the_first_cannot_be_reached() {
    let mut down = Upstream::start(UpstreamOptions::default()).await.unwrap();
    let more_upstreams = vec![upstream("down", &down, "sk-down")];
    let more_models = vec![model("pair", &["down", "sandbox"])];
    let world = World::with(Setting { more_upstreams, more_models, ..Setting::default() }).await;
    down.stop().await;
    for body in [chat("pair"), streamed("pair")] {
        for way in Way::BOTH {
            let (answer, cost) = world.buy(way, &body).await;
            answer.expect(200);
            assert_eq!(cost, PRICE.cost(7, 20), "{way:?}: charged once");
        }
    }
    assert_eq!((down.count(), world.upstream.count()), (0, 4));
}

#[tokio::test]
async fn a_refusal_of_ours_is_not_repeated_at_the_next_upstream_but_a_429_is() {
    let second = Upstream::start(UpstreamOptions::default()).await.unwrap();
    let more_upstreams = vec![upstream("second", &second, "sk-sandbox-upstream")];
    let ids = ["pair-400", "pair-401", "pair-500", "pair-429"];
    let more_models = ids.iter().map(|id| model(id, &["sandbox", "second"])).collect();
    let world = World::with(Setting { more_upstreams, more_models, ..Setting::default() }).await;
    for (id, status, asked) in
        [("pair-400", 400, 0), ("pair-401", 502, 0), ("pair-500", 502, 0), ("pair-429", 429, 1)]
    {
        let (answer, cost) = world.buy(Way::XCashu, &chat(id)).await;
        assert_eq!((answer.status, cost), (status, 0), "{id}");
        assert_eq!(second.count(), asked, "{id}");
    }
}

#[tokio::test]
async fn a_pooled_connection_that_died_is_replaced() {
    let mut world = World::start().await;
    let body = chat("demo");
    world.buy(Way::Key, &body).await.0.expect(200);
    world.upstream.stop().await;
    world.upstream.start_again().await.unwrap();
    for way in Way::ALL {
        let (answer, cost) = world.buy(way, &body).await;
        answer.expect(200);
        assert_eq!(cost, PRICE.cost(7, 20));
    }
}

#[tokio::test]
async fn the_change_of_an_msat_payment_is_exact() {
    use crate::support::{CurrencyUnit, TokenFormat};
    let world = World::with(Setting::msat()).await;
    let ecash = world.faucet.cashu(50_000, CurrencyUnit::Msat, TokenFormat::B).await.unwrap();
    let body = with(streamed("demo"), json!({"max_tokens": 3}));
    let answer = world.chat(Pay::XCashu(&ecash), &body).await.expect(200);
    let change = answer.change().expect("change").to_owned();
    assert_eq!(world.worth(&change).await, 50_000 - PRICE.cost(7, 3));
}
