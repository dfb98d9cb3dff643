//! What the upstream made for whom, to be compared with what was charged for it.

use tokio::time::Instant;

use super::{Seen, Shared};

/// One attempt at one request to a route that is sold, refused ones too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Produced {
    /// What `X-Request-Id` said; empty where there was none.
    pub request_id: String,
    /// Empty where the request did not name one, or could not be read.
    pub model: String,
    /// Nothing where not a byte was answered.
    pub status: Option<u16>,
    /// What was read to answer: tokens, or what the route is counted in without them (seconds of
    /// audio, characters to speak, search units). 0 where the answer is a refusal.
    pub input: u64,
    /// What was made and sent: tokens of text, or images. A document was made whole before its
    /// first byte was sent; of a stream this counts what came before its end.
    pub output: u64,
    /// Whether the client was sent the usage, and all of it.
    pub told_usage: bool,
    pub ended: Ended,
    /// When each event was about to be written, if the model is `-paced`; nothing otherwise.
    pub moments: Vec<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The answer was sent whole, be it a refusal.
    Complete,
    /// The upstream hung up in the middle, or before it began.
    Dropped,
    /// The client hung up first.
    ClientGone,
}

/// Fills in what is produced while it is, and lists it when it ends, however that happens.
pub(super) struct Attempt<'s> {
    pub(super) shared: &'s Shared,
    listed: bool,
    pub(super) produced: Produced,
}

impl<'s> Attempt<'s> {
    pub(super) fn new(seen: &Seen, listed: bool, shared: &'s Shared) -> Self {
        let produced = Produced {
            request_id: seen.header("x-request-id").unwrap_or_default().to_owned(),
            model: String::new(),
            status: None,
            input: 0,
            output: 0,
            told_usage: false,
            // Unless somebody says otherwise, the upstream was stopped in the middle of it.
            ended: Ended::Dropped,
            moments: Vec::new(),
        };
        Self { shared, listed, produced }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if self.listed {
            self.shared.list(self.produced.clone());
        }
    }
}
