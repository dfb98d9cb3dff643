//! The payment endpoints: a token becomes a key, a key shows its balance, is topped up, and
//! gives back what is left. Whoever shows a credential acts on its account and on no other.

mod create;
mod info;
mod refund;
mod topup;

use axum::Router;
use axum::routing::{get, post};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName};
use lua_free_filters::{Credential, CredentialRefusal, credential};

use super::{ApiState, X_CASHU, credential_refusal};
use crate::error::{Fault, Kind, Refusal};
use crate::ids::ApiKey;
use crate::ledger::{Account, Ledger, Unavailable};
use crate::money::Msat;
use crate::till::{CashuToken, RedeemRefused, Redeemed, RefundRefused};

/// Every path under both names, with and without the version.
pub(super) fn routes<L: Ledger>(state: ApiState<L>) -> Router {
    PREFIXES
        .iter()
        .fold(Router::new(), |router, prefix| {
            router
                .route(prefix, get(info::info::<L>))
                .route(&format!("{prefix}/"), get(info::info::<L>))
                .route(&format!("{prefix}/info"), get(info::info::<L>))
                .route(
                    &format!("{prefix}/create"),
                    get(create::create::<L>).post(create::create::<L>),
                )
                .route(&format!("{prefix}/topup"), post(topup::topup::<L>))
                .route(&format!("{prefix}/refund"), post(refund::refund::<L>))
        })
        .with_state(state)
}

const PREFIXES: [&str; 4] = ["/v1/balance", "/v1/wallet", "/balance", "/wallet"];

/// What the caller showed, owned, and with it the account that it names.
enum Shown {
    Key(ApiKey),
    CashuBearer(CashuToken),
    /// The `X-Cashu` of an earlier payment.
    Paid(CashuToken),
}

impl Shown {
    fn key(&self) -> ApiKey {
        match self {
            Self::Key(key) => key.clone(),
            Self::CashuBearer(cashu) | Self::Paid(cashu) => ApiKey::of_cashu_token(cashu.reveal()),
        }
    }
}

/// Reads `Authorization` alone: an `X-Cashu` pays for a request, and these cost nothing.
fn bearer<L: Ledger>(api: &ApiState<L>, headers: &HeaderMap) -> Result<Shown, Refusal> {
    shown(api, Ok(None), text_of(headers, AUTHORIZATION))
}

fn bearer_or_paid<L: Ledger>(api: &ApiState<L>, headers: &HeaderMap) -> Result<Shown, Refusal> {
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
        credential(x_cashu, authorization)
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

/// The account that the caller named. A Cashu token that has none yet is redeemed and opens it.
async fn account_of<L: Ledger>(api: &ApiState<L>, shown: &Shown) -> Result<Account, Refusal> {
    let key = shown.key();
    match (look_up(api, &key).await?, shown) {
        (Some(account), _) => Ok(account),
        (None, Shown::CashuBearer(cashu)) => {
            redeem(api, cashu.reveal(), &key).await?;
            look_up(api, &key).await?.ok_or_else(Refusal::internal)
        }
        (None, Shown::Key(_) | Shown::Paid(_)) => Err(Refusal::key_not_found()),
    }
}

async fn look_up<L: Ledger>(api: &ApiState<L>, key: &ApiKey) -> Result<Option<Account>, Refusal> {
    api.till.ledger().account(key.account()).await.map_err(unavailable)
}

fn unavailable(why: Unavailable) -> Refusal {
    log::error!("{why}");
    Refusal::ledger_unavailable()
}

/// Makes this token balance of the key's account. One that became another account's balance is
/// spent, whoever shows it.
async fn redeem<L: Ledger>(
    api: &ApiState<L>,
    cashu_token: &str,
    key: &ApiKey,
) -> Result<Redeemed, Refusal> {
    let account = key.account();
    let redeemed = api.till.redeem(cashu_token, account.clone(), Msat::ZERO).await;
    match redeemed.map_err(|refused| redeem_refusal(&refused))? {
        redeemed if redeemed.account == account => Ok(redeemed),
        _ => Err(redeem_refusal(&RedeemRefused::AlreadySpent)),
    }
}

/// Why a token did not become balance, here and on billable routes. The wallet's and the mint's
/// own words stay with us: nobody vouches for what a mint puts into them.
pub fn redeem_refusal(refused: &RedeemRefused) -> Refusal {
    let invalid = |code, message| Refusal::new(Kind::InvalidRequest, code, message);
    let wait = |code, message| {
        Refusal::new(Kind::ServiceUnavailable, code, message)
            .retry_after_s(MINT_RETRY_AFTER_S)
            .fault(Fault::Mint)
    };
    match refused {
        RedeemRefused::Invalid(_) => {
            invalid("invalid_cashu_token", "this is not a Cashu token that can be read")
        }
        RedeemRefused::UnitNotAccepted => {
            invalid("invalid_cashu_token", "the unit of this Cashu token is not accepted here")
        }
        RedeemRefused::ZeroValue => {
            invalid("cashu_token_zero_value", "this Cashu token is worth nothing")
        }
        RedeemRefused::MintNotAccepted => mint_not_accepted(),
        RedeemRefused::TooSmall { required, value } => {
            Refusal::insufficient_balance(*required, *value)
        }
        RedeemRefused::AlreadySpent => {
            invalid("cashu_token_already_spent", "this Cashu token has been spent already")
        }
        RedeemRefused::FeesExceedAmount => invalid(
            "cashu_token_swap_fees_exceed_amount",
            "the mint's fee is as much as this Cashu token is worth",
        )
        .status(422),
        RedeemRefused::MintUnreachable => wait(
            "cashu_mint_unreachable",
            "the mint of this Cashu token cannot be reached; the token is untouched",
        ),
        RedeemRefused::MintRateLimited => wait(
            "cashu_mint_rate_limited",
            "the mint of this Cashu token limits our requests; the token is untouched",
        ),
        RedeemRefused::Failed(_) => invalid(
            "cashu_token_redemption_failed",
            "the mint refused to swap this Cashu token; the token is untouched",
        )
        .fault(Fault::Mint),
        RedeemRefused::Unknown => Refusal::new(
            Kind::InternalError,
            "cashu_token_consumed",
            "the mint has not said whether this Cashu token was redeemed; ask again with the \
             same token, or claim it with POST /v1/balance/refund",
        )
        .fault(Fault::Mint),
        RedeemRefused::LedgerUnavailable => Refusal::new(
            Kind::ServiceUnavailable,
            "ledger_unavailable",
            "this Cashu token was redeemed and will be credited; ask again with the same token",
        )
        .retry_after_s(1),
    }
}

/// Why nothing was paid back to a key. A claim by the original payment has other words for an
/// unknown account and for a request that is still running; `refund` chooses them.
pub fn refund_refusal(refused: &RefundRefused) -> Refusal {
    let invalid = |code, message| Refusal::new(Kind::InvalidRequest, code, message);
    match refused {
        RefundRefused::NoAccount => Refusal::key_not_found(),
        RefundRefused::NothingToRefund => invalid("no_balance_to_refund", "No balance to refund"),
        RefundRefused::TooSmall { available } => invalid(
            "balance_too_small_to_refund",
            "what is available is less than the smallest unit of the mint; it stays on the account",
        )
        .details(serde_json::json!({ "available": available })),
        RefundRefused::Insufficient { available } => {
            invalid("balance_too_small_to_refund", "less than this amount is available")
                .details(serde_json::json!({ "available": available }))
        }
        RefundRefused::InProgress { open } => invalid(
            "requests_in_progress",
            "everything can be paid back when there are no ongoing requests; ask for an amount, \
             or again when they have ended",
        )
        .details(serde_json::json!({ "open": open })),
        RefundRefused::MintNotAccepted => mint_not_accepted(),
        RefundRefused::Pending => pending("this refund is booked and waits for the mint"),
        RefundRefused::LedgerUnavailable => Refusal::ledger_unavailable(),
    }
}

fn mint_not_accepted() -> Refusal {
    Refusal::new(
        Kind::InvalidRequest,
        "mint_not_accepted",
        "this mint is not accepted here; GET /v1/info lists those that are",
    )
}

/// It will be there; the same request finds it.
fn pending(message: &'static str) -> Refusal {
    Refusal::new(Kind::InvalidRequest, "refund_pending", message)
        .status(425)
        .retry_after_s(REFUND_RETRY_AFTER_S)
}

const MINT_RETRY_AFTER_S: u32 = 5;
const REFUND_RETRY_AFTER_S: u32 = 2;
