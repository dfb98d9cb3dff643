//! HTTP/2 towards an upstream, over TLS and in plain: one connection for many requests, and the
//! same charge as ever.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::TryStreamExt;
use http::{Request, Response, Version, request};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use nutgate_sandbox::upstream::DEFAULT_API_KEY;
use nutgate_sandbox::{Upstream, UpstreamOptions};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::support::{
    PRICE, Setting, Value, Way, World, chat, json, model, prompt_tokens, streamed, with, within,
};
use crate::tls::{acceptor, authority};

/// HTTP/2, and nothing else, in front of an upstream.
struct Http2 {
    address: SocketAddr,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

struct Shared {
    /// Whether a connection that has been asked once takes no more requests.
    says_goodbye: bool,
    /// Whether every request is reset once it was read.
    resets: AtomicBool,
    /// The upstream behind it, and who asks there.
    origin: Upstream,
    client: reqwest::Client,
    connections: AtomicU64,
    heads: Mutex<Vec<request::Parts>>,
}

impl Drop for Http2 {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Http2 {
    async fn start(tls: Option<TlsAcceptor>) -> Self {
        Self::with(tls, false).await
    }

    async fn with(tls: Option<TlsAcceptor>, says_goodbye: bool) -> Self {
        let options = UpstreamOptions::default();
        let shared = Arc::new(Shared {
            says_goodbye,
            resets: AtomicBool::new(false),
            origin: Upstream::start(UpstreamOptions { gated: true, ..options }).await.unwrap(),
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            connections: AtomicU64::new(0),
            heads: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = shared.clone();
        #[expect(clippy::disallowed_methods, reason = "it is aborted with the value")]
        let serving = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                served.connections.fetch_add(1, Ordering::SeqCst);
                let (tls, served) = (tls.clone(), served.clone());
                connections.spawn(async move {
                    let Some(tls) = tls else { return converse(stream, served).await };
                    // A client without HTTP/2 breaks the handshake off.
                    if let Ok(stream) = tls.accept(stream).await {
                        converse(stream, served).await;
                    }
                });
            }
        });
        Self { address, shared, serving }
    }

    fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    fn heads(&self) -> Vec<request::Parts> {
        self.shared.heads.lock().unwrap().clone()
    }
}

async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, to: Arc<Shared>) {
    let (asked, goodbye) = (Arc::new(Notify::new()), to.says_goodbye);
    let asking = asked.clone();
    let answer = service_fn(move |request| {
        asking.notify_one();
        pass_on(request, to.clone())
    });
    let connection = http2::Builder::new(TokioExecutor::new());
    let mut connection = pin!(connection.serve_connection(TokioIo::new(stream), answer));
    if goodbye {
        tokio::select! {
            _ = connection.as_mut() => return,
            () = asked.notified() => connection.as_mut().graceful_shutdown(),
        }
    }
    // How it ends is the gateway's affair.
    drop(connection.await);
}

/// The answer of the upstream behind, piece by piece as it comes.
async fn pass_on(
    request: Request<Incoming>,
    to: Arc<Shared>,
) -> Result<Response<impl Body<Data = Bytes, Error = reqwest::Error>>, reqwest::Error> {
    assert_eq!(request.version(), Version::HTTP_2);
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    to.heads.lock().unwrap().push(head);
    let body = body.collect().await.unwrap().to_bytes();
    if to.resets.load(Ordering::SeqCst) {
        // Nobody can be asked there, and a service that fails is a stream that is reset.
        to.client.post("nowhere").send().await?;
    }
    let asked = to.client.post(to.origin.url() + &path).bearer_auth(DEFAULT_API_KEY).body(body);
    let answer = asked.send().await?;
    let mut response = Response::builder().status(answer.status());
    if let Some(kind) = answer.headers().get("content-type") {
        response = response.header("content-type", kind);
    }
    let body = StreamBody::new(answer.bytes_stream().map_ok(Frame::data));
    Ok(response.body(body).unwrap())
}

/// A world with two more models at an upstream that is configured like this: `demo-2`, and
/// `demo-2-slow`, which waits at the gate of the upstream behind it.
async fn world(upstream: Value) -> World {
    let setting = Setting {
        more_upstreams: vec![with(json!({"name": "two"}), upstream)],
        more_models: vec![model("demo-2", &["two"]), model("demo-2-slow", &["two"])],
        ..Setting::default()
    };
    World::with(setting).await
}

/// Documents and streams, each paid in either way, at the price of every other.
async fn sells(world: &World, http2: &Http2) {
    for body in [chat("demo-2"), streamed("demo-2")] {
        for way in Way::BOTH {
            let (answer, cost) = world.buy(way, &body).await;
            let answer = answer.expect(200);
            assert_eq!(cost, PRICE.cost(prompt_tokens(&body), 20), "{way:?} {body}");
            if body["stream"] == true {
                assert!(answer.events().is_done(), "{way:?}");
            }
        }
    }
    assert_eq!(http2.heads().len(), 4);
    assert_eq!(http2.connections(), 1, "it is used again");
}

#[tokio::test]
async fn over_tls_it_is_spoken_wherever_the_upstream_offers_it() {
    let authority = authority();
    let http2 = Http2::start(Some(acceptor(&authority, &["h2"]))).await;
    let dir = tempfile::tempdir().unwrap();
    let ca_file = dir.path().join("ca.pem");
    std::fs::write(&ca_file, authority.pem()).unwrap();
    let base_url = format!("https://localhost:{}/v1", http2.address.port());
    let world = world(json!({"base_url": base_url, "ca_file": ca_file})).await;
    sells(&world, &http2).await;
}

#[tokio::test]
async fn in_plain_it_is_spoken_where_configuration_says_so() {
    let http2 = Http2::start(None).await;
    let base_url = format!("http://{}/v1", http2.address);
    let world = world(json!({"base_url": base_url, "http": 2})).await;
    sells(&world, &http2).await;
}

#[tokio::test]
async fn an_upstream_that_is_to_be_asked_in_http_1_is_never_asked_in_another() {
    let authority = authority();
    let http2 = Http2::start(Some(acceptor(&authority, &["h2"]))).await;
    let dir = tempfile::tempdir().unwrap();
    let ca_file = dir.path().join("ca.pem");
    std::fs::write(&ca_file, authority.pem()).unwrap();
    let base_url = format!("https://localhost:{}/v1", http2.address.port());
    let world = world(json!({"base_url": base_url, "ca_file": ca_file, "http": 1})).await;
    let key = world.key(100).await;
    let answer = world.chat(&key, &chat("demo-2")).await;
    answer.expect_error(502, "upstream_error", "upstream_unreachable");
    assert_eq!(http2.heads().len(), 0);
    assert_eq!(world.info(&key).await.available, 100_000);
}

#[tokio::test]
async fn a_request_that_is_reset_is_sent_once_more_and_never_again() {
    let http2 = Http2::start(None).await;
    let base_url = format!("http://{}/v1", http2.address);
    let world = world(json!({"base_url": base_url, "http": 2})).await;
    let key = world.key(100).await;
    world.chat(&key, &chat("demo-2")).await.expect(200);
    let spent = world.settled(&key).await.spent;
    http2.shared.resets.store(true, Ordering::SeqCst);
    let answer = within("an end", world.chat(&key, &chat("demo-2"))).await;
    answer.expect_error(502, "upstream_error", "upstream_broke");
    assert_eq!(http2.heads().len(), 1 + 2);
    assert_eq!(world.settled(&key).await.spent, spent);
}

#[tokio::test]
async fn many_at_once_share_a_connection_and_one_that_leaves_hurts_no_other() {
    let http2 = Http2::start(None).await;
    let base_url = format!("http://{}/v1", http2.address);
    let world = world(json!({"base_url": base_url, "http": 2})).await;
    let key = world.key(1000).await;
    world.chat(&key, &chat("demo-2")).await.expect(200);
    let body = streamed("demo-2");
    let asked = (0..8).map(|_| world.chat(&key, &body));
    // One more, whose client goes away at once.
    let leaves = world.client.post(world.gateway.url() + "/v1/chat/completions");
    let leaves = leaves.bearer_auth(&key.0).json(&body).send();
    let (answers, left) = tokio::join!(futures_util::future::join_all(asked), leaves);
    drop(left.unwrap());
    for answer in answers {
        assert!(answer.expect(200).events().is_done());
    }
    // All nine could wait on one connection; a few more may be made while it is just being taken.
    assert!(http2.connections() < 9, "{}", http2.connections());
    let before = http2.connections();
    world.chat(&key, &chat("demo-2")).await.expect(200);
    assert_eq!(http2.connections(), before);
}

#[tokio::test]
async fn a_connection_that_says_goodbye_is_replaced_and_no_request_notices() {
    let http2 = Http2::with(None, true).await;
    let base_url = format!("http://{}/v1", http2.address);
    let world = world(json!({"base_url": base_url, "http": 2})).await;
    let key = world.key(1000).await;
    for body in [chat("demo-2"), streamed("demo-2")].into_iter().cycle().take(20) {
        world.chat(&key, &body).await.expect(200);
    }
    assert_eq!(http2.connections(), 20);
    assert_eq!(http2.heads().len(), 20);
}

#[tokio::test]
async fn a_connection_carries_64_requests_and_the_next_one_gets_another() {
    let http2 = Http2::start(None).await;
    let base_url = format!("http://{}/v1", http2.address);
    let world = world(json!({"base_url": base_url, "http": 2})).await;
    let key = world.key(2000).await;
    let body = streamed("demo-2-slow");
    let mut open = Vec::new();
    for (count, connections) in (1..=65).zip([1; 64].into_iter().chain([2])) {
        open.push(world.chat_later(&key, &body));
        within("it is asked", http2.shared.origin.await_request(count)).await;
        assert_eq!(http2.connections(), connections, "for {count}");
    }
    http2.shared.origin.open_gate();
    for later in open {
        assert!(later.answer().await.expect(200).events().is_done());
    }
}
