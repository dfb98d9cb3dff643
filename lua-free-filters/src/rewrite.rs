//! Edits of a body that keep every byte they do not name.

use std::ops::Range;

use crate::peek::{Peeked, UsageAsk};

/// Put `with` in the place of the bytes `at`. An empty range inserts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Splice {
    pub at: Range<usize>,
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

/// Makes a stream report its usage, when it is a stream and the client did not ask itself. Other
/// members of `stream_options` stay as they are.
pub fn ask_usage(peeked: &Peeked<'_>) -> Option<Splice> {
    if !peeked.stream {
        return None;
    }
    let (at, with) = match &peeked.usage_ask {
        UsageAsk::Asked => return None,
        UsageAsk::NoOptions => {
            (peeked.end..peeked.end, r#","stream_options":{"include_usage":true}"#)
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

/// Names the model as the upstream knows it.
pub fn model_name(peeked: &Peeked<'_>, name: &str) -> Splice {
    let quoted = serde_json::Value::from(name).to_string();
    Splice { at: peeked.model_span.clone(), with: quoted.into_bytes() }
}
