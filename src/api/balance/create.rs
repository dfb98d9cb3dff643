//! `GET` and `POST /v1/balance/create`: a Cashu token becomes a key. Repeated, it answers the
//! same key, so an answer that got lost costs nothing.
//!
//! The limits asked for are written down with the token's redemption and are the key's from its
//! first moment. A repetition changes nothing, whoever sends it and whatever it asks for.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};

use super::swap::{Swap, swap_of};
use super::{look_up, redeemed_into};
use crate::api::input::{Input, Whole, cashu_token};
use crate::api::terms::{ResetName, terms_of};
use crate::api::{ApiState, Refused};
use crate::error::Refusal;
use crate::ids::ApiKey;
use crate::ledger::{Ledger, Opening};
use crate::money::Msat;

#[derive(Deserialize)]
pub(super) struct Asked {
    initial_balance_token: Option<String>,
    balance_limit: Option<Whole>,
    balance_limit_reset: Option<ResetName>,
    validity_date: Option<Whole>,
}

#[derive(Serialize)]
pub(super) struct Created {
    api_key: String,
    balance: Msat,
    #[serde(skip_serializing_if = "Option::is_none")]
    swap: Option<Swap>,
}

pub(super) async fn create<L: Ledger>(
    State(api): State<ApiState<L>>,
    Input(asked): Input<Asked>,
) -> Result<Json<Created>, Refused> {
    let text = cashu_token("initial_balance_token", asked.initial_balance_token.as_ref())?;
    let key = ApiKey::of_cashu_token(text);
    let limit = asked.balance_limit.map(|Whole(limit)| Msat::new(limit).ok_or_else(too_much));
    let end = asked.validity_date.map(|Whole(seconds)| seconds);
    let terms = terms_of(limit.transpose()?, asked.balance_limit_reset, end)?;
    let opening = Opening { account: key.account(), terms };
    redeemed_into(&key.account(), api.till.pay_in(text, opening).await)?;
    let account = look_up(&api, &key).await?.ok_or_else(Refusal::internal)?;
    let swap = swap_of(&api, text).await;
    Ok(Json(Created { api_key: key.reveal().to_owned(), balance: account.available, swap }))
}

fn too_much() -> Refusal {
    Refusal::field("balance_limit", "is more than can be counted, in msat")
}
