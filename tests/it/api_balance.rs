//! The payment endpoints: ecash becomes a key, a key shows and gives back what it has.

use std::str::FromStr;

use cdk::nuts::Token;
use nutgate_sandbox::{Faucet, Mint, MintOptions};
use reqwest::Method;

use crate::support::{
    Answer, Balance, CurrencyUnit, Key, Misbehaviour, PRICE, Pay, Setting, TokenFormat, Value,
    World, chat, json, model, model_of,
};

const CREATE: &str = "/v1/balance/create";

#[tokio::test]
async fn creating_again_with_the_same_ecash_gives_the_same_key() {
    let world = World::start().await;
    let ecash = world.sats(50).await;
    let expected = json!({"api_key": Key::of(&ecash).0, "balance": 50_000});
    let body = json!({"initial_balance_token": ecash});
    let query = format!("{CREATE}?initial_balance_token={ecash}");
    for _ in 0..2 {
        let created = world.post(CREATE, Pay::Nothing, &body).await.expect(200);
        assert_eq!(created.json(), expected);
        let created = world.fetch(&query, Pay::Nothing).await.expect(200);
        assert_eq!(created.json(), expected);
        let created = world.post("/v1/wallet/create", Pay::Nothing, &body).await.expect(200);
        assert_eq!(created.json(), expected);
    }
    assert_eq!(world.mint.swap_count(), 1, "redeemed once");
}

#[tokio::test]
async fn many_simultaneous_creations_give_one_key_and_one_balance() {
    let world = World::start().await;
    let ecash = world.sats(50).await;
    let (one, two, three) =
        tokio::join!(world.key_of(&ecash), world.key_of(&ecash), world.key_of(&ecash));
    assert_eq!((&one, &one), (&two, &three));
    assert_eq!(world.info(&one).await.available, 50_000);
}

#[tokio::test]
async fn key_long_key_and_ecash_name_one_account() {
    let world = World::start().await;
    let ecash = world.sats(50).await;
    let long = Key::long_of(&ecash);
    // The first use of the token itself opens the account, here at the free look at it.
    let balance = world.info(Pay::Bearer(&ecash)).await;
    assert_eq!(balance, Balance { available: 50_000, reserved: 0, spent: 0, requests: 0 });
    assert_eq!(world.info(&Key::of(&ecash)).await, balance);
    assert_eq!(world.info(&long).await, balance);
    world.chat(&long, &chat("demo")).await.expect(200);
    world.chat(Pay::Bearer(&ecash), &chat("demo")).await.expect(200);
    let cost = PRICE.cost(7, 20);
    let balance = world.settled(&world.key_of(&ecash).await).await;
    assert_eq!((balance.available, balance.requests), (50_000 - 2 * cost, 2));
    let shown = world.fetch("/v1/balance/info", Pay::Bearer(&ecash)).await.expect(200).json();
    assert_eq!(shown["api_key"], Key::of(&ecash).0);
}

#[tokio::test]
async fn info_has_every_field_that_clients_read_under_all_its_names() {
    let world = World::start().await;
    let key = world.key(50).await;
    world.chat(&key, &chat("demo")).await.expect(200);
    let cost = PRICE.cost(7, 20);
    let expected = json!({
        "api_key": key.0, "balance": 50_000 - cost, "reserved": 0, "is_child": false,
        "total_requests": 1, "total_spent": cost, "balance_limit": null,
        "balance_limit_reset": null, "validity_date": null,
    });
    for path in ["/v1/balance/info", "/v1/balance", "/v1/wallet/info", "/v1/wallet", "/v1/wallet/"]
    {
        assert_eq!(world.fetch(path, Pay::from(&key)).await.expect(200).json(), expected, "{path}");
    }
}

#[tokio::test]
async fn a_top_up_adds_to_the_account_once() {
    let world = World::start().await;
    let key = world.key(50).await;
    let (first, second) = (world.sats(7).await, world.sats(8).await);
    let body = json!({"cashu_token": first});
    for _ in 0..2 {
        let added = world.post("/v1/balance/topup", Pay::from(&key), &body).await.expect(200);
        assert_eq!(added.json(), json!({"msats": 7_000}));
    }
    let path = format!("/v1/wallet/topup?cashu_token={second}");
    let added = world.post(&path, Pay::from(&key), &json!({})).await.expect(200);
    assert_eq!(added.json(), json!({"msats": 8_000}));
    assert_eq!(world.info(&key).await.available, 65_000);
}

#[tokio::test]
async fn a_top_up_that_fails_takes_nothing() {
    let world = World::start().await;
    let key = world.key(50).await;
    let ecash = world.sats(7).await;
    let topup = "/v1/balance/topup";
    let unknown = Key(format!("sk-{}", "0".repeat(32)));
    let body = json!({"cashu_token": ecash});
    let answer = world.post(topup, Pay::from(&unknown), &body).await;
    answer.expect_error(401, "authentication_failed", "invalid_api_key");
    let answer = world.post(topup, Pay::Nothing, &body).await;
    answer.expect_error(401, "authentication_failed", "missing_api_key");
    assert!(!world.is_spent(&ecash).await);
    for body in [json!({}), json!({"cashu_token": ""}), json!({"cashu_token": 7})] {
        let answer = world.post(topup, Pay::from(&key), &body).await;
        let answer = answer.expect_error(400, "invalid_request", "invalid_value");
        assert_eq!(answer.json()["error"]["details"]["param"], "cashu_token");
    }
    let spent = world.sats(7).await;
    world.worth(&spent).await;
    let answer = world.post(topup, Pay::from(&key), &json!({"cashu_token": spent})).await;
    answer.expect_error(400, "invalid_request", "cashu_token_already_spent");
    // Balance of one account is not balance of another.
    let other = world.sats(9).await;
    world.key_of(&other).await;
    let answer = world.post(topup, Pay::from(&key), &json!({"cashu_token": other})).await;
    answer.expect_error(400, "invalid_request", "cashu_token_already_spent");
    assert_eq!(world.info(&key).await.available, 50_000);
}

/// Ecash and amounts of a refund, which are strings, and the same ecash in the head.
#[track_caller]
fn refunded(answer: Answer) -> (String, u64) {
    let answer = answer.expect(200);
    let body = answer.json();
    let text = |name: &str| body[name].as_str().unwrap().to_owned();
    let sats: u64 = text("sats").parse().unwrap();
    assert_eq!(text("msats"), (sats * 1000).to_string());
    assert_eq!(answer.change(), Some(text("token").as_str()));
    (text("token"), sats)
}

#[tokio::test]
async fn a_refund_gives_everything_back_and_repeats_its_answer() {
    let world = World::start().await;
    let key = world.key(100).await;
    world.chat(&key, &chat("demo")).await.expect(200);
    world.settled(&key).await;
    let cost = PRICE.cost(7, 20);
    let (ecash, sats) = refunded(world.refund(&key).await);
    assert_eq!(sats, (100_000 - cost) / 1000);
    let rest = 1000 - cost % 1000;
    assert_eq!(world.info(&key).await.available, rest, "below a sat stays on the account");
    for path in ["/v1/balance/refund", "/v1/wallet/refund"] {
        let again = world.post(path, Pay::from(&key), &json!({})).await;
        assert_eq!(refunded(again), (ecash.clone(), sats), "a lost answer is asked for again");
    }
    assert!(ecash.starts_with("cashuB"));
    assert_eq!(world.worth(&ecash).await, sats);
    assert_eq!(refunded(world.refund(&key).await).0, ecash, "also when it was redeemed");
    assert_eq!(world.info(&key).await.available, rest);
}

#[tokio::test]
async fn what_stayed_below_a_sat_is_paid_back_with_the_next_refund() {
    let world = World::start().await;
    let key = world.key(100).await;
    world.chat(&key, &chat("demo")).await.expect(200);
    world.settled(&key).await;
    let (first, first_sats) = refunded(world.refund(&key).await);
    let more = json!({"cashu_token": world.sats(100).await});
    world.post("/v1/balance/topup", Pay::from(&key), &more).await.expect(200);
    world.chat(&key, &chat("demo")).await.expect(200);
    world.settled(&key).await;
    let (second, second_sats) = refunded(world.refund(&key).await);
    assert_ne!(first, second);
    let left = 200_000 - 2 * PRICE.cost(7, 20);
    assert_eq!(first_sats + second_sats, left / 1000);
    assert_eq!(world.info(&key).await.available, left % 1000);
    assert_eq!(world.worth(&first).await + world.worth(&second).await, left / 1000);
}

/// The ecash comes from whichever mint the client names, as far as there is some of ours.
#[tokio::test]
async fn a_refund_is_ecash_of_the_mint_that_is_named() {
    let mut world = World::start().await;
    let other = Mint::start(MintOptions::default()).await.unwrap();
    let path = world.gateway.config_path();
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let mints = config["mints"].as_array_mut().unwrap();
    mints.push(json!({"url": other.url(), "units": ["sat"]}));
    std::fs::write(path, config.to_string()).unwrap();
    world.gateway.restart().await;
    let key = world.key(100).await;
    let faucet = Faucet::new(&other.url()).unwrap();
    let ecash = faucet.cashu(50, CurrencyUnit::Sat, TokenFormat::B).await.unwrap();
    let topup = json!({"cashu_token": ecash});
    world.post("/v1/balance/topup", Pay::from(&key), &topup).await.expect(200);

    let refund = async |mint: &str, amount: u64| {
        let asked = json!({"mint": mint, "amount_sats": amount});
        world.post("/v1/balance/refund", Pay::from(&key), &asked).await
    };
    for (mint, amount, code) in
        [("https://mint.example", 10, "mint_not_accepted"), (&*other.url(), 51, "invalid_value")]
    {
        refund(mint, amount).await.expect_error(400, "invalid_request", code);
    }
    assert_eq!(world.info(&key).await.available, 150_000, "nothing was taken");
    for (mint, faucet, amount) in
        [(other.url(), &faucet, 50), (world.mint.url(), &world.faucet, 70)]
    {
        let (ecash, sats) = refunded(refund(&mint, amount).await);
        let from = Token::from_str(&ecash).unwrap().mint_url().unwrap().to_string();
        assert_eq!((sats, from), (amount, mint));
        assert_eq!(faucet.value_in_fresh_wallet(&ecash).await.unwrap(), amount);
    }
    assert_eq!(world.info(&key).await.available, 30_000);
}

#[tokio::test]
async fn a_refund_of_an_amount_leaves_the_rest() {
    let world = World::start().await;
    let key = world.key(100).await;
    let refund = "/v1/balance/refund";
    let (ecash, sats) =
        refunded(world.post(refund, Pay::from(&key), &json!({"amount_sats": 30})).await);
    assert_eq!((sats, world.worth(&ecash).await), (30, 30));
    assert_eq!(world.info(&key).await.available, 70_000);
    for amount in [json!(0), json!(-1), json!("3"), json!(1.5)] {
        let answer = world.post(refund, Pay::from(&key), &json!({"amount_sats": amount})).await;
        assert_eq!(answer.status, 400, "{amount}");
    }
    let answer = world.post(refund, Pay::from(&key), &json!({"amount_sats": 71})).await;
    answer.expect_error(400, "invalid_request", "balance_too_small_to_refund");
    assert_eq!(world.info(&key).await.available, 70_000);
    let (rest, sats) = refunded(world.refund(&key).await);
    assert_eq!((sats, world.worth(&rest).await), (70, 70));
}

#[tokio::test]
async fn an_account_that_never_had_a_refund_and_has_nothing_says_so() {
    let mut one_sat = model("one-sat", &["sandbox"]);
    one_sat["price"] = json!({"currency": "sat", "request": 1, "input": 0, "output": 0});
    let world = World::with(Setting { more_models: vec![one_sat], ..Setting::default() }).await;
    let key = world.key(1).await;
    world.chat(&key, &chat("one-sat")).await.expect(200);
    assert_eq!(world.settled(&key).await.available, 0);
    let answer = world.refund(&key).await;
    let answer = answer.expect_error(400, "invalid_request", "no_balance_to_refund");
    assert_eq!(answer.json()["error"]["message"], "No balance to refund");
    assert_eq!(answer.change(), None);
}

#[tokio::test]
async fn a_refund_of_everything_waits_for_open_requests() {
    let world = World::with(Setting::gated()).await;
    let key = world.key(100).await;
    let body = chat(&model_of(Misbehaviour::Slow));
    let refund = async {
        world.asked(1).await;
        let answer = world.refund(&key).await;
        let answer = answer.expect_error(400, "invalid_request", "requests_in_progress");
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains("ongoing requests"), "{message}");
        world.upstream.open_gate();
    };
    let (answer, ()) = tokio::join!(world.chat(&key, &body), refund);
    answer.expect(200);
    world.settled(&key).await;
    assert_eq!(refunded(world.refund(&key).await).1, 88);
}

#[tokio::test]
async fn the_claim_of_a_payment_waits_for_its_request_and_then_repeats_its_change() {
    let world = World::with(Setting::gated()).await;
    let ecash = world.sats(100).await;
    let body = chat(&model_of(Misbehaviour::Slow));
    let claim = async {
        world.asked(1).await;
        let answer = world.refund(Pay::XCashu(&ecash)).await;
        let answer = answer.expect_error(425, "invalid_request", "refund_pending");
        assert!(answer.number("retry-after") > 0);
        assert_eq!(answer.change(), None, "what was paid is no change");
        world.upstream.open_gate();
    };
    let (answer, ()) = tokio::join!(world.chat(Pay::XCashu(&ecash), &body), claim);
    let change = answer.expect(200).change().unwrap().to_owned();
    for _ in 0..2 {
        assert_eq!(refunded(world.claim(&ecash).await), (change.clone(), 88));
    }
    let other = world.sats(100).await;
    let unknown = world.refund(Pay::XCashu(&other)).await;
    let unknown = unknown.expect_error(404, "not_found", "refund_not_found");
    let message = unknown.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("Refund not found"), "{message}");
    assert!(!world.is_spent(&other).await);
}

#[tokio::test]
async fn balances_refunds_and_their_repetition_survive_a_restart() {
    let mut world = World::start().await;
    let key = world.key(100).await;
    world.chat(&key, &chat("demo")).await.expect(200);
    let before = world.settled(&key).await;
    world.gateway.restart().await;
    assert_eq!(world.info(&key).await, before);
    let (ecash, sats) = refunded(world.refund(&key).await);
    world.gateway.restart().await;
    assert_eq!(refunded(world.refund(&key).await), (ecash.clone(), sats));
    assert_eq!(world.worth(&ecash).await, 88);
}

#[tokio::test]
async fn the_mints_fee_is_taken_off_once_and_the_rest_is_balance() {
    let mint = MintOptions { input_fee_ppk: 1000, ..MintOptions::default() };
    let world = World::with(Setting { mint, ..Setting::default() }).await;
    // 100 = 64 + 32 + 4: three proofs, a sat each.
    let key = world.key(100).await;
    assert_eq!(world.info(&key).await.available, 97_000);
    let more = json!({"cashu_token": world.sats(3).await});
    let added = world.post("/v1/balance/topup", Pay::from(&key), &more).await.expect(200);
    assert_eq!(added.json(), json!({"msats": 1_000}));
    let (ecash, sats) = refunded(world.refund(&key).await);
    // Its face value; what swapping it costs is between its new owner and the mint.
    assert_eq!(sats, 98);
    let proofs = Token::from_str(&ecash).unwrap().token_secrets().len();
    assert_eq!(world.worth(&ecash).await, 98 - u64::try_from(proofs).unwrap());
}

#[tokio::test]
async fn looking_at_a_balance_never_takes_an_x_cashu() {
    let world = World::start().await;
    let ecash = world.sats(10).await;
    for path in ["/v1/balance/info", "/v1/balance"] {
        let answer = world.fetch(path, Pay::XCashu(&ecash)).await;
        let answer = answer.expect_error(401, "authentication_failed", "missing_api_key");
        assert_eq!(answer.change(), Some(ecash.as_str()));
        assert_eq!(answer.header("x-should-retry"), Some("false"));
    }
    assert!(!world.is_spent(&ecash).await);
}

#[tokio::test]
async fn both_listeners_say_that_the_process_is_well() {
    let world = World::start().await;
    world.fetch("/healthz", Pay::Nothing).await.expect(200);
    let admin = format!("http://{}/healthz", world.gateway.admin_address());
    assert_eq!(world.client.get(admin).send().await.unwrap().status(), 200);
    let models = format!("http://{}/v1/models", world.gateway.admin_address());
    assert_eq!(world.client.get(models).send().await.unwrap().status(), 404, "and nothing else");
}

/// What strict clients insist on; one bad entry makes them drop the whole list.
fn check_entry(entry: &Value) {
    assert_eq!(entry["object"], "model");
    assert!(entry["created"].is_u64() && entry["context_length"].is_u64(), "{entry}");
    for text in ["id", "owned_by", "name", "description"] {
        assert!(entry[text].is_string(), "{text} of {entry}");
    }
    for prices in ["pricing", "sats_pricing"] {
        for unit in ["prompt", "completion", "request", "image", "web_search", "internal_reasoning"]
        {
            assert!(entry[prices][unit].is_number(), "{prices}.{unit} of {entry}");
        }
    }
    for most in ["max_prompt_cost", "max_completion_cost", "max_cost"] {
        assert!(entry["sats_pricing"][most].is_number(), "{most} of {entry}");
    }
    for unit in ["input_cache_read", "input_cache_write"] {
        assert!(entry["sats_pricing"][unit].is_number(), "{unit} of {entry}");
    }
    assert!(entry["architecture"].is_object() && entry["top_provider"].is_object());
    assert!(entry["enabled"].is_boolean() && entry["alias_ids"].is_array());
}

#[tokio::test]
async fn the_models_have_the_shape_that_strict_clients_insist_on() {
    let mut aliased = model("family/aliased", &["sandbox"]);
    aliased["aliases"] = json!(["short"]);
    let more_models = vec![aliased];
    let world = World::with(Setting { more_models, ..Setting::default() }).await;
    let list = world.fetch("/v1/models", Pay::Nothing).await.expect(200).json();
    assert_eq!(list["object"], "list");
    let data = list["data"].as_array().unwrap();
    assert_eq!(data.len(), Misbehaviour::ALL.len() + 2);
    data.iter().for_each(check_entry);
    let sats = &data[0]["sats_pricing"];
    let shown = ["prompt", "completion", "input_cache_read", "request"];
    let shown = shown.map(|unit| sats[unit].to_string());
    assert_eq!(shown, ["0.002", "0.007", "0.0005", "11"]);
    assert_eq!(sats["max_prompt_cost"], 256);
    assert_eq!(sats["max_completion_cost"].to_string(), "1.792");
    assert_eq!(sats["max_cost"].to_string(), "268.792");
    assert_eq!(world.fetch("/models", Pay::Nothing).await.expect(200).json(), list);
    for name in ["family/aliased", "family%2Faliased", "short"] {
        let one = world.fetch(&format!("/v1/models/{name}"), Pay::Nothing).await.expect(200).json();
        assert_eq!(&one, data.last().unwrap());
    }
    let none = world.fetch("/v1/models/none", Pay::Nothing).await;
    none.expect_error(404, "not_found", "model_not_found");
    let (answer, _) = world.buy(crate::support::Way::Key, &chat("short")).await;
    answer.expect(200);
    assert_eq!(world.upstream.requests().pop().unwrap().json()["model"], "family/aliased");
}

#[tokio::test]
async fn info_says_where_ecash_may_come_from() {
    let config = json!({"name": "nuts", "description": "a shop", "http_url": "https://x.example"});
    let world = World::with(Setting::config(config)).await;
    let info = world.fetch("/v1/info", Pay::Nothing).await.expect(200).json();
    let expected = json!({
        "name": "nuts", "description": "a shop", "version": env!("CARGO_PKG_VERSION"), "npub": "",
        "mints": [world.mint.url()], "http_url": "https://x.example", "onion_url": "",
        "child_key_cost_msats": 0,
    });
    assert_eq!(info, expected);
}

#[tokio::test]
async fn an_endpoint_says_which_methods_it_has() {
    let world = World::start().await;
    for (method, path) in [
        (Method::DELETE, "/v1/models"),
        (Method::GET, "/v1/balance/refund"),
        (Method::GET, "/v1/balance/topup"),
        (Method::PUT, "/v1/balance/create"),
    ] {
        let request = world.request(method.clone(), path, Pay::Nothing).send().await.unwrap();
        let answer = Answer::read(request).await.unwrap();
        let answer = answer.expect_error(405, "invalid_request", "method_not_allowed");
        assert!(!answer.header("allow").unwrap().contains(method.as_str()), "{path}");
    }
}
