//! What the operator's monitoring sees of the real binary.

use rusqlite::{Connection, TransactionBehavior};

use crate::support::{
    LOOK_AGAIN, Misbehaviour, Pay, Setting, World, chat, json, model_of, streamed, within,
};

/// The value of one series; `None` while there is no such series.
pub(crate) async fn value(world: &World, series: &str) -> Option<u64> {
    let url = format!("http://{}/metrics", world.gateway.admin_address());
    let answer = world.client.get(url).send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/plain; version=0.0.4");
    let text = answer.text().await.unwrap();
    let given = |line: &str| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok();
    text.lines().find_map(given)
}

/// Waits until a series has this value.
async fn reaches(world: &World, series: &str, expected: u64) {
    let reached = async {
        while value(world, series).await != Some(expected) {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    within(&format!("{series} is {expected}"), reached).await;
}

#[tokio::test]
async fn requests_and_refusals_are_counted_and_open_reservations_are_seen() {
    let world = World::with(Setting::gated()).await;
    let key = world.key(100).await;
    let ended = |how: &str| format!("nutgate_reservations_ended_total{{how=\"{how}\"}}");
    let refused = |code: &str| format!("nutgate_refusals_total{{code=\"{code}\"}}");

    let later = world.chat_later(&key, &chat(&model_of(Misbehaviour::Slow)));
    world.asked(1).await;
    assert_eq!(value(&world, "nutgate_reservations_open").await, Some(1));
    world.upstream.open_gate();
    later.answer().await.expect(200);
    reaches(&world, "nutgate_reservations_open", 0).await;
    assert_eq!(value(&world, &ended("settled")).await, Some(1));

    world.chat(&key, &chat("demo-500")).await.expect(502);
    reaches(&world, &ended("released"), 1).await;
    assert_eq!(value(&world, &refused("upstream_failed")).await, Some(1));
    world.chat(&key, &chat("no-such-model")).await.expect(404);
    world.refund(Pay::Nothing).await.expect(401);
    world.try_chat(&key, &streamed("demo-drops-mid-stream")).await.unwrap_err();
    for code in ["model_not_found", "missing_api_key", "upstream_broke"] {
        assert_eq!(value(&world, &refused(code)).await, Some(1), "{code}");
    }
    for quiet in [
        "nutgate_settle_shortfall_msat_total",
        "nutgate_spool_entries",
        "nutgate_spool_oldest_seconds",
        "nutgate_ledger_drift_msat",
        "nutgate_audit_findings",
        &ended("expired"),
    ] {
        assert_eq!(value(&world, quiet).await, Some(0), "{quiet}");
    }
    assert_eq!(value(&world, "nutgate_ledger_up").await, Some(1));
    let public = world.fetch("/metrics", Pay::Nothing).await;
    public.expect_error(404, "not_found", "not_found");
}

#[tokio::test]
async fn a_ledger_that_does_not_answer_and_books_that_are_wrong_are_seen() {
    let config = json!({"audit": {"every": "50ms"}});
    let world = World::with(Setting::config(config)).await;
    let key = world.key(100).await;
    let mut database = Connection::open(world.gateway.data_dir().join("nutgate.db")).unwrap();
    let locked = database.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
    let refused = world.chat(&key, &chat("demo")).await;
    refused.expect_error(503, "service_unavailable", "ledger_unavailable");
    assert_eq!(value(&world, "nutgate_ledger_up").await, Some(0));
    // An account of a thousand sats that nobody deposited.
    locked
        .execute_batch(
            "CREATE TEMP TABLE made AS SELECT * FROM accounts;
             UPDATE made SET id = 'nobody', deposited = 1000000, available = 1000000;
             INSERT INTO accounts SELECT * FROM made;",
        )
        .unwrap();
    locked.commit().unwrap();
    reaches(&world, "nutgate_ledger_drift_msat", 1_000_000).await;
    assert!(value(&world, "nutgate_audit_findings").await.unwrap() > 0);
    world.chat(&key, &chat("demo")).await.expect(200);
    assert_eq!(value(&world, "nutgate_ledger_up").await, Some(1));
}
