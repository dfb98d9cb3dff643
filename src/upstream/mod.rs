//! Upstreams: who serves a model, where, with which credential and under which timeouts.
//!
//! Names are resolved when a connection is needed, never on the way of another request, and an
//! answer is kept for [`ADDRESS_LIFETIME`].

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Stopwatch;
use crate::config;

/// One upstream, parsed once at start.
#[derive(Debug)]
pub struct Upstream {
    pub name: String,
    pub tls: bool,
    pub host: String,
    pub port: u16,
    /// What the `Host` header says: the port only when it is not the scheme's own.
    pub authority: String,
    /// The base URL's path, without a trailing slash.
    pub prefix: String,
    pub api_key: config::Secret,
    pub ca_file: Option<std::path::PathBuf>,
    pub connect_timeout: Duration,
    pub first_byte_timeout: Duration,
    pub idle_timeout: Duration,
    pub total_timeout: Duration,
    resolved: Mutex<Option<(SocketAddr, Stopwatch)>>,
}

impl Upstream {
    /// Reads a checked configuration; `Err` names what is wrong with the base URL.
    pub fn new(config: &config::Upstream) -> Result<Self, String> {
        let url: http::Uri = config.base_url.parse().map_err(|_| "is not a URL".to_owned())?;
        let tls = match url.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err("is neither http nor https".to_owned()),
        };
        let host = url.host().filter(|host| !host.is_empty()).ok_or("has no host")?;
        let default_port = if tls { 443 } else { 80 };
        let port = url.port_u16().unwrap_or(default_port);
        let authority =
            if port == default_port { host.to_owned() } else { format!("{host}:{port}") };
        Ok(Self {
            name: config.name.clone(),
            tls,
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port,
            authority,
            prefix: url.path().trim_end_matches('/').to_owned(),
            api_key: config.api_key.clone(),
            ca_file: config.ca_file.clone(),
            connect_timeout: config.connect_timeout,
            first_byte_timeout: config.first_byte_timeout,
            idle_timeout: config.idle_timeout,
            total_timeout: config.total_timeout,
            resolved: Mutex::new(None),
        })
    }

    /// An address to connect to. Fails within the connect timeout.
    pub async fn address(&self) -> Result<SocketAddr, String> {
        let known = *self.resolved.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((address, at)) = known
            && at.elapsed() < ADDRESS_LIFETIME
        {
            return Ok(address);
        }
        let lookup = tokio::net::lookup_host((self.host.as_str(), self.port));
        let address = tokio::time::timeout(self.connect_timeout, lookup)
            .await
            .map_err(|_| "the name server did not answer".to_owned())?
            .map_err(|error| error.to_string())?
            .next()
            .ok_or("the name has no address")?;
        let resolved = Some((address, Stopwatch::start()));
        *self.resolved.lock().unwrap_or_else(PoisonError::into_inner) = resolved;
        Ok(address)
    }

    /// After a failed connection the name is asked for again.
    pub fn forget_address(&self) {
        *self.resolved.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// All upstreams by name.
#[derive(Clone, Debug, Default)]
pub struct Upstreams(std::collections::HashMap<String, Arc<Upstream>>);

impl Upstreams {
    pub fn new(configs: &[config::Upstream]) -> Result<Self, String> {
        let mut all = std::collections::HashMap::new();
        for config in configs {
            let upstream = Upstream::new(config)
                .map_err(|problem| format!("upstream {}: base_url {problem}", config.name))?;
            all.insert(config.name.clone(), Arc::new(upstream));
        }
        Ok(Self(all))
    }

    /// The upstreams that serve a model, in the order in which they are tried.
    pub fn candidates(&self, model: &config::Model) -> Vec<Arc<Upstream>> {
        model.upstreams.iter().filter_map(|by| self.0.get(&by.upstream).cloned()).collect()
    }

    pub fn all(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.0.values()
    }
}

/// How long a resolved address is used before the name is asked for again.
const ADDRESS_LIFETIME: Duration = Duration::from_secs(30);
