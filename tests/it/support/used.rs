//! What a request uses, by the tests' own count: as the scripted upstream documents that it
//! counts, as an estimate is documented to be made, and at most.

use serde_json::Value;

use super::{Answer, Ask, MODEL_OUTPUT_TOKENS, Sold};

/// Every unit that a price may name, and what names the price of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Used {
    pub(crate) input: u64,
    pub(crate) cached_input: u64,
    pub(crate) cache_write: u64,
    pub(crate) output: u64,
    pub(crate) reasoning: u64,
    pub(crate) input_images: u64,
    pub(crate) images: u64,
    pub(crate) web_searches: u64,
    pub(crate) audio_ms: u64,
    pub(crate) characters: u64,
    pub(crate) search_units: u64,
    pub(crate) cost_nano_usd: Option<u64>,
    pub(crate) size: Option<String>,
    pub(crate) quality: Option<String>,
}

/// What of an answer was delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Given {
    pub(crate) events: u64,
    pub(crate) text_bytes: u64,
}

impl Ask {
    /// Whether the plain answer to it says what it used.
    pub(crate) fn is_told(&self) -> bool {
        let is_text =
            matches!(self.fields["response_format"].as_str(), Some("text" | "srt" | "vtt"));
        match self.kind.sold {
            _ if self.is("-no-usage") => false,
            Sold::Moderations => false,
            Sold::Images | Sold::ImageEdits => self.is("-image-usage"),
            Sold::Speech => self.kind.streamed,
            Sold::Transcriptions | Sold::Translations => !is_text,
            _ => true,
        }
    }

    /// What the plain answer uses when it is told.
    pub(crate) fn used(&self) -> Used {
        let (input, output) = (self.input(), self.output());
        let caches = self.kind.sold.writes_text() && self.is("-cached");
        let (cached_input, cache_write) = match self.kind.sold {
            _ if !caches => (0, 0),
            Sold::Messages => (input / 2, input / 4),
            _ => (input / 2, 0),
        };
        let thinks = self.kind.sold.writes_text() && self.is("-reasoning");
        let searches = matches!(self.kind.sold, Sold::Responses | Sold::Messages);
        let used = Used {
            input,
            cached_input,
            cache_write,
            output,
            reasoning: if thinks { self.words() / 2 * self.choices() } else { 0 },
            images: if self.kind.sold.makes_images() { self.choices() } else { 0 },
            web_searches: match searches && self.is("-web-search") {
                true => 2,
                false => self.counted().web_searches,
            },
            ..self.counted()
        };
        match self.kind.sold.listens() && !self.is("-by-tokens") {
            // Whole seconds are told.
            true => Used { audio_ms: used.audio_ms.div_ceil(1000) * 1000, ..used },
            false => used,
        }
    }

    /// What an estimate makes of an answer of which this much was delivered.
    pub(crate) fn estimated(&self, given: Given) -> Used {
        if given == Given::default() {
            return Used::default();
        }
        let images = self.input_images();
        let input = self.text_bytes_read().div_ceil(4)
            + IMAGE_TOKENS.0 * images.0
            + IMAGE_TOKENS.1 * images.1
            + self.audio_ms().div_ceil(100);
        let output = given.events.max(given.text_bytes.div_ceil(4));
        let images = if self.kind.sold.makes_images() { self.choices() } else { 0 };
        let most = self.most();
        let (input, output) = (input.min(most.input), output.min(most.output));
        Used { input, output, images, ..self.counted() }
    }

    /// What was surely used of it: an event is one of output, and input is not known.
    pub(crate) fn floored(&self, given: Given) -> Used {
        let images = if self.kind.sold.makes_images() { self.choices() } else { 0 };
        Used { output: given.events.min(self.most().output), images, ..self.counted() }
    }

    /// The most that it may use.
    pub(crate) fn most(&self) -> Used {
        let images = self.input_images();
        let input = self.text_bytes_read()
            + IMAGE_TOKENS.0 * images.0
            + IMAGE_TOKENS.1 * images.1
            + self.audio_ms().div_ceil(1000) * 50;
        let searches = self.fields.get("tools").is_some() || self.counted().web_searches > 0;
        let input = if searches { CONTEXT } else { input.min(CONTEXT) };
        let limit = self.limit().unwrap_or(MODEL_OUTPUT_TOKENS);
        let output = match self.kind.sold {
            Sold::Embeddings | Sold::Moderations | Sold::Rerank => 0,
            _ => limit * self.choices(),
        };
        Used {
            input,
            output,
            images: if self.kind.sold.makes_images() { self.choices() } else { 0 },
            web_searches: if searches { self.searches_max() } else { 0 },
            audio_ms: self.audio_ms().div_ceil(1000) * 1000,
            ..self.counted()
        }
    }

    /// What the request itself says that is used.
    fn counted(&self) -> Used {
        let (low, high) = self.input_images();
        let text = |name: &str| self.fields[name].as_str().map(str::to_owned);
        let spoken = self.kind.sold == Sold::Speech;
        let documents = self.fields["documents"].as_array().map_or(0, count);
        Used {
            input_images: low + high,
            audio_ms: self.audio_ms(),
            characters: if spoken { characters(&self.fields["input"]) } else { 0 },
            // Once, before the answer.
            web_searches: u64::from(self.fields.get("web_search_options").is_some()),
            search_units: documents.div_ceil(100),
            size: text("size"),
            quality: text("quality"),
            ..Used::default()
        }
    }

    fn is(&self, ending: &str) -> bool {
        self.model().contains(ending)
    }

    fn input(&self) -> u64 {
        let fields = &self.fields;
        let text = |names: &[&str]| {
            names.iter().map(|name| characters(&fields[name])).sum::<u64>().div_ceil(4)
        };
        match self.kind.sold {
            Sold::Chat => text(&["messages"]) + 3 * count(fields["messages"].as_array().unwrap()),
            Sold::Messages => text(&["messages", "system"]) + 6,
            Sold::Responses => text(&["input", "instructions"]) + 6,
            Sold::Completions | Sold::Images => text(&["prompt"]),
            Sold::Embeddings | Sold::Moderations | Sold::Speech => text(&["input"]),
            Sold::ImageEdits => text(&["prompt"]) + 50 * count(&self.files),
            Sold::Transcriptions | Sold::Translations if self.is("-by-tokens") => {
                10 * self.audio_ms().div_ceil(1000) + text(&["prompt"])
            }
            Sold::Rerank if self.is("-by-tokens") => text(&["query", "documents"]),
            Sold::Transcriptions | Sold::Translations | Sold::Rerank => 0,
        }
    }

    fn output(&self) -> u64 {
        match self.kind.sold {
            sold if sold.writes_text() => self.words() * self.choices(),
            sold if sold.listens() && self.is("-by-tokens") => self.words(),
            Sold::Images | Sold::ImageEdits => {
                let each = match self.fields["quality"].as_str() {
                    Some("low") => 100,
                    Some("high" | "hd") => 400,
                    _ => 200,
                };
                each * self.choices() + 100 * self.number("partial_images").unwrap_or(0)
            }
            // One event of audio for every four thousand bytes.
            Sold::Speech => (100 * characters(&self.fields["input"])).div_ceil(4000),
            _ => 0,
        }
    }

    /// The words of each choice.
    fn words(&self) -> u64 {
        let most = if self.is("-long") { 2000 } else { 20 };
        self.limit().unwrap_or(u64::MAX).min(most)
    }

    /// The largest limit of the output that it names.
    fn limit(&self) -> Option<u64> {
        let names = ["max_tokens", "max_completion_tokens", "max_output_tokens"];
        names.iter().filter_map(|name| self.number(name)).max()
    }

    fn choices(&self) -> u64 {
        let n = self.number("n").unwrap_or(1);
        match (self.kind.sold, self.fields["prompt"].as_array()) {
            (Sold::Completions, Some(prompts)) => {
                count(prompts) * n.max(self.number("best_of").unwrap_or(1))
            }
            _ => n,
        }
    }

    fn searches_max(&self) -> u64 {
        match self.counted().web_searches {
            0 => self.fields["tools"][0]["max_uses"].as_u64().unwrap_or(WEB_SEARCHES_MAX),
            always => always,
        }
    }

    /// Images in the prompt, of low detail and of any other.
    fn input_images(&self) -> (u64, u64) {
        let of_form = if self.kind.sold == Sold::ImageEdits { count(&self.files) } else { 0 };
        let low = count(self.fields.to_string().matches("\"detail\":\"low\""));
        (low, count(self.images_within()) - low + of_form)
    }

    fn audio_ms(&self) -> u64 {
        let is_audio = self.kind.sold.listens();
        // Eight bytes a millisecond, behind 44 of a head.
        if is_audio { (super::length(&self.files[0].bytes) - 44) / 8 } else { 0 }
    }

    /// The bytes that may become input: the query is read with every document.
    fn text_bytes_read(&self) -> u64 {
        let again = self.fields["documents"].as_array().map_or(0, |documents| {
            super::length(self.fields["query"].to_string()) * count(documents)
        });
        let images: u64 = self.images_within().iter().map(super::length).sum();
        self.text_bytes() + again - images
    }

    /// Those in the JSON, with their quotes.
    fn images_within(&self) -> Vec<String> {
        let before = match self.kind.sold {
            Sold::Messages => "\"data\":\"",
            Sold::Responses => "\"image_url\":\"",
            _ => "\"url\":\"",
        };
        let text = self.fields.to_string();
        let quoted = |rest: &str| Some(format!("\"{}\"", rest.split('"').next()?));
        text.split(before).skip(1).filter_map(quoted).collect()
    }
}

/// What of a whole document of this kind is text, if anything of it is what was asked for.
pub(crate) fn given_whole(sold: Sold, answer: &Answer) -> Given {
    let Ok(body) = serde_json::from_slice::<Value>(&answer.body) else {
        let text_bytes = if sold.listens() { super::length(&answer.body) } else { 0 };
        return Given { events: u64::from(!answer.body.is_empty()), text_bytes };
    };
    let texts = match sold {
        Sold::Chat => each(&body["choices"], |choice| &choice["message"]["content"]),
        Sold::Completions => each(&body["choices"], |choice| &choice["text"]),
        Sold::Responses => each(&body["output"], |item| &item["content"][0]["text"]),
        Sold::Messages => each(&body["content"], |block| &block["text"]),
        sold if sold.listens() => vec![&body["text"]],
        _ => Vec::new(),
    };
    let text_bytes = texts.into_iter().filter_map(Value::as_str).map(super::length).sum();
    Given { events: u64::from(body["error"].is_null()), text_bytes }
}

fn each(list: &Value, pick: impl Fn(&Value) -> &Value) -> Vec<&Value> {
    list.as_array().into_iter().flatten().map(pick).collect()
}

/// The same of a stream, as far as it came.
pub(crate) fn given_streamed(sold: Sold, events: &[Value]) -> Given {
    let mut given = Given::default();
    for event in events {
        let text = text_of(sold, event);
        let name = event["type"].as_str().unwrap_or_default();
        let gives = match sold {
            Sold::Chat | Sold::Completions => event["choices"][0]["finish_reason"].is_string(),
            Sold::Messages => event["delta"]["stop_reason"].is_string(),
            Sold::Responses => name == "response.completed",
            Sold::Transcriptions => name == "transcript.text.done",
            _ => ["partial_image", "completed", "audio.delta", "audio.done"]
                .iter()
                .any(|ending| name.ends_with(ending)),
        };
        given.events += u64::from(gives || text > 0);
        given.text_bytes += text;
    }
    given
}

fn text_of(sold: Sold, event: &Value) -> u64 {
    let text = match sold {
        Sold::Chat => &event["choices"][0]["delta"]["content"],
        Sold::Completions => &event["choices"][0]["text"],
        Sold::Messages => &event["delta"]["text"],
        Sold::Responses | Sold::Transcriptions => &event["delta"],
        _ => &Value::Null,
    };
    text.as_str().map_or(0, super::length)
}

/// The characters of a text, or of all that are somewhere in it.
fn characters(value: &Value) -> u64 {
    match value {
        Value::String(text) => count(text.chars()),
        Value::Array(items) => items.iter().map(characters).sum(),
        Value::Object(object) => {
            ["content", "text"].iter().filter_map(|name| object.get(*name)).map(characters).sum()
        }
        _ => 0,
    }
}

fn count(things: impl IntoIterator) -> u64 {
    things.into_iter().count().try_into().unwrap()
}

/// What every model of the tests' tariff has.
pub(crate) const CONTEXT: u64 = 128_000;
/// Of an image of low detail, and of any other.
pub(crate) const IMAGE_TOKENS: (u64, u64) = (89, 769);
pub(crate) const WEB_SEARCHES_MAX: u64 = 7;
