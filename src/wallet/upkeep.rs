//! What the wallet does when nobody asks: the rows that are due for another look, and the
//! tokens given out that have been claimed meanwhile.
//!
//! Each look at a row that stays undecided is put off twice as long as the last one.

use cdk::nuts::State as ProofState;

use super::lease::free;
use super::rows::{ProofRow, RedemptionRow, State};
use super::{Wallet, WalletError, normalised_url, quote_rows};
use crate::clock::UnixMs;
use crate::ids::{AccountId, DepositId, WithdrawalId};
use crate::store::{Durability, StoreError, Tx, values};

/// The undecided rows of one round, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Due {
    pub(crate) redemptions: Vec<DepositId>,
    pub(crate) exchanges: Vec<String>,
    pub(crate) quotes: Vec<DepositId>,
}

impl Wallet {
    /// What is due now and free, from here on this gateway's, each put off until its next
    /// turn. `all` at the start, when much of it may have been a dead process's: also what is
    /// not due yet, except for late looks and invoices that are not paid as far as we know.
    pub(crate) async fn due(&self, all: bool) -> Result<Due, WalletError> {
        let horizon = if all { i64::MAX } else { UnixMs::now().to_i64() };
        let most = if all { DUE_AT_START_MAX } else { DUE_MAX };
        let gateway = self.gateway().to_owned();
        let write = move |tx: &mut Tx<'_>| {
            let now = UnixMs::now().to_i64();
            let quotes = quote_rows::take_due(tx, horizon, most, &gateway)?;
            let values = values![horizon, now, most, gateway];
            let redemptions: Result<Vec<String>, StoreError> =
                tx.rows(REDEMPTIONS_DUE, values)?.iter().map(|row| row.get(0)).collect();
            let exchanges: Result<Vec<String>, StoreError> =
                tx.rows(EXCHANGES_DUE, values)?.iter().map(|row| row.get(0)).collect();
            let redemptions = redemptions?.into_iter().map(DepositId::stored).collect();
            Ok(Due { redemptions, exchanges: exchanges?, quotes })
        };
        Ok(self.db().write(Durability::Process, write).await?)
    }

    /// Whether a redemption of this token is written down and not complete.
    pub(crate) async fn is_undecided(&self, id: &DepositId) -> Result<bool, WalletError> {
        let id = id.clone();
        let find = move |tx: &mut Tx<'_>| RedemptionRow::find(tx, &id);
        let row = self.db().write(Durability::Process, find).await?;
        Ok(row.is_some_and(|row| matches!(row.state, State::Recorded | State::Redeemed)))
    }

    /// The mint and unit with which this account was last paid.
    pub(crate) async fn last_paid_with(
        &self,
        account: &AccountId,
    ) -> Result<Option<(String, String)>, WalletError> {
        let account = account.clone();
        let read = move |tx: &mut Tx<'_>| {
            let sql = "SELECT mint, unit FROM redemptions WHERE account = ?1
                       AND state IN ('redeemed', 'credited') ORDER BY seq DESC LIMIT 1";
            let found = tx.row(sql, values![account.as_str()])?;
            found.map(|row| Ok((row.get(0)?, row.get(1)?))).transpose()
        };
        Ok(self.db().write(Durability::Process, read).await?)
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
                let write = move |tx: &mut Tx<'_>| {
                    let sql = "UPDATE outgoing SET state = 'claimed'
                               WHERE id = ?1 AND state = 'issued'";
                    tx.execute(sql, values![id])?;
                    Ok(())
                };
                self.db().write(Durability::Process, write).await?;
                claimed += 1;
            }
        }
        Ok(claimed)
    }

    /// Somebody was there to be given this token.
    pub(crate) async fn note_handed_out(&self, id: &WithdrawalId) {
        let wanted = id.clone();
        let write = move |tx: &mut Tx<'_>| {
            let sql = "INSERT INTO handed_out (id) VALUES (?1) ON CONFLICT (id) DO NOTHING";
            tx.execute(sql, values![wanted.as_str()])
        };
        // Then it is given once more, to who asks next.
        if let Err(error) = self.db().write(Durability::Process, write).await {
            log::info!("withdrawal {id}: handed out, and not noted as such: {error}");
        }
    }

    /// The first token of this account that nobody was there to be given, unless it is known to
    /// be spent.
    pub(crate) async fn kept_back(
        &self,
        account: &AccountId,
    ) -> Result<Option<WithdrawalId>, WalletError> {
        let account = account.clone();
        let read = move |tx: &mut Tx<'_>| {
            let sql = "SELECT id FROM outgoing WHERE account = ?1 AND state = 'issued'
                       AND NOT EXISTS (SELECT 1 FROM handed_out WHERE handed_out.id = outgoing.id)
                       AND NOT EXISTS
                           (SELECT 1 FROM payments WHERE payments.withdrawal = outgoing.id)
                       ORDER BY seq LIMIT 1";
            let found = tx.row(sql, values![account.as_str()])?;
            found.map(|row| Ok(WithdrawalId::stored(row.get::<String>(0)?))).transpose()
        };
        Ok(self.db().write(Durability::Process, read).await?)
    }

    /// Whether the mint has seen this token spent, as far as it answers.
    pub(crate) async fn is_claimed(&self, id: &WithdrawalId) -> Result<bool, WalletError> {
        let wanted = id.clone();
        let read = move |tx: &mut Tx<'_>| {
            let sql = "SELECT mint, state FROM outgoing WHERE id = ?1";
            let Some(row) = tx.row(sql, values![wanted.as_str()])? else { return Ok(None) };
            let (mint, state): (String, String) = (row.get(0)?, row.get(1)?);
            Ok(Some((mint, state == "claimed", ProofRow::held_by(tx, wanted.as_str())?)))
        };
        let found = self.db().write(Durability::Process, read).await?;
        let Some((mint, claimed, rows)) = found else { return Ok(false) };
        let Some(mint) = self.mint_at(&mint).filter(|_| !claimed) else { return Ok(claimed) };
        let ys: Result<Vec<_>, _> =
            rows.iter().map(|row| self.seed().y(row.keyset, row.counter)).collect();
        let states = mint.states(ys?).await.unwrap_or_default();
        Ok(states.contains(&ProofState::Spent))
    }

    async fn unclaimed(&self) -> Result<Vec<(String, String, Vec<ProofRow>)>, WalletError> {
        let now = UnixMs::now();
        let read = move |tx: &mut Tx<'_>| {
            let sql = "UPDATE outgoing SET checked_ms = ?2 WHERE id IN (
                           SELECT id FROM outgoing WHERE state = 'issued' AND checked_ms <= ?1
                           ORDER BY checked_ms LIMIT ?3 FOR UPDATE SKIP LOCKED)
                       RETURNING id, mint";
            let since = now.0.saturating_sub(CLAIMED_EVERY_MS).cast_signed();
            let found = tx.rows(sql, values![since, now.to_i64(), CLAIMED_MAX])?;
            let mut unclaimed = Vec::with_capacity(found.len());
            for row in found {
                let id: String = row.get(0)?;
                let rows = ProofRow::held_by(tx, &id)?;
                unclaimed.push((id, row.get(1)?, rows));
            }
            Ok(unclaimed)
        };
        Ok(self.db().write(Durability::Process, read).await?)
    }

    /// Asks every mint for its keysets again, so that a retired one is noticed.
    pub(crate) async fn refresh_keysets(&self) {
        for mint in self.mints().iter().chain(self.foreign_mints()) {
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

/// Taken by this gateway and put off, by a second at first, twice as long each time, a minute
/// at last. The values: due until, now, how many, which gateway.
macro_rules! take_due {
    ($table:literal, $undecided:literal) => {
        concat!(
            "UPDATE ",
            $table,
            " SET owner = ?4, tries = tries + 1, next_ms = CAST(?2 AS BIGINT)
                + CASE WHEN tries < 6 THEN 1000 << CAST(tries AS INTEGER) ELSE 60000 END
            WHERE id IN (SELECT id FROM ",
            $table,
            " WHERE next_ms <= ?1 AND ",
            $undecided,
            " AND ",
            free!("?4"),
            " ORDER BY next_ms LIMIT ?3 FOR UPDATE SKIP LOCKED)
            RETURNING id"
        )
    };
}

const REDEMPTIONS_DUE: &str =
    take_due!("redemptions", "state <> 'credited' AND (state <> 'lapsed' OR next_ms <= ?2)");
const EXCHANGES_DUE: &str = take_due!("exchanges", "state = 'recorded'");

/// Rows of one round; the rest has its turn in the next.
const DUE_MAX: u32 = 64;
const DUE_AT_START_MAX: u32 = 10_000;

/// Tokens asked about in one round, and how long each is left alone after that.
const CLAIMED_MAX: u32 = 8;
const CLAIMED_EVERY_MS: u64 = 60_000;
