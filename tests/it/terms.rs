//! The limits that a key is created with are its own from its first moment and for ever: no
//! crash leaves a key without them, and nobody changes them by creating it again.

use std::os::unix::process::ExitStatusExt;

use nix::sys::signal::Signal;
use nutgate::clock::UnixMs;
use nutgate::crash::Step;
use reqwest::Method;

use crate::support::{
    Answer, Fleet, Gateway, Key, LOOK_AGAIN, PRICE, Pay, Setting, Value, World, chat, json, with,
    within,
};

const CREATE: &str = "/v1/balance/create";

#[tokio::test]
async fn a_key_has_the_limits_that_it_was_created_with_by_query_or_body() {
    let world = World::start().await;
    let later = in_an_hour();
    let ecash = world.sats(50).await;
    let query = format!(
        "{CREATE}?initial_balance_token={ecash}&balance_limit=7000&balance_limit_reset=weekly\
         &validity_date={later}"
    );
    let created = world.fetch(&query, Pay::Nothing).await.expect(200).json();
    assert_eq!(created, json!({"api_key": Key::of(&ecash).0, "balance": 50_000}));
    assert_eq!(terms(&world, &Key::of(&ecash)).await, json!([7_000, "weekly", later]));

    let body = chat("demo");
    let limit = PRICE.cost(7, 20);
    let asked = json!({"balance_limit": limit, "balance_limit_reset": null});
    let key = created_with(&world, &world.sats(50).await, asked).await;
    assert_eq!(terms(&world, &key).await, json!([limit, null, null]));
    let refused = world.chat(&key, &body).await;
    refused.expect_error(402, "insufficient_balance", "balance_limit_exceeded");
    let ended = created_with(&world, &world.sats(50).await, json!({"validity_date": later})).await;
    assert_eq!(terms(&world, &ended).await, json!([null, null, later]));
    world.chat(&ended, &body).await.expect(200);
    // Limits are about spending: all of it can be paid back.
    assert_eq!(world.refund(&key).await.expect(200).json()["msats"], "50000");
    world.check_balanced().await;
}

#[tokio::test]
async fn creating_it_again_changes_no_limit_whoever_asks() {
    let world = World::start().await;
    let ecash = world.sats(50).await;
    let asked = json!({
        "balance_limit": 7_000, "balance_limit_reset": "daily", "validity_date": in_an_hour(),
    });
    let key = created_with(&world, &ecash, asked.clone()).await;
    let free = world.key(50).await;
    let before = terms(&world, &key).await;
    let made = json!({"count": 1, "balance_limit": 3_000, "validity_date": in_an_hour()});
    let made = world.post("/v1/balance/child-key", Pay::from(&free), &made).await.expect(200);
    let child = Key(made.json()["api_keys"][0].as_str().unwrap().to_owned());
    let childs = terms(&world, &child).await;
    for again in [
        json!({}),
        json!({"balance_limit": 50_000}),
        json!({"balance_limit": 50_000, "balance_limit_reset": "monthly"}),
        json!({"balance_limit": null, "balance_limit_reset": null, "validity_date": null}),
        json!({"validity_date": in_an_hour() + 1_000_000}),
    ] {
        for pay in [Pay::Nothing, Pay::from(&key), Pay::from(&free), Pay::from(&child)] {
            let body = with(json!({"initial_balance_token": ecash}), again.clone());
            let answer = world.post(CREATE, pay, &body).await.expect(200);
            assert_eq!(answer.json(), json!({"api_key": key.0, "balance": 50_000}));
        }
    }
    assert_eq!(terms(&world, &key).await, before);
    assert_eq!(terms(&world, &child).await, childs, "nor a child's");
    // The ecash as a key, used before it was created with limits, is an account that exists.
    let ecash = world.sats(50).await;
    world.info(Pay::Bearer(&ecash)).await;
    let unlimited = created_with(&world, &ecash, asked).await;
    assert_eq!(terms(&world, &unlimited).await, json!([null, null, null]));
    // A child's key is no ecash: it cannot be created again at all.
    let body = json!({"initial_balance_token": child.0, "balance_limit": 1_000_000});
    let answer = world.post(CREATE, Pay::from(&child), &body).await;
    answer.expect_error(400, "invalid_request", "invalid_cashu_token");
    assert_eq!(terms(&world, &child).await, childs);
}

#[tokio::test]
async fn a_limit_that_cannot_be_names_its_field_and_takes_nothing() {
    let world = World::start().await;
    let ecash = world.sats(50).await;
    for (wrong, field) in [
        (json!({"balance_limit": -1}), "balance_limit"),
        (json!({"balance_limit": 1.5}), "balance_limit"),
        (json!({"balance_limit": "all"}), "balance_limit"),
        (json!({"balance_limit": 1_u64 << 53}), "balance_limit"),
        (json!({"balance_limit_reset": "daily"}), "balance_limit"),
        (json!({"balance_limit": 1, "balance_limit_reset": "hourly"}), "balance_limit_reset"),
        (json!({"validity_date": 1}), "validity_date"),
        (json!({"validity_date": UnixMs::now().whole_seconds() - 1}), "validity_date"),
        (json!({"validity_date": u64::MAX}), "validity_date"),
        (json!({"validity_date": "tomorrow"}), "validity_date"),
    ] {
        let body = with(json!({"initial_balance_token": ecash}), wrong);
        let answer = world.post(CREATE, Pay::Nothing, &body).await;
        let answer = answer.expect_error(400, "invalid_request", "invalid_value");
        assert_eq!(answer.json()["error"]["details"]["param"], field, "{body}");
    }
    for (wrong, field) in [
        ("balance_limit=", "balance_limit"),
        ("balance_limit=1e3", "balance_limit"),
        ("balance_limit=1&balance_limit_reset=Daily", "balance_limit_reset"),
        ("validity_date=1", "validity_date"),
    ] {
        let path = format!("{CREATE}?initial_balance_token={ecash}&{wrong}");
        let answer = world.fetch(&path, Pay::Nothing).await;
        let answer = answer.expect_error(400, "invalid_request", "invalid_value");
        assert_eq!(answer.json()["error"]["details"]["param"], field, "{wrong}");
    }
    assert_eq!(world.mint.swap_count(), 0);
    assert_eq!(world.worth(&ecash).await, 50);
    // Now it is spent: whoever shows it opens nothing.
    let body = json!({"initial_balance_token": ecash, "balance_limit": 1});
    let answer = world.post(CREATE, Pay::Nothing, &body).await;
    answer.expect_error(400, "invalid_request", "cashu_token_already_spent");
    let answer = world.fetch("/v1/balance/info", Pay::from(&Key::of(&ecash))).await;
    answer.expect_error(401, "authentication_failed", "invalid_api_key");
    let accounts = "SELECT COUNT(*) FROM accounts";
    let count: u64 = world.gateway.database().query_row(accounts, [], |row| row.get(0)).unwrap();
    assert_eq!(count, 0, "nobody leaves accounts behind that were not paid for");
    let kept = "SELECT COUNT(*) FROM openings";
    let count: u64 = world.gateway.database().query_row(kept, [], |row| row.get(0)).unwrap();
    assert_eq!(count, 0);
}

#[tokio::test]
async fn no_crash_leaves_a_key_without_its_limits() {
    let mut world = World::start().await;
    for step in Step::OF_CREATE {
        let ecash = world.sats(50).await;
        let later = in_an_hour();
        let asked = json!({
            "initial_balance_token": ecash, "balance_limit": 7_000,
            "balance_limit_reset": "daily", "validity_date": later,
        });
        world.gateway.set_env(CRASH_AT, &step.name());
        world.gateway.restart().await;
        assert!(create_at(&world, &world.gateway, &asked).await.is_err(), "{step:?}");
        let died = world.gateway.ended().await;
        assert_eq!(died.signal(), Some(Signal::SIGKILL as i32), "{step:?}");
        world.check_balanced().await;
        world.gateway.clear_env(CRASH_AT);
        world.gateway.restart().await;
        if step == Step::RedeemRecorded {
            // The mint was not asked: the token is the client's, who asks for something else now.
            let key = created_with(&world, &ecash, json!({"balance_limit": 9_000})).await;
            assert_eq!(terms(&world, &key).await, json!([9_000, null, null]));
        } else {
            let key = Key::of(&ecash);
            assert_eq!(terms(&world, &key).await, json!([7_000, "daily", later]), "{step:?}");
            created_with(&world, &ecash, json!({"balance_limit": 50_000})).await;
            assert_eq!(terms(&world, &key).await, json!([7_000, "daily", later]), "{step:?}");
        }
        assert_eq!(world.info(&Key::of(&ecash)).await.available, 50_000);
        world.check_balanced().await;
    }
    assert_eq!(world.deposits(), [50_000; Step::OF_CREATE.len()]);
}

#[tokio::test]
async fn in_a_fleet_the_first_limits_win_and_another_gateway_keeps_them() {
    let setting = Setting { fleet: Some(Fleet::of(2)), ..Setting::default() };
    let mut world = World::with(setting).await;
    let ecash = world.sats(50).await;
    let with_limit = |limit: u64| json!({"initial_balance_token": ecash, "balance_limit": limit});
    let (one, two) = (with_limit(1_000), with_limit(2_000));
    let (first, second) = tokio::join!(
        create_at(&world, &world.gateway, &one),
        create_at(&world, &world.others[0], &two)
    );
    let expected = json!({"api_key": Key::of(&ecash).0, "balance": 50_000});
    assert_eq!(first.unwrap().expect(200).json(), expected);
    assert_eq!(second.unwrap().expect(200).json(), expected);
    let limit = terms(&world, &Key::of(&ecash)).await;
    assert!([json!([1_000, null, null]), json!([2_000, null, null])].contains(&limit), "{limit}");

    world.gateway.set_env(CRASH_AT, &Step::Redeemed.name());
    world.gateway.restart().await;
    let ecash = world.sats(50).await;
    let asked = json!({"initial_balance_token": ecash, "balance_limit": 3_000});
    assert!(create_at(&world, &world.gateway, &asked).await.is_err());
    world.gateway.ended().await;
    let finished = async {
        loop {
            let path = "/v1/balance/info";
            let key = Key::of(&ecash);
            let request = world.request_to(&world.others[0], Method::GET, path, Pay::from(&key));
            let answer = Answer::read(request.send().await.unwrap()).await.unwrap();
            // It is opened before what was paid is there.
            if answer.status == 200 && answer.json()["balance"] != 0 {
                return answer.json();
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    let info = within("the other gateway opens it", finished).await;
    assert_eq!((&info["balance_limit"], &info["balance"]), (&json!(3_000), &json!(50_000)));
    world.check_balanced().await;
}

/// Limit, reset and end of a key.
async fn terms(world: &World, key: &Key) -> Value {
    let info = world.fetch("/v1/balance/info", Pay::from(key)).await.expect(200).json();
    json!([info["balance_limit"], info["balance_limit_reset"], info["validity_date"]])
}

async fn created_with(world: &World, ecash: &str, asked: Value) -> Key {
    let body = with(json!({"initial_balance_token": ecash}), asked);
    let created = world.post(CREATE, Pay::Nothing, &body).await.expect(200).json();
    assert_eq!(created, json!({"api_key": Key::of(ecash).0, "balance": 50_000}));
    Key::of(ecash)
}

async fn create_at(world: &World, gateway: &Gateway, asked: &Value) -> reqwest::Result<Answer> {
    let request = world.request_to(gateway, Method::POST, CREATE, Pay::Nothing);
    Answer::read(request.body(asked.to_string()).send().await?).await
}

fn in_an_hour() -> u64 {
    UnixMs::now().whole_seconds() + 3_600
}

const CRASH_AT: &str = "NUTGATE_CRASH_AT";
