//! `/images/generations` and `/images/edits`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::super::Misbehaviour;
use super::{CREATED, Part, Question, Reply, Route, count, text_tokens};

pub(super) fn reply(question: &Question) -> Option<Reply> {
    let prompt = text_tokens(count(question.text("prompt")?.chars()));
    if question.route == Route::ImageEdits && question.files.is_empty() {
        return None;
    }
    let made = question.how_many("n", IMAGES_MAX).filter(|made| *made > 0)?;
    let partial = question.number("partial_images").unwrap_or(0);
    // A stream shows one image as it comes into being.
    if partial > PARTIAL_MAX || (question.stream && made > 1) {
        return None;
    }
    let images = Images { question, prompt, made, partial };
    Some(if question.stream {
        question.streamed(images.input(), images.content(), images.closing())
    } else {
        let usage = question.is(Misbehaviour::ImageUsage).then(|| images.usage());
        question.document(images.input(), made, images.body(), usage)
    })
}

struct Images<'q> {
    question: &'q Question,
    /// As text.
    prompt: u64,
    made: u64,
    partial: u64,
}

impl Images<'_> {
    fn input(&self) -> u64 {
        self.prompt + self.edited()
    }

    fn edited(&self) -> u64 {
        EDITED_TOKENS * count(&self.question.files)
    }

    fn quality(&self) -> &str {
        self.question.text("quality").unwrap_or("auto")
    }

    fn size(&self) -> &str {
        self.question.text("size").unwrap_or("1024x1024")
    }

    fn usage(&self) -> Value {
        let each = match self.quality() {
            "low" => 100,
            "high" | "hd" => 400,
            _ => 200,
        };
        let partial = if self.question.stream { PARTIAL_TOKENS * self.partial } else { 0 };
        let output = each * self.made + partial;
        let usage = json!({
            "input_tokens": self.input(),
            "input_tokens_details": {"text_tokens": self.prompt, "image_tokens": self.edited()},
            "output_tokens": output,
            "total_tokens": self.input() + output,
        });
        self.question.with_cost(usage, self.input() + output)
    }

    fn body(&self) -> Value {
        let tells_usage = self.question.is(Misbehaviour::ImageUsage);
        let as_base64 = tells_usage || self.question.text("response_format") == Some("b64_json");
        let entry = |index| match as_base64 {
            true => json!({"b64_json": self.image()}),
            false => json!({"url": format!("https://sandbox.invalid/image-{index}.png")}),
        };
        let mut body = json!({
            "created": CREATED, "data": (0..self.made).map(entry).collect::<Vec<_>>(),
        });
        if tells_usage {
            body["background"] = "opaque".into();
            body["output_format"] = "png".into();
            body["quality"] = self.quality().into();
            body["size"] = self.size().into();
        }
        body
    }

    /// The signature of a PNG and something after it: nobody looks at the picture.
    fn image(&self) -> String {
        let pixels = match self.question.is(Misbehaviour::Big) {
            true => self.question.big(2 * self.made),
            false => PIXELS,
        };
        let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
        bytes.resize(bytes.len() + pixels, b'x');
        STANDARD.encode(bytes)
    }

    fn content(&self) -> Vec<Part> {
        let partial = |index| {
            let mut event = self.event("partial_image");
            event["partial_image_index"] = Value::from(index);
            // The image itself is counted when it is complete.
            self.question.named(&event).bringing(0)
        };
        (0..self.partial).map(partial).collect()
    }

    fn closing(&self) -> Vec<Part> {
        let mut event = self.event("completed");
        let tells_usage =
            self.question.is(Misbehaviour::ImageUsage) && !self.question.is(Misbehaviour::NoUsage);
        if tells_usage {
            event["usage"] = self.usage();
        }
        let tells_usage = tells_usage && !self.question.is(Misbehaviour::InvalidJson);
        vec![self.question.named(&event).bringing(self.made).telling_usage(tells_usage)]
    }

    fn event(&self, what: &str) -> Value {
        let kind = match self.question.route {
            Route::ImageEdits => "image_edit",
            _ => "image_generation",
        };
        json!({
            "type": format!("{kind}.{what}"), "b64_json": self.image(), "created_at": CREATED,
            "size": self.size(), "quality": self.quality(), "background": "opaque",
            "output_format": "png",
        })
    }
}

/// OpenAI's own limits; more is refused.
const IMAGES_MAX: u64 = 10;
const PARTIAL_MAX: u64 = 3;
const PARTIAL_TOKENS: u64 = 100;
const EDITED_TOKENS: u64 = 50;
const PIXELS: usize = 256;
