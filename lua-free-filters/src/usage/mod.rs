//! What an upstream did, as far as its answer says.
//!
//! [`EventTap`] reads it from an event stream as the bytes pass, [`DocumentTap`] from a body held
//! whole, and [`PassingTap`] from a body that is not held. How far a reading can be trusted is in
//! its type: see [`Usage`].

mod closing;
mod dialect;
mod document;
mod events;
mod items;
mod number;
mod object;
mod passing;
mod reading;
mod sift;
mod text;

pub use document::{DocumentTap, JsonAnswer, NotJson};
pub use events::{EventTap, Withheld};
pub use number::COUNT_MAX;
pub use passing::PassingTap;
pub use sift::VALUE_BYTES_MAX;

/// What was used, in every unit that a price may name. What was not counted is 0.
///
/// A tap fills in what the answer says; what only the request says (images in the prompt,
/// characters to speak) is [`crate::peek::Demand::counted`], and the caller adds the two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Input tokens, those read from a cache and those written to one included.
    pub input: u64,
    /// Part of `input`, read from a cache; with `cache_write` never more than it.
    pub cached_input: u64,
    /// Part of `input`, written to a cache.
    pub cache_write: u64,
    /// Output tokens, those of reasoning included.
    pub output: u64,
    /// Part of `output`; never more than it.
    pub reasoning: u64,
    /// Images in the prompt.
    pub input_images: u64,
    /// Images made.
    pub images: u64,
    pub web_searches: u64,
    /// Audio listened to, in milliseconds.
    pub audio_ms: u64,
    /// Characters spoken.
    pub characters: u64,
    /// What rerankers bill: one query with up to a hundred documents.
    pub search_units: u64,
    /// What the upstream says that it charges for all of this, in 10^-9 US dollars, rounded up.
    pub cost_nano_usd: Option<u64>,
}

impl Counts {
    pub const NONE: Self = Self {
        input: 0,
        cached_input: 0,
        cache_write: 0,
        output: 0,
        reasoning: 0,
        input_images: 0,
        images: 0,
        web_searches: 0,
        audio_ms: 0,
        characters: 0,
        search_units: 0,
        cost_nano_usd: None,
    };
}

/// What was seen to be delivered, for the estimate when the upstream counted nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    /// Events that gave the client something: text, a tool call, or the reason an answer ended.
    pub events: u64,
    /// Bytes of text in them: content, reasoning, refusals, transcripts and arguments of tool
    /// calls. Audio, images and vectors are not text.
    ///
    /// Counted without decoding: exact but for `\u` escapes, which may count a byte too many.
    pub text_bytes: u64,
}

/// What may be concluded about the upstream's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// The upstream reported totals, and delivered no text after them.
    Reported(Counts),
    /// Something was delivered, or an upstream was left at work, and there are no totals for all
    /// of it.
    Partial {
        delivered: Delivered,
        /// What is certain all the same. Of every unit no more than was used; an input that is not
        /// 0 is all of it, since prompts are counted before anything is delivered, and so are
        /// images made and the length of audio.
        known: Counts,
    },
    /// Nothing was delivered.
    Nothing,
}

impl Usage {
    fn of(known: Counts, is_total: bool, delivered: Delivered) -> Self {
        match is_total {
            true => Self::Reported(known),
            false if delivered == Delivered::default() => Self::Nothing,
            false => Self::Partial { delivered, known },
        }
    }
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The upstream finished its answer.
    Clean,
    /// The answer was cut off.
    Broken,
}
