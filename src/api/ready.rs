//! `GET /readyz`, on the admin listener: whether this gateway has what it sells with.
//!
//! For load balancers: a gateway that alone has lost its ledger refuses quickly, and so looks the
//! least busy. One that is told to stop closes its listeners, this one too, and so is not ready
//! either. Whether a mint or an upstream answers is no part of it: they are everybody's.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::RETRY_AFTER;
use serde::Serialize;

use crate::ids::AccountId;
use crate::ledger::Ledger;
use crate::till::Till;

#[derive(Serialize)]
struct Ready {
    status: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing: Vec<&'static str>,
}

/// Asks both at once, and each as a request would.
pub(super) async fn readyz<L: Ledger>(State(till): State<Till<L>>) -> Response {
    let (ledger, wallet_store) = tokio::join!(
        answers(till.ledger().family(AccountId::nobody())),
        answers(till.wallet().ask_store()),
    );
    let asked = [("ledger", ledger), ("wallet_store", wallet_store)];
    let missing: Vec<_> =
        asked.into_iter().filter_map(|(name, answers)| (!answers).then_some(name)).collect();
    if missing.is_empty() {
        return Json(Ready { status: "ready", missing }).into_response();
    }
    let ready = Ready { status: "unavailable", missing };
    (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, RETRY_AFTER_S)], Json(ready)).into_response()
}

/// Whether it did what it was asked, in time.
async fn answers<T, E>(asked: impl Future<Output = Result<T, E>>) -> bool {
    matches!(tokio::time::timeout(ANSWER_MAX, asked).await, Ok(Ok(_)))
}

/// Less than balancers wait for a check. The ledger of a fleet has `fleet.ledger_timeout`, which is
/// usually shorter; a connection to PostgreSQL may have to be made first.
const ANSWER_MAX: Duration = Duration::from_secs(1);

const RETRY_AFTER_S: &str = "1";
