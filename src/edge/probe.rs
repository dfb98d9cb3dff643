//! Probes of upstreams, on connections like those of the traffic: same address, same certificates,
//! same version of HTTP, same credential. The connections themselves are their own.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use pingora::{Error, ErrorType};

use super::peers::Peers;
use crate::upstream::probe::{self, Knock};
use crate::upstream::{Failure, Upstream, Upstreams};

/// Probes whatever is configured to be probed, until the gateway stops.
pub(super) struct Probes {
    upstreams: Upstreams,
    door: Door,
}

impl Probes {
    pub(super) fn new(upstreams: Upstreams, peers: Arc<Peers>) -> Self {
        Self { upstreams, door: Door { peers, connector: Connector::new(None) } }
    }
}

#[async_trait]
impl BackgroundService for Probes {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        tokio::select! {
            () = probe::run(&self.upstreams, &self.door) => {}
            // Either way the gateway stops.
            _ = shutdown.changed() => {}
        }
    }
}

struct Door {
    peers: Arc<Peers>,
    connector: Connector,
}

impl Knock for Door {
    async fn knock(
        &self,
        upstream: &Arc<Upstream>,
        path: &str,
        timeout: Duration,
    ) -> Result<u16, Failure> {
        // Boxed: connecting takes 18 KB of state.
        match tokio::time::timeout(timeout, Box::pin(self.ask(upstream, path))).await {
            Ok(found) => found,
            Err(_) => Err(Failure::TimedOut),
        }
    }
}

impl Door {
    async fn ask(&self, upstream: &Upstream, path: &str) -> Result<u16, Failure> {
        let peer = self.peers.of(upstream).await.map_err(|_| Failure::Unreachable)?;
        let connected = self.connector.get_http_session(&*peer).await;
        let (mut http, _) = connected.map_err(|error| {
            upstream.forget_address();
            log::debug!("upstream {}: probe: {error}", upstream.name);
            Failure::Unreachable
        })?;
        let exchange = async {
            let mut head = RequestHeader::build("GET", path.as_bytes(), None)?;
            for (name, value) in upstream.head_lines() {
                head.insert_header(name, value)?;
            }
            http.write_request_header(Box::new(head)).await?;
            http.finish_request_body().await?;
            loop {
                http.read_response_header().await?;
                match http.response_header().map(|head| head.status) {
                    Some(status) if status.is_informational() => {}
                    Some(status) => return Ok(status.as_u16()),
                    None => return Error::e_explain(ErrorType::InvalidHTTPHeader, "no head"),
                }
            }
        };
        let found = exchange.await;
        // Its body is of no interest and may be long.
        http.shutdown().await;
        found.map_err(|error: Box<Error>| {
            log::debug!("upstream {}: probe: {error}", upstream.name);
            Failure::Broken
        })
    }
}
