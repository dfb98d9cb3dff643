//! `POST /v1/balance/topup`: a Cashu token becomes balance of an account that exists, or of its
//! parent. Repeated with the same token, it answers the same and credits nothing.

use axum::Json;
use axum::extract::State;
use http::HeaderMap;
use serde::{Deserialize, Serialize};

use super::{account_of, bearer, payer, redeem};
use crate::api::input::{Input, cashu_token};
use crate::api::{ApiState, Refused};
use crate::ledger::Ledger;
use crate::money::Msat;

#[derive(Deserialize)]
pub(super) struct Asked {
    cashu_token: Option<String>,
}

#[derive(Serialize)]
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
