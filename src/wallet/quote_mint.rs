//! What a mint is asked about Lightning (NUT-04, NUT-23): an invoice, whether it is paid, and
//! signatures for what it was paid with.
//!
//! A mint's invoice is believed only as far as it says so itself: its amount is what we asked
//! for, its payment hash and its expiry are read from it.

use std::str::FromStr;
use std::time::Duration;

use cdk::lightning_invoice::Bolt11Invoice;
use cdk::nuts::nut04::MintRequest;
use cdk::nuts::{
    BlindSignature, BlindedMessage, CurrencyUnit, MintQuoteBolt11Request, MintQuoteBolt11Response,
    MintQuoteState, PaymentMethod, PublicKey, SecretKey,
};
use cdk::wallet::MintConnector;
use cdk::{Amount, MintQuoteRequest, MintQuoteResponse};

use super::mint::{Mint, MintError, SWAP_MAX, Unit};
use crate::clock::UnixMs;
use crate::money::Msat;

/// An invoice of a mint's that is what we asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Offer {
    /// Its name at the mint.
    pub(super) quote: String,
    pub(super) bolt11: String,
    pub(super) payment_hash: String,
    pub(super) expires: UnixMs,
    /// Whether the mint signs for its payment only with our key (NUT-20).
    pub(super) locked: bool,
}

/// What the mint says of a quote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Payment {
    Unpaid,
    Paid,
    /// Paid, and signed for.
    Issued,
}

impl Mint {
    /// An invoice for so many of this unit. Nothing is lost if it is given up.
    pub(super) async fn offer(
        &self,
        unit: &Unit,
        count: u64,
        key: PublicKey,
    ) -> Result<Offer, MintError> {
        let refused = |why| MintError::Refused(why);
        let currency = CurrencyUnit::from_str(&unit.name).map_err(|_| refused("unknown unit"))?;
        let amount = unit.msat(count).ok_or_else(|| refused("more than can be counted"))?;
        let request = MintQuoteBolt11Request {
            amount: Amount::from(count),
            unit: currency,
            description: None,
            pubkey: Some(key),
        };
        let request = MintQuoteRequest::Bolt11(request);
        let ask = |client: cdk::HttpClient| async move { client.post_mint_quote(request).await };
        match self.read(ask).await? {
            MintQuoteResponse::Bolt11(answer) => {
                checked(answer, amount, key, UnixMs::now()).map_err(refused)
            }
            _ => Err(MintError::Ambiguous),
        }
    }

    /// Whether the invoice of this quote is paid.
    pub(super) async fn payment(&self, quote: &str, count: u64) -> Result<Payment, MintError> {
        let quote = quote.to_owned();
        let ask = |client: cdk::HttpClient| async move {
            client.get_mint_quote_status(PaymentMethod::BOLT11, &quote).await
        };
        match self.read(ask).await? {
            MintQuoteResponse::Bolt11(answer) => Ok(payment_of(&answer, count)),
            _ => Err(MintError::Ambiguous),
        }
    }

    /// Signatures on these outputs for a quote that is paid, which the mint gives once. Not
    /// cancelled, like a swap.
    pub(super) async fn issue(
        &self,
        quote: &str,
        outputs: &[BlindedMessage],
        key: Option<&SecretKey>,
    ) -> Result<Vec<BlindSignature>, MintError> {
        let unusable = |_| MintError::Refused("its quote cannot be signed");
        let mut request =
            MintRequest { quote: quote.to_owned(), outputs: outputs.to_vec(), signature: None };
        if let Some(key) = key {
            request.sign(key).map_err(unusable)?;
        }
        match (self.issued(request.clone()).await, key) {
            // Mints of before the last change of NUT-20 take the signature of then.
            (Err(MintError::Refused(_)), Some(key)) => {
                request.sign_legacy(key.clone()).map_err(unusable)?;
                self.issued(request).await
            }
            (answer, _) => answer,
        }
    }

    async fn issued(&self, request: MintRequest<String>) -> Result<Vec<BlindSignature>, MintError> {
        let ask = |client: cdk::HttpClient| async move {
            client.post_mint(&PaymentMethod::BOLT11, request).await
        };
        match tokio::time::timeout(SWAP_MAX, self.call(ask)).await {
            Ok(answer) => answer.map(|answer| answer.signatures),
            Err(_) => Err(MintError::Ambiguous),
        }
    }
}

/// Refuses an answer that is not what was asked for: whoever pays this invoice must get what
/// they pay.
fn checked(
    answer: MintQuoteBolt11Response<String>,
    amount: Msat,
    key: PublicKey,
    now: UnixMs,
) -> Result<Offer, &'static str> {
    let MintQuoteBolt11Response { quote, request, expiry, pubkey, .. } = answer;
    if !is_quote_name(&quote) {
        return Err("its quote has a name that cannot be asked for");
    }
    if pubkey.is_some_and(|locked_to| locked_to != key) {
        return Err("its quote is locked to another key");
    }
    if request.len() > BOLT11_BYTES_MAX {
        return Err("its invoice is too long");
    }
    let invoice = Bolt11Invoice::from_str(&request).map_err(|_| "its invoice cannot be read")?;
    if invoice.amount_milli_satoshis() != Some(amount.get()) {
        return Err("its invoice is for another amount");
    }
    let until = invoice.duration_since_epoch().saturating_add(invoice.expiry_time());
    // 0 is how some mints say that a quote does not expire.
    let until = match expiry.filter(|expiry| *expiry > 0).map(Duration::from_secs) {
        Some(expiry) => until.min(expiry),
        None => until,
    };
    let expires = UnixMs(0).plus(until);
    if expires <= now {
        return Err("its invoice has expired already");
    }
    let payment_hash = invoice.payment_hash().to_string();
    Ok(Offer { quote, bolt11: request, payment_hash, expires, locked: pubkey.is_some() })
}

/// Whether a quote of this name can be asked for: it becomes part of an address.
pub(super) fn is_quote_name(quote: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    !quote.is_empty() && quote.len() <= QUOTE_BYTES_MAX && quote.bytes().all(plain)
}

/// Newer mints count what was paid and issued, older ones have the state alone.
fn payment_of(answer: &MintQuoteBolt11Response<String>, count: u64) -> Payment {
    if answer.state == MintQuoteState::Issued || answer.amount_issued.to_u64() > 0 {
        Payment::Issued
    } else if answer.state == MintQuoteState::Paid || answer.amount_paid.to_u64() >= count {
        Payment::Paid
    } else {
        Payment::Unpaid
    }
}

/// Mints use UUIDs and short random texts.
const QUOTE_BYTES_MAX: usize = 128;

/// The longest that the specification of invoices has in mind.
pub(super) const BOLT11_BYTES_MAX: usize = 7089;

#[cfg(test)]
mod tests {
    use super::*;

    /// An example of BOLT 11: 2500 µBTC, made on 2017-06-01, valid for a minute.
    const INVOICE: &str = "lnbc2500u1pvjluezsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygspp5qqqsyqcyq5rqwzq\
         fqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdq5xysxxatsyp3k7enxv4jsxqzpu9qrsgquk0rl77nj30yxdy8j9v\
         dx85fkpmdla2087ne0xh8nhedh8w27kyke0lp53ut353s06fv3qfegext0eh0ymjpf39tuven09sam30g4vgpfna3rh";
    const HASH: &str = "0001020304050607080900010203040506070809000102030405060708090102";
    const MADE_S: u64 = 1_496_314_658;

    fn answer() -> MintQuoteBolt11Response<String> {
        MintQuoteBolt11Response {
            quote: "0197-abc_D".to_owned(),
            request: INVOICE.to_owned(),
            amount: None,
            unit: None,
            method: PaymentMethod::BOLT11,
            amount_paid: Amount::ZERO,
            amount_issued: Amount::ZERO,
            updated_at: 0,
            state: MintQuoteState::Unpaid,
            expiry: None,
            pubkey: None,
        }
    }

    fn sats(amount: u64) -> Msat {
        Msat::from_sats(amount).unwrap()
    }

    fn check(answer: MintQuoteBolt11Response<String>, at_s: u64) -> Result<Offer, &'static str> {
        checked(answer, sats(250_000), key(), UnixMs(at_s * 1000))
    }

    fn key() -> PublicKey {
        SecretKey::from_slice(&[7; 32]).unwrap().public_key()
    }

    #[test]
    fn hash_and_expiry_are_the_invoices_own() {
        let offer = check(answer(), MADE_S).unwrap();
        assert_eq!(offer.payment_hash, HASH);
        assert_eq!(offer.expires, UnixMs((MADE_S + 60) * 1000));
        assert!(!offer.locked);
        let sooner = MintQuoteBolt11Response { expiry: Some(MADE_S + 30), ..answer() };
        assert_eq!(check(sooner, MADE_S).unwrap().expires, UnixMs((MADE_S + 30) * 1000));
        for expiry in [0, MADE_S + 3600] {
            let later = MintQuoteBolt11Response { expiry: Some(expiry), ..answer() };
            assert_eq!(check(later, MADE_S).unwrap().expires, UnixMs((MADE_S + 60) * 1000));
        }
    }

    #[test]
    fn an_invoice_that_is_not_what_was_asked_for_is_refused() {
        assert!(checked(answer(), sats(250_001), key(), UnixMs(MADE_S * 1000)).is_err(), "amount");
        assert!(check(answer(), MADE_S + 59).is_ok());
        assert!(check(answer(), MADE_S + 60).is_err(), "expired");
        let with = |change: fn(&mut MintQuoteBolt11Response<String>)| {
            let mut answer = answer();
            change(&mut answer);
            check(answer, MADE_S)
        };
        assert!(with(|answer| answer.request.replace_range(20..21, "q")).is_err(), "checksum");
        assert!(with(|answer| answer.request.clear()).is_err());
        assert!(with(|answer| answer.request = "1".repeat(BOLT11_BYTES_MAX + 1)).is_err());
        for quote in ["", "a/b", "..", "a?b", "ä"] {
            let named = MintQuoteBolt11Response { quote: quote.to_owned(), ..answer() };
            assert!(check(named, MADE_S).is_err(), "{quote}");
        }
        for (length, fits) in [(QUOTE_BYTES_MAX, true), (QUOTE_BYTES_MAX + 1, false)] {
            let named = MintQuoteBolt11Response { quote: "q".repeat(length), ..answer() };
            assert_eq!(check(named, MADE_S).is_ok(), fits, "{length}");
        }
    }

    #[test]
    fn a_quote_is_ours_to_sign_for_or_nobodys() {
        let locked = MintQuoteBolt11Response { pubkey: Some(key()), ..answer() };
        assert!(check(locked, MADE_S).unwrap().locked);
        let other = SecretKey::from_slice(&[8; 32]).unwrap().public_key();
        let locked = MintQuoteBolt11Response { pubkey: Some(other), ..answer() };
        assert!(check(locked, MADE_S).is_err());
    }

    #[test]
    fn a_payment_is_seen_by_state_or_by_amounts() {
        let of = |state, paid: u64, issued: u64| {
            let (amount_paid, amount_issued) = (paid.into(), issued.into());
            payment_of(
                &MintQuoteBolt11Response { state, amount_paid, amount_issued, ..answer() },
                9,
            )
        };
        let (unpaid, paid) = (MintQuoteState::Unpaid, MintQuoteState::Paid);
        assert_eq!(of(unpaid, 0, 0), Payment::Unpaid);
        assert_eq!(of(unpaid, 8, 0), Payment::Unpaid);
        assert_eq!(of(unpaid, 9, 0), Payment::Paid);
        assert_eq!(of(paid, 0, 0), Payment::Paid);
        assert_eq!(of(paid, 9, 9), Payment::Issued);
        assert_eq!(of(MintQuoteState::Issued, 0, 0), Payment::Issued);
    }
}
