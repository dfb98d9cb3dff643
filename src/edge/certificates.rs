//! The public listener's certificate, replaced without a restart.
//!
//! Its files are looked at every so often, and at SIGHUP, beside the traffic. A new pair that can
//! be served counts for the handshakes that follow; connections that are open stay as they are.
//! One that cannot, or only half of one, is told in the log once, and the old pair goes on.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use pingora::listeners::tls::TlsSettings;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use rustls::crypto::ring::default_provider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use tokio::signal::unix::{SignalKind, signal};

use crate::clock::UnixMs;
use crate::config::Tls;

/// The certificate that handshakes are answered with, and the files that it is in.
#[derive(Clone, Debug)]
pub(super) struct Certificates(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    files: Tls,
    served: ArcSwap<Served>,
    /// What the files held when they were last looked at, whether that is served or not.
    seen: Mutex<[u8; 32]>,
}

#[derive(Debug)]
struct Served {
    pair: Arc<CertifiedKey>,
    /// When it ends, in seconds of the epoch.
    expires_s: i64,
}

impl Certificates {
    /// # Errors
    /// The files hold no pair that can be served.
    pub(super) fn open(files: &Tls) -> Result<Self, String> {
        let problem = |why| format!("listen.tls: {why}");
        let content = read(files).map_err(problem)?;
        let served = parse(&content).map_err(problem)?;
        if served.has_ended() {
            log::error!("listen.tls: the certificate has expired; clients will refuse it");
        }
        Ok(Self(Arc::new(Inner {
            files: files.clone(),
            served: ArcSwap::from_pointee(served),
            seen: Mutex::new(content.digest()),
        })))
    }

    /// TLS by this certificate, with HTTP/2 for clients that offer it.
    ///
    /// # Errors
    /// Pingora refuses.
    pub(super) fn settings(&self) -> Result<TlsSettings, String> {
        // Instead of paths: where a resolver is set, nobody reads them.
        let mut settings = TlsSettings::intermediate("", "").map_err(|error| error.to_string())?;
        settings.set_cert_resolver(self.0.clone());
        settings.enable_h2();
        Ok(settings)
    }

    /// When the served certificate ends, in seconds of the epoch.
    pub(super) fn expires_s(&self) -> i64 {
        self.0.served.load().expires_s
    }

    /// Looks at the files, and serves from now on what is new in them.
    fn look(&self) {
        let content = read(&self.0.files);
        let digest =
            content.as_ref().map_or_else(|why| Sha256::digest(why).into(), Content::digest);
        let mut seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut *seen, digest) == digest {
            return;
        }
        match content.and_then(|content| parse(&content)) {
            Ok(served) if served.has_ended() => {
                log::error!("listen.tls: the new certificate has expired; the old one stays");
            }
            Ok(served) => {
                log::info!("listen.tls: a new certificate, until {} s", served.expires_s);
                self.0.served.store(Arc::new(served));
            }
            Err(why) => log::error!("listen.tls: {why}; the old certificate stays"),
        }
    }
}

impl Served {
    fn has_ended(&self) -> bool {
        self.expires_s <= i64::try_from(UnixMs::now().0 / 1000).unwrap_or(i64::MAX)
    }
}

impl ResolvesServerCert for Inner {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.served.load().pair.clone())
    }
}

#[async_trait]
impl BackgroundService for Certificates {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let mut hangup = match signal(SignalKind::hangup()) {
            Ok(hangup) => hangup,
            Err(error) => {
                log::error!("certificates are not looked at again: {error}");
                return;
            }
        };
        loop {
            tokio::select! {
                _ = shutdown.changed() => return,
                _ = hangup.recv() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            self.look();
        }
    }
}

/// Both files as they are.
struct Content {
    chain: Vec<u8>,
    key: Vec<u8>,
}

impl Content {
    fn digest(&self) -> [u8; 32] {
        let length = u64::try_from(self.chain.len()).unwrap_or(u64::MAX);
        let digest = Sha256::new_with_prefix(length.to_be_bytes());
        digest.chain_update(&self.chain).chain_update(&self.key).finalize().into()
    }
}

fn read(files: &Tls) -> Result<Content, String> {
    let read =
        |path: &Path| std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
    Ok(Content { chain: read(&files.certificate)?, key: read(&files.key)? })
}

fn parse(content: &Content) -> Result<Served, String> {
    let chain = CertificateDer::pem_slice_iter(&content.chain).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| format!("the certificate cannot be read: {error}"))?;
    let Some(leaf) = chain.first() else { return Err("there is no certificate".to_owned()) };
    let expires_s = {
        let (_, leaf) = x509_parser::parse_x509_certificate(leaf)
            .map_err(|error| format!("the certificate cannot be read: {error}"))?;
        leaf.validity().not_after.timestamp()
    };
    let key = PrivateKeyDer::from_pem_slice(&content.key)
        .map_err(|_| "the key cannot be read".to_owned())?;
    let pair = CertifiedKey::from_der(chain, key, &default_provider())
        .map_err(|error| format!("certificate and key are no pair: {error}"))?;
    Ok(Served { pair: Arc::new(pair), expires_s })
}

/// Who renews certificates replaces them days before the old ones end.
const LOOK_EVERY: Duration = Duration::from_secs(2);
