//! A host of Lightning addresses (LUD-16) whose users answer each in a way of their own.

use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use cdk_fake_wallet::create_fake_invoice;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::Result;
use crate::listening::Port;

/// A running host; it ends when this is dropped.
pub struct Payee {
    shared: Arc<Shared>,
    port: Port,
    _server: JoinSet<()>,
}

struct Shared {
    url: String,
    /// The amount of every invoice that was given, in msat.
    invoices: Mutex<Vec<u64>>,
}

impl Payee {
    pub async fn start() -> Result<Self> {
        Self::at(0).await
    }

    /// On this port; 0 is one that is free.
    pub async fn at(port: u16) -> Result<Self> {
        let mut port = Port::take(port)?;
        let url = format!("http://127.0.0.1:{}", port.number());
        let shared = Arc::new(Shared { url, invoices: Mutex::default() });
        let router = Router::new()
            .route("/.well-known/lnurlp/{user}", get(described))
            .route("/callback/{user}", get(invoiced))
            .with_state(shared.clone());
        let listener = port.listen()?;
        let mut server = JoinSet::new();
        server.spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                log::error!("the host of addresses stopped: {error}");
            }
        });
        Ok(Self { shared, port, _server: server })
    }

    /// An address here. `alice` gives invoices; other users are the names of what is wrong with
    /// their answers.
    pub fn address(&self, user: &str) -> String {
        format!("{user}@127.0.0.1:{}", self.port.number())
    }

    /// The amounts of all invoices that were given, in msat.
    pub fn invoices(&self) -> Vec<u64> {
        self.shared.invoices.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn described(State(shared): State<Arc<Shared>>, Path(user): Path<String>) -> Response {
    let Shared { url, .. } = &*shared;
    let usual = |callback: String, most: u64| {
        json!({
            "tag": "payRequest", "callback": callback, "minSendable": 1000, "maxSendable": most,
            "metadata": "[[\"text/plain\",\"a test\"]]",
        })
    };
    let answer = match user.as_str() {
        "missing" => return StatusCode::NOT_FOUND.into_response(),
        "broken" => return "no JSON".into_response(),
        "moved" => return (StatusCode::FOUND, [("location", "/elsewhere")]).into_response(),
        "huge" => Value::String("x".repeat(1 << 20)),
        "error" => json!({"status": "ERROR", "reason": "a word of the host's"}),
        "withdraw" => json!({"tag": "withdrawRequest"}),
        "small" => usual(format!("{url}/callback/{user}"), 5_000),
        "inside" => usual("http://169.254.169.254/latest".to_owned(), MOST_MSAT),
        _ => usual(format!("{url}/callback/{user}?session=1"), MOST_MSAT),
    };
    axum::Json(answer).into_response()
}

#[derive(serde::Deserialize)]
struct Asked {
    amount: u64,
}

async fn invoiced(
    State(shared): State<Arc<Shared>>,
    Path(user): Path<String>,
    Query(Asked { amount }): Query<Asked>,
) -> Response {
    let bolt11 = match user.as_str() {
        "refusing" => {
            return axum::Json(json!({"status": "ERROR", "reason": "not now"})).into_response();
        }
        "garbage" => "lnbc1garbage".to_owned(),
        "dear" => create_fake_invoice(amount + 1000, String::new()).to_string(),
        _ => create_fake_invoice(amount, String::new()).to_string(),
    };
    shared.invoices.lock().unwrap_or_else(PoisonError::into_inner).push(amount);
    axum::Json(json!({"pr": bolt11, "routes": []})).into_response()
}

const MOST_MSAT: u64 = 100_000_000_000;
