//! Issuing: proofs of ours become somebody's token.
//!
//! ```text
//! (nothing) ──▶ issuing ──▶ issued ──▶ claimed
//!            an exchange    the proofs   the mint says
//!            is needed      are set aside  they are spent
//! ```
//!
//! Proofs are taken from the pool largest first, in one transaction and through an index:
//! the cost depends on how many are taken, not on how many are held, and no mint is needed
//! (see [`super::split`]). Where the pool cannot compose the amount, proofs are exchanged at
//! the mint first. The token's text is never stored: it is built from the rows, the same each
//! time.

use cdk::Amount;
use cdk::nuts::nut00::token::TokenV4Token;
use cdk::nuts::{CurrencyUnit, Proof, TokenV4};
use rusqlite::{Connection, OptionalExtension, params};

use super::mint::normalise;
use super::rows::{ProofRow, damaged};
use super::{CashuToken, Unit, Wallet, WalletError, split};
use crate::clock::UnixMs;
use crate::ids::{AccountId, WithdrawalId};
use crate::money::Msat;
use crate::store::{Durability, StoreError};

/// What is to leave: an amount that the ledger has booked out of the account already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Issue {
    pub(crate) id: WithdrawalId,
    pub(crate) account: AccountId,
    pub(crate) mint: String,
    pub(crate) unit: String,
    pub(crate) amount: Msat,
}

/// Where one withdrawal stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    Issued,
    /// The pool cannot compose it: proofs must be exchanged at the mint.
    Uncomposable,
}

impl Wallet {
    /// The token of this withdrawal; idempotent by its id. `None` while the ecash cannot be
    /// composed without a mint that does not answer: to be called again.
    pub(crate) async fn issue(&self, issue: &Issue) -> Result<Option<CashuToken>, WalletError> {
        if self.claim(issue).await? == Claim::Issued {
            return self.issued(&issue.id).await;
        }
        if !self.exchange_for(issue).await? {
            return Ok(None);
        }
        self.issued(&issue.id).await
    }

    async fn claim(&self, issue: &Issue) -> Result<Claim, WalletError> {
        let issue = issue.clone();
        let write = move |connection: &Connection| claim(connection, &issue);
        Ok(self.store().write(Durability::Disk, write).await?)
    }

    /// Whether the pool can compose this amount as it is now.
    pub(crate) async fn can_compose(&self, mint: &str, unit: &Unit, amount: Msat) -> bool {
        let (mint, unit, count) = (mint.to_owned(), unit.name.clone(), unit.count(amount));
        let read =
            move |connection: &Connection| Ok(compose(connection, &mint, &unit, count)?.is_some());
        self.store().write(Durability::Process, read).await.unwrap_or(false)
    }

    /// The text of a token that was issued: its rows under the secrets that the seed gives.
    pub(crate) async fn issued(
        &self,
        id: &WithdrawalId,
    ) -> Result<Option<CashuToken>, WalletError> {
        let wanted = id.clone();
        let read = move |connection: &Connection| {
            let sql =
                "SELECT mint, unit, amount FROM outgoing WHERE id = ?1 AND state <> 'issuing'";
            let found: Option<(String, String, i64)> = connection
                .prepare_cached(sql)?
                .query_row([wanted.as_str()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
                .optional()?;
            found
                .map(|found| Ok((found, ProofRow::held_by(connection, wanted.as_str())?)))
                .transpose()
        };
        let found = self.store().write(Durability::Process, read).await?;
        let Some(((mint, unit, amount), rows)) = found else { return Ok(None) };
        let total = rows.iter().try_fold(0_u64, |sum, row| sum.checked_add(row.amount));
        if total.and_then(|total| i64::try_from(total).ok()) != Some(amount) {
            return Err(damaged("an issued token is not worth what was booked").into());
        }
        self.token_text(&mint, &unit, &rows).map(Some)
    }

    /// V4, grouped by keyset in the rows' order, without DLEQ and memo.
    fn token_text(
        &self,
        mint: &str,
        unit: &str,
        rows: &[ProofRow],
    ) -> Result<CashuToken, WalletError> {
        let damaged = |what: &str| WalletError::from(damaged(what));
        let mint = normalise(mint).ok_or_else(|| damaged("mint"))?;
        let currency: CurrencyUnit = unit.parse().map_err(|_| damaged("unit"))?;
        let mut groups = Vec::new();
        for group in rows.chunk_by(|one, next| one.keyset == next.keyset) {
            let proofs: Result<Vec<Proof>, WalletError> = group
                .iter()
                .map(|row| {
                    let secret = self.seed().secret(row.keyset, row.counter)?;
                    Ok(Proof::new(Amount::from(row.amount), row.keyset, secret, row.c))
                })
                .collect();
            let keyset = group.first().map(|row| row.keyset).ok_or_else(|| damaged("group"))?;
            groups.push(TokenV4Token::new(keyset, proofs?));
        }
        let v4 = TokenV4 { mint_url: mint, unit: currency, memo: None, token: groups };
        Ok(CashuToken::new(v4.to_string()))
    }
}

/// Sets the proofs of a withdrawal aside and says `issued`, if the pool can compose it.
pub(super) fn claim(connection: &Connection, issue: &Issue) -> Result<Claim, StoreError> {
    let state: Option<String> = connection
        .prepare_cached("SELECT state FROM outgoing WHERE id = ?1")?
        .query_row([issue.id.as_str()], |row| row.get(0))
        .optional()?;
    if state.is_some_and(|state| state != "issuing") {
        return Ok(Claim::Issued);
    }
    let unit = Unit::named(&issue.unit).ok_or_else(|| damaged("unit"))?;
    let count = unit.count(issue.amount);
    let Some(taken) = compose(connection, &issue.mint, &issue.unit, count)? else {
        return Ok(Claim::Uncomposable);
    };
    for (denomination, count) in taken {
        set_aside(connection, issue, denomination, count)?;
    }
    put_outgoing(connection, issue, "issued")?;
    Ok(Claim::Issued)
}

/// How many of which denomination make up so many units, from the pool.
fn compose(
    connection: &Connection,
    mint: &str,
    unit: &str,
    count: u64,
) -> Result<Option<Vec<(u64, u64)>>, StoreError> {
    let sql = "SELECT COUNT(*) FROM (SELECT 1 FROM proofs
               WHERE mint = ?1 AND unit = ?2 AND amount = ?3 AND holder IS NULL LIMIT ?4)";
    split::take(count, |denomination, wanted| {
        let wanted = wanted.min(CLAIMED_MAX).cast_signed();
        let found: i64 = connection
            .prepare_cached(sql)?
            .query_row(params![mint, unit, denomination.cast_signed(), wanted], |row| row.get(0))?;
        Ok(found.unsigned_abs())
    })
}

fn set_aside(
    connection: &Connection,
    issue: &Issue,
    denomination: u64,
    count: u64,
) -> Result<(), StoreError> {
    let sql = "UPDATE proofs SET holder = ?1 WHERE (keyset, counter) IN (
               SELECT keyset, counter FROM proofs
               WHERE mint = ?2 AND unit = ?3 AND amount = ?4 AND holder IS NULL LIMIT ?5)";
    let changed = connection.prepare_cached(sql)?.execute(params![
        issue.id.as_str(),
        issue.mint,
        issue.unit,
        denomination.cast_signed(),
        count.cast_signed(),
    ])?;
    if u64::try_from(changed) == Ok(count) { Ok(()) } else { Err(damaged("pool changed")) }
}

pub(super) fn put_outgoing(
    connection: &Connection,
    issue: &Issue,
    state: &str,
) -> Result<(), StoreError> {
    let unit = Unit::named(&issue.unit).ok_or_else(|| damaged("unit"))?;
    let sql =
        "INSERT INTO outgoing (id, account, mint, unit, amount, amount_msat, state, checked_ms)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
               ON CONFLICT (id) DO UPDATE SET state = ?7, checked_ms = ?8";
    connection.prepare_cached(sql)?.execute(params![
        issue.id.as_str(),
        issue.account.as_str(),
        issue.mint,
        issue.unit,
        unit.count(issue.amount).cast_signed(),
        issue.amount.to_i64(),
        state,
        UnixMs::now().to_i64(),
    ])?;
    Ok(())
}

/// Proofs of one denomination in one token; a pool of nothing but small ones is exchanged.
const CLAIMED_MAX: u64 = 100;
