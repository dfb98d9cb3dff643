//! What pricing and routing must know of a request before it is sold.
//!
//! The body is read in whole, and only what bounds its cost is looked into. Whatever two readers
//! of the same body could understand differently is refused, because the upstream is a second
//! reader: a field given twice, a field in another letter case. What would be billed and nobody
//! would meter is refused too. The caller bounds the body; how deep values are nested in it costs
//! no stack.

mod audio;
mod chat;
mod completions;
mod content_type;
mod demand;
mod embeddings;
mod form;
mod generation;
mod images;
mod members;
mod messages;
mod moderations;
mod rerank;
mod responses;
mod skim;
mod tools;
mod wav;

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use self::content_type::ContentType;
use self::members::Members;
use crate::route::Route;

pub use audio::{UPLOAD_BYTES_PER_SECOND, UPLOAD_BYTES_PER_SECOND_MIN};
pub use completions::PROMPTS_MAX;
pub use demand::{Demand, WebSearches};
pub(crate) use generation::LIMIT_FIELDS;
pub use images::{IMAGE_KIND_BYTES_MAX, IMAGES_MAX};

/// What was read. Ranges are offsets into the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peeked<'b> {
    /// The model's name as the client gave it, maybe an alias.
    pub model: Cow<'b, str>,
    /// The model's name as written, in JSON with its quotes.
    pub model_span: Range<usize>,
    /// Whether the answer is to be an event stream.
    pub stream: bool,
    /// Whether the client itself asked for the usage of a stream, or the route always tells it.
    pub include_usage: bool,
    /// Where a request for usage can be written.
    pub usage_ask: UsageAsk,
    /// The largest output limit that was given, of one answer; `None` also where a route has
    /// none.
    pub output_limit: Option<u64>,
    /// Every output limit that is there, `null` included: what a lowered limit is written over.
    pub limits: Vec<OutputLimit>,
    /// How many answers are made; 1 when not given. A list of prompts has as many of each.
    pub n: u64,
    /// What bounds the rest of its cost.
    pub demand: Demand,
    /// How the body is written.
    pub framing: Framing,
}

impl Peeked<'_> {
    /// The same, without the body that it was read from.
    pub fn into_owned(self) -> Peeked<'static> {
        Peeked {
            model: Cow::Owned(self.model.into_owned()),
            model_span: self.model_span,
            stream: self.stream,
            include_usage: self.include_usage,
            usage_ask: self.usage_ask,
            output_limit: self.output_limit,
            limits: self.limits,
            n: self.n,
            demand: self.demand,
            framing: self.framing,
        }
    }
}

/// A limit of the output as a body has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputLimit {
    /// By which of its names.
    pub field: &'static str,
    /// `None` for `null`, which is no limit.
    pub value: Option<u64>,
    /// Where the value stands.
    pub at: Range<usize>,
}

/// How a body is written, and so how it is edited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Framing {
    /// One JSON object, whose closing brace is at `end`.
    Json { end: usize },
    /// `multipart/form-data`. Where the part with the model's name says its own length, that is
    /// at `model_length`.
    Multipart { model_length: Option<Range<usize>> },
}

/// Where `include_usage: true` is to be written so that the upstream reports usage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UsageAsk {
    /// Nowhere: answers of this route tell usage without being asked.
    Told,
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
    /// The content type is none that this route takes: 415.
    WrongType(WantedType),
    /// The body is not JSON.
    NotJson { message: String },
    /// The body is JSON, but not an object.
    NotAnObject,
    /// The body is no form, or one that readers could cut differently.
    NotAForm { message: &'static str },
    /// One field is missing, wrong, or asks for what is not sold.
    Field { field: &'static str, message: &'static str },
}

/// The content type that a route takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WantedType {
    /// `application/json`.
    Json,
    /// `multipart/form-data`.
    Form,
}

impl fmt::Display for PeekRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongType(WantedType::Json) => {
                f.write_str("`content-type` must be application/json")
            }
            Self::WrongType(WantedType::Form) => {
                f.write_str("`content-type` must be multipart/form-data")
            }
            Self::NotJson { message } => write!(f, "The body is not valid JSON: {message}"),
            Self::NotAnObject => f.write_str("The body must be a JSON object"),
            Self::NotAForm { message } => {
                write!(f, "The body is not valid multipart/form-data: {message}")
            }
            Self::Field { field, message } => write!(f, "`{field}` {message}"),
        }
    }
}

impl std::error::Error for PeekRefusal {}

/// Reads the body of a request to `route`. `content_type` is the header as sent.
pub fn read<'b>(
    route: Route,
    content_type: Option<&str>,
    body: &'b [u8],
) -> Result<Peeked<'b>, PeekRefusal> {
    let content_type = ContentType::of(content_type)?;
    match (route, content_type) {
        (Route::Transcriptions, form) => return audio::transcription(form.form()?, body),
        (Route::Translations, form) => return audio::translation(form.form()?, body),
        (Route::ImageEdits, ContentType::Form(boundary)) => {
            return images::edit_form(boundary, body);
        }
        (_, json) => json.json()?,
    }
    match route {
        Route::ChatCompletions => chat::read(body),
        Route::Responses => responses::read(body),
        Route::Completions => completions::read(body),
        Route::Messages => messages::read(body),
        Route::Embeddings => embeddings::read(body),
        Route::Moderations => moderations::read(body),
        Route::Rerank => rerank::read(body),
        Route::ImageGenerations => images::generation(body),
        Route::ImageEdits => images::edit(body),
        Route::Speech => audio::speech(body),
        Route::Transcriptions | Route::Translations => {
            Err(PeekRefusal::WrongType(WantedType::Form))
        }
    }
}

/// What routes with a JSON body have in common: one answer, usage told, all of it text. Each
/// route goes on from there.
fn of_members<'b, const N: usize>(members: &Members<'b, N>) -> Result<Peeked<'b>, PeekRefusal> {
    let (model, model_span) = members.model()?;
    let text = members.text();
    Ok(Peeked {
        model,
        model_span,
        stream: members.flag("stream")?,
        include_usage: true,
        usage_ask: UsageAsk::Told,
        output_limit: None,
        limits: Vec::new(),
        n: 1,
        demand: Demand::of_body(text.as_bytes()),
        framing: Framing::Json { end: text.rfind('}').unwrap_or(text.len()) },
    })
}

/// Refuses a stream of a route that has none: its answer would be read as what it is not.
fn not_streamed(peeked: Peeked<'_>) -> Result<Peeked<'_>, PeekRefusal> {
    match peeked.stream {
        false => Ok(peeked),
        true => members::refuse("stream", "must not be true: this route does not stream"),
    }
}

/// Longer names are refused.
pub const MODEL_BYTES_MAX: usize = 256;
/// Larger output limits are refused: no model writes so much, and prices must not overflow.
pub const OUTPUT_LIMIT_MAX: u64 = (1 << 31) - 1;
/// More answers to one request are refused, as OpenAI does.
pub const N_MAX: u64 = 128;

#[cfg(test)]
mod tests;
