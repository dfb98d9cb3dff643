//! One usage object: reading it, and adding to it.

use crate::json::{self, Object};
use crate::route::Route;

use super::Counts;
use super::number::{self, COUNT_MAX};

/// The figures of a usage object, by the meaning of their names.
///
/// A null is as if it were absent. Whole numbers written as floats are accepted; anything else is
/// nonsense, which is not the same as absent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Figures {
    input: Count,
    output: Count,
    total: Count,
    cached: Count,
    cache_write: Count,
    reasoning: Count,
    web_searches: Count,
    audio_ms: Count,
    cost_nano_usd: Count,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Count {
    #[default]
    Absent,
    Nonsense,
    Of(u64),
}

impl Figures {
    /// `None` when it is not an object.
    ///
    /// Where two names mean the same, those of chat completions win.
    pub(super) fn read(usage: &str) -> Option<Self> {
        let mut said = Self::default();
        let mut other = Self::default();
        json::each_member(usage, |name, value| match name.as_ref() {
            "prompt_tokens" => said.input = count(value),
            "completion_tokens" => said.output = count(value),
            "input_tokens" => other.input = count(value),
            "output_tokens" => other.output = count(value),
            "total_tokens" => said.total = count(value),
            "prompt_tokens_details" => said.read_details(value),
            "input_tokens_details" => other.read_details(value),
            "completion_tokens_details" | "output_tokens_details" => {
                let thought = member(value, "thinking_tokens");
                said.reasoning = member(value, "reasoning_tokens").or(thought).or(said.reasoning);
            }
            "cache_read_input_tokens" | "prompt_cache_hit_tokens" => other.cached = count(value),
            "cache_creation_input_tokens" => other.cache_write = count(value),
            "server_tool_use" => said.web_searches = member(value, "web_search_requests"),
            "num_search_queries" => other.web_searches = count(value),
            "seconds" => said.audio_ms = milliseconds(value),
            "cost" => said.cost_nano_usd = rounded_up(value, NANO_PLACES),
            _ => {}
        })
        .ok()?;
        Some(said.with(other, Count::or))
    }

    fn read_details(&mut self, details: &str) {
        self.cached = member(details, "cached_tokens").or(self.cached);
        let written = member(details, "cache_write_tokens");
        self.cache_write =
            written.or(member(details, "cache_creation_tokens")).or(self.cache_write);
    }

    /// These figures of an answer that counts as it goes, after `earlier` ones: none falls.
    pub(super) fn after(self, earlier: Self) -> Self {
        self.with(earlier, Count::at_least)
    }

    fn with(self, other: Self, pick: fn(Count, Count) -> Count) -> Self {
        Self {
            input: pick(self.input, other.input),
            output: pick(self.output, other.output),
            total: pick(self.total, other.total),
            cached: pick(self.cached, other.cached),
            cache_write: pick(self.cache_write, other.cache_write),
            reasoning: pick(self.reasoning, other.reasoning),
            web_searches: pick(self.web_searches, other.web_searches),
            audio_ms: pick(self.audio_ms, other.audio_ms),
            cost_nano_usd: pick(self.cost_nano_usd, other.cost_nano_usd),
        }
    }

    pub(super) fn tells_output(&self) -> bool {
        self.output.is_known()
    }

    /// What the figures count, if they are usage of this route.
    ///
    /// Input and output are wanted; where there is no output by nature, only input; and the
    /// length of audio in the place of both. A usage of nothing at all is none: some upstreams
    /// send zeros until they know better, and zeros must never be taken for a free answer.
    pub(super) fn counts(&self, route: Route) -> Option<Counts> {
        let is_whole = match route {
            Route::Embeddings | Route::Moderations | Route::Rerank => {
                self.input.is_known() || self.total.is_known()
            }
            // Its parts add up, so it takes all of them; and there is no prompt of nothing.
            Route::Messages => {
                let parts = [self.cached, self.cache_write];
                let knows_all = self.input.is_known() && self.output.is_known();
                knows_all && !parts.contains(&Count::Nonsense) && self.known(route).input > 0
            }
            Route::Transcriptions | Route::Translations if self.audio_ms.is_known() => true,
            _ => self.input.is_known() && self.output.is_known(),
        };
        let counts = self.known(route);
        let is_any = counts.input > 0 || counts.output > 0 || counts.audio_ms > 0;
        (is_whole && is_any && counts.input <= COUNT_MAX).then_some(counts)
    }

    /// What is known of them, and 0 of the rest. More cached input than input, or more reasoning
    /// than output, is capped to that.
    pub(super) fn known(&self, route: Route) -> Counts {
        let total = self.total.or_zero();
        let reasoning = self.reasoning.or_zero();
        let (mut input, mut output) = (self.input.or_zero(), self.output.or_zero());
        match route {
            Route::Messages => input += self.cached.or_zero() + self.cache_write.or_zero(),
            Route::Embeddings | Route::Moderations | Route::Rerank
                if self.input == Count::Absent =>
            {
                input = total;
            }
            // Some upstreams count reasoning beside the output; the total gives them away.
            _ if reasoning > 0 && total == input + output + reasoning => output += reasoning,
            _ => {}
        }
        let cached_input = self.cached.or_zero().min(input);
        Counts {
            input,
            cached_input,
            cache_write: self.cache_write.or_zero().min(input - cached_input),
            output,
            reasoning: reasoning.min(output),
            web_searches: self.web_searches.or_zero(),
            audio_ms: self.audio_ms.or_zero(),
            cost_nano_usd: self.cost_nano_usd.known(),
            ..Counts::NONE
        }
    }
}

impl Count {
    fn or(self, other: Self) -> Self {
        match self {
            Self::Absent => other,
            Self::Nonsense | Self::Of(_) => self,
        }
    }

    fn at_least(self, earlier: Self) -> Self {
        match (self, earlier) {
            (Self::Of(count), Self::Of(earlier)) => Self::Of(count.max(earlier)),
            _ => self.or(earlier),
        }
    }

    fn known(self) -> Option<u64> {
        match self {
            Self::Of(count) => Some(count),
            Self::Absent | Self::Nonsense => None,
        }
    }

    fn is_known(self) -> bool {
        self.known().is_some()
    }

    fn or_zero(self) -> u64 {
        self.known().unwrap_or(0)
    }
}

/// The usage object with these members after its own, in the place of any of the same names.
/// `None` when either is not what it should be, and nothing is to be changed.
pub(super) fn annotate(usage: &str, members: &str) -> Option<String> {
    let members = self::members(members)?;
    let wrapped = format!("{{{members}}}");
    let ours = Object::read(&wrapped).ok()?;
    let theirs = Object::read(usage).ok()?;
    Some(theirs.edited(|name| ours.last(name).is_some(), &members))
}

/// These members as they can stand in an event; `None` when they are not members.
pub(super) fn members(members: &str) -> Option<String> {
    // No line break can stand inside a JSON string, so these are white space; an event stream
    // would take them for the end of the data.
    let members = members.replace(['\n', '\r'], " ");
    let is_any = !Object::read(&format!("{{{members}}}")).ok()?.members.is_empty();
    is_any.then_some(members)
}

/// Seconds, rounded up to the millisecond. Some upstreams write them as a string.
pub(super) fn duration_ms(raw: &str) -> Option<u64> {
    milliseconds(raw).known()
}

/// The number of this name in an object.
pub(super) fn number_in(object: &str, name: &str) -> Option<u64> {
    member(object, name).known()
}

fn milliseconds(raw: &str) -> Count {
    let unquoted = raw.strip_prefix('"').and_then(|raw| raw.strip_suffix('"'));
    rounded_up(unquoted.unwrap_or(raw), MILLI_PLACES)
}

fn member(object: &str, name: &str) -> Count {
    let mut found = Count::Absent;
    let read = json::each_member(object, |member, value| {
        if member == name {
            found = count(value);
        }
    });
    if read.is_ok() { found } else { Count::Absent }
}

fn count(raw: &str) -> Count {
    match number::scaled(raw, 0) {
        _ if raw == "null" => Count::Absent,
        Some(number) if number.is_exact => Count::Of(number.rounded_up),
        _ => Count::Nonsense,
    }
}

fn rounded_up(raw: &str, places: i64) -> Count {
    match number::scaled(raw, places) {
        _ if raw == "null" => Count::Absent,
        Some(number) => Count::Of(number.rounded_up),
        None => Count::Nonsense,
    }
}

/// From dollars to 10^-9 dollars.
const NANO_PLACES: i64 = 9;
/// From seconds to milliseconds.
const MILLI_PLACES: i64 = 3;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// What a usage counts, the units that are not 0.
    fn read(route: Route, usage: &str) -> Option<Counts> {
        Figures::read(usage).and_then(|figures| figures.counts(route))
    }

    fn check(usage: &str, expected: Option<(u64, u64, u64)>) {
        let read = read(Route::ChatCompletions, usage)
            .map(|read| (read.input, read.cached_input, read.output));
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
        check(&with(r#""prompt_cache_hit_tokens":4"#), Some((5, 4, 2)));
        check(&with(r#""cache_read_input_tokens":4"#), Some((5, 4, 2)));
        for nothing in ["null", "{}", "[]", r#"{"cached_tokens":null}"#, r#"{"cached_tokens":-1}"#]
        {
            check(&with(&format!(r#""prompt_tokens_details":{nothing}"#)), Some((5, 0, 2)));
        }
    }

    #[test]
    fn input_written_to_a_cache_is_a_part_of_what_was_not_read_from_it() {
        for written in [
            r#""prompt_tokens_details":{"cached_tokens":3,"cache_write_tokens":4}"#,
            r#""prompt_tokens_details":{"cached_tokens":3,"cache_creation_tokens":4}"#,
            r#""cache_read_input_tokens":3,"cache_creation_input_tokens":4"#,
        ] {
            for (input, cache_write) in [(9, 4), (7, 4), (5, 2), (2, 0)] {
                let usage =
                    format!(r#"{{"prompt_tokens":{input},"completion_tokens":1,{written}}}"#);
                let read = read(Route::ChatCompletions, &usage).expect("usage");
                assert_eq!((read.input, read.cache_write), (input, cache_write), "{usage}");
            }
        }
    }

    #[test]
    fn the_input_of_messages_is_the_sum_of_its_parts() {
        let usage = r#"{"input_tokens":5,"cache_creation_input_tokens":30,"cache_read_input_tokens":200,"output_tokens":7,"server_tool_use":{"web_search_requests":2}}"#;
        let expected = Counts {
            input: 235,
            cached_input: 200,
            cache_write: 30,
            output: 7,
            web_searches: 2,
            ..Counts::NONE
        };
        assert_eq!(read(Route::Messages, usage), Some(expected));
        let plain = r#"{"input_tokens":5,"output_tokens":7,"cache_read_input_tokens":null}"#;
        let expected = Counts { input: 5, output: 7, ..Counts::NONE };
        assert_eq!(read(Route::Messages, plain), Some(expected));
        let thought =
            r#"{"input_tokens":5,"output_tokens":7,"output_tokens_details":{"thinking_tokens":4}}"#;
        let expected = Counts { reasoning: 4, ..expected };
        assert_eq!(read(Route::Messages, thought), Some(expected));
        for part in [
            r#""cache_read_input_tokens":-1,"input_tokens":5"#,
            r#""cache_creation_input_tokens":"1","input_tokens":5"#,
            r#""input_tokens":0"#,
            r#""input_tokens":9007199254740991,"cache_read_input_tokens":1"#,
        ] {
            let usage = format!(r#"{{"output_tokens":7,{part}}}"#);
            assert_eq!(read(Route::Messages, &usage), None, "{usage}");
        }
    }

    #[test]
    fn reasoning_is_a_part_of_output_and_never_more_than_it() {
        let check = |usage: &str, output, reasoning| {
            let read = read(Route::Responses, usage).expect("usage");
            assert_eq!((read.output, read.reasoning), (output, reasoning), "{usage}");
        };
        let with = |more: &str| format!(r#"{{"input_tokens":5,"output_tokens":9,{more}}}"#);
        check(&with(r#""output_tokens_details":{"reasoning_tokens":6}"#), 9, 6);
        check(&with(r#""completion_tokens_details":{"reasoning_tokens":10}"#), 9, 9);
        let inside = r#""total_tokens":14,"output_tokens_details":{"reasoning_tokens":6}"#;
        check(&with(inside), 9, 6);
        let beside = r#""total_tokens":20,"output_tokens_details":{"reasoning_tokens":6}"#;
        check(&with(beside), 15, 6);
    }

    #[test]
    fn an_answer_without_output_by_nature_is_not_without_usage() {
        for usage in [
            r#"{"prompt_tokens":8,"total_tokens":8}"#,
            r#"{"prompt_tokens":8,"completion_tokens":0,"total_tokens":8}"#,
            r#"{"total_tokens":8}"#,
            r#"{"input_tokens":8}"#,
        ] {
            let expected = Some(Counts { input: 8, ..Counts::NONE });
            assert_eq!(read(Route::Embeddings, usage), expected, "{usage}");
            assert_eq!(read(Route::Rerank, usage), expected, "{usage}");
        }
        for usage in ["{}", r#"{"total_tokens":0}"#, r#"{"prompt_tokens":"8","total_tokens":8.5}"#]
        {
            assert_eq!(read(Route::Embeddings, usage), None, "{usage}");
        }
    }

    #[test]
    fn audio_is_counted_by_its_length_or_by_what_it_was_taken_apart_into() {
        let check = |usage: &str, expected: Option<(u64, u64, u64)>| {
            let read = read(Route::Transcriptions, usage);
            assert_eq!(read.map(|read| (read.audio_ms, read.input, read.output)), expected);
        };
        check(r#"{"type":"duration","seconds":9}"#, Some((9000, 0, 0)));
        check(r#"{"type":"duration","seconds":"8.4700001"}"#, Some((8471, 0, 0)));
        check(r#"{"type":"tokens","input_tokens":14,"output_tokens":45}"#, Some((0, 14, 45)));
        check(r#"{"type":"duration","seconds":0}"#, None);
        check(r#"{"type":"duration","seconds":-1}"#, None);
    }

    #[test]
    fn the_upstreams_cost_is_read_to_the_digit_and_rounded_up() {
        for (cost, expected) in [
            ("0.00014", Some(140_000)),
            ("1.4e-4", Some(140_000)),
            ("0", Some(0)),
            ("1.0000000001", Some(1_000_000_001)),
            ("null", None),
            ("-1", None),
            (r#""0.1""#, None),
            (r#"{"total_usd":1}"#, None),
            ("1e300", None),
        ] {
            let usage = format!(r#"{{"prompt_tokens":5,"completion_tokens":2,"cost":{cost}}}"#);
            let read = read(Route::ChatCompletions, &usage).expect("usage");
            assert_eq!(read.cost_nano_usd, expected, "{cost}");
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
            &format!(r#"{{"prompt_tokens":{COUNT_MAX},"completion_tokens":0}}"#),
            Some((COUNT_MAX, 0, 0)),
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
