//! What is asked for, refused and reserved, before anything is sold.

use nutgate_sandbox::{Faucet, Mint, MintOptions};
use reqwest::Method;
use tokio::net::TcpListener;

use crate::support::{
    Answer, CurrencyUnit, Key, MODEL_OUTPUT_TOKENS, Misbehaviour, PRICE, Pay, Setting, TokenFormat,
    Value, World, chat, json, length, model, model_of, streamed, with,
};

const PATH: &str = "/v1/chat/completions";

/// What is reserved while the upstream works on this body.
async fn reserved(world: &World, key: &Key, body: &Value) -> u64 {
    world.upstream.close_gate();
    let asked = world.upstream.count() + 1;
    let look = async {
        world.asked(asked).await;
        let reserved = world.info(key).await.reserved;
        world.upstream.open_gate();
        reserved
    };
    let (answer, reserved) = tokio::join!(world.chat(key, body), look);
    answer.expect(200);
    reserved
}

#[tokio::test]
async fn every_spelling_of_the_output_limit_and_n_is_in_the_reservation() {
    let world = World::with(Setting::gated()).await;
    let key = world.key(10_000).await;
    let slow = chat(&model_of(Misbehaviour::Slow));
    for (limits, output, n) in [
        (json!({}), MODEL_OUTPUT_TOKENS, 1),
        (json!({"max_tokens": 5}), 5, 1),
        (json!({"max_completion_tokens": 6}), 6, 1),
        (json!({"max_output_tokens": 7}), 7, 1),
        (json!({"max_tokens": 9, "max_completion_tokens": 8, "max_output_tokens": 7}), 9, 1),
        (json!({"max_tokens": 7, "max_completion_tokens": 8, "max_output_tokens": 9}), 9, 1),
        (json!({"max_tokens": null}), MODEL_OUTPUT_TOKENS, 1),
        (json!({"max_tokens": 100_000}), 100_000, 1),
        (json!({"n": 3}), MODEL_OUTPUT_TOKENS, 3),
        (json!({"n": 2, "max_tokens": 5}), 5, 2),
    ] {
        for body in
            [with(slow.clone(), limits.clone()), with(slow.clone(), json!({"stream": true}))]
        {
            let (output, n) =
                if body.get("stream").is_some() { (MODEL_OUTPUT_TOKENS, 1) } else { (output, n) };
            let ceiling = PRICE.ceiling(length(body.to_string()), output, n);
            assert_eq!(reserved(&world, &key, &body).await, ceiling, "{body}");
        }
    }
}

#[tokio::test]
async fn a_limit_that_not_every_server_knows_reaches_the_upstream_under_a_name_that_all_know() {
    let world = World::start().await;
    let key = world.key(1_000).await;
    for field in ["max_output_tokens", "max_new_tokens", "n_predict"] {
        let body = with(chat("demo"), json!({ field: 3 }));
        world.chat(&key, &body).await.expect(200);
        let seen = world.upstream.requests().pop().unwrap().json();
        assert_eq!((&seen["max_tokens"], &seen[field]), (&json!(3), &json!(3)), "{seen}");
    }
}

#[tokio::test]
async fn a_head_that_an_upstream_may_choke_on_is_refused_and_costs_nothing() {
    let world = World::start().await;
    let key = world.key(100).await;
    // The length of a name, its value and what else is sent, to the bound and beyond.
    for (bytes, status) in [(15_000, 200), (16_385, 400)] {
        let path = "/v1/chat/completions";
        let request = world.request(Method::POST, path, Pay::from(&key));
        let request = request.header("x-long", "x".repeat(bytes)).body(chat("demo").to_string());
        assert_eq!(request.send().await.unwrap().status(), status, "{bytes}");
    }
    assert_eq!(world.upstream.count(), 1, "nothing was forwarded");
}

#[tokio::test]
async fn each_of_many_inputs_may_fill_the_context_and_is_reserved_for() {
    let narrow = with(model("demo-narrow", &["sandbox"]), json!({"context_length": 100}));
    let world = World::with(Setting { more_models: vec![narrow], ..Setting::default() }).await;
    let key = world.key(100).await;
    let body = json!({"model": "demo-narrow", "input": vec!["word ".repeat(100); 2_000]});
    let answer = world.post("/v1/embeddings", Pay::from(&key), &body).await;
    let details = answer.expect(402).json()["error"]["details"].clone();
    let inputs = PRICE.ceiling(2_000 * 100, 0, 1);
    assert_eq!(details, json!({"required": inputs, "available": 100_000}));
    assert_eq!(world.upstream.count(), 0, "nothing was forwarded");
}

#[tokio::test]
async fn whoever_would_choose_a_dearer_way_to_be_served_is_refused_and_costs_nothing() {
    let world = World::start().await;
    let key = world.key(100).await;
    let body = with(chat("demo"), json!({"provider": {"sort": "throughput"}}));
    let answer =
        world.chat(&key, &body).await.expect_error(400, "invalid_request", "invalid_value");
    assert_eq!(answer.json()["error"]["details"]["param"], "provider");
    let asked = world
        .client
        .post(world.gateway.url() + "/v1/chat/completions")
        .bearer_auth(&key.0)
        .header("anthropic-beta", "tools-1, Context-1m-2025-08-07")
        .json(&chat("demo"));
    assert_eq!(asked.send().await.unwrap().status(), 400);
    assert_eq!(world.upstream.count(), 0, "nothing was forwarded");
    assert_eq!(world.info(&key).await.available, 100_000);
}

#[tokio::test]
async fn every_byte_of_the_body_is_in_the_reservation() {
    let world = World::with(Setting::gated()).await;
    let key = world.key(10_000).await;
    let body = with(chat(&model_of(Misbehaviour::Slow)), json!({"metadata": "x".repeat(50_000)}));
    let ceiling = PRICE.ceiling(length(body.to_string()), MODEL_OUTPUT_TOKENS, 1);
    assert!(ceiling > 100_000);
    assert_eq!(reserved(&world, &key, &body).await, ceiling);
}

#[tokio::test]
async fn a_limit_that_is_no_positive_integer_is_refused_by_name_and_costs_nothing() {
    let world = World::start().await;
    let purse = world.sats(100).await;
    let key = world.key(100).await;
    for field in ["max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict", "n"] {
        for value in [json!(-1), json!("5"), json!(1.5), json!(0), json!([5]), json!(true)] {
            let body = with(chat("demo"), json!({ field: value }));
            for pay in [Pay::from(&key), Pay::XCashu(&purse)] {
                let answer = world.chat(pay, &body).await;
                let answer = answer.expect_error(400, "invalid_request", "invalid_value");
                assert_eq!(answer.json()["error"]["details"]["param"], field, "{body}");
                check_echo(&answer, pay);
            }
        }
    }
    check_untouched(&world, &key, &purse).await;
}

/// A request that is refused before anything was redeemed gives the ecash back as it was, and
/// tells SDKs not to send more.
#[track_caller]
fn check_echo(answer: &Answer, pay: Pay<'_>) {
    match pay {
        Pay::XCashu(ecash) => {
            assert_eq!(answer.change(), Some(ecash), "the token is echoed");
            assert_eq!(answer.header("x-should-retry"), Some("false"));
        }
        Pay::Bearer(_) | Pay::Nothing => assert_eq!(answer.change(), None),
    }
}

/// No upstream was asked, nothing is reserved or spent, and the ecash is still the client's.
async fn check_untouched(world: &World, key: &Key, ecash: &str) {
    assert_eq!(world.upstream.count(), 0, "nothing was forwarded");
    let balance = world.info(key).await;
    assert_eq!((balance.available, balance.reserved, balance.spent), (100_000, 0, 0));
    assert!(!world.is_spent(ecash).await);
}

#[tokio::test]
async fn a_body_that_cannot_be_sold_is_refused_and_nothing_is_lost() {
    let world = World::start().await;
    let ecash = world.sats(100).await;
    let key = world.key(100).await;
    let message = r#""messages":[{"role":"user","content":"hi"}]"#;
    let twice = |field: &str| format!(r#"{{"model":"demo",{field},{message},{field}}}"#);
    let invalid = |param: &'static str| (400, "invalid_request", "invalid_value", Some(param));
    let not_json = (400, "invalid_request", "invalid_json", None);
    let unknown = (404, "not_found", "model_not_found", None);
    let refused = [
        ("[]".to_owned(), not_json),
        (format!("[{}]", chat("demo")), not_json),
        ("null".to_owned(), not_json),
        (String::new(), not_json),
        ("{".to_owned(), not_json),
        (chat("demo").to_string() + "{}", not_json),
        ("\u{feff}{}".to_owned(), not_json),
        (format!("{{{message}}}"), invalid("model")),
        (format!(r#"{{"model":7,{message}}}"#), invalid("model")),
        (format!(r#"{{"model":"",{message}}}"#), invalid("model")),
        (r#"{"model":"demo"}"#.to_owned(), invalid("messages")),
        (r#"{"model":"demo","messages":"hi"}"#.to_owned(), invalid("messages")),
        (twice(r#""max_tokens":5"#), invalid("max_tokens")),
        (twice(r#""stream":false"#), invalid("stream")),
        (twice(r#""model":"demo""#), invalid("model")),
        (format!(r#"{{"model":"demo","stream":"yes",{message}}}"#), invalid("stream")),
        (chat("gpt-unknown").to_string(), unknown),
        (chat("DEMO").to_string(), unknown),
    ];
    for (body, (status, kind, code, param)) in refused {
        for pay in [Pay::from(&key), Pay::XCashu(&ecash)] {
            let request = world.request(Method::POST, PATH, pay);
            let answer = Answer::read(request.body(body.clone()).send().await.unwrap()).await;
            let answer = answer.unwrap().expect_error(status, kind, code);
            let named = &answer.json()["error"]["details"]["param"];
            assert_eq!(named.as_str(), param, "{body}");
            check_echo(&answer, pay);
        }
    }
    check_untouched(&world, &key, &ecash).await;
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_and_read_away() {
    let world = World::start().await;
    let ecash = world.sats(100).await;
    let key = world.key(100).await;
    let body = with(chat("demo"), json!({"user": "x".repeat(11_000_000)}));
    for pay in [Pay::from(&key), Pay::XCashu(&ecash), Pay::Bearer(&ecash)] {
        let answer = world.chat(pay, &body).await;
        let answer = answer.expect_error(413, "invalid_request", "request_too_large");
        check_echo(&answer, pay);
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    }
    check_untouched(&world, &key, &ecash).await;
}

#[tokio::test]
async fn a_body_that_does_not_arrive_in_time_is_408_and_nothing_is_lost() {
    let setting = Setting::config(json!({"limits": {"body_timeout": "100ms"}}));
    let world = World::with(setting).await;
    let ecash = world.sats(100).await;
    let key = world.key(100).await;
    let mut raw = world.raw().await;
    let line = Pay::XCashu(&ecash).line();
    raw.send(format!("POST {PATH} HTTP/1.1\r\nhost: x\r\n{line}content-length: 99\r\n\r\n{{"))
        .await;
    let head = raw.head().await;
    assert_eq!(head.status, 408);
    assert_eq!(head.header("x-cashu"), Some(ecash.as_str()));
    check_untouched(&world, &key, &ecash).await;
}

#[tokio::test]
async fn the_body_limit_is_the_last_length_accepted_however_it_is_framed() {
    const BYTES_MAX: usize = 100_000;
    let setting = Setting::config(json!({"limits": {"body_bytes_max": BYTES_MAX}}));
    let world = World::with(setting).await;
    let key = world.key(1000).await;
    let short = with(chat("demo"), json!({"user": ""}));
    let filling = BYTES_MAX - short.to_string().len();
    let body = |bytes: usize| with(chat("demo"), json!({"user": "x".repeat(bytes)}));
    let exactly = body(filling);
    assert_eq!(exactly.to_string().len(), BYTES_MAX);
    world.chat(&key, &exactly).await.expect(200);
    let seen = world.upstream.requests().pop().unwrap();
    assert_eq!(seen.body, exactly.to_string(), "forwarded whole");
    let answer = world.chat(&key, &body(filling + 1)).await;
    answer.expect_error(413, "invalid_request", "request_too_large");

    // Without a length, the limit shows only when it is passed.
    let mut raw = world.raw().await;
    let line = Pay::from(&key).line();
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: nutgate\r\n{line}\
         content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    raw.send(head).await;
    let text = body(filling + 1).to_string();
    for piece in text.as_bytes().chunks(10_000) {
        raw.send(format!("{:x}\r\n", piece.len())).await;
        raw.send(piece).await;
        raw.send("\r\n").await;
    }
    raw.send("0\r\n\r\n").await;
    assert_eq!(raw.head().await.status, 413);
    assert_eq!(world.upstream.count(), 1);
}

#[tokio::test]
async fn a_large_body_is_forwarded_whole() {
    let world = World::start().await;
    let key = world.key(1000).await;
    let body = with(chat("demo"), json!({"user": "nut ".repeat(50_000)}));
    world.chat(&key, &body).await.expect(200);
    let seen = world.upstream.requests().pop().unwrap();
    assert_eq!(seen.body, body.to_string());
    let body = with(body, json!({"stream": true}));
    world.chat(&key, &body).await.expect(200);
    let seen = world.upstream.requests().pop().unwrap().json();
    assert_eq!(seen, with(body, json!({"stream_options": {"include_usage": true}})));
}

#[tokio::test]
async fn another_method_is_405_and_an_unknown_path_is_404() {
    let world = World::start().await;
    let ecash = world.sats(100).await;
    let key = world.key(100).await;
    for method in [Method::GET, Method::PUT, Method::DELETE, Method::PATCH] {
        for pay in [Pay::from(&key), Pay::XCashu(&ecash)] {
            let request = world.request(method.clone(), PATH, pay);
            let answer = Answer::read(request.send().await.unwrap()).await.unwrap();
            let answer = answer.expect_error(405, "invalid_request", "method_not_allowed");
            assert!(answer.header("allow").unwrap().contains("POST"), "{method}");
            check_echo(&answer, pay);
        }
    }
    for path in [
        "/v1/chat",
        "/v1/files",
        "/",
        "/v1/chat/completions/x",
        "/v1/chat/completions/",
        "//v1/chat/completions",
        "/v1/chat%2Fcompletions",
        "/V1/chat/completions",
    ] {
        for pay in [Pay::from(&key), Pay::XCashu(&ecash)] {
            let answer = world.post(path, pay, &chat("demo")).await;
            let answer = answer.expect_error(404, "not_found", "not_found");
            check_echo(&answer, pay);
        }
    }
    // An HTTP client would tidy this one up.
    let mut raw = world.raw().await;
    raw.post("/v1/x/../chat/completions", &Pay::from(&key).line(), "{}").await;
    assert_eq!(raw.head().await.status, 404);
    check_untouched(&world, &key, &ecash).await;
}

#[tokio::test]
async fn a_request_without_a_usable_credential_is_401() {
    let world = World::start().await;
    let body = chat("demo");
    let missing = world.chat(Pay::Nothing, &body).await;
    missing.expect_error(401, "authentication_failed", "missing_api_key");
    let unknown = format!("sk-{}", "0".repeat(32));
    for junk in ["junk", "sk-short", "cashuC123", "Bearer", unknown.as_str(), "sk-ü"] {
        let answer = world.chat(Pay::Bearer(junk), &body).await;
        answer.expect_error(401, "authentication_failed", "invalid_api_key");
    }
    let basic = world.request(Method::POST, PATH, Pay::Nothing);
    let basic = basic.basic_auth("a", Some("b")).body(body.to_string()).send().await.unwrap();
    let basic = Answer::read(basic).await.unwrap();
    basic.expect_error(401, "authentication_failed", "invalid_api_key");
    let junk = world.chat(Pay::XCashu("junk"), &body).await;
    let junk = junk.expect_error(401, "authentication_failed", "invalid_api_key");
    assert_eq!(junk.header("x-should-retry"), Some("false"));
    assert_eq!(world.upstream.count(), 0);
}

#[tokio::test]
async fn configuration_may_ask_for_payment_where_no_credential_came() {
    let setting = Setting::config(json!({"errors": {"missing_credential_status": 402}}));
    let world = World::with(setting).await;
    let answer = world.chat(Pay::Nothing, &chat("demo")).await;
    answer.expect_error(402, "authentication_failed", "missing_api_key");
}

#[tokio::test]
async fn the_scheme_is_read_in_any_letter_case() {
    let world = World::start().await;
    let key = world.key(100).await;
    for scheme in ["bearer", "BEARER", "Bearer"] {
        let request = world.request(Method::POST, PATH, Pay::Nothing);
        let request = request.header("authorization", format!("{scheme} {}", key.0));
        let answer = request.body(chat("demo").to_string()).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{scheme}");
    }
}

#[tokio::test]
async fn ecash_that_cannot_be_read_is_400() {
    let world = World::start().await;
    let whole = world.sats(100).await;
    for junk in ["cashuA", "cashuBjunk", "cashuAeyJ0b2tlbiI6W119", &whole[..whole.len() / 2]] {
        for pay in [Pay::Bearer(junk), Pay::XCashu(junk)] {
            let answer = world.chat(pay, &chat("demo")).await;
            assert_eq!(answer.status, 400, "{junk}: {}", answer.text());
            let code = answer.json()["error"]["code"].clone();
            let known = ["invalid_cashu_token", "cashu_token_zero_value"];
            assert!(known.iter().any(|known| code == *known), "{code}");
            check_echo(&answer, pay);
        }
    }
    assert_eq!(world.upstream.count(), 0);
}

#[tokio::test]
async fn spent_ecash_is_400_and_is_not_echoed() {
    let world = World::start().await;
    let elsewhere = world.sats(100).await;
    world.worth(&elsewhere).await;
    let used = world.sats(100).await;
    world.chat(Pay::XCashu(&used), &chat("demo")).await.expect(200);
    for pay in [Pay::XCashu(&elsewhere), Pay::Bearer(&elsewhere), Pay::XCashu(&used)] {
        let answer = world.chat(pay, &chat("demo")).await;
        let answer = answer.expect_error(400, "invalid_request", "cashu_token_already_spent");
        assert_eq!(answer.change(), None, "clients redeem what they find");
    }
    let change = world.claim(&used).await.expect(200).json();
    assert_eq!(world.worth(change["token"].as_str().unwrap()).await, 88, "it is still there");
    assert_eq!(world.upstream.count(), 1);
}

#[tokio::test]
async fn ecash_of_an_unknown_mint_is_400_and_that_mint_is_never_asked() {
    let world = World::start().await;
    let mut foreign = Mint::start(MintOptions::default()).await.unwrap();
    let address = foreign.url().trim_start_matches("http://").to_owned();
    let faucet = Faucet::new(&foreign.url()).unwrap();
    let ecash = faucet.cashu(100, CurrencyUnit::Sat, TokenFormat::B).await.unwrap();
    // From now on whoever asks the mint asks us.
    foreign.stop().await;
    drop(foreign);
    let listener = TcpListener::bind(&address).await.unwrap();
    for pay in [Pay::XCashu(&ecash), Pay::Bearer(&ecash)] {
        let answer = world.chat(pay, &chat("demo")).await;
        let answer = answer.expect_error(400, "invalid_request", "mint_not_accepted");
        check_echo(&answer, pay);
    }
    let create = json!({"initial_balance_token": ecash});
    let created = world.post("/v1/balance/create", Pay::Nothing, &create).await;
    created.expect_error(400, "invalid_request", "mint_not_accepted");
    let ours = tokio::net::TcpStream::connect(&address).await.unwrap();
    let (_, first) = listener.accept().await.unwrap();
    assert_eq!(first, ours.local_addr().unwrap(), "ours is the first connection");
    assert_eq!(world.upstream.count(), 0);
}

#[tokio::test]
async fn ecash_of_another_unit_is_400_and_goes_back() {
    let accepts = Some(vec![CurrencyUnit::Sat]);
    let world = World::with(Setting { accepts, ..Setting::msat() }).await;
    let msat = world.faucet.cashu(100_000, CurrencyUnit::Msat, TokenFormat::B).await.unwrap();
    for pay in [Pay::XCashu(&msat), Pay::Bearer(&msat)] {
        let answer = world.chat(pay, &chat("demo")).await;
        let answer = answer.expect_error(400, "invalid_request", "invalid_cashu_token");
        check_echo(&answer, pay);
    }
    assert!(!world.is_spent(&msat).await);
}

#[tokio::test]
async fn ecash_that_is_too_small_is_402_with_what_is_needed_and_goes_back() {
    let world = World::start().await;
    let body = chat("demo");
    let ceiling = PRICE.ceiling(length(body.to_string()), MODEL_OUTPUT_TOKENS, 1);
    let sats = ceiling / 1000;
    let small = world.sats(sats).await;
    for pay in [Pay::XCashu(&small), Pay::Bearer(&small)] {
        for body in [&body, &streamed("demo")] {
            let answer = world.chat(pay, body).await;
            let answer = answer.expect_error(402, "insufficient_balance", "payment_required");
            let details = &answer.json()["error"]["details"];
            let required = PRICE.ceiling(length(body.to_string()), MODEL_OUTPUT_TOKENS, 1);
            assert_eq!(details, &json!({"required": required, "available": sats * 1000}));
            check_echo(&answer, pay);
        }
    }
    assert!(!world.is_spent(&small).await);
    let enough = world.sats(sats + 1).await;
    world.chat(Pay::XCashu(&enough), &body).await.expect(200);
    let key = world.key(sats).await;
    let answer = world.chat(&key, &body).await;
    answer.expect_error(402, "insufficient_balance", "payment_required");
    assert_eq!(world.info(&key).await.available, sats * 1000);
}

#[tokio::test]
async fn a_402_can_speak_the_dialect_of_existing_wallets() {
    let world = World::with(Setting::config(json!({"errors": {"dialect": "routstr"}}))).await;
    let key = world.key(1).await;
    let answer = world.chat(&key, &chat("demo")).await;
    answer.expect_error(402, "insufficient_quota", "insufficient_balance");
}

#[tokio::test]
async fn the_mints_fee_is_part_of_what_a_request_must_bring() {
    let mint = MintOptions { input_fee_ppk: 1000, ..MintOptions::default() };
    let world = World::with(Setting { mint, ..Setting::default() }).await;
    let body = chat("demo");
    let ceiling = PRICE.ceiling(length(body.to_string()), MODEL_OUTPUT_TOKENS, 1);
    // 16 sats are enough in one proof, which costs a sat to swap, and not in six.
    assert!((10_001..=15_000).contains(&ceiling));
    let pieces = [8, 2, 2, 2, 1, 1];
    let crumbs = world.faucet.cashu_in_pieces(&pieces, CurrencyUnit::Sat, TokenFormat::B);
    let crumbs = crumbs.await.unwrap();
    let answer = world.chat(Pay::XCashu(&crumbs), &body).await;
    let answer = answer.expect_error(402, "insufficient_balance", "payment_required");
    assert_eq!(answer.json()["error"]["details"]["available"], 10_000);
    check_echo(&answer, Pay::XCashu(&crumbs));
    let dust = world.sats(1).await;
    for pay in [Pay::XCashu(&dust), Pay::Bearer(&dust)] {
        let answer = world.chat(pay, &body).await;
        let code = "cashu_token_swap_fees_exceed_amount";
        check_echo(&answer.expect_error(422, "invalid_request", code), pay);
    }
    assert!(!world.is_spent(&crumbs).await && !world.is_spent(&dust).await);
    let ecash = world.sats(16).await;
    world.chat(Pay::XCashu(&ecash), &body).await.expect(200);
}
