//! The upstreams: where requests are forwarded to.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::HeaderName;

use super::super::mistake::KeyPath;
use super::super::scalars::{HeaderText, Lasting};
use super::super::{Auth, Health, Probe, Secret, Upstream, schema};
use super::{Checks, IS_REQUIRED, Names};

impl Checks<'_> {
    pub(super) fn upstreams(
        &mut self,
        upstreams: Vec<Option<schema::Upstream>>,
        has_dollar_rate: bool,
    ) -> Vec<Upstream> {
        let mut names = Names::default();
        let mut checked = Vec::new();
        for (upstream, at) in self.elements(upstreams, &KeyPath::from("upstreams")) {
            let name = self.word(upstream.name, &at.key("name"));
            self.unique(&mut names, &name, &at.key("name"));
            let timeouts = upstream.timeouts.unwrap_or_default();
            let insecure = upstream.allow_insecure.unwrap_or(false);
            let auth = upstream.auth.unwrap_or_default();
            self.shows_its_key(upstream.auth, upstream.api_key.as_ref(), &at);
            let stripped = upstream.strip_unsupported.unwrap_or_default();
            checked.push(Upstream {
                name,
                base_url: self.base_url(upstream.base_url, insecure, &at.key("base_url")),
                query: self.query(upstream.query, &at.key("query")),
                api_key: upstream.api_key.unwrap_or_else(|| Secret::new("")),
                auth,
                headers: self.headers(
                    upstream.headers.unwrap_or_default(),
                    auth,
                    &at.key("headers"),
                ),
                http: upstream.http.unwrap_or_default(),
                strip_unsupported: self.stripped(stripped, &at.key("strip_unsupported")),
                health: self.health(upstream.health.unwrap_or_default(), &at.key("health")),
                ca_file: upstream.ca_file.map(|file| self.ca_file(file, &at.key("ca_file"))),
                connect_timeout: or_s(timeouts.connect, 5),
                first_byte_timeout: or_s(timeouts.first_byte, 300),
                idle_timeout: or_s(timeouts.idle, 60),
                total_timeout: or_s(timeouts.total, 900),
                models: upstream
                    .models
                    .map(|policy| self.listing_policy(policy, has_dollar_rate, &at.key("models"))),
            });
        }
        checked
    }

    /// Without `auth`, an upstream that has no key asks for none.
    fn shows_its_key(&mut self, auth: Option<Auth>, api_key: Option<&Secret>, at: &KeyPath) {
        let at = at.key("api_key");
        match (auth, api_key) {
            (Some(Auth::None), Some(_)) => self.found.add(at, "is never sent with `auth: none`"),
            (Some(Auth::Bearer | Auth::ApiKey | Auth::XApiKey), None) => {
                self.found.add(at, "is required where `auth` says how it is sent");
            }
            _ => {}
        }
    }

    fn query(&mut self, given: Option<String>, at: &KeyPath) -> String {
        let query = given.unwrap_or_default();
        if query.starts_with(['?', '&']) || !is_of_url(&query, "?") {
            self.found.add(at.clone(), "must be like `name=value&name=value`, encoded as in a URL");
        }
        query
    }

    fn headers(
        &mut self,
        headers: BTreeMap<String, HeaderText>,
        auth: Auth,
        at: &KeyPath,
    ) -> Vec<(HeaderName, Secret)> {
        if headers.len() > HEADERS_MAX {
            self.found.add(at.clone(), format!("are more than {HEADERS_MAX}"));
        }
        let mut names = Names::default();
        let mut checked = Vec::new();
        for (name, HeaderText(value)) in headers {
            let at = at.key(&name);
            let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else {
                self.found.add(at, "is not the name of a header");
                continue;
            };
            if is_ours(name.as_str()) {
                self.found.add(at.clone(), "is for the gateway to set");
            } else if auth.header().as_ref() == Some(&name) {
                self.found.add(at.clone(), "is set by `auth`");
            }
            self.unique(&mut names, name.as_str(), &at);
            checked.push((name, value));
        }
        checked
    }

    fn stripped(&mut self, given: Vec<Option<String>>, at: &KeyPath) -> Vec<String> {
        if given.len() > STRIPPED_MAX {
            self.found.add(at.clone(), format!("names more than {STRIPPED_MAX}"));
        }
        let mut names = Names::default();
        let mut checked = Vec::new();
        for (name, at) in self.elements(given, at) {
            let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if name.is_empty() || !name.chars().all(is_name) {
                self.found.add(at.clone(), "is not the name of a parameter");
            } else if NEVER_STRIPPED.contains(&name.as_str()) {
                let why = "without it a request would ask for, or cost, something else";
                self.found.add(at.clone(), format!("`{name}` must stay: {why}"));
            }
            self.unique(&mut names, &name, &at);
            checked.push(name);
        }
        checked
    }

    fn health(&mut self, health: schema::Health, at: &KeyPath) -> Health {
        let failures = match health.failures.map(|whole| u32::try_from(whole.0)) {
            None => FAILURES,
            Some(Ok(failures)) if (1..=FAILURES_MAX).contains(&failures) => failures,
            Some(_) => {
                let range = format!("must be from 1 to {FAILURES_MAX}");
                self.found.add(at.key("failures"), range);
                FAILURES
            }
        };
        let cooldown = or_s(health.cooldown, 10);
        if cooldown > COOLDOWN_MAX {
            self.found.add(at.key("cooldown"), "must not be longer than `1h`");
        }
        let probe = health.probe.map(|probe| self.probe(probe, &at.key("probe")));
        Health { failures, cooldown, probe }
    }

    fn probe(&mut self, probe: schema::Probe, at: &KeyPath) -> Probe {
        let path = probe.path.unwrap_or_default();
        if path.is_empty() {
            self.found.add(at.key("path"), IS_REQUIRED);
        } else if !path.starts_with('/') || !is_of_url(&path, "") {
            self.found.add(at.key("path"), "must be like `/models`, encoded as in a URL");
        }
        let (every, timeout) = (or_s(probe.every, 30), or_s(probe.timeout, 5));
        if timeout > every {
            self.found.add(at.key("timeout"), "must not be longer than `every`");
        }
        Probe { path, every, timeout }
    }

    fn ca_file(&mut self, file: String, at: &KeyPath) -> PathBuf {
        match self.outside.file(Path::new(&file)) {
            Ok(pem) if pem.contains("-----BEGIN CERTIFICATE-----") => {}
            Ok(_) => self.found.add(at.clone(), format!("`{file}` holds no PEM certificate")),
            Err(error) => {
                self.found.add(at.clone(), format!("the file `{file}` cannot be read: {error}"));
            }
        }
        file.into()
    }
}

fn or_s(given: Option<Lasting>, default_s: u64) -> Duration {
    given.map_or(Duration::from_secs(default_s), |lasting| lasting.0)
}

/// What may stand in a path (RFC 3986, section 3.3), and what else is named.
fn is_of_url(text: &str, also: &str) -> bool {
    let is = |c: char| c.is_ascii_alphanumeric() || PATH_MARKS.contains(c) || also.contains(c);
    text.chars().all(is)
}

const PATH_MARKS: &str = "-._~%!$&'()*+,;=:@/";

/// What is about the connection, the body or the client's credential.
fn is_ours(name: &str) -> bool {
    OURS.contains(&name) || name.starts_with("proxy-") || name.starts_with("x-cashu")
}

const OURS: [&str; 14] = [
    "accept-encoding",
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-request-id",
];

/// What a request is, how much it may cost, and how its usage is told.
const NEVER_STRIPPED: [&str; 20] = [
    "best_of",
    "documents",
    "file",
    "image",
    "input",
    "instructions",
    "max_completion_tokens",
    "max_output_tokens",
    "max_tokens",
    "messages",
    "model",
    "n",
    "prompt",
    "quality",
    "query",
    "size",
    "stream",
    "stream_options",
    "system",
    "usage",
];

/// Where a configuration says nothing. One failure may be the network's, five in a row are not.
const FAILURES: u32 = 5;
const FAILURES_MAX: u32 = 1000;
const COOLDOWN_MAX: Duration = Duration::from_secs(3600);

/// More than these are a slip of the pen.
const HEADERS_MAX: usize = 32;
const STRIPPED_MAX: usize = 32;
