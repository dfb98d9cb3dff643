//! Just enough HTTP/1.1 to read requests off a connection.

use std::io;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::Instant;

use super::Seen;

/// The next request, or nothing when the client has closed between two of them.
pub(super) async fn read_request(
    reader: &mut BufReader<OwnedReadHalf>,
    writer: &mut OwnedWriteHalf,
) -> io::Result<Option<Seen>> {
    let Some(request_line) = read_line(reader).await? else {
        return Ok(None);
    };
    let mut words = request_line.split(' ');
    let (Some(method), Some(path)) = (words.next(), words.next()) else {
        return Err(malformed("the request line"));
    };
    let mut seen = Seen {
        method: method.to_owned(),
        path: path.to_owned(),
        headers: Vec::new(),
        body: Default::default(),
        at: Instant::now(),
    };
    loop {
        let line = read_line(reader).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| malformed("a header"))?;
        seen.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        if seen.headers.len() > HEADERS_MAX {
            return Err(malformed("the number of headers"));
        }
    }
    if seen.header("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")) {
        writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    seen.body = read_body(reader, &seen).await?.into();
    Ok(Some(seen))
}

pub(super) fn wants_close(seen: &Seen) -> bool {
    seen.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
}

async fn read_body(reader: &mut BufReader<OwnedReadHalf>, seen: &Seen) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if seen.header("transfer-encoding").is_some_and(|value| value.contains("chunked")) {
        loop {
            let line = read_line(reader).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
            let digits = line.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(digits, 16).map_err(|_| malformed("a chunk size"))?;
            if size == 0 {
                break;
            }
            read_exactly(reader, size, &mut body).await?;
            read_line(reader).await?;
        }
        // Trailers, if there are any, end in an empty line like everything else.
        while read_line(reader).await?.is_some_and(|line| !line.is_empty()) {}
    } else if let Some(length) = seen.header("content-length") {
        let length = length.parse().map_err(|_| malformed("the content length"))?;
        read_exactly(reader, length, &mut body).await?;
    }
    Ok(body)
}

async fn read_exactly(
    reader: &mut BufReader<OwnedReadHalf>,
    length: u64,
    body: &mut Vec<u8>,
) -> io::Result<()> {
    if length > BODY_BYTES_MAX {
        return Err(malformed("the length of the body"));
    }
    let read = reader.take(length).read_to_end(body).await?;
    if u64::try_from(read).ok() != Some(length) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

async fn read_line(reader: &mut BufReader<OwnedReadHalf>) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    reader.take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await?;
    match line.strip_suffix(b"\n") {
        None if line.is_empty() => Ok(None),
        None => Err(malformed("a line")),
        Some(line) => {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let text = str::from_utf8(line).map_err(|_| malformed("a line"))?;
            Ok(Some(text.to_owned()))
        }
    }
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what} is not what HTTP allows"))
}

// Beyond these the connection is dropped. They lie above what the gateway itself accepts.
const HEADERS_MAX: usize = 200;
const LINE_BYTES_MAX: u64 = 256 << 10;
const BODY_BYTES_MAX: u64 = 64 << 20;
