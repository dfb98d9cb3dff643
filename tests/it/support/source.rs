//! What the gateway asks for beside the traffic: documents whose content a test sets, and that may
//! hang.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A server on loopback; it ends with the test.
pub(crate) struct Source {
    url: String,
    shared: Arc<Shared>,
    _server: JoinSet<()>,
}

struct Shared {
    /// By path.
    says: Mutex<HashMap<String, Says>>,
    /// Paths and headers, in order.
    asked: watch::Sender<Vec<(String, http::HeaderMap)>>,
}

#[derive(Clone)]
enum Says {
    Json(Value),
    Status(u16),
    Nothing,
}

impl Source {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared { says: Mutex::default(), asked: watch::Sender::default() });
        let router = Router::new().fallback(answer).with_state(shared.clone());
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, shared, _server: server }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// From now on this path is answered with this document.
    pub(crate) fn says(&self, path: &str, document: Value) {
        self.set(path, Says::Json(document));
    }

    /// From now on this path is answered with this status and nothing else.
    pub(crate) fn fails(&self, path: &str, status: u16) {
        self.set(path, Says::Status(status));
    }

    /// From now on whoever asks for this path waits.
    pub(crate) fn hangs(&self, path: &str) {
        self.set(path, Says::Nothing);
    }

    /// The headers of every request for this path so far.
    pub(crate) fn asked(&self, path: &str) -> Vec<http::HeaderMap> {
        let asked = self.shared.asked.borrow();
        asked.iter().filter(|(seen, _)| seen == path).map(|(_, headers)| headers.clone()).collect()
    }

    /// Returns when this path has been asked for `count` times more.
    pub(crate) async fn asked_again(&self, path: &str, count: usize) {
        let goal = self.asked(path).len() + count;
        let reached = |asked: &Vec<(String, http::HeaderMap)>| {
            asked.iter().filter(|(seen, _)| seen == path).count() >= goal
        };
        super::within(path, self.shared.asked.subscribe().wait_for(reached)).await.unwrap();
    }

    fn set(&self, path: &str, says: Says) {
        self.shared.says.lock().unwrap().insert(path.to_owned(), says);
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let says = shared.says.lock().unwrap().get(&path).cloned();
    let seen = (path, request.headers().clone());
    shared.asked.send_modify(|asked| asked.push(seen));
    match says {
        Some(Says::Json(document)) => {
            ([(CONTENT_TYPE, "application/json")], document.to_string()).into_response()
        }
        Some(Says::Status(status)) => StatusCode::from_u16(status).unwrap().into_response(),
        Some(Says::Nothing) => std::future::pending().await,
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
