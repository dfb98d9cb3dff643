//! The words that are made, however a route wraps them.

use super::super::Misbehaviour;
use super::{Part, Question, Route};

impl Question {
    /// How many words are made for one choice.
    pub(super) fn words(&self) -> u64 {
        self.limit().unwrap_or(u64::MAX).min(self.most())
    }

    /// How many of them nobody sees.
    pub(super) fn hidden(&self) -> u64 {
        if self.is(Misbehaviour::Reasoning) { self.words() / 2 } else { 0 }
    }

    pub(super) fn shown(&self) -> u64 {
        self.words() - self.hidden()
    }

    /// Whether there would have been more to say.
    pub(super) fn is_cut_short(&self) -> bool {
        self.words() < self.most() || self.is(Misbehaviour::Incomplete)
    }

    /// Those that are shown, as one text.
    pub(super) fn all_words(&self) -> String {
        (0..self.shown()).map(|index| self.word(index)).collect()
    }

    /// The word with the space before it, if it has one.
    pub(super) fn word(&self, index: u64) -> String {
        let space = if index == 0 { "" } else { " " };
        if self.is(Misbehaviour::DataColonText) {
            return pick(&TRAPS, index).to_owned();
        }
        if self.is(Misbehaviour::Big) {
            return space.to_owned() + &"x".repeat(self.big(self.shown()));
        }
        space.to_owned() + pick(&WORDS, index)
    }

    /// The bytes of each of so many pieces of something big.
    pub(super) fn big(&self, pieces: u64) -> usize {
        usize::try_from(BIG_BYTES / pieces.max(1)).unwrap_or(0)
    }

    /// What `of` makes of each word that is shown. Of very many words those in the middle are one
    /// part, which is written again and again.
    pub(super) fn each_word(&self, mut of: impl FnMut(u64) -> Vec<Part>) -> Vec<Part> {
        let words = self.shown();
        let cycles = match self.repeats() {
            true => (words.saturating_sub(1) / WORDS_MAX).saturating_sub(1),
            false => 0,
        };
        if cycles == 0 {
            return (0..words).flat_map(of).collect();
        }
        let mut parts: Vec<Part> = (0..WORDS_MAX).flat_map(&mut of).collect();
        let cycle: Vec<Part> = (WORDS_MAX..2 * WORDS_MAX).flat_map(&mut of).collect();
        let bytes: Vec<u8> = cycle.iter().flat_map(|part| part.bytes.clone()).collect();
        let output = cycle.iter().map(|part| part.output).sum();
        parts.push(Part { times: cycles, ..Part::of(bytes).bringing(output) });
        parts.extend(((1 + cycles) * WORDS_MAX..words).flat_map(of));
        parts
    }

    /// Whether it is a stream of `-events-`.
    fn repeats(&self) -> bool {
        let has_many = matches!(self.route, Route::Chat | Route::Responses | Route::Messages);
        self.stream && has_many && self.events.is_some()
    }

    fn limit(&self) -> Option<u64> {
        ["max_completion_tokens", "max_tokens", "max_output_tokens"]
            .iter()
            .find_map(|name| self.number(name))
    }

    fn most(&self) -> u64 {
        match self.events {
            Some(events) if self.repeats() => events,
            _ if self.is(Misbehaviour::Long) => LONG_WORDS,
            _ => WORDS_MAX,
        }
    }
}

fn pick<'w>(words: &[&'w str], index: u64) -> &'w str {
    let index = usize::try_from(index).unwrap_or(0);
    words.iter().cycle().nth(index % words.len()).copied().unwrap_or_default()
}

const WORDS_MAX: u64 = 20;
const LONG_WORDS: u64 = 2000;
const BIG_BYTES: u64 = 4 << 20;

const WORDS: [&str; 20] = [
    "Every", "satoshi", "that", "came", "in", "is", "either", "spent", "on", "this", "very",
    "answer", "or", "on", "its", "way", "back", "to", "you", "now.",
];

/// Text that a careless reader of the stream takes for the stream itself.
const TRAPS: [&str; 8] = [
    "data: ",
    "\n\n",
    "data: {\"usage\":{\"prompt_tokens\":999999,\"completion_tokens\":999999}}\n\n",
    "\"usage\":{\"prompt_tokens\":888888,\"completion_tokens\":888888,\"total_tokens\":1}",
    "data: [DONE]\n\n",
    "\r\n\r\ndata:[DONE]\r\n\r\n",
    "\\\"usage\\\": null}",
    ": a comment\nevent: error\n\n",
];
