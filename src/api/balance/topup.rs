//! `POST /v1/balance/topup`: a Cashu token becomes balance of an account that exists, or of its
//! parent. Repeated with the same token, it answers the same and credits nothing.

use axum::Json;
use axum::extract::State;
use http::HeaderMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::swap::{Swap, swap_of};
use super::{PREFIXES, account_of, bearer, payer, redeemed_into};
use crate::api::input::{Input, cashu_token};
use crate::api::openapi::{FIELDS, KEY, Operation, Payers, REDEEMED, Tag};
use crate::api::{ApiState, Refused};
use crate::ledger::terms::Terms;
use crate::ledger::{Ledger, Opening};
use crate::money::Msat;

pub(super) fn operation() -> Operation {
    Operation::post("/v1/balance/topup", "topup")
        .tag(Tag::Balance)
        .says("A Cashu token becomes balance of a key", "A child key's parent gets it.")
        .also_at(&PREFIXES, "/topup")
        .paid_by(Payers::Bearer)
        .once()
        .json_or_query::<Asked>()
        .answers::<Added>("What was added.")
        .refuses(&[FIELDS, KEY, REDEEMED])
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
    #[serde(skip_serializing_if = "Option::is_none")]
    swap: Option<Swap>,
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
    let account = payer(&account, &shown.key());
    let opening = Opening { account: account.clone(), terms: Terms::default() };
    let redeemed = redeemed_into(&account, api.till.pay_in(text, opening).await)?;
    Ok(Json(Added { msats: redeemed.amount, swap: swap_of(&api, text).await }))
}
