//! Prices: what a model costs, the ceiling of a request, the cost of usage.
//!
//! Pure, and integers only. A sum is exact until it is rounded up, once, to the msat.

#![cfg_attr(
    not(test),
    warn(clippy::arithmetic_side_effects, clippy::as_conversions, clippy::float_arithmetic)
)]

pub mod feed;
mod rates;
mod show;

use std::collections::HashMap;
use std::sync::Arc;

use lua_free_filters::usage::{Counts, Delivered};

use crate::config::{self, Config};
use crate::money::{Exact, Msat, Rate};

/// What one request is charged by: a rate for every unit of [`Counts`], and one per request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Price {
    pub request: Rate,
    pub input: Rate,
    /// Instead of `input`, for input read from a cache.
    pub cached_input: Rate,
    /// Instead of `input`, for input written to a cache.
    pub cache_write: Rate,
    pub output: Rate,
    /// Instead of `output`, for reasoning.
    pub reasoning: Rate,
    /// Per image in the prompt, beside what its tokens cost.
    pub input_image: Rate,
    /// Per image made, of the size and quality that were asked for.
    pub image: Rate,
    pub web_search: Rate,
    /// Per millisecond.
    pub audio: Rate,
    pub character: Rate,
    pub search_unit: Rate,
    /// Per 10^-9 dollars of the upstream's own cost: where it told that, instead of all else but
    /// `request`. Free means that it is not asked about.
    pub upstream_cost: Rate,
}

/// The price of a model at one of its upstreams: [`Price`], and a row for each kind of image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prices {
    /// `image` is that of the first row.
    pub price: Price,
    pub images: Vec<ImageRow>,
}

/// What an image of one size and quality costs; `None` stands for any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageRow {
    pub size: Option<String>,
    pub quality: Option<String>,
    pub rate: Rate,
}

/// One upstream that serves a model, what it calls the model, and what it costs there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Served {
    pub upstream: String,
    pub upstream_model: String,
    /// Its share of the requests where upstreams are chosen by weight; at least 1.
    pub weight: u32,
    pub prices: Prices,
}

/// A cost and its parts, which add up to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    pub total: Msat,
    /// Input that was not read from a cache.
    pub input: Msat,
    pub output: Msat,
    pub cache_read: Msat,
    pub cache_creation: Msat,
    /// The fee per request, and what is counted by the piece: searches.
    pub base: Msat,
}

/// One model on offer.
#[derive(Clone, Debug)]
pub struct Offer {
    pub model: config::Model,
    /// In the order of the configuration; never empty.
    pub served: Vec<Served>,
}

impl Offer {
    /// What the first upstream's price is: the one that is published first.
    pub fn price(&self) -> Price {
        self.served.first().map_or_else(Price::default, |served| served.prices.price)
    }
}

/// All models on offer, by id and by alias; replaced whole.
#[derive(Clone, Debug, Default)]
pub struct PriceList {
    pub offers: Vec<Arc<Offer>>,
    pub by_name: HashMap<String, Arc<Offer>>,
    /// For the USD figures of answers; a fixed rate for now.
    pub btc_usd_cents: Option<u64>,
}

impl Price {
    /// The most that a request can cost which uses no more than `most`. How much will be read
    /// from a cache, written to one or spent on reasoning is not known beforehand, so the dearest
    /// of the rates that may apply counts.
    pub fn ceiling(&self, most: &Counts) -> Msat {
        let input = self.input.max(self.cached_input).max(self.cache_write);
        let dearest = Self {
            input,
            cached_input: input,
            cache_write: input,
            output: self.output.max(self.reasoning),
            reasoning: self.output.max(self.reasoning),
            ..*self
        };
        dearest.cost(&Counts { cost_nano_usd: None, ..*most }).total
    }

    /// What this usage costs. Cached input is part of the input and is counted once; more of
    /// it than there is input counts as all of the input.
    ///
    /// Each part is the rounded sum so far less the rounded sum before it, so the parts add up to
    /// the total, which is rounded once.
    pub fn cost(&self, counts: &Counts) -> Cost {
        let cached_input = counts.cached_input.min(counts.input);
        let cache_write = counts.cache_write.min(counts.input.saturating_sub(cached_input));
        let fresh_input = counts.input.saturating_sub(cached_input).saturating_sub(cache_write);
        let reasoning = counts.reasoning.min(counts.output);
        let mut sum = Exact::default();
        let mut total = Msat::ZERO;
        let mut part = |exact: Exact| {
            sum = sum.plus(exact);
            let before = total;
            total = sum.round_up();
            total.saturating_sub(before)
        };
        let base = part(self.request.times(1).plus(self.web_search.times(counts.web_searches)));
        let input = part(
            self.input
                .times(fresh_input)
                .plus(self.input_image.times(counts.input_images))
                .plus(self.audio.times(counts.audio_ms))
                .plus(self.character.times(counts.characters))
                .plus(self.search_unit.times(counts.search_units)),
        );
        let cache_read = part(self.cached_input.times(cached_input));
        let cache_creation = part(self.cache_write.times(cache_write));
        let output = part(
            self.output
                .times(counts.output.saturating_sub(reasoning))
                .plus(self.reasoning.times(reasoning))
                .plus(self.image.times(counts.images)),
        );
        Cost { total, input, output, cache_read, cache_creation, base }
    }
}

/// What was used when the upstream did not say, from what passed by.
///
/// Nothing delivered, nothing used. Otherwise four bytes are one token, the common ratio of
/// English text, rounded up; and every event that gave something is at least one token of
/// output, since upstreams send an event for one or more of them. The input is never above what
/// [`Price::ceiling`] reserved for it; the output is not bounded by the request's limit.
pub fn estimate(body_bytes: u64, delivered: &Delivered) -> Counts {
    if delivered.events == 0 && delivered.text_bytes == 0 {
        return Counts::default();
    }
    Counts {
        input: body_bytes.div_ceil(BYTES_PER_UNIT),
        output: delivered.events.max(delivered.text_bytes.div_ceil(BYTES_PER_UNIT)),
        ..Counts::NONE
    }
}

impl PriceList {
    /// The offers of a configuration, or what is wrong, each with the path of its key. A
    /// configuration that was parsed has passed this already.
    pub fn new(config: &Config) -> Result<Self, Vec<(String, String)>> {
        let mut list = Self { btc_usd_cents: config.btc_usd_cents, ..Self::default() };
        let mut problems = Vec::new();
        for (index, model) in config.models.iter().enumerate() {
            let price = match Price::new(&model.price, config.btc_usd_cents) {
                Ok(price) => price,
                Err(wrong) => {
                    let at = |key| format!("models[{index}].price.{key}");
                    problems.extend(wrong.into_iter().map(|(key, message)| (at(key), message)));
                    continue;
                }
            };
            let served = model.upstreams.iter().map(|upstream| Served {
                upstream: upstream.clone(),
                upstream_model: model.upstream_model.clone(),
                weight: 1,
                prices: Prices { price, images: Vec::new() },
            });
            let offer = Arc::new(Offer { model: model.clone(), served: served.collect() });
            for name in std::iter::once(&model.id).chain(&model.alias_ids) {
                if list.by_name.insert(name.clone(), offer.clone()).is_some() {
                    let message = format!("`{name}` names two models");
                    problems.push((format!("models[{index}].id"), message));
                }
            }
            list.offers.push(offer);
        }
        if problems.is_empty() { Ok(list) } else { Err(problems) }
    }

    /// By id or alias.
    pub fn find(&self, name: &str) -> Option<&Arc<Offer>> {
        self.by_name.get(name)
    }
}

const BYTES_PER_UNIT: u64 = 4;

#[cfg(test)]
mod tests;
