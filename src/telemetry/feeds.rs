//! What is measured of the sources beside the traffic: the dollar rate and upstreams' lists.

use std::sync::Arc;
use std::sync::{Mutex, PoisonError};

use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::{Metrics, count, registered};
use crate::clock::Stopwatch;

#[derive(Debug)]
pub(super) struct Feeds {
    btc_usd_cents: IntGauge,
    rate_known: Arc<Mutex<Option<Stopwatch>>>,
    source_failures: IntCounterVec,
    listed: IntGaugeVec,
    left_out: IntGaugeVec,
    listing_failures: IntCounterVec,
}

impl Feeds {
    pub(super) fn new(registry: &Registry) -> Self {
        let counters = |name, help, label| {
            registered(registry, IntCounterVec::new(Opts::new(name, help), &[label]))
        };
        let gauges = |name, help, labels: &[&str]| {
            registered(registry, IntGaugeVec::new(Opts::new(name, help), labels))
        };
        let cents = IntGauge::new(
            "nutgate_btc_usd_cents",
            "What a bitcoin costs by the feed; 0: nobody knows, or there is no feed",
        );
        Self {
            btc_usd_cents: registered(registry, cents),
            rate_known: Arc::default(),
            source_failures: counters(
                "nutgate_price_source_failures_total",
                "Times that a source gave no rate, or one far from the others",
                "source",
            ),
            listed: gauges(
                "nutgate_listed_models",
                "Models offered because the upstream lists them",
                &["upstream"],
            ),
            left_out: gauges(
                "nutgate_listed_models_left_out",
                "Models that the upstream lists and that are not offered",
                &["upstream", "reason"],
            ),
            listing_failures: counters(
                "nutgate_listing_failures_total",
                "Times that the upstream's list could not be had",
                "upstream",
            ),
        }
    }
}

impl Metrics {
    /// There is a feed: from now on its rate has an age, also while there is none.
    pub fn watch_rate(&self) {
        let known = self.0.feeds.rate_known.clone();
        *known.lock().unwrap_or_else(PoisonError::into_inner) = Some(Stopwatch::start());
        self.sample(
            "nutgate_btc_usd_age_seconds",
            "Since sources agreed on a rate, or since the start",
            move || {
                let known = *known.lock().unwrap_or_else(PoisonError::into_inner);
                known.map_or(0, |since| since.elapsed().as_secs().cast_signed())
            },
        );
    }

    /// A source that failures will be counted of: 0 is worth showing.
    pub fn rate_source(&self, source: &str) {
        self.0.feeds.source_failures.with_label_values(&[source]);
    }

    pub fn rate_source_failed(&self, source: &str) {
        self.0.feeds.source_failures.with_label_values(&[source]).inc();
    }

    pub fn rate_agreed(&self, cents: u64) {
        let feeds = &self.0.feeds;
        feeds.btc_usd_cents.set(cents.cast_signed());
        let mut known = feeds.rate_known.lock().unwrap_or_else(PoisonError::into_inner);
        *known = Some(Stopwatch::start());
    }

    pub fn rate_stale(&self) {
        self.0.feeds.btc_usd_cents.set(0);
    }

    /// What became of an upstream's list; `left_out` has each reason, also those of nothing.
    pub fn listed<'r>(
        &self,
        upstream: &str,
        offered: usize,
        left_out: impl IntoIterator<Item = (&'r str, usize)>,
    ) {
        let feeds = &self.0.feeds;
        feeds.listed.with_label_values(&[upstream]).set(count(offered));
        for (reason, models) in left_out {
            feeds.left_out.with_label_values(&[upstream, reason]).set(count(models));
        }
    }

    pub fn listing_failed(&self, upstream: &str) {
        self.0.feeds.listing_failures.with_label_values(&[upstream]).inc();
    }
}
