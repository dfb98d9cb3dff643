//! Calls with an `Idempotency-Key`, around their handlers: claimed before they are executed,
//! answered again when they were, and let go of when they came to nothing.
//!
//! A process may die between what a call does and the keeping of its answer. So whatever executes
//! a call again does the same again and no more: a token is credited once, a refund is the
//! withdrawal that its first attempt names, and so are the keys of children.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequest, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Deserialize;

use super::balance::{self, Shown, bearer, bearer_or_paid, unavailable};
use super::input::{Input, body_too_large, cashu_token};
use super::{ApiState, LOCAL_BODY_BYTES_MAX, Refused, lightning, standing};
use crate::crash::{self, Step};
use crate::error::{Kind, Refusal};
use crate::ids::{AccountId, ApiKey, AttemptId, WithdrawalId};
use crate::ledger::Ledger;
use crate::ledger::once::{Claim, Claimed, Keep};
use crate::once::{self as keys, IDEMPOTENCY_REPLAYED, Kept, Keyed};

/// For a handler that is executed under a claim.
#[derive(Clone, Debug)]
pub(super) struct Executed {
    keyed: Keyed,
    first: AttemptId,
    /// Which withdrawal a refund is.
    pub(super) refund: WithdrawalId,
}

/// From a handler: the refund that it made, or that was made before.
#[derive(Clone, Debug)]
pub(super) struct Made(pub(super) WithdrawalId);

impl Executed {
    fn new(keyed: Keyed, first: AttemptId) -> Self {
        Self { keyed, refund: WithdrawalId::of_attempt(&first), first }
    }

    /// The same for whoever executes the call again.
    pub(super) fn child_key(
        &self,
        parent: &AccountId,
        nth: u64,
    ) -> Result<ApiKey, getrandom::Error> {
        ApiKey::beside(parent, |draw| {
            Ok(self.keyed.derive(&format!("child key:{}:{nth}:{draw}", self.first)))
        })
    }
}

/// The calls that a key is for, by the last part of their paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Create,
    TopUp,
    Refund,
    ChildKey,
    ResetChildKey,
    Invoice,
}

impl Call {
    const ALL: [Self; 6] = [
        Self::Create,
        Self::TopUp,
        Self::Refund,
        Self::ChildKey,
        Self::ResetChildKey,
        Self::Invoice,
    ];

    const fn path(self) -> &'static str {
        match self {
            Self::Create => "/create",
            Self::TopUp => "/topup",
            Self::Refund => "/refund",
            Self::ChildKey => "/child-key",
            Self::ResetChildKey => "/child-key/reset",
            Self::Invoice => "/lightning/invoice",
        }
    }

    /// Under any of its names.
    fn of(path: &str) -> Option<Self> {
        let prefixes = balance::PREFIXES.iter().chain(&lightning::PREFIXES);
        let rests: Vec<&str> = prefixes.filter_map(|prefix| path.strip_prefix(prefix)).collect();
        Self::ALL.into_iter().find(|call| rests.contains(&call.path()))
    }

    /// A refund's `X-Cashu` is a receipt by now, and does not go back.
    fn refused(self, refusal: Refusal) -> Refused {
        match self {
            Self::Refund => Refused::claim(refusal),
            _ => refusal.into(),
        }
    }
}

pub(super) async fn once<L: Ledger>(
    State(api): State<ApiState<L>>,
    request: Request,
    next: Next,
) -> Response {
    let Some(call) = Call::of(request.uri().path()) else { return next.run(request).await };
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, LOCAL_BODY_BYTES_MAX).await;
    let read = body.map_err(|_| body_too_large(LOCAL_BODY_BYTES_MAX));
    let read = read.and_then(|body| {
        let value = keys::value_of(&parts.headers)?.map(str::to_owned);
        Ok((body, value))
    });
    let (body, value) = match read {
        Ok(read) => read,
        Err(refusal) => return call.refused(refusal).into_response(),
    };
    let key = match &value {
        Some(_) => key_of(&api, call, &parts, &body).await,
        None => None,
    };
    let keyed = value.zip(key).map(|(value, key)| {
        let asks = [parts.method.as_str(), call.path(), parts.uri.query().unwrap_or_default()];
        Keyed::new(&key, &value, &keys::fingerprint(&asks, &parts.headers, &body))
    });
    let request = Request::from_parts(parts, Body::from(body));
    match keyed {
        // Nobody to make it once for: the handler says so, or it is new each time.
        None => next.run(request).await,
        Some(keyed) => Caller { api: &api, call, keyed }.make_once(request, next).await,
    }
}

/// Whose key it is: of the credential that the call shows, or of the token that it brings.
async fn key_of<L: Ledger>(
    api: &ApiState<L>,
    call: Call,
    parts: &Parts,
    body: &Bytes,
) -> Option<ApiKey> {
    let shown = |shown: Result<Shown, Refusal>| shown.ok().map(|shown| shown.key());
    match call {
        Call::Create => {
            let request = Request::from_parts(parts.clone(), Body::from(body.clone()));
            let Input(asked) = Input::<Brought>::from_request(request, &()).await.ok()?;
            let field = asked.initial_balance_token.as_ref();
            Some(ApiKey::of_cashu_token(cashu_token("initial_balance_token", field).ok()?))
        }
        Call::Refund => shown(bearer_or_paid(api, &parts.headers)),
        Call::Invoice if !parts.headers.contains_key(AUTHORIZATION) => None,
        Call::TopUp | Call::ChildKey | Call::ResetChildKey | Call::Invoice => {
            shown(bearer(api, &parts.headers))
        }
    }
}

#[derive(Deserialize)]
struct Brought {
    initial_balance_token: Option<String>,
}

/// Who makes a call once.
struct Caller<'a, L: Ledger> {
    api: &'a ApiState<L>,
    call: Call,
    keyed: Keyed,
}

impl<L: Ledger> Caller<'_, L> {
    async fn make_once(self, request: Request, next: Next) -> Response {
        let attempt = AttemptId::fresh();
        let claim = self.claim_of(&attempt);
        let refuse = |refusal| self.call.refused(refusal).into_response();
        match self.api.till.ledger().claim(claim).await {
            Ok(Claimed::Ours { first }) => {
                crash::point(Step::Claimed);
                let executed = Executed::new(self.keyed.clone(), first);
                let response = run(executed, request, next).await;
                self.executed(&attempt, response).await
            }
            Ok(Claimed::Answered(sealed)) => match self.keyed.open(&sealed) {
                Some(kept) => self.again(kept, request, next).await,
                None => refuse(Refusal::internal()),
            },
            Ok(Claimed::InFlight) => refuse(keys::in_flight()),
            Ok(Claimed::Reused) => refuse(keys::reused()),
            Ok(Claimed::TooMuch { retry_after }) => refuse(too_much(retry_after.as_secs())),
            Err(why) => refuse(unavailable(why)),
        }
    }

    fn claim_of(&self, attempt: &AttemptId) -> Claim {
        let Keyed { account, once, .. } = &self.keyed;
        // Longer than a handler waits for a mint and for the ledger.
        let lease = self.api.config.mint_timeout.saturating_mul(2).saturating_add(LEASE_MIN);
        Claim {
            account: account.clone(),
            once: once.clone(),
            attempt: attempt.clone(),
            lease,
            bytes_max: self.api.config.idempotency.account_bytes_max,
        }
    }

    /// A call whose handler has answered.
    async fn executed(&self, attempt: &AttemptId, response: Response) -> Response {
        crash::point(Step::Executed);
        let ledger = self.api.till.ledger();
        let (account, once) = (self.keyed.account.clone(), self.keyed.once.id.clone());
        if !response.status().is_success() {
            let told = match came_to_nothing(&response) {
                true => ledger.forget(account, once, attempt.clone()).await,
                // Perhaps it did something: whoever is next finds out what, under the same name.
                false => {
                    let let_go = Claim { lease: Duration::ZERO, ..self.claim_of(attempt) };
                    ledger.claim(let_go).await.map(drop)
                }
            };
            if let Err(why) = told {
                log::warn!("a claim waits for its end: {why}");
            }
            return response;
        }
        let (parts, body) = response.into_parts();
        // It is in memory already, so collecting it cannot fail.
        let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
        let kept = match parts.extensions.get::<Made>() {
            Some(Made(refund)) => Kept::Refund(refund.clone()),
            None => {
                let content_type = parts.headers.get(CONTENT_TYPE).cloned();
                let headers = content_type.map(|value| (CONTENT_TYPE, value)).into_iter().collect();
                Kept::Answer { status: parts.status.as_u16(), headers, body: body.clone() }
            }
        };
        if let Some(answer) = self.keyed.seal(&kept) {
            // Whether there was room for it was asked before it was executed.
            let keep =
                Keep { account, once, attempt: attempt.clone(), answer, bytes_max: u64::MAX };
            if let Err(why) = ledger.keep(keep).await {
                log::warn!("an answer is not kept, its call is executed again: {why}");
            }
        }
        Response::from_parts(parts, Body::from(body))
    }

    /// Only for what is told of its limits to whoever shows a key.
    async fn note_standing(&self) {
        let account = self.api.till.ledger().account(self.keyed.account.clone()).await;
        if let Ok(Some(account)) = account {
            standing::note(&account, self.api.config.rate_limits);
        }
    }

    /// A call that was made before.
    async fn again(&self, kept: Kept, request: Request, next: Next) -> Response {
        let mut response = match kept {
            Kept::Answer { status, headers, body } => {
                if self.call != Call::Create {
                    self.note_standing().await;
                }
                let headers: HeaderMap = headers.into_iter().collect();
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
                (status, headers, Body::from(body)).into_response()
            }
            Kept::Refund(refund) => {
                let first = AttemptId::fresh();
                let executed = Executed { keyed: self.keyed.clone(), first, refund };
                run(executed, request, next).await
            }
        };
        if response.status().is_success() {
            let replayed = HeaderValue::from_static("true");
            response.headers_mut().insert(IDEMPOTENCY_REPLAYED, replayed);
        }
        response
    }
}

async fn run(executed: Executed, mut request: Request, next: Next) -> Response {
    request.extensions_mut().insert(executed);
    next.run(request).await
}

/// Whether a refused call has done nothing, and never will. One that waits for a mint or for the
/// ledger may have.
fn came_to_nothing(response: &Response) -> bool {
    let refused = response.extensions().get::<Refused>();
    let status = refused.map_or(response.status().as_u16(), |it| it.refusal.status_code());
    (400..500).contains(&status) && status != StatusCode::TOO_EARLY.as_u16()
}

fn too_much(seconds: u64) -> Refusal {
    let message = "this account has made as many calls with an Idempotency-Key as are remembered";
    Refusal::new(Kind::RateLimitExceeded, "rate_limit_exceeded", message)
        .retry_after_s(u32::try_from(seconds).unwrap_or(u32::MAX).saturating_add(1))
}

/// Beside what a mint may take.
const LEASE_MIN: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_the_same_under_each_of_its_names() {
        for prefix in ["/v1/balance", "/v1/wallet", "/balance", "/wallet"] {
            for call in Call::ALL {
                assert_eq!(Call::of(&format!("{prefix}{}", call.path())), Some(call), "{prefix}");
            }
            for other in ["", "/info", "/history", "/child-key/00", "/lightning/invoice/x/status"] {
                assert_eq!(Call::of(&format!("{prefix}{other}")), None, "{prefix}{other}");
            }
        }
        assert_eq!(Call::of("/lightning/invoice"), Some(Call::Invoice));
        assert_eq!(Call::of("/v1/lightning/invoice"), Some(Call::Invoice));
    }
}
