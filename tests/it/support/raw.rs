//! A client that decides about every byte: what it sends, when it stops reading, how it leaves.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::within;

pub(crate) struct Raw {
    stream: TcpStream,
    /// Read from the connection and not yet asked for.
    read: Vec<u8>,
}

/// The head of an answer.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    /// As it came, with the empty line that ends it.
    pub(crate) text: String,
    pub(crate) status: u16,
}

/// A body as it came in chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chunked {
    pub(crate) bytes: Vec<u8>,
    /// Whether the chunk of length 0 that says "this was all" came.
    pub(crate) complete: bool,
    /// The lines between that chunk and the empty one, as they came.
    pub(crate) trailers: String,
}

impl Raw {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).await.unwrap()
    }

    pub(crate) async fn try_connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, read: Vec::new() })
    }

    /// The same with so small a buffer that the other side notices soon when nothing is read.
    pub(crate) async fn connect_narrowly(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(16 << 10).unwrap();
        let stream = socket.connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, read: Vec::new() }
    }

    /// What the other side has closed already shows when it is read from.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        drop(self.stream.write_all(bytes.as_ref()).await);
    }

    /// A POST with a JSON body. `lines` are header lines, each ended by CR LF.
    pub(crate) async fn post(&mut self, path: &str, lines: &str, body: &str) {
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: nutgate\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n{lines}\r\n"
        );
        self.send(head + body).await;
    }

    /// The head of the next answer, informational ones too.
    pub(crate) async fn head(&mut self) -> Head {
        self.try_head().await.expect("the connection ended before the head was whole")
    }

    /// `None` when the connection ends first.
    pub(crate) async fn try_head(&mut self) -> Option<Head> {
        let text = self.through("\r\n\r\n").await?;
        let status = text.split(' ').nth(1)?.get(..3)?.parse().ok()?;
        Some(Head { text, status })
    }

    /// Reads up to and with `end`. `None` when the connection ends first; what came by then can
    /// still be read.
    pub(crate) async fn through(&mut self, end: &str) -> Option<String> {
        let mut from = 0;
        loop {
            let found =
                self.read[from..].windows(end.len()).position(|window| window == end.as_bytes());
            if let Some(at) = found {
                let rest = self.read.split_off(from + at + end.len());
                let text = std::mem::replace(&mut self.read, rest);
                return Some(String::from_utf8(text).unwrap());
            }
            from = self.read.len().saturating_sub(end.len());
            if !self.more().await {
                return None;
            }
        }
    }

    pub(crate) async fn exactly(&mut self, length: usize) -> Vec<u8> {
        while self.read.len() < length {
            assert!(self.more().await, "{} of {length} bytes came", self.read.len());
        }
        let rest = self.read.split_off(length);
        std::mem::replace(&mut self.read, rest)
    }

    /// What has come, at most so many bytes; nothing at the end of the connection.
    pub(crate) async fn some(&mut self, most: usize) -> Vec<u8> {
        self.read.reserve(most);
        if self.read.is_empty() {
            self.more().await;
        }
        let rest = self.read.split_off(most.min(self.read.len()));
        std::mem::replace(&mut self.read, rest)
    }

    /// The body that `head` announces with `Content-Length`.
    pub(crate) async fn body(&mut self, head: &Head) -> Vec<u8> {
        let length = head.header("content-length").expect("a length").parse().unwrap();
        self.exactly(length).await
    }

    /// A chunked body, however far it comes.
    pub(crate) async fn chunked(&mut self) -> Chunked {
        let mut bytes = Vec::new();
        loop {
            let Some(line) = self.through("\r\n").await else {
                return Chunked { bytes, complete: false, trailers: String::new() };
            };
            let size = usize::from_str_radix(line.trim_end(), 16).expect("a chunk's size");
            if size == 0 {
                let trailers = self.trailers().await;
                let complete = trailers.is_some();
                return Chunked { bytes, complete, trailers: trailers.unwrap_or_default() };
            }
            while self.read.len() < size + 2 {
                if !self.more().await {
                    bytes.append(&mut self.read);
                    return Chunked { bytes, complete: false, trailers: String::new() };
                }
            }
            let chunk = self.exactly(size + 2).await;
            assert!(chunk.ends_with(b"\r\n"), "a chunk ends with CR LF");
            bytes.extend_from_slice(&chunk[..size]);
        }
    }

    async fn trailers(&mut self) -> Option<String> {
        let mut lines = String::new();
        loop {
            match &*self.through("\r\n").await? {
                "\r\n" => return Some(lines),
                line => lines.push_str(line),
            }
        }
    }

    /// Everything until the connection ends.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.read)
    }

    /// Says that nothing more will be sent; what the other side says can still be read.
    pub(crate) async fn finish(&mut self) {
        drop(self.stream.shutdown().await);
    }

    /// Closes at once and without a goodbye: the other side sees a reset.
    pub(crate) fn reset(self) {
        self.stream.set_zero_linger().unwrap();
    }

    /// False at the end of the connection, however it came.
    async fn more(&mut self) -> bool {
        let read = within("something to read", self.stream.read_buf(&mut self.read)).await;
        read.is_ok_and(|bytes| bytes > 0)
    }
}

impl Head {
    /// The first header of this name, in any letter case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.text.lines().skip(1).find_map(|line| {
            let (seen, value) = line.split_once(':')?;
            seen.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
}
