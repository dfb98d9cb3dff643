//! What a request is charged for, and how far the figure can be trusted: the one place where a
//! missing or broken usage becomes a cost.

use lua_free_filters::{Counts, Peeked, Usage};

use super::context::Ticket;
use super::order::Order;
use crate::config::MissingUsage;
use crate::ledger::UsageSource;
use crate::pricing::{self, Cost};

/// What a request is charged for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Verdict {
    pub(super) counts: Counts,
    pub(super) source: UsageSource,
    pub(super) cost: Cost,
}

impl Ticket {
    /// What this usage costs and where the figure came from. `None`: nothing was delivered.
    pub(super) fn verdict(&self, usage: &Usage) -> Option<Verdict> {
        let Order { offer, peeked: Peeked { demand, .. }, most, .. } = &*self.order;
        let price = self.price();
        let (counts, source) = match usage {
            Usage::Nothing => return None,
            Usage::Reported(counts) => (pricing::completed(demand, counts), UsageSource::Upstream),
            Usage::Partial { known, .. } if !price.needs_usage() => {
                (pricing::counted(demand, known, most), UsageSource::Counted)
            }
            Usage::Partial { delivered, known } => match offer.model.missing_usage {
                MissingUsage::Estimate => {
                    (offer.estimate(demand, known, delivered, most), UsageSource::Estimated)
                }
                MissingUsage::Floor => {
                    (offer.floor(demand, known, delivered, most), UsageSource::Floor)
                }
                // What was reserved: of a rolling reservation, so far.
                MissingUsage::Ceiling => {
                    (Counts { output: self.covered, ..*most }, UsageSource::Ceiling)
                }
            },
        };
        Some(Verdict { counts, source, cost: price.cost(&counts) })
    }

    /// The output that this usage takes of what is paid for: what will be charged, but where that
    /// is all that was reserved, what is estimated.
    pub(super) fn delivered_output(&self, usage: &Usage) -> u64 {
        let Order { offer, peeked, most, .. } = &*self.order;
        match (usage, offer.model.missing_usage) {
            (Usage::Partial { delivered, known }, MissingUsage::Ceiling) => {
                offer.estimate(&peeked.demand, known, delivered, most).output
            }
            _ => self.verdict(usage).map_or(0, |verdict| verdict.counts.output),
        }
    }
}
