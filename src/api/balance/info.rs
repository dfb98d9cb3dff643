//! `GET /v1/balance/info`: what an account has. Existing clients ask after every request, so it
//! is one look into the ledger.

use axum::Json;
use axum::extract::State;
use http::HeaderMap;
use serde::Serialize;

use super::{account_of, bearer};
use crate::api::{ApiState, Refused};
use crate::ledger::Ledger;
use crate::money::Msat;

/// The limits are there for clients that read them; no key has one.
#[derive(Serialize)]
pub(super) struct Info {
    api_key: String,
    balance: Msat,
    reserved: Msat,
    is_child: bool,
    total_requests: u64,
    total_spent: Msat,
    balance_limit: Option<Msat>,
    balance_limit_reset: Option<&'static str>,
    validity_date: Option<u64>,
}

pub(super) async fn info<L: Ledger>(
    State(api): State<ApiState<L>>,
    headers: HeaderMap,
) -> Result<Json<Info>, Refused> {
    let shown = bearer(&api, &headers)?;
    let account = account_of(&api, &shown).await?;
    Ok(Json(Info {
        api_key: shown.key().reveal().to_owned(),
        balance: account.available,
        reserved: account.reserved,
        is_child: false,
        total_requests: account.requests,
        total_spent: account.spent,
        balance_limit: None,
        balance_limit_reset: None,
        validity_date: None,
    }))
}
