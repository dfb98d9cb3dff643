//! How a gateway ends and begins again: told to, killed, or not alone.

use std::process::Stdio;

use tokio::process::Command;

use crate::support::{
    Answer, Events, LOOK_AGAIN, Misbehaviour, PRICE, Pay, Raw, Setting, World, chat, json, length,
    model_of, prompt_tokens, streamed, within,
};

#[tokio::test]
async fn sigterm_lets_an_open_stream_end_and_settles_it() {
    let mut world = World::with(Setting::gated()).await;
    let key = world.key(100).await;
    let body = streamed(&model_of(Misbehaviour::Slow));
    let mut stream = open_stream(&world, Pay::from(&key), &body.to_string()).await;
    first_word(&mut stream).await;

    world.gateway.sigterm();
    let refused = async {
        while Raw::try_connect(world.gateway.address()).await.is_ok() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    within("nobody new is let in", refused).await;
    world.upstream.open_gate();
    let rest = stream.through("0\r\n\r\n").await.expect("the end of the body");
    assert!(Events::read(&rest).is_done(), "{rest}");
    let status = world.gateway.ended().await;
    assert!(status.success(), "{status}\n{}", world.gateway.log());

    world.check_balanced().await;
    world.gateway.restart().await;
    let balance = world.info(&key).await;
    let cost = PRICE.cost(prompt_tokens(&body), OUTPUT_TOKENS);
    assert_eq!((balance.reserved, balance.spent), (0, cost), "settled, not expired");
    world.check_balanced().await;
}

#[tokio::test]
async fn sigterm_delivers_the_change_of_what_is_held() {
    let mut world = World::with(Setting::gated()).await;
    let paid = world.sats(100).await;
    let body = chat(&model_of(Misbehaviour::Slow));
    let asked = world.chat_later(Pay::XCashu(&paid), &body);
    within("it is forwarded", world.upstream.await_request(1)).await;
    world.gateway.sigterm();
    world.upstream.open_gate();
    let answer = asked.answer().await.expect(200);
    assert!(world.gateway.ended().await.success());
    let cost = PRICE.cost(prompt_tokens(&body), OUTPUT_TOKENS);
    assert_eq!(world.worth(answer.change().unwrap()).await, (100_000 - cost) / 1000);
    world.check_balanced().await;
}

#[tokio::test]
async fn an_idle_gateway_ends_at_once_when_it_is_told_to() {
    let mut world = World::start().await;
    let key = world.key(100).await;
    world.gateway.sigterm();
    assert!(world.gateway.ended().await.success());
    world.gateway.restart().await;
    assert_eq!(world.info(&key).await.available, 100_000);
}

/// What a killed gateway had delivered is charged as far as its last renewal had heard of it.
#[tokio::test]
async fn a_killed_stream_is_charged_what_had_accrued() {
    let reservation = json!({"reservation": {"lifetime": "10s", "renew_every": "20ms"}});
    let mut world = World::with(Setting { config: reservation, ..Setting::gated() }).await;
    let key = world.key(100).await;
    let paid = world.sats(100).await;
    let body = streamed(&model_of(Misbehaviour::Slow));

    // By key the events flow: one word is delivered before the gate, and accrues.
    let mut stream = open_stream(&world, Pay::from(&key), &body.to_string()).await;
    let word = first_word(&mut stream).await;
    // By X-Cashu they are held: nothing is delivered, so nothing accrues.
    let held = world.chat_later(Pay::XCashu(&paid), &body);
    within("both are forwarded", world.upstream.await_request(2)).await;
    let accrued = within("a renewal says so", accrued(&world)).await;
    world.gateway.kill().await;
    assert!(held.ended().await.is_err());
    world.check_balanced().await;

    assert_eq!(accrued, PRICE.estimate(length(body.to_string()), 1, length(word)));
    world.gateway.restart().await;
    let balance = world.info(&key).await;
    assert_eq!((balance.reserved, balance.spent), (0, accrued));
    assert_eq!(balance.available, 100_000 - accrued);
    let claim = world.claim(&paid).await.expect(200);
    assert_eq!(world.worth(claim.change().unwrap()).await, 100);
    world.check_balanced().await;
}

#[tokio::test]
async fn two_gateways_on_one_data_directory_are_one_too_many() {
    let world = World::start().await;
    let key = world.key(100).await;
    let config = std::fs::read_to_string(world.gateway.config_path()).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    // Ports of its own: it is the directory that it must not have.
    config["listen"]["address"] = json!("127.0.0.1:0");
    config["admin"]["address"] = json!("127.0.0.1:0");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("second.yaml");
    std::fs::write(&path, config.to_string()).unwrap();
    let mut second = Command::new(env!("CARGO_BIN_EXE_nutgate"));
    second.args(["serve", "--config"]).arg(&path).stdin(Stdio::null()).kill_on_drop(true);
    let refused = within("the second one ends", second.output()).await.unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("another process uses this data directory"), "{said}");

    world.chat(&key, &chat("demo")).await.expect(200);
    world.check_balanced().await;
}

/// A key and a claim work on right after a crash, although reservations were open by then.
#[tokio::test]
async fn what_a_dead_gateway_had_reserved_is_free_at_once() {
    let mut world = World::with(Setting::gated()).await;
    let key = world.key(100).await;
    let body = streamed(&model_of(Misbehaviour::Slow));
    let asked: Vec<_> = (0..3).map(|_| world.chat_later(&key, &body)).collect();
    within("all are forwarded", world.upstream.await_request(3)).await;
    assert!(world.info(&key).await.reserved > 0);
    world.gateway.kill().await;
    for asked in asked {
        let ended = asked.ended().await;
        assert!(ended.is_err(), "{:?}", ended.map(|answer: Answer| answer.text()));
    }
    world.gateway.restart().await;
    let balance = world.info(&key).await;
    assert_eq!((balance.reserved, balance.available), (0, 100_000));
    world.chat(&key, &chat("demo")).await.expect(200);
    world.check_balanced().await;
}

/// Sends the request and returns with its head read.
async fn open_stream(world: &World, pay: Pay<'_>, body: &str) -> Raw {
    let mut raw = world.raw().await;
    raw.post("/v1/chat/completions", &pay.line(), body).await;
    assert_eq!(raw.head().await.status, 200);
    raw
}

/// Reads events until one of them has text.
async fn first_word(stream: &mut Raw) -> String {
    let mut read = String::new();
    while Events::read(&read).deliveries() == 0 {
        read += &stream.through("\n\n").await.expect("another event");
    }
    Events::read(&read).content()
}

/// What the open reservations have accrued, as soon as it is more than nothing.
async fn accrued(world: &World) -> u64 {
    let database = world.gateway.database();
    let sql = "SELECT SUM(accrued) FROM reservations WHERE how IS NULL";
    loop {
        let accrued: u64 = database.query_row(sql, [], |row| row.get(0)).unwrap();
        if accrued > 0 {
            return accrued;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// How much the upstream says when nobody limits it.
const OUTPUT_TOKENS: u64 = 20;
