//! The usage of an answer that is not held: its bytes go on as they come.

use crate::json::Object;
use crate::route::Route;

use super::document;
use super::sift::Sift;
use super::{Counts, Delivered, Usage};

/// Reads what it can of an answer of which nothing is held and nothing is changed: JSON that is
/// too large to hold, audio, or a transcript that is plain text.
#[derive(Clone, Debug)]
pub struct PassingTap {
    route: Route,
    /// `None` where the answer is not JSON.
    sift: Option<Sift>,
    bytes: u64,
}

impl PassingTap {
    /// An answer that is one JSON object. Its usage is read, wherever in it that stands.
    pub fn json(route: Route) -> Self {
        Self { route, sift: Some(Sift::default()), bytes: 0 }
    }

    /// An answer whose bytes say nothing about usage.
    pub fn opaque(route: Route) -> Self {
        Self { route, sift: None, bytes: 0 }
    }

    /// Takes note of bytes that pass.
    pub fn push(&mut self, chunk: &[u8]) {
        self.bytes = self.bytes.saturating_add(chunk.len() as u64);
        let Some(sift) = &mut self.sift else { return };
        let mut rest = chunk;
        while let Some(taken) = sift.feed(rest) {
            rest = rest.get(taken..).unwrap_or_default();
        }
    }

    /// What is concluded so far. Bytes count as text where the answer is made of text.
    pub fn usage(&self) -> Usage {
        if self.bytes == 0 {
            return Usage::Nothing;
        }
        let text_bytes = if self.is_text() { self.bytes } else { 0 };
        let delivered = Delivered { events: 1, text_bytes };
        let Some(sift) = &self.sift else { return Usage::of(Counts::NONE, false, delivered) };
        let kept = sift.kept();
        let Ok(object) = Object::read(&kept) else {
            return Usage::of(Counts::NONE, false, delivered);
        };
        let (counts, is_total) = document::counts(self.route, &object);
        let images = if document::makes_images(self.route) { sift.entries() } else { 0 };
        Usage::of(Counts { images, ..counts }, is_total, delivered)
    }

    fn is_text(&self) -> bool {
        match self.route {
            Route::ChatCompletions
            | Route::Completions
            | Route::Responses
            | Route::Messages
            | Route::Transcriptions
            | Route::Translations => true,
            Route::Embeddings
            | Route::ImageGenerations
            | Route::ImageEdits
            | Route::Speech
            | Route::Moderations
            | Route::Rerank => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(mut tap: PassingTap, chunks: &[&[u8]]) -> Usage {
        for chunk in chunks {
            tap.push(chunk);
        }
        tap.usage()
    }

    fn partial(text_bytes: u64, known: Counts) -> Usage {
        Usage::Partial { delivered: Delivered { events: 1, text_bytes }, known }
    }

    #[test]
    fn bytes_are_text_only_where_answers_are_made_of_text() {
        let opaque = |route| read(PassingTap::opaque(route), &[b"1\n00:00 -> 00:01\n", b"Hello"]);
        assert_eq!(opaque(Route::Transcriptions), partial(22, Counts::NONE));
        assert_eq!(opaque(Route::Speech), partial(0, Counts::NONE));
        let text = read(PassingTap::opaque(Route::Translations), &[br#"{"usage":{"seconds":1}}"#]);
        assert_eq!(text, partial(23, Counts::NONE), "what was said is not what was used");
        for tap in [PassingTap::opaque(Route::Speech), PassingTap::json(Route::Responses)] {
            assert_eq!(read(tap, &[b""]), Usage::Nothing);
        }
    }

    #[test]
    fn usage_is_found_wherever_it_stands_in_json() {
        let usage = r#""usage":{"input_tokens":4,"output_tokens":9}"#;
        let data = r#""data":[{"b64_json":"\"usage\":"},{"url":"x"}]"#;
        let counts = Counts { input: 4, output: 9, images: 2, ..Counts::NONE };
        for body in [format!("{{{usage},{data}}}"), format!("{{{data},{usage}}}")] {
            for len in 1..body.len() {
                let chunks: Vec<&[u8]> = body.as_bytes().chunks(len).collect();
                let usage = read(PassingTap::json(Route::ImageGenerations), &chunks);
                assert_eq!(usage, Usage::Reported(counts), "{body} by {len}");
            }
        }
        let units = br#"{"results":[],"meta":{"billed_units":{"search_units":3}}}"#;
        let counts = Counts { search_units: 3, ..Counts::NONE };
        assert_eq!(read(PassingTap::json(Route::Rerank), &[units]), Usage::Reported(counts));
    }

    #[test]
    fn what_is_certain_without_usage_is_known() {
        let images = br#"{"data":[{},{},{"#;
        let known = Counts { images: 3, ..Counts::NONE };
        assert_eq!(read(PassingTap::json(Route::ImageEdits), &[images]), partial(0, known));
        let spoken = br#"{"duration":1.5,"text":"Hi"}"#;
        let known = Counts { audio_ms: 1500, ..Counts::NONE };
        assert_eq!(read(PassingTap::json(Route::Transcriptions), &[spoken]), partial(28, known));
    }

    proptest! {
        #[test]
        fn a_body_that_passes_is_read_as_one_that_is_held(
            text in any::<String>(),
            input in 1..1000_u64,
            len in 1_usize..90,
        ) {
            let body = serde_json::json!({
                "choices": [{"message": {"content": text}, "usage": {"prompt_tokens": 7}}],
                "usage": {"prompt_tokens": input, "completion_tokens": 2, "cost": 0.1},
            });
            let body = body.to_string();
            let chunks: Vec<&[u8]> = body.as_bytes().chunks(len).collect();
            let passed = read(PassingTap::json(Route::ChatCompletions), &chunks);
            let held = document::DocumentTap::read(Route::ChatCompletions, body.as_bytes());
            prop_assert_eq!(Ok(passed), held.map(|held| held.usage));
        }
    }
}
