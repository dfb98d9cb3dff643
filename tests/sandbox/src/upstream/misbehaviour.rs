//! The ways an upstream goes wrong, or merely differs, each with a name.

/// Chosen by the ending of the model's name: `demo-drops-mid-stream` drops mid-stream. A model
/// without such an ending gets the plain answer. Where only streams are spoken of, unstreamed
/// answers are plain.
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
    /// Half of the prompt is reported as cached.
    Cached,
    /// Lines of the event stream end in CR LF.
    Crlf,
    /// An error object takes the place of the second half of the events, and the stream ends
    /// cleanly without `[DONE]`; unstreamed, a 200 whose body is the error object.
    ErrorEvent,
    /// 400 with a JSON error about the client's own parameter.
    Status400,
    /// 402: the upstream wants to be paid by us.
    Status402,
    /// The stream ends cleanly, usage and all, but without `[DONE]`.
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
}

impl Misbehaviour {
    pub const ALL: [Self; 27] = [
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

    pub fn of_model(model: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|misbehaviour| model.ends_with(misbehaviour.suffix()))
    }
}
