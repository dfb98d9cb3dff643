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

/// The last four steer proxies that an upstream may be: to other models, to other servers, to
/// more attempts. That is for the operator, who sets them in the configuration.
const REQUEST_PREFIXES: [&str; 8] = [
    "x-cashu",
    "x-forwarded-",
    "x-nutgate-",
    "x-routstr-",
    "cf-aig-",
    "helicone-",
    "x-litellm-",
    "x-portkey-",
];

const RESPONSE_NAMES: [&str; 18] = [
    "alt-svc",
    "anthropic-organization-id",
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

/// The last are what Azure, Envoy and LiteLLM say of an account's limits and spending, and of the
/// servers behind them.
const RESPONSE_PREFIXES: [&str; 12] = [
    "access-control-",
    // Limits and organisation of an account at Anthropic; nothing else of theirs is an answer's.
    "anthropic-",
    "cf-",
    "ratelimit",
    "x-cashu",
    "x-nutgate-",
    "x-ratelimit-",
    "x-routstr-",
    "apim-",
    "x-envoy-",
    "x-litellm-",
    "x-ms-",
];

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn head(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name = HeaderName::try_from(*name).expect("a valid name");
            headers.append(name, HeaderValue::from_str(value).expect("a valid value"));
        }
        headers
    }

    /// The names that stay after the edits, in order.
    fn stay(headers: &HeaderMap, edits: &HeaderEdits) -> Vec<String> {
        assert_eq!(edits.sets().count(), 0, "a scrub sets nothing");
        let mut headers = headers.clone();
        for name in edits.removes() {
            assert!(headers.remove(name).is_some(), "{name} is there, and removed once");
        }
        let mut names: Vec<_> = headers.keys().map(|name| name.as_str().to_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn no_credential_and_nothing_of_the_connection_reaches_an_upstream() {
        let goes = "authorization x-cashu x-cashu-refund x-cashu-stream cookie proxy-authorization \
            proxy-connection connection keep-alive te trailer transfer-encoding upgrade expect \
            host content-length accept-encoding forwarded x-forwarded-for \
            x-forwarded-proto x-real-ip \
            idempotency-key x-nutgate-debug x-api-key api-key openai-organization openai-project \
            cf-aig-max-attempts helicone-target-url x-litellm-num-retries x-portkey-config";
        let stays =
            "accept content-type http-referer openai-beta user-agent x-stainless-os x-title";
        let lines = |names: &'static str| names.split_whitespace().map(|name| (name, "v"));
        let headers = head(&lines(goes).chain(lines(stays)).collect::<Vec<_>>());
        let expected: Vec<_> = stays.split(' ').collect();
        assert_eq!(stay(&headers, &request(&headers)), expected);
    }

    #[test]
    fn nothing_of_the_upstreams_connection_and_account_reaches_a_client() {
        let goes = "connection keep-alive transfer-encoding trailer upgrade proxy-authenticate \
            content-length set-cookie x-cashu x-cashu-refund x-routstr-cost-msats \
             x-ratelimit-limit-requests ratelimit ratelimit-policy ratelimit-remaining \
             openai-organization openai-project server alt-svc \
             x-request-id access-control-allow-origin access-control-expose-headers \
             strict-transport-security cf-ray \
             anthropic-organization-id anthropic-ratelimit-requests-limit apim-request-id \
             x-envoy-decorator-operation x-litellm-model-api-base x-ms-region";
        let stays = "cache-control content-type date openai-processing-ms retry-after";
        let lines = |names: &'static str| names.split_whitespace().map(|name| (name, "v"));
        let headers = head(&lines(goes).chain(lines(stays)).collect::<Vec<_>>());
        let expected: Vec<_> = stays.split(' ').collect();
        assert_eq!(stay(&headers, &response(&headers)), expected);
    }

    #[test]
    fn every_header_that_connection_names_goes_with_it() {
        let headers = head(&[
            ("connection", "X-One , close,,x-two"),
            ("connection", "x-three"),
            ("x-one", "1"),
            ("x-two", "2"),
            ("x-two", "again"),
            ("x-three", "3"),
            ("x-four", "4"),
        ]);
        assert_eq!(stay(&headers, &request(&headers)), ["x-four"]);
        assert_eq!(stay(&headers, &response(&headers)), ["x-four"]);
    }

    #[test]
    fn no_number_of_other_headers_lets_a_credential_through() {
        let names: Vec<_> = (0..500).map(|number| format!("x-forwarded-{number}")).collect();
        let mut lines: Vec<_> = names.iter().map(|name| (name.as_str(), "v")).collect();
        lines.push(("authorization", "Bearer sk-secret"));
        let headers = head(&lines);
        assert_eq!(stay(&headers, &request(&headers)), Vec::<String>::new());
    }

    proptest! {
        #[test]
        fn scrubbing_twice_is_scrubbing_once(names in prop::collection::vec("[a-z-]{1,12}", 0..20)) {
            let mut lines: Vec<_> = names.iter().map(|name| (name.as_str(), "v")).collect();
            let named = names.iter().step_by(3).cloned().collect::<Vec<_>>().join(", ");
            lines.push(("connection", &named));
            let mut headers = head(&lines);
            for name in request(&headers).removes() {
                headers.remove(name);
            }
            prop_assert!(request(&headers).is_empty());
        }
    }
}
