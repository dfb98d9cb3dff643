//! Prices and costs as JSON. Every number is printed from integers, so it is exact, and without an
//! exponent, so that every reader of JSON agrees on it.

use super::{Cost, ImageRow, Offer, Price, Served};
use crate::config::{self, AudioPrice, Currency, Decimal};
use crate::money::{Msat, Rate};

impl Cost {
    /// The members that the gateway adds to a usage object: `"cost":{…},"cost_sats":…` and,
    /// when an account paid, `,"remaining_balance_msats":…`. No braces around them.
    ///
    /// `cost_sats` has up to three decimals. `total_usd` is 0 without a rate.
    pub fn usage_members(&self, btc_usd_cents: Option<u64>, remaining: Option<Msat>) -> String {
        let total = self.total.get();
        // A msat is 10^-11 bitcoin, and a cent 10^-2 dollars.
        let total_usd = product(total, btc_usd_cents.unwrap_or(0), 13);
        let mut members = format!(
            "\"cost\":{{\"total_msats\":{total},\"input_msats\":{},\"output_msats\":{},\
             \"cache_read_msats\":{},\"cache_creation_msats\":{},\"base_msats\":{},\
             \"total_usd\":{total_usd}}},\"cost_sats\":{}",
            self.input.get(),
            self.output.get(),
            self.cache_read.get(),
            self.cache_creation.get(),
            self.base.get(),
            decimal(total.into(), 3),
        );
        if let Some(remaining) = remaining {
            members.push_str(&format!(",\"remaining_balance_msats\":{}", remaining.get()));
        }
        members
    }
}

/// The prices of a model at one of its upstreams, as `/v1/models` publishes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// US dollars per unit: as written in configuration, or at the rate when the price is in
    /// sats. Zeros without a rate: strict clients need numbers.
    pub pricing: String,
    /// Sats per unit, exactly the rates that are charged; and what the largest request of text
    /// alone costs.
    ///
    /// Every cost follows from them and from what was used: in sats, rounded up once to the msat,
    /// it is `request + prompt × (input − cached − written) + input_cache_read × cached +
    /// input_cache_write × written + completion × (output − reasoning) + internal_reasoning ×
    /// reasoning + image × input images + web_search × searches + audio_second × seconds of audio +
    /// character × characters + search_unit × search units`, and the `sats` of `image_prices` for
    /// every image made; or, where there is an `upstream_cost` and the upstream told its cost,
    /// `request + upstream_cost × dollars`. What is not there is 0.
    pub sats_pricing: String,
    /// What images made cost, by size and quality; `null` stands for any. The first row is for
    /// requests that leave the choice to the upstream.
    pub image_prices: Option<String>,
}

impl Offer {
    /// The prices at each upstream, with its name, in the order of the configuration.
    pub fn shown(&self, btc_usd_cents: Option<u64>) -> Vec<(&str, Shown)> {
        let cents = btc_usd_cents.unwrap_or(0);
        let show = |served: &Served| {
            let mut upstreams = self.model.upstreams.iter();
            let by = upstreams.find(|by| by.upstream == served.upstream);
            let written = by.map_or(&self.model.price, |by| self.model.price_at(by));
            let lines = lines(&served.prices.price, written);
            Shown {
                pricing: object(lines.iter().map(|line| line.in_dollars(cents))),
                sats_pricing: object(
                    lines.iter().map(Line::in_sats).chain(self.largest(&served.prices.price)),
                ),
                image_prices: image_prices(served, written, cents),
            }
        };
        self.served.iter().map(|served| (served.upstream.as_str(), show(served))).collect()
    }

    /// What the largest request of text alone costs, and its parts.
    fn largest(&self, price: &Price) -> [Option<String>; 3] {
        let most =
            |rate: Rate, units: u64| u128::from(rate.nano_msat()).saturating_mul(u128::from(units));
        let input = price.input.max(price.cached_input).max(price.cache_write);
        let prompt = most(input, self.model.context_length);
        let completion = most(price.output.max(price.reasoning), self.model.max_output_tokens);
        let all = most(price.request, 1).saturating_add(prompt).saturating_add(completion);
        [("max_prompt_cost", prompt), ("max_completion_cost", completion), ("max_cost", all)]
            .map(|(name, nano_msat)| Some(member(name, &decimal(nano_msat, SAT_PLACES))))
    }
}

/// One component of a price.
struct Line {
    name: &'static str,
    /// Per `units` of what the rate counts.
    rate: Rate,
    units: u64,
    currency: Currency,
    written: u128,
    /// How many of the digits of `written` are decimals, per unit shown.
    places: usize,
    /// Left out when it is free.
    is_optional: bool,
}

impl Line {
    fn in_sats(&self) -> Option<String> {
        self.shown(|nano_msat| decimal(nano_msat, SAT_PLACES))
    }

    fn in_dollars(&self, cents: u64) -> Option<String> {
        self.shown(|nano_msat| match self.currency {
            Currency::Usd => decimal(self.written, self.places),
            // A nano-msat is 10^-20 bitcoin, and a cent 10^-2 dollars.
            Currency::Sat => decimal(nano_msat.saturating_mul(cents.into()), 22),
        })
    }

    fn shown(&self, number: impl Fn(u128) -> String) -> Option<String> {
        if self.is_optional && self.rate == Rate::FREE {
            return None;
        }
        let nano_msat = u128::from(self.rate.nano_msat()).saturating_mul(self.units.into());
        Some(member(self.name, &number(nano_msat)))
    }
}

fn lines(price: &Price, written: &config::Price) -> [Line; 12] {
    let line = |name, rate, written: Decimal, places: usize| Line {
        name,
        rate,
        units: 1,
        currency: Currency::Usd,
        written: written.billionths,
        places: places.saturating_add(DECIMAL_PLACES),
        is_optional: false,
    };
    let optional = |line: Line| Line { is_optional: true, ..line };
    let own = |line: Line| Line { currency: written.currency, ..line };
    let (audio, audio_places) = match written.audio {
        AudioPrice::None => (Decimal::default(), 0),
        AudioPrice::PerSecond(second) => (second, 0),
        AudioPrice::PerMinute(minute) => {
            let billionths = minute.billionths.saturating_mul(1_000_000).div_ceil(60);
            (Decimal { billionths }, MILLION_PLACES)
        }
    };
    let cached_input = written.cached_input.unwrap_or(written.input);
    let cache_write = written.cache_write.unwrap_or(written.input);
    let reasoning = written.reasoning.unwrap_or(written.output);
    let million = MILLION_PLACES;
    [
        own(line("prompt", price.input, written.input, million)),
        own(line("completion", price.output, written.output, million)),
        own(line("request", price.request, written.request, 0)),
        own(line("image", price.input_image, written.input_image, 0)),
        own(line("web_search", price.web_search, written.web_search, 0)),
        own(line("internal_reasoning", price.reasoning, reasoning, million)),
        own(line("input_cache_read", price.cached_input, cached_input, million)),
        own(line("input_cache_write", price.cache_write, cache_write, million)),
        optional(own(Line {
            units: 1_000,
            ..line("audio_second", price.audio, audio, audio_places)
        })),
        optional(own(line("character", price.character, written.characters, million))),
        optional(own(line("search_unit", price.search_unit, written.search_unit, 0))),
        // The margin: dollars per dollar, whatever the currency.
        optional(Line {
            units: 1_000_000_000,
            ..line("upstream_cost", price.upstream_cost, written.upstream_cost, 0)
        }),
    ]
}

fn image_prices(served: &Served, written: &config::Price, cents: u64) -> Option<String> {
    let quoted = |text: &Option<String>| serde_json::json!(text).to_string();
    let row = |(row, written_row): (&ImageRow, &config::ImagePrice)| {
        let nano_msat = row.rate.nano_msat();
        let usd = match written.currency {
            Currency::Usd => decimal(written_row.price.billionths, DECIMAL_PLACES),
            Currency::Sat => product(nano_msat, cents, 22),
        };
        format!(
            "{{\"size\":{},\"quality\":{},\"sats\":{},\"usd\":{usd}}}",
            quoted(&row.size),
            quoted(&row.quality),
            decimal(nano_msat.into(), SAT_PLACES),
        )
    };
    let rows: Vec<String> = served.prices.images.iter().zip(&written.images).map(row).collect();
    (!rows.is_empty()).then(|| format!("[{}]", rows.join(",")))
}

fn member(name: &str, number: &str) -> String {
    format!("\"{name}\":{number}")
}

fn object(members: impl Iterator<Item = Option<String>>) -> String {
    format!("{{{}}}", members.flatten().collect::<Vec<_>>().join(","))
}

fn product(one: u64, other: u64, places: usize) -> String {
    decimal(u128::from(one).saturating_mul(other.into()), places)
}

/// `units` × 10^-`places`, exactly, without trailing zeros.
fn decimal(units: u128, places: usize) -> String {
    let digits = format!("{units:0>width$}", width = places.saturating_add(1));
    let (whole, fraction) = digits.split_at(digits.len().saturating_sub(places));
    match fraction.trim_end_matches('0') {
        "" => whole.to_owned(),
        fraction => format!("{whole}.{fraction}"),
    }
}

/// A sat is 10^12 nano-msat.
const SAT_PLACES: usize = 12;

/// Decimals are written in billionths.
const DECIMAL_PLACES: usize = 9;

/// Written per million, shown per unit.
const MILLION_PLACES: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::pricing::PriceList;
    use serde_json::{Value, json};

    fn msat(msat: u64) -> Msat {
        Msat::new(msat).unwrap()
    }

    #[test]
    fn decimals_are_exact_without_exponent_or_trailing_zeros() {
        assert_eq!(decimal(0, 12), "0");
        assert_eq!(decimal(1, 12), "0.000000000001");
        assert_eq!(decimal(12_345, 3), "12.345");
        assert_eq!(decimal(12_000, 3), "12");
        assert_eq!(decimal(7, 0), "7");
        assert_eq!(product(u64::MAX, u64::MAX, 22), "34028236692093846.3426481119284349108225");
    }

    #[test]
    fn usage_carries_the_cost_and_its_parts() {
        let cost = Cost {
            total: msat(12_345),
            input: msat(345),
            output: msat(10_000),
            cache_read: msat(1_000),
            cache_creation: msat(0),
            base: msat(1_000),
        };
        let read = |cents, remaining| -> Value {
            let members = cost.usage_members(cents, remaining);
            serde_json::from_str(&format!("{{{members}}}")).unwrap()
        };
        let expected = json!({
            "cost": {
                "total_msats": 12_345, "input_msats": 345, "output_msats": 10_000,
                "cache_read_msats": 1_000, "cache_creation_msats": 0, "base_msats": 1_000,
                "total_usd": 0.012345,
            },
            "cost_sats": 12.345,
            "remaining_balance_msats": 7,
        });
        assert_eq!(read(Some(10_000_000), Some(msat(7))), expected);
        let without = read(None, None);
        assert_eq!(without["cost"]["total_usd"], 0);
        assert!(without.get("remaining_balance_msats").is_none());
    }

    /// What is published of the model `m` of a configuration.
    fn shown(rest: &str) -> Shown {
        let text = format!("{MODEL}{rest}");
        let config = config::Config::parse("test", &text, &config::Machine).unwrap();
        let list = PriceList::new(&config.models, config.btc_usd_cents);
        let offer = list.find("m").offer().unwrap();
        let shown = offer.shown(list.btc_usd_cents);
        shown.into_iter().next().map(|(_, shown)| shown).unwrap()
    }

    const MODEL: &str = "upstreams: [{name: up, base_url: 'https://up.example'}]
models: [{id: m, context_length: 1000, max_output_tokens: 100, upstreams: [up], price: ";

    #[test]
    fn both_price_objects_are_per_token_and_all_numbers() {
        let price = "{currency: sat, input: 150, output: 600, cached_input: 75, request: 2}}]";
        assert_eq!(
            shown(price).sats_pricing,
            "{\"prompt\":0.00015,\"completion\":0.0006,\"request\":2,\"image\":0,\
             \"web_search\":0,\"internal_reasoning\":0.0006,\"input_cache_read\":0.000075,\
             \"input_cache_write\":0.00015,\"max_prompt_cost\":0.15,\
             \"max_completion_cost\":0.06,\"max_cost\":2.21}"
        );
        let usd: Value = serde_json::from_str(&shown(price).pricing).unwrap();
        assert!(usd.as_object().unwrap().values().all(|value| *value == json!(0)));
        let usd = shown(&format!("{price}\nbtc_usd: 100000")).pricing;
        let usd: Value = serde_json::from_str(&usd).unwrap();
        assert_eq!(usd["prompt"], json!(0.000_000_15));
        assert_eq!(usd["request"], json!(0.002));
    }

    #[test]
    fn a_price_in_dollars_is_shown_as_written() {
        let price = "{currency: usd, input: 0.15, output: 0.6}}]\nbtc_usd: 99999.99\n";
        let shown = shown(price);
        let usd: Value = serde_json::from_str(&shown.pricing).unwrap();
        assert_eq!(usd["prompt"], json!(0.000_000_15));
        assert_eq!(usd["input_cache_read"], json!(0.000_000_15));
        assert!(shown.sats_pricing.starts_with("{\"prompt\":0.00015000001"));
    }

    #[test]
    fn every_component_that_has_a_price_is_shown_in_both_objects() {
        let price = "{currency: usd, input: 1, output: 2, cached_input: 0.5, cache_write: 1.25, \
                     reasoning: 3, request: 0.001, input_image: 0.002, web_search: 0.01, \
                     audio_minute: 0.006, characters: 15, search_unit: 0.002, upstream_cost: 1.1, \
                     images: [{size: 1024x1024, quality: \"h\\\"d\", price: 0.04}, {price: 0.08}]\
                     }}]\nbtc_usd: 100000\n";
        let shown = shown(price);
        assert_eq!(
            shown.pricing,
            "{\"prompt\":0.000001,\"completion\":0.000002,\"request\":0.001,\"image\":0.002,\
             \"web_search\":0.01,\"internal_reasoning\":0.000003,\
             \"input_cache_read\":0.0000005,\"input_cache_write\":0.00000125,\
             \"audio_second\":0.0001,\"character\":0.000015,\"search_unit\":0.002,\
             \"upstream_cost\":1.1}"
        );
        assert_eq!(
            shown.sats_pricing,
            "{\"prompt\":0.001,\"completion\":0.002,\"request\":1,\"image\":2,\
             \"web_search\":10,\"internal_reasoning\":0.003,\
             \"input_cache_read\":0.0005,\"input_cache_write\":0.00125,\
             \"audio_second\":0.1,\"character\":0.015,\"search_unit\":2,\
             \"upstream_cost\":1100,\"max_prompt_cost\":1.25,\"max_completion_cost\":0.3,\
             \"max_cost\":2.55}"
        );
        assert_eq!(
            shown.image_prices.unwrap(),
            "[{\"size\":\"1024x1024\",\"quality\":\"h\\\"d\",\"sats\":40,\"usd\":0.04},\
             {\"size\":null,\"quality\":null,\"sats\":80,\"usd\":0.08}]"
        );
    }

    #[test]
    fn a_margin_on_the_upstream_s_cost_is_the_same_in_any_currency() {
        let price = "{currency: sat, input: 1, output: 2, upstream_cost: 1.1}}]\nbtc_usd: 50000\n";
        let shown = shown(price);
        assert!(shown.pricing.ends_with("\"upstream_cost\":1.1}"), "{}", shown.pricing);
        assert!(shown.sats_pricing.contains("\"upstream_cost\":2200,"), "{}", shown.sats_pricing);
    }
}
