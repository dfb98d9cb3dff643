//! The usage of an answer that is one JSON body.

use std::fmt;
use std::ops::Range;

use serde::de::IgnoredAny;

use crate::json::{self, Object};
use crate::rewrite::{self, Splice};
use crate::route::Route;

use super::dialect::{self, Dialect};
use super::items::{self, Made};
use super::object::{self, Figures};
use super::text::{self, Value};
use super::{Counts, Delivered, Usage};

/// Reads and annotates an answer that the caller holds whole. The caller bounds it.
#[derive(Clone, Copy, Debug)]
pub struct DocumentTap;

/// What an answer says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonAnswer {
    /// By the top-level usage object, or what a reranker has in its place. A `usage` anywhere
    /// else is somebody's text.
    pub usage: Usage,
    /// Where the usage object stands, also when its counts make no sense.
    pub usage_span: Option<Range<usize>>,
    pub delivered: Delivered,
    /// Whether there is a top-level `error` that is not null.
    pub errored: bool,
}

/// The body is not one JSON object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotJson;

impl DocumentTap {
    pub fn read(route: Route, body: &[u8]) -> Result<JsonAnswer, NotJson> {
        let text = std::str::from_utf8(body).map_err(|_| NotJson)?;
        let object = Object::read(text).map_err(|_| NotJson)?;
        let (counts, is_total) = counts(route, &object);
        let errored = object.last("error").is_some_and(|error| error.raw != "null");
        let delivered = match route {
            Route::Speech if errored => Delivered::default(),
            _ => delivered(route, &object, text),
        };
        Ok(JsonAnswer {
            usage: Usage::of(counts, is_total, delivered),
            usage_span: usage_object(&object).map(|raw| json::span_in(text, raw)),
            delivered,
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

/// What an answer's own figures count, and whether that is all of it.
pub(super) fn counts(route: Route, answer: &Object<'_>) -> (Counts, bool) {
    let figures = usage_object(answer).and_then(Figures::read).unwrap_or_default();
    let counted = figures.counts(route);
    let mut counts = counted.unwrap_or_else(|| figures.known(route));
    let mut is_total = counted.is_some();
    match route {
        Route::Responses => {
            let Made { images, web_searches } = items::of_response(answer);
            counts.images = images;
            counts.web_searches = counts.web_searches.max(web_searches);
        }
        _ if makes_images(route) => counts.images = entries(answer, "data"),
        Route::Transcriptions | Route::Translations if counts.audio_ms == 0 => {
            let told = answer.last("duration").and_then(|told| object::duration_ms(told.raw));
            counts.audio_ms = told.unwrap_or(0);
        }
        Route::Rerank => {
            let (search_units, input) = billed(answer);
            counts.search_units = search_units;
            counts.input = counts.input.max(input);
            is_total |= search_units > 0 || input > 0;
        }
        _ => {}
    }
    (counts, is_total)
}

pub(super) const fn makes_images(route: Route) -> bool {
    matches!(route, Route::ImageGenerations | Route::ImageEdits)
}

fn usage_object<'a>(answer: &Object<'a>) -> Option<&'a str> {
    answer.last("usage").map(|usage| usage.raw).filter(|raw| raw.starts_with('{'))
}

/// Search units and input, as Cohere tells them.
fn billed(answer: &Object<'_>) -> (u64, u64) {
    let meta = answer.last("meta").and_then(|meta| Object::read(meta.raw).ok());
    let told = |place: &str, name: &str| {
        let told = meta.as_ref().and_then(|meta| meta.last(place));
        told.and_then(|told| object::number_in(told.raw, name)).unwrap_or(0)
    };
    (told("billed_units", "search_units"), told("tokens", "input_tokens"))
}

/// What the client is given: text where the answer is made of it, else one thing if it is any.
fn delivered(route: Route, answer: &Object<'_>, text: &str) -> Delivered {
    let (is_any, text_bytes) = match route {
        Route::ChatCompletions | Route::Completions => {
            let seen = dialect::look(Dialect::of(route), text);
            (seen.delivers(), seen.text_bytes)
        }
        Route::Responses => text_in(text, &[b"text", b"refusal", b"arguments", b"input"]),
        Route::Messages => text_in(text, &[b"text", b"thinking"]),
        Route::Transcriptions | Route::Translations => {
            let said = answer.last("text");
            let text_bytes =
                said.and_then(|said| json::string(said.raw)).map_or(0, |said| said.len());
            (said.is_some(), text_bytes as u64)
        }
        Route::Embeddings | Route::ImageGenerations | Route::ImageEdits => {
            (entries(answer, "data") > 0, 0)
        }
        Route::Moderations | Route::Rerank => {
            (entries(answer, "results") + entries(answer, "data") > 0, 0)
        }
        // Audio as JSON, of whatever shape.
        Route::Speech => (!answer.members.is_empty(), 0),
    };
    Delivered { events: u64::from(is_any), text_bytes }
}

/// Text under these names, and whether there is any, or a tool call, or a reason to end.
fn text_in(json: &str, names: &[&[u8]]) -> (bool, u64) {
    let (mut is_any, mut text_bytes) = (false, 0);
    text::each_member(json, |depth, name, value| match (depth, name, value) {
        (1, b"stop_reason", Value::Text(_)) => is_any = true,
        (1, b"status", Value::Text(b"completed" | b"incomplete")) => is_any = true,
        (3, b"type", Value::Text(kind)) => {
            is_any |= kind.ends_with(b"_call") || kind.ends_with(b"tool_use");
        }
        // Settings of the request stand higher.
        (3.., name, _) if names.contains(&name) => text_bytes += value.text_bytes(),
        _ => {}
    });
    (is_any || text_bytes > 0, text_bytes)
}

/// How many entries a list has.
fn entries(answer: &Object<'_>, name: &str) -> u64 {
    let list = answer.last(name).map_or("[]", |list| list.raw);
    serde_json::from_str::<Vec<IgnoredAny>>(list).map_or(0, |list| list.len() as u64)
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
        let counts = Counts { input: 2, output: 2, ..Counts::NONE };
        assert_eq!(answer.usage, Usage::Reported(counts));
        assert!(DocumentTap::annotate(body, &answer, r#""cost":1"#).ends_with(br#":2,"cost":1}}"#));
    }

    #[test]
    fn a_body_without_usage_is_returned_as_it_is() {
        for body in [r#"{"usage":null}"#, r#"{"usage":[1]}"#, r#"{"choices":[{"usage":{"a":1}}]}"#]
        {
            let answer =
                DocumentTap::read(Route::ChatCompletions, body.as_bytes()).expect("an object");
            assert_eq!((answer.usage, &answer.usage_span), (Usage::Nothing, &None), "{body}");
            let annotated = DocumentTap::annotate(body.as_bytes(), &answer, r#""cost":1"#);
            assert_eq!(annotated, body.as_bytes());
        }
    }

    #[test]
    fn a_usage_that_makes_no_sense_can_still_be_annotated() {
        let body = br#"{"usage":{"prompt_tokens":"?"}}"#;
        let answer = DocumentTap::read(Route::ChatCompletions, body).expect("an object");
        assert_eq!(answer.usage, Usage::Nothing);
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
            let counts = Counts { input, output, ..Counts::NONE };
            prop_assert_eq!(answer.usage, Usage::Reported(counts));
            prop_assert_eq!(answer.delivered.text_bytes, text.len() as u64);
            let annotated = DocumentTap::annotate(body.as_bytes(), &answer, r#""msat":1"#);
            let again = DocumentTap::read(Route::ChatCompletions, &annotated).expect("an object");
            prop_assert_eq!(again.usage, answer.usage);
            prop_assert_eq!(annotated.len(), body.len() + r#","msat":1"#.len());
        }

        #[test]
        fn no_bytes_make_it_panic(body in any::<Vec<u8>>()) {
            let begins_one = body.trim_ascii().starts_with(b"{");
            prop_assert!(begins_one || DocumentTap::read(Route::ChatCompletions, &body).is_err());
        }
    }
}
