use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::sse::EVENT_BYTES_MAX;

const TEXT: &str = r#"data: {"choices":[{"delta":{"content":"Hi"}}]}"#;
const USAGE: &str = r#"data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}"#;
const TOKENS: Counts = Counts { input: 3, output: 2, ..Counts::NONE };

/// What is concluded when nothing is known but this.
fn partial(events: u64, text_bytes: u64) -> Usage {
    Usage::Partial { delivered: Delivered { events, text_bytes }, known: Counts::NONE }
}

fn push(tap: &mut EventTap, chunk: &str) -> String {
    let out = tap.push(Bytes::copy_from_slice(chunk.as_bytes()), &mut |_| r#""cost":1"#.to_owned());
    String::from_utf8(out.to_vec()).expect("UTF-8 went in")
}

/// What is concluded of a stream that ends like this.
fn check(events: &[&str], end: End, expected: Usage) {
    for show in [true, false] {
        let mut tap = EventTap::new(Route::ChatCompletions, show);
        for event in events {
            push(&mut tap, event);
            push(&mut tap, "\n\n");
        }
        assert_eq!(tap.finish(end).1, expected, "{events:?}");
    }
}

#[test]
fn a_chunk_in_which_nothing_changes_is_not_copied() {
    let mut tap = EventTap::new(Route::ChatCompletions, true);
    let chunk = Bytes::from(format!(": note\n\n{TEXT}\n\n{TEXT}\n\n"));
    let out = tap.push(chunk.clone(), &mut |_| unreachable!("no usage"));
    assert_eq!((out.as_ptr(), out.len()), (chunk.as_ptr(), chunk.len()));

    let chunk = Bytes::from(format!("{TEXT}\n\n{TEXT}"));
    let out = tap.push(chunk.clone(), &mut |_| unreachable!("no usage"));
    assert_eq!((out.as_ptr(), out.len()), (chunk.as_ptr(), TEXT.len() + 2));
}

#[test]
fn an_event_goes_on_with_its_blank_line_and_not_before() {
    let mut tap = EventTap::new(Route::ChatCompletions, true);
    assert_eq!(push(&mut tap, &TEXT[..20]), "");
    assert_eq!(push(&mut tap, &TEXT[20..]), "");
    assert_eq!(push(&mut tap, "\n"), "");
    assert_eq!(push(&mut tap, "\ndata: n"), format!("{TEXT}\n\n"));
    assert_eq!(push(&mut tap, "ext\r\n\r"), "data: next\r\n\r");
    assert_eq!(push(&mut tap, "\n"), "\n");
}

#[test]
fn what_straggles_behind_a_removed_event_goes_with_it() {
    let mut tap = EventTap::new(Route::ChatCompletions, false);
    assert_eq!(push(&mut tap, &format!("{USAGE}\r\n\r")), "");
    assert_eq!(push(&mut tap, &format!("\n{TEXT}\r\n\r\n")), format!("{TEXT}\r\n\r\n"));
}

#[test]
fn an_event_that_is_not_afforded_is_given_back_with_all_that_follows() {
    let events = format!("{TEXT}\n\n{TEXT}\n\n{USAGE}\n\n");
    let mut tap = EventTap::new(Route::ChatCompletions, true);
    let mut asked = Vec::new();
    let mut once = |usage: &Usage| {
        asked.push(*usage);
        asked.len() == 1
    };
    let chunk = Bytes::from(events.clone());
    let (passed, withheld) = tap.push_while(chunk.clone(), &mut |_| String::new(), &mut once);
    let withheld = withheld.expect("the second text was not afforded");
    assert_eq!(passed, format!("{TEXT}\n\n"));
    assert_eq!(withheld.bytes, format!("{TEXT}\n\n{USAGE}\n\n"));
    assert_eq!(withheld.bytes.as_ptr(), chunk[passed.len()..].as_ptr(), "a slice, not a copy");
    assert_eq!(withheld.usage, partial(2, 4));
    assert_eq!(asked, [partial(1, 2), partial(2, 4)]);
    assert_eq!(tap.usage(), partial(1, 2), "what was withheld was not delivered");
    let rest = std::str::from_utf8(&withheld.bytes).expect("UTF-8");
    assert!(push(&mut tap, rest).starts_with(&format!("{TEXT}\n\n")));
    assert_eq!(tap.finish(End::Clean).1, Usage::Reported(TOKENS));
}

#[test]
fn a_mark_before_an_event_that_was_withheld_is_known_again() {
    let mut tap = EventTap::new(Route::ChatCompletions, true);
    let chunk = Bytes::from(format!("\u{feff}{TEXT}\n\n"));
    let (_, withheld) = tap.push_while(chunk.clone(), &mut |_| String::new(), &mut |_| false);
    assert_eq!(withheld.expect("nothing is afforded").bytes, chunk);
    let (_, withheld) = tap.push_while(chunk.clone(), &mut |_| String::new(), &mut |_| false);
    assert_eq!(withheld.expect("it is read again").bytes, chunk);
}

#[test]
fn totals_count_only_when_no_text_comes_after_them() {
    check(&[TEXT, USAGE], End::Clean, Usage::Reported(TOKENS));
    check(&[TEXT, USAGE], End::Broken, Usage::Reported(TOKENS));
    let delivered = Delivered { events: 1, text_bytes: 2 };
    check(&[USAGE, TEXT], End::Clean, Usage::Partial { delivered, known: TOKENS });
    check(&[USAGE, TEXT, USAGE], End::Clean, Usage::Reported(TOKENS));
    check(&[TEXT], End::Clean, partial(1, 2));
    check(&[TEXT], End::Broken, partial(1, 2));
    check(&[], End::Clean, Usage::Nothing);
}

#[test]
fn the_last_of_several_totals_counts() {
    let more = USAGE.replace(":2}", ":7}");
    check(&[TEXT, USAGE, &more], End::Clean, Usage::Reported(Counts { output: 7, ..TOKENS }));
}

#[test]
fn an_answer_that_only_begins_or_fails_delivered_nothing() {
    let begin = r#"data: {"choices":[{"delta":{"role":"assistant","content":""}}]}"#;
    let failed = r#"data: {"choices":[{"delta":{},"finish_reason":"error"}],"error":{"code":1}}"#;
    check(&[": wait", begin, failed], End::Clean, Usage::Nothing);
    let ended = r#"data: {"choices":[{"delta":{},"finish_reason":"stop"}]}"#;
    check(&[begin, ended], End::Clean, partial(1, 0));
}

#[test]
fn done_and_error_are_said_only_when_they_were_seen() {
    let mut tap = EventTap::new(Route::ChatCompletions, true);
    push(&mut tap, "data: {\"error\":null,\"x\":{\"error\":1}}\n\ndata: \"[DONE]\"\n\n");
    assert!(!tap.done() && !tap.errored());
    push(&mut tap, "data: {\"error\":{}}\n\ndata: [DONE]");
    assert!(tap.errored() && !tap.done(), "an event counts with its blank line");
    push(&mut tap, "\n\n");
    assert!(tap.done());
}

#[test]
fn an_error_that_carries_usage_is_never_hidden() {
    let mut tap = EventTap::new(Route::ChatCompletions, false);
    let event = r#"data: {"error":{"code":1},"usage":{"prompt_tokens":3,"completion_tokens":2}}"#;
    assert_eq!(push(&mut tap, &format!("{event}\n\n")), "data: {\"error\":{\"code\":1}}\n\n");
    assert_eq!(tap.finish(End::Clean).1, Usage::Reported(TOKENS));
}

#[test]
fn half_an_event_goes_on_after_a_clean_end_only() {
    for (end, expected, usage) in
        [(End::Clean, TEXT, partial(1, 2)), (End::Broken, "", Usage::Nothing)]
    {
        let mut tap = EventTap::new(Route::ChatCompletions, false);
        assert_eq!(push(&mut tap, TEXT), "");
        assert_eq!(tap.finish(end), (Bytes::from_static(expected.as_bytes()), usage));
    }
    for end in [End::Clean, End::Broken] {
        let mut tap = EventTap::new(Route::ChatCompletions, false);
        push(&mut tap, USAGE);
        assert_eq!(tap.finish(end), (Bytes::new(), Usage::Reported(TOKENS)), "hidden, and counted");
    }
}

#[test]
fn an_event_too_large_goes_on_unread_and_counts_as_delivered() {
    let mut tap = EventTap::new(Route::ChatCompletions, false);
    let large = "x".repeat(EVENT_BYTES_MAX);
    let stream = format!("data: {large}\n\n{TEXT}\n\n");
    assert_eq!(push(&mut tap, &stream), stream);
    assert_eq!(tap.oversized(), 1);
    assert_eq!(tap.finish(End::Clean).1, partial(2, 2));
}

#[test]
fn members_that_are_not_json_are_left_out() {
    for members in ["", "nonsense", r#""a":"#, r#""a":1}"#, r#""a":1},{"#] {
        let mut tap = EventTap::new(Route::ChatCompletions, true);
        let chunk = Bytes::from(format!("{USAGE}\n\n"));
        assert_eq!(tap.push(chunk.clone(), &mut |_| members.to_owned()), chunk, "{members}");
    }
}

/// An event as JSON: with text or without, with usage, with `usage: null`, or without.
fn events() -> impl Strategy<Value = Vec<Value>> {
    let choices = prop_oneof![
        Just(json!([])),
        any::<String>().prop_map(|text| json!([{"index": 0, "delta": {"content": text}}])),
        any::<String>().prop_map(|text| {
            json!([{"delta": {"tool_calls": [{"function": {"arguments": text}}]}}])
        }),
    ];
    let usage = prop_oneof![
        Just(None),
        Just(Some(json!(null))),
        (1..9u64, 0..9u64).prop_map(|(i, o)| Some(
            json!({"prompt_tokens": i, "completion_tokens": o, "cost": 9})
        )),
    ];
    let event = (choices, usage, any::<bool>()).prop_map(|(choices, usage, usage_first)| {
        let mut event = serde_json::Map::new();
        if let (Some(usage), true) = (&usage, usage_first) {
            event.insert("usage".to_owned(), usage.clone());
        }
        event.insert("choices".to_owned(), choices);
        event.insert("id".to_owned(), json!("data: \"usage\""));
        if let (Some(usage), false) = (usage, usage_first) {
            event.insert("usage".to_owned(), usage);
        }
        Value::Object(event)
    });
    prop::collection::vec(event, 0..12)
}

/// The data of every event in a stream, as JSON.
fn values(stream: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(stream).expect("UTF-8 went in").replace("\r\n", "\n");
    let data = text.replace('\r', "\n");
    let data = data.lines().filter_map(|line| line.strip_prefix("data: "));
    data.map(|data| serde_json::from_str(data).expect("JSON stays JSON")).collect()
}

proptest! {
    #[test]
    fn a_client_sees_exactly_the_usage_it_is_to_see(
        events in events(),
        line_end in prop::sample::select(vec!["\n", "\r\n", "\r"]),
        lens in prop::collection::vec(1usize..90, 1..20),
        show in any::<bool>(),
    ) {
        let stream: String = events
            .iter()
            .map(|event| format!("data: {event}{line_end}{line_end}"))
            .collect();
        let mut tap = EventTap::new(Route::ChatCompletions, show);
        let mut out = Vec::new();
        let mut rest = stream.as_bytes();
        for len in lens.iter().cycle() {
            let (head, tail) = rest.split_at((*len).min(rest.len()));
            out.extend_from_slice(&tap.push(
                Bytes::copy_from_slice(head),
                &mut |tokens| format!("\"cost\":{{\"in\":{}}}", tokens.input),
            ));
            rest = tail;
            if rest.is_empty() {
                break;
            }
        }
        let (held, usage) = tap.finish(End::Clean);
        prop_assert!(held.is_empty());
        let mut expected = events.clone();
        let mut last = None;
        expected.retain_mut(|event| {
            let is_usage_only = event["choices"] == json!([]);
            let Some(usage) = event.get_mut("usage") else { return true };
            if let Some(input) = usage["prompt_tokens"].as_u64() {
                last = Some((input, usage["completion_tokens"].as_u64()));
                usage["cost"] = json!({"in": input});
            }
            let is_null = usage.is_null();
            if !show {
                event.as_object_mut().expect("an object").remove("usage");
            }
            show || is_null || !is_usage_only
        });
        prop_assert_eq!(values(&out), expected);
        if let Usage::Reported(tokens) = usage {
            prop_assert_eq!(last, Some((tokens.input, Some(tokens.output))));
        }
    }

    #[test]
    fn any_bytes_pass_a_tap_that_shows_usage(
        chunks in prop::collection::vec(any::<Vec<u8>>(), 0..8),
    ) {
        let mut tap = EventTap::new(Route::ChatCompletions, true);
        let mut out = Vec::new();
        for chunk in &chunks {
            out.extend_from_slice(&tap.push(Bytes::from(chunk.clone()), &mut |_| String::new()));
        }
        out.extend_from_slice(&tap.finish(End::Clean).0);
        prop_assert_eq!(out, chunks.concat());
    }
}
