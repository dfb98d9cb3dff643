//! What is measured of webhooks.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::{Metrics, registered};

#[derive(Debug)]
pub(super) struct Webhooks {
    deliveries: IntCounterVec,
    missed: IntCounter,
    queued: IntGauge,
    waited_s: IntGauge,
}

impl Webhooks {
    pub(super) fn new(registry: &Registry) -> Self {
        let deliveries = registered(
            registry,
            IntCounterVec::new(
                Opts::new(
                    "nutgate_webhook_deliveries_total",
                    "Attempts that were delivered or failed, and deliveries given up or dropped",
                ),
                &["outcome"],
            ),
        );
        for outcome in OUTCOMES {
            deliveries.with_label_values(&[outcome]);
        }
        let missed = IntCounter::new(
            "nutgate_webhook_events_missed_total",
            "Entries that the ledger had forgotten before they became deliveries",
        );
        let queued = IntGauge::new(
            "nutgate_webhook_queued",
            "Deliveries that wait, of all gateways, those for a later attempt among them",
        );
        let waited_s = IntGauge::new(
            "nutgate_webhook_waited_seconds",
            "How long the webhook has waited that something is due for and nobody is at",
        );
        Self {
            deliveries,
            missed: registered(registry, missed),
            queued: registered(registry, queued),
            waited_s: registered(registry, waited_s),
        }
    }
}

impl Metrics {
    /// `outcome` is one of the program's own: `delivered` or `failed` for an attempt; `given_up`
    /// for a delivery that had its last one, `dropped` for one that found no room.
    pub fn webhook_ended(&self, outcome: &'static str, count: u64) {
        self.0.webhooks.deliveries.with_label_values(&[outcome]).inc_by(count);
    }

    pub fn webhook_events_missed(&self, count: u64) {
        self.0.webhooks.missed.inc_by(count);
    }

    pub fn webhook_backlog(&self, queued: u64, waited_s: u64) {
        self.0.webhooks.queued.set(queued.cast_signed());
        self.0.webhooks.waited_s.set(waited_s.cast_signed());
    }
}

const OUTCOMES: [&str; 4] = ["delivered", "failed", "given_up", "dropped"];
