//! Child keys: they spend their parent's balance under limits that only the parent sets, see
//! nothing of it but what they may spend, and end when the parent says so.

use std::collections::BTreeSet;

use nutgate::clock::UnixMs;
use nutgate::ledger::CHILDREN_MAX;
use reqwest::Method;
use sha2::{Digest, Sha256};

use crate::support::{
    Answer, Fleet, Key, LOOK_AGAIN, Misbehaviour, PRICE, Pay, Setting, Value, World, chat, json,
    length, model_of, streamed, with, within,
};

const CHILD_KEY: &str = "/v1/balance/child-key";
const PREFIXES: [&str; 4] = ["/v1/balance", "/v1/wallet", "/balance", "/wallet"];

#[tokio::test]
async fn on_one_machine_balance_and_cap_move_together() {
    moves_together(&World::with(Setting::gated()).await).await;
}

#[tokio::test]
async fn in_a_fleet_balance_and_cap_move_together() {
    let world = World::with(Setting { fleet: Some(Fleet::of(2)), ..Setting::gated() }).await;
    moves_together(&world).await;
}

/// To the msat: what is reserved, what is spent, what the cap refuses, and what a reset gives back.
async fn moves_together(world: &World) {
    let parent = world.key(1_000).await;
    let (body, cost) = (with(chat("demo"), json!({"max_tokens": 100})), PRICE.cost(7, 20));
    let ceiling = PRICE.ceiling(length(body.to_string()), 100, 1);
    assert!(cost < ceiling, "so that what is held differs from what is spent");
    let cap = ceiling + cost;
    let asked = json!({"count": 2, "balance_limit": cap, "balance_limit_reset": "monthly"});
    let made = make(world, &parent, &asked).await;
    let slow = with(body.clone(), json!({"model": model_of(Misbehaviour::Slow)}));
    let slow_ceiling = PRICE.ceiling(length(slow.to_string()), 100, 1);

    let open = world.chat_later(&made[0], &slow);
    world.asked(1).await;
    check(world, &made[0], cap - slow_ceiling, slow_ceiling, 0).await;
    check(world, &parent, 1_000_000 - slow_ceiling, slow_ceiling, 0).await;
    world.upstream.open_gate();
    open.answer().await.expect(200);
    world.settled(&parent).await;
    check(world, &made[0], cap - cost, 0, cost).await;
    check(world, &made[1], cap, 0, 0).await;
    check(world, &parent, 1_000_000 - cost, 0, cost).await;

    world.chat_at(1, &made[0], &body).await.expect(200);
    world.settled(&parent).await;
    let left = cap - 2 * cost;
    assert!(left < ceiling);
    let refused = world.chat_at(0, &made[0], &body).await;
    let refused = refused.expect_error(402, "insufficient_balance", "balance_limit_exceeded");
    assert_eq!(refused.json()["error"]["details"]["available"], left);
    check(world, &made[0], left, 0, 2 * cost).await;
    check(world, &parent, 1_000_000 - 2 * cost, 0, 2 * cost).await;
    world.chat_at(1, &made[1], &body).await.expect(200);
    world.settled(&parent).await;

    let reset = json!({"id": id_of(&made[0])});
    let answer = world.post(&format!("{CHILD_KEY}/reset"), Pay::from(&parent), &reset).await;
    assert_eq!(answer.expect(200).json()["balance_limit_left"], cap);
    check(world, &made[0], cap, 0, 2 * cost).await;
    world.chat_at(1, &made[0], &body).await.expect(200);
    world.settled(&parent).await;
    check(world, &parent, 1_000_000 - 4 * cost, 0, 4 * cost).await;
    // The other form: existing clients show the child's key.
    let reset = json!({"child_key": made[0].0});
    world.post(&format!("{CHILD_KEY}/reset"), Pay::from(&parent), &reset).await.expect(200);
    check(world, &made[0], cap, 0, 3 * cost).await;

    revoke(world, &parent, &id_of(&made[0])).await.expect(200);
    for gateway in [0, 1] {
        let refused = world.chat_at(gateway, &made[0], &body).await;
        refused.expect_error(401, "authentication_failed", "key_expired");
    }
    assert_eq!(listed(world, &parent).await, [id_of(&made[1])]);
    check(world, &parent, 1_000_000 - 4 * cost, 0, 4 * cost).await;
    world.check_balanced().await;
}

#[tokio::test]
async fn a_child_is_made_and_told_as_clients_read_it() {
    let world = World::start().await;
    let parent = world.key(50).await;
    let later = UnixMs::now().whole_seconds() + 3_600;
    let asked = json!({
        "count": 2, "balance_limit": 7_000, "balance_limit_reset": "weekly",
        "validity_date": later,
    });
    let made = world.post(CHILD_KEY, Pay::from(&parent), &asked).await.expect(200).json();
    let keys = keys_of(&made);
    let expected = json!({
        "api_keys": made["api_keys"], "count": 2, "cost_msats": 0, "cost_sats": 0,
        "parent_balance": 50_000, "parent_balance_sats": 50,
    });
    assert_eq!(made, expected);
    for key in &keys {
        assert!(key.0.starts_with("sk-") && key.0.len() == 35, "a key like any other");
    }
    let child = |key: &Key| {
        json!({
            "id": id_of(key), "total_requests": 0, "total_spent": 0, "reserved": 0,
            "balance_limit": 7_000, "balance_limit_left": 7_000, "balance_limit_reset": "weekly",
            "validity_date": later,
        })
    };
    let mut children: Vec<Value> = keys.iter().map(child).collect();
    children.sort_by_key(|child| child["id"].as_str().unwrap().to_owned());
    let info = world.fetch("/v1/balance/info", Pay::from(&parent)).await.expect(200);
    assert_eq!(info.json()["child_keys"], json!(children));
    assert_eq!(info.json()["is_child"], false);
    for key in &keys {
        assert!(!info.text().contains(&key.0[3..]), "a key is shown once");
    }

    let info = world.fetch("/v1/balance/info", Pay::from(&keys[0])).await.expect(200);
    let preview: String = id_of(&parent).chars().take(8).chain(['…']).collect();
    let expected = json!({
        "api_key": keys[0].0, "balance": 7_000, "reserved": 0, "is_child": true,
        "parent_key_preview": preview, "total_requests": 0, "total_spent": 0,
        "balance_limit": 7_000, "balance_limit_reset": "weekly", "validity_date": later,
    });
    assert_eq!(info.json(), expected);
    let free = make(&world, &parent, &json!({"count": 1})).await;
    let info = world.fetch("/v1/balance/info", Pay::from(&free[0])).await.expect(200).json();
    assert_eq!(info["balance"], 50_000, "without a limit it may spend all there is");
    assert_eq!(info["balance_limit"], Value::Null);
}

#[tokio::test]
async fn every_path_is_there_under_its_four_names() {
    let world = World::start().await;
    let parent = world.key(50).await;
    for prefix in PREFIXES {
        let path = format!("{prefix}/child-key");
        let made = world.post(&path, Pay::from(&parent), &json!({"count": 1})).await.expect(200);
        let id = id_of(&keys_of(&made.json())[0]);
        let (reset, asked) = (format!("{path}/reset"), json!({"id": id}));
        let answer = world.post(&reset, Pay::from(&parent), &asked).await;
        assert_eq!(answer.expect(200).json()["id"], id);
        for _ in 0..2 {
            let revoked = delete(&world, &format!("{path}/{id}"), Pay::from(&parent)).await;
            let expected = json!({"id": id, "deleted": true});
            assert_eq!(revoked.expect(200).json(), expected, "and once more is the same");
        }
        let answer = world.post(&reset, Pay::from(&parent), &asked).await;
        answer.expect_error(404, "not_found", "child_key_not_found");
    }
}

#[tokio::test]
async fn what_cannot_be_asked_names_its_field() {
    let world = World::start().await;
    let parent = world.key(50).await;
    for (wrong, field) in [
        (json!({"count": null}), "count"),
        (json!({"count": 0}), "count"),
        (json!({"count": 51}), "count"),
        (json!({"count": "2"}), "count"),
        (json!({"count": 1.5}), "count"),
        (json!({"count": -1}), "count"),
        (json!({"balance_limit": -1}), "balance_limit"),
        (json!({"balance_limit": 1.5}), "balance_limit"),
        (json!({"balance_limit": "7"}), "balance_limit"),
        (json!({"balance_limit_reset": "daily"}), "balance_limit"),
        (json!({"balance_limit": 1, "balance_limit_reset": "hourly"}), "balance_limit_reset"),
        (json!({"validity_date": 1}), "validity_date"),
        (json!({"validity_date": u64::MAX}), "validity_date"),
        (json!({"validity_date": "tomorrow"}), "validity_date"),
    ] {
        let body = with(json!({"count": 1}), wrong);
        let answer = world.post(CHILD_KEY, Pay::from(&parent), &body).await;
        let answer = answer.expect_error(400, "invalid_request", "invalid_value");
        assert_eq!(answer.json()["error"]["details"]["param"], field, "{body}");
    }
    let reset = format!("{CHILD_KEY}/reset");
    for (body, field) in [
        (json!({}), "id"),
        (json!({"id": 7}), "id"),
        (json!({"child_key": "cashuBabc"}), "child_key"),
        (json!({"child_key": "sk-\nshort"}), "child_key"),
    ] {
        let answer = world.post(&reset, Pay::from(&parent), &body).await;
        let answer = answer.expect_error(400, "invalid_request", "invalid_value");
        assert_eq!(answer.json()["error"]["details"]["param"], field, "{body}");
    }
    let answer = world.post(CHILD_KEY, Pay::Nothing, &json!({"count": 1})).await;
    answer.expect_error(401, "authentication_failed", "missing_api_key");
    assert_eq!(listed(&world, &parent).await, [""; 0]);
}

#[tokio::test]
async fn a_parent_has_so_many_children_and_is_told_how_many_more() {
    let world = World::start().await;
    let parent = world.key(50).await;
    let mut all = BTreeSet::new();
    for _ in 0..CHILDREN_MAX / 50 {
        all.extend(make(&world, &parent, &json!({"count": 50})).await.iter().map(id_of));
    }
    assert_eq!(all.len(), CHILDREN_MAX, "every key is another");
    let answer = world.post(CHILD_KEY, Pay::from(&parent), &json!({"count": 1})).await;
    let answer = answer.expect_error(409, "invalid_request", "too_many_child_keys");
    assert_eq!(answer.json()["error"]["details"]["left"], 0);
    revoke(&world, &parent, all.first().unwrap()).await.expect(200);
    make(&world, &parent, &json!({"count": 1})).await;
    assert_eq!(listed(&world, &parent).await.len(), CHILDREN_MAX);
}

/// Every endpoint, with the child's key wherever a key can stand.
#[tokio::test]
async fn a_child_reaches_nothing_but_its_own() {
    let world = World::start().await;
    let parent = world.key(1_000).await;
    let asked = json!({"count": 2, "balance_limit": 1});
    let made = make(&world, &parent, &asked).await;
    let (child, sibling) = (&made[0], &made[1]);
    let ids = [id_of(child), id_of(sibling), id_of(&parent)];
    let forbidden = |answer: Answer| drop(answer.expect_error(403, "forbidden", "child_key"));
    for prefix in PREFIXES {
        let path = format!("{prefix}/child-key");
        for body in [json!({"count": 1}), json!({"count": 1, "balance_limit": 900_000})] {
            forbidden(world.post(&path, Pay::from(child), &body).await);
        }
        let reset = format!("{path}/reset");
        for id in &ids {
            forbidden(world.post(&reset, Pay::from(child), &json!({"id": id})).await);
            forbidden(delete(&world, &format!("{path}/{id}"), Pay::from(child)).await);
        }
        forbidden(world.post(&reset, Pay::from(child), &json!({"child_key": child.0})).await);
        for body in [json!({}), json!({"amount_sats": 1})] {
            forbidden(world.post(&format!("{prefix}/refund"), Pay::from(child), &body).await);
        }
    }
    // As if it were ecash.
    let terms = json!({"balance_limit": 900_000, "validity_date": u64::MAX});
    for body in [
        json!({"initial_balance_token": child.0}),
        with(
            terms.clone(),
            json!({
                "initial_balance_token": child.0
            }),
        ),
    ] {
        world.post("/v1/balance/create", Pay::from(child), &body).await.expect(400);
    }
    let body = json!({"cashu_token": child.0});
    world.post("/v1/balance/topup", Pay::from(child), &body).await.expect(400);
    world.post("/v1/balance/refund", Pay::XCashu(&child.0), &json!({})).await.expect(401);
    // A top-up has no terms to give.
    for more in [json!({"balance_limit": 900_000}), json!({"validity_date": u64::MAX})] {
        let body = with(json!({"amount_sats": 1, "purpose": "topup"}), more);
        world.post("/lightning/invoice", Pay::from(child), &body).await.expect(400);
    }
    let ecash = world.sats(5).await;
    let body = with(terms, json!({"cashu_token": ecash}));
    world.post("/v1/balance/topup", Pay::from(child), &body).await.expect(200);

    let info = world.fetch("/v1/balance/info", Pay::from(child)).await.expect(200);
    let history = world.fetch("/v1/balance/history", Pay::from(child)).await.expect(200);
    for hidden in [&ids[1], &ids[2], &parent.0, &sibling.0] {
        assert!(!info.text().contains(hidden) && !history.text().contains(hidden));
    }
    assert_eq!(info.json()["balance_limit"], 1);
    assert_eq!(info.json().get("child_keys"), None);
    let answer = world.chat(child, &chat("demo")).await;
    answer.expect_error(402, "insufficient_balance", "balance_limit_exceeded");
    assert_eq!(listed(&world, &parent).await.len(), 2);
    assert_eq!(world.info(&parent).await.available, 1_005_000);
}

#[tokio::test]
async fn only_its_own_parent_changes_a_child() {
    let world = World::start().await;
    let (parent, other) = (world.key(50).await, world.key(50).await);
    let child = make(&world, &parent, &json!({"count": 1, "balance_limit": 9})).await.remove(0);
    let nobody = "0".repeat(64);
    for id in [&id_of(&child), &id_of(&parent), &id_of(&other), &nobody, &"0".repeat(63)] {
        let path = format!("{CHILD_KEY}/reset");
        let reset = world.post(&path, Pay::from(&other), &json!({"id": id})).await;
        reset.expect_error(404, "not_found", "child_key_not_found");
        let revoked = revoke(&world, &other, id).await;
        revoked.expect_error(404, "not_found", "child_key_not_found");
    }
    revoke(&world, &parent, &child.0).await.expect_error(404, "not_found", "child_key_not_found");
    assert_eq!(listed(&world, &parent).await, [id_of(&child)]);
}

#[tokio::test]
async fn what_a_child_pays_in_is_its_parents() {
    let world = World::with(Setting { fleet: Some(Fleet::of(1)), ..Setting::default() }).await;
    let parent = world.key(50).await;
    let child = make(&world, &parent, &json!({"count": 1})).await.remove(0);
    let body = json!({"cashu_token": world.sats(7).await});
    for key in [&child, &child, &parent] {
        let added = world.post("/v1/balance/topup", Pay::from(key), &body).await.expect(200);
        assert_eq!(added.json(), json!({"msats": 7_000}), "credited once, whoever repeats it");
    }
    assert_eq!(world.info(&parent).await.available, 57_000);
    let asked = json!({"amount_sats": 3, "purpose": "topup"});
    world.post("/lightning/invoice", Pay::from(&child), &asked).await.expect(200);
    let paid = async {
        while world.info(&parent).await.available != 60_000 {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    within("the payment is the parent's", paid).await;
    world.refund(&parent).await.expect(200);
    world.check_balanced().await;
}

#[tokio::test]
async fn a_parents_history_has_its_childrens_requests_and_a_childs_only_its_own() {
    let world = World::start().await;
    let parent = world.key(1_000).await;
    let made = make(&world, &parent, &json!({"count": 2})).await;
    let mut asked = Vec::new();
    for key in [&parent, &made[0], &made[1], &made[0]] {
        let answer = world.chat(key, &streamed("demo")).await.expect(200);
        asked.push(answer.header("x-request-id").unwrap().to_owned());
        world.settled(&parent).await;
    }
    let requests = async |key: &Key| -> Vec<String> {
        let history = world.fetch("/v1/balance/history", Pay::from(key)).await.expect(200).json();
        let entries = history["data"].as_array().unwrap().iter();
        let ids = entries.filter_map(|entry| entry["request_id"].as_str().map(str::to_owned));
        ids.collect()
    };
    let newest = |nth: &[usize]| nth.iter().map(|nth| asked[*nth].clone()).collect::<Vec<_>>();
    assert_eq!(requests(&parent).await, newest(&[3, 2, 1, 0]));
    assert_eq!(requests(&made[0]).await, newest(&[3, 1]));
    assert_eq!(requests(&made[1]).await, newest(&[2]));
}

#[tokio::test]
async fn a_child_that_is_over_sees_and_pays_nothing_any_more() {
    let world = World::start().await;
    let parent = world.key(1_000).await;
    let revoked = make(&world, &parent, &json!({"count": 1})).await.remove(0);
    revoke(&world, &parent, &id_of(&revoked)).await.expect(200);
    let soon = UnixMs::now().whole_seconds() + 2;
    let expired = make(&world, &parent, &json!({"count": 1, "validity_date": soon})).await;
    let over = async {
        while world.fetch("/v1/balance", Pay::from(&expired[0])).await.status == 200 {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    within("its time is over", over).await;
    let ecash = world.sats(5).await;
    for key in [&revoked, &expired[0]] {
        let pay = Pay::from(key);
        for answer in [
            world.chat(key, &chat("demo")).await,
            world.fetch("/v1/balance/info", pay).await,
            world.fetch("/v1/balance/history", pay).await,
            world.post(CHILD_KEY, pay, &json!({"count": 1})).await,
            world.post("/v1/balance/topup", pay, &json!({"cashu_token": ecash})).await,
        ] {
            answer.expect_error(401, "authentication_failed", "key_expired");
        }
        world.refund(key).await.expect_error(403, "forbidden", "child_key");
    }
    assert!(!world.is_spent(&ecash).await, "nothing is taken");
    assert_eq!(listed(&world, &parent).await, [id_of(&expired[0])], "it can still be revoked");
}

/// What a key may not do itself it does not do through a child either.
#[tokio::test]
async fn a_child_is_no_way_around_its_parents_terms() {
    let world = World::start().await;
    let end = UnixMs::now().whole_seconds() + 3_600;
    let parent = key_under(&world, &json!({"validity_date": end})).await;
    let child = make(&world, &parent, &json!({"count": 1})).await.remove(0);
    let info = world.fetch("/v1/balance", Pay::from(&child)).await.expect(200).json();
    assert_eq!(info["validity_date"], end, "it ends with its parent");
    make(&world, &parent, &json!({"count": 1, "validity_date": end})).await;
    let longer = json!({"count": 1, "validity_date": end + 1});
    let answer = world.post(CHILD_KEY, Pay::from(&parent), &longer).await;
    let answer = answer.expect_error(400, "invalid_request", "invalid_value");
    assert_eq!(answer.json()["error"]["details"]["param"], "validity_date");
    let capped = key_under(&world, &json!({"balance_limit": 1_000})).await;
    let answer = world.post(CHILD_KEY, Pay::from(&capped), &json!({"count": 1})).await;
    answer.expect_error(403, "forbidden", "child_key");
}

/// A key of 50 sat that a Lightning payment opened, under these terms.
async fn key_under(world: &World, terms: &Value) -> Key {
    let asked = with(json!({"amount_sats": 50, "purpose": "create"}), terms.clone());
    let offered = world.post("/lightning/invoice", Pay::Nothing, &asked).await.expect(200).json();
    let id = offered["invoice_id"].as_str().unwrap();
    let status = format!("/lightning/invoice/{id}/status");
    let paid = async {
        loop {
            let status = world.fetch(&status, Pay::Nothing).await.expect(200).json();
            if let Some(key) = status["api_key"].as_str() {
                return Key(key.to_owned());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    within("the invoice is paid", paid).await
}

#[tokio::test]
async fn a_child_key_is_never_written_down() {
    let world = World::start().await;
    let parent = world.key(1_000).await;
    let child = make(&world, &parent, &json!({"count": 1})).await.remove(0);
    world.chat(&child, &chat("demo")).await.expect(200);
    let reset = json!({"child_key": child.0});
    world.post(&format!("{CHILD_KEY}/reset"), Pay::from(&parent), &reset).await.expect(200);
    revoke(&world, &parent, &child.0).await.expect(404);
    assert!(!world.gateway.log().contains(&child.0[3..]));
    for file in std::fs::read_dir(world.gateway.data_dir()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        let secret = &child.0.as_bytes()[3..];
        assert!(!bytes.windows(secret.len()).any(|window| window == secret));
    }
}

/// What a key may spend, has reserved and has spent, at every gateway.
async fn check(world: &World, key: &Key, balance: u64, reserved: u64, spent: u64) {
    for gateway in std::iter::once(&world.gateway).chain(&world.others) {
        let request = world.request_to(gateway, Method::GET, "/v1/balance", Pay::from(key));
        let info = Answer::read(request.send().await.unwrap()).await.unwrap().expect(200).json();
        let found = [&info["balance"], &info["reserved"], &info["total_spent"]];
        assert_eq!(found, [balance, reserved, spent], "{info}");
    }
}

async fn make(world: &World, parent: &Key, asked: &Value) -> Vec<Key> {
    keys_of(&world.post(CHILD_KEY, Pay::from(parent), asked).await.expect(200).json())
}

fn keys_of(made: &Value) -> Vec<Key> {
    let keys = made["api_keys"].as_array().unwrap().iter();
    keys.map(|key| Key(key.as_str().unwrap().to_owned())).collect()
}

/// By which a parent knows a child: the hash of its key.
fn id_of(key: &Key) -> String {
    hex::encode(Sha256::digest(&key.0))
}

async fn listed(world: &World, parent: &Key) -> Vec<String> {
    let info = world.fetch("/v1/balance/info", Pay::from(parent)).await.expect(200).json();
    let children = info["child_keys"].as_array().into_iter().flatten();
    children.map(|child| child["id"].as_str().unwrap().to_owned()).collect()
}

async fn revoke(world: &World, parent: &Key, id: &str) -> Answer {
    delete(world, &format!("{CHILD_KEY}/{id}"), Pay::from(parent)).await
}

async fn delete(world: &World, path: &str, pay: Pay<'_>) -> Answer {
    let request = world.request(Method::DELETE, path, pay);
    Answer::read(request.send().await.unwrap()).await.unwrap()
}
