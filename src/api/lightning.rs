//! `POST /lightning/invoice` and `GET /lightning/invoice/{id}/status`: a Lightning payment
//! becomes a key, or balance of one.
//!
//! The invoice's id is a secret of who asked for it: it shows the key that the payment opens, as
//! often as it is asked for. So it is never logged ([`super::loggable_path`]).

use axum::extract::{Path, State};
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use axum::{Json, Router};
use http::HeaderMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::balance::{account_of, bearer, mint_not_accepted, payer};
use super::input::{Input, Sats};
use super::openapi::{FIELDS, INVOICE_NAMED, INVOICED, KEY, Operation, Payers, REDEEMED, Tag};
use super::terms::{ResetName, terms_of};
use super::{ApiState, Refused, once};
use crate::clock::UnixMs;
use crate::error::{Fault, Kind, Refusal};
use crate::ids::InvoiceId;
use crate::ledger::Ledger;
use crate::money::Msat;
use crate::till::{Goes, Invoice, InvoiceAsk, InvoiceRefused, InvoiceState};

/// Every path under each of its names.
pub(super) fn routes<L: Ledger>(state: ApiState<L>) -> Router {
    PREFIXES
        .iter()
        .fold(Router::new(), |router, prefix| {
            router
                .route(&format!("{prefix}/lightning/invoice"), post(invoice::<L>))
                .route(&format!("{prefix}/lightning/invoice/{{id}}/status"), get(status::<L>))
        })
        .route_layer(from_fn_with_state(state.clone(), once::once::<L>))
        .with_state(state)
}

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::post("/v1/lightning/invoice", "lightningInvoice")
            .tag(Tag::Lightning)
            .says("An invoice of one of the gateway's mints", ABOUT_INVOICE)
            .also_at(&PREFIXES, "/lightning/invoice")
            .paid_by(Payers::Perhaps)
            .once()
            .json::<Asked>()
            .answers::<Offered>("What to pay, and where to ask.")
            .refuses(&[FIELDS, KEY, REDEEMED, INVOICED]),
        Operation::get("/v1/lightning/invoice/{id}/status", "lightningInvoiceStatus")
            .tag(Tag::Lightning)
            .says("Whether an invoice was paid, and the key that it opened", "")
            .also_at(&PREFIXES, "/lightning/invoice/{id}/status")
            .id_in_path("id", "The invoice's `invoice_id`: a secret.")
            .answers::<Status>("Where it stands.")
            .refuses(&[INVOICE_NAMED, INVOICED]),
    ]
}

const ABOUT_INVOICE: &str = "Paid, it opens a key (`create`) or adds to the one that is shown \
    (`topup`). The id is a secret like the key.";

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "InvoiceRequest")]
struct Asked {
    #[schemars(required)]
    amount_sats: Option<Sats>,
    #[schemars(required)]
    purpose: Option<Purpose>,
    /// One of `mints` in `GET /v1/info`; any of them if it is not given.
    mint: Option<String>,
    /// For `create`, and so are the next two: what the key may spend.
    balance_limit: Option<Msat>,
    balance_limit_reset: Option<ResetName>,
    /// Epoch seconds.
    validity_date: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Purpose {
    Create,
    Topup,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Invoice")]
struct Offered {
    invoice_id: String,
    bolt11: String,
    amount_sats: u64,
    /// Epoch seconds.
    expires_at: u64,
    payment_hash: String,
}

async fn invoice<L: Ledger>(
    State(api): State<ApiState<L>>,
    headers: HeaderMap,
    Input(asked): Input<Asked>,
) -> Result<Json<Offered>, Refused> {
    if !api.config.lightning.enabled {
        return Err(not_offered().into());
    }
    let amount = amount_of(&asked, api.config.lightning.amount_sats_max)?;
    let purpose = asked.purpose;
    let goes = match purpose.ok_or_else(|| required("purpose", "`create` or `topup`"))? {
        Purpose::Create => Goes::ToItsOwnKey(terms_of(
            asked.balance_limit,
            asked.balance_limit_reset,
            asked.validity_date,
        )?),
        Purpose::Topup => {
            no_terms(&asked)?;
            let shown = bearer(&api, &headers)?;
            let account = account_of(&api, &shown).await?;
            Goes::ToAccount(payer(&account, &shown.key()))
        }
    };
    let ask = InvoiceAsk { amount, goes, mint: asked.mint };
    let invoice = api.till.invoice(ask).await.map_err(|refused| refusal(&refused))?;
    let Invoice { id, bolt11, payment_hash, expires } = invoice;
    Ok(Json(Offered {
        invoice_id: id.reveal().to_owned(),
        bolt11,
        amount_sats: sats(amount),
        expires_at: expires.whole_seconds(),
        payment_hash,
    }))
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "InvoiceStatus")]
struct Status {
    /// `pending`, `paid`, `expired` or `failed`.
    #[schemars(extend("enum" = ["pending", "paid", "expired", "failed"]))]
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_key: Option<String>,
    amount_sats: u64,
    created_at: u64,
    expires_at: u64,
    paid_at: Option<u64>,
}

async fn status<L: Ledger>(
    State(api): State<ApiState<L>>,
    Path(id): Path<String>,
) -> Result<Json<Status>, Refused> {
    let id = InvoiceId::presented(&id).ok_or_else(unknown)?;
    let found = api.till.invoice_status(&id).await.map_err(|refused| refusal(&refused))?;
    let found = found.ok_or_else(unknown)?;
    let key = found.key.filter(|_| found.state == InvoiceState::Paid);
    Ok(Json(Status {
        status: name_of(found.state),
        api_key: key.map(|key| key.reveal().to_owned()),
        amount_sats: sats(found.amount),
        created_at: found.created.whole_seconds(),
        expires_at: found.expires.whole_seconds(),
        paid_at: found.paid.map(UnixMs::whole_seconds),
    }))
}

fn name_of(state: InvoiceState) -> &'static str {
    match state {
        InvoiceState::Pending => "pending",
        InvoiceState::Paid => "paid",
        InvoiceState::Expired => "expired",
        InvoiceState::Lost => "failed",
    }
}

fn amount_of(asked: &Asked, amount_sats_max: u64) -> Result<Msat, Refusal> {
    let Sats(amount) =
        asked.amount_sats.ok_or_else(|| required("amount_sats", "a number of sats"))?;
    if sats(amount) > amount_sats_max {
        return Err(Refusal::field(
            "amount_sats",
            format_args!("must be at most {amount_sats_max}"),
        ));
    }
    Ok(amount)
}

/// The key has its terms already, and cannot change them.
fn no_terms(asked: &Asked) -> Result<(), Refusal> {
    let given = [
        ("balance_limit", asked.balance_limit.is_some()),
        ("balance_limit_reset", asked.balance_limit_reset.is_some()),
        ("validity_date", asked.validity_date.is_some()),
    ];
    match given.into_iter().find(|(_, given)| *given) {
        Some((name, _)) => Err(Refusal::field(name, "is for a key that is created")),
        None => Ok(()),
    }
}

fn required(name: &str, what: &str) -> Refusal {
    Refusal::field(name, format_args!("is required: {what}"))
}

fn sats(amount: Msat) -> u64 {
    amount.get() / crate::money::MSAT_PER_SAT
}

fn refusal(refused: &InvoiceRefused) -> Refusal {
    match refused {
        InvoiceRefused::MintNotAccepted => mint_not_accepted(),
        InvoiceRefused::NoInvoice => wait(
            "lightning_unavailable",
            "no mint gives a Lightning invoice for this amount now; pay with ecash, or ask again",
        )
        .fault(Fault::Mint),
        InvoiceRefused::TooMany => wait(
            "lightning_unavailable",
            "as many Lightning invoices as can be waited for are open; ask again later",
        )
        .fault(Fault::Us),
        InvoiceRefused::Unavailable => Refusal::ledger_unavailable(),
    }
}

fn wait(code: &'static str, message: &'static str) -> Refusal {
    Refusal::new(Kind::ServiceUnavailable, code, message).retry_after_s(RETRY_AFTER_S)
}

fn not_offered() -> Refusal {
    Refusal::new(
        Kind::NotFound,
        "lightning_not_offered",
        "this gateway takes no Lightning payments; pay with ecash",
    )
}

fn unknown() -> Refusal {
    Refusal::new(
        Kind::NotFound,
        "invoice_not_found",
        "there is no invoice of this id, or nobody paid it and it is forgotten",
    )
}

pub(super) const PREFIXES: [&str; 6] =
    ["", "/v1", "/v1/balance", "/v1/wallet", "/balance", "/wallet"];
const RETRY_AFTER_S: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refused_invoice_has_its_code_and_says_when_to_come_back() {
        for (refused, status, code) in [
            (InvoiceRefused::MintNotAccepted, 400, "mint_not_accepted"),
            (InvoiceRefused::NoInvoice, 503, "lightning_unavailable"),
            (InvoiceRefused::TooMany, 503, "lightning_unavailable"),
            (InvoiceRefused::Unavailable, 503, "ledger_unavailable"),
        ] {
            let refusal = refusal(&refused);
            assert_eq!((refusal.status_code(), refusal.code()), (status, code), "{refused:?}");
            assert_eq!(refusal.retry_after().is_some(), status == 503, "{refused:?}");
        }
    }
}
