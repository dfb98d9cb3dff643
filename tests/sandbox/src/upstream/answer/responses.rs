//! `/responses`.

use serde_json::{Value, json};

use super::super::Misbehaviour;
use super::{CREATED, Part, Question, Reply, characters, count, text_tokens};

pub(super) fn reply(question: &Question) -> Option<Reply> {
    let responses = Responses { question, input: input_tokens(&question.body)? };
    Some(if question.stream {
        responses.stream()
    } else {
        let usage = responses.ending().has_usage().then(|| responses.usage());
        let body = responses.object(responses.ending(), &responses.output());
        question.document(responses.input, question.words(), body, usage)
    })
}

fn input_tokens(body: &Value) -> Option<u64> {
    let (items, text) = match body.get("input")? {
        Value::Array(items) => {
            let text =
                items.iter().map(|item| characters(&item["content"]) + characters(&item["output"]));
            (count(items), text.sum())
        }
        text @ Value::String(_) => (1, characters(text)),
        _ => return None,
    };
    let instructions = &body["instructions"];
    let messages = items + u64::from(instructions.is_string());
    Some(text_tokens(text + characters(instructions)) + 3 * messages)
}

/// How a response stands, or ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Status {
    InProgress,
    Completed,
    Incomplete,
    Failed,
}

impl Status {
    fn name(self) -> &'static str {
        match self {
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Incomplete => "incomplete",
            Self::Failed => "failed",
        }
    }

    fn has_usage(self) -> bool {
        matches!(self, Self::Completed | Self::Incomplete)
    }
}

struct Responses<'q> {
    question: &'q Question,
    input: u64,
}

impl Responses<'_> {
    fn ending(&self) -> Status {
        if self.question.is(Misbehaviour::Failed) {
            Status::Failed
        } else if self.question.is_cut_short() {
            Status::Incomplete
        } else {
            Status::Completed
        }
    }

    fn usage(&self) -> Value {
        let output = self.question.words();
        let cached = if self.question.is(Misbehaviour::Cached) { self.input / 2 } else { 0 };
        let usage = json!({
            "input_tokens": self.input,
            "input_tokens_details": {"cached_tokens": cached},
            "output_tokens": output,
            "output_tokens_details": {"reasoning_tokens": self.question.hidden()},
            "total_tokens": self.input + output,
        });
        self.question.with_cost(usage, self.input + output)
    }

    /// The response without its usage.
    fn object(&self, status: Status, output: &[Value]) -> Value {
        let error = (status == Status::Failed)
            .then(|| json!({"code": "server_error", "message": "The model failed."}));
        let incomplete =
            (status == Status::Incomplete).then(|| json!({"reason": "max_output_tokens"}));
        json!({
            "id": "resp_sandbox", "object": "response", "created_at": CREATED,
            "status": status.name(), "error": error, "incomplete_details": incomplete,
            "instructions": self.question.body["instructions"],
            "max_output_tokens": self.question.body["max_output_tokens"],
            "model": self.question.model, "output": output, "parallel_tool_calls": true,
            "previous_response_id": null, "store": true, "temperature": 1.0,
            "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": [],
            "top_p": 1.0, "truncation": "disabled", "usage": null, "metadata": {},
        })
    }

    /// The items that come before the text.
    fn preface(&self) -> Vec<Value> {
        let mut items = Vec::new();
        if self.question.is(Misbehaviour::Reasoning) {
            items.push(json!({"id": "rs_sandbox", "type": "reasoning", "summary": []}));
        }
        if self.question.is(Misbehaviour::WebSearch) {
            items.extend((0..SEARCHES).map(|search| {
                json!({
                    "id": format!("ws_sandbox_{search}"), "type": "web_search_call",
                    "status": "completed", "action": {"type": "search", "query": "satoshi"},
                })
            }));
        }
        items
    }

    fn output(&self) -> Vec<Value> {
        let mut items = self.preface();
        items.push(self.message(self.ending()));
        items
    }

    fn message(&self, status: Status) -> Value {
        let content = match status {
            Status::InProgress => json!([]),
            _ => json!([text_part(&self.question.all_words())]),
        };
        // A response fails, its message is left as it is.
        let status = if status == Status::Failed { Status::Incomplete } else { status };
        json!({
            "id": MESSAGE_ID, "type": "message", "role": "assistant", "status": status.name(),
            "content": content,
        })
    }

    fn stream(&self) -> Reply {
        let mut stream = Stream { responses: self, sequence: 0 };
        let preface = self.preface();
        let at = preface.len();
        let begun = self.object(Status::InProgress, &[]);
        let mut content = vec![
            stream.event("response.created", json!({"response": begun})),
            stream.event("response.in_progress", json!({"response": begun})),
        ];
        for (index, item) in preface.iter().enumerate() {
            content.extend(stream.preface(index, item));
        }
        let message = self.message(Status::InProgress);
        content.push(stream.item("added", at, &message));
        content.push(stream.text_event("response.content_part.added", at, "part", text_part("")));
        // Besides the text itself, reasoning was made before it.
        let mut hidden = self.question.hidden();
        content.extend(self.question.each_word(|index| {
            let word = self.question.word(index).into();
            let delta = stream.text_event("response.output_text.delta", at, "delta", word);
            vec![delta.bringing(1 + std::mem::take(&mut hidden))]
        }));
        let closing = stream.closing(at);
        self.question.streamed(self.input, content, closing)
    }
}

/// Numbers its events.
struct Stream<'r> {
    responses: &'r Responses<'r>,
    sequence: u64,
}

impl Stream<'_> {
    fn event(&mut self, name: &str, mut data: Value) -> Part {
        data["type"] = name.into();
        data["sequence_number"] = self.sequence.into();
        self.sequence += 1;
        self.responses.question.named(&data)
    }

    fn item(&mut self, what: &str, at: usize, item: &Value) -> Part {
        let name = format!("response.output_item.{what}");
        self.event(&name, json!({"output_index": at, "item": item}))
    }

    /// An event about the text of the message, with one thing that it says.
    fn text_event(&mut self, name: &str, at: usize, what: &str, value: Value) -> Part {
        let mut data = json!({"item_id": MESSAGE_ID, "output_index": at, "content_index": 0});
        if what != "part" {
            data["logprobs"] = json!([]);
        }
        data[what] = value;
        self.event(name, data)
    }

    /// An item that is not the message: it begins, a search says how it goes, and it ends.
    fn preface(&mut self, at: usize, item: &Value) -> Vec<Part> {
        let mut begun = item.clone();
        let is_search = item["type"] == "web_search_call";
        if is_search {
            begun["status"] = "in_progress".into();
        }
        let mut parts = vec![self.item("added", at, &begun)];
        for stage in ["in_progress", "searching", "completed"].iter().filter(|_| is_search) {
            let data = json!({"item_id": item["id"], "output_index": at});
            parts.push(self.event(&format!("response.web_search_call.{stage}"), data));
        }
        parts.push(self.item("done", at, item));
        parts
    }

    fn closing(&mut self, at: usize) -> Vec<Part> {
        let responses = self.responses;
        let question = responses.question;
        let text = question.all_words();
        let ending = responses.ending();
        let message = responses.message(ending);
        let mut parts = vec![
            self.text_event("response.output_text.done", at, "text", text.as_str().into()),
            self.text_event("response.content_part.done", at, "part", text_part(&text)),
            self.item("done", at, &message),
        ];
        let mut response = responses.object(ending, &responses.output());
        let tells_usage = ending.has_usage() && !question.is(Misbehaviour::NoUsage);
        if tells_usage {
            response["usage"] = responses.usage();
        }
        let name = format!("response.{}", ending.name());
        let last = self.event(&name, json!({"response": response}));
        parts.push(last.telling_usage(tells_usage && !question.is(Misbehaviour::InvalidJson)));
        parts
    }
}

fn text_part(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
}

const MESSAGE_ID: &str = "msg_sandbox";
const SEARCHES: u64 = 2;
