//! Events go on one by one: none is held back until the next has come.
//!
//! Promised of what is paid by key. An answer paid by `X-Cashu` is held until its cost is known.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Response};

use crate::support::{
    Key, Misbehaviour, Pay, Setting, Value, World, chat, json, model_of, streamed, with, within,
};

/// A request for a stream, as JSON or, with a file, as a form.
struct Ask {
    path: &'static str,
    body: Value,
    has_file: bool,
}

impl Ask {
    fn json(path: &'static str, body: Value) -> Self {
        Self { path, body: with(body, json!({"stream": true})), has_file: false }
    }

    fn form(path: &'static str, body: Value) -> Self {
        Self { has_file: true, ..Self::json(path, body) }
    }

    /// One for each route whose answers are streamed.
    fn all() -> Vec<Self> {
        let usage = json!({"include_usage": true});
        let images = json!({"prompt": "A nut", "partial_images": 3});
        let speech = json!({"input": LONG_TEXT.repeat(5), "voice": "v", "stream_format": "sse"});
        vec![
            Self::json("/v1/chat/completions", with(chat(""), json!({"stream_options": usage}))),
            Self::json("/v1/completions", json!({"prompt": "A nut", "stream_options": usage})),
            Self::json("/v1/responses", json!({"input": "What is a nut?"})),
            Self::json("/v1/messages", with(chat(""), json!({"max_tokens": 20}))),
            Self::json("/v1/images/generations", images.clone()),
            Self::form("/v1/images/edits", images),
            Self::form("/v1/audio/transcriptions", json!({})),
            Self { path: "/v1/audio/speech", body: speech, has_file: false },
        ]
    }

    async fn send(&self, world: &World, key: &Key, model: &str) -> Response {
        let body = with(self.body.clone(), json!({"model": model}));
        let request = world.request(Method::POST, self.path, key.into());
        let request = request.header("anthropic-version", "2023-06-01");
        let request = match self.has_file {
            false => request.body(body.to_string()),
            true => {
                // In the place of the one that says JSON.
                let headers = [(CONTENT_TYPE, HeaderValue::from_static(FORM))];
                request.headers(headers.into_iter().collect()).body(form(&body))
            }
        };
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200, "{}", self.path);
        response
    }
}

/// The members as fields, and a file that is a second of audio, or an image.
fn form(body: &Value) -> String {
    let mut form = String::new();
    for (name, value) in body.as_object().unwrap() {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let head = format!("--edge\r\ncontent-disposition: form-data; name=\"{name}\"");
        form += &format!("{head}\r\n\r\n{text}\r\n");
    }
    for name in ["file", "image"] {
        let head = format!("--edge\r\ncontent-disposition: form-data; name=\"{name}\"");
        form += &format!("{head}; filename=\"f.wav\"\r\n\r\n{}\r\n", "x".repeat(4000));
    }
    form + "--edge--\r\n"
}

/// A body that is read piece by piece.
struct Reading {
    response: Response,
    text: Vec<u8>,
}

impl Reading {
    fn of(response: Response) -> Self {
        Self { response, text: Vec::new() }
    }

    /// How many events have come whole, with nothing of a further one.
    fn events(&self) -> Option<usize> {
        let whole = self.text.is_empty() || self.text.ends_with(b"\n\n");
        whole.then(|| self.text.windows(2).filter(|two| *two == b"\n\n").count())
    }

    /// Reads on; false at the end.
    async fn more(&mut self) -> bool {
        match self.response.chunk().await.unwrap() {
            Some(chunk) => {
                self.text.extend_from_slice(&chunk);
                true
            }
            None => false,
        }
    }
}

/// A world where `all` and `all-stepped` are sold on every route.
async fn world() -> World {
    let price = json!({
        "currency": "sat", "request": 11, "input": 2000, "output": 7000,
        "images": [{"price": 1}], "audio_second": 1, "characters": 1,
    });
    let model = |id: &str| {
        json!({
            "id": id, "upstreams": ["sandbox"], "context_length": 128_000,
            "max_output_tokens": 256, "price": price,
        })
    };
    let more_models = vec![model("all"), model("all-stepped")];
    World::with(Setting { more_models, ..Setting::default() }).await
}

#[tokio::test]
async fn every_event_of_every_route_reaches_the_client_before_the_next_one_is_sent() {
    let world = world().await;
    let key = world.key(10_000).await;
    for ask in Ask::all() {
        let mut plain = Reading::of(ask.send(&world, &key, "all").await);
        while plain.more().await {}
        let count = plain.events().expect("whole events");
        assert!(count > 1, "{}", ask.path);
        // The head is here already.
        let mut stepped = Reading::of(ask.send(&world, &key, "all-stepped").await);
        for nth in 1..=count {
            world.upstream.step();
            let came = async { while stepped.events() != Some(nth) && stepped.more().await {} };
            within(&format!("event {nth} of {}", ask.path), came).await;
            assert_eq!(stepped.events(), Some(nth), "{}", ask.path);
        }
        world.upstream.step();
        assert!(!within("the end of the stream", stepped.more()).await, "{}", ask.path);
    }
    world.settled(&key).await;
}

#[tokio::test]
async fn every_piece_of_spoken_audio_reaches_the_client_before_the_next_one_is_sent() {
    let world = world().await;
    let key = world.key(10_000).await;
    let body = json!({"input": LONG_TEXT, "voice": "v"});
    let ask = Ask { path: "/v1/audio/speech", body, has_file: false };
    let mut stepped = Reading::of(ask.send(&world, &key, "all-stepped").await);
    // A hundred bytes for each character, four thousand in a piece.
    for bytes in [4000, 8000, 10_000] {
        world.upstream.step();
        let came = async { while stepped.text.len() < bytes && stepped.more().await {} };
        within("a piece of audio", came).await;
        assert_eq!(stepped.text.len(), bytes);
    }
    world.upstream.step();
    assert!(!within("the end of the audio", stepped.more()).await);
    world.settled(&key).await;
}

/// Said, not promised: how long depends on who else is on the machine.
#[tokio::test]
async fn how_long_the_events_of_a_slow_stream_are_on_their_way_is_told() {
    let world = World::start().await;
    let key = world.key(100).await;
    let body = streamed(&model_of(Misbehaviour::Paced));
    let request = world.request(Method::POST, "/v1/chat/completions", Pay::from(&key));
    let response = request.body(body.to_string()).send().await.unwrap();
    let mut reading = Reading::of(response);
    let mut seen = Vec::new();
    while reading.more().await {
        seen.resize(reading.events().expect("whole events"), tokio::time::Instant::now());
    }
    world.upstream.await_produced(1).await;
    let mut sent = world.upstream.produced().remove(0).moments;
    // Nobody asked for usage, the last event but one, so it is not passed on.
    sent.remove(sent.len() - 2);
    assert_eq!(seen.len(), sent.len());
    tell(seen.iter().zip(&sent).map(|(seen, sent)| *seen - *sent).collect());
}

#[expect(clippy::print_stdout, reason = "the figures are asked for")]
fn tell(mut delays: Vec<Duration>) {
    delays.sort();
    let at = |per_cent: usize| delays[(delays.len() - 1) * per_cent / 100];
    let (half, most, all) = (at(50), at(99), at(100));
    println!(
        "{} events, one each 50 ms: on their way for {half:?} (p50), {most:?} (p99), {all:?} (max)",
        delays.len()
    );
}

const FORM: &str = "multipart/form-data; boundary=edge";
/// A hundred characters.
const LONG_TEXT: &str = "A satoshi here, a satoshi there, and soon it adds up to what a whole answer of so many words costs..";
