//! What is fetched while the gateway runs: the dollar rate, and what upstreams list.

use std::time::Duration;

use super::{Decimal, Secret};

/// Where the dollar rate comes from when it is not fixed.
#[derive(Clone, Debug)]
pub struct BtcUsdFeed {
    /// At least `sources_min`.
    pub sources: Vec<RateSource>,
    pub every: Duration,
    /// A source further than this from the median of all does not count.
    pub agree_within_percent: Decimal,
    /// At least 1.
    pub sources_min: usize,
    /// Longer than `every`.
    pub stale_after: Duration,
}

#[derive(Clone, Debug)]
pub struct RateSource {
    /// Its query may hold a key.
    pub url: Secret,
    /// For the log and the metrics.
    pub host: String,
    /// The keys and indices that lead to the number; never empty.
    pub path: Vec<String>,
}

/// What is offered of the models that an upstream lists.
#[derive(Clone, Debug)]
pub struct ListingPolicy {
    pub every: Duration,
    /// Longer than `every`.
    pub stale_after: Duration,
    /// Patterns of ids as the upstream has them; `*` stands for any text.
    pub include: Vec<String>,
    /// Of those included.
    pub exclude: Vec<String>,
    /// On each of its prices; at most [`MARKUP_PERCENT_MAX`].
    pub markup_percent: u64,
    /// Put in front of its ids.
    pub id_prefix: String,
}

/// Eleven times a price is more likely a slip of the pen.
pub const MARKUP_PERCENT_MAX: u64 = 1_000;

/// Sources that differ by more than half of the price agree on nothing.
pub const AGREE_WITHIN_PERCENT_MAX: u64 = 50;

/// A median of more would be none the better.
pub const RATE_SOURCES_MAX: usize = 20;
