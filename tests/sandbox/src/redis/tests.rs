use std::time::Duration;

use tokio::time::timeout;

use super::{AppendOnly, Redis, RedisCluster, RedisOptions, RedisSentinel};
use crate::Result;

#[tokio::test]
async fn what_was_acknowledged_survives_sigkill() -> Result<()> {
    let mut redis = Redis::start(RedisOptions::default()).await?;
    let url = redis.url();
    redis.cli(&["SET", "kept", "1"]).await?;
    redis.kill().await?;
    assert!(redis.cli(&["PING"]).await.is_err(), "nobody answers for the dead");
    redis.restart().await?;
    assert_eq!(redis.url(), url);
    assert_eq!(redis.cli(&["GET", "kept"]).await?, "1");
    Ok(())
}

#[tokio::test]
async fn a_server_without_a_file_forgets_and_one_that_is_stopped_does_not() -> Result<()> {
    let off = RedisOptions { append_only: AppendOnly::Off };
    let mut forgetful = Redis::start(off).await?;
    forgetful.cli(&["SET", "lost", "1"]).await?;
    forgetful.restart().await?;
    assert_eq!(forgetful.cli(&["GET", "lost"]).await?, "");

    let everysec = RedisOptions { append_only: AppendOnly::Everysec };
    let mut redis = Redis::start(everysec).await?;
    redis.cli(&["SET", "kept", "1"]).await?;
    redis.stop().await?;
    redis.restart().await?;
    assert_eq!(redis.cli(&["GET", "kept"]).await?, "1");
    Ok(())
}

#[tokio::test]
async fn a_paused_server_answers_when_it_is_resumed_and_not_before() -> Result<()> {
    let redis = Redis::start(RedisOptions::default()).await?;
    redis.pause()?;
    let mut ping = Box::pin(redis.cli(&["PING"]));
    assert!(timeout(Duration::from_millis(100), &mut ping).await.is_err());
    redis.resume()?;
    assert_eq!(ping.await?, "PONG");
    Ok(())
}

#[tokio::test]
async fn an_error_reply_is_an_error() -> Result<()> {
    let redis = Redis::start(RedisOptions::default()).await?;
    let error = redis.cli(&["HGET", "one"]).await.err().map(|error| error.to_string());
    assert!(error.is_some_and(|error| error.contains("wrong number of arguments")));
    Ok(())
}

#[tokio::test]
async fn a_cluster_moves_slots_and_says_so() -> Result<()> {
    let cluster = RedisCluster::start(3).await?;
    assert_eq!(cluster.url().matches(',').count(), 2);
    let nodes: Vec<&Redis> = cluster.nodes().collect();
    nodes[0].cli(&["SET", IN_SLOT_0, "1"]).await?;
    assert_eq!(refusal(nodes[1], IN_SLOT_0).await, format!("MOVED 0 {}", nodes[0].address()));

    let half_way = super::SlotMove { slot: 0, from: 0, to: 2 };
    cluster.begin_move(half_way).await?;
    cluster.move_keys(half_way).await?;
    assert_eq!(refusal(nodes[0], IN_SLOT_0).await, format!("ASK 0 {}", nodes[2].address()));
    cluster.finish_move(half_way).await?;
    assert_eq!(nodes[2].cli(&["GET", IN_SLOT_0]).await?, "1");
    cluster.move_slot(0, 2, 1).await?;
    assert_eq!(nodes[1].cli(&["GET", IN_SLOT_0]).await?, "1");
    assert_eq!(refusal(nodes[0], IN_SLOT_0).await, format!("MOVED 0 {}", nodes[1].address()));
    Ok(())
}

#[tokio::test]
async fn a_replica_of_a_cluster_takes_over_with_everything() -> Result<()> {
    let mut cluster = RedisCluster::start_with_replicas(3).await?;
    let former = cluster.node_mut(0).address();
    cluster.node_mut(0).cli(&["SET", IN_SLOT_0, "1"]).await?;
    cluster.fail_over(0).await?;
    assert_ne!(cluster.node_mut(0).address(), former);
    assert_eq!(cluster.node_mut(0).cli(&["GET", IN_SLOT_0]).await?, "1");
    Ok(())
}

#[tokio::test]
async fn sentinel_promotes_the_replica_of_a_dead_master() -> Result<()> {
    let mut pair = RedisSentinel::start().await?;
    assert!(pair.url().starts_with("redis+sentinel://127.0.0.1:"));
    pair.master().cli(&["SET", "kept", "1"]).await?;
    pair.await_replicated().await?;
    let former = pair.master().address();
    pair.kill_master().await?;
    pair.await_failover().await?;
    assert_ne!(pair.master().address(), former);
    assert_eq!(pair.master().cli(&["GET", "kept"]).await?, "1");
    pair.master().cli(&["SET", "kept", "2"]).await?;
    pair.replica_mut().restart().await?;
    Ok(())
}

async fn refusal(redis: &Redis, key: &str) -> String {
    let answer = redis.cli(&["GET", key]).await;
    let error = answer.expect_err("the key is elsewhere").to_string();
    error.split_once(": ").expect("the command stands before the reply").1.to_owned()
}

/// A key of slot 0.
const IN_SLOT_0: &str = "{3560}";
