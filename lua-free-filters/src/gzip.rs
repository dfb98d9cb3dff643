//! Whether an answer goes out compressed: what its client accepts, and what is worth it.

use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, ETAG,
};
use http::{HeaderMap, HeaderName};

/// How a whole body goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// As it is, whoever asks.
    Plain,
    /// As it is, because this client would have it so: `Vary` must say that it depends on that.
    PlainHere,
    Gzip,
}

/// Decides from the heads of a request and its answer. Event streams are never compressed, nor is
/// what is as short as [`GZIP_BYTES_MIN`], compressed already, named by its bytes, or not to be
/// transformed.
///
/// A client that refuses `identity` and takes no gzip gets it plain all the same: everybody can
/// read that.
pub fn coding(request: &HeaderMap, answer: &HeaderMap, body_bytes: usize) -> Coding {
    let bound_to_its_bytes = BYTE_BOUND.iter().any(|name| answer.contains_key(name));
    if body_bytes <= GZIP_BYTES_MIN
        || !is_compressible(answer)
        || bound_to_its_bytes
        || [request, answer].into_iter().any(forbids_transforming)
    {
        return Coding::Plain;
    }
    match accepts_gzip(request) {
        true => Coding::Gzip,
        false => Coding::PlainHere,
    }
}

fn is_compressible(answer: &HeaderMap) -> bool {
    let is_encoded = answer
        .get(CONTENT_ENCODING)
        .is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"));
    let value = answer.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
    let is_text = essence.starts_with("text/") && essence != "text/event-stream";
    let is_structured = essence.ends_with("+json") || essence.ends_with("+xml");
    !is_encoded && (is_text || is_structured || COMPRESSIBLE.contains(&essence.as_str()))
}

fn forbids_transforming(headers: &HeaderMap) -> bool {
    elements(headers, &CACHE_CONTROL).any(|word| word.eq_ignore_ascii_case("no-transform"))
}

/// RFC 9110, section 12.5.3: gzip, by its name or by `*`, unless identity is liked better.
fn accepts_gzip(request: &HeaderMap) -> bool {
    let (mut gzip, mut identity, mut any) = (None, None, None);
    for element in elements(request, &ACCEPT_ENCODING) {
        let (name, parameters) = element.split_once(';').unwrap_or((element, ""));
        let weight = weight(parameters);
        match name.trim_ascii().to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => gzip = weight.max(gzip),
            "identity" => identity = weight,
            "*" => any = weight,
            _ => {}
        }
    }
    let gzip = gzip.or(any).unwrap_or(0);
    gzip > 0 && gzip >= identity.unwrap_or(0)
}

/// Thousandths; what is no weight takes nothing.
fn weight(parameters: &str) -> Option<u16> {
    let mut parameters = parameters.split(';').map(str::trim_ascii);
    let q = parameters.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
    let Some(q) = q else { return Some(WHOLE) };
    let (whole, fraction) = q.split_once('.').unwrap_or((q, ""));
    let is_short = fraction.len() <= DECIMALS_MAX && fraction.bytes().all(|it| it.is_ascii_digit());
    let thousandths = format!("{fraction:0<DECIMALS_MAX$}").parse().unwrap_or(0);
    match (whole, thousandths) {
        _ if !is_short => Some(0),
        ("0", thousandths) => Some(thousandths),
        ("1", 0) => Some(WHOLE),
        _ => Some(0),
    }
}

fn elements<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> {
    let lines = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim_ascii)
}

/// As short as this a body stays plain: it fits a packet as it is.
pub const GZIP_BYTES_MIN: usize = 1024;

const WHOLE: u16 = 1000;
const DECIMALS_MAX: usize = 3;

/// What besides text is text.
const COMPRESSIBLE: [&str; 5] = [
    "application/javascript",
    "application/json",
    "application/x-subrip",
    "application/xml",
    "application/yaml",
];

/// Each says something of the exact bytes, which would not be true of others.
const BYTE_BOUND: [HeaderName; 6] = [
    CONTENT_RANGE,
    ETAG,
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("repr-digest"),
];

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn head(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).expect("a value"));
        }
        headers
    }

    const JSON: (&str, &str) = ("content-type", "application/json");
    const LONG: usize = GZIP_BYTES_MIN + 1;

    #[test]
    fn a_client_gets_gzip_if_it_says_so_and_likes_nothing_better() {
        let check = |accepted: &str, gzip: bool| {
            let expected = if gzip { Coding::Gzip } else { Coding::PlainHere };
            let request = head(&[("accept-encoding", accepted)]);
            assert_eq!(coding(&request, &head(&[JSON]), LONG), expected, "{accepted}");
        };
        for accepted in [
            "gzip",
            "GZIP",
            "x-gzip",
            "br, gzip",
            "deflate;q=0.5,gzip;q=0.001",
            "*",
            "*;q=0.1",
            "gzip; q=1.0, identity; q=0.5",
            "gzip;q=0.5, identity;q=0.5",
            "identity;q=0, gzip",
            "identity;q=0, *",
            "gzip;q=1.000",
        ] {
            check(accepted, true);
        }
        for accepted in [
            "",
            "br",
            "identity",
            "gzip;q=0",
            "gzip;q=0.000",
            "*;q=0",
            "gzip;q=0, *",
            "gzip;q=0.5, identity",
            "identity;q=0",
            "identity;q=0, br",
            "gzip;q=2",
            "gzip;q=1.5",
            "gzip;q=0.0001",
            "gzip;q=a",
            "gzipped",
        ] {
            check(accepted, false);
        }
        assert_eq!(coding(&head(&[]), &head(&[JSON]), LONG), Coding::PlainHere);
        let twice = head(&[("accept-encoding", "br"), ("accept-encoding", "gzip")]);
        assert_eq!(coding(&twice, &head(&[JSON]), LONG), Coding::Gzip);
    }

    #[test]
    fn only_what_is_long_and_text_and_may_be_changed_is_compressed() {
        let gzip = head(&[("accept-encoding", "gzip")]);
        let check = |answer: &[(&'static str, &str)], bytes: usize, expected: Coding| {
            assert_eq!(coding(&gzip, &head(answer), bytes), expected, "{answer:?} {bytes}");
        };
        check(&[JSON], LONG, Coding::Gzip);
        check(&[JSON], GZIP_BYTES_MIN, Coding::Plain);
        for of_text in
            ["text/plain; charset=utf-8", "Application/JSON", "image/svg+xml", "a/b+json"]
        {
            check(&[("content-type", of_text)], LONG, Coding::Gzip);
        }
        for other in ["text/event-stream", "text/event-stream; x=y", "audio/mpeg", "image/png", ""]
        {
            check(&[("content-type", other)], LONG, Coding::Plain);
        }
        check(&[], LONG, Coding::Plain);
        for forbidding in [
            ("content-encoding", "gzip"),
            ("cache-control", "public, No-Transform"),
            ("content-range", "bytes 0-1/2"),
            ("etag", "\"a\""),
            ("content-digest", "sha-256=:x:"),
        ] {
            check(&[JSON, forbidding], LONG, Coding::Plain);
        }
        check(&[JSON, ("content-encoding", "identity")], LONG, Coding::Gzip);
        check(&[JSON, ("cache-control", "no-store")], LONG, Coding::Gzip);
        let as_it_is = head(&[("accept-encoding", "gzip"), ("cache-control", "no-transform")]);
        assert_eq!(coding(&as_it_is, &head(&[JSON]), LONG), Coding::Plain);
    }
}
