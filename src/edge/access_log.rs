//! The access log: one line per request, with everything that its bill was made of.

use pingora::Error;
use pingora::proxy::Session;

use super::context::Ctx;
use crate::api;
use crate::money::Msat;

/// Writes the line of a request that has ended.
pub(super) fn line(session: &Session, error: Option<&Error>, ctx: &Ctx) {
    if !log::log_enabled!(target: TARGET, log::Level::Info) {
        return;
    }
    let head = session.req_header();
    let status = session.response_written().map_or(0, |response| response.status.as_u16());
    let log = &ctx.log;
    let (input, output, source) = log.verdict.map_or((0, 0, "-"), |verdict| {
        (verdict.counts.input, verdict.counts.output, verdict.source.name())
    });
    log::info!(
        target: TARGET,
        "id={} method={} path={} status={status} model={:?} upstream={} input_tokens={input} \
         output_tokens={output} usage_source={source} reserved_msat={} cost_msat={} \
         shortfall_msat={} ended={:?} error={} duration_ms={}",
        ctx.request_id,
        head.method,
        api::loggable_path(head.uri.path()),
        log.model,
        ctx.candidate.as_ref().map_or("-", |upstream| upstream.name.as_str()),
        log.reserved.get(),
        log.receipt.map_or(Msat::ZERO, |receipt| receipt.spent).get(),
        log.receipt.map_or(Msat::ZERO, |receipt| receipt.shortfall).get(),
        log.ended,
        error.map_or("-", |error| error.etype().as_str()),
        ctx.started.elapsed().as_millis(),
    );
}

const TARGET: &str = "nutgate::access";
