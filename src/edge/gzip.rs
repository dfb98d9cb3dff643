//! Compressing bodies that are whole, beside the threads that streams run on.
//!
//! Secrets and what somebody else may choose never meet in one compressed answer where that could
//! tell (BREACH): a credential is in a header that only its owner's page sets, so no other page has
//! a request sent with it; and an answer that repeats a secret repeats nothing else of the request.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, VARY};
use http::{HeaderMap, HeaderValue};
use lua_free_filters::{Coding, coding};
use tokio::sync::Semaphore;

use crate::api::HeaderList;

/// The body as this client takes it, and the lines that its head needs for that. The lines come
/// last into the head: a length in it is no longer true.
pub(super) async fn encoded(
    request: &HeaderMap,
    answer: &HeaderMap,
    body: Bytes,
) -> (HeaderList, Bytes) {
    let coding = coding(request, answer, body.len());
    if coding == Coding::Plain {
        return (HeaderList::new(), body);
    }
    let mut lines = vec![(VARY, HeaderValue::from(ACCEPT_ENCODING))];
    let compressed = match coding {
        Coding::Gzip => compressed(&body).await,
        Coding::Plain | Coding::PlainHere => None,
    };
    match compressed {
        Some(compressed) => {
            lines.push((CONTENT_ENCODING, HeaderValue::from_static("gzip")));
            (lines, compressed)
        }
        None => (lines, body),
    }
}

/// `None` where it would not be shorter, or where enough others are being compressed: to wait for
/// them would cost the client more than the bytes.
async fn compressed(body: &Bytes) -> Option<Bytes> {
    if body.len() <= HERE_BYTES_MAX {
        return gzip(body);
    }
    let _turn = AT_ONCE.try_acquire().ok()?;
    let body = body.clone();
    tokio::task::spawn_blocking(move || gzip(&body)).await.ok()?
}

fn gzip(body: &[u8]) -> Option<Bytes> {
    let room = Vec::with_capacity(body.len() / 2);
    let mut encoder = GzEncoder::new(room, Compression::new(LEVEL));
    encoder.write_all(body).ok()?;
    let compressed = encoder.finish().ok()?;
    (compressed.len() < body.len()).then(|| compressed.into())
}

/// Measured on answers of chats and embeddings: 22 to 40 % of their size, at about 200 MB/s. The
/// first level leaves half as much again, the sixth takes four times as long for a tenth less.
const LEVEL: u32 = 2;

/// So much takes less than a tenth of a millisecond. Longer bodies would hold up the streams that
/// share the thread, and get one of their own.
const HERE_BYTES_MAX: usize = 16 << 10;

/// Longer bodies that are compressed at the same time; those beyond go out as they are.
static AT_ONCE: Semaphore = Semaphore::const_new(AT_ONCE_MAX);
const AT_ONCE_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;
    use http::header::CONTENT_TYPE;

    use super::*;

    /// What a client that accepts gzip gets of so many bytes of text, and whether compressed.
    async fn sent(bytes: usize) -> (Bytes, Bytes, bool) {
        let mut head = HeaderMap::new();
        head.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        head.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        let body: Bytes = b"every satoshi goes ".iter().copied().cycle().take(bytes).collect();
        let (lines, sent) = encoded(&head, &head, body.clone()).await;
        assert_eq!(lines[0], (VARY, HeaderValue::from(ACCEPT_ENCODING)));
        let is_compressed = lines.iter().any(|(name, _)| name == CONTENT_ENCODING);
        (body, sent, is_compressed)
    }

    #[tokio::test]
    async fn a_body_is_the_same_wherever_it_was_compressed() {
        for bytes in [HERE_BYTES_MAX, HERE_BYTES_MAX + 1, 1 << 20] {
            let (body, sent, is_compressed) = sent(bytes).await;
            let mut inflated = Vec::new();
            GzDecoder::new(&*sent).read_to_end(&mut inflated).unwrap();
            assert!(is_compressed && inflated == body, "{bytes}");
        }
    }

    #[tokio::test]
    async fn a_long_body_goes_out_as_it_is_while_enough_others_are_compressed() {
        let others = AT_ONCE.try_acquire_many(AT_ONCE_MAX.try_into().unwrap()).unwrap();
        let (body, plain, is_compressed) = sent(HERE_BYTES_MAX + 1).await;
        assert!(!is_compressed && plain == body);
        assert!(sent(HERE_BYTES_MAX).await.2, "a short one does not wait for them");
        drop(others);
        assert!(sent(HERE_BYTES_MAX + 1).await.2);
    }
}
