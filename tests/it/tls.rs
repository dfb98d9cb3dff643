//! TLS towards an upstream: trusted by the configured authority, and by no other.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use nutgate_sandbox::{Upstream, UpstreamOptions, upstream::DEFAULT_API_KEY};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::support::{Purse, Setting, Way, World, chat, json, model};

pub(crate) type Authority = CertifiedIssuer<'static, KeyPair>;

/// TLS in front of an upstream: a certificate for `localhost`, signed by one authority.
struct Tls {
    address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Drop for Tls {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Tls {
    async fn before(upstream: &Upstream, authority: &Authority) -> Self {
        let acceptor = acceptor(authority, &[]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let origin = upstream.url().trim_start_matches("http://").to_owned();
        #[expect(clippy::disallowed_methods, reason = "it is aborted with the value")]
        let serving = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, origin) = (acceptor.clone(), origin.clone());
                connections.spawn(async move {
                    // A client that does not trust us breaks the handshake off.
                    let Ok(mut near) = acceptor.accept(stream).await else { return };
                    let mut far = TcpStream::connect(origin).await.unwrap();
                    drop(tokio::io::copy_bidirectional(&mut near, &mut far).await);
                });
            }
        });
        Self { address, serving }
    }
}

/// Shows a certificate for `localhost` that is signed by an authority, and speaks these protocols.
pub(crate) fn acceptor(authority: &Authority, protocols: &[&str]) -> TlsAcceptor {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

pub(crate) fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A world with one more model, served over TLS by an authority; the gateway trusts `trusted`.
async fn world(signed_by: &Authority, trusted: &Authority) -> (World, Upstream, Tls) {
    let dir = tempfile::tempdir().unwrap();
    let ca_file: PathBuf = dir.path().join("ca.pem");
    std::fs::write(&ca_file, trusted.pem()).unwrap();
    let upstream = Upstream::start(UpstreamOptions::default()).await.unwrap();
    let tls = Tls::before(&upstream, signed_by).await;
    let over_tls = json!({
        "name": "tls",
        "base_url": format!("https://localhost:{}/v1", tls.address.port()),
        "api_key": DEFAULT_API_KEY,
        "ca_file": ca_file,
    });
    let setting = Setting {
        more_upstreams: vec![over_tls],
        more_models: vec![model("demo-over-tls", &["tls"])],
        ..Setting::default()
    };
    // The authority is read at start, so its file may go with this function.
    (World::with(setting).await, upstream, tls)
}

#[tokio::test]
async fn an_upstream_of_the_configured_authority_is_served_from() {
    let authority = authority();
    let (world, upstream, _tls) = world(&authority, &authority).await;
    for way in Way::BOTH {
        let purse: Purse = world.purse(way).await;
        let answer = world.chat(purse.pay(), &chat("demo-over-tls")).await.expect(200);
        assert!(answer.json()["usage"]["cost"]["total_msats"].as_u64().unwrap() > 0, "{way:?}");
    }
    assert_eq!(upstream.count(), 2);
}

#[tokio::test]
async fn an_upstream_of_another_authority_is_unreachable_and_costs_nothing() {
    let (world, upstream, _tls) = world(&authority(), &authority()).await;
    let key = world.key(100).await;
    let answer = world.chat(&key, &chat("demo-over-tls")).await;
    answer.expect_error(502, "upstream_error", "upstream_unreachable");
    assert_eq!(world.info(&key).await.available, 100_000);
    assert_eq!(upstream.count(), 0, "it never saw the request, nor the credential in it");
}
