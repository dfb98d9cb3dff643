//! Where a name leads: asked when a connection is needed, and kept for a while.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Stopwatch;

/// A host and port, and the address that the name server last gave for it.
#[derive(Debug)]
pub(super) struct Address {
    host: String,
    port: u16,
    resolved: Mutex<Option<(SocketAddr, Stopwatch)>>,
}

impl Address {
    pub(super) fn new(host: String, port: u16) -> Self {
        Self { host, port, resolved: Mutex::new(None) }
    }

    /// An address to connect to. Fails within `limit`.
    pub(super) async fn resolve(&self, limit: Duration) -> Result<SocketAddr, String> {
        let known = *self.resolved.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((address, at)) = known
            && at.elapsed() < ADDRESS_LIFETIME
        {
            return Ok(address);
        }
        let lookup = tokio::net::lookup_host((self.host.as_str(), self.port));
        let address = tokio::time::timeout(limit, lookup)
            .await
            .map_err(|_| "the name server did not answer".to_owned())?
            .map_err(|error| error.to_string())?
            .next()
            .ok_or("the name has no address")?;
        let resolved = Some((address, Stopwatch::start()));
        *self.resolved.lock().unwrap_or_else(PoisonError::into_inner) = resolved;
        Ok(address)
    }

    pub(super) fn forget(&self) {
        *self.resolved.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// How long a resolved address is used before the name is asked for again.
const ADDRESS_LIFETIME: Duration = Duration::from_secs(30);
