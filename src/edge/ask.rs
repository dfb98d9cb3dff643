//! Who is asked: the upstreams of an order in turn, until one answers with a head that is worth
//! passing on.
//!
//! The next one is asked only when the last cannot have done any work that somebody bills: it
//! could not be connected to, or it said 429, 502, 503, 504 or 529. Whoever charges more than what
//! is reserved is asked after the reservation was raised, and the one that answers is the one whose
//! price counts.

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use lua_free_filters::rewrite;
use pingora::http::ResponseHeader;
use pingora::proxy::Session;

use super::Edge;
use super::context::{Ctx, Presence};
use super::order::{Bid, Order};
use super::origin::{Broke, Origin};
use crate::error::{Fault, Kind, Refusal};
use crate::ledger::Ledger;
use crate::upstream::{Failure, Outcome};

/// Why no upstream's answer can be passed on.
pub(super) enum Asked {
    ClientGone,
    Refused(Refusal),
}

impl<L: Ledger> Edge<L> {
    /// Asks the upstreams of an order until one answers.
    pub(super) async fn ask(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
        order: &Order,
    ) -> Result<Origin, Asked> {
        let mut last = None;
        for (nth, bid) in order.bids.iter().enumerate() {
            let Some(mut asking) = bid.upstream.begin() else { continue };
            if let Err(refusal) = self.take_bid(ctx, nth).await {
                last = Some(last_word(last, refusal));
                continue;
            }
            let answered = self.ask_one(session, ctx, order, bid).await;
            let (outcome, judged) = match &answered {
                Ok(origin) => judge(&origin.head, origin.first_byte),
                Err(Broke::ClientGone) => return Err(Asked::ClientGone),
                Err(broke) => {
                    ctx.at_work = false;
                    judge_broken(broke)
                }
            };
            asking.report(outcome);
            match (judged, answered) {
                (Judged::Answer, Ok(mut origin)) => {
                    origin.asking = Some(asking);
                    return Ok(origin);
                }
                (Judged::Next(refusal), _) if ctx.presence != Presence::Gone => {
                    last = Some(last_word(last, refusal));
                }
                (Judged::Next(refusal) | Judged::Final(refusal), _) => {
                    return Err(Asked::Refused(refusal));
                }
                (Judged::Answer, Err(broke)) => return Err(Asked::Refused(broke.refusal())),
            }
        }
        Err(Asked::Refused(last.unwrap_or_else(|| nobody_is_well(order))))
    }

    /// From here on the request is charged by this bid, for which enough is reserved. One that
    /// cannot be paid for changes nothing.
    async fn take_bid(&self, ctx: &mut Ctx, nth: usize) -> Result<(), Refusal> {
        let Some(ticket) = ctx.ticket_mut() else { return Err(Refusal::internal()) };
        let order = ticket.order.clone();
        let Some(bid) = order.bids.get(nth) else { return Err(Refusal::internal()) };
        let needed = order.ceiling_by(&bid.price, ticket.covered);
        if needed > ticket.reserved {
            let raised = self.raise_to(ticket, ticket.covered, needed).await;
            // A no to this bid is none to the next slice of another.
            ticket.asks_ahead = true;
            raised?;
        }
        ticket.bid = nth;
        ctx.candidate = Some(bid.upstream.clone());
        Ok(())
    }

    /// Asks one upstream, and once more without the optional parameter that it does not know.
    async fn ask_one(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
        order: &Order,
        bid: &Bid,
    ) -> Result<Origin, Broke> {
        let body = order.body_for(bid);
        let mut origin =
            self.forward(session, ctx, order.route, &bid.upstream, body.clone()).await?;
        if origin.head.status != StatusCode::BAD_REQUEST || !bid.upstream.strips() {
            return Ok(origin);
        }
        let mistake = read_mistake(session, ctx, &mut origin).await?;
        let unknown = bid.upstream.unsupported(&mistake);
        let Some(without) = unknown.and_then(|name| rewrite::without(&body, name)) else {
            origin.ahead = Some(mistake);
            return Ok(origin);
        };
        self.put_back(origin).await;
        self.forward(session, ctx, order.route, &bid.upstream, without.into()).await
    }
}

/// The body of an upstream's refusal, or a little more than [`MISTAKE_BYTES_MAX`] of it.
pub(super) async fn read_mistake(
    session: &mut Session,
    ctx: &mut Ctx,
    origin: &mut Origin,
) -> Result<Bytes, Broke> {
    let mut body = BytesMut::new();
    while body.len() <= MISTAKE_BYTES_MAX {
        match origin.next(session, &mut ctx.presence).await? {
            Some(chunk) => body.extend_from_slice(&chunk),
            None => break,
        }
    }
    Ok(body.freeze())
}

/// Which of two refusals a client is told when nobody has served it: the one that says when to
/// come back, and the soonest of those; else the later one.
fn last_word(before: Option<Refusal>, later: Refusal) -> Refusal {
    let Some(before) = before else { return later };
    let is_limit = |refusal: &Refusal| refusal.kind() == Kind::RateLimitExceeded;
    match (is_limit(&before), is_limit(&later)) {
        (true, true) if before.retry_after() > later.retry_after() => later,
        (true, _) => before,
        (false, _) => later,
    }
}

enum Judged {
    /// An answer for the client: success, or its own mistake.
    Answer,
    /// Ours to explain, and nobody else may be asked.
    Final(Refusal),
    /// Ours to explain, unless another upstream does better.
    Next(Refusal),
}

/// What a head means for the client (WIRE.md section 3) and for the upstream's health.
fn judge(head: &ResponseHeader, first_byte: std::time::Duration) -> (Outcome, Judged) {
    let upstream = |code, message| Refusal::new(Kind::UpstreamError, code, message);
    let failed = || upstream("upstream_failed", "the upstream failed");
    let answered = Outcome::Answered { first_byte };
    match head.status.as_u16() {
        200..=299 if is_encoded(head) => (answered, Judged::Final(unreadable())),
        200..=299 => (answered, Judged::Answer),
        400 | 404..=406 | 409..=428 | 430..=499 => (Outcome::Declined, Judged::Answer),
        429 => {
            let wait_s = retry_after_s(head);
            let message = "the upstream limits the requests it takes";
            let refusal = Refusal::new(Kind::RateLimitExceeded, "upstream_rate_limited", message)
                .fault(Fault::Upstream)
                .retry_after_s(wait_s);
            let retry_after = std::time::Duration::from_secs(wait_s.into());
            (Outcome::Limited { retry_after }, Judged::Next(refusal))
        }
        status @ (401..=403 | 407) => {
            let refusal = upstream("upstream_refused", "the upstream refused this gateway");
            (Outcome::Refused { status }, Judged::Final(refusal))
        }
        502..=504 | OVERLOADED => (Outcome::Failed(Failure::Status), Judged::Next(failed())),
        // A 500 may be about this one request, so it is no reason to leave the upstream alone.
        _ => (Outcome::Declined, Judged::Final(failed())),
    }
}

fn judge_broken(broke: &Broke) -> (Outcome, Judged) {
    let refusal = broke.refusal();
    match broke {
        Broke::Unreachable => (Outcome::Failed(Failure::Unreachable), Judged::Next(refusal)),
        Broke::TimedOut => (Outcome::Failed(Failure::TimedOut), Judged::Final(refusal)),
        Broke::Cut | Broke::ClientGone => {
            (Outcome::Failed(Failure::Broken), Judged::Final(refusal))
        }
    }
}

/// An answer that is not what this route answers: never passed on, never charged.
pub(super) fn unreadable() -> Refusal {
    let message = "the upstream's answer is not one that this route gives";
    Refusal::new(Kind::UpstreamError, "upstream_unreadable", message)
}

/// Every upstream of this model has failed of late, and none is due to be tried again.
fn nobody_is_well(order: &Order) -> Refusal {
    let rest = order.bids.iter().filter_map(|bid| bid.upstream.rests()).min().unwrap_or_default();
    let wait_s = u32::try_from(rest.as_millis().div_ceil(1000)).unwrap_or(RETRY_AFTER_S_MAX);
    let message = "no upstream of this model can be asked right now";
    Refusal::new(Kind::UpstreamError, "upstream_unavailable", message)
        .status(503)
        .retry_after_s(wait_s.clamp(1, RETRY_AFTER_S_MAX))
}

fn is_encoded(head: &ResponseHeader) -> bool {
    let encoding = head.headers.get(http::header::CONTENT_ENCODING);
    encoding.is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// Seconds of an upstream's `Retry-After`; a date or nonsense counts as a second.
fn retry_after_s(head: &ResponseHeader) -> u32 {
    let value = head.headers.get(http::header::RETRY_AFTER);
    let seconds = value.and_then(|value| value.to_str().ok()?.trim().parse::<u32>().ok());
    seconds.unwrap_or(1).clamp(1, RETRY_AFTER_S_MAX)
}

/// What Anthropic says instead of 503.
const OVERLOADED: u16 = 529;

/// An upstream that wants to be left alone for longer is passed on as this: an hour.
const RETRY_AFTER_S_MAX: u32 = 3600;

/// The largest error body of an upstream that is passed on.
pub(super) const MISTAKE_BYTES_MAX: usize = 1 << 20;
