//! One upstream: connecting, sending, waiting for the head of its answer, and the pieces of its
//! body.
//!
//! A pooled connection that died before a byte of the answer is replaced once by a new one. Every
//! wait has a bound, and ends when the client goes away unless the answer is wanted all the same.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lua_free_filters::Route;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::client::HttpSession;
use pingora::proxy::{ProxyHttp, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType};
use tokio::time::error::Elapsed;

use super::Edge;
use super::context::{Ctx, Presence};
use crate::clock::Stopwatch;
use crate::crash::{self, Step};
use crate::error::{Kind, Refusal};
use crate::ledger::Ledger;
use crate::upstream::{Asking, Failure, Outcome, Upstream};

/// An upstream that has answered with a head.
pub(super) struct Origin {
    http: HttpSession,
    peer: Box<HttpPeer>,
    upstream: Arc<Upstream>,
    asked: Stopwatch,
    pub(super) head: ResponseHeader,
    /// How long it took to come.
    pub(super) first_byte: Duration,
    /// What of the body was read ahead.
    pub(super) ahead: Option<Bytes>,
    /// Kept to report an answer that breaks off.
    pub(super) asking: Option<Asking>,
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
        presence: &mut Presence,
    ) -> Result<Option<Bytes>, Broke> {
        if let Some(ahead) = self.ahead.take() {
            return Ok(Some(ahead));
        }
        let (left, idle) = (self.left(), self.upstream.idle_timeout);
        let next = within(session, presence, left.min(idle), self.http.read_response_body()).await;
        // An answer that takes longer than all may is a long one, or one that is read slowly: what
        // clients can bring about must not close the upstream to everybody.
        let has_failed = match next {
            Err(Broke::Cut) => true,
            Err(Broke::TimedOut) => idle <= left,
            Ok(_) | Err(Broke::ClientGone | Broke::Unreachable) => false,
        };
        if let (true, Some(asking)) = (has_failed, &mut self.asking) {
            asking.report(Outcome::Failed(Failure::Broken));
        }
        next
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
    /// Sends a paid request to one upstream and waits for the head of its answer; unless the
    /// client has left, whose request then goes to nobody.
    pub(super) async fn forward(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
        route: Route,
        upstream: &Arc<Upstream>,
        body: Bytes,
    ) -> Result<Origin, Broke> {
        let asked = Stopwatch::start();
        let mut is_resent = false;
        loop {
            // Nobody is asked for somebody who will not hear the answer.
            if has_left(session, ctx.presence).await {
                return Err(Broke::ClientGone);
            }
            let peer = self.upstream_peer(session, ctx).await.map_err(|_| Broke::Unreachable)?;
            // Boxed: its state is 18 KB, which every open stream would carry along otherwise.
            let connect = Box::pin(self.connector.get_http_session(&*peer));
            // The peer's own timeouts bound each step of connecting, this bounds their sum.
            let limit = upstream.connect_timeout.saturating_mul(2);
            let (http, reused) = match within(session, &mut Presence::Watched, limit, connect).await
            {
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
                first_byte: Duration::ZERO,
                ahead: None,
                asking: None,
            };
            match self.send(session, ctx, route, body.clone(), &mut origin).await {
                Ok(()) => return Ok(origin),
                // The pool held a connection that the upstream was just closing. Not a second
                // time: one that resets what it has read may bill for each of them, and all
                // requests share its connection.
                Err(Broke::Cut) if reused && !is_resent => is_resent = true,
                Err(broke) => return Err(broke),
            }
        }
    }

    async fn send(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
        route: Route,
        body: Bytes,
        origin: &mut Origin,
    ) -> Result<(), Broke> {
        let path = origin.upstream.path(route.upstream_path());
        let mut head = RequestHeader::build("POST", path.as_bytes(), None).map_err(cut)?;
        for (name, value) in &session.req_header().headers {
            head.append_header(name.clone(), value.clone()).map_err(cut)?;
        }
        self.upstream_request_filter(session, &mut head, ctx).await.map_err(cut)?;
        head.insert_header(http::header::CONTENT_LENGTH, body.len()).map_err(cut)?;
        let limit = origin.left().min(origin.upstream.first_byte_timeout);
        ctx.at_work = true;
        let http = &mut origin.http;
        let exchange = async {
            http.write_request_header(Box::new(head)).await?;
            http.write_request_body(body, true).await?;
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
        origin.head = within(session, &mut ctx.presence, limit, exchange).await?;
        ctx.at_work = origin.head.status.is_success();
        origin.first_byte = origin.asked.elapsed();
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

/// Waits for the upstream, but not longer than `limit`, nor than the client stays unless that is
/// optional.
async fn within<T>(
    session: &mut Session,
    presence: &mut Presence,
    limit: Duration,
    work: impl Future<Output = pingora::Result<T>>,
) -> Result<T, Broke> {
    let mut work = std::pin::pin!(tokio::time::timeout(limit, work));
    if *presence != Presence::Gone {
        tokio::select! {
            biased;
            done = &mut work => return judged(done),
            () = client_gone(session) => {}
        }
        if *presence == Presence::Watched {
            return Err(Broke::ClientGone);
        }
        *presence = Presence::Gone;
    }
    judged(work.await)
}

fn judged<T>(done: Result<pingora::Result<T>, Elapsed>) -> Result<T, Broke> {
    match done {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => {
            log::debug!("upstream: {error}");
            Err(Broke::Cut)
        }
        Err(_) => Err(Broke::TimedOut),
    }
}

/// Whether the client has left already.
async fn has_left(session: &mut Session, presence: Presence) -> bool {
    if presence == Presence::Gone {
        return true;
    }
    tokio::select! {
        biased;
        () = client_gone(session) => true,
        () = std::future::ready(()) => false,
    }
}

/// Returns when the client has closed its connection or reset its stream.
pub(super) async fn client_gone(session: &mut Session) {
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
