//! What the wallet does when nobody asks: the rows that are due for another look, and the
//! tokens given out that have been claimed meanwhile.
//!
//! Each look at a row that stays undecided is put off twice as long as the last one.

use cdk::nuts::State as ProofState;
use rusqlite::{Connection, OptionalExtension, params};

use super::rows::{ProofRow, RedemptionRow, State};
use super::{Wallet, WalletError, normalised_url};
use crate::clock::UnixMs;
use crate::ids::{AccountId, DepositId};
use crate::store::{Durability, StoreError};

/// The undecided rows of one round, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Due {
    pub(crate) redemptions: Vec<DepositId>,
    pub(crate) exchanges: Vec<String>,
}

impl Wallet {
    /// What is due now, each put off until its next turn. `all` at the start, when nothing is
    /// under way: also what is not due yet, except for late looks.
    pub(crate) async fn due(&self, all: bool) -> Result<Due, WalletError> {
        let now = UnixMs::now();
        let write = move |connection: &Connection| {
            let horizon = if all { UnixMs(i64::MAX.cast_unsigned()) } else { now };
            let redemptions = take_due(
                connection,
                "SELECT id, tries FROM redemptions WHERE state <> 'credited'
                 AND (next_ms <= ?1 AND (state <> 'lapsed' OR next_ms <= ?2))
                 ORDER BY next_ms LIMIT ?3",
                "UPDATE redemptions SET tries = tries + 1, next_ms = ?2 WHERE id = ?1",
                (horizon, now),
            )?;
            let exchanges = take_due(
                connection,
                "SELECT id, tries FROM exchanges WHERE state = 'recorded' AND next_ms <= ?1
                 AND ?2 IS NOT NULL ORDER BY next_ms LIMIT ?3",
                "UPDATE exchanges SET tries = tries + 1, next_ms = ?2 WHERE id = ?1",
                (horizon, now),
            )?;
            let redemptions = redemptions.into_iter().map(DepositId::stored).collect();
            Ok(Due { redemptions, exchanges })
        };
        Ok(self.store().write(Durability::Process, write).await?)
    }

    /// Whether a redemption of this token is written down and not complete.
    pub(crate) async fn is_undecided(&self, id: &DepositId) -> Result<bool, WalletError> {
        let id = id.clone();
        let find = move |connection: &Connection| RedemptionRow::find(connection, &id);
        let row = self.store().write(Durability::Process, find).await?;
        Ok(row.is_some_and(|row| matches!(row.state, State::Recorded | State::Redeemed)))
    }

    /// The mint and unit with which this account was last paid.
    pub(crate) async fn last_paid_with(
        &self,
        account: &AccountId,
    ) -> Result<Option<(String, String)>, WalletError> {
        let account = account.clone();
        let read = move |connection: &Connection| {
            let sql = "SELECT mint, unit FROM redemptions WHERE account = ?1
                       AND state IN ('redeemed', 'credited') ORDER BY seq DESC LIMIT 1";
            let found = connection
                .prepare_cached(sql)?
                .query_row([account.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            Ok(found)
        };
        Ok(self.store().write(Durability::Process, read).await?)
    }

    /// Asks the mints about a bounded number of tokens given out and notes which are spent.
    pub(crate) async fn note_claimed(&self) -> Result<usize, WalletError> {
        let mut claimed = 0;
        for (id, mint, rows) in self.unclaimed().await? {
            let Some(mint) = self.mint_at(&mint) else { continue };
            let ys: Result<Vec<_>, _> =
                rows.iter().map(|row| self.seed().y(row.keyset, row.counter)).collect();
            let Ok(states) = mint.states(ys?).await else { continue };
            if states.iter().all(|state| *state == ProofState::Spent) {
                let write = move |connection: &Connection| {
                    let sql = "UPDATE outgoing SET state = 'claimed'
                               WHERE id = ?1 AND state = 'issued'";
                    connection.prepare_cached(sql)?.execute([&id])?;
                    Ok(())
                };
                self.store().write(Durability::Process, write).await?;
                claimed += 1;
            }
        }
        Ok(claimed)
    }

    async fn unclaimed(&self) -> Result<Vec<(String, String, Vec<ProofRow>)>, WalletError> {
        let now = UnixMs::now();
        let read = move |connection: &Connection| {
            let sql = "SELECT id, mint FROM outgoing WHERE state = 'issued' AND checked_ms <= ?1
                       ORDER BY checked_ms LIMIT ?2";
            let since = now.0.saturating_sub(CLAIMED_EVERY_MS).cast_signed();
            let mut statement = connection.prepare_cached(sql)?;
            let found: Vec<(String, String)> = statement
                .query_map(params![since, CLAIMED_MAX], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<rusqlite::Result<_>>()?;
            let mut unclaimed = Vec::with_capacity(found.len());
            for (id, mint) in found {
                let sql = "UPDATE outgoing SET checked_ms = ?2 WHERE id = ?1";
                connection.prepare_cached(sql)?.execute(params![id, now.to_i64()])?;
                let rows = ProofRow::held_by(connection, &id)?;
                unclaimed.push((id, mint, rows));
            }
            Ok(unclaimed)
        };
        Ok(self.store().write(Durability::Process, read).await?)
    }

    /// Asks every mint for its keysets again, so that a retired one is noticed.
    pub(crate) async fn refresh_keysets(&self) {
        for mint in self.mints() {
            if let Err(error) = mint.refresh().await {
                log::info!("mint {}: keysets not refreshed: {error:?}", mint.url);
            }
        }
    }

    /// The mint's configured spelling, if it is accepted.
    pub(crate) fn accepted_url(&self, url: &str) -> Option<String> {
        let url = normalised_url(url)?;
        self.mint_at(&url).map(|mint| mint.url.to_string())
    }
}

fn take_due(
    connection: &Connection,
    select: &str,
    update: &str,
    (horizon, now): (UnixMs, UnixMs),
) -> Result<Vec<String>, StoreError> {
    let mut statement = connection.prepare_cached(select)?;
    let most = if horizon == now { DUE_MAX } else { DUE_AT_START_MAX };
    let due: Vec<(String, u32)> = statement
        .query_map(params![horizon.to_i64(), now.to_i64(), most], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    for (id, tries) in &due {
        let delay = RETRY_MS.saturating_mul(1 << (*tries).min(16)).min(RETRY_MAX_MS);
        let next = now.0.saturating_add(delay).cast_signed();
        connection.prepare_cached(update)?.execute(params![id, next])?;
    }
    Ok(due.into_iter().map(|(id, _)| id).collect())
}

/// Rows of one round; the rest has its turn in the next.
const DUE_MAX: u32 = 64;
const DUE_AT_START_MAX: u32 = 10_000;

const RETRY_MS: u64 = 1_000;
const RETRY_MAX_MS: u64 = 60_000;

/// Tokens asked about in one round, and how long each is left alone after that.
const CLAIMED_MAX: u32 = 8;
const CLAIMED_EVERY_MS: u64 = 60_000;
