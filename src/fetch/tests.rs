use std::io;
use std::net::IpAddr;

use async_trait::async_trait;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::guard::{Guard, Names};
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

/// Says that every name is at these addresses.
struct At(Vec<IpAddr>);

#[async_trait]
impl Names for At {
    async fn addresses(&self, _: &str) -> io::Result<Vec<IpAddr>> {
        Ok(self.0.clone())
    }
}

/// One request to a name that no name server knows, answered with these bytes.
async fn posted(answer: &'static [u8]) -> (Result<Posted, FetchFailed>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let guard = Guard::with_names(true, Arc::new(At(vec!["127.0.0.1".parse().unwrap()])));
    let at = guard.admit(&format!("http://hooks.invalid:{port}/x?y")).await.unwrap();
    let fetch = Fetch::new(None).unwrap();
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = Vec::new();
        while !asked.ends_with(b"{}") {
            assert!(stream.read_buf(&mut asked).await.unwrap() > 0);
        }
        stream.write_all(answer).await.unwrap();
        String::from_utf8(asked).unwrap()
    };
    let headers = [("x-webhook-signature", "sha256=0")];
    tokio::join!(fetch.post_at(&at, &headers, Bytes::from_static(b"{}"), PATIENCE), serve)
}

#[tokio::test]
async fn what_a_client_names_is_connected_to_where_it_was_looked_up() {
    let (answer, asked) = posted(b"HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(answer, Ok(Posted { status: 204, retry_after: None }));
    assert!(asked.starts_with("POST /x?y HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains("\r\nhost: hooks.invalid:"), "{asked}");
    assert!(asked.contains("\r\nx-webhook-signature: sha256=0\r\n"), "{asked}");
}

#[tokio::test]
async fn a_posts_status_is_all_that_counts_and_a_redirect_is_not_followed() {
    // The body never ends, and is not waited for.
    let slow = b"HTTP/1.1 503 No\r\nretry-after: 7\r\ncontent-length: 99999\r\n\r\n...";
    let retry_after = Some("7".to_owned());
    assert_eq!(posted(slow).await.0, Ok(Posted { status: 503, retry_after }));
    let away = b"HTTP/1.1 307 Go\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
    assert_eq!(posted(away).await.0, Ok(Posted { status: 307, retry_after: None }));
}

/// An answer in full, and one that is too long, from where a client said.
#[tokio::test]
async fn what_is_asked_for_where_a_client_said_has_the_same_bounds() {
    for (answer, expected) in [
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".as_slice(),
            Ok(Bytes::from_static(b"ok")),
        ),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok!", Err(FetchFailed::TooLong(2))),
        (b"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n", Err(FetchFailed::Status(404))),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let at = Guard::new(true).admit(&url).await.unwrap();
        let fetch = Fetch::new(None).unwrap();
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(stream.read_buf(&mut Vec::new()).await.unwrap() > 0);
            stream.write_all(answer).await.unwrap();
        };
        let (answered, ()) = tokio::join!(fetch.ask_at(&at, &[], PATIENCE, 2), serve);
        assert_eq!(answered, expected);
    }
}
