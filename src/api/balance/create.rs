//! `GET` and `POST /v1/balance/create`: a Cashu token becomes a key. Repeated, it answers the
//! same key, so an answer that got lost costs nothing.
//!
//! The limits asked for are written down with the token's redemption and are the key's from its
//! first moment. A repetition changes nothing, whoever sends it and whatever it asks for.

use axum::extract::State;
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::swap::{Swap, swap_of};
use super::{PREFIXES, look_up, redeemed_into};
use crate::api::input::{Input, Whole, cashu_token};
use crate::api::openapi::{FIELDS, Operation, REDEEMED, Tag};
use crate::api::terms::{ResetName, terms_of};
use crate::api::{ApiState, Opened, Refused};
use crate::error::Refusal;
use crate::ids::ApiKey;
use crate::ledger::{Ledger, Opening};
use crate::money::Msat;

pub(super) fn operations() -> [Operation; 2] {
    let path = "/v1/balance/create";
    [
        Operation::post(path, "create").json_or_query::<Asked>(),
        Operation::get(path, "createByQuery").query::<Asked>(),
    ]
    .map(|operation| {
        operation
            .tag(Tag::Balance)
            .says("A Cashu token becomes a key", ABOUT)
            .also_at(&PREFIXES, "/create")
            .answers::<Created>("The key.")
            .once()
            .refuses(&[FIELDS, REDEEMED])
    })
}

const ABOUT: &str = "The key follows from the token, so repeating it after a lost answer returns the \
    same key.";

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "CreateRequest")]
pub(super) struct Asked {
    /// A Cashu token, `cashuA…` or `cashuB…`.
    #[schemars(required, length(min = 1))]
    initial_balance_token: Option<String>,
    /// What the key may spend, in msat.
    balance_limit: Option<Whole>,
    balance_limit_reset: Option<ResetName>,
    /// Epoch seconds.
    validity_date: Option<Whole>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Created {
    api_key: String,
    balance: Msat,
    #[serde(skip_serializing_if = "Option::is_none")]
    swap: Option<Swap>,
}

pub(super) async fn create<L: Ledger>(
    State(api): State<ApiState<L>>,
    Input(asked): Input<Asked>,
) -> Result<(Extension<Opened>, Json<Created>), Refused> {
    let text = cashu_token("initial_balance_token", asked.initial_balance_token.as_ref())?;
    let key = ApiKey::of_cashu_token(text);
    let limit = asked.balance_limit.map(|Whole(limit)| Msat::new(limit).ok_or_else(too_much));
    let end = asked.validity_date.map(|Whole(seconds)| seconds);
    let terms = terms_of(limit.transpose()?, asked.balance_limit_reset, end)?;
    let opening = Opening { account: key.account(), terms };
    redeemed_into(&key.account(), api.till.pay_in(text, opening).await)?;
    let account = look_up(&api, &key).await?.ok_or_else(Refusal::internal)?;
    let swap = swap_of(&api, text).await;
    let created = Created { api_key: key.reveal().to_owned(), balance: account.available, swap };
    Ok((Extension(Opened(key.account())), Json(created)))
}

fn too_much() -> Refusal {
    Refusal::field("balance_limit", "is more than can be counted, in msat")
}
