//! What a load balancer is told: whether a gateway has what it sells with.

use rusqlite::{Connection, TransactionBehavior};

use crate::support::{
    Answer, Fleet, LOOK_AGAIN, Misbehaviour, Pay, Raw, Setting, World, chat, json, model_of, within,
};

#[tokio::test]
async fn a_gateway_of_a_fleet_says_which_of_its_servers_it_misses_until_that_answers_again() {
    let mut world = fleet().await;
    let key = world.key(100).await;
    expect_ready(&world).await;

    // A server that is silent, and not one that refuses.
    world.servers().redis.pause().unwrap();
    expect_missing(&world, "ledger").await;
    // What does not depend on it is answered all the same: it lives.
    world.fetch("/healthz", Pay::Nothing).await.expect(200);
    world.servers().redis.resume().unwrap();
    becomes_ready(&world).await;
    world.chat(&key, &chat("demo")).await.expect(200);

    world.servers.as_mut().unwrap().postgres.kill().await.unwrap();
    expect_missing(&world, "wallet_store").await;
    world.servers.as_mut().unwrap().postgres.restart().await.unwrap();
    becomes_ready(&world).await;
    world.settled(&key).await;
    world.check_balanced().await;
}

/// On one machine both are one file.
#[tokio::test]
async fn a_gateway_whose_database_is_locked_is_not_ready_until_it_is_free() {
    let world = World::start().await;
    expect_ready(&world).await;
    let mut database = Connection::open(world.gateway.data_dir().join("nutgate.db")).unwrap();
    let locked = database.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
    let refused = readyz(&world).await.expect(503).json();
    assert_eq!(refused["missing"], json!(["ledger", "wallet_store"]));
    drop(locked);
    becomes_ready(&world).await;
}

#[tokio::test]
async fn a_gateway_that_is_told_to_stop_lets_no_balancer_in_while_what_is_open_ends() {
    let mut world = World::with(Setting::gated()).await;
    let key = world.key(100).await;
    let open = world.chat_later(&key, &chat(&model_of(Misbehaviour::Slow)));
    world.asked(1).await;
    world.gateway.sigterm();
    let refused = async {
        while Raw::try_connect(world.gateway.admin_address()).await.is_ok() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    within("the admin listener is closed", refused).await;
    world.upstream.open_gate();
    open.answer().await.expect(200);
    assert!(world.gateway.ended().await.success());
}

#[tokio::test]
async fn clients_are_not_told_whether_a_gateway_is_ready() {
    let world = World::start().await;
    let public = world.fetch("/readyz", Pay::Nothing).await;
    public.expect_error(404, "not_found", "not_found");
}

async fn fleet() -> World {
    World::with(Setting { fleet: Some(Fleet::of(1)), ..Setting::default() }).await
}

async fn readyz(world: &World) -> Answer {
    let url = format!("http://{}/readyz", world.gateway.admin_address());
    let asked = within("an answer about readiness", world.client.get(url).send()).await;
    Answer::read(asked.unwrap()).await.unwrap()
}

async fn expect_ready(world: &World) {
    let ready = readyz(world).await.expect(200);
    assert_eq!(ready.json(), json!({"status": "ready"}));
}

async fn expect_missing(world: &World, missing: &str) {
    let refused = readyz(world).await.expect(503);
    assert!(refused.number("retry-after") >= 1);
    assert_eq!(refused.json(), json!({"status": "unavailable", "missing": [missing]}));
}

async fn becomes_ready(world: &World) {
    let ready = async {
        while readyz(world).await.status != 200 {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    within("it is ready again", ready).await;
    expect_ready(world).await;
}
