//! What gateways write in Lua for the path of a request, as small pure parts.
//!
//! Every part has one of three shapes: a *reader* (`&head -> Result<T, Refusal>`), an *edit*
//! (`&T -> HeaderEdits`, or splices of a body), or a *tap* (`push(chunk)`, `finish(End) -> T`).
//! Nothing here opens a socket, reads a clock, takes a lock, awaits, or knows what anything
//! costs; the caller applies what the parts decide. Everything held has a stated bound, and a
//! part that cannot read what passes says so and lets it pass.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

pub mod credential;
pub mod edits;
pub mod gzip;
mod json;
mod multipart;
pub mod peek;
pub mod ratelimit;
pub mod request_id;
pub mod rewrite;
pub mod route;
pub mod scrub;
pub mod sse;
pub mod usage;

pub use credential::{Credential, CredentialRefusal, credential};
pub use edits::{EDITS_MAX, HeaderEdits, TooManyEdits};
pub use gzip::{Coding, GZIP_BYTES_MIN, coding};
pub use peek::{
    Demand, Framing, OutputLimit, PeekRefusal, Peeked, UsageAsk, WantedType, WebSearches,
};
pub use ratelimit::{Quota, rate_limit_lines};
pub use rewrite::{Splice, UnfitName};
pub use route::{Route, billable};
pub use usage::{
    Counts, Delivered, DocumentTap, End, EventTap, JsonAnswer, NotJson, PassingTap, Usage, Withheld,
};
