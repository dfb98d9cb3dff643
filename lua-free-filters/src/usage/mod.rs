//! What an upstream did, as far as its answer says.
//!
//! [`ChatStream`] reads it from an event stream as the bytes pass, [`ChatJson`] from a body held
//! whole. How far a reading can be trusted is in its type: see [`Usage`].

mod chat_json;
mod chat_stream;
mod closing;
mod object;
mod text;

pub use chat_json::{ChatJson, JsonAnswer, NotJson};
pub use chat_stream::{ChatStream, Withheld};
pub use object::TOKENS_MAX;

/// What the upstream counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tokens {
    pub input: u64,
    /// Part of `input`; never more than it.
    pub cached_input: u64,
    pub output: u64,
}

/// What was seen to be delivered, for the estimate when the upstream counted nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    /// Events that gave the client something: text, a tool call, or the reason an answer ended.
    pub events: u64,
    /// Bytes of text in them: content, reasoning, refusals and arguments of tool calls.
    ///
    /// Counted without decoding: exact but for `\u` escapes, which may count a byte too many.
    pub text_bytes: u64,
}

/// What may be concluded about the upstream's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// The upstream reported totals, and delivered no text after them.
    Reported(Tokens),
    /// Something was delivered, and there are no totals for all of it.
    Partial(Delivered),
    /// Nothing was delivered.
    Nothing,
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The upstream finished its answer.
    Clean,
    /// The answer was cut off.
    Broken,
}
