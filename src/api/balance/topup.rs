//! `POST /v1/balance/topup`: a Cashu token becomes balance of an account that exists, or of its
//! parent. Repeated with the same token, it answers the same and credits nothing.

use axum::Json;
use axum::extract::State;
use http::HeaderMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{PREFIXES, account_of, bearer, payer, redeem};
use crate::api::input::{Input, cashu_token};
use crate::api::openapi::{FIELDS, KEY, Operation, Payers, REDEEMED, REPEATED, Tag};
use crate::api::{ApiState, Refused};
use crate::ledger::Ledger;
use crate::money::Msat;

pub(super) fn operation() -> Operation {
    Operation::post("/v1/balance/topup", "topup")
        .tag(Tag::Balance)
        .says("A Cashu token becomes balance of a key", "A child key's parent gets it.")
        .also_at(&PREFIXES, "/topup")
        .paid_by(Payers::Bearer)
        .sends(&["Idempotency-Key"])
        .json_or_query::<Asked>()
        .answers::<Added>("What was added.")
        .refuses(&[FIELDS, KEY, REDEEMED, REPEATED])
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "TopupRequest")]
pub(super) struct Asked {
    /// A Cashu token, `cashuA…` or `cashuB…`.
    #[schemars(required, length(min = 1))]
    cashu_token: Option<String>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ToppedUp")]
pub(super) struct Added {
    msats: Msat,
}

pub(super) async fn topup<L: Ledger>(
    State(api): State<ApiState<L>>,
    headers: HeaderMap,
    asked: Result<Input<Asked>, Refused>,
) -> Result<Json<Added>, Refused> {
    let shown = bearer(&api, &headers)?;
    let Input(asked) = asked?;
    let text = cashu_token("cashu_token", asked.cashu_token.as_ref())?;
    // A key that was mistyped must not swallow the ecash: first the account, then the token.
    let account = account_of(&api, &shown).await?;
    let redeemed = redeem(&api, text, payer(&account, &shown.key())).await?;
    Ok(Json(Added { msats: redeemed.amount }))
}
