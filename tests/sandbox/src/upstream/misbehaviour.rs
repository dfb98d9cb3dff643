//! The ways an upstream goes wrong, or merely differs, each with a name.

/// Chosen by the ending of the model's name: `demo-drops-mid-stream` drops mid-stream. A model
/// without such an ending gets the plain answer; endings add up, so that
/// `demo-image-usage-byte-by-byte` does both. Where only streams are spoken of, unstreamed
/// answers are plain, and where only some routes can do it, the others do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Misbehaviour {
    /// Half of the answer, then the socket closes without a last chunk.
    DropsMidStream,
    /// No usage anywhere, asked for or not.
    NoUsage,
    /// The first byte after a moment, then a small gap between events. With a gate: the head and
    /// the first content go out, the rest waits at the gate; unstreamed, everything waits.
    Slow,
    /// Reads the request and never answers.
    Hangs,
    /// Half of the answer, then nothing more, but the socket stays open.
    HangsMidStream,
    /// Reads the request and closes the connection without an answer.
    Refuses,
    /// The body is framed by `Content-Length`, streamed or not, instead of by chunks.
    ContentLength,
    /// The content itself speaks of `data: `, blank lines, `[DONE]` and `"usage"`.
    DataColonText,
    /// Usage comes in the last content event, asked for or not, and in no chunk of its own.
    UsageWithContent,
    /// 429 with `Retry-After: 7`.
    Status429,
    /// 401 whose message repeats our key and an organisation id.
    Status401,
    /// 500 with a JSON error.
    Status500,
    /// 200 with a page for people.
    Html,
    /// 200 whose JSON is cut off, in every event where it is a stream.
    InvalidJson,
    /// Every byte, the head's too, is a write of its own.
    ByteByByte,
    /// Half of the prompt is reported as read from a cache. Anthropic's route also reports a
    /// quarter as written to one.
    Cached,
    /// Lines of the event stream end in CR LF.
    Crlf,
    /// An error object takes the place of the second half of the events, and the stream ends
    /// cleanly without `[DONE]` or its like; unstreamed, a 200 whose body is the error object.
    ErrorEvent,
    /// 400 with a JSON error about the client's own parameter.
    Status400,
    /// 402: the upstream wants to be paid by us.
    Status402,
    /// The stream ends cleanly, usage and all, but without `[DONE]` or `message_stop`.
    NoDone,
    /// Up to 2000 words instead of up to 20.
    Long,
    /// An answer of four megabytes, in the usual number of events.
    Big,
    /// A 103 goes ahead of the answer.
    EarlyHints,
    /// Every event that carries no usage says `"usage": null`.
    UsageNullChunks,
    /// 307 to `/elsewhere` on the same upstream.
    Redirect,
    /// A document although a stream was asked for.
    Unstreamed,
    /// 503 with a JSON error.
    Status503,
    /// Half of the output is reasoning: counted, reported as such and not shown.
    Reasoning,
    /// Two searches of the web come before the text.
    WebSearch,
    /// The answer says that it was cut short, however long it is.
    Incomplete,
    /// Responses: the last event is `response.failed`, which tells no usage.
    Failed,
    /// Transcriptions, translations and reranking report tokens instead of what they usually do.
    ByTokens,
    /// Images report tokens; without it they report nothing.
    ImageUsage,
    /// Usage says what it costs in US dollars: a millionth for each that it counts.
    UsdCost,
    /// An event every 50 ms, each with its moment noted in [`super::Produced::moments`].
    Paced,
    /// After the head, each event, each piece of a document and the end wait for a
    /// [`super::Upstream::step`].
    Stepped,
}

impl Misbehaviour {
    pub const ALL: [Self; 37] = [
        Self::DropsMidStream,
        Self::NoUsage,
        Self::Slow,
        Self::Hangs,
        Self::HangsMidStream,
        Self::Refuses,
        Self::ContentLength,
        Self::DataColonText,
        Self::UsageWithContent,
        Self::Status429,
        Self::Status401,
        Self::Status500,
        Self::Html,
        Self::InvalidJson,
        Self::ByteByByte,
        Self::Cached,
        Self::Crlf,
        Self::ErrorEvent,
        Self::Status400,
        Self::Status402,
        Self::NoDone,
        Self::Long,
        Self::Big,
        Self::EarlyHints,
        Self::UsageNullChunks,
        Self::Redirect,
        Self::Unstreamed,
        Self::Status503,
        Self::Reasoning,
        Self::WebSearch,
        Self::Incomplete,
        Self::Failed,
        Self::ByTokens,
        Self::ImageUsage,
        Self::UsdCost,
        Self::Paced,
        Self::Stepped,
    ];

    /// What a model's name ends in to get it, with its dash.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::DropsMidStream => "-drops-mid-stream",
            Self::NoUsage => "-no-usage",
            Self::Slow => "-slow",
            Self::Hangs => "-hangs",
            Self::HangsMidStream => "-hangs-mid-stream",
            Self::Refuses => "-refuses",
            Self::ContentLength => "-content-length",
            Self::DataColonText => "-data-colon-text",
            Self::UsageWithContent => "-usage-with-content",
            Self::Status429 => "-429",
            Self::Status401 => "-401",
            Self::Status500 => "-500",
            Self::Html => "-html",
            Self::InvalidJson => "-invalid-json",
            Self::ByteByByte => "-byte-by-byte",
            Self::Cached => "-cached",
            Self::Crlf => "-crlf",
            Self::ErrorEvent => "-error-event",
            Self::Status400 => "-400",
            Self::Status402 => "-402",
            Self::NoDone => "-no-done",
            Self::Long => "-long",
            Self::Big => "-big",
            Self::EarlyHints => "-early-hints",
            Self::UsageNullChunks => "-usage-null-chunks",
            Self::Redirect => "-redirect",
            Self::Unstreamed => "-unstreamed",
            Self::Status503 => "-503",
            Self::Reasoning => "-reasoning",
            Self::WebSearch => "-web-search",
            Self::Incomplete => "-incomplete",
            Self::Failed => "-failed",
            Self::ByTokens => "-by-tokens",
            Self::ImageUsage => "-image-usage",
            Self::UsdCost => "-usd-cost",
            Self::Paced => "-paced",
            Self::Stepped => "-stepped",
        }
    }

    /// The model that shows it, as the demo and the tests call it: `demo` and the suffix.
    pub fn model(self) -> String {
        format!("demo{}", self.suffix())
    }

    /// `demo`, which behaves, and after it the model of each misbehaviour.
    pub fn models() -> impl Iterator<Item = String> {
        std::iter::once("demo".to_owned()).chain(Self::ALL.into_iter().map(Self::model))
    }

    /// What the name ends in, the last ending first.
    pub(super) fn all_of_model(mut model: &str) -> Vec<Self> {
        let mut found = Vec::new();
        while let Some((rest, misbehaviour)) = Self::ALL.into_iter().find_map(|misbehaviour| {
            Some((model.strip_suffix(misbehaviour.suffix())?, misbehaviour))
        }) {
            found.push(misbehaviour);
            model = rest;
        }
        found
    }
}

/// A stream in as many words, of a chat, a response or a message: the model that asks for it.
///
/// What follows the last `-events-`, up to [`EVENTS_MAX`]; more is taken for that. The answer is
/// written as fast as the client reads it and needs no more memory than a short one, but for the
/// events that end a response, each of which repeats its whole text.
pub fn model_of_events(count: u64) -> String {
    format!("demo{EVENTS}{count}")
}

/// The name without its number of events, and that number.
pub(super) fn events_of_model(model: &str) -> (&str, Option<u64>) {
    let numbered = model.rsplit_once(EVENTS);
    match numbered.and_then(|(rest, number)| Some((rest, number.parse::<u64>().ok()?))) {
        Some((rest, number)) => (rest, Some(number.min(EVENTS_MAX))),
        None => (model, None),
    }
}

pub const EVENTS_MAX: u64 = 10_000_000;
const EVENTS: &str = "-events-";
