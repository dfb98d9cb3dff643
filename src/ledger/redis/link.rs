//! The connection to Redis: multiplexed, dialled again whenever it breaks, every wait bounded.
//!
//! A command is repeated until its time is over, because every verb is idempotent: what a
//! broken connection leaves unknown, the repetition finds out.
//!
//! | what happens | what is done |
//! |---|---|
//! | NOSCRIPT: this server has not seen the script | sent whole |
//! | LOADING, TRYAGAIN, CLUSTERDOWN, MASTERDOWN | asked again a moment later |
//! | READONLY: a replica by now; or the connection broke | dialled again, by a sentinel's word |
//! | MOVED, ASK: a slot is elsewhere | the cluster's connection follows |
//! | no answer in time | [`Unavailable`]; a server that only paused answers on the same one |
//! | a host that is gone without a word | given up by the kernel after [`UNHEARD_MAX`] |

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::io::tcp::TcpSettings;
use redis::sentinel::{SentinelClient, SentinelNodeConnectionInfo, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, Pipeline, RedisError, RedisResult,
    ServerErrorKind, Value,
};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, watch};

use super::address::Address;
use super::scripts::Script;
use crate::ledger::Unavailable;

/// A handle; cheap to clone. The dialling ends with the runtime it was opened on.
#[derive(Clone)]
pub(super) struct Link {
    line: Arc<Line>,
    patience: Duration,
}

struct Line {
    dial: Dial,
    current: watch::Sender<Option<Connected>>,
    runtime: Handle,
}

#[derive(Clone)]
struct Connected {
    generation: u64,
    connection: Connection,
}

/// One connection to wherever the keys are.
#[derive(Clone)]
pub(super) enum Connection {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

enum Dial {
    One(Box<Client>),
    Cluster(Box<redis::cluster::ClusterClient>),
    Sentinel(Box<Mutex<SentinelClient>>),
}

/// One call of a script.
pub(super) struct Call<'s> {
    script: &'s Script,
    keys: Vec<String>,
    args: Vec<Vec<u8>>,
}

impl<'s> Call<'s> {
    pub(super) fn new<const K: usize>(script: &'s Script, keys: [String; K]) -> Self {
        Self { script, keys: keys.into(), args: Vec::new() }
    }

    pub(super) fn arg(mut self, arg: impl ToString) -> Self {
        self.args.push(arg.to_string().into_bytes());
        self
    }

    pub(super) fn bytes(mut self, bytes: Vec<u8>) -> Self {
        self.args.push(bytes);
        self
    }

    /// One key more.
    pub(super) fn key(mut self, key: String) -> Self {
        self.keys.push(key);
        self
    }

    /// By its hash, which every server that has seen it knows.
    pub(super) fn by_hash(&self) -> Cmd {
        self.command("EVALSHA", &self.script.hash)
    }

    pub(super) fn whole(&self) -> Cmd {
        self.command("EVAL", &self.script.code)
    }

    fn command(&self, verb: &str, script: &str) -> Cmd {
        let mut command = redis::cmd(verb);
        command.arg(script).arg(self.keys.len()).arg(&self.keys).arg(&self.args);
        command
    }
}

/// Something to be done over a connection, and safe to be done again.
pub(super) trait Errand: Sync {
    type Answer: Send;

    fn run(&self, connection: Connection)
    -> impl Future<Output = RedisResult<Self::Answer>> + Send;
}

impl Errand for Cmd {
    type Answer = Value;

    async fn run(&self, mut connection: Connection) -> RedisResult<Value> {
        connection.ask(self).await
    }
}

impl Errand for Call<'_> {
    type Answer = Value;

    async fn run(&self, mut connection: Connection) -> RedisResult<Value> {
        match connection.ask(&self.by_hash()).await {
            Err(error) if is_unknown_script(&error) => connection.ask(&self.whole()).await,
            answer => answer,
        }
    }
}

/// What helps against an error.
enum Cure {
    Dial,
    Wait,
    Nothing,
}

impl Link {
    /// Dials at once, in the background: a server that is not there yet is no reason not to
    /// start.
    pub(super) fn open(
        address: Address,
        patience: Duration,
        runtime: Handle,
    ) -> Result<Self, String> {
        let dial = Dial::new(address).map_err(|error| error.to_string())?;
        let line = Arc::new(Line { dial, current: watch::Sender::new(None), runtime });
        line.clone().dial_after(0);
        Ok(Self { line, patience })
    }

    pub(super) fn is_cluster(&self) -> bool {
        matches!(self.line.dial, Dial::Cluster(_))
    }

    /// The same connection for work that no client waits for.
    pub(super) fn patiently(&self, patience: Duration) -> Self {
        Self { line: self.line.clone(), patience }
    }

    /// Repeats an errand until it is done, cannot be helped, or this link's patience is over.
    pub(super) async fn run<E: Errand>(&self, errand: &E) -> Result<E::Answer, Unavailable> {
        let repeated = async {
            loop {
                let Connected { generation, connection } = self.connected().await;
                let error = match errand.run(connection).await {
                    Ok(answer) => return Ok(answer),
                    Err(error) => error,
                };
                match cure(&error) {
                    Cure::Dial => self.line.clone().hang_up(generation),
                    Cure::Wait => tokio::time::sleep(AGAIN_AFTER).await,
                    Cure::Nothing => return Err(Unavailable(error.to_string())),
                }
            }
        };
        tokio::time::timeout(self.patience, repeated)
            .await
            .unwrap_or_else(|_| Err(Unavailable("no answer in time".to_owned())))
    }

    async fn connected(&self) -> Connected {
        let mut current = self.line.current.subscribe();
        loop {
            if let Some(connected) = current.borrow_and_update().clone() {
                return connected;
            }
            // The sender lives as long as this link.
            if current.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

impl Line {
    /// Gives up a broken connection, once, and dials again.
    fn hang_up(self: Arc<Self>, generation: u64) {
        let broke = self.current.send_if_modified(|current| {
            let same = current.as_ref().is_some_and(|now| now.generation == generation);
            if same {
                *current = None;
            }
            same
        });
        if broke {
            self.dial_after(generation);
        }
    }

    fn dial_after(self: Arc<Self>, generation: u64) {
        let runtime = self.runtime.clone();
        runtime.spawn(async move {
            let mut pause = PAUSE_MIN;
            loop {
                match tokio::time::timeout(DIAL_MAX, self.dial.connect()).await {
                    Ok(Ok(connection)) => {
                        let generation = generation.saturating_add(1);
                        self.current.send_replace(Some(Connected { generation, connection }));
                        return;
                    }
                    Ok(Err(error)) => log::warn!("redis: {error}"),
                    Err(_) => log::warn!("redis: does not answer"),
                }
                tokio::time::sleep(pause).await;
                pause = pause.saturating_mul(2).min(PAUSE_MAX);
            }
        });
    }
}

impl Dial {
    fn new(address: Address) -> RedisResult<Self> {
        let tcp = TcpSettings::default().set_nodelay(true).set_user_timeout(UNHEARD_MAX);
        Ok(match address {
            Address::One(info) => Self::One(Box::new(Client::open(info.set_tcp_settings(tcp))?)),
            Address::Cluster(nodes) => {
                let client = ClusterClientBuilder::new(nodes)
                    .tcp_settings(tcp)
                    .connection_timeout(DIAL_MAX)
                    .response_timeout(RESPONSE_MAX)
                    .retries(CLUSTER_RETRIES)
                    .min_retry_wait(1)
                    .max_retry_wait(CLUSTER_RETRY_WAIT_MS)
                    .build()?;
                Self::Cluster(Box::new(client))
            }
            Address::Sentinel { sentinels, name, server } => {
                let node = SentinelNodeConnectionInfo::default()
                    .set_redis_connection_info(server.redis_settings().clone())
                    .set_tcp_settings(tcp);
                let master = SentinelServerType::Master;
                let client = SentinelClient::build(sentinels, name, Some(node), master)?;
                Self::Sentinel(Box::new(Mutex::new(client)))
            }
        })
    }

    async fn connect(&self) -> RedisResult<Connection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(DIAL_MAX))
            .set_response_timeout(Some(RESPONSE_MAX));
        Ok(match self {
            Self::One(client) => {
                Connection::One(client.get_multiplexed_async_connection_with_config(&config).await?)
            }
            Self::Cluster(client) => Connection::Cluster(client.get_async_connection().await?),
            Self::Sentinel(client) => Connection::One(
                client.lock().await.get_async_connection_with_config(&config).await?,
            ),
        })
    }
}

impl Connection {
    pub(super) async fn ask(&mut self, command: &Cmd) -> RedisResult<Value> {
        match self {
            Self::One(connection) => command.query_async(connection).await,
            Self::Cluster(connection) => command.query_async(connection).await,
        }
    }

    /// Every command's own answer; they are for one slot.
    pub(super) async fn ask_all(
        &mut self,
        pipeline: &mut Pipeline,
    ) -> RedisResult<Vec<RedisResult<Value>>> {
        let pipeline = pipeline.ignore_errors();
        match self {
            Self::One(connection) => pipeline.query_async(connection).await,
            Self::Cluster(connection) => pipeline.query_async(connection).await,
        }
    }
}

pub(super) fn is_unknown_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

/// Whether the same again, to the right server, may succeed.
pub(super) fn can_be_helped(error: &RedisError) -> bool {
    !matches!(cure(error), Cure::Nothing)
}

fn cure(error: &RedisError) -> Cure {
    use ServerErrorKind::{Ask, BusyLoading, ClusterDown, MasterDown, Moved, ReadOnly, TryAgain};
    match error.kind() {
        // A cluster's connection has followed a move by the time that somebody asks again.
        ErrorKind::Server(Ask | BusyLoading | ClusterDown | MasterDown | Moved | TryAgain) => {
            Cure::Wait
        }
        ErrorKind::Server(ReadOnly) | ErrorKind::Io | ErrorKind::ClusterConnectionNotFound => {
            Cure::Dial
        }
        _ => Cure::Nothing,
    }
}

/// A server that does not take a connection in this time is tried again.
const DIAL_MAX: Duration = Duration::from_secs(1);

/// Longer than any patience: a command that nobody waits for any more is dropped from the
/// books of the connection.
const RESPONSE_MAX: Duration = Duration::from_secs(30);

/// How long bytes may stay unacknowledged before a connection counts as broken.
const UNHEARD_MAX: Duration = Duration::from_secs(2);

/// Between two attempts to connect: short, so that service is back at once.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// Before a server that is not ready is asked again.
const AGAIN_AFTER: Duration = Duration::from_millis(10);

const CLUSTER_RETRIES: u32 = 8;
const CLUSTER_RETRY_WAIT_MS: u64 = 100;
