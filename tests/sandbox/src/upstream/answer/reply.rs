//! An answer that nothing has gone wrong with yet, in the parts it is written in.

use bytes::Bytes;
use serde_json::{Value, json};

use super::super::route::Dialect;
use super::super::{Misbehaviour, Produced};
use super::{Question, Route, decimal};

pub(in crate::upstream) struct Reply {
    pub(in crate::upstream) content_type: &'static str,
    /// What was read before the answer began.
    pub(in crate::upstream) input: u64,
    /// What was made before the answer began; its parts say what is made later.
    pub(in crate::upstream) output: u64,
    pub(in crate::upstream) parts: Vec<Part>,
}

/// One write, and what it tells the client.
#[derive(Clone)]
pub(in crate::upstream) struct Part {
    pub(in crate::upstream) bytes: Bytes,
    /// How many times it is written. It is noted as often.
    pub(in crate::upstream) times: u64,
    pub(in crate::upstream) kind: Kind,
    pub(in crate::upstream) input: u64,
    pub(in crate::upstream) output: u64,
    pub(in crate::upstream) tells_usage: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::upstream) enum Kind {
    /// A head, an end, or a piece of a document.
    Piece,
    Event,
    /// An event that brings something of what was asked for.
    Output,
}

impl Part {
    pub(in crate::upstream) fn of(bytes: impl Into<Bytes>) -> Self {
        let kind = Kind::Piece;
        Self { bytes: bytes.into(), times: 1, kind, input: 0, output: 0, tells_usage: false }
    }

    /// An event that brings this much output.
    pub(super) fn bringing(self, output: u64) -> Self {
        Self { kind: Kind::Output, output, ..self }
    }

    pub(super) fn telling_usage(self, tells_usage: bool) -> Self {
        Self { tells_usage, ..self }
    }

    pub(in crate::upstream) fn as_chunk(&self) -> Self {
        let mut chunk = format!("{:x}\r\n", self.bytes.len()).into_bytes();
        chunk.extend_from_slice(&self.bytes);
        chunk.extend_from_slice(b"\r\n");
        Self { bytes: chunk.into(), ..self.clone() }
    }

    /// In as many writes as it has bytes, the last of which counts; one that is repeated stays
    /// as it is.
    pub(in crate::upstream) fn byte_by_byte(self) -> Vec<Self> {
        if self.times > 1 {
            return vec![self];
        }
        let mut parts: Vec<Self> =
            (0..self.bytes.len()).map(|at| Self::of(self.bytes.slice(at..=at))).collect();
        if let Some(last) = parts.last_mut() {
            *last = Self { bytes: last.bytes.clone(), ..self };
        }
        parts
    }

    pub(in crate::upstream) fn note(&self, produced: &mut Produced) {
        produced.input += self.input;
        produced.output += self.output;
        produced.told_usage |= self.tells_usage;
    }
}

impl Reply {
    pub(in crate::upstream) fn length(&self) -> u64 {
        let length = |part: &Part| u64::try_from(part.bytes.len()).unwrap_or(0) * part.times;
        self.parts.iter().map(length).sum()
    }

    /// A body of any type, in halves.
    pub(super) fn whole(content_type: &'static str, input: u64, output: u64, body: Bytes) -> Self {
        let mut first = body;
        let rest = first.split_off(first.len() / 2);
        let parts = [first, rest].into_iter().filter(|half| !half.is_empty());
        Self { content_type, input, output, parts: parts.map(Part::of).collect() }
    }
}

impl Question {
    /// A document, which tells its usage if it has one and may.
    pub(super) fn document(
        &self,
        input: u64,
        output: u64,
        mut body: Value,
        usage: Option<Value>,
    ) -> Reply {
        const JSON: &str = "application/json";
        if self.is(Misbehaviour::ErrorEvent) {
            let error = self.error_object().to_string();
            return Reply::whole(JSON, input, 0, error.into());
        }
        let usage = usage.filter(|_| !self.is(Misbehaviour::NoUsage));
        let tells_usage = usage.is_some() && !self.is(Misbehaviour::InvalidJson);
        if let Some(usage) = usage {
            body["usage"] = usage;
        }
        let mut reply = Reply::whole(JSON, input, output, self.written(&body).into());
        if let Some(last) = reply.parts.last_mut() {
            last.tells_usage = tells_usage;
        }
        reply
    }

    /// A stream of what is asked for and of what then says that it was all.
    pub(super) fn streamed(&self, input: u64, content: Vec<Part>, closing: Vec<Part>) -> Reply {
        let mut parts = content;
        if self.is(Misbehaviour::ErrorEvent) {
            parts.truncate(parts.len() / 2);
            parts.push(self.error_event());
        } else {
            parts.extend(closing);
        }
        Reply { content_type: "text/event-stream; charset=utf-8", input, output: 0, parts }
    }

    /// An event whose name stands only in its data, if anywhere.
    pub(super) fn unnamed(&self, data: &Value) -> Part {
        self.event("", &self.written(data))
    }

    /// An event that is called what its data has as `type`.
    pub(super) fn named(&self, data: &Value) -> Part {
        self.event(data["type"].as_str().unwrap_or_default(), &self.written(data))
    }

    pub(super) fn event(&self, name: &str, data: &str) -> Part {
        let end = if self.is(Misbehaviour::Crlf) { "\r\n" } else { "\n" };
        let name = if name.is_empty() { String::new() } else { format!("event: {name}{end}") };
        Part { kind: Kind::Event, ..Part::of(format!("{name}data: {data}{end}{end}")) }
    }

    /// Usage with what it says to cost, where the model says so. `counted` is what is paid for.
    pub(super) fn with_cost(&self, mut usage: Value, counted: u64) -> Value {
        if self.is(Misbehaviour::UsdCost) {
            usage["cost"] = decimal(counted, 6);
        }
        usage
    }

    fn written(&self, value: &Value) -> String {
        let mut text = value.to_string();
        if self.is(Misbehaviour::InvalidJson) {
            let half = (0..=text.len() / 2).rev().find(|at| text.is_char_boundary(*at));
            text.truncate(half.unwrap_or(0));
        }
        text
    }

    fn error_event(&self) -> Part {
        match self.route {
            Route::Chat | Route::Completions => self.unnamed(&self.error_object()),
            Route::Responses => self.named(&json!({
                "type": "error", "code": "server_error", "message": MESSAGE, "param": null,
                "sequence_number": 0,
            })),
            _ => {
                let mut error = self.error_object();
                error["type"] = "error".into();
                self.named(&error)
            }
        }
    }

    fn error_object(&self) -> Value {
        match self.route.dialect() {
            Dialect::OpenAi => json!({"error": {
                "message": MESSAGE, "type": "server_error", "param": null, "code": "server_error",
            }}),
            Dialect::Anthropic => {
                json!({"type": "error", "error": {"type": "api_error", "message": MESSAGE}})
            }
        }
    }
}

const MESSAGE: &str = "The server had an error while processing your request.";
