//! The dialects of event streams: what an event is called, and what in it is worth a closer look.

use crate::route::Route;

use super::text::{self, Value};

/// How the events of a stream are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    Chat,
    Completions,
    Responses,
    Messages,
    /// Speech, transcripts and images.
    Media,
}

/// What an event is, by the `type` that it says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing of what follows; chunks of a chat say no type.
    #[default]
    Other,
    /// The text that it gives is its `delta`.
    Delta,
    /// It gives something that is not text.
    Gift,
    /// An item of the output is whole.
    Item,
    /// An image is whole, and with it the stream.
    Image,
    /// The answer begins; its usage is that of the prompt.
    Start,
    /// The end of a stream, of which it may tell the whole.
    End,
    /// The end of a stream that was whole before.
    Stop,
    /// The end of a stream that failed.
    Failure,
    /// Something went wrong.
    Error,
}

/// What one event holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) kind: Kind,
    pub(super) text_bytes: u64,
    /// Something other than text: a tool call, the reason why an answer ended, an image.
    pub(super) progress: bool,
    /// A usage in its place that is not null.
    pub(super) usage: bool,
    /// A usage in its place that is null.
    pub(super) null_usage: bool,
    /// An error in its place that is not null.
    pub(super) error: bool,
    /// The item that is whole is one that is counted by the piece.
    pub(super) counted_item: bool,
}

impl Dialect {
    pub(super) const fn of(route: Route) -> Self {
        match route {
            Route::Completions => Self::Completions,
            Route::Responses => Self::Responses,
            Route::Messages => Self::Messages,
            Route::ImageGenerations
            | Route::ImageEdits
            | Route::Transcriptions
            | Route::Translations
            | Route::Speech => Self::Media,
            // Those that are never streamed have no dialect of their own.
            Route::ChatCompletions | Route::Embeddings | Route::Moderations | Route::Rerank => {
                Self::Chat
            }
        }
    }

    /// Whether a client sees usage only if it asked for it.
    pub(super) const fn asks_for_usage(self) -> bool {
        matches!(self, Self::Chat | Self::Completions)
    }

    fn kind(self, name: &[u8]) -> Kind {
        match (self, name) {
            (Self::Chat | Self::Completions, _) => Kind::Other,
            (_, b"error") => Kind::Error,
            (Self::Responses, name) => responses_kind(name),
            (Self::Messages, b"message_start") => Kind::Start,
            (Self::Messages, b"message_stop") => Kind::Stop,
            (Self::Messages, _) => Kind::Other,
            (Self::Media, name) => media_kind(name),
        }
    }
}

fn responses_kind(name: &[u8]) -> Kind {
    match name {
        b"response.completed" | b"response.incomplete" | b"response.cancelled" => Kind::End,
        b"response.failed" => Kind::Failure,
        b"response.output_item.done" => Kind::Item,
        b"response.image_generation_call.partial_image" => Kind::Gift,
        _ if name.ends_with(b".delta") => Kind::Delta,
        _ => Kind::Other,
    }
}

fn media_kind(name: &[u8]) -> Kind {
    match name {
        b"speech.audio.done" | b"transcript.text.done" => Kind::End,
        b"speech.audio.delta" => Kind::Gift,
        b"image_generation.completed" | b"image_edit.completed" => Kind::Image,
        _ if name.ends_with(b".partial_image") => Kind::Gift,
        _ if name.ends_with(b".delta") => Kind::Delta,
        _ if name.ends_with(b".error") => Kind::Error,
        _ => Kind::Other,
    }
}

impl Kind {
    /// Whether nothing but [`Kind::Error`] comes after it.
    pub(super) const fn ends(self) -> bool {
        matches!(self, Self::Image | Self::End | Self::Stop | Self::Failure)
    }

    pub(super) const fn fails(self) -> bool {
        matches!(self, Self::Failure | Self::Error)
    }

    const fn gives(self) -> bool {
        matches!(self, Self::Gift | Self::Image | Self::End)
    }
}

impl Seen {
    /// Whether the client was given something.
    pub(super) fn delivers(&self) -> bool {
        self.text_bytes > 0 || self.progress || self.counted_item || self.kind.gives()
    }

    fn note_usage(&mut self, value: Value<'_>) {
        match value.is_null() {
            true => self.null_usage = true,
            false => self.usage = true,
        }
    }
}

/// Looks through the data of an event. What is not JSON gives some answer, and never a panic.
pub(super) fn look(dialect: Dialect, data: &str) -> Seen {
    match dialect {
        Dialect::Chat => look_at_chunk(data, b"content"),
        Dialect::Completions => look_at_chunk(data, b"text"),
        Dialect::Responses => look_at_response(data),
        Dialect::Messages => look_at_message(data),
        Dialect::Media => look_at_media(data),
    }
}

/// A chunk of a chat or a completion, or a whole one. `text` is what the text of a choice is
/// called: some upstreams send the same text under the other name too.
fn look_at_chunk(data: &str, text: &[u8]) -> Seen {
    let mut seen = Seen::default();
    let (mut reasoning, mut reasoning_content) = (0, 0);
    text::each_member(data, |depth, name, value| match (depth, name) {
        (1, b"usage") => seen.note_usage(value),
        (1, b"error") => seen.error |= !value.is_null(),
        (_, b"tool_calls") => seen.progress |= value.is_list(),
        (_, b"finish_reason") => {
            seen.progress |= value.is_text() && value != Value::Text(b"error");
        }
        (_, b"refusal" | b"arguments") => seen.text_bytes += value.text_bytes(),
        (_, name) if name == text => seen.text_bytes += value.text_bytes(),
        (_, b"reasoning") => reasoning += value.text_bytes(),
        (_, b"reasoning_content") => reasoning_content += value.text_bytes(),
        _ => {}
    });
    // Some upstreams send the same reasoning under both names.
    seen.text_bytes += u64::max(reasoning, reasoning_content);
    seen
}

fn look_at_response(data: &str) -> Seen {
    let mut seen = Seen::default();
    let (mut kind, mut item, mut delta): (&[u8], &[u8], _) = (b"", b"", Value::Other(b""));
    text::each_member(data, |depth, name, value| match (depth, name, value) {
        (1, b"type", Value::Text(name)) => kind = name,
        (2, b"type", Value::Text(name)) => item = name,
        (1, b"delta", _) => delta = value,
        (1, b"error", _) => seen.error |= !value.is_null(),
        (2, b"usage", _) => seen.note_usage(value),
        _ => {}
    });
    seen.kind = Dialect::Responses.kind(kind);
    // Events that end something tell again what was delivered in pieces.
    if seen.kind == Kind::Delta {
        seen.text_bytes = delta.text_bytes();
    }
    seen.counted_item = seen.kind == Kind::Item && super::items::is_counted(item);
    seen
}

fn look_at_message(data: &str) -> Seen {
    let mut seen = Seen::default();
    text::each_member(data, |depth, name, value| match (depth, name, value) {
        (1, b"type", Value::Text(name)) => seen.kind = Dialect::Messages.kind(name),
        (1 | 2, b"usage", _) => seen.note_usage(value),
        (1, b"error", _) => seen.error |= !value.is_null(),
        (2, b"text" | b"thinking" | b"partial_json", _) => seen.text_bytes += value.text_bytes(),
        // The reason why the answer ended, and the block of a tool call.
        (2, b"stop_reason", Value::Text(_)) => seen.progress = true,
        (2, b"input", _) => seen.progress |= value.is_object(),
        _ => {}
    });
    seen
}

fn look_at_media(data: &str) -> Seen {
    let mut seen = Seen::default();
    text::each_member(data, |depth, name, value| match (depth, name, value) {
        (1, b"type", Value::Text(name)) => seen.kind = Dialect::Media.kind(name),
        (1, b"usage", _) => seen.note_usage(value),
        (1, b"error", _) => seen.error |= !value.is_null(),
        // Some upstreams send transcripts as chunks of a chat.
        (1, b"delta", _) | (_, b"content", _) => seen.text_bytes += value.text_bytes(),
        _ => {}
    });
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_text(dialect: Dialect, json: &str, text_bytes: u64) {
        assert_eq!(look(dialect, json).text_bytes, text_bytes, "{dialect:?} {json}");
    }

    #[test]
    fn text_of_every_kind_is_counted_and_nothing_else() {
        let check = |json, text_bytes| check_text(Dialect::Chat, json, text_bytes);
        check(r#"{"delta":{"content":"abc","refusal":"de"}}"#, 5);
        check(r#"{"tool_calls":[{"id":"call","function":{"name":"f","arguments":"{}"}}]}"#, 2);
        check(r#"{"content" : "a", "x":"content", "logprobs":{"content":[{"t":"b"}]}}"#, 1);
        check(r#"{"content":null,"reasoning":""}"#, 0);
        check(r#"{"content":"\"content\":\"x\""}"#, 13);
        check_text(Dialect::Completions, r#"{"choices":[{"text":"abc","index":0}]}"#, 3);
    }

    #[test]
    fn reasoning_sent_under_two_names_counts_once() {
        check_text(Dialect::Chat, r#"{"reasoning":"abc","reasoning_content":"abc"}"#, 3);
        check_text(Dialect::Chat, r#"{"reasoning_content":"abc","content":"d"}"#, 4);
    }

    #[test]
    fn text_that_is_told_twice_counts_once() {
        let check = |json, text_bytes| check_text(Dialect::Responses, json, text_bytes);
        check(r#"{"type":"response.output_text.delta","delta":"abc"}"#, 3);
        check(r#"{"delta":"ab","type":"response.function_call_arguments.delta"}"#, 2);
        check(r#"{"type":"response.output_text.done","text":"abc"}"#, 0);
        check(r#"{"type":"response.created","response":{"metadata":{"delta":"abc"}}}"#, 0);
        check(r#"{"type":"response.completed","delta":"abc"}"#, 0);
    }

    #[test]
    fn blocks_of_a_message_give_text_and_tool_calls() {
        let check = |json, text_bytes| check_text(Dialect::Messages, json, text_bytes);
        check(r#"{"type":"content_block_delta","delta":{"type":"text_delta","text":"abc"}}"#, 3);
        check(r#"{"type":"content_block_delta","delta":{"thinking":"ab"}}"#, 2);
        check(r#"{"type":"content_block_delta","delta":{"partial_json":"{\"a\":"}}"#, 5);
        check(r#"{"type":"content_block_delta","delta":{"signature":"abc"}}"#, 0);
        let begun = r#"{"type":"content_block_start","content_block":{"type":"text","text":""}}"#;
        assert!(!look(Dialect::Messages, begun).delivers());
        let tool = r#"{"content_block":{"type":"tool_use","id":"t","name":"f","input":{}}}"#;
        assert!(look(Dialect::Messages, tool).delivers());
        let ended = r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"}}"#;
        assert!(look(Dialect::Messages, ended).delivers());
        assert!(!look(Dialect::Messages, &ended.replace("\"end_turn\"", "null")).delivers());
    }

    #[test]
    fn usage_and_errors_are_seen_in_their_place_only() {
        let seen = look(Dialect::Chat, r#"{"content":"\"usage\":1","x":"usage","y":"error"}"#);
        assert!(!seen.usage && !seen.error);
        for (dialect, usage) in [
            (Dialect::Chat, r#"{"usage" : {}}"#),
            (Dialect::Responses, r#"{"response":{"usage":{}}}"#),
            (Dialect::Messages, r#"{"message":{"usage":{}}}"#),
            (Dialect::Messages, r#"{"usage":{}}"#),
            (Dialect::Media, r#"{"usage":{}}"#),
        ] {
            assert!(look(dialect, usage).usage, "{dialect:?} {usage}");
            let null = look(dialect, &usage.replace("{}", "null"));
            assert!(!null.usage && null.null_usage, "{dialect:?} {usage}");
            assert!(!look(dialect, &format!(r#"{{"x":[{usage}]}}"#)).usage, "{dialect:?} {usage}");
            assert!(look(dialect, r#"{"error":"x"}"#).error);
            assert!(!look(dialect, r#"{"error": null}"#).error);
        }
    }

    #[test]
    fn progress_is_a_tool_call_or_a_reason_to_end() {
        for (json, progress) in [
            (r#"{"tool_calls":[{}]}"#, true),
            (r#"{"tool_calls":null}"#, false),
            (r#"{"finish_reason":"stop"}"#, true),
            (r#"{"finish_reason":null}"#, false),
            (r#"{"finish_reason":"error"}"#, false),
        ] {
            assert_eq!(look(Dialect::Chat, json).progress, progress, "{json}");
        }
    }
}
