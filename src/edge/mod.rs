//! The edge: Pingora's hooks, and the one place where a request ends.
//!
//! `request_filter` is the life of a request in order: id, route, who pays, body, ceiling,
//! reservation, exchange. A request that is not sold leaves before the reservation, one that
//! is sold ends in `close`. This folder is the only one that names Pingora.

mod access_log;
mod answer;
mod ask;
mod certificates;
mod client_address;
mod close;
mod context;
mod exchange;
mod guard;
mod gzip;
mod listener;
mod live;
mod meter;
mod once;
mod order;
mod origin;
mod payer;
mod peers;
mod probe;
mod reserve;
mod rolling;
pub mod serve;
mod strangers;
mod trailers;
mod verdict;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::Method;
use http::header::{ACCEPT_ENCODING, VARY};
use lua_free_filters::{Counts, End, HeaderEdits, Route, Usage, billable, request_id, scrub};
use pingora::connectors::http::Connector;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::{FailToProxy, ProxyHttp, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType};

use self::context::{Ctx, OpenCount, Stage};
use self::guard::{Event, Guard};
use self::payer::{payer, read_body};
use self::peers::Peers;
use self::reserve::{Ecash, Refused, Reserved};
use crate::api::{self, Door};
use crate::catalogue::Shelf;
use crate::config::Config;
use crate::error::{Kind, Refusal};
use crate::ids::fresh_request_id;
use crate::ledger::Ledger;
use crate::ledger::spool::Spool;
use crate::pricing;
use crate::telemetry::Metrics;
use crate::till::Till;
use crate::upstream::Upstreams;

/// The gateway as Pingora sees it.
pub struct Edge<L: Ledger> {
    config: Arc<Config>,
    prices: Shelf,
    upstreams: Upstreams,
    peers: Arc<Peers>,
    connector: Connector,
    till: Till<L>,
    /// Where the ledger is another server.
    spool: Option<Spool<L>>,
    metrics: Metrics,
    api: axum::Router,
    guard: Guard,
    open: Arc<OpenCount>,
}

impl<L: Ledger> Edge<L> {
    /// A request that the gateway answers itself.
    async fn answer_locally(&self, session: &mut Session, ctx: &mut Ctx) -> pingora::Result<()> {
        let head = session.req_header();
        let door = api::door(&head.method, head.uri.path());
        // Whoever is let in anyway is not asked who it is: that is a hash of what it shows.
        let shown = match door {
            Door::Open => None,
            _ => payer(session, self.config.missing_credential_status).ok(),
        };
        let visit = self.visit(session, shown.as_ref().map(|payer| &payer.account));
        if let Err(refusal) = self.let_in(&visit, door) {
            let untouched = shown.filter(|shown| shown.per_request && door != Door::Claim);
            let ecash = untouched.and_then(|shown| shown.cashu_token);
            return self.turn_away(session, ctx, &refusal, ecash.as_ref()).await;
        }
        let body = match self.body(session, api::LOCAL_BODY_BYTES_MAX).await? {
            Ok(body) => body,
            Err(refusal) => return self.refuse_early(session, ctx, &refusal, false, None).await,
        };
        let head = session.req_header();
        let mut request = http::Request::new(body);
        // HEAD is GET without the body, of which only GET knows how long it is.
        let method = if head.method == Method::HEAD { &Method::GET } else { &head.method };
        request.method_mut().clone_from(method);
        request.uri_mut().clone_from(&head.uri);
        request.headers_mut().clone_from(&head.headers);
        request.extensions_mut().insert(api::RequestId(ctx.request_id.clone()));
        let (parts, body) = api::answer(&self.api, request).await.into_parts();
        if let Some(api::RefusalCode(code)) = parts.extensions.get() {
            self.metrics.refused(code);
        }
        self.note_answered(&visit, door, &parts.extensions);
        let lines = parts.headers.iter().map(|(name, value)| (name.clone(), value.clone()));
        self.write_whole(session, parts.status, lines.collect(), body).await
    }

    /// A request for one of the billable routes.
    async fn sell(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
        route: Route,
    ) -> pingora::Result<()> {
        let per_request = session.req_header().headers.contains_key("x-cashu");
        let mut payer = match payer(session, self.config.missing_credential_status) {
            Ok(payer) => payer,
            Err(refusal) => return self.refuse_unpaid(session, ctx, route, &refusal).await,
        };
        let untouched = payer.cashu_token.clone().filter(|_| payer.per_request);
        let visit = self.visit(session, Some(&payer.account));
        if let Err(refusal) = self.let_pay(&visit, &payer).await {
            return self.turn_away(session, ctx, &refusal, untouched.as_ref()).await;
        }
        let body = match self.body(session, self.config.limits.body_bytes_max).await? {
            Ok(body) => body,
            Err(refusal) => {
                let ecash = untouched.as_ref();
                return self.refuse_early(session, ctx, &refusal, per_request, ecash).await;
            }
        };
        payer.keyed = match once::keyed(session.req_header(), route, &payer.key, &body) {
            Ok(keyed) => keyed,
            Err(refusal) => {
                let ecash = untouched.as_ref();
                return self.refuse(session, ctx, &refusal, per_request, ecash).await;
            }
        };
        let order = self.order(route, session.req_header(), body, payer.per_request);
        let reserved = match order {
            Ok(order) => {
                ctx.log.model.clone_from(&order.offer.model.id);
                self.reserve(ctx, &payer, order).await
            }
            Err(refusal) => Err(refusal.into()),
        };
        if ctx.standing.is_some() {
            self.guard.met(&payer.account);
        }
        match reserved {
            Ok(Reserved::Now(order)) => self.exchange(session, ctx, &order).await,
            Ok(Reserved::Before) => self.replay(session, ctx, &payer).await,
            Err(Refused { refusal, ecash, challenge }) => {
                ctx.challenge = challenge;
                self.note_refused(&visit, refusal.code());
                let ecash = match ecash {
                    Ecash::Untouched => untouched,
                    Ecash::Redeemed if payer.per_request => self.refund(payer.account).await,
                    Ecash::Redeemed | Ecash::Elsewhere => None,
                };
                self.refuse(session, ctx, &refusal, per_request, ecash.as_ref()).await
            }
        }
    }

    /// A request that shows nothing to pay with, or nothing that can be read. If it only lacks a
    /// credential, the answer says what it takes to be served.
    async fn refuse_unpaid(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
        route: Route,
        refusal: &Refusal,
    ) -> pingora::Result<()> {
        let from = self.visit(session, None).from;
        if let Err(refusal) = self.guard.admit(Event::Unpaid, &from) {
            return self.turn_away(session, ctx, &refusal, None).await;
        }
        let per_request = session.req_header().headers.contains_key("x-cashu");
        if refusal.code() != "missing_api_key" {
            return self.refuse_early(session, ctx, refusal, per_request, None).await;
        }
        let (of_all, of_unpaid) =
            (self.config.limits.body_bytes_max, self.config.guard.unpaid_body_bytes_max);
        let Ok(body) = self.body(session, of_all.min(of_unpaid)).await? else {
            return self.refuse_early(session, ctx, refusal, per_request, None).await;
        };
        // What cannot be sold at all is refused for that once there is a credential.
        let order = self.order(route, session.req_header(), body, true);
        ctx.challenge = order.ok().map(|order| order.ceiling);
        self.refuse(session, ctx, refusal, per_request, None).await
    }

    /// The request's body, within its bounds of size and time.
    async fn body(
        &self,
        session: &mut Session,
        bytes_max: usize,
    ) -> pingora::Result<Result<Bytes, Refusal>> {
        let limit = self.config.limits.body_timeout;
        tokio::time::timeout(limit, read_body(session, bytes_max)).await.unwrap_or_else(|_| {
            let message = "the request body did not arrive in time";
            Ok(Err(Refusal::new(Kind::InvalidRequest, "request_timeout", message).status(408)))
        })
    }
}

#[async_trait]
impl<L: Ledger> ProxyHttp for Edge<L> {
    type CTX = Ctx;

    fn new_ctx(&self) -> Ctx {
        Ctx::new(&self.open)
    }

    /// The whole life of a request; always answered here, or broken off with an error.
    async fn request_filter(&self, session: &mut Session, ctx: &mut Ctx) -> pingora::Result<bool> {
        let sent = session.req_header().headers.get("x-request-id");
        ctx.request_id = sent
            .and_then(|value| request_id::accept(value.as_bytes()))
            .map_or_else(fresh_request_id, str::to_owned);
        session.set_write_timeout(Some(CLIENT_WRITE_MAX));
        let head = session.req_header();
        match billable(head.uri.path()) {
            Some(route) if head.method == Method::POST => self.sell(session, ctx, route).await?,
            // Preflights and wrong methods of billable paths too.
            _ => self.answer_locally(session, ctx).await?,
        }
        Ok(true)
    }

    async fn upstream_peer(
        &self,
        _session: &mut Session,
        ctx: &mut Ctx,
    ) -> pingora::Result<Box<HttpPeer>> {
        let unpaid = || Error::explain(ErrorType::InternalError, "no reservation, no upstream");
        let (Stage::Reserved(_), Some(upstream)) = (&ctx.stage, &ctx.candidate) else {
            return Err(unpaid());
        };
        self.peers.of(upstream).await
    }

    /// The client's head made ours: nothing of who the client is, our credential.
    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut Ctx,
    ) -> pingora::Result<()> {
        remove(&scrub::request(&request.headers), |name| drop(request.remove_header(name)));
        let Some(upstream) = &ctx.candidate else {
            return Error::e_explain(ErrorType::InternalError, "no upstream was chosen");
        };
        for (name, value) in upstream.head_lines() {
            request.insert_header(name, value)?;
        }
        request.insert_header(ACCEPT_ENCODING, "identity")?;
        request.insert_header("x-request-id", &ctx.request_id)?;
        Ok(())
    }

    /// The upstream's head made ours: nothing of our account there, our id, cost and change.
    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Ctx,
    ) -> pingora::Result<()> {
        remove(&scrub::response(&response.headers), |name| drop(response.remove_header(name)));
        let request = &session.req_header().headers;
        let lines = api::request_id_headers(&ctx.request_id)
            .into_iter()
            .chain(api::cors_headers(&self.config.origins, request))
            .chain(ctx.rate_limit_lines())
            .chain(std::mem::take(&mut ctx.added));
        for (name, value) in lines {
            // What an answer depends on adds up, and the upstream's may depend on more.
            match name {
                VARY => drop(response.append_header(name, value)?),
                _ => response.insert_header(name, value)?,
            }
        }
        Ok(())
    }

    /// The meter: bytes pass, usage is read, and cost is written into the usage object.
    fn response_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut Ctx,
    ) -> pingora::Result<Option<Duration>> {
        let Ctx { meter, stage, .. } = ctx;
        let stage = &*stage;
        let mut annotate = |counts: &Counts| match stage {
            Stage::Reserved(ticket) => {
                let counts = pricing::completed(&ticket.order.peeked.demand, counts);
                let cost = ticket.price().cost(&counts);
                let remaining = ticket.remaining(cost.total);
                cost.usage_members(ticket.order.btc_usd_cents, Some(remaining))
            }
            Stage::Unpaid | Stage::Closed => String::new(),
        };
        let mut afforded = |usage: &Usage| match stage {
            Stage::Reserved(ticket) => ticket.covers(usage),
            Stage::Unpaid | Stage::Closed => true,
        };
        if let Some(chunk) = body.take() {
            *body = Some(meter.push(chunk, &mut annotate, &mut afforded));
        }
        if end_of_stream {
            let rest = meter.finish(End::Clean, &mut annotate).map_err(|_| {
                Error::explain(ErrorType::InvalidHTTPHeader, "the answer is not JSON")
            })?;
            *body = match body.take() {
                Some(last) if !last.is_empty() => Some([last, rest].concat().into()),
                _ => Some(rest),
            };
        }
        Ok(None)
    }

    /// Runs for every request, however it ended; ends the reservation if nothing else has.
    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Ctx) {
        self.leave(ctx).await;
        access_log::line(session, error, ctx);
    }

    /// What Pingora could not parse, or a connection that is of no use any more.
    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        ctx: &mut Ctx,
    ) -> FailToProxy {
        let close = |error_code| FailToProxy { error_code, can_reuse_downstream: false };
        if session.response_written().is_some() || *error.etype() == ErrorType::ConnectionClosed {
            return close(0);
        }
        let per_request = session.req_header().headers.contains_key("x-cashu");
        let refusal = Refusal::internal();
        session.set_keepalive(None);
        match self.refuse(session, ctx, &refusal, per_request, None).await {
            Ok(()) => close(refusal.status_code()),
            Err(_) => close(0),
        }
    }

    /// Every request has its line in the access log; a client that left is no error of ours.
    fn suppress_error_log(&self, _session: &Session, _ctx: &Ctx, error: &Error) -> bool {
        *error.etype() == ErrorType::ConnectionClosed
    }

    fn request_summary(&self, session: &Session, ctx: &Ctx) -> String {
        let head = session.req_header();
        let path = api::loggable_path(head.uri.path());
        format!("id={} {} {path}", ctx.request_id, head.method)
    }
}

fn remove(edits: &HeaderEdits, mut remove: impl FnMut(&http::HeaderName)) {
    edits.removes().for_each(&mut remove);
}

/// A client that takes no byte for this long is gone.
const CLIENT_WRITE_MAX: Duration = Duration::from_secs(60);
