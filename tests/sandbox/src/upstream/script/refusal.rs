//! Answers that are short, and mostly bad news.

use serde_json::{Value, json};

use super::super::answer::Question;
use super::super::route::Dialect;
use super::super::{Misbehaviour, UpstreamOptions};
use super::{Act, Ending, Script};

impl Script {
    /// What a model that answers nothing else gets instead of an answer.
    pub(in crate::upstream) fn refusal(
        question: &Question,
        options: &UpstreamOptions,
        url: &str,
    ) -> Option<Self> {
        question.misbehaviours.iter().find_map(|misbehaviour| {
            Self::refusal_of(*misbehaviour, question.route.dialect(), options, url)
        })
    }

    fn refusal_of(
        misbehaviour: Misbehaviour,
        dialect: Dialect,
        options: &UpstreamOptions,
        url: &str,
    ) -> Option<Self> {
        Some(match misbehaviour {
            Misbehaviour::Status400 => {
                let message = "Invalid 'temperature': decimal above maximum value.";
                Self::failure(dialect, 400, message)
            }
            Misbehaviour::Status401 => Self::unauthorized(dialect, &options.api_key),
            Misbehaviour::Status402 => Self::failure(dialect, 402, "Add credits to continue."),
            Misbehaviour::Status429 => {
                Self::failure(dialect, 429, "Rate limit reached for requests.")
            }
            Misbehaviour::Status500 => Self::failure(dialect, 500, "The server had an error."),
            Misbehaviour::Status503 => Self::failure(dialect, 503, "The server is overloaded."),
            Misbehaviour::Html => {
                Self::whole(200, "text/html", &[], "<html><h1>Just a moment…</h1></html>")
            }
            Misbehaviour::Redirect => {
                let location = format!("location: {url}/elsewhere\r\n");
                Self::whole(307, "application/json", &[&location], "{}")
            }
            Misbehaviour::Refuses => Self { status: 0, acts: Vec::new(), ending: Ending::Close },
            Misbehaviour::Hangs => Self { status: 0, acts: vec![Act::Hang], ending: Ending::Close },
            _ => return None,
        })
    }

    pub(in crate::upstream) fn models(listing: Option<&Value>) -> Self {
        let entry = |id| json!({"id": id, "object": "model", "created": 0, "owned_by": "sandbox"});
        let plain = || {
            let data: Vec<Value> = Misbehaviour::models().map(entry).collect();
            json!({"object": "list", "data": data})
        };
        let body = listing.cloned().unwrap_or_else(plain).to_string();
        Self::whole(200, "application/json", &[], &body)
    }

    /// Says too much on purpose: none of it may reach a client of the gateway.
    pub(in crate::upstream) fn unauthorized(dialect: Dialect, api_key: &str) -> Self {
        let message = format!("Incorrect API key provided: {api_key}. Organization: org-sandbox.");
        Self::failure(dialect, 401, &message)
    }

    pub(in crate::upstream) fn not_found(path: &str) -> Self {
        Self::failure(Dialect::OpenAi, 404, &format!("Unknown request URL: {path}."))
    }

    pub(in crate::upstream) fn unsupported_parameter(dialect: Dialect, name: &str) -> Self {
        if dialect == Dialect::Anthropic {
            return Self::failure(dialect, 400, &format!("{name}: Extra inputs are not permitted"));
        }
        let message = format!("Unsupported parameter: '{name}' is not supported with this model.");
        let mut body = error_body(dialect, 400, &message);
        body["error"]["param"] = name.into();
        body["error"]["code"] = "unsupported_parameter".into();
        Self::whole(400, "application/json", &[], &body.to_string())
    }

    pub(in crate::upstream) fn plain_text(status: u16, text: &str) -> Self {
        Self::whole(status, "text/plain; charset=utf-8", &[], text)
    }

    /// A JSON error in the words of the route; 429 says when to come back.
    pub(in crate::upstream) fn failure(dialect: Dialect, status: u16, message: &str) -> Self {
        let body = error_body(dialect, status, message).to_string();
        let later: &[&str] = if status == 429 { &["retry-after: 7\r\n"] } else { &[] };
        Self::whole(status, "application/json", later, &body)
    }
}

fn error_body(dialect: Dialect, status: u16, message: &str) -> Value {
    match dialect {
        Dialect::OpenAi => {
            let kind = match status {
                402 => "insufficient_quota",
                429 => "rate_limit_error",
                500.. => "server_error",
                _ => "invalid_request_error",
            };
            json!({"error": {"message": message, "type": kind, "param": null, "code": null}})
        }
        Dialect::Anthropic => {
            let kind = match status {
                401 => "authentication_error",
                402 => "billing_error",
                403 => "permission_error",
                404 => "not_found_error",
                429 => "rate_limit_error",
                503 | 529 => "overloaded_error",
                500.. => "api_error",
                _ => "invalid_request_error",
            };
            json!({
                "type": "error",
                "error": {"type": kind, "message": message},
                "request_id": "req_sandbox",
            })
        }
    }
}

pub(super) fn head(status: u16, content_type: &str, headers: &[&str]) -> String {
    let reason = match status {
        200 => "OK",
        307 => "Temporary Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Whatever",
    };
    let headers = headers.concat();
    // The last five are what real upstreams send and no client of ours should see.
    format!(
        "HTTP/1.1 {status} {reason}\r\ncontent-type: {content_type}\r\n{headers}\
         openai-organization: org-sandbox\r\nx-ratelimit-remaining-requests: 4999\r\n\
         ratelimit: \"requests\";r=4999;t=1\r\nanthropic-organization-id: org-sandbox\r\n\
         set-cookie: session=sandbox\r\n\r\n"
    )
}
