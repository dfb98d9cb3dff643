//! The models: what is for sale, who serves it and what it costs.

use super::super::mistake::{KeyPath, did_you_mean};
use super::super::scalars::Whole;
use super::super::{Currency, Decimal, Model, Price, schema};
use super::{Checks, Names};
use crate::pricing;

impl Checks<'_> {
    pub(super) fn models(
        &mut self,
        models: Vec<Option<schema::Model>>,
        upstream_names: &[String],
        btc_usd_cents: Option<u64>,
    ) -> Vec<Model> {
        let mut names = Names::default();
        let mut checked = Vec::new();
        for (model, at) in self.elements(models, &KeyPath::from("models")) {
            let id = self.word(model.id, &at.key("id"));
            self.unique(&mut names, &id, &at.key("id"));
            let mut alias_ids = Vec::new();
            let aliases = model.aliases.unwrap_or_default();
            for (alias, at) in self.elements(aliases, &at.key("aliases")) {
                let alias = self.word(Some(alias), &at);
                self.unique(&mut names, &alias, &at);
                alias_ids.push(alias);
            }
            let whole = |given: Option<Whole>| given.map_or(0, |whole| whole.0);
            checked.push(Model {
                context_length: self.count(model.context_length, &at.key("context_length")),
                max_output_tokens: self
                    .count(model.max_output_tokens, &at.key("max_output_tokens")),
                upstreams: self.served_by(model.upstreams, upstream_names, &at.key("upstreams")),
                price: self.price(model.price, btc_usd_cents, &at.key("price")),
                name: model.name.unwrap_or_else(|| id.clone()),
                description: model.description.unwrap_or_default(),
                created: whole(model.created),
                owned_by: model.owned_by.unwrap_or_else(|| "nutgate".to_owned()),
                upstream_model: match model.upstream_model {
                    Some(name) => self.word(Some(name), &at.key("upstream_model")),
                    None => id.clone(),
                },
                alias_ids,
                id,
            });
        }
        checked
    }

    fn served_by(
        &mut self,
        upstreams: Option<Vec<Option<String>>>,
        known: &[String],
        at: &KeyPath,
    ) -> Vec<String> {
        let upstreams = upstreams.unwrap_or_default();
        if upstreams.is_empty() {
            self.found.add(at.clone(), "is required: the upstreams that serve this model");
        }
        let mut names = Names::default();
        let mut checked = Vec::new();
        for (upstream, at) in self.elements(upstreams, at) {
            if !known.contains(&upstream) {
                let hint = did_you_mean(&upstream, known.iter().map(String::as_str));
                self.found.add(at, format!("there is no upstream `{upstream}`{hint}"));
                continue;
            }
            self.unique(&mut names, &upstream, &at);
            checked.push(upstream);
        }
        checked
    }

    fn price(
        &mut self,
        price: Option<schema::Price>,
        btc_usd_cents: Option<u64>,
        at: &KeyPath,
    ) -> Price {
        let Some(price) = price else {
            self.found.add(at.clone(), "is required; a model without a price would be free");
            return NO_PRICE;
        };
        let checked = Price {
            currency: self.required(price.currency, &at.key("currency")).unwrap_or(Currency::Sat),
            input: self.required(price.input, &at.key("input")).unwrap_or_default(),
            output: self.required(price.output, &at.key("output")).unwrap_or_default(),
            cached_input: price.cached_input,
            request: price.request.unwrap_or_default(),
        };
        if let Err(problems) = pricing::Price::new(&checked, btc_usd_cents) {
            for (key, problem) in problems {
                self.found.add(at.key(key), problem);
            }
        }
        checked
    }

    /// Exact to the cent. A rate with a mistake of its own still counts as one, or every model
    /// priced in dollars would seem wrong.
    pub(super) fn btc_usd_cents(&mut self, rate: Option<Decimal>) -> Option<u64> {
        const BILLIONTHS_PER_CENT: u128 = 10_000_000;
        let at = KeyPath::from("btc_usd");
        let stand_in = Decimal { billionths: 100_000 * 1_000_000_000 };
        let rate = rate.or_else(|| self.found.has(&at).then_some(stand_in))?;
        if rate.billionths == 0 {
            self.found.add(at, "must be more than 0; null for no rate");
        } else if !rate.billionths.is_multiple_of(BILLIONTHS_PER_CENT) {
            self.found.add(at, "has more than two decimals");
        }
        let cents = u64::try_from(rate.billionths / BILLIONTHS_PER_CENT);
        Some(cents.unwrap_or(u64::MAX).max(1))
    }
}

const NO_PRICE: Price = Price {
    currency: Currency::Sat,
    input: Decimal { billionths: 0 },
    output: Decimal { billionths: 0 },
    cached_input: None,
    request: Decimal { billionths: 0 },
};
