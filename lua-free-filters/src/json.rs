//! One level of a JSON object, with the place of everything in it.
//!
//! Values stay raw text. Nested values are checked without recursion, so depth costs nothing.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, de};
use serde_json::value::RawValue;

/// A member of an object: its name, its value as written, and where that value stands.
#[derive(Debug)]
pub(crate) struct Member<'a> {
    pub(crate) name: Cow<'a, str>,
    pub(crate) raw: &'a str,
    pub(crate) at: Range<usize>,
}

/// One object, its members in the order written, duplicates included.
#[derive(Debug)]
pub(crate) struct Object<'a> {
    text: &'a str,
    pub(crate) members: Vec<Member<'a>>,
}

impl<'a> Object<'a> {
    pub(crate) fn read(text: &'a str) -> Result<Self, serde_json::Error> {
        let mut members = Vec::new();
        each_member(text, |name, raw| {
            members.push(Member { name, raw, at: span_in(text, raw) });
        })?;
        Ok(Self { text, members })
    }

    /// The last member of this name: of duplicates, the one that common readers believe.
    pub(crate) fn last(&self, name: &str) -> Option<&Member<'a>> {
        self.members.iter().rev().find(|member| member.name == name)
    }

    /// The object without the members that `gone` names, and with `more` (members as text, or
    /// nothing) after those that stay. Every byte of what stays is kept, white space included.
    pub(crate) fn edited(&self, gone: impl Fn(&str) -> bool, more: &str) -> String {
        let Some(open) = self.text.find('{') else { return self.text.to_owned() };
        let close = self.text.rfind('}').unwrap_or(self.text.len());
        let mut from = open + 1;
        let mut text = String::with_capacity(self.text.len() + more.len() + 1);
        text.push_str(self.part(0..from));
        let mut comma = "";
        // The white space behind the last value that stays, which `more` goes in front of.
        let mut blank = if self.members.is_empty() { self.part(from..close) } else { "" };
        for member in &self.members {
            let end = member.at.end;
            let rest = self.part(end..self.text.len());
            let separator = end + rest.find([',', '}']).unwrap_or(rest.len());
            if !gone(&member.name) {
                text.push_str(blank);
                text.push_str(comma);
                text.push_str(self.part(from..end));
                (comma, blank) = (",", self.part(end..separator));
            }
            from = separator + 1;
        }
        if !more.is_empty() {
            text.push_str(comma);
            text.push_str(more);
        }
        text.push_str(blank);
        text.push_str(self.part(close..self.text.len()));
        text
    }

    fn part(&self, range: Range<usize>) -> &'a str {
        self.text.get(range).unwrap_or_default()
    }
}

/// Calls `each` for every member of the one object that `text` must be, with its name and its
/// value as written. White space around the object is allowed, anything else is an error.
pub(crate) fn each_member<'a>(
    text: &'a str,
    each: impl FnMut(Cow<'a, str>, &'a str),
) -> Result<(), serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_str(text);
    Members(each).deserialize(&mut reader)?;
    reader.end()
}

/// A string, borrowed where it has no escapes.
pub(crate) fn string(raw: &str) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Text<'_>>(raw).ok().map(|text| text.0)
}

/// Where `part`, which must be a slice of `whole`, stands in it.
pub(crate) fn span_in(whole: &str, part: &str) -> Range<usize> {
    let start = part.as_ptr().addr().wrapping_sub(whole.as_ptr().addr());
    debug_assert!(start + part.len() <= whole.len(), "a value stands in the text it was read of");
    start..start + part.len()
}

struct Members<F>(F);

impl<'de, F: FnMut(Cow<'de, str>, &'de str)> DeserializeSeed<'de> for Members<F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_map(self)
    }
}

impl<'de, F: FnMut(Cow<'de, str>, &'de str)> Visitor<'de> for Members<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(Text(name)) = map.next_key::<Text<'de>>()? {
            let value = map.next_value::<&'de RawValue>()?;
            (self.0)(name, value.get());
        }
        Ok(())
    }
}

/// `Cow<str>` that really borrows: serde's own always copies when it is not a field.
struct Text<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct Borrowing;
        impl<'de> Visitor<'de> for Borrowing {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        reader.deserialize_str(Borrowing)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn check_without(text: &str, gone: &str, expected: &str) {
        let object = Object::read(text).expect("an object");
        assert_eq!(object.edited(|name| name == gone, ""), expected, "{text} without {gone}");
    }

    #[test]
    fn a_member_goes_with_its_comma_and_all_else_stays() {
        let text = " { \"a\" : 1 , \"b\":[2, 3],\n\"c\":{\"a\":\"}\"} } ";
        check_without(text, "a", " { \"b\":[2, 3],\n\"c\":{\"a\":\"}\"} } ");
        check_without(text, "b", " { \"a\" : 1 ,\n\"c\":{\"a\":\"}\"} } ");
        check_without(text, "c", " { \"a\" : 1 , \"b\":[2, 3]} ");
        check_without(text, "d", text);
        check_without(r#"{"a":1}"#, "a", "{}");
        check_without(r#"{"a":1,"a":2,"b":3,"a":4}"#, "a", r#"{"b":3}"#);
        check_without(r#"{"\u0061":1,"b":",\"a\":2"}"#, "a", r#"{"b":",\"a\":2"}"#);
        check_without("{ }", "a", "{ }");
    }

    #[test]
    fn members_stand_where_they_are_said_to() {
        let text = r#" {"a": "x" ,"b":[ 1 ]}"#;
        let object = Object::read(text).expect("an object");
        for member in &object.members {
            assert_eq!(&text[member.at.clone()], member.raw);
        }
        assert_eq!(object.last("b").map(|member| member.raw), Some("[ 1 ]"));
    }

    #[test]
    fn names_and_strings_are_borrowed_unless_they_have_escapes() {
        assert!(matches!(string(r#""plain""#), Some(Cow::Borrowed("plain"))));
        assert_eq!(string(r#""\u0061""#).as_deref(), Some("a"));
        for bad in ["1", r#""\ud800""#, r#""a"#, ""] {
            assert_eq!(string(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn an_object_without_a_member_is_that_object_without_it(
            members in prop::collection::btree_map("[a-d]", "\\PC{0,8}", 0..5),
            gone in "[a-d]",
            pretty in any::<bool>(),
        ) {
            let mut value = serde_json::json!(members);
            let text = match pretty {
                true => serde_json::to_string_pretty(&value).expect("a value can be written"),
                false => value.to_string(),
            };
            let object = Object::read(&text).expect("an object");
            prop_assert_eq!(&object.edited(|_| false, ""), &text, "no edit keeps every byte");
            let edited = object.edited(|name| name == gone, "");
            value.as_object_mut().expect("an object").remove(&gone);
            prop_assert_eq!(serde_json::from_str::<Value>(&edited).expect("JSON"), value);
        }
    }
}
