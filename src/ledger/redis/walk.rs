//! Walking the whole ledger beside its traffic, for the audit.
//!
//! Each account is looked at in one atomic call, so that what is seen of it belongs together
//! whatever happens around it. Keys are found with `SCAN`, node by node, which never holds the
//! server up; one that is found twice is looked at once.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{BuildHasher, RandomState};

use futures_util::future::join_all;
use redis::cluster_routing::{RoutingInfo, SingleNodeRoutingInfo};
use redis::{Cmd, RedisResult, Value};

use super::link::{Call, Connection, Errand};
use super::replies::{self, Parts, Read};
use super::{Redis, Shard};
use crate::ids::{AccountId, DepositId, WithdrawalId};
use crate::ledger::{Account, Unavailable, Withdrawal};
use crate::money::Msat;

/// One account, everything that came in and went out, and what its open reservations hold, at
/// one instant.
#[derive(Clone, Debug)]
pub struct Look {
    pub id: AccountId,
    pub account: Account,
    pub deposits: Vec<(DepositId, Msat)>,
    pub withdrawals: Vec<Withdrawal>,
    /// Amount and number of the open reservations that it pays for.
    pub paid: (Msat, u64),
    /// The same of those made with its key.
    pub through: (Msat, u64),
}

impl Redis {
    /// Looks at every account, once. Answers the open reservations that no reaper or account
    /// would ever find again, of which there are none in a sound ledger.
    pub async fn walk(
        &self,
        visit: &mut (dyn FnMut(Look) + Send),
    ) -> Result<BTreeSet<String>, Unavailable> {
        let (hasher, mut known) = (RandomState::new(), HashSet::new());
        let mut strays = BTreeSet::new();
        for node in self.masters().await? {
            let mut cursor = "0".to_owned();
            loop {
                let scan = Scan { node: node.clone(), cursor };
                let mut answer = Parts::of(self.0.background.run(&scan).await?)?;
                cursor = answer.text()?;
                let mut keys = Parts::of(answer.next()?)?;
                let mut accounts = Vec::new();
                let mut reservations: BTreeMap<String, Vec<String>> = BTreeMap::new();
                while !keys.is_empty() {
                    let key = keys.text()?;
                    let Some((shard, kind, id)) = Shard::of_key(&key) else { continue };
                    match kind {
                        "a" if known.insert(hasher.hash_one(&key)) => {
                            accounts.push(AccountId::stored(id));
                        }
                        "r" => reservations.entry(shard.tag).or_default().push(id.to_owned()),
                        _ => {}
                    }
                }
                for look in join_all(accounts.into_iter().map(|id| self.look(id))).await {
                    look?.into_iter().for_each(&mut *visit);
                }
                for (tag, ids) in reservations {
                    strays.extend(self.strays(Shard { tag }, ids).await?);
                }
                if cursor == "0" {
                    break;
                }
            }
        }
        for shard in Shard::all() {
            strays.extend(self.strays(shard, Vec::new()).await?);
        }
        Ok(strays)
    }

    async fn look(&self, id: AccountId) -> Read<Option<Look>> {
        let shard = Shard::of(&id);
        let keys = [shard.account(&id), shard.withdrawals(&id), shard.due()];
        let call = Call::new(&self.0.scripts.look, keys).arg(shard.reservations()).arg(&id);
        let mut parts = Parts::of(self.0.background.run(&call).await?)?;
        if parts.is_empty() {
            return Ok(None);
        }
        let account = Parts::of(parts.next()?)?.account()?.ok_or_else(replies::unreadable)?;
        let (mut deposits, mut found) = (Vec::new(), Parts::of(parts.next()?)?);
        while !found.is_empty() {
            deposits.push((DepositId::stored(found.text()?), found.msat()?));
        }
        let (mut withdrawals, mut found) = (Vec::new(), Parts::of(parts.next()?)?);
        while !found.is_empty() {
            let (withdrawal, row) = (WithdrawalId::stored(found.text()?), found.text()?);
            withdrawals.push(replies::withdrawal(&row, id.clone(), withdrawal)?);
        }
        let paid = (parts.msat()?, parts.number()?);
        let through = (parts.msat()?, parts.number()?);
        Ok(Some(Look { id, account, deposits, withdrawals, paid, through }))
    }

    async fn strays(&self, shard: Shard, seen: Vec<String>) -> Read<Vec<String>> {
        let call = Call::new(&self.0.scripts.strays, [shard.due()])
            .arg(shard.accounts())
            .arg(shard.reservations());
        let call = seen.into_iter().fold(call, Call::arg);
        let (mut strays, mut found) = (Vec::new(), Parts::of(self.0.background.run(&call).await?)?);
        while !found.is_empty() {
            strays.push(found.text()?);
        }
        Ok(strays)
    }

    /// Every master that holds keys; one that needs no name where there is only one.
    async fn masters(&self) -> Read<Vec<Option<Node>>> {
        if !self.0.link.is_cluster() {
            return Ok(vec![None]);
        }
        let mut slots = redis::cmd("CLUSTER");
        slots.arg("SLOTS");
        let mut ranges = Parts::of(self.0.background.run(&slots).await?)?;
        let mut nodes = Vec::new();
        while !ranges.is_empty() {
            let mut range = Parts::of(ranges.next()?)?;
            let (_from, _to) = (range.number()?, range.number()?);
            let mut master = Parts::of(range.next()?)?;
            let node = Node {
                host: master.text()?,
                port: u16::try_from(master.number()?).map_err(|_| replies::unreadable())?,
            };
            if !nodes.contains(&Some(node.clone())) {
                nodes.push(Some(node));
            }
        }
        Ok(nodes)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Node {
    host: String,
    port: u16,
}

/// One step through the keys of one node.
struct Scan {
    node: Option<Node>,
    cursor: String,
}

impl Scan {
    fn command(&self) -> Cmd {
        let mut scan = redis::cmd("SCAN");
        scan.arg(&self.cursor).arg("MATCH").arg("ng:*").arg("COUNT").arg(KEYS_AT_ONCE);
        scan
    }
}

impl Errand for Scan {
    type Answer = Value;

    async fn run(&self, connection: Connection) -> RedisResult<Value> {
        match (connection, &self.node) {
            (Connection::Cluster(mut cluster), Some(Node { host, port })) => {
                let node = SingleNodeRoutingInfo::ByAddress { host: host.clone(), port: *port };
                cluster.route_command(self.command(), RoutingInfo::SingleNode(node)).await
            }
            (mut connection, _) => connection.ask(&self.command()).await,
        }
    }
}

/// A hint for `SCAN`: enough that the way there and back is not what it costs.
const KEYS_AT_ONCE: usize = 500;
