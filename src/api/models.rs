//! `GET /v1/models` and `/v1/models/{id}`: what is on offer and what it costs (WIRE.md section
//! 8). Every entry has every price as a JSON number: one bad entry makes strict clients drop the
//! whole list.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use serde::Serialize;
use serde_json::value::RawValue;

use super::Refused;
use crate::error::{Kind, Refusal};
use crate::pricing::{Offer, PriceList};

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
    let offer = id.ok().and_then(|Path(id)| prices.find(&id)).ok_or_else(model_not_found)?;
    Ok(Json(Entry::of(offer, prices.btc_usd_cents)?))
}

/// The same words here and on billable routes.
pub fn model_not_found() -> Refusal {
    Refusal::new(
        Kind::NotFound,
        "model_not_found",
        "this model is not on offer; GET /v1/models lists those that are",
    )
}

#[derive(Serialize)]
pub(super) struct List {
    object: &'static str,
    data: Vec<Entry>,
}

#[derive(Serialize)]
pub(super) struct Entry {
    id: String,
    object: &'static str,
    created: u64,
    owned_by: String,
    name: String,
    description: String,
    context_length: u64,
    architecture: Architecture,
    pricing: Box<RawValue>,
    sats_pricing: Box<RawValue>,
    enabled: bool,
    alias_ids: Vec<String>,
    top_provider: TopProvider,
}

#[derive(Serialize)]
struct Architecture {
    modality: &'static str,
    input_modalities: [&'static str; 1],
    output_modalities: [&'static str; 1],
    tokenizer: &'static str,
    instruct_type: Option<&'static str>,
}

#[derive(Serialize)]
struct TopProvider {
    context_length: u64,
    max_completion_tokens: u64,
    is_moderated: bool,
}

impl Entry {
    fn of(offer: &Offer, btc_usd_cents: Option<u64>) -> Result<Self, Refusal> {
        let model = &offer.model;
        Ok(Self {
            id: model.id.clone(),
            object: "model",
            created: model.created,
            owned_by: model.owned_by.clone(),
            name: model.name.clone(),
            description: model.description.clone(),
            context_length: model.context_length,
            architecture: Architecture {
                modality: "text->text",
                input_modalities: ["text"],
                output_modalities: ["text"],
                tokenizer: "Other",
                instruct_type: None,
            },
            pricing: number_object(offer.usd_pricing(btc_usd_cents))?,
            sats_pricing: number_object(offer.sats_pricing())?,
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

/// Prices as the price list prints them: from integers, exact.
fn number_object(text: String) -> Result<Box<RawValue>, Refusal> {
    RawValue::from_string(text).map_err(|_| Refusal::internal())
}
