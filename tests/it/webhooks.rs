//! Webhooks: what happens to a key is posted to where its owner says, signed, at least once, across
//! restarts, and never to a place inside.

use std::collections::BTreeMap;

use reqwest::Method;

use crate::support::{
    Answer, Delivered, Fleet, Key, LOOK_AGAIN, PRICE, Pay, Receiver, Setting, Value, World, chat,
    json, within,
};

const WEBHOOKS: &str = "/v1/webhooks";
const ALL: [&str; 5] =
    ["balance.low", "key.expired", "balance.topup", "balance.refunded", "payment.settled"];
const SECRET: &str = "a secret of the test's choice";

/// Endpoints on this machine are allowed, and retried at once.
fn setting(webhooks: Value) -> Setting {
    let mut config = json!({"webhooks": {
        "allow_private": true, "low_balance_msats": 500_000, "retries": ["1ms", "1ms"],
    }});
    for (name, value) in webhooks.as_object().into_iter().flatten() {
        config["webhooks"][name] = value.clone();
    }
    Setting::config(config)
}

async fn register(world: &World, key: &Key, asked: &Value) -> Answer {
    world.post(WEBHOOKS, Pay::from(key), asked).await
}

/// A webhook for these events, signed by [`SECRET`]; answers its id.
async fn hook(world: &World, key: &Key, url: &str, events: &[&str]) -> String {
    let asked = json!({"url": url, "events": events, "secret": SECRET});
    let made = register(world, key, &asked).await.expect(201).json();
    assert_eq!(made.get("secret"), None, "its owner knows it");
    made["id"].as_str().unwrap().to_owned()
}

async fn listed(world: &World, key: &Key) -> Vec<Value> {
    let listed = world.fetch(WEBHOOKS, Pay::from(key)).await.expect(200);
    assert!(!listed.text().contains(SECRET) && !listed.text().contains("whsec_"));
    listed.json()["data"].as_array().unwrap().clone()
}

/// The only webhook of a key, once it is as a test expects it.
async fn shown_when(world: &World, key: &Key, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    let shown = async {
        loop {
            let shown = listed(world, key).await.remove(0);
            if is(&shown) {
                return shown;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    within(what, shown).await
}

async fn top_up(world: &World, key: &Key, sats: u64) {
    let asked = json!({ "cashu_token": world.sats(sats).await });
    world.post("/v1/balance/topup", Pay::from(key), &asked).await.expect(200);
}

async fn remove(world: &World, key: &Key, id: &str) -> Answer {
    let path = format!("{WEBHOOKS}/{id}");
    let request = world.request(Method::DELETE, &path, Pay::from(key));
    Answer::read(request.send().await.unwrap()).await.unwrap()
}

#[tokio::test]
async fn on_one_machine_everything_that_happens_to_a_key_is_told() {
    tells_everything(&World::with(setting(json!({}))).await).await;
}

#[tokio::test]
async fn in_a_fleet_everything_that_happens_to_a_key_is_told() {
    let setting = Setting { fleet: Some(Fleet::of(2)), ..setting(json!({})) };
    tells_everything(&World::with(setting).await).await;
}

async fn tells_everything(world: &World) {
    let receiver = Receiver::start().await;
    let key = world.key(1_000).await;
    hook(world, &key, &receiver.url("/all"), &ALL).await;
    hook(world, &key, &receiver.url("/in"), &["balance.topup"]).await;

    top_up(world, &key, 20).await;
    let answer = world.chat(&key, &chat("demo")).await.expect(200);
    let request_id = answer.header("x-request-id").unwrap().to_owned();
    world.settled(&key).await;
    // What costs nothing is not told.
    world.chat(&key, &chat("demo-500")).await.expect(502);
    let asked = json!({"amount_sats": 600});
    world.post("/v1/balance/refund", Pay::from(&key), &asked).await.expect(200);
    let all = receiver.delivered("/all", 4).await;
    let mut told: BTreeMap<String, Value> = BTreeMap::new();
    for delivered in &all {
        delivered.check_signed(SECRET);
        let event = delivered.json();
        assert_eq!(event["data"]["account_id"], account_of(&key));
        told.insert(delivered.kind(), event["data"].clone());
    }
    assert_eq!(all.len(), 4, "{told:?}");
    assert_eq!(told["balance.topup"]["amount_msats"], 20_000);
    assert_eq!(told["balance.refunded"]["amount_msats"], 600_000);
    let cost = PRICE.cost(7, 20);
    let settled = &told["payment.settled"];
    assert_eq!(settled["cost_msats"], cost);
    assert_eq!(settled["request_id"], request_id);
    assert_eq!(settled["model"], "demo");
    assert_eq!(settled["usage"]["output_tokens"], 20);
    let low = &told["balance.low"];
    assert_eq!(low["balance_msats"], 1_020_000 - cost - 600_000);
    assert_eq!(low["threshold_msats"], 500_000);

    // A balance that stays low is not told of again; one that falls again is.
    top_up(world, &key, 1_000).await;
    receiver.delivered("/all", 5).await;
    world
        .post("/v1/balance/refund", Pay::from(&key), &json!({"amount_sats": 950}))
        .await
        .expect(200);
    let again = receiver.delivered("/all", 7).await;
    let lows = again.iter().filter(|it| it.kind() == "balance.low").count();
    assert_eq!(lows, 2);
    assert_eq!(receiver.delivered("/in", 2).await.len(), 2, "it hears of nothing else");
    let mut ids: Vec<&str> = again.iter().map(|it| it.header("webhook-id")).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 7, "each event has an id of its own");
}

/// A child has its own webhooks, of its own requests, and sees nothing of its parent's.
#[tokio::test]
async fn a_child_hears_of_itself_alone_and_that_it_was_revoked() {
    let world = World::with(setting(json!({}))).await;
    let receiver = Receiver::start().await;
    let parent = world.key(1_000).await;
    let parents = hook(&world, &parent, &receiver.url("/parent"), &ALL).await;
    let asked = json!({"count": 1});
    let made = world.post("/v1/balance/child-key", Pay::from(&parent), &asked).await.expect(200);
    let child = Key(made.json()["api_keys"][0].as_str().unwrap().to_owned());

    let refused = json!({"url": receiver.url("/child"), "events": ["balance.topup"]});
    let refused = register(&world, &child, &refused).await;
    assert_eq!(refused.expect(400).json()["error"]["details"]["param"], "events");
    let own = ["payment.settled", "key.expired"];
    let childs = hook(&world, &child, &receiver.url("/child"), &own).await;
    assert_eq!(listed(&world, &child).await.len(), 1);
    for (key, id) in [(&child, &parents), (&parent, &childs)] {
        remove(&world, key, id).await.expect_error(404, "not_found", "webhook_not_found");
    }

    world.chat(&parent, &chat("demo")).await.expect(200);
    world.chat(&child, &chat("demo")).await.expect(200);
    let told = receiver.delivered("/parent", 2).await;
    assert!(told.iter().all(|it| it.kind() == "payment.settled"), "a parent pays for both");
    receiver.delivered("/child", 1).await;
    let path = format!("/v1/balance/child-key/{}", account_of(&child));
    let request = world.request(Method::DELETE, &path, Pay::from(&parent));
    Answer::read(request.send().await.unwrap()).await.unwrap().expect(200);
    let told = receiver.delivered("/child", 2).await;
    let kinds: Vec<String> = told.iter().map(Delivered::kind).collect();
    assert_eq!(kinds, ["payment.settled", "key.expired"]);
    assert!(told.iter().all(|it| it.json()["data"]["account_id"] == account_of(&child)));
    assert_eq!(told[1].json()["data"]["revoked"], true);
    assert_eq!(receiver.at("/parent").len(), 2, "its own end is its own");
}

#[tokio::test]
async fn what_fails_is_delivered_again_under_the_same_id() {
    let world = World::with(setting(json!({}))).await;
    let receiver = Receiver::start().await;
    let key = world.key(1_000).await;
    hook(&world, &key, &receiver.url("/hook"), &["balance.topup"]).await;
    // A redirect is no success, and is not followed.
    receiver.answers("/hook", &[Some(500), Some(302)]);
    top_up(&world, &key, 20).await;
    let got = receiver.delivered("/hook", 3).await;
    got.iter().for_each(|attempt| attempt.check_signed(SECRET));
    assert!(got.iter().all(|it| it.header("webhook-id") == got[0].header("webhook-id")));
    assert!(got.iter().all(|it| it.body == got[0].body));
    let shown =
        shown_when(&world, &key, "it is delivered", |it| it["last_success_at"].is_u64()).await;
    assert_eq!((&shown["status"], &shown["queued"]), (&json!("enabled"), &json!(0)));
    assert_eq!(shown["last_failure"], "answered 302");
    assert_eq!(receiver.at("/hook").len(), 3);
}

#[tokio::test]
async fn an_endpoint_that_is_gone_or_fails_for_long_is_disabled_and_said_so() {
    let world = World::with(setting(json!({}))).await;
    let receiver = Receiver::start().await;
    for (path, answers, tries, why) in [
        ("/gone", &[Some(410)][..], 1, "410"),
        ("/broken", &[Some(503), Some(500), Some(404)][..], 3, "every attempt"),
    ] {
        let key = world.key(100).await;
        let id = hook(&world, &key, &receiver.url(path), &["balance.topup"]).await;
        receiver.answers(path, answers);
        top_up(&world, &key, 20).await;
        let disabled = |it: &Value| it["status"] == "disabled";
        let shown = shown_when(&world, &key, "it is disabled", disabled).await;
        assert!(shown["disabled_reason"].as_str().unwrap().contains(why), "{shown}");
        assert!(shown["disabled_at"].is_u64() && shown["queued"] == 0, "{shown}");
        assert!(shown["last_failure"].as_str().unwrap().starts_with("answered 4"), "{shown}");
        assert_eq!(receiver.at(path).len(), tries);
        // Nothing more comes, until it is registered anew, and then not what was before.
        top_up(&world, &key, 21).await;
        remove(&world, &key, &id).await.expect(204);
        hook(&world, &key, &receiver.url(path), &["balance.topup"]).await;
        top_up(&world, &key, 22).await;
        let last = receiver.delivered(path, tries + 1).await.pop().unwrap();
        assert_eq!(last.json()["data"]["amount_msats"], 22_000);
    }
}

#[tokio::test]
async fn what_was_not_delivered_yet_is_delivered_after_the_process_was_killed() {
    let mut world = World::with(setting(json!({}))).await;
    let receiver = Receiver::start().await;
    let key = world.key(1_000).await;
    hook(&world, &key, &receiver.url("/hook"), &["balance.topup", "payment.settled"]).await;
    // One is under way when the process dies, the others wait or are not even known yet.
    receiver.answers("/hook", &[None]);
    top_up(&world, &key, 20).await;
    receiver.delivered("/hook", 1).await;
    for _ in 0..5 {
        world.chat(&key, &chat("demo")).await.expect(200);
    }
    world.settled(&key).await;
    world.gateway.kill().await;
    world.gateway.restart().await;
    let got = receiver.delivered("/hook", 7).await;
    let mut ids: Vec<&str> = got.iter().map(|it| it.header("webhook-id")).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 6, "one of them twice");
    got.iter().for_each(|it| it.check_signed(SECRET));
}

/// An endpoint that hangs is in nobody's way: requests are served, and other endpoints hear.
#[tokio::test]
async fn an_endpoint_that_hangs_blocks_neither_traffic_nor_others() {
    let world = World::with(setting(json!({"timeout": "60s"}))).await;
    let receiver = Receiver::start().await;
    let key = world.key(1_000).await;
    receiver.answers("/hangs", &[None; 100]);
    hook(&world, &key, &receiver.url("/hangs"), &["payment.settled"]).await;
    hook(&world, &key, &receiver.url("/good"), &["payment.settled"]).await;
    world.chat(&key, &chat("demo")).await.expect(200);
    receiver.delivered("/hangs", 1).await;
    for _ in 0..20 {
        world.chat(&key, &chat("demo")).await.expect(200);
    }
    assert_eq!(receiver.delivered("/good", 21).await.len(), 21);
    assert_eq!(receiver.at("/hangs").len(), 1, "the others wait for it");
}

#[tokio::test]
async fn a_fleet_delivers_each_event_once_when_nothing_fails() {
    let setting = Setting { fleet: Some(Fleet::of(2)), ..setting(json!({})) };
    let world = World::with(setting).await;
    let receiver = Receiver::start().await;
    let key = world.key(2_000).await;
    hook(&world, &key, &receiver.url("/hook"), &["payment.settled"]).await;
    for turn in 0..30 {
        world.chat_at(turn, &key, &chat("demo")).await.expect(200);
    }
    world.settled(&key).await;
    receiver.delivered("/hook", 30).await;
    // Whatever would come twice has come before the last of these.
    top_up(&world, &key, 1).await;
    hook(&world, &key, &receiver.url("/last"), &["balance.topup"]).await;
    top_up(&world, &key, 1).await;
    receiver.delivered("/last", 1).await;
    let got = receiver.at("/hook");
    let mut ids: Vec<&str> = got.iter().map(|it| it.header("webhook-id")).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((ids.len(), got.len()), (30, 30));
}

#[tokio::test]
async fn a_place_inside_is_refused_when_it_is_registered() {
    let world = World::with(setting(json!({"allow_private": false}))).await;
    let key = world.key(100).await;
    for url in [
        "https://127.0.0.1/",
        "https://2130706433/",
        "https://[::ffff:10.0.0.1]/",
        "https://169.254.169.254/latest/meta-data/",
        "https://localhost/",
        "http://93.184.215.14/",
        "https://me:secret@93.184.215.14/",
        "nowhere",
    ] {
        let asked = json!({"url": url, "events": ALL, "secret": SECRET});
        let refused = register(&world, &key, &asked).await;
        let refused = refused.expect_error(400, "invalid_request", "invalid_value").json();
        assert_eq!(refused["error"]["details"]["param"], "url", "{url}");
        assert!(!refused.to_string().contains("secret@"), "{refused}");
    }
    // An address that is written out is looked up nowhere.
    let asked = json!({"url": "https://93.184.215.14/hook", "events": ["key.expired"]});
    register(&world, &key, &asked).await.expect(201);
    assert_eq!(listed(&world, &key).await.len(), 1);
}

#[tokio::test]
async fn a_key_has_ten_webhooks_and_a_secret_is_shown_once() {
    let world = World::with(setting(json!({}))).await;
    let receiver = Receiver::start().await;
    let key = world.key(100).await;
    let asked = json!({"url": receiver.url("/made"), "events": ["balance.topup"]});
    let made = register(&world, &key, &asked).await.expect(201).json();
    let secret = made["secret"].as_str().unwrap().to_owned();
    assert!(secret.starts_with("whsec_"));
    top_up(&world, &key, 20).await;
    receiver.delivered("/made", 1).await[0].check_signed(&secret);
    for _ in 1..10 {
        hook(&world, &key, &receiver.url("/x"), &["balance.low"]).await;
    }
    let asked = json!({"url": receiver.url("/x"), "events": ["balance.low"]});
    let refused = register(&world, &key, &asked).await;
    refused.expect_error(409, "invalid_request", "too_many_webhooks");
    assert_eq!(listed(&world, &key).await.len(), 10);

    let id = made["id"].as_str().unwrap();
    let gone = remove(&world, &key, id).await.expect(204);
    assert!(gone.body.is_empty());
    remove(&world, &key, id).await.expect_error(404, "not_found", "webhook_not_found");
    // The same paths without the version.
    let again = world.post("/webhooks", Pay::from(&key), &asked).await.expect(201).json();
    assert_eq!(
        world.fetch("/webhooks", Pay::from(&key)).await.expect(200).json()["data"]
            .as_array()
            .unwrap()
            .len(),
        10
    );
    let path = format!("/webhooks/{}", again["id"].as_str().unwrap());
    let request = world.request(Method::DELETE, &path, Pay::from(&key));
    Answer::read(request.send().await.unwrap()).await.unwrap().expect(204);

    world.fetch(WEBHOOKS, Pay::Nothing).await.expect(401);
    let unknown = Key(format!("sk-{}", "0".repeat(32)));
    world.fetch(WEBHOOKS, Pay::from(&unknown)).await.expect(401);
    let log = world.gateway.log();
    assert!(!log.contains(&secret) && !log.contains(SECRET));
    let (code, said) = world.gateway.run("audit").await;
    assert_eq!(code, Some(0), "{said}");
}

#[tokio::test]
async fn where_webhooks_are_not_offered_there_are_none() {
    let world = World::with(setting(json!({"enabled": false}))).await;
    let key = world.key(100).await;
    let listed = world.fetch(WEBHOOKS, Pay::from(&key)).await;
    listed.expect_error(404, "not_found", "webhooks_not_offered");
}

fn account_of(key: &Key) -> String {
    nutgate::ids::ApiKey::presented(&key.0).account().to_string()
}
