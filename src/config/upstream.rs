//! What an upstream is configured as.

use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;

use super::{ListingPolicy, Secret};

#[derive(Clone, Debug)]
pub struct Upstream {
    pub name: String,
    /// `http(s)://host[:port]/prefix`, without a trailing slash.
    pub base_url: String,
    /// Ends the path of every request; empty: nothing does.
    pub query: String,
    /// Empty when the upstream asks for none.
    pub api_key: Secret,
    pub auth: Auth,
    /// Set on every request, by whoever wrote the configuration; none of them twice.
    pub headers: Vec<(HeaderName, Secret)>,
    pub http: Http,
    /// Parameters that may be taken out of a request when a 400 names one as unsupported.
    pub strip_unsupported: Vec<String>,
    pub health: Health,
    pub ca_file: Option<PathBuf>,
    pub connect_timeout: Duration,
    pub first_byte_timeout: Duration,
    pub idle_timeout: Duration,
    pub total_timeout: Duration,
    /// `None`: nothing of what it lists is offered by itself.
    pub models: Option<ListingPolicy>,
}

/// Which header shows `api_key`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Auth {
    /// `Authorization: Bearer …`.
    #[default]
    Bearer,
    /// `api-key: …`, as Azure wants it.
    ApiKey,
    /// `x-api-key: …`, as Anthropic wants it.
    XApiKey,
    /// No header.
    None,
}

impl Auth {
    pub fn header(self) -> Option<HeaderName> {
        match self {
            Self::Bearer => Some(http::header::AUTHORIZATION),
            Self::ApiKey => Some(HeaderName::from_static("api-key")),
            Self::XApiKey => Some(HeaderName::from_static("x-api-key")),
            Self::None => None,
        }
    }
}

/// Which HTTP an upstream is spoken to in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Http {
    /// Over TLS what it chooses, HTTP/2 before HTTP/1.1; in plain HTTP/1.1.
    #[default]
    Auto,
    One,
    /// In plain too, without asking.
    Two,
}

/// When an upstream is left alone.
#[derive(Clone, Debug)]
pub struct Health {
    /// Failures in a row that open the breaker; at least 1.
    pub failures: u32,
    pub cooldown: Duration,
    pub probe: Option<Probe>,
}

/// A question whether it lives, beside the traffic.
#[derive(Clone, Debug)]
pub struct Probe {
    /// Below the base URL.
    pub path: String,
    pub every: Duration,
    pub timeout: Duration,
}
