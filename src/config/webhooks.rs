//! What is told to the endpoints of clients, and how long they are asked again.

use std::time::Duration;

use crate::money::Msat;

#[derive(Clone, Debug)]
pub struct Webhooks {
    /// Whether any are registered and delivered.
    pub enabled: bool,
    /// Whether an endpoint may be this machine, or in a private network, and plain http.
    pub allow_private: bool,
    /// A balance that falls below it is told.
    pub low_balance: Msat,
    /// The longest that one attempt takes.
    pub timeout: Duration,
    /// Before each further attempt; at least one, and at most [`RETRIES_MAX`].
    pub retries: Vec<Duration>,
}

/// More attempts at one delivery would be of no use to anybody.
pub const RETRIES_MAX: usize = 20;

/// A consumer that needs longer is too slow for its own sake, and holds a place up.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(60);
