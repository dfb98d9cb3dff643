//! A scripted OpenAI-compatible upstream on a real socket.
//!
//! It speaks HTTP/1.1 by hand, because what it is for is to break it: it knows every byte it
//! sends and every moment it hangs up. What it does wrong is chosen by the ending of the model's
//! name, see [`Misbehaviour`]. What it was asked, and who hung up on it, can be awaited.

mod answer;
mod form;
mod http;
mod misbehaviour;
mod produced;
mod respond;
mod route;
mod script;
mod serving;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::listening::Port;
use crate::{Faucet, Result};

pub use misbehaviour::{EVENTS_MAX, Misbehaviour, model_of_events};
pub use produced::{Ended, Produced};
use serving::Serving;

/// The upstream's key unless its options say otherwise.
pub const DEFAULT_API_KEY: &str = "sk-sandbox-upstream";

#[derive(Clone)]
pub struct UpstreamOptions {
    /// 0 takes any free port.
    pub port: u16,
    pub api_key: String,
    /// Where the key may stand; a request that has it in none of these is refused.
    pub auth: Vec<KeyHeader>,
    /// What stands before `/chat/completions` and the other paths.
    pub prefix: String,
    /// Models ending in `-slow` wait at a gate instead of for a moment.
    pub gated: bool,
    /// Serves `GET /faucet?amount=…&format=A|B&unit=…` as plain text.
    pub faucet: Option<Arc<Faucet>>,
    /// What `GET …/models` answers, as it is; without it a plain list of the models.
    pub listing: Option<serde_json::Value>,
    /// A top-level parameter that is refused with 400 `unsupported_parameter`.
    pub rejects_param: Option<String>,
}

/// A way to show the upstream's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyHeader {
    /// `Authorization: Bearer …`
    Bearer,
    /// Anthropic's.
    XApiKey,
    /// Azure's.
    ApiKey,
}

impl Default for UpstreamOptions {
    fn default() -> Self {
        Self {
            port: 0,
            api_key: DEFAULT_API_KEY.into(),
            auth: vec![KeyHeader::Bearer, KeyHeader::XApiKey, KeyHeader::ApiKey],
            prefix: "/v1".into(),
            gated: false,
            faucet: None,
            listing: None,
            rejects_param: None,
        }
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
            steps: Semaphore::new(0),
            url: format!("http://127.0.0.1:{}", port.number()),
            options,
            seen: Mutex::default(),
            failing: Mutex::default(),
            produced: Mutex::default(),
            count: watch::Sender::default(),
            produced_count: watch::Sender::default(),
            client_gone: watch::Sender::default(),
        });
        let serving = Serving::start(port.listen()?, shared.clone());
        Ok(Self { shared, port, serving: Some(serving) })
    }

    /// Scheme, address and port.
    pub fn url(&self) -> String {
        self.shared.url.clone()
    }

    /// What a client of the OpenAI API calls the base URL: it ends in the prefix, mostly `/v1`.
    pub fn base_url(&self) -> String {
        format!("{}{}", self.shared.url, self.shared.options.prefix)
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

    /// Answers the next `count` requests to routes that are sold with this status, after those
    /// that were asked for before. The list of models is not among them.
    pub fn fail_next(&self, count: u64, status: u16) {
        self.shared.failing().next.push_back((count, status));
    }

    /// Answers everything with this status, the list of models too, until told otherwise.
    pub fn fail_all(&self, status: Option<u16>) {
        self.shared.failing().all = status;
    }

    /// What was produced in every attempt at a route that is sold, in the order of their ends.
    pub fn produced(&self) -> Vec<Produced> {
        self.shared.produced().clone()
    }

    /// Returns when `produced` lists `count`: the last of an answer is read by its client before
    /// it is listed here.
    pub async fn await_produced(&self, count: u64) {
        reach(&self.shared.produced_count, count).await;
    }

    /// Lets everything that waits at the gate go on, and whatever comes to it later.
    pub fn open_gate(&self) {
        self.shared.gate.send_replace(true);
    }

    pub fn close_gate(&self) {
        self.shared.gate.send_replace(false);
    }

    /// Lets whoever waits for a step, now or later, go on by one. See [`Misbehaviour::Stepped`].
    pub fn step(&self) {
        self.shared.steps.add_permits(1);
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
    steps: Semaphore,
    seen: Mutex<Vec<Seen>>,
    failing: Mutex<Failing>,
    produced: Mutex<Vec<Produced>>,
    count: watch::Sender<u64>,
    produced_count: watch::Sender<u64>,
    client_gone: watch::Sender<u64>,
}

/// Statuses that were asked for from outside.
#[derive(Default)]
struct Failing {
    all: Option<u16>,
    next: VecDeque<(u64, u16)>,
}

impl Failing {
    fn status(&mut self, sold: bool) -> Option<u16> {
        if self.all.is_some() || !sold {
            return self.all;
        }
        while let Some((left, status)) = self.next.front_mut() {
            if *left > 0 {
                *left -= 1;
                return Some(*status);
            }
            self.next.pop_front();
        }
        None
    }
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Vec<Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failing(&self) -> MutexGuard<'_, Failing> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn produced(&self) -> MutexGuard<'_, Vec<Produced>> {
        self.produced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, seen: &Seen) {
        self.seen().push(seen.clone());
        self.count.send_modify(|count| *count += 1);
    }

    fn list(&self, produced: Produced) {
        self.produced().push(produced);
        self.produced_count.send_modify(|count| *count += 1);
    }
}
