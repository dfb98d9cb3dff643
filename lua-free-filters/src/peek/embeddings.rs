//! Embeddings.

use super::demand::bytes;
use super::members::{Members, elements, refuse};
use super::{PeekRefusal, Peeked, not_streamed, of_members};

/// The input is a text, a list of them, or the same as numbers: each number is one input token,
/// and at least a byte. Anything else in a list is open.
pub(super) fn read(body: &[u8]) -> Result<Peeked<'_>, PeekRefusal> {
    let members = Members::of_body(body, &["model", "input", "stream", "models"])?;
    let mut peeked = not_streamed(of_members(&members)?)?;
    members.must_be_absent("models", "is not offered: the price is that of one `model`")?;
    let Some(input) = members.given("input") else { return refuse("input", "is missing") };
    match input.as_bytes().first() {
        Some(b'"') if input == r#""""# => refuse("input", "must not be empty"),
        Some(b'"') => Ok(peeked),
        Some(b'[') => {
            let array = members.array("input")?;
            peeked.demand.is_open = elements(array).any(|element| element.starts_with('{'));
            peeked.demand.prompts = prompts(array);
            Ok(peeked)
        }
        _ => refuse("input", "must be a string or an array"),
    }
}

/// How many inputs a list is. One of numbers is one input.
pub(super) fn prompts(array: &str) -> u64 {
    let inputs = elements(array).filter(|element| element.starts_with(['"', '[', '{']));
    bytes(inputs.count())
}

#[cfg(test)]
mod tests {
    use super::super::UsageAsk;
    use super::super::tests::{check_counted, check_refused_as, read_as};
    use crate::route::Route::Embeddings;

    fn body(input: &str) -> String {
        format!(r#"{{"model":"m","input":{input},"encoding_format":"base64","dimensions":256}}"#)
    }

    #[test]
    fn texts_and_numbers_are_bounded_by_their_bytes() {
        for input in [r#""a""#, r#"["a","b"]"#, "[1,2,3]", "[[1,2],[3]]"] {
            check_counted(Embeddings, &body(input), &[], (false, 0, 0));
            let body = body(input);
            let peeked = read_as(Embeddings, &body);
            assert_eq!((peeked.n, peeked.output_limit, peeked.stream), (1, None, false));
            assert_eq!((peeked.usage_ask, peeked.include_usage), (UsageAsk::Told, true));
        }
        let prompts = |input: &str| read_as(Embeddings, &body(input)).demand.prompts;
        for (input, expected) in
            [(r#""a""#, 0), (r#"["a","b"]"#, 2), ("[1,2]", 0), ("[[1],[2]]", 2)]
        {
            assert_eq!(prompts(input), expected, "{input}");
        }
        check_counted(Embeddings, &body(r#"[{"image":"https://example.com"}]"#), &[], (true, 0, 0));
    }

    #[test]
    fn there_is_an_input_and_no_stream() {
        check_refused_as(Embeddings, r#"{"model":"m"}"#, "`input` is missing");
        for (input, expected) in [
            ("null", "`input` is missing"),
            (r#""""#, "`input` must not be empty"),
            ("[ ]", "`input` must not be empty"),
            ("1", "`input` must be a string or an array"),
            ("{}", "`input` must be a string or an array"),
        ] {
            check_refused_as(Embeddings, &body(input), expected);
        }
        let streamed = r#"{"model":"m","input":"a","stream":true}"#;
        let expected = "`stream` must not be true: this route does not stream";
        check_refused_as(Embeddings, streamed, expected);
    }
}
