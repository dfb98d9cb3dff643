//! What pricing and routing must know of a request before it is sold.
//!
//! The body is read once, in whole, and only what bounds its cost is looked into. Whatever two readers of the same body could understand differently is refused,
//! because the upstream is a second reader: a field given twice, a field in another letter case.
//! The caller bounds the body; values nested in it are passed over without recursion.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::de::IgnoredAny;

use crate::json;
use crate::route::Route;
use crate::usage::Counts;

/// What was read. Ranges are offsets into the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peeked<'b> {
    pub model: Cow<'b, str>,
    /// The model's name as written, in JSON with its quotes.
    pub model_span: Range<usize>,
    pub stream: bool,
    /// Whether the client itself asked for the usage of a stream, or the route always tells it.
    pub include_usage: bool,
    /// Where a request for usage can be written.
    pub usage_ask: UsageAsk,
    /// The largest output limit that was given; `None` also where a route has none.
    pub output_limit: Option<u64>,
    /// How many answers were asked for; 1 when not given.
    pub n: u64,
    pub demand: Demand,
    pub framing: Framing,
}

/// How a body is written, and so how it is edited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Framing {
    /// One JSON object, whose closing brace is at `end`.
    Json { end: usize },
    /// `multipart/form-data`.
    Multipart,
}

/// What bounds the input of a request, and what the gateway counts itself.
///
/// Nothing that a body refers to is ever fetched: what is not in it is bounded by its kind, or by
/// the model's context.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// No tokenizer makes more than one input token of a byte. Images and audio in the body are
    /// counted apart and not in here.
    pub text_bytes: u64,
    /// The body refers to input that is elsewhere (a file, an earlier answer): only the model's
    /// context bounds it.
    pub is_open: bool,
    /// Images in the prompt whose declared detail is `low`.
    pub images_low: u64,
    /// All others.
    pub images_high: u64,
    /// The longest that audio of so many bytes can be, in milliseconds.
    pub audio_ms_max: u64,
    /// The length of the audio, as far as it can be told from its bytes.
    pub audio_ms: u64,
    /// Characters to be spoken.
    pub characters: u64,
    /// What rerankers bill: one query with up to a hundred documents.
    pub search_units: u64,
    pub web_searches: WebSearches,
    /// Images to be made; 0 where none are.
    pub images: u64,
    /// As asked for; `None` and `auto` are the upstream's own choice.
    pub image_size: Option<String>,
    pub image_quality: Option<String>,
}

/// How many searches of the web an answer may make.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WebSearches {
    #[default]
    None,
    /// The request says how many at most.
    UpTo(u64),
    /// It may, and nothing in the request bounds them.
    Unbounded,
}

impl Demand {
    /// What the request alone says was used once it was served.
    pub fn counted(&self) -> Counts {
        Counts {
            input_images: self.images_low.saturating_add(self.images_high),
            characters: self.characters,
            search_units: self.search_units,
            ..Counts::default()
        }
    }
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

/// Reads the body of a request to `route`. A body that is not JSON is refused as that even when a
/// field before the mistake would have been refused too. `content_type` is the header as sent.
pub fn read<'b>(
    route: Route,
    content_type: Option<&str>,
    body: &'b [u8],
) -> Result<Peeked<'b>, PeekRefusal> {
    let _ = (route, content_type);
    chat(body)
}

fn chat(body: &[u8]) -> Result<Peeked<'_>, PeekRefusal> {
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
        self.read_messages()?;
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
            usage_ask,
            output_limit: limits.into_iter().flatten().max(),
            n: read_count("n", self.n, N_MAX, N_MESSAGE)?.unwrap_or(1),
            demand: Demand {
                text_bytes: u64::try_from(text.len()).unwrap_or(u64::MAX),
                ..Demand::default()
            },
            framing: Framing::Json { end: text.rfind('}').unwrap_or(text.len()) },
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

    fn read_messages(&self) -> Result<(), PeekRefusal> {
        let Some(raw) = self.messages else { return refuse("messages", "is missing") };
        let Some(inside) = raw.strip_prefix('[') else {
            return refuse("messages", "must be an array");
        };
        if inside.trim_start_matches(JSON_BLANK).starts_with(']') {
            return refuse("messages", "must not be empty");
        }
        Ok(())
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
