//! Billable requests with an `Idempotency-Key`: the answer is kept before it is charged, so that
//! whatever was charged can be given again; and given again when the ledger says that it was.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use lua_free_filters::Route;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::Session;

use super::Edge;
use super::context::Ctx;
use super::exchange::cost_headers;
use super::payer::Payer;
use crate::api;
use crate::crash::{self, Step};
use crate::error::Refusal;
use crate::ids::{ApiKey, AttemptId};
use crate::ledger::Ledger;
use crate::ledger::once::Keep;
use crate::once::{self, IDEMPOTENCY_REPLAYED, Kept, Keyed};
use crate::till::CashuToken;

/// The execution of a request whose answer is to be kept. A stream is not: whoever wants it again
/// pays again.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) keyed: Keyed,
    pub(super) id: AttemptId,
}

/// Reads the idempotency key of a request, if it names one.
pub(super) fn keyed(
    head: &RequestHeader,
    route: Route,
    key: &ApiKey,
    body: &[u8],
) -> Result<Option<Keyed>, Refusal> {
    let Some(value) = once::value_of(&head.headers)? else { return Ok(None) };
    let asks = ["POST", route.upstream_path()];
    Ok(Some(Keyed::new(key, value, &once::fingerprint(&asks, &head.headers, body))))
}

impl<L: Ledger> Edge<L> {
    /// Keeps an answer that is whole and not yet charged. Where it cannot be kept it is sold all
    /// the same, and a repetition is told that.
    pub(super) async fn keep(&self, ctx: &Ctx, head: &ResponseHeader, body: &Bytes) {
        let Some(Attempt { keyed, id }) = &ctx.attempt else { return };
        let verdict = ctx.ticket().and_then(|ticket| ticket.verdict(&ctx.meter.usage()));
        let bounds = self.config.idempotency;
        if verdict.is_none() || body.len() > bounds.answer_bytes_max {
            return;
        }
        let content_type = head.headers.get(CONTENT_TYPE).cloned();
        let lines = content_type.map(|value| (CONTENT_TYPE, value)).into_iter();
        let headers = lines.chain(ctx.added.iter().cloned()).chain(cost_headers(verdict)).collect();
        let status = head.status.as_u16();
        let kept = Kept::Answer { status, headers, body: body.clone() };
        let Some(answer) = keyed.seal(&kept) else { return };
        let keep = Keep {
            account: keyed.account.clone(),
            once: keyed.once.id.clone(),
            attempt: id.clone(),
            answer,
            bytes_max: bounds.account_bytes_max,
        };
        if let Err(why) = self.till.ledger().keep(keep).await {
            log::warn!("request {}: its answer is not kept: {why}", ctx.request_id);
        }
        crash::point(Step::AnswerKept);
    }

    /// Answers a request that was served and charged before.
    pub(super) async fn replay(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
        payer: &Payer,
    ) -> pingora::Result<()> {
        let kept = match &payer.keyed {
            None => Ok(None),
            Some(keyed) => {
                let kept = self.till.ledger().kept(keyed.account.clone(), keyed.once.id.clone());
                kept.await.map(|kept| kept.and_then(|sealed| keyed.open(&sealed)))
            }
        };
        let Ok(kept) = kept else {
            let refusal = Refusal::ledger_unavailable();
            return self.refuse(session, ctx, &refusal, payer.per_request, None).await;
        };
        let change = match payer.per_request {
            true => self.refund(payer.account.clone()).await,
            false => None,
        };
        let Some(Kept::Answer { status, headers, body }) = kept else {
            // Whoever asks for the same is told the same.
            let refusal = once::not_replayable();
            return self.refuse(session, ctx, &refusal, true, change.as_ref()).await;
        };
        ctx.log.ended = "replayed";
        let lines = headers
            .into_iter()
            .chain(api::request_id_headers(&ctx.request_id))
            .chain(api::cors_headers(&self.config.origins, &session.req_header().headers))
            .chain(ctx.rate_limit_lines())
            .chain([(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"))])
            .chain(change.iter().flat_map(|change| self.change_lines(change)))
            .collect();
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
        self.write_whole(session, status, lines, body).await
    }

    pub(super) fn change_lines(&self, change: &CashuToken) -> api::HeaderList {
        api::cashu_headers(change.reveal(), self.config.refunds_alias)
    }
}
