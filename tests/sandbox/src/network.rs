//! What connects mints: an invoice of one of them is paid when another one has melted ecash for
//! it, and payments may be late, lost on their way back, stuck or impossible.
//!
//! The Lightning of a sandbox mint is made up, so a mint that belongs to a network says of its own
//! invoices that another one was asked to pay only what the network knows. All others are paid at
//! once, as a faucet's are.

use std::collections::HashSet;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Json;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio_util::task::TaskTracker;

use crate::listening::Cut;

#[derive(Clone, Debug, Default)]
pub struct Network(Arc<Mutex<Inner>>);

/// How payments fare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transit {
    #[default]
    Arrive,
    /// The paying mint has paid, the other one does not know it yet.
    AreLate,
    /// The paying mint has paid and does not say so: the connection breaks.
    AreNotAnswered,
    /// The paying mint says that they are pending, the other one has nothing.
    AreStuck,
    /// The paying mint finds no route, and keeps no ecash.
    Fail,
}

#[derive(Debug, Default)]
struct Inner {
    transit: Transit,
    /// The invoices that a mint was asked to pay, and those that were paid.
    asked: HashSet<String>,
    paid: HashSet<String>,
    tasks: TaskTracker,
}

impl Network {
    pub fn transit(&self, transit: Transit) {
        self.lock().transit = transit;
    }

    /// How many invoices were paid.
    pub fn paid_count(&self) -> usize {
        self.lock().paid.len()
    }

    fn has_arrived(&self, invoice: &str) -> bool {
        let inner = self.lock();
        let is_under_way = matches!(inner.transit, Transit::AreLate | Transit::AreStuck);
        !inner.asked.contains(invoice) || (!is_under_way && inner.paid.contains(invoice))
    }

    // Sound after a panic elsewhere: every change is a single one.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) async fn meddle(
    State(network): State<Option<Network>>,
    ConnectInfo(connection): ConnectInfo<Cut>,
    request: Request,
    next: Next,
) -> Response {
    let Some(network) = network else { return next.run(request).await };
    let path = request.uri().path();
    if request.method() == Method::GET && path.starts_with("/v1/mint/quote/bolt11/") {
        let invoice = |quote: &mut Value| {
            let paid = quote["request"].as_str().is_some_and(|text| network.has_arrived(text));
            if !paid {
                set(quote, "state", "UNPAID".into());
                set(quote, "amount_paid", 0.into());
            }
        };
        return edited(next.run(request).await, invoice).await;
    }
    let is_stuck = || network.lock().transit == Transit::AreStuck;
    if request.method() == Method::GET && path.starts_with("/v1/melt/quote/bolt11/") {
        let answer = next.run(request).await;
        return if is_stuck() { edited(answer, stick).await } else { answer };
    }
    if request.method() == Method::POST && path == "/v1/melt/quote/bolt11" {
        let note = |quote: &mut Value| {
            if let Some(invoice) = quote["request"].as_str() {
                network.lock().asked.insert(invoice.to_owned());
            }
        };
        return edited(next.run(request).await, note).await;
    }
    if request.method() != Method::POST || path != "/v1/melt/bolt11" {
        return next.run(request).await;
    }
    if network.lock().transit == Transit::Fail {
        let failed = json!({"code": 20004, "detail": "Lightning payment failed"});
        return (StatusCode::BAD_REQUEST, Json(failed)).into_response();
    }
    // On its own task: the mint must not forget half of it when the client dies.
    let (tasks, paying) = (network.lock().tasks.clone(), network.clone());
    let melt = tasks.spawn(async move {
        let note = |quote: &mut Value| {
            if let (Some("PAID"), Some(invoice)) =
                (quote["state"].as_str(), quote["request"].as_str())
            {
                paying.lock().paid.insert(invoice.to_owned());
            }
        };
        edited(next.run(request).await, note).await
    });
    let Ok(answer) = melt.await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    if network.lock().transit == Transit::AreNotAnswered {
        connection.now();
        pending::<()>().await;
    }
    if is_stuck() { edited(answer, stick).await } else { answer }
}

fn stick(quote: &mut Value) {
    if quote["state"] == "PAID" {
        set(quote, "state", "PENDING".into());
        set(quote, "change", Value::Null);
        set(quote, "payment_preimage", Value::Null);
    }
}

fn set(quote: &mut Value, field: &str, value: Value) {
    if quote.get(field).is_some() {
        quote[field] = value;
    }
}

/// A successful answer with its JSON changed; every other as it is.
async fn edited(answer: Response, edit: impl FnOnce(&mut Value)) -> Response {
    let (parts, body) = answer.into_parts();
    let bytes = axum::body::to_bytes(body, BYTES_MAX).await.unwrap_or_default();
    match serde_json::from_slice::<Value>(&bytes) {
        Ok(mut quote) if parts.status.is_success() => {
            edit(&mut quote);
            (parts.status, Json(quote)).into_response()
        }
        _ => Response::from_parts(parts, bytes.into()),
    }
}

const BYTES_MAX: usize = 256 * 1024;
