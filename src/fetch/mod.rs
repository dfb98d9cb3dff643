//! What the gateway fetches beside the traffic: prices, lists of models, signs of life.
//!
//! The only folder that names the HTTP client of such fetches. Everything about one is bounded: the
//! time from the name server to the last byte, and the bytes. It goes to the host that it names
//! and to no other: redirects are not followed, because the credential would travel with them, and
//! no proxy is taken from the environment. What went wrong is said without the address, whose
//! query may be a secret.
//!
//! An address that the operator wrote is fetched as it stands. One that came from a client passes
//! [`guard`] first, and is connected to where the guard looked.

pub mod guard;

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, RequestBuilder, Response};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use self::guard::Destination;

/// A client that trusts certain authorities; a clone is the same one, with the same connections.
#[derive(Clone, Debug)]
pub struct Fetch {
    client: Client,
    tls: ClientConfig,
}

/// What came of a POST: its body is of no interest, and is not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posted {
    pub status: u16,
    pub retry_after: Option<String>,
}

/// Why there is no answer. Safe to log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchFailed {
    #[error("the address or a header is none")]
    Malformed,
    #[error("no answer within {} ms", .0.as_millis())]
    Late(Duration),
    /// It could not be reached, or broke off; the words are those of the network or of TLS.
    #[error("{0}")]
    Broken(String),
    #[error("answered {0}")]
    Status(u16),
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
}

impl Fetch {
    /// Trusts the system's authorities, and those in `ca_file` besides.
    ///
    /// # Errors
    /// The file cannot be read or holds no certificate.
    pub fn new(ca_file: Option<&Path>) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(path) = ca_file {
            let problem = |what: &dyn fmt::Display| format!("ca_file {}: {what}", path.display());
            let found: Result<Vec<CertificateDer<'_>>, _> =
                CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
            if roots.add_parsable_certificates(found.map_err(|error| problem(&error))?).0 == 0 {
                return Err(problem(&"holds no certificate"));
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS: {error}"))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = bounded(&tls).pool_max_idle_per_host(1).build();
        Ok(Self { client: client.map_err(|error| said(&error))?, tls })
    }

    /// The body of a 200 that is whole within `timeout` and not longer than `bytes_max`.
    ///
    /// # Errors
    /// Anything else.
    pub async fn get(
        &self,
        url: &str,
        headers: &[(&str, &str)],
        timeout: Duration,
        bytes_max: usize,
    ) -> Result<Bytes, FetchFailed> {
        let asked = self.client.get(url).headers(header_map(headers)?).timeout(timeout);
        read(send(asked, timeout).await?, timeout, bytes_max).await
    }

    /// As [`Fetch::get`], from where a client said, by a connection of its own.
    ///
    /// # Errors
    /// As there.
    pub async fn ask_at(
        &self,
        at: &Destination,
        headers: &[(&str, &str)],
        timeout: Duration,
        bytes_max: usize,
    ) -> Result<Bytes, FetchFailed> {
        let asked = self.pinned(at)?.get(at.url()).headers(header_map(headers)?).timeout(timeout);
        read(send(asked, timeout).await?, timeout, bytes_max).await
    }

    /// Posts to where a client said, by a connection of its own; whatever the status is.
    ///
    /// # Errors
    /// There is none within `timeout`.
    pub async fn post_at(
        &self,
        at: &Destination,
        headers: &[(&str, &str)],
        body: Bytes,
        timeout: Duration,
    ) -> Result<Posted, FetchFailed> {
        let asked = self.pinned(at)?.post(at.url()).headers(header_map(headers)?).body(body);
        let response = send(asked.timeout(timeout), timeout).await?;
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|it| it.to_str().ok());
        let retry_after = retry_after.map(str::to_owned);
        Ok(Posted { status: response.status().as_u16(), retry_after })
    }

    /// A client that connects to the judged addresses whatever it is asked for, and keeps nothing.
    fn pinned(&self, at: &Destination) -> Result<Client, FetchFailed> {
        let addresses = at.addresses.iter().map(|ip| SocketAddr::new(*ip, 0)).collect();
        let client = bounded(&self.tls).dns_resolver(Arc::new(Pinned(addresses)));
        let client = client.pool_max_idle_per_host(0).build();
        client.map_err(|error| FetchFailed::Broken(said(&error)))
    }
}

/// Knows no names but what one meant when it was judged. Should the client ever ask for another,
/// it still gets nowhere else. Port 0 is the one that the address names.
struct Pinned(Vec<SocketAddr>);

impl Resolve for Pinned {
    fn resolve(&self, _: Name) -> Resolving {
        let addresses: Addrs = Box::new(self.0.clone().into_iter());
        Box::pin(std::future::ready(Ok(addresses)))
    }
}

fn bounded(tls: &ClientConfig) -> ClientBuilder {
    Client::builder()
        .use_preconfigured_tls(tls.clone())
        .redirect(Policy::none())
        .no_proxy()
        .user_agent(concat!("nutgate/", env!("CARGO_PKG_VERSION")))
}

async fn send(asked: RequestBuilder, timeout: Duration) -> Result<Response, FetchFailed> {
    asked.send().await.map_err(|error| failed(&error, timeout))
}

async fn read(
    mut response: Response,
    timeout: Duration,
    bytes_max: usize,
) -> Result<Bytes, FetchFailed> {
    if response.status() != reqwest::StatusCode::OK {
        return Err(FetchFailed::Status(response.status().as_u16()));
    }
    let too_long = |length: u64| usize::try_from(length).is_ok_and(|it| it > bytes_max);
    if response.content_length().is_some_and(too_long) {
        return Err(FetchFailed::TooLong(bytes_max));
    }
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| failed(&error, timeout))? {
        if body.len().saturating_add(chunk.len()) > bytes_max {
            return Err(FetchFailed::TooLong(bytes_max));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

fn failed(error: &reqwest::Error, timeout: Duration) -> FetchFailed {
    match () {
        () if error.is_timeout() => FetchFailed::Late(timeout),
        () if error.is_builder() => FetchFailed::Malformed,
        () => FetchFailed::Broken(said(error)),
    }
}

/// Values are marked as secret, whatever they are: some of them are.
fn header_map(headers: &[(&str, &str)]) -> Result<HeaderMap, FetchFailed> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name: HeaderName = name.parse().map_err(|_| FetchFailed::Malformed)?;
        let mut value = HeaderValue::from_str(value).map_err(|_| FetchFailed::Malformed)?;
        value.set_sensitive(true);
        map.append(name, value);
    }
    Ok(map)
}

/// The innermost cause: what the network said. The outer ones repeat the address.
fn said(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    match cause.downcast_ref::<reqwest::Error>() {
        Some(_) => "the exchange failed".to_owned(),
        None => cause.to_string(),
    }
}

#[cfg(test)]
mod tests;
