//! What one of each unit costs, and exact sums of it. No figure is ever a float.

use serde_json::{Value, json};

use super::{CONTEXT, IMAGE_TOKENS, MODEL_OUTPUT_TOKENS, Used, WEB_SEARCHES_MAX};

/// In 10^-12 sat for one of each: published prices have no more than twelve decimals.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rates {
    pub(crate) request: u128,
    pub(crate) input: u128,
    pub(crate) cached_input: u128,
    pub(crate) cache_write: u128,
    pub(crate) output: u128,
    pub(crate) reasoning: u128,
    pub(crate) input_image: u128,
    pub(crate) web_search: u128,
    /// For a second.
    pub(crate) audio_second: u128,
    pub(crate) character: u128,
    pub(crate) search_unit: u128,
    /// For a dollar of the upstream's own cost.
    pub(crate) upstream_cost: u128,
    pub(crate) images: Vec<ImageRate>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ImageRate {
    pub(crate) size: Option<String>,
    pub(crate) quality: Option<String>,
    pub(crate) rate: u128,
}

impl Rates {
    /// A price of the configuration in whole sats, without an `upstream_cost`.
    pub(crate) fn of_sats(price: &Value) -> Self {
        let sats = |name: &str| u128::from(price[name].as_u64().unwrap_or(0));
        let or = |name: &str, other: &str| sats(if price[name].is_u64() { name } else { other });
        let text = |row: &Value, name: &str| row[name].as_str().map(str::to_owned);
        let image = |row: &Value| ImageRate {
            size: text(row, "size"),
            quality: text(row, "quality"),
            rate: SAT * u128::from(row["price"].as_u64().unwrap()),
        };
        Self {
            request: SAT * sats("request"),
            input: SAT / MILLION * sats("input"),
            cached_input: SAT / MILLION * or("cached_input", "input"),
            cache_write: SAT / MILLION * or("cache_write", "input"),
            output: SAT / MILLION * sats("output"),
            reasoning: SAT / MILLION * or("reasoning", "output"),
            input_image: SAT * sats("input_image"),
            web_search: SAT * sats("web_search"),
            audio_second: SAT * sats("audio_second"),
            character: SAT / MILLION * sats("characters"),
            search_unit: SAT * sats("search_unit"),
            upstream_cost: 0,
            images: price["images"].as_array().into_iter().flatten().map(image).collect(),
        }
    }

    /// In msat, rounded up once.
    pub(crate) fn cost(&self, used: &Used) -> u64 {
        if let (Some(nano_usd), true) = (used.cost_nano_usd, self.upstream_cost > 0) {
            let dollars_e21 = self.upstream_cost * u128::from(nano_usd);
            return round_up(1_000_000_000 * self.request + dollars_e21, 1_000_000_000);
        }
        let fresh = used.input - used.cached_input - used.cache_write;
        let mut sum = self.request;
        for (rate, count) in [
            (self.input, fresh),
            (self.cached_input, used.cached_input),
            (self.cache_write, used.cache_write),
            (self.output, used.output - used.reasoning),
            (self.reasoning, used.reasoning),
            (self.input_image, used.input_images),
            (self.web_search, used.web_searches),
            (self.character, used.characters),
            (self.search_unit, used.search_units),
            (self.image(used), used.images),
        ] {
            sum += rate * u128::from(count);
        }
        // Milliseconds of a price per second.
        round_up(1000 * sum + self.audio_second * u128::from(used.audio_ms), 1000)
    }

    /// What is reserved for no more than this: each unit at the dearest rate that it may have.
    pub(crate) fn ceiling(&self, most: &Used) -> u64 {
        let input = self.input.max(self.cached_input).max(self.cache_write);
        let output = self.output.max(self.reasoning);
        Self { input, output, ..self.clone() }.cost(most)
    }

    /// The row that names most of what is asked for, the first of several; a choice that is left
    /// to the upstream fits any.
    fn image(&self, used: &Used) -> u128 {
        let named = |row: &Option<String>, asked: &Option<String>| {
            let asked = asked.as_ref().filter(|asked| *asked != "auto");
            match (row, asked) {
                (Some(row), Some(asked)) => (row == asked).then_some(1),
                _ => Some(0),
            }
        };
        let mut best = None;
        for row in &self.images {
            let fit = named(&row.size, &used.size).zip(named(&row.quality, &used.quality));
            let Some(fit) = fit.map(|(size, quality)| size + quality) else { continue };
            if best.is_none_or(|(most, _)| fit > most) {
                best = Some((fit, row.rate));
            }
        }
        best.map_or(0, |(_, rate)| rate)
    }
}

/// To msat, of a sum that is `times` what it would be in 10^-12 sat.
fn round_up(sum: u128, times: u128) -> u64 {
    sum.div_ceil(times * SAT / 1000).try_into().unwrap()
}

/// A price in primes for every unit that there is, so that a sum shows what it was made of.
pub(crate) fn tariff() -> Value {
    json!({
        "currency": "sat", "request": 11, "input": 2_003, "cached_input": 503,
        "cache_write": 2_503, "output": 7_001, "reasoning": 9_001, "input_image": 3,
        "web_search": 5, "audio_second": 13, "characters": 15_013, "search_unit": 17,
        "images": [
            {"size": "1024x1024", "quality": "high", "price": 41},
            {"size": "1024x1024", "price": 19},
            {"size": "1536x1024", "price": 53},
            {"quality": "hd", "price": 61},
        ],
    })
}

/// A model of the configuration that is sold on every route at this price.
pub(crate) fn priced(id: &str, price: Value) -> Value {
    json!({
        "id": id,
        "upstreams": ["sandbox"],
        "context_length": CONTEXT,
        "max_output_tokens": MODEL_OUTPUT_TOKENS,
        "image_tokens": {"low": IMAGE_TOKENS.0, "high": IMAGE_TOKENS.1},
        "web_searches_max": WEB_SEARCHES_MAX,
        "price": price,
    })
}

const SAT: u128 = 1_000_000_000_000;
const MILLION: u128 = 1_000_000;
