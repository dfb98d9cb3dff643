//! One usage object: reading it, and adding to it.

use crate::json::{self, Object};

use super::Tokens;

/// Reads the counts of a usage object.
///
/// `prompt_tokens` and `completion_tokens` are wanted, or `input_tokens` and `output_tokens`; a
/// null is as if it were absent. Whole numbers written as floats are accepted. Anything else, and
/// a usage of nothing at all, is not usage: some upstreams send zeros until they know better, and
/// zeros must never be taken for a free answer. More cached input than input is capped to it.
pub(super) fn tokens(raw: &str) -> Option<Tokens> {
    let mut prompt = Count::Absent;
    let mut completion = Count::Absent;
    let mut input = Count::Absent;
    let mut output = Count::Absent;
    let mut details = None;
    json::each_member(raw, |name, value| match name.as_ref() {
        "prompt_tokens" => prompt = count(value),
        "completion_tokens" => completion = count(value),
        "input_tokens" => input = count(value),
        "output_tokens" => output = count(value),
        "prompt_tokens_details" => details = Some(value),
        "input_tokens_details" if details.is_none() => details = Some(value),
        _ => {}
    })
    .ok()?;
    let input = prompt.or(input).read()?;
    let output = completion.or(output).read()?;
    let cached = details.and_then(cached_tokens).unwrap_or(0);
    (input > 0 || output > 0).then(|| Tokens { input, cached_input: cached.min(input), output })
}

/// The usage object with these members after its own, in the place of any of the same names.
/// `None` when either is not what it should be, and nothing is to be changed.
pub(super) fn annotate(usage: &str, members: &str) -> Option<String> {
    // No line break can stand inside a JSON string, so these are white space; an event stream
    // would take them for the end of the data.
    let members = members.replace(['\n', '\r'], " ");
    let wrapped = format!("{{{members}}}");
    let ours = Object::read(&wrapped).ok()?;
    if ours.members.is_empty() {
        return None;
    }
    let theirs = Object::read(usage).ok()?;
    Some(theirs.edited(|name| ours.last(name).is_some(), &members))
}

#[derive(Clone, Copy)]
enum Count {
    Absent,
    Nonsense,
    Of(u64),
}

impl Count {
    fn or(self, other: Self) -> Self {
        match self {
            Self::Absent => other,
            Self::Nonsense | Self::Of(_) => self,
        }
    }

    fn read(self) -> Option<u64> {
        match self {
            Self::Of(count) => Some(count),
            Self::Absent | Self::Nonsense => None,
        }
    }
}

fn cached_tokens(details: &str) -> Option<u64> {
    let mut cached = Count::Absent;
    json::each_member(details, |name, value| {
        if name == "cached_tokens" {
            cached = count(value);
        }
    })
    .ok()?;
    cached.read()
}

fn count(raw: &str) -> Count {
    if raw == "null" {
        return Count::Absent;
    }
    if let Ok(count) = raw.parse::<u64>() {
        return if count <= TOKENS_MAX { Count::Of(count) } else { Count::Nonsense };
    }
    match serde_json::from_str::<f64>(raw) {
        Ok(float) if float.fract() == 0.0 && (0.0..=TOKENS_MAX as f64).contains(&float) => {
            Count::Of(float as u64)
        }
        _ => Count::Nonsense,
    }
}

/// Larger counts are nonsense. Up to here a float holds every whole number exactly.
pub const TOKENS_MAX: u64 = (1 << 53) - 1;
