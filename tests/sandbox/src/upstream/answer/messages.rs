//! `/messages`, Anthropic's.

use serde_json::{Value, json};

use super::super::Misbehaviour;
use super::{Part, Question, Reply, characters, count, text_tokens};

pub(super) fn reply(question: &Question) -> Option<Reply> {
    let messages = question.body.get("messages")?.as_array()?;
    question.number("max_tokens").filter(|limit| *limit > 0)?;
    let system = &question.body["system"];
    let text: u64 = messages.iter().map(|message| characters(&message["content"])).sum();
    let input = text_tokens(text + characters(system))
        + 3 * (count(messages) + u64::from(!system.is_null()));
    let messages = Messages { question, input };
    Some(if question.stream {
        question.streamed(input, messages.content(), messages.closing())
    } else {
        let mut usage = messages.input_usage();
        merge(&mut usage, messages.output_usage());
        let blocks: Vec<Value> = messages.blocks().into_iter().map(|block| block.whole).collect();
        let body = messages.object(&blocks, Some(messages.stop_reason()));
        question.document(input, question.words(), body, Some(usage))
    })
}

struct Messages<'q> {
    question: &'q Question,
    input: u64,
}

/// A block of content, as a document has it and as a stream begins and fills it.
struct Block {
    whole: Value,
    begun: Value,
    filled: Filled,
}

enum Filled {
    Already,
    By(Value),
    WordByWord,
}

impl Messages<'_> {
    /// The three parts of the input, none of which is part of another.
    fn input_usage(&self) -> Value {
        let is_cached = self.question.is(Misbehaviour::Cached);
        let (read, written) = if is_cached { (self.input / 2, self.input / 4) } else { (0, 0) };
        json!({
            "input_tokens": self.input - read - written,
            "cache_read_input_tokens": read,
            "cache_creation_input_tokens": written,
        })
    }

    fn output_usage(&self) -> Value {
        let mut usage = json!({"output_tokens": self.question.words()});
        if self.question.is(Misbehaviour::Reasoning) {
            let thinking = self.question.hidden();
            usage["output_tokens_details"] = json!({"thinking_tokens": thinking});
        }
        if self.question.is(Misbehaviour::WebSearch) {
            usage["server_tool_use"] = json!({"web_search_requests": SEARCHES});
        }
        self.question.with_cost(usage, self.input + self.question.words())
    }

    fn object(&self, content: &[Value], stop_reason: Option<&str>) -> Value {
        json!({
            "id": "msg_sandbox", "type": "message", "role": "assistant",
            "model": self.question.model, "content": content,
            "stop_reason": stop_reason, "stop_sequence": null,
        })
    }

    fn stop_reason(&self) -> &'static str {
        if self.question.is_cut_short() { "max_tokens" } else { "end_turn" }
    }

    fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        if self.question.is(Misbehaviour::WebSearch) {
            blocks.extend((0..SEARCHES).flat_map(search));
        }
        let text = |text: String| json!({"type": "text", "text": text});
        let whole = text(self.question.all_words());
        blocks.push(Block { whole, begun: text(String::new()), filled: Filled::WordByWord });
        blocks
    }

    fn content(&self) -> Vec<Part> {
        let mut message = self.object(&[], None);
        if !self.question.is(Misbehaviour::NoUsage) {
            message["usage"] = self.input_usage();
            // As much as the beginning of an answer is said to have.
            message["usage"]["output_tokens"] = 1.into();
        }
        let begun = json!({"type": "message_start", "message": message});
        let mut parts = vec![self.question.named(&begun)];
        for (index, block) in self.blocks().iter().enumerate() {
            let begun = json!({
                "type": "content_block_start", "index": index, "content_block": block.begun,
            });
            parts.push(self.question.named(&begun));
            if index == 0 {
                parts.push(self.question.named(&json!({"type": "ping"})));
            }
            match &block.filled {
                Filled::Already => {}
                Filled::By(delta) => parts.push(self.delta(index, delta)),
                Filled::WordByWord => parts.extend(self.words(index)),
            }
            let ended = json!({"type": "content_block_stop", "index": index});
            parts.push(self.question.named(&ended));
        }
        parts
    }

    fn words(&self, block: usize) -> Vec<Part> {
        // Thinking that is not shown comes before everything that is.
        let mut hidden = self.question.hidden();
        self.question.each_word(|index| {
            let delta = json!({"type": "text_delta", "text": self.question.word(index)});
            vec![self.delta(block, &delta).bringing(1 + std::mem::take(&mut hidden))]
        })
    }

    fn delta(&self, block: usize, delta: &Value) -> Part {
        let delta = json!({"type": "content_block_delta", "index": block, "delta": delta});
        self.question.named(&delta)
    }

    fn closing(&self) -> Vec<Part> {
        let mut last = json!({
            "type": "message_delta",
            "delta": {"stop_reason": self.stop_reason(), "stop_sequence": null},
        });
        let tells_usage = !self.question.is(Misbehaviour::NoUsage);
        if tells_usage {
            last["usage"] = self.output_usage();
            if self.question.is(Misbehaviour::WebSearch) {
                // What was found is input too, so that the input is only known now.
                merge(&mut last["usage"], self.input_usage());
            }
        }
        let tells_usage = tells_usage && !self.question.is(Misbehaviour::InvalidJson);
        let mut parts = vec![self.question.named(&last).telling_usage(tells_usage)];
        if !self.question.is(Misbehaviour::NoDone) {
            parts.push(self.question.named(&json!({"type": "message_stop"})));
        }
        parts
    }
}

/// A search of the web that the upstream did by itself, and what it found.
fn search(number: u64) -> [Block; 2] {
    let id = format!("srvtoolu_sandbox_{number}");
    let asked = |input: Value| json!({"type": "server_tool_use", "id": id, "name": "web_search", "input": input});
    let query = json!({"query": "satoshi"});
    let delta = json!({"type": "input_json_delta", "partial_json": query.to_string()});
    let page = json!({
        "type": "web_search_result", "url": "https://sandbox.invalid/", "title": "Satoshi",
        "encrypted_content": "c2F0b3NoaQ==", "page_age": null,
    });
    let found = json!({"type": "web_search_tool_result", "tool_use_id": id, "content": [page]});
    [
        Block { whole: asked(query), begun: asked(json!({})), filled: Filled::By(delta) },
        Block { whole: found.clone(), begun: found, filled: Filled::Already },
    ]
}

fn merge(into: &mut Value, more: Value) {
    if let (Value::Object(into), Value::Object(more)) = (into, more) {
        into.extend(more);
    }
}

const SEARCHES: u64 = 2;
