//! Keeping text unreadable in a store: sealed by a key that the store does not have, and bound to
//! its place there, so that moved to another one it opens no more (AES-256-GCM).

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

/// One key, for any number of texts.
pub struct Seal(LessSafeKey);

impl Seal {
    pub fn new(key: &[u8; 32]) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, key).expect("a key of AES-256 has 32 bytes");
        Self(LessSafeKey::new(key))
    }

    /// `None`: the machine has no random bits to give.
    pub fn seal(&self, place: &str, text: &[u8]) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).ok()?;
        let mut sealed = text.to_vec();
        let unique = Nonce::assume_unique_for_key(nonce);
        self.0.seal_in_place_append_tag(unique, Aad::from(place), &mut sealed).ok()?;
        Some([nonce.as_slice(), &sealed].concat())
    }

    /// `None`: it was sealed by another key, for another place, or was changed.
    pub fn open(&self, place: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut opened = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let text = self.0.open_in_place(nonce, Aad::from(place), &mut opened).ok()?.len();
        opened.truncate(text);
        Some(opened)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_key_opens_it_and_only_in_its_place_and_unchanged() {
        let seal = Seal::new(&[7; 32]);
        for text in [b"".as_slice(), b"a secret"] {
            let sealed = seal.seal("here", text).unwrap();
            assert_eq!(seal.open("here", &sealed).as_deref(), Some(text));
            assert_ne!(seal.seal("here", text).unwrap(), sealed, "no nonce is used twice");
            assert_eq!(seal.open("there", &sealed), None);
            assert_eq!(Seal::new(&[8; 32]).open("here", &sealed), None);
            for nth in 0..sealed.len() {
                let mut changed = sealed.clone();
                changed[nth] ^= 1;
                assert_eq!(seal.open("here", &changed), None, "byte {nth}");
                assert_eq!(seal.open("here", &sealed[..nth]), None, "cut at {nth}");
            }
        }
    }
}
