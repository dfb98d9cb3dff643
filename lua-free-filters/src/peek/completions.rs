//! Completions: OpenAI's older protocol, a text that is gone on with.

use super::generation::{
    TIERS, TIERS_MESSAGE, check_tier, read_extensions, read_limits, read_n, read_stream_options,
};
use super::members::{Members, elements, refuse};
use super::{PeekRefusal, Peeked, of_members};

/// Every prompt of a list gets its own answers: as many as are asked for, or as many as are made
/// to choose the best of.
pub(super) fn read(body: &[u8]) -> Result<Peeked<'_>, PeekRefusal> {
    let members = Members::of_body(body, &FIELDS)?;
    let mut peeked = of_members(&members)?;
    read_stream_options(&members, &mut peeked)?;
    read_limits(&members, &mut peeked)?;
    let answers = read_n(&members, "n")?.max(read_n(&members, "best_of")?);
    check_tier(&members, TIERS, TIERS_MESSAGE)?;
    read_extensions(&members, &mut peeked.demand)?;
    peeked.demand.prompts = prompts(members.given("prompt"))?;
    peeked.n = peeked.demand.prompts.saturating_mul(answers);
    Ok(peeked)
}

/// How many prompts there are. Without one the model begins by itself. An array of numbers is one
/// prompt, and each number, one input token, at least a byte.
fn prompts(prompt: Option<&str>) -> Result<u64, PeekRefusal> {
    let Some(prompt) = prompt else { return Ok(1) };
    if prompt.starts_with('"') {
        return Ok(1);
    }
    if !prompt.starts_with('[') {
        return refuse("prompt", "must be a string or an array");
    }
    let (mut prompts, mut numbers) = (0_u64, 0_u64);
    for element in elements(prompt) {
        match element.as_bytes().first() {
            Some(b'"' | b'[') => prompts += 1,
            Some(b'0'..=b'9') => numbers += 1,
            _ => return refuse("prompt", "must be a string, or an array of strings or tokens"),
        }
    }
    match (prompts, numbers) {
        (0, 0) => refuse("prompt", "must not be empty"),
        (0, _) => Ok(1),
        (1..=PROMPTS_MAX, 0) => Ok(prompts),
        (_, 0) => refuse("prompt", "has too many prompts"),
        _ => refuse("prompt", "must be a string, or an array of strings or tokens"),
    }
}

/// More prompts in one request are refused, as OpenAI does.
pub const PROMPTS_MAX: u64 = 2048;

const FIELDS: [&str; 18] = [
    "model",
    "prompt",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "max_new_tokens",
    "n_predict",
    "n",
    "best_of",
    "service_tier",
    "models",
    "plugins",
    "search_parameters",
    "fallbacks",
    "n_cmpl",
    "provider",
];

#[cfg(test)]
mod tests {
    use super::super::tests::{check_refused_as, read_as};
    use super::super::{N_MAX, UsageAsk};
    use super::PROMPTS_MAX;
    use crate::route::Route::Completions;

    fn body(more: &str) -> String {
        format!(r#"{{"model":"m"{more}}}"#)
    }

    fn check_n(more: &str, expected: u64) {
        assert_eq!(read_as(Completions, &body(more)).n, expected, "{more}");
    }

    #[test]
    fn every_prompt_has_as_many_answers_as_are_made() {
        check_n("", 1);
        check_n(r#","prompt":null"#, 1);
        check_n(r#","prompt":"Once","n":3"#, 3);
        check_n(r#","prompt":"Once","n":3,"best_of":5"#, 5);
        check_n(r#","prompt":"Once","n":3,"best_of":null"#, 3);
        check_n(r#","prompt":["a","b"],"n":3"#, 6);
        check_n(r#","prompt":[12,3456],"n":2"#, 2);
        check_n(r#","prompt":[[1,2],[3],[4]],"best_of":2"#, 6);
        let most = vec![r#""a""#; 2048].join(",");
        let all = format!(r#","prompt":[{most}],"best_of":128"#);
        check_n(&all, PROMPTS_MAX * N_MAX);
        assert_eq!(read_as(Completions, &body(&all)).demand.prompts, PROMPTS_MAX);
        let more = body(&format!(r#","prompt":[{most},"a"]"#));
        check_refused_as(Completions, &more, "`prompt` has too many prompts");
    }

    #[test]
    fn what_is_no_prompt_is_refused() {
        let refused = |prompt: &str, expected: &str| {
            check_refused_as(Completions, &body(&format!(r#","prompt":{prompt}"#)), expected);
        };
        refused("1", "`prompt` must be a string or an array");
        refused("{}", "`prompt` must be a string or an array");
        refused("[ ]", "`prompt` must not be empty");
        for mixed in [r#"["a",1]"#, "[-1]", "[null]", r#"[{"a":1}]"#] {
            refused(mixed, "`prompt` must be a string, or an array of strings or tokens");
        }
        check_refused_as(
            Completions,
            &body(r#","best_of":129"#),
            "`best_of` must be a whole number from 1 to 128",
        );
    }

    #[test]
    fn usage_and_limits_are_as_in_a_chat() {
        let body = body(r#","prompt":"a","max_tokens":16,"stream":true"#);
        let peeked = read_as(Completions, &body);
        assert_eq!((peeked.stream, peeked.output_limit), (true, Some(16)));
        assert_eq!((peeked.usage_ask, peeked.include_usage), (UsageAsk::NoOptions, false));
    }
}
