//! Configuration: what `conf/nutgate.yaml` documents, parsed once at the door.
//!
//! That file is compiled in and is the default; an operator's file is merged over it. Either there
//! is a [`Config`] that has passed every check, or a list of every mistake with its line: nothing
//! half valid is ever applied.

mod checks;
mod feeds;
mod foreign;
mod guard;
mod mistake;
mod model;
mod references;
mod scalars;
mod schema;
#[cfg(test)]
mod tests;
mod upstream;
#[cfg(test)]
mod upstream_tests;
mod url;
mod webhooks;
mod yaml;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use feeds::{
    AGREE_WITHIN_PERCENT_MAX, BtcUsdFeed, ListingPolicy, MARKUP_PERCENT_MAX, RATE_SOURCES_MAX,
    RateSource,
};
pub use foreign::ForeignMints;
pub use guard::{Guard, Origins};
pub use mistake::{Mistake, Mistakes, NotLoaded};
pub use model::{
    Abort, AudioPrice, Currency, ImagePrice, ImageTokens, MissingUsage, Model, OutputLimitField,
    Price, ROUTE_NAMES, Select, ServedBy, WEB_SEARCHES_MAX, WEIGHT_MAX,
};
pub use references::{Machine, Outside};
pub use upstream::{Auth, Health, Http, Probe, Upstream};
pub use webhooks::{RETRIES_MAX, TIMEOUT_MAX, Webhooks};

use mistake::Found;
use yaml::Document;

use crate::ledger::{Retention, terms};

/// The documented default, as text.
pub const DEFAULT: &str = include_str!("../../conf/nutgate.yaml");

/// A secret from configuration: never printed.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub fn reveal(&self) -> &str {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

/// A configuration that has passed every check.
#[derive(Clone, Debug)]
pub struct Config {
    pub name: String,
    pub description: String,
    pub npub: String,
    pub http_url: String,
    pub onion_url: String,
    pub data_dir: PathBuf,
    pub seed_file: PathBuf,
    /// `None`: one machine, with ledger and wallet in `data_dir`.
    pub fleet: Option<Fleet>,
    pub log: String,
    pub listen: Listen,
    pub admin_address: SocketAddr,
    pub limits: Limits,
    /// For every key that has none of its own.
    pub rate_limits: terms::Limits,
    pub reservation: Reservation,
    /// How often the books are added up again beside the traffic.
    pub audit_every: Option<Duration>,
    pub refunds_alias: bool,
    pub guard: Guard,
    /// The pages that may call this gateway from a browser.
    pub origins: Origins,
    pub missing_credential_status: u16,
    pub dialect: Dialect,
    pub cost_chunk: CostChunk,
    pub mints: Vec<Mint>,
    pub mint_timeout: Duration,
    pub lightning: Lightning,
    pub foreign_mints: ForeignMints,
    /// How long change is left to be claimed; `None`: for ever.
    pub sweep_after: Option<Duration>,
    pub history: Retention,
    pub idempotency: Idempotency,
    pub webhooks: Webhooks,
    /// A fixed rate; wins over the feed.
    pub btc_usd_cents: Option<u64>,
    pub btc_usd_feed: Option<BtcUsdFeed>,
    pub upstreams: Vec<Upstream>,
    pub models: Vec<Model>,
}

impl Config {
    /// The file at `path`, merged over the default.
    pub fn load(path: &Path) -> Result<Self, NotLoaded> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| NotLoaded::Unreadable { path: path.to_owned(), error })?;
        Ok(Self::parse(&path.display().to_string(), &text, &Machine)?)
    }

    /// `text`, merged over the default; `file` is what its mistakes are reported under.
    pub fn parse(file: &str, text: &str, outside: &dyn Outside) -> Result<Self, Mistakes> {
        let mut found = Found::default();
        let mut document = match Document::read(text, &mut found) {
            Ok(document) => document,
            Err(mistake) => return Err(Mistakes { file: file.to_owned(), all: vec![mistake] }),
        };
        references::resolve(&mut document.value, outside, &mut found);
        let default = Document::read(DEFAULT, &mut Found::default())
            .expect("a test holds that the default file is YAML")
            .value;
        let mut merged = default.clone();
        yaml::merge(&mut merged, document.value);
        let file_read = schema::File::read(merged, &default, &mut found);
        let config = file_read.map(|file| checks::check(file, outside, &mut found));
        match config {
            Some(config) if found.is_empty() => Ok(config),
            _ => Err(found.into_mistakes(file, |path, which| document.lines.line_of(path, which))),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::parse("conf/nutgate.yaml", "", &Machine)
            .expect("a test holds that the default file is without mistakes")
    }
}

/// The servers that many gateways share. Both, always: a gateway that finishes what another
/// began needs the other's ledger and the other's ecash.
#[derive(Clone, Debug)]
pub struct Fleet {
    /// The ledger's server. Its address may hold a password.
    pub redis: Secret,
    /// The wallet's server. Its address may hold a password.
    pub postgres: Secret,
    /// The longest a request waits for the ledger.
    pub ledger_timeout: Duration,
}

#[derive(Clone, Debug)]
pub struct Listen {
    pub address: SocketAddr,
    /// `None`: plain HTTP.
    pub tls: Option<Tls>,
    /// Whether HTTP/2 is spoken in plain too, to clients that begin with it.
    pub h2c: bool,
    /// Proxy threads.
    pub threads: usize,
    /// How long a draining process waits for open exchanges before it gives up.
    pub drain_max: Duration,
}

/// The files of the certificate that the public listener shows.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The certificate, and after it those that lead to its authority.
    pub certificate: PathBuf,
    pub key: PathBuf,
}

#[derive(Clone, Debug)]
pub struct Limits {
    pub body_bytes_max: usize,
    /// Answers held for their cost; beyond it the head goes out and the change is claimed.
    pub held_bytes_max: usize,
    /// How long a client may take to send its whole body.
    pub body_timeout: Duration,
}

#[derive(Clone, Debug)]
pub struct Reservation {
    /// How long a reservation lives without renewal.
    pub lifetime: Duration,
    /// How often live ones are renewed; less than half of `lifetime`.
    pub renew_every: Duration,
    /// Reserved at a time for a stream that flows; 0: all of its output limit at once.
    pub slice_output_tokens: u64,
    /// The least output, in tokens, that an answer may be lowered to where its request names no
    /// limit and the balance does not pay for the model's; 0: never lowered.
    pub affordable_output_min: u64,
}

/// Which words a 402 uses (WIRE.md section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    Reference,
    Routstr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CostChunk {
    Asked,
    Always,
}

#[derive(Clone, Debug)]
pub struct Mint {
    pub url: String,
    pub units: Vec<String>,
}

/// What may be paid in and out over Lightning.
#[derive(Clone, Copy, Debug)]
pub struct Lightning {
    /// Whether invoices are given. Those given before are credited in any case.
    pub enabled: bool,
    /// The most that one invoice is for.
    pub amount_sats_max: u64,
    /// `None` where nothing is paid out over Lightning.
    pub refunds: Option<LightningRefunds>,
}

/// How balances are paid out over Lightning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LightningRefunds {
    /// What a payment may cost: so many sats, or so many percent if that is more.
    pub fee_sats_max: u64,
    pub fee_percent_max: u64,
    /// Whether addresses may name hosts of this machine and its network.
    pub private_hosts: bool,
}

/// What is kept for requests that are repeated under their `Idempotency-Key`.
#[derive(Clone, Copy, Debug)]
pub struct Idempotency {
    /// A longer answer is not kept.
    pub answer_bytes_max: usize,
    /// What one account may have kept in a day.
    pub account_bytes_max: u64,
}

/// A non-negative decimal with up to nine places, exact: billionths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Decimal {
    pub billionths: u128,
}
