//! `/embeddings`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::super::Misbehaviour;
use super::completions::texts;
use super::{Question, Reply};

pub(super) fn reply(question: &Question) -> Option<Reply> {
    let (texts, input) = texts(question.body.get("input")?)?;
    let dimensions = question.number("dimensions").unwrap_or(DIMENSIONS);
    if texts > TEXTS_MAX || !(1..=DIMENSIONS_MAX).contains(&dimensions) {
        return None;
    }
    let dimensions = match question.is(Misbehaviour::Big) {
        // Half a dozen bytes for each, either way it is written.
        true => question.big(6 * texts),
        false => usize::try_from(dimensions).ok()?,
    };
    let vector: Vec<f32> = VALUES.iter().copied().cycle().take(dimensions).collect();
    let embedding = match question.text("encoding_format") {
        Some("base64") => {
            let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
            Value::from(STANDARD.encode(bytes))
        }
        _ => Value::from(vector),
    };
    let entry = |index: u64| json!({"object": "embedding", "index": index, "embedding": embedding});
    let body = json!({
        "object": "list", "model": question.model,
        "data": (0..texts).map(entry).collect::<Vec<_>>(),
    });
    let usage = json!({"prompt_tokens": input, "total_tokens": input});
    Some(question.document(input, 0, body, Some(question.with_cost(usage, input))))
}

/// Unless asked for otherwise.
const DIMENSIONS: u64 = 16;
/// More is refused, as OpenAI does.
const DIMENSIONS_MAX: u64 = 3072;
const TEXTS_MAX: u64 = 2048;
/// Every vector repeats these, which are exact in either encoding.
const VALUES: [f32; 5] = [0.5, -0.25, 0.125, -1.0, 0.0];
