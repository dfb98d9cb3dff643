//! `Idempotency-Key` on the calls that the gateway answers itself: the same call under the same key
//! moves money once, also when the process died in the middle of it.

use std::os::unix::process::ExitStatusExt;

use nix::sys::signal::Signal;
use nutgate::crash::Step;
use reqwest::Method;

use crate::support::{
    Answer, Fleet, Key, LOOK_AGAIN, Pay, Setting, Value, Way, World, chat, json, within,
};

const CREATE: &str = "/v1/balance/create";
const TOPUP: &str = "/v1/balance/topup";
const REFUND: &str = "/v1/balance/refund";
const CHILD_KEY: &str = "/v1/balance/child-key";
const RESET: &str = "/v1/balance/child-key/reset";
const INVOICE: &str = "/v1/balance/lightning/invoice";

async fn try_call(
    world: &World,
    turn: usize,
    key: &str,
    path: &str,
    pay: Pay<'_>,
    body: &Value,
) -> reqwest::Result<Answer> {
    let request = world.request_to(world.gateway_of(turn), Method::POST, path, pay);
    let request = request.header("idempotency-key", key).body(body.to_string());
    Answer::read(request.send().await?).await
}

async fn call(world: &World, key: &str, path: &str, pay: Pay<'_>, body: &Value) -> Answer {
    try_call(world, 0, key, path, pay, body).await.unwrap()
}

/// Calls it twice: the same answer, the second time from what is remembered.
async fn twice(world: &World, key: &str, path: &str, pay: Pay<'_>, body: &Value) -> Answer {
    let first = call(world, key, path, pay, body).await.expect(200);
    assert_eq!(first.header("idempotency-replayed"), None, "{path}");
    // Under another name of the path, and at another gateway where there is one.
    let alias = path.replace("/v1/balance", "/wallet");
    let again = try_call(world, 1, key, &alias, pay, body).await.unwrap().expect(200);
    assert_eq!(again.header("idempotency-replayed"), Some("true"), "{path}");
    assert_eq!(again.text(), first.text(), "{path}");
    assert_eq!(again.header("content-type"), first.header("content-type"));
    assert_eq!(again.change(), first.change());
    assert_ne!(again.header("x-request-id"), first.header("x-request-id"));
    let limits = |answer: &Answer| answer.header("x-ratelimit-limit").is_some();
    assert_eq!(limits(&again), limits(&first), "{path}");
    first
}

fn refused(answer: Answer) -> Answer {
    answer.expect_error(422, "invalid_request", "idempotency_key_reuse")
}

#[tokio::test]
async fn on_one_machine_a_call_is_made_once() {
    made_once(&World::start().await).await;
}

#[tokio::test]
async fn in_a_fleet_a_call_is_made_once() {
    made_once(&World::with(Setting { fleet: Some(Fleet::of(2)), ..Setting::default() }).await)
        .await;
}

async fn made_once(world: &World) {
    let ecash = world.sats(100).await;
    let create = json!({"initial_balance_token": ecash});
    let created = twice(world, "a", CREATE, Pay::Nothing, &create).await.json();
    let key = Key(created["api_key"].as_str().unwrap().to_owned());
    let pay = Pay::from(&key);

    let topup = json!({"cashu_token": world.sats(20).await});
    assert_eq!(twice(world, "b", TOPUP, pay, &topup).await.json(), json!({"msats": 20_000}));
    let other = json!({"cashu_token": world.sats(5).await});
    refused(call(world, "b", TOPUP, pay, &other).await);
    call(world, "c", TOPUP, pay, &other).await.expect(200);

    // Two refunds of one amount are two, and each of them is one.
    let three = json!({"amount_sats": 3});
    let one = twice(world, "d", REFUND, pay, &three).await;
    let two = twice(world, "e", REFUND, pay, &three).await;
    let paid = |answer: &Answer| answer.json()["token"].as_str().unwrap().to_owned();
    assert_ne!(paid(&one), paid(&two));
    assert_eq!(world.worth(&paid(&one)).await + world.worth(&paid(&two)).await, 6);
    refused(call(world, "d", REFUND, pay, &json!({"amount_sats": 4})).await);
    refused(call(world, "d", TOPUP, pay, &three).await);
    assert_eq!(world.info(&key).await.available, 119_000);

    let two_keys = json!({"count": 2, "balance_limit": 50_000});
    let made = twice(world, "f", CHILD_KEY, pay, &two_keys).await.json();
    let more = twice(world, "g", CHILD_KEY, pay, &two_keys).await.json();
    assert_ne!(made["api_keys"], more["api_keys"]);
    let info = world.fetch("/v1/balance/info", pay).await.json();
    assert_eq!(info["child_keys"].as_array().unwrap().len(), 4);

    let invoice = json!({"amount_sats": 7, "purpose": "topup"});
    twice(world, "h", INVOICE, pay, &invoice).await;
    let everything = twice(world, "i", REFUND, pay, &json!({})).await;
    assert_eq!(world.worth(&paid(&everything)).await, 119);
    call(world, "j", TOPUP, pay, &json!({"cashu_token": world.sats(2).await})).await.expect(200);
    let again = call(world, "i", REFUND, pay, &json!({})).await.expect(200);
    assert_eq!(paid(&again), paid(&everything), "it stays the refund that it was");
    assert_eq!(world.info(&key).await.available, 2_000);
    world.check_balanced().await;
}

#[tokio::test]
async fn a_reset_is_not_repeated_and_a_child_key_works() {
    let world = World::start().await;
    let parent = world.key(200).await;
    let asked = json!({"count": 1, "balance_limit": 100_000, "balance_limit_reset": "monthly"});
    let made = twice(&world, "a", CHILD_KEY, Pay::from(&parent), &asked).await.json();
    let child = Key(made["api_keys"][0].as_str().unwrap().to_owned());
    world.chat(&child, &chat("demo")).await.expect(200);
    let spent = world.settled(&child).await.spent;
    let which = json!({"child_key": child.0});
    let first = call(&world, "b", RESET, Pay::from(&parent), &which).await.expect(200);
    assert_eq!(first.json()["balance_limit_left"], 100_000);
    world.chat(&child, &chat("demo")).await.expect(200);
    world.settled(&child).await;
    let again = call(&world, "b", RESET, Pay::from(&parent), &which).await.expect(200);
    assert_eq!(again.text(), first.text(), "what it was told then");
    let info = world.fetch("/v1/balance/info", Pay::from(&parent)).await.json();
    assert_eq!(info["child_keys"][0]["balance_limit_left"], 100_000 - spent);
    // A child's key of this name is its own.
    let topup = json!({"cashu_token": world.sats(4).await});
    twice(&world, "a", TOPUP, Pay::from(&child), &topup).await;
    assert_eq!(world.settled(&parent).await.available, 204_000 - 2 * spent);
}

#[tokio::test]
async fn what_is_refused_frees_its_key_and_leaves_nothing() {
    let world = World::start().await;
    let key = world.key(100).await;
    let pay = Pay::from(&key);
    let refund = |sats: u64| json!({"amount_sats": sats});
    let answer = call(&world, "a", REFUND, pay, &refund(1_000)).await;
    answer.expect_error(400, "invalid_request", "balance_too_small_to_refund");
    call(&world, "a", REFUND, pay, &refund(10)).await.expect(200);
    let stranger = Key(format!("sk-{}", "0".repeat(32)));
    for (path, body) in [(TOPUP, json!({"cashu_token": world.sats(2).await})), (REFUND, json!({}))]
    {
        let answer = call(&world, "a", path, Pay::from(&stranger), &body).await;
        answer.expect_error(401, "authentication_failed", "invalid_api_key");
    }
    let answer = call(&world, "a", CREATE, Pay::Nothing, &json!({})).await;
    answer.expect_error(400, "invalid_request", "invalid_value");
    let remembered: u32 = world
        .gateway
        .database()
        .query_row("SELECT COUNT(*) FROM once", [], |row| row.get(0))
        .unwrap();
    assert_eq!(remembered, 1);
    // Whoever shows nobody is served, and nobody can be told the other's answer.
    let invoice = json!({"amount_sats": 7, "purpose": "create"});
    let one = call(&world, "a", INVOICE, Pay::Nothing, &invoice).await.expect(200).json();
    let two = call(&world, "a", INVOICE, Pay::Nothing, &invoice).await.expect(200).json();
    assert_ne!(one["invoice_id"], two["invoice_id"]);
}

#[tokio::test]
async fn change_that_was_lost_is_claimed_under_a_key_too() {
    let world = World::start().await;
    let purse = world.purse(Way::XCashu).await;
    let answer = world.chat(purse.pay(), &chat("demo")).await.expect(200);
    let claimed = twice(&world, "a", REFUND, purse.pay(), &json!({})).await;
    assert_eq!(claimed.change(), answer.change());
    world.cost(&purse, Some(&answer)).await;
}

#[tokio::test]
async fn many_at_once_are_one() {
    let world = World::with(Setting { fleet: Some(Fleet::of(2)), ..Setting::default() }).await;
    let key = world.key(100).await;
    let body = json!({"amount_sats": 5});
    let calls = (0..16).map(async |turn| {
        let asked = async {
            loop {
                let pay = Pay::from(&key);
                let answer = try_call(&world, turn, "a", REFUND, pay, &body).await.unwrap();
                if answer.status == 200 {
                    return answer.json()["token"].as_str().unwrap().to_owned();
                }
                answer.expect_error(409, "invalid_request", "idempotency_in_flight");
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        within("it is answered", asked).await
    });
    let paid = futures_util::future::join_all(calls).await;
    assert!(paid.iter().all(|ecash| *ecash == paid[0]));
    assert_eq!(world.worth(&paid[0]).await, 5);
    assert_eq!(world.info(&key).await.available, 95_000);
}

/// A call whose process dies, and who makes it.
struct Made {
    name: String,
    path: &'static str,
    key: Key,
    body: Value,
}

async fn calls_to_die_in(world: &World, step: Step) -> Vec<Made> {
    let mut calls = Vec::new();
    for (path, body) in [
        (CREATE, json!({"initial_balance_token": world.sats(30).await})),
        (TOPUP, json!({"cashu_token": world.sats(7).await})),
        (REFUND, json!({"amount_sats": 3})),
        (CHILD_KEY, json!({"count": 2})),
    ] {
        let key = match body["initial_balance_token"].as_str() {
            Some(ecash) => Key::of(ecash),
            None => world.key(50).await,
        };
        calls.push(Made { name: format!("{path}-{step:?}"), path, key, body });
    }
    calls
}

#[tokio::test]
async fn a_call_in_which_the_process_dies_is_made_once() {
    let mint_timeout = json!({"mint_timeout": "1s"});
    let mut world = World::with(Setting::config(mint_timeout)).await;
    let mut calls = Vec::new();
    for step in Step::OF_CALL {
        calls.extend(calls_to_die_in(&world, step).await.into_iter().map(|call| (step, call)));
    }
    for (step, Made { name, path, key, body }) in &calls {
        world.gateway.set_env("NUTGATE_CRASH_AT", &step.name());
        world.gateway.restart().await;
        let lost = try_call(&world, 0, name, path, Pay::from(key), body).await;
        assert!(lost.is_err(), "it died: {name}");
        let status = world.gateway.ended().await;
        assert_eq!(status.signal(), Some(Signal::SIGKILL as i32), "{name}: {status}");
    }
    world.gateway.clear_env("NUTGATE_CRASH_AT");
    world.gateway.restart().await;
    for (_, Made { name, path, key, body }) in &calls {
        let asked = async {
            loop {
                let answer = call(&world, name, path, Pay::from(key), body).await;
                if answer.status == 200 {
                    return answer;
                }
                // As long as its process may be alive.
                answer.expect_error(409, "invalid_request", "idempotency_in_flight");
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        let answer = within("it is executed again", asked).await;
        let again = call(&world, name, path, Pay::from(key), body).await.expect(200);
        assert_eq!(again.text(), answer.text());
        check_done(&world, path, key, &answer).await;
    }
    world.check_balanced().await;
}

async fn check_done(world: &World, path: &str, key: &Key, answer: &Answer) {
    let available = world.info(key).await.available;
    match path {
        CREATE => assert_eq!(available, 30_000),
        TOPUP => assert_eq!(available, 57_000),
        REFUND => {
            assert_eq!(world.worth(answer.json()["token"].as_str().unwrap()).await, 3);
            assert_eq!(available, 47_000);
        }
        CHILD_KEY => {
            let info = world.fetch("/v1/balance/info", Pay::from(key)).await.json();
            let children = info["child_keys"].as_array().unwrap().len();
            let keys = answer.json()["api_keys"].as_array().unwrap().clone();
            assert_eq!((children, keys.len()), (2, 2), "{info}");
            for child in keys {
                let child = Key(child.as_str().unwrap().to_owned());
                assert_eq!(world.info(&child).await.available, 50_000);
            }
        }
        _ => unreachable!("{path} is not called"),
    }
}

#[tokio::test]
async fn a_request_whose_process_dies_with_its_answer_kept_is_charged_once() {
    for way in Way::ALL {
        let mut world = World::start().await;
        let purse = world.purse(way).await;
        world.gateway.set_env("NUTGATE_CRASH_AT", &Step::AnswerKept.name());
        world.gateway.restart().await;
        let path = "/v1/chat/completions";
        let lost = try_call(&world, 0, "a", path, purse.pay(), &chat("demo")).await;
        assert!(lost.is_err());
        world.gateway.ended().await;
        world.gateway.clear_env("NUTGATE_CRASH_AT");
        world.gateway.restart().await;
        let answer = call(&world, "a", path, purse.pay(), &chat("demo")).await.expect(200);
        let again = call(&world, "a", path, purse.pay(), &chat("demo")).await.expect(200);
        assert_eq!(again.text(), answer.text());
        let cost = crate::support::PRICE.cost(7, 20);
        assert_eq!(world.cost(&purse, Some(&again)).await, cost, "{way:?}");
        world.check_balanced().await;
    }
}
