//! What went wrong, for two readers.
//!
//! [`Refusal`] is everything a client may read (WIRE.md section 3): an answer of ours instead
//! of the upstream's. [`Fault`] says whose failure it was, for the log and the metrics. Inner
//! modules have their own small errors and turn them into a refusal at the door.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use crate::ledger::{Limit, Limited};
use crate::money::Msat;

/// Whose failure a request ended with; a metric label, so the set is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    Client,
    Upstream,
    Ledger,
    Mint,
    Us,
}

impl Fault {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Upstream => "upstream",
            Self::Ledger => "ledger",
            Self::Mint => "mint",
            Self::Us => "us",
        }
    }
}

/// The `type` of an error body; the status follows from it unless a code has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    InvalidRequest,
    AuthenticationFailed,
    InsufficientBalance,
    Forbidden,
    NotFound,
    RateLimitExceeded,
    InternalError,
    UpstreamError,
    ServiceUnavailable,
}

impl Kind {
    pub const ALL: [Self; 9] = [
        Self::InvalidRequest,
        Self::AuthenticationFailed,
        Self::InsufficientBalance,
        Self::Forbidden,
        Self::NotFound,
        Self::RateLimitExceeded,
        Self::InternalError,
        Self::UpstreamError,
        Self::ServiceUnavailable,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::AuthenticationFailed => "authentication_failed",
            Self::InsufficientBalance => "insufficient_balance",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::RateLimitExceeded => "rate_limit_exceeded",
            Self::InternalError => "internal_error",
            Self::UpstreamError => "upstream_error",
            Self::ServiceUnavailable => "service_unavailable",
        }
    }

    const fn status(self) -> u16 {
        match self {
            Self::InvalidRequest => 400,
            Self::AuthenticationFailed => 401,
            Self::InsufficientBalance => 402,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::RateLimitExceeded => 429,
            Self::InternalError => 500,
            Self::UpstreamError => 502,
            Self::ServiceUnavailable => 503,
        }
    }
}

/// An error as it is written (WIRE.md section 3).
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Error", description = "What every error says, whoever made it.")]
pub struct ErrorBody<'e> {
    error: ErrorMembers<'e>,
    /// What the answer has in `X-Request-ID`.
    request_id: &'e str,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(inline)]
struct ErrorMembers<'e> {
    #[serde(rename = "type")]
    #[schemars(schema_with = "kinds")]
    kind: &'e str,
    /// For people; safe to show.
    message: &'e str,
    /// For programs: it says more than the status, and does not change.
    code: &'e str,
    /// Such as the field that is wrong, or the amount that is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "serde_json::Map<String, Value>")]
    details: Option<&'e Value>,
}

/// Every `type`, and the one that some wallets know by another word.
fn kinds(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let names: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).chain([QUOTA]).collect();
    schemars::json_schema!({ "type": "string", "enum": names })
}

/// What [`Kind::InsufficientBalance`] is called in the dialect of `@routstr/sdk`.
pub const QUOTA: &str = "insufficient_quota";

/// An answer of ours instead of the upstream's. Its message is safe to show: no secret, no
/// internal address. Boxed inside, so that a `Result` on the hot path stays small.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal(Box<Parts>);

#[derive(Clone, Debug, PartialEq)]
struct Parts {
    kind: Kind,
    status: u16,
    code: &'static str,
    message: Cow<'static, str>,
    details: Option<Value>,
    retry_after_s: Option<u32>,
    fault: Fault,
}

impl Refusal {
    pub fn new(kind: Kind, code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        let fault = match kind {
            Kind::InternalError => Fault::Us,
            Kind::UpstreamError => Fault::Upstream,
            Kind::ServiceUnavailable => Fault::Ledger,
            _ => Fault::Client,
        };
        Self(Box::new(Parts {
            kind,
            status: kind.status(),
            code,
            message: message.into(),
            details: None,
            retry_after_s: None,
            fault,
        }))
    }

    /// A field of the request that cannot be accepted, named.
    pub fn field(field: &str, problem: impl std::fmt::Display) -> Self {
        Self::new(Kind::InvalidRequest, "invalid_value", format!("'{field}' {problem}"))
            .details(json!({ "param": field }))
    }

    pub fn status(mut self, status: u16) -> Self {
        self.0.status = status;
        self
    }

    pub fn details(mut self, details: Value) -> Self {
        self.0.details = Some(details);
        self
    }

    pub fn retry_after_s(mut self, seconds: u32) -> Self {
        self.0.retry_after_s = Some(seconds);
        self
    }

    pub fn fault(mut self, fault: Fault) -> Self {
        self.0.fault = fault;
        self
    }

    pub fn status_code(&self) -> u16 {
        self.0.status
    }

    pub fn code(&self) -> &'static str {
        self.0.code
    }

    pub fn retry_after(&self) -> Option<u32> {
        self.0.retry_after_s
    }

    pub fn whose_fault(&self) -> Fault {
        self.0.fault
    }

    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The JSON body of WIRE.md section 3.
    pub fn body(&self, request_id: &str) -> Vec<u8> {
        self.body_as(self.0.kind.name(), self.0.code, request_id)
    }

    /// The same body with another type and code, for a dialect that has its own words.
    pub fn body_as(&self, kind: &str, code: &str, request_id: &str) -> Vec<u8> {
        let Parts { message, details, .. } = &*self.0;
        let error = ErrorMembers { kind, message, code, details: details.as_ref() };
        // Texts and a tree of JSON can always be written.
        serde_json::to_vec(&ErrorBody { error, request_id }).unwrap_or_default()
    }
}

/// Refusals that more than one place gives.
impl Refusal {
    pub fn insufficient_balance(required: Msat, available: Msat) -> Self {
        Self::new(
            Kind::InsufficientBalance,
            "payment_required",
            format!(
                "this request reserves {} msat, {} msat are available",
                required.get(),
                available.get()
            ),
        )
        .details(json!({ "required": required, "available": available }))
    }

    pub fn key_expired() -> Self {
        Self::new(Kind::AuthenticationFailed, "key_expired", "this key is not valid any more")
    }

    pub fn balance_limit_exceeded(required: Msat, left: Msat) -> Self {
        Self::new(
            Kind::InsufficientBalance,
            "balance_limit_exceeded",
            format!(
                "this request reserves {} msat, the key's limit leaves {} msat",
                required.get(),
                left.get()
            ),
        )
        .details(json!({ "required": required, "available": left }))
    }

    /// WIRE.md section 9. Seconds are rounded up: coming back sooner would be refused again.
    pub fn rate_limited(limited: &Limited) -> Self {
        let limit = limited.limit;
        let (code, message) = match limited.which {
            Limit::Requests => {
                ("requests_per_minute", format!("this key may make {limit} requests per minute"))
            }
            Limit::Tokens => {
                ("tokens_per_hour", format!("this key may use {limit} tokens per hour"))
            }
            Limit::Concurrent => {
                ("concurrent_requests", format!("this key may have {limit} requests open at once"))
            }
        };
        let seconds = limited.retry_after.as_millis().div_ceil(1_000);
        Self::new(Kind::RateLimitExceeded, "rate_limit_exceeded", message)
            .details(json!({ "limit": limit, "which": code }))
            .retry_after_s(u32::try_from(seconds).unwrap_or(u32::MAX))
    }

    pub fn ledger_unavailable() -> Self {
        Self::new(
            Kind::ServiceUnavailable,
            "ledger_unavailable",
            "the ledger cannot be reached; nothing was charged",
        )
        .retry_after_s(1)
    }

    pub fn internal() -> Self {
        Self::new(Kind::InternalError, "internal_error", "something went wrong here; it is logged")
    }

    pub fn key_not_found() -> Self {
        Self::new(
            Kind::AuthenticationFailed,
            "invalid_api_key",
            "no account belongs to this key; create one with POST /v1/balance/create",
        )
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", self.0.status, self.0.code, self.0.message)
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_body_has_the_shape_of_the_wire_contract() {
        let amount = |msat| Msat::new(msat).unwrap();
        let body = Refusal::insufficient_balance(amount(154), amount(100)).body("req-1");
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["error"]["type"], "insufficient_balance");
        assert_eq!(body["error"]["code"], "payment_required");
        assert_eq!(body["error"]["details"], json!({"required": 154, "available": 100}));
        assert_eq!(body["request_id"], "req-1");
    }

    #[test]
    fn what_a_limit_refuses_says_which_and_when_to_come_again() {
        let retry_after = Duration::from_millis(59_001);
        for (which, named) in [
            (Limit::Requests, "requests_per_minute"),
            (Limit::Tokens, "tokens_per_hour"),
            (Limit::Concurrent, "concurrent_requests"),
        ] {
            let refusal = Refusal::rate_limited(&Limited { which, limit: 7, retry_after });
            let body: Value = serde_json::from_slice(&refusal.body("req-1")).unwrap();
            assert_eq!(body["error"]["type"], "rate_limit_exceeded");
            assert_eq!(body["error"]["code"], "rate_limit_exceeded");
            assert_eq!(body["error"]["details"], json!({"limit": 7, "which": named}));
            assert_eq!((refusal.status_code(), refusal.retry_after()), (429, Some(60)));
        }
    }
}
