//! What holds for the streams of every route, whatever is in them and however they are cut.

use bytes::Bytes;
use lua_free_filters::sse::EVENT_BYTES_MAX;
use lua_free_filters::{Counts, End, EventTap, Route, Usage};
use proptest::prelude::*;
use serde_json::{Value, json};

/// The routes that answer with streams.
const STREAMED: [Route; 9] = [
    Route::ChatCompletions,
    Route::Completions,
    Route::Responses,
    Route::Messages,
    Route::Speech,
    Route::Transcriptions,
    Route::Translations,
    Route::ImageGenerations,
    Route::ImageEdits,
];

#[test]
fn a_chunk_without_usage_goes_on_as_the_same_bytes_in_the_same_place() {
    for route in STREAMED {
        let mut tap = EventTap::new(route, true);
        let chunk = Bytes::from(stream(&[given(route, "a \"usage\":{}"), given(route, "b")]));
        let out = tap.push(chunk.clone(), &mut |_| unreachable!("there is no usage"));
        assert_eq!((out.as_ptr(), out.len()), (chunk.as_ptr(), chunk.len()), "{route:?}");
    }
}

#[test]
fn usage_in_an_event_too_large_to_hold_is_read_and_its_cost_is_added() {
    for route in STREAMED {
        let large = large_end(route, "x".repeat(EVENT_BYTES_MAX));
        let whole = stream(&[given(route, "a"), large.clone()]);
        for len in [whole.len(), 1000] {
            let (out, usage) = run(route, true, &whole, &mut [len].into_iter().cycle());
            let name = format!("{route:?} by {len}");
            let Usage::Reported(counts) = usage else { panic!("{name}: {usage:?}") };
            assert_eq!((counts.input, counts.output), (30, 7), "{name}");
            let images = matches!(route, Route::ImageGenerations | Route::ImageEdits);
            assert_eq!(counts.images, u64::from(images), "{name}");
            assert_eq!(out.len(), whole.len() + COST.len() + 1, "{name}");
            let mut expected = large.clone();
            usage_of(route, &mut expected)["cost"] = json!(9);
            assert_eq!(events(&out).last(), Some(&expected), "{name}");
        }
    }
}

#[test]
fn an_event_too_large_to_hold_passes_as_it_comes() {
    for route in STREAMED {
        let mut tap = EventTap::new(route, true);
        let event = stream(&[large_end(route, "x".repeat(2 * EVENT_BYTES_MAX))]);
        let (mut came, mut went) = (0, 0);
        for chunk in event.as_bytes().chunks(64 << 10) {
            came += chunk.len();
            went += tap.push(Bytes::copy_from_slice(chunk), &mut |_| String::new()).len();
            assert!(came - went <= EVENT_BYTES_MAX, "{route:?}: what is held is bounded");
            assert!(came <= EVENT_BYTES_MAX || came == went, "{route:?}: and then nothing is");
        }
        assert_eq!(tap.oversized(), 1, "{route:?}");
    }
}

#[test]
fn a_large_event_that_breaks_off_has_no_more_than_it_said() {
    let large = stream(&[large_end(Route::Responses, "x".repeat(2 * EVENT_BYTES_MAX))]);
    let at = large.find("\"usage\"").expect("it has usage");
    for (cut, is_known) in [(at, false), (at + 20, false), (large.len() - 4, true)] {
        let mut tap = EventTap::new(Route::Responses, true);
        tap.push(Bytes::copy_from_slice(&large.as_bytes()[..cut]), &mut |_| String::new());
        let usage = tap.finish(End::Broken).1;
        assert_eq!(matches!(usage, Usage::Reported(_)), is_known, "{usage:?}");
        assert!(is_known || matches!(usage, Usage::Partial { .. }), "{usage:?}");
    }
}

#[test]
fn usage_of_a_large_event_is_counted_but_not_shown_to_who_did_not_ask() {
    let large = large_end(Route::ChatCompletions, "x".repeat(2 * EVENT_BYTES_MAX));
    let whole = stream(&[large]);
    let (out, usage) = run(Route::ChatCompletions, false, &whole, &mut [9999].into_iter().cycle());
    assert!(matches!(usage, Usage::Reported(_)), "{usage:?}");
    assert!(out == whole, "what cannot be held cannot be hidden, and is not added to");
}

#[test]
fn a_list_that_hides_usage_behind_a_million_small_things_loses_nothing() {
    let tools: Vec<Value> = (0..60_000).map(|n| json!({"type": "function", "n": n})).collect();
    let mut end = large_end(Route::Responses, String::new());
    end["response"]["tools"] = json!(tools);
    let mut metadata = serde_json::Map::new();
    metadata.extend((0..60_000).map(|n| (format!("usage{n}"), json!("usage"))));
    end["response"]["metadata"] = Value::Object(metadata);
    let whole = stream(&[end]);
    assert!(whole.len() > 2 * EVENT_BYTES_MAX);
    let (_, usage) = run(Route::Responses, true, &whole, &mut [4096].into_iter().cycle());
    assert!(matches!(usage, Usage::Reported(Counts { input: 30, output: 7, .. })), "{usage:?}");
}

proptest! {
    #[test]
    fn no_text_changes_what_is_concluded_nor_does_any_cut(
        route in prop::sample::select(STREAMED.to_vec()),
        texts in prop::collection::vec(any_text(), 1..6),
        lens in prop::collection::vec(1_usize..120, 1..20),
        is_whole in any::<bool>(),
        show in any::<bool>(),
    ) {
        let mut events: Vec<Value> = start(route).into_iter().collect();
        events.extend(texts.iter().map(|text| given(route, text)));
        let silent = [Route::Speech, Route::ImageGenerations, Route::ImageEdits];
        let has_text = !silent.contains(&route);
        let text_bytes: usize = texts.iter().map(|text| text.len() * usize::from(has_text)).sum();
        if is_whole {
            events.push(large_end(route, texts.concat()));
        }
        let whole = stream(&events);
        let (out, usage) = run(route, show, &whole, &mut lens.iter().copied().cycle());
        match (usage, is_whole) {
            (Usage::Reported(counts), true) => {
                prop_assert_eq!((counts.input, counts.output), (30, 7));
            }
            (Usage::Partial { delivered, known }, false) => {
                prop_assert_eq!(delivered.text_bytes, text_bytes as u64);
                let told = if route == Route::Messages { (30, 1) } else { (0, 0) };
                prop_assert_eq!((known.input, known.output), told);
            }
            (Usage::Nothing, false) => prop_assert_eq!(text_bytes, 0),
            (usage, _) => prop_assert!(false, "{:?}", usage),
        }
        let (uncut, concluded) = run(route, show, &whole, &mut std::iter::repeat(whole.len()));
        prop_assert_eq!(out, uncut);
        prop_assert_eq!(usage, concluded);
    }

    #[test]
    fn any_bytes_pass_every_tap_that_shows_usage(
        route in prop::sample::select(STREAMED.to_vec()),
        chunks in prop::collection::vec(any::<Vec<u8>>(), 0..8),
    ) {
        let mut tap = EventTap::new(route, true);
        let mut out = Vec::new();
        for chunk in &chunks {
            out.extend_from_slice(&tap.push(Bytes::from(chunk.clone()), &mut |_| String::new()));
        }
        out.extend_from_slice(&tap.finish(End::Clean).0);
        prop_assert_eq!(out, chunks.concat());
    }
}

const COST: &str = r#""cost":9"#;

fn any_text() -> impl Strategy<Value = String> {
    let traps = [
        r#""usage":{"input_tokens":1,"output_tokens":1}"#,
        "data: [DONE]\n\n",
        r#"","type":"response.completed","response":{"usage":{}}}"#,
        "event: message_stop\r\n",
        "\\\"\\",
    ];
    prop_oneof![any::<String>(), prop::sample::select(traps.to_vec()).prop_map(String::from)]
}

/// An event that gives this, in the dialect of the route.
fn given(route: Route, text: &str) -> Value {
    match route {
        Route::Completions => json!({"choices": [{"text": text, "index": 0}]}),
        Route::Responses => json!({"type": "response.output_text.delta", "delta": text}),
        Route::Messages => {
            json!({"type": "content_block_delta", "delta": {"type": "text_delta", "text": text}})
        }
        Route::Speech => json!({"type": "speech.audio.delta", "audio": text}),
        Route::ImageGenerations => {
            json!({"type": "image_generation.partial_image", "b64_json": text})
        }
        Route::ImageEdits => json!({"type": "image_edit.partial_image", "b64_json": text}),
        Route::Transcriptions | Route::Translations => {
            json!({"type": "transcript.text.delta", "delta": text})
        }
        _ => json!({"choices": [{"index": 0, "delta": {"content": text}}]}),
    }
}

fn start(route: Route) -> Option<Value> {
    let usage = json!({"input_tokens": 20, "cache_read_input_tokens": 10, "output_tokens": 1});
    let message = json!({"id": "m", "content": [], "usage": usage});
    (route == Route::Messages).then(|| json!({"type": "message_start", "message": message}))
}

/// The event with the totals, which repeats `text` where its dialect repeats anything.
fn large_end(route: Route, text: String) -> Value {
    let usage = json!({"input_tokens": 30, "output_tokens": 7, "total_tokens": 37});
    match route {
        Route::Responses => {
            let output = json!([{"type": "message", "content": [{"text": text}]}]);
            let response = json!({"id": "r", "output": output, "usage": usage});
            json!({"type": "response.completed", "response": response})
        }
        Route::Messages => {
            let usage =
                json!({"input_tokens": 20, "cache_read_input_tokens": 10, "output_tokens": 7});
            let delta = json!({"stop_reason": "stop_sequence", "stop_sequence": text});
            json!({"type": "message_delta", "delta": delta, "usage": usage})
        }
        Route::Speech => json!({"type": "speech.audio.done", "note": text, "usage": usage}),
        Route::ImageGenerations => {
            json!({"type": "image_generation.completed", "b64_json": text, "usage": usage})
        }
        Route::ImageEdits => {
            json!({"type": "image_edit.completed", "b64_json": text, "usage": usage})
        }
        Route::Transcriptions | Route::Translations => {
            json!({"type": "transcript.text.done", "text": text, "usage": usage})
        }
        _ => json!({"choices": [], "prompt_filter_results": text, "usage": usage}),
    }
}

fn usage_of(route: Route, event: &mut Value) -> &mut Value {
    match route {
        Route::Responses => &mut event["response"]["usage"],
        _ => &mut event["usage"],
    }
}

fn stream(events: &[Value]) -> String {
    events.iter().map(|event| format!("data: {}\n\n", type_first(event))).collect()
}

/// As upstreams write it.
fn type_first(event: &Value) -> String {
    let mut event = event.clone();
    match event.as_object_mut().and_then(|event| event.remove("type")) {
        Some(kind) => event.to_string().replacen('{', &format!(r#"{{"type":{kind},"#), 1),
        None => event.to_string(),
    }
}

fn events(stream: &str) -> Vec<Value> {
    let data = stream.lines().filter_map(|line| line.strip_prefix("data: "));
    data.map(|data| serde_json::from_str(data).expect("JSON stays JSON")).collect()
}

fn run(
    route: Route,
    show: bool,
    stream: &str,
    lens: &mut dyn Iterator<Item = usize>,
) -> (String, Usage) {
    let mut tap = EventTap::new(route, show);
    let mut out = Vec::new();
    let mut rest = stream.as_bytes();
    while let (false, Some(len)) = (rest.is_empty(), lens.next()) {
        let (head, tail) = rest.split_at(len.min(rest.len()));
        out.extend_from_slice(&tap.push(Bytes::copy_from_slice(head), &mut |_| COST.to_owned()));
        rest = tail;
    }
    let (held, usage) = tap.finish(End::Clean);
    out.extend_from_slice(&held);
    (String::from_utf8(out).expect("UTF-8 went in"), usage)
}
