//! What a refusal says about a parameter: the name of the one that an upstream does not know.
//!
//! OpenAI names it in a field of its own, others in a sentence or as a path. Only names that the
//! operator has listed are ever found, so that nothing else in a refusal can have an effect.

use serde::Deserialize;

/// The first of `listed` that a refusal's body says is not supported. A body longer than
/// [`BODY_BYTES_MAX`] is not read.
pub(super) fn unsupported<'l>(body: &[u8], listed: &'l [String]) -> Option<&'l str> {
    if listed.is_empty() || body.len() > BODY_BYTES_MAX {
        return None;
    }
    let refusal: Refusal = serde_json::from_slice(body).ok()?;
    let named = |name: &str| refusal.names(name);
    listed.iter().map(String::as_str).find(|name| named(name))
}

/// The shapes of a refusal, as far as they say what was refused.
#[derive(Deserialize)]
struct Refusal {
    error: Option<Error>,
    /// Where there is no `error` around it.
    message: Option<String>,
    detail: Option<Detail>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Error {
    Fields { code: Option<Code>, param: Option<String>, message: Option<String> },
    Sentence(String),
}

/// Some write the status here.
#[derive(Deserialize)]
#[serde(untagged)]
enum Code {
    Word(String),
    Other(serde::de::IgnoredAny),
}

/// One entry per field of the request that was refused.
#[derive(Deserialize)]
#[serde(untagged)]
enum Detail {
    Entries(Vec<Entry>),
    Other(serde::de::IgnoredAny),
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    loc: Vec<Place>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Place {
    Name(String),
    Other(serde::de::IgnoredAny),
}

impl Refusal {
    fn names(&self, name: &str) -> bool {
        let by_error = match &self.error {
            Some(Error::Fields { code, param, message }) => {
                let told = matches!(code, Some(Code::Word(code)) if CODES.contains(&code.as_str()));
                (told && param.as_deref() == Some(name)) || says(message.as_deref(), name)
            }
            Some(Error::Sentence(sentence)) => says(Some(sentence), name),
            None => false,
        };
        let by_place = matches!(&self.detail, Some(Detail::Entries(entries))
            if entries.iter().any(|entry| entry.names(name)));
        by_error || by_place || says(self.message.as_deref(), name)
    }
}

impl Entry {
    /// `["body", name]`: a field of the request itself and not one of the same name within it.
    fn names(&self, name: &str) -> bool {
        let body = |place: &Place| matches!(place, Place::Name(body) if body == "body");
        let named = |place: &Place| matches!(place, Place::Name(given) if given == name);
        self.kind == "extra_forbidden"
            && matches!(self.loc.as_slice(), [first, field] if body(first) && named(field))
    }
}

/// Whether a sentence says of this name that it is not supported.
fn says(sentence: Option<&str>, name: &str) -> bool {
    let Some(sentence) = sentence else { return false };
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '[');
    let follows = BEFORE.iter().any(|phrase| {
        sentence.match_indices(phrase).any(|(at, _)| {
            let rest = sentence.get(at.saturating_add(phrase.len())..).unwrap_or_default();
            let rest = rest.trim_start_matches([' ', ':', '\'', '"', '`']);
            rest.strip_prefix(name).is_some_and(|after| !after.starts_with(is_name))
        })
    });
    let precedes = AFTER.iter().any(|phrase| {
        sentence.match_indices(phrase).any(|(at, _)| {
            let before = sentence.get(..at).unwrap_or_default();
            let before = before.trim_end_matches([' ', ':', '\'', '"', '`']);
            before.strip_suffix(name).is_some_and(|before| !before.ends_with(is_name))
        })
    });
    follows || precedes
}

/// `error.code` where `error.param` is what is not supported.
const CODES: [&str; 3] = ["unsupported_parameter", "unknown_parameter", "unsupported_value"];

/// What stands before a name in such sentences.
const BEFORE: [&str; 5] = [
    "Unsupported parameter",
    "Unknown parameter",
    "Unsupported value",
    "Unrecognized request argument supplied",
    "unknown field",
];

/// What stands after it.
const AFTER: [&str; 4] = [
    "Extra inputs are not permitted",
    "is unsupported",
    "is not supported",
    "not supported with this model",
];

/// A refusal says what it is in far less.
const BODY_BYTES_MAX: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn listed() -> Vec<String> {
        ["logprobs", "seed", "logit_bias"].map(str::to_owned).to_vec()
    }

    #[track_caller]
    fn check(body: serde_json::Value, expected: Option<&str>) {
        let listed = listed();
        assert_eq!(unsupported(body.to_string().as_bytes(), &listed), expected, "{body}");
    }

    #[test]
    fn a_parameter_is_found_however_it_is_named() {
        let error = |code: &str, param: &str| json!({"error": {"code": code, "param": param}});
        check(error("unsupported_parameter", "seed"), Some("seed"));
        check(error("unknown_parameter", "seed"), Some("seed"));
        check(error("unsupported_value", "seed"), Some("seed"));
        for message in [
            "Unsupported parameter: 'logprobs' is not supported with this model.",
            "Unrecognized request argument supplied: logprobs",
            "Unknown parameter: 'logprobs'.",
            "logprobs: Extra inputs are not permitted",
            "property 'logprobs' is unsupported",
            "json: unknown field \"logprobs\"",
        ] {
            let (code, param) = (json!(400), json!(null));
            let fields = json!({"message": message, "code": code, "param": param, "type": "x"});
            check(json!({"error": fields}), Some("logprobs"));
            check(json!({"object": "error", "message": message, "code": 400}), Some("logprobs"));
            check(json!({"error": message}), Some("logprobs"));
        }
        let entry = json!({"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "no"});
        check(json!({"detail": [entry]}), Some("seed"));
    }

    #[test]
    fn nothing_is_found_that_is_not_listed_or_not_refused_as_unsupported() {
        check(json!({"error": {"code": "unsupported_parameter", "param": "model"}}), None);
        check(json!({"error": {"code": "invalid_value", "param": "seed"}}), None);
        check(json!({"error": {"code": "unsupported_parameter", "param": "seed.x"}}), None);
        for message in [
            "Invalid value for 'seed'",
            "Unsupported parameter: 'seeds'",
            "Unsupported parameter: 'seed.x'",
            "Unknown parameter: 'messages[0].seed'.",
            "messages.0.seed: Extra inputs are not permitted",
            "",
        ] {
            check(json!({"error": {"message": message}}), None);
        }
        let kind = |kind: &str, loc: serde_json::Value| json!({"type": kind, "loc": loc});
        let detail = [
            kind("missing", json!(["body", "seed"])),
            kind("extra_forbidden", json!(["body", "messages", 0, "seed"])),
            kind("extra_forbidden", json!(["seed"])),
        ];
        check(json!({"detail": detail}), None);
        check(json!({"detail": "Unsupported parameter: seed"}), None);
        check(json!([]), None);
    }

    #[test]
    fn a_refusal_is_read_up_to_its_bound() {
        let listed = listed();
        let mut body = br#"{"error": "Unknown parameter: seed"}"#.to_vec();
        body.resize(BODY_BYTES_MAX, b' ');
        assert_eq!(unsupported(&body, &listed), Some("seed"));
        body.push(b' ');
        assert_eq!(unsupported(&body, &listed), None);
        assert_eq!(unsupported(b"{\"error\": \"Unknown parameter: seed\"}", &[]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(
            bytes in proptest::collection::vec(any::<u8>(), 0..200), text in ".{0,80}",
        ) {
            let listed = listed();
            prop_assert_eq!(unsupported(&bytes, &listed), None);
            let found = unsupported(json!({"error": text}).to_string().as_bytes(), &listed);
            prop_assert!(found.is_none_or(|name| text.contains(name)));
        }
    }
}
