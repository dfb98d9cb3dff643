//! What matters in a piece of JSON that is too large to hold, picked out while it passes.
//!
//! A client can make the last event of its own response as large as it likes, since that repeats
//! the instructions, the tools and the whole output. Usage must not be lost by that, so what
//! cannot be held is read byte by byte, and only a few small values of it are kept.

use memchr::memchr2;

/// Keeps the values that are wanted, each within [`VALUE_BYTES_MAX`], whatever else passes.
#[derive(Clone, Debug, Default)]
pub(super) struct Sift {
    /// How many objects and lists are open.
    depth: usize,
    text: Text,
    /// The last string, as far as it may be a name that is known.
    name: Vec<u8>,
    /// The member of the outermost object that is under way, if it is one of those known.
    outer: Option<&'static str>,
    /// The place of the value that follows the colon.
    place: Option<usize>,
    after_colon: bool,
    kept: [Option<Vec<u8>>; WANTED.len()],
    keeping: Option<Keeping>,
    entries: u64,
    /// How much of the field name of this line has passed.
    field: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Text {
    #[default]
    Outside,
    Inside,
    Escape,
}

/// A value on its way into `kept`.
#[derive(Clone, Debug)]
struct Keeping {
    place: usize,
    depth: usize,
    /// `None` once there is too much of it.
    value: Option<Vec<u8>>,
}

impl Sift {
    /// Takes bytes as far as the brace that ends a usage object, and says how many those are;
    /// without one, all of them. Lines of an event stream are taken without their `data:`.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            at += match self.text {
                Text::Inside => self.inside(rest),
                Text::Escape => {
                    self.text = Text::Inside;
                    self.note(rest.get(..1).unwrap_or_default())
                }
                Text::Outside => {
                    if rest.first().is_some_and(|byte| self.outside(*byte)) {
                        return Some(at + 1);
                    }
                    1
                }
            };
        }
        None
    }

    /// What was kept, as an object with nothing else in it.
    pub(super) fn kept(&self) -> String {
        let mut members = self.kept_in("");
        for outer in OUTER {
            let inner = self.kept_in(outer);
            if !inner.is_empty() {
                members.push(format!(r#""{outer}":{{{}}}"#, inner.join(",")));
            }
        }
        format!("{{{}}}", members.join(","))
    }

    fn kept_in(&self, place: &str) -> Vec<String> {
        let kept = WANTED.iter().zip(&self.kept).filter(|((outer, _), _)| *outer == place);
        kept.filter_map(|((_, name), value)| {
            let value = std::str::from_utf8(value.as_deref()?).ok()?;
            Some(format!(r#""{name}":{value}"#))
        })
        .collect()
    }

    /// How many entries the list `data` has had so far.
    pub(super) fn entries(&self) -> u64 {
        self.entries
    }

    fn inside(&mut self, rest: &[u8]) -> usize {
        let found = memchr2(b'"', b'\\', rest);
        let taken =
            self.note(rest.get(..found.map_or(rest.len(), |at| at + 1)).unwrap_or_default());
        match found.and_then(|at| rest.get(at)) {
            Some(b'\\') => self.text = Text::Escape,
            Some(_) => {
                self.text = Text::Outside;
                self.end_value(self.depth);
            }
            None => {}
        }
        taken
    }

    /// Bytes of a string, its last quote included.
    fn note(&mut self, bytes: &[u8]) -> usize {
        self.keep(bytes);
        let room = NAME_BYTES_MAX.saturating_sub(self.name.len());
        self.name.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        bytes.len()
    }

    /// Whether a usage object ended with this byte.
    fn outside(&mut self, byte: u8) -> bool {
        if matches!(byte, b'\n' | b'\r') {
            self.field = 0;
        } else if FIELD.get(self.field) == Some(&byte) {
            self.field += 1;
            return false;
        } else {
            self.field = FIELD.len();
        }
        match byte {
            b'{' | b'[' => {
                let is_entry = self.depth == 2 && self.outer == Some("data");
                self.entries += u64::from(is_entry);
                self.begin_value();
                self.keep(&[byte]);
                self.depth += 1;
            }
            b'}' | b']' => {
                // A number or a word ends before the brace, an object or a list with it.
                self.end_value(self.depth);
                self.depth = self.depth.saturating_sub(1);
                self.keep(&[byte]);
                return self.end_value(self.depth) && byte == b'}';
            }
            b',' => {
                self.end_value(self.depth);
                self.keep(&[byte]);
            }
            b':' => {
                self.keep(&[byte]);
                self.note_name();
            }
            b'"' if self.depth > 0 => {
                self.begin_value();
                self.keep(&[byte]);
                self.name.clear();
                self.text = Text::Inside;
            }
            b' ' | b'\t' | b'\n' | b'\r' => {}
            _ => {
                self.begin_value();
                self.keep(&[byte]);
            }
        }
        false
    }

    fn note_name(&mut self) {
        let name = self.name.strip_suffix(b"\"").unwrap_or_default();
        let known = |known: &str| known.as_bytes() == name;
        if self.depth == 1 {
            self.outer = OUTER.into_iter().find(|outer| known(outer));
        }
        let outer = match self.depth {
            1 => Some(""),
            2 => self.outer,
            _ => None,
        };
        let is_wanted = |wanted: &(&str, &str)| outer == Some(wanted.0) && known(wanted.1);
        self.place = WANTED.iter().position(is_wanted);
        self.after_colon = true;
    }

    fn begin_value(&mut self) {
        let place = self.place.take().filter(|_| self.after_colon);
        self.after_colon = false;
        if let (Some(place), None) = (place, &self.keeping) {
            self.keeping = Some(Keeping { place, depth: self.depth, value: Some(Vec::new()) });
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let Some(Keeping { value: kept, .. }) = &mut self.keeping else { return };
        match kept {
            Some(value) if value.len() + bytes.len() <= VALUE_BYTES_MAX => {
                value.extend_from_slice(bytes);
            }
            _ => *kept = None,
        }
    }

    /// Ends the value that is kept if it stands at this depth and has begun. Whether it was a
    /// usage object.
    fn end_value(&mut self, depth: usize) -> bool {
        let ended = self.keeping.take_if(|keeping| keeping.depth == depth);
        let Some(Keeping { place, value, .. }) = ended else { return false };
        let is_usage = WANTED.get(place).is_some_and(|(_, name)| *name == "usage")
            && value.as_ref().is_some_and(|value| value.starts_with(b"{"));
        if let Some(kept) = self.kept.get_mut(place) {
            *kept = value;
        }
        is_usage
    }
}

/// The values that are kept: the member of the outermost object that each stands in, or nothing
/// where it stands in that itself, and its name.
const WANTED: [(&str, &str); 8] = [
    ("", "type"),
    ("", "usage"),
    ("", "duration"),
    ("response", "usage"),
    ("message", "usage"),
    ("item", "type"),
    ("meta", "billed_units"),
    ("meta", "tokens"),
];

const OUTER: [&str; 5] = ["response", "message", "item", "meta", "data"];

/// The most that is kept of one value. A larger one is not kept at all.
pub const VALUE_BYTES_MAX: usize = 16 << 10;

/// No name that is known is longer, with its quote.
const NAME_BYTES_MAX: usize = 16;

const FIELD: &[u8] = b"data:";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn sift(text: &str) -> Sift {
        let mut sift = Sift::default();
        let mut rest = text.as_bytes();
        while let Some(taken) = sift.feed(rest) {
            assert_eq!(rest[taken - 1], b'}', "{text}");
            rest = &rest[taken..];
        }
        sift
    }

    fn check(text: &str, kept: &str) {
        assert_eq!(sift(text).kept(), kept, "{text}");
    }

    #[test]
    fn what_is_wanted_is_kept_and_nothing_else() {
        check(
            r#"{"type":"response.completed","response":{"id":"x","usage":{"a":{"b":1}},"u":2}}"#,
            r#"{"type":"response.completed","response":{"usage":{"a":{"b":1}}}}"#,
        );
        check(
            r#"{"item":{"type" : "t","x":[{"type":"u"}]},"usage":[1, 2] , "a":1}"#,
            r#"{"usage":[1,2],"item":{"type":"t"}}"#,
        );
        check(r#"{"duration": 8.47 }"#, r#"{"duration":8.47}"#);
        check(
            r#"{"meta":{"billed_units":{"search_units":1}}}"#,
            r#"{"meta":{"billed_units":{"search_units":1}}}"#,
        );
        check(r#"{"usage":1,"usage":{"a":"\"}"}}"#, r#"{"usage":{"a":"\"}"}}"#);
        for nothing in [
            "",
            "{}",
            "[]",
            r#"[{"usage":1}]"#,
            r#"{"x":{"usage":1},"y":["usage",1]}"#,
            r#"{"text":"\"usage\":1","response":"usage"}"#,
            r#"{"response":1,"x":{"usage":{}}}"#,
            r#"{"response":[{"usage":{}}]}"#,
        ] {
            check(nothing, "{}");
        }
    }

    #[test]
    fn the_lines_of_an_event_are_read_without_their_field_names() {
        check(
            ": a \"note\nevent: x\r\ndata: {\"usage\":\r\ndata:{\"a\":\ndata: 1}}\n\n",
            r#"{"usage":{"a":1}}"#,
        );
    }

    #[test]
    fn the_entries_of_a_list_are_counted() {
        let list =
            r#"{"created":1,"data":[{"b64_json":"{[","x":[{}]},{"url":"data"}],"x":[[],[]]}"#;
        assert_eq!(sift(list).entries(), 2);
    }

    #[test]
    fn a_value_at_the_bound_is_kept_and_a_larger_one_is_not() {
        for (len, is_kept) in [(VALUE_BYTES_MAX, true), (VALUE_BYTES_MAX + 1, false)] {
            let usage = format!(r#"{{"a":"{}"}}"#, "x".repeat(len - r#"{"a":""}"#.len()));
            let kept = sift(&format!(r#"{{"usage":{usage},"type":"t"}}"#)).kept();
            assert_eq!(kept.contains("usage"), is_kept);
            assert!(kept.contains(r#""type":"t""#));
            assert!(kept.len() < VALUE_BYTES_MAX + 40);
        }
    }

    /// JSON of any shape whose names are often those that are wanted.
    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(json!(null)),
            any::<u32>().prop_map(|number| json!(number)),
            any::<String>().prop_map(|text| json!(text)),
            Just(json!("\"usage\":{},")),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            let name = prop::sample::select(vec!["usage", "response", "type", "item", "data", "x"]);
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(|list| json!(list)),
                prop::collection::btree_map(name, inner, 0..4).prop_map(|object| json!(object)),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_kept_is_what_a_reader_of_the_whole_would_find(
            value in value(),
            pretty in any::<bool>(),
            len in 1_usize..40,
        ) {
            let text = match pretty {
                true => serde_json::to_string_pretty(&value).expect("a value can be written"),
                false => value.to_string(),
            };
            let mut cut = Sift::default();
            for chunk in text.as_bytes().chunks(len) {
                let mut rest = chunk;
                while let Some(taken) = cut.feed(rest) {
                    rest = &rest[taken..];
                }
            }
            prop_assert_eq!(cut.kept(), sift(&text).kept());
            let kept: Value = serde_json::from_str(&cut.kept()).expect("JSON");
            for (outer, name) in WANTED {
                let find = |value: &Value| {
                    let place = if outer.is_empty() { Some(value) } else { value.get(outer) };
                    place.and_then(|place| place.get(name)).cloned()
                };
                prop_assert_eq!(find(&kept), find(&value));
            }
        }

        #[test]
        fn no_bytes_make_it_panic_or_grow(bytes in any::<Vec<u8>>(), len in 1_usize..40) {
            let mut sift = Sift::default();
            for chunk in bytes.chunks(len) {
                let mut rest = chunk;
                while let Some(taken) = sift.feed(rest) {
                    rest = &rest[taken..];
                }
            }
            prop_assert!(sift.kept().len() <= 2 * bytes.len() + 200);
        }
    }
}
