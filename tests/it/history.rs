//! `GET /v1/balance/history`: everything that happened to a balance is told, once, with all that
//! its cost was made of.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;

use nix::sys::signal::Signal;
use nutgate::crash::Step;
use reqwest::Method;

use crate::support::{
    Answer, Fleet, Key, LOOK_AGAIN, Misbehaviour, PRICE, Pay, Setting, Value, World, chat, json,
    model_of, streamed, within,
};

const HISTORY: &str = "/v1/balance/history";

#[tokio::test]
async fn on_one_machine_everything_that_happened_is_told_newest_first() {
    tells_everything(&World::start().await).await;
}

#[tokio::test]
async fn in_a_fleet_any_gateway_tells_everything_that_happened() {
    let setting = Setting { fleet: Some(Fleet::of(2)), ..Setting::default() };
    let world = World::with(setting).await;
    tells_everything(&world).await;
    world.check_balanced().await;
}

async fn tells_everything(world: &World) {
    let key = world.key(100).await;
    let cached = model_of(Misbehaviour::Cached);
    let unusable = model_of(Misbehaviour::Status500);
    let mut ids = Vec::new();
    for (turn, body) in
        [chat("demo"), streamed("demo"), chat(&cached), chat(&unusable)].iter().enumerate()
    {
        let answer = world.chat_at(turn, &key, body).await;
        ids.push(answer.header("x-request-id").unwrap().to_owned());
        world.settled(&key).await;
    }
    let ecash = world.sats(20).await;
    let asked = json!({ "cashu_token": ecash });
    let topped = world.post("/v1/balance/topup", Pay::from(&key), &asked).await;
    assert_eq!(topped.expect(200).json()["msats"], 20_000);
    let refund = world.refund(&key).await.expect(200).json();
    let refunded: u64 = refund["msats"].as_str().unwrap().parse().unwrap();

    let listed = whole(&world.fetch(HISTORY, Pay::from(&key)).await);
    check_entries(&listed, "refund", &[json!({"amount_msats": refunded})]);
    let deposits = [json!({"amount_msats": 20_000}), json!({"amount_msats": 100_000})];
    check_entries(&listed, "deposit", &deposits);
    let usage = |mut usage: Value| {
        usage["upstream"] = json!("sandbox");
        usage
    };
    let plain = usage(json!({"input_tokens": 7, "output_tokens": 20}));
    let cached_usage =
        usage(json!({"input_tokens": 7, "cached_input_tokens": 3, "output_tokens": 20}));
    let request = |nth: usize, model: &str, cost: u64, usage: &Value| {
        json!({
            "request_id": ids[nth], "model": model, "route": "/chat/completions", "how": "settled",
            "usage": usage, "usage_source": "upstream", "cost_msats": cost, "shortfall_msats": 0,
        })
    };
    let released = json!({
        "request_id": ids[3], "model": unusable, "route": "/chat/completions", "how": "released",
        "usage": {}, "usage_source": null, "cost_msats": 0, "shortfall_msats": 0,
    });
    let requests = [
        released,
        request(2, &cached, PRICE.cost_cached(7, 3, 20), &cached_usage),
        request(1, "demo", PRICE.cost(7, 20), &plain),
        request(0, "demo", PRICE.cost(7, 20), &plain),
    ];
    check_entries(&listed, "request", &requests);
    let kinds: Vec<&str> = listed.iter().map(|entry| entry["kind"].as_str().unwrap()).collect();
    let expect = ["refund", "deposit", "request", "request", "request", "request", "deposit"];
    assert_eq!(kinds, expect, "newest first");
    let times: Vec<u64> =
        listed.iter().map(|entry| entry["created_at"].as_u64().unwrap()).collect();
    assert!(times.is_sorted_by(|newer, older| newer >= older), "{times:?}");

    // It adds up, and every gateway says the same.
    let sum = |kind, amount| -> u64 {
        let entries = listed.iter().filter(|entry| entry["kind"] == kind);
        entries.map(|entry| entry[amount].as_u64().unwrap()).sum()
    };
    let gone = sum("refund", "amount_msats") + sum("request", "cost_msats");
    let balance = world.info(&key).await;
    assert_eq!((sum("deposit", "amount_msats") - gone, balance.reserved), (balance.available, 0));
    assert_eq!(sum("request", "cost_msats"), balance.spent);
    for gateway in std::iter::once(&world.gateway).chain(&world.others) {
        let request = world.request_to(gateway, Method::GET, HISTORY, Pay::from(&key));
        assert_eq!(whole(&Answer::read(request.send().await.unwrap()).await.unwrap()), listed);
    }
}

/// The entries of this kind have these members, among others.
#[track_caller]
fn check_entries(listed: &[Value], kind: &str, expect: &[Value]) {
    let found: Vec<&Value> = listed.iter().filter(|entry| entry["kind"] == kind).collect();
    assert_eq!(found.len(), expect.len(), "{listed:#?}");
    for (entry, expect) in found.iter().zip(expect) {
        for (name, value) in expect.as_object().unwrap() {
            assert_eq!(&entry[name], value, "{name} of {entry}");
        }
    }
}

/// The entries of an answer that is the first page and the last.
#[track_caller]
fn whole(answer: &Answer) -> Vec<Value> {
    let list = answer.clone().expect(200).json();
    assert_eq!((&list["object"], &list["has_more"]), (&json!("list"), &json!(false)));
    assert_eq!(list["next_cursor"], json!(null));
    list["data"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_usage_that_was_guessed_says_so() {
    let world = World::start().await;
    let key = world.key(100).await;
    let body = chat(&model_of(Misbehaviour::NoUsage));
    world.chat(&key, &body).await.expect(200);
    let spent = world.settled(&key).await.spent;
    let listed = whole(&world.fetch(HISTORY, Pay::from(&key)).await);
    let usage = &listed[0]["usage"];
    let count = |name: &str| usage[name].as_u64().unwrap();
    assert_eq!(listed[0]["usage_source"], "estimated");
    assert_eq!(PRICE.cost(count("input_tokens"), count("output_tokens")), spent);
}

#[tokio::test]
async fn pages_follow_each_other_whatever_is_bought_meanwhile_and_have_four_names() {
    let world = World::start().await;
    let key = world.key(500).await;
    for _ in 0..5 {
        world.chat(&key, &chat("demo")).await.expect(200);
    }
    world.settled(&key).await;
    let there = whole(&world.fetch(HISTORY, Pay::from(&key)).await);
    assert_eq!(there.len(), 6);
    let (mut met, mut query) = (Vec::new(), "limit=2".to_owned());
    for path in [HISTORY, "/v1/wallet/history", "/balance/history", "/wallet/history"] {
        let page = world.fetch(&format!("{path}?{query}"), Pay::from(&key)).await;
        let page = page.expect(200).json();
        met.extend(page["data"].as_array().unwrap().clone());
        world.chat(&key, &chat("demo")).await.expect(200);
        let Some(cursor) = page["next_cursor"].as_str() else {
            assert_eq!(page["has_more"], json!(false));
            break;
        };
        assert_eq!(page["has_more"], json!(true));
        query = format!("limit=2&cursor={cursor}");
    }
    assert_eq!(met, there, "each once, and nothing that came later");
}

#[tokio::test]
async fn a_limit_or_a_cursor_that_is_none_is_refused_by_name() {
    let world = World::start().await;
    let key = world.key(10).await;
    let field = |query: &str| query.split('=').next().unwrap().to_owned();
    for query in [
        "limit=0",
        "limit=101",
        "limit=-1",
        "limit=ten",
        "limit=",
        "cursor=7",
        "cursor=ffffffffffffff",
        "cursor=",
        "cursor=%27%20OR%201=1",
    ] {
        let refused = world.fetch(&format!("{HISTORY}?{query}"), Pay::from(&key)).await;
        let refused = refused.expect_error(400, "invalid_request", "invalid_value");
        assert_eq!(refused.json()["error"]["details"]["param"], field(query), "{query}");
    }
    for query in ["limit=1", "limit=100", "cursor=00000000000000", "cursor=1fffffffffffff"] {
        world.fetch(&format!("{HISTORY}?{query}"), Pay::from(&key)).await.expect(200);
    }
}

#[tokio::test]
async fn a_history_is_shown_to_whoever_has_the_account_and_to_nobody_else() {
    let world = World::start().await;
    let ecash = world.sats(50).await;
    let (key, other) = (world.key_of(&ecash).await, world.key(20).await);
    for _ in 0..3 {
        world.chat(&key, &chat("demo")).await.expect(200);
    }
    world.settled(&key).await;
    let own = whole(&world.fetch(HISTORY, Pay::from(&key)).await);
    assert_eq!(whole(&world.fetch(HISTORY, Pay::Bearer(&ecash)).await), own);
    assert_eq!(whole(&world.fetch(HISTORY, Pay::from(&Key::long_of(&ecash))).await), own);

    let page = world.fetch(&format!("{HISTORY}?limit=1"), Pay::from(&key)).await.expect(200);
    let cursor = page.json()["next_cursor"].as_str().unwrap().to_owned();
    let theirs = world.fetch(&format!("{HISTORY}?cursor={cursor}"), Pay::from(&other)).await;
    let theirs = whole(&theirs);
    assert_eq!((theirs.len(), &theirs[0]["amount_msats"]), (1, &json!(20_000)));

    let unknown = Key("sk-".to_owned() + &"0".repeat(32));
    let refused = world.fetch(HISTORY, Pay::from(&unknown)).await;
    refused.expect_error(401, "authentication_failed", "invalid_api_key");
    let refused = world.fetch(HISTORY, Pay::Nothing).await;
    refused.expect_error(401, "authentication_failed", "missing_api_key");
    let refused = world.post(HISTORY, Pay::from(&key), &json!({})).await;
    refused.expect_error(405, "invalid_request", "method_not_allowed");
}

#[tokio::test]
async fn a_history_goes_back_as_far_as_configuration_says_wherever_it_is_kept() {
    for fleet in [None, Some(Fleet::of(2))] {
        let config = json!({"history": {"entries_max": 3}});
        let world = World::with(Setting { config, fleet, ..Setting::default() }).await;
        let key = world.key(500).await;
        world.chat(&key, &chat("demo")).await.expect(200);
        world.settled(&key).await;
        let page = world.fetch(&format!("{HISTORY}?limit=1"), Pay::from(&key)).await.expect(200);
        let cursor = page.json()["next_cursor"].as_str().unwrap().to_owned();
        for turn in 0..4 {
            world.chat_at(turn, &key, &chat("demo")).await.expect(200);
            world.settled(&key).await;
        }
        let listed = whole(&world.fetch(HISTORY, Pay::from(&key)).await);
        assert_eq!(listed.len(), 3, "of a deposit and five requests");
        let behind = world.fetch(&format!("{HISTORY}?cursor={cursor}"), Pay::from(&key)).await;
        let behind = behind.expect(200).json();
        assert_eq!((&behind["data"], &behind["next_cursor"]), (&json!([]), &Value::Null));
        assert_eq!(world.info(&key).await.requests, 5);
        world.check_balanced().await;
    }
}

/// Killed before the end is recorded or right after it, and where money came in or went out.
#[tokio::test]
async fn nothing_is_told_twice_or_left_out_by_a_gateway_that_was_killed() {
    let mut world = World::start().await;
    let expect = [
        (Step::Deposited, vec!["deposit"]),
        (Step::Answered, vec!["request expired", "deposit"]),
        (Step::Settled, vec!["request settled", "deposit"]),
        (Step::WithdrawBegun, vec!["refund", "request settled", "deposit"]),
        (Step::WithdrawCommitted, vec!["refund", "request settled", "deposit"]),
    ];
    for (step, expect) in expect {
        let paid = world.sats(100).await;
        world.gateway.set_env("NUTGATE_CRASH_AT", &step.name());
        world.gateway.restart().await;
        let body = chat("demo").to_string();
        let path = "/v1/chat/completions";
        let cut = world.request(Method::POST, path, Pay::XCashu(&paid)).body(body).send().await;
        drop(cut);
        let status = world.gateway.ended().await;
        assert_eq!(status.signal(), Some(Signal::SIGKILL as i32), "at {step:?}");
        world.gateway.clear_env("NUTGATE_CRASH_AT");
        world.gateway.restart().await;
        let told = async {
            loop {
                let answer = world.fetch(HISTORY, Pay::Bearer(&paid)).await;
                let listed = whole(&answer);
                if listed.len() >= expect.len() {
                    return listed;
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        let listed = within("recovery", told).await;
        let names = listed.iter().map(|entry| {
            let part = |name: &str| entry[name].as_str().unwrap_or_default();
            format!("{} {}", part("kind"), part("how")).trim_end().to_owned()
        });
        assert_eq!(names.collect::<Vec<_>>(), expect, "{step:?}");
        let ids: BTreeSet<&str> =
            listed.iter().map(|entry| entry["id"].as_str().unwrap()).collect();
        assert_eq!(ids.len(), listed.len());
    }
    world.check_balanced().await;
}
