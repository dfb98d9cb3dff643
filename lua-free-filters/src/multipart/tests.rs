use proptest::prelude::*;

use super::head::PART_HEAD_BYTES_MAX;
use super::*;

const FILE: &str = "Content-Disposition: form-data; name=\"file\"; filename=\"a.wav\"";

fn field(name: &str) -> String {
    format!("Content-Disposition: form-data; name=\"{name}\"")
}

/// A form of parts with these heads and values.
fn form(boundary: &str, parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (head, value) in parts {
        body.extend_from_slice(format!("--{boundary}\r\n{head}\r\n\r\n").as_bytes());
        body.extend_from_slice(value);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    body
}

fn check_refused(body: &[u8], expected: &str) {
    let refusal = parts(body, "b").expect_err("malformed");
    assert_eq!(refusal.to_string(), expected, "{}", String::from_utf8_lossy(body));
}

fn check_head_refused(head: &str, expected: &str) {
    check_refused(&form("b", &[(head, b"v")]), expected);
}

#[test]
fn parts_are_where_they_are_said_to_be() {
    let length = format!("{}\r\nContent-Length: 2", field("model"));
    let body = form("b", &[(FILE, b"\0\xff\r\n"), (&length, b"m1"), (&field("x"), b"")]);
    let read = parts(&body, "b").expect("a form");
    let values: Vec<_> = read.iter().map(|part| (part.name, &body[part.value.clone()])).collect();
    assert_eq!(values, [("file", &b"\0\xff\r\n"[..]), ("model", b"m1"), ("x", b"")]);
    assert_eq!(read[0].filename, Some("a.wav"));
    assert_eq!((read[1].filename, read[0].length.clone()), (None, None));
    assert_eq!(read[1].length.clone().map(|at| &body[at]), Some(&b"2"[..]));
    assert_eq!(text_of(&body, &read[0].value), None);
    assert_eq!(text_of(&body, &read[1].value), Some("m1"));
}

#[test]
fn heads_are_read_in_any_letter_case_and_with_what_else_they_say() {
    let head = "X-Other: a: b\r\nCONTENT-DISPOSITION:Form-Data;NAME=file ; FileName=\"ü;=.mp3\"\r\n\
        content-type: audio/mpeg\r\nContent-Transfer-Encoding: BINARY";
    let body = form("b", &[(head, b"v")]);
    let read = parts(&body, "b").expect("a form");
    assert_eq!((read[0].name, read[0].filename), ("file", Some("ü;=.mp3")));
    assert!(read[0].is_utf8);
    let charset = |charset| {
        let head = format!("{}\r\nContent-Type: text/plain; charset={charset}", field("model"));
        parts(&form("b", &[(&head, b"v")]), "b").expect("a form")[0].is_utf8
    };
    assert!(charset("\"UTF-8\"") && charset("us-ascii"));
    assert!(!charset("utf-16") && !charset("utf-8; charset=utf-7"));
    let extended = format!("{}; filename*=UTF-8''a.wav", field("file"));
    let body = form("b", &[(&extended, b"v")]);
    assert_eq!(parts(&body, "b").expect("a form")[0].filename, Some(""));
}

#[test]
fn a_form_begins_and_ends_with_its_boundary() {
    let missing = "its last boundary is missing";
    check_refused(b"", missing);
    check_refused(b"{}", missing);
    check_refused(&form("c", &[]), missing);
    let whole = form("b", &[(FILE, b"v")]);
    for end in [whole.len() - 4, whole.len() - 5] {
        assert!(parts(&whole[..end], "b").is_err(), "cut at {end}");
    }
    assert!(parts(&whole[..whole.len() - 2], "b").is_ok(), "the last line need not end");
    check_refused(&[b"\r\n", &whole[..]].concat(), "it does not begin with its boundary");
    let stray = "its boundary is somewhere else than between two parts";
    check_refused(&[&whole[..], b"x"].concat(), stray);
    check_refused(&[&whole[..], &whole[..]].concat(), stray);
    check_refused(&[&whole[..whole.len() - 2], b"\r\n\r\n"].concat(), stray);
    check_refused(b"--b--\r\n--b--", stray);
    assert_eq!(parts(b"--b--", "b"), Ok(vec![]));
}

#[test]
fn a_boundary_inside_a_value_is_refused_however_it_stands_there() {
    let stray = "its boundary is somewhere else than between two parts";
    for value in
        ["x--b", "x--b\r\n", "\n--b\r\n", "\r--b\r\n", "x\r\n--bc", "x\r\n--b \r\n", "x\r\n--b-"]
    {
        check_refused(&form("b", &[(FILE, value.as_bytes())]), stray);
    }
    check_refused(b"--b\r\n--b--", stray);
    check_refused(b"--b\n", stray);
    check_refused(b"--b--x", stray);
}

#[test]
fn a_head_that_two_readers_could_read_differently_is_refused() {
    let name = "the name of a part cannot be read";
    for head in [
        "Content-Disposition: form-data",
        "Content-Disposition: form-data; name=\"\"",
        "Content-Disposition: form-data; name=\"a b\"",
        "Content-Disposition: form-data; name=\"%6dodel\"",
        "Content-Disposition: form-data; name=\"mod\\el\"",
        "Content-Disposition: form-data; name=\"modèl\"",
        "Content-Disposition: form-data; name=\"a\"; name=\"b\"",
        "Content-Disposition: form-data; name=\"a\"; name*=utf-8''b",
        "Content-Disposition: form-data; name=\"a\"; filename=\"x\"; filename=\"y\"",
        "Content-Disposition: form-data; name=\"a\"; filename*0=\"x\"",
        "Content-Disposition: form-data; name=\"a\"; filename=\"x\\\"; name=\\\"b\"",
        "Content-Disposition: form-data; name=\"a",
    ] {
        check_head_refused(head, name);
    }
    let line = "the head of a part has a line that cannot be read";
    for more in ["\r\nx", "\r\n folded: x", "\r\n: x", "\r\nx : y", "\r\nx: a\rb", "\r\nx: a\nb: c"]
    {
        check_head_refused(&format!("{FILE}{more}"), line);
    }
    let twice = "the head of a part says something twice";
    check_head_refused(&format!("{FILE}\r\n{FILE}"), twice);
    check_head_refused(&format!("{FILE}\r\nContent-Type: a/b\r\ncontent-type: a/b"), twice);
    check_head_refused("Content-Type: text/plain", "a part has no `Content-Disposition`");
    check_head_refused("Content-Disposition: attachment; name=\"file\"", "a part is no form data");
}

#[test]
fn a_value_that_is_not_what_it_looks_like_is_refused() {
    let with = |more: &str| format!("{FILE}\r\n{more}");
    for encoding in ["base64", "quoted-printable", ""] {
        let head = with(&format!("Content-Transfer-Encoding: {encoding}"));
        check_head_refused(&head, "a part has a transfer encoding");
    }
    for nested in ["multipart/mixed; boundary=c", "Multipart/Form-Data"] {
        let head = with(&format!("Content-Type: {nested}"));
        check_head_refused(&head, "a part has parts of its own");
    }
    for length in ["2", "0", "01", "+1", "x"] {
        let head = with(&format!("Content-Length: {length}"));
        check_head_refused(&head, "a part is not as long as it says");
    }
}

#[test]
fn as_many_parts_as_the_bound_are_read_and_no_more() {
    let head = field("x");
    let body = form("b", &vec![(head.as_str(), &b"v"[..]); PARTS_MAX]);
    assert_eq!(parts(&body, "b").map(|read| read.len()), Ok(PARTS_MAX));
    let body = form("b", &vec![(head.as_str(), &b"v"[..]); PARTS_MAX + 1]);
    check_refused(&body, "there are too many parts");
}

#[test]
fn the_longest_head_is_read_and_a_longer_one_is_not() {
    let padded = |len: usize| format!("{FILE}\r\nX: {}", "x".repeat(len - FILE.len() - 5));
    let longest = padded(PART_HEAD_BYTES_MAX);
    assert_eq!(longest.len(), PART_HEAD_BYTES_MAX);
    assert!(parts(&form("b", &[(&longest, b"v")]), "b").is_ok());
    let expected = "the head of a part does not end, or is too long";
    check_head_refused(&padded(PART_HEAD_BYTES_MAX + 1), expected);
    check_refused(b"--b\r\nContent-Disposition: form-data\r\n--b--", expected);
}

#[test]
fn a_boundary_has_1_to_70_characters_of_those_allowed() {
    let boundary = |text: &str| {
        let read = parameters(text).expect("parameters");
        boundary_of(&read).map(str::to_owned)
    };
    let longest = "x".repeat(BOUNDARY_BYTES_MAX);
    assert_eq!(boundary(&format!("; boundary={longest}")), Some(longest.clone()));
    assert_eq!(boundary(&format!("; boundary={longest}x")), None);
    assert_eq!(boundary("; Boundary=\"a b'()+_,-./:=?z\"").as_deref(), Some("a b'()+_,-./:=?z"));
    for bad in ["", "; boundary=\"\"", "; boundary=\"a \"", "; boundary=a%", "; boundary=\"é\""] {
        assert_eq!(boundary(bad), None, "{bad}");
    }
    for bad in ["; boundary=a; boundary=a", "; boundary*=utf-8''a", "; boundary=a; boundary*0=b"] {
        assert_eq!(boundary(bad), None, "{bad}");
    }
}

proptest! {
    #[test]
    fn noise_is_never_a_panic(body in any::<Vec<u8>>(), boundary in "[a-b-]{1,3}") {
        drop(parts(&body, &boundary));
        let framed = [&b"--b\r\n"[..], &body, b"\r\n--b--"].concat();
        drop(parts(&framed, "b"));
    }

    #[test]
    fn values_may_hold_anything_but_the_boundary(
        values in prop::collection::vec(
            prop::collection::vec(prop_oneof![
                Just("\r\n".to_owned()), Just("--".to_owned()), Just("-".to_owned()),
                Just("boundar".to_owned()), Just("oundary".to_owned()), Just("\r\n\r\n".to_owned()),
                Just("Content-Disposition: form-data; name=\"model\"".to_owned()), "\\PC{0,5}",
            ], 0..12),
            1..6,
        ),
    ) {
        let values: Vec<String> = values.iter().map(|pieces| pieces.concat()).collect();
        let heads: Vec<String> = (0..values.len()).map(|number| field(&format!("f{number}"))).collect();
        let pairs: Vec<_> = heads
            .iter()
            .zip(&values)
            .map(|(head, value)| (head.as_str(), value.as_bytes()))
            .collect();
        let body = form("boundary", &pairs);
        let read = parts(&body, "boundary");
        if values.iter().any(|value| value.contains("--boundary")) {
            prop_assert!(read.is_err());
        } else {
            let read = read.expect("a form");
            let found: Vec<_> = read.iter().map(|part| &body[part.value.clone()]).collect();
            prop_assert_eq!(found, values.iter().map(String::as_bytes).collect::<Vec<_>>());
        }
    }
}
