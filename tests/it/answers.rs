//! The head of an answer, and the connection that it comes by.

use reqwest::Method;

use crate::support::{
    Answer, CurrencyUnit, Head, Key, Misbehaviour, PRICE, Pay, Raw, Setting, TokenFormat, Value,
    Way, World, chat, json, model_of, streamed, within,
};

const PATH: &str = "/v1/chat/completions";

async fn chat_with(world: &World, key: &Key, lines: &[(&str, &str)], body: &Value) -> Answer {
    let request = world.request(Method::POST, PATH, Pay::from(key)).body(body.to_string());
    let request =
        lines.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    Answer::read(request.send().await.unwrap()).await.unwrap()
}

#[tokio::test]
async fn a_request_id_is_kept_when_it_can_be_and_made_when_not_and_is_on_every_answer() {
    let mut world = World::start().await;
    let key = world.key(1000).await;
    let bodies = [chat("demo"), streamed("demo"), chat("unknown"), chat("demo-401"), json!([])];
    for body in bodies {
        let own = chat_with(&world, &key, &[("x-request-id", "my~id_1")], &body).await;
        assert_eq!(own.header("x-request-id"), Some("my~id_1"), "{body}");
        assert_eq!(own.header("x-routstr-request-id"), Some("my~id_1"), "{body}");
        let long = "x".repeat(129);
        for refused in ["", "with space", long.as_str(), "ünicode"] {
            let made = chat_with(&world, &key, &[("x-request-id", refused)], &body).await;
            check_made(&made);
        }
        check_made(&chat_with(&world, &key, &[], &body).await);
    }
    let seen = world.upstream.requests();
    assert_eq!(seen[0].header("x-request-id"), Some("my~id_1"), "and sent upstream");
    for path in ["/v1/models", "/v1/info", "/healthz", "/nowhere", "/v1/balance/info"] {
        check_made(&world.fetch(path, Pay::Nothing).await);
    }
    world.gateway.kill().await;
    let ids: Vec<String> =
        world.gateway.reservations().into_iter().map(|row| row.request_id).collect();
    assert!(ids.iter().any(|id| id == "my~id_1"), "in the receipt: {ids:?}");
}

#[track_caller]
fn check_made(answer: &Answer) {
    let id = answer.header("x-request-id").expect("an id");
    assert_eq!(answer.header("x-routstr-request-id"), Some(id));
    assert_eq!((id.len(), &id[14..15]), (36, "7"), "{id} is a UUIDv7");
}

#[tokio::test]
async fn neither_side_sees_a_credential_or_the_connection_of_the_other() {
    let world = World::start().await;
    let theirs: [(&str, &str); 14] = [
        ("cookie", "secret=cookie"),
        ("x-api-key", "secret-key"),
        ("api-key", "secret-key"),
        ("proxy-authorization", "Basic secret"),
        ("x-forwarded-for", "203.0.113.7"),
        ("x-real-ip", "203.0.113.7"),
        ("forwarded", "for=203.0.113.7"),
        ("openai-organization", "org-client"),
        ("idempotency-key", "once"),
        ("x-cashu-stream", "live"),
        ("connection", "x-mine, keep-alive"),
        ("x-mine", "secret hop"),
        ("te", "trailers"),
        ("accept-encoding", "gzip, br"),
    ];
    let kept = [("x-title", "nuts"), ("accept", "application/json"), ("x-stainless-os", "Linux")];
    for body in [chat("demo"), streamed("demo")] {
        // A key of its own, because the same idempotency key is for one request.
        let key = world.key(1000).await;
        let lines = [theirs.as_slice(), kept.as_slice()].concat();
        let answer = chat_with(&world, &key, &lines, &body).await.expect(200);
        let seen = world.upstream.requests().pop().unwrap();
        for (name, value) in theirs {
            assert_ne!(seen.header(name), Some(value), "{name} reached the upstream");
        }
        for (name, value) in kept {
            assert_eq!(seen.header(name), Some(value));
        }
        assert_eq!(seen.header("authorization"), Some("Bearer sk-sandbox-upstream"));
        assert_eq!(seen.header("host"), Some(world.upstream.url().trim_start_matches("http://")));
        assert_eq!(seen.header("content-length"), Some(seen.body.len().to_string().as_str()));
        let everything = format!("{:?}", seen.headers);
        assert!(!everything.contains(&key.0) && !everything.contains("203.0.113"), "{everything}");
        for account in ["openai-organization", "anthropic-organization-id", "set-cookie"] {
            assert_eq!(answer.header(account), None, "{account} reached the client");
        }
        for limit in ["x-ratelimit-remaining-requests", "ratelimit"] {
            let told: Vec<_> = answer.headers.get_all(limit).iter().collect();
            assert_eq!(told.len(), 1, "{limit}: {told:?}");
            assert!(!told[0].to_str().unwrap().contains("4999"), "{limit} is the upstream's");
        }
    }
    let (_, _) = world.buy(Way::XCashu, &chat("demo")).await;
    let seen = world.upstream.requests().pop().unwrap();
    assert!(!format!("{:?}", seen.headers).contains("cashu"));
}

#[tokio::test]
async fn any_web_page_may_call_and_read_its_change() {
    let world = World::start().await;
    let key = world.key(1000).await;
    for (path, pay, body) in [
        (PATH, Pay::from(&key), chat("demo")),
        (PATH, Pay::from(&key), streamed("demo")),
        (PATH, Pay::Nothing, chat("demo")),
        (PATH, Pay::from(&key), chat("demo-500")),
        ("/nowhere", Pay::Nothing, json!({})),
        ("/v1/balance/refund", Pay::from(&key), json!({"amount_sats": 1})),
    ] {
        let answer = world.post(path, pay, &body).await;
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "{path} {body}");
        assert_eq!(answer.header("access-control-allow-credentials"), None);
        let exposed = answer.header("access-control-expose-headers").unwrap().to_ascii_lowercase();
        for name in ["x-cashu", "x-request-id", "x-routstr-cost-msats", "retry-after"] {
            assert!(exposed.split(", ").any(|exposed| exposed == name), "{name} in {exposed}");
        }
    }
}

#[tokio::test]
async fn a_preflight_is_answered_without_credential_or_upstream() {
    let world = World::start().await;
    for path in [PATH, "/v1/balance/info", "/v1/models"] {
        let asked = "authorization,x-cashu,x-stainless-os";
        let request = world
            .request(Method::OPTIONS, path, Pay::Nothing)
            .header("origin", "https://shop.example")
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", asked);
        let answer = Answer::read(request.send().await.unwrap()).await.unwrap().expect(204);
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        let methods = answer.header("access-control-allow-methods");
        assert_eq!(methods, Some("GET, POST, PUT, DELETE, OPTIONS"));
        let headers = answer.header("access-control-allow-headers").unwrap().to_ascii_lowercase();
        for name in ["authorization", "content-type", "x-cashu", "x-stainless-os"] {
            assert!(headers.split(", ").any(|allowed| allowed == name), "{name} in {headers}");
        }
        assert_eq!(answer.header("access-control-max-age"), Some("86400"));
    }
    assert_eq!(world.upstream.count(), 0);
}

#[tokio::test]
async fn events_reach_the_client_as_they_happen() {
    let world = World::with(Setting::gated()).await;
    let key = world.key(1000).await;
    let body = streamed(&model_of(Misbehaviour::Slow));
    let mut raw = world.raw().await;
    raw.post(PATH, &Pay::from(&key).line(), &body.to_string()).await;
    let head = raw.head().await;
    assert_eq!(head.header("transfer-encoding"), Some("chunked"));
    raw.through("\"Every\"").await.expect("the first word, while the upstream waits");
    world.upstream.open_gate();
    raw.through("[DONE]").await.expect("and the rest when it goes on");
}

#[tokio::test]
async fn early_hints_of_an_upstream_are_not_an_answer() {
    let world = World::start().await;
    let key = world.key(1000).await;
    let mut raw = world.raw().await;
    let body = chat(&model_of(Misbehaviour::EarlyHints));
    raw.post(PATH, &Pay::from(&key).line(), &body.to_string()).await;
    assert_eq!(raw.head().await.status, 200, "no 103 comes first");
}

#[tokio::test]
async fn an_http_1_0_client_reads_until_the_connection_ends() {
    let world = World::start().await;
    let key = world.key(1000).await;
    for body in [chat("demo"), streamed("demo")] {
        let expected = world.ask_upstream(&body).await;
        let text = body.to_string();
        let mut raw = world.raw().await;
        let (line, length) = (Pay::from(&key).line(), text.len());
        let head = format!("POST {PATH} HTTP/1.0\r\n{line}content-length: {length}\r\n\r\n");
        raw.send(head + &text).await;
        let head = raw.head().await;
        assert_eq!(head.status, 200);
        assert_eq!(head.header("transfer-encoding"), None);
        let came = String::from_utf8(raw.rest().await).unwrap();
        match body.get("stream") {
            Some(_) => assert_eq!(came, expected.text()),
            None => {
                assert_eq!(head.header("content-length"), Some(came.len().to_string().as_str()));
            }
        }
    }
    assert_eq!(world.settled(&key).await.spent, 2 * PRICE.cost(7, 20));
}

#[tokio::test]
async fn head_says_what_get_would_and_has_no_body() {
    let world = World::start().await;
    let whole = world.fetch("/v1/models", Pay::Nothing).await.expect(200);
    let mut raw = world.raw().await;
    raw.send("HEAD /v1/models HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let head = raw.head().await;
    assert_eq!(head.status, 200);
    assert_eq!(head.header("content-length"), Some(whole.body.len().to_string().as_str()));
    raw.send("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(raw.head().await.status, 200, "the next bytes are the next head");
}

/// Asks on this connection and reads the answer to its end.
async fn ask(raw: &mut Raw, pay: Pay<'_>, body: &Value) -> Head {
    raw.post(PATH, &pay.line(), &body.to_string()).await;
    let head = raw.head().await;
    match head.header("content-length") {
        Some(_) => drop(raw.body(&head).await),
        None => assert!(raw.chunked().await.complete),
    }
    head
}

#[tokio::test]
async fn one_connection_serves_documents_streams_and_refusals() {
    let world = World::start().await;
    let key = world.key(1000).await;
    let ecash = world.sats(1000).await;
    let mut raw = world.raw().await;
    for round in 0..2 {
        for (pay, body, status) in [
            (Pay::from(&key), chat("demo"), 200),
            (Pay::from(&key), streamed("demo"), 200),
            (Pay::from(&key), chat("unknown"), 404),
            (Pay::from(&key), json!([]), 400),
            (Pay::from(&key), chat("demo-500"), 502),
            (Pay::from(&key), chat("demo-400"), 400),
            (Pay::XCashu(&ecash), streamed("demo"), if round == 0 { 200 } else { 400 }),
            (Pay::XCashu("cashuBjunk"), chat("demo"), 400),
        ] {
            let head = ask(&mut raw, pay, &body).await;
            assert_eq!(head.status, status, "{body}: {}", head.text);
        }
    }
    assert_eq!(world.settled(&key).await.spent, 4 * PRICE.cost(7, 20));
}

#[tokio::test]
async fn a_client_that_expects_to_be_told_to_go_on_is_told() {
    let world = World::start().await;
    let key = world.key(1000).await;
    let text = chat("demo").to_string();
    let mut raw = world.raw().await;
    let (line, length) = (Pay::from(&key).line(), text.len());
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: x\r\n{line}content-length: {length}\r\n\
         expect: 100-continue\r\n\r\n"
    );
    raw.send(head).await;
    assert_eq!(raw.head().await.status, 100);
    raw.send(&text).await;
    assert_eq!(raw.head().await.status, 200);
    let seen = world.upstream.requests().pop().unwrap();
    assert_eq!(seen.header("expect"), None);
    // A body that will not be taken is not asked for.
    let mut raw = world.raw().await;
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: x\r\n{line}content-length: 20000000\r\n\
         expect: 100-continue\r\n\r\n"
    );
    raw.send(head).await;
    assert_eq!(raw.head().await.status, 413);
}

#[tokio::test]
async fn bytes_behind_a_request_harm_neither_it_nor_the_balance() {
    let world = World::start().await;
    let key = world.key(1000).await;
    for body in [chat("demo"), streamed("demo")] {
        let before = world.settled(&key).await.requests;
        let mut raw = world.raw().await;
        let text = body.to_string();
        let (line, length) = (Pay::from(&key).line(), text.len());
        let one = format!(
            "POST {PATH} HTTP/1.1\r\nhost: x\r\n{line}content-length: {length}\r\n\r\n{text}"
        );
        raw.send(one.repeat(2)).await;
        let first = raw.head().await;
        assert_eq!(first.status, 200);
        match first.header("content-length") {
            Some(_) => drop(raw.body(&first).await),
            None => assert!(raw.chunked().await.complete),
        }
        // The second is answered as well, or not taken at all.
        let answered = match raw.try_head().await {
            Some(second) => u64::from(second.status == 200),
            None => 0,
        };
        drop(raw);
        let after = world.settled(&key).await;
        assert_eq!(after.requests - before, 1 + answered, "{body}");
        assert_eq!(after.spent, after.requests * PRICE.cost(7, 20));
    }
}

#[tokio::test]
async fn ecash_of_30_kb_in_a_head_is_accepted() {
    let world = World::start().await;
    let pieces = [16; 72];
    let ecash = world.faucet.cashu_in_pieces(&pieces, CurrencyUnit::Sat, TokenFormat::A);
    let ecash = ecash.await.unwrap();
    assert!((30_000..60_000).contains(&ecash.len()), "{} bytes", ecash.len());
    let answer = world.chat(Pay::XCashu(&ecash), &chat("demo")).await.expect(200);
    let change = answer.change().expect("change");
    assert!(change.len() < 4_000, "in the fewest proofs");
    assert_eq!(world.worth(change).await, 16 * 72 - 12);
}

#[tokio::test]
async fn both_formats_of_ecash_pay() {
    let world = World::start().await;
    for format in [TokenFormat::A, TokenFormat::B] {
        let ecash = world.faucet.cashu(100, CurrencyUnit::Sat, format).await.unwrap();
        let answer = world.chat(Pay::XCashu(&ecash), &chat("demo")).await.expect(200);
        let change = answer.change().expect("change");
        assert!(change.starts_with("cashuB"));
        assert_eq!(world.worth(change).await, 88);
    }
}

#[tokio::test]
async fn x_cashu_wins_over_authorization() {
    let world = World::start().await;
    let key = world.key(100).await;
    let ecash = world.sats(100).await;
    let answer = chat_with(&world, &key, &[("x-cashu", &ecash)], &chat("demo")).await.expect(200);
    assert_eq!(world.worth(answer.change().expect("change")).await, 88);
    assert_eq!(world.info(&key).await.available, 100_000);
}

#[tokio::test]
async fn the_alias_of_the_change_can_be_turned_off() {
    let world = World::with(Setting::config(json!({"headers": {"refund_alias": false}}))).await;
    let ecash = world.sats(100).await;
    let answer = world.chat(Pay::XCashu(&ecash), &chat("demo")).await.expect(200);
    assert!(answer.header("x-cashu").is_some());
    assert_eq!(answer.header("x-cashu-refund"), None);
}

#[tokio::test]
async fn told_to_stop_the_gateway_finishes_what_is_open_and_ends() {
    let mut world = World::with(Setting::gated()).await;
    let key = world.key(100).await;
    let ecash = world.sats(100).await;
    let slow = model_of(Misbehaviour::Slow);
    let mut stream = world.raw().await;
    stream.post(PATH, &Pay::from(&key).line(), &streamed(&slow).to_string()).await;
    assert_eq!(stream.head().await.status, 200);
    let mut held = world.raw().await;
    held.post(PATH, &Pay::XCashu(&ecash).line(), &chat(&slow).to_string()).await;
    world.asked(2).await;

    world.gateway.sigterm();
    let refused = async { while Raw::try_connect(world.gateway.address()).await.is_ok() {} };
    within("it stops listening", refused).await;
    world.upstream.open_gate();
    let came = stream.chunked().await;
    assert!(came.complete && String::from_utf8(came.bytes).unwrap().contains("[DONE]"));
    let head = held.head().await;
    assert_eq!(head.status, 200);
    let change = head.header("x-cashu").expect("change").to_owned();
    held.body(&head).await;
    assert!(world.gateway.ended().await.success());
    assert_eq!(world.worth(&change).await, 88);

    world.gateway.restart().await;
    let balance = world.info(&key).await;
    assert_eq!((balance.reserved, balance.spent), (0, PRICE.cost(7, 20)));
}

#[tokio::test]
async fn told_to_stop_while_nothing_is_open_the_gateway_ends_at_once() {
    let mut world = World::start().await;
    world.buy(Way::Key, &chat("demo")).await.0.expect(200);
    let told = tokio::time::Instant::now();
    world.gateway.sigterm();
    assert!(world.gateway.ended().await.success());
    let took = told.elapsed();
    assert!(took.as_secs() < 5, "{took:?} of a grace period of 20 s");
}
