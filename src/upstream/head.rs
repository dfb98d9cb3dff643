//! What a request's head says to one upstream: made once at start, because no request changes it.

use http::header::HOST;
use http::{HeaderName, HeaderValue};

use crate::config::{self, Auth};

/// The lines that every head to one upstream gets, and the ends of every path.
#[derive(Debug)]
pub(super) struct Head {
    host: HeaderValue,
    /// The configured headers, then the credential. Marked as sensitive, all of them: any of them
    /// may be a secret.
    lines: Vec<(HeaderName, HeaderValue)>,
    prefix: String,
    /// With its `?`, if there is one.
    query: String,
}

impl Head {
    /// # Errors
    /// A value that cannot stand in a header; a configuration that was parsed has none.
    pub(super) fn new(
        config: &config::Upstream,
        authority: &str,
        prefix: &str,
    ) -> Result<Self, String> {
        let mut lines = Vec::with_capacity(config.headers.len().saturating_add(1));
        for (name, value) in &config.headers {
            lines.push((name.clone(), sensitive(name, value.reveal())?));
        }
        let key = config.api_key.reveal();
        if let Some(name) = config.auth.header().filter(|_| !key.is_empty()) {
            let bearer = if config.auth == Auth::Bearer { "Bearer " } else { "" };
            let value = sensitive(&name, &format!("{bearer}{key}"))?;
            lines.push((name, value));
        }
        let query = match config.query.as_str() {
            "" => String::new(),
            query => format!("?{query}"),
        };
        let host = authority.parse().map_err(|_| "has no host".to_owned())?;
        Ok(Self { host, lines, prefix: prefix.to_owned(), query })
    }

    pub(super) fn lines(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        let own = self.lines.iter().map(|(name, value)| (name, value));
        std::iter::once((&HOST, &self.host)).chain(own)
    }

    pub(super) fn path(&self, below: &str) -> String {
        [&self.prefix, below, &self.query].concat()
    }
}

fn sensitive(name: &HeaderName, text: &str) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::from_str(text)
        .map_err(|_| format!("header {name}: has characters that cannot stand in a header"))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::super::Upstream;
    use super::super::tests::{configured, upstream};
    use super::*;
    use crate::config::Secret;

    fn lines(upstream: &Upstream) -> Vec<(&str, &str)> {
        upstream
            .head_lines()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect()
    }

    fn with(auth: Auth, api_key: &str) -> Upstream {
        let api_key = Secret::new(api_key);
        upstream(&config::Upstream { auth, api_key, ..configured("u") })
    }

    #[test]
    fn each_way_to_show_a_key_has_its_header_and_no_key_has_none() {
        let host = ("host", "u.example:8443");
        let expected: [(Auth, Vec<_>); 4] = [
            (Auth::Bearer, vec![host, ("authorization", "Bearer k")]),
            (Auth::ApiKey, vec![host, ("api-key", "k")]),
            (Auth::XApiKey, vec![host, ("x-api-key", "k")]),
            (Auth::None, vec![host]),
        ];
        for (auth, expected) in expected {
            assert_eq!(lines(&with(auth, "k")), expected);
            assert_eq!(lines(&with(auth, "")), [host]);
        }
    }

    #[test]
    fn configured_headers_are_set_and_nothing_shows_their_values() {
        let headers = vec![(HeaderName::from_static("x-title"), Secret::new("a title"))];
        let api_key = Secret::new("sk-secret");
        let upstream = upstream(&config::Upstream { headers, api_key, ..configured("u") });
        assert_eq!(lines(&upstream)[1], ("x-title", "a title"));
        let shown = format!("{upstream:?}");
        assert!(!shown.contains("a title") && !shown.contains("sk-secret"), "{shown}");
    }

    #[test]
    fn the_host_names_its_port_only_where_it_is_not_the_scheme_s_own() {
        for (base_url, host) in [
            ("https://u.example/v1", "u.example"),
            ("https://u.example:443/v1", "u.example"),
            ("http://u.example:443", "u.example:443"),
            ("http://[::1]:80", "[::1]"),
            ("http://[::1]:81", "[::1]:81"),
        ] {
            let base_url = base_url.to_owned();
            let upstream = upstream(&config::Upstream { base_url, ..configured("u") });
            assert_eq!(lines(&upstream)[0], ("host", host));
        }
    }

    #[test]
    fn a_path_is_the_prefix_the_route_and_the_query() {
        let path = |base_url: &str, query: &str| {
            let (base_url, query) = (base_url.to_owned(), query.to_owned());
            let config = config::Upstream { base_url, query, ..configured("u") };
            upstream(&config).path("/chat/completions")
        };
        assert_eq!(path("https://u", ""), "/chat/completions");
        assert_eq!(path("https://u/v1", ""), "/v1/chat/completions");
        let azure = path("https://u/openai/v1/", "api-version=preview");
        assert_eq!(azure, "/openai/v1/chat/completions?api-version=preview");
    }
}
