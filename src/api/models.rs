//! `GET /v1/models` and `/v1/models/{id}`: what is on offer and what it costs (WIRE.md section
//! 8). Every entry has every price as a JSON number: one bad entry makes strict clients drop the
//! whole list.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use lua_free_filters::Route;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;
use serde_json::value::RawValue;

use super::Refused;
use super::openapi::{MODEL_NAMED, Operation, Tag};
use crate::config::Model;
use crate::error::{Fault, Kind, Refusal};
use crate::pricing::{Lookup, Offer, PriceList, Shown};

/// What has no price at the moment cannot be bought and is not listed.
pub(super) async fn list(State(prices): State<Arc<PriceList>>) -> Result<Json<List>, Refused> {
    let entry = |offer: &Arc<Offer>| Entry::of(offer, prices.btc_usd_cents);
    let data = prices.offers.iter().map(entry).collect::<Result<_, _>>()?;
    Ok(Json(List { object: "list", data }))
}

/// Ids contain slashes, escaped or not; an alias answers with the entry that it stands for.
pub(super) async fn one(
    State(prices): State<Arc<PriceList>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Entry>, Refused> {
    let Path(id) = id.map_err(|_| model_not_found())?;
    Ok(Json(Entry::of(offered(&prices, &id)?, prices.btc_usd_cents)?))
}

/// The model of this name, with the same words here and on billable routes.
///
/// # Errors
/// There is none: 404. Its price in sats is not known at the moment: 503.
pub fn offered<'l>(prices: &'l PriceList, name: &str) -> Result<&'l Arc<Offer>, Refusal> {
    match prices.find(name) {
        Lookup::Offer(offer) => Ok(offer),
        Lookup::Unknown => Err(model_not_found()),
        Lookup::NoRate => Err(price_unavailable()),
    }
}

/// The same, if it is sold on `route`.
///
/// # Errors
/// As [`offered`], and 404 too for a model that is sold on other routes only.
pub fn sold<'l>(
    prices: &'l PriceList,
    name: &str,
    route: Route,
) -> Result<&'l Arc<Offer>, Refusal> {
    let offer = offered(prices, name)?;
    match offer.model.routes.contains(&route) {
        true => Ok(offer),
        false => Err(Refusal::new(
            Kind::NotFound,
            "model_not_found",
            "this model is not on offer on this route; GET /v1/models says what it is for",
        )),
    }
}

fn price_unavailable() -> Refusal {
    Refusal::new(
        Kind::ServiceUnavailable,
        "price_unavailable",
        "this model is priced in dollars and no current rate is known; nothing was charged",
    )
    .retry_after_s(RATE_RETRY_AFTER_S)
    .fault(Fault::Us)
}

fn model_not_found() -> Refusal {
    Refusal::new(
        Kind::NotFound,
        "model_not_found",
        "this model is not on offer; GET /v1/models lists those that are",
    )
}

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::get("/v1/models", "models")
            .tag(Tag::Catalogue)
            .says("What is on offer and what it costs", ABOUT_PRICES)
            .also_at(&[""], "/models")
            .answers::<List>("Everything that can be bought right now."),
        Operation::get("/v1/models/{id}", "model")
            .tag(Tag::Catalogue)
            .says("One model", "")
            .also_at(&[""], "/models/{id}")
            .id_in_path("id", "An id or an alias. Slashes may be escaped or not.")
            .answers::<Entry>("The entry of the list.")
            .refuses(&[MODEL_NAMED]),
    ]
}

const ABOUT_PRICES: &str = "`sats_pricing` has the rates that are charged, in sats per unit. What is \
    not there is free.";

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Models")]
pub(super) struct List {
    object: &'static str,
    data: Vec<Entry>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Model")]
pub(super) struct Entry {
    id: String,
    object: &'static str,
    created: u64,
    owned_by: String,
    name: String,
    description: String,
    context_length: u64,
    architecture: Architecture,
    #[serde(flatten)]
    prices: Prices,
    /// The prices at every upstream, where they differ; the first are those of the entry.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    providers: Vec<Provider>,
    enabled: bool,
    alias_ids: Vec<String>,
    top_provider: TopProvider,
}

#[derive(Serialize, JsonSchema)]
struct Architecture {
    modality: String,
    input_modalities: Vec<&'static str>,
    output_modalities: Vec<&'static str>,
    tokenizer: &'static str,
    instruct_type: Option<&'static str>,
}

#[derive(Serialize, JsonSchema)]
struct Prices {
    /// In US dollars.
    #[schemars(schema_with = "prices")]
    pricing: Box<RawValue>,
    #[schemars(schema_with = "prices_in_sats")]
    sats_pricing: Box<RawValue>,
    /// For each image made, by size and quality; `null` is any.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<ImagePrice>")]
    image_prices: Option<Box<RawValue>>,
}

#[derive(Serialize, JsonSchema)]
struct Provider {
    id: String,
    #[serde(flatten)]
    prices: Prices,
}

#[derive(Serialize, JsonSchema)]
struct TopProvider {
    context_length: u64,
    max_completion_tokens: u64,
    is_moderated: bool,
}

impl Entry {
    fn of(offer: &Offer, btc_usd_cents: Option<u64>) -> Result<Self, Refusal> {
        let model = &offer.model;
        let shown = offer.shown(btc_usd_cents);
        let (_, first) = shown.first().ok_or_else(Refusal::internal)?;
        let differ = shown.iter().any(|(_, other)| other != first);
        let provider = |(id, shown): &(&str, Shown)| {
            Ok::<_, Refusal>(Provider { id: (*id).to_owned(), prices: Prices::of(shown)? })
        };
        Ok(Self {
            id: model.id.clone(),
            object: "model",
            created: model.created,
            owned_by: model.owned_by.clone(),
            name: model.name.clone(),
            description: model.description.clone(),
            context_length: model.context_length,
            architecture: Architecture::of(model),
            prices: Prices::of(first)?,
            providers: shown.iter().filter(|_| differ).map(provider).collect::<Result<_, _>>()?,
            enabled: true,
            alias_ids: model.alias_ids.clone(),
            top_provider: TopProvider {
                context_length: model.context_length,
                max_completion_tokens: model.max_output_tokens,
                is_moderated: false,
            },
        })
    }
}

impl Prices {
    fn of(shown: &Shown) -> Result<Self, Refusal> {
        Ok(Self {
            pricing: printed(&shown.pricing)?,
            sats_pricing: printed(&shown.sats_pricing)?,
            image_prices: shown.image_prices.as_deref().map(printed).transpose()?,
        })
    }
}

impl Architecture {
    /// What goes in and comes out on the routes that the model is sold on. Images are taken to go
    /// into its prompts when the configuration says what they count or cost there.
    fn of(model: &Model) -> Self {
        let sees = model.image_tokens.is_some() || model.price.input_image.billionths > 0;
        let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
        for route in &model.routes {
            let (taken, given) = modalities(*route, sees);
            inputs.extend(taken);
            outputs.push(given);
        }
        let named = |some: Vec<&str>| -> Vec<&'static str> {
            MODALITIES.into_iter().filter(|known| some.contains(known)).collect()
        };
        let (inputs, outputs) = (named(inputs), named(outputs));
        Self {
            modality: format!("{}->{}", inputs.join("+"), outputs.join("+")),
            input_modalities: inputs,
            output_modalities: outputs,
            tokenizer: "Other",
            instruct_type: None,
        }
    }
}

/// Numbers about a text (embeddings, scores, ranks) count as text.
fn modalities(route: Route, sees: bool) -> (&'static [&'static str], &'static str) {
    match route {
        Route::ChatCompletions | Route::Responses | Route::Messages if sees => {
            (&["text", "image"], "text")
        }
        Route::ChatCompletions
        | Route::Responses
        | Route::Messages
        | Route::Completions
        | Route::Embeddings
        | Route::Moderations
        | Route::Rerank => (&["text"], "text"),
        Route::ImageGenerations => (&["text"], "image"),
        Route::ImageEdits => (&["text", "image"], "image"),
        Route::Transcriptions | Route::Translations => (&["audio"], "text"),
        Route::Speech => (&["text"], "audio"),
    }
}

/// Prices as the price list prints them: from integers, exact.
fn printed(text: &str) -> Result<Box<RawValue>, Refusal> {
    RawValue::from_string(text.to_owned()).map_err(|_| Refusal::internal())
}

/// What every price list has, and what it may have.
fn priced(required: &[&str]) -> Schema {
    let number = || serde_json::json!({ "type": "number", "minimum": 0 });
    let names = required.iter().chain(&PRICES_IF_ANY);
    let properties: serde_json::Map<_, _> =
        names.map(|name| ((*name).to_owned(), number())).collect();
    json_schema!({ "type": "object", "required": required, "properties": properties })
}

fn prices(_: &mut SchemaGenerator) -> Schema {
    priced(&PRICES)
}

fn prices_in_sats(_: &mut SchemaGenerator) -> Schema {
    priced(&[PRICES.as_slice(), PRICES_AT_MOST.as_slice()].concat())
}

/// A row of `image_prices`, as the price list prints it.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it is only described: the text is made where prices are")]
struct ImagePrice {
    size: Option<String>,
    quality: Option<String>,
    sats: f64,
    usd: f64,
}

const PRICES: [&str; 8] = [
    "prompt",
    "completion",
    "request",
    "image",
    "web_search",
    "internal_reasoning",
    "input_cache_read",
    "input_cache_write",
];
const PRICES_AT_MOST: [&str; 3] = ["max_prompt_cost", "max_completion_cost", "max_cost"];
const PRICES_IF_ANY: [&str; 4] = ["audio_second", "character", "search_unit", "upstream_cost"];

/// In the order in which they are named.
const MODALITIES: [&str; 3] = ["text", "image", "audio"];

/// Rates are asked for again well within it.
const RATE_RETRY_AFTER_S: u32 = 10;

#[cfg(test)]
mod tests;
