//! Everything that a price list is made of, and the one place where a list is put together.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use super::Shelf;
use crate::config::{Config, Model};
use crate::pricing::PriceList;

/// What is for sale and at which rate. Every change puts a new list on the shelf.
#[derive(Debug)]
pub(super) struct Stock {
    shelf: Shelf,
    parts: Mutex<Parts>,
}

#[derive(Debug)]
struct Parts {
    configured: Vec<Model>,
    /// By upstream, in the order of the configuration.
    listed: Vec<Vec<Model>>,
    btc_usd_cents: Option<u64>,
}

impl Stock {
    /// What the configuration says, which is all that is known at first.
    pub(super) fn new(config: &Config) -> Self {
        let parts = Parts {
            configured: config.models.clone(),
            listed: vec![Vec::new(); config.upstreams.len()],
            btc_usd_cents: config.btc_usd_cents,
        };
        Self { shelf: Shelf::new(parts.list()), parts: Mutex::new(parts) }
    }

    pub(super) fn shelf(&self) -> &Shelf {
        &self.shelf
    }

    /// From now on a bitcoin costs this, or nobody knows.
    pub(super) fn rate(&self, btc_usd_cents: Option<u64>) {
        self.change(|parts| parts.btc_usd_cents = btc_usd_cents);
    }

    /// From now on this upstream lists these.
    pub(super) fn listed(&self, upstream: usize, models: Vec<Model>) {
        self.change(|parts| {
            if let Some(listed) = parts.listed.get_mut(upstream) {
                *listed = models;
            }
        });
    }

    /// Nothing that somebody has to keep up to date.
    pub(super) fn withdraw(&self) {
        self.change(|parts| {
            parts.listed.iter_mut().for_each(Vec::clear);
            parts.btc_usd_cents = None;
        });
    }

    fn change(&self, change: impl FnOnce(&mut Parts)) {
        // Nobody but the catalogue's own thread takes this lock.
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut parts);
        self.shelf.replace(parts.list());
    }
}

impl Parts {
    /// Those of the configuration win over what is listed, and an upstream over those after it:
    /// a model of which a name is taken is not offered.
    fn list(&self) -> PriceList {
        let mut taken = HashSet::new();
        let mut models = Vec::new();
        for model in self.configured.iter().chain(self.listed.iter().flatten()) {
            let names = || std::iter::once(&model.id).chain(&model.alias_ids);
            if names().any(|name| taken.contains(name)) {
                continue;
            }
            taken.extend(names());
            models.push(model.clone());
        }
        PriceList::new(&models, self.btc_usd_cents)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Machine;

    const CONFIG: &str = "
upstreams:
  - {name: one, base_url: 'https://one.example', models: {}}
  - {name: two, base_url: 'https://two.example', models: {}}
btc_usd_feed: {sources: [{url: 'https://rate.example', path: a}], sources_min: 1}
models:
  - {id: sats, context_length: 1, max_output_tokens: 1, upstreams: [one], aliases: [other],
     price: {currency: sat, input: 1, output: 1}}
  - {id: dollars, context_length: 1, max_output_tokens: 1, upstreams: [one],
     price: {currency: usd, input: 1, output: 1, request: 100}}
";

    fn stock() -> Stock {
        Stock::new(&Config::parse("test", CONFIG, &Machine).unwrap())
    }

    /// A model like that of the configuration in sats, but for its id and who serves it.
    fn listed(stock: &Stock, id: &str, name: &str) -> Model {
        let like = stock.parts.lock().unwrap().configured[0].clone();
        Model { id: id.to_owned(), name: name.to_owned(), alias_ids: Vec::new(), ..like }
    }

    fn offered(stock: &Stock) -> Vec<String> {
        let list = stock.shelf().now();
        list.offers.iter().map(|offer| format!("{} {}", offer.model.id, offer.model.name)).collect()
    }

    #[test]
    fn a_price_in_dollars_is_offered_while_there_is_a_rate() {
        let stock = stock();
        assert_eq!(offered(&stock), ["sats sats"]);
        stock.rate(Some(10_000_000));
        assert_eq!(offered(&stock), ["sats sats", "dollars dollars"]);
        assert_eq!(stock.shelf().now().btc_usd_cents, Some(10_000_000));
        stock.rate(None);
        assert_eq!(offered(&stock), ["sats sats"]);
    }

    #[test]
    fn a_model_that_cannot_be_priced_at_a_rate_takes_nobody_with_it() {
        let stock = stock();
        stock.listed(0, vec![listed(&stock, "new", "new")]);
        stock.rate(Some(1));
        assert_eq!(offered(&stock), ["sats sats", "new new"]);
    }

    #[test]
    fn the_configuration_wins_over_a_list_and_a_list_over_those_after_it() {
        let stock = stock();
        let of = |id, name| listed(&stock, id, name);
        stock.listed(1, vec![of("both", "two"), of("second", "two")]);
        stock.listed(0, vec![of("both", "one"), of("sats", "one"), of("other", "one")]);
        assert_eq!(offered(&stock), ["sats sats", "both one", "second two"]);
        stock.listed(0, Vec::new());
        assert_eq!(offered(&stock), ["sats sats", "both two", "second two"]);
        stock.rate(Some(10_000_000));
        stock.withdraw();
        assert_eq!(offered(&stock), ["sats sats"]);
    }
}
