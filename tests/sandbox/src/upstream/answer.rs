//! What the upstream says: the same words and the same usage for the same question.
//!
//! The rules, which tests repeat in their own arithmetic to know what they owe:
//!
//! * Text that is read: its characters / 4, rounded up once for all of it, and 3 for each
//!   message. The system's text of Anthropic's route and `instructions` of Responses are a
//!   message more; an item of `input` is one, and so is an `input` that is text. Other routes have
//!   no messages: prompts, texts to embed, and a query with its documents count their characters
//!   only, a prompt that comes as numbers one for each.
//! * Text that is made: the smaller of the limit asked for and 20 words (2000 for `-long`, N for a
//!   streamed chat, response or message of `-events-N`), for each choice. A word is a token and,
//!   when streamed, an event. Choices are `n`, of completions the larger of `n` and `best_of` for
//!   each prompt, though only `n` are shown.
//! * `-reasoning`: half of the words of each choice, rounded down, are made and not shown.
//! * `-cached`: half of the input, rounded down, was read from a cache. For Anthropic another
//!   quarter, rounded down, was written to one, and `input_tokens` is what is left of the input.
//! * Images: without usage unless `-image-usage`. Then an image of quality `low` makes 100 tokens,
//!   `high` and `hd` 400, any other 200, a partial one 100 more; the prompt is text, and an image
//!   to be edited 50 tokens.
//! * Audio: as long as the header of a WAV file says, to the millisecond, rounded up; of anything
//!   else a second for 4,000 bytes, rounded up. Usage is its whole seconds, rounded up.
//!   `-by-tokens`: 10 tokens for each of those seconds and the prompt as text, and the words made.
//! * Speech: a stream of events ends with usage of its text as text and an output token for each
//!   event before it; plain audio, 100 bytes for each character, has none.
//! * Reranking: a search unit for each 100 documents, rounded up; `-by-tokens`: its text.
//! * Moderations have no usage.
//! * `-usd-cost`: usage that is told has a `cost` of 0.000001 USD for each token that it counts,
//!   or for each second or search unit where it counts those.

mod audio;
mod chat;
mod completions;
mod embeddings;
mod images;
mod messages;
mod moderations;
mod reply;
mod rerank;
mod responses;
mod speech;
mod words;

use bytes::Bytes;
use serde_json::{Number, Value};

use super::route::Route;
use super::{Misbehaviour, Seen, form, misbehaviour};

pub(super) use reply::{Kind, Part, Reply};

/// What a request says that makes a difference to its answer.
pub(super) struct Question {
    pub(super) route: Route,
    pub(super) model: String,
    /// The last ending of the model's name first.
    pub(super) misbehaviours: Vec<Misbehaviour>,
    pub(super) stream: bool,
    /// Of a form, its text fields.
    pub(super) body: Value,
    files: Vec<Bytes>,
    events: Option<u64>,
}

impl Question {
    /// Nothing when the body is not what the route takes, or names no model.
    pub(super) fn read(route: Route, seen: &Seen) -> Option<Self> {
        let (body, files) = if route.is_form() {
            let form = form::read(seen)?;
            (Value::Object(form.fields), form.files)
        } else {
            (serde_json::from_slice(&seen.body).ok()?, Vec::new())
        };
        let model = body.get("model")?.as_str()?.to_owned();
        let (name, events) = misbehaviour::events_of_model(&model);
        let misbehaviours = Misbehaviour::all_of_model(name);
        let stream = match route {
            Route::Speech => body["stream_format"] == "sse",
            _ => body["stream"] == true || body["stream"] == "true",
        };
        Some(Self {
            route,
            stream: stream && !misbehaviours.contains(&Misbehaviour::Unstreamed),
            model,
            misbehaviours,
            body,
            files,
            events,
        })
    }

    pub(super) fn is(&self, misbehaviour: Misbehaviour) -> bool {
        self.misbehaviours.contains(&misbehaviour)
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.body.get(name)?.as_str()
    }

    /// A whole number, which a form has as text.
    fn number(&self, name: &str) -> Option<u64> {
        let value = self.body.get(name)?;
        value.as_u64().or_else(|| value.as_str()?.parse().ok())
    }

    /// A number of things that is 1 unless said otherwise; nothing when it is above `most`.
    fn how_many(&self, name: &str, most: u64) -> Option<u64> {
        Some(self.number(name).unwrap_or(1)).filter(|many| *many <= most)
    }
}

/// Nothing when the question lacks what the route insists on.
pub(super) fn reply(question: &Question) -> Option<Reply> {
    match question.route {
        Route::Chat => chat::reply(question),
        Route::Completions => completions::reply(question),
        Route::Responses => responses::reply(question),
        Route::Messages => messages::reply(question),
        Route::Embeddings => embeddings::reply(question),
        Route::ImageGenerations | Route::ImageEdits => images::reply(question),
        Route::Transcriptions | Route::Translations => audio::reply(question),
        Route::Speech => speech::reply(question),
        Route::Moderations => moderations::reply(question),
        Route::Rerank => rerank::reply(question),
    }
}

/// Documented above: what so many characters of text count as.
fn text_tokens(characters: u64) -> u64 {
    characters.div_ceil(4)
}

/// Content is text, or parts of which some are text.
fn characters(content: &Value) -> u64 {
    match content {
        Value::String(text) => count(text.chars()),
        Value::Array(parts) => parts.iter().map(|part| characters(&part["text"])).sum(),
        _ => 0,
    }
}

fn count(things: impl IntoIterator) -> u64 {
    u64::try_from(things.into_iter().count()).unwrap_or(u64::MAX)
}

/// A number with so many decimal places, given in units of the last of them. Exact, as text is.
fn decimal(units: u64, places: usize) -> Value {
    let digits = format!("{units:0>width$}", width = places + 1);
    let (whole, part) = digits.split_at(digits.len() - places);
    let number = format!("{whole}.{part}").parse().ok().and_then(Number::from_f64);
    number.map_or(Value::Null, Value::Number)
}

const CREATED: u64 = 1_700_000_000;
