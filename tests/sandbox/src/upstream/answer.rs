//! What the upstream says: the same words and the same usage for the same question.
//!
//! * `prompt_tokens`: the characters of all message contents / 4, rounded up, and 3 per message.
//! * `completion_tokens`: the smaller of the limit asked for and 20 (2000 for `-long`), times `n`.
//! * A word per output token and, when streamed, an event per word.

use serde_json::{Value, json};

use super::Misbehaviour;

/// What a request says that makes a difference to its answer.
pub(super) struct Question {
    pub(super) model: String,
    pub(super) misbehaviour: Option<Misbehaviour>,
    pub(super) stream: bool,
    include_usage: bool,
    limit: Option<u64>,
    choices: u64,
    prompt_tokens: u64,
}

impl Question {
    /// Nothing when the request lacks what OpenAI insists on.
    pub(super) fn read(body: &Value) -> Option<Self> {
        let model = body.get("model")?.as_str()?.to_owned();
        let limit = ["max_completion_tokens", "max_tokens"]
            .iter()
            .find_map(|name| body.get(name).and_then(Value::as_u64));
        let choices = body.get("n").and_then(Value::as_u64).unwrap_or(1);
        if choices > CHOICES_MAX {
            return None;
        }
        Some(Self {
            stream: body.get("stream").and_then(Value::as_bool).unwrap_or(false)
                && Misbehaviour::of_model(&model) != Some(Misbehaviour::Unstreamed),
            misbehaviour: Misbehaviour::of_model(&model),
            model,
            include_usage: body["stream_options"]["include_usage"].as_bool().unwrap_or(false),
            limit,
            choices,
            prompt_tokens: prompt_tokens(body.get("messages")?.as_array()?),
        })
    }

    pub(super) fn is(&self, misbehaviour: Misbehaviour) -> bool {
        self.misbehaviour == Some(misbehaviour)
    }

    /// The whole body of an unstreamed answer.
    pub(super) fn json(&self) -> String {
        if self.is(Misbehaviour::ErrorEvent) {
            return error_object().to_string();
        }
        let content: String = (0..self.words_per_choice()).map(|index| self.word(index)).collect();
        let choices: Vec<Value> = (0..self.choices)
            .map(|index| {
                json!({
                    "index": index,
                    "message": {"role": "assistant", "content": content},
                    "finish_reason": self.finish_reason(),
                })
            })
            .collect();
        let mut body = json!({
            "id": ID, "object": "chat.completion", "created": CREATED, "model": self.model,
            "choices": choices, "usage": self.usage(),
        });
        if self.is(Misbehaviour::NoUsage) {
            body.as_object_mut().map(|body| body.remove("usage"));
        }
        let text = body.to_string();
        if self.is(Misbehaviour::InvalidJson) {
            return text.chars().take(text.len() / 2).collect();
        }
        text
    }

    /// The events of a streamed answer, each with its blank line.
    pub(super) fn events(&self) -> Vec<String> {
        let mut chunks: Vec<Value> =
            (0..self.choices).map(|choice| self.chunk(role_chunk(choice))).collect();
        for index in 0..self.words_per_choice() {
            for choice in 0..self.choices {
                let delta = json!({"content": self.word(index)});
                chunks.push(self.chunk(choice_chunk(choice, delta, None)));
            }
        }
        if self.is(Misbehaviour::ErrorEvent) {
            chunks.truncate(chunks.len() / 2);
            chunks.push(error_object());
            return self.lines(&chunks);
        }
        for choice in 0..self.choices {
            let finish = Some(self.finish_reason());
            chunks.push(self.chunk(choice_chunk(choice, json!({}), finish)));
        }
        self.add_usage(&mut chunks);
        let mut events = self.lines(&chunks);
        if !self.is(Misbehaviour::NoDone) {
            events.push(self.line("[DONE]"));
        }
        events
    }

    fn add_usage(&self, chunks: &mut Vec<Value>) {
        if self.is(Misbehaviour::UsageNullChunks) {
            chunks.iter_mut().for_each(|chunk| chunk["usage"] = Value::Null);
        }
        if self.is(Misbehaviour::UsageWithContent) {
            // Without the finishing events that follow, the last content would not be the last.
            let content = chunks.iter_mut().rfind(|chunk| {
                chunk["choices"][0]["delta"].get("content").is_some_and(|text| text != "")
            });
            if let Some(chunk) = content {
                chunk["usage"] = self.usage();
            }
        } else if self.include_usage && !self.is(Misbehaviour::NoUsage) {
            let mut chunk = self.chunk(Value::Null);
            chunk["choices"] = json!([]);
            chunk["usage"] = self.usage();
            chunks.push(chunk);
        }
    }

    fn chunk(&self, choice: Value) -> Value {
        json!({
            "id": ID, "object": "chat.completion.chunk", "created": CREATED, "model": self.model,
            "choices": [choice],
        })
    }

    fn lines(&self, chunks: &[Value]) -> Vec<String> {
        let text = |chunk: &Value| {
            let text = chunk.to_string();
            match self.is(Misbehaviour::InvalidJson) {
                true => text.chars().take(text.len() / 2).collect(),
                false => text,
            }
        };
        chunks.iter().map(|chunk| self.line(&text(chunk))).collect()
    }

    fn line(&self, data: &str) -> String {
        let end = if self.is(Misbehaviour::Crlf) { "\r\n" } else { "\n" };
        format!("data: {data}{end}{end}")
    }

    fn words_per_choice(&self) -> u64 {
        let most = if self.is(Misbehaviour::Long) { LONG_WORDS } else { WORDS_MAX };
        self.limit.unwrap_or(most).min(most)
    }

    fn finish_reason(&self) -> &'static str {
        let most = if self.is(Misbehaviour::Long) { LONG_WORDS } else { WORDS_MAX };
        if self.words_per_choice() < most { "length" } else { "stop" }
    }

    fn word(&self, index: u64) -> String {
        let space = if index == 0 { "" } else { " " };
        match self.misbehaviour {
            Some(Misbehaviour::DataColonText) => pick(&TRAPS, index).to_owned(),
            Some(Misbehaviour::Big) => {
                let words = self.words_per_choice().max(1);
                let length = usize::try_from(BIG_BYTES / words).unwrap_or(0);
                space.to_owned() + &"x".repeat(length)
            }
            _ => space.to_owned() + pick(&WORDS, index),
        }
    }

    fn usage(&self) -> Value {
        let completion_tokens = self.words_per_choice() * self.choices;
        let mut usage = json!({
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": self.prompt_tokens + completion_tokens,
        });
        if self.is(Misbehaviour::Cached) {
            usage["prompt_tokens_details"] = json!({"cached_tokens": self.prompt_tokens / 2});
        }
        usage
    }
}

/// Documented above, and computed by tests to know what they owe.
pub(super) fn prompt_tokens(messages: &[Value]) -> u64 {
    let characters: usize = messages.iter().map(|message| characters(&message["content"])).sum();
    let messages = u64::try_from(messages.len()).unwrap_or(u64::MAX);
    u64::try_from(characters).unwrap_or(u64::MAX).div_ceil(4) + 3 * messages
}

/// Content is text, or parts of which some are text.
fn characters(content: &Value) -> usize {
    match content {
        Value::String(text) => text.chars().count(),
        Value::Array(parts) => parts.iter().map(|part| characters(&part["text"])).sum(),
        _ => 0,
    }
}

fn role_chunk(choice: u64) -> Value {
    choice_chunk(choice, json!({"role": "assistant", "content": ""}), None)
}

fn choice_chunk(choice: u64, delta: Value, finish_reason: Option<&str>) -> Value {
    json!({"index": choice, "delta": delta, "finish_reason": finish_reason})
}

fn error_object() -> Value {
    json!({"error": {
        "message": "The server had an error while processing your request.",
        "type": "server_error",
        "param": null,
        "code": "server_error",
    }})
}

fn pick<'w>(words: &[&'w str], index: u64) -> &'w str {
    let index = usize::try_from(index).unwrap_or(0);
    words.iter().cycle().nth(index % words.len()).copied().unwrap_or_default()
}

const ID: &str = "chatcmpl-sandbox";
const CREATED: u64 = 1_700_000_000;
/// OpenAI's own limit of `n`; more is refused.
const CHOICES_MAX: u64 = 128;
const WORDS_MAX: u64 = 20;
const LONG_WORDS: u64 = 2000;
const BIG_BYTES: u64 = 4 << 20;

const WORDS: [&str; 20] = [
    "Every", "satoshi", "that", "came", "in", "is", "either", "spent", "on", "this", "very",
    "answer", "or", "on", "its", "way", "back", "to", "you", "now.",
];

/// Text that a careless reader of the stream takes for the stream itself.
const TRAPS: [&str; 8] = [
    "data: ",
    "\n\n",
    "data: {\"usage\":{\"prompt_tokens\":999999,\"completion_tokens\":999999}}\n\n",
    "\"usage\":{\"prompt_tokens\":888888,\"completion_tokens\":888888,\"total_tokens\":1}",
    "data: [DONE]\n\n",
    "\r\n\r\ndata:[DONE]\r\n\r\n",
    "\\\"usage\\\": null}",
    ": a comment\nevent: error\n\n",
];
