//! Addresses of mints and upstreams.

use std::net::IpAddr;

use http::Uri;

/// `http(s)://host[:port][/prefix]`: no query, no fragment, no credentials; scheme and host in
/// lower case, without a trailing slash, so that equal addresses are equal text.
///
/// Plain http would show credentials and ecash to the network: it is for this machine only,
/// unless the operator says otherwise.
pub(super) fn base(text: &str, allow_insecure: bool) -> Result<String, String> {
    let url = any(text)?;
    let loopback = url.host == "localhost" || is_loopback(&url.host);
    if url.scheme == "http" && !loopback && !allow_insecure {
        return Err("plain http to another machine needs `allow_insecure: true`".to_owned());
    }
    Ok(url.text)
}

/// An address to fetch one document from, and its host: as [`base`], but for its path, which stays
/// as it is, and its query.
pub(super) fn source(text: &str, allow_insecure: bool) -> Result<(String, String), String> {
    let (before, query) = match text.split_once('?') {
        Some((before, query)) if !query.contains('#') => (before, format!("?{query}")),
        Some(_) => return Err("must be without `#`".to_owned()),
        None => (text, String::new()),
    };
    base(before, allow_insecure)?;
    let url = any(before)?;
    // The end of a path matters to who serves the document.
    let slash = if before.ends_with('/') { "/" } else { "" };
    Ok((format!("{}{slash}{query}", url.text), url.host))
}

/// The same rules, whatever the host: for what is only shown.
pub(super) fn shown(text: &str) -> Result<String, String> {
    any(text).map(|url| url.text)
}

struct Url {
    scheme: String,
    host: String,
    text: String,
}

fn any(text: &str) -> Result<Url, String> {
    let wrong = || "is not an address like `https://host/prefix`".to_owned();
    let uri: Uri = text.parse().map_err(|_| wrong())?;
    let scheme = uri.scheme_str().ok_or_else(wrong)?.to_ascii_lowercase();
    let authority = uri.authority().ok_or_else(wrong)?.as_str().to_ascii_lowercase();
    let host = uri.host().ok_or_else(wrong)?.to_ascii_lowercase();
    if !matches!(scheme.as_str(), "http" | "https") || host.is_empty() {
        return Err(wrong());
    }
    if authority.contains('@') {
        return Err("must not hold credentials".to_owned());
    }
    if uri.query().is_some() || text.contains(['?', '#']) {
        return Err("must end with its path, without `?` or `#`".to_owned());
    }
    if authority.len() != host.len() && uri.port_u16().is_none_or(|port| port == 0) {
        return Err("has a port that is none".to_owned());
    }
    let text = format!("{scheme}://{authority}{}", uri.path().trim_end_matches('/'));
    Ok(Url { scheme, host, text })
}

fn is_loopback(host: &str) -> bool {
    let address: Result<IpAddr, _> = host.trim_matches(['[', ']']).parse();
    address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_addresses_become_equal_text() {
        for text in ["HTTPS://Host.Example/v1/", "https://host.example/v1"] {
            assert_eq!(base(text, false).as_deref(), Ok("https://host.example/v1"));
        }
        assert_eq!(base("http://[::1]:80/", false).as_deref(), Ok("http://[::1]:80"));
    }

    #[test]
    fn plain_http_stays_on_this_machine_unless_allowed() {
        for text in ["http://127.0.0.1:1", "http://127.9.9.9", "http://localhost:1/v1"] {
            assert!(base(text, false).is_ok(), "{text}");
        }
        let elsewhere = ["http://10.0.0.1", "http://example.com", "http://notlocalhost"];
        for text in elsewhere {
            assert!(base(text, false).is_err(), "{text}");
            assert!(base(text, true).is_ok(), "{text}");
        }
    }

    #[test]
    fn a_source_keeps_its_path_and_its_query() {
        for text in ["https://host.example/v1/?a=b&c=/", "https://host.example:8443/x"] {
            assert_eq!(source(text, false).unwrap().0, text);
            assert_eq!(source(text, false).unwrap().1, "host.example");
        }
        for text in ["http://host.example/?a", "https://h/#x", "https://h/?a#x", "https://a:b@h/"] {
            assert!(source(text, false).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_not_an_address_is_refused() {
        let wrong = [
            "",
            "host",
            "host:1",
            "/v1",
            "ftp://host",
            "https://",
            "https://host?x=1",
            "https://host/#top",
            "https://me:secret@host",
            "https://host:99999",
            "https://host:0",
            "https://host:",
            "https://a b",
        ];
        for text in wrong {
            assert!(base(text, true).is_err(), "{text}");
        }
    }
}
