//! The meter of one answer: a tap of the filters crate and what it has concluded.

use bytes::{Bytes, BytesMut};
use lua_free_filters::{
    Counts, Delivered, DocumentTap, End, EventTap, NotJson, PassingTap, Route, Usage, Withheld,
};

/// Reads usage from an answer's body as it passes, and makes the edits WIRE.md section 5 names.
#[derive(Debug)]
pub(super) enum Meter {
    /// There is nothing to meter, or nothing of it reaches the client.
    Nothing,
    /// The client left before anything reached it, and an upstream was at work. Its prompt was read
    /// by then, and nobody can say what else was made of it.
    Abandoned,
    /// An event stream; `verdict` is set when it has ended. What is withheld waits for money.
    Stream { tap: Box<EventTap>, withheld: Option<Withheld>, verdict: Option<Usage> },
    /// A JSON document, held until it is whole.
    Json { route: Route, held: BytesMut, verdict: Option<Usage> },
    /// Audio, plain text, or a document too large to hold: its bytes pass, and usage is read from
    /// them as they do.
    Passing { tap: Box<PassingTap> },
}

impl Meter {
    /// `may_be_cut`: whether the money for it may end before it does.
    pub(super) fn stream(route: Route, show_usage: bool, may_be_cut: bool) -> Self {
        let tap = EventTap::new(route, show_usage);
        let tap = if may_be_cut { tap.with_closing() } else { tap };
        Self::Stream { tap: Box::new(tap), withheld: None, verdict: None }
    }

    pub(super) fn json(route: Route) -> Self {
        Self::Json { route, held: BytesMut::new(), verdict: None }
    }

    pub(super) fn opaque(route: Route) -> Self {
        Self::Passing { tap: Box::new(PassingTap::opaque(route)) }
    }

    /// Takes one piece of the upstream's body, answers what is ready for the client.
    pub(super) fn push(
        &mut self,
        chunk: Bytes,
        annotate: &mut dyn FnMut(&Counts) -> String,
        afforded: &mut dyn FnMut(&Usage) -> bool,
    ) -> Bytes {
        match self {
            Self::Nothing | Self::Abandoned => chunk,
            Self::Stream { tap, withheld, .. } => {
                let (passed, rest) = tap.push_while(chunk, annotate, afforded);
                *withheld = rest;
                passed
            }
            Self::Json { held, .. } => {
                held.extend_from_slice(&chunk);
                Bytes::new()
            }
            Self::Passing { tap } => {
                tap.push(&chunk);
                chunk
            }
        }
    }

    /// The answer is over. Answers what was still held back and may go to the client; a
    /// document that is not JSON is given back as an error, unread.
    pub(super) fn finish(
        &mut self,
        end: End,
        annotate: &mut dyn FnMut(&Counts) -> String,
    ) -> Result<Bytes, NotJson> {
        match self {
            Self::Nothing | Self::Abandoned | Self::Passing { .. } => Ok(Bytes::new()),
            Self::Stream { tap, verdict, .. } => {
                let (rest, usage) = tap.finish(end);
                *verdict = Some(usage);
                Ok(rest)
            }
            Self::Json { route, held, verdict } => {
                let body = std::mem::take(held).freeze();
                let answer = DocumentTap::read(*route, &body)?;
                *verdict = Some(answer.usage);
                Ok(match &answer.usage {
                    Usage::Reported(counts) => {
                        DocumentTap::annotate(&body, &answer, &annotate(counts)).into()
                    }
                    Usage::Partial { .. } | Usage::Nothing => body,
                })
            }
        }
    }

    /// What of the last piece is not paid for yet: to be pushed again when it is.
    pub(super) fn take_withheld(&mut self) -> Option<Withheld> {
        match self {
            Self::Stream { withheld, .. } => withheld.take(),
            Self::Nothing | Self::Abandoned | Self::Json { .. } | Self::Passing { .. } => None,
        }
    }

    /// The event that ends a stream before its end, if anything of it is open.
    pub(super) fn closing(&self) -> Option<String> {
        match self {
            Self::Stream { tap, .. } => tap.closing(),
            Self::Nothing | Self::Abandoned | Self::Json { .. } | Self::Passing { .. } => None,
        }
    }

    /// Bytes held back, for the bound on what an exchange may hold.
    pub(super) fn held(&self) -> usize {
        match self {
            Self::Json { held, .. } => held.len(),
            Self::Nothing | Self::Abandoned | Self::Stream { .. } | Self::Passing { .. } => 0,
        }
    }

    /// Gives up holding: what was held goes out and the rest passes, read as it does.
    pub(super) fn overflow(&mut self) -> Bytes {
        let Self::Json { route, held, .. } = self else { return Bytes::new() };
        let body = std::mem::take(held).freeze();
        let mut tap = Box::new(PassingTap::json(*route));
        tap.push(&body);
        *self = Self::Passing { tap };
        body
    }

    /// An event stream said that it is complete.
    pub(super) fn done(&self) -> bool {
        matches!(self, Self::Stream { tap, .. } if tap.done())
    }

    /// What the upstream did, as far as it was delivered.
    pub(super) fn usage(&self) -> Usage {
        match self {
            Self::Stream { verdict: Some(usage), .. } | Self::Json { verdict: Some(usage), .. } => {
                *usage
            }
            Self::Nothing | Self::Json { verdict: None, .. } => Usage::Nothing,
            Self::Abandoned => {
                Usage::Partial { delivered: Delivered::default(), known: Counts::NONE }
            }
            Self::Stream { tap, verdict: None, .. } => tap.usage(),
            Self::Passing { tap } => tap.usage(),
        }
    }
}
