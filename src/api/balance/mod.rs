//! The payment endpoints: a token becomes a key, a key shows its balance and its history, is
//! topped up, makes child keys, and gives back what is left. Whoever shows a credential acts on its
//! account, and on no other but its children.

mod child_keys;
mod create;
mod history;
mod info;
mod refund;
mod refusals;
mod swap;
mod topup;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{delete, get, post};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName};
use lua_free_filters::{Credential, CredentialRefusal, credential};

use super::openapi::Operation;
use super::{ApiState, X_CASHU, credential_refusal, once, standing};
use crate::clock::UnixMs;
use crate::error::Refusal;
use crate::ids::{AccountId, ApiKey};
use crate::ledger::{Account, Ledger, Unavailable};
use crate::money::Msat;
use crate::till::{CashuToken, RedeemRefused, Redeemed};

pub(super) use refusals::mint_not_accepted;
pub use refusals::{redeem_refusal, refund_refusal};

/// Every path under both names, with and without the version.
pub(super) fn routes<L: Ledger>(state: ApiState<L>) -> Router {
    PREFIXES
        .iter()
        .fold(Router::new(), |router, prefix| {
            router
                .route(prefix, get(info::info::<L>))
                .route(&format!("{prefix}/"), get(info::info::<L>))
                .route(&format!("{prefix}/info"), get(info::info::<L>))
                .route(&format!("{prefix}/history"), get(history::history::<L>))
                .route(
                    &format!("{prefix}/create"),
                    get(create::create::<L>).post(create::create::<L>),
                )
                .route(&format!("{prefix}/topup"), post(topup::topup::<L>))
                .route(&format!("{prefix}/refund"), post(refund::refund::<L>))
                .route(&format!("{prefix}/child-key"), post(child_keys::create::<L>))
                .route(&format!("{prefix}/child-key/reset"), post(child_keys::reset::<L>))
                .route(&format!("{prefix}/child-key/{{id}}"), delete(child_keys::revoke::<L>))
        })
        .route_layer(from_fn_with_state(state.clone(), once::once::<L>))
        .with_state(state)
}

pub(super) const PREFIXES: [&str; 4] = ["/v1/balance", "/v1/wallet", "/balance", "/wallet"];
pub(super) fn operations() -> Vec<Operation> {
    let mut all = Vec::from(create::operations());
    all.push(info::operation());
    all.push(history::operation());
    all.push(topup::operation());
    all.push(refund::operation());
    all.extend(child_keys::operations());
    all
}

/// What the caller showed, owned, and with it the account that it names.
pub(super) enum Shown {
    Key(ApiKey),
    CashuBearer(CashuToken),
    /// The `X-Cashu` of an earlier payment.
    Paid(CashuToken),
}

impl Shown {
    pub(super) fn key(&self) -> ApiKey {
        match self {
            Self::Key(key) => key.clone(),
            Self::CashuBearer(ecash) | Self::Paid(ecash) => ApiKey::of_cashu_token(ecash.reveal()),
        }
    }
}

/// Reads `Authorization` alone: an `X-Cashu` pays for a request, and these cost nothing.
pub(super) fn bearer<L: Ledger>(api: &ApiState<L>, headers: &HeaderMap) -> Result<Shown, Refusal> {
    shown(api, Ok(None), text_of(headers, AUTHORIZATION))
}

pub(super) fn bearer_or_paid<L: Ledger>(
    api: &ApiState<L>,
    headers: &HeaderMap,
) -> Result<Shown, Refusal> {
    shown(api, text_of(headers, X_CASHU), text_of(headers, AUTHORIZATION))
}

fn shown<L: Ledger>(
    api: &ApiState<L>,
    x_cashu: Result<Option<&str>, CredentialRefusal>,
    authorization: Result<Option<&str>, CredentialRefusal>,
) -> Result<Shown, Refusal> {
    let read = || {
        let x_cashu = x_cashu?;
        // `X-Cashu` wins, also over an `Authorization` that cannot even be read.
        let authorization = if x_cashu.is_some() { None } else { authorization? };
        credential(x_cashu, authorization, None)
    };
    match read() {
        Ok(Credential::ApiKey(canonical)) => Ok(Shown::Key(ApiKey::presented(canonical))),
        Ok(Credential::CashuBearer(text)) => Ok(Shown::CashuBearer(CashuToken::new(text))),
        Ok(Credential::Cashu(text)) => Ok(Shown::Paid(CashuToken::new(text))),
        Err(refused) => Err(credential_refusal(refused, api.config.missing_credential_status)),
    }
}

fn text_of(headers: &HeaderMap, name: HeaderName) -> Result<Option<&str>, CredentialRefusal> {
    let text = headers.get(name).map(|value| value.to_str());
    text.transpose().map_err(|_| CredentialRefusal::Malformed)
}

/// The account that the caller named. A Cashu token that has none yet is redeemed and opens it; a
/// child's key is refused when it is not valid any more.
pub(super) async fn account_of<L: Ledger>(
    api: &ApiState<L>,
    shown: &Shown,
) -> Result<Account, Refusal> {
    let key = shown.key();
    let account = match (look_up(api, &key).await?, shown) {
        (Some(account), _) => account,
        (None, Shown::CashuBearer(ecash)) => {
            redeem(api, ecash.reveal(), key.account()).await?;
            look_up(api, &key).await?.ok_or_else(Refusal::internal)?
        }
        (None, Shown::Key(_) | Shown::Paid(_)) => return Err(Refusal::key_not_found()),
    };
    valid(api, &account)?;
    Ok(account)
}

/// Whether a key may still act on its account; if so, the answer says what is left of its limits.
/// A child that has expired or was revoked sees its parent's balance no more. Other keys are asked
/// for their money as long as they have any.
fn valid<L: Ledger>(api: &ApiState<L>, account: &Account) -> Result<(), Refusal> {
    let expired = account.terms.expires.is_some_and(|expires| expires <= UnixMs::now());
    if account.parent.is_some() && expired {
        return Err(Refusal::key_expired());
    }
    standing::note(account, api.config.rate_limits);
    Ok(())
}

/// Who gets what is paid in with a key: its parent, or the account itself.
pub(super) fn payer(account: &Account, key: &ApiKey) -> AccountId {
    account.parent.clone().unwrap_or_else(|| key.account())
}

async fn look_up<L: Ledger>(api: &ApiState<L>, key: &ApiKey) -> Result<Option<Account>, Refusal> {
    api.till.ledger().account(key.account()).await.map_err(unavailable)
}

pub(super) fn unavailable(why: Unavailable) -> Refusal {
    log::error!("{why}");
    Refusal::ledger_unavailable()
}

/// Makes this token balance of the account. One that became another account's balance is
/// spent, whoever shows it.
async fn redeem<L: Ledger>(
    api: &ApiState<L>,
    cashu_token: &str,
    account: AccountId,
) -> Result<Redeemed, Refusal> {
    redeemed_into(&account, api.till.redeem(cashu_token, account.clone(), Msat::ZERO).await)
}

fn redeemed_into(
    account: &AccountId,
    redeemed: Result<Redeemed, RedeemRefused>,
) -> Result<Redeemed, Refusal> {
    match redeemed.map_err(|refused| redeem_refusal(&refused))? {
        redeemed if redeemed.account == *account => Ok(redeemed),
        _ => Err(redeem_refusal(&RedeemRefused::AlreadySpent)),
    }
}
