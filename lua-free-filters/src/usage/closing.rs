//! What it takes to end the stream of a chat or a completion before its end, in its own words.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::json;
use crate::peek::N_MAX;

use super::dialect::Dialect;

/// What the chunks of a stream say of the whole, and which of its choices are open.
#[derive(Clone, Debug)]
pub(super) struct Closing {
    /// What a choice has that gives nothing more.
    nothing: &'static str,
    /// As written, by the places in [`NAMES`].
    head: [Option<String>; NAMES.len()],
    /// Every choice seen, and whether it is still open.
    choices: BTreeMap<u64, bool>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(default)]
    index: u64,
    #[serde(borrow)]
    finish_reason: Option<&'a RawValue>,
}

impl Closing {
    /// `None` of a dialect whose streams are not made of chunks.
    pub(super) fn of(dialect: Dialect) -> Option<Self> {
        let nothing = match dialect {
            Dialect::Chat => r#""delta":{}"#,
            Dialect::Completions => r#""text":"","logprobs":null"#,
            Dialect::Responses | Dialect::Messages | Dialect::Media => return None,
        };
        Some(Self { nothing, head: Default::default(), choices: BTreeMap::new() })
    }

    /// Reads the data of an event. One that does not pass on ends no choice.
    pub(super) fn note(&mut self, data: &str, passes: bool) {
        let mut seen = [None; NAMES.len()];
        let mut choices = "";
        let read = json::each_member(data, |name, raw| {
            match NAMES.iter().zip(&mut seen).find(|(known, _)| **known == name) {
                Some((_, seen)) => *seen = Some(raw),
                None if name == "choices" => choices = raw,
                None => {}
            }
        });
        // Some upstreams begin with a chunk that has no choices and no name either.
        let Ok(choices) = serde_json::from_str::<Vec<Choice<'_>>>(choices) else { return };
        if read.is_err() || choices.is_empty() {
            return;
        }
        for (kept, raw) in self.head.iter_mut().zip(seen) {
            if let Some(raw) = raw
                && kept.as_deref() != Some(raw)
                && raw.len() <= MEMBER_BYTES_MAX
                && !raw.contains(['\n', '\r'])
            {
                *kept = Some(raw.to_owned());
            }
        }
        for choice in choices.iter().filter(|choice| choice.index < N_MAX) {
            let open = self.choices.entry(choice.index).or_insert(true);
            *open &= !(passes && choice.finish_reason.is_some());
        }
    }

    /// A chunk that ends what is open; a stream that has said nothing has one open choice.
    pub(super) fn chunk(&self) -> Option<String> {
        let mut open: Vec<u64> =
            self.choices.iter().filter_map(|(index, open)| open.then_some(*index)).collect();
        if self.choices.is_empty() {
            open.push(0);
        }
        if open.is_empty() {
            return None;
        }
        let mut chunk = String::from("{");
        for (name, raw) in NAMES.iter().zip(&self.head) {
            if let Some(raw) = raw {
                chunk.push_str(&format!(r#""{name}":{raw},"#));
            }
        }
        let nothing = self.nothing;
        let ended = |index| format!(r#"{{"index":{index},{nothing},"finish_reason":"length"}}"#);
        let choices: Vec<String> = open.into_iter().map(ended).collect();
        chunk.push_str(&format!(r#""choices":[{}]}}"#, choices.join(",")));
        Some(chunk)
    }
}

/// The members of a chunk that are the same in all chunks of its stream.
const NAMES: [&str; 5] = ["id", "object", "created", "model", "system_fingerprint"];

/// A longer member is not repeated.
const MEMBER_BYTES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = r#""id":"c-1","object":"chat.completion.chunk","created":7,"model":"m""#;

    fn check(events: &[(&str, bool)], expected: Option<&str>) {
        let mut closing = Closing::of(Dialect::Chat).expect("a chat has chunks");
        for (choices, passes) in events {
            closing.note(&format!(r#"{{{HEAD},"choices":{choices}}}"#), *passes);
        }
        let expected = expected.map(|choices| format!(r#"{{{HEAD},"choices":[{choices}]}}"#));
        assert_eq!(closing.chunk(), expected, "{events:?}");
    }

    #[test]
    fn every_choice_that_is_open_is_ended_and_no_other() {
        const FIRST: &str = r#"{"index":0,"delta":{},"finish_reason":"length"}"#;
        const SECOND: &str = r#"{"index":1,"delta":{},"finish_reason":"length"}"#;
        let text = r#"[{"index":0,"delta":{"content":"a"},"finish_reason":null}]"#;
        let other = r#"[{"delta":{"content":"a"},"index":1}]"#;
        let stop = r#"[{"index":0,"delta":{},"finish_reason":"stop"}]"#;
        check(&[(text, true)], Some(FIRST));
        check(&[(text, false)], Some(FIRST));
        check(&[(text, true), (other, true)], Some(&format!("{FIRST},{SECOND}")));
        check(&[(text, true), (other, true), (stop, true)], Some(SECOND));
        check(&[(text, true), (stop, true)], None);
        check(&[(text, true), (stop, false)], Some(FIRST));
        check(&[(text, true), ("[]", true), ("null", true), ("[7]", true)], Some(FIRST));
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let ended = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"length"}]}"#;
        let mut closing = Closing::of(Dialect::Chat).expect("a chat has chunks");
        assert_eq!(closing.chunk().as_deref(), Some(ended));
        closing.note("[DONE]", true);
        closing.note(r#"{"id":"","model":"","choices":[]}"#, true);
        closing.note(&format!(r#"{{"id":"{}","choices":[{{}}]}}"#, "x".repeat(1100)), true);
        closing.note("{\"id\":[\n1],\"choices\":[{}]}", true);
        assert_eq!(closing.chunk().as_deref(), Some(ended));
    }

    #[test]
    fn a_completion_ends_in_its_own_words_and_other_streams_in_none() {
        let mut closing = Closing::of(Dialect::Completions).expect("a completion has chunks");
        closing.note(r#"{"id":"c","object":"text_completion","choices":[{"text":"a"}]}"#, true);
        let ended = r#"{"id":"c","object":"text_completion","choices":[{"index":0,"text":"","logprobs":null,"finish_reason":"length"}]}"#;
        assert_eq!(closing.chunk().as_deref(), Some(ended));
        for dialect in [Dialect::Responses, Dialect::Messages, Dialect::Media] {
            assert!(Closing::of(dialect).is_none(), "{dialect:?}");
        }
    }
}
