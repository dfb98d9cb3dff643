//! `/chat/completions`.

use serde_json::{Value, json};

use super::super::Misbehaviour;
use super::{CREATED, Part, Question, Reply, characters, count, text_tokens};

pub(super) fn reply(question: &Question) -> Option<Reply> {
    let messages = question.body.get("messages")?.as_array()?;
    let contents = messages.iter().map(|message| characters(&message["content"]));
    let input = text_tokens(contents.sum()) + 3 * count(messages);
    let choices = question.how_many("n", CHOICES_MAX)?;
    let chat = Chat { question, choices, input };
    Some(if question.stream {
        question.streamed(input, chat.content(), chat.closing())
    } else {
        question.document(input, chat.output(), chat.body(), Some(chat.usage()))
    })
}

struct Chat<'q> {
    question: &'q Question,
    choices: u64,
    input: u64,
}

impl Chat<'_> {
    fn output(&self) -> u64 {
        self.question.words() * self.choices
    }

    fn usage(&self) -> Value {
        usage(self.question, self.input, self.output(), self.question.hidden() * self.choices)
    }

    fn body(&self) -> Value {
        let content = self.question.all_words();
        let choice = |index| {
            let message = json!({"role": "assistant", "content": content});
            json!({"index": index, "message": message, "finish_reason": self.finish_reason()})
        };
        json!({
            "id": ID, "object": "chat.completion", "created": CREATED,
            "model": self.question.model, "choices": (0..self.choices).map(choice).collect::<Vec<_>>(),
        })
    }

    fn content(&self) -> Vec<Part> {
        let role = |choice| {
            let delta = json!({"role": "assistant", "content": ""});
            // What is not shown is made first.
            Part { output: self.question.hidden(), ..self.chunk(choice, delta, None) }
        };
        let mut parts: Vec<Part> = (0..self.choices).map(role).collect();
        parts.extend(self.question.each_word(|index| self.word(index)));
        parts
    }

    /// The same word for every choice.
    fn word(&self, index: u64) -> Vec<Part> {
        let of = |choice| {
            let delta = json!({"content": self.question.word(index)});
            let is_last = index + 1 == self.question.shown() && choice + 1 == self.choices;
            let usage =
                (is_last && self.question.is(Misbehaviour::UsageWithContent)).then(|| self.usage());
            let tells_usage = usage.is_some();
            self.chunk(choice, delta, usage).bringing(1).telling_usage(tells_usage)
        };
        (0..self.choices).map(of).collect()
    }

    fn closing(&self) -> Vec<Part> {
        let finish = |choice| {
            let finished = json!({
                "index": choice, "delta": {}, "finish_reason": self.finish_reason(),
            });
            self.question.unnamed(&self.envelope(json!([finished]), None))
        };
        let mut parts: Vec<Part> = (0..self.choices).map(finish).collect();
        if tells_usage_last(self.question) {
            let last = self.envelope(json!([]), Some(self.usage()));
            parts.push(self.question.unnamed(&last).telling_usage(true));
        }
        if !self.question.is(Misbehaviour::NoDone) {
            parts.push(self.question.event("", "[DONE]"));
        }
        parts
    }

    fn chunk(&self, choice: u64, delta: Value, usage: Option<Value>) -> Part {
        let choice = json!({"index": choice, "delta": delta, "finish_reason": null});
        self.question.unnamed(&self.envelope(json!([choice]), usage))
    }

    fn envelope(&self, choices: Value, usage: Option<Value>) -> Value {
        let chunk = json!({
            "id": ID, "object": "chat.completion.chunk", "created": CREATED,
            "model": self.question.model, "choices": choices,
        });
        with_usage(self.question, chunk, usage)
    }

    fn finish_reason(&self) -> &'static str {
        if self.question.is_cut_short() { "length" } else { "stop" }
    }
}

/// A chunk with its usage, or with the `null` that some upstreams put there instead.
pub(super) fn with_usage(question: &Question, mut chunk: Value, usage: Option<Value>) -> Value {
    match usage {
        Some(usage) => chunk["usage"] = usage,
        None if question.is(Misbehaviour::UsageNullChunks) => chunk["usage"] = Value::Null,
        None => {}
    }
    chunk
}

/// Whether a stream has an event of its own for usage: when asked for, and where it can.
pub(super) fn tells_usage_last(question: &Question) -> bool {
    question.body["stream_options"]["include_usage"] == true
        && !question.is(Misbehaviour::NoUsage)
        && !question.is(Misbehaviour::UsageWithContent)
}

pub(super) fn usage(question: &Question, input: u64, output: u64, reasoning: u64) -> Value {
    let mut usage = json!({
        "prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output,
    });
    if question.is(Misbehaviour::Cached) {
        usage["prompt_tokens_details"] = json!({"cached_tokens": input / 2});
    }
    if question.is(Misbehaviour::Reasoning) {
        usage["completion_tokens_details"] = json!({"reasoning_tokens": reasoning});
    }
    question.with_cost(usage, input + output)
}

const ID: &str = "chatcmpl-sandbox";
/// OpenAI's own limit of `n`; more is refused.
pub(super) const CHOICES_MAX: u64 = 128;
