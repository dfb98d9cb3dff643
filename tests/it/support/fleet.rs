//! What many gateways share: a Redis, a PostgreSQL, and the seed of one wallet.

use nutgate_sandbox::{AppendOnly, Postgres, PostgresOptions, Redis, RedisOptions};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Answer, Gateway, Pay, World};

/// Whether `make chaos` asks for its full numbers, and not for what every run can afford.
pub(crate) fn is_full_chaos() -> bool {
    std::env::var("NUTGATE_CHAOS").is_ok_and(|asked| asked == "full")
}

/// How a fleet differs from the usual one.
#[derive(Clone, Debug)]
pub(crate) struct Fleet {
    pub(crate) gateways: usize,
    pub(crate) append_only: AppendOnly,
}

impl Fleet {
    pub(crate) fn of(gateways: usize) -> Self {
        Self { gateways, append_only: AppendOnly::Always }
    }
}

pub(crate) struct Servers {
    pub(crate) redis: Redis,
    pub(crate) postgres: Postgres,
    /// The wallet's database.
    pub(crate) database: String,
    _seed: TempDir,
}

impl Servers {
    /// Starts them and writes where they are into the configuration.
    pub(crate) async fn start(fleet: &Fleet, config: &mut Value) -> Self {
        let options = RedisOptions { append_only: fleet.append_only };
        let redis = Redis::start(options).await.unwrap();
        let postgres = Postgres::start(PostgresOptions::default()).await.unwrap();
        let seed = tempfile::tempdir().unwrap();
        config["seed_file"] = json!(seed.path().join("seed"));
        let database = postgres.database().await.unwrap();
        config["fleet"] = json!({"redis": redis.url(), "postgres": database});
        Self { redis, postgres, database, _seed: seed }
    }
}

impl World {
    pub(crate) fn servers(&self) -> &Servers {
        self.servers.as_ref().expect("this world is a fleet")
    }

    pub(crate) fn redis_mut(&mut self) -> &mut Redis {
        &mut self.servers.as_mut().expect("this world is a fleet").redis
    }

    /// The gateway whose turn it is.
    pub(crate) fn gateway_of(&self, turn: usize) -> &Gateway {
        match turn % (self.others.len() + 1) {
            0 => &self.gateway,
            other => &self.others[other - 1],
        }
    }

    /// A chat completion at the gateway whose turn it is, read to its end.
    pub(crate) async fn chat_at(
        &self,
        turn: usize,
        pay: impl Into<Pay<'_>>,
        body: &Value,
    ) -> Answer {
        let (gateway, path) = (self.gateway_of(turn), "/v1/chat/completions");
        let request = self.request_to(gateway, reqwest::Method::POST, path, pay.into());
        Answer::read(request.body(body.to_string()).send().await.unwrap()).await.unwrap()
    }

    /// How often the ledger was asked to run a script so far.
    pub(crate) async fn scripts_run(&self) -> u64 {
        let stats = self.servers().redis.cli(&["INFO", "commandstats"]).await.unwrap();
        let calls = |line: &str| {
            let rest = line.strip_prefix("cmdstat_eval")?;
            rest.split_once("calls=")?.1.split(',').next()?.parse::<u64>().ok()
        };
        stats.lines().filter_map(calls).sum()
    }
}
