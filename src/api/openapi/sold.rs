//! The routes that are sold. Their bodies are the upstream's affair; here stands what the gateway
//! itself asks of a request, and what it adds to an answer.

use lua_free_filters::Route;
use serde_json::{Map, Value, json};

use super::errors::{FIELDS, KEY, MODEL_NAMED, REDEEMED, SOLD};
use super::groups::{Payers, Tag};
use super::headers::{COSTS, ECASH};
use super::operation::Operation;

pub(super) fn operations() -> Vec<Operation> {
    Route::ALL.into_iter().map(operation).collect()
}

fn operation(route: Route) -> Operation {
    let (id, summary) = names(route);
    let below = route.upstream_path();
    let mut kinds = vec![answered(route)];
    if streams(route) {
        kinds.push((EVENTS, json!({ "description": ABOUT_EVENTS })));
    }
    if matches!(route, Route::Transcriptions | Route::Translations) {
        kinds.push(("text/plain", json!({ "type": "string" })));
    }
    let operation = Operation::post(&format!("/v1{below}"), id)
        .tag(Tag::Sold)
        .says(summary, about(route))
        .also_at(&[""], below)
        .paid_by(Payers::Anybody)
        .once()
        .body(bodies(route))
        .answers_as(200, "The upstream's answer, byte for byte but for its usage.", kinds)
        .with(&[COSTS, ECASH].concat())
        .refuses(&[FIELDS, KEY, REDEEMED, MODEL_NAMED, SOLD])
        .passes_mistakes();
    let operation = match streams(route) {
        true => operation.sends(&["X-Cashu-Stream"]),
        false => operation,
    };
    match route {
        Route::Messages => operation.sends(&["anthropic-version"]),
        _ => operation,
    }
}

const fn names(route: Route) -> (&'static str, &'static str) {
    match route {
        Route::ChatCompletions => ("chatCompletions", "Go on with a conversation"),
        Route::Responses => ("responses", "Go on with a conversation, by OpenAI's Responses"),
        Route::Embeddings => ("embeddings", "Texts as vectors"),
        Route::Completions => ("completions", "Go on with a text"),
        Route::ImageGenerations => ("imageGenerations", "Make images from a text"),
        Route::ImageEdits => ("imageEdits", "Make images from images and a text"),
        Route::Transcriptions => ("transcriptions", "Write audio down in its language"),
        Route::Translations => ("translations", "Write audio down in English"),
        Route::Speech => ("speech", "Speak a text"),
        Route::Messages => ("messages", "Go on with a conversation, by Anthropic's Messages"),
        Route::Moderations => ("moderations", "Whether texts and images are harmful"),
        Route::Rerank => ("rerank", "Documents in the order of what they say about a query"),
    }
}

const fn about(route: Route) -> &'static str {
    match streams(route) {
        true => ABOUT_STREAMED,
        false => ABOUT_SOLD,
    }
}

/// Whether a client may ask for events.
const fn streams(route: Route) -> bool {
    !matches!(route, Route::Embeddings | Route::Moderations | Route::Rerank)
}

/// What answers are, unless they are events.
fn answered(route: Route) -> (&'static str, Value) {
    match route {
        Route::Speech => ("audio/*", json!({ "type": "string", "format": "binary" })),
        _ => (JSON, json!({ "$ref": "#/components/schemas/SoldAnswer" })),
    }
}

/// Content types, and what the gateway reads of each.
fn bodies(route: Route) -> Vec<(&'static str, Value)> {
    let file = || json!({ "type": "string", "format": "binary" });
    let files = || json!({ "type": "array", "items": file(), "minItems": 1 });
    match route {
        Route::Transcriptions | Route::Translations => {
            let more = [("file", file()), ("stream", flag())];
            vec![(FORM, object(&["model", "file"], &more))]
        }
        Route::ImageEdits => {
            let form =
                [("prompt", text()), ("image", files()), ("n", count(10)), ("stream", flag())];
            let image = json!({
                "description": "A data URL, or what the upstream takes as one image or as many.",
            });
            let more = [("prompt", text()), ("image", image), ("n", count(10)), ("stream", flag())];
            vec![
                (FORM, object(&["model", "prompt", "image"], &form)),
                (JSON, object(&["model", "prompt"], &more)),
            ]
        }
        _ => {
            let (required, more) = fields(route);
            vec![(JSON, object(&[&["model"], required].concat(), &more))]
        }
    }
}

/// What is read of a JSON body besides the model: what must be there, and everything.
fn fields(route: Route) -> (&'static [&'static str], Vec<(&'static str, Value)>) {
    let limit = || count(OUTPUT_LIMIT_MAX);
    match route {
        Route::ChatCompletions => (
            &["messages"],
            vec![
                ("messages", list(json!({ "type": "object" }))),
                ("max_tokens", limit()),
                ("max_completion_tokens", limit()),
                ("n", count(N_MAX)),
                ("stream", flag()),
                ("stream_options", json!({ "type": "object" })),
            ],
        ),
        Route::Completions => (
            &["prompt"],
            vec![
                ("prompt", text_or_list()),
                ("max_tokens", limit()),
                ("n", count(N_MAX)),
                ("best_of", count(N_MAX)),
                ("stream", flag()),
            ],
        ),
        Route::Responses => (
            &[],
            vec![
                ("input", text_or_list()),
                ("max_output_tokens", limit()),
                ("background", json!({ "type": "boolean", "enum": [false] })),
                ("stream", flag()),
            ],
        ),
        Route::Messages => (
            &["messages", "max_tokens"],
            vec![
                ("messages", list(json!({ "type": "object" }))),
                ("max_tokens", limit()),
                ("stream", flag()),
            ],
        ),
        Route::Embeddings | Route::Moderations => (&["input"], vec![("input", text_or_list())]),
        Route::ImageGenerations => {
            (&["prompt"], vec![("prompt", text()), ("n", count(10)), ("stream", flag())])
        }
        Route::Speech => (
            &["input"],
            vec![
                ("input", text()),
                ("stream_format", json!({ "type": "string", "enum": ["audio", "sse"] })),
            ],
        ),
        Route::Rerank => {
            let any = || json!({ "description": "Text, or an object that has it." });
            (&["query", "documents"], vec![("query", any()), ("documents", list(any()))])
        }
        Route::ImageEdits | Route::Transcriptions | Route::Translations => (&[], Vec::new()),
    }
}

/// What else a body has is the upstream's to accept.
fn object(required: &[&str], more: &[(&str, Value)]) -> Value {
    let model = json!({
        "type": "string",
        "minLength": 1,
        "maxLength": 256,
        "description": "An id or an alias from `GET /v1/models`.",
    });
    let mut properties = Map::from_iter([("model".to_owned(), model)]);
    properties.extend(more.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone())));
    json!({
        "type": "object",
        "required": required,
        "properties": properties,
        "additionalProperties": true,
    })
}

fn text() -> Value {
    json!({ "type": "string", "minLength": 1 })
}

fn flag() -> Value {
    json!({ "type": "boolean" })
}

fn count(max: u64) -> Value {
    json!({ "type": "integer", "minimum": 1, "maximum": max })
}

fn list(items: Value) -> Value {
    json!({ "type": "array", "minItems": 1, "items": items })
}

fn text_or_list() -> Value {
    json!({ "oneOf": [text(), { "type": "array", "minItems": 1, "items": {} }] })
}

/// Schemas that no handler has a type for.
pub(super) fn schemas() -> Map<String, Value> {
    let msat = || json!({ "type": "integer", "minimum": 0 });
    let cost = json!({
        "type": "object",
        "required": ["total_msats", "input_msats", "output_msats"],
        "properties": {
            "total_msats": msat(),
            "input_msats": msat(),
            "output_msats": msat(),
            "cache_read_msats": msat(),
            "cache_creation_msats": msat(),
            "base_msats": msat(),
            "total_usd": { "type": "number", "minimum": 0 },
        },
    });
    let usage = json!({
        "type": "object",
        "description": "As the upstream wrote it, with its cost added.",
        "properties": {
            "cost": cost,
            "cost_sats": { "type": "number", "minimum": 0 },
            "remaining_balance_msats": msat(),
        },
        "additionalProperties": true,
    });
    let sold = json!({
        "type": "object",
        "properties": { "usage": { "$ref": "#/components/schemas/Usage" } },
        "additionalProperties": true,
    });
    let mistake = json!({
        "type": "object",
        "description": "What the upstream says about a request that is wrong.",
        "additionalProperties": true,
    });
    Map::from_iter([
        ("Usage".to_owned(), usage),
        ("SoldAnswer".to_owned(), sold),
        ("UpstreamError".to_owned(), mistake),
    ])
}

/// As the filters read them.
const OUTPUT_LIMIT_MAX: u64 = 2_147_483_647;
const N_MAX: u64 = 128;

const JSON: &str = "application/json";
const FORM: &str = "multipart/form-data";
const EVENTS: &str = "text/event-stream";

const ABOUT_SOLD: &str = "The most that it may cost is reserved before it is forwarded, what it did \
    cost is charged when it has ended. What the gateway does not know of a body goes to the \
    upstream as it is.";
const ABOUT_STREAMED: &str = "The most that it may cost is reserved before it is forwarded, what it \
    did cost is charged when it has ended. What the gateway does not know of a body goes to the \
    upstream as it is. A stream is forwarded event by event as it arrives; one that is paid by \
    `X-Cashu` is held until its change is known, unless the request says `X-Cashu-Stream: live`.";
const ABOUT_EVENTS: &str = "Server-Sent Events, each as the upstream sent it but for its usage. \
    Where the change of `X-Cashu` comes with a live stream, it is in a comment after the last \
    event: `: x-cashu cashuB…`.";
