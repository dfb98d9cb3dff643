//! A refusal as the client reads it: the one place where status, headers and words of an error
//! are chosen, for answers of this router and of the edge alike.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, StatusCode};
use lua_free_filters::{Quota, rate_limit_lines};

use super::openapi::is_documented;
use crate::clock::UnixMs;
use crate::config::Dialect;
use crate::error::{Kind, QUOTA, Refusal};
use crate::ledger::terms::{REQUESTS_WINDOW, Room, Standing, TOKENS_WINDOW};

/// Headers as both axum and Pingora take them: one by one.
pub type HeaderList = Vec<(HeaderName, HeaderValue)>;

/// The answer that carries this refusal. CORS headers, and those of a request that carried
/// `X-Cashu`, are added by their own functions.
pub fn render(
    refusal: &Refusal,
    request_id: &str,
    dialect: Dialect,
) -> (StatusCode, HeaderList, Bytes) {
    debug_assert!(
        is_documented(refusal.status_code(), refusal.code()),
        "src/api/openapi/errors.rs has no {refusal}"
    );
    let status =
        StatusCode::from_u16(refusal.status_code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut headers = request_id_headers(request_id);
    headers.push((CONTENT_TYPE, HeaderValue::from_static("application/json")));
    headers.push((CACHE_CONTROL, HeaderValue::from_static("no-store")));
    if let Some(seconds) = refusal.retry_after() {
        headers.push((RETRY_AFTER, HeaderValue::from(seconds)));
    }
    (status, headers, body(refusal, request_id, dialect).into())
}

fn body(refusal: &Refusal, request_id: &str, dialect: Dialect) -> Vec<u8> {
    match (dialect, refusal.kind()) {
        // `@routstr/sdk` tops up on exactly these two words and on no others. A key whose limit is
        // reached is not helped by that.
        (Dialect::Routstr, Kind::InsufficientBalance) if refusal.code() == "payment_required" => {
            refusal.body_as(QUOTA, "insufficient_balance", request_id)
        }
        (Dialect::Routstr | Dialect::Reference, _) => refusal.body(request_id),
    }
}

/// The request id under both of its names. An id that is no header value is left out; the edge
/// lets none through.
pub fn request_id_headers(request_id: &str) -> HeaderList {
    let Ok(value) = HeaderValue::from_str(request_id) else { return HeaderList::new() };
    vec![(X_REQUEST_ID, value.clone()), (X_ROUTSTR_REQUEST_ID, value)]
}

/// What an error to a request with `X-Cashu` carries besides: the OpenAI SDKs would otherwise
/// retry 409, 429 and 5xx, each time with a fresh token of the client's.
pub fn never_retry() -> (HeaderName, HeaderValue) {
    (X_SHOULD_RETRY, HeaderValue::from_static("false"))
}

/// What a wallet pays to have the request served (NUT-24). Never beside a request that carried
/// ecash: there `X-Cashu` is only ever ecash, because clients redeem what they find.
pub fn challenge_header(payment_request: &str) -> Option<(HeaderName, HeaderValue)> {
    Some((X_CASHU, HeaderValue::from_str(payment_request).ok()?))
}

/// Said of an answer whose output limit was lowered to what the balance affords.
pub fn max_output_tokens(limit: u64) -> (HeaderName, HeaderValue) {
    (X_NUTGATE_MAX_OUTPUT_TOKENS, HeaderValue::from(limit))
}

/// What is left of a key's limits, for an answer that leaves at `now`.
pub fn rate_limit_headers(standing: Standing, now: UnixMs) -> HeaderList {
    let quota = |Room { limit, left, reset_in }, window| Quota {
        limit,
        left,
        window_ms: milliseconds(window),
        reset_in_ms: milliseconds(reset_in),
    };
    let requests = quota(standing.requests, REQUESTS_WINDOW);
    let tokens = quota(standing.tokens, TOKENS_WINDOW);
    rate_limit_lines(&requests, &tokens, now.0).into()
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Ecash in the head of an answer, with its alias where configuration keeps it. Nothing when
/// both together would pass [`CASHU_HEADERS_BYTES_MAX`]: some clients refuse the whole answer
/// then, so such ecash is claimed, or is in the body anyway.
pub fn cashu_headers(cashu_token: &str, refunds_alias: bool) -> HeaderList {
    let names: &[HeaderName] = if refunds_alias { &[X_CASHU, X_CASHU_REFUND] } else { &[X_CASHU] };
    let bytes = |name: &HeaderName| name.as_str().len() + cashu_token.len() + ": \r\n".len();
    if names.iter().map(bytes).sum::<usize>() >= CASHU_HEADERS_BYTES_MAX {
        return HeaderList::new();
    }
    let Ok(mut value) = HeaderValue::from_str(cashu_token) else { return HeaderList::new() };
    value.set_sensitive(true);
    names.iter().map(|name| (name.clone(), value.clone())).collect()
}

const X_NUTGATE_MAX_OUTPUT_TOKENS: HeaderName =
    HeaderName::from_static("x-nutgate-max-output-tokens");
pub const X_CASHU: HeaderName = HeaderName::from_static("x-cashu");
pub const X_CASHU_REFUND: HeaderName = HeaderName::from_static("x-cashu-refund");
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub const X_ROUTSTR_REQUEST_ID: HeaderName = HeaderName::from_static("x-routstr-request-id");
const X_SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// aiohttp refuses a header over 8190 bytes, Node's fetch a head over 16 kB.
pub const CASHU_HEADERS_BYTES_MAX: usize = 8000;

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::money::Msat;

    fn error_of(refusal: &Refusal, dialect: Dialect) -> Value {
        let (_, _, body) = render(refusal, "req-1", dialect);
        let body: Value = serde_json::from_slice(&body).unwrap();
        body["error"].clone()
    }

    fn header<'h>(headers: &'h HeaderList, name: &str) -> Option<&'h str> {
        headers.iter().find(|(n, _)| n.as_str() == name).map(|(_, value)| value.to_str().unwrap())
    }

    #[test]
    fn a_402_speaks_the_configured_dialect_and_nothing_else_changes() {
        let amount = |msat| Msat::new(msat).unwrap();
        let short = Refusal::insufficient_balance(amount(154), amount(100));
        let reference = error_of(&short, Dialect::Reference);
        assert_eq!(reference["type"], "insufficient_balance");
        assert_eq!(reference["code"], "payment_required");

        let routstr = error_of(&short, Dialect::Routstr);
        assert_eq!(routstr["type"], "insufficient_quota");
        assert_eq!(routstr["code"], "insufficient_balance");
        assert_eq!(routstr["message"], reference["message"]);
        assert_eq!(routstr["details"], reference["details"]);

        let capped = Refusal::balance_limit_exceeded(amount(154), amount(100));
        for other in [Refusal::key_not_found(), capped] {
            assert_eq!(error_of(&other, Dialect::Routstr), error_of(&other, Dialect::Reference));
        }
    }

    #[test]
    fn an_error_names_its_request_and_when_to_come_back() {
        let (status, headers, body) =
            render(&Refusal::ledger_unavailable(), "req-7", Dialect::Reference);
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(header(&headers, "x-request-id"), Some("req-7"));
        assert_eq!(header(&headers, "x-routstr-request-id"), Some("req-7"));
        assert_eq!(header(&headers, "retry-after"), Some("1"));
        assert_eq!(header(&headers, "cache-control"), Some("no-store"));
        assert_eq!(header(&headers, "content-type"), Some("application/json"));
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["request_id"], "req-7");
    }

    #[test]
    fn ecash_in_the_head_stays_under_what_clients_accept() {
        for alias in [true, false] {
            let copies = if alias { 2 } else { 1 };
            for length in 3_900..8_100 {
                let headers = cashu_headers(&"c".repeat(length), alias);
                let bytes: usize =
                    headers.iter().map(|(name, v)| name.as_str().len() + v.len()).sum();
                assert!(bytes < CASHU_HEADERS_BYTES_MAX, "{length} bytes, alias {alias}");
                assert!(headers.is_empty() || headers.len() == copies);
            }
            assert_eq!(cashu_headers("cashuBabc", alias).len(), copies);
        }
    }
}
