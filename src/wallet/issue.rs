//! Issuing: proofs of ours become somebody's token.
//!
//! ```text
//! (nothing) ──▶ issuing ──▶ issued ──▶ claimed
//!            an exchange    the proofs   the mint says
//!            is needed      are set aside  they are spent
//! ```
//!
//! Proofs are set aside in one statement ([`super::claim`]): the cost depends on how many are
//! taken, not on how many are held, and no mint is needed. Where the pool cannot compose the
//! amount, proofs are exchanged at the mint first. The token's text is never stored: it is
//! built from the rows, the same each time, by whichever gateway is asked for it.

use std::time::Duration;

use cdk::Amount;
use cdk::nuts::nut00::token::TokenV4Token;
use cdk::nuts::{CurrencyUnit, Proof, TokenV4};

use super::mint::normalise;
use super::redeem::LOOK_EVERY;
use super::rows::{ProofRow, damaged};
use super::{CashuToken, Unit, Wallet, WalletError, claim};
use crate::clock::{Stopwatch, UnixMs};
use crate::ids::{AccountId, WithdrawalId};
use crate::money::Msat;
use crate::store::{Durability, StoreError, Tx, values};

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
    /// composed without a mint that does not answer: to be called again. For another gateway
    /// that is at the mint for it this one waits as long as `patience`.
    pub(crate) async fn issue(
        &self,
        issue: &Issue,
        patience: Duration,
    ) -> Result<Option<CashuToken>, WalletError> {
        self.set_aside(issue, patience).await?;
        self.issued(&issue.id).await
    }

    /// Sets the proofs of this withdrawal aside, if that can be done now.
    pub(super) async fn set_aside(
        &self,
        issue: &Issue,
        patience: Duration,
    ) -> Result<(), WalletError> {
        let waiting = Stopwatch::start();
        loop {
            if self.claim(issue).await? == Claim::Issued || self.exchange_for(issue).await? {
                return Ok(());
            }
            if waiting.elapsed() >= patience || !self.is_exchanged_elsewhere(&issue.id).await? {
                // The other gateway may have come to its end since it was found at it.
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn is_exchanged_elsewhere(&self, id: &WithdrawalId) -> Result<bool, WalletError> {
        let (id, gateway) = (id.clone(), self.gateway().to_owned());
        let read = move |tx: &mut Tx<'_>| {
            let sql = "SELECT id FROM exchanges
                       WHERE withdrawal = ?1 AND state = 'recorded' AND owner <> ?2";
            Ok(tx.row(sql, values![id.as_str(), gateway])?.is_some())
        };
        Ok(self.db().write(Durability::Process, read).await?)
    }

    async fn claim(&self, issue: &Issue) -> Result<Claim, WalletError> {
        let issue = issue.clone();
        let write = move |tx: &mut Tx<'_>| claim(tx, &issue);
        Ok(self.db().write(Durability::Disk, write).await?)
    }

    /// Whether the pool is worth so much: what it cannot compose then, an exchange can. Looks
    /// at its largest proofs first, which mostly are enough.
    pub(crate) async fn holds(&self, mint: &str, unit: &Unit, amount: Msat) -> bool {
        let (mint, unit, count) = (mint.to_owned(), unit.name.clone(), unit.count(amount));
        let read = move |tx: &mut Tx<'_>| {
            for most in [LARGEST_FIRST, i64::MAX] {
                let sql = "SELECT CAST(COALESCE(SUM(amount), 0) AS BIGINT) FROM (
                           SELECT amount FROM proofs
                           WHERE mint = ?1 AND unit = ?2 AND holder IS NULL
                           ORDER BY amount DESC LIMIT ?3) AS largest";
                let worth = tx.row(sql, values![&mint, &unit, most])?;
                if worth.map_or(Ok(0), |row| row.get::<u64>(0))? >= count {
                    return Ok(true);
                }
            }
            Ok(false)
        };
        self.db().write(Durability::Process, read).await.unwrap_or(false)
    }

    /// The text of a token that was issued: its rows under the secrets that the seed gives.
    pub(crate) async fn issued(
        &self,
        id: &WithdrawalId,
    ) -> Result<Option<CashuToken>, WalletError> {
        let wanted = id.clone();
        let read = move |tx: &mut Tx<'_>| {
            let sql =
                "SELECT mint, unit, amount FROM outgoing WHERE id = ?1 AND state <> 'issuing'";
            let Some(row) = tx.row(sql, values![wanted.as_str()])? else { return Ok(None) };
            let found: (String, String, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            Ok(Some((found, ProofRow::held_by(tx, wanted.as_str())?)))
        };
        let found = self.db().write(Durability::Process, read).await?;
        let Some(((mint, unit, amount), rows)) = found else { return Ok(None) };
        let total = rows.iter().try_fold(0_u64, |sum, row| sum.checked_add(row.amount));
        if total.and_then(|total| i64::try_from(total).ok()) != Some(amount) {
            return Err(damaged("an issued token is not worth what was booked").into());
        }
        self.token_text(&mint, &unit, &rows).map(Some)
    }

    /// V4, grouped by keyset in the rows' order, without DLEQ and memo.
    pub(super) fn token_text(
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

/// Sets the proofs of a withdrawal aside and says `issued`, if the pool can compose it; else it
/// is `issuing`. Its row is this transaction's from the first statement on, so that of two
/// gateways that are asked for it one waits for the other's outcome.
pub(super) fn claim(tx: &mut Tx<'_>, issue: &Issue) -> Result<Claim, StoreError> {
    let unit = Unit::named(&issue.unit).ok_or_else(|| damaged("unit"))?;
    let count = unit.count(issue.amount);
    let sql =
        "INSERT INTO outgoing (id, account, mint, unit, amount, amount_msat, state, checked_ms)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'issued', ?7)
               ON CONFLICT (id) DO UPDATE SET state = 'issued', checked_ms = ?7
               WHERE outgoing.state = 'issuing'";
    let values = values![
        issue.id.as_str(),
        issue.account.as_str(),
        &issue.mint,
        &issue.unit,
        count.cast_signed(),
        issue.amount.to_i64(),
        UnixMs::now().to_i64(),
    ];
    if tx.execute(sql, values)? == 0 {
        return Ok(Claim::Issued);
    }
    if claim::claim(tx, &issue.mint, &issue.unit, count, issue.id.as_str())? {
        return Ok(Claim::Issued);
    }
    let sql = "UPDATE outgoing SET state = 'issuing' WHERE id = ?1";
    tx.execute(sql, values![issue.id.as_str()])?;
    Ok(Claim::Uncomposable)
}

/// Proofs whose worth is added up before that of all is.
const LARGEST_FIRST: i64 = 256;
