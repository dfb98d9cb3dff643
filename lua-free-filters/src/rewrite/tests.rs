use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::peek;
use crate::route::Route;

fn peeked(body: &str) -> Peeked<'_> {
    peek::read(Route::ChatCompletions, None, body.as_bytes())
        .unwrap_or_else(|refusal| panic!("{body}: {refusal}"))
}

fn check_asked(body: &str, expected: &str) {
    let splices = ask_usage(&peeked(body)).into_iter().collect();
    assert_eq!(String::from_utf8_lossy(&apply(body.as_bytes(), splices)), expected);
}

#[test]
fn usage_is_asked_for_and_all_else_stays() {
    let head = r#"{ "model":"m", "messages":[1], "stream":true"#;
    let asked = |options: &str, expected: &str| {
        check_asked(&format!("{head}{options}\n}} "), &format!("{head}{expected}\n}} "));
    };
    asked(r#","stream_options":null"#, r#","stream_options":{"include_usage":true}"#);
    asked(r#","stream_options":{ }"#, r#","stream_options":{"include_usage":true }"#);
    asked(
        r#","stream_options":{ "a" : [1, 2]}"#,
        r#","stream_options":{"include_usage":true, "a" : [1, 2]}"#,
    );
    asked(
        r#","stream_options":{"a":1,"include_usage": false ,"b":2}"#,
        r#","stream_options":{"a":1,"include_usage": true ,"b":2}"#,
    );
    check_asked(
        &format!("{head}\n}} "),
        &format!("{head}\n,\"stream_options\":{{\"include_usage\":true}}}} "),
    );
}

#[test]
fn usage_is_not_asked_for_where_it_is_or_cannot_be() {
    for body in [
        r#"{"model":"m","messages":[1]}"#,
        r#"{"model":"m","messages":[1],"stream":false,"stream_options":{}}"#,
        r#"{"model":"m","messages":[1],"stream":true,"stream_options":{"include_usage":true}}"#,
    ] {
        assert_eq!(ask_usage(&peeked(body)), None, "{body}");
    }
}

#[test]
fn insertions_at_one_place_keep_their_order() {
    let insert = |with: &str| Splice { at: 1..1, with: with.into() };
    let over = Splice { at: 1..2, with: b"B".into() };
    assert_eq!(apply(b"abc", vec![over, insert("1"), insert("2")]), b"a12Bc");
    assert_eq!(apply(b"abc", vec![Splice { at: 3..3, with: b"d".into() }]), b"abcd");
    assert_eq!(apply(b"abc", vec![]), b"abc");
}

#[test]
#[should_panic(expected = "splices are ordered")]
fn splices_that_overlap_are_a_mistake() {
    let splice = |at: Range<usize>| Splice { at, with: vec![] };
    apply(b"abcd", vec![splice(0..3), splice(2..4)]);
}

/// A form whose model has these lines more in its head.
fn form(head: &str) -> String {
    let disposition = "Content-Disposition: form-data; name=";
    format!(
        "--b\r\n{disposition}\"file\"; filename=\"a.mp3\"\r\n\r\nmodel\r\n--b\r\n\
        {disposition}\"model\"\r\n{head}\r\nwhisper-1\r\n--b--\r\n"
    )
}

fn renamed(body: &str, name: &str) -> Result<String, UnfitName> {
    let peeked = peek::read(Route::Transcriptions, FORM, body.as_bytes()).expect("a form");
    let edited = apply(body.as_bytes(), model_name(&peeked, name)?);
    Ok(String::from_utf8(edited).expect("text"))
}

#[test]
fn a_model_in_a_form_is_renamed_as_it_is_written_with_its_length() {
    for (from, to) in [("", ""), ("content-length:  9\r\n", "content-length:  11\r\n")] {
        let expected = form(to).replace("whisper-1", "a\"b\\c--d/e ");
        assert_eq!(renamed(&form(from), "a\"b\\c--d/e "), Ok(expected));
    }
    for unfit in ["a\r\n--b", "a\n", "a\r", "a\0"] {
        assert_eq!(renamed(&form(""), unfit), Err(UnfitName));
    }
    let body = form("");
    let peeked = peek::read(Route::Transcriptions, FORM, body.as_bytes()).expect("a form");
    assert_eq!((ask_usage(&peeked), output_limit(&peeked, 5, "max_tokens")), (None, vec![]));
}

#[test]
fn an_output_limit_is_lowered_wherever_it_is_and_set_where_it_is_not() {
    let check = |given: &str, expected: &str| {
        let body = |limits: &str| format!(r#"{{"model":"m","messages":[1]{limits} }} "#);
        let given = body(given);
        let splices = output_limit(&peeked(&given), 50, "max_completion_tokens");
        let edited = apply(given.as_bytes(), splices);
        assert_eq!(String::from_utf8_lossy(&edited), body(expected));
    };
    let large = r#","max_tokens": 70 ,"max_output_tokens":51,"max_completion_tokens":5"#;
    let lowered = r#","max_tokens": 50 ,"max_output_tokens":50,"max_completion_tokens":5"#;
    check(large, lowered);
    check(lowered, lowered);
    check(
        r#","max_tokens":70,"max_output_tokens":null"#,
        r#","max_tokens":50,"max_output_tokens":null"#,
    );
    check(r#","max_completion_tokens":null"#, r#","max_completion_tokens":50"#);
    let body = r#"{"model":"m","messages":[1],"max_tokens":null}"#;
    let edited = apply(body.as_bytes(), output_limit(&peeked(body), 50, "max_completion_tokens"));
    let expected = r#"{"model":"m","messages":[1],"max_tokens":null,"max_completion_tokens":50}"#;
    assert_eq!(String::from_utf8_lossy(&edited), expected);
}

#[test]
fn a_limit_that_only_some_servers_know_is_said_in_the_words_of_the_protocol_too() {
    let check = |route, given: &str, expected: &str| {
        let body = |limits: &str| {
            let more = r#""model":"m","messages":[1],"input":"a","prompt":"a""#;
            format!("{{{more}{limits}}}")
        };
        let given = body(given);
        let peeked = peek::read(route, None, given.as_bytes()).expect("a request");
        let field = *route.limit_fields().last().expect("a name");
        let splices = known_limit(&peeked, route, field).into_iter().collect();
        let edited = apply(given.as_bytes(), splices);
        assert_eq!(String::from_utf8_lossy(&edited), body(expected), "{route:?}");
    };
    use Route::{ChatCompletions, Completions, Responses};
    for kept in ["", r#","max_tokens":null"#, r#","max_tokens":5,"n_predict":9"#] {
        check(ChatCompletions, kept, kept);
    }
    check(ChatCompletions, r#","max_completion_tokens":5"#, r#","max_completion_tokens":5"#);
    for foreign in ["max_output_tokens", "max_new_tokens", "n_predict"] {
        let given = format!(r#","{foreign}":5"#);
        check(ChatCompletions, &given, &format!(r#"{given},"max_completion_tokens":5"#));
        check(Completions, &given, &format!(r#"{given},"max_tokens":5"#));
    }
    check(Responses, r#","max_output_tokens":5"#, r#","max_output_tokens":5"#);
    check(
        Responses,
        r#","max_output_tokens":null,"max_tokens":5"#,
        r#","max_output_tokens":5,"max_tokens":5"#,
    );
}

#[test]
fn usage_is_asked_for_and_the_output_limited_at_one_place() {
    let body = r#"{"model":"m","messages":[1],"stream":true}"#;
    let peeked = peeked(body);
    let splices = ask_usage(&peeked).into_iter().chain(output_limit(&peeked, 9, "max_tokens"));
    let edited: Value =
        serde_json::from_slice(&apply(body.as_bytes(), splices.collect())).expect("JSON");
    assert_eq!(edited["max_tokens"], 9);
    assert_eq!(edited["stream_options"]["include_usage"], true);
}

#[test]
fn usage_is_not_asked_for_where_it_is_told() {
    for (route, body) in [
        (Route::Responses, r#"{"model":"m","input":"a","stream":true}"#),
        (Route::Messages, r#"{"model":"m","messages":[1],"max_tokens":9,"stream":true}"#),
        (Route::ImageGenerations, r#"{"model":"m","prompt":"a","stream":true}"#),
        (Route::Speech, r#"{"model":"m","input":"a","stream_format":"sse"}"#),
    ] {
        let peeked = peek::read(route, None, body.as_bytes()).expect("a good body");
        assert!(peeked.stream && peeked.include_usage);
        assert_eq!(ask_usage(&peeked), None);
    }
}

#[test]
fn an_optional_parameter_is_taken_out_and_nothing_else() {
    let body = br#"{"model":"m", "top_k" : {"model":1} ,"messages":[],"\u0074op_k":2}"#;
    let expected = br#"{"model":"m","messages":[]}"#;
    assert_eq!(without(body, "top_k").as_deref(), Some(&expected[..]));
    assert_eq!(without(body, "top_p"), None);
    assert_eq!(without(b"[]", "top_k"), None);
    assert_eq!(without(b"\xff", "top_k"), None);
}

#[test]
fn what_is_paid_for_is_never_taken_out() {
    for name in KEPT.iter().chain(&LIMIT_FIELDS) {
        let body = format!(r#"{{"{name}":1,"x":2}}"#);
        assert_eq!(without(body.as_bytes(), name), None, "{name}");
        assert!(without(body.as_bytes(), "x").is_some());
    }
}

const FORM: Option<&str> = Some("multipart/form-data; boundary=b");

proptest! {
    #[test]
    fn an_edited_body_says_the_same_but_for_the_edits(
        model in "\\PC{1,20}",
        name in any::<String>(),
        options in prop_oneof![
            Just(json!(null)), Just(json!({})), Just(json!({"a": {"include_usage": false}})),
            Just(json!({"include_usage": false, "z": "}"})), Just(json!({"include_usage": null})),
        ],
        text in any::<String>(),
        given in prop::option::of(1..100_u64),
        limit in 1..100_u64,
    ) {
        let mut value = json!({
            "model": model, "messages": [text], "stream": true, "stream_options": options,
            "max_tokens": given,
        });
        let body = value.to_string();
        let peeked = peeked(&body);
        let splices = ask_usage(&peeked).into_iter().chain(model_name(&peeked, &name).expect("JSON"))
            .chain(output_limit(&peeked, limit, "max_tokens"));
        let edited = apply(body.as_bytes(), splices.collect());
        value["model"] = Value::from(name.clone());
        value["stream_options"]["include_usage"] = Value::from(true);
        value["max_tokens"] = Value::from(given.unwrap_or(limit).min(limit));
        let edited_value: Value = serde_json::from_slice(&edited).expect("still JSON");
        prop_assert_eq!(edited_value, value);
        let again = peek::read(Route::ChatCompletions, None, &edited);
        if let Ok(again) = again {
            prop_assert!(again.include_usage);
            prop_assert_eq!(ask_usage(&again), None);
        }
    }
}
