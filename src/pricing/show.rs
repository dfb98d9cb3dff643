//! Prices and costs as JSON. Every number is printed from integers, so it is exact, and without an
//! exponent, so that every reader of JSON agrees on it.

use super::{Cost, Offer};
use crate::config::{Currency, Decimal};
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

impl Offer {
    /// The `sats_pricing` object of a model: sats per token, and what the largest request costs.
    pub fn sats_pricing(&self) -> String {
        let sats = |nano_msat: u128| decimal(nano_msat, SAT_PLACES);
        let rate = |rate: Rate| u128::from(rate.nano_msat());
        let price = &self.price();
        let most = |per_unit: Rate, units: u64| rate(per_unit).saturating_mul(units.into());
        let prompt = most(price.input, self.model.context_length);
        let completion = most(price.output, self.model.max_output_tokens);
        let all = rate(price.request).saturating_add(prompt).saturating_add(completion);
        let per_unit = members(
            &sats(rate(price.input)),
            &sats(rate(price.output)),
            &sats(rate(price.request)),
        );
        format!(
            "{{{per_unit},\"input_cache_read\":{},\"input_cache_write\":{},\"max_prompt_cost\":{},\
             \"max_completion_cost\":{},\"max_cost\":{}}}",
            sats(rate(price.cached_input)),
            // Writing to a cache is charged as the input it is.
            sats(rate(price.input)),
            sats(prompt),
            sats(completion),
            sats(all),
        )
    }

    /// The `pricing` object of a model: US dollars per token, as written in configuration, or at
    /// the rate when the price is in sats. Zeros without a rate: strict clients need numbers.
    pub fn usd_pricing(&self, btc_usd_cents: Option<u64>) -> String {
        let written = &self.model.price;
        let price = self.price();
        let usd = |price: Decimal, per_places: usize, rate: Rate| match written.currency {
            Currency::Usd => decimal(price.billionths, per_places.saturating_add(9)),
            // A nano-msat is 10^-20 bitcoin, and a cent 10^-2 dollars.
            Currency::Sat => product(rate.nano_msat(), btc_usd_cents.unwrap_or(0), 22),
        };
        let cached = written.cached_input.unwrap_or(written.input);
        format!(
            "{{{},\"input_cache_read\":{}}}",
            members(
                &usd(written.input, MILLION_PLACES, price.input),
                &usd(written.output, MILLION_PLACES, price.output),
                &usd(written.request, 0, price.request),
            ),
            usd(cached, MILLION_PLACES, price.cached_input),
        )
    }
}

/// The members that clients expect in both price objects. What is 0 is part of the others here.
fn members(prompt: &str, completion: &str, request: &str) -> String {
    format!(
        "\"prompt\":{prompt},\"completion\":{completion},\"request\":{request},\"image\":0,\
         \"web_search\":0,\"internal_reasoning\":0"
    )
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

/// Written per million, shown per token.
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

    fn offer(text: &str) -> (std::sync::Arc<Offer>, Option<u64>) {
        let config = config::Config::parse("test", text, &config::Machine).unwrap();
        let list = PriceList::new(&config).unwrap();
        (list.find("m").unwrap().clone(), list.btc_usd_cents)
    }

    const MODEL: &str = "upstreams: [{name: up, base_url: 'https://up.example'}]
models: [{id: m, context_length: 1000, max_output_tokens: 100, upstreams: [up], price: ";

    #[test]
    fn both_price_objects_are_per_token_and_all_numbers() {
        let price = "{currency: sat, input: 150, output: 600, cached_input: 75, request: 2}}]";
        let (offer, _) = offer(&format!("{MODEL}{price}"));
        assert_eq!(
            offer.sats_pricing(),
            "{\"prompt\":0.00015,\"completion\":0.0006,\"request\":2,\"image\":0,\
             \"web_search\":0,\"internal_reasoning\":0,\"input_cache_read\":0.000075,\
             \"input_cache_write\":0.00015,\"max_prompt_cost\":0.15,\
             \"max_completion_cost\":0.06,\"max_cost\":2.21}"
        );
        let usd: Value = serde_json::from_str(&offer.usd_pricing(None)).unwrap();
        assert!(usd.as_object().unwrap().values().all(|value| *value == json!(0)));
        let usd: Value = serde_json::from_str(&offer.usd_pricing(Some(10_000_000))).unwrap();
        assert_eq!(usd["prompt"], json!(0.000_000_15));
        assert_eq!(usd["request"], json!(0.002));
    }

    #[test]
    fn a_price_in_dollars_is_shown_as_written() {
        let price = "{currency: usd, input: 0.15, output: 0.6}}]\nbtc_usd: 99999.99\n";
        let (offer, cents) = offer(&format!("{MODEL}{price}"));
        let usd: Value = serde_json::from_str(&offer.usd_pricing(cents)).unwrap();
        assert_eq!(usd["prompt"], json!(0.000_000_15));
        assert_eq!(usd["input_cache_read"], json!(0.000_000_15));
        assert!(offer.sats_pricing().starts_with("{\"prompt\":0.00015000001"));
    }
}
