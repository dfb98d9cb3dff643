//! The usage of a chat completion that is one JSON body.

use std::fmt;
use std::ops::Range;

use crate::json;
use crate::rewrite::{self, Splice};

use super::object;
use super::text;
use super::{Delivered, Tokens};

/// Reads and annotates an answer that the caller holds whole. The caller bounds it.
#[derive(Clone, Copy, Debug)]
pub struct ChatJson;

/// What an answer says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonAnswer {
    /// The counts of the top-level usage object. A `usage` anywhere else is somebody's text.
    pub usage: Option<Tokens>,
    /// Where that object stands, also when its counts make no sense.
    pub usage_span: Option<Range<usize>>,
    pub delivered: Delivered,
    /// Whether there is a top-level `error` that is not null.
    pub errored: bool,
}

/// The body is not one JSON object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotJson;

impl ChatJson {
    pub fn read(body: &[u8]) -> Result<JsonAnswer, NotJson> {
        let text = std::str::from_utf8(body).map_err(|_| NotJson)?;
        let mut usage = None;
        let mut errored = false;
        json::each_member(text, |name, raw| match name.as_ref() {
            "usage" => usage = Some(raw),
            "error" => errored = raw != "null",
            _ => {}
        })
        .map_err(|_| NotJson)?;
        let usage = usage.filter(|raw| raw.starts_with('{'));
        let seen = text::look(text);
        Ok(JsonAnswer {
            usage: usage.and_then(object::tokens),
            usage_span: usage.map(|raw| json::span_in(text, raw)),
            delivered: Delivered {
                events: u64::from(seen.delivers()),
                text_bytes: seen.text_bytes,
            },
            errored,
        })
    }

    /// The body with `members` (JSON members as text, `"a":1,"b":2`) in its usage object, in the
    /// place of any of the same names; every other byte stays. Without a usage object, or with
    /// members that are not JSON, the body as it is.
    pub fn annotate(body: &[u8], answer: &JsonAnswer, members: &str) -> Vec<u8> {
        let annotated = answer.usage_span.clone().and_then(|at| {
            let usage = std::str::from_utf8(body.get(at.clone())?).ok()?;
            let with = object::annotate(usage, members)?.into_bytes();
            Some(rewrite::apply(body, vec![Splice { at, with }]))
        });
        annotated.unwrap_or_else(|| body.to_vec())
    }
}

impl fmt::Display for NotJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the answer is not a JSON object")
    }
}

impl std::error::Error for NotJson {}
