//! What a mint is asked about paying an invoice (NUT-05, NUT-23): what it takes for that, to pay,
//! and how a payment stands; and what of the fee reserve was not used, as signatures (NUT-08).
//!
//! A [`MintError`] says whether the mint may have taken it: after `Unreachable` and `RateLimited`
//! it has not seen the request, after `Refused` and `KeysetInactive` it changed nothing if the
//! quote is unpaid and the inputs are unspent by then, and after any other it may have paid, or
//! be at it. Only [`Mint::melting`] tells; to ask for the same payment again is safe, because a
//! mint pays a quote once.

use std::str::FromStr;
use std::time::Duration;

use cdk::lightning_invoice::{Bolt11Invoice, Currency};
use cdk::nuts::{
    BlindSignature, BlindedMessage, CurrencyUnit, MeltQuoteBolt11Request, MeltQuoteBolt11Response,
    MeltQuoteState, MeltRequest, PaymentMethod, Proofs, RestoreRequest,
};
use cdk::wallet::MintConnector;
use cdk::{MeltQuoteCreateResponse, MeltQuoteRequest, MeltQuoteResponse};

use super::mint::{Mint, MintError, SWAP_MAX, Unit};
use super::quote_mint::{BOLT11_BYTES_MAX, is_quote_name};
use crate::clock::UnixMs;
use crate::money::Msat;

/// An invoice that can be paid by whom it was asked for, for exactly what was asked.
#[derive(Clone, Debug)]
pub(super) struct Payable {
    invoice: Bolt11Invoice,
    amount: Msat,
    pub(super) payment_hash: String,
    pub(super) expires: UnixMs,
}

/// What a mint takes for paying an invoice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MeltOffer {
    /// Its name at the mint.
    pub(super) quote: String,
    /// What the invoice is for, in the unit.
    pub(super) count: u64,
    /// What it takes at most on top, in the unit; the fee for the inputs comes besides.
    pub(super) fee_reserve: u64,
    /// When the mint, or who made the invoice, does not keep to it any more.
    pub(super) expires: UnixMs,
}

/// How a payment stands at the mint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Melting {
    /// Not asked for, or failed.
    Unpaid,
    Pending,
    Paid {
        /// Signatures on the first of the blank outputs, in their order; some mints give them
        /// with the payment alone, and later only by [`Mint::restore_change`].
        change: Option<Vec<BlindSignature>>,
        preimage: Option<String>,
    },
}

impl Payable {
    /// Refuses an invoice that is not for exactly this, or cannot be paid for long enough.
    pub(super) fn checked(bolt11: &str, amount: Msat, now: UnixMs) -> Result<Self, &'static str> {
        if bolt11.len() > BOLT11_BYTES_MAX {
            return Err("the invoice is too long");
        }
        let invoice = Bolt11Invoice::from_str(bolt11).map_err(|_| "the invoice cannot be read")?;
        if invoice.currency() != Currency::Bitcoin {
            return Err("the invoice is of another network");
        }
        if invoice.amount_milli_satoshis() != Some(amount.get()) {
            return Err("the invoice is for another amount");
        }
        let until = invoice.duration_since_epoch().saturating_add(invoice.expiry_time());
        let expires = UnixMs(0).plus(until);
        if expires <= now.plus(LEFT_MIN) {
            return Err("the invoice expires too soon");
        }
        let payment_hash = invoice.payment_hash().to_string();
        Ok(Self { invoice, amount, payment_hash, expires })
    }
}

impl Mint {
    /// What the mint takes for paying this invoice from this unit. Nothing is lost if it is
    /// given up.
    pub(super) async fn melt_offer(
        &self,
        unit: &Unit,
        payable: &Payable,
    ) -> Result<MeltOffer, MintError> {
        let currency =
            CurrencyUnit::from_str(&unit.name).map_err(|_| MintError::Refused("unknown unit"))?;
        let request = MeltQuoteBolt11Request {
            request: payable.invoice.clone(),
            unit: currency.clone(),
            options: None,
        };
        let request = MeltQuoteRequest::Bolt11(request);
        let ask = |client: cdk::HttpClient| async move { client.post_melt_quote(request).await };
        match self.read(ask).await? {
            MeltQuoteCreateResponse::Bolt11(answer) => {
                offered(answer, unit, &currency, payable).map_err(MintError::Refused)
            }
            _ => Err(MintError::Ambiguous),
        }
    }

    /// Pays a quote with these inputs. `blanks` are outputs without an amount, one for each that
    /// the mint may need to give change ([`blanks_for`]). Not cancelled, like a swap.
    pub(super) async fn melt(
        &self,
        quote: &str,
        inputs: Proofs,
        blanks: Vec<BlindedMessage>,
    ) -> Result<Melting, MintError> {
        let blanks = (!blanks.is_empty()).then_some(blanks);
        self.asked_to_melt(MeltRequest::new(quote.to_owned(), inputs, blanks)).await
    }

    /// As [`Mint::melt`], for who follows the quote: a mint that can answers as soon as it has
    /// taken the request, and mostly says that it is pending.
    pub(super) async fn melt_at_once(
        &self,
        quote: &str,
        inputs: Proofs,
        blanks: Vec<BlindedMessage>,
    ) -> Result<Melting, MintError> {
        let blanks = (!blanks.is_empty()).then_some(blanks);
        let request = MeltRequest::new(quote.to_owned(), inputs, blanks);
        self.asked_to_melt(request.prefer_async(true)).await
    }

    async fn asked_to_melt(&self, request: MeltRequest<String>) -> Result<Melting, MintError> {
        let ask = |client: cdk::HttpClient| async move {
            client.post_melt(&PaymentMethod::BOLT11, request).await
        };
        match tokio::time::timeout(SWAP_MAX, self.call(ask)).await {
            Ok(Ok(MeltQuoteResponse::Bolt11(answer))) => melting_of(answer),
            Ok(Ok(_)) | Err(_) => Err(MintError::Ambiguous),
            Ok(Err(error)) => Err(error),
        }
    }

    /// How the payment of this quote stands.
    pub(super) async fn melting(&self, quote: &str) -> Result<Melting, MintError> {
        let quote = quote.to_owned();
        let ask = |client: cdk::HttpClient| async move {
            client.get_melt_quote_status(PaymentMethod::BOLT11, &quote).await
        };
        match self.read(ask).await? {
            MeltQuoteResponse::Bolt11(answer) => melting_of(answer),
            _ => Err(MintError::Ambiguous),
        }
    }

    /// The signatures on the first of these blank outputs, as many as the mint has signed
    /// (NUT-09). None are signed as long as a payment is not made.
    pub(super) async fn restore_change(
        &self,
        blanks: Vec<BlindedMessage>,
    ) -> Result<Vec<BlindSignature>, MintError> {
        if blanks.is_empty() {
            return Ok(Vec::new());
        }
        let request = RestoreRequest { outputs: blanks.clone() };
        let ask = |client: cdk::HttpClient| async move { client.post_restore(request).await };
        let answer = self.read(ask).await?;
        let mut signed: std::collections::HashMap<_, _> = answer
            .outputs
            .into_iter()
            .map(|output| output.blinded_secret)
            .zip(answer.signatures)
            .collect();
        let each = blanks.iter().map_while(|blank| signed.remove(&blank.blinded_secret));
        Ok(each.collect())
    }
}

/// How many blank outputs are enough for change of up to so much (NUT-08).
pub(super) fn blanks_for(change_max: u64) -> usize {
    usize::try_from(u64::BITS - change_max.leading_zeros()).unwrap_or_default()
}

/// Refuses an answer that is not about the invoice that was asked about.
fn offered(
    answer: MeltQuoteBolt11Response<String>,
    unit: &Unit,
    currency: &CurrencyUnit,
    payable: &Payable,
) -> Result<MeltOffer, &'static str> {
    let MeltQuoteBolt11Response { quote, amount, fee_reserve, expiry, .. } = answer;
    if !is_quote_name(&quote) {
        return Err("its quote has a name that cannot be asked for");
    }
    if answer.unit.is_some_and(|unit| unit != *currency) {
        return Err("its quote is of another unit");
    }
    if answer.request.is_some_and(|request| request != payable.invoice.to_string()) {
        return Err("its quote is for another invoice");
    }
    let count = amount.to_u64();
    if unit.msat(count) != Some(payable.amount) {
        return Err("its quote is for another amount");
    }
    if answer.state != MeltQuoteState::Unpaid {
        return Err("its quote is not new");
    }
    // 0 is how some mints say that a quote does not expire.
    let expires = match expiry {
        0 => payable.expires,
        expiry => payable.expires.min(UnixMs(0).plus(Duration::from_secs(expiry))),
    };
    Ok(MeltOffer { quote, count, fee_reserve: fee_reserve.to_u64(), expires })
}

fn melting_of(answer: MeltQuoteBolt11Response<String>) -> Result<Melting, MintError> {
    match answer.state {
        MeltQuoteState::Unpaid | MeltQuoteState::Failed => Ok(Melting::Unpaid),
        MeltQuoteState::Pending => Ok(Melting::Pending),
        MeltQuoteState::Paid => {
            let preimage = answer.payment_preimage.filter(|text| !text.is_empty());
            Ok(Melting::Paid { change: answer.change, preimage })
        }
        MeltQuoteState::Unknown => Err(MintError::Ambiguous),
    }
}

/// An invoice that is valid for less is not begun with.
const LEFT_MIN: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    /// An example of BOLT 11: 2500 µBTC, made on 2017-06-01, valid for a minute.
    const INVOICE: &str = "lnbc2500u1pvjluezsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygspp5qqqsyqcyq5rqwzq\
         fqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdq5xysxxatsyp3k7enxv4jsxqzpu9qrsgquk0rl77nj30yxdy8j9v\
         dx85fkpmdla2087ne0xh8nhedh8w27kyke0lp53ut353s06fv3qfegext0eh0ymjpf39tuven09sam30g4vgpfna3rh";
    const MADE_S: u64 = 1_496_314_658;

    fn sats(amount: u64) -> Msat {
        Msat::from_sats(amount).unwrap()
    }

    fn payable() -> Payable {
        Payable::checked(INVOICE, sats(250_000), UnixMs(MADE_S * 1000)).unwrap()
    }

    fn answer() -> MeltQuoteBolt11Response<String> {
        MeltQuoteBolt11Response {
            quote: "0197-abc_D".to_owned(),
            amount: 250_000.into(),
            fee_reserve: 2_500.into(),
            state: MeltQuoteState::Unpaid,
            expiry: MADE_S + 3600,
            payment_preimage: None,
            change: None,
            request: None,
            unit: None,
            method: PaymentMethod::BOLT11,
        }
    }

    fn offer(answer: MeltQuoteBolt11Response<String>) -> Result<MeltOffer, &'static str> {
        offered(answer, &Unit::named("sat").unwrap(), &CurrencyUnit::Sat, &payable())
    }

    #[test]
    fn only_an_invoice_for_exactly_this_amount_and_time_enough_is_paid() {
        let check = |text: &str, amount, at_s: u64| {
            Payable::checked(text, sats(amount), UnixMs(at_s * 1000)).is_ok()
        };
        assert_eq!(payable().expires, UnixMs((MADE_S + 60) * 1000));
        assert!(check(INVOICE, 250_000, MADE_S + 29));
        assert!(!check(INVOICE, 250_000, MADE_S + 30), "expires too soon");
        assert!(!check(INVOICE, 250_001, MADE_S), "another amount");
        assert!(!check(&INVOICE.replacen('q', "p", 1), 250_000, MADE_S), "checksum");
        assert!(!check(&"1".repeat(BOLT11_BYTES_MAX + 1), 250_000, MADE_S));
        assert!(!check("", 250_000, MADE_S));
    }

    #[test]
    fn a_quote_about_something_else_is_refused() {
        let expected = MeltOffer {
            quote: "0197-abc_D".to_owned(),
            count: 250_000,
            fee_reserve: 2_500,
            expires: UnixMs((MADE_S + 60) * 1000),
        };
        assert_eq!(offer(answer()), Ok(expected.clone()), "no longer than the invoice");
        let sooner = MeltQuoteBolt11Response { expiry: MADE_S + 40, ..answer() };
        assert_eq!(offer(sooner).unwrap().expires, UnixMs((MADE_S + 40) * 1000));
        let never = MeltQuoteBolt11Response { expiry: 0, ..answer() };
        assert_eq!(offer(never), Ok(expected.clone()));
        let told = MeltQuoteBolt11Response {
            request: Some(INVOICE.to_owned()),
            unit: Some(CurrencyUnit::Sat),
            ..answer()
        };
        assert_eq!(offer(told), Ok(expected));
        for odd in [
            MeltQuoteBolt11Response { quote: "a/b".to_owned(), ..answer() },
            MeltQuoteBolt11Response { amount: 250_001.into(), ..answer() },
            MeltQuoteBolt11Response { unit: Some(CurrencyUnit::Msat), ..answer() },
            MeltQuoteBolt11Response { request: Some("lnbc1".to_owned()), ..answer() },
            MeltQuoteBolt11Response { state: MeltQuoteState::Pending, ..answer() },
        ] {
            assert!(offer(odd.clone()).is_err(), "{odd:?}");
        }
    }

    #[test]
    fn a_payment_is_paid_only_when_the_mint_says_so() {
        let of = |state| melting_of(MeltQuoteBolt11Response { state, ..answer() });
        assert_eq!(of(MeltQuoteState::Unpaid), Ok(Melting::Unpaid));
        assert_eq!(of(MeltQuoteState::Failed), Ok(Melting::Unpaid));
        assert_eq!(of(MeltQuoteState::Pending), Ok(Melting::Pending));
        assert_eq!(of(MeltQuoteState::Unknown), Err(MintError::Ambiguous));
        let paid = Melting::Paid { change: None, preimage: None };
        assert_eq!(of(MeltQuoteState::Paid), Ok(paid));
    }

    #[test]
    fn blanks_are_enough_for_any_change() {
        for (change, blanks) in [(0, 0), (1, 1), (2, 2), (3, 2), (4, 3), (1000, 10), (1 << 40, 41)]
        {
            assert_eq!(blanks_for(change), blanks, "{change}");
        }
    }
}
