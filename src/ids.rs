//! Names of things. An id is made by its caller before the first write, so that a repeated
//! command is recognised; none of them is a secret.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A bearer secret: `sk-` and 32 characters. Nothing prints it; only its hash is kept.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

impl ApiKey {
    /// A key as the credential filter passed it: already in its 35 character form.
    pub fn presented(canonical: &str) -> Self {
        Self(canonical.to_owned())
    }

    /// The key that belongs to a Cashu token: `sk-` and the first 32 hex digits of the SHA-256
    /// of the exact string. Deterministic, so that repeating `create` after a lost answer
    /// names the same account.
    pub fn of_cashu_token(cashu_token: &str) -> Self {
        let digest = hex::encode(Sha256::digest(cashu_token.as_bytes()));
        Self(format!("sk-{}", digest.split_at(KEY_DIGITS).0))
    }

    pub fn account(&self) -> AccountId {
        AccountId(hex::encode(Sha256::digest(self.0.as_bytes())))
    }

    /// The secret itself, for the one answer that hands it to the caller who presented it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(redacted)")
    }
}

/// An account: the SHA-256 of its key, in hex. Looked up as a whole, so no comparison of a
/// secret ever leaks its prefix.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AccountId(String);

/// A reservation: a UUIDv7, so that rows arrive in order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReservationId(String);

/// A redemption, and the deposit it becomes: a hash of the exact Cashu token, another one than
/// the account's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DepositId(String);

/// A withdrawal: the account and its sequence number, so that two simultaneous refunds of one
/// account are one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WithdrawalId(String);

impl ReservationId {
    pub fn fresh() -> Self {
        Self(uuid::Uuid::now_v7().simple().to_string())
    }
}

impl DepositId {
    pub fn of_cashu_token(cashu_token: &str) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(b"nutgate deposit:");
        hasher.update(cashu_token.as_bytes());
        Self(hex::encode(hasher.finalize()))
    }
}

impl WithdrawalId {
    pub fn nth(account: &AccountId, sequence: u64) -> Self {
        let digest = Sha256::digest(format!("nutgate withdrawal:{account}:{sequence}").as_bytes());
        Self(hex::encode(digest))
    }
}

/// The request id of a client that sent none.
pub fn fresh_request_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

macro_rules! stored_as_text {
    ($($id:ident),*) => {$(
        impl $id {
            /// An id read back from a row or an argument; nothing is checked, it only has to match.
            pub fn stored(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

stored_as_text!(AccountId, ReservationId, DepositId, WithdrawalId);

const KEY_DIGITS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_derived_from_a_token_is_the_start_of_its_sha256() {
        let key = ApiKey::of_cashu_token("cashuBabc");
        let digest = hex::encode(Sha256::digest(b"cashuBabc"));
        assert_eq!(key.reveal(), format!("sk-{}", &digest[..32]));
        assert_eq!(key.account(), ApiKey::presented(key.reveal()).account());
    }

    #[test]
    fn nothing_prints_a_key() {
        let key = ApiKey::of_cashu_token("cashuBabc");
        assert!(!format!("{key:?}").contains(&key.reveal()[3..]));
    }

    #[test]
    fn ids_of_one_token_do_not_reveal_each_other() {
        let key = ApiKey::of_cashu_token("cashuBabc");
        let deposit = DepositId::of_cashu_token("cashuBabc");
        assert!(!deposit.as_str().contains(&key.reveal()[3..]));
        assert_ne!(deposit.as_str(), key.account().as_str());
    }
}
