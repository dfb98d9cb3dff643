//! All that is on offer at one rate of the dollar.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Offer, Prices, Served};
use crate::config;

/// All models on offer, by id and by alias; replaced whole.
#[derive(Clone, Debug, Default)]
pub struct PriceList {
    pub offers: Vec<Arc<Offer>>,
    /// The rate of all that is dollars here; `None` when there is none that may be used.
    pub btc_usd_cents: Option<u64>,
    /// Nothing where a model has no price now.
    by_name: HashMap<String, Option<Arc<Offer>>>,
}

/// What is known of a model by some name.
#[derive(Clone, Copy, Debug)]
pub enum Lookup<'l> {
    Offer(&'l Arc<Offer>),
    /// It is for sale, but its price in sats is not known now: it follows a rate of the dollar
    /// that is missing or out of date.
    NoRate,
    Unknown,
}

impl PriceList {
    /// What these models cost at a rate. Models that passed the checks of a configuration are
    /// missing only for want of a rate; of two with one name the first has it.
    pub fn new(models: &[config::Model], btc_usd_cents: Option<u64>) -> Self {
        let mut list = Self { btc_usd_cents, ..Self::default() };
        for model in models {
            let offer = Offer::new(model, btc_usd_cents).map(Arc::new);
            for name in std::iter::once(&model.id).chain(&model.alias_ids) {
                list.by_name.entry(name.clone()).or_insert_with(|| offer.clone());
            }
            list.offers.extend(offer);
        }
        list
    }

    /// By id or alias.
    pub fn find(&self, name: &str) -> Lookup<'_> {
        match self.by_name.get(name) {
            Some(Some(offer)) => Lookup::Offer(offer),
            Some(None) => Lookup::NoRate,
            None => Lookup::Unknown,
        }
    }
}

impl<'l> Lookup<'l> {
    pub fn offer(self) -> Option<&'l Arc<Offer>> {
        match self {
            Self::Offer(offer) => Some(offer),
            Self::NoRate | Self::Unknown => None,
        }
    }
}

impl Offer {
    /// `None` when no upstream has a price at this rate.
    pub fn new(model: &config::Model, btc_usd_cents: Option<u64>) -> Option<Self> {
        let mut needs_rate = false;
        let mut served = Vec::with_capacity(model.upstreams.len());
        for by in &model.upstreams {
            let written = model.price_at(by);
            let Ok(prices) = Prices::new(written, btc_usd_cents) else { continue };
            needs_rate |= written.needs_dollar_rate();
            served.push(Served {
                upstream: by.upstream.clone(),
                upstream_model: by.upstream_model.clone(),
                weight: by.weight,
                prices,
            });
        }
        let btc_usd_cents = btc_usd_cents.filter(|_| needs_rate);
        (!served.is_empty()).then(|| Self { model: model.clone(), served, btc_usd_cents })
    }
}
