//! Answers of the kinds that upstreams give, and what must come of them.
//!
//! There is a folder in `tests/golden` for each route. In it, `NAME.sse` is a stream;
//! `NAME.shown.sse` is what a client that asked for usage gets of it, `NAME.hidden.sse` what any
//! other gets (of chats and completions, where that is asked), and `NAME.sse.verdict` what is
//! concluded. `NAME.json` is a body, `NAME.annotated.json` what the client gets,
//! `NAME.json.verdict` what is concluded. A file of output that is the same as its input is left
//! out.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use lua_free_filters::{Counts, Delivered, DocumentTap, End, EventTap, PassingTap, Route, Usage};
use proptest::prelude::*;

#[test]
fn streams_give_the_expected_output_and_verdict() {
    for file in files("sse") {
        let stream = read(&file);
        let (shown, verdict) = run(&file, true, &[&stream]);
        let (hidden, hidden_verdict) = run(&file, false, &[&stream]);
        assert_eq!(verdict, hidden_verdict, "showing changes no conclusion: {}", file.display());
        check(&file, "sse.verdict", verdict.as_bytes());
        check_output(&file, "shown.sse", &stream, &shown);
        match showing(&file) {
            [true, false] => check_output(&file, "hidden.sse", &stream, &hidden),
            _ => assert_eq!(hidden, shown, "usage is a part of it: {}", file.display()),
        }
    }
}

#[test]
fn streams_do_not_depend_on_where_they_are_cut() {
    for file in files("sse") {
        let stream = read(&file);
        for &show in showing(&file) {
            let whole = run(&file, show, &[&stream]);
            for cut in 0..stream.len() {
                let (head, tail) = stream.split_at(cut);
                assert_eq!(
                    run(&file, show, &[head, tail]),
                    whole,
                    "{} cut at {cut}",
                    file.display()
                );
            }
            let bytes: Vec<&[u8]> = stream.chunks(1).collect();
            assert_eq!(run(&file, show, &bytes), whole, "{} byte by byte", file.display());
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
        let file = which.get::<PathBuf>(&files);
        let stream = read(file);
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
        prop_assert_eq!(run(file, show, &chunks), run(file, show, &[&stream]));
    }
}

#[test]
fn a_stream_let_through_piece_by_piece_is_the_same_stream() {
    for file in files("sse") {
        let stream = read(&file);
        for &show in showing(&file) {
            let whole = run(&file, show, &[&stream]);
            for text_bytes in [1, 2, 3, 5, 8, 13, 21] {
                let in_one = in_pieces(&file, show, &[&stream], text_bytes);
                assert_eq!(in_one, whole, "{} by {text_bytes}", file.display());
                let bytes: Vec<&[u8]> = stream.chunks(1).collect();
                let by_byte = in_pieces(&file, show, &bytes, text_bytes);
                assert_eq!(by_byte, whole, "{} by {text_bytes}, byte by byte", file.display());
            }
        }
    }
}

#[test]
fn a_stream_that_is_cut_where_the_money_ends_is_whole_up_to_there_and_closes() {
    for file in files("sse") {
        let stream = read(&file);
        let whole = run(&file, true, &[&stream]).0;
        for text_bytes in 0..40 {
            let (passed, closing, usage) = cut(&file, &[&stream], text_bytes);
            let name = file.display();
            assert!(whole.starts_with(&passed), "{name} at {text_bytes}");
            assert!(passed.is_empty() || passed.ends_with(b"\n") || passed.ends_with(b"\r"));
            assert!(delivered(&usage).is_none_or(|bytes| bytes <= text_bytes), "{name}");
            if let Some(closing) = &closing {
                assert!(closing.starts_with("data: {") && closing.ends_with("}\n\n"), "{name}");
            }
            let bytes: Vec<&[u8]> = stream.chunks(1).collect();
            assert_eq!(
                cut(&file, &bytes, text_bytes),
                (passed, closing, usage),
                "{name} byte by byte"
            );
        }
    }
}

#[test]
fn bodies_give_the_expected_output_and_verdict() {
    for file in files("json") {
        let body = read(&file);
        let Ok(answer) = DocumentTap::read(route(&file), &body) else {
            check(&file, "json.verdict", b"not a JSON object\n");
            continue;
        };
        let verdict = format!(
            "{}\ndelivered: {}\nerrored: {}\n",
            in_words(&answer.usage),
            count_in_words(&answer.delivered),
            answer.errored
        );
        check(&file, "json.verdict", verdict.as_bytes());
        let members = match &answer.usage {
            Usage::Reported(counts) => price(counts),
            Usage::Partial { .. } | Usage::Nothing => String::new(),
        };
        let annotated = DocumentTap::annotate(&body, &answer, &members);
        check_output(&file, "annotated.json", &body, &annotated);
    }
}

#[test]
fn bodies_that_are_not_held_give_the_same_verdict() {
    for file in files("json") {
        let body = read(&file);
        let Ok(held) = DocumentTap::read(route(&file), &body) else { continue };
        for len in 1..body.len() {
            let mut tap = PassingTap::json(route(&file));
            body.chunks(len).for_each(|chunk| tap.push(chunk));
            match (held.usage, tap.usage()) {
                (Usage::Reported(held), Usage::Reported(passed)) => {
                    // Which tools made an answer is in the part that is not held.
                    let Counts { images, web_searches, .. } = held;
                    let passed = match route(&file) {
                        Route::Responses => Counts { images, web_searches, ..passed },
                        _ => passed,
                    };
                    assert_eq!(passed, held, "{} by {len}", file.display());
                }
                (Usage::Reported(_), other) => panic!("{}: {other:?}", file.display()),
                (Usage::Partial { known, .. }, Usage::Partial { known: passed, .. }) => {
                    assert_eq!(passed, known, "{} by {len}", file.display());
                }
                (_, Usage::Reported(counts)) => panic!("{}: {counts:?}", file.display()),
                (Usage::Partial { .. }, Usage::Nothing) => panic!("{}", file.display()),
                (Usage::Nothing, Usage::Partial { .. } | Usage::Nothing) => {}
            }
        }
    }
}

/// The ways in which clients get this stream: with usage, and without where it must be asked for.
fn showing(file: &Path) -> &'static [bool] {
    match route(file) {
        Route::ChatCompletions | Route::Completions => &[true, false],
        _ => &[true],
    }
}

/// Puts a stream through a tap in these chunks. The verdict tells both ends of it.
fn run(file: &Path, show: bool, chunks: &[&[u8]]) -> (Vec<u8>, String) {
    let mut clean = EventTap::new(route(file), show);
    let mut output = Vec::new();
    let mut shown = None;
    for chunk in chunks {
        let mut show = |counts: &Counts| {
            shown = Some(*counts);
            price(counts)
        };
        output.extend_from_slice(&clean.push(Bytes::copy_from_slice(chunk), &mut show));
    }
    if let (Some(shown), Usage::Reported(counts)) = (shown, clean.usage()) {
        assert_eq!(shown, counts, "{}: what is shown is what is charged", file.display());
    }
    finish(clean, output)
}

fn finish(mut clean: EventTap, mut output: Vec<u8>) -> (Vec<u8>, String) {
    let mut broken = clean.clone();
    let (held, usage) = clean.finish(End::Clean);
    output.extend_from_slice(&held);
    let verdict = format!(
        "clean: {}\nbroken: {}\ndelivered: {}\ndone: {}\nerrored: {}\n",
        in_words(&usage),
        in_words(&broken.finish(End::Broken).1),
        count_in_words(&clean.delivered()),
        clean.done(),
        clean.errored()
    );
    (output, verdict)
}

fn delivered(usage: &Usage) -> Option<u64> {
    match usage {
        Usage::Partial { delivered, .. } => Some(delivered.text_bytes),
        Usage::Reported(_) | Usage::Nothing => None,
    }
}

/// As [`run`], with so many more bytes of text afforded whenever they are used up.
fn in_pieces(file: &Path, show: bool, chunks: &[&[u8]], text_bytes: u64) -> (Vec<u8>, String) {
    let mut tap = EventTap::new(route(file), show);
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
fn cut(file: &Path, chunks: &[&[u8]], text_bytes: u64) -> (Vec<u8>, Option<String>, Usage) {
    let mut tap = EventTap::new(route(file), true).with_closing();
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

/// A cost in which every unit shows.
fn price(counts: &Counts) -> String {
    let fresh = counts.input - counts.cached_input - counts.cache_write;
    let total = 2 * fresh
        + counts.cached_input
        + 3 * counts.cache_write
        + 5 * counts.output
        + counts.audio_ms
        + 10_000 * (counts.images + counts.web_searches + counts.search_units);
    format!(r#""cost":{{"total_msats":{total}}},"cost_sats":{}"#, total.div_ceil(1000))
}

fn in_words(usage: &Usage) -> String {
    match usage {
        Usage::Reported(counts) => format!("reported{}", units(counts)),
        Usage::Partial { delivered, known } => {
            format!("partial, {}, known:{}", count_in_words(delivered), units(known))
        }
        Usage::Nothing => "nothing".to_owned(),
    }
}

fn count_in_words(delivered: &Delivered) -> String {
    format!("{} events, {} bytes", delivered.events, delivered.text_bytes)
}

/// The units that were used.
fn units(counts: &Counts) -> String {
    let units = [
        ("input", counts.input),
        ("cached_input", counts.cached_input),
        ("cache_write", counts.cache_write),
        ("output", counts.output),
        ("reasoning", counts.reasoning),
        ("images", counts.images),
        ("web_searches", counts.web_searches),
        ("audio_ms", counts.audio_ms),
        ("search_units", counts.search_units),
        ("cost_nano_usd", counts.cost_nano_usd.unwrap_or(0)),
    ];
    let used = units.iter().filter(|(_, count)| *count > 0);
    used.map(|(unit, count)| format!(" {unit}={count}")).collect()
}

/// The inputs of one kind, of every route: their names have one dot.
fn files(kind: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let entries = Route::ALL.into_iter().flat_map(|route| {
        let folder = folder.join(folder_name(route));
        fs::read_dir(folder).expect("every route has answers")
    });
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("the folder can be listed").path())
        .filter(|path| path.file_name().is_some_and(|name| is_input(name.to_str(), kind)))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "there are golden files of {kind}");
    files
}

/// The route whose answer this is.
fn route(file: &Path) -> Route {
    let folder = file.parent().and_then(Path::file_name).expect("it is in a folder");
    let is_named_so = |route: &Route| folder == &*folder_name(*route);
    Route::ALL.into_iter().find(is_named_so).expect("there is a route of that name")
}

fn folder_name(route: Route) -> String {
    route.upstream_path().trim_start_matches('/').replace('/', "-")
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
