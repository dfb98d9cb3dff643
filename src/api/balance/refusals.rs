//! Why money did not move, in the words that clients key on (WIRE.md section 3). The edge uses
//! the same words on billable routes.

use serde_json::json;

use crate::error::{Fault, Kind, Refusal};
use crate::till::{NoInvoice, PayRefused, RedeemRefused, RefundRefused};

/// Why a token did not become balance, here and on billable routes. The wallet's and the mint's
/// own words stay with us: nobody vouches for what a mint puts into them.
pub fn redeem_refusal(refused: &RedeemRefused) -> Refusal {
    let invalid = |code, message| Refusal::new(Kind::InvalidRequest, code, message);
    let wait = |code, message| {
        Refusal::new(Kind::ServiceUnavailable, code, message)
            .retry_after_s(MINT_RETRY_AFTER_S)
            .fault(Fault::Mint)
    };
    match refused {
        RedeemRefused::Invalid(_) => {
            invalid("invalid_cashu_token", "this is not a Cashu token that can be read")
        }
        RedeemRefused::UnitNotAccepted => {
            invalid("invalid_cashu_token", "the unit of this Cashu token is not accepted here")
        }
        RedeemRefused::ZeroValue => {
            invalid("cashu_token_zero_value", "this Cashu token is worth nothing")
        }
        RedeemRefused::MintNotAccepted => mint_not_accepted(),
        RedeemRefused::TooSmall { required, value } => {
            Refusal::insufficient_balance(*required, *value)
        }
        RedeemRefused::AlreadySpent => {
            invalid("cashu_token_already_spent", "this Cashu token has been spent already")
        }
        RedeemRefused::FeesExceedAmount => invalid(
            "cashu_token_swap_fees_exceed_amount",
            "the mint's fee is as much as this Cashu token is worth",
        )
        .status(422),
        RedeemRefused::SwapTooDear { value, fees, fees_max } => invalid(
            "cashu_token_swap_fees_exceed_amount",
            "to have this mint pay over Lightning costs more than is allowed here; the Cashu token \
             is untouched",
        )
        .status(422)
        .details(json!({ "value": value, "fees": fees, "fees_max": fees_max })),
        RedeemRefused::MintUnreachable => wait(
            "cashu_mint_unreachable",
            "the mint of this Cashu token cannot be reached; the token is untouched",
        ),
        RedeemRefused::MintRateLimited => wait(
            "cashu_mint_rate_limited",
            "the mint of this Cashu token limits our requests; the token is untouched",
        ),
        RedeemRefused::Failed(_) => invalid(
            "cashu_token_redemption_failed",
            "the mint refused to swap this Cashu token; the token is untouched",
        )
        .fault(Fault::Mint),
        RedeemRefused::Unknown => Refusal::new(
            Kind::InternalError,
            "cashu_token_consumed",
            "the mint has not said whether this Cashu token was redeemed; ask again with the \
             same token, or claim it with POST /v1/balance/refund",
        )
        .fault(Fault::Mint),
        RedeemRefused::LedgerUnavailable => Refusal::new(
            Kind::ServiceUnavailable,
            "ledger_unavailable",
            "the ledger cannot be reached; what of this Cashu token was redeemed will be credited: \
             ask again with the same token",
        )
        .retry_after_s(1),
    }
}

/// Why nothing was paid back to a key. A claim by the original payment has other words for an
/// unknown account and for a request that is still running; `refund` chooses them.
pub fn refund_refusal(refused: &RefundRefused) -> Refusal {
    let invalid = |code, message| Refusal::new(Kind::InvalidRequest, code, message);
    match refused {
        RefundRefused::NoAccount => Refusal::key_not_found(),
        RefundRefused::Child => Refusal::new(
            Kind::Forbidden,
            "child_key",
            "a child key spends its parent's balance; the parent's key refunds it",
        ),
        RefundRefused::NothingToRefund => invalid("no_balance_to_refund", "No balance to refund"),
        RefundRefused::Swept { at } => invalid(
            "refund_swept",
            "nobody claimed this for so long that it became the gateway's own; 'swept_at' says when",
        )
        .status(410)
        .details(json!({ "swept_at": at.whole_seconds() })),
        RefundRefused::TooSmall { available } => invalid(
            "balance_too_small_to_refund",
            "what is available is less than the smallest unit of the mint; it stays on the account",
        )
        .details(json!({ "available": available })),
        RefundRefused::Insufficient { available } => {
            invalid("balance_too_small_to_refund", "less than 'amount_sats' is available")
                .details(json!({ "param": "amount_sats", "available": available }))
        }
        RefundRefused::InProgress { open } => invalid(
            "requests_in_progress",
            "everything can be paid back when there are no ongoing requests; ask for an amount, \
             or again when they have ended",
        )
        .details(json!({ "open": open })),
        RefundRefused::MintNotAccepted => mint_not_accepted(),
        RefundRefused::MintHasTooLittle => {
            Refusal::field("mint", "holds too little for this; leave it out, or name another")
        }
        RefundRefused::Pending => pending("this refund is booked and waits for the mint"),
        RefundRefused::LedgerUnavailable => Refusal::ledger_unavailable(),
    }
}

/// Why nothing was paid to a Lightning address. Its host's and the mint's own words stay with us.
pub(super) fn pay_refusal(refused: &PayRefused) -> Refusal {
    let bad = |code, message| Refusal::new(Kind::UpstreamError, code, message);
    match refused {
        PayRefused::Refund(refused) => refund_refusal(refused),
        PayRefused::NoInvoice(why) => no_invoice(why),
        PayRefused::Insufficient { available, fee_max } => Refusal::new(
            Kind::InvalidRequest,
            "balance_too_small_to_refund",
            "less than 'amount_sats' and the most that the payment may cost is available",
        )
        .details(json!({ "param": "amount_sats", "available": available, "fee_max": fee_max })),
        PayRefused::FeeTooHigh { asked, most } => Refusal::new(
            Kind::InvalidRequest,
            "lightning_fee_too_high",
            "the mint may take more for this payment than this gateway allows",
        )
        .status(422)
        .details(json!({ "fee_reserve": asked, "fee_max": most })),
        PayRefused::MintRefused => {
            bad("lightning_payment_failed", "the mint does not pay this; nothing was taken")
                .fault(Fault::Mint)
        }
        PayRefused::MintSilent => Refusal::new(
            Kind::ServiceUnavailable,
            "cashu_mint_unreachable",
            "the mint that is to pay cannot be reached; nothing was taken",
        )
        .retry_after_s(MINT_RETRY_AFTER_S)
        .fault(Fault::Mint),
        PayRefused::Failed => {
            bad("lightning_payment_failed", "the payment failed; its value is on the account again")
                .fault(Fault::Mint)
        }
    }
}

fn no_invoice(why: &NoInvoice) -> Refusal {
    let bad = |message| Refusal::new(Kind::UpstreamError, "lightning_address_failed", message);
    match why {
        NoInvoice::Unwelcome => {
            Refusal::field("lightning_address", "does not name a host that can be asked")
        }
        NoInvoice::Refused => {
            Refusal::field("lightning_address", "is not known to its host, or takes no payments")
        }
        NoInvoice::OutOfRange { min, max } => {
            Refusal::field("amount_sats", "is not what this address takes").details(json!({
                "param": "amount_sats", "min_msats": min, "max_msats": max,
            }))
        }
        NoInvoice::Silent => bad("the host of 'lightning_address' does not answer"),
        NoInvoice::Unusable => bad("the host of 'lightning_address' gives no usable invoice"),
    }
}

pub(in crate::api) fn mint_not_accepted() -> Refusal {
    Refusal::new(
        Kind::InvalidRequest,
        "mint_not_accepted",
        "this mint is not accepted here; GET /v1/info lists those that are",
    )
}

/// It will be there; the same request finds it.
pub(super) fn pending(message: &'static str) -> Refusal {
    Refusal::new(Kind::InvalidRequest, "refund_pending", message)
        .status(425)
        .retry_after_s(REFUND_RETRY_AFTER_S)
}

pub(super) fn refund_not_found() -> Refusal {
    Refusal::new(
        Kind::NotFound,
        "refund_not_found",
        "Refund not found: this Cashu token was not redeemed here, nothing was taken",
    )
}

const MINT_RETRY_AFTER_S: u32 = 5;
const REFUND_RETRY_AFTER_S: u32 = 2;

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::money::Msat;

    fn amount(msat: u64) -> Msat {
        Msat::new(msat).unwrap()
    }

    fn message_of(refusal: &Refusal) -> String {
        let body: Value = serde_json::from_slice(&refusal.body("")).unwrap();
        body["error"]["message"].as_str().unwrap().to_owned()
    }

    #[test]
    fn every_failed_redemption_has_its_code_and_says_when_to_come_back() {
        let small = RedeemRefused::TooSmall { required: amount(2), value: amount(1) };
        let (value, fees, fees_max) = (amount(9), amount(3), amount(2));
        let dear = RedeemRefused::SwapTooDear { value, fees, fees_max };
        for (refused, status, code, waits) in [
            (RedeemRefused::Invalid("x".into()), 400, "invalid_cashu_token", false),
            (RedeemRefused::UnitNotAccepted, 400, "invalid_cashu_token", false),
            (RedeemRefused::ZeroValue, 400, "cashu_token_zero_value", false),
            (RedeemRefused::MintNotAccepted, 400, "mint_not_accepted", false),
            (small, 402, "payment_required", false),
            (RedeemRefused::AlreadySpent, 400, "cashu_token_already_spent", false),
            (RedeemRefused::FeesExceedAmount, 422, "cashu_token_swap_fees_exceed_amount", false),
            (dear, 422, "cashu_token_swap_fees_exceed_amount", false),
            (RedeemRefused::MintUnreachable, 503, "cashu_mint_unreachable", true),
            (RedeemRefused::MintRateLimited, 503, "cashu_mint_rate_limited", true),
            (RedeemRefused::Failed("x".into()), 400, "cashu_token_redemption_failed", false),
            (RedeemRefused::Unknown, 500, "cashu_token_consumed", false),
            (RedeemRefused::LedgerUnavailable, 503, "ledger_unavailable", true),
        ] {
            let refusal = redeem_refusal(&refused);
            assert_eq!((refusal.status_code(), refusal.code()), (status, code), "{refused:?}");
            assert_eq!(refusal.retry_after().is_some(), waits, "{refused:?}");
        }
    }

    #[test]
    fn what_a_mint_says_is_not_repeated() {
        let said = "cashuBsecret at http://10.0.0.7";
        for refused in [RedeemRefused::Failed(said.into()), RedeemRefused::Invalid(said.into())] {
            assert!(!message_of(&redeem_refusal(&refused)).contains("secret"));
        }
    }

    #[test]
    fn every_refused_refund_has_its_code() {
        let available = amount(7);
        for (refused, status, code) in [
            (RefundRefused::NoAccount, 401, "invalid_api_key"),
            (RefundRefused::NothingToRefund, 400, "no_balance_to_refund"),
            (RefundRefused::TooSmall { available }, 400, "balance_too_small_to_refund"),
            (RefundRefused::Insufficient { available }, 400, "balance_too_small_to_refund"),
            (RefundRefused::InProgress { open: 1 }, 400, "requests_in_progress"),
            (RefundRefused::MintNotAccepted, 400, "mint_not_accepted"),
            (RefundRefused::MintHasTooLittle, 400, "invalid_value"),
            (RefundRefused::Pending, 425, "refund_pending"),
            (RefundRefused::LedgerUnavailable, 503, "ledger_unavailable"),
        ] {
            let refusal = refund_refusal(&refused);
            assert_eq!((refusal.status_code(), refusal.code()), (status, code), "{refused:?}");
            assert_eq!(refusal.retry_after().is_some(), status >= 425, "{refused:?}");
        }
    }

    #[test]
    fn every_refused_payment_has_its_code_and_names_its_field() {
        let (available, min, max) = (amount(7), amount(1), amount(9));
        let no_invoice = PayRefused::NoInvoice;
        for (refused, status, code, param) in [
            (PayRefused::Refund(RefundRefused::Pending), 425, "refund_pending", None),
            (
                PayRefused::Insufficient { available, fee_max: amount(5) },
                400,
                "balance_too_small_to_refund",
                Some("amount_sats"),
            ),
            (PayRefused::FeeTooHigh { asked: max, most: min }, 422, "lightning_fee_too_high", None),
            (PayRefused::MintRefused, 502, "lightning_payment_failed", None),
            (PayRefused::Failed, 502, "lightning_payment_failed", None),
            (PayRefused::MintSilent, 503, "cashu_mint_unreachable", None),
            (no_invoice(NoInvoice::Unwelcome), 400, "invalid_value", Some("lightning_address")),
            (no_invoice(NoInvoice::Refused), 400, "invalid_value", Some("lightning_address")),
            (
                no_invoice(NoInvoice::OutOfRange { min, max }),
                400,
                "invalid_value",
                Some("amount_sats"),
            ),
            (no_invoice(NoInvoice::Silent), 502, "lightning_address_failed", None),
            (no_invoice(NoInvoice::Unusable), 502, "lightning_address_failed", None),
        ] {
            let refusal = pay_refusal(&refused);
            assert_eq!((refusal.status_code(), refusal.code()), (status, code), "{refused:?}");
            let body: Value = serde_json::from_slice(&refusal.body("")).unwrap();
            assert_eq!(body["error"]["details"]["param"].as_str(), param, "{refused:?}");
        }
    }

    #[test]
    fn the_words_that_wallets_search_for_are_there() {
        let message = |refused| message_of(&refund_refusal(&refused));
        assert_eq!(message(RefundRefused::NothingToRefund), "No balance to refund");
        assert!(message(RefundRefused::InProgress { open: 2 }).contains("ongoing requests"));
        assert!(message_of(&refund_not_found()).contains("Refund not found"));
    }
}
