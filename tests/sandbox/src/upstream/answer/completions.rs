//! `/completions`, the old ones.

use serde_json::{Value, json};

use super::super::Misbehaviour;
use super::chat::{CHOICES_MAX, tells_usage_last, usage, with_usage};
use super::{CREATED, Part, Question, Reply, characters, count, text_tokens};

pub(super) fn reply(question: &Question) -> Option<Reply> {
    let (prompts, input) = texts(question.body.get("prompt")?)?;
    let shown = question.how_many("n", CHOICES_MAX)?;
    let made = question.how_many("best_of", CHOICES_MAX)?.max(shown);
    let completions = Completions { question, shown: shown * prompts, made: made * prompts, input };
    Some(if question.stream {
        question.streamed(input, completions.content(), completions.closing())
    } else {
        let output = completions.output();
        question.document(input, output, completions.body(), Some(completions.usage()))
    })
}

/// How many texts there are, and what they count as. They come as one text or as many, or as
/// numbers that stand for a text or for many.
pub(super) fn texts(input: &Value) -> Option<(u64, u64)> {
    match input {
        Value::String(_) => Some((1, text_tokens(characters(input)))),
        Value::Array(items) => match items.first()? {
            Value::String(_) => {
                Some((count(items), text_tokens(items.iter().map(characters).sum())))
            }
            Value::Number(_) => Some((1, count(items))),
            Value::Array(_) => {
                Some((count(items), items.iter().filter_map(Value::as_array).map(count).sum()))
            }
            _ => None,
        },
        _ => None,
    }
}

struct Completions<'q> {
    question: &'q Question,
    /// Choices, over all prompts.
    shown: u64,
    /// Choices, and those that nobody chose.
    made: u64,
    input: u64,
}

impl Completions<'_> {
    fn output(&self) -> u64 {
        self.question.words() * self.made
    }

    fn usage(&self) -> Value {
        usage(self.question, self.input, self.output(), self.question.hidden() * self.made)
    }

    fn body(&self) -> Value {
        let text = self.question.all_words();
        let finish = Some(self.finish_reason());
        let choices = (0..self.shown).map(|index| choice(index, &text, finish));
        self.envelope(choices.collect(), None)
    }

    fn content(&self) -> Vec<Part> {
        let unchosen = self.question.words() * (self.made - self.shown);
        let hidden = self.question.hidden() * self.shown;
        let mut parts = Vec::new();
        for index in 0..self.question.shown() {
            for shown in 0..self.shown {
                let is_last = index + 1 == self.question.shown() && shown + 1 == self.shown;
                let usage = (is_last && self.question.is(Misbehaviour::UsageWithContent))
                    .then(|| self.usage());
                let tells_usage = usage.is_some();
                let text = choice(shown, &self.question.word(index), None);
                let chunk = self.envelope(vec![text], usage);
                // What nobody sees is made first.
                let unseen = if parts.is_empty() { unchosen + hidden } else { 0 };
                let part = self.question.unnamed(&chunk).bringing(1 + unseen);
                parts.push(part.telling_usage(tells_usage));
            }
        }
        parts
    }

    fn closing(&self) -> Vec<Part> {
        let finish = |index| {
            let finished = choice(index, "", Some(self.finish_reason()));
            self.question.unnamed(&self.envelope(vec![finished], None))
        };
        let mut parts: Vec<Part> = (0..self.shown).map(finish).collect();
        if tells_usage_last(self.question) {
            let last = self.envelope(Vec::new(), Some(self.usage()));
            parts.push(self.question.unnamed(&last).telling_usage(true));
        }
        if !self.question.is(Misbehaviour::NoDone) {
            parts.push(self.question.event("", "[DONE]"));
        }
        parts
    }

    fn envelope(&self, choices: Vec<Value>, usage: Option<Value>) -> Value {
        let envelope = json!({
            "id": "cmpl-sandbox", "object": "text_completion", "created": CREATED,
            "model": self.question.model, "choices": choices,
        });
        with_usage(self.question, envelope, usage)
    }

    fn finish_reason(&self) -> &'static str {
        if self.question.is_cut_short() { "length" } else { "stop" }
    }
}

fn choice(index: u64, text: &str, finish_reason: Option<&str>) -> Value {
    json!({"index": index, "text": text, "logprobs": null, "finish_reason": finish_reason})
}
