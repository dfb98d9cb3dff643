//! Which accounts have changed in this process, for whoever listens for some of them.
//!
//! Only a hint, so that a reader of their histories need not wait for its next look: what another
//! gateway did, or this one before it died, is found by looking. Telling costs a request one look
//! into a set; accounts that nobody listens for are passed over.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use crate::ids::AccountId;

/// A clone is the same news.
#[derive(Clone, Debug, Default)]
pub struct News(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    listened: ArcSwap<HashSet<AccountId>>,
    /// Of those listened for, so bounded by them.
    changed: Mutex<HashSet<AccountId>>,
    told: Notify,
}

impl News {
    /// These accounts are listened for from now on, and no others.
    pub fn listen(&self, accounts: HashSet<AccountId>) {
        self.0.listened.store(Arc::new(accounts));
    }

    /// This one is listened for as well.
    pub fn listen_too(&self, account: &AccountId) {
        self.0.listened.rcu(|listened| {
            let mut more = HashSet::clone(listened);
            more.insert(account.clone());
            more
        });
    }

    /// Something came in, went out or was charged.
    pub fn changed(&self, account: &AccountId) {
        if self.0.listened.load().contains(account) {
            self.0.changed.lock().unwrap_or_else(PoisonError::into_inner).insert(account.clone());
            self.0.told.notify_one();
        }
    }

    /// Wakes when one has changed since [`News::take`]; for one listener.
    pub async fn told(&self) {
        self.0.told.notified().await;
    }

    /// Those that have changed, once.
    pub fn take(&self) -> HashSet<AccountId> {
        std::mem::take(&mut *self.0.changed.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_who_is_listened_for_is_told_of_and_once() {
        let (news, [one, other]) = (News::default(), ["one", "other"].map(AccountId::stored));
        news.changed(&one);
        assert!(news.take().is_empty());
        news.listen_too(&one);
        news.changed(&one);
        news.changed(&one);
        news.changed(&other);
        news.told().await;
        assert_eq!(news.take(), HashSet::from([one.clone()]));
        assert!(news.take().is_empty());
        news.listen(HashSet::from([other.clone()]));
        news.changed(&one);
        news.changed(&other);
        news.told().await;
        assert_eq!(news.take(), HashSet::from([other]));
    }
}
