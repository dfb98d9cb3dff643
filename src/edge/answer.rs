//! Writing answers: the upstream's head made ours, and answers of our own.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use pingora::http::ResponseHeader;
use pingora::proxy::{ProxyHttp, Session};

use super::Edge;
use super::context::Ctx;
use super::gzip::encoded;
use super::strangers::drain;
use crate::api;
use crate::config::Dialect;
use crate::error::Refusal;
use crate::ledger::Ledger;
use crate::till::CashuToken;
use crate::wallet::payment_request;

/// How the end of a body is told to the client.
#[derive(Clone, Copy, Debug)]
pub(super) enum Framing {
    Length(usize),
    Unknown,
}

impl<L: Ledger> Edge<L> {
    /// Turns the upstream's head into the client's: the hook's edits first, then the framing,
    /// which is always ours.
    pub(super) async fn prepare_head(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
        head: &mut ResponseHeader,
        framing: Framing,
    ) -> pingora::Result<()> {
        self.response_filter(session, head, ctx).await?;
        head.set_version(http::Version::HTTP_11);
        match framing {
            Framing::Length(bytes) => head.insert_header(CONTENT_LENGTH, bytes),
            // An HTTP/1.0 client reads until the connection ends.
            Framing::Unknown if session.req_header().version == http::Version::HTTP_11 => {
                head.insert_header(TRANSFER_ENCODING, "chunked")
            }
            Framing::Unknown => Ok(()),
        }
    }

    /// Answers with a refusal. `ecash` is the untouched token or the change, if there is one.
    pub(super) async fn refuse(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
        refusal: &Refusal,
        per_request: bool,
        ecash: Option<&CashuToken>,
    ) -> pingora::Result<()> {
        if ctx.log.ended.is_empty() {
            ctx.log.ended = refusal.code();
        }
        self.metrics.refused(refusal.code());
        let (status, mut lines, body) = api::render(refusal, &ctx.request_id, self.config.dialect);
        lines.extend(api::cors_headers(&self.config.origins, &session.req_header().headers));
        lines.extend(ctx.rate_limit_lines());
        if per_request {
            lines.push(api::never_retry());
        }
        let mints = &self.config.mints;
        let asked = ctx.challenge.take().and_then(|amount| payment_request(amount, mints));
        lines.extend(asked.and_then(|asked| api::challenge_header(&asked)));
        if let Some(ecash) = ecash {
            lines.extend(api::cashu_headers(ecash.reveal(), self.config.refunds_alias));
        }
        self.write_whole(session, status, lines, body).await
    }

    /// Refuses, and closes an HTTP/1.1 connection on which a body is still arriving, which is read
    /// away for a while first.
    pub(super) async fn refuse_early(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
        refusal: &Refusal,
        per_request: bool,
        ecash: Option<&CashuToken>,
    ) -> pingora::Result<()> {
        session.set_keepalive(None);
        self.refuse(session, ctx, refusal, per_request, ecash).await?;
        drain(session, DRAINED_BYTES_MAX, DRAIN_TIME_MAX).await;
        Ok(())
    }

    /// The event that says that a stream has failed, in the shape the OpenAI SDKs raise.
    pub(super) fn error_event(&self, ctx: &Ctx, refusal: &Refusal) -> Bytes {
        self.metrics.refused(refusal.code());
        let (_, _, body) = api::render(refusal, &ctx.request_id, Dialect::Reference);
        [b"data: ", &*body, b"\n\n"].concat().into()
    }

    /// Answers with a whole body; to HEAD with the head that GET would have.
    pub(super) async fn write_whole(
        &self,
        session: &mut Session,
        status: StatusCode,
        lines: api::HeaderList,
        body: Bytes,
    ) -> pingora::Result<()> {
        let mut head = ResponseHeader::build(status, Some(lines.len().saturating_add(3)))?;
        for (name, value) in lines {
            head.append_header(name, value)?;
        }
        let request = session.req_header();
        let is_head = request.method == http::Method::HEAD;
        let (lines, body) = encoded(&request.headers, &head.headers, body).await;
        for (name, value) in lines {
            head.append_header(name, value)?;
        }
        if !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            head.insert_header(CONTENT_LENGTH, body.len())?;
        }
        session.write_response_header(Box::new(head), false).await?;
        let body = if is_head { Bytes::new() } else { body };
        session.write_response_body(Some(body), true).await
    }
}

/// What is read of a refused body before the connection closes on the rest.
const DRAINED_BYTES_MAX: usize = 64 << 20;
const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);
