//! Everything the gateway answers itself, as an axum router that the edge calls in process.
//!
//! Every answer has the request's id and the CORS headers, is never stored by a cache, and when
//! it is an error has the one shape of WIRE.md section 3, whoever made it: a handler, the router
//! (404, 405) or the reading of the input. Nothing here waits for anything but ledger and till.

mod balance;
mod cors;
mod docs;
mod document;
mod door;
mod health;
mod info;
mod input;
mod lightning;
mod loggable;
mod metrics;
mod models;
mod once;
mod openapi;
mod ready;
mod render;
mod standing;
mod terms;
mod webhooks;

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRef, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, VARY};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use lua_free_filters::{Credential, CredentialRefusal, credential};
use tower::ServiceExt;

use crate::catalogue::Shelf;
use crate::config::{Config, Origins};
use crate::error::{Kind, Refusal};
use crate::ids::{AccountId, fresh_request_id};
use crate::ledger::Ledger;
use crate::pricing::PriceList;
use crate::telemetry::Metrics;
use crate::till::{PayOut, Till};
use crate::webhook::Webhooks;

pub use balance::{redeem_refusal, refund_refusal};
pub use cors::{cors_headers, preflight_headers};
pub use door::{Door, door};
pub use input::{LOCAL_BODY_BYTES_MAX, body_too_large};
pub use loggable::loggable_path;
pub use models::{offered, sold};
pub use render::{
    CASHU_HEADERS_BYTES_MAX, HeaderList, X_CASHU, X_CASHU_REFUND, X_REQUEST_ID,
    X_ROUTSTR_REQUEST_ID, cashu_headers, challenge_header, max_output_tokens, never_retry,
    rate_limit_headers, render, request_id_headers,
};

/// What the handlers work with; a clone is cheap.
#[derive(Clone, Debug)]
pub struct ApiState<L: Ledger> {
    pub config: Arc<Config>,
    pub prices: Shelf,
    pub till: Till<L>,
    pub webhooks: Webhooks<L>,
    /// `None` where nothing is paid out over Lightning.
    pub pay_out: Option<Arc<PayOut>>,
}

/// The request's id as the edge settled it, handed over as an extension of the request.
#[derive(Clone, Debug)]
pub struct RequestId(pub String);

/// The code of a refusal, handed back as an extension of the answer.
#[derive(Clone, Copy, Debug)]
pub struct RefusalCode(pub &'static str);

/// The ledger knew the key that was shown; handed back likewise.
#[derive(Clone, Copy, Debug)]
pub struct KnownKey;

/// The account that this answer opened, or showed again; handed back likewise.
#[derive(Clone, Debug)]
pub struct Opened(pub AccountId);

/// The public routes.
pub fn router<L: Ledger>(state: ApiState<L>) -> Router {
    let documents = documents(&state.config, &state.prices);
    let routes = documents
        .merge(balance::routes(state.clone()))
        .merge(lightning::routes(state.clone()))
        .merge(webhooks::routes(state.clone()))
        .fallback(billable_or_nothing);
    finished(routes, &state.config)
}

/// The admin listener's routes. No page of a browser may read what they answer.
pub fn admin_router<L: Ledger>(config: &Config, metrics: Metrics, till: Till<L>) -> Router {
    let config = Arc::new(Config { origins: Origins::Listed(Vec::new()), ..config.clone() });
    let routes = Router::new()
        .route("/healthz", get(health::healthz))
        .route("/metrics", get(metrics::metrics))
        .with_state(metrics)
        .merge(Router::new().route("/readyz", get(ready::readyz::<L>)).with_state(till))
        .fallback(nothing_here);
    finished(routes, &config)
}

/// Asks the router; there is always an answer. The answer to a HEAD request has no body, and the
/// `Content-Length` of the one that GET would have.
pub async fn answer(router: &Router, request: http::Request<Bytes>) -> http::Response<Bytes> {
    let Ok(response): Result<Response, Infallible> =
        router.clone().oneshot(request.map(Body::from)).await;
    let (mut parts, body) = response.into_parts();
    if matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        // axum says 0, which RFC 9110 forbids, or which would be the length of what was kept.
        parts.headers.remove(CONTENT_LENGTH);
    }
    // These bodies are in memory already, so collecting one cannot fail.
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
    http::Response::from_parts(parts, body)
}

/// What needs neither ledger nor wallet.
fn documents(config: &Arc<Config>, prices: &Shelf) -> Router {
    let state = Documents { config: config.clone(), prices: prices.clone() };
    Router::new()
        .route("/healthz", get(health::healthz))
        .route("/v1/info", get(info::info))
        .route("/v1/models", get(models::list))
        .route("/models", get(models::list))
        .route("/v1/models/{*id}", get(models::one))
        .route("/models/{*id}", get(models::one))
        .route("/openapi.json", get(openapi::openapi))
        .route("/docs", get(docs::swagger))
        .route("/docs/{file}", get(docs::asset))
        .route("/redoc", get(docs::redoc))
        .with_state(state)
}

#[derive(Clone)]
struct Documents {
    config: Arc<Config>,
    prices: Shelf,
}

impl FromRef<Documents> for Arc<Config> {
    fn from_ref(documents: &Documents) -> Self {
        documents.config.clone()
    }
}

/// The list of the moment: one for all that a request looks at.
impl FromRef<Documents> for Arc<PriceList> {
    fn from_ref(documents: &Documents) -> Self {
        documents.prices.now()
    }
}

/// What holds for every route, also for those that do not exist.
fn finished(routes: Router, config: &Arc<Config>) -> Router {
    routes
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(config.clone(), finish))
}

/// A billable path reaches this router only by a method that it does not have.
async fn billable_or_nothing(uri: Uri) -> Response {
    match lua_free_filters::billable(uri.path()) {
        Some(_) => {
            let allow = [(ALLOW, HeaderValue::from_static("POST"))];
            (allow, method_not_allowed().await).into_response()
        }
        None => nothing_here().await.into_response(),
    }
}

async fn nothing_here() -> Refused {
    Refusal::new(Kind::NotFound, "not_found", "there is nothing at this path").into()
}

/// The router adds `Allow`.
async fn method_not_allowed() -> Refused {
    let refusal = Refusal::new(
        Kind::InvalidRequest,
        "method_not_allowed",
        "this path has other methods; see the Allow header",
    );
    refusal.status(405).into()
}

/// Answers preflights, words refusals, and adds what every answer carries.
async fn finish(State(config): State<Arc<Config>>, request: Request, next: Next) -> Response {
    let request_id = match request.extensions().get::<RequestId>() {
        Some(RequestId(id)) => id.clone(),
        None => fresh_request_id(),
    };
    let x_cashu = request.headers().get(X_CASHU).cloned();
    let cors = cors_headers(&config.origins, request.headers());
    let mut response = match request.method() {
        &Method::OPTIONS => preflight(request.headers()),
        _ => standing::told(next.run(request)).await,
    };
    if let Some(refused) = response.extensions_mut().remove::<Refused>() {
        let (status, headers, body) = render(&refused.refusal, &request_id, config.dialect);
        response.extensions_mut().insert(RefusalCode(refused.refusal.code()));
        *response.status_mut() = status;
        *response.body_mut() = Body::from(body);
        set_all(response.headers_mut(), headers);
        if let Some(shown) = &x_cashu {
            let echo = refused.echo_of(shown, config.refunds_alias);
            set_all(response.headers_mut(), echo);
        }
    }
    let headers = response.headers_mut();
    set_all(headers, request_id_headers(&request_id));
    set_all(headers, cors);
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

fn preflight(request: &HeaderMap) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    set_all(response.headers_mut(), preflight_headers(request));
    response
}

fn set_all(headers: &mut HeaderMap, list: HeaderList) {
    for (name, value) in list {
        // What an answer depends on adds up.
        match name {
            VARY => drop(headers.append(name, value)),
            _ => drop(headers.insert(name, value)),
        }
    }
}

/// A refusal on its way out of a handler; [`finish`] words it.
#[derive(Clone, Debug)]
struct Refused {
    refusal: Refusal,
    /// Whether an `X-Cashu` of the request is still the client's, so that it goes back.
    untouched: bool,
}

impl Refused {
    /// An answer about ecash that was paid before: what the client shows is a receipt by now,
    /// and would be taken for change if it came back.
    fn claim(refusal: Refusal) -> Self {
        Self { refusal, untouched: false }
    }

    /// What goes back to a client that sent `X-Cashu`.
    fn echo_of(&self, shown: &HeaderValue, refunds_alias: bool) -> HeaderList {
        let mut headers = vec![never_retry()];
        if let (true, Ok(Credential::Cashu(text))) =
            (self.untouched, credential(shown.to_str().ok(), None, None))
        {
            headers.extend(cashu_headers(text, refunds_alias));
        }
        headers
    }
}

/// No route here takes ecash from `X-Cashu`, so a refusal leaves it untouched.
impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, untouched: true }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let mut response = StatusCode::INTERNAL_SERVER_ERROR.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// A request that showed nothing, or nothing that can be a credential. Here and on billable
/// routes.
pub fn credential_refusal(refused: CredentialRefusal, missing_credential_status: u16) -> Refusal {
    match refused {
        CredentialRefusal::Missing => Refusal::new(
            Kind::AuthenticationFailed,
            "missing_api_key",
            "no credential: send `Authorization: Bearer` with a key or a Cashu token, or `X-Cashu`",
        )
        .status(missing_credential_status),
        CredentialRefusal::Malformed => Refusal::new(
            Kind::AuthenticationFailed,
            "invalid_api_key",
            "this can be no credential: a key is `sk-` and 32 characters, a Cashu token starts \
             with cashuA or cashuB",
        ),
    }
}

#[cfg(test)]
mod tests;
