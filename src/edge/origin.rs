//! Asking an upstream: connecting, sending, and waiting for the head of its answer.
//!
//! Candidates are tried in order. The next one is asked only when the last cannot have done any
//! work that somebody bills: it could not be connected to, or it said 429, 502, 503 or 504. A
//! pooled connection that died before a byte of the answer is replaced once by a new one. Every
//! wait has a bound and ends when the client goes away.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::client::HttpSession;
use pingora::proxy::{ProxyHttp, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType};

use super::Edge;
use super::context::Ctx;
use super::order::Order;
use crate::clock::Stopwatch;
use crate::config::Select;
use crate::crash::{self, Step};
use crate::error::{Kind, Refusal};
use crate::ledger::Ledger;
use crate::upstream::{Candidate, Upstream};

/// An upstream that has answered with a head.
pub(super) struct Origin {
    http: HttpSession,
    peer: Box<HttpPeer>,
    upstream: Arc<Upstream>,
    asked: Stopwatch,
    pub(super) head: ResponseHeader,
}

/// Why a wait on the upstream ended without what was waited for.
#[derive(Debug)]
pub(super) enum Broke {
    ClientGone,
    Unreachable,
    TimedOut,
    /// The connection ended early, or what came is not HTTP.
    Cut,
}

impl Broke {
    /// What the client is told. Nobody reads the refusal of a client that went away.
    pub(super) fn refusal(&self) -> Refusal {
        let (code, message) = match self {
            Self::Unreachable => ("upstream_unreachable", "the upstream cannot be reached"),
            Self::TimedOut => ("upstream_timeout", "the upstream did not answer in time"),
            Self::Cut | Self::ClientGone => ("upstream_broke", "the upstream broke off its answer"),
        };
        Refusal::new(Kind::UpstreamError, code, message)
    }
}

impl Origin {
    /// The next piece of the body; `None` at its end.
    pub(super) async fn next(
        &mut self,
        session: &mut Session,
    ) -> Result<Option<bytes::Bytes>, Broke> {
        let limit = self.left().min(self.upstream.idle_timeout);
        within(session, limit, self.http.read_response_body()).await
    }

    /// What the total timeout leaves.
    fn left(&self) -> Duration {
        self.upstream.total_timeout.saturating_sub(self.asked.elapsed())
    }

    /// True when the end of the body is only the end of the connection, so that a cut answer
    /// looks like a complete one (RFC 9112 section 6.3, rule 8).
    pub(super) fn ends_with_the_connection(&self) -> bool {
        let headers = &self.head.headers;
        self.http.as_http1().is_some()
            && !headers.contains_key(http::header::CONTENT_LENGTH)
            && !headers.contains_key(http::header::TRANSFER_ENCODING)
    }
}

impl<L: Ledger> Edge<L> {
    /// Asks the candidates of an order until one answers with a head that is worth passing on.
    pub(super) async fn ask(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
        order: &Order,
    ) -> Result<Origin, Asked> {
        let candidates = self.upstreams.candidates(&order.offer.served, Select::Order, &[]);
        let mut last = Asked::Refused(Broke::Unreachable.refusal());
        for Candidate { upstream: candidate, .. } in candidates {
            ctx.candidate = Some(candidate.clone());
            match self.ask_one(session, ctx, order, &candidate).await {
                Ok(origin) => match judge(&origin.head) {
                    Judged::Answer => return Ok(origin),
                    Judged::Final(refusal) => return Err(Asked::Refused(refusal)),
                    Judged::Next(refusal) => last = Asked::Refused(refusal),
                },
                Err(Broke::ClientGone) => return Err(Asked::ClientGone),
                Err(broke @ Broke::Unreachable) => last = Asked::Refused(broke.refusal()),
                Err(broke) => return Err(Asked::Refused(broke.refusal())),
            }
        }
        Err(last)
    }

    async fn ask_one(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
        order: &Order,
        upstream: &Arc<Upstream>,
    ) -> Result<Origin, Broke> {
        let asked = Stopwatch::start();
        loop {
            let peer = self.upstream_peer(session, ctx).await.map_err(|_| Broke::Unreachable)?;
            // Boxed: its state is 18 KB, which every open stream would carry along otherwise.
            let connect = Box::pin(self.connector.get_http_session(&*peer));
            // The peer's own timeouts bound each step of connecting, this bounds their sum.
            let limit = upstream.connect_timeout.saturating_mul(2);
            let (http, reused) = match within(session, limit, connect).await {
                Ok(connected) => connected,
                Err(Broke::ClientGone) => return Err(Broke::ClientGone),
                Err(_) => {
                    upstream.forget_address();
                    return Err(Broke::Unreachable);
                }
            };
            let mut origin = Origin {
                http,
                peer,
                upstream: upstream.clone(),
                asked,
                head: ResponseHeader::build(200, None).map_err(|_| Broke::Cut)?,
            };
            match self.send(session, ctx, order, &mut origin).await {
                Ok(()) => return Ok(origin),
                // The pool held a connection that the upstream was just closing.
                Err(Broke::Cut) if reused => {}
                Err(broke) => return Err(broke),
            }
        }
    }

    async fn send(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
        order: &Order,
        origin: &mut Origin,
    ) -> Result<(), Broke> {
        let path = origin.upstream.path(order.route.upstream_path());
        let mut head = RequestHeader::build("POST", path.as_bytes(), None).map_err(cut)?;
        for (name, value) in &session.req_header().headers {
            head.append_header(name.clone(), value.clone()).map_err(cut)?;
        }
        self.upstream_request_filter(session, &mut head, ctx).await.map_err(cut)?;
        head.insert_header(http::header::CONTENT_LENGTH, order.body.len()).map_err(cut)?;
        let limit = origin.left().min(origin.upstream.first_byte_timeout);
        let http = &mut origin.http;
        let exchange = async {
            http.write_request_header(Box::new(head)).await?;
            http.write_request_body(order.body.clone(), true).await?;
            http.finish_request_body().await?;
            crash::point(Step::Forwarded);
            loop {
                http.read_response_header().await?;
                let Some(head) = http.response_header() else {
                    return Error::e_explain(ErrorType::InvalidHTTPHeader, "no head");
                };
                // 1xx heads say nothing about the answer (RFC 9110 section 15.2).
                if !head.status.is_informational() {
                    return Ok(head.clone());
                }
            }
        };
        origin.head = within(session, limit, exchange).await?;
        crash::point(Step::Answered);
        Ok(())
    }

    /// Gives a connection whose answer was read to its end back to the pool.
    pub(super) async fn put_back(&self, mut origin: Origin) {
        if origin.http.response_done() {
            let idle = origin.peer.options.idle_timeout;
            self.connector.release_http_session(origin.http, &*origin.peer, idle).await;
        }
    }
}

/// Why no candidate's answer can be passed on.
pub(super) enum Asked {
    ClientGone,
    Refused(Refusal),
}

enum Judged {
    /// An answer for the client: success, or its own mistake.
    Answer,
    /// Ours to explain, and nobody else may be asked.
    Final(Refusal),
    /// Ours to explain, unless another candidate does better.
    Next(Refusal),
}

/// What a head means for the client (WIRE.md section 3).
fn judge(head: &ResponseHeader) -> Judged {
    let upstream = |code, message| Refusal::new(Kind::UpstreamError, code, message);
    match head.status.as_u16() {
        200..=299 if is_encoded(head) => Judged::Final(unreadable()),
        200..=299 | 400 | 404..=406 | 409..=428 | 430..=499 => Judged::Answer,
        429 => {
            let message = "the upstream limits the requests it takes";
            let wait = retry_after_s(head);
            Judged::Next(
                Refusal::new(Kind::RateLimitExceeded, "upstream_rate_limited", message)
                    .fault(crate::error::Fault::Upstream)
                    .retry_after_s(wait),
            )
        }
        401..=403 | 407 => {
            Judged::Final(upstream("upstream_refused", "the upstream refused this gateway"))
        }
        502..=504 => Judged::Next(upstream("upstream_failed", "the upstream failed")),
        _ => Judged::Final(upstream("upstream_failed", "the upstream failed")),
    }
}

/// An answer that is not what this route answers: never passed on, never charged.
pub(super) fn unreadable() -> Refusal {
    let message = "the upstream's answer is not one that this route gives";
    Refusal::new(Kind::UpstreamError, "upstream_unreadable", message)
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

/// Waits for the upstream, but not longer than `limit` nor than the client stays.
async fn within<T>(
    session: &mut Session,
    limit: Duration,
    work: impl Future<Output = pingora::Result<T>>,
) -> Result<T, Broke> {
    tokio::select! {
        biased;
        done = tokio::time::timeout(limit, work) => match done {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                log::debug!("upstream: {error}");
                Err(Broke::Cut)
            }
            Err(_) => Err(Broke::TimedOut),
        },
        () = client_gone(session) => Err(Broke::ClientGone),
    }
}

/// Returns when the client has closed its connection or reset its stream.
async fn client_gone(session: &mut Session) {
    if let Err(error) = session.as_downstream_mut().read_body_or_idle(true).await
        && *error.etype() == ErrorType::ConnectError
    {
        // It sent more bytes after its request instead: it is there, and since the first of
        // them has been read away, this connection serves no other request.
        session.set_keepalive(None);
        std::future::pending::<()>().await;
    }
}

fn cut(error: Box<Error>) -> Broke {
    log::warn!("a request head could not be made: {error}");
    Broke::Cut
}

/// An upstream that wants to be left alone for longer is passed on as this: an hour.
const RETRY_AFTER_S_MAX: u32 = 3600;
