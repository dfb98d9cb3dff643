//! One exchange: a paid request goes to an upstream and its answer to the client.
//!
//! There is one exchange for every billable request, made on Pingora's connector, because
//! Pingora's own loop can neither hold a head until the cost is known nor await at the end of a
//! body. It calls the `ProxyHttp` hooks in their usual order and has two ways to answer:
//!
//! * *flowing*: an event stream paid by key. The head leaves at once, every event as it
//!   arrives; the settle is sent just before the last byte, and not waited for. Where money is
//!   reserved slice by slice, it ends where that does. One paid by `X-Cashu` flows where its
//!   client asked for that, and then its change follows the last event.
//! * *held*: a document, anything else paid by `X-Cashu`, or what is to be kept for a repetition.
//!   The head waits for the cost and the change. Beyond `limits.held_bytes_max` it flows after all,
//!   and the change is claimed.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use lua_free_filters::{End, Route, Usage};
use pingora::http::ResponseHeader;
use pingora::proxy::{ProxyHttp, Session};
use pingora::{Error, ErrorType};

use super::Edge;
use super::answer::Framing;
use super::ask::{Asked, MISTAKE_BYTES_MAX, read_mistake, unreadable};
use super::context::{Ctx, Presence};
use super::gzip::encoded;
use super::meter::Meter;
use super::order::Order;
use super::origin::{Broke, Origin, client_gone};
use super::rolling::Passed;
use super::verdict::Verdict;
use crate::api;
use crate::config::Abort;
use crate::crash::{self, Step};
use crate::error::Refusal;
use crate::ledger::Ledger;
use crate::till::CashuToken;

impl<L: Ledger> Edge<L> {
    /// Forwards an order whose ceiling is reserved. Returns when the client has its answer, or
    /// with an error when its connection must not be used any more.
    pub(super) async fn exchange(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
        order: &Order,
    ) -> pingora::Result<()> {
        if order.offer.model.abort == Abort::Drain || ctx.attempt.is_some() {
            ctx.presence = Presence::Optional;
        }
        let origin = match self.ask(session, ctx, order).await {
            Ok(origin) => origin,
            Err(Asked::ClientGone) => return self.client_gone(ctx).await,
            Err(Asked::Refused(refusal)) => return self.refuse_paid(session, ctx, refusal).await,
        };
        if !origin.head.status.is_success() {
            return self.pass_on_mistake(session, ctx, origin).await;
        }
        ctx.meter = match content_type(order.route, &origin.head) {
            Content::EventStream => Meter::stream(order.route, order.show_usage, order.rolls()),
            Content::Json => Meter::json(order.route),
            Content::Bytes => Meter::opaque(order.route),
            Content::Other => return self.refuse_paid(session, ctx, unreadable()).await,
        };
        let flows = !matches!(ctx.meter, Meter::Json { .. })
            && ctx.attempt.is_none()
            && ctx.ticket().is_some_and(|ticket| !ticket.wants_change);
        let flows = flows || ctx.is_live();
        if flows {
            return self.let_flow(session, ctx, origin, Bytes::new()).await;
        }
        // A document comes whole, whatever was asked for.
        if let Err(refusal) = self.cover_all(ctx).await {
            return self.refuse_paid(session, ctx, refusal).await;
        }
        self.hold(session, ctx, origin).await
    }

    /// Sends the head, what was held of the body so far, and the rest as it comes.
    async fn let_flow(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
        origin: Origin,
        held: Bytes,
    ) -> pingora::Result<()> {
        let mut head = origin.head.clone();
        self.prepare_head(session, ctx, &mut head, Framing::Unknown).await?;
        if ctx.is_live() {
            self.announce(session, &mut head)?;
        }
        let body = Some(held).filter(|held| !held.is_empty());
        let sent = send_head(session, ctx, head).await && send(session, ctx, body, false).await;
        match sent {
            true => self.flow(session, ctx, origin).await,
            false => self.client_gone(ctx).await,
        }
    }

    /// Passes the body on as it comes; the head has left.
    async fn flow(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
        mut origin: Origin,
    ) -> pingora::Result<()> {
        loop {
            match origin.next(session, &mut ctx.presence).await {
                Ok(Some(chunk)) => {
                    crash::point(Step::Streaming);
                    match self.pass_on(session, ctx, chunk).await? {
                        Passed::Whole => {}
                        Passed::ClientGone => return self.client_gone(ctx).await,
                        Passed::Unpaid(refusal) => {
                            drop(origin);
                            return self.cut(session, ctx, &refusal).await;
                        }
                    }
                }
                Ok(None) if origin.ends_with_the_connection() && !ctx.meter.done() => {
                    return self.break_off(session, ctx, &Broke::Cut).await;
                }
                Ok(None) => break,
                Err(Broke::ClientGone) => return self.client_gone(ctx).await,
                Err(broke) => return self.break_off(session, ctx, &broke).await,
            }
        }
        crash::point(Step::StreamEnded);
        let mut tail = None;
        self.response_body_filter(session, &mut tail, true, ctx)?;
        self.put_back(origin).await;
        if ctx.presence == Presence::Gone {
            return self.client_gone(ctx).await;
        }
        if ctx.is_live() {
            return self.end_live(session, ctx, tail.unwrap_or_default(), true).await;
        }
        // The settle is on its way to the ledger before the client sees the end, so whatever
        // it asks next is answered after it; nobody waits for it to return.
        let ((), written) = tokio::join!(self.leave(ctx), session.write_response_body(tail, true));
        crash::point(Step::Delivered);
        written
    }

    /// Collects the whole answer, then its cost and change, and sends all of it.
    async fn hold(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
        mut origin: Origin,
    ) -> pingora::Result<()> {
        let mut held = BytesMut::new();
        loop {
            match origin.next(session, &mut ctx.presence).await {
                Ok(Some(chunk)) => {
                    crash::point(Step::Streaming);
                    let mut body = Some(chunk);
                    self.response_body_filter(session, &mut body, false, ctx)?;
                    held.extend_from_slice(&body.unwrap_or_default());
                }
                Ok(None) if origin.ends_with_the_connection() && held_is_cut(ctx) => {
                    return self.refuse_undelivered(session, ctx, Broke::Cut.refusal()).await;
                }
                Ok(None) => break,
                Err(Broke::ClientGone) => {
                    ctx.meter = Meter::Nothing;
                    return self.client_gone(ctx).await;
                }
                Err(broke) => {
                    return self.refuse_undelivered(session, ctx, broke.refusal()).await;
                }
            }
            let total = held.len().saturating_add(ctx.meter.held());
            if total > self.held_bytes_max(ctx) {
                // It outgrew what is held: it flows, and change is left to be claimed.
                held.extend_from_slice(&ctx.meter.overflow());
                return self.let_flow(session, ctx, origin, held.freeze()).await;
            }
        }
        crash::point(Step::StreamEnded);
        let mut tail = None;
        if self.response_body_filter(session, &mut tail, true, ctx).is_err() {
            return self.refuse_undelivered(session, ctx, unreadable()).await;
        }
        held.extend_from_slice(&tail.unwrap_or_default());
        let head = origin.head.clone();
        self.put_back(origin).await;
        let held = held.freeze();
        self.keep(ctx, &head, &held).await;
        match ctx.presence {
            Presence::Gone => self.client_gone(ctx).await,
            Presence::Watched | Presence::Optional => self.deliver(session, ctx, head, held).await,
        }
    }

    /// What is held of an answer. One that is held only to be kept is not held for longer than it
    /// may be kept.
    fn held_bytes_max(&self, ctx: &Ctx) -> usize {
        let most = self.config.limits.held_bytes_max;
        let wants_change = ctx.ticket().is_some_and(|ticket| ticket.wants_change);
        match ctx.meter {
            Meter::Json { .. } => most,
            _ if wants_change => most,
            _ => most.min(self.config.idempotency.answer_bytes_max),
        }
    }

    /// Sends a held answer whose cost is known.
    async fn deliver(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
        head: ResponseHeader,
        body: Bytes,
    ) -> pingora::Result<()> {
        let verdict = ctx.ticket().and_then(|ticket| ticket.verdict(&ctx.meter.usage()));
        ctx.added.extend(cost_headers(verdict));
        if ctx.ticket().is_some_and(|ticket| ticket.wants_change) {
            let closed = self.close(ctx).await;
            let change = self.change(closed).await;
            self.add_change(ctx, change.as_ref());
        }
        let body = whole(session, ctx, &head, body).await;
        let framing = Framing::Length(body.len());
        let mut head = head;
        self.prepare_head(session, ctx, &mut head, framing).await?;
        let write = async {
            session.write_response_header(Box::new(head), false).await?;
            session.write_response_body(Some(body), true).await
        };
        // As in `flow`: sent before the first byte of the answer, not waited for by it.
        let ((), written) = tokio::join!(self.leave(ctx), write);
        crash::point(Step::Delivered);
        written
    }

    /// An upstream's 4xx that is the client's own mistake, with its body, for nothing.
    async fn pass_on_mistake(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
        mut origin: Origin,
    ) -> pingora::Result<()> {
        let body = match read_mistake(session, ctx, &mut origin).await {
            Ok(body) if body.len() > MISTAKE_BYTES_MAX => {
                return self.refuse_paid(session, ctx, unreadable()).await;
            }
            Ok(body) => body,
            Err(Broke::ClientGone) => return self.client_gone(ctx).await,
            Err(broke) => return self.refuse_paid(session, ctx, broke.refusal()).await,
        };
        let closed = self.close(ctx).await;
        if closed.change_for.is_some() {
            ctx.added.push(api::never_retry());
        }
        let change = self.change(closed).await;
        self.add_change(ctx, change.as_ref());
        let mut head = origin.head.clone();
        self.put_back(origin).await;
        let body = whole(session, ctx, &head, body).await;
        self.prepare_head(session, ctx, &mut head, Framing::Length(body.len())).await?;
        session.write_response_header(Box::new(head), false).await?;
        session.write_response_body(Some(body), true).await
    }

    /// Ends a paid request with an answer of ours. What was held of the upstream's never
    /// reached the client, so it is not charged.
    async fn refuse_undelivered(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
        refusal: Refusal,
    ) -> pingora::Result<()> {
        ctx.meter = Meter::Nothing;
        self.refuse_paid(session, ctx, refusal).await
    }

    /// Ends a paid request with an answer of ours, before any of the upstream's was sent.
    async fn refuse_paid(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
        refusal: Refusal,
    ) -> pingora::Result<()> {
        let closed = self.close(ctx).await;
        let per_request = closed.change_for.is_some();
        let change = self.change(closed).await;
        let write = self.refuse(session, ctx, &refusal, per_request, change.as_ref()).await;
        crash::point(Step::Delivered);
        write
    }

    /// The upstream broke while its answer was flowing. The client must see that: it gets an
    /// error event, and no end of the body.
    async fn break_off(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
        broke: &Broke,
    ) -> pingora::Result<()> {
        let was_stream = matches!(ctx.meter, Meter::Stream { .. });
        ctx.log.ended = "upstream broke";
        self.end_meter(ctx, End::Broken);
        if was_stream {
            let event = self.error_event(ctx, &broke.refusal());
            if ctx.is_live() {
                drop(self.end_live(session, ctx, event, false).await);
            } else {
                let write = session.write_response_body(Some(event), false);
                let ((), _written) = tokio::join!(self.leave(ctx), write);
            }
        } else {
            self.leave(ctx).await;
        }
        if session.is_http2() {
            // The reset that follows takes back what its connection has not sent yet.
            drop(tokio::time::timeout(RESET_AFTER, client_gone(session)).await);
        }
        Error::e_explain(ErrorType::ConnectionClosed, "the upstream broke mid-stream")
    }

    /// The client left. What was delivered is charged, or all that the upstream did if it was
    /// heard to its end, or the request itself if it left an upstream at work for nothing; change
    /// of it is left to be claimed.
    async fn client_gone(&self, ctx: &mut Ctx) -> pingora::Result<()> {
        ctx.log.ended = "client gone";
        if ctx.presence != Presence::Gone {
            self.end_meter(ctx, End::Broken);
            if ctx.at_work && ctx.meter.usage() == Usage::Nothing {
                ctx.meter = Meter::Abandoned;
            }
        }
        self.leave(ctx).await;
        Error::e_explain(ErrorType::ConnectionClosed, "the client left")
    }

    pub(super) fn end_meter(&self, ctx: &mut Ctx, end: End) {
        if let Meter::Stream { .. } = ctx.meter {
            // What is still held back is half an event, which nobody gets.
            drop(ctx.meter.finish(end, &mut |_| String::new()));
        }
    }

    fn add_change(&self, ctx: &mut Ctx, change: Option<&CashuToken>) {
        if let Some(change) = change {
            ctx.added.extend(self.change_lines(change));
        }
    }
}

/// A body that is whole, as its client takes it.
async fn whole(session: &Session, ctx: &mut Ctx, head: &ResponseHeader, body: Bytes) -> Bytes {
    let request = &session.req_header().headers;
    let (lines, body) = encoded(request, &head.headers, body).await;
    ctx.added.extend(lines);
    body
}
/// How long the client of a stream that broke has to read what came before. It leaves by itself
/// when it reads the error event, or the reset tells it.
const RESET_AFTER: Duration = Duration::from_secs(1);

/// Writes the head of an answer; false when the client has left and that ends the exchange.
async fn send_head(session: &mut Session, ctx: &mut Ctx, head: ResponseHeader) -> bool {
    if ctx.presence == Presence::Gone {
        return true;
    }
    let written = session.write_response_header(Box::new(head), false).await;
    stays(ctx, written)
}

/// Writes a piece of an answer, likewise. Nothing is written for a client that has left.
pub(super) async fn send(
    session: &mut Session,
    ctx: &mut Ctx,
    body: Option<Bytes>,
    end: bool,
) -> bool {
    if ctx.presence == Presence::Gone || body.as_ref().is_none_or(Bytes::is_empty) && !end {
        return true;
    }
    let written = session.write_response_body(body, end).await;
    stays(ctx, written)
}

fn stays(ctx: &mut Ctx, written: pingora::Result<()>) -> bool {
    if written.is_err() && ctx.presence == Presence::Optional {
        ctx.presence = Presence::Gone;
    }
    written.is_ok() || ctx.presence == Presence::Gone
}

enum Content {
    EventStream,
    Json,
    /// Audio, or a transcript as plain text or subtitles.
    Bytes,
    Other,
}

fn content_type(route: Route, head: &ResponseHeader) -> Content {
    let value = head.headers.get(http::header::CONTENT_TYPE);
    let text = value.and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_audio = essence.starts_with("audio/") || essence == "application/octet-stream";
    let is_text = essence.starts_with("text/") || essence == "application/x-subrip";
    match (essence.as_str(), route) {
        ("text/event-stream", _) => Content::EventStream,
        ("application/json", _) => Content::Json,
        _ if essence.ends_with("+json") => Content::Json,
        (_, Route::Speech) if is_audio => Content::Bytes,
        (_, Route::Transcriptions | Route::Translations) if is_text && essence != "text/html" => {
            Content::Bytes
        }
        _ => Content::Other,
    }
}

/// A held answer without framing of its own is complete only if it says so itself.
fn held_is_cut(ctx: &Ctx) -> bool {
    matches!(ctx.meter, Meter::Stream { .. }) && !ctx.meter.done()
}

pub(super) fn cost_headers(verdict: Option<Verdict>) -> api::HeaderList {
    let Some(Verdict { cost, .. }) = verdict else { return api::HeaderList::new() };
    let line = |name, amount: crate::money::Msat| {
        (http::HeaderName::from_static(name), http::HeaderValue::from(amount.get()))
    };
    let input = cost.input.saturating_add(cost.cache_read);
    vec![
        line("x-routstr-cost-msats", cost.total),
        line("x-routstr-input-cost-msats", input),
        line("x-routstr-output-cost-msats", cost.output),
    ]
}
