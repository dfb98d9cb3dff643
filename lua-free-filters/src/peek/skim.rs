//! What is inside an array or an object that was read as JSON before.
//!
//! A reader that checks what it reads goes through every byte at each level that it is asked for,
//! and an image of megabytes is six levels down. The body was checked whole at the first level;
//! from there on values are only told apart, strings by their ends. What is not JSON gives values
//! that are nonsense, and no panic.

use memchr::memchr2;

/// The values inside an array, or the names and values inside an object in turn, each as written.
#[derive(Clone, Debug)]
pub(super) struct Values<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Values<'a> {
    /// Those of an array or object, which begins with its bracket.
    pub(super) fn of(text: &'a str) -> Self {
        Self { text, at: 1 }
    }
}

impl<'a> Iterator for Values<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.text.get(self.at..)?;
        let value = rest.trim_start_matches(BETWEEN);
        let len = value_len(value.as_bytes());
        self.at += rest.len() - value.len() + len;
        value.get(..len).filter(|value| !value.is_empty())
    }
}

/// How long the value is that this begins with; 0 where there is none. Brackets inside are
/// counted, not followed, so that depth costs no stack.
fn value_len(bytes: &[u8]) -> usize {
    let (mut at, mut depth) = (0, 0_usize);
    loop {
        let Some(byte) = bytes.get(at) else { return bytes.len() };
        match byte {
            b'"' => at += string_len(bytes.get(at..).unwrap_or_default()),
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' if depth == 0 => return at,
            b'}' | b']' => {
                depth -= 1;
                at += 1;
            }
            _ if depth == 0 => return at + scalar_len(bytes.get(at..).unwrap_or_default()),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
}

fn string_len(bytes: &[u8]) -> usize {
    let mut at = 1;
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        match memchr2(b'"', b'\\', rest) {
            Some(found) if rest.get(found) == Some(&b'"') => return at + found + 1,
            Some(found) => at += found + 2,
            None => return bytes.len(),
        }
    }
}

fn scalar_len(bytes: &[u8]) -> usize {
    let ends = |byte: &u8| matches!(byte, b',' | b']' | b'}' | b' ' | b'\t' | b'\n' | b'\r');
    bytes.iter().position(ends).unwrap_or(bytes.len())
}

const BETWEEN: [char; 6] = [' ', '\t', '\n', '\r', ',', ':'];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;
    use crate::json;

    #[test]
    fn values_are_told_apart_as_they_are_written() {
        let check = |text, expected: &[&str]| {
            assert_eq!(Values::of(text).collect::<Vec<_>>(), expected, "{text}");
        };
        check("[]", &[]);
        check("[ \n]", &[]);
        check("{}", &[]);
        check("[1, -2.5e3 ,null,true]", &["1", "-2.5e3", "null", "true"]);
        check(r#"["a]","\"","\\",""]"#, &[r#""a]""#, r#""\"""#, r#""\\""#, r#""""#]);
        check(r#"[[1,[2]],{"a":"}"} ]"#, &["[1,[2]]", r#"{"a":"}"}"#]);
        check(r#"{"a" : 1,"b":[ "c" ]}"#, &[r#""a""#, "1", r#""b""#, r#"[ "c" ]"#]);
    }

    proptest! {
        #[test]
        fn values_are_those_that_a_checking_reader_finds(
            value in crate::peek::tests::any_json(),
            pretty in any::<bool>(),
        ) {
            let text = match pretty {
                true => serde_json::to_string_pretty(&value).expect("a value can be written"),
                false => value.to_string(),
            };
            if value.is_array() {
                let checked: Vec<&RawValue> = serde_json::from_str(&text).expect("an array");
                let checked: Vec<&str> = checked.into_iter().map(RawValue::get).collect();
                prop_assert_eq!(Values::of(&text).collect::<Vec<_>>(), checked);
            } else if value.is_object() {
                let object = json::Object::read(&text).expect("an object");
                let checked: Vec<&str> = object.members.iter().map(|member| member.raw).collect();
                prop_assert_eq!(Values::of(&text).skip(1).step_by(2).collect::<Vec<_>>(), checked);
            }
        }

        #[test]
        fn noise_ends_and_is_never_a_panic(text in "\\PC{0,60}", more in r#"["\\\[\]{},: é]{0,40}"#) {
            for text in [text, more] {
                prop_assert!(Values::of(&text).count() <= text.len());
            }
        }
    }
}
