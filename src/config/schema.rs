//! The keys of a configuration file, and how one is read in spite of its mistakes.
//!
//! Sections have no defaults here: those are in `conf/nutgate.yaml`, which every file is merged
//! over. What an element of a list must have is an `Option`, so that [`super::checks`] can report
//! all that is missing and not only the first.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde_yaml::Value;

use super::mistake::{Found, KeyPath, Step, did_you_mean};
use super::scalars::{Address, Every, HeaderText, Lasting, Level, Network, Sold, Whole};
use super::yaml::value_at;
use super::{
    Abort, Auth, CostChunk, Currency, Decimal, Dialect, Http, MissingUsage, OutputLimitField,
    Secret, Select,
};

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
    pub(super) guard: Guard,
    pub(super) cors: Cors,
    pub(super) mints: Vec<Option<Mint>>,
    pub(super) mint_timeout: Lasting,
    pub(super) lightning: Lightning,
    pub(super) foreign_mints: ForeignMints,
    pub(super) refunds: Refunds,
    pub(super) history: History,
    pub(super) idempotency: Idempotency,
    pub(super) webhooks: Webhooks,
    pub(super) btc_usd: Option<Decimal>,
    pub(super) btc_usd_feed: Option<BtcUsdFeed>,
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
    pub(super) tls: Option<Tls>,
    pub(super) h2c: bool,
    pub(super) threads: Whole,
    pub(super) drain: Lasting,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(super) struct Tls {
    pub(super) certificate: Option<String>,
    pub(super) key: Option<String>,
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
    pub(super) affordable_output_min: Whole,
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
pub(super) struct Guard {
    pub(super) trusted_proxies: Vec<Option<Network>>,
    pub(super) unpaid_per_minute: Whole,
    pub(super) unknown_keys_per_minute: Whole,
    pub(super) failed_redemptions_per_minute: Whole,
    pub(super) openings_per_minute: Whole,
    pub(super) unpaid_body_bytes_max: Whole,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(super) struct Cors {
    pub(super) origins: Vec<Option<String>>,
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
    pub(super) refunds: LightningRefunds,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(super) struct LightningRefunds {
    pub(super) enabled: bool,
    pub(super) fee_sats_max: Whole,
    pub(super) fee_percent_max: Whole,
    pub(super) private_hosts: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(super) struct Refunds {
    pub(super) sweep_after_days: Option<Whole>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(super) struct History {
    pub(super) entries_max: Whole,
    pub(super) kept_days: Whole,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(super) struct Idempotency {
    pub(super) answer_bytes_max: Whole,
    pub(super) account_bytes_max: Whole,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(super) struct ForeignMints {
    pub(super) mints: Vec<Option<Mint>>,
    pub(super) fee_sats_max: Whole,
    pub(super) fee_permille_max: Whole,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(super) struct Webhooks {
    pub(super) enabled: bool,
    pub(super) allow_private: bool,
    pub(super) low_balance_msats: Whole,
    pub(super) timeout: Lasting,
    pub(super) retries: Vec<Option<Lasting>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(super) struct Upstream {
    pub(super) name: Option<String>,
    pub(super) base_url: Option<String>,
    pub(super) query: Option<String>,
    pub(super) api_key: Option<Secret>,
    pub(super) auth: Option<Auth>,
    pub(super) headers: Option<BTreeMap<String, HeaderText>>,
    pub(super) http: Option<Http>,
    pub(super) strip_unsupported: Option<Vec<Option<String>>>,
    pub(super) health: Option<Health>,
    pub(super) allow_insecure: Option<bool>,
    pub(super) ca_file: Option<String>,
    pub(super) timeouts: Option<Timeouts>,
    pub(super) models: Option<ListingPolicy>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(super) struct BtcUsdFeed {
    pub(super) sources: Option<Vec<Option<RateSource>>>,
    pub(super) every: Option<Lasting>,
    pub(super) agree_within_percent: Option<Decimal>,
    pub(super) sources_min: Option<Whole>,
    pub(super) stale_after: Option<Lasting>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(super) struct RateSource {
    /// A secret, because its query may hold one.
    pub(super) url: Option<Secret>,
    pub(super) path: Option<String>,
    pub(super) allow_insecure: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(super) struct ListingPolicy {
    pub(super) every: Option<Lasting>,
    pub(super) stale_after: Option<Lasting>,
    pub(super) include: Option<Vec<Option<String>>>,
    pub(super) exclude: Option<Vec<Option<String>>>,
    pub(super) markup_percent: Option<Whole>,
    pub(super) id_prefix: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(super) struct Health {
    pub(super) failures: Option<Whole>,
    pub(super) cooldown: Option<Lasting>,
    pub(super) probe: Option<Probe>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(super) struct Probe {
    pub(super) path: Option<String>,
    pub(super) every: Option<Lasting>,
    pub(super) timeout: Option<Lasting>,
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
    pub(super) routes: Option<Vec<Option<Sold>>>,
    pub(super) upstreams: Option<Vec<Option<ServedBy>>>,
    pub(super) select: Option<Select>,
    pub(super) output_limit_field: Option<OutputLimitField>,
    pub(super) image_tokens: Option<ImageTokens>,
    pub(super) web_searches_max: Option<Whole>,
    pub(super) abort: Option<Abort>,
    pub(super) missing_usage: Option<MissingUsage>,
    pub(super) aliases: Option<Vec<Option<String>>>,
    pub(super) price: Option<Price>,
}

/// An upstream of a model; written as a name when nothing differs there.
#[derive(Debug, Default)]
pub(super) struct ServedBy {
    pub(super) is_mapping: bool,
    pub(super) name: Option<String>,
    pub(super) weight: Option<Whole>,
    pub(super) upstream_model: Option<String>,
    pub(super) price: Option<Price>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(super) struct ImageTokens {
    pub(super) low: Option<Whole>,
    pub(super) high: Option<Whole>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(super) struct Price {
    pub(super) currency: Option<Currency>,
    pub(super) input: Option<Decimal>,
    pub(super) output: Option<Decimal>,
    pub(super) cached_input: Option<Decimal>,
    pub(super) cache_write: Option<Decimal>,
    pub(super) reasoning: Option<Decimal>,
    pub(super) request: Option<Decimal>,
    pub(super) input_image: Option<Decimal>,
    pub(super) web_search: Option<Decimal>,
    pub(super) images: Option<Vec<Option<ImagePrice>>>,
    pub(super) audio_second: Option<Decimal>,
    pub(super) audio_minute: Option<Decimal>,
    pub(super) characters: Option<Decimal>,
    pub(super) search_unit: Option<Decimal>,
    pub(super) upstream_cost: Option<Decimal>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub(super) struct ImagePrice {
    pub(super) size: Option<String>,
    pub(super) quality: Option<String>,
    pub(super) price: Option<Decimal>,
}

impl<'de> Deserialize<'de> for ServedBy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Differing {
            name: Option<String>,
            weight: Option<Whole>,
            upstream_model: Option<String>,
            price: Option<Price>,
        }

        struct NameOrMapping;

        impl<'de> Visitor<'de> for NameOrMapping {
            type Value = ServedBy;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name or a mapping")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<ServedBy, E> {
                Ok(ServedBy { name: Some(name.to_owned()), ..ServedBy::default() })
            }

            fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<ServedBy, A::Error> {
                let Differing { name, weight, upstream_model, price } =
                    Differing::deserialize(MapAccessDeserializer::new(entries))?;
                Ok(ServedBy { is_mapping: true, name, weight, upstream_model, price })
            }
        }

        deserializer.deserialize_any(NameOrMapping)
    }
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
