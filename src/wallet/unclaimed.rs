//! Accounts whose change nobody was there to be given: since when, and which of them were swept.
//!
//! A row says how many entries the account's history had when it was written. That number only
//! grows: as long as the account has it still, nothing has happened to the change.

use std::time::Duration;

use super::rows::msat;
use super::{Wallet, WalletError};
use crate::clock::UnixMs;
use crate::ids::AccountId;
use crate::money::Msat;
use crate::store::{Durability, Row, StoreError, Tx, values};

/// Change that was left to be claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unclaimed {
    pub(crate) account: AccountId,
    /// Of the account's history, when it was left.
    pub(crate) entries: u64,
    pub(crate) amount: Msat,
}

impl Wallet {
    /// Left now; what was left with as many entries was left then.
    pub(crate) async fn note_unclaimed(&self, left: Unclaimed) -> Result<(), WalletError> {
        let write = move |tx: &mut Tx<'_>| {
            let sql = "INSERT INTO unclaimed (account, entries, amount_msat, since_ms)
                       VALUES (?1, ?2, ?3, now_ms())
                       ON CONFLICT (account) DO UPDATE SET entries = excluded.entries,
                           amount_msat = excluded.amount_msat, since_ms = excluded.since_ms,
                           swept_ms = NULL
                       WHERE unclaimed.entries <> excluded.entries";
            let Unclaimed { account, entries, amount } = left;
            tx.execute(sql, values![account.as_str(), entries.cast_signed(), amount.to_i64()])?;
            Ok(())
        };
        Ok(self.db().write(Durability::Process, write).await?)
    }

    /// What was left longer ago than this and not swept, the oldest first; a bounded number.
    pub(crate) async fn unclaimed_for(
        &self,
        after: Duration,
    ) -> Result<Vec<Unclaimed>, WalletError> {
        let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX).cast_signed();
        let read = move |tx: &mut Tx<'_>| {
            let sql = "SELECT account, entries, amount_msat FROM unclaimed
                       WHERE swept_ms IS NULL AND since_ms < now_ms() - ?1
                       ORDER BY since_ms LIMIT ?2";
            tx.rows(sql, values![after_ms, DUE_MAX])?.iter().map(Unclaimed::read).collect()
        };
        Ok(self.db().write(Durability::Process, read).await?)
    }

    /// True for the one who says so first.
    pub(crate) async fn note_swept(&self, left: &Unclaimed) -> Result<bool, WalletError> {
        let (account, entries) = (left.account.clone(), left.entries);
        let write = move |tx: &mut Tx<'_>| {
            let sql = "UPDATE unclaimed SET swept_ms = now_ms()
                       WHERE account = ?1 AND entries = ?2 AND swept_ms IS NULL";
            tx.execute(sql, values![account.as_str(), entries.cast_signed()])
        };
        Ok(self.db().write(Durability::Process, write).await? > 0)
    }

    /// Something has become of it; it is never swept.
    pub(crate) async fn forget_unclaimed(&self, left: &Unclaimed) -> Result<(), WalletError> {
        let (account, entries) = (left.account.clone(), left.entries);
        let write = move |tx: &mut Tx<'_>| {
            let sql = "DELETE FROM unclaimed
                       WHERE account = ?1 AND entries = ?2 AND swept_ms IS NULL";
            tx.execute(sql, values![account.as_str(), entries.cast_signed()])?;
            Ok(())
        };
        Ok(self.db().write(Durability::Process, write).await?)
    }

    /// A sweep came to nothing, which is an entry more: what was left is there as it was.
    pub(crate) async fn renew_unclaimed(&self, left: &Unclaimed) -> Result<Unclaimed, WalletError> {
        let (account, entries) = (left.account.clone(), left.entries);
        let write = move |tx: &mut Tx<'_>| {
            let sql = "UPDATE unclaimed SET entries = entries + 1
                       WHERE account = ?1 AND entries = ?2 AND swept_ms IS NULL";
            tx.execute(sql, values![account.as_str(), entries.cast_signed()])
        };
        self.db().write(Durability::Process, write).await?;
        Ok(Unclaimed { entries: entries.saturating_add(1), ..left.clone() })
    }

    /// When this account's change was swept, if that is the last that happened to it: its history
    /// has so many entries now.
    pub(crate) async fn swept(
        &self,
        account: &AccountId,
        entries: u64,
    ) -> Result<Option<UnixMs>, WalletError> {
        let account = account.clone();
        let read = move |tx: &mut Tx<'_>| {
            let sql = "SELECT swept_ms FROM unclaimed
                       WHERE account = ?1 AND entries + 1 = ?2 AND swept_ms IS NOT NULL";
            let found = tx.row(sql, values![account.as_str(), entries.cast_signed()])?;
            found.map(|row| row.get(0).map(UnixMs::from_i64)).transpose()
        };
        Ok(self.db().write(Durability::Process, read).await?)
    }
}

impl Unclaimed {
    fn read(row: &Row) -> Result<Self, StoreError> {
        let account = AccountId::stored(row.get::<String>(0)?);
        Ok(Self { account, entries: row.get(1)?, amount: msat(row, 2)? })
    }
}

/// Looked at in one round; the others have the next.
const DUE_MAX: u32 = 64;
