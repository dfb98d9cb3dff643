//! Prices: what must have one, and what can be charged at all.

use lua_free_filters::Route;

use super::super::mistake::KeyPath;
use super::super::{AudioPrice, Currency, Decimal, ImagePrice, Price, ROUTE_NAMES, schema};
use super::models::Market;
use super::{Checks, IS_REQUIRED};
use crate::pricing::Prices;

/// What a price is checked against.
pub(super) struct Terms<'a> {
    /// The routes that are sold at it.
    pub(super) routes: &'a [Route],
    pub(super) market: &'a Market<'a>,
}

impl Checks<'_> {
    pub(super) fn price(
        &mut self,
        price: Option<schema::Price>,
        terms: &Terms<'_>,
        at: &KeyPath,
    ) -> Price {
        let Some(price) = price else {
            self.found.add(at.clone(), "is required; a model without a price would be free");
            return Price::default();
        };
        for route in terms.routes {
            self.is_billed(&price, *route, at);
        }
        let or_free = Option::<Decimal>::unwrap_or_default;
        let checked = Price {
            currency: self.required(price.currency, &at.key("currency")).unwrap_or(Currency::Sat),
            input: self.required(price.input, &at.key("input")).unwrap_or_default(),
            output: or_free(price.output),
            cached_input: price.cached_input,
            cache_write: price.cache_write,
            reasoning: price.reasoning,
            request: or_free(price.request),
            input_image: or_free(price.input_image),
            web_search: or_free(price.web_search),
            audio: self.audio(price.audio_second, price.audio_minute, at),
            images: self.images(price.images.unwrap_or_default(), &at.key("images")),
            characters: or_free(price.characters),
            search_unit: or_free(price.search_unit),
            upstream_cost: or_free(price.upstream_cost),
        };
        self.can_be_charged(&checked, terms.market, at);
        checked
    }

    /// A route whose own unit had no price would be free.
    fn is_billed(&mut self, price: &schema::Price, route: Route, at: &KeyPath) {
        let keys = billed_by(route);
        let Some(first) = keys.first() else { return };
        if keys.iter().any(|key| names(price, key)) {
            return;
        }
        let named = ROUTE_NAMES.iter().find(|(_, known)| *known == route);
        let route = named.map_or("", |(name, _)| name);
        let problem = match keys {
            ["output"] => IS_REQUIRED.to_owned(),
            _ => {
                let keys = keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>();
                format!("one of {} is required: `{route}` is billed by it", keys.join(", "))
            }
        };
        self.found.add(at.key(first), problem);
    }

    fn audio(
        &mut self,
        second: Option<Decimal>,
        minute: Option<Decimal>,
        at: &KeyPath,
    ) -> AudioPrice {
        match (second, minute) {
            (None, None) => AudioPrice::None,
            (Some(second), None) => AudioPrice::PerSecond(second),
            (None, Some(minute)) => AudioPrice::PerMinute(minute),
            (Some(_), Some(minute)) => {
                let problem = "prices the same as `audio_second`; give one of them";
                self.found.add(at.key("audio_minute"), problem);
                AudioPrice::PerMinute(minute)
            }
        }
    }

    fn images(&mut self, rows: Vec<Option<schema::ImagePrice>>, at: &KeyPath) -> Vec<ImagePrice> {
        let mut checked: Vec<ImagePrice> = Vec::new();
        for (row, at) in self.elements(rows, at) {
            let mut kind = |given: Option<String>, key: &str| {
                let given = self.word(Some(given?), &at.key(key));
                if given == AUTO {
                    let problem = "is the upstream's choice; the price for it is the first row's";
                    self.found.add(at.key(key), problem);
                }
                Some(given)
            };
            let (size, quality) = (kind(row.size, "size"), kind(row.quality, "quality"));
            if checked.iter().any(|row| row.size == size && row.quality == quality) {
                self.found.add(at.clone(), "a row above is for the same images");
            }
            let price = self.required(row.price, &at.key("price")).unwrap_or_default();
            checked.push(ImagePrice { size, quality, price });
        }
        checked
    }

    fn can_be_charged(&mut self, price: &Price, market: &Market<'_>, at: &KeyPath) {
        if price.needs_dollar_rate() && !market.has_dollar_rate {
            let (key, what) = match price.currency {
                Currency::Usd => ("currency", "a price in usd"),
                Currency::Sat => ("upstream_cost", "a cost in usd"),
            };
            self.found.add(at.key(key), format!("{what} needs `btc_usd` or `btc_usd_feed`"));
            return;
        }
        let cents = market.btc_usd_cents.unwrap_or(BTC_USD_CENTS_LOW);
        for wrong in Prices::new(price, Some(cents)).err().into_iter().flatten() {
            let at = match wrong.row {
                Some(row) => at.key("images").index(row).key("price"),
                None => at.key(wrong.key),
            };
            self.found.add(at, wrong.problem);
        }
    }
}

impl Price {
    pub(super) fn charges_output(&self) -> bool {
        self.output.billionths > 0 || self.reasoning.is_some_and(|price| price.billionths > 0)
    }
}

/// Every price that a model has: its own and those of its upstreams.
pub(super) fn all(model: &schema::Model) -> Vec<&schema::Price> {
    let upstreams = model.upstreams.iter().flatten().flatten();
    model.price.iter().chain(upstreams.filter_map(|by| by.price.as_ref())).collect()
}

/// Whether a model of this price is sold on a route without being told so: text always, the rest
/// where its own unit has a price.
pub(super) fn covers(price: &schema::Price, route: Route) -> bool {
    match route {
        Route::ImageGenerations | Route::ImageEdits => names(price, "images"),
        Route::Transcriptions | Route::Translations => {
            names(price, "audio_second") || names(price, "audio_minute")
        }
        Route::Speech => names(price, "characters"),
        Route::ChatCompletions
        | Route::Responses
        | Route::Embeddings
        | Route::Completions
        | Route::Messages
        | Route::Moderations
        | Route::Rerank => true,
    }
}

pub(super) fn writes_text(route: Route) -> bool {
    billed_by(route) == ["output"]
}

/// The keys of which a price must have one; `input` is required anyway. An answer with speech
/// tells no usage, so output cannot be what speech is billed by.
fn billed_by(route: Route) -> &'static [&'static str] {
    match route {
        Route::ChatCompletions | Route::Responses | Route::Completions | Route::Messages => {
            &["output"]
        }
        Route::Embeddings | Route::Moderations | Route::Rerank => &[],
        Route::ImageGenerations | Route::ImageEdits => &["images", "output", "request"],
        Route::Transcriptions | Route::Translations => {
            &["audio_second", "audio_minute", "output", "request"]
        }
        Route::Speech => &["characters", "request"],
    }
}

fn names(price: &schema::Price, key: &str) -> bool {
    match key {
        "output" => price.output.is_some(),
        "images" => price.images.as_ref().is_some_and(|rows| !rows.is_empty()),
        "audio_second" => price.audio_second.is_some(),
        "audio_minute" => price.audio_minute.is_some(),
        "characters" => price.characters.is_some(),
        "request" => price.request.is_some(),
        _ => false,
    }
}

/// How clients leave size or quality to the upstream.
const AUTO: &str = "auto";

/// What prices in dollars are tried at while the rate is not known yet: lower than it has been
/// for years, so that a price which can be charged at it can be charged.
const BTC_USD_CENTS_LOW: u64 = 1_000 * 100;
