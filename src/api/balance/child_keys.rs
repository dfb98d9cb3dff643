//! `POST /v1/balance/child-key`, `POST /v1/balance/child-key/reset` and
//! `DELETE /v1/balance/child-key/{id}`: keys that spend their parent's balance under limits of
//! their own. Only the parent makes, resets and revokes them; a child is refused here, whatever it
//! asks.
//!
//! A key is shown once, in the answer that it was made by, and kept nowhere. From then on it goes
//! by its id, the hash that its account is named by, which opens nothing.

use axum::Json;
use axum::extract::{Extension, Path, State};
use http::HeaderMap;
use lua_free_filters::{Credential, credential};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error, Unexpected, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{PREFIXES, account_of, bearer, unavailable};
use crate::api::input::Input;
use crate::api::once::Executed;
use crate::api::openapi::{
    CHILD_NAMED, CHILDREN_MADE, FIELDS, KEY, Operation, PARENT, Payers, REDEEMED, Tag,
};
use crate::api::terms::{ResetName, reset_name, terms_of};
use crate::api::{ApiState, Refused};
use crate::clock::UnixMs;
use crate::error::{Kind, Refusal};
use crate::ids::{AccountId, ApiKey};
use crate::ledger::terms::Terms;
use crate::ledger::{Account, Amendment, Change, Children, Ledger, NotOpened};
use crate::money::Msat;

pub(super) fn operations() -> Vec<Operation> {
    let of_parent = |operation: Operation| {
        operation
            .tag(Tag::ChildKeys)
            .paid_by(Payers::Bearer)
            .refuses(&[FIELDS, KEY, REDEEMED, PARENT])
    };
    vec![
        of_parent(Operation::post("/v1/balance/child-key", "createChildKeys"))
            .says("Make child keys", "Each is shown once, here; from then on it goes by its id.")
            .also_at(&PREFIXES, "/child-key")
            .once()
            .json::<Asked>()
            .answers::<Made>("The keys.")
            .refuses(&[CHILDREN_MADE]),
        of_parent(Operation::post("/v1/balance/child-key/reset", "resetChildKey"))
            .says("Forget what a child has spent under its limit", "")
            .also_at(&PREFIXES, "/child-key/reset")
            .once()
            .json_or_query::<Which>()
            .answers::<ChildKey>("The child.")
            .refuses(&[CHILD_NAMED]),
        of_parent(Operation::delete("/v1/balance/child-key/{id}", "revokeChildKey"))
            .says("End a child key", "")
            .also_at(&PREFIXES, "/child-key/{id}")
            .id_in_path("id", "The child's id.")
            .answers::<Revoked>("It has ended.")
            .refuses(&[CHILD_NAMED]),
    ]
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "ChildKeysRequest")]
pub(super) struct Asked {
    #[schemars(required)]
    count: Option<Count>,
    /// What each may spend.
    balance_limit: Option<Msat>,
    balance_limit_reset: Option<ResetName>,
    /// Epoch seconds.
    validity_date: Option<u64>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ChildKeys")]
pub(super) struct Made {
    api_keys: Vec<String>,
    count: usize,
    cost_msats: Msat,
    cost_sats: u64,
    parent_balance: Msat,
    parent_balance_sats: u64,
}

pub(super) async fn create<L: Ledger>(
    State(api): State<ApiState<L>>,
    once: Option<Extension<Executed>>,
    headers: HeaderMap,
    asked: Result<Input<Asked>, Refused>,
) -> Result<Json<Made>, Refused> {
    let shown = bearer(&api, &headers)?;
    let parent = account_of(&api, &shown).await?;
    not_a_child(&parent)?;
    let Input(asked) = asked?;
    let Count(count) = asked.count.ok_or_else(|| Refusal::field("count", COUNT_IS_REQUIRED))?;
    let terms = terms_of(asked.balance_limit, asked.balance_limit_reset, asked.validity_date)?;
    let terms = within_parents(terms, &parent)?;
    let id = shown.key().account();
    let key = |nth| match &once {
        Some(Extension(once)) => once.child_key(&id, nth),
        None => ApiKey::fresh_beside(&id),
    };
    let keys: Result<Vec<ApiKey>, _> = (0..count).map(key).collect();
    let keys = keys.map_err(|why| {
        log::error!("no random bits: {why}");
        Refusal::internal()
    })?;
    let accounts = keys.iter().map(ApiKey::account).collect();
    let children = Children { parent: id, accounts, terms };
    let opened = api.till.ledger().open_children(children).await.map_err(unavailable)?;
    let parent = opened.map_err(|why| not_opened(&why))?;
    Ok(Json(Made {
        count: keys.len(),
        api_keys: keys.iter().map(|key| key.reveal().to_owned()).collect(),
        cost_msats: Msat::ZERO,
        cost_sats: 0,
        parent_balance: parent.available,
        parent_balance_sats: parent.available.whole_sats(),
    }))
}

/// Which child: by its id, or by its key, which a client that kept it may show instead.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "ChildKeyNamed")]
pub(super) struct Which {
    id: Option<String>,
    child_key: Option<String>,
}

pub(super) async fn reset<L: Ledger>(
    State(api): State<ApiState<L>>,
    headers: HeaderMap,
    which: Result<Input<Which>, Refused>,
) -> Result<Json<ChildKey>, Refused> {
    let named = || {
        let Input(which) = which?;
        Ok::<_, Refused>(which.child()?)
    };
    let (id, child) = changed(&api, &headers, named, Change::ResetCap).await?;
    Ok(Json(ChildKey::of(&id, &child)))
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ChildKeyRevoked")]
pub(super) struct Revoked {
    id: String,
    deleted: bool,
}

pub(super) async fn revoke<L: Ledger>(
    State(api): State<ApiState<L>>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Json<Revoked>, Refused> {
    let named = || AccountId::presented(&id).ok_or_else(|| no_such_child().into());
    let (id, _) = changed(&api, &headers, named, Change::Revoke).await?;
    Ok(Json(Revoked { id: id.to_string(), deleted: true }))
}

/// A child as its parent sees it.
#[derive(Serialize, JsonSchema)]
pub(super) struct ChildKey {
    id: String,
    total_requests: u64,
    total_spent: Msat,
    reserved: Msat,
    balance_limit: Option<Msat>,
    /// What of the limit is left now.
    balance_limit_left: Option<Msat>,
    #[schemars(with = "Option<ResetName>")]
    balance_limit_reset: Option<&'static str>,
    validity_date: Option<u64>,
}

impl ChildKey {
    pub(super) fn of(id: &AccountId, child: &Account) -> Self {
        let Account { usage, terms, .. } = child;
        Self {
            id: id.to_string(),
            total_requests: child.requests,
            total_spent: usage.spent,
            reserved: usage.held,
            balance_limit: terms.cap.map(|cap| cap.amount),
            balance_limit_left: child.left_under_cap(UnixMs::now()),
            balance_limit_reset: terms.cap.and_then(reset_name),
            validity_date: terms.expires.map(UnixMs::whole_seconds),
        }
    }
}

impl Which {
    fn child(self) -> Result<AccountId, Refusal> {
        match (self.id, self.child_key) {
            (Some(id), _) => AccountId::presented(&id).ok_or_else(no_such_child),
            (None, Some(key)) => match credential(None, Some(&format!("Bearer {key}")), None) {
                Ok(Credential::ApiKey(canonical)) => Ok(ApiKey::presented(canonical).account()),
                Ok(Credential::CashuBearer(_) | Credential::Cashu(_)) | Err(_) => {
                    Err(Refusal::field("child_key", "must be a child's key"))
                }
            },
            (None, None) => Err(Refusal::field("id", "is required: a child's id")),
        }
    }
}

/// Changes a child of whoever shows the credential. Who that is comes first: a child learns
/// nothing about ids.
async fn changed<L: Ledger>(
    api: &ApiState<L>,
    headers: &HeaderMap,
    child: impl FnOnce() -> Result<AccountId, Refused>,
    change: Change,
) -> Result<(AccountId, Account), Refused> {
    let shown = bearer(api, headers)?;
    not_a_child(&account_of(api, &shown).await?)?;
    let child = child()?;
    let amendment = Amendment { parent: shown.key().account(), child: child.clone(), change };
    let changed = api.till.ledger().amend(amendment).await.map_err(unavailable)?;
    Ok((child, changed.ok_or_else(no_such_child)?))
}

/// A child may do no more than its parent: it ends with it, and none is made by a key whose own
/// spending is limited, because it would not count there.
fn within_parents(terms: Terms, parent: &Account) -> Result<Terms, Refusal> {
    let Terms { expires, cap, .. } = parent.terms;
    if cap.is_some() {
        return Err(Refusal::new(
            Kind::Forbidden,
            "child_key",
            "a key with a balance limit makes no child keys: what they spend would not count",
        ));
    }
    let Some(end) = expires else { return Ok(terms) };
    if end <= UnixMs::now() {
        return Err(Refusal::key_expired());
    }
    match terms.expires {
        Some(asked) if asked > end => {
            Err(Refusal::field("validity_date", "must not be after the parent key's"))
        }
        asked => Ok(Terms { expires: asked.or(Some(end)), ..terms }),
    }
}

fn not_a_child(account: &Account) -> Result<(), Refusal> {
    if account.parent.is_none() {
        return Ok(());
    }
    Err(Refusal::new(
        Kind::Forbidden,
        "child_key",
        "a child key makes and changes no child keys; its parent's key does",
    ))
}

fn not_opened(why: &NotOpened) -> Refusal {
    match why {
        NotOpened::NoParent => Refusal::key_not_found(),
        NotOpened::TooMany { left } => Refusal::new(
            Kind::InvalidRequest,
            "too_many_child_keys",
            "a key has no more child keys than this; revoke those that are not needed",
        )
        .status(409)
        .details(json!({ "left": left })),
    }
}

fn no_such_child() -> Refusal {
    Refusal::new(Kind::NotFound, "child_key_not_found", "this key has no such child key")
}

/// How many keys one call makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Count(u64);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_u64(CountVisitor)
    }
}

impl JsonSchema for Count {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Count".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": 1, "maximum": COUNT_MAX })
    }
}

struct CountVisitor;

impl Visitor<'_> for CountVisitor {
    type Value = Count;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "an integer from 1 to {COUNT_MAX}")
    }

    fn visit_u64<E: Error>(self, count: u64) -> Result<Count, E> {
        match count {
            1..=COUNT_MAX => Ok(Count(count)),
            _ => Err(E::invalid_value(Unexpected::Unsigned(count), &self)),
        }
    }
}

/// What one call makes at most; more is refused.
const COUNT_MAX: u64 = 50;
const COUNT_IS_REQUIRED: &str = "is required: how many keys";
