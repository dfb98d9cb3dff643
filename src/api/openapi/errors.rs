//! Every code of an error, with the statuses that it comes with (WIRE.md section 3). A code that is
//! not here is in no answer: a debug build stops at it.

use serde_json::{Value, json};

/// Statuses and the codes that come with them.
pub(in crate::api) type Codes = &'static [(u16, &'static str)];

/// On every route, whatever it does.
pub(super) const EVERYWHERE: Codes =
    &[(408, "request_timeout"), (413, "request_too_large"), (500, "internal_error")];

/// On paths and methods that no operation has.
const NOWHERE: Codes = &[(404, "not_found"), (405, "method_not_allowed")];

/// Where fields are read.
pub(in crate::api) const FIELDS: Codes = &[(400, "invalid_value")];

/// Where a key or a Cashu bearer is read. Without a credential it is 401 or, where configuration
/// says so, 402.
pub(in crate::api) const KEY: Codes = &[
    (401, "missing_api_key"),
    (401, "invalid_api_key"),
    (401, "key_expired"),
    (402, "missing_api_key"),
    (429, "too_many_unpaid_requests"),
    (429, "too_many_unknown_keys"),
    (503, "ledger_unavailable"),
];

/// Where ecash becomes balance.
pub(in crate::api) const REDEEMED: Codes = &[
    (400, "invalid_cashu_token"),
    (400, "cashu_token_zero_value"),
    (400, "cashu_token_already_spent"),
    (400, "cashu_token_redemption_failed"),
    (400, "mint_not_accepted"),
    (422, "cashu_token_swap_fees_exceed_amount"),
    (429, "too_many_failed_redemptions"),
    (429, "too_many_openings"),
    (500, "cashu_token_consumed"),
    (503, "cashu_mint_unreachable"),
    (503, "cashu_mint_rate_limited"),
    (503, "ledger_unavailable"),
];

pub(in crate::api) const REFUNDED: Codes = &[
    (400, "no_balance_to_refund"),
    (400, "balance_too_small_to_refund"),
    (400, "requests_in_progress"),
    (400, "mint_not_accepted"),
    (403, "child_key"),
    (404, "refund_not_found"),
    (410, "refund_swept"),
    (422, "lightning_fee_too_high"),
    (425, "refund_pending"),
    (502, "lightning_address_failed"),
    (502, "lightning_payment_failed"),
    (503, "cashu_mint_unreachable"),
];

/// Where only the key that has child keys may act.
pub(in crate::api) const PARENT: Codes = &[(403, "child_key")];
pub(in crate::api) const CHILDREN_MADE: Codes = &[(409, "too_many_child_keys")];
pub(in crate::api) const CHILD_NAMED: Codes = &[(404, "child_key_not_found")];

pub(in crate::api) const INVOICED: Codes = &[
    (400, "mint_not_accepted"),
    (404, "lightning_not_offered"),
    (429, "too_many_openings"),
    (503, "lightning_unavailable"),
    (503, "ledger_unavailable"),
];
pub(in crate::api) const INVOICE_NAMED: Codes =
    &[(404, "invoice_not_found"), (429, "too_many_unknown_keys"), (503, "ledger_unavailable")];

pub(in crate::api) const MODEL_NAMED: Codes =
    &[(404, "model_not_found"), (503, "price_unavailable")];

pub(in crate::api) const DOCUMENT_NAMED: Codes = &[(404, "not_found")];

/// Where an `Idempotency-Key` is kept.
pub(super) const REPEATED: Codes = &[
    (409, "idempotency_in_flight"),
    (409, "idempotency_not_replayable"),
    (422, "idempotency_key_reuse"),
    (429, "rate_limit_exceeded"),
    (503, "ledger_unavailable"),
];

pub(in crate::api) const WEBHOOKS: Codes = &[(404, "webhooks_not_offered")];
pub(in crate::api) const WEBHOOK_MADE: Codes = &[(409, "too_many_webhooks")];
pub(in crate::api) const WEBHOOK_NAMED: Codes = &[(404, "webhook_not_found")];

/// Where something is sold. `insufficient_balance` is what `payment_required` is called in the
/// dialect of some wallets.
pub(super) const SOLD: Codes = &[
    (400, "invalid_json"),
    (400, "invalid_form"),
    (402, "payment_required"),
    (402, "insufficient_balance"),
    (402, "balance_limit_exceeded"),
    (415, "unsupported_media_type"),
    (429, "rate_limit_exceeded"),
    (429, "upstream_rate_limited"),
    (502, "upstream_unreachable"),
    (502, "upstream_timeout"),
    (502, "upstream_broke"),
    (502, "upstream_failed"),
    (502, "upstream_refused"),
    (502, "upstream_unreadable"),
    (503, "upstream_unavailable"),
];

const ALL: [Codes; 18] = [
    EVERYWHERE,
    NOWHERE,
    FIELDS,
    KEY,
    REDEEMED,
    REFUNDED,
    PARENT,
    CHILDREN_MADE,
    CHILD_NAMED,
    INVOICED,
    INVOICE_NAMED,
    MODEL_NAMED,
    DOCUMENT_NAMED,
    REPEATED,
    WEBHOOKS,
    WEBHOOK_MADE,
    WEBHOOK_NAMED,
    SOLD,
];

/// Whether the document says that this code comes with this status.
pub(in crate::api) fn is_documented(status: u16, code: &str) -> bool {
    ALL.iter().copied().flatten().any(|documented| *documented == (status, code))
}

/// What a status means here.
pub(super) fn meaning(status: u16) -> &'static str {
    match status {
        400 => "The request cannot be accepted; a field that is wrong is named. Nothing was taken.",
        401 => "No credential, or one that opens nothing.",
        402 => {
            "Not enough money. To a request that carried no ecash `X-Cashu` says what it takes, as \
             a Cashu payment request (NUT-18, NUT-24)."
        }
        403 => "This credential may not do that.",
        404 => "There is nothing of this name.",
        408 => "The request's body did not arrive in time.",
        409 => "It collides with what is there or under way.",
        410 => "Nobody claimed it for longer than it is left to be claimed.",
        413 => "The request's body is too large. Nothing of it was looked at.",
        415 => "The body is not of a content type that this route takes.",
        422 => "It can be read and not be done.",
        425 => "It is booked and not ready; the same request finds it.",
        429 => "A limit was reached. Nothing was charged and nothing is held.",
        502 => "The upstream failed, and nothing was charged that was not delivered.",
        503 => "Ledger, mint, price or upstream cannot be reached right now.",
        _ => "Something went wrong here; it is logged.",
    }
}

/// Whether such an answer says when to come back.
pub(super) const fn says_when(status: u16) -> bool {
    matches!(status, 425 | 429 | 503)
}

/// An error with one of these codes.
pub(super) fn schema(codes: &[&str]) -> Value {
    let code = json!({ "type": "string", "enum": codes });
    let error = json!({ "type": "object", "properties": { "code": code } });
    let one = json!({ "type": "object", "properties": { "error": error } });
    json!({ "allOf": [{ "$ref": "#/components/schemas/Error" }, one] })
}
