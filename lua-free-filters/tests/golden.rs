//! Answers of the kinds that upstreams give, and what must come of them.
//!
//! `tests/golden/NAME.sse` is a stream; `NAME.shown.sse` is what a client that asked for usage
//! gets of it, `NAME.hidden.sse` what any other gets, and `NAME.verdict` what is concluded.
//! `NAME.json` is a body, `NAME.annotated.json` what the client gets. A file of output that is
//! the same as its input is left out.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use lua_free_filters::{Counts, DocumentTap, End, EventTap, Route, Usage};
use proptest::prelude::*;

#[test]
fn streams_give_the_expected_output_and_verdict() {
    for file in files("sse") {
        let stream = read(&file);
        let (shown, verdict) = run(true, &[&stream]);
        let (hidden, hidden_verdict) = run(false, &[&stream]);
        assert_eq!(verdict, hidden_verdict, "showing changes no conclusion: {}", file.display());
        check(&file, "verdict", verdict.as_bytes());
        check_output(&file, "shown.sse", &stream, &shown);
        check_output(&file, "hidden.sse", &stream, &hidden);
    }
}

#[test]
fn streams_do_not_depend_on_where_they_are_cut() {
    for file in files("sse") {
        let stream = read(&file);
        for show in [true, false] {
            let whole = run(show, &[&stream]);
            for cut in 0..stream.len() {
                let (head, tail) = stream.split_at(cut);
                assert_eq!(run(show, &[head, tail]), whole, "{} cut at {cut}", file.display());
            }
            let bytes: Vec<&[u8]> = stream.chunks(1).collect();
            assert_eq!(run(show, &bytes), whole, "{} byte by byte", file.display());
        }
    }
}

proptest! {
    #[test]
    fn streams_do_not_depend_on_how_often_they_are_cut(
        which in any::<prop::sample::Index>(),
        lens in prop::collection::vec(1usize..200, 1..50),
        show in any::<bool>(),
    ) {
        let files = files("sse");
        let stream = read(which.get::<PathBuf>(&files));
        let mut chunks = Vec::new();
        let mut rest = stream.as_slice();
        for len in lens.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (head, tail) = rest.split_at((*len).min(rest.len()));
            chunks.push(head);
            rest = tail;
        }
        prop_assert_eq!(run(show, &chunks), run(show, &[&stream]));
    }
}

#[test]
fn a_stream_let_through_piece_by_piece_is_the_same_stream() {
    for file in files("sse") {
        let stream = read(&file);
        for show in [true, false] {
            let whole = run(show, &[&stream]);
            for text_bytes in 1..20 {
                let in_one = in_pieces(show, &[&stream], text_bytes);
                assert_eq!(in_one, whole, "{} by {text_bytes}", file.display());
                let bytes: Vec<&[u8]> = stream.chunks(1).collect();
                let by_byte = in_pieces(show, &bytes, text_bytes);
                assert_eq!(by_byte, whole, "{} by {text_bytes}, byte by byte", file.display());
            }
        }
    }
}

#[test]
fn a_stream_that_is_cut_where_the_money_ends_is_whole_up_to_there_and_closes() {
    for file in files("sse") {
        let stream = read(&file);
        let whole = run(true, &[&stream]).0;
        for text_bytes in 0..40 {
            let (passed, closing, usage) = cut(&[&stream], text_bytes);
            let name = file.display();
            assert!(whole.starts_with(&passed), "{name} at {text_bytes}");
            assert!(passed.is_empty() || passed.ends_with(b"\n") || passed.ends_with(b"\r"));
            assert!(delivered(&usage).is_none_or(|bytes| bytes <= text_bytes), "{name}");
            if let Some(closing) = &closing {
                assert!(closing.starts_with("data: {") && closing.ends_with("}\n\n"), "{name}");
            }
            let bytes: Vec<&[u8]> = stream.chunks(1).collect();
            assert_eq!(cut(&bytes, text_bytes), (passed, closing, usage), "{name} byte by byte");
        }
    }
}

#[test]
fn bodies_give_the_expected_output_and_verdict() {
    for file in files("json") {
        let body = read(&file);
        let Ok(answer) = DocumentTap::read(Route::ChatCompletions, &body) else {
            check(&file, "verdict", b"not a JSON object\n");
            continue;
        };
        let verdict = format!(
            "usage: {:?}\ndelivered: {:?}\nerrored: {}\n",
            answer.usage, answer.delivered, answer.errored
        );
        check(&file, "verdict", verdict.as_bytes());
        let members = answer.usage.map(|usage| price(&usage)).unwrap_or_default();
        let annotated = DocumentTap::annotate(&body, &answer, &members);
        check_output(&file, "annotated.json", &body, &annotated);
    }
}

/// Puts a stream through a tap in these chunks. The verdict tells both ends of it.
fn run(show: bool, chunks: &[&[u8]]) -> (Vec<u8>, String) {
    let mut clean = EventTap::new(Route::ChatCompletions, show);
    let mut output = Vec::new();
    for chunk in chunks {
        output.extend_from_slice(&clean.push(Bytes::copy_from_slice(chunk), &mut price));
    }
    finish(clean, output)
}

fn finish(mut clean: EventTap, mut output: Vec<u8>) -> (Vec<u8>, String) {
    let mut broken = clean.clone();
    let (held, usage) = clean.finish(End::Clean);
    output.extend_from_slice(&held);
    let verdict = format!(
        "clean: {usage:?}\nbroken: {:?}\ndelivered: {:?}\ndone: {}\nerrored: {}\n",
        broken.finish(End::Broken).1,
        clean.delivered(),
        clean.done(),
        clean.errored()
    );
    (output, verdict)
}

fn delivered(usage: &Usage) -> Option<u64> {
    match usage {
        Usage::Partial(delivered) => Some(delivered.text_bytes),
        Usage::Reported(_) | Usage::Nothing => None,
    }
}

/// As [`run`], with so many more bytes of text afforded whenever they are used up.
fn in_pieces(show: bool, chunks: &[&[u8]], text_bytes: u64) -> (Vec<u8>, String) {
    let mut tap = EventTap::new(Route::ChatCompletions, show);
    let mut output = Vec::new();
    let mut covered = text_bytes;
    for chunk in chunks {
        let mut next = Some(Bytes::copy_from_slice(chunk));
        while let Some(chunk) = next.take() {
            let mut afforded = |usage: &Usage| delivered(usage).is_none_or(|n| n <= covered);
            let (passed, withheld) = tap.push_while(chunk, &mut price, &mut afforded);
            output.extend_from_slice(&passed);
            next = withheld.map(|withheld| withheld.bytes);
            covered += if next.is_some() { text_bytes } else { 0 };
        }
    }
    finish(tap, output)
}

/// What passes until the text that is afforded is used up, and how the stream is then ended.
fn cut(chunks: &[&[u8]], text_bytes: u64) -> (Vec<u8>, Option<String>, Usage) {
    let mut tap = EventTap::new(Route::ChatCompletions, true).with_closing();
    let mut output = Vec::new();
    for chunk in chunks {
        let chunk = Bytes::copy_from_slice(chunk);
        let mut afforded = |usage: &Usage| delivered(usage).is_none_or(|n| n <= text_bytes);
        let (passed, withheld) = tap.push_while(chunk, &mut price, &mut afforded);
        output.extend_from_slice(&passed);
        if withheld.is_some() {
            break;
        }
    }
    let usage = tap.finish(End::Broken).1;
    (output, tap.closing(), usage)
}

fn price(tokens: &Counts) -> String {
    let total = 2 * (tokens.input - tokens.cached_input) + tokens.cached_input + 5 * tokens.output;
    format!(r#""cost":{{"total_msats":{total}}},"cost_sats":{}"#, total.div_ceil(1000))
}

/// The inputs of one kind: their names have one dot.
fn files(kind: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let entries = fs::read_dir(folder).expect("the folder is part of the repository");
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("the folder can be listed").path())
        .filter(|path| path.file_name().is_some_and(|name| is_input(name.to_str(), kind)))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "there are golden files of {kind}");
    files
}

fn is_input(name: Option<&str>, kind: &str) -> bool {
    name.and_then(|name| name.split_once('.')).is_some_and(|(_, rest)| rest == kind)
}

fn read(file: &Path) -> Vec<u8> {
    fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn check_output(input: &Path, extension: &str, unchanged: &[u8], output: &[u8]) {
    if output == unchanged {
        let file = input.with_extension(extension);
        assert!(!file.exists(), "{} should differ from its input", file.display());
    } else {
        check(input, extension, output);
    }
}

fn check(input: &Path, extension: &str, output: &[u8]) {
    let file = input.with_extension(extension);
    let (expected, output) = (read(&file), String::from_utf8_lossy(output));
    assert_eq!(String::from_utf8_lossy(&expected), output, "{}", file.display());
}
