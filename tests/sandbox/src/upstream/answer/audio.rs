//! `/audio/transcriptions` and `/audio/translations`.

use serde_json::{Value, json};

use super::super::Misbehaviour;
use super::{Part, Question, Reply, Route, count, decimal, text_tokens};

pub(super) fn reply(question: &Question) -> Option<Reply> {
    let audio = question.files.first()?;
    let prompt = question.text("prompt").map_or(0, |prompt| count(prompt.chars()));
    let heard = Heard { question, ms: duration_ms(audio), prompt: text_tokens(prompt) };
    if question.stream {
        return Some(question.streamed(heard.input(), heard.content(), heard.closing()));
    }
    let text = question.all_words();
    let (input, output) = (heard.input(), question.words());
    let plain = |text: String| match question.is(Misbehaviour::ErrorEvent) {
        true => question.document(input, output, json!({}), None),
        false => Reply::whole("text/plain; charset=utf-8", input, output, text.into()),
    };
    Some(match question.text("response_format").unwrap_or("json") {
        "json" => question.document(input, output, json!({"text": text}), Some(heard.usage())),
        "verbose_json" => {
            question.document(input, output, heard.verbose(&text), Some(heard.usage()))
        }
        "text" => plain(text + "\n"),
        "srt" => {
            let end = time(heard.ms, ',');
            plain(format!("1\n00:00:00,000 --> {end}\n{text}\n\n"))
        }
        "vtt" => {
            let end = time(heard.ms, '.');
            plain(format!("WEBVTT\n\n00:00:00.000 --> {end}\n{text}\n\n"))
        }
        _ => return None,
    })
}

struct Heard<'q> {
    question: &'q Question,
    ms: u64,
    /// As text.
    prompt: u64,
}

impl Heard<'_> {
    fn seconds(&self) -> u64 {
        self.ms.div_ceil(1000)
    }

    /// Tokens, or the seconds where those are counted.
    fn input(&self) -> u64 {
        match self.question.is(Misbehaviour::ByTokens) {
            true => TOKENS_PER_SECOND * self.seconds() + self.prompt,
            false => self.seconds(),
        }
    }

    fn usage(&self) -> Value {
        if !self.question.is(Misbehaviour::ByTokens) {
            let usage = json!({"type": "duration", "seconds": self.seconds()});
            return self.question.with_cost(usage, self.seconds());
        }
        let (input, output) = (self.input(), self.question.words());
        let usage = json!({
            "type": "tokens",
            "input_tokens": input,
            "input_token_details": {
                "text_tokens": self.prompt, "audio_tokens": input - self.prompt,
            },
            "output_tokens": output,
            "total_tokens": input + output,
        });
        self.question.with_cost(usage, input + output)
    }

    fn verbose(&self, text: &str) -> Value {
        let task = match self.question.route {
            Route::Translations => "translate",
            _ => "transcribe",
        };
        let duration = decimal(self.ms, 3);
        let segment = json!({
            "id": 0, "seek": 0, "start": 0.0, "end": duration, "text": text, "tokens": [],
            "temperature": 0.0, "avg_logprob": -0.25, "compression_ratio": 1.0,
            "no_speech_prob": 0.0,
        });
        json!({
            "task": task, "language": "english", "duration": duration, "text": text,
            "segments": [segment],
        })
    }

    fn content(&self) -> Vec<Part> {
        let mut hidden = self.question.hidden();
        let word = |index| {
            let delta =
                json!({"type": "transcript.text.delta", "delta": self.question.word(index)});
            self.question.unnamed(&delta).bringing(1 + std::mem::take(&mut hidden))
        };
        (0..self.question.shown()).map(word).collect()
    }

    fn closing(&self) -> Vec<Part> {
        let mut last = json!({"type": "transcript.text.done", "text": self.question.all_words()});
        let tells_usage = !self.question.is(Misbehaviour::NoUsage);
        if tells_usage {
            last["usage"] = self.usage();
        }
        let tells_usage = tells_usage && !self.question.is(Misbehaviour::InvalidJson);
        vec![self.question.unnamed(&last).telling_usage(tells_usage)]
    }
}

/// How long the audio is: as the header of a WAV file says, or guessed from its size.
fn duration_ms(audio: &[u8]) -> u64 {
    let length = u64::try_from(audio.len()).unwrap_or(u64::MAX);
    wav_duration_ms(audio).unwrap_or(1000 * length.div_ceil(BYTES_PER_SECOND))
}

fn wav_duration_ms(audio: &[u8]) -> Option<u64> {
    let number = |bytes: &[u8], at: usize| {
        let four = bytes.get(at..at + 4)?;
        Some(u32::from_le_bytes(four.try_into().ok()?))
    };
    if audio.get(..4)? != b"RIFF" || audio.get(8..12)? != b"WAVE" {
        return None;
    }
    let mut rest = audio.get(12..)?;
    let mut bytes_per_second = None;
    loop {
        let (name, length) = (rest.get(..4)?, number(rest, 4)?);
        let content = rest.get(8..)?;
        let length = usize::try_from(length).ok()?.min(content.len());
        match name {
            b"fmt " => bytes_per_second = number(content, 8),
            b"data" => {
                let rate = bytes_per_second.map(u64::from).filter(|rate| *rate > 0)?;
                return Some((1000 * u64::try_from(length).ok()?).div_ceil(rate));
            }
            _ => {}
        }
        // A piece of odd length is followed by a byte that belongs to nothing.
        rest = content.get(length + length % 2..)?;
    }
}

/// As subtitles write it.
fn time(ms: u64, point: char) -> String {
    let seconds = ms / 1000;
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}{point}{:03}", seconds % 60, ms % 1000)
}

const TOKENS_PER_SECOND: u64 = 10;
const BYTES_PER_SECOND: u64 = 4000;
