//! Connections to the gateway in TLS, and requests on them in HTTP/2 or HTTP/1.1, with all that an
//! answer has: its trailers too, and how it ends.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::{Events, Pay, Setting, World, json, within};

/// An authority of a test, and the files with the certificate that a gateway shows.
pub(crate) struct Site {
    authority: CertifiedIssuer<'static, KeyPair>,
    directory: tempfile::TempDir,
}

impl Site {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let site = Self { authority, directory: tempfile::tempdir().unwrap() };
        site.renew();
        site
    }

    /// A setting whose gateway speaks TLS by this site's certificate.
    pub(crate) fn setting(&self) -> Setting {
        let [certificate, key] = self.files();
        Setting::config(json!({"listen": {"tls": {"certificate": certificate, "key": key}}}))
    }

    pub(crate) fn files(&self) -> [std::path::PathBuf; 2] {
        ["chain.pem", "key.pem"].map(|name| self.directory.path().join(name))
    }

    /// Puts a fresh certificate for `localhost` in the place of the one before, and answers it.
    pub(crate) fn renew(&self) -> Vec<u8> {
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        self.renew_as(params)
    }

    pub(crate) fn renew_as(&self, params: CertificateParams) -> Vec<u8> {
        let pair = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&pair, &self.authority).unwrap();
        let [chain, key] = self.files();
        replace(&chain, &certificate.pem());
        replace(&key, &pair.serialize_pem());
        certificate.der().to_vec()
    }

    /// The usual handshake of a client that trusts the authority and offers these protocols.
    pub(crate) async fn handshake(
        &self,
        world: &World,
        protocols: &[&str],
    ) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(world.gateway.address()).await.unwrap();
        self.handshake_over(stream, protocols).await
    }

    async fn handshake_over(&self, stream: TcpStream, protocols: &[&str]) -> TlsStream<TcpStream> {
        let mut trusted = RootCertStore::empty();
        trusted.add(self.authority.der().clone()).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(trusted)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        stream.set_nodelay(true).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let connected = TlsConnector::from(Arc::new(config)).connect(name, stream);
        within("a handshake", connected).await.unwrap()
    }

    pub(crate) async fn http2(&self, world: &World) -> Http2 {
        let stream = TcpStream::connect(world.gateway.address()).await.unwrap();
        let wire = stream.into_std().unwrap();
        let stream = TcpStream::from_std(wire.try_clone().unwrap()).unwrap();
        let stream = self.handshake_over(stream, &["h2", "http/1.1"]).await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        Http2 { wire: Some(wire), ..Http2::over(stream).await }
    }
}

/// As whoever renews certificates does it: nobody sees half a file.
pub(crate) fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, path).unwrap();
}

/// The certificate that the other side of a connection has shown.
pub(crate) fn shown(stream: &TlsStream<TcpStream>) -> Vec<u8> {
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

/// A request of whatever version, that is not sent yet.
pub(crate) fn asking(
    world: &World,
    method: Method,
    path: &str,
    pay: Pay<'_>,
    body: impl Into<Bytes>,
) -> Request<Full<Bytes>> {
    let mut request = Request::builder()
        .method(method)
        .uri(world.gateway.url() + path)
        .header("content-type", "application/json");
    if let Some((name, value)) = pay.header() {
        request = request.header(name, value);
    }
    request.body(Full::new(body.into())).unwrap()
}

/// One HTTP/2 connection.
pub(crate) struct Http2 {
    sender: http2::SendRequest<Full<Bytes>>,
    /// What it goes over, to be cut.
    wire: Option<std::net::TcpStream>,
    driving: JoinSet<()>,
}

impl Http2 {
    pub(crate) async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let builder = http2::Builder::new(TokioExecutor::new());
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
        let mut driving = JoinSet::new();
        driving.spawn(async move { drop(connection.await) });
        Self { sender, wire: None, driving }
    }

    pub(crate) async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> hyper::Result<Response<Incoming>> {
        let mut sender = self.sender.clone();
        sender.ready().await?;
        within("a head", sender.send_request(request)).await
    }

    /// The answer as a whole.
    pub(crate) async fn ask(&self, request: Request<Full<Bytes>>) -> Whole {
        Whole::read(self.send(request).await.unwrap()).await
    }

    /// Cuts the wire, with everything that is open on it.
    pub(crate) fn cut(&self) {
        self.wire.as_ref().unwrap().shutdown(std::net::Shutdown::Both).unwrap();
    }

    /// Returns when the other side has closed the connection.
    pub(crate) async fn closed(&mut self) {
        within("the end of a connection", self.driving.join_next()).await;
    }
}

/// The answer on a fresh HTTP/1.1 connection.
pub(crate) async fn ask_http1(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    mut request: Request<Full<Bytes>>,
) -> Whole {
    // As a client of a server, and not of a proxy, writes it.
    let path = request.uri().path_and_query().unwrap().as_str().parse().unwrap();
    *request.uri_mut() = path;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    let mut driving = JoinSet::new();
    driving.spawn(async move { drop(connection.await) });
    Whole::read(sender.send_request(request).await.unwrap()).await
}

/// An answer, however far it came.
#[derive(Clone, Debug)]
pub(crate) struct Whole {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: HeaderMap,
    /// Whether it came to its end.
    pub(crate) complete: bool,
}

impl Whole {
    pub(crate) async fn read(response: Response<Incoming>) -> Self {
        let (head, mut incoming) = response.into_parts();
        let (status, headers) = (head.status.as_u16(), head.headers);
        let (body, trailers) = (Vec::new(), HeaderMap::new());
        let mut whole = Self { status, headers, body, trailers, complete: true };
        while let Some(frame) = within("more of an answer", incoming.frame()).await {
            let Ok(frame) = frame else {
                whole.complete = false;
                break;
            };
            match frame.into_data() {
                Ok(data) => whole.body.extend_from_slice(&data),
                Err(frame) => whole.trailers = frame.into_trailers().unwrap(),
            }
        }
        whole
    }

    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!((self.status, self.complete), (status, true), "{}", self.text());
        self
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn trailer(&self, name: &str) -> Option<&str> {
        self.trailers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn events(&self) -> Events {
        Events::read(&self.text())
    }
}
