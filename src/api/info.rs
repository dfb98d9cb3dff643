//! `GET /v1/info`: who this gateway is and which mints it accepts.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::Serialize;

use super::openapi::{Operation, Tag};
use crate::config::Config;
use crate::money::Msat;

pub(super) async fn info(State(config): State<Arc<Config>>) -> Json<Info> {
    Json(Info {
        name: config.name.clone(),
        description: config.description.clone(),
        version: env!("CARGO_PKG_VERSION"),
        npub: config.npub.clone(),
        mints: config.mints.iter().map(|mint| mint.url.clone()).collect(),
        http_url: config.http_url.clone(),
        onion_url: config.onion_url.clone(),
        child_key_cost_msats: Msat::ZERO,
    })
}

pub(super) fn operation() -> Operation {
    Operation::get("/v1/info", "info")
        .tag(Tag::Catalogue)
        .says("Who this gateway is and which mints it accepts", "")
        .answers::<Info>("What its operator says of it.")
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Info {
    name: String,
    description: String,
    version: &'static str,
    npub: String,
    mints: Vec<String>,
    http_url: String,
    onion_url: String,
    child_key_cost_msats: Msat,
}
