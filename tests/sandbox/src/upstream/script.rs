//! An answer as a list of small acts, decided before the first of them is performed.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::io::{self, AsyncWriteExt};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::watch;

use super::answer::Question;
use super::{Misbehaviour, Seen, UpstreamOptions};

pub(super) struct Script {
    acts: Vec<Act>,
    ending: Ending,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    KeepAlive,
    Close,
}

enum Act {
    Write(Bytes),
    Pause(Duration),
    Gate,
    /// For ever, or until the client leaves or the upstream stops.
    Hang,
}

impl Script {
    pub(super) async fn play(
        self,
        writer: &mut OwnedWriteHalf,
        mut gate: watch::Receiver<bool>,
    ) -> io::Result<Ending> {
        for act in self.acts {
            match act {
                Act::Write(bytes) => writer.write_all(&bytes).await?,
                Act::Pause(duration) => tokio::time::sleep(duration).await,
                // A gate that is gone with its upstream counts as open.
                Act::Gate => drop(gate.wait_for(|open| *open).await),
                Act::Hang => std::future::pending().await,
            }
            // Between two writes the client gets a chance to read, and we to see that it left.
            tokio::task::yield_now().await;
        }
        Ok(self.ending)
    }

    /// The answer to a chat completion.
    pub(super) fn chat(seen: &Seen, options: &UpstreamOptions, url: &str) -> Self {
        let Some(question) = Question::read(&seen.json()) else {
            return Self::error(400, "invalid_request_error", "We could not read your request.");
        };
        let script = match question.misbehaviour {
            Some(Misbehaviour::Status400) => {
                let message = "Invalid 'temperature': decimal above maximum value.";
                return Self::error(400, "invalid_request_error", message);
            }
            Some(Misbehaviour::Status401) => return Self::unauthorized(&options.api_key),
            Some(Misbehaviour::Status402) => {
                return Self::error(402, "insufficient_quota", "Add credits to continue.");
            }
            Some(Misbehaviour::Status429) => return Self::too_many_requests(),
            Some(Misbehaviour::Status500) => {
                return Self::error(500, "server_error", "The server had an error.");
            }
            Some(Misbehaviour::Html) => {
                return Self::whole(200, "text/html", &[], "<html><h1>Just a moment…</h1></html>");
            }
            Some(Misbehaviour::Redirect) => {
                let location = format!("location: {url}/elsewhere\r\n");
                return Self::whole(307, "application/json", &[&location], "{}");
            }
            Some(Misbehaviour::Refuses) => {
                return Self { acts: Vec::new(), ending: Ending::Close };
            }
            Some(Misbehaviour::Hangs) => {
                return Self { acts: vec![Act::Hang], ending: Ending::Close };
            }
            _ => Self::completion(&question),
        };
        script.misbehave(&question, options)
    }

    pub(super) fn models() -> Self {
        let entry = |id| json!({"id": id, "object": "model", "created": 0, "owned_by": "sandbox"});
        let data: Vec<Value> = Misbehaviour::models().map(entry).collect();
        let body = json!({"object": "list", "data": data}).to_string();
        Self::whole(200, "application/json", &[], &body)
    }

    /// Says too much on purpose: none of it may reach a client of the gateway.
    pub(super) fn unauthorized(api_key: &str) -> Self {
        let message = format!("Incorrect API key provided: {api_key}. Organization: org-sandbox.");
        Self::error(401, "invalid_request_error", &message)
    }

    pub(super) fn not_found(path: &str) -> Self {
        Self::error(404, "invalid_request_error", &format!("Unknown request URL: {path}."))
    }

    pub(super) fn plain_text(status: u16, text: &str) -> Self {
        Self::whole(status, "text/plain; charset=utf-8", &[], text)
    }

    fn too_many_requests() -> Self {
        let body = error_body("rate_limit_error", "Rate limit reached for requests.");
        Self::whole(429, "application/json", &["retry-after: 7\r\n"], &body)
    }

    fn error(status: u16, kind: &str, message: &str) -> Self {
        Self::whole(status, "application/json", &[], &error_body(kind, message))
    }

    fn whole(status: u16, content_type: &str, headers: &[&str], body: &str) -> Self {
        let length = format!("content-length: {}\r\n", body.len());
        let head = head(status, content_type, &[headers, &[&length]].concat());
        let acts = vec![Act::Write((head + body).into())];
        Self { acts, ending: Ending::KeepAlive }
    }

    /// A well-behaved answer in as many writes as it has parts: the head, every event or half a
    /// body, and the end.
    fn completion(question: &Question) -> Self {
        let (content_type, parts) = if question.stream {
            ("text/event-stream; charset=utf-8", question.events())
        } else {
            let mut body = question.json();
            let half = (0..=body.len() / 2).rev().find(|at| body.is_char_boundary(*at));
            let rest = body.split_off(half.unwrap_or(0));
            ("application/json", vec![body, rest])
        };
        let mut acts = Vec::with_capacity(parts.len() + 2);
        if question.is(Misbehaviour::ContentLength) {
            let length: usize = parts.iter().map(String::len).sum();
            let length = format!("content-length: {length}\r\n");
            acts.push(Act::Write(head(200, content_type, &[&length]).into()));
            acts.extend(parts.into_iter().map(|part| Act::Write(part.into())));
        } else {
            let chunked = "transfer-encoding: chunked\r\n";
            acts.push(Act::Write(head(200, content_type, &[chunked]).into()));
            let chunk = |part: String| format!("{:x}\r\n{part}\r\n", part.len());
            acts.extend(parts.into_iter().map(|part| Act::Write(chunk(part).into())));
            acts.push(Act::Write("0\r\n\r\n".into()));
        }
        Self { acts, ending: Ending::KeepAlive }
    }

    /// What goes wrong with an answer that by itself is right.
    fn misbehave(mut self, question: &Question, options: &UpstreamOptions) -> Self {
        match question.misbehaviour {
            Some(Misbehaviour::DropsMidStream) => {
                self.acts.truncate(self.acts.len() / 2);
                self.ending = Ending::Close;
            }
            Some(Misbehaviour::HangsMidStream) => {
                self.acts.truncate(self.acts.len() / 2);
                self.acts.push(Act::Hang);
            }
            Some(Misbehaviour::Slow) if options.gated => {
                let ahead = if question.stream { GATED_AFTER } else { 0 };
                self.acts.insert(ahead.min(self.acts.len()), Act::Gate);
            }
            Some(Misbehaviour::Slow) => {
                let pause = |act| [Act::Pause(SLOW_GAP), act];
                self.acts = self.acts.into_iter().flat_map(pause).collect();
                self.acts.insert(0, Act::Pause(SLOW_START));
            }
            Some(Misbehaviour::ByteByByte) => {
                self.acts = self.acts.into_iter().flat_map(Act::byte_by_byte).collect();
            }
            Some(Misbehaviour::EarlyHints) => {
                let hints = "HTTP/1.1 103 Early Hints\r\nlink: </x>; rel=preload\r\n\r\n";
                self.acts.insert(0, Act::Write(hints.into()));
            }
            _ => {}
        }
        self
    }
}

impl Act {
    fn byte_by_byte(self) -> Vec<Self> {
        match self {
            Self::Write(bytes) => {
                (0..bytes.len()).map(|at| Self::Write(bytes.slice(at..=at))).collect()
            }
            other => vec![other],
        }
    }
}

fn head(status: u16, content_type: &str, headers: &[&str]) -> String {
    let reason = match status {
        200 => "OK",
        307 => "Temporary Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        404 => "Not Found",
        429 => "Too Many Requests",
        _ => "Internal Server Error",
    };
    let headers = headers.concat();
    // The last three are what real upstreams send and no client of ours should see.
    format!(
        "HTTP/1.1 {status} {reason}\r\ncontent-type: {content_type}\r\n{headers}\
         openai-organization: org-sandbox\r\nx-ratelimit-remaining-requests: 4999\r\n\
         set-cookie: session=sandbox\r\n\r\n"
    )
}

fn error_body(kind: &str, message: &str) -> String {
    json!({"error": {"message": message, "type": kind, "param": null, "code": null}}).to_string()
}

/// The head, the event with the role and the first word.
const GATED_AFTER: usize = 3;
const SLOW_START: Duration = Duration::from_millis(200);
const SLOW_GAP: Duration = Duration::from_millis(10);
