//! How much text is in a piece of JSON, and what else is worth a closer look.
//!
//! One pass over the strings, nothing decoded and nothing kept. An unescaped quote opens or
//! closes a string, so text that merely looks like JSON is never taken for it.

use memchr::{memchr, memchr2};

/// What one event, or one body, holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) text_bytes: u64,
    /// A tool call, or the reason why an answer ended (other than an error).
    pub(super) progress: bool,
    /// A member called `usage` somewhere that is not null.
    pub(super) usage: bool,
    /// A member called `usage` somewhere that is null.
    pub(super) null_usage: bool,
    /// A member called `error` somewhere that is not null.
    pub(super) error: bool,
}

impl Seen {
    /// Whether the client was given something.
    pub(super) fn delivers(&self) -> bool {
        self.text_bytes > 0 || self.progress
    }
}

/// Looks through JSON. What is not JSON gives some answer, and never a panic.
pub(super) fn look(json: &str) -> Seen {
    let mut seen = Seen::default();
    let mut reasoning = 0;
    let mut reasoning_content = 0;
    let mut rest = json.as_bytes();
    while let Some((name, after)) = next_string(rest) {
        rest = after;
        let [b':', after @ ..] = after.trim_ascii_start() else { continue };
        let value = after.trim_ascii_start();
        rest = value;
        match name {
            b"usage" if value.starts_with(b"null") => seen.null_usage = true,
            b"usage" => seen.usage = true,
            b"error" => seen.error |= !value.starts_with(b"null"),
            b"tool_calls" => seen.progress |= value.starts_with(b"["),
            b"finish_reason" => {
                seen.progress |= value.starts_with(b"\"") && !value.starts_with(b"\"error\"");
            }
            b"content" | b"refusal" | b"arguments" => seen.text_bytes += string_bytes(value),
            b"reasoning" => reasoning += string_bytes(value),
            b"reasoning_content" => reasoning_content += string_bytes(value),
            _ => {}
        }
    }
    // Some upstreams send the same reasoning under both names.
    seen.text_bytes += reasoning.max(reasoning_content);
    seen
}

/// The next whole string, without its quotes, and what follows it.
fn next_string(json: &[u8]) -> Option<(&[u8], &[u8])> {
    let start = memchr(b'"', json)? + 1;
    let inside = json.get(start..)?;
    let mut at = 0;
    loop {
        at += memchr2(b'"', b'\\', inside.get(at..)?)?;
        if inside.get(at) == Some(&b'"') {
            return Some((inside.get(..at)?, inside.get(at + 1..)?));
        }
        at += 2;
    }
}

/// The decoded length of the string that `value` begins with; 0 if it does not begin with one.
fn string_bytes(value: &[u8]) -> u64 {
    if !value.starts_with(b"\"") {
        return 0;
    }
    let Some((inside, _)) = next_string(value) else { return 0 };
    let mut bytes = 0;
    let mut rest = inside;
    while let Some(at) = memchr(b'\\', rest) {
        let escape = rest.get(at + 1..).unwrap_or_default();
        let (len, decoded) = match escape {
            [b'u', b'0', b'0', ..] => (6, 1),
            // Half of a surrogate pair, which is four bytes together.
            [b'u', b'd' | b'D', b'8'..=b'9' | b'a'..=b'f' | b'A'..=b'F', ..] => (6, 2),
            [b'u', ..] => (6, 3),
            _ => (2, 1),
        };
        bytes += at as u64 + decoded;
        rest = rest.get(at + len..).unwrap_or_default();
    }
    bytes + rest.len() as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn check_text(json: &str, text_bytes: u64) {
        assert_eq!(look(json).text_bytes, text_bytes, "{json}");
    }

    #[test]
    fn text_of_every_kind_is_counted_and_nothing_else() {
        check_text(r#"{"delta":{"content":"abc","refusal":"de"}}"#, 5);
        check_text(r#"{"tool_calls":[{"id":"call","function":{"name":"f","arguments":"{}"}}]}"#, 2);
        check_text(r#"{"content" : "a", "x":"content", "logprobs":{"content":[{"t":"b"}]}}"#, 1);
        check_text(r#"{"content":null,"reasoning":""}"#, 0);
        check_text(r#"{"content":"\"content\":\"x\""}"#, 13);
    }

    #[test]
    fn reasoning_sent_under_two_names_counts_once() {
        check_text(r#"{"reasoning":"abc","reasoning_content":"abc"}"#, 3);
        check_text(r#"{"reasoning_content":"abc","content":"d"}"#, 4);
    }

    #[test]
    fn escapes_count_as_what_they_stand_for() {
        check_text(r#"{"content":"\n\\\"\/"}"#, 4);
        check_text(r#"{"content":"\u0041\u20ac\ud83d\ude00"}"#, 1 + 3 + 4);
    }

    #[test]
    fn names_inside_text_are_not_members() {
        let seen = look(r#"{"content":"\"usage\":1,\"error\":1","x":"usage","y":"error"}"#);
        assert!(!seen.usage && !seen.error);
        assert!(look(r#"{"a":{"usage" : {}}}"#).usage);
        assert!(look(r#"{"a":{"usage" : null}}"#).null_usage);
        assert!(look(r#"{"error":"x"}"#).error);
        assert!(!look(r#"{"error": null}"#).error);
    }

    #[test]
    fn progress_is_a_tool_call_or_a_reason_to_end() {
        for (json, progress) in [
            (r#"{"tool_calls":[{}]}"#, true),
            (r#"{"tool_calls":null}"#, false),
            (r#"{"finish_reason":"stop"}"#, true),
            (r#"{"finish_reason":null}"#, false),
            (r#"{"finish_reason":"error"}"#, false),
        ] {
            assert_eq!(look(json).progress, progress, "{json}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_counted_by_its_bytes(text in any::<String>()) {
            check_text(&json!({"x": text, "content": text}).to_string(), text.len() as u64);
        }

        #[test]
        fn what_is_not_json_is_looked_through_all_the_same(text in "[\"\\\\:a-u{}\\[\\], ]{0,60}") {
            prop_assert!(look(&text).text_bytes <= text.len() as u64);
            let cut = look(&format!(r#"{{"content":"{text}"#)).text_bytes;
            prop_assert!(cut <= text.len() as u64);
        }
    }
}
