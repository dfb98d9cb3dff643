//! `GET /healthz`: the process runs and answers. It promises nothing about ledger or mint.

use axum::Json;
use schemars::JsonSchema;
use serde::Serialize;

use super::openapi::{Operation, Tag};

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Health")]
pub(super) struct Health {
    /// Always `ok`.
    status: &'static str,
}

pub(super) async fn healthz() -> Json<Health> {
    Json(Health { status: "ok" })
}

pub(super) fn operation() -> Operation {
    Operation::get("/healthz", "healthz")
        .tag(Tag::Documents)
        .says("Whether the process lives", "It promises nothing about ledger or mint.")
        .answers::<Health>("It does.")
}
