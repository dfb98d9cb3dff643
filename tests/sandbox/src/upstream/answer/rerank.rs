//! `/rerank`, as Cohere has it, and with usage in tokens as others do.

use serde_json::{Value, json};

use super::super::Misbehaviour;
use super::{Question, Reply, characters, count, decimal, text_tokens};

pub(super) fn reply(question: &Question) -> Option<Reply> {
    let query = count(question.text("query")?.chars());
    let documents = question.body.get("documents")?.as_array()?;
    let texts: u64 = documents.iter().map(text_of).sum();
    let found = question.number("top_n").unwrap_or(u64::MAX).min(count(documents));
    // The documents as they came, the first one always the best.
    let result = |index: u64| {
        let score = 999_u64.saturating_sub(index);
        json!({"index": index, "relevance_score": decimal(score, 3)})
    };
    let results: Vec<Value> = (0..found).map(result).collect();
    if question.is(Misbehaviour::ByTokens) {
        let tokens = text_tokens(query + texts);
        let body = json!({"object": "list", "model": question.model, "results": results});
        let usage = question.with_cost(json!({"total_tokens": tokens}), tokens);
        return Some(question.document(tokens, 0, body, Some(usage)));
    }
    let units = count(documents).div_ceil(DOCUMENTS_PER_UNIT);
    let mut body = json!({"id": "rerank-sandbox", "results": results});
    let tells_usage = !question.is(Misbehaviour::NoUsage);
    if tells_usage {
        body["meta"] = json!({
            "api_version": {"version": "2"}, "billed_units": {"search_units": units},
        });
    }
    let cost = question
        .is(Misbehaviour::UsdCost)
        .then(|| question.with_cost(json!({"search_units": units}), units));
    let mut reply = question.document(units, 0, body, cost);
    if let Some(last) = reply.parts.last_mut() {
        let is_readable =
            !question.is(Misbehaviour::InvalidJson) && !question.is(Misbehaviour::ErrorEvent);
        last.tells_usage = tells_usage && is_readable;
    }
    Some(reply)
}

/// A document is a text, or an object that has one.
fn text_of(document: &Value) -> u64 {
    characters(document) + document.get("text").map_or(0, characters)
}

const DOCUMENTS_PER_UNIT: u64 = 100;
