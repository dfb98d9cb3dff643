//! HTTP/2 on the public listener: what is sold, refused and charged is the same as ever, and what
//! happens to one request is nothing to the others on its connection.

use bytes::Bytes;
use futures_util::future::join_all;
use http::header::{COOKIE, HeaderName};
use http::{HeaderMap, HeaderValue, Request};
use http_body_util::{BodyExt, Full};
use reqwest::Method;

use crate::live::comment;
use crate::support::{
    Answer, Events, Http2, Misbehaviour, PRICE, Pay, Purse, Setting, Site, Value, Way, Whole,
    World, asking, chat, json, length, model_of, prompt_tokens, streamed, with, within,
};

const PATH: &str = "/v1/chat/completions";

fn chatting(world: &World, purse: &Purse, body: &Value) -> Request<Full<Bytes>> {
    asking(world, Method::POST, PATH, purse.pay(), body.to_string())
}

fn live(world: &World, purse: &Purse, body: &Value) -> Request<Full<Bytes>> {
    let mut request = chatting(world, purse, body);
    let live = (HeaderName::from_static("x-cashu-stream"), HeaderValue::from_static("live"));
    request.headers_mut().extend([live]);
    request
}

/// What must be on every answer, and what HTTP/2 has no use for.
#[track_caller]
fn check_head(headers: &HeaderMap) {
    for absent in ["connection", "keep-alive", "transfer-encoding", "upgrade", "proxy-connection"] {
        assert!(!headers.contains_key(absent), "{absent}: {headers:?}");
    }
    for present in ["x-request-id", "x-routstr-request-id", "access-control-allow-origin"] {
        assert!(headers.contains_key(present), "{present}: {headers:?}");
    }
}

/// The same answer as over HTTP/1.1, for [`World::cost`].
fn answer(whole: &Whole) -> Answer {
    let headers: HeaderMap = whole.headers.clone();
    Answer { status: whole.status, headers, body: whole.body.clone() }
}

#[tokio::test]
async fn documents_and_streams_are_sold_in_every_way_on_one_connection() {
    let site = Site::new();
    let world = World::with(site.setting()).await;
    let http2 = site.http2(&world).await;
    for body in [chat("demo"), streamed("demo")] {
        for way in Way::ALL {
            let purse = world.purse(way).await;
            let whole = http2.ask(chatting(&world, &purse, &body)).await.expect(200);
            check_head(&whole.headers);
            let (by_http1, _) = world.buy(way, &body).await;
            assert_eq!(whole.events(), by_http1.events());
            let told = whole.header("content-length").map(|text| text.parse().unwrap());
            assert_eq!(told, by_http1.header("content-length").map(|_| whole.body.len()));
            assert_eq!(whole.trailers.len(), 0);
            let cost = world.cost(&purse, Some(&answer(&whole))).await;
            assert_eq!(cost, PRICE.cost(7, 20), "{way:?} {body}");
        }
    }
    world.check_balanced().await;
}

#[tokio::test]
async fn a_live_stream_has_its_change_as_a_comment_and_as_a_trailer() {
    let site = Site::new();
    let world = World::with(site.setting()).await;
    let http2 = site.http2(&world).await;
    let purse = world.purse(Way::XCashu).await;
    let whole = http2.ask(live(&world, &purse, &streamed("demo"))).await.expect(200);
    check_head(&whole.headers);
    assert_eq!(whole.header("trailer"), Some("x-cashu, x-cashu-refund"));
    let text = whole.text();
    let change = comment(&text).expect("the change");
    assert!(text.ends_with(&format!("data: [DONE]\n\n: x-cashu {change}\n\n")));
    assert_eq!(whole.trailer("x-cashu"), Some(change));
    assert_eq!(whole.trailer("x-cashu-refund"), Some(change));
    assert_eq!(world.claim(&purse.ecash).await.expect(200).json()["token"], change);
    assert_eq!(world.cost(&purse, None).await, PRICE.cost(7, 20));
}

#[tokio::test]
async fn refusals_are_the_same_and_the_connection_goes_on() {
    let site = Site::new();
    let config = json!({"limits": {"body_bytes_max": 5_000_000}});
    let mut setting = site.setting();
    setting.config.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
    let world = World::with(setting).await;
    let http2 = site.http2(&world).await;
    let poor = world.sats(1).await;
    let body = chat("demo").to_string();
    let ask = |method, path, pay: Pay<'_>, body: &str| {
        http2.ask(asking(&world, method, path, pay, body.to_owned()))
    };
    let refused = ask(Method::POST, PATH, Pay::XCashu(&poor), &body).await.expect(402);
    assert_eq!(refused.header("x-cashu"), Some(&*poor));
    let refused = ask(Method::POST, PATH, Pay::Nothing, &body).await.expect(401);
    assert!(refused.header("x-cashu").unwrap().starts_with("creqA"));
    let rich = world.sats(100).await;
    for bytes in [5_000_001, 8_000_000] {
        let long = "x".repeat(bytes);
        let refused = ask(Method::POST, PATH, Pay::XCashu(&rich), &long).await.expect(413);
        assert_eq!(refused.header("x-cashu"), Some(&*rich), "untouched");
        check_head(&refused.headers);
    }
    let padded = chat("no-such-model").to_string() + &" ".repeat(4_900_000);
    ask(Method::POST, PATH, Pay::XCashu(&rich), &padded).await.expect(404);
    let allowed = ask(Method::GET, PATH, Pay::Nothing, "").await.expect(405);
    assert_eq!(allowed.header("allow"), Some("POST"));
    let models = ask(Method::GET, "/v1/models", Pay::Nothing, "").await.expect(200);
    let head = ask(Method::HEAD, "/v1/models", Pay::Nothing, "").await.expect(200);
    assert_eq!(head.header("content-length"), models.header("content-length"));
    assert_eq!((head.body.len(), head.status), (0, 200));
    ask(Method::OPTIONS, PATH, Pay::Nothing, "").await.expect(204);
    assert_eq!(world.worth(&rich).await, 100);
    assert_eq!(world.upstream.count(), 0);
}

#[tokio::test]
async fn many_at_once_on_one_connection_are_each_charged_their_own() {
    let site = Site::new();
    let world = World::with(site.setting()).await;
    let http2 = site.http2(&world).await;
    let key = world.key(1000).await;
    let body = |nth: u64| {
        let body = if nth.is_multiple_of(2) { chat("demo") } else { streamed("demo") };
        with(body, json!({"max_tokens": nth % 20 + 1}))
    };
    let asked = (0..60).map(|nth| {
        let body = body(nth).to_string();
        http2.ask(asking(&world, Method::POST, PATH, (&key).into(), body))
    });
    for whole in join_all(asked).await {
        whole.expect(200);
    }
    let cost = (0..60).map(|nth| PRICE.cost(prompt_tokens(&body(nth)), nth % 20 + 1)).sum::<u64>();
    let balance = world.settled(&key).await;
    assert_eq!((balance.spent, balance.requests), (cost, 60));
    world.check_balanced().await;
}

/// Reads until the answer has said this.
async fn through(incoming: &mut hyper::body::Incoming, end: &str) -> String {
    let mut text = String::new();
    while !text.contains(end) {
        let frame = within("more", incoming.frame()).await.unwrap().unwrap();
        text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
    }
    text
}

#[tokio::test]
async fn whoever_resets_a_request_pays_for_what_it_got_and_hurts_no_other() {
    let site = Site::new();
    let upstream = Setting::gated().upstream;
    let world = World::with(Setting { upstream, ..site.setting() }).await;
    let http2 = site.http2(&world).await;
    let body = streamed(&model_of(Misbehaviour::Slow));
    let other = world.purse(Way::Key).await;
    let mut stays = http2.send(chatting(&world, &other, &body)).await.unwrap();
    through(stays.body_mut(), "\"Every\"").await;
    for (nth, way) in (1..).zip([Way::Key, Way::XCashu]) {
        let purse = world.purse(way).await;
        let mut leaves = http2.send(live(&world, &purse, &body)).await.unwrap();
        through(leaves.body_mut(), "\"Every\"").await;
        drop(leaves);
        world.upstream_left(nth).await;
        let expected = PRICE.estimate(length(body.to_string()), 1, 5);
        assert_eq!(world.cost(&purse, None).await, expected, "{way:?}");
    }
    world.upstream.open_gate();
    let whole = Whole::read(stays).await.expect(200);
    assert!(whole.events().is_done());
    assert_eq!(world.cost(&other, None).await, PRICE.cost(prompt_tokens(&body), 20));
}

#[tokio::test]
async fn a_connection_that_is_lost_is_every_client_of_it_leaving() {
    let site = Site::new();
    let upstream = Setting::gated().upstream;
    let world = World::with(Setting { upstream, ..site.setting() }).await;
    let http2 = site.http2(&world).await;
    let body = streamed(&model_of(Misbehaviour::Slow));
    let mut purses = Vec::new();
    let mut open = Vec::new();
    for way in [Way::Key, Way::XCashu, Way::XCashu] {
        let purse = world.purse(way).await;
        let mut answer = http2.send(live(&world, &purse, &body)).await.unwrap();
        through(answer.body_mut(), "\"Every\"").await;
        purses.push(purse);
        open.push(answer);
    }
    http2.cut();
    world.upstream_left(3).await;
    for purse in purses {
        let expected = PRICE.estimate(length(body.to_string()), 1, 5);
        assert_eq!(world.cost(&purse, None).await, expected);
    }
    world.check_balanced().await;
}

#[tokio::test]
async fn a_stream_that_breaks_off_says_so_and_is_reset() {
    let site = Site::new();
    let world = World::with(site.setting()).await;
    let http2 = site.http2(&world).await;
    let body = streamed(&model_of(Misbehaviour::DropsMidStream));
    for way in Way::BOTH {
        let purse = world.purse(way).await;
        let whole = http2.ask(live(&world, &purse, &body)).await;
        assert!(!whole.complete, "the end of the body says that it was whole");
        let text = whole.text();
        let mut events = Events::read(&text);
        let error: Value = serde_json::from_str(&events.0.pop().unwrap()).unwrap();
        assert_eq!(error["error"]["code"], "upstream_broke");
        assert_eq!(comment(&text).is_some(), way == Way::XCashu);
        let text = length(events.content());
        let expected = PRICE.estimate(length(body.to_string()), events.deliveries(), text);
        assert_eq!(world.cost(&purse, None).await, expected, "{way:?}");
    }
    let purse = world.purse(Way::Key).await;
    http2.ask(chatting(&world, &purse, &chat("demo"))).await.expect(200);
}

#[tokio::test]
async fn who_does_not_read_an_answer_holds_up_no_other() {
    let site = Site::new();
    let world = World::with(site.setting()).await;
    let http2 = site.http2(&world).await;
    let big = streamed(&model_of(Misbehaviour::Big));
    let purses = [world.purse(Way::Key).await, world.purse(Way::Key).await];
    let unread = http2.send(chatting(&world, &purses[0], &big)).await.unwrap();
    for _ in 0..10 {
        http2.ask(chatting(&world, &purses[1], &chat("demo"))).await.expect(200);
    }
    assert_eq!(world.cost(&purses[1], None).await, 10 * PRICE.cost(7, 20));
    let whole = Whole::read(unread).await.expect(200);
    assert_eq!(whole.text(), world.ask_upstream(&big).await.text());
}

#[tokio::test]
async fn a_connection_carries_100_requests_and_the_next_one_waits() {
    let site = Site::new();
    let upstream = Setting::gated().upstream;
    let world = World::with(Setting { upstream, ..site.setting() }).await;
    let http2 = site.http2(&world).await;
    let key = world.key(5000).await;
    let body = streamed(&model_of(Misbehaviour::Slow));
    let ask = || http2.ask(asking(&world, Method::POST, PATH, (&key).into(), body.to_string()));
    let asked = join_all((0..101).map(|_| ask()));
    let opened = async {
        world.asked(100).await;
        // On another connection there is room, and the upstream is asked next by that one.
        let other = site.http2(&world).await;
        let purse = world.purse(Way::Key).await;
        other.ask(chatting(&world, &purse, &chat("demo"))).await.expect(200);
        let seen = world.upstream.requests();
        assert_eq!(seen.len(), 101);
        assert_eq!(seen.last().unwrap().json()["model"], "demo");
        world.upstream.open_gate();
    };
    let (answers, ()) = tokio::join!(asked, opened);
    for whole in answers {
        assert!(whole.expect(200).events().is_done());
    }
    let cost = PRICE.cost(prompt_tokens(&body), 20);
    assert_eq!(world.settled(&key).await.spent, 101 * cost);
}

#[tokio::test]
async fn a_head_of_64_kib_is_read_and_a_longer_one_is_told_so() {
    let site = Site::new();
    let world = World::with(site.setting()).await;
    let http2 = site.http2(&world).await;
    let purse = world.purse(Way::XCashu).await;
    let with_cookies = |bytes: usize| {
        let mut request = chatting(&world, &purse, &chat("demo"));
        let half = "c".repeat(bytes / 2);
        request
            .headers_mut()
            .extend([(COOKIE, half.parse().unwrap()), (COOKIE, half.parse().unwrap())]);
        request
    };
    http2.ask(with_cookies(90 << 10)).await.expect(431);
    let spent = world.is_spent(&purse.ecash).await;
    assert!(!spent, "it was refused before anything was taken");
    http2.ask(with_cookies(62 << 10)).await.expect(200);
    assert_eq!(world.cost(&purse, None).await, PRICE.cost(7, 20));
}

#[tokio::test]
async fn requests_that_are_reset_at_once_cost_the_gateway_a_connection_and_nobody_money() {
    let site = Site::new();
    let world = World::with(site.setting()).await;
    let purse = world.purse(Way::Key).await;
    let http2 = site.http2(&world).await;
    for _ in 0..500 {
        let sent = http2.send(chatting(&world, &purse, &chat("demo")));
        // Polled once, so that it is on its way, and dropped.
        drop(tokio::time::timeout(std::time::Duration::ZERO, sent).await);
    }
    let other = site.http2(&world).await;
    let bought = world.purse(Way::XCashu).await;
    other.ask(chatting(&world, &bought, &chat("demo"))).await.expect(200);
    assert_eq!(world.cost(&bought, None).await, PRICE.cost(7, 20));
    // None, what was asked of an upstream for nobody, or all of it.
    let asked = PRICE.cost(length(chat("demo").to_string()).div_ceil(4), 0);
    let costs = [0, asked, PRICE.cost(7, 20)];
    let cost = world.cost(&purse, None).await;
    let receipts = world.receipts(&purse.key).await;
    let charged: Vec<u64> = receipts.iter().filter_map(|one| one["cost_msats"].as_u64()).collect();
    assert!(charged.iter().all(|cost| costs.contains(cost)), "{charged:?}");
    assert_eq!(cost, charged.iter().sum::<u64>());
    world.check_balanced().await;
}

#[tokio::test]
async fn sigterm_says_goodbye_and_lets_what_is_open_end() {
    let site = Site::new();
    let upstream = Setting::gated().upstream;
    let mut world = World::with(Setting { upstream, ..site.setting() }).await;
    let mut http2 = site.http2(&world).await;
    let idle = site.http2(&world).await;
    let purses = [world.purse(Way::Key).await, world.purse(Way::XCashu).await];
    let body = streamed(&model_of(Misbehaviour::Slow));
    let mut open = Vec::new();
    for purse in &purses {
        let mut answer = http2.send(live(&world, purse, &body)).await.unwrap();
        through(answer.body_mut(), "\"Every\"").await;
        open.push(answer);
    }
    world.gateway.sigterm();
    let refused = async { while http2.send(live(&world, &purses[0], &body)).await.is_ok() {} };
    within("a goodbye", refused).await;
    world.upstream.open_gate();
    for (answer, purse) in open.into_iter().zip(&purses) {
        let whole = Whole::read(answer).await.expect(200);
        assert!(whole.events().is_done());
        assert_eq!(whole.trailer("x-cashu").is_some(), purse.way == Way::XCashu);
    }
    http2.closed().await;
    drop(idle);
    assert!(world.gateway.ended().await.success());
}

#[tokio::test]
async fn in_plain_it_is_spoken_only_where_configuration_says_so() {
    let world = World::with(Setting::config(json!({"listen": {"h2c": true}}))).await;
    let stream = tokio::net::TcpStream::connect(world.gateway.address()).await.unwrap();
    let http2 = Http2::over(stream).await;
    for way in Way::BOTH {
        let purse = world.purse(way).await;
        let mut request = live(&world, &purse, &streamed("demo"));
        request
            .headers_mut()
            .extend([(HeaderName::from_static("te"), "trailers".parse().unwrap())]);
        let whole = http2.ask(request).await.expect(200);
        assert_eq!(whole.trailer("x-cashu").is_some(), way == Way::XCashu);
        assert_eq!(world.cost(&purse, None).await, PRICE.cost(7, 20), "{way:?}");
        // HTTP/1.1 goes on beside it.
        let (answer, cost) = world.buy(way, &streamed("demo")).await;
        answer.expect(200);
        assert_eq!(cost, PRICE.cost(7, 20));
    }
    let world = World::start().await;
    let stream = tokio::net::TcpStream::connect(world.gateway.address()).await.unwrap();
    let http2 = Http2::over(stream).await;
    let purse = world.purse(Way::Key).await;
    assert!(http2.send(chatting(&world, &purse, &chat("demo"))).await.is_err());
}
