//! The members of a piece of JSON, and how much text is in one.
//!
//! One pass over the strings, nothing decoded and nothing kept. An unescaped quote opens or
//! closes a string, so text that merely looks like JSON is never taken for it.

use memchr::{memchr, memchr2};

/// The value of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// A string, as written between its quotes.
    Text(&'a [u8]),
    /// Any other value, and all that follows it.
    Other(&'a [u8]),
}

impl Value<'_> {
    pub(super) fn is_null(self) -> bool {
        matches!(self, Self::Other([b'n', ..]))
    }

    pub(super) fn is_list(self) -> bool {
        matches!(self, Self::Other([b'[', ..]))
    }

    pub(super) fn is_object(self) -> bool {
        matches!(self, Self::Other([b'{', ..]))
    }

    pub(super) fn is_text(self) -> bool {
        matches!(self, Self::Text(_))
    }

    /// The decoded length of a string, and 0 of anything else.
    pub(super) fn text_bytes(self) -> u64 {
        match self {
            Self::Text(inside) => decoded_bytes(inside),
            Self::Other(_) => 0,
        }
    }
}

/// Calls `each` for every member of every object in `json`, with how deep it stands (1 in the
/// outermost object), its name as written, and its value. What is not JSON gives some members,
/// and never a panic.
pub(super) fn each_member<'a>(json: &'a str, mut each: impl FnMut(usize, &'a [u8], Value<'a>)) {
    let mut depth = 0_usize;
    let mut rest = json.as_bytes();
    while let Some(inside) = enter_string(rest, &mut depth) {
        let Some((name, after)) = leave_string(inside) else { return };
        rest = after;
        let [b':', after @ ..] = after.trim_ascii_start() else { continue };
        rest = after.trim_ascii_start();
        let value = match rest {
            [b'"', inside @ ..] => {
                let Some((inside, after)) = leave_string(inside) else { return };
                rest = after;
                Value::Text(inside)
            }
            other => Value::Other(other),
        };
        each(depth, name, value);
    }
}

/// What follows the next quote. Only a few bytes stand between two strings, and each of them is
/// looked at for `depth`, so that a search for the quote would only be a second look.
fn enter_string<'a>(json: &'a [u8], depth: &mut usize) -> Option<&'a [u8]> {
    for (at, byte) in json.iter().enumerate() {
        match byte {
            b'"' => return json.get(at + 1..),
            b'{' | b'[' => *depth += 1,
            b'}' | b']' => *depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    None
}

/// The rest of a string whose first quote was read, and what follows its last one.
fn leave_string(json: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut at = 0;
    loop {
        at += memchr2(b'"', b'\\', json.get(at..)?)?;
        if json.get(at) == Some(&b'"') {
            return Some((json.get(..at)?, json.get(at + 1..)?));
        }
        at += 2;
    }
}

fn decoded_bytes(inside: &[u8]) -> u64 {
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

    /// The members as `depth name` and, of strings, `=bytes`.
    fn members(json: &str) -> Vec<String> {
        let mut members = Vec::new();
        each_member(json, |depth, name, value| {
            let name = String::from_utf8_lossy(name);
            members.push(match value {
                Value::Text(_) => format!("{depth} {name}={}", value.text_bytes()),
                Value::Other(_) => format!("{depth} {name}"),
            });
        });
        members
    }

    #[test]
    fn every_member_is_given_with_its_depth() {
        assert_eq!(
            members(r#"{"a":{"b" : [{"c":"x"}, "d"]},"e":"","f": null}"#),
            ["1 a", "2 b", "4 c=1", "1 e=0", "1 f"]
        );
        assert_eq!(members(r#"[{"a":1}]"#), ["2 a"]);
    }

    #[test]
    fn names_inside_text_are_not_members() {
        assert_eq!(
            members(r#"{"content":"\"usage\":{}}","x":"usage"}"#),
            ["1 content=11", "1 x=5"]
        );
        assert_eq!(members(r#"{"a":"b\\","c":"}"}"#), ["1 a=2", "1 c=1"]);
    }

    #[test]
    fn values_are_what_they_begin_as() {
        each_member(r#"{"a":null,"b": [],"c":{},"d":"null","e":1}"#, |_, name, value| {
            let kinds = [value.is_null(), value.is_list(), value.is_object(), value.is_text()];
            let expected = [b"a", b"b", b"c", b"d"].map(|kind| name == kind);
            assert_eq!(kinds, expected, "{}", String::from_utf8_lossy(name));
        });
    }

    #[test]
    fn escapes_count_as_what_they_stand_for() {
        assert_eq!(members(r#"{"a":"\n\\\"\/"}"#), ["1 a=4"]);
        assert_eq!(members(r#"{"a":"\u0041\u20ac\ud83d\ude00"}"#), ["1 a=8"]);
    }

    proptest! {
        #[test]
        fn any_text_is_counted_by_its_bytes(text in any::<String>()) {
            let json = json!({"a": text, "b": [text]}).to_string();
            prop_assert_eq!(members(&json), [format!("1 a={}", text.len()), "1 b".to_owned()]);
        }

        #[test]
        fn what_is_not_json_is_looked_through_all_the_same(text in "[\"\\\\:a-u{}\\[\\], ]{0,60}") {
            for json in [text.clone(), format!(r#"{{"content":"{text}"#)] {
                let mut bytes = 0;
                each_member(&json, |_, _, value| bytes += value.text_bytes());
                prop_assert!(bytes <= json.len() as u64);
            }
        }
    }
}
