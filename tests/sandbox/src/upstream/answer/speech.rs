//! `/audio/speech`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::json;

use super::super::Misbehaviour;
use super::{Part, Question, Reply, count, text_tokens};

pub(super) fn reply(question: &Question) -> Option<Reply> {
    let characters = count(question.text("input")?.chars());
    question.text("voice")?;
    let content_type = match question.text("response_format").unwrap_or("mp3") {
        "mp3" => "audio/mpeg",
        "opus" => "audio/opus",
        "aac" => "audio/aac",
        "flac" => "audio/flac",
        "wav" => "audio/wav",
        "pcm" => "audio/pcm",
        _ => return None,
    };
    let length = match question.is(Misbehaviour::Big) {
        true => question.big(1),
        false => BYTES_PER_CHARACTER.checked_mul(usize::try_from(characters).ok()?)?,
    };
    // No text literal, so that a reader who takes audio for text is found out.
    let audio: Vec<u8> = (0..=u8::MAX).rev().cycle().take(length).collect();
    let pieces = audio.chunks(PIECE_BYTES);
    if question.stream {
        let content = pieces.map(|piece| {
            let audio = STANDARD.encode(piece);
            let delta = json!({"type": "speech.audio.delta", "audio": audio});
            question.unnamed(&delta).bringing(1)
        });
        let content: Vec<Part> = content.collect();
        let closing = closing(question, characters, count(&content));
        return Some(question.streamed(text_tokens(characters), content, closing));
    }
    if question.is(Misbehaviour::ErrorEvent) {
        return Some(question.document(characters, 0, json!({}), None));
    }
    let parts = pieces.map(|piece| Part::of(Bytes::copy_from_slice(piece))).collect();
    Some(Reply { content_type, input: characters, output: 0, parts })
}

fn closing(question: &Question, characters: u64, output: u64) -> Vec<Part> {
    let input = text_tokens(characters);
    let mut last = json!({"type": "speech.audio.done"});
    let tells_usage = !question.is(Misbehaviour::NoUsage);
    if tells_usage {
        let usage = json!({
            "input_tokens": input, "output_tokens": output, "total_tokens": input + output,
        });
        last["usage"] = question.with_cost(usage, input + output);
    }
    let tells_usage = tells_usage && !question.is(Misbehaviour::InvalidJson);
    vec![question.unnamed(&last).telling_usage(tells_usage)]
}

const BYTES_PER_CHARACTER: usize = 100;
const PIECE_BYTES: usize = 4000;
