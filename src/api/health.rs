//! `GET /healthz`: the process runs and answers. It promises nothing about ledger or mint.

use axum::Json;
use axum::response::IntoResponse;
use serde_json::json;

pub(super) async fn healthz() -> impl IntoResponse {
    Json(json!({ "status": "ok" }))
}
