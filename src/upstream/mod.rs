//! Upstreams: who serves a model, which of them is asked, and how they do.
//!
//! What decides here is pure and is given the time: `breaker` when one is left alone, `select`
//! whose turn it is, `unsupported` what a refusal names. The clock, the lock and the log are in
//! this file. Nothing here is asked of a network but names.

mod address;
mod breaker;
mod head;
mod health;
mod latency;
pub mod probe;
mod select;
#[cfg(test)]
mod tests;
mod unsupported;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use self::address::Address;
use self::breaker::{Moved, Pass, Rules};
use self::head::Head;
use self::health::{Change, Health};
use self::select::Known;
use crate::clock::Stopwatch;
use crate::config::{self, Http, Select};
use crate::money::Msat;
use crate::pricing::Served;

pub use self::breaker::Position;
pub use self::health::{Asking, Counts, Failure, Outcome, REFUSALS};

/// One upstream, parsed once at start.
#[derive(Debug)]
pub struct Upstream {
    pub name: String,
    /// Its own among all upstreams.
    pub number: u64,
    pub tls: bool,
    pub http: Http,
    /// Scheme and authority.
    origin: String,
    /// For the certificate: without port or brackets.
    pub host: String,
    pub ca_file: Option<PathBuf>,
    pub connect_timeout: Duration,
    pub first_byte_timeout: Duration,
    pub idle_timeout: Duration,
    pub total_timeout: Duration,
    probe: Option<config::Probe>,
    strip_unsupported: Vec<String>,
    address: Address,
    head: Head,
    health: Mutex<Health>,
    /// Since when `now` counts; the same for all upstreams.
    started: Stopwatch,
}

impl Upstream {
    /// Reads a checked configuration; `Err` names what is wrong with it.
    fn new(config: &config::Upstream, number: u64, started: Stopwatch) -> Result<Self, String> {
        let url: http::Uri =
            config.base_url.parse().map_err(|_| "base_url is not a URL".to_owned())?;
        let tls = match url.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err("base_url is neither http nor https".to_owned()),
        };
        let host = url.host().filter(|host| !host.is_empty()).ok_or("base_url has no host")?;
        let default_port = if tls { 443 } else { 80 };
        let port = url.port_u16().unwrap_or(default_port);
        let authority =
            if port == default_port { host.to_owned() } else { format!("{host}:{port}") };
        let bare_host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let config::Health { failures, cooldown, ref probe } = config.health;
        Ok(Self {
            name: config.name.clone(),
            number,
            tls,
            http: config.http,
            origin: format!("{}://{authority}", if tls { "https" } else { "http" }),
            host: bare_host.clone(),
            ca_file: config.ca_file.clone(),
            connect_timeout: config.connect_timeout,
            first_byte_timeout: config.first_byte_timeout,
            idle_timeout: config.idle_timeout,
            total_timeout: config.total_timeout,
            probe: probe.clone(),
            strip_unsupported: config.strip_unsupported.clone(),
            address: Address::new(bare_host, port),
            head: Head::new(config, &authority, url.path().trim_end_matches('/'))?,
            health: Mutex::new(Health::new(Rules { failures, cooldown })),
            started,
        })
    }

    /// An address to connect to. Fails within the connect timeout.
    pub async fn address(&self) -> Result<SocketAddr, String> {
        self.address.resolve(self.connect_timeout).await
    }

    /// After a failed connection the name is asked for again.
    pub fn forget_address(&self) {
        self.address.forget();
    }

    /// The lines to set in every head, each instead of whatever has its name: `Host`, the
    /// configured headers, and the credential. Scrub the client's head before.
    pub fn head_lines(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.head.lines()
    }

    /// The path and query to ask for; `below` is what stands below the base URL.
    pub fn path(&self, below: &str) -> String {
        self.head.path(below)
    }

    /// The same as a whole URL, for whoever asks beside the traffic.
    pub fn url(&self, below: &str) -> String {
        format!("{}{}", self.origin, self.path(below))
    }

    /// The parameter that the body of a 400 names as not supported, if it may be taken out for
    /// this upstream.
    pub fn unsupported(&self, body: &[u8]) -> Option<&str> {
        unsupported::unsupported(body, &self.strip_unsupported)
    }

    /// Whether any parameter may be taken out, so that the body of a 400 is worth reading.
    pub fn strips(&self) -> bool {
        !self.strip_unsupported.is_empty()
    }

    /// The right to ask it once; `None`: it is to be left alone for [`Self::rests`].
    pub fn begin(self: &Arc<Self>) -> Option<Asking> {
        let pass = self.health().begin(self.now())?;
        Some(Asking::new(self.clone(), pass))
    }

    /// How long [`Self::begin`] still answers `None`, unless something is heard of it earlier.
    pub fn rests(&self) -> Option<Duration> {
        let now = self.now();
        self.health().closed_until(now).map(|until| until.saturating_sub(now))
    }

    pub fn position(&self) -> Position {
        self.health().position(self.now())
    }

    /// How long its answers took to begin lately; `None`: none of them has.
    pub fn first_byte(&self) -> Option<Duration> {
        self.health().first_byte()
    }

    pub fn counts(&self) -> Counts {
        self.health().counts()
    }

    fn known(&self, served: &Served, ceiling: Msat) -> Known {
        let now = self.now();
        let health = self.health();
        Known {
            waits_until: health.waits_until(now),
            weight: served.weight,
            ceiling,
            first_byte: health.first_byte(),
        }
    }

    fn report(&self, pass: &mut Pass, outcome: Outcome) {
        let now = self.now();
        let changes = self.health().report(pass, outcome, now);
        self.tell(changes);
    }

    fn abandoned(&self, pass: &Pass) {
        self.health().abandoned(pass);
    }

    fn probed(&self, found: Result<u16, Failure>) {
        let now = self.now();
        let changes = self.health().probed(found, now);
        self.tell(changes);
    }

    /// Each change is a line for the operator, and what goes on as before is none.
    fn tell(&self, changes: [Option<Change>; 2]) {
        let name = &self.name;
        for change in changes.into_iter().flatten() {
            match change {
                Change::Refuses(status) => log::error!(
                    "upstream {name}: refuses this gateway with {status}; look at its api_key and \
                     at the account there"
                ),
                Change::Accepts => log::info!("upstream {name}: accepts this gateway again"),
                Change::Moved(Moved::Opened(cooldown)) => {
                    log::warn!("upstream {name}: fails, and rests for {} ms", cooldown.as_millis());
                }
                Change::Moved(Moved::Closed) => log::info!("upstream {name}: answers again"),
            }
        }
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }
}

/// An upstream to ask, and which of the given ones it is.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub upstream: Arc<Upstream>,
    pub index: usize,
}

/// How long until the first of these may be asked; nothing where one may be at once.
pub fn rest_of(candidates: &[Candidate]) -> Duration {
    let rests = candidates.iter().map(|candidate| candidate.upstream.rests().unwrap_or_default());
    rests.min().unwrap_or_default()
}

/// All upstreams by name.
#[derive(Clone, Debug, Default)]
pub struct Upstreams(HashMap<String, Arc<Upstream>>);

impl Upstreams {
    pub fn new(configs: &[config::Upstream]) -> Result<Self, String> {
        let started = Stopwatch::start();
        let mut all = HashMap::new();
        for (config, number) in configs.iter().zip(0..) {
            let upstream = Upstream::new(config, number, started)
                .map_err(|problem| format!("upstream {}: {problem}", config.name))?;
            all.insert(config.name.clone(), Arc::new(upstream));
        }
        Ok(Self(all))
    }

    /// Those that serve a model, in the order in which to ask them. `ceilings` are what this
    /// request may cost at most at each of `served`; one that is missing is dearer than all.
    pub fn candidates(
        &self,
        served: &[Served],
        select: Select,
        ceilings: &[Msat],
    ) -> Vec<Candidate> {
        let mut candidates = Vec::with_capacity(served.len());
        let mut known = Vec::with_capacity(served.len());
        for (index, served) in served.iter().enumerate() {
            let Some(upstream) = self.find(&served.upstream) else { continue };
            let ceiling = ceilings.get(index).copied().unwrap_or(Msat::MAX);
            known.push(upstream.known(served, ceiling));
            candidates.push(Candidate { upstream: upstream.clone(), index });
        }
        let dice = match select {
            Select::Order | Select::Price => 0,
            // Without chance it is an order like any other.
            Select::Weight | Select::Latency => getrandom::u64().unwrap_or_default(),
        };
        let order = select::order(&known, select, dice);
        order.into_iter().filter_map(|place| candidates.get(place).cloned()).collect()
    }

    pub fn find(&self, name: &str) -> Option<&Arc<Upstream>> {
        self.0.get(name)
    }

    pub fn all(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.0.values()
    }
}
