//! Bytes that are no request, or could be two: nothing is sold that was not asked for.

use crate::support::{PRICE, Pay, World, chat};

const PATH: &str = "/v1/chat/completions";

/// What two readers of the same bytes could take for different requests.
#[tokio::test]
async fn a_request_of_two_meanings_is_never_two_requests() {
    let world = World::start().await;
    let key = world.key(100).await;
    let text = chat("demo").to_string();
    let (length, line) = (text.len(), Pay::from(&key).line());
    let start = format!("POST {PATH} HTTP/1.1\r\nhost: x\r\n{line}connection: close\r\n");
    let chunked = format!("{length:x}\r\n{text}\r\n0\r\n\r\n");
    let within = format!("{start}content-length: {length}\r\n\r\n{text}");
    let framings = [
        format!("content-length: {length}\r\ncontent-length: 1\r\n\r\n{text}"),
        format!("content-length: {length}, 1\r\n\r\n{text}"),
        format!("content-length: +{length}\r\n\r\n{text}"),
        format!("content-length: -1\r\n\r\n{text}"),
        format!("content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n{chunked}"),
        format!("transfer-encoding: identity\r\ncontent-length: {length}\r\n\r\n{text}"),
        format!("transfer-encoding: xchunked\r\n\r\n{chunked}"),
        format!("content-length: 0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{within}"),
        format!("transfer-encoding: chunked\r\n\r\nzz\r\n{text}\r\n0\r\n\r\n"),
    ];
    for framing in framings {
        let asked = world.upstream.count();
        let mut raw = world.raw().await;
        raw.send(start.clone() + &framing).await;
        let answers = String::from_utf8_lossy(&raw.rest().await).matches("HTTP/1.1 200").count();
        assert!(answers <= 1, "{framing}");
        assert_eq!(world.upstream.count() - asked, u64::try_from(answers).unwrap(), "{framing}");
        assert!(world.upstream.requests().iter().all(|seen| seen.body == text), "{framing}");
    }
    let sold = world.upstream.count();
    assert_eq!(world.settled(&key).await.spent, sold * PRICE.cost(7, 20));
}

#[tokio::test]
async fn bytes_that_are_no_request_do_no_harm() {
    let world = World::start().await;
    let long = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(3 << 20));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(5000));
    for bytes in [
        "\0\0\0\0\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "POST /v1/chat/completions HTTP/1.1\r\nhost\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\u{fc}\x03\x03",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &long,
        &many,
    ] {
        let mut raw = world.raw().await;
        raw.send(bytes).await;
        raw.finish().await;
        let answer = raw.rest().await;
        let text = String::from_utf8_lossy(&answer);
        let refused = text.is_empty() || text.starts_with("HTTP/1.1 4") || text.contains("\0");
        assert!(refused, "{:?}", text.get(..60));
        assert_eq!(world.fetch("/healthz", Pay::Nothing).await.status, 200);
    }
    assert_eq!(world.upstream.count(), 0);
}
