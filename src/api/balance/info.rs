//! `GET /v1/balance/info`: what an account has. Existing clients ask after every request, so it
//! is one look into the ledger.

use axum::Json;
use axum::extract::State;
use http::HeaderMap;
use schemars::JsonSchema;
use serde::Serialize;

use super::child_keys::ChildKey;
use super::{PREFIXES, account_of, bearer, unavailable, valid};
use crate::api::openapi::{KEY, Operation, Payers, REDEEMED, Tag};
use crate::api::terms::{ResetName, reset_name};
use crate::api::{ApiState, Refused};
use crate::clock::UnixMs;
use crate::error::Refusal;
use crate::ids::{AccountId, ApiKey};
use crate::ledger::{Account, Family, Ledger};
use crate::money::Msat;

pub(super) fn operation() -> Operation {
    Operation::get("/v1/balance/info", "balance")
        .tag(Tag::Balance)
        .says("What a key has", "")
        .also_at(&PREFIXES, "/info")
        .also_at(&PREFIXES, "")
        .also_at(&PREFIXES, "/")
        .paid_by(Payers::Bearer)
        .answers::<Info>("The account of the key, or what a child may spend of it.")
        .refuses(&[KEY, REDEEMED])
}

/// A child is shown what it may spend and what went through it, and of its parent no more than
/// the beginning of an id.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Balance", description = "Amounts in msat.")]
pub(super) struct Info {
    api_key: String,
    balance: Msat,
    reserved: Msat,
    is_child: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_key_preview: Option<String>,
    total_requests: u64,
    total_spent: Msat,
    balance_limit: Option<Msat>,
    #[schemars(with = "Option<ResetName>")]
    balance_limit_reset: Option<&'static str>,
    validity_date: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    child_keys: Vec<ChildKey>,
}

pub(super) async fn info<L: Ledger>(
    State(api): State<ApiState<L>>,
    headers: HeaderMap,
) -> Result<Json<Info>, Refused> {
    let shown = bearer(&api, &headers)?;
    let key = shown.key();
    let look = async || api.till.ledger().family(key.account()).await.map_err(unavailable);
    let family = match look().await? {
        Some(family) => family,
        None => {
            // The first use of a Cashu token opens its account.
            account_of(&api, &shown).await?;
            look().await?.ok_or_else(Refusal::internal)?
        }
    };
    valid(&api, &family.account)?;
    Ok(Json(Info::of(&key, &family)))
}

impl Info {
    fn of(key: &ApiKey, Family { account, parent, children }: &Family) -> Self {
        let (balance, reserved, spent) = match parent {
            None => (account.available, account.reserved, account.spent),
            Some(parent) => {
                let left = account.left_under_cap(UnixMs::now()).unwrap_or(Msat::MAX);
                (parent.available.min(left), account.usage.held, account.usage.spent)
            }
        };
        let Account { terms, .. } = account;
        Self {
            api_key: key.reveal().to_owned(),
            balance,
            reserved,
            is_child: account.parent.is_some(),
            parent_key_preview: account.parent.as_ref().map(preview),
            total_requests: account.requests,
            total_spent: spent,
            balance_limit: terms.cap.map(|cap| cap.amount),
            balance_limit_reset: terms.cap.and_then(reset_name),
            validity_date: terms.expires.map(UnixMs::whole_seconds),
            child_keys: children.iter().map(|(id, child)| ChildKey::of(id, child)).collect(),
        }
    }
}

/// The beginning of the parent's id, which is a hash of its key: enough to tell one parent from
/// another, and nothing of the key.
fn preview(parent: &AccountId) -> String {
    parent.as_str().chars().take(PREVIEW_DIGITS).chain(['…']).collect()
}

const PREVIEW_DIGITS: usize = 8;
