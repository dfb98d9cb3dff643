//! From prices as written to rates: the only place where a currency becomes msat.

use super::Price;
use crate::config::{self, Currency, Decimal};
use crate::money::Rate;

impl Price {
    /// The rates of a written price, or what is wrong with each of its keys.
    ///
    /// Rounded up where a nano-msat per unit is too coarse, so by less than one nano-msat per unit
    /// in the operator's favour. Sats with up to six decimals per million tokens are exact.
    pub fn new(
        price: &config::Price,
        btc_usd_cents: Option<u64>,
    ) -> Result<Self, Vec<(&'static str, String)>> {
        let exchange = match (price.currency, btc_usd_cents) {
            (Currency::Sat, _) => Exchange::Sat,
            (Currency::Usd, Some(cents)) if cents > 0 => Exchange::Usd { cents: cents.into() },
            (Currency::Usd, _) => {
                return Err(vec![(
                    "currency",
                    "a price in usd needs `btc_usd` or `btc_usd_feed`".to_owned(),
                )]);
            }
        };
        let mut problems = Vec::new();
        let mut rate = |key, decimal: Decimal, units| {
            exchange.rate(decimal, units).unwrap_or_else(|| {
                problems.push((key, "is more than any request can cost".to_owned()));
                Rate::FREE
            })
        };
        let rates = Self {
            input: rate("input", price.input, MILLION),
            output: rate("output", price.output, MILLION),
            cached_input: rate("cached_input", price.cached_input.unwrap_or(price.input), MILLION),
            request: rate("request", price.request, 1),
            ..Self::default()
        };
        let rates = Self { cache_write: rates.input, reasoning: rates.output, ..rates };
        if problems.is_empty() { Ok(rates) } else { Err(problems) }
    }
}

enum Exchange {
    Sat,
    Usd { cents: u128 },
}

impl Exchange {
    /// What one of `units` costs when all of them cost `price`; nothing above what a
    /// rate can hold.
    ///
    /// A billionth of a sat is 10^3 nano-msat. A billionth of a dollar is
    /// 10^11 msat / (cents / 100) / 10^9, that is 10^13 / cents nano-msat.
    fn rate(&self, price: Decimal, units: u128) -> Option<Rate> {
        let (times, per) = match self {
            Self::Sat => (1_000, 1),
            Self::Usd { cents } => (10_000_000_000_000, *cents),
        };
        let nano_msat = price.billionths.checked_mul(times)?.div_ceil(units.checked_mul(per)?);
        u64::try_from(nano_msat).ok().map(Rate::from_nano_msat)
    }
}

/// Prices are written per million tokens.
const MILLION: u128 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ONE: u128 = 1_000_000_000;

    fn price(currency: Currency, input: u128, request: u128) -> config::Price {
        config::Price {
            currency,
            input: Decimal { billionths: input },
            output: Decimal { billionths: 0 },
            cached_input: None,
            request: Decimal { billionths: request },
        }
    }

    fn nano_msat(price: &config::Price, cents: Option<u64>) -> (u64, u64) {
        let price = Price::new(price, cents).unwrap();
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
    fn cached_input_costs_what_input_costs_unless_it_has_a_price() {
        let mut written = price(Currency::Sat, ONE, 0);
        assert_eq!(Price::new(&written, None).unwrap().cached_input.nano_msat(), 1_000_000);
        written.cached_input = Some(Decimal { billionths: 0 });
        assert_eq!(Price::new(&written, None).unwrap().cached_input, Rate::FREE);
    }

    #[test]
    fn a_price_that_cannot_be_held_is_refused_by_its_key() {
        let usd = price(Currency::Usd, 0, 999_999_999 * ONE);
        assert_eq!(Price::new(&usd, None).unwrap_err().first().unwrap().0, "currency");
        assert_eq!(Price::new(&usd, Some(1)).unwrap_err().first().unwrap().0, "request");
    }

    proptest! {
        #[test]
        fn a_rate_is_above_its_price_by_less_than_one_nano_msat(
            billionths in 0..1_000_000_000u128 * ONE, cents in 1_000..100_000_000_000u64,
        ) {
            let price = price(Currency::Usd, billionths, 0);
            if let Ok(rates) = Price::new(&price, Some(cents)) {
                let exact = billionths * 10_000_000;
                let charged = u128::from(rates.input.nano_msat()) * u128::from(cents);
                prop_assert!(charged >= exact && charged - exact < u128::from(cents));
            }
        }
    }
}
