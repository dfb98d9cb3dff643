//! Whole answers go out compressed to whoever asks for that, streams never do, and what is inside
//! is the same.

use std::io::Read;

use flate2::read::GzDecoder;
use reqwest::Method;

use crate::support::{
    Answer, Misbehaviour, PRICE, Pay, Setting, Value, World, chat, json, model_of, prompt_tokens,
    streamed, with,
};

const CHAT: &str = "/v1/chat/completions";

/// An answer to somebody who accepts this.
async fn ask(
    world: &World,
    method: Method,
    path: &str,
    pay: Pay<'_>,
    accepts: &str,
    body: &Value,
) -> Answer {
    let request = world.request(method, path, pay).header("accept-encoding", accepts);
    Answer::read(request.body(body.to_string()).send().await.unwrap()).await.unwrap()
}

async fn fetch(world: &World, path: &str, accepts: &str) -> Answer {
    ask(world, Method::GET, path, Pay::Nothing, accepts, &json!({})).await
}

/// What a client makes of a compressed answer.
#[track_caller]
fn inflated(answer: &Answer) -> Vec<u8> {
    assert_eq!(answer.header("content-encoding"), Some("gzip"));
    assert!(varies(answer).contains(&"accept-encoding".to_owned()));
    assert_eq!(answer.number("content-length"), answer.body.len() as u64);
    let mut bytes = Vec::new();
    GzDecoder::new(&*answer.body).read_to_end(&mut bytes).unwrap();
    assert!(bytes.len() > answer.body.len());
    bytes
}

fn varies(answer: &Answer) -> Vec<String> {
    let lines = answer.headers.get_all("vary").iter().map(|line| line.to_str().unwrap());
    lines.flat_map(|line| line.split(',')).map(|name| name.trim().to_ascii_lowercase()).collect()
}

/// Some five hundred words.
fn long() -> Value {
    with(chat(&model_of(Misbehaviour::Long)), json!({"max_tokens": 500}))
}

#[tokio::test]
async fn a_document_over_a_kilobyte_is_compressed_and_one_of_a_kilobyte_is_not() {
    let of = async |description: usize| {
        let config = json!({"description": "x".repeat(description)});
        World::with(Setting::config(config)).await
    };
    let empty = fetch(&of(0).await, "/v1/info", "gzip").await.body.len();
    let world = of(1024 - empty).await;
    let plain = fetch(&world, "/v1/info", "gzip").await.expect(200);
    assert_eq!((plain.body.len(), plain.number("content-length")), (1024, 1024));
    assert_eq!((plain.header("content-encoding"), varies(&plain)), (None, vec![]));

    let world = of(1025 - empty).await;
    let compressed = fetch(&world, "/v1/info", "gzip").await.expect(200);
    let plain = fetch(&world, "/v1/info", "gzip;q=0").await.expect(200);
    assert_eq!((plain.body.len(), plain.number("content-length")), (1025, 1025));
    assert_eq!(plain.header("content-encoding"), None);
    assert!(varies(&plain).contains(&"accept-encoding".to_owned()));
    assert_eq!(inflated(&compressed), plain.body);
    // HEAD says what GET would.
    let head = ask(&world, Method::HEAD, "/v1/info", Pay::Nothing, "gzip", &json!({})).await;
    assert!(head.body.is_empty());
    for name in ["content-length", "content-encoding", "vary", "content-type"] {
        assert_eq!(head.header(name), compressed.header(name), "{name}");
    }
}

#[tokio::test]
async fn a_list_too_long_for_the_thread_of_streams_is_the_same_document() {
    let world = World::start().await;
    let plain = fetch(&world, "/v1/models", "identity").await.expect(200);
    assert!(plain.body.len() > 16 << 10, "{} bytes", plain.body.len());
    assert_eq!(inflated(&fetch(&world, "/v1/models", "br, gzip").await), plain.body);
}

#[tokio::test]
async fn an_upstreams_document_is_compressed_with_its_cost_and_its_change_beside_it() {
    let world = World::start().await;
    let (key, ecash) = (world.key(1000).await, world.sats(1000).await);
    let cost = PRICE.cost(prompt_tokens(&chat("demo")), 500);
    let body = long();
    let post = async |pay, accepts| ask(&world, Method::POST, CHAT, pay, accepts, &body).await;
    for pay in [Pay::from(&key), Pay::XCashu(&ecash)] {
        let answer = post(pay, "gzip").await.expect(200);
        let document: Value = serde_json::from_slice(&inflated(&answer)).unwrap();
        assert_eq!(document["usage"]["cost"]["total_msats"], cost);
        assert_eq!(answer.number("x-routstr-cost-msats"), cost);
        if let Pay::XCashu(_) = pay {
            let change = answer.change().unwrap();
            assert_eq!(world.worth(change).await, (1_000_000 - cost) / 1000);
        }
    }
    let answer = post(Pay::from(&key), "identity").await.expect(200);
    assert_eq!(answer.header("content-encoding"), None);
    assert_eq!(answer.json()["usage"]["cost"]["total_msats"], cost);
    assert_eq!(world.settled(&key).await.spent, 2 * cost);
}

#[tokio::test]
async fn no_event_stream_is_compressed_flowing_or_held() {
    let world = World::start().await;
    let (key, ecash) = (world.key(1000).await, world.sats(1000).await);
    let body = with(streamed("demo"), json!({"max_tokens": 500}));
    for pay in [Pay::from(&key), Pay::XCashu(&ecash)] {
        let answer = ask(&world, Method::POST, CHAT, pay, "gzip", &body).await.expect(200);
        assert_eq!(answer.header("content-encoding"), None);
        assert!(answer.events().is_done() && answer.body.len() > 1024);
    }
}

#[tokio::test]
async fn an_error_is_as_readable_as_before() {
    let world = World::start().await;
    let key = world.key(100).await;
    let unknown = ask(&world, Method::POST, CHAT, Pay::from(&key), "gzip", &chat("none")).await;
    unknown.expect_error(404, "not_found", "model_not_found");
    let body = chat(&model_of(Misbehaviour::Status400));
    let mistake = ask(&world, Method::POST, CHAT, Pay::from(&key), "gzip", &body).await.expect(400);
    assert!(mistake.json()["error"].is_object());
}
