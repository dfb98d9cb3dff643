//! Who may call: how much of it while they pay nothing, and from which pages.

use http::HeaderValue;
use ipnet::IpNet;

/// What each address may do in a minute without a key that is known here; 0: as often as it likes.
#[derive(Clone, Debug)]
pub struct Guard {
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Requests that show nothing to pay with, or nothing that can be read.
    pub unpaid_per_minute: u64,
    /// Keys shown that no account has.
    pub unknown_keys_per_minute: u64,
    /// Cashu tokens shown that turn out to be worth nothing here.
    pub failed_redemptions_per_minute: u64,
    /// Accounts and Lightning invoices asked for.
    pub openings_per_minute: u64,
    /// A longer body is not read to tell a stranger what its request would take.
    pub unpaid_body_bytes_max: usize,
}

/// The pages that may call this gateway from a browser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    Any,
    Listed(Vec<HeaderValue>),
}
