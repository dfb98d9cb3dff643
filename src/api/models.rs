//! `GET /v1/models` and `/v1/models/{id}`: what is on offer and what it costs (WIRE.md section
//! 8). Prices are JSON numbers written from integers, exact to the last digit, and every entry
//! has all of them: one bad entry makes strict clients drop the whole list.

use std::fmt;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::Refused;
use crate::config::{Currency, Decimal};
use crate::error::{Kind, Refusal};
use crate::money::Rate;
use crate::pricing::{Offer, PriceList};

pub(super) async fn list(State(prices): State<Arc<PriceList>>) -> Json<List> {
    let entry = |offer: &Arc<Offer>| Entry::of(offer, prices.btc_usd_cents);
    Json(List { object: "list", data: prices.offers.iter().map(entry).collect() })
}

/// Ids contain slashes, escaped or not; an alias answers with the entry that it stands for.
pub(super) async fn one(
    State(prices): State<Arc<PriceList>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Entry>, Refused> {
    let offer = id.ok().and_then(|Path(id)| prices.find(&id)).ok_or_else(model_not_found)?;
    Ok(Json(Entry::of(offer, prices.btc_usd_cents)))
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
    pricing: PerUnit,
    sats_pricing: SatsPricing,
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

/// Prices of one unit each. What is not charged for is there, and zero.
#[derive(Serialize)]
struct PerUnit {
    prompt: Number,
    completion: Number,
    request: Number,
    image: Number,
    web_search: Number,
    internal_reasoning: Number,
    input_cache_read: Number,
    input_cache_write: Number,
}

#[derive(Serialize)]
struct SatsPricing {
    #[serde(flatten)]
    per_unit: PerUnit,
    max_prompt_cost: Number,
    max_completion_cost: Number,
    max_cost: Number,
}

impl Entry {
    fn of(offer: &Offer, btc_usd_cents: Option<u64>) -> Self {
        let model = &offer.model;
        Self {
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
            pricing: usd_pricing(offer, btc_usd_cents),
            sats_pricing: sats_pricing(offer),
            enabled: true,
            alias_ids: model.alias_ids.clone(),
            top_provider: TopProvider {
                context_length: model.context_length,
                max_completion_tokens: model.max_output_tokens,
                is_moderated: false,
            },
        }
    }
}

impl PerUnit {
    fn new(request: Number, prompt: Number, cache_read: Number, completion: Number) -> Self {
        Self {
            prompt,
            completion,
            request,
            image: Number::ZERO,
            web_search: Number::ZERO,
            // Reasoning is charged as the completion it is part of.
            internal_reasoning: Number::ZERO,
            input_cache_read: cache_read,
            // What goes into a cache is charged as any other input.
            input_cache_write: prompt,
        }
    }
}

fn sats_pricing(offer: &Offer) -> SatsPricing {
    let (model, price) = (&offer.model, &offer.price);
    let times =
        |rate: Rate, units: u64| u128::from(rate.nano_msat()).saturating_mul(u128::from(units));
    let sats = |nano_msat: u128| Number { digits: nano_msat, places: SAT_PLACES };
    let per_unit = |rate: Rate| sats(u128::from(rate.nano_msat()));
    let prompt = times(price.input, model.context_length);
    let completion = times(price.output, model.max_output_tokens);
    let request = times(price.request, 1);
    SatsPricing {
        per_unit: PerUnit::new(
            per_unit(price.request),
            per_unit(price.input),
            per_unit(price.cached_input),
            per_unit(price.output),
        ),
        max_prompt_cost: sats(prompt),
        max_completion_cost: sats(completion),
        max_cost: sats(request.saturating_add(prompt).saturating_add(completion)),
    }
}

/// USD as configured where the price is in USD; else by the configured rate. Without a rate
/// nothing is known, and a zero stands where clients insist on a number.
fn usd_pricing(offer: &Offer, btc_usd_cents: Option<u64>) -> PerUnit {
    let written = &offer.model.price;
    let (price, cents) = (&offer.price, u128::from(btc_usd_cents.unwrap_or(0)));
    match written.currency {
        Currency::Usd => {
            let per_token = |amount: Decimal| Number {
                digits: amount.billionths,
                places: BILLIONTH_PLACES + MILLION_PLACES,
            };
            PerUnit::new(
                Number { digits: written.request.billionths, places: BILLIONTH_PLACES },
                per_token(written.input),
                per_token(written.cached_input.unwrap_or(written.input)),
                per_token(written.output),
            )
        }
        Currency::Sat => {
            let usd = |rate: Rate| Number {
                digits: u128::from(rate.nano_msat()).saturating_mul(cents),
                places: SAT_PLACES + BTC_PLACES + CENT_PLACES,
            };
            PerUnit::new(
                usd(price.request),
                usd(price.input),
                usd(price.cached_input),
                usd(price.output),
            )
        }
    }
}

/// An exact decimal, `digits / 10^places`, written as a JSON number.
#[derive(Clone, Copy, Debug)]
struct Number {
    digits: u128,
    places: usize,
}

impl Number {
    const ZERO: Self = Self { digits: 0, places: 0 };
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let padded = format!("{:0width$}", self.digits, width = self.places + 1);
        let (whole, fraction) = padded.split_at(padded.len() - self.places);
        match fraction.trim_end_matches('0') {
            "" => f.write_str(whole),
            fraction => write!(f, "{whole}.{fraction}"),
        }
    }
}

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RawValue::from_string(self.to_string())
            .map_err(serde::ser::Error::custom)?
            .serialize(serializer)
    }
}

/// From nano-msat to sat.
const SAT_PLACES: usize = 12;
const BTC_PLACES: usize = 8;
const CENT_PLACES: usize = 2;
const BILLIONTH_PLACES: usize = 9;
const MILLION_PLACES: usize = 6;

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde_json::Value;

    use super::*;
    use crate::config::{Model, Price as Written};

    fn decimal(billionths: u128) -> Decimal {
        Decimal { billionths }
    }

    fn offer(currency: Currency, price: crate::pricing::Price) -> Offer {
        let model = Model {
            id: "maker/model".to_owned(),
            name: "Model".to_owned(),
            description: String::new(),
            created: 1_700_000_000,
            owned_by: "maker".to_owned(),
            context_length: 8_000,
            max_output_tokens: 1_000,
            upstream_model: "model".to_owned(),
            upstreams: Vec::new(),
            alias_ids: vec!["model".to_owned()],
            price: Written {
                currency,
                input: decimal(150_000_000),
                output: decimal(600_000_000),
                cached_input: None,
                request: decimal(1),
            },
        };
        Offer { model, price }
    }

    fn text_of(value: &impl Serialize) -> String {
        serde_json::to_string(value).unwrap()
    }

    #[test]
    fn a_decimal_is_written_to_its_last_digit_and_no_further() {
        let text = |digits, places| Number { digits, places }.to_string();
        assert_eq!(text(0, 12), "0");
        assert_eq!(text(1, 12), "0.000000000001");
        assert_eq!(text(1_500, 3), "1.5");
        assert_eq!(text(1_000, 3), "1");
        assert_eq!(text(120, 0), "120");
        for digits in [0, 7, 1_000_000, u128::MAX] {
            let written = text(digits, 22);
            assert!(serde_json::from_str::<f64>(&written).is_ok(), "{written}");
        }
    }

    #[test]
    fn prices_in_usd_are_the_configured_ones_to_the_digit() {
        let pricing = text_of(&usd_pricing(&offer(Currency::Usd, Default::default()), None));
        assert!(pricing.contains(r#""prompt":0.00000015,"completion":0.0000006,"#), "{pricing}");
        assert!(pricing.contains(r#""request":0.000000001,"#), "{pricing}");
        assert!(pricing.contains(r#""input_cache_read":0.00000015"#), "{pricing}");
    }

    #[test]
    fn prices_in_sats_are_the_rates_and_bound_the_largest_request() {
        let price = crate::pricing::Price {
            request: Rate::from_nano_msat(2_000_000_000_000),
            input: Rate::from_nano_msat(1_000_000_000),
            cached_input: Rate::from_nano_msat(500_000_000),
            output: Rate::from_nano_msat(3_000_000_000),
        };
        let offer = offer(Currency::Sat, price);
        let sats = text_of(&sats_pricing(&offer));
        assert!(sats.contains(r#""prompt":0.001,"completion":0.003,"request":2,"#), "{sats}");
        assert!(sats.contains(r#""input_cache_read":0.0005,"input_cache_write":0.001"#), "{sats}");
        assert!(sats.contains(r#""max_prompt_cost":8,"max_completion_cost":3,"max_cost":13"#));
        // At 100,000 USD one sat is a tenth of a cent.
        let usd = text_of(&usd_pricing(&offer, Some(10_000_000)));
        assert!(usd.contains(r#""prompt":0.000001,"completion":0.000003,"request":0.002,"#));
    }

    #[test]
    fn every_entry_has_every_number_that_strict_clients_read() {
        for (currency, cents) in
            [(Currency::Sat, None), (Currency::Sat, Some(1)), (Currency::Usd, None)]
        {
            let entry = Entry::of(&offer(currency, Default::default()), cents);
            let entry: Value = serde_json::from_str(&text_of(&entry)).unwrap();
            for prices in ["pricing", "sats_pricing"] {
                let prices: HashMap<String, Value> =
                    serde_json::from_value(entry[prices].clone()).unwrap();
                for name in REQUIRED {
                    assert!(prices[name].is_number(), "{name}");
                }
            }
            assert!(entry["created"].is_u64() && entry["sats_pricing"]["max_cost"].is_number());
        }
    }

    const REQUIRED: [&str; 6] =
        ["prompt", "completion", "request", "image", "web_search", "internal_reasoning"];
}
