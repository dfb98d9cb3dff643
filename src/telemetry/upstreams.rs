//! How each upstream does, looked at when it is asked for. There is one series per upstream of the
//! configuration and per kind, from the start, so that the first failure is an increase.

use std::sync::{Mutex, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounterVec, IntGaugeVec, Opts};

use crate::upstream::{Failure, Position, REFUSALS, Upstream, Upstreams};

/// Sets its handles from what the upstreams know.
pub(super) struct Watched {
    upstreams: Upstreams,
    handles: Mutex<Handles>,
    descs: Vec<Desc>,
}

struct Handles {
    state: IntGaugeVec,
    first_byte_ms: IntGaugeVec,
    failures: IntCounterVec,
    refused: IntCounterVec,
}

impl Watched {
    pub(super) fn new(upstreams: Upstreams) -> prometheus::Result<Self> {
        let gauge = |name, help| IntGaugeVec::new(Opts::new(name, help), &["upstream"]);
        let counter =
            |name, help, label| IntCounterVec::new(Opts::new(name, help), &["upstream", label]);
        let handles = Handles {
            state: gauge(
                "nutgate_upstream_state",
                "Whether an upstream is asked: 0 yes, 1 by one request at a time, 2 no",
            )?,
            first_byte_ms: gauge(
                "nutgate_upstream_first_byte_ms",
                "How long its answers took to begin lately; 0 before the first one",
            )?,
            failures: counter("nutgate_upstream_failures_total", "Its failures", "kind")?,
            refused: counter(
                "nutgate_upstream_refused_total",
                "Answers that refused this gateway, not its client",
                "status",
            )?,
        };
        let descs = handles.all().into_iter().flat_map(Collector::desc).cloned().collect();
        Ok(Self { upstreams, handles: Mutex::new(handles), descs })
    }
}

impl Collector for Watched {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        for upstream in self.upstreams.all() {
            handles.set(upstream);
        }
        handles.all().into_iter().flat_map(Collector::collect).collect()
    }
}

impl Handles {
    fn all(&self) -> [&dyn Collector; 4] {
        [&self.state, &self.first_byte_ms, &self.failures, &self.refused]
    }

    fn set(&self, upstream: &Upstream) {
        let name = upstream.name.as_str();
        self.state.with_label_values(&[name]).set(match upstream.position() {
            Position::Closed => 0,
            Position::HalfOpen => 1,
            Position::Open => 2,
        });
        let first_byte = upstream.first_byte().unwrap_or_default().as_millis();
        let first_byte_ms = i64::try_from(first_byte).unwrap_or(i64::MAX);
        self.first_byte_ms.with_label_values(&[name]).set(first_byte_ms);
        let counts = upstream.counts();
        let raise = |counters: &IntCounterVec, label: &str, count: u64| {
            let counter = counters.with_label_values(&[name, label]);
            counter.inc_by(count.saturating_sub(counter.get()));
        };
        for (failure, count) in Failure::ALL.into_iter().zip(counts.failures) {
            raise(&self.failures, failure.name(), count);
        }
        for (status, count) in REFUSALS.into_iter().zip(counts.refusals) {
            raise(&self.refused, &status.to_string(), count);
        }
    }
}
