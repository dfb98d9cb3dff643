use proptest::prelude::*;

use super::*;

/// What a reader of these chunks sees: the data of every event, and all bytes in order.
#[derive(Debug, Default, PartialEq, Eq)]
struct Read {
    data: Vec<Option<String>>,
    bytes: Vec<u8>,
    oversized: u64,
}

fn read(chunks: &[&[u8]]) -> Read {
    let mut splitter = Splitter::default();
    let mut read = Read::default();
    let mut event = |event: &Event<'_>, bytes: &mut Vec<u8>| {
        bytes.extend_from_slice(event.raw());
        read.data.push(event.data().map(Cow::into_owned));
    };
    for chunk in chunks {
        let mut rest = *chunk;
        while let Some(piece) = splitter.next(&mut rest) {
            match piece {
                Piece::Event(whole) => event(&whole, &mut read.bytes),
                Piece::Tail(raw) => read.bytes.extend_from_slice(raw),
                Piece::Passed { raw, .. } => read.bytes.extend_from_slice(&raw),
            }
        }
        assert!(rest.is_empty(), "a chunk is taken whole");
        assert!(splitter.held.len() <= EVENT_BYTES_MAX, "what is held is bounded");
    }
    if let Some(last) = splitter.finish() {
        event(&last, &mut read.bytes);
    }
    read.oversized = splitter.oversized();
    read
}

/// The data of all events that have some.
fn check(stream: &str, expected: &[&str]) {
    let whole = read(&[stream.as_bytes()]);
    let data: Vec<_> = whole.data.iter().flatten().collect();
    assert_eq!(data, expected, "{stream:?}");
    assert_eq!(whole.bytes, stream.as_bytes(), "no byte is lost of {stream:?}");
}

#[test]
fn every_kind_of_line_end_ends_lines() {
    check("data: a\n\ndata: b\n\n", &["a", "b"]);
    check("data: a\r\n\r\ndata: b\r\n\r\n", &["a", "b"]);
    check("data: a\r\rdata: b\r\r", &["a", "b"]);
    check("data: a\n\r\ndata: b\r\n\ndata: c\r\n\r", &["a", "b", "c"]);
}

#[test]
fn data_is_read_with_and_without_the_space_and_over_lines() {
    check("data:a\n\ndata: b\n\ndata:  c\n\n", &["a", "b", " c"]);
    check("data: a\nid: 1\ndata\ndata:b\n\n", &["a\n\nb"]);
    check("data: data: x\n\n", &["data: x"]);
    check("database: x\n\nDATA: x\n\n data: x\n\ndata : x\n\n", &[]);
}

#[test]
fn a_mark_counts_only_at_the_start() {
    check("\u{feff}data: a\n\n\u{feff}data: b\n\n", &["a"]);
    check("\u{feff}: note\ndata: a\n\n", &["a"]);
}

#[test]
fn an_event_without_its_blank_line_comes_at_the_end() {
    check("data: a\n\ndata: b", &["a", "b"]);
    check("data: a\n\ndata: b\n", &["a", "b"]);
    check("", &[]);
}

#[test]
fn a_comment_between_events_waits_for_nothing() {
    let mut splitter = Splitter::default();
    let mut chunk = &b": still here\n"[..];
    let Some(Piece::Event(comment)) = splitter.next(&mut chunk) else { panic!("it is held") };
    assert_eq!(comment.raw(), b": still here\n");
    assert_eq!(comment.data(), None);
    check("data: a\n: within\ndata: b\n\n", &["a\nb"]);
}

#[test]
fn an_event_within_a_chunk_is_a_slice_of_it() {
    let mut splitter = Splitter::default();
    let mut chunk = &b"data: a\n\ndata: b\n\ndata: c"[..];
    for _ in 0..2 {
        let Some(Piece::Event(event)) = splitter.next(&mut chunk) else { panic!("it is held") };
        assert!(matches!(event.raw, Cow::Borrowed(_)));
    }
    assert_eq!(splitter.next(&mut chunk), None);
    assert_eq!(splitter.held, b"data: c");
}

#[test]
fn the_largest_event_is_read_and_a_larger_one_passes_unread() {
    for line_end in ["\n", "\r", "\r\n"] {
        let frame = "data: ".len() + 2 * line_end.len();
        let counted = frame - usize::from(line_end.len() == 2);
        for (spare, is_read) in [(0, true), (1, false)] {
            let text = "x".repeat(EVENT_BYTES_MAX - counted + spare);
            let stream = format!("data: {text}{line_end}{line_end}data: b{line_end}{line_end}");
            let bytes = stream.as_bytes();
            let whole = read(&[bytes]);
            assert_eq!(whole.oversized, u64::from(!is_read), "{line_end:?} and {spare}");
            assert_eq!(whole.data.len(), 1 + usize::from(is_read));
            assert_eq!(whole.data.last(), Some(&Some("b".to_owned())), "reading resumes after it");
            assert!(whole.bytes == bytes, "no byte is lost");
            for cut in (0..20).chain(EVENT_BYTES_MAX - 5..bytes.len()) {
                let (head, tail) = bytes.split_at(cut);
                assert!(read(&[head, tail]) == whole, "{line_end:?} and {spare} cut at {cut}");
            }
        }
    }
}

#[test]
fn new_data_keeps_the_lines_around_it_and_how_they_end() {
    let stream = "\u{feff}id: 1\r\ndata: a\r: note\rdata:b\n\r\n";
    let mut chunk = stream.as_bytes();
    let Some(Piece::Event(event)) = Splitter::default().next(&mut chunk) else { panic!("held") };
    let edited = |data| String::from_utf8(event.with_data(data)).expect("it was UTF-8");
    assert_eq!(edited("a\nb"), stream);
    assert_eq!(edited("c\nd"), "\u{feff}id: 1\r\ndata: c\r: note\rdata:d\n\r\n");
    assert_eq!(edited("c"), "\u{feff}id: 1\r\ndata: c\r: note\r\r\n");
}

/// Streams of the characters that matter, dense with line ends.
fn streams() -> impl Strategy<Value = String> {
    let part = prop::sample::select(vec![
        "data: ", "data:", "data", ":", ": note", "id: 1", "event: e", "x", "\n", "\n\n", "\r",
        "\r\n", "\r\n\r\n", "\r\r", "\u{feff}", " ", "ä",
    ]);
    prop::collection::vec(part, 0..40).prop_map(|parts| parts.concat())
}

/// The event stream format as its standard words it: lines first, then fields, then dispatch.
fn by_the_book(stream: &str) -> Vec<String> {
    let text = stream.strip_prefix('\u{feff}').unwrap_or(stream).replace("\r\n", "\n");
    let (mut dispatched, mut data) = (Vec::new(), Vec::new());
    for line in text.replace('\r', "\n").split('\n') {
        match line.split_once(':').unwrap_or((line, "")) {
            _ if line.is_empty() && data.is_empty() => {}
            _ if line.is_empty() => dispatched.push(std::mem::take(&mut data).join("\n")),
            ("data", value) => data.push(value.strip_prefix(' ').unwrap_or(value).to_owned()),
            _ => {}
        }
    }
    // The standard drops an event that the end cut short; here it comes out last.
    if !data.is_empty() {
        dispatched.push(data.join("\n"));
    }
    dispatched
}

proptest! {
    #[test]
    fn events_do_not_depend_on_chunk_boundaries(
        stream in streams(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let bytes = stream.as_bytes();
        let mut places: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        places.sort_unstable();
        let mut chunks = Vec::new();
        let mut from = 0;
        for place in places.into_iter().chain([bytes.len()]) {
            chunks.push(&bytes[from..place]);
            from = place;
        }
        let whole = read(&[bytes]);
        prop_assert_eq!(&whole.bytes, bytes);
        prop_assert_eq!(&read(&chunks), &whole);
        prop_assert_eq!(&read(&bytes.chunks(1).collect::<Vec<_>>()), &whole);
    }

    #[test]
    fn events_are_those_of_the_standard(stream in streams()) {
        let data: Vec<_> = read(&[stream.as_bytes()]).data.into_iter().flatten().collect();
        prop_assert_eq!(data, by_the_book(&stream));
    }

    #[test]
    fn any_bytes_come_out_as_they_went_in(chunks in prop::collection::vec(any::<Vec<u8>>(), 0..8)) {
        let slices: Vec<_> = chunks.iter().map(Vec::as_slice).collect();
        prop_assert_eq!(read(&slices).bytes, chunks.concat());
    }

    #[test]
    fn an_event_given_its_own_data_stays_the_same(stream in streams()) {
        let mut rest = stream.as_bytes();
        let mut splitter = Splitter::default();
        while let Some(piece) = splitter.next(&mut rest) {
            if let Piece::Event(event) = piece
                && let Some(data) = event.data()
            {
                prop_assert_eq!(event.with_data(&data), event.raw());
            }
        }
    }
}
