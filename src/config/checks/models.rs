//! The models: what is for sale and who serves it.

use std::ops::RangeInclusive;

use lua_free_filters::Route;

use super::super::mistake::{KeyPath, did_you_mean};
use super::super::scalars::{Sold, Whole};
use super::super::{ImageTokens, Model, Price, ServedBy, WEB_SEARCHES_MAX, WEIGHT_MAX, schema};
use super::prices::{self, Terms};
use super::{COUNT_MAX, Checks, Names};

/// What the models refer to outside themselves.
pub(super) struct Market<'a> {
    pub(super) upstream_names: &'a [String],
    /// The fixed rate of the dollar.
    pub(super) btc_usd_cents: Option<u64>,
    /// Whether there will be a rate: that one, or one that is fetched.
    pub(super) has_dollar_rate: bool,
}

impl Checks<'_> {
    pub(super) fn models(
        &mut self,
        models: Vec<Option<schema::Model>>,
        market: &Market<'_>,
    ) -> Vec<Model> {
        let mut names = Names::default();
        let mut checked = Vec::new();
        for (model, at) in self.elements(models, &KeyPath::from("models")) {
            checked.push(self.model(model, market, &mut names, &at));
        }
        checked
    }

    fn model(
        &mut self,
        mut model: schema::Model,
        market: &Market<'_>,
        names: &mut Names,
        at: &KeyPath,
    ) -> Model {
        let default = Model::default();
        let routes = self.routes(model.routes.take(), &prices::all(&model), &at.key("routes"));
        let id = self.word(model.id, &at.key("id"));
        self.unique(names, &id, &at.key("id"));
        let alias_ids = self.aliases(model.aliases, names, &at.key("aliases"));
        let upstream_model = match model.upstream_model {
            Some(name) => self.word(Some(name), &at.key("upstream_model")),
            None => id.clone(),
        };
        let terms = Terms { routes: &routes, market };
        let price = self.price(model.price, &terms, &at.key("price"));
        let upstreams =
            self.served_by(model.upstreams, &terms, &upstream_model, &at.key("upstreams"));
        let output_at = at.key("max_output_tokens");
        let bounds_output = routes.iter().copied().any(prices::writes_text)
            || price.charges_output()
            || upstreams.iter().filter_map(|by| by.price.as_ref()).any(Price::charges_output);
        let max_output_tokens = if bounds_output {
            self.count(model.max_output_tokens, &output_at)
        } else {
            self.within(model.max_output_tokens, 0, 0..=COUNT_MAX, &output_at)
        };
        Model {
            context_length: self.count(model.context_length, &at.key("context_length")),
            max_output_tokens,
            routes,
            upstreams,
            select: model.select.unwrap_or_default(),
            output_limit_field: model.output_limit_field.unwrap_or_default(),
            image_tokens: self.image_tokens(model.image_tokens, &at.key("image_tokens")),
            web_searches_max: self.within(
                model.web_searches_max,
                default.web_searches_max,
                0..=WEB_SEARCHES_MAX,
                &at.key("web_searches_max"),
            ),
            abort: model.abort.unwrap_or_default(),
            missing_usage: model.missing_usage.unwrap_or_default(),
            price,
            name: model.name.unwrap_or_else(|| id.clone()),
            description: model.description.unwrap_or_default(),
            created: model.created.map_or(0, |whole| whole.0),
            owned_by: model.owned_by.unwrap_or(default.owned_by),
            upstream_model,
            alias_ids,
            id,
        }
    }

    fn aliases(
        &mut self,
        aliases: Option<Vec<Option<String>>>,
        names: &mut Names,
        at: &KeyPath,
    ) -> Vec<String> {
        let mut checked = Vec::new();
        for (alias, at) in self.elements(aliases.unwrap_or_default(), at) {
            let alias = self.word(Some(alias), &at);
            self.unique(names, &alias, &at);
            checked.push(alias);
        }
        checked
    }

    fn served_by(
        &mut self,
        upstreams: Option<Vec<Option<schema::ServedBy>>>,
        terms: &Terms<'_>,
        upstream_model: &str,
        at: &KeyPath,
    ) -> Vec<ServedBy> {
        let upstreams = upstreams.unwrap_or_default();
        if upstreams.is_empty() {
            self.found.add(at.clone(), "is required: the upstreams that serve this model");
        }
        let known = terms.market.upstream_names;
        let mut names = Names::default();
        let mut checked = Vec::new();
        for (served_by, at) in self.elements(upstreams, at) {
            // A name alone stands where the mapping would.
            let name_at = if served_by.is_mapping { at.key("name") } else { at.clone() };
            let Some(upstream) = self.required(served_by.name, &name_at) else { continue };
            if !known.contains(&upstream) {
                let hint = did_you_mean(&upstream, known.iter().map(String::as_str));
                self.found.add(name_at, format!("there is no upstream `{upstream}`{hint}"));
                continue;
            }
            self.unique(&mut names, &upstream, &name_at);
            let weight = self.within(served_by.weight, 1, 1..=WEIGHT_MAX, &at.key("weight"));
            checked.push(ServedBy {
                upstream,
                weight: u32::try_from(weight).unwrap_or(u32::MAX),
                upstream_model: match served_by.upstream_model {
                    Some(name) => self.word(Some(name), &at.key("upstream_model")),
                    None => upstream_model.to_owned(),
                },
                price: served_by
                    .price
                    .map(|price| self.price(Some(price), terms, &at.key("price"))),
            });
        }
        checked
    }

    /// Those that are named, or all that every price of the model covers.
    fn routes(
        &mut self,
        given: Option<Vec<Option<Sold>>>,
        prices: &[&schema::Price],
        at: &KeyPath,
    ) -> Vec<Route> {
        let Some(given) = given else {
            let covered = |route: &Route| prices.iter().all(|price| prices::covers(price, *route));
            return Route::ALL.into_iter().filter(covered).collect();
        };
        if given.is_empty() {
            self.found.add(at.clone(), "names no route; leave it out for all that have a price");
        }
        let mut named = Vec::new();
        for (Sold(route), at) in self.elements(given, at) {
            if named.contains(&route) {
                self.found.add(at, "is named twice");
            }
            named.push(route);
        }
        Route::ALL.into_iter().filter(|route| named.contains(route)).collect()
    }

    fn image_tokens(
        &mut self,
        given: Option<schema::ImageTokens>,
        at: &KeyPath,
    ) -> Option<ImageTokens> {
        let given = given?;
        let low = self.required(given.low, &at.key("low"));
        let high = self.required(given.high, &at.key("high"));
        Some(ImageTokens {
            low: self.within(low, 0, 0..=COUNT_MAX, &at.key("low")),
            high: self.within(high, 0, 0..=COUNT_MAX, &at.key("high")),
        })
    }

    /// A count that may be left out.
    fn within(
        &mut self,
        given: Option<Whole>,
        default: u64,
        bounds: RangeInclusive<u64>,
        at: &KeyPath,
    ) -> u64 {
        let count = given.map_or(default, |whole| whole.0);
        if !bounds.contains(&count) {
            let (least, most) = bounds.into_inner();
            self.found.add(at.clone(), format!("must be from {least} to {most}"));
        }
        count
    }
}
