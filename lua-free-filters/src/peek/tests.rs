use proptest::prelude::*;

use super::*;

fn chat(body: &[u8]) -> Result<Peeked<'_>, PeekRefusal> {
    super::read(Route::ChatCompletions, None, body)
}

/// Reads a body as JSON without a content type.
pub(super) fn read_as(route: Route, body: &str) -> Peeked<'_> {
    super::read(route, None, body.as_bytes()).unwrap_or_else(|refusal| panic!("{body}: {refusal}"))
}

/// What a body is refused for.
pub(super) fn check_refused_as(route: Route, body: &str, expected: &str) {
    let refusal = super::read(route, None, body.as_bytes()).expect_err(body);
    assert_eq!(refusal.to_string(), expected, "{body}");
}

/// What is counted of a body: bytes that are no text, whether it is open, images of low and of
/// other detail.
pub(super) fn check_counted(route: Route, body: &str, aside: &[&str], counted: (bool, u64, u64)) {
    let Demand { text_bytes, is_open, images_low, images_high, .. } = read_as(route, body).demand;
    assert_eq!((is_open, images_low, images_high), counted, "{body}");
    let aside: usize = aside.iter().map(|text| text.len() + 2).sum();
    assert_eq!(text_bytes, u64::try_from(body.len() - aside).expect("short"), "{body}");
}

/// A form with the boundary `b`: fields, then files with their names.
pub(super) fn form(fields: &[(&str, &str)], files: &[(&str, &str, &[u8])]) -> Vec<u8> {
    let disposition = |name| format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"");
    let mut body = Vec::new();
    for (name, value) in fields {
        body.extend(format!("{}\r\n\r\n{value}\r\n", disposition(name)).into_bytes());
    }
    for (name, filename, bytes) in files {
        body.extend(format!("{}; filename=\"{filename}\"\r\n", disposition(name)).into_bytes());
        body.extend(b"Content-Type: application/octet-stream\r\n\r\n");
        body.extend(*bytes);
        body.extend(b"\r\n");
    }
    body.extend(b"--b--\r\n");
    body
}

fn end_of(peeked: &Peeked<'_>) -> usize {
    match peeked.framing {
        Framing::Json { end } => end,
        Framing::Multipart { .. } => panic!("the body is JSON"),
    }
}

fn body(more: &str) -> String {
    format!(r#"{{"model":"m","messages":[{{"role":"user","content":"hi"}}]{more}}}"#)
}

fn read(body: &str) -> Peeked<'_> {
    chat(body.as_bytes()).unwrap_or_else(|refusal| panic!("{body}: {refusal}"))
}

/// What a body with this in it is refused for.
fn check_refused(more: &str, expected: &str) {
    let body = body(more);
    let refusal = chat(body.as_bytes()).expect_err(&body);
    assert_eq!(refusal.to_string(), expected, "{body}");
}

#[test]
fn the_least_that_is_sold_has_defaults_for_the_rest() {
    let body = body("");
    let peeked = read(&body);
    assert_eq!(peeked.model, "m");
    assert!(matches!(peeked.model, Cow::Borrowed(_)));
    assert_eq!(&body[peeked.model_span.clone()], r#""m""#);
    assert_eq!(&body[end_of(&peeked)..], "}");
    assert!(!peeked.stream && !peeked.include_usage);
    assert_eq!((peeked.n, peeked.output_limit), (1, None));
}

#[test]
fn a_model_may_be_written_with_escapes() {
    let body = r#" { "messages" : [ 1 ] , "mod\u0065l" : "a\/\u00e9\n" } "#;
    let peeked = read(body);
    assert_eq!(peeked.model, "a/é\n");
    assert_eq!(&body[peeked.model_span.clone()], r#""a\/\u00e9\n""#);
    assert_eq!(&body[end_of(&peeked)..], "} ");
}

#[test]
fn the_largest_output_limit_of_any_spelling_counts() {
    let limits = r#","max_tokens":5,"max_completion_tokens":70,"max_output_tokens":6"#;
    assert_eq!(read(&body(limits)).output_limit, Some(70));
    assert_eq!(read(&body(r#","max_tokens":5,"n_predict":70"#)).output_limit, Some(70));
    for field in super::LIMIT_FIELDS {
        assert_eq!(read(&body(&format!(r#","{field}":9"#))).output_limit, Some(9));
        assert_eq!(read(&body(&format!(r#","{field}":null"#))).output_limit, None);
        let largest = body(&format!(r#","{field}":{OUTPUT_LIMIT_MAX}"#));
        assert_eq!(read(&largest).output_limit, Some(OUTPUT_LIMIT_MAX));
        let too_large = OUTPUT_LIMIT_MAX + 1;
        for bad in [
            "0",
            "-1",
            "-0",
            "1.5",
            "1.0",
            "1e3",
            r#""5""#,
            "true",
            "[]",
            "{}",
            "99999999999999999999",
        ]
        .map(str::to_owned)
        .into_iter()
        .chain([too_large.to_string()])
        {
            let expected = format!("`{field}` must be a whole number from 1 to 2147483647");
            check_refused(&format!(r#","{field}":{bad}"#), &expected);
        }
    }
}

#[test]
fn n_is_one_to_its_bound() {
    assert_eq!(read(&body(r#","n":null"#)).n, 1);
    assert_eq!(read(&body(&format!(r#","n":{N_MAX}"#))).n, N_MAX);
    for bad in ["0", "-1", "129", "1.5", r#""2""#] {
        check_refused(&format!(r#","n":{bad}"#), "`n` must be a whole number from 1 to 128");
    }
}

#[test]
fn what_is_missing_or_of_another_type_is_named() {
    let check = |body: &str, expected: &str| {
        let refusal = chat(body.as_bytes()).expect_err(body);
        assert_eq!(refusal.to_string(), expected, "{body}");
    };
    check("{}", "`model` is missing");
    check(r#"{"model":1,"messages":[1]}"#, "`model` must be a string");
    check(r#"{"model":null,"messages":[1]}"#, "`model` must be a string");
    check(r#"{"model":"","messages":[1]}"#, "`model` must not be empty");
    check(r#"{"model":"\ud800","messages":[1]}"#, "`model` must be a valid string");
    check(r#"{"model":"m"}"#, "`messages` is missing");
    check(r#"{"model":"m","messages":"hi"}"#, "`messages` must be an array");
    check(r#"{"model":"m","messages":null}"#, "`messages` must be an array");
    check("{\"model\":\"m\",\"messages\":[ \n]}", "`messages` must not be empty");
    check_refused(r#","stream":"true""#, "`stream` must be true or false");
    check_refused(r#","stream":1"#, "`stream` must be true or false");
    check_refused(r#","stream_options":true"#, "`stream_options` must be an object");
    check_refused(r#","stream_options":[]"#, "`stream_options` must be an object");
    check_refused(
        r#","stream_options":{"include_usage":1}"#,
        "`include_usage` must be true or false",
    );
}

#[test]
fn the_longest_name_of_a_model_is_accepted_and_a_longer_one_is_not() {
    let named = |len| format!(r#"{{"model":"{}","messages":[1]}}"#, "m".repeat(len));
    assert_eq!(read(&named(MODEL_BYTES_MAX)).model.len(), MODEL_BYTES_MAX);
    let refusal = PeekRefusal::Field { field: "model", message: "is too long" };
    assert_eq!(chat(named(MODEL_BYTES_MAX + 1).as_bytes()), Err(refusal));
}

#[test]
fn a_field_that_two_readers_could_read_differently_is_refused() {
    for field in [
        "model",
        "messages",
        "stream",
        "stream_options",
        "max_tokens",
        "max_completion_tokens",
        "max_output_tokens",
        "max_new_tokens",
        "n_predict",
        "n",
        "service_tier",
        "tools",
        "web_search_options",
        "plugins",
    ] {
        let twice = format!(r#","{field}":null,"{field}":null"#);
        check_refused(&twice, &format!("`{field}` appears twice"));
        let upper = format!(r#","{}":null"#, field.to_uppercase());
        check_refused(&upper, &format!("`{field}` must be written in lower case"));
    }
    check_refused(r#","stream":true,"str\u0065am":false"#, "`stream` appears twice");
    check_refused(r#","max_to\u212aens":9"#, "`max_tokens` must be written in lower case");
    check_refused(
        r#","stream_options":{"include_usage":true,"include_usage":false}"#,
        "`include_usage` appears twice",
    );
    check_refused(
        r#","stream_options":{"Include_Usage":true}"#,
        "`include_usage` must be written in lower case",
    );
    read(&body(r#","user":"a","user":"b","User":"c""#));
}

#[test]
fn only_one_json_object_is_a_body() {
    let not_json = |body: &[u8]| {
        let refusal = chat(body).expect_err("no body");
        assert!(matches!(refusal, PeekRefusal::NotJson { .. }), "{refusal}");
    };
    for bad in ["", " ", "{", "{]", "nonsense", "[1", r#"{"model":"m",}"#, "\u{feff}{}"] {
        not_json(bad.as_bytes());
    }
    not_json(format!("{} {{}}", body("")).as_bytes());
    not_json(format!("{}x", body("")).as_bytes());
    not_json(b"{\"model\":\"\xff\"}");
    // Not JSON wins over the field that comes before the mistake.
    not_json(br#"{"model":1"#);
    for other in ["[]", r#"[{"model":"m"}]"#, "1", r#""{}""#, "null", " [1] "] {
        assert_eq!(chat(other.as_bytes()), Err(PeekRefusal::NotAnObject), "{other}");
    }
}

#[test]
fn depth_costs_no_stack() {
    let deep = format!("{}{}", "[".repeat(1_000_000), "]".repeat(1_000_000));
    read(&format!(r#"{{"model":"m","messages":[1],"x":{deep}}}"#));
    assert_eq!(chat(deep.as_bytes()), Err(PeekRefusal::NotAnObject));
}

#[test]
fn where_usage_can_be_asked_for_is_found() {
    let check = |options: &str, expected: &str, include_usage: bool| {
        let body = body(&format!(r#","stream":true{options}"#));
        let peeked = read(&body);
        let ask = match &peeked.usage_ask {
            UsageAsk::Told => "told".to_owned(),
            UsageAsk::Asked => "asked".to_owned(),
            UsageAsk::NoOptions => "none".to_owned(),
            UsageAsk::NullOptions(at) | UsageAsk::Refused(at) => body[at.clone()].to_owned(),
            UsageAsk::InOptions { open, is_empty } => format!("{} {is_empty}", &body[*open..]),
        };
        assert_eq!((ask.as_str(), peeked.include_usage), (expected, include_usage), "{body}");
    };
    check("", "none", false);
    check(r#","stream_options":null"#, "null", false);
    check(r#","stream_options": { }"#, "{ }} true", false);
    check(r#","stream_options":{"a":1}"#, r#"{"a":1}} false"#, false);
    check(r#","stream_options":{"include_usage" : false }"#, "false", false);
    check(r#","stream_options":{"include_usage":null}"#, "null", false);
    check(r#","stream_options":{"include_usage":true}"#, "asked", true);
}

proptest! {
    #[test]
    fn noise_is_refused_and_never_a_panic(body in any::<Vec<u8>>()) {
        prop_assert!(chat(&body).is_err());
    }

    #[test]
    fn what_is_read_is_what_was_written(
        model in "\\PC{1,40}",
        stream in any::<Option<bool>>(),
        limit in prop::option::of(1..=OUTPUT_LIMIT_MAX),
        n in prop::option::of(1..=N_MAX),
        pretty in any::<bool>(),
    ) {
        let value = serde_json::json!({
            "model": model, "messages": ["hi"], "stream": stream, "max_tokens": limit, "n": n,
        });
        let body = match pretty {
            true => serde_json::to_vec_pretty(&value),
            false => serde_json::to_vec(&value),
        }.expect("a value can be written");
        let peeked = chat(&body).expect("a good body");
        prop_assert_eq!(&peeked.model, &model);
        prop_assert_eq!(peeked.stream, stream.unwrap_or(false));
        prop_assert_eq!(peeked.output_limit, limit);
        prop_assert_eq!(peeked.n, n.unwrap_or(1));
        prop_assert_eq!(body.get(end_of(&peeked)), Some(&b'}'));
    }
}

/// Any JSON, with the names and the kinds that mean something here, and no image or audio in it.
pub(super) fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let text = prop::sample::select(vec![
        "text",
        "image_url",
        "input_image",
        "input_text",
        "image",
        "tool_result",
        "message",
        "low",
        "base64",
        "image/png",
        "https://example.com",
        "function",
        "web_search",
        "DATA:text/plain,",
        "xdata:image/png;base64,AAAA",
        "function_call_output",
        "computer_call_output",
        "x",
    ]);
    let leaf = prop_oneof![
        4 => text.prop_map(serde_json::Value::from),
        1 => any::<String>().prop_map(|text| serde_json::Value::from(format!("x{text}"))),
        1 => any::<i64>().prop_map(serde_json::Value::from),
        1 => any::<bool>().prop_map(serde_json::Value::from),
        1 => Just(serde_json::Value::Null),
    ];
    let names = prop::sample::select(vec![
        "type",
        "content",
        "output",
        "image_url",
        "url",
        "detail",
        "source",
        "input_audio",
        "file",
        "file_id",
        "role",
        "text",
        "image",
        "images",
        "max_uses",
        "media_type",
        "x",
    ]);
    leaf.prop_recursive(6, 64, 6, move |inner| {
        prop_oneof![
            1 => prop::collection::vec(inner.clone(), 0..6).prop_map(serde_json::Value::from),
            2 => prop::collection::btree_map(names.clone(), inner, 0..6)
                .prop_map(|members| serde_json::json!(members)),
        ]
    })
}

proptest! {
    #[test]
    fn noise_with_any_type_is_refused_and_never_a_panic(
        route in prop::sample::select(&Route::ALL[..]),
        content_type in "(application/json|multipart/form-data; boundary=b|\\PC{0,20})",
        body in any::<Vec<u8>>(),
    ) {
        prop_assert!(super::read(route, Some(&content_type), &body).is_err());
    }

    #[test]
    fn whatever_is_no_image_and_no_audio_in_a_body_is_text(
        route in prop::sample::select(&Route::ALL[..]),
        (messages, input, other) in (any_json(), any_json(), any_json()),
    ) {
        let value = serde_json::json!({
            "model": "m", "max_tokens": 9, "query": "q", "prompt": "p",
            "messages": [messages], "input": [input], "system": other, "documents": [other],
            "image": other,
        });
        let body = value.to_string();
        if let Ok(peeked) = super::read(route, None, body.as_bytes()) {
            // A query is counted again with every document.
            let again = if route == Route::Rerank { 3 } else { 0 };
            let whole = u64::try_from(body.len()).expect("short");
            prop_assert_eq!(peeked.demand.text_bytes, whole + again);
        }
    }

    #[test]
    fn text_is_never_less_than_what_is_written(
        texts in prop::collection::vec("\\PC{0,30}", 1..5),
        image in "[A-Za-z0-9+/]{0,200}",
        escaped in any::<bool>(),
    ) {
        let url = format!("data:image/png;base64,{image}");
        let mut parts: Vec<_> =
            texts.iter().map(|text| serde_json::json!({"type": "text", "text": text})).collect();
        parts.push(serde_json::json!({"type": "image_url", "image_url": {"url": url}}));
        let tools = [serde_json::json!({
            "type": "function", "function": {"name": "f", "description": url},
        })];
        let value = serde_json::json!({
            "model": "m", "tools": tools, "messages": [{"role": "user", "content": parts}],
        });
        let slash = if escaped { "\\/" } else { "/" };
        let body = value.to_string().replace('/', slash);
        let demand = read(&body).demand;
        let written: usize = texts.iter().map(String::len).sum::<usize>() + url.len();
        prop_assert!(demand.text_bytes >= u64::try_from(written).expect("short"));
        prop_assert_eq!((demand.images_high, demand.is_open), (1, false));
        // What an upstream says of tools is counted too.
        let whole = u64::try_from(body.len()).expect("short") + 1024;
        prop_assert!(demand.text_bytes <= whole - u64::try_from(url.len()).expect("short"));
    }

    #[test]
    fn a_form_is_read_the_same_whatever_its_file_holds(
        file in prop::collection::vec(any::<u8>(), 0..300),
        model in "[!-~]{1,40}",
    ) {
        let body = form(&[("model", &model)], &[("file", "a.mp3", &file)]);
        let content_type = Some("multipart/form-data; boundary=b");
        let peeked = super::read(Route::Transcriptions, content_type, &body);
        let holds = |bytes: &[u8]| bytes.windows(3).any(|window| window == b"--b");
        if holds(&file) || holds(model.as_bytes()) {
            prop_assert!(peeked.is_err());
        } else {
            let Peeked { model: read, demand, model_span, .. } = peeked.expect("a form");
            prop_assert_eq!(&*read, &model);
            prop_assert_eq!(&body[model_span], model.as_bytes());
            prop_assert_eq!(demand.text_bytes, u64::try_from(body.len() - file.len()).expect("short"));
        }
    }
}
