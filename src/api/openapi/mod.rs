//! `GET /openapi.json`: one OpenAPI 3.0 document of every route, made of the types that the
//! handlers read and write.
//!
//! What a route takes and answers is said beside its handler, in a function `operation`, and only
//! listed here. A path or a method that the router has and the document has not, or the other way
//! round, fails a test; a code that the document does not list stops a debug build.

mod errors;
mod groups;
mod headers;
mod operation;
mod sold;
mod write;

use std::sync::LazyLock;

use axum::response::Response;
use bytes::Bytes;
use http::HeaderMap;
use serde_json::{Map, Value, json};

use super::document::{Document, tagged};
use super::{balance, docs, health, info, lightning, models, webhooks};
use crate::error::ErrorBody;
use write::Schemas;

pub(super) use errors::{
    CHILD_NAMED, CHILDREN_MADE, DOCUMENT_NAMED, FIELDS, INVOICE_NAMED, INVOICED, KEY, MODEL_NAMED,
    PARENT, REDEEMED, REFUNDED, WEBHOOK_MADE, WEBHOOK_NAMED, WEBHOOKS, is_documented,
};
pub(super) use groups::{Payers, Tag};
pub(super) use operation::Operation;

/// The document does not change while the process runs.
pub(super) async fn openapi(headers: HeaderMap) -> Response {
    static WRITTEN: LazyLock<Document> = LazyLock::new(|| {
        let text = Bytes::from(document().to_string());
        Document { content_type: "application/json", policy: None, tag: tagged(&text), text }
    });
    WRITTEN.answer(&headers)
}

/// In the order in which a reader meets them.
fn operations() -> Vec<Operation> {
    let mut all = sold::operations();
    all.extend(balance::operations());
    all.extend(lightning::operations());
    all.extend(webhooks::operations());
    all.extend(models::operations());
    all.push(info::operation());
    all.push(health::operation());
    all.push(operation());
    all.extend(docs::operations());
    all
}

fn operation() -> Operation {
    Operation::get("/openapi.json", "openapi")
        .tag(Tag::Documents)
        .says("This document", "")
        .sends(&["If-None-Match"])
        .answers::<Map<String, Value>>("An OpenAPI 3.0 document.")
        .with(&["ETag"])
        .answers_as(304, "It is what the client has already.", Vec::new())
        .with(&["ETag"])
}

fn document() -> Value {
    let mut schemas = Schemas::new();
    let mut paths: Map<String, Value> = Map::new();
    for operation in operations() {
        let written = operation.written(&mut schemas);
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        if let Some(methods) = path.as_object_mut() {
            methods.insert(operation.method.to_owned(), written);
        }
    }
    schemas.add::<ErrorBody<'_>>();
    let refusals = schemas.refusals();
    let mut definitions = schemas.definitions();
    definitions.extend(sold::schemas());
    json!({
        "openapi": "3.0.3",
        "info": {
            "title": "nutgate",
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
            "license": { "name": "Apache-2.0" },
        },
        "servers": [{ "url": "/", "description": "This gateway." }],
        "tags": Tag::ALL.map(Tag::written),
        "paths": paths,
        "components": {
            "schemas": definitions,
            "responses": refusals,
            "parameters": headers::parameters(),
            "headers": headers::headers(),
            "securitySchemes": groups::security_schemes(),
        },
    })
}

const ABOUT: &str = "Sells access to AI APIs by the request, for Cashu ecash.\n\n\
    Amounts are integers in millisatoshi (msat) unless a field's name says otherwise. Any client \
    of OpenAI's or Anthropic's API works against it: only the base URL and the key differ.\n\n\
    Paths are listed by one name; `x-aliases` of an operation has its others. `HEAD` is answered \
    wherever `GET` is, and `OPTIONS` everywhere, as a preflight: any page may call, unless this \
    gateway lists those that may, and asks for the headers that it wants to send \
    (`Access-Control-Allow-Methods`, `-Headers`, `-Max-Age`). \
    What is at no path is 404 `not_found`; a path that has other methods is 405 \
    `method_not_allowed`, with `Allow`.\n\n\
    Every error has one shape, `Error`, whoever made it. Clients key on `code`.";

#[cfg(test)]
mod tests;
