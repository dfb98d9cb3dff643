//! Trailers: header fields after a body.
//!
//! Pingora writes them on HTTP/2 and drops them on HTTP/1.1. There the fields stand between the
//! last chunk, which has no bytes, and the empty line (RFC 9112 section 7.1.2). So the public
//! listener puts a [`Trailing`] around every HTTP/1.1 connection; told to, it writes the fields
//! into the last chunk as that passes. Framing, timeouts and reuse of the connection remain
//! Pingora's.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::{SslDigest, TlsRef};
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    Stream, TimingDigest, UniqueID, UniqueIDType,
};
use pingora::proxy::Session;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::api::HeaderList;

/// Ends the body of an answer with these fields after it. Where that cannot be, in a body that is
/// not in chunks, it ends without them.
pub(super) async fn end_with(session: &mut Session, fields: HeaderList) -> pingora::Result<()> {
    if session.is_http2() {
        let fields: HeaderMap = fields.into_iter().collect();
        return session.as_downstream_mut().write_response_trailers(fields).await;
    }
    arm(session, Some(last_chunk(&fields)));
    let ended = session.write_response_body(None, true).await;
    // Nothing of it may be left for the next answer on this connection.
    arm(session, None);
    ended
}

fn arm(session: &Session, last: Option<Bytes>) {
    let stream = session.as_downstream().stream();
    if let Some(trailing) = stream.and_then(|stream| stream.as_any().downcast_ref::<Trailing>()) {
        *trailing.last.lock().unwrap_or_else(PoisonError::into_inner) = last;
    }
}

/// The last chunk with these fields. A [`http::HeaderValue`] holds no line break.
fn last_chunk(fields: &HeaderList) -> Bytes {
    let mut chunk = BytesMut::from(&b"0\r\n"[..]);
    for (name, value) in fields {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            chunk.extend_from_slice(part);
        }
    }
    chunk.extend_from_slice(b"\r\n");
    chunk.freeze()
}

/// What ends a body in chunks; Pingora writes it in one piece and by itself.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// An HTTP/1.1 connection whose next last chunk can be given trailers.
pub(super) struct Trailing {
    stream: Stream,
    /// What is written instead of the next [`LAST_CHUNK`].
    last: Mutex<Option<Bytes>>,
}

impl Trailing {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, last: Mutex::default() }
    }

    fn stream(self: Pin<&mut Self>) -> Pin<&mut Stream> {
        Pin::new(&mut self.get_mut().stream)
    }
}

impl AsyncWrite for Trailing {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self { stream, last } = self.get_mut();
        let mut stream = Pin::new(stream);
        let last = last.get_mut().unwrap_or_else(PoisonError::into_inner);
        let Some(instead) = last.as_mut().filter(|_| bytes == LAST_CHUNK) else {
            return stream.poll_write(cx, bytes);
        };
        // Written as a whole before the caller hears of it: it never comes back with a part.
        while !instead.is_empty() {
            match ready!(stream.as_mut().poll_write(cx, instead))? {
                0 => return Poll::Ready(Ok(0)),
                written => instead.advance(written),
            }
        }
        *last = None;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

impl AsyncRead for Trailing {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream().poll_read(cx, into)
    }
}

impl fmt::Debug for Trailing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Trailing").field(&self.stream).finish()
    }
}

#[async_trait]
impl Shutdown for Trailing {
    async fn shutdown(&mut self) {
        self.stream.shutdown().await;
    }
}

#[async_trait]
impl Peek for Trailing {
    async fn try_peek(&mut self, into: &mut [u8]) -> io::Result<bool> {
        self.stream.try_peek(into).await
    }
}

impl UniqueID for Trailing {
    fn id(&self) -> UniqueIDType {
        self.stream.id()
    }
}

impl Ssl for Trailing {
    fn get_ssl(&self) -> Option<&TlsRef> {
        self.stream.get_ssl()
    }

    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.stream.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.stream.selected_alpn_proto()
    }
}

impl GetTimingDigest for Trailing {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.stream.get_timing_digest()
    }

    fn get_read_pending_time(&self) -> std::time::Duration {
        self.stream.get_read_pending_time()
    }

    fn get_write_pending_time(&self) -> std::time::Duration {
        self.stream.get_write_pending_time()
    }
}

impl GetProxyDigest for Trailing {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.stream.get_proxy_digest()
    }

    fn set_proxy_digest(&mut self, digest: ProxyDigest) {
        self.stream.set_proxy_digest(digest);
    }
}

impl GetSocketDigest for Trailing {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.stream.get_socket_digest()
    }

    fn set_socket_digest(&mut self, digest: SocketDigest) {
        self.stream.set_socket_digest(digest);
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// What arrives of these writes, through a pipe of so few bytes, if fields are set before the
    /// one of that number.
    async fn arrives(pipe_bytes: usize, writes: &[&[u8]], fields_at: usize) -> String {
        let (near, mut far) = tokio::io::duplex(pipe_bytes);
        let mut trailing = Trailing::new(Box::new(near));
        let write = async {
            for (nth, bytes) in writes.iter().enumerate() {
                if nth == fields_at {
                    let field = (HeaderName::from_static("x-a"), HeaderValue::from_static("b"));
                    *trailing.last.lock().unwrap() = Some(last_chunk(&vec![field]));
                }
                trailing.write_all(bytes).await.unwrap();
            }
            drop(trailing);
        };
        let mut text = String::new();
        let (read, ()) = tokio::join!(far.read_to_string(&mut text), write);
        read.unwrap();
        text
    }

    #[tokio::test]
    async fn fields_stand_in_the_next_last_chunk_and_in_no_other_however_slowly_it_leaves() {
        let writes: [&[u8]; 4] = [b"2\r\nab\r\n", LAST_CHUNK, b"next", LAST_CHUNK];
        for pipe_bytes in [1, 3, 4096] {
            let first = arrives(pipe_bytes, &writes, 0).await;
            assert_eq!(first, "2\r\nab\r\n0\r\nx-a: b\r\n\r\nnext0\r\n\r\n");
            let second = arrives(pipe_bytes, &writes, 2).await;
            assert_eq!(second, "2\r\nab\r\n0\r\n\r\nnext0\r\nx-a: b\r\n\r\n");
            let none = arrives(pipe_bytes, &writes, 9).await;
            assert_eq!(none, "2\r\nab\r\n0\r\n\r\nnext0\r\n\r\n");
        }
    }
}
