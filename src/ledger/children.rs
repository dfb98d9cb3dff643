//! Child keys: how they are opened, listed, reset and revoked. Whatever is done to one is done in
//! the name of its parent, and to no child but the parent's own.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]

use super::Account;
use super::book::Book;
use super::terms::{REVOKED, Terms};
use crate::clock::UnixMs;
use crate::ids::AccountId;
use crate::money::Msat;

/// Keys to be that spend their parent's money, each under the same terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Children {
    pub parent: AccountId,
    /// In the parent's shard.
    pub accounts: Vec<AccountId>,
    pub terms: Terms,
}

/// Why no child was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotOpened {
    /// No such parent, or one that is a child itself.
    NoParent,
    /// The parent may have this many more.
    TooMany { left: u64 },
}

/// What a parent may do to a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// What was spent so far counts against the cap no more; what is held still does.
    ResetCap,
    /// It is not valid any more and never will be again. What it has open ends as it would have.
    Revoke,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Amendment {
    pub parent: AccountId,
    pub child: AccountId,
    pub change: Change,
}

/// An account and who belongs to it, at one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Family {
    pub account: Account,
    /// Of a child: who pays.
    pub parent: Option<Account>,
    /// In the order of their ids, without those that were revoked.
    pub children: Vec<(AccountId, Account)>,
}

impl Family {
    pub(super) fn alone(account: Account) -> Self {
        Self { account, parent: None, children: Vec::new() }
    }
}

impl Account {
    /// What the key's cap leaves. `None`: it has no cap.
    pub fn left_under_cap(&self, now: UnixMs) -> Option<Msat> {
        let cap = self.terms.cap?;
        Some(cap.amount.saturating_sub(self.usage.under_cap(self.terms.period(now))))
    }
}

impl Book {
    /// Opens children, all of them or none; an account that exists stays as it is. Answers the
    /// parent.
    pub fn open_children(&mut self, children: &Children) -> Result<Account, NotOpened> {
        let parent = self.accounts.get(&children.parent).filter(|parent| parent.parent.is_none());
        let parent = parent.cloned().ok_or(NotOpened::NoParent)?;
        let fresh = children.accounts.iter().filter(|id| !self.accounts.contains_key(*id));
        let fresh: Vec<AccountId> = fresh.cloned().collect();
        let left = CHILDREN_MAX.saturating_sub(self.children(&children.parent).len());
        if fresh.len() > left {
            return Err(NotOpened::TooMany { left: u64::try_from(left).unwrap_or(u64::MAX) });
        }
        for id in fresh {
            let account = Account {
                parent: Some(children.parent.clone()),
                terms: children.terms.clone(),
                ..Account::default()
            };
            self.put(&id, account);
        }
        Ok(parent)
    }

    /// Changes a child. `None`: this parent has no such child.
    pub fn amend(&mut self, amendment: &Amendment) -> Option<Account> {
        let Amendment { parent, child, change } = amendment;
        let known = self.accounts.get(child)?;
        if known.parent.as_ref() != Some(parent) {
            return None;
        }
        match change {
            Change::ResetCap if known.terms.is_revoked() => return None,
            Change::ResetCap => {
                self.on(child, |child| child.usage.spent_before = child.usage.spent);
            }
            Change::Revoke => self.on(child, |child| child.terms.expires = Some(REVOKED)),
        }
        self.accounts.get(child).cloned()
    }

    /// An account and its family.
    pub fn family(&self, of: &AccountId) -> Option<Family> {
        let children: Vec<AccountId> = self.children(of);
        self.family_of(of, &children)
    }

    /// The same where it is known who its children are: a book may have many accounts.
    pub(super) fn family_of(&self, of: &AccountId, children: &[AccountId]) -> Option<Family> {
        let account = self.accounts.get(of)?.clone();
        let parent = account.parent.as_ref().and_then(|parent| self.accounts.get(parent)).cloned();
        let children =
            children.iter().filter_map(|id| Some((id.clone(), self.account(id)?.clone())));
        Some(Family { account, parent, children: children.collect() })
    }

    /// Not those that were revoked; in the order of their ids.
    fn children(&self, of: &AccountId) -> Vec<AccountId> {
        let children = self.accounts.iter().filter(|(_, account)| {
            account.parent.as_ref() == Some(of) && !account.terms.is_revoked()
        });
        let mut children: Vec<AccountId> = children.map(|(id, _)| id.clone()).collect();
        children.sort();
        children
    }
}

/// Children that a parent has at a time; one that is revoked makes room for another. So one look
/// at a family stays small.
pub const CHILDREN_MAX: usize = 200;

#[cfg(test)]
#[path = "children_tests.rs"]
pub(super) mod tests;
