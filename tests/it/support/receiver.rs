//! Who webhooks are delivered to: an endpoint on loopback that keeps what it gets and answers as a
//! test says.

use std::collections::{HashMap, VecDeque};
use std::future::pending;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use nutgate::clock::UnixMs;
use ring::hmac;
use serde_json::Value;
use standardwebhooks::Webhook;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::within;

/// A server on loopback; it ends with the test.
pub(crate) struct Receiver {
    url: String,
    shared: Arc<Shared>,
    _server: JoinSet<()>,
}

struct Shared {
    /// By path: what the next deliveries are answered. `None` hangs; afterwards it is 204.
    answers: Mutex<HashMap<String, VecDeque<Option<u16>>>>,
    got: watch::Sender<Vec<Delivered>>,
}

#[derive(Clone, Debug)]
pub(crate) struct Delivered {
    pub(crate) path: String,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: String,
}

impl Delivered {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub(crate) fn kind(&self) -> String {
        self.json()["type"].as_str().unwrap().to_owned()
    }

    /// Both signatures are those of this secret, and the headers say what the body says.
    #[track_caller]
    pub(crate) fn check_signed(&self, secret: &str) {
        let (theirs, key) = match secret.strip_prefix("whsec_") {
            Some(_) => (Webhook::new(secret).unwrap(), None),
            None => {
                let bytes = secret.as_bytes();
                (Webhook::from_bytes(bytes.to_vec()).unwrap(), Some(bytes))
            }
        };
        theirs.verify(self.body.as_bytes(), &self.headers).unwrap();
        theirs.verify(format!("{} ", self.body).as_bytes(), &self.headers).unwrap_err();
        if let Some(key) = key {
            let key = hmac::Key::new(hmac::HMAC_SHA256, key);
            let expected = hex::encode(hmac::sign(&key, self.body.as_bytes()));
            assert_eq!(self.header("x-webhook-signature"), format!("sha256={expected}"));
        }
        assert_eq!(self.header("content-type"), "application/json");
        assert_eq!(self.json()["id"], self.header("webhook-id"));
        let created = self.json()["created_at"].as_u64().unwrap();
        let now = UnixMs::now().whole_seconds();
        assert!((now - 60..=now).contains(&created), "{created}");
    }
}

impl Receiver {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared { answers: Mutex::default(), got: watch::Sender::default() });
        let router = Router::new().fallback(answer).with_state(shared.clone());
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, shared, _server: server }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// The next deliveries to this path are answered so, one by one; `None` hangs.
    pub(crate) fn answers(&self, path: &str, statuses: &[Option<u16>]) {
        let mut answers = self.shared.answers.lock().unwrap();
        answers.insert(path.to_owned(), statuses.iter().copied().collect());
    }

    /// What has been delivered to this path so far, in its order.
    pub(crate) fn at(&self, path: &str) -> Vec<Delivered> {
        self.shared.got.borrow().iter().filter(|it| it.path == path).cloned().collect()
    }

    /// The same, once it is this many.
    pub(crate) async fn delivered(&self, path: &str, count: usize) -> Vec<Delivered> {
        let mut got = self.shared.got.subscribe();
        let enough =
            |all: &Vec<Delivered>| all.iter().filter(|it| it.path == path).count() >= count;
        let what = format!("{count} deliveries to {path}");
        within(&what, got.wait_for(enough)).await.unwrap();
        self.at(path)
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    let path = parts.uri.path().to_owned();
    let next = shared.answers.lock().unwrap().get_mut(&path).and_then(VecDeque::pop_front);
    shared.got.send_modify(|got| {
        got.push(Delivered {
            path,
            headers: parts.headers,
            body: String::from_utf8(body.to_vec()).unwrap(),
        });
    });
    match next.unwrap_or(Some(204)) {
        Some(status) => StatusCode::from_u16(status).unwrap().into_response(),
        None => pending().await,
    }
}
