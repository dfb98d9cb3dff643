//! A stream needs no more memory the longer it is, however slowly it is read, and is charged to the
//! msat.
//!
//! A hundred thousand events here; `make chaos` asks for a million.

use nutgate_sandbox::upstream::model_of_events;

use crate::support::{
    Key, Memory, PRICE, Pay, Raw, Setting, Value, World, chat, is_full_chaos, json, model, with,
};

/// How a client reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reader {
    /// As fast as it can.
    Fast,
    /// A little, and then it asks for something else before it reads on.
    Slow,
}

/// A stream of so many words, each an event.
struct Long {
    path: &'static str,
    body: Value,
    words: u64,
    /// Braces that open in each of its events. There are none in what frames them.
    braces: u64,
}

impl Long {
    fn chat(words: u64) -> Self {
        let body = with(chat(&model_of_events(words)), json!({"max_tokens": words}));
        Self { path: "/v1/chat/completions", body, words, braces: 3 }
    }

    fn response(words: u64) -> Self {
        let model = model_of_events(words);
        let body = json!({"model": model, "input": "What is a nut?", "max_output_tokens": words});
        Self { path: "/v1/responses", body, words, braces: 1 }
    }

    fn message(words: u64) -> Self {
        let body = with(chat(&model_of_events(words)), json!({"max_tokens": words}));
        Self { path: "/v1/messages", body, words, braces: 2 }
    }

    /// Buys it in a world of its own, and holds the gateway to its promises.
    async fn check(self, reader: Reader, growth_kib_max: u64) {
        let more_models = vec![model(&model_of_events(self.words), &["sandbox"])];
        let world = World::with(Setting { more_models, ..Setting::default() }).await;
        // More than is reserved for it.
        let sats = 100 + PRICE.output * self.words / 1000;
        let key = world.key(sats).await;
        let [tenth, half, end] = self.read(&world, &key, reader).await;
        report(&self, reader, [tenth, half, end]);
        let growth_kib = end.most_kib - tenth.most_kib;
        assert!(growth_kib < growth_kib_max, "{growth_kib} KiB more since a tenth of it had come");
        // Its prompt is read as seven tokens on each of the routes.
        let cost = PRICE.cost(7, self.words);
        let balance = world.settled(&key).await;
        assert_eq!((balance.spent, balance.available), (cost, sats * 1000 - cost));
        assert_eq!(world.gateway.reservations().pop().unwrap().usage_source, "upstream");
    }

    /// Reads it to its end, and the gateway's memory at a tenth of it, at half, and at the end.
    async fn read(&self, world: &World, key: &Key, reader: Reader) -> [Memory; 3] {
        let mut raw = match reader {
            Reader::Fast => world.raw().await,
            Reader::Slow => Raw::connect_narrowly(world.gateway.address()).await,
        };
        let lines = Pay::from(key).line() + "anthropic-version: 2023-06-01\r\n";
        let body = with(self.body.clone(), json!({"stream": true}));
        raw.post(self.path, &lines, &body.to_string()).await;
        assert_eq!(raw.head().await.status, 200);
        let mut seen = 0;
        let mut at = Vec::new();
        let mut last = Vec::new();
        while !last.ends_with(b"\r\n0\r\n\r\n") {
            let piece = raw.some(BITE_BYTES).await;
            assert!(!piece.is_empty(), "the stream broke off");
            seen += piece.iter().map(|byte| u64::from(*byte == b'{')).sum::<u64>();
            last = [last, piece].concat();
            drop(last.drain(..last.len().saturating_sub(16)));
            let mark = [self.words / 10, self.words / 2].get(at.len()).map(|at| at * self.braces);
            if mark.is_some_and(|mark| seen >= mark) {
                at.push(world.gateway.memory());
                // Nine tenths of it are more than sockets hold: who reads slowly is waited for.
                let waits = world.upstream.produced().is_empty();
                assert!(waits || reader == Reader::Fast || at.len() > 1);
            }
            if reader == Reader::Slow {
                world.fetch("/healthz", Pay::Nothing).await.expect(200);
            }
        }
        at.push(world.gateway.memory());
        at.try_into().expect("three")
    }
}

#[expect(clippy::print_stdout, reason = "the figures are asked for")]
fn report(long: &Long, reader: Reader, memory: [Memory; 3]) {
    let Long { path, words, .. } = long;
    let [tenth, half, end] = memory.map(|Memory { resident_kib, most_kib }| {
        format!("{resident_kib} KiB (most ever {most_kib})")
    });
    println!(
        "{path}, {words} events, reader {reader:?}: resident at a tenth {tenth}, at half {half}, \
         at the end {end}"
    );
}

#[tokio::test]
async fn a_long_stream_needs_no_more_memory_than_a_short_one() {
    Long::chat(events(100_000, 1_000_000)).check(Reader::Fast, GROWTH_KIB_MAX).await;
}

#[tokio::test]
async fn a_long_stream_that_is_read_slowly_needs_no_more_memory_either() {
    Long::chat(events(100_000, 1_000_000)).check(Reader::Slow, GROWTH_KIB_MAX).await;
}

#[tokio::test]
async fn a_long_response_needs_no_more_memory_than_its_last_events() {
    Long::response(events(30_000, 200_000)).check(Reader::Fast, WHOLE_TEXT_KIB_MAX).await;
}

#[tokio::test]
async fn a_long_message_needs_no_more_memory_than_a_short_one() {
    Long::message(events(30_000, 200_000)).check(Reader::Fast, GROWTH_KIB_MAX).await;
}

fn events(few: u64, full: u64) -> u64 {
    if is_full_chaos() { full } else { few }
}

/// By how much memory may grow while nine tenths of a stream pass: allocators are not exact.
const GROWTH_KIB_MAX: u64 = 4 << 10;
/// The same where the last events repeat the whole text: one of up to 1 MiB is held while it is
/// read, and is copied when a cost is put into it.
const WHOLE_TEXT_KIB_MAX: u64 = 8 << 10;
const BITE_BYTES: usize = 16 << 10;
