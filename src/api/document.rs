//! Answers that are the same for everybody as long as the process runs: documents and the pages
//! that show them.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use sha2::{Digest, Sha256};

/// One text, and how it is answered.
#[derive(Clone, Debug)]
pub(super) struct Document {
    pub(super) content_type: &'static str,
    /// What a browser may load for it.
    pub(super) policy: Option<&'static str>,
    /// Names this version of the text.
    pub(super) tag: HeaderValue,
    pub(super) text: Bytes,
}

impl Document {
    /// The text, or that the client has it already.
    pub(super) fn answer(&self, request: &HeaderMap) -> Response {
        let has_it = request.get_all(IF_NONE_MATCH).iter().any(|value| {
            let tags = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
            // A weak tag is as good: whoever compresses the text in between makes it one.
            tags.map(|tag| tag.strip_prefix(b"W/").unwrap_or(tag))
                .any(|tag| tag == b"*" || tag == self.tag.as_bytes())
        });
        let mut response = match has_it {
            true => StatusCode::NOT_MODIFIED.into_response(),
            false => Body::from(self.text.clone()).into_response(),
        };
        let headers = response.headers_mut();
        headers.insert(ETAG, self.tag.clone());
        // May be kept, and is asked for again before it is used: a new version may run by then.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        headers.insert(
            CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(self.policy.unwrap_or(NOTHING)),
        );
        if !has_it {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        }
        response
    }
}

/// The tag of a text: by its hash, so that all gateways of a fleet agree.
pub(super) fn tagged(text: &[u8]) -> HeaderValue {
    let digest = hex::encode(Sha256::digest(text));
    let tag = format!("\"{}\"", digest.get(..TAG_DIGITS).unwrap_or(&digest));
    HeaderValue::from_str(&tag).unwrap_or(HeaderValue::from_static("\"\""))
}

const TAG_DIGITS: usize = 32;

/// What is no page loads nothing.
const NOTHING: &str = "default-src 'none'; frame-ancestors 'none'";
