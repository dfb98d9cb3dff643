//! The load: a closed loop over keep-alive connections, every answer read to its end.

use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::subject::{KEY, Subject};

#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) name: &'static str,
    pub(crate) connections: usize,
    pub(crate) requests: usize,
    pub(crate) stream: bool,
}

pub(crate) struct Measured {
    pub(crate) cpu_us: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) per_second: f64,
}

/// Drives one subject; any answer but a 200 fails the whole bench.
pub(crate) async fn drive(subject: &Subject, load: Load) -> Result<Measured, String> {
    let each = load.requests / load.connections;
    let mut tasks = JoinSet::new();
    let before = subject.cpu_us()?;
    let started = Instant::now();
    for _ in 0..load.connections {
        tasks.spawn(connection(subject.address.to_string(), each, load.stream));
    }
    let mut latencies = Vec::with_capacity(load.requests);
    while let Some(done) = tasks.join_next().await {
        latencies.extend(done.map_err(|error| error.to_string())??);
    }
    let elapsed = started.elapsed().as_secs_f64();
    let cpu = subject.cpu_us()? - before;
    latencies.sort_by(f64::total_cmp);
    let at = |per_cent: usize| latencies[(latencies.len() - 1) * per_cent / 100];
    let served = f64::from(u32::try_from(latencies.len()).unwrap_or(u32::MAX));
    Ok(Measured {
        cpu_us: cpu / served,
        p50_us: at(50),
        p99_us: at(99),
        per_second: served / elapsed,
    })
}

async fn connection(address: String, requests: usize, stream: bool) -> Result<Vec<f64>, String> {
    let mut socket = TcpStream::connect(&address).await.map_err(|error| error.to_string())?;
    socket.set_nodelay(true).map_err(|error| error.to_string())?;
    let request = request(&address, stream);
    let mut buffer = Vec::with_capacity(64 * 1024);
    let mut latencies = Vec::with_capacity(requests);
    for _ in 0..requests {
        let sent = Instant::now();
        socket.write_all(&request).await.map_err(|error| error.to_string())?;
        buffer.clear();
        while !is_complete(&buffer) {
            let read = socket.read_buf(&mut buffer).await.map_err(|error| error.to_string())?;
            if read == 0 {
                return Err(format!("{address} closed the connection"));
            }
        }
        latencies.push(sent.elapsed().as_secs_f64() * 1e6);
        if !buffer.starts_with(b"HTTP/1.1 200") {
            return Err(String::from_utf8_lossy(&buffer).into_owned());
        }
    }
    Ok(latencies)
}

/// A request of about 1 KB.
fn request(address: &str, stream: bool) -> Vec<u8> {
    let body = format!(
        r#"{{"model":"bench","stream":{stream},"max_tokens":150,"messages":[{{"role":"user","content":"{}"}}]}}"#,
        "a question ".repeat(85)
    );
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {KEY}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn is_complete(buffer: &[u8]) -> bool {
    let Some(head) = buffer.windows(4).position(|window| window == b"\r\n\r\n") else {
        return false;
    };
    let (head, body) = buffer.split_at(head + 4);
    let text = String::from_utf8_lossy(head).to_ascii_lowercase();
    match text.split("content-length:").nth(1) {
        Some(rest) => {
            let length = rest.lines().next().and_then(|line| line.trim().parse::<usize>().ok());
            length.is_some_and(|length| body.len() >= length)
        }
        None => body.ends_with(b"0\r\n\r\n"),
    }
}
