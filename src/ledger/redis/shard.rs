//! The names of the keys, and which of them are in one slot.

use crate::ids::{AccountId, OnceId, ReservationId};

/// The keys that one slot holds together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shard {
    pub(super) tag: String,
}

impl Shard {
    pub(super) fn of(account: &AccountId) -> Self {
        Self { tag: account.shard().to_owned() }
    }

    pub(super) fn all() -> impl Iterator<Item = Self> {
        (0..=u8::MAX).map(|shard| Self { tag: format!("{shard:02x}") })
    }

    /// The shard, kind and id that a key names.
    pub(super) fn of_key(key: &str) -> Option<(Self, &str, &str)> {
        let (tag, rest) = key.strip_prefix("ng:{")?.split_once("}:")?;
        let (kind, id) = rest.split_once(':')?;
        Some((Self { tag: tag.to_owned() }, kind, id))
    }

    fn key(&self, rest: &str) -> String {
        format!("ng:{{{}}}:{rest}", self.tag)
    }

    /// What the keys of this shard begin with, for scripts that make up the rest.
    pub(super) fn prefix(&self) -> String {
        self.key("")
    }

    pub(super) fn accounts(&self) -> String {
        self.key("a:")
    }

    pub(super) fn account(&self, id: &AccountId) -> String {
        self.key(&format!("a:{id}"))
    }

    pub(super) fn reservations(&self) -> String {
        self.key("r:")
    }

    pub(super) fn reservation(&self, id: &ReservationId) -> String {
        self.key(&format!("r:{id}"))
    }

    pub(super) fn due(&self) -> String {
        self.key("due")
    }

    pub(super) fn withdrawals(&self, id: &AccountId) -> String {
        self.key(&format!("w:{id}"))
    }

    pub(super) fn children(&self, id: &AccountId) -> String {
        self.key(&format!("c:{id}"))
    }

    pub(super) fn history(&self, id: &AccountId) -> String {
        self.key(&format!("h:{id}"))
    }

    pub(super) fn once(&self, id: &OnceId) -> String {
        self.key(&format!("o:{id}"))
    }

    pub(super) fn kept(&self, id: &AccountId) -> String {
        self.key(&format!("k:{id}"))
    }

    pub(super) fn begun(&self) -> String {
        self.key("begun")
    }
}
