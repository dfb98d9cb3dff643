//! A client's `Idempotency-Key`: what it names, and how the answers are sealed that are kept under
//! it.
//!
//! An answer is the client's and nobody else's. So it is kept sealed, under a key that is made of
//! the client's credential and of its idempotency key, of which the ledger has hashes only: what is
//! kept is worth nothing to who reads it, and opens for the repetition.

use std::fmt;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};
use ring::hmac;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Kind, Refusal};
use crate::ids::{AccountId, ApiKey, OnceId, WithdrawalId};
use crate::ledger::once::Once;
use crate::seal::Seal;

/// A request that names an idempotency key, and whose it is.
#[derive(Clone)]
pub struct Keyed {
    pub account: AccountId,
    pub once: Once,
    secret: hmac::Key,
    value: String,
}

/// An answer as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    Answer {
        status: u16,
        headers: Vec<(HeaderName, HeaderValue)>,
        body: Bytes,
    },
    /// The refund that was made, which has money in it and is told again from its own rows.
    Refund(WithdrawalId),
}

#[derive(Serialize, Deserialize)]
struct Head {
    status: u16,
    headers: Vec<(String, String)>,
}

impl Keyed {
    pub fn new(key: &ApiKey, value: &str, fingerprint: &str) -> Self {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, key.reveal().as_bytes());
        let hidden = |purpose: &str| hex::encode(derived(&secret, purpose, value));
        let once = Once {
            id: OnceId::stored(hidden("once")),
            fingerprint: hidden(&format!("fingerprint:{fingerprint}")),
        };
        Self { account: key.account(), once, secret, value: value.to_owned() }
    }

    /// 256 bits that only whoever has the credential and the idempotency key can make, other ones
    /// for every purpose.
    pub fn derive(&self, purpose: &str) -> [u8; 32] {
        derived(&self.secret, purpose, &self.value)
    }

    /// `None`: the machine has no random bits to give, so nothing is kept.
    pub fn seal(&self, kept: &Kept) -> Option<Vec<u8>> {
        self.sealing().seal(self.once.id.as_str(), &kept.to_bytes()?)
    }

    /// `None`: it was not sealed by this client under this key.
    pub fn open(&self, sealed: &[u8]) -> Option<Kept> {
        Kept::of_bytes(&self.sealing().open(self.once.id.as_str(), sealed)?)
    }

    fn sealing(&self) -> Seal {
        Seal::new(&self.derive("kept answer"))
    }
}

fn derived(secret: &hmac::Key, purpose: &str, value: &str) -> [u8; 32] {
    let signed = hmac::sign(secret, format!("nutgate {purpose}:{value}").as_bytes());
    let mut bits = [0; 32];
    bits.copy_from_slice(signed.as_ref());
    bits
}

impl fmt::Debug for Keyed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keyed").field(&self.once).finish()
    }
}

impl Kept {
    /// The head as a line of JSON, and behind it the body; or the refund's id, which is none.
    fn to_bytes(&self) -> Option<Vec<u8>> {
        let (status, headers, body) = match self {
            Self::Answer { status, headers, body } => (status, headers, body),
            Self::Refund(id) => return Some(id.as_str().as_bytes().to_vec()),
        };
        let text = |(name, value): &(HeaderName, HeaderValue)| {
            Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
        };
        let headers = headers.iter().filter_map(text).collect();
        let head = serde_json::to_vec(&Head { status: *status, headers }).ok()?;
        Some([&head, b"\n".as_slice(), body].concat())
    }

    fn of_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.first() != Some(&b'{') {
            let id = std::str::from_utf8(bytes).ok()?;
            return Some(Self::Refund(WithdrawalId::stored(id)));
        }
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        let (head, body) = bytes.split_at_checked(end)?;
        let Head { status, headers } = serde_json::from_slice(head).ok()?;
        let line =
            |(name, value): (String, String)| Some((name.parse().ok()?, value.parse().ok()?));
        Some(Self::Answer {
            status,
            headers: headers.into_iter().map(line).collect::<Option<_>>()?,
            body: Bytes::copy_from_slice(body.get(1..)?),
        })
    }
}

/// The idempotency key of a request, if it names one.
///
/// # Errors
/// It is none that can be told apart from others for sure.
pub fn value_of(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let shown = match (values.next(), values.next()) {
        (None, _) => return Ok(None),
        (Some(value), None) => value.as_bytes(),
        (Some(_), Some(_)) => b"",
    };
    let is_visible = shown.iter().all(u8::is_ascii_graphic);
    match std::str::from_utf8(shown) {
        Ok(text) if is_visible && (1..=VALUE_BYTES_MAX).contains(&text.len()) => Ok(Some(text)),
        _ => Err(Refusal::field(
            "Idempotency-Key",
            format_args!("must be given once, as 1 to {VALUE_BYTES_MAX} visible ASCII characters"),
        )),
    }
}

/// What a request asks, as a hash. `asks` is everything besides the body: the route under one of
/// its names, and a query that means something.
pub fn fingerprint(asks: &[&str], headers: &HeaderMap, body: &[u8]) -> String {
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let mut hash = Sha256::new();
    let mut take = |part: &[u8]| {
        // With their lengths, so that no two lists of parts are one text.
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    };
    asks.iter().for_each(|part| take(part.as_bytes()));
    take(essence.as_bytes());
    match boundary(given).filter(|_| essence.starts_with("multipart/")) {
        // A client that repeats itself draws another one.
        Some(boundary) => {
            let mut from = 0;
            for at in memchr::memmem::find_iter(body, boundary) {
                take(body.get(from..at).unwrap_or_default());
                from = at.saturating_add(boundary.len());
            }
            take(body.get(from..).unwrap_or_default());
        }
        None => take(body),
    }
    hex::encode(hash.finalize())
}

fn boundary(content_type: &str) -> Option<&[u8]> {
    let mut parameters = content_type.split(';').filter_map(|text| text.split_once('='));
    let is_boundary = |name: &str| name.trim().eq_ignore_ascii_case("boundary");
    let (_, value) = parameters.find(|(name, _)| is_boundary(name))?;
    let value = value.trim().trim_matches('"').as_bytes();
    (!value.is_empty()).then_some(value)
}

pub fn in_flight() -> Refusal {
    let message = "the same request is under way; ask again for its answer";
    Refusal::new(Kind::InvalidRequest, "idempotency_in_flight", message)
        .status(409)
        .retry_after_s(1)
}

pub fn reused() -> Refusal {
    let message = "another request was made under this Idempotency-Key; nothing was charged";
    Refusal::new(Kind::InvalidRequest, "idempotency_key_reuse", message).status(422)
}

pub fn not_replayable() -> Refusal {
    let message = "this request was served and charged once, and its answer is not kept; to make \
                   it again use another Idempotency-Key";
    Refusal::new(Kind::InvalidRequest, "idempotency_not_replayable", message).status(409)
}

pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Says of an answer that it was given before.
pub const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// A longer key is refused, as by others who know this header.
pub const VALUE_BYTES_MAX: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    fn keyed(key: &str, value: &str) -> Keyed {
        Keyed::new(&ApiKey::presented(key), value, "")
    }

    fn answer(body: &'static [u8]) -> Kept {
        let headers = vec![(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        Kept::Answer { status: 200, headers, body: Bytes::from_static(body) }
    }

    #[test]
    fn what_is_kept_opens_for_the_same_client_and_key_and_for_nobody_else() {
        let mine = keyed("sk-1", "a");
        let refund = Kept::Refund(WithdrawalId::stored("ab12"));
        for kept in [answer(b"{\n\"a\":1}"), answer(b""), refund] {
            let sealed = mine.seal(&kept).unwrap();
            assert_eq!(keyed("sk-1", "a").open(&sealed), Some(kept));
            assert_eq!(keyed("sk-2", "a").open(&sealed), None);
            assert_eq!(keyed("sk-1", "b").open(&sealed), None);
        }
        let sealed = mine.seal(&answer(b"a secret of the client's")).unwrap();
        assert!(memchr::memmem::find(&sealed, b"secret").is_none());
        let mut forged = sealed;
        forged[20] ^= 1;
        assert_eq!(mine.open(&forged), None);
        assert_eq!(mine.open(b"short"), None);
    }

    #[test]
    fn nothing_prints_what_a_client_calls_its_requests_or_its_key() {
        let printed = format!("{:?}", keyed("sk-secret", "my-order"));
        assert!(!printed.contains("secret") && !printed.contains("my-order"), "{printed}");
    }

    fn read(values: &[&[u8]]) -> Result<Option<String>, &'static str> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(IDEMPOTENCY_KEY, HeaderValue::from_bytes(value).unwrap());
        }
        let read = value_of(&headers).map(|value| value.map(str::to_owned));
        read.map_err(|refusal| refusal.code())
    }

    #[test]
    fn a_key_is_one_to_255_visible_characters() {
        assert_eq!(read(&[]), Ok(None));
        let longest = "x".repeat(VALUE_BYTES_MAX);
        for fits in ["~", "!", "a-1_B", &longest] {
            assert_eq!(read(&[fits.as_bytes()]), Ok(Some(fits.to_owned())));
        }
        let longer = "x".repeat(VALUE_BYTES_MAX + 1);
        for odd in [b"".as_slice(), b"a b", b"\xc3\xa4", longer.as_bytes()] {
            assert_eq!(read(&[odd]), Err("invalid_value"), "{odd:?}");
        }
        assert_eq!(read(&[b"a", b"a"]), Err("invalid_value"));
    }

    fn print(asks: &[&str], content_type: &str, body: &str) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_str(content_type).unwrap());
        fingerprint(asks, &headers, body.as_bytes())
    }

    #[test]
    fn a_fingerprint_is_of_all_that_is_asked_and_of_nothing_else() {
        let json = "application/json";
        let one = print(&["/a"], json, "{}");
        assert_eq!(one, print(&["/a"], "Application/JSON; charset=utf-8", "{}"));
        for other in [
            print(&["/b"], json, "{}"),
            print(&["/", "a"], json, "{}"),
            print(&["/a"], "text/plain", "{}"),
            print(&["/a"], json, "{} "),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn a_form_is_the_same_under_another_boundary() {
        let form = |boundary: &str, value: &str| {
            let content_type = format!("multipart/form-data; boundary=\"{boundary}\"");
            let body = format!("--{boundary}\r\n\r\n{value}\r\n--{boundary}--\r\n");
            print(&["/a"], &content_type, &body)
        };
        assert_eq!(form("xyz", "1"), form("abcdef", "1"));
        assert_ne!(form("xyz", "1"), form("xyz", "2"));
    }
}
