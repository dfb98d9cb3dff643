//! What a wallet must know to pay for a request (NUT-18, in the header of NUT-24).

use cdk::Amount;
use cdk::mint_url::MintUrl;
use cdk::nuts::{CurrencyUnit, PaymentRequest};

use crate::config::Mint;
use crate::money::Msat;

/// A payment request for `amount`, rounded up to the unit, at any of the mints that have that
/// unit: sats where a mint accepts them, msat otherwise. It names no transport, because the ecash
/// comes back in a header. `None` when there is no mint to pay at.
pub fn payment_request(amount: Msat, mints: &[Mint]) -> Option<String> {
    let at = |unit: &str| {
        let urls = mints.iter().filter(|mint| mint.units.iter().any(|accepted| accepted == unit));
        urls.filter_map(|mint| mint.url.parse().ok()).collect::<Vec<MintUrl>>()
    };
    let (unit, units, mints) = match at("sat") {
        none if none.is_empty() => (CurrencyUnit::Msat, amount.get(), at("msat")),
        mints => (CurrencyUnit::Sat, amount.get().div_ceil(MSAT_PER_SAT), mints),
    };
    if mints.is_empty() {
        return None;
    }
    let request = PaymentRequest::builder()
        .amount(Amount::from(units))
        .unit(unit)
        .single_use(true)
        .mints(mints)
        .build();
    Some(request.to_string())
}

const MSAT_PER_SAT: u64 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    fn mint(url: &str, units: &[&str]) -> Mint {
        Mint { url: url.to_owned(), units: units.iter().map(ToString::to_string).collect() }
    }

    fn request(amount: u64, mints: &[Mint]) -> Option<PaymentRequest> {
        let text = payment_request(Msat::new(amount).unwrap(), mints)?;
        assert!(text.starts_with("creqA"), "{text}");
        Some(text.parse().unwrap())
    }

    #[test]
    fn it_asks_for_whole_sats_at_every_mint_that_has_them() {
        let mints = [mint("https://a.example", &["sat"]), mint("https://b.example", &["msat"])];
        for (amount, sats) in [(1, 1), (1000, 1), (1001, 2)] {
            let asked = request(amount, &mints).unwrap();
            assert_eq!(asked.amount, Some(Amount::from(sats)));
            assert_eq!(asked.unit, Some(CurrencyUnit::Sat));
            assert_eq!(asked.mints, vec!["https://a.example".parse().unwrap()]);
            assert!(asked.transports.is_empty());
        }
    }

    #[test]
    fn it_asks_for_msat_where_no_mint_has_sats_and_for_nothing_without_a_mint() {
        let asked = request(1001, &[mint("https://b.example", &["msat"])]).unwrap();
        assert_eq!((asked.amount, asked.unit), (Some(1001.into()), Some(CurrencyUnit::Msat)));
        assert!(request(1001, &[]).is_none());
    }
}
