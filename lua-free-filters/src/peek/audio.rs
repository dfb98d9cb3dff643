//! Audio: listened to and written down, or spoken.

use super::demand::bytes;
use super::form::{Form, Known};
use super::members::{Members, refuse};
use super::{PeekRefusal, Peeked, of_members, wav};

pub(super) fn transcription<'b>(boundary: &str, body: &'b [u8]) -> Result<Peeked<'b>, PeekRefusal> {
    let form = Form::read(body, boundary, &KNOWN)?;
    let mut peeked = upload(&form)?;
    peeked.stream = form.flag("stream")?;
    Ok(peeked)
}

pub(super) fn translation<'b>(boundary: &str, body: &'b [u8]) -> Result<Peeked<'b>, PeekRefusal> {
    let form = Form::read(body, boundary, &KNOWN)?;
    match form.flag("stream")? {
        false => upload(&form),
        true => refuse("stream", "must not be true: this route does not stream"),
    }
}

fn upload<'b>(form: &Form<'b>) -> Result<Peeked<'b>, PeekRefusal> {
    let mut peeked = form.peeked()?;
    if form.has("url") {
        return refuse("url", "is not offered: how long audio elsewhere is cannot be told");
    }
    let Some((filename, file)) = form.files("file").next() else {
        return refuse("file", "is missing");
    };
    let (audio_ms, audio_ms_max) = length(filename, file);
    peeked.demand.set_aside(file.len());
    peeked.demand.audio_ms = audio_ms;
    peeked.demand.audio_ms_max = audio_ms_max;
    Ok(peeked)
}

/// How long a file most likely plays, and how long at most, in milliseconds.
///
/// Only a file that is called WAV is measured by that alone: an upstream may go by the name, and
/// what follows a WAV's head may be another format that plays longer.
fn length(filename: &str, file: &[u8]) -> (u64, u64) {
    let by_bytes = |per_second| bytes(file.len()).saturating_mul(1000).div_ceil(per_second);
    let likely = by_bytes(UPLOAD_BYTES_PER_SECOND);
    let most = by_bytes(UPLOAD_BYTES_PER_SECOND_MIN);
    let extension = filename.rsplit_once('.').map(|(_, extension)| extension);
    let is_called_wav = extension.is_some_and(|extension| extension.eq_ignore_ascii_case("wav"));
    match wav::length(file) {
        Some(wav) if is_called_wav => (wav.announced_ms, wav.ms_max),
        Some(wav) => (likely.max(wav.announced_ms), most.max(wav.ms_max)),
        None => (likely, most),
    }
}

/// Speech: a text, billed by its characters or by tokens. Its events are asked for by format.
pub(super) fn speech(body: &[u8]) -> Result<Peeked<'_>, PeekRefusal> {
    let members = Members::of_body(body, &["model", "input", "stream_format", "stream", "models"])?;
    let mut peeked = of_members(&members)?;
    members.must_be_absent("models", "is not offered: the price is that of one `model`")?;
    match members.string("input")? {
        None => return refuse("input", "is missing"),
        Some(input) if input.is_empty() => return refuse("input", "must not be empty"),
        Some(input) => peeked.demand.characters = bytes(input.chars().count()),
    }
    peeked.stream = match members.given("stream_format") {
        None | Some(r#""audio""#) => false,
        Some(r#""sse""#) => true,
        Some(_) => return refuse("stream_format", "must be audio or sse"),
    };
    Ok(peeked)
}

/// Most uploads are at 32 kbit/s or more: what speech is commonly compressed to. This is what a
/// file of unknown length is charged as, so one that is compressed less is charged longer than it
/// plays, and the upstream's own count goes before it.
pub const UPLOAD_BYTES_PER_SECOND: u64 = 4_000;
/// Speech that can still be understood is at 8 kbit/s or more: the least that MP3 has, and what
/// narrow-band codecs of telephones need. This is what is reserved.
pub const UPLOAD_BYTES_PER_SECOND_MIN: u64 = 1_000;

const KNOWN: Known = Known { fields: &["model", "stream", "url"], files: &["file"], lists: &[] };

#[cfg(test)]
mod tests {
    use super::super::tests::{check_refused_as, form, read_as};
    use super::super::{Framing, PeekRefusal, Peeked, WantedType, read};
    use crate::multipart::{PARTS_MAX, boundary_of, parameters};
    use crate::peek::form::FIELD_BYTES_MAX;
    use crate::route::Route::{self, Speech, Transcriptions, Translations};

    const FORM: Option<&str> = Some("multipart/form-data; boundary=b");
    const MODEL: (&str, &str) = ("model", "whisper-1");

    fn transcription(body: &[u8]) -> Result<Peeked<'_>, PeekRefusal> {
        read(Transcriptions, FORM, body)
    }

    fn check_refused(fields: &[(&str, &str)], files: &[(&str, &str, &[u8])], expected: &str) {
        let body = form(fields, files);
        for route in [Transcriptions, Translations] {
            let refusal = read(route, FORM, &body).map(|peeked| peeked.n).expect_err(expected);
            assert_eq!(refusal.to_string(), expected);
        }
    }

    /// Eight kilobytes of samples in a second.
    fn wav(samples: usize) -> Vec<u8> {
        let mut file = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0".to_vec();
        file.extend(8000_u32.to_le_bytes());
        file.extend(8000_u32.to_le_bytes());
        file.extend(b"\x01\0\x08\0data");
        file.extend(u32::try_from(samples).expect("a short file").to_le_bytes());
        file.resize(file.len() + samples, 1);
        file
    }

    #[test]
    fn an_upload_is_as_long_as_it_says_or_as_its_bytes_allow() {
        let check = |name: &str, file: &[u8], expected: (u64, u64)| {
            let body = form(&[MODEL], &[("file", name, file)]);
            let Peeked { demand, .. } = transcription(&body).expect("a form");
            assert_eq!((demand.audio_ms, demand.audio_ms_max), expected, "{name}");
            let text = u64::try_from(body.len() - file.len()).expect("short");
            assert_eq!((demand.text_bytes, demand.is_open), (text, false));
        };
        check("a.mp3", &[0; 8_000], (2_000, 8_000));
        check("a.mp3", &[0; 1], (1, 1));
        check("a.mp3", &[], (0, 0));
        check("a.wav", &wav(4_000), (500, 500));
        check("C:\\x\\a.WAV", &wav(4_000), (500, 500));
        check("a.wav", &[0; 8_000], (2_000, 8_000));
        // An upstream that goes by the name may find another format behind the head.
        check("a.mp3", &wav(4_000), (1_011, 4_044));
    }

    #[test]
    fn a_transcription_may_stream_and_a_translation_may_not() {
        let streamed = |value| {
            let body = form(&[MODEL, ("stream", value)], &[("file", "a.mp3", b"x")]);
            let streams = |route| read(route, FORM, &body).map(|peeked| peeked.stream);
            (streams(Transcriptions), streams(Translations).is_ok())
        };
        assert_eq!(streamed("true"), (Ok(true), false));
        assert_eq!(streamed("false"), (Ok(false), true));
        for value in ["True", "1", "yes", "", "null"] {
            let file = [("file", "a.mp3", &b"x"[..])];
            check_refused(&[MODEL, ("stream", value)], &file, "`stream` must be true or false");
        }
    }

    #[test]
    fn what_is_missing_or_twice_or_elsewhere_is_named() {
        let file = ("file", "a.mp3", &b"x"[..]);
        check_refused(&[MODEL], &[], "`file` is missing");
        check_refused(&[], &[file], "`model` is missing");
        check_refused(&[("model", "")], &[file], "`model` must not be empty");
        check_refused(&[MODEL, MODEL], &[file], "`model` appears twice");
        check_refused(&[MODEL], &[file, file], "`file` appears twice");
        check_refused(&[MODEL, ("file", "x")], &[], "`file` must be a file with a name");
        check_refused(&[MODEL], &[file, ("model", "m", b"x")], "`model` appears twice");
        check_refused(&[], &[file, ("model", "m", b"x")], "`model` must not be a file");
        check_refused(&[("model[]", "x")], &[file], "`model` must not be a list");
        check_refused(&[MODEL, ("MODEL", "x")], &[file], "`model` must be written in lower case");
        let url = "`url` is not offered: how long audio elsewhere is cannot be told";
        check_refused(&[MODEL, ("url", "https://example.com/a.mp3")], &[file], url);
        let charset = "`_charset_` must not be given: text is UTF-8";
        check_refused(&[MODEL, ("_charset_", "utf-16")], &[file], charset);
        let long = "x".repeat(FIELD_BYTES_MAX + 1);
        check_refused(&[("model", &long)], &[file], "`model` is too long");
        check_refused(&[("model", &long[1..])], &[file], "`model` is too long");
        let many = vec![("x", "y"); PARTS_MAX];
        let expected = "The body is not valid multipart/form-data: there are too many parts";
        check_refused(&[&many[..], &[MODEL]].concat(), &[file], expected);
    }

    #[test]
    fn only_a_form_is_taken() {
        let body = br#"{"model":"m","file":"x"}"#;
        for route in [Transcriptions, Translations] {
            for content_type in [None, Some("application/json"), Some("audio/mpeg")] {
                let refusal = read(route, content_type, body);
                assert_eq!(refusal, Err(PeekRefusal::WrongType(WantedType::Form)));
            }
        }
        let refusal = transcription(body).expect_err("no form");
        let expected = "The body is not valid multipart/form-data: its last boundary is missing";
        assert_eq!(refusal.to_string(), expected);
        for route in Route::ALL {
            if ![Transcriptions, Translations, Route::ImageEdits].contains(&route) {
                let refusal = read(route, FORM, body);
                assert_eq!(refusal, Err(PeekRefusal::WrongType(WantedType::Json)), "{route:?}");
            }
        }
    }

    #[test]
    fn the_model_is_where_it_is_said_to_be() {
        let body = form(&[("language", "de"), MODEL], &[("file", "a.mp3", b"x")]);
        let peeked = transcription(&body).expect("a form");
        assert_eq!(&body[peeked.model_span.clone()], b"whisper-1");
        assert_eq!(peeked.framing, Framing::Multipart { model_length: None });
        assert_eq!((&*peeked.model, peeked.include_usage), ("whisper-1", true));
        assert_eq!(boundary_of(&parameters("; boundary=b").expect("one")), Some("b"));
    }

    #[test]
    fn speech_is_counted_by_its_characters() {
        let check = |input: &str, expected| {
            let body = format!(r#"{{"model":"m","voice":"alloy","input":{input}}}"#);
            assert_eq!(read_as(Speech, &body).demand.characters, expected, "{input}");
        };
        check(r#""Hello""#, 5);
        check(r#""Grüße 👋""#, 7);
        check(r#""\u00e9\n\ud83d\udc4b""#, 3);
        for (input, expected) in [
            ("null", "`input` must be a string"),
            ("[]", "`input` must be a string"),
            (r#""""#, "`input` must not be empty"),
            (r#""\ud83d""#, "`input` must be a valid string"),
        ] {
            check_refused_as(Speech, &format!(r#"{{"model":"m","input":{input}}}"#), expected);
        }
        check_refused_as(Speech, r#"{"model":"m"}"#, "`input` is missing");
    }

    #[test]
    fn speech_comes_as_events_only_by_its_format() {
        let streams =
            |more: &str| read_as(Speech, &format!(r#"{{"model":"m","input":"a"{more}}}"#)).stream;
        assert!(streams(r#","stream_format":"sse""#));
        assert!(!streams(r#","stream_format":"audio""#));
        assert!(!streams(r#","stream_format":null,"stream":true"#));
        let other = r#"{"model":"m","input":"a","stream_format":"SSE"}"#;
        check_refused_as(Speech, other, "`stream_format` must be audio or sse");
    }
}
