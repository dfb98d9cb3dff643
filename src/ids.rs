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

    /// The key that an invoice opens: `sk-` and the first 32 hex digits of the SHA-256 of
    /// `nutgate invoice key:` and the invoice's id. Whoever holds the id can be shown it again;
    /// nobody else can, and it is kept nowhere.
    pub fn of_invoice(invoice: &InvoiceId) -> Self {
        let digest = hashed(b"nutgate invoice key:", invoice.0.as_bytes());
        Self(format!("sk-{}", digest.split_at(KEY_DIGITS).0))
    }

    /// A random key, whose account falls in the shard of `parent`'s: a child is moved together
    /// with its parent. That leaves it 120 bits that nobody can guess.
    ///
    /// # Errors
    /// The machine has no random bits to give.
    pub fn fresh_beside(parent: &AccountId) -> Result<Self, getrandom::Error> {
        Self::beside(parent, |_| {
            let mut bits = [0; 32];
            getrandom::fill(&mut bits)?;
            Ok(bits)
        })
    }

    /// The same of bits that only its parent can make: the first of them that do.
    ///
    /// # Errors
    /// Those of `bits`.
    pub fn beside<E>(
        parent: &AccountId,
        bits: impl Fn(u64) -> Result<[u8; 32], E>,
    ) -> Result<Self, E> {
        let mut nth: u64 = 0;
        loop {
            let digits = hex::encode(bits(nth)?);
            let key = Self(format!("sk-{}", digits.split_at(KEY_DIGITS).0));
            // One in 256 does.
            if key.account().shard() == parent.shard() {
                return Ok(key);
            }
            nth = nth.wrapping_add(1);
        }
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

/// What names an invoice to who asked for it: 64 hex digits that nobody can guess. A bearer
/// secret like a key, because its holder is shown the key that the invoice opens. Nothing prints
/// it; only hashes of it are kept.
#[derive(Clone, PartialEq, Eq)]
pub struct InvoiceId(String);

impl InvoiceId {
    /// 256 random bits.
    ///
    /// # Errors
    /// The machine has no random bits to give.
    pub fn fresh() -> Result<Self, getrandom::Error> {
        let mut bits = [0; INVOICE_BYTES];
        getrandom::fill(&mut bits)?;
        Ok(Self(hex::encode(bits)))
    }

    /// An id as a client shows it, if it can be one.
    pub fn presented(text: &str) -> Option<Self> {
        is_lower_hex(text, INVOICE_BYTES * 2).then(|| Self(text.to_owned()))
    }

    /// The secret itself, for the one answer that hands it to who asked for the invoice.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for InvoiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InvoiceId(redacted)")
    }
}

/// An account: the SHA-256 of its key, in hex. Looked up as a whole, so no comparison of a
/// secret ever leaks its prefix.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AccountId(String);

/// A reservation: a UUIDv7, so that rows arrive in order; or a hash of what a sweep takes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReservationId(String);

/// A redemption, and the deposit it becomes: a hash of the exact Cashu token, or of the invoice's
/// id; another one than the account's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DepositId(String);

/// A payment of an invoice to be made by the wallet: a UUIDv7. The withdrawal that it is made for
/// names it, so that of two plans for one withdrawal one is carried out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PaymentId(String);

/// A withdrawal: the account and its sequence number, so that two simultaneous refunds of one
/// account are one; or the attempt that it is made by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WithdrawalId(String);

/// What an account calls a request that is to be made once: a hash that only the account's owner
/// can make, so that what clients call their requests is nowhere in the ledger.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OnceId(String);

/// One execution of such a request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AttemptId(String);

impl AccountId {
    /// Of no key: to ask a ledger something.
    pub fn nobody() -> Self {
        Self("0".repeat(ACCOUNT_DIGITS))
    }

    /// An account as somebody names it who was told its id.
    pub fn presented(text: &str) -> Option<Self> {
        is_lower_hex(text, ACCOUNT_DIGITS).then(|| Self(text.to_owned()))
    }

    /// What accounts have in common that are kept together.
    pub fn shard(&self) -> &str {
        self.0.get(..SHARD_DIGITS).unwrap_or(&self.0)
    }
}

impl ReservationId {
    pub fn fresh() -> Self {
        Self(uuid::Uuid::now_v7().simple().to_string())
    }

    /// Of what a sweep takes from an account with so many entries: it can be taken once.
    pub fn of_sweep(account: &AccountId, entries: u64) -> Self {
        Self(hashed(b"nutgate sweep:", format!("{account}:{entries}").as_bytes()))
    }
}

impl AttemptId {
    pub fn fresh() -> Self {
        Self(uuid::Uuid::now_v7().simple().to_string())
    }

    /// Of a billable request, which is executed under a reservation.
    pub fn of(reservation: &ReservationId) -> Self {
        Self(reservation.0.clone())
    }
}

impl DepositId {
    pub fn of_cashu_token(cashu_token: &str) -> Self {
        Self(hashed(b"nutgate deposit:", cashu_token.as_bytes()))
    }

    pub fn of_invoice(invoice: &InvoiceId) -> Self {
        Self(hashed(b"nutgate invoice deposit:", invoice.0.as_bytes()))
    }

    /// What comes back of a payment: the unused part of the fee, or all of one that failed.
    pub fn of_payment(payment: &PaymentId) -> Self {
        Self(hashed(b"nutgate payment deposit:", payment.0.as_bytes()))
    }
}

impl PaymentId {
    pub fn fresh() -> Self {
        Self(uuid::Uuid::now_v7().simple().to_string())
    }
}

impl WithdrawalId {
    pub fn nth(account: &AccountId, sequence: u64) -> Self {
        let digest = Sha256::digest(format!("nutgate withdrawal:{account}:{sequence}").as_bytes());
        Self(hex::encode(digest))
    }

    /// Of a refund that is to be made once, whatever other refunds come between.
    pub fn of_attempt(first: &AttemptId) -> Self {
        Self(hashed(b"nutgate withdrawal once:", first.0.as_bytes()))
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

stored_as_text!(AccountId, ReservationId, DepositId, PaymentId, WithdrawalId, OnceId, AttemptId);

fn hashed(domain: &[u8], secret: &[u8]) -> String {
    hex::encode(Sha256::new().chain_update(domain).chain_update(secret).finalize())
}

fn is_lower_hex(text: &str, digits: usize) -> bool {
    let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.len() == digits && text.bytes().all(digit)
}

const KEY_DIGITS: usize = 32;
const ACCOUNT_DIGITS: usize = 64;
const SHARD_DIGITS: usize = 2;
const INVOICE_BYTES: usize = 32;

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

    #[test]
    fn an_invoice_names_its_key_and_its_deposit_and_neither_names_the_other() {
        let invoice = InvoiceId::fresh().unwrap();
        let again = InvoiceId::presented(invoice.reveal()).unwrap();
        let key = ApiKey::of_invoice(&invoice);
        assert_eq!(key, ApiKey::of_invoice(&again));
        let digest = hex::encode(Sha256::digest(format!("nutgate invoice key:{}", again.reveal())));
        assert_eq!(key.reveal(), format!("sk-{}", &digest[..32]));
        let deposit = DepositId::of_invoice(&invoice);
        assert_eq!(deposit, DepositId::of_invoice(&again));
        assert!(!deposit.as_str().contains(&key.reveal()[3..]));
        assert!(!format!("{invoice:?}").contains(invoice.reveal()));
        assert_ne!(invoice, InvoiceId::fresh().unwrap());
    }

    #[test]
    fn a_fresh_key_is_another_each_time_and_falls_in_its_parents_shard() {
        let parent = ApiKey::of_cashu_token("cashuBabc").account();
        let [one, other] = [(); 2].map(|()| ApiKey::fresh_beside(&parent).unwrap());
        assert_ne!(one, other);
        for key in [one, other] {
            assert_eq!(key.account().as_str()[..2], parent.as_str()[..2]);
            assert!(is_lower_hex(key.reveal().strip_prefix("sk-").unwrap(), 32));
        }
    }

    #[test]
    fn what_can_be_no_id_is_none() {
        let id = "0123456789abcdef".repeat(4);
        assert!(InvoiceId::presented(&id).is_some());
        assert_eq!(AccountId::presented(&id), Some(AccountId::stored(&id)));
        for odd in ["", &id[1..], &format!("{id}0"), &id.to_uppercase(), &id.replace('a', "g")] {
            assert_eq!(InvoiceId::presented(odd), None, "{odd}");
            assert_eq!(AccountId::presented(odd), None, "{odd}");
        }
    }
}
