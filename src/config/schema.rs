//! The keys of a configuration file, and how one is read in spite of its mistakes.
//!
//! Sections have no defaults here: those are in `conf/nutgate.yaml`, which every file is merged
//! over. What an element of a list must have is an `Option`, so that [`super::checks`] can report
//! all that is missing and not only the first.

use serde::Deserialize;
use serde_yaml::Value;

use super::mistake::{Found, KeyPath, Step, did_you_mean};
use super::scalars::{Address, Every, Lasting, Level, Whole};
use super::yaml::value_at;
use super::{CostChunk, Currency, Decimal, Dialect, Secret};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(super) struct File {
    pub(super) name: String,
    pub(super) description: String,
    pub(super) npub: String,
    pub(super) http_url: String,
    pub(super) onion_url: String,
    pub(super) listen: Listen,
    pub(super) admin: Admin,
    pub(super) data_dir: String,
    pub(super) seed_file: Option<String>,
    pub(super) fleet: Option<Fleet>,
    pub(super) log: Level,
    pub(super) limits: Limits,
    pub(super) rate_limits: RateLimits,
    pub(super) reservation: Reservation,
    pub(super) audit: Audit,
    pub(super) errors: Errors,
    pub(super) stream: Stream,
    pub(super) headers: Headers,
    pub(super) mints: Vec<Option<Mint>>,
    pub(super) mint_timeout: Lasting,
    pub(super) lightning: Lightning,
    pub(super) btc_usd: Option<Decimal>,
    pub(super) upstreams: Vec<Option<Upstream>>,
    pub(super) models: Vec<Option<Model>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(super) struct Fleet {
    pub(super) redis: Option<Secret>,
    pub(super) postgres: Option<Secret>,
    pub(super) ledger_timeout: Option<Lasting>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(super) struct Listen {
    pub(super) address: Address,
    pub(super) threads: Whole,
    pub(super) drain: Lasting,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(super) struct Admin {
    pub(super) address: Address,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(super) struct Limits {
    pub(super) body_bytes_max: Whole,
    pub(super) held_bytes_max: Whole,
    pub(super) body_timeout: Lasting,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(super) struct RateLimits {
    pub(super) requests_per_minute: Whole,
    pub(super) tokens_per_hour: Whole,
    pub(super) concurrent: Whole,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(super) struct Reservation {
    pub(super) lifetime: Lasting,
    pub(super) renew_every: Lasting,
    pub(super) slice_output_tokens: Whole,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(super) struct Audit {
    pub(super) every: Every,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(super) struct Errors {
    pub(super) dialect: Dialect,
    pub(super) missing_credential_status: Whole,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(super) struct Stream {
    pub(super) cost_chunk: CostChunk,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(super) struct Headers {
    pub(super) refund_alias: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(super) struct Mint {
    pub(super) url: Option<String>,
    pub(super) units: Option<Vec<Option<String>>>,
    pub(super) allow_insecure: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(super) struct Lightning {
    pub(super) enabled: bool,
    pub(super) amount_sats_max: Whole,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(super) struct Upstream {
    pub(super) name: Option<String>,
    pub(super) base_url: Option<String>,
    pub(super) api_key: Option<Secret>,
    pub(super) allow_insecure: Option<bool>,
    pub(super) ca_file: Option<String>,
    #[serde(default)]
    pub(super) timeouts: Option<Timeouts>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(super) struct Timeouts {
    pub(super) connect: Option<Lasting>,
    pub(super) first_byte: Option<Lasting>,
    pub(super) idle: Option<Lasting>,
    pub(super) total: Option<Lasting>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(super) struct Model {
    pub(super) id: Option<String>,
    pub(super) name: Option<String>,
    pub(super) description: Option<String>,
    pub(super) created: Option<Whole>,
    pub(super) owned_by: Option<String>,
    pub(super) context_length: Option<Whole>,
    pub(super) max_output_tokens: Option<Whole>,
    pub(super) upstream_model: Option<String>,
    pub(super) upstreams: Option<Vec<Option<String>>>,
    pub(super) aliases: Option<Vec<Option<String>>>,
    pub(super) price: Option<Price>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(super) struct Price {
    pub(super) currency: Option<Currency>,
    pub(super) input: Option<Decimal>,
    pub(super) output: Option<Decimal>,
    pub(super) cached_input: Option<Decimal>,
    pub(super) request: Option<Decimal>,
}

impl File {
    /// Reads a merged tree. Every value that does not fit is noted and replaced by its default, or
    /// taken out, until the rest can be read. Nothing after [`MISTAKES_MAX`] of them.
    pub(super) fn read(value: Value, default: &Value, found: &mut Found) -> Option<Self> {
        let mut value = value;
        let mut default = default.clone();
        for _ in 0..MISTAKES_MAX {
            let error = match serde_path_to_error::deserialize::<_, Self>(value.clone()) {
                Ok(file) => return Some(file),
                Err(error) => error,
            };
            let path = KeyPath::from(error.path());
            let message = error.inner().to_string();
            let message = unknown_key(&message).unwrap_or_else(|| in_our_words(&message));
            found.add(path.clone(), message);
            repair(&mut value, &mut default, &path)?;
        }
        None
    }
}

/// Puts the default at `path`, or leaves nothing there. Elements of a list keep their place, so
/// that the paths of later mistakes stay right.
fn repair(value: &mut Value, default: &mut Value, path: &KeyPath) -> Option<()> {
    let (last, parents) = path.steps().split_last()?;
    let fallback = value_at(default, path.steps()).cloned();
    let parent = value_at(value, parents)?;
    match (last, fallback) {
        (Step::Key(key), Some(fallback)) => *parent.get_mut(key.as_str())? = fallback,
        (Step::Key(key), None) => drop(parent.as_mapping_mut()?.remove(key.as_str())?),
        (Step::Index(index), _) => *parent.get_mut(*index)? = Value::Null,
    }
    Some(())
}

fn unknown_key(message: &str) -> Option<String> {
    let mut words = message.strip_prefix("unknown field ")?.split('`').skip(1).step_by(2);
    let written = words.next()?;
    Some(format!("unknown key{}", did_you_mean(written, words)))
}

/// Without the value, which may be a secret in the wrong place, and without Rust's words.
fn in_our_words(message: &str) -> String {
    let Some((wrong, expected)) =
        message.strip_prefix("invalid type: ").and_then(|rest| rest.split_once(", expected "))
    else {
        return message.to_owned();
    };
    let kind = match wrong.split([' ', '(']).next() {
        Some("null" | "unit" | "Option") => "nothing",
        Some("string") => "text",
        Some("sequence") => "a list",
        Some("map") => "a mapping",
        Some("boolean") => "true or false",
        _ => "a number",
    };
    let expected = match expected {
        "a sequence" => "a list",
        "a string" => "text",
        "a boolean" => "true or false",
        other => other,
    };
    format!("expected {expected}, found {kind}")
}

/// Beyond it the report is long enough; the rest shows when these are gone.
const MISTAKES_MAX: usize = 100;
