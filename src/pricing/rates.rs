//! From prices as written to rates: the only place where a currency becomes msat.

use super::{ImageRow, Price, Prices};
use crate::config::{self, AudioPrice, Currency, Decimal};
use crate::money::Rate;

/// Why a written price cannot be charged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrongPrice {
    pub key: &'static str,
    /// Which of the rows, where `key` is `images`.
    pub row: Option<usize>,
    pub problem: String,
}

impl Prices {
    /// The rates of a written price, or what is wrong with each of its keys.
    ///
    /// Rounded up where a nano-msat per unit is too coarse, so by less than one nano-msat per unit
    /// in the operator's favour. Sats with up to six decimals per million are exact.
    pub fn new(price: &config::Price, btc_usd_cents: Option<u64>) -> Result<Self, Vec<WrongPrice>> {
        let dollar = btc_usd_cents.filter(|cents| *cents > 0).map(Exchange::usd);
        let exchange = match price.currency {
            Currency::Sat => Some(Exchange::Sat),
            Currency::Usd => dollar,
        };
        let Some(exchange) = exchange else { return Err(vec![no_rate("currency")]) };
        let asks_cost = price.upstream_cost.billionths > 0;
        if asks_cost && dollar.is_none() {
            return Err(vec![no_rate("upstream_cost")]);
        }
        let mut problems = Vec::new();
        let rates = rates(price, exchange, dollar, &mut problems);
        let mut images = Vec::with_capacity(price.images.len());
        for (index, row) in price.images.iter().enumerate() {
            let rate = exchange.rate(row.price, 1).unwrap_or_else(|| {
                problems.push(too_much("images", Some(index)));
                Rate::FREE
            });
            let (size, quality) = (row.size.clone(), row.quality.clone());
            images.push(ImageRow { size, quality, rate });
        }
        let image = images.first().map_or(Rate::FREE, |row| row.rate);
        let prices = Self { price: Price { image, ..rates }, images };
        if problems.is_empty() { Ok(prices) } else { Err(problems) }
    }
}

fn rates(
    price: &config::Price,
    exchange: Exchange,
    dollar: Option<Exchange>,
    problems: &mut Vec<WrongPrice>,
) -> Price {
    let mut rate = |key, exchange: Exchange, price: Decimal, units| {
        exchange.rate(price, units).unwrap_or_else(|| {
            problems.push(too_much(key, None));
            Rate::FREE
        })
    };
    let (cached_input, cache_write) = (price.cached_input, price.cache_write);
    let (audio_key, audio, audio_ms) = match price.audio {
        AudioPrice::None => ("audio_second", Decimal::default(), SECOND_MS),
        AudioPrice::PerSecond(second) => ("audio_second", second, SECOND_MS),
        AudioPrice::PerMinute(minute) => ("audio_minute", minute, MINUTE_MS),
    };
    Price {
        request: rate("request", exchange, price.request, 1),
        input: rate("input", exchange, price.input, MILLION),
        cached_input: rate("cached_input", exchange, cached_input.unwrap_or(price.input), MILLION),
        cache_write: rate("cache_write", exchange, cache_write.unwrap_or(price.input), MILLION),
        output: rate("output", exchange, price.output, MILLION),
        reasoning: rate("reasoning", exchange, price.reasoning.unwrap_or(price.output), MILLION),
        input_image: rate("input_image", exchange, price.input_image, 1),
        image: Rate::FREE,
        web_search: rate("web_search", exchange, price.web_search, 1),
        audio: rate(audio_key, exchange, audio, audio_ms),
        character: rate("characters", exchange, price.characters, MILLION),
        search_unit: rate("search_unit", exchange, price.search_unit, 1),
        // The margin is what one dollar of the upstream's cost is sold for, in dollars.
        upstream_cost: dollar.map_or(Rate::FREE, |dollar| {
            rate("upstream_cost", dollar, price.upstream_cost, BILLION)
        }),
    }
}

fn no_rate(key: &'static str) -> WrongPrice {
    WrongPrice { key, row: None, problem: "needs a rate of the dollar".to_owned() }
}

fn too_much(key: &'static str, row: Option<usize>) -> WrongPrice {
    WrongPrice { key, row, problem: "is more than any request can cost".to_owned() }
}

#[derive(Clone, Copy)]
enum Exchange {
    Sat,
    Usd { cents: u128 },
}

impl Exchange {
    fn usd(cents: u64) -> Self {
        Self::Usd { cents: cents.into() }
    }

    /// What one of `units` costs when all of them cost `price`; nothing above what a
    /// rate can hold.
    ///
    /// A billionth of a sat is 10^3 nano-msat. A billionth of a dollar is
    /// 10^11 msat / (cents / 100) / 10^9, that is 10^13 / cents nano-msat.
    fn rate(self, price: Decimal, units: u128) -> Option<Rate> {
        let (times, per) = match self {
            Self::Sat => (1_000, 1),
            Self::Usd { cents } => (10_000_000_000_000, cents),
        };
        let nano_msat = price.billionths.checked_mul(times)?.div_ceil(units.checked_mul(per)?);
        u64::try_from(nano_msat).ok().map(Rate::from_nano_msat)
    }
}

/// What much is used of is priced by the million.
const MILLION: u128 = 1_000_000;

/// Upstreams' costs are counted in 10^-9 dollars.
const BILLION: u128 = 1_000_000_000;

const SECOND_MS: u128 = 1_000;
const MINUTE_MS: u128 = 60_000;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ONE: u128 = 1_000_000_000;

    fn price(currency: Currency, input: u128, request: u128) -> config::Price {
        config::Price {
            currency,
            input: Decimal { billionths: input },
            request: Decimal { billionths: request },
            ..config::Price::default()
        }
    }

    fn nano_msat(price: &config::Price, cents: Option<u64>) -> (u64, u64) {
        let Prices { price, .. } = Prices::new(price, cents).unwrap();
        (price.input.nano_msat(), price.request.nano_msat())
    }

    #[test]
    fn sats_become_rates_exactly() {
        let sat = price(Currency::Sat, ONE, ONE);
        assert_eq!(nano_msat(&sat, None), (1_000_000, 1_000_000_000_000));
        let least = price(Currency::Sat, 1_000, 1);
        assert_eq!(nano_msat(&least, None), (1, 1_000));
    }

    #[test]
    fn dollars_become_what_they_buy() {
        // 15 cents at 100,000 dollars per bitcoin are 150 sats.
        let usd = price(Currency::Usd, 150_000_000, 150_000_000);
        assert_eq!(nano_msat(&usd, Some(10_000_000)), (150_000_000, 150_000_000_000_000));
        let third = price(Currency::Usd, ONE, 0);
        assert_eq!(nano_msat(&third, Some(3)).0, 3_333_333_333_333_334, "rounded up");
    }

    #[test]
    fn parts_cost_what_the_whole_costs_unless_they_have_a_price() {
        let mut written = price(Currency::Sat, ONE, 0);
        written.output = Decimal { billionths: 2 * ONE };
        let parts = |written: &config::Price| {
            let price = Prices::new(written, None).unwrap().price;
            [price.cached_input, price.cache_write, price.reasoning].map(Rate::nano_msat)
        };
        assert_eq!(parts(&written), [1_000_000, 1_000_000, 2_000_000]);
        written.cached_input = Some(Decimal { billionths: 0 });
        written.cache_write = Some(Decimal { billionths: 3 * ONE });
        written.reasoning = Some(Decimal { billionths: 0 });
        assert_eq!(parts(&written), [0, 3_000_000, 0]);
    }

    #[test]
    fn every_unit_has_a_rate_of_its_own() {
        let one = Decimal { billionths: ONE };
        let sat = config::Price {
            input_image: one,
            web_search: one,
            images: vec![config::ImagePrice { price: one, ..config::ImagePrice::default() }],
            audio: AudioPrice::PerSecond(one),
            characters: one,
            search_unit: one,
            ..price(Currency::Sat, 0, 0)
        };
        let prices = Prices::new(&sat, None).unwrap();
        let Price { input_image, web_search, image, audio, character, search_unit, .. } =
            prices.price;
        let sat_in_nano_msat = 1_000_000_000_000;
        let per_piece = [input_image, web_search, image, search_unit].map(Rate::nano_msat);
        assert_eq!(per_piece, [sat_in_nano_msat; 4]);
        assert_eq!(audio.nano_msat(), sat_in_nano_msat / 1_000, "per millisecond");
        assert_eq!(character.nano_msat(), sat_in_nano_msat / 1_000_000);
        assert_eq!(prices.images.first().unwrap().rate, image);
        let minute = config::Price { audio: AudioPrice::PerMinute(one), ..sat };
        let per_ms = Prices::new(&minute, None).unwrap().price.audio;
        assert_eq!(per_ms.nano_msat(), 16_666_667, "rounded up");
    }

    #[test]
    fn an_upstream_s_cost_is_in_dollars_whatever_the_currency() {
        let margin = Decimal { billionths: 1_100_000_000 };
        for currency in [Currency::Sat, Currency::Usd] {
            let written = config::Price { upstream_cost: margin, ..price(currency, ONE, 0) };
            let rate = Prices::new(&written, Some(10_000_000)).unwrap().price.upstream_cost;
            // A dollar is 1000 sats, and the margin a tenth more: 10^-9 of it are 1.1 µmsat.
            assert_eq!(rate.nano_msat(), 1_100_000);
            assert!(written.needs_dollar_rate());
            assert!(
                Prices::new(&written, None).is_err() && Prices::new(&written, Some(0)).is_err()
            );
        }
    }

    #[test]
    fn a_price_that_cannot_be_held_is_refused_by_its_key() {
        let usd = price(Currency::Usd, 0, 999_999_999 * ONE);
        let key = |cents| Prices::new(&usd, cents).unwrap_err().first().unwrap().key;
        assert_eq!(key(None), "currency");
        assert_eq!(key(Some(1)), "request");
        let mut rows = price(Currency::Usd, 0, 0);
        let dear = Decimal { billionths: 999_999_999 * ONE };
        for price in [Decimal::default(), dear] {
            rows.images.push(config::ImagePrice { price, ..config::ImagePrice::default() });
        }
        let wrong = Prices::new(&rows, Some(1)).unwrap_err();
        assert_eq!(wrong.first().map(|wrong| (wrong.key, wrong.row)), Some(("images", Some(1))));
    }

    proptest! {
        #[test]
        fn a_rate_is_above_its_price_by_less_than_one_nano_msat(
            billionths in 0..1_000_000_000u128 * ONE, cents in 1_000..100_000_000_000u64,
        ) {
            let price = price(Currency::Usd, billionths, 0);
            if let Ok(Prices { price: rates, .. }) = Prices::new(&price, Some(cents)) {
                let exact = billionths * 10_000_000;
                let charged = u128::from(rates.input.nano_msat()) * u128::from(cents);
                prop_assert!(charged >= exact && charged - exact < u128::from(cents));
            }
        }
    }
}
