//! A cluster, made by hand because redis-cli waits whole seconds between its steps.

use super::{Redis, RedisOptions};
use crate::Result;
use crate::daemon::until;
use crate::listening::Port;

/// Masters that share the slots evenly, and a replica for each where it was asked for.
pub struct RedisCluster {
    masters: Vec<Node>,
    replicas: Vec<Node>,
}

struct Node {
    redis: Redis,
    /// Where the nodes speak to each other.
    bus: Port,
    id: String,
}

/// A slot on its way from one master to another, by their places in [`RedisCluster::nodes`].
#[derive(Clone, Copy, Debug)]
pub struct SlotMove {
    pub slot: u16,
    pub from: usize,
    pub to: usize,
}

impl RedisCluster {
    /// Returns when every node says that the cluster is whole.
    pub async fn start(masters: usize) -> Result<Self> {
        let mut nodes = Vec::with_capacity(masters);
        for _ in 0..masters {
            nodes.push(Node::start().await?);
        }
        let cluster = Self { masters: nodes, replicas: Vec::new() };
        for (shard, node) in cluster.masters.iter().enumerate() {
            let [first, last] = [shard, shard + 1].map(|shard| shard * SLOTS / masters);
            let (first, last) = (first.to_string(), (last - 1).to_string());
            node.redis.cli(&["CLUSTER", "ADDSLOTSRANGE", &first, &last]).await?;
            // Nodes that never agreed on an order of their claims would have to quarrel first.
            let epoch = (shard + 1).to_string();
            node.redis.cli(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch]).await?;
        }
        cluster.introduce().await?;
        cluster.await_whole().await?;
        Ok(cluster)
    }

    /// The same with a replica for each master.
    pub async fn start_with_replicas(masters: usize) -> Result<Self> {
        let mut cluster = Self::start(masters).await?;
        for _ in 0..masters {
            cluster.replicas.push(Node::start().await?);
        }
        cluster.introduce().await?;
        for (replica, master) in cluster.replicas.iter().zip(&cluster.masters) {
            replica.redis.cli(&["CLUSTER", "REPLICATE", &master.id]).await?;
        }
        for replica in &cluster.replicas {
            until("a replica follows", async || replica.redis.follows().await).await?;
        }
        cluster.await_replicas().await?;
        Ok(cluster)
    }

    /// As the gateway's configuration names a cluster.
    pub fn url(&self) -> String {
        let addresses: Vec<String> = self.nodes().map(Redis::address).collect();
        format!("redis+cluster://{}", addresses.join(","))
    }

    /// The masters, in the order of their slots.
    pub fn nodes(&self) -> impl Iterator<Item = &Redis> {
        self.masters.iter().map(|node| &node.redis)
    }

    /// A master, to kill or to pause.
    pub fn node_mut(&mut self, shard: usize) -> &mut Redis {
        &mut self.masters[shard].redis
    }

    /// Returns when every master says that the cluster is whole.
    pub async fn await_whole(&self) -> Result<()> {
        for redis in self.nodes() {
            until("the cluster is whole", async || {
                let state = redis.field(&["CLUSTER", "INFO"], "cluster_state").await;
                state.as_deref() == Some("ok")
            })
            .await?;
        }
        Ok(())
    }

    /// Master and replica of a shard change places, and nothing that was acknowledged is lost.
    /// The former master answers MOVED.
    pub async fn fail_over(&mut self, shard: usize) -> Result<()> {
        let (master, replica) = (&mut self.masters[shard], &mut self.replicas[shard]);
        replica.redis.cli(&["CLUSTER", "FAILOVER"]).await?;
        std::mem::swap(master, replica);
        until("the replica has taken over", async || {
            master.redis.is_master().await && replica.redis.follows().await
        })
        .await?;
        self.await_replicas().await
    }

    /// Moves a slot with everything in it.
    pub async fn move_slot(&self, slot: u16, from: usize, to: usize) -> Result<()> {
        let slot_move = SlotMove { slot, from, to };
        self.begin_move(slot_move).await?;
        self.move_keys(slot_move).await?;
        self.finish_move(slot_move).await
    }

    /// From now on the old master answers ASK for keys of the slot that it does not have.
    pub async fn begin_move(&self, SlotMove { slot, from, to }: SlotMove) -> Result<()> {
        let slot = slot.to_string();
        let (from, to) = (&self.masters[from], &self.masters[to]);
        to.redis.cli(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from.id]).await?;
        from.redis.cli(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to.id]).await?;
        Ok(())
    }

    pub async fn move_keys(&self, SlotMove { slot, from, to }: SlotMove) -> Result<()> {
        let (slot, port) = (slot.to_string(), self.masters[to].redis.port().to_string());
        let from = &self.masters[from].redis;
        loop {
            let keys = from.cli(&["CLUSTER", "GETKEYSINSLOT", &slot, KEYS_MAX]).await?;
            let keys: Vec<&str> = keys.lines().collect();
            if keys.is_empty() {
                return Ok(());
            }
            let head = ["MIGRATE", "127.0.0.1", &port, "", "0", MIGRATE_MS, "KEYS"];
            from.cli(&[&head, keys.as_slice()].concat()).await?;
        }
    }

    /// From now on the old master answers MOVED. Returns when every node knows the new one.
    pub async fn finish_move(&self, SlotMove { slot, from, to }: SlotMove) -> Result<()> {
        let owner = &self.masters[to].id;
        // The new owner first: were it the last, nobody would own the slot for a moment.
        for node in [to, from].map(|node| &self.masters[node]) {
            node.redis.cli(&["CLUSTER", "SETSLOT", &slot.to_string(), "NODE", owner]).await?;
        }
        self.await_agreement("who owns the slot", |known| {
            // ID ADDRESS FLAGS MASTER PING PONG EPOCH LINK SLOTS …
            let slots = entry(known, owner).skip(8);
            let bounds = slots.map(|slots| slots.split_once('-').unwrap_or((slots, slots)));
            bounds.map(|(first, last)| (first.parse(), last.parse())).any(|bounds| match bounds {
                (Ok(first), Ok(last)) => (first..=last).contains(&slot),
                _ => false,
            })
        })
        .await
    }

    /// Returns when every node knows every replica's master. Those who do not know would not vote
    /// for the replica.
    async fn await_replicas(&self) -> Result<()> {
        self.await_agreement("whose replica is whose", |known| {
            let mut shards = self.masters.iter().zip(&self.replicas);
            shards.all(|(master, replica)| entry(known, &replica.id).nth(3) == Some(&master.id))
        })
        .await
    }

    /// Returns when what `CLUSTER NODES` answers is right for every node.
    async fn await_agreement(&self, what: &str, is_right: impl Fn(&str) -> bool) -> Result<()> {
        for node in self.masters.iter().chain(&self.replicas) {
            until(what, async || {
                is_right(&node.redis.cli(&["CLUSTER", "NODES"]).await.unwrap_or_default())
            })
            .await?;
        }
        Ok(())
    }

    /// Every node meets every other, and knows all of them afterwards.
    async fn introduce(&self) -> Result<()> {
        let all: Vec<&Node> = self.masters.iter().chain(&self.replicas).collect();
        for node in &all {
            for other in &all {
                let (port, bus) = (other.redis.port().to_string(), other.bus.number().to_string());
                node.redis.cli(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]).await?;
            }
        }
        self.await_agreement("everybody has met", |known| {
            all.iter().all(|other| known.contains(&other.id)) && !known.contains("handshake")
        })
        .await
    }
}

impl Node {
    async fn start() -> Result<Self> {
        let bus = Port::take(0)?;
        let arguments = [
            ["--cluster-enabled", "yes"],
            ["--cluster-port", &bus.number().to_string()],
            ["--cluster-node-timeout", NODE_TIMEOUT_MS],
        ];
        let redis = Redis::start_with(&RedisOptions::default(), &arguments.concat()).await?;
        let id = redis.cli(&["CLUSTER", "MYID"]).await?;
        Ok(Self { redis, bus, id })
    }
}

/// The words of a node's line in what `CLUSTER NODES` answers.
fn entry<'k>(known: &'k str, id: &str) -> impl Iterator<Item = &'k str> {
    let line = known.lines().find(|line| line.starts_with(id));
    line.unwrap_or_default().split(' ')
}

const SLOTS: usize = 16_384;
/// After which a silent node is taken for dead. Short, so that tests need not wait for it, and
/// longer than a busy machine keeps a living one waiting.
const NODE_TIMEOUT_MS: &str = "2000";
const KEYS_MAX: &str = "100";
const MIGRATE_MS: &str = "5000";
