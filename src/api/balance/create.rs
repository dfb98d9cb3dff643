//! `GET` and `POST /v1/balance/create`: a Cashu token becomes a key. Repeated, it answers the
//! same key, so an answer that got lost costs nothing.

use axum::extract::State;
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{PREFIXES, look_up, redeem};
use crate::api::input::{Input, cashu_token, not_offered};
use crate::api::openapi::{FIELDS, Operation, REDEEMED, Tag};
use crate::api::{ApiState, Opened, Refused};
use crate::error::Refusal;
use crate::ids::ApiKey;
use crate::ledger::Ledger;
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
    #[schemars(skip)]
    balance_limit: Option<Value>,
    #[schemars(skip)]
    balance_limit_reset: Option<Value>,
    #[schemars(skip)]
    validity_date: Option<Value>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Created {
    api_key: String,
    balance: Msat,
}

pub(super) async fn create<L: Ledger>(
    State(api): State<ApiState<L>>,
    Input(asked): Input<Asked>,
) -> Result<(Extension<Opened>, Json<Created>), Refused> {
    not_offered("balance_limit", asked.balance_limit.as_ref())?;
    not_offered("balance_limit_reset", asked.balance_limit_reset.as_ref())?;
    not_offered("validity_date", asked.validity_date.as_ref())?;
    let text = cashu_token("initial_balance_token", asked.initial_balance_token.as_ref())?;
    let key = ApiKey::of_cashu_token(text);
    redeem(&api, text, key.account()).await?;
    let account = look_up(&api, &key).await?.ok_or_else(Refusal::internal)?;
    let created = Created { api_key: key.reveal().to_owned(), balance: account.available };
    Ok((Extension(Opened(key.account())), Json(created)))
}
