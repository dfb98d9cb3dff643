//! Upstreams as Pingora's connector takes them: address, TLS, version of HTTP, timeouts, pool.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pingora::protocols::ALPN;
use pingora::protocols::tls::CaType;
use pingora::upstreams::peer::{HttpPeer, PeerOptions};
use pingora::utils::tls::{WrappedX509, parse_x509};
use pingora::{Error, ErrorType};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::config::Http;
use crate::upstream::{Upstream, Upstreams};

/// The connection options of every upstream, made once at start.
pub(super) struct Peers(HashMap<String, PeerOptions>);

impl Peers {
    /// # Errors
    /// A CA file that cannot be read, or holds no certificate.
    pub(super) fn new(upstreams: &Upstreams) -> Result<Self, String> {
        let mut peers = HashMap::new();
        for upstream in upstreams.all() {
            peers.insert(upstream.name.clone(), options(upstream)?);
        }
        Ok(Self(peers))
    }

    pub(super) async fn of(&self, upstream: &Upstream) -> pingora::Result<Box<HttpPeer>> {
        let address = upstream.address().await.map_err(|problem| {
            log::warn!("upstream {}: {problem}", upstream.name);
            Error::explain(ErrorType::ConnectNoRoute, "no address")
        })?;
        let mut peer = HttpPeer::new(address, upstream.tls, upstream.host.clone());
        // Two upstreams at one address may trust other authorities, and share no connection.
        peer.group_key = upstream.number;
        if let Some(options) = self.0.get(&upstream.name) {
            peer.options = options.clone();
        }
        Ok(Box::new(peer))
    }
}

fn options(upstream: &Upstream) -> Result<PeerOptions, String> {
    let mut options = PeerOptions::new();
    options.connection_timeout = Some(upstream.connect_timeout);
    options.total_connection_timeout = Some(upstream.connect_timeout);
    options.write_timeout = Some(upstream.idle_timeout);
    options.idle_timeout = Some(POOLED_IDLE_MAX);
    options.alpn = match upstream.http {
        Http::Auto if upstream.tls => ALPN::H2H1,
        Http::Auto | Http::One => ALPN::H1,
        Http::Two => ALPN::H2,
    };
    options.max_h2_streams = H2_STREAMS_MAX;
    options.h2_stream_window_size = Some(H2_STREAM_WINDOW);
    options.h2_connection_window_size = Some(H2_CONNECTION_WINDOW);
    options.h2_ping_interval = Some(H2_PING_EVERY);
    if let Some(path) = &upstream.ca_file {
        options.ca = Some(certificates(path)?);
    }
    Ok(options)
}

fn certificates(path: &Path) -> Result<Arc<CaType>, String> {
    let problem = |what: String| format!("ca_file {}: {what}", path.display());
    let found: Result<Vec<CertificateDer<'_>>, _> =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let found = found.map_err(|error| problem(error.to_string()))?;
    if found.is_empty() {
        return Err(problem("holds no certificate".to_owned()));
    }
    let wrap = |der: CertificateDer<'_>| WrappedX509::new(der.to_vec(), parse_x509);
    Ok(found.into_iter().map(wrap).collect::<Vec<_>>().into())
}

/// How long the connector keeps an unused connection.
const POOLED_IDLE_MAX: Duration = Duration::from_secs(60);

/// Requests that share a connection; those beyond get another. What one lost connection breaks off
/// is no more than this.
const H2_STREAMS_MAX: usize = 64;

/// What an upstream may send ahead of a client that reads slowly, and is held here: 1 MiB.
const H2_STREAM_WINDOW: u32 = 1 << 20;

/// All of a connection's streams full at once, so that slow clients never hold up another's answer.
const H2_CONNECTION_WINDOW: u32 = 64 * H2_STREAM_WINDOW;

/// A connection that does not answer a ping is closed: every stream on it would wait in vain.
const H2_PING_EVERY: Duration = Duration::from_secs(20);
