//! The audit as a gauge: the books are added up again every so often, beside the traffic.

use std::thread;
use std::time::Duration;

use super::Metrics;
use crate::money::Msat;

/// What an audit came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finding {
    /// Owed, and not held.
    pub drift: Msat,
    /// Every contradiction, in words.
    pub contradictions: Vec<String>,
}

/// Audits at once and then every so often, on a thread of its own and until the process ends.
/// One that cannot be made is logged, and leaves the gauges where they are.
///
/// # Errors
/// There is no thread for it.
pub fn audit_every(
    every: Duration,
    metrics: Metrics,
    audit: impl Fn() -> Result<Finding, String> + Send + 'static,
) -> Result<(), String> {
    let audits = move || {
        loop {
            match audit() {
                Ok(Finding { drift, contradictions }) => {
                    for contradiction in &contradictions {
                        log::error!("audit: {contradiction}");
                    }
                    metrics.audited(drift, contradictions.len());
                }
                Err(why) => log::error!("audit: not made: {why}"),
            }
            // It may wake early, and an audit more does no harm.
            thread::park_timeout(every);
        }
    };
    let started = thread::Builder::new().name("audit".to_owned()).spawn(audits);
    started.map(drop).map_err(|error| error.to_string())
}
