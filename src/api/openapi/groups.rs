//! How operations are grouped, and who may pay for them.

use serde_json::{Value, json};

/// The groups of the document, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::api) enum Tag {
    Sold,
    Balance,
    ChildKeys,
    Lightning,
    Webhooks,
    Catalogue,
    Documents,
}

/// Which credentials an operation reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::api) enum Payers {
    Nobody,
    /// Where one is only needed for some of what may be asked.
    Perhaps,
    /// `Authorization: Bearer` with a key or a Cashu token.
    Bearer,
    /// That, or the `X-Cashu` of an earlier payment.
    BearerOrPaid,
    /// That, `x-api-key`, or a Cashu token in `X-Cashu` for this one request.
    Anybody,
}

impl Tag {
    pub(super) const ALL: [Self; 7] = [
        Self::Sold,
        Self::Balance,
        Self::ChildKeys,
        Self::Lightning,
        Self::Webhooks,
        Self::Catalogue,
        Self::Documents,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Sold => "What is sold",
            Self::Balance => "Balance",
            Self::ChildKeys => "Child keys",
            Self::Lightning => "Lightning",
            Self::Webhooks => "Webhooks",
            Self::Catalogue => "Catalogue",
            Self::Documents => "Documents and health",
        }
    }

    pub(super) fn written(self) -> Value {
        let about = match self {
            Self::Sold => "Requests that are metered and paid for. The list is closed.",
            Self::Balance => "A token becomes a key, and what is left becomes a token again.",
            Self::ChildKeys => "Keys that spend their parent's balance under limits of their own.",
            Self::Lightning => "Paying in over Lightning.",
            Self::Webhooks => "Where what happens to a key is posted.",
            Self::Catalogue => "What is on offer, what it costs, and who offers it.",
            Self::Documents => "This document, pages that show it, and whether the process lives.",
        };
        json!({ "name": self.name(), "description": about })
    }
}

impl Payers {
    pub(super) fn security(self) -> Value {
        let bearer = || vec![json!({ "apiKey": [] }), json!({ "cashuBearer": [] })];
        let and = |more: &[Value]| Value::Array([bearer(), more.to_vec()].concat());
        let cashu = json!({ "cashu": [] });
        match self {
            Self::Nobody => json!([]),
            Self::Perhaps => and(&[json!({})]),
            Self::Bearer => and(&[]),
            Self::BearerOrPaid => and(&[cashu]),
            Self::Anybody => and(&[cashu, json!({ "anthropicKey": [] })]),
        }
    }
}

/// `components.securitySchemes`
pub(super) fn security_schemes() -> Value {
    let bearer = |format: &str, about: &str| json!({ "type": "http", "scheme": "bearer", "bearerFormat": format, "description": about });
    let header = |name: &str, about: &str| json!({ "type": "apiKey", "in": "header", "name": name, "description": about });
    json!({
        "apiKey": bearer("sk-…", "A key: `sk-` and 32 characters."),
        "cashuBearer": bearer(
            "cashuA… or cashuB…",
            "A Cashu token used as a key. Its first use redeems it and opens an account; later \
             uses of the same text are that account.",
        ),
        "cashu": header(
            "X-Cashu",
            "One request paid by one Cashu token; the change is in `X-Cashu` of the answer. Wins \
             over `Authorization`. On a refund: the token of the payment whose change is claimed.",
        ),
        "anthropicKey": header(
            "x-api-key",
            "A key or a Cashu token, where Anthropic's clients put it; read when neither of the \
             other two headers is there.",
        ),
    })
}
