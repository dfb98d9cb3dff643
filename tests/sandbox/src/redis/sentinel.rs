//! A master, its replica, and the Sentinel that promotes the replica when the master is gone.

use super::{Redis, RedisOptions};
use crate::Result;
use crate::daemon::until;

/// One Sentinel with a quorum of one: it has to agree with nobody, which is what takes time.
pub struct RedisSentinel {
    master: Redis,
    replica: Redis,
    sentinel: Redis,
}

impl RedisSentinel {
    /// Returns when the replica follows and Sentinel knows of both.
    pub async fn start() -> Result<Self> {
        let options = RedisOptions::default();
        let master = Redis::start(options.clone()).await?;
        let port = master.port().to_string();
        let replica = Redis::start_with(&options, &["--replicaof", "127.0.0.1", &port]).await?;
        until("the replica follows", async || replica.follows().await).await?;
        let directory = tempfile::tempdir()?;
        let config = directory.path().join("sentinel.conf");
        // Sentinel keeps what it learns in its configuration, so that is a file.
        let watched = format!("sentinel monitor {SERVICE} 127.0.0.1 {port} 1\n{TIMINGS}");
        std::fs::write(&config, watched)?;
        let sentinel = Redis::run(directory, &[&config.to_string_lossy(), "--sentinel"]).await?;
        until("sentinel knows the replica", async || {
            let replicas = sentinel.cli(&["SENTINEL", "REPLICAS", SERVICE]).await;
            replicas.is_ok_and(|replicas| replicas.contains(&replica.address()))
        })
        .await?;
        Ok(Self { master, replica, sentinel })
    }

    /// As the gateway's configuration names a master that Sentinel knows.
    pub fn url(&self) -> String {
        format!("redis+sentinel://{}/{SERVICE}", self.sentinel.address())
    }

    /// The server that takes writes, as far as the last failover that was awaited.
    pub fn master(&self) -> &Redis {
        &self.master
    }

    /// The other one; after a failover it is dead until it is started again.
    pub fn replica_mut(&mut self) -> &mut Redis {
        &mut self.replica
    }

    /// Returns when the replica has all that the master had acknowledged before the call.
    pub async fn await_replicated(&self) -> Result<()> {
        // WAIT would wait for the writes of its own connection, which has none.
        let offset = async |redis: &Redis, name| {
            let offset = redis.field(&["INFO", "replication"], name).await;
            offset.and_then(|offset| offset.parse::<u64>().ok())
        };
        let written = offset(&self.master, "master_repl_offset").await;
        let written = written.ok_or("the master does not say how far it is")?;
        until("the replica has everything", async || {
            offset(&self.replica, "slave_repl_offset").await.is_some_and(|read| read >= written)
        })
        .await
    }

    /// SIGKILL. What it had acknowledged and not yet passed on is lost.
    pub async fn kill_master(&mut self) -> Result<()> {
        self.master.kill().await
    }

    /// Returns when Sentinel sends clients to the former replica and that takes writes.
    pub async fn await_failover(&mut self) -> Result<()> {
        let Self { replica, sentinel, .. } = self;
        let address = replica.address().replace(':', "\n");
        until("the replica is promoted", async || {
            let named = sentinel.cli(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE]).await;
            named.is_ok_and(|named| named == address) && replica.is_master().await
        })
        .await?;
        std::mem::swap(&mut self.master, &mut self.replica);
        Ok(())
    }
}

const SERVICE: &str = "mymaster";
const TIMINGS: &str = "\
sentinel down-after-milliseconds mymaster 500
sentinel failover-timeout mymaster 5000
";
