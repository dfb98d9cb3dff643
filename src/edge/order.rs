//! What is asked and who pays: from the request's head and body to an open reservation.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use lua_free_filters::{
    Counts, Credential, CredentialRefusal, PeekRefusal, Route, credential, peek, rewrite,
};
use pingora::proxy::Session;

use super::Edge;
use super::context::{Ctx, Stage, Ticket};
use super::rolling::Holding;
use crate::api;
use crate::config::CostChunk;
use crate::crash::{self, Step};
use crate::error::{Kind, Refusal};
use crate::ids::{AccountId, ApiKey, ReservationId};
use crate::ledger::terms::TOKENS_WINDOW;
use crate::ledger::{Admission, Admitted, Denied, Ledger, Limit, Limited};
use crate::money::Msat;
use crate::pricing::Offer;
use crate::till::{CashuToken, RedeemRefused};

/// Who pays.
#[derive(Debug)]
pub(super) struct Payer {
    pub(super) account: AccountId,
    /// What can be redeemed if the account does not exist yet.
    pub(super) cashu_token: Option<CashuToken>,
    /// Shown in `X-Cashu`: this request is paid by it, and what is left goes back.
    pub(super) per_request: bool,
}

/// What is asked for, priced.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) route: Route,
    pub(super) offer: Arc<Offer>,
    /// The body as the upstream gets it.
    pub(super) body: Bytes,
    /// The length of the body as the client sent it: what the ceiling counts.
    pub(super) body_bytes: u64,
    pub(super) output_tokens_max: u64,
    /// The most input and output it may use: what counts against the hourly limit.
    pub(super) tokens_max: u64,
    pub(super) show_usage: bool,
    /// The output that is paid for before it is forwarded: all of it, or a first slice.
    pub(super) covered: u64,
    /// What that may cost, with the whole prompt: what is reserved.
    pub(super) ceiling: Msat,
}

impl Order {
    /// Whether more is reserved while the answer is delivered.
    pub(super) fn rolls(&self) -> bool {
        self.covered < self.output_tokens_max
    }
}

/// A refusal, and what it means for a token that came with the request.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) refusal: Refusal,
    pub(super) ecash: Ecash,
}

/// Where the value of a token is when its request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ecash {
    /// Still the client's, as it was sent.
    Untouched,
    /// On an account, to which this request has brought it: it goes back as change.
    Redeemed,
    /// On an account since an earlier request, or nobody knows yet: it is claimed.
    Elsewhere,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, ecash: Ecash::Untouched }
    }
}

/// Reads who pays from the head.
pub(super) fn payer(session: &Session, missing_status: u16) -> Result<Payer, Refusal> {
    let headers = &session.req_header().headers;
    let text = |name: &str| match headers.get(name).map(|value| value.to_str()) {
        None => Ok(None),
        Some(Ok(text)) => Ok(Some(text)),
        Some(Err(_)) => Err(CredentialRefusal::Malformed),
    };
    let shown = text("x-cashu")
        .and_then(|x_cashu| credential(x_cashu, text("authorization")?, text("x-api-key")?))
        .map_err(|why| api::credential_refusal(why, missing_status))?;
    Ok(match shown {
        Credential::ApiKey(key) => Payer {
            account: ApiKey::presented(key).account(),
            cashu_token: None,
            per_request: false,
        },
        Credential::CashuBearer(text) => by_token(text, false),
        Credential::Cashu(text) => by_token(text, true),
    })
}

fn by_token(text: &str, per_request: bool) -> Payer {
    Payer {
        account: ApiKey::of_cashu_token(text).account(),
        cashu_token: Some(CashuToken::new(text)),
        per_request,
    }
}

/// What the body says that it is. Of two different answers nobody knows which the upstream would
/// believe.
pub(super) fn content_type(session: &Session) -> Result<Option<&str>, Refusal> {
    let mut values = session.req_header().headers.get_all(http::header::CONTENT_TYPE).iter();
    match (values.next().map(|value| value.to_str()), values.next()) {
        (None, _) => Ok(None),
        (Some(Ok(text)), None) => Ok(Some(text)),
        _ => Err(Refusal::field("content-type", "must be given once, in ASCII")),
    }
}

/// Reads a request's body, up to `bytes_max`.
///
/// # Errors
/// Too large: 413, and the connection is closed after the answer. Broken off: the client went.
pub(super) async fn read_body(
    session: &mut Session,
    bytes_max: usize,
) -> pingora::Result<Result<Bytes, Refusal>> {
    let announced = session
        .req_header()
        .headers
        .get(http::header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|bytes| bytes > bytes_max) {
        return Ok(Err(api::body_too_large(bytes_max)));
    }
    if session.req_header().headers.contains_key(http::header::EXPECT) {
        session.write_continue_response().await?;
    }
    let mut body = BytesMut::with_capacity(announced.unwrap_or(0));
    while let Some(chunk) = session.read_request_body().await? {
        if body.len().saturating_add(chunk.len()) > bytes_max {
            return Ok(Err(api::body_too_large(bytes_max)));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Ok(body.freeze()))
}

impl<L: Ledger> Edge<L> {
    /// Reads and prices a body: what is refused here has cost nothing and asked nobody.
    pub(super) fn order(
        &self,
        route: Route,
        content_type: Option<&str>,
        body: Bytes,
        per_request: bool,
    ) -> Result<Order, Refusal> {
        let peeked = peek::read(route, content_type, &body).map_err(peek_refusal)?;
        let offer = self.prices.find(&peeked.model).ok_or_else(api::model_not_found)?.clone();
        let model = &offer.model;
        let output_limit = peeked.output_limit.unwrap_or(model.max_output_tokens);
        let body_bytes = u64::try_from(body.len()).unwrap_or(u64::MAX);
        let mut splices = Vec::new();
        splices.extend(rewrite::ask_usage(&peeked));
        if peeked.model != Cow::Borrowed(model.upstream_model.as_str()) {
            let named = rewrite::model_name(&peeked, &model.upstream_model);
            splices.extend(named.map_err(|unfit| {
                log::error!("model {}: {unfit}", model.id);
                Refusal::internal()
            })?);
        }
        let show_usage = peeked.include_usage || self.config.cost_chunk == CostChunk::Always;
        let rewritten =
            if splices.is_empty() { body.clone() } else { rewrite::apply(&body, splices).into() };
        let output_tokens_max = output_limit.saturating_mul(peeked.n);
        // An image in the body is many bytes, but no model reads more than its context.
        let input_tokens_max = body_bytes.min(model.context_length);
        // Change is for an answer whose cost is known, and one that is held is never cut.
        let rolls = peeked.stream && !per_request;
        let covered = self.slice().filter(|_| rolls).unwrap_or(u64::MAX).min(output_tokens_max);
        let most = Counts { input: body_bytes, output: covered, ..Counts::NONE };
        let ceiling = offer.price().ceiling(&most);
        Ok(Order {
            route,
            body: rewritten,
            body_bytes,
            output_tokens_max,
            tokens_max: input_tokens_max.saturating_add(output_tokens_max),
            show_usage,
            covered,
            ceiling,
            offer,
        })
    }

    /// Reserves the ceiling, redeeming the payer's token first if its account is new.
    pub(super) async fn reserve(
        &self,
        ctx: &mut Ctx,
        payer: &Payer,
        order: &Order,
    ) -> Result<(), Refused> {
        // Before anything was redeemed the token is as the client sent it.
        let denied = match self.admit(payer, order).await.map_err(Refused::from)? {
            Ok(admitted) => {
                self.reserved(ctx, payer, order, admitted);
                return Ok(());
            }
            Err(denied) => denied,
        };
        let (Denied::NoAccount, Some(cashu_token)) = (denied, &payer.cashu_token) else {
            let refusal = denied_refusal(denied, payer, order);
            return Err(Refused { refusal, ecash: Ecash::Elsewhere });
        };
        // Nothing is redeemed for a request that not even a new account may make.
        let limit = self.config.rate_limits.tokens_per_hour;
        if order.tokens_max > limit {
            let limited = Limited { which: Limit::Tokens, limit, retry_after: TOKENS_WINDOW };
            return Err(Refusal::rate_limited(&limited).into());
        }
        self.till
            .redeem(cashu_token.reveal(), payer.account.clone(), order.ceiling)
            .await
            .map_err(|refused| redeem_refused(&refused))?;
        let unanswered = |refusal| Refused { refusal, ecash: Ecash::Elsewhere };
        let admitted = self.admit(payer, order).await.map_err(unanswered)?;
        let admitted = admitted.map_err(|denied| Refused {
            refusal: denied_refusal(denied, payer, order),
            ecash: Ecash::Redeemed,
        })?;
        self.reserved(ctx, payer, order, admitted);
        Ok(())
    }

    async fn admit(
        &self,
        payer: &Payer,
        order: &Order,
    ) -> Result<Result<Admitted, Denied>, Refusal> {
        let ask = Admission {
            reservation: ReservationId::fresh(),
            account: payer.account.clone(),
            ceiling: order.ceiling,
            tokens: order.tokens_max,
            lifetime: self.config.reservation.lifetime,
            limits: self.config.rate_limits,
        };
        let admitted = self.till.ledger().admit(ask).await.map_err(|error| {
            log::error!("admission: {error}");
            Refusal::ledger_unavailable()
        })?;
        if let Some(spool) = &self.spool {
            spool.ledger_answered();
        }
        Ok(admitted)
    }

    fn reserved(&self, ctx: &mut Ctx, payer: &Payer, order: &Order, admitted: Admitted) {
        ctx.log.reserved = order.ceiling;
        ctx.stage = Stage::Reserved(Ticket {
            reservation: Holding::Here(admitted.reservation),
            reserved: order.ceiling,
            offer: order.offer.clone(),
            price: order.offer.price(),
            available: admitted.available,
            covered: order.covered,
            asks_ahead: true,
            body_bytes: order.body_bytes,
            output_tokens_max: order.output_tokens_max,
            payer: payer.account.clone(),
            wants_change: payer.per_request,
        });
        crash::point(Step::Reserved);
    }
}

fn peek_refusal(refusal: PeekRefusal) -> Refusal {
    match refusal {
        PeekRefusal::Field { field, message } => Refusal::field(field, message),
        PeekRefusal::NotJson { .. } | PeekRefusal::NotAnObject => {
            Refusal::new(Kind::InvalidRequest, "invalid_json", refusal.to_string())
        }
        PeekRefusal::NotAForm { .. } => {
            Refusal::new(Kind::InvalidRequest, "invalid_form", refusal.to_string())
        }
        PeekRefusal::WrongType(_) => {
            let code = "unsupported_media_type";
            Refusal::new(Kind::InvalidRequest, code, refusal.to_string()).status(415)
        }
    }
}

fn redeem_refused(refused: &RedeemRefused) -> Refused {
    let ecash = if refused.is_untouched() { Ecash::Untouched } else { Ecash::Elsewhere };
    Refused { refusal: api::redeem_refusal(refused), ecash }
}

fn denied_refusal(denied: Denied, payer: &Payer, order: &Order) -> Refusal {
    match denied {
        Denied::Insufficient { account_idle: true, .. } if payer.per_request => {
            api::redeem_refusal(&RedeemRefused::AlreadySpent)
        }
        _ => in_words(denied, order.ceiling),
    }
}

/// Why the ledger did not reserve `required`, in the client's words.
pub(super) fn in_words(denied: Denied, required: Msat) -> Refusal {
    match denied {
        Denied::NoAccount => Refusal::key_not_found(),
        Denied::Insufficient { available, .. } => {
            Refusal::insufficient_balance(required, available)
        }
        Denied::Expired => Refusal::key_expired(),
        Denied::Capped { left } => Refusal::balance_limit_exceeded(required, left),
        Denied::Limited(limited) => Refusal::rate_limited(&limited),
        Denied::AlreadyEnded => Refusal::internal(),
    }
}
