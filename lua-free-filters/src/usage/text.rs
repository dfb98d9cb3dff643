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
    /// A member called `usage` somewhere, null or not.
    pub(super) usage: bool,
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
