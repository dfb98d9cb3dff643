//! What has no price, is not known or cannot be read never reaches an upstream, on any route: it
//! is refused by the name of what is wrong, and costs and holds nothing.

use crate::support::{
    Answer, Ask, Kind, Pay, Rates, Setting, Sold, Value, World, json, model, priced, tariff, with,
};

/// Sold on every route, and on one alone.
fn setting() -> Setting {
    let only = |route: &str| {
        with(model(&format!("only-{route}"), &["sandbox"]), json!({ "routes": [route] }))
    };
    let more_models = vec![priced("kinds", tariff()), only("chat"), only("rerank")];
    Setting { more_models, ..Setting::default() }
}

/// A request that is refused, and as what.
struct Bad {
    sold: Sold,
    content_type: &'static str,
    body: Vec<u8>,
    status: u16,
    code: &'static str,
    /// What is named.
    param: Option<&'static str>,
}

impl Bad {
    fn field(ask: Ask, param: &'static str) -> Self {
        Self { status: 400, code: "invalid_value", param: Some(param), ..Self::sent(&ask) }
    }

    /// As it is, which is refused as what is said elsewhere.
    fn sent(ask: &Ask) -> Self {
        Self {
            sold: ask.kind.sold,
            content_type: ask.content_type(),
            body: ask.body(),
            status: 404,
            code: "model_not_found",
            param: None,
        }
    }
}

fn usual(sold: Sold) -> Ask {
    sold.whole().ask("kinds")
}

/// What is wrong on every route.
fn anywhere(sold: Sold) -> Vec<Bad> {
    let ask = || usual(sold);
    let elsewhere = if sold == Sold::Chat { "only-rerank" } else { "only-chat" };
    let broken = Bad { status: 415, code: "unsupported_media_type", ..Bad::sent(&ask()) };
    let mut all = vec![
        Bad::sent(&ask().with(json!({"model": "unknown"}))),
        Bad::sent(&ask().with(json!({"model": elsewhere}))),
        Bad::field(ask().without("model"), "model"),
        Bad::field(ask().with(json!({"model": ""})), "model"),
        Bad::field(ask().with(json!({"Model": "kinds"})), "model"),
        Bad { body: twice(&ask()), ..Bad::field(ask(), "model") },
        Bad { content_type: "text/plain", ..broken },
    ];
    let unreadable = |body: Vec<u8>| {
        let code = if sold.is_form() { "invalid_form" } else { "invalid_json" };
        Bad { status: 400, code, body, ..Bad::sent(&ask()) }
    };
    let whole = ask().body();
    let half = whole[..whole.len() / 2].to_vec();
    all.extend([unreadable(half), unreadable(Vec::new())]);
    match sold.is_form() {
        true => all
            .push(Bad { content_type: "multipart/form-data", ..Bad::field(ask(), "content-type") }),
        false => {
            all.push(unreadable([b"[", &*whole, b"]"].concat()));
            let as_form = Bad { status: 415, code: "unsupported_media_type", ..Bad::sent(&ask()) };
            all.push(Bad { content_type: "multipart/form-data; boundary=x", ..as_form });
            all.push(Bad::field(ask().with(json!({"models": ["kinds"]})), "models"));
        }
    }
    all
}

/// The model named a second time, in front of the first.
fn twice(ask: &Ask) -> Vec<u8> {
    let body = ask.body();
    match ask.kind.sold.is_form() {
        false => [br#"{"model":"kinds","#, &body[1..]].concat(),
        true => {
            let part: &[u8] =
                b"--the-edge\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nkinds\r\n";
            [part, &body].concat()
        }
    }
}

/// What is wrong with each route's own fields: set to this, or missing where it is `null`.
fn of_its_own(sold: Sold) -> Vec<(&'static str, Value)> {
    let limits = |names: &[&'static str]| -> Vec<(&'static str, Value)> {
        let wrong = [json!(-1), json!(0), json!(1.5), json!("5")];
        names.iter().flat_map(|name| wrong.iter().map(|value| (*name, value.clone()))).collect()
    };
    let hosted = |kinds: &[&str]| -> Vec<(&'static str, Value)> {
        kinds.iter().map(|kind| ("tools", json!([{ "type": kind }]))).collect()
    };
    let priority = ("service_tier", json!("priority"));
    let all_limits = ["max_tokens", "max_completion_tokens", "max_output_tokens"];
    match sold {
        Sold::Chat => [
            limits(&all_limits),
            limits(&["n"]),
            hosted(&["code_interpreter", "mcp"]),
            vec![priority, ("messages", json!(null)), ("messages", json!([]))],
            vec![("stream", json!("true")), ("plugins", json!([{"id": "web"}]))],
        ]
        .concat(),
        Sold::Responses => [
            limits(&all_limits),
            hosted(&["file_search", "code_interpreter", "mcp", "image_generation", "shell"]),
            vec![priority, ("input", json!(null)), ("background", json!(true))],
        ]
        .concat(),
        Sold::Messages => [
            limits(&all_limits),
            hosted(&["code_execution_20250522", "web_fetch_20250910", "mcp_toolset"]),
            vec![priority, ("max_tokens", json!(null)), ("messages", json!(null))],
            vec![("mcp_servers", json!([{"type": "url"}])), ("container", json!("c"))],
            vec![("speed", json!("fast"))],
        ]
        .concat(),
        Sold::Completions => [
            limits(&all_limits),
            limits(&["n", "best_of"]),
            vec![priority, ("prompt", json!([])), ("prompt", json!({}))],
        ]
        .concat(),
        Sold::Embeddings => {
            vec![("input", json!(null)), ("input", json!("")), ("stream", json!(true))]
        }
        Sold::Moderations => {
            vec![("input", json!(null)), ("input", json!(true)), ("stream", json!(true))]
        }
        Sold::Rerank => vec![
            ("query", json!(null)),
            ("documents", json!(null)),
            ("documents", json!([])),
            ("stream", json!(true)),
        ],
        Sold::Images | Sold::ImageEdits => vec![
            ("prompt", json!(null)),
            ("n", json!(-1)),
            ("n", json!(11)),
            ("size", json!("256x256")),
        ],
        Sold::Transcriptions => vec![("stream", json!("yes")), ("url", json!("https://x"))],
        Sold::Translations => vec![("stream", json!("true")), ("url", json!("https://x"))],
        Sold::Speech => vec![
            ("input", json!(null)),
            ("input", json!("")),
            ("input", json!(["a"])),
            ("stream_format", json!("wav")),
        ],
    }
}

fn all_bad(sold: Sold) -> Vec<Bad> {
    let mut all = anywhere(sold);
    for (name, value) in of_its_own(sold) {
        let ask = match value {
            Value::Null => usual(sold).without(name),
            // A size that only a quality of any other name has no price for.
            value if name == "size" => usual(sold).with(json!({"size": value, "quality": "low"})),
            value => usual(sold).with(json!({ name: value })),
        };
        all.push(Bad::field(ask, name));
    }
    if sold.is_form() {
        let file = if sold == Sold::ImageEdits { "image" } else { "file" };
        all.push(Bad::field(Ask { files: vec![], ..usual(sold) }, file));
        let mut cut = usual(sold).body();
        cut.truncate(cut.len() - "--the-edge--\r\n".len());
        all.push(Bad { body: cut, status: 400, code: "invalid_form", ..Bad::sent(&usual(sold)) });
    }
    all
}

#[tokio::test]
async fn what_cannot_be_sold_is_refused_by_name_on_every_route_and_forwarded_on_none() {
    let world = World::with(setting()).await;
    let key = world.key(1000).await;
    let paid = world.sats(1000).await;
    for sold in Sold::ALL {
        for bad in all_bad(sold) {
            for pay in [Pay::from(&key), Pay::XCashu(&paid)] {
                let answer = send(&world, pay, &bad).await;
                check_refused(answer, &bad, pay);
            }
        }
    }
    check_untouched(&world, &key.0, &paid).await;
}

async fn send(world: &World, pay: Pay<'_>, bad: &Bad) -> Answer {
    let url = format!("{}/v1{}", world.gateway.url(), bad.sold.path());
    let request =
        world.client.post(url).header("content-type", bad.content_type).body(bad.body.clone());
    let request = match pay.header() {
        Some((name, value)) => request.header(name, value),
        None => request,
    };
    Answer::read(request.send().await.unwrap()).await.unwrap()
}

#[track_caller]
fn check_refused(answer: Answer, bad: &Bad, pay: Pay<'_>) {
    let sent = String::from_utf8_lossy(&bad.body[..bad.body.len().min(300)]).into_owned();
    let said = answer.json();
    let got = (answer.status, said["error"]["code"].as_str().unwrap_or_default());
    assert_eq!(got, (bad.status, bad.code), "{:?} {sent} {said}", bad.sold);
    let kind = if bad.status == 404 { "not_found" } else { "invalid_request" };
    let answer = answer.expect_error(bad.status, kind, bad.code);
    let named = said["error"]["details"]["param"].as_str();
    assert_eq!(named, bad.param, "{:?} {sent} {said}", bad.sold);
    if let Pay::XCashu(paid) = pay {
        assert_eq!(answer.change(), Some(paid), "it comes back as it was");
        assert_eq!(answer.header("x-should-retry"), Some("false"));
    }
}

/// No upstream was asked, nothing is reserved or spent, and the ecash is still the client's.
async fn check_untouched(world: &World, key: &str, paid: &str) {
    assert_eq!(world.upstream.count(), 0, "nothing was forwarded");
    let balance = world.info(Pay::Bearer(key)).await;
    assert_eq!((balance.available, balance.reserved, balance.spent), (1_000_000, 0, 0));
    assert_eq!(balance.requests, 0);
    assert!(!world.is_spent(paid).await);
    assert_eq!(world.mint.swap_count(), 1, "only the key's was redeemed");
}

#[tokio::test]
async fn who_does_not_pay_enough_is_refused_on_every_route() {
    let world = World::with(setting()).await;
    let key = world.key(1000).await;
    let (poor, paid) = (world.key(1).await, world.sats(1).await);
    let unknown = format!("sk-{}", "0".repeat(32));
    let rates = Rates::of_sats(&tariff());
    for kind in Kind::all() {
        let ask = kind.ask("kinds");
        let refused = world.ask(Pay::Nothing, &ask).await;
        refused.expect_error(401, "authentication_failed", "missing_api_key");
        for credential in [unknown.as_str(), "sk-short", "whatever"] {
            let refused = world.ask(Pay::Bearer(credential), &ask).await;
            refused.expect_error(401, "authentication_failed", "invalid_api_key");
        }
        let refused = world.ask(Pay::XCashu("cashuBjunk"), &ask).await;
        refused.expect_error(400, "invalid_request", "invalid_cashu_token");
        for pay in [Pay::from(&poor), Pay::XCashu(&paid)] {
            let refused = world.ask(pay, &ask).await;
            let refused = refused.expect_error(402, "insufficient_balance", "payment_required");
            let details = json!({"required": rates.ceiling(&ask.most()), "available": 1000});
            assert_eq!(refused.json()["error"]["details"], details, "{kind:?}");
            let echoed = matches!(pay, Pay::XCashu(_)).then_some(paid.as_str());
            assert_eq!(refused.change(), echoed);
        }
    }
    assert_eq!(world.info(&poor).await.available, 1000);
    assert_eq!(world.upstream.count(), 0, "nothing was forwarded");
    let balance = world.info(&key).await;
    assert_eq!((balance.available, balance.reserved), (1_000_000, 0));
    assert!(!world.is_spent(&paid).await);
}
