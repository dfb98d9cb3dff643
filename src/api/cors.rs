//! Cross-origin rules (WIRE.md section 4): any browser page may call this gateway unless the
//! operator lists those that may, because a credential is always in a header that the page itself
//! sets, never ambient.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ORIGIN,
    VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::render::HeaderList;
use crate::config::Origins;

/// What every answer to this request carries, local or billable. No credentials, ever. Where
/// origins are listed, a page of another one is told nothing, and caches that it depends on that.
pub fn cors_headers(origins: &Origins, request: &HeaderMap) -> HeaderList {
    let exposed = (ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    let listed = match origins {
        Origins::Any => {
            return vec![(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*")), exposed];
        }
        Origins::Listed(listed) => listed,
    };
    let vary = (VARY, HeaderValue::from(ORIGIN));
    match request.get(ORIGIN).filter(|origin| listed.contains(origin)) {
        Some(origin) => vec![vary, (ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone()), exposed],
        None => vec![vary],
    }
}

/// What the answer to a preflight carries besides [`cors_headers`]: the usual request headers
/// and whatever else this preflight asks for, as long as it is a header name.
pub fn preflight_headers(request: &HeaderMap) -> HeaderList {
    vec![
        (ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS)),
        (ACCESS_CONTROL_ALLOW_HEADERS, allowed(request)),
        (ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE_S)),
        (VARY, HeaderValue::from_static("Access-Control-Request-Headers")),
    ]
}

fn allowed(request: &HeaderMap) -> HeaderValue {
    let asked = request
        .get_all(ACCESS_CONTROL_REQUEST_HEADERS)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse::<HeaderName>().ok())
        .filter(|name| !ALLOWED.iter().any(|usual| name.as_str().eq_ignore_ascii_case(usual)))
        .take(ASKED_HEADERS_MAX);
    let names: Vec<String> =
        ALLOWED.iter().map(ToString::to_string).chain(asked.map(|name| name.to_string())).collect();
    HeaderValue::from_str(&names.join(", ")).unwrap_or(HeaderValue::from_static("Authorization"))
}

const ALLOWED: [&str; 2] = ["Authorization", "Content-Type"];
/// A preflight that asks for more headers than this gets the first ones allowed.
const ASKED_HEADERS_MAX: usize = 64;
const METHODS: &str = "GET, POST, PUT, DELETE, OPTIONS";
const MAX_AGE_S: &str = "86400";
/// A page that cannot read `X-Cashu` cannot see its change.
const EXPOSED: &str = "X-Request-ID, x-routstr-request-id, X-Cashu, X-Cashu-Refund, \
    X-Routstr-Cost-Msats, X-Routstr-Input-Cost-Msats, X-Routstr-Output-Cost-Msats, \
    X-Nutgate-Max-Output-Tokens, \
    X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, \
    x-ratelimit-limit-requests, x-ratelimit-remaining-requests, x-ratelimit-reset-requests, \
    x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens, \
    RateLimit, RateLimit-Policy, \
    Retry-After, x-should-retry, Idempotency-Replayed, Content-Encoding";

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed_for(asked: &str) -> String {
        let mut request = HeaderMap::new();
        request.insert(ACCESS_CONTROL_REQUEST_HEADERS, HeaderValue::from_str(asked).unwrap());
        allowed(&request).to_str().unwrap().to_owned()
    }

    #[test]
    fn a_preflight_is_allowed_what_it_asks_for_and_nothing_that_is_no_header_name() {
        assert_eq!(
            allowed_for("x-cashu,authorization, x-stainless-os"),
            "Authorization, Content-Type, x-cashu, x-stainless-os"
        );
        assert_eq!(allowed_for("a b, ,x-cashu"), "Authorization, Content-Type, x-cashu");
        let many = (0..500).map(|n| format!("x-{n}")).collect::<Vec<_>>().join(",");
        assert_eq!(allowed_for(&many).split(',').count(), ALLOWED.len() + ASKED_HEADERS_MAX);
    }

    fn told(origins: &Origins, origin: Option<&'static str>) -> HeaderMap {
        let mut request = HeaderMap::new();
        request.extend(origin.map(|origin| (ORIGIN, HeaderValue::from_static(origin))));
        cors_headers(origins, &request).into_iter().collect()
    }

    #[test]
    fn a_page_may_read_its_change_and_sends_no_ambient_credentials() {
        let mine = "https://app.example.com";
        let listed = Origins::Listed(vec![HeaderValue::from_static(mine)]);
        for (origins, origin, allowed) in [
            (&Origins::Any, None, "*"),
            (&Origins::Any, Some("https://any.example"), "*"),
            (&listed, Some(mine), mine),
        ] {
            let headers = told(origins, origin);
            assert_eq!(headers[ACCESS_CONTROL_ALLOW_ORIGIN], allowed);
            assert_eq!(headers.get(VARY).is_some(), *origins == listed);
            let exposed = headers[ACCESS_CONTROL_EXPOSE_HEADERS].to_str().unwrap();
            let exposed: Vec<&str> = exposed.split(", ").collect();
            for name in ["X-Cashu", "X-Cashu-Refund", "X-Request-ID", "Retry-After", "RateLimit"] {
                assert!(exposed.contains(&name), "{name}");
            }
            assert!(!headers.contains_key("access-control-allow-credentials"));
        }
    }

    #[test]
    fn a_page_that_is_not_listed_is_told_nothing() {
        let listed = Origins::Listed(vec![HeaderValue::from_static("https://app.example.com")]);
        for origin in [
            None,
            Some("https://app.example.com.evil.example"),
            Some("https://app.example.com:8443"),
            Some("http://app.example.com"),
            Some("null"),
        ] {
            for origins in [&listed, &Origins::Listed(Vec::new())] {
                let headers = told(origins, origin);
                assert_eq!((headers.len(), &headers[VARY]), (1, &HeaderValue::from(ORIGIN)));
            }
        }
    }
}
