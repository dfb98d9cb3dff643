//! A scripted OpenAI-compatible upstream on a real socket.
//!
//! It speaks HTTP/1.1 by hand, because what it is for is to break it: it knows every byte it
//! sends and every moment it hangs up. What it does wrong is chosen by the ending of the model's
//! name, see [`Misbehaviour`]. What it was asked, and who hung up on it, can be awaited.

mod answer;
mod http;
mod misbehaviour;
mod script;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::listening::Port;
use crate::{CurrencyUnit, Faucet, Result, TokenFormat};

pub use misbehaviour::Misbehaviour;
use script::{Ending, Script};

/// What the upstream wants to see after `Bearer ` unless its options say otherwise.
pub const DEFAULT_API_KEY: &str = "sk-sandbox-upstream";

#[derive(Clone)]
pub struct UpstreamOptions {
    /// 0 takes any free port.
    pub port: u16,
    pub api_key: String,
    /// Models ending in `-slow` wait at a gate instead of for a moment.
    pub gated: bool,
    /// Serves `GET /faucet?amount=…&format=A|B&unit=…` as plain text.
    pub faucet: Option<Arc<Faucet>>,
}

impl Default for UpstreamOptions {
    fn default() -> Self {
        Self { port: 0, api_key: DEFAULT_API_KEY.into(), gated: false, faucet: None }
    }
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    /// With its query.
    pub path: String,
    /// In their order, names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
    pub at: Instant,
}

impl Seen {
    /// The first header of this name, which is given in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(seen, _)| seen == name)?;
        Some(value)
    }

    /// The body as JSON; `Null` where it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

pub struct Upstream {
    shared: Arc<Shared>,
    port: Port,
    serving: Option<Serving>,
}

impl Upstream {
    pub async fn start(options: UpstreamOptions) -> Result<Self> {
        let mut port = Port::take(options.port)?;
        let shared = Arc::new(Shared {
            gate: watch::Sender::new(!options.gated),
            url: format!("http://127.0.0.1:{}", port.number()),
            options,
            seen: Mutex::default(),
            count: watch::Sender::default(),
            client_gone: watch::Sender::default(),
        });
        let serving = Serving::start(port.listen()?, shared.clone());
        Ok(Self { shared, port, serving: Some(serving) })
    }

    /// Scheme, address and port.
    pub fn url(&self) -> String {
        self.shared.url.clone()
    }

    /// What a client of the OpenAI API calls the base URL: it ends in `/v1`.
    pub fn base_url(&self) -> String {
        format!("{}/v1", self.shared.url)
    }

    /// Refuses connections and drops those it has, in the middle of whatever they were sending.
    pub async fn stop(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.end().await;
            // Failing to keep the number shows when it is taken again, where it can be reported.
            drop(self.port.keep());
        }
    }

    /// Answers again at the same address, and still knows what it saw before.
    pub async fn start_again(&mut self) -> Result<()> {
        if self.serving.is_none() {
            self.serving = Some(Serving::start(self.port.listen()?, self.shared.clone()));
        }
        Ok(())
    }

    /// Every request that arrived whole, refused ones too, in order. The faucet's are not listed.
    pub fn requests(&self) -> Vec<Seen> {
        self.shared.seen().clone()
    }

    pub fn count(&self) -> u64 {
        *self.shared.count.borrow()
    }

    /// Returns when `count` has reached `count`.
    pub async fn await_request(&self, count: u64) {
        reach(&self.shared.count, count).await;
    }

    /// How many clients hung up between their request and the end of its answer.
    pub fn client_gone(&self) -> u64 {
        *self.shared.client_gone.borrow()
    }

    /// Returns when `client_gone` has reached `count`.
    pub async fn await_client_gone(&self, count: u64) {
        reach(&self.shared.client_gone, count).await;
    }

    /// Lets everything that waits at the gate go on, and whatever comes to it later.
    pub fn open_gate(&self) {
        self.shared.gate.send_replace(true);
    }

    pub fn close_gate(&self) {
        self.shared.gate.send_replace(false);
    }
}

async fn reach(counter: &watch::Sender<u64>, goal: u64) {
    // The sender outlives the wait: the caller borrows it.
    drop(counter.subscribe().wait_for(|count| *count >= goal).await);
}

struct Shared {
    options: UpstreamOptions,
    url: String,
    gate: watch::Sender<bool>,
    seen: Mutex<Vec<Seen>>,
    count: watch::Sender<u64>,
    client_gone: watch::Sender<u64>,
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Vec<Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, seen: &Seen) {
        self.seen().push(seen.clone());
        self.count.send_modify(|count| *count += 1);
    }
}

/// Aborts the server, and with it every connection, when it is dropped.
struct Serving {
    stop: CancellationToken,
    server: JoinSet<()>,
}

impl Serving {
    fn start(listener: TcpListener, shared: Arc<Shared>) -> Self {
        let stop = CancellationToken::new();
        let mut server = JoinSet::new();
        let stopped = stop.clone();
        server.spawn(async move {
            let mut connections = JoinSet::new();
            tokio::select! {
                () = stopped.cancelled() => {}
                () = accept(&listener, &shared, &mut connections) => {}
            }
            drop(listener);
            connections.shutdown().await;
        });
        Self { stop, server }
    }

    async fn end(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.server.join_next().await {
            if let Err(error) = ended {
                log::error!("the upstream's server failed: {error}");
            }
        }
    }
}

async fn accept(listener: &TcpListener, shared: &Arc<Shared>, connections: &mut JoinSet<()>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let shared = shared.clone();
                connections.spawn(async move {
                    if let Err(error) = converse(stream, &shared).await {
                        log::debug!("a connection to the upstream ended: {error}");
                    }
                });
            }
            Err(error) => log::warn!("the upstream could not accept: {error}"),
        }
        while connections.try_join_next().is_some() {}
    }
}

/// One connection, until either side has had enough.
async fn converse(stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    while let Some(seen) = http::read_request(&mut reader, &mut writer).await? {
        let script = respond(&seen, shared).await;
        if !perform(script, &mut reader, &mut writer, shared).await? || http::wants_close(&seen) {
            break;
        }
    }
    Ok(())
}

async fn respond(seen: &Seen, shared: &Shared) -> Script {
    let (path, query) = seen.path.split_once('?').unwrap_or((&seen.path, ""));
    if let (Some(faucet), "/faucet") = (&shared.options.faucet, path) {
        return match pour(faucet, query).await {
            Ok(text) => Script::plain_text(200, &text),
            Err(error) => Script::plain_text(400, &format!("{error}\n")),
        };
    }
    shared.record(seen);
    let expected = format!("Bearer {}", shared.options.api_key);
    if seen.header("authorization") != Some(&expected) {
        return Script::unauthorized(&shared.options.api_key);
    }
    match (seen.method.as_str(), path) {
        ("GET", "/v1/models") => Script::models(),
        ("POST", "/v1/chat/completions") => Script::chat(seen, &shared.options, &shared.url),
        _ => Script::not_found(path),
    }
}

/// Plays the script while watching whether the client is still there. False when nothing more can
/// be said on this connection.
async fn perform(
    script: Script,
    reader: &mut BufReader<OwnedReadHalf>,
    writer: &mut OwnedWriteHalf,
    shared: &Shared,
) -> io::Result<bool> {
    let ending = tokio::select! {
        // In this order, so that an answer that was sent whole never counts as interrupted.
        biased;
        ending = script.play(writer, shared.gate.subscribe()) => ending,
        () = client_left(reader) => Err(io::ErrorKind::ConnectionReset.into()),
    };
    if ending.is_err() {
        shared.client_gone.send_modify(|count| *count += 1);
    }
    Ok(matches!(ending?, Ending::KeepAlive))
}

async fn client_left(reader: &mut BufReader<OwnedReadHalf>) {
    match reader.fill_buf().await {
        // The next request is waiting already: somebody is there.
        Ok(bytes) if !bytes.is_empty() => std::future::pending().await,
        Ok(_) | Err(_) => {}
    }
}

async fn pour(faucet: &Faucet, query: &str) -> Result<String> {
    let mut amount = None;
    let mut unit = CurrencyUnit::Sat;
    let mut format = TokenFormat::B;
    for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        match name {
            "amount" => {
                let whole = value.parse().map_err(|_| format!("{value:?} is no whole amount"))?;
                amount = Some(whole);
            }
            "unit" => unit = value.parse()?,
            "format" => format = value.parse()?,
            _ => return Err(format!("amount, unit and format are known, {name:?} is not").into()),
        }
    }
    let amount = amount.ok_or("say how much: /faucet?amount=100&format=B&unit=sat")?;
    faucet.cashu(amount, unit, format).await
}
