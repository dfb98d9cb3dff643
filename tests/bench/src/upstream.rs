//! An upstream that is not the bottleneck: one fixed answer per kind, written at once.

use std::process::ExitCode;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const EVENTS: usize = 20;

pub(crate) fn serve() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { return ExitCode::FAILURE };
    runtime.block_on(async {
        let address = std::env::args().nth(2).unwrap_or_default();
        let Ok(listener) = TcpListener::bind(address).await else { return ExitCode::FAILURE };
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream));
        }
        ExitCode::SUCCESS
    })
}

/// Reads requests one after another; the proxies send a `content-length`, and so does the driver.
async fn answer(mut stream: TcpStream) {
    let (json, events) = (json(), events());
    let mut buffer = Vec::with_capacity(16 * 1024);
    if stream.set_nodelay(true).is_err() {
        return;
    }
    loop {
        let Some(end) = request_end(&buffer) else {
            match stream.read_buf(&mut buffer).await {
                Ok(read) if read > 0 => continue,
                _ => return,
            }
        };
        let wants_stream = contains(&buffer[..end], b"\"stream\":true");
        let answer = if wants_stream { &events } else { &json };
        buffer.drain(..end);
        if stream.write_all(answer).await.is_err() {
            return;
        }
    }
}

fn request_end(buffer: &[u8]) -> Option<usize> {
    let head = buffer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&buffer[..head]).ok()?.to_ascii_lowercase();
    let length = text.split("content-length:").nth(1)?.lines().next()?.trim().parse::<usize>();
    let end = head + length.ok()?;
    (buffer.len() >= end).then_some(end)
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

fn json() -> Vec<u8> {
    let body = format!(
        r#"{{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"bench","choices":[{{"index":0,"message":{{"role":"assistant","content":"{}"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":200,"completion_tokens":150,"total_tokens":350}}}}"#,
        "word ".repeat(150)
    );
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head, body].concat().into_bytes()
}

fn events() -> Vec<u8> {
    let chunk = |data: &str| format!("{:x}\r\n{data}\r\n", data.len());
    let event = |data: &str| chunk(&format!("data: {data}\n\n"));
    let head = r#"{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"bench""#;
    let mut answer = String::from(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
    );
    for _ in 0..EVENTS {
        let delta = r#""choices":[{"index":0,"delta":{"content":"word "},"finish_reason":null}]"#;
        answer += &event(&format!("{head},{delta}}}"));
    }
    let usage =
        r#""choices":[],"usage":{"prompt_tokens":200,"completion_tokens":20,"total_tokens":220}"#;
    answer += &event(&format!("{head},{usage}}}"));
    answer += &event("[DONE]");
    answer += "0\r\n\r\n";
    answer.into_bytes()
}
