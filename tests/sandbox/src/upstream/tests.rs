//! What the upstream says and does, seen from a raw socket.

mod bookkeeping;
mod chat;
mod events;
mod media;
mod text;
mod vectors;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

/// Connects and asks for a chat completion. What the upstream does next can be read from the
/// stream.
async fn ask(upstream: &Upstream, question: &Value) -> Result<TcpStream> {
    send(upstream, "/v1/chat/completions", BEARER, question.to_string().as_bytes()).await
}

/// Connects and sends whatever it is, with these headers, each with its line's end.
async fn send(upstream: &Upstream, path: &str, headers: &str, body: &[u8]) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(upstream.url().replace("http://", "")).await?;
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\
         content-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat()).await?;
    Ok(stream)
}

/// An answer as far as it came.
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
    /// Whether it was said to be all.
    ended: bool,
}

impl Answer {
    async fn read(mut stream: TcpStream) -> Result<Self> {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await?;
        let end = memchr::memmem::find(&bytes, b"\r\n\r\n").ok_or("no head")? + 4;
        let head = String::from_utf8(bytes[..end].to_vec())?;
        let status = head.split(' ').nth(1).ok_or("no status")?.parse()?;
        let rest = &bytes[end..];
        let (body, ended) = match head.contains("transfer-encoding: chunked") {
            true => chunks_of(rest)?,
            false => (rest.to_vec(), head.contains(&format!("content-length: {}\r", rest.len()))),
        };
        Ok(Self { status, head, body, ended })
    }

    fn text(&self) -> &str {
        str::from_utf8(&self.body).expect("text")
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// The names and the data of events; an event without a name has an empty one.
    fn events(&self) -> Vec<(String, Value)> {
        let event = |text: &str| {
            let (name, data) = text.split_once("data: ").expect("data");
            let name = name.trim_end().trim_start_matches("event: ").to_owned();
            let data = match data.trim_end() {
                "[DONE]" => "[DONE]".into(),
                data => serde_json::from_str(data).expect("JSON"),
            };
            (name, data)
        };
        self.text().split_terminator("\n\n").map(event).collect()
    }
}

/// The bytes of a body in chunks, and whether the last chunk came.
fn chunks_of(mut rest: &[u8]) -> Result<(Vec<u8>, bool)> {
    let mut body = Vec::new();
    while let Some(line) = memchr::memmem::find(rest, b"\r\n") {
        let size = usize::from_str_radix(str::from_utf8(&rest[..line])?, 16)?;
        if size == 0 {
            return Ok((body, true));
        }
        body.extend_from_slice(&rest[line + 2..line + 2 + size]);
        rest = &rest[line + 2 + size + 2..];
    }
    Ok((body, false))
}

/// The answer to JSON, sent with both keys' headers and Anthropic's version.
async fn post(upstream: &Upstream, path: &str, question: &Value) -> Result<Answer> {
    let headers = format!("{BEARER}anthropic-version: 2023-06-01\r\n");
    Answer::read(send(upstream, path, &headers, question.to_string().as_bytes()).await?).await
}

/// The answer to a form of text fields and files.
async fn post_form(
    upstream: &Upstream,
    path: &str,
    fields: &[(&str, &str)],
    files: &[(&str, &[u8])],
) -> Result<Answer> {
    let mut body = Vec::new();
    for (name, value) in fields {
        let part =
            format!("--edge\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        body.extend_from_slice(part.as_bytes());
    }
    for (name, content) in files {
        let part = format!(
            "--edge\r\ncontent-disposition: form-data; name=\"{name}\"; filename=\"f\"\r\n\
             content-type: application/octet-stream\r\n\r\n"
        );
        body.extend_from_slice(part.as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--edge--\r\n");
    let headers = format!("{BEARER}content-type: multipart/form-data; boundary=edge\r\n");
    Answer::read(send(upstream, path, &headers, &body).await?).await
}

fn question(model: &str, stream: bool) -> Value {
    json!({
        "model": model, "stream": stream, "stream_options": {"include_usage": true},
        "messages": [{"role": "user", "content": "What is it?"}],
    })
}

/// The whole answer to a well-formed question, head and framing included.
async fn answer(upstream: &Upstream, question: &Value) -> Result<String> {
    let mut text = String::new();
    ask(upstream, question).await?.read_to_string(&mut text).await?;
    Ok(text)
}

/// The body of an answer in chunks, and whether the last chunk came.
fn unchunk(answer: &str) -> (String, bool) {
    let (_, mut rest) = answer.rsplit_once("set-cookie: session=sandbox\r\n\r\n").expect("a head");
    let mut body = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("a size");
        if size == 0 {
            return (body, true);
        }
        body += &after[..size];
        rest = after[size..].strip_prefix("\r\n").expect("a chunk's end");
    }
    (body, false)
}

/// The JSON of every event, `[DONE]` left out.
fn chunks(body: &str) -> Vec<Value> {
    let data =
        body.split_inclusive("\n\n").map(|event| event.strip_prefix("data: ").expect("data"));
    data.filter(|data| !data.starts_with("[DONE]"))
        .map(|data| serde_json::from_str(data).expect("JSON"))
        .collect()
}

const BEARER: &str = "authorization: Bearer sk-sandbox-upstream\r\n";
