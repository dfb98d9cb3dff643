//! The usage of a chat completion that is one JSON body.

use std::fmt;
use std::ops::Range;

use crate::json;
use crate::rewrite::{self, Splice};
use crate::route::Route;

use super::object;
use super::text;
use super::{Counts, Delivered};

/// Reads and annotates an answer that the caller holds whole. The caller bounds it.
#[derive(Clone, Copy, Debug)]
pub struct DocumentTap;

/// What an answer says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonAnswer {
    /// The counts of the top-level usage object. A `usage` anywhere else is somebody's text.
    pub usage: Option<Counts>,
    /// Where that object stands, also when its counts make no sense.
    pub usage_span: Option<Range<usize>>,
    pub delivered: Delivered,
    /// Whether there is a top-level `error` that is not null.
    pub errored: bool,
}

/// The body is not one JSON object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotJson;

impl DocumentTap {
    pub fn read(_route: Route, body: &[u8]) -> Result<JsonAnswer, NotJson> {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_one_object_is_an_answer() {
        for body in ["", "null", "1", "[]", r#"[{"usage":{}}]"#, "{", "{}{}", "<html>", "{}x"] {
            assert_eq!(
                DocumentTap::read(Route::ChatCompletions, body.as_bytes()),
                Err(NotJson),
                "{body}"
            );
        }
        assert_eq!(DocumentTap::read(Route::ChatCompletions, b"{\"a\":\"\xff\"}"), Err(NotJson));
        assert!(DocumentTap::read(Route::ChatCompletions, b" {} ").is_ok());
    }

    #[test]
    fn the_last_of_two_usages_counts_as_it_does_for_clients() {
        let body = br#"{"usage":{"prompt_tokens":1,"completion_tokens":1},"usage":{"prompt_tokens":2,"completion_tokens":2}}"#;
        let answer = DocumentTap::read(Route::ChatCompletions, body).expect("an object");
        assert_eq!(answer.usage, Some(Counts { input: 2, output: 2, ..Counts::NONE }));
        assert!(DocumentTap::annotate(body, &answer, r#""cost":1"#).ends_with(br#":2,"cost":1}}"#));
    }

    #[test]
    fn a_body_without_usage_is_returned_as_it_is() {
        for body in [r#"{"usage":null}"#, r#"{"usage":[1]}"#, r#"{"choices":[{"usage":{"a":1}}]}"#]
        {
            let answer =
                DocumentTap::read(Route::ChatCompletions, body.as_bytes()).expect("an object");
            assert_eq!((answer.usage, answer.usage_span.clone()), (None, None), "{body}");
            let annotated = DocumentTap::annotate(body.as_bytes(), &answer, r#""cost":1"#);
            assert_eq!(annotated, body.as_bytes());
        }
    }

    #[test]
    fn a_usage_that_makes_no_sense_can_still_be_annotated() {
        let body = br#"{"usage":{"prompt_tokens":"?"}}"#;
        let answer = DocumentTap::read(Route::ChatCompletions, body).expect("an object");
        assert_eq!(answer.usage, None);
        let annotated = DocumentTap::annotate(body, &answer, r#""cost":1"#);
        assert_eq!(annotated, br#"{"usage":{"prompt_tokens":"?","cost":1}}"#);
    }

    proptest! {
        #[test]
        fn whatever_the_text_the_usage_is_that_of_the_top_level(
            text in any::<String>(),
            input in 1..1000u64,
            output in 0..1000u64,
            usage_first in any::<bool>(),
        ) {
            let usage = format!(r#""usage":{{"prompt_tokens":{input},"completion_tokens":{output}}}"#);
            let choices = serde_json::json!([{"message": {"content": text}, "usage": {"x": 1}}]);
            let choices = format!(r#""choices":{choices}"#);
            let body = match usage_first {
                true => format!("{{{usage},{choices}}}"),
                false => format!("{{{choices},{usage}}}"),
            };
            let answer = DocumentTap::read(Route::ChatCompletions, body.as_bytes()).expect("an object");
            prop_assert_eq!(answer.usage, Some(Counts { input, output, ..Counts::NONE }));
            prop_assert_eq!(answer.delivered.text_bytes, text.len() as u64);
            let annotated = DocumentTap::annotate(body.as_bytes(), &answer, r#""cost":1"#);
            let again = DocumentTap::read(Route::ChatCompletions, &annotated).expect("an object");
            prop_assert_eq!(again.usage, answer.usage);
            prop_assert_eq!(annotated.len(), body.len() + r#","cost":1"#.len());
        }

        #[test]
        fn no_bytes_make_it_panic(body in any::<Vec<u8>>()) {
            let begins_one = body.trim_ascii().starts_with(b"{");
            prop_assert!(begins_one || DocumentTap::read(Route::ChatCompletions, &body).is_err());
        }
    }
}
