//! What the gateway fetches beside the traffic: prices, lists of models, signs of life.
//!
//! The only file that names the HTTP client of such fetches. Everything about one is bounded: the
//! time from the name server to the last byte, and the bytes. It goes to the host that it names
//! and to no other: redirects are not followed, because the credential would travel with them, and
//! no proxy is taken from the environment. What went wrong is said without the address, whose
//! query may be a secret.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// A client that trusts certain authorities; a clone is the same one, with the same connections.
#[derive(Clone, Debug)]
pub struct Fetch(reqwest::Client);

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
        let client = reqwest::Client::builder()
            .use_preconfigured_tls(tls)
            .redirect(Policy::none())
            .no_proxy()
            .user_agent(concat!("nutgate/", env!("CARGO_PKG_VERSION")))
            .pool_max_idle_per_host(1)
            .build();
        client.map(Self).map_err(|error| said(&error))
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
        let asked = self.0.get(url).headers(header_map(headers)?).timeout(timeout);
        let failed = |error: reqwest::Error| match () {
            () if error.is_timeout() => FetchFailed::Late(timeout),
            () if error.is_builder() => FetchFailed::Malformed,
            () => FetchFailed::Broken(said(&error)),
        };
        let mut response = asked.send().await.map_err(failed)?;
        if response.status() != reqwest::StatusCode::OK {
            return Err(FetchFailed::Status(response.status().as_u16()));
        }
        let too_long = |length: u64| usize::try_from(length).is_ok_and(|it| it > bytes_max);
        if response.content_length().is_some_and(too_long) {
            return Err(FetchFailed::TooLong(bytes_max));
        }
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len().saturating_add(chunk.len()) > bytes_max {
                return Err(FetchFailed::TooLong(bytes_max));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
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
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use rustls::ServerConfig;
    use rustls_pki_types::PrivateKeyDer;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);
    const SECRET: &str = "sk-not-for-the-log";

    /// Asks a server that answers one request with these bytes, and gives back what was asked too.
    async fn asked(answer: &'static [u8]) -> (Result<Bytes, FetchFailed>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/x?key={SECRET}", listener.local_addr().unwrap());
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                assert!(stream.read_buf(&mut head).await.unwrap() > 0);
            }
            stream.write_all(answer).await.unwrap();
            stream.shutdown().await.unwrap();
            String::from_utf8(head).unwrap()
        };
        let fetch = Fetch::new(None).unwrap();
        let headers = [("authorization", SECRET)];
        tokio::join!(fetch.get(&url, &headers, PATIENCE, 8), serve)
    }

    #[tokio::test]
    async fn a_whole_answer_within_its_bounds_is_the_only_success() {
        let (answer, head) = asked(b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n12345678").await;
        assert_eq!(answer.as_deref(), Ok(b"12345678".as_slice()));
        assert!(head.contains("user-agent: nutgate/") && head.contains(SECRET), "{head}");
        let chunked =
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\n123456789\r\n0\r\n\r\n";
        for (answer, failure) in [
            (
                b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n123456789".as_slice(),
                FetchFailed::TooLong(8),
            ),
            (chunked, FetchFailed::TooLong(8)),
            (
                b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
                FetchFailed::Status(302),
            ),
            (b"HTTP/1.1 401 No\r\ncontent-length: 2\r\n\r\nno", FetchFailed::Status(401)),
        ] {
            assert_eq!(asked(answer).await.0, Err(failure));
        }
        let (broken, _) = asked(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n123").await;
        let Err(FetchFailed::Broken(why)) = broken else { panic!("{broken:?}") };
        assert!(!why.is_empty() && !why.contains("key="), "{why}");
    }

    #[tokio::test]
    async fn what_cannot_be_reached_or_does_not_answer_is_said_without_the_address() {
        let fetch = Fetch::new(None).unwrap();
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/x?key={SECRET}", silent.local_addr().unwrap());
        let little = Duration::from_millis(20);
        assert_eq!(fetch.get(&url, &[], little, 8).await, Err(FetchFailed::Late(little)));
        drop(silent);
        let failed = fetch.get(&url, &[], PATIENCE, 8).await.unwrap_err().to_string();
        assert!(failed.to_lowercase().contains("refused") && !failed.contains(SECRET), "{failed}");
        let malformed = fetch.get("http://", &[], PATIENCE, 8).await;
        assert_eq!(malformed, Err(FetchFailed::Malformed));
        let malformed = fetch.get(&url, &[("x", "\n")], PATIENCE, 8).await;
        assert_eq!(malformed, Err(FetchFailed::Malformed));
    }

    #[tokio::test]
    async fn tls_is_trusted_by_a_known_authority_and_by_no_other() {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}/", listener.local_addr().unwrap().port());
        let serve = async {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                // A client that does not trust us breaks the handshake off.
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    assert!(stream.read_buf(&mut head).await.unwrap() > 0);
                }
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
                stream.shutdown().await.unwrap();
            }
        };
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.pem");
        std::fs::write(&path, authority.pem()).unwrap();
        let ask = async {
            let trusting = Fetch::new(Some(&path)).unwrap();
            assert_eq!(trusting.get(&url, &[], PATIENCE, 8).await.as_deref(), Ok(b"ok".as_slice()));
            let stranger = Fetch::new(None).unwrap().get(&url, &[], PATIENCE, 8).await;
            let Err(FetchFailed::Broken(why)) = stranger else { panic!("{stranger:?}") };
            assert!(why.to_lowercase().contains("certificate"), "{why}");
        };
        tokio::select! {
            () = serve => {}
            () = ask => {}
        }
    }

    #[test]
    fn an_authority_that_cannot_be_read_is_said_at_start() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.pem");
        assert!(Fetch::new(Some(&path)).is_err());
        std::fs::write(&path, "nothing").unwrap();
        assert!(Fetch::new(Some(&path)).unwrap_err().ends_with("holds no certificate"));
    }
}
