//! What a file must make sense as: from its keys to a [`Config`], noting every mistake.
//!
//! A value that fails is noted and something harmless stands in for it, so that the rest is checked
//! too; what stands in is never used, since one mistake means no configuration.

mod feeds;
mod foreign;
mod guard;
mod history;
mod idempotency;
mod lightning;
mod listen;
mod models;
mod prices;
mod refunds;
mod upstreams;
mod webhooks;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use models::Market;

use super::mistake::{Found, KeyPath, did_you_mean};
use super::references::Outside;
use super::scalars::Whole;
use super::schema::{self, File};
use super::{Config, Decimal, Fleet, Limits, Mint, Reservation, Secret, url};
use crate::ledger::terms;
use crate::store;

pub(super) fn check(file: File, outside: &dyn Outside, found: &mut Found) -> Config {
    let mut checks = Checks { outside, found };
    let btc_usd_cents = checks.btc_usd_cents(file.btc_usd);
    let upstream_names: Vec<String> =
        file.upstreams.iter().flatten().filter_map(|upstream| upstream.name.clone()).collect();
    let btc_usd_feed = file.btc_usd_feed.map(|feed| checks.btc_usd_feed(feed));
    let has_dollar_rate = btc_usd_cents.is_some() || btc_usd_feed.is_some();
    let market = Market { upstream_names: &upstream_names, btc_usd_cents, has_dollar_rate };
    let models = checks.models(file.models, &market);
    let mints = checks.mints(file.mints, &KeyPath::from("mints"));
    Config {
        http_url: checks.shown_url(&file.http_url, "http_url"),
        onion_url: checks.shown_url(&file.onion_url, "onion_url"),
        seed_file: checks.seed_file(file.seed_file, &file.data_dir),
        data_dir: checks.data_dir(file.data_dir),
        fleet: file.fleet.map(|fleet| checks.fleet(fleet)),
        listen: checks.listen(file.listen, &file.admin),
        limits: checks.limits(&file.limits),
        rate_limits: checks.rate_limits(&file.rate_limits),
        reservation: checks.reservation(&file.reservation),
        missing_credential_status: checks.missing_credential_status(&file.errors),
        sweep_after: checks.sweep_after(&file.refunds),
        history: checks.history(&file.history),
        foreign_mints: checks.foreign_mints(file.foreign_mints, &mints),
        mints,
        upstreams: checks.upstreams(file.upstreams, has_dollar_rate),
        models,
        name: file.name,
        description: file.description,
        npub: file.npub,
        log: file.log.0,
        admin_address: file.admin.address.0,
        refunds_alias: file.headers.refund_alias,
        guard: checks.guard(file.guard),
        origins: checks.origins(file.cors),
        dialect: file.errors.dialect,
        cost_chunk: file.stream.cost_chunk,
        mint_timeout: file.mint_timeout.0,
        lightning: checks.lightning(&file.lightning),
        idempotency: checks.idempotency(&file.idempotency),
        webhooks: checks.webhooks(file.webhooks),
        audit_every: file.audit.every.0,
        btc_usd_cents,
        btc_usd_feed,
    }
}

struct Checks<'a> {
    outside: &'a dyn Outside,
    found: &'a mut Found,
}

impl Checks<'_> {
    fn shown_url(&mut self, text: &str, key: &str) -> String {
        if text.is_empty() {
            return String::new();
        }
        url::shown(text).unwrap_or_else(|problem| {
            self.found.add(key.into(), problem);
            String::new()
        })
    }

    fn data_dir(&mut self, text: String) -> PathBuf {
        if text.is_empty() {
            self.found.add("data_dir".into(), IS_REQUIRED);
        } else if let Err(problem) = self.outside.room_for_directory(Path::new(&text)) {
            self.found.add("data_dir".into(), problem);
        }
        text.into()
    }

    fn seed_file(&mut self, given: Option<String>, data_dir: &str) -> PathBuf {
        if given.as_deref() == Some("") {
            self.found.add("seed_file".into(), "names no file; null for `seed` in `data_dir`");
        }
        given.map_or_else(|| Path::new(data_dir).join("seed"), PathBuf::from)
    }

    fn fleet(&mut self, fleet: schema::Fleet) -> Fleet {
        let at = KeyPath::from("fleet");
        let redis = self.server(fleet.redis, &REDIS_SCHEMES, &at.key("redis"));
        let postgres = self.server(fleet.postgres, &POSTGRES_SCHEMES, &at.key("postgres"));
        if !self.found.has(&at.key("postgres"))
            && let Err(problem) = store::check_address(postgres.reveal())
        {
            self.found.add(at.key("postgres"), problem);
        }
        Fleet {
            redis,
            postgres,
            ledger_timeout: fleet.ledger_timeout.map_or(LEDGER_TIMEOUT, |lasting| lasting.0),
        }
    }

    /// An address that is a secret: never repeated, also when it is wrong.
    fn server(&mut self, given: Option<Secret>, schemes: &[&str], at: &KeyPath) -> Secret {
        let address = self.required(given, at).unwrap_or_else(|| Secret::new(""));
        let after = |scheme: &&str| address.reveal().strip_prefix(*scheme)?.strip_prefix("://");
        match schemes.iter().find_map(after) {
            Some("") => self.found.add(at.clone(), "names no server"),
            Some(_) => {}
            None => {
                let schemes = schemes.iter().map(|scheme| format!("`{scheme}://`"));
                let schemes = schemes.collect::<Vec<_>>().join(", ");
                self.found.add(at.clone(), format!("begins with none of {schemes}"));
            }
        }
        address
    }

    fn limits(&mut self, limits: &schema::Limits) -> Limits {
        let at = KeyPath::from("limits");
        Limits {
            body_bytes_max: self.size(
                limits.body_bytes_max,
                1,
                BYTES_MAX,
                &at.key("body_bytes_max"),
            ),
            held_bytes_max: self.size(
                limits.held_bytes_max,
                1,
                BYTES_MAX,
                &at.key("held_bytes_max"),
            ),
            body_timeout: limits.body_timeout.0,
        }
    }

    fn rate_limits(&mut self, limits: &schema::RateLimits) -> terms::Limits {
        let at = KeyPath::from("rate_limits");
        terms::Limits {
            requests_per_minute: self
                .count(Some(limits.requests_per_minute), &at.key("requests_per_minute")),
            tokens_per_hour: self.count(Some(limits.tokens_per_hour), &at.key("tokens_per_hour")),
            concurrent: self.count(Some(limits.concurrent), &at.key("concurrent")),
        }
    }

    fn reservation(&mut self, reservation: &schema::Reservation) -> Reservation {
        let (lifetime, renew_every) = (reservation.lifetime.0, reservation.renew_every.0);
        if renew_every.as_millis().saturating_mul(2) >= lifetime.as_millis() {
            let at = KeyPath::from("reservation").key("renew_every");
            self.found.add(at, "must be less than half of `reservation.lifetime`");
        }
        let mut count_or_none = |given: Whole, key| {
            if given.0 > COUNT_MAX {
                let at = KeyPath::from("reservation").key(key);
                self.found.add(at, format!("must be from 0 to {COUNT_MAX}"));
            }
            given.0
        };
        Reservation {
            lifetime,
            renew_every,
            slice_output_tokens: count_or_none(
                reservation.slice_output_tokens,
                "slice_output_tokens",
            ),
            affordable_output_min: count_or_none(
                reservation.affordable_output_min,
                "affordable_output_min",
            ),
        }
    }

    fn missing_credential_status(&mut self, errors: &schema::Errors) -> u16 {
        match errors.missing_credential_status.0 {
            402 => 402,
            401 => 401,
            _ => {
                let at = KeyPath::from("errors").key("missing_credential_status");
                self.found.add(at, "must be 401 or 402");
                401
            }
        }
    }

    fn mints(&mut self, mints: Vec<Option<schema::Mint>>, at: &KeyPath) -> Vec<Mint> {
        let mut names = Names::default();
        let mut checked = Vec::new();
        for (mint, at) in self.elements(mints, at) {
            let insecure = mint.allow_insecure.unwrap_or(false);
            let url = self.base_url(mint.url, insecure, &at.key("url"));
            self.unique(&mut names, &url, &at.key("url"));
            let units = match mint.units {
                None => vec!["sat".to_owned()],
                Some(units) => self.units(units, &at.key("units")),
            };
            checked.push(Mint { url, units });
        }
        checked
    }

    fn units(&mut self, units: Vec<Option<String>>, at: &KeyPath) -> Vec<String> {
        if units.is_empty() {
            self.found.add(at.clone(), "names no unit; leave it out for [sat]");
        }
        let mut names = Names::default();
        let mut checked = Vec::new();
        for (unit, at) in self.elements(units, at) {
            if !UNITS.contains(&unit.as_str()) {
                let hint = did_you_mean(&unit, UNITS);
                self.found.add(at, format!("`{unit}` is not one of `sat`, `msat`{hint}"));
                continue;
            }
            self.unique(&mut names, &unit, &at);
            checked.push(unit);
        }
        checked
    }

    /// Exact to the cent. A rate with a mistake of its own still counts as one, or every model
    /// priced in dollars would seem wrong.
    fn btc_usd_cents(&mut self, rate: Option<Decimal>) -> Option<u64> {
        const BILLIONTHS_PER_CENT: u128 = 10_000_000;
        let at = KeyPath::from("btc_usd");
        let stand_in = Decimal { billionths: 100_000 * 1_000_000_000 };
        let rate = rate.or_else(|| self.found.has(&at).then_some(stand_in))?;
        if rate.billionths == 0 {
            self.found.add(at, "must be more than 0; null for no rate");
        } else if !rate.billionths.is_multiple_of(BILLIONTHS_PER_CENT) {
            self.found.add(at, "has more than two decimals");
        }
        let cents = u64::try_from(rate.billionths / BILLIONTHS_PER_CENT);
        Some(cents.unwrap_or(u64::MAX).max(1))
    }

    fn base_url(&mut self, text: Option<String>, allow_insecure: bool, at: &KeyPath) -> String {
        let Some(text) = self.required(text, at) else { return String::new() };
        url::base(&text, allow_insecure).unwrap_or_else(|problem| {
            self.found.add(at.clone(), problem);
            String::new()
        })
    }

    /// A name that clients or other keys use.
    fn word(&mut self, text: Option<String>, at: &KeyPath) -> String {
        let text = self.required(text, at).unwrap_or_default();
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            self.found.add(at.clone(), "must be without spaces");
        } else if text.is_empty() {
            self.found.add(at.clone(), IS_REQUIRED);
        }
        text
    }

    fn count(&mut self, given: Option<Whole>, at: &KeyPath) -> u64 {
        match self.required(given, at) {
            Some(Whole(count)) if (1..=COUNT_MAX).contains(&count) => count,
            Some(_) => {
                self.found.add(at.clone(), format!("must be from 1 to {COUNT_MAX}"));
                1
            }
            None => 1,
        }
    }

    fn size(&mut self, given: Whole, min: u64, max: u64, at: &KeyPath) -> usize {
        if !(min..=max).contains(&given.0) {
            self.found.add(at.clone(), format!("must be from {min} to {max}"));
        }
        usize::try_from(given.0).unwrap_or(usize::MAX)
    }

    fn required<T>(&mut self, given: Option<T>, at: &KeyPath) -> Option<T> {
        if given.is_none() {
            self.found.add(at.clone(), IS_REQUIRED);
        }
        given
    }

    /// Names that have a mistake of their own are empty and never twice.
    fn unique(&mut self, names: &mut Names, name: &str, at: &KeyPath) {
        if name.is_empty() {
            return;
        }
        match names.0.get(name) {
            Some(first) => self.found.add(at.clone(), format!("`{name}` is already at {first}")),
            None => drop(names.0.insert(name.to_owned(), at.to_string())),
        }
    }

    fn elements<T>(&mut self, list: Vec<Option<T>>, at: &KeyPath) -> Vec<(T, KeyPath)> {
        let mut present = Vec::with_capacity(list.len());
        for (index, element) in list.into_iter().enumerate() {
            match element {
                Some(element) => present.push((element, at.index(index))),
                None => self.found.add(at.index(index), "is empty"),
            }
        }
        present
    }
}

/// Names given so far, each with the path where it was.
#[derive(Default)]
struct Names(HashMap<String, String>);

const IS_REQUIRED: &str = "is required";

const UNITS: [&str; 2] = ["sat", "msat"];

const REDIS_SCHEMES: [&str; 5] =
    ["redis", "rediss", "redis+cluster", "rediss+cluster", "redis+sentinel"];
const POSTGRES_SCHEMES: [&str; 2] = ["postgresql", "postgres"];

const LEDGER_TIMEOUT: Duration = Duration::from_millis(250);

const THREADS_MAX: u64 = 1024;

/// Bodies and answers are held in memory; more than this is a slip of the pen.
const BYTES_MAX: u64 = 1 << 32;

/// A billion of whatever a model counts: beyond it, ceilings would say nothing.
const COUNT_MAX: u64 = 1_000_000_000;
