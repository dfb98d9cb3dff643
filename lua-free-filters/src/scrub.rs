//! Headers that must not cross the gateway.
//!
//! Towards an upstream: the client's credentials, who the client is, and everything about the
//! connection it came on. Towards a client: what the upstream says of its own connection, of
//! our account there and of its own browser policies. What is not named here passes.

use std::collections::HashSet;

use http::{HeaderMap, HeaderName, header};

use crate::edits::HeaderEdits;

/// What must not reach an upstream, of the headers that are there.
///
/// Apply it to the client's head before setting anything of ours: a client may name any header
/// in `Connection`, and must not remove one that we set.
pub fn request(headers: &HeaderMap) -> HeaderEdits {
    scrub(headers, |name| {
        is_hop_by_hop(name)
            || REQUEST_NAMES.contains(&name)
            || REQUEST_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    })
}

/// What must not reach a client, of the headers that are there. `content-length` goes because
/// answers are framed anew: a length copied onto a changed body loses its end.
pub fn response(headers: &HeaderMap) -> HeaderEdits {
    scrub(headers, |name| {
        is_hop_by_hop(name)
            || RESPONSE_NAMES.contains(&name)
            || RESPONSE_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    })
}

fn scrub(headers: &HeaderMap, forbidden: impl Fn(&str) -> bool) -> HeaderEdits {
    let named = named_by_connection(headers);
    let goes = |name: &&HeaderName| forbidden(name.as_str()) || named.contains(name.as_str());
    HeaderEdits::removing(headers.keys().filter(goes).cloned())
}

/// RFC 9110, section 7.6.1: whatever `Connection` names is meant for one hop.
fn named_by_connection(headers: &HeaderMap) -> HashSet<String> {
    let values = headers.get_all(header::CONNECTION).iter();
    values
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| std::str::from_utf8(name.trim_ascii()).ok())
        .map(str::to_ascii_lowercase)
        .collect()
}

fn is_hop_by_hop(name: &str) -> bool {
    HOP_BY_HOP.contains(&name) || name.starts_with("proxy-")
}

const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "expect",
    "http2-settings",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

const REQUEST_NAMES: [&str; 19] = [
    "accept-encoding",
    "api-key",
    "authorization",
    "cf-connecting-ip",
    "content-length",
    "cookie",
    "cookie2",
    "forwarded",
    "host",
    "idempotency-key",
    "openai-organization",
    "openai-project",
    "true-client-ip",
    "via",
    "x-api-key",
    "x-client-ip",
    "x-goog-api-key",
    "x-original-forwarded-for",
    "x-real-ip",
];

const REQUEST_PREFIXES: [&str; 4] = ["x-cashu", "x-forwarded-", "x-nutgate-", "x-routstr-"];

const RESPONSE_NAMES: [&str; 17] = [
    "alt-svc",
    "content-length",
    "nel",
    "openai-organization",
    "openai-project",
    "report-to",
    "reporting-endpoints",
    "server",
    "set-cookie",
    "set-cookie2",
    "strict-transport-security",
    "via",
    "www-authenticate",
    "x-powered-by",
    "x-request-id",
    "x-served-by",
    "x-should-retry",
];

const RESPONSE_PREFIXES: [&str; 6] =
    ["access-control-", "cf-", "x-cashu", "x-nutgate-", "x-ratelimit-", "x-routstr-"];
