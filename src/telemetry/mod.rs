//! What the operator's monitoring reads: counters and gauges, in the words of Prometheus.
//!
//! Handles are made at start; counting is one atomic increment, and what is known elsewhere is
//! looked at when it is asked for. Everything here is a whole number: seconds, msat, counts.
//! No label carries what a client chose, so the number of series is bounded.

mod audits;
mod counted;
mod feeds;
#[cfg(test)]
mod tests;
mod upstreams;
mod webhooks;

use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};

use crate::ledger::spool::Spool;
use crate::ledger::{Ended, Ledger, Receipt};
use crate::money::Msat;
use crate::upstream::Upstreams;

use self::upstreams::Watched;

pub use self::audits::{Finding, audit_every};
pub use self::counted::Counted;

/// The handles of everything that is measured; cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Registry,
    refusals: IntCounterVec,
    usage: IntCounterVec,
    ended: [(Ended, IntCounter); 3],
    shortfall_msat: IntCounter,
    ledger_up: IntGauge,
    drift_msat: IntGauge,
    audit_findings: IntGauge,
    feeds: feeds::Feeds,
    webhooks: webhooks::Webhooks,
}

impl Default for Metrics {
    fn default() -> Self {
        let registry = Registry::new();
        let gauge = |name, help| registered(&registry, IntGauge::new(name, help));
        let refusals = IntCounterVec::new(
            Opts::new("nutgate_refusals_total", "Answers of ours instead of the upstream's"),
            &["code"],
        );
        let usage = IntCounterVec::new(
            Opts::new("nutgate_usage_total", "Requests charged, by where their usage came from"),
            &["source"],
        );
        let ended = registered(
            &registry,
            IntCounterVec::new(
                Opts::new("nutgate_reservations_ended_total", "Reservations that were ended here"),
                &["how"],
            ),
        );
        let shortfall_msat = IntCounter::new(
            "nutgate_settle_shortfall_msat_total",
            "Cost above what was reserved that a balance could not cover",
        );
        Self(Arc::new(Inner {
            refusals: registered(&registry, refusals),
            usage: registered(&registry, usage),
            ended: [Ended::Settled, Ended::Released, Ended::Expired]
                .map(|how| (how, ended.with_label_values(&[how.name()]))),
            shortfall_msat: registered(&registry, shortfall_msat),
            ledger_up: gauge("nutgate_ledger_up", "1 if the ledger gave its last answer in time"),
            drift_msat: gauge(
                "nutgate_ledger_drift_msat",
                "What the last audit found missing between what is owed and what is held",
            ),
            audit_findings: gauge("nutgate_audit_findings", "Contradictions in the last audit"),
            feeds: feeds::Feeds::new(&registry),
            webhooks: webhooks::Webhooks::new(&registry),
            registry,
        }))
    }
}

impl Metrics {
    /// What this process holds of a ledger, looked at whenever it is asked for.
    pub fn watch<L: Ledger>(&self, ledger: &L, spool: Option<&Spool<L>>) {
        let live = ledger.live().clone();
        self.sample(
            "nutgate_reservations_open",
            "Reservations that this process holds",
            move || count(live.open_count()),
        );
        let entries = spool.cloned();
        self.sample(
            "nutgate_spool_entries",
            "Ends that the ledger has not recorded yet",
            move || entries.as_ref().map_or(0, |spool| count(spool.entries())),
        );
        let oldest = spool.cloned();
        self.sample(
            "nutgate_spool_oldest_seconds",
            "How long the oldest of them has waited",
            move || oldest.as_ref().map_or(0, |spool| spool.oldest().as_secs().cast_signed()),
        );
    }

    /// When the certificate that clients are shown ends, looked at whenever it is asked for.
    pub fn watch_certificate(&self, expires_s: impl Fn() -> i64 + Send + Sync + 'static) {
        let help = "When the certificate that clients are shown ends, in seconds of the epoch";
        self.sample("nutgate_tls_certificate_expires_seconds", help, expires_s);
    }

    /// How each of these does, looked at whenever it is asked for.
    pub fn watch_upstreams(&self, upstreams: &Upstreams) {
        let watched = Watched::new(upstreams.clone()).expect("a name of letters is a name");
        let known = self.0.registry.register(Box::new(watched));
        known.expect("each process has one list of upstreams");
    }

    /// A refusal was given. `code` is one of the program's own.
    pub fn refused(&self, code: &'static str) {
        self.0.refusals.with_label_values(&[code]).inc();
    }

    /// A request was charged. `source` is one of the program's own words.
    pub fn used(&self, source: &'static str) {
        self.0.usage.with_label_values(&[source]).inc();
    }

    /// A reservation was ended here.
    pub fn ended(&self, receipt: &Receipt) {
        if let Some((_, counter)) = self.0.ended.iter().find(|(how, _)| *how == receipt.how) {
            counter.inc();
        }
        self.0.shortfall_msat.inc_by(receipt.shortfall.get());
    }

    /// The ledger was asked.
    pub fn ledger_answered(&self, in_time: bool) {
        self.0.ledger_up.set(i64::from(in_time));
    }

    /// An audit came to an end.
    pub fn audited(&self, drift: Msat, findings: usize) {
        self.0.drift_msat.set(drift.to_i64());
        self.0.audit_findings.set(count(findings));
    }

    /// Everything, in the text format of Prometheus.
    pub fn text(&self) -> String {
        let families = self.0.registry.gather();
        TextEncoder::new().encode_to_string(&families).unwrap_or_else(|error| {
            log::error!("metrics: {error}");
            String::new()
        })
    }

    fn sample(&self, name: &str, help: &str, read: impl Fn() -> i64 + Send + Sync + 'static) {
        let sampled = IntGauge::new(name, help).map(|gauge| Sampled { gauge, read });
        let sampled = sampled.expect("a name of letters is a name");
        let known = self.0.registry.register(Box::new(sampled));
        known.expect("each process watches one ledger");
    }
}

/// A gauge that is read when it is asked for.
struct Sampled<R> {
    gauge: IntGauge,
    read: R,
}

impl<R: Fn() -> i64 + Send + Sync> Collector for Sampled<R> {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.gauge.set((self.read)());
        self.gauge.collect()
    }
}

fn registered<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: prometheus::Result<C>,
) -> C {
    let collector = collector.expect("a name of letters is a name");
    let known = registry.register(Box::new(collector.clone()));
    known.expect("each is registered once, in one place");
    collector
}

fn count(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
