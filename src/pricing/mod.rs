//! Prices: what a model costs, the ceiling of a request, the cost of usage.
//!
//! Pure, and integers only. A sum is exact until it is rounded up, once, to the msat.

#![cfg_attr(
    not(test),
    warn(clippy::arithmetic_side_effects, clippy::as_conversions, clippy::float_arithmetic)
)]

mod rates;
mod show;

use std::collections::HashMap;
use std::sync::Arc;

use lua_free_filters::usage::{Delivered, Tokens};

use crate::config::{self, Config};
use crate::money::{Exact, Msat, Rate};

/// The rates of one model: per request, and per input and output token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Price {
    pub request: Rate,
    pub input: Rate,
    pub cached_input: Rate,
    pub output: Rate,
}

/// A cost and its parts, which add up to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    pub total: Msat,
    /// Input that was not read from a cache.
    pub input: Msat,
    pub output: Msat,
    pub cache_read: Msat,
    /// The fee per request.
    pub base: Msat,
}

/// One model on offer.
#[derive(Clone, Debug)]
pub struct Offer {
    pub model: config::Model,
    pub price: Price,
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
    /// The most a request can cost: each of its bytes an input token, and the whole output limit
    /// for each of `n` choices (0 counts as 1).
    ///
    /// No tokenizer makes more than one token of a byte, so the body's length bounds the text in
    /// it. It does not bound what the body only points at, such as an image behind a URL: what
    /// that adds is a shortfall if the balance does not cover it. How much will be read from a
    /// cache is not known beforehand, so the dearer of the two input rates counts.
    pub fn ceiling(&self, body_bytes: u64, output_limit: u64, n: u64) -> Msat {
        self.request
            .times(1)
            .plus(self.input.max(self.cached_input).times(body_bytes))
            .plus(self.output.times(output_limit).repeated(n.max(1)))
            .round_up()
    }

    /// What this usage costs. Cached input is part of the input and is counted once; more of
    /// it than there is input counts as all of the input.
    ///
    /// Each part is the rounded sum so far less the rounded sum before it, so the parts add up to
    /// the total, which is rounded once.
    pub fn cost(&self, tokens: &Tokens) -> Cost {
        let cached_input = tokens.cached_input.min(tokens.input);
        let fresh_input = tokens.input.saturating_sub(cached_input);
        let mut sum = Exact::default();
        let mut total = Msat::ZERO;
        let mut part = |exact: Exact| {
            sum = sum.plus(exact);
            let before = total;
            total = sum.round_up();
            total.saturating_sub(before)
        };
        let base = part(self.request.times(1));
        let input = part(self.input.times(fresh_input));
        let cache_read = part(self.cached_input.times(cached_input));
        let output = part(self.output.times(tokens.output));
        Cost { total, input, output, cache_read, base }
    }
}

/// What was used when the upstream did not say, from what passed by.
///
/// Nothing delivered, nothing used. Otherwise four bytes are one token, the common ratio of
/// English text, rounded up; and every event that gave something is at least one token of
/// output, since upstreams send an event for one or more of them. The input is never above what
/// [`Price::ceiling`] reserved for it; the output is not bounded by the request's limit.
pub fn estimate(body_bytes: u64, delivered: &Delivered) -> Tokens {
    if delivered.events == 0 && delivered.text_bytes == 0 {
        return Tokens { input: 0, cached_input: 0, output: 0 };
    }
    Tokens {
        input: body_bytes.div_ceil(BYTES_PER_UNIT),
        cached_input: 0,
        output: delivered.events.max(delivered.text_bytes.div_ceil(BYTES_PER_UNIT)),
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
            let offer = Arc::new(Offer { model: model.clone(), price });
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
