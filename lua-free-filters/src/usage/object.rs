//! One usage object: reading it, and adding to it.

use crate::json::{self, Object};

use super::Counts;

/// Reads the counts of a usage object.
///
/// `prompt_tokens` and `completion_tokens` are wanted, or `input_tokens` and `output_tokens`; a
/// null is as if it were absent. Whole numbers written as floats are accepted. Anything else, and
/// a usage of nothing at all, is not usage: some upstreams send zeros until they know better, and
/// zeros must never be taken for a free answer. More cached input than input is capped to it.
pub(super) fn tokens(raw: &str) -> Option<Counts> {
    let mut prompt = Count::Absent;
    let mut completion = Count::Absent;
    let mut input = Count::Absent;
    let mut output = Count::Absent;
    let mut details = None;
    json::each_member(raw, |name, value| match name.as_ref() {
        "prompt_tokens" => prompt = count(value),
        "completion_tokens" => completion = count(value),
        "input_tokens" => input = count(value),
        "output_tokens" => output = count(value),
        "prompt_tokens_details" => details = Some(value),
        "input_tokens_details" if details.is_none() => details = Some(value),
        _ => {}
    })
    .ok()?;
    let input = prompt.or(input).read()?;
    let output = completion.or(output).read()?;
    let cached = details.and_then(cached_tokens).unwrap_or(0);
    (input > 0 || output > 0).then(|| Counts {
        input,
        cached_input: cached.min(input),
        output,
        ..Counts::NONE
    })
}

/// The usage object with these members after its own, in the place of any of the same names.
/// `None` when either is not what it should be, and nothing is to be changed.
pub(super) fn annotate(usage: &str, members: &str) -> Option<String> {
    // No line break can stand inside a JSON string, so these are white space; an event stream
    // would take them for the end of the data.
    let members = members.replace(['\n', '\r'], " ");
    let wrapped = format!("{{{members}}}");
    let ours = Object::read(&wrapped).ok()?;
    if ours.members.is_empty() {
        return None;
    }
    let theirs = Object::read(usage).ok()?;
    Some(theirs.edited(|name| ours.last(name).is_some(), &members))
}

#[derive(Clone, Copy)]
enum Count {
    Absent,
    Nonsense,
    Of(u64),
}

impl Count {
    fn or(self, other: Self) -> Self {
        match self {
            Self::Absent => other,
            Self::Nonsense | Self::Of(_) => self,
        }
    }

    fn read(self) -> Option<u64> {
        match self {
            Self::Of(count) => Some(count),
            Self::Absent | Self::Nonsense => None,
        }
    }
}

fn cached_tokens(details: &str) -> Option<u64> {
    let mut cached = Count::Absent;
    json::each_member(details, |name, value| {
        if name == "cached_tokens" {
            cached = count(value);
        }
    })
    .ok()?;
    cached.read()
}

fn count(raw: &str) -> Count {
    if raw == "null" {
        return Count::Absent;
    }
    // Some write `12.0`: a whole number, printed as one to be read without a cast.
    let whole = match serde_json::from_str::<f64>(raw) {
        Ok(float) if float.fract() == 0.0 && raw.contains(['.', 'e', 'E']) => format!("{float:.0}"),
        _ => raw.to_owned(),
    };
    match whole.parse::<u64>() {
        Ok(count) if count <= TOKENS_MAX => Count::Of(count),
        _ => Count::Nonsense,
    }
}

/// Larger counts are nonsense. Up to here a float holds every whole number exactly.
pub const TOKENS_MAX: u64 = (1 << 53) - 1;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn check(usage: &str, expected: Option<(u64, u64, u64)>) {
        let read = tokens(usage).map(|read| (read.input, read.cached_input, read.output));
        assert_eq!(read, expected, "{usage}");
    }

    #[test]
    fn counts_are_read_under_both_names() {
        check(r#"{"prompt_tokens":5,"completion_tokens":2}"#, Some((5, 0, 2)));
        check(r#"{"input_tokens":5,"output_tokens":2}"#, Some((5, 0, 2)));
        check(r#"{"input_tokens":5,"output_tokens":2,"prompt_tokens":null}"#, Some((5, 0, 2)));
        check(
            r#"{"input_tokens":9,"output_tokens":9,"prompt_tokens":5,"completion_tokens":2}"#,
            Some((5, 0, 2)),
        );
    }

    #[test]
    fn cached_input_is_never_more_than_input() {
        let with = |details: &str| format!(r#"{{"input_tokens":5,"output_tokens":2,{details}}}"#);
        check(&with(r#""prompt_tokens_details":{"cached_tokens":3}"#), Some((5, 3, 2)));
        check(&with(r#""input_tokens_details":{"cached_tokens":5.0}"#), Some((5, 5, 2)));
        check(&with(r#""prompt_tokens_details":{"cached_tokens":6}"#), Some((5, 5, 2)));
        for nothing in ["null", "{}", "[]", r#"{"cached_tokens":null}"#, r#"{"cached_tokens":-1}"#]
        {
            check(&with(&format!(r#""prompt_tokens_details":{nothing}"#)), Some((5, 0, 2)));
        }
    }

    #[test]
    fn what_is_no_count_is_no_usage() {
        for bad in ["-1", "1.5", r#""5""#, "null", "[]", "{}", "true", "9007199254740992", "1e300"]
        {
            check(&format!(r#"{{"prompt_tokens":{bad},"completion_tokens":2}}"#), None);
            check(&format!(r#"{{"prompt_tokens":2,"completion_tokens":{bad}}}"#), None);
        }
        for usage in
            ["null", "[]", "1", "{}", r#"{"prompt_tokens":1}"#, "{", r#"{"total_tokens":3}"#]
        {
            check(usage, None);
        }
    }

    #[test]
    fn whole_floats_and_the_largest_count_are_read() {
        check(r#"{"prompt_tokens":5.0,"completion_tokens":2e2}"#, Some((5, 0, 200)));
        check(
            &format!(r#"{{"prompt_tokens":{TOKENS_MAX},"completion_tokens":0}}"#),
            Some((TOKENS_MAX, 0, 0)),
        );
    }

    #[test]
    fn a_usage_of_nothing_is_a_placeholder() {
        check(r#"{"prompt_tokens":0,"completion_tokens":0}"#, None);
        check(r#"{"prompt_tokens":0,"completion_tokens":1}"#, Some((0, 0, 1)));
    }

    #[test]
    fn members_are_added_after_the_others_and_replace_their_like() {
        let check = |usage: &str, members: &str, expected: Option<&str>| {
            assert_eq!(annotate(usage, members).as_deref(), expected, "{usage} {members}");
        };
        check(r#"{"a":1}"#, r#""b":2"#, Some(r#"{"a":1,"b":2}"#));
        check("{}", r#""b":2"#, Some(r#"{"b":2}"#));
        check("{ }", r#""b":2"#, Some(r#"{"b":2 }"#));
        check("{\n \"a\": 1\n}", r#""b":2"#, Some("{\n \"a\": 1,\"b\":2\n}"));
        check(r#"{"b":{"b":1}, "a" : 1, "b":3}"#, r#""b":2"#, Some(r#"{ "a" : 1,"b":2}"#));
        check(r#"{"b":1}"#, r#""b":2"#, Some(r#"{"b":2}"#));
        check(r#"{"a":1}"#, "\"b\":\r\n2", Some(r#"{"a":1,"b":  2}"#));
        for bad in ["", " ", "x", r#""b""#, r#""b":2},{"c":3"#, r#""b":2,"#] {
            check(r#"{"a":1}"#, bad, None);
        }
        check("null", r#""b":2"#, None);
        check("[1]", r#""b":2"#, None);
    }

    proptest! {
        #[test]
        fn an_annotated_usage_says_the_same_and_more(
            theirs in prop::collection::btree_map("[a-f]", any::<String>(), 0..6),
            ours in prop::collection::btree_map("[a-f]", any::<i32>(), 1..4),
            pretty in any::<bool>(),
        ) {
            let theirs = serde_json::json!(theirs);
            let usage = match pretty {
                true => serde_json::to_string_pretty(&theirs).expect("a value can be written"),
                false => theirs.to_string(),
            };
            let members: Vec<_> = ours.iter().map(|(name, n)| format!("\"{name}\":{n}")).collect();
            let annotated = annotate(&usage, &members.join(",")).expect("both are good");
            let mut expected = theirs;
            for (name, n) in ours {
                expected[name] = Value::from(n);
            }
            prop_assert_eq!(serde_json::from_str::<Value>(&annotated).expect("JSON"), expected);
        }
    }
}
