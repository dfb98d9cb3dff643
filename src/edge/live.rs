//! Live streams paid by `X-Cashu`: events flow as they arrive, and the change follows the last one.
//!
//! The change is told in up to two ways, and can be claimed in any case: as a comment of the event
//! stream, which every client skips that does not look for it, and as a trailer. Whoever did not
//! ask for a live stream has its answer held until the change stands in the head.

use std::time::Duration;

use bytes::Bytes;
use http::header::{TE, TRAILER};
use http::{HeaderMap, HeaderValue, Version};
use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use pingora::{Error, ErrorType};

use super::Edge;
use super::context::Ctx;
use super::meter::Meter;
use super::trailers;
use crate::api;
use crate::crash::{self, Step};
use crate::ledger::Ledger;
use crate::till::CashuToken;

/// Whether a stream that is paid by `X-Cashu` is to flow. `X-Cashu-Stream` decides; without it,
/// whoever takes trailers is told its change there.
pub(super) fn asks(headers: &HeaderMap) -> bool {
    match headers.get("x-cashu-stream") {
        Some(said) => said.as_bytes().trim_ascii().eq_ignore_ascii_case(b"live"),
        None => accepts_trailers(headers),
    }
}

/// `TE: trailers`, also among others (RFC 9110 section 10.1.4).
fn accepts_trailers(headers: &HeaderMap) -> bool {
    let codings = headers.get_all(TE).into_iter();
    codings
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// Whether the change of a live stream may be a trailer. On HTTP/2 every client takes one, or
/// passes it over; on HTTP/1.1 that is for the client to say.
fn takes_trailers(session: &Session) -> bool {
    let head = session.req_header();
    match head.version {
        Version::HTTP_2 => true,
        Version::HTTP_11 => accepts_trailers(&head.headers),
        _ => false,
    }
}

impl Ctx {
    /// Whether this answer's change follows its last event.
    pub(super) fn is_live(&self) -> bool {
        matches!(self.meter, Meter::Stream { .. })
            && self.ticket().is_some_and(|ticket| ticket.order.live)
    }
}

impl<L: Ledger> Edge<L> {
    /// Says in the head of a live stream which trailers may follow.
    pub(super) fn announce(
        &self,
        session: &Session,
        head: &mut ResponseHeader,
    ) -> pingora::Result<()> {
        if !takes_trailers(session) {
            return Ok(());
        }
        let names = if self.config.refunds_alias { "x-cashu, x-cashu-refund" } else { "x-cashu" };
        head.insert_header(TRAILER, HeaderValue::from_static(names))
    }

    /// Ends a live stream: the last events leave at once, beside the settle; then the change, if
    /// it can be composed within [`CHANGE_TIME_MAX`]; then the end. A stream that broke off gets
    /// its change and no end.
    pub(super) async fn end_live(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
        last: Bytes,
        is_whole: bool,
    ) -> pingora::Result<()> {
        let written = self.write_end(session, ctx, closed_event(last), is_whole).await;
        crash::point(Step::Delivered);
        // Some clients leave when they have read `[DONE]`: nothing is wrong, and change is claimed.
        written.or_else(|_| {
            ctx.log.ended = "client gone";
            Error::e_explain(ErrorType::ConnectionClosed, "the client left before its change")
        })
    }

    async fn write_end(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
        last: Bytes,
        is_whole: bool,
    ) -> pingora::Result<()> {
        let mut ending = std::pin::pin!(async {
            let closed = self.close(ctx).await;
            self.change(closed).await
        });
        let in_time = tokio::time::timeout(CHANGE_TIME_MAX, &mut ending);
        let (in_time, sent) = tokio::join!(in_time, send_all(session, last));
        match in_time {
            Ok(change) => {
                sent?;
                self.tell_change(session, change.as_ref(), is_whole).await
            }
            Err(_) => {
                log::warn!("the change of a live stream is late and left to be claimed");
                let tell = async {
                    sent?;
                    self.tell_change(session, None, is_whole).await
                };
                // The reservation ends all the same, and change on its way becomes what is claimed.
                tokio::join!(ending, tell).1
            }
        }
    }

    async fn tell_change(
        &self,
        session: &mut Session,
        change: Option<&CashuToken>,
        is_whole: bool,
    ) -> pingora::Result<()> {
        // None also when it is too long for a header: whoever reads comments may hold the line in
        // a buffer just as large.
        let lines =
            change.map(|ecash| api::cashu_headers(ecash.reveal(), self.config.refunds_alias));
        let lines = lines.unwrap_or_default();
        if let (Some(ecash), false) = (change, lines.is_empty()) {
            send_all(session, format!(": x-cashu {}\n\n", ecash.reveal()).into()).await?;
        }
        match is_whole {
            true if !lines.is_empty() && takes_trailers(session) => {
                trailers::end_with(session, lines).await
            }
            true => session.write_response_body(None, true).await,
            false => Ok(()),
        }
    }
}

async fn send_all(session: &mut Session, bytes: Bytes) -> pingora::Result<()> {
    match bytes.is_empty() {
        true => Ok(()),
        false => session.write_response_body(Some(bytes), false).await,
    }
}

/// An upstream may end its last event without the empty line: nothing may be taken for a part of
/// that event.
fn closed_event(last: Bytes) -> Bytes {
    let is_closed = [&b"\n\n"[..], b"\r\n\r\n", b"\r\r"].iter().any(|end| last.ends_with(end));
    match last.is_empty() || is_closed {
        true => last,
        false => [&*last, b"\n\n"].concat().into(),
    }
}

/// How long the end of a stream waits for its change. That is there within milliseconds, or the
/// ledger or the mint has to be waited for: then it is claimed.
const CHANGE_TIME_MAX: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    #[test]
    fn a_stream_is_live_when_that_is_what_was_said() {
        let check = |lines: &[(&'static str, &'static str)], expected: bool| {
            let line = |(name, value): &(&'static str, &'static str)| {
                (HeaderName::from_static(name), HeaderValue::from_static(value))
            };
            let headers: HeaderMap = lines.iter().map(line).collect();
            assert_eq!(asks(&headers), expected, "{lines:?}");
        };
        check(&[], false);
        check(&[("x-cashu-stream", "live")], true);
        check(&[("x-cashu-stream", " LIVE ")], true);
        check(&[("x-cashu-stream", "held")], false);
        check(&[("x-cashu-stream", "alive")], false);
        check(&[("te", "trailers")], true);
        check(&[("te", "gzip;q=0.5, Trailers")], true);
        check(&[("te", "gzip"), ("te", "trailers")], true);
        check(&[("te", "gzip")], false);
        check(&[("te", "trailers"), ("x-cashu-stream", "held")], false);
    }

    #[test]
    fn what_follows_the_last_event_is_never_a_part_of_it() {
        for (last, expected) in [
            ("", ""),
            ("data: a\n\n", "data: a\n\n"),
            ("data: a\r\n\r\n", "data: a\r\n\r\n"),
            ("data: a", "data: a\n\n"),
            ("data: a\n", "data: a\n\n\n"),
        ] {
            assert_eq!(closed_event(Bytes::from_static(last.as_bytes())), expected);
        }
    }
}
