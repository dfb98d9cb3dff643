//! What pricing and routing must know of a chat completion before it is sold.
//!
//! The body is read once, in whole, and only its top level (and that of `stream_options`) is
//! looked into. Whatever two readers of the same body could understand differently is refused,
//! because the upstream is a second reader: a field given twice, a field in another letter case.
//! The caller bounds the body; values nested in it are passed over without recursion.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::de::IgnoredAny;

use crate::json;

/// What was read. Ranges are offsets into the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peeked<'b> {
    pub model: Cow<'b, str>,
    /// The model's name as written, quotes included.
    pub model_span: Range<usize>,
    pub stream: bool,
    /// Whether the client itself asked for the usage of a stream.
    pub include_usage: bool,
    /// The value of `stream_options` as written, `null` included.
    pub stream_options_span: Option<Range<usize>>,
    /// Where a request for usage can be written.
    pub usage_ask: UsageAsk,
    /// The largest of `max_tokens`, `max_completion_tokens` and `max_output_tokens` given.
    pub output_limit: Option<u64>,
    /// How many answers were asked for; 1 when not given.
    pub n: u64,
    /// The value of `messages` as written.
    pub messages_span: Range<usize>,
    /// The offset of the closing brace of the body's object.
    pub end: usize,
}

/// Where `include_usage: true` is to be written so that the upstream reports usage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UsageAsk {
    /// The client asked.
    Asked,
    /// There is no `stream_options`.
    NoOptions,
    /// `stream_options` is `null`, here.
    NullOptions(Range<usize>),
    /// `stream_options` is an object without `include_usage`; its brace opens here.
    InOptions { open: usize, is_empty: bool },
    /// `include_usage` is `false` or `null`, here.
    Refused(Range<usize>),
}

/// Why a body is not sold. Safe to show: it names fields and places, and quotes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeekRefusal {
    NotJson { message: String },
    NotAnObject,
    Field { field: &'static str, message: &'static str },
}

impl fmt::Display for PeekRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotJson { message } => write!(f, "The body is not valid JSON: {message}"),
            Self::NotAnObject => f.write_str("The body must be a JSON object"),
            Self::Field { field, message } => write!(f, "`{field}` {message}"),
        }
    }
}

impl std::error::Error for PeekRefusal {}

/// Reads the body of a chat completion. A body that is not JSON is refused as that even when a
/// field before the mistake would have been refused too.
pub fn chat(body: &[u8]) -> Result<Peeked<'_>, PeekRefusal> {
    let text = std::str::from_utf8(body).map_err(|error| PeekRefusal::NotJson {
        message: format!("invalid UTF-8 at byte {}", error.valid_up_to()),
    })?;
    let trimmed = text.trim_start_matches(JSON_BLANK);
    if !trimmed.starts_with('{') {
        serde_json::from_str::<IgnoredAny>(text).map_err(not_json)?;
        return Err(PeekRefusal::NotAnObject);
    }
    let mut fields = Fields::default();
    let mut refusal = None;
    json::each_member(text, |name, raw| {
        if let Err(early) = fields.note(&name, raw) {
            refusal.get_or_insert(early);
        }
    })
    .map_err(not_json)?;
    match refusal {
        Some(refusal) => Err(refusal),
        None => fields.read(text),
    }
}

/// The fields that are read, as written.
#[derive(Default)]
struct Fields<'b> {
    model: Option<&'b str>,
    messages: Option<&'b str>,
    stream: Option<&'b str>,
    stream_options: Option<&'b str>,
    max_tokens: Option<&'b str>,
    max_completion_tokens: Option<&'b str>,
    max_output_tokens: Option<&'b str>,
    n: Option<&'b str>,
}

impl<'b> Fields<'b> {
    fn note(&mut self, name: &str, raw: &'b str) -> Result<(), PeekRefusal> {
        let slot = match name {
            "model" => &mut self.model,
            "messages" => &mut self.messages,
            "stream" => &mut self.stream,
            "stream_options" => &mut self.stream_options,
            "max_tokens" => &mut self.max_tokens,
            "max_completion_tokens" => &mut self.max_completion_tokens,
            "max_output_tokens" => &mut self.max_output_tokens,
            "n" => &mut self.n,
            _ => return not_a_variant(name, &FIELDS),
        };
        if slot.replace(raw).is_some() {
            let field = FIELDS.iter().find(|field| **field == name).unwrap_or(&"model");
            return refuse(field, "appears twice");
        }
        Ok(())
    }

    fn read(self, text: &'b str) -> Result<Peeked<'b>, PeekRefusal> {
        let (model, model_span) = self.read_model(text)?;
        let messages_span = self.read_messages(text)?;
        let usage_ask = self.read_stream_options(text)?;
        let limits = [
            read_count("max_tokens", self.max_tokens, OUTPUT_LIMIT_MAX, LIMIT_MESSAGE)?,
            read_count(
                "max_completion_tokens",
                self.max_completion_tokens,
                OUTPUT_LIMIT_MAX,
                LIMIT_MESSAGE,
            )?,
            read_count(
                "max_output_tokens",
                self.max_output_tokens,
                OUTPUT_LIMIT_MAX,
                LIMIT_MESSAGE,
            )?,
        ];
        Ok(Peeked {
            model,
            model_span,
            stream: read_bool("stream", self.stream)?,
            include_usage: usage_ask == UsageAsk::Asked,
            stream_options_span: self.stream_options.map(|raw| json::span_in(text, raw)),
            usage_ask,
            output_limit: limits.into_iter().flatten().max(),
            n: read_count("n", self.n, N_MAX, N_MESSAGE)?.unwrap_or(1),
            messages_span,
            end: text.rfind('}').unwrap_or(text.len()),
        })
    }

    fn read_model(&self, text: &'b str) -> Result<(Cow<'b, str>, Range<usize>), PeekRefusal> {
        let Some(raw) = self.model else { return refuse("model", "is missing") };
        if !raw.starts_with('"') {
            return refuse("model", "must be a string");
        }
        let Some(model) = json::string(raw) else {
            return refuse("model", "must be a valid string");
        };
        if model.is_empty() {
            return refuse("model", "must not be empty");
        }
        if model.len() > MODEL_BYTES_MAX {
            return refuse("model", "is too long");
        }
        Ok((model, json::span_in(text, raw)))
    }

    fn read_messages(&self, text: &'b str) -> Result<Range<usize>, PeekRefusal> {
        let Some(raw) = self.messages else { return refuse("messages", "is missing") };
        let Some(inside) = raw.strip_prefix('[') else {
            return refuse("messages", "must be an array");
        };
        if inside.trim_start_matches(JSON_BLANK).starts_with(']') {
            return refuse("messages", "must not be empty");
        }
        Ok(json::span_in(text, raw))
    }

    fn read_stream_options(&self, text: &'b str) -> Result<UsageAsk, PeekRefusal> {
        let Some(raw) = self.stream_options else { return Ok(UsageAsk::NoOptions) };
        let span = json::span_in(text, raw);
        if raw == "null" {
            return Ok(UsageAsk::NullOptions(span));
        }
        if !raw.starts_with('{') {
            return refuse("stream_options", "must be an object");
        }
        let mut is_empty = true;
        let mut asked: Option<&str> = None;
        let mut refusal = Ok(());
        json::each_member(raw, |name, value| {
            is_empty = false;
            if name != "include_usage" {
                if refusal.is_ok() {
                    refusal = not_a_variant(&name, &["include_usage"]);
                }
            } else if asked.replace(value).is_some() {
                refusal = refuse("include_usage", "appears twice");
            }
        })
        .map_err(not_json)?;
        refusal?;
        let Some(value) = asked else {
            return Ok(UsageAsk::InOptions { open: span.start, is_empty });
        };
        match read_bool("include_usage", asked)? {
            true => Ok(UsageAsk::Asked),
            false => Ok(UsageAsk::Refused(json::span_in(text, value))),
        }
    }
}

fn read_bool(field: &'static str, raw: Option<&str>) -> Result<bool, PeekRefusal> {
    match raw {
        None | Some("null" | "false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => refuse(field, "must be true or false"),
    }
}

/// Whole numbers as digits only: `1e3` and `5.0` are read differently by different readers.
fn read_count(
    field: &'static str,
    raw: Option<&str>,
    max: u64,
    message: &'static str,
) -> Result<Option<u64>, PeekRefusal> {
    match raw {
        None | Some("null") => Ok(None),
        Some(digits) => match digits.parse::<u64>() {
            Ok(count) if (1..=max).contains(&count) => Ok(Some(count)),
            _ => refuse(field, message),
        },
    }
}

/// Refuses a name that a reader which ignores letter case would take for one of `fields`. The
/// limit we did not see is the one such an upstream would obey.
fn not_a_variant(name: &str, fields: &[&'static str]) -> Result<(), PeekRefusal> {
    let is_lower = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
    if name.bytes().all(is_lower) {
        return Ok(());
    }
    let fold = |c: char| c.to_uppercase().flat_map(char::to_lowercase);
    match fields.iter().find(|field| name.chars().flat_map(fold).eq(field.chars())) {
        Some(field) => refuse(field, "must be written in lower case"),
        None => Ok(()),
    }
}

fn refuse<T>(field: &'static str, message: &'static str) -> Result<T, PeekRefusal> {
    Err(PeekRefusal::Field { field, message })
}

fn not_json(error: serde_json::Error) -> PeekRefusal {
    PeekRefusal::NotJson { message: error.to_string() }
}

/// Longer names are refused.
pub const MODEL_BYTES_MAX: usize = 256;
/// Larger output limits are refused: no model writes so much, and prices must not overflow.
pub const OUTPUT_LIMIT_MAX: u64 = (1 << 31) - 1;
/// More answers to one request are refused, as OpenAI does.
pub const N_MAX: u64 = 128;

const LIMIT_MESSAGE: &str = "must be a whole number from 1 to 2147483647";
const N_MESSAGE: &str = "must be a whole number from 1 to 128";
const JSON_BLANK: [char; 4] = [' ', '\t', '\n', '\r'];
const FIELDS: [&str; 8] = [
    "model",
    "messages",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "n",
];

#[cfg(test)]
mod tests;
