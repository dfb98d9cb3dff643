//! Where the server is, and how far its network is trusted.

use std::sync::Arc;
use std::time::Duration;

use postgres::config::{SslMode, TargetSessionAttrs};
use postgres::{Client, Config, NoTls};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::store::StoreError;

/// `postgresql://user:password@host/database`. Never printed.
#[derive(Clone)]
pub(super) struct Address {
    config: Config,
    tls: Option<MakeRustlsConnect>,
}

/// Whether the address can be used, in words that do not repeat it.
pub fn check(address: &str) -> Result<(), String> {
    parse(address).map(|_| ())
}

impl Address {
    pub(super) fn parse(address: &str) -> Result<Self, StoreError> {
        let (config, secure) = parse(address).map_err(StoreError)?;
        // What the system trusts, or what `SSL_CERT_FILE` names.
        let system = || trusting(rustls_native_certs::load_native_certs().certs);
        let tls = secure.then(system).transpose()?;
        Ok(Self { config, tls })
    }

    /// The same, where only these authorities are trusted.
    #[cfg(test)]
    pub(super) fn trusting(mut self, authorities: Vec<CertificateDer<'_>>) -> Self {
        self.tls = Some(trusting(authorities).unwrap());
        self
    }

    pub(super) fn connect(&self) -> Result<Client, postgres::Error> {
        match &self.tls {
            Some(tls) => self.config.connect(tls.clone()),
            None => self.config.connect(NoTls),
        }
    }
}

/// libpq's `sslmode`, less what promises nothing: `prefer` gives way to whoever says that there
/// is no TLS, and `require` would take any certificate. Here TLS always checks it.
fn parse(address: &str) -> Result<(Config, bool), String> {
    let (server, options) = address.split_once('?').unwrap_or((address, ""));
    let (modes, others): (Vec<&str>, Vec<&str>) =
        options.split('&').partition(|option| option.starts_with("sslmode="));
    let secure = match modes.last().and_then(|mode| mode.strip_prefix("sslmode=")) {
        None | Some("disable") => false,
        Some("require" | "verify-full") => true,
        Some(_) => return Err("`sslmode` is `disable` or `verify-full`".to_owned()),
    };
    let wrong = |_| "is not an address like `postgresql://user:password@host/database`".to_owned();
    let rest = format!("{server}?{}", others.join("&"));
    let mut config: Config = rest.trim_end_matches('?').parse().map_err(wrong)?;
    config
        .ssl_mode(if secure { SslMode::Require } else { SslMode::Disable })
        // After a failover the old address may lead to a server that only reads.
        .target_session_attrs(TargetSessionAttrs::ReadWrite)
        .connect_timeout(CONNECT_MAX)
        .keepalives_idle(SILENCE)
        .keepalives_interval(SILENCE / 5)
        .keepalives_retries(3)
        .tcp_user_timeout(SILENCE);
    if config.get_application_name().is_none() {
        config.application_name("nutgate");
    }
    Ok((config, secure))
}

/// TLS that takes certificates of these authorities only.
fn trusting(authorities: Vec<CertificateDer<'_>>) -> Result<MakeRustlsConnect, StoreError> {
    let failed = |error: rustls::Error| StoreError(format!("TLS: {error}"));
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(authorities);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

const CONNECT_MAX: Duration = Duration::from_secs(2);

/// How long a peer may be silent at the level of TCP before it counts as gone.
const SILENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_is_checked_or_not_spoken_and_never_left_to_the_peer() {
        let secure = |address: &str| parse(address).map(|(_, secure)| secure);
        assert_eq!(secure("postgresql://u:p@h/d"), Ok(false));
        assert_eq!(secure("postgresql:///d?host=/run/postgresql"), Ok(false));
        assert_eq!(secure("postgresql://u@h/d?sslmode=verify-full&application_name=a"), Ok(true));
        assert_eq!(secure("postgresql://u@h/d?application_name=a&sslmode=require"), Ok(true));
        for given_way in ["prefer", "allow", "verify-ca"] {
            assert!(secure(&format!("postgresql://h/d?sslmode={given_way}")).is_err());
        }
    }

    #[test]
    fn a_mistake_in_an_address_does_not_show_it() {
        for wrong in ["postgresql://u:sk-secret@h:port/d", "postgresql://u:p@h/d?sk-secret=1"] {
            let problem = parse(wrong).map(|_| ()).unwrap_err();
            assert!(!problem.contains("sk-secret"), "{problem}");
        }
    }
}
