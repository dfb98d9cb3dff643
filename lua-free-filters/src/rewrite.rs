//! Edits of a body that keep every byte they do not name.

use std::fmt;
use std::ops::Range;

use crate::json::Object;
use crate::peek::{Framing, LIMIT_FIELDS, OutputLimit, Peeked, UsageAsk};
use crate::route::Route;

/// Put `with` in the place of the bytes `at`. An empty range inserts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Splice {
    /// Offsets into the body as it was read.
    pub at: Range<usize>,
    /// What stands there afterwards.
    pub with: Vec<u8>,
}

/// Applies splices in the order of their places; insertions at one place keep the order given.
///
/// Overlapping splices, or one beyond the body, are mistakes of ours: debug builds panic,
/// release builds leave the later one out.
pub fn apply(body: &[u8], mut splices: Vec<Splice>) -> Vec<u8> {
    splices.sort_by_key(|splice| (splice.at.start, splice.at.end));
    let more: usize = splices.iter().map(|splice| splice.with.len()).sum();
    let mut edited = Vec::with_capacity(body.len() + more);
    let mut from = 0;
    for splice in splices {
        let between = body.get(from..splice.at.start);
        let (Some(between), true) = (between, body.get(splice.at.clone()).is_some()) else {
            debug_assert!(false, "splices are ordered and inside the body");
            continue;
        };
        edited.extend_from_slice(between);
        edited.extend_from_slice(&splice.with);
        from = splice.at.end;
    }
    edited.extend_from_slice(body.get(from..).unwrap_or_default());
    edited
}

/// Makes a stream report its usage, when it is a stream, its route does not tell usage anyway, and
/// the client did not ask itself. Other members of `stream_options` stay as they are.
pub fn ask_usage(peeked: &Peeked<'_>) -> Option<Splice> {
    if !peeked.stream {
        return None;
    }
    let (at, with) = match &peeked.usage_ask {
        UsageAsk::Told | UsageAsk::Asked => return None,
        UsageAsk::NoOptions => {
            let Framing::Json { end } = peeked.framing else { return None };
            (end..end, r#","stream_options":{"include_usage":true}"#)
        }
        UsageAsk::NullOptions(at) => (at.clone(), r#"{"include_usage":true}"#),
        UsageAsk::InOptions { open, is_empty: true } => {
            (open + 1..open + 1, r#""include_usage":true"#)
        }
        UsageAsk::InOptions { open, is_empty: false } => {
            (open + 1..open + 1, r#""include_usage":true,"#)
        }
        UsageAsk::Refused(at) => (at.clone(), "true"),
    };
    Some(Splice { at, with: with.into() })
}

/// Names the model as the upstream knows it: quoted in JSON, as it is in a form.
///
/// # Errors
/// In a form a line break would end the field, and what follows it would be another.
pub fn model_name(peeked: &Peeked<'_>, name: &str) -> Result<Vec<Splice>, UnfitName> {
    let at = peeked.model_span.clone();
    let model_length = match &peeked.framing {
        Framing::Json { .. } => {
            let quoted = serde_json::Value::from(name).to_string();
            return Ok(vec![Splice { at, with: quoted.into_bytes() }]);
        }
        Framing::Multipart { model_length } => model_length,
    };
    if name.chars().any(char::is_control) {
        return Err(UnfitName);
    }
    let length = |at: &Range<usize>| {
        let digits = name.len().to_string();
        Splice { at: at.clone(), with: digits.into_bytes() }
    };
    let name = Splice { at, with: name.as_bytes().to_vec() };
    Ok(model_length.iter().map(length).chain([name]).collect())
}

/// A model's name that cannot stand in a form. Names come from the configuration, so whoever
/// wrote that has to change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnfitName;

impl fmt::Display for UnfitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a model's name with control characters cannot be sent in a form")
    }
}

impl std::error::Error for UnfitName {}

/// Limits the output of one answer: every larger limit that was given becomes `limit`, and none is
/// raised. Where none was given, `field` is set to it: the name that the upstream knows.
///
/// A body that is no JSON has no such limit.
pub fn output_limit(peeked: &Peeked<'_>, limit: u64, field: &str) -> Vec<Splice> {
    let Framing::Json { end } = peeked.framing else { return Vec::new() };
    let write = |at: Range<usize>| Splice { at, with: limit.to_string().into_bytes() };
    if peeked.output_limit.is_some() {
        let is_larger = |given: &&OutputLimit| given.value.is_some_and(|value| value > limit);
        return peeked
            .limits
            .iter()
            .filter(is_larger)
            .map(|given| write(given.at.clone()))
            .collect();
    }
    vec![set_limit(peeked, limit, field, end)]
}

/// Says the limit that was given in the words of the protocol, as `field`, where it was given in
/// others only: whoever does not know those would not keep to it, and nobody would have paid for
/// what came of that.
pub fn known_limit(peeked: &Peeked<'_>, route: Route, field: &str) -> Option<Splice> {
    let Framing::Json { end } = peeked.framing else { return None };
    let limit = peeked.output_limit?;
    let is_known =
        |given: &OutputLimit| given.value.is_some() && route.limit_fields().contains(&given.field);
    let is_said = peeked.limits.iter().any(is_known);
    (!is_said).then(|| set_limit(peeked, limit, field, end))
}

/// Sets a limit that has no number yet. One that is `null` cannot be set a second time.
fn set_limit(peeked: &Peeked<'_>, limit: u64, field: &str, end: usize) -> Splice {
    if let Some(null) = peeked.limits.iter().find(|given| given.field == field) {
        return Splice { at: null.at.clone(), with: limit.to_string().into_bytes() };
    }
    let name = serde_json::Value::from(field);
    Splice { at: end..end, with: format!(",{name}:{limit}").into_bytes() }
}

/// The body without an optional parameter that an upstream does not know: a member of the JSON
/// object that it is, with every other byte kept.
///
/// `None` where there is no such member, and for what bounds or names what is paid for: such a
/// parameter is never taken out, whatever an upstream says of it.
pub fn without(body: &[u8], name: &str) -> Option<Vec<u8>> {
    if KEPT.contains(&name) || LIMIT_FIELDS.contains(&name) {
        return None;
    }
    let object = Object::read(std::str::from_utf8(body).ok()?).ok()?;
    object.last(name)?;
    Some(object.edited(|member| member == name, "").into_bytes())
}

/// Members that a request is priced by, with the output limits.
const KEPT: [&str; 23] = [
    "background",
    "best_of",
    "documents",
    "image",
    "images",
    "input",
    "instructions",
    "mask",
    "max_tool_calls",
    "messages",
    "model",
    "n",
    "previous_response_id",
    "prompt",
    "quality",
    "query",
    "service_tier",
    "size",
    "stream",
    "stream_format",
    "stream_options",
    "system",
    "tools",
];

#[cfg(test)]
mod tests;
