//! Prices: what a model costs, the ceiling of a request, the cost of usage. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use lua_free_filters::usage::{Delivered, Tokens};

use crate::config;
use crate::money::{Msat, Rate};

/// The prices of one model.
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

impl Price {
    /// The most a request can cost: each of its bytes an input token, and the whole output
    /// limit for each of `n` choices.
    pub fn ceiling(&self, _body_bytes: u64, _output_limit: u64, _n: u64) -> Msat {
        Msat::ZERO
    }

    pub fn cost(&self, _tokens: &Tokens) -> Cost {
        Cost::default()
    }
}

/// What was used when the upstream did not say: a documented ratio over what was delivered.
pub fn estimate(_body_bytes: u64, _delivered: &Delivered) -> Tokens {
    Tokens { input: 0, cached_input: 0, output: 0 }
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

impl PriceList {
    pub fn find(&self, name: &str) -> Option<&Arc<Offer>> {
        self.by_name.get(name)
    }
}
