//! The secret of a webhook: what it may be, how it signs, and how it is kept.
//!
//! One key signs both forms. Where the secret is written as Standard Webhooks has it, `whsec_` and
//! base64, the key is what the base64 stands for; any other secret is the key byte by byte.

use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use base64::engine::{DecodePaddingMode, Engine as _};
use ring::hmac;

use crate::seal::Seal;
use crate::store::StoreError;

/// As its owner writes it. Nothing prints it.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookSecret(String);

impl WebhookSecret {
    /// # Errors
    /// It is none, in words for its owner that do not repeat it.
    pub fn given(text: String) -> Result<Self, String> {
        let bytes = match text.strip_prefix(PREFIX) {
            None => text.len(),
            Some(encoded) => {
                let decoded = LENIENT.decode(encoded);
                decoded.map_err(|_| "must be base64 behind `whsec_`".to_owned())?.len()
            }
        };
        if bytes < KEY_BYTES_MIN || text.len() > SECRET_BYTES_MAX {
            return Err(format!("must be from {KEY_BYTES_MIN} to {SECRET_BYTES_MAX} bytes"));
        }
        Ok(Self(text))
    }

    /// As Standard Webhooks recommends it, of 256 random bits.
    ///
    /// # Errors
    /// The machine has no random bits to give.
    pub(super) fn fresh() -> Result<Self, getrandom::Error> {
        let mut bits = [0; 32];
        getrandom::fill(&mut bits)?;
        Ok(Self(format!("{PREFIX}{}", STANDARD.encode(bits))))
    }

    /// The secret itself, for the one answer that shows it to who registers.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// As it is kept, for this webhook alone.
    ///
    /// # Errors
    /// The machine has no random bits to give.
    pub(super) fn sealed(&self, seal: &Seal, webhook: &str) -> Result<Vec<u8>, String> {
        seal.seal(webhook, self.0.as_bytes()).ok_or_else(|| "no random bits".to_owned())
    }

    /// # Errors
    /// It was sealed by another seed, for another webhook, or was changed.
    pub(super) fn opened(seal: &Seal, webhook: &str, sealed: &[u8]) -> Result<Self, StoreError> {
        let text = seal.open(webhook, sealed).and_then(|text| String::from_utf8(text).ok());
        text.map(Self)
            .ok_or_else(|| StoreError(format!("the secret of {webhook} cannot be opened")))
    }

    /// `X-Webhook-Signature` and `webhook-signature` of a delivery.
    pub(super) fn signatures(&self, event: &str, at_s: u64, body: &str) -> (String, String) {
        let key = match self.0.strip_prefix(PREFIX) {
            Some(encoded) => LENIENT.decode(encoded).unwrap_or_default(),
            None => self.0.clone().into_bytes(),
        };
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
        let of_body = hmac::sign(&key, body.as_bytes());
        let standard = hmac::sign(&key, format!("{event}.{at_s}.{body}").as_bytes());
        (format!("sha256={}", hex::encode(of_body)), format!("v1,{}", STANDARD.encode(standard)))
    }
}

impl std::fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WebhookSecret(redacted)")
    }
}

const PREFIX: &str = "whsec_";

/// With padding or without, as the libraries of the standard read it.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A shorter key could be guessed.
const KEY_BYTES_MIN: usize = 16;
/// As it is written; nobody needs more, and what is longer is refused.
pub(super) const SECRET_BYTES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use standardwebhooks::Webhook;

    use super::*;

    fn given(text: &str) -> Result<WebhookSecret, String> {
        WebhookSecret::given(text.to_owned())
    }

    #[test]
    fn a_secret_has_its_bounds_in_either_form() {
        for (length, fits) in [(15, false), (16, true), (256, true), (257, false)] {
            assert_eq!(given(&"x".repeat(length)).is_ok(), fits, "{length} bytes");
        }
        for (bytes, fits) in [(15, false), (16, true), (186, true), (187, false)] {
            let text = format!("whsec_{}", STANDARD.encode(vec![7; bytes]));
            assert_eq!(given(&text).is_ok(), fits, "{bytes} bytes in base64");
        }
        for wrong in ["whsec_", "whsec_not base64 at all!", "whsec_aGVsbG8gaGVsbG8gaGVsbG8!"] {
            let problem = given(wrong).unwrap_err();
            assert!(!problem.contains("aGVs"), "{problem}");
        }
        let [bare, padded] = ["", "=="].map(|end| given(&format!("whsec_{}{end}", "A".repeat(22))));
        let signed = |secret: WebhookSecret| secret.signatures("evt_1", 1, "{}");
        assert_eq!(signed(bare.unwrap()), signed(padded.unwrap()));
    }

    /// The library of Standard Webhooks accepts what we sign, in both forms of a secret.
    #[test]
    fn a_delivery_verifies_with_the_library_of_the_standard() {
        let fresh = WebhookSecret::fresh().unwrap();
        let raw = given("a secret of somebody's choice").unwrap();
        let now = crate::clock::UnixMs::now().whole_seconds();
        for (secret, theirs) in [
            (&fresh, Webhook::new(fresh.reveal()).unwrap()),
            (&raw, Webhook::from_bytes(raw.reveal().as_bytes().to_vec()).unwrap()),
        ] {
            let (_, standard) = secret.signatures("evt_1", now, "{\"a\":1}");
            let mut headers = http::HeaderMap::new();
            headers.insert("webhook-id", "evt_1".parse().unwrap());
            headers.insert("webhook-timestamp", now.to_string().parse().unwrap());
            headers.insert("webhook-signature", standard.parse().unwrap());
            theirs.verify(b"{\"a\":1}", &headers).unwrap();
            theirs.verify(b"{\"a\":2}", &headers).unwrap_err();
        }
    }

    /// RFC 4231 has no key of 16 bytes and more with a text that is JSON; this is openssl's.
    #[test]
    fn the_other_signature_is_the_hmac_of_the_body_alone() {
        let secret = given("0123456789abcdef").unwrap();
        let (of_body, _) = secret.signatures("evt_1", 1, "{}");
        let (again, _) = secret.signatures("evt_2", 2, "{}");
        assert_eq!(of_body, again);
        assert_eq!(of_body, format!("sha256={EXPECTED}"));
    }

    #[test]
    fn a_sealed_secret_opens_for_its_webhook_and_seed_alone() {
        let (seal, secret) = (Seal::new(&[1; 32]), WebhookSecret::fresh().unwrap());
        let sealed = secret.sealed(&seal, "one").unwrap();
        assert!(!sealed.windows(8).any(|part| secret.reveal().as_bytes().starts_with(part)));
        assert_eq!(WebhookSecret::opened(&seal, "one", &sealed).unwrap(), secret);
        WebhookSecret::opened(&seal, "two", &sealed).unwrap_err();
        WebhookSecret::opened(&Seal::new(&[2; 32]), "one", &sealed).unwrap_err();
        assert!(!format!("{secret:?}").contains(&secret.reveal()[6..]));
    }

    const EXPECTED: &str = "f91e3e9f05cc2df64ac1c26f8adccdffda8d1e4a7a8c50a1a08eeadac6ddfec5";
}
