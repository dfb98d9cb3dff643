//! Change that nobody claims: left for ever, or swept after some days where the operator says so.

use std::os::unix::process::ExitStatusExt;

use nix::sys::signal::Signal;
use nutgate::crash::Step;
use rusqlite::Connection;

use crate::support::{
    Fleet, LOOK_AGAIN, Misbehaviour, PRICE, PURSE_SATS, Pay, Purse, Setting, Way, World, chat,
    json, length, model_of, within,
};

const PATH: &str = "/v1/chat/completions";

async fn start(fleet: Option<Fleet>) -> World {
    let config = json!({"refunds": {"sweep_after_days": 30}});
    World::with(Setting { config, fleet, ..Setting::default() }).await
}

/// A purse whose owner left before its answer came, and what is left in it.
async fn walk_away(world: &World) -> (Purse, u64) {
    let body = chat(&model_of(Misbehaviour::Hangs)).to_string();
    let purse = world.purse(Way::XCashu).await;
    let (asked, gone) = (world.upstream.count() + 1, world.upstream.client_gone() + 1);
    let mut raw = world.raw().await;
    raw.post(PATH, &purse.pay().line(), &body).await;
    world.asked(asked).await;
    raw.reset();
    world.upstream_left(gone).await;
    world.settled(Pay::Bearer(&purse.ecash)).await;
    (purse, PURSE_SATS * 1000 - PRICE.cost(length(body).div_ceil(4), 0))
}

/// One statement on the wallet's database, and the number that it answers.
async fn sql(world: &World, statement: &str) -> u64 {
    match &world.servers {
        Some(servers) => {
            let told = servers.postgres.sql(&servers.database, statement).await.unwrap();
            told.trim().parse().unwrap_or(0)
        }
        None => {
            let database = Connection::open(world.gateway.data_dir().join("nutgate.db")).unwrap();
            let mut statement = database.prepare(statement).unwrap();
            let mut rows = statement.query([]).unwrap();
            rows.next().unwrap().map_or(0, |row| row.get(0).unwrap())
        }
    }
}

/// Returns when this many accounts are known to have left change.
async fn noted(world: &World, count: u64) {
    let known = async {
        while sql(world, "SELECT count(*) FROM unclaimed").await < count {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    within("what is left is noted", known).await;
}

/// All that was left was left earlier by this. The gateway looks when it starts.
async fn days_pass(world: &mut World, days: u64) {
    world.gateway.kill().await;
    let by_ms = days * 24 * 3600 * 1000;
    sql(world, &format!("UPDATE unclaimed SET since_ms = since_ms - {by_ms}")).await;
}

async fn assert_swept(world: &World, purse: &Purse) {
    let balance = world.info(Pay::Bearer(&purse.ecash)).await;
    assert_eq!((balance.available, balance.reserved), (0, 0));
    assert_eq!(balance.spent, PURSE_SATS * 1000, "what it cost, and what nobody claimed");
    let answer = world.claim(&purse.ecash).await;
    let answer = answer.expect_error(410, "invalid_request", "refund_swept").json();
    assert!(answer["error"]["details"]["swept_at"].as_u64().unwrap() > 0);
}

#[tokio::test]
async fn change_is_left_to_be_claimed_for_so_many_days_and_is_gone_after() {
    let mut world = start(None).await;
    let (early, change) = walk_away(&world).await;
    let (late, _) = walk_away(&world).await;
    noted(&world, 2).await;
    days_pass(&mut world, 29).await;
    world.gateway.restart().await;
    let claimed = world.claim(&early.ecash).await.expect(200);
    assert_eq!(world.worth(claimed.change().unwrap()).await, change / 1000);
    days_pass(&mut world, 2).await;
    world.gateway.restart().await;
    assert_swept(&world, &late).await;
    let again = world.claim(&early.ecash).await.expect(200);
    assert_eq!(again.change(), claimed.change(), "what was claimed in time repeats");
    let entries = world.receipts(Pay::Bearer(&late.ecash)).await;
    let swept: Vec<_> = entries.iter().filter(|entry| entry["route"] == "swept").collect();
    assert_eq!(swept.len(), 1);
    assert_eq!(swept[0]["cost_msats"], change);
    world.check_balanced().await;
}

#[tokio::test]
async fn nothing_is_noted_or_swept_unless_the_operator_says_so() {
    let mut world = World::start().await;
    let (purse, change) = walk_away(&world).await;
    world.gateway.restart().await;
    assert_eq!(sql(&world, "SELECT count(*) FROM unclaimed").await, 0);
    let claimed = world.claim(&purse.ecash).await.expect(200);
    assert_eq!(world.worth(claimed.change().unwrap()).await, change / 1000);
    world.check_balanced().await;
}

#[tokio::test]
async fn a_change_that_was_given_is_not_noted() {
    let world = start(None).await;
    let (answer, _) = world.buy(Way::XCashu, &chat("demo")).await;
    assert!(answer.expect(200).change().is_some());
    // One that was left later is noted, and it alone.
    walk_away(&world).await;
    noted(&world, 1).await;
    assert_eq!(sql(&world, "SELECT count(*) FROM unclaimed").await, 1);
}

#[tokio::test]
async fn no_crash_sweeps_twice_or_half() {
    crash_everywhere(start(None).await).await;
}

#[tokio::test]
async fn no_crash_of_a_gateway_of_a_fleet_sweeps_twice_or_half() {
    crash_everywhere(start(Some(Fleet::of(1))).await).await;
}

async fn crash_everywhere(mut world: World) {
    for step in Step::OF_SWEEP {
        let (purse, _) = walk_away(&world).await;
        noted(&world, 1).await;
        days_pass(&mut world, 31).await;
        world.gateway.set_env("NUTGATE_CRASH_AT", &step.name());
        let died = world.gateway.try_restart().await.unwrap_err();
        assert_eq!(died.signal(), Some(Signal::SIGKILL as i32), "{step:?}");
        world.gateway.clear_env("NUTGATE_CRASH_AT");
        for _ in 0..2 {
            world.gateway.restart().await;
            assert_swept(&world, &purse).await;
        }
        world.check_balanced().await;
        sql(&world, "DELETE FROM unclaimed").await;
    }
}
