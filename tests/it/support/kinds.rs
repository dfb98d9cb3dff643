//! A request for every route that is sold, JSON or form, streamed where that exists.

use serde_json::{Value, json};

use super::length;

/// A route, by what is sold on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sold {
    Chat,
    Responses,
    Embeddings,
    Completions,
    Images,
    ImageEdits,
    Transcriptions,
    Translations,
    Speech,
    Messages,
    Moderations,
    Rerank,
}

impl Sold {
    pub(crate) const ALL: [Self; 12] = [
        Self::Chat,
        Self::Responses,
        Self::Embeddings,
        Self::Completions,
        Self::Images,
        Self::ImageEdits,
        Self::Transcriptions,
        Self::Translations,
        Self::Speech,
        Self::Messages,
        Self::Moderations,
        Self::Rerank,
    ];

    /// Without the version, as its alias and its receipts have it.
    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::Chat => "/chat/completions",
            Self::Responses => "/responses",
            Self::Embeddings => "/embeddings",
            Self::Completions => "/completions",
            Self::Images => "/images/generations",
            Self::ImageEdits => "/images/edits",
            Self::Transcriptions => "/audio/transcriptions",
            Self::Translations => "/audio/translations",
            Self::Speech => "/audio/speech",
            Self::Messages => "/messages",
            Self::Moderations => "/moderations",
            Self::Rerank => "/rerank",
        }
    }

    pub(crate) const fn is_form(self) -> bool {
        matches!(self, Self::ImageEdits | Self::Transcriptions | Self::Translations)
    }

    pub(crate) const fn writes_text(self) -> bool {
        matches!(self, Self::Chat | Self::Responses | Self::Completions | Self::Messages)
    }

    pub(crate) const fn listens(self) -> bool {
        matches!(self, Self::Transcriptions | Self::Translations)
    }

    pub(crate) const fn makes_images(self) -> bool {
        matches!(self, Self::Images | Self::ImageEdits)
    }

    const fn streams(self) -> bool {
        self.writes_text()
            || self.makes_images()
            || matches!(self, Self::Transcriptions | Self::Speech)
    }

    /// A document, which every route answers with.
    pub(crate) const fn whole(self) -> Kind {
        Kind { sold: self, streamed: false }
    }
}

/// A way to ask for what is sold on a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) sold: Sold,
    pub(crate) streamed: bool,
}

impl Kind {
    /// Every route, and once more every one that streams.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let streams = Sold::ALL.into_iter().filter(|sold| sold.streams());
        let streamed = streams.map(|sold| Self { sold, streamed: true });
        Sold::ALL.into_iter().map(Sold::whole).chain(streamed)
    }

    /// A usual request for this model.
    pub(crate) fn ask(self, model: &str) -> Ask {
        let message = json!([{"role": "user", "content": "What is a nut?"}]);
        let (fields, files) = match self.sold {
            Sold::Chat => (json!({ "messages": message }), vec![]),
            Sold::Responses => {
                (json!({"input": "What is a nut?", "instructions": "Be brief."}), vec![])
            }
            Sold::Messages => {
                (json!({"messages": message, "system": "Be brief.", "max_tokens": 40}), vec![])
            }
            Sold::Completions => (json!({"prompt": ["Once upon", "a nut"], "n": 2}), vec![]),
            Sold::Embeddings | Sold::Moderations => (json!({"input": ["a nut", "a bolt"]}), vec![]),
            Sold::Images => (json!({"prompt": "A nut, please", "n": 2}), vec![]),
            Sold::ImageEdits => {
                let image = |filename| File { name: "image[]", filename, bytes: PNG.to_vec() };
                let files = vec![image("a.png"), image("b.png")];
                (json!({"prompt": "A nut, please", "n": 2}), files)
            }
            Sold::Transcriptions | Sold::Translations => {
                let file = File { name: "file", filename: "nut.wav", bytes: wav(AUDIO_MS) };
                (json!({"prompt": "Of nuts"}), vec![file])
            }
            Sold::Speech => (json!({"input": "What is a n\u{fc}t?", "voice": "alloy"}), vec![]),
            Sold::Rerank => (json!({"query": "nut", "documents": vec!["a nut"; 101]}), vec![]),
        };
        let ask = Ask { kind: self, fields, files }.with(json!({ "model": model }));
        match (self.streamed, self.sold) {
            (false, _) => ask,
            (true, Sold::Chat | Sold::Completions) => {
                ask.with(json!({"stream": true, "stream_options": {"include_usage": true}}))
            }
            (true, Sold::Speech) => ask.with(json!({"stream_format": "sse"})),
            (true, Sold::Images | Sold::ImageEdits) => ask.with(json!({"stream": true, "n": 1})),
            (true, _) => ask.with(json!({"stream": true})),
        }
    }
}

/// A request, before it is written down.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) kind: Kind,
    /// The members of its JSON, or the fields of its form.
    pub(crate) fields: Value,
    pub(crate) files: Vec<File>,
}

#[derive(Clone, Debug)]
pub(crate) struct File {
    pub(crate) name: &'static str,
    pub(crate) filename: &'static str,
    pub(crate) bytes: Vec<u8>,
}

impl Ask {
    /// With these fields added or replaced.
    pub(crate) fn with(mut self, fields: Value) -> Self {
        let fields = fields.as_object().unwrap().clone();
        self.fields.as_object_mut().unwrap().extend(fields);
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.fields.as_object_mut().unwrap().remove(name);
        self
    }

    pub(crate) fn model(&self) -> &str {
        self.fields["model"].as_str().unwrap()
    }

    pub(crate) fn path(&self) -> String {
        format!("/v1{}", self.kind.sold.path())
    }

    pub(crate) const fn content_type(&self) -> &'static str {
        match self.kind.sold.is_form() {
            true => "multipart/form-data; boundary=the-edge",
            false => "application/json",
        }
    }

    pub(crate) fn body(&self) -> Vec<u8> {
        if !self.kind.sold.is_form() {
            return self.fields.to_string().into_bytes();
        }
        let mut body = Vec::new();
        for (name, value) in self.fields.as_object().unwrap() {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            body.extend(part(&format!("name=\"{name}\""), value.as_bytes()));
        }
        for File { name, filename, bytes } in &self.files {
            body.extend(part(&format!("name=\"{name}\"; filename=\"{filename}\""), bytes));
        }
        body.extend(b"--the-edge--\r\n");
        body
    }

    /// All of the body that is no file.
    pub(crate) fn text_bytes(&self) -> u64 {
        length(self.body()) - self.files.iter().map(|file| length(&file.bytes)).sum::<u64>()
    }

    /// A whole number among its fields.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.fields[name].as_u64()
    }
}

fn part(named: &str, content: &[u8]) -> Vec<u8> {
    let head = format!("--the-edge\r\ncontent-disposition: form-data; {named}\r\n\r\n");
    [head.as_bytes(), content, b"\r\n"].concat()
}

/// A WAV file that plays so long, in eight thousand bytes a second.
pub(crate) fn wav(ms: u64) -> Vec<u8> {
    let samples = ms * 8;
    let mut file = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0".to_vec();
    file.extend(8000_u32.to_le_bytes());
    file.extend(8000_u32.to_le_bytes());
    file.extend(b"\x01\0\x08\0data");
    file.extend(u32::try_from(samples).unwrap().to_le_bytes());
    file.resize(file.len() + usize::try_from(samples).unwrap(), 1);
    file
}

/// How long the usual audio plays: no whole seconds, so that rounding shows.
pub(crate) const AUDIO_MS: u64 = 3_203;

const PNG: &[u8] = b"\x89PNG\r\n\x1a\nnobody looks at the picture";
