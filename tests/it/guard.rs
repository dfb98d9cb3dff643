//! What strangers may do: so much and no more, counted by address, before anybody else is asked;
//! and nobody who pays is refused for what a stranger does.

use std::net::{IpAddr, Ipv4Addr};

use reqwest::{Client, Method};

use crate::support::{
    Answer, Fleet, Key, PATIENCE, PRICE, Pay, Setting, Value, World, chat, json, length, with,
};

const CHAT: &str = "/v1/chat/completions";
const LIMIT: usize = 3;

async fn world(guard: Value) -> World {
    World::with(Setting::config(json!({"guard": guard}))).await
}

/// A client at another address of this machine than everybody else's.
fn elsewhere() -> Client {
    let address = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
    Client::builder().no_proxy().timeout(PATIENCE).local_address(address).build().unwrap()
}

async fn ask_from(client: &Client, world: &World, path: &str, pay: Pay<'_>) -> Answer {
    let request = client.post(world.gateway.url() + path).body(chat("demo").to_string());
    let request = request.header("content-type", "application/json");
    let request = match pay.header() {
        Some((name, value)) => request.header(name, value),
        None => request,
    };
    Answer::read(request.send().await.unwrap()).await.unwrap()
}

/// A request of a client behind a proxy that says this of it.
async fn forwarded(world: &World, forwarded_for: &str) -> Answer {
    let request = world
        .request(Method::POST, CHAT, Pay::Nothing)
        .header("x-forwarded-for", forwarded_for)
        .body(chat("demo").to_string());
    Answer::read(request.send().await.unwrap()).await.unwrap()
}

#[track_caller]
fn turned_away(answer: Answer, code: &str) -> Answer {
    let answer = answer.expect_error(429, "rate_limit_exceeded", code);
    assert!((1..=60).contains(&answer.number("retry-after")));
    answer
}

/// A key that looks right and that nobody has.
fn unknown(nth: usize) -> Key {
    Key(format!("sk-{nth:032x}"))
}

async fn create(world: &World, ecash: &str) -> Answer {
    let asked = json!({"initial_balance_token": ecash});
    world.post("/v1/balance/create", Pay::Nothing, &asked).await
}

#[tokio::test]
async fn a_stranger_asks_as_often_as_the_limit_and_payers_are_served_all_the_while() {
    let world = world(json!({"unpaid_per_minute": LIMIT})).await;
    let key = world.key(100).await;
    for _ in 0..LIMIT {
        let told = world.chat(Pay::Nothing, &chat("demo")).await.expect(401);
        assert!(told.header("x-cashu").is_some());
    }
    for pay in [Pay::Nothing, Pay::Bearer("sk-short"), Pay::XCashu("not ecash")] {
        let refused = turned_away(world.chat(pay, &chat("demo")).await, "too_many_unpaid_requests");
        assert_eq!(refused.header("x-cashu"), None);
        let is_paid = matches!(pay, Pay::XCashu(_));
        assert_eq!(refused.header("x-should-retry"), is_paid.then_some("false"));
    }
    for path in ["/v1/balance/info", "/wallet/info"] {
        turned_away(world.fetch(path, Pay::Nothing).await, "too_many_unpaid_requests");
    }
    // Whoever pays, in whatever way, and whoever is somewhere else.
    world.chat(&key, &chat("demo")).await.expect(200);
    world.chat(Pay::XCashu(&world.sats(100).await), &chat("demo")).await.expect(200);
    world.chat(Pay::Bearer(&world.sats(100).await), &chat("demo")).await.expect(200);
    world.key(100).await;
    ask_from(&elsewhere(), &world, CHAT, Pay::Nothing).await.expect(401);
    // Documents are everybody's.
    for path in ["/v1/models", "/v1/info", "/healthz", "/nothing"] {
        assert_ne!(world.fetch(path, Pay::Nothing).await.status, 429, "{path}");
    }
    assert_eq!(world.upstream.count(), 3);
    let metrics = format!("http://{}/metrics", world.gateway.admin_address());
    let metrics = world.client.get(metrics).send().await.unwrap().text().await.unwrap();
    let counted = r#"nutgate_refusals_total{code="too_many_unpaid_requests"} 5"#;
    assert!(metrics.contains(counted), "{metrics}");
}

#[tokio::test]
async fn of_strangers_at_the_same_time_exactly_the_limit_is_answered() {
    let world = world(json!({"unpaid_per_minute": 20})).await;
    let answers = (0..60).map(|_| world.fetch("/v1/balance/info", Pay::Nothing));
    let answers = futures_util::future::join_all(answers).await;
    let count = |status| answers.iter().filter(|answer| answer.status == status).count();
    assert_eq!((count(401), count(429)), (20, 40));
}

#[tokio::test]
async fn a_trusted_proxy_tells_who_the_client_is_and_nobody_else_does() {
    let limits = |proxies: Value| json!({"unpaid_per_minute": 1, "trusted_proxies": proxies});
    let behind = world(limits(json!(["127.0.0.1", "10.0.0.0/8"]))).await;
    forwarded(&behind, "203.0.113.1").await.expect(401);
    turned_away(forwarded(&behind, "203.0.113.1").await, "too_many_unpaid_requests");
    // What the client itself wrote, another proxy of ours, a port, and IPv4 written as IPv6.
    for same in ["198.51.100.9, 203.0.113.1", "203.0.113.1, 10.1.2.3", "203.0.113.1:4711"] {
        turned_away(forwarded(&behind, same).await, "too_many_unpaid_requests");
    }
    turned_away(forwarded(&behind, "::ffff:203.0.113.1").await, "too_many_unpaid_requests");
    for other in ["203.0.113.2", "203.0.113.1, 203.0.113.3", "2001:db8::1"] {
        forwarded(&behind, other).await.expect(401);
    }
    turned_away(forwarded(&behind, "2001:db8::2").await, "too_many_unpaid_requests");

    let open = world(limits(json!([]))).await;
    forwarded(&open, "203.0.113.1").await.expect(401);
    turned_away(forwarded(&open, "203.0.113.2").await, "too_many_unpaid_requests");
}

#[tokio::test]
async fn unknown_keys_are_guessed_at_a_bounded_rate_and_cost_the_ledger_nothing_beyond() {
    let config = json!({"guard": {"unknown_keys_per_minute": LIMIT}});
    let fleet = Some(Fleet::of(1));
    let world = World::with(Setting { config, fleet, ..Setting::default() }).await;
    let (good, paid) = (world.key(100).await, world.sats(100).await);
    for nth in 0..LIMIT {
        let refused = match nth % 2 {
            0 => world.chat(&unknown(nth), &chat("demo")).await,
            _ => world.fetch("/v1/balance/info", Pay::from(&unknown(nth))).await,
        };
        refused.expect_error(401, "authentication_failed", "invalid_api_key");
    }
    let asked = world.scripts_run().await;
    for nth in LIMIT..LIMIT + 20 {
        let key = unknown(nth);
        turned_away(world.chat(&key, &chat("demo")).await, "too_many_unknown_keys");
        for path in ["/v1/balance/info", "/v1/wallet/history"] {
            turned_away(world.fetch(path, Pay::from(&key)).await, "too_many_unknown_keys");
        }
        turned_away(world.refund(&key).await, "too_many_unknown_keys");
        let id = format!("/lightning/invoice/{nth:064x}/status");
        turned_away(world.fetch(&id, Pay::Nothing).await, "too_many_unknown_keys");
    }
    assert_eq!(world.scripts_run().await, asked, "the ledger was not asked");
    // A key that was served here, and ecash, which is no key.
    world.chat(&good, &chat("demo")).await.expect(200);
    world.info(&good).await;
    world.chat(Pay::XCashu(&paid), &chat("demo")).await.expect(200);
    assert_eq!(world.claim(&paid).await.status, 200);
    ask_from(&elsewhere(), &world, CHAT, Pay::from(&unknown(99))).await.expect(401);
    world.check_balanced().await;
}

#[tokio::test]
async fn worthless_ecash_is_looked_at_up_to_the_limit_and_good_ecash_is_never_taken_beyond() {
    let world = world(json!({"failed_redemptions_per_minute": LIMIT})).await;
    let (good, other) = (world.key(100).await, world.key(100).await);
    let spent = world.sats(10).await;
    world.key_of(&spent).await;
    let ecash = world.sats(100).await;
    world.chat(Pay::XCashu("cashuAnonsense"), &chat("demo")).await.expect(400);
    create(&world, "cashuBnonsense").await.expect(400);
    world.chat(Pay::Bearer("cashuAnonsense"), &chat("demo")).await.expect(400);
    let swaps = world.mint.swap_count();
    let code = "too_many_failed_redemptions";
    let refused = turned_away(world.chat(Pay::XCashu(&ecash), &chat("demo")).await, code);
    assert_eq!(refused.change(), Some(&*ecash), "the untouched token is echoed");
    assert_eq!(refused.header("x-should-retry"), Some("false"));
    turned_away(world.chat(Pay::Bearer(&ecash), &chat("demo")).await, code);
    turned_away(create(&world, &ecash).await, code);
    let claim = turned_away(world.refund(Pay::XCashu(&ecash)).await, code);
    assert_eq!(claim.header("x-cashu"), None, "a receipt is no change");
    assert_eq!(world.mint.swap_count(), swaps);
    assert!(!world.is_spent(&ecash).await);
    // A key that was served here is served, and is answered for what it does itself.
    let topup = json!({"cashu_token": "cashuAnonsense"});
    for _ in 0..LIMIT {
        world.post("/v1/balance/topup", Pay::from(&good), &topup).await.expect(400);
    }
    turned_away(world.post("/v1/balance/topup", Pay::from(&good), &topup).await, code);
    world.chat(&good, &chat("demo")).await.expect(200);
    let topup = json!({"cashu_token": ecash});
    let topped = world.post("/v1/balance/topup", Pay::from(&other), &topup).await.expect(200);
    assert_eq!(topped.json()["msats"], 100_000);
    let paid = world.sats(100).await;
    ask_from(&elsewhere(), &world, CHAT, Pay::XCashu(&paid)).await.expect(200);
    world.check_balanced().await;
}

#[tokio::test]
async fn accounts_and_invoices_are_opened_up_to_the_limit() {
    let world = world(json!({"openings_per_minute": LIMIT})).await;
    let invoice = json!({"amount_sats": 10, "purpose": "create"});
    let ask = async |pay: Pay<'_>| world.post("/lightning/invoice", pay, &invoice).await;
    let (first, second) = (world.sats(10).await, world.sats(10).await);
    create(&world, &first).await.expect(200);
    ask(Pay::Nothing).await.expect(200);
    ask(Pay::Bearer(&unknown(0).0)).await.expect(200);
    turned_away(ask(Pay::Nothing).await, "too_many_openings");
    turned_away(create(&world, &second).await, "too_many_openings");
    assert!(!world.is_spent(&second).await);
    // Its own key counts for it.
    ask(Pay::from(&Key::of(&first))).await.expect(200);
    let paid = world.chat(Pay::XCashu(&second), &chat("demo")).await;
    assert!(matches!(paid.status, 200 | 402), "{}", paid.text());
}

#[tokio::test]
async fn whoever_is_refused_is_refused_before_its_body_comes() {
    let world = world(json!({"unpaid_per_minute": 1})).await;
    world.chat(Pay::Nothing, &chat("demo")).await.expect(401);
    for expect in ["expect: 100-continue\r\n", ""] {
        let mut raw = world.raw().await;
        raw.send(format!(
            "POST {CHAT} HTTP/1.1\r\nhost: a\r\ncontent-length: 5000000\r\n{expect}\r\n"
        ))
        .await;
        let head = raw.head().await;
        assert_eq!((head.status, head.header("connection")), (429, Some("close")));
    }
    // Nor is that of a key that nobody has, whatever the limit.
    let mut raw = world.raw().await;
    let line = Pay::from(&unknown(0)).line();
    raw.send(format!("POST {CHAT} HTTP/1.1\r\nhost: a\r\ncontent-length: 5000000\r\n{line}\r\n"))
        .await;
    let head = raw.head().await;
    assert_eq!((head.status, head.header("connection")), (401, Some("close")));
    // Without a body there is nothing to wait for.
    let mut raw = world.raw().await;
    for _ in 0..2 {
        raw.send("GET /v1/balance/info HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let head = raw.head().await;
        assert_eq!(head.status, 429);
        raw.body(&head).await;
    }
}

#[tokio::test]
async fn a_strangers_body_is_read_up_to_the_limit_to_tell_what_it_takes() {
    let body = with(chat("demo"), json!({"max_tokens": 500}));
    let bytes = length(body.to_string());
    let world = world(json!({"unpaid_body_bytes_max": bytes})).await;
    let told = world.chat(Pay::Nothing, &body).await.expect(401);
    assert!(told.header("x-cashu").unwrap().starts_with("creqA"));
    let longer = with(chat("demo"), json!({"max_tokens": 5000}));
    let told = world.chat(Pay::Nothing, &longer).await;
    let told = told.expect_error(401, "authentication_failed", "missing_api_key");
    assert_eq!(told.header("x-cashu"), None);
    // Whoever pays may send more.
    let sats = PRICE.ceiling(length(longer.to_string()), 5000, 1).div_ceil(1000);
    let ecash = world.sats(sats).await;
    world.chat(Pay::XCashu(&ecash), &longer).await.expect(200);
}
