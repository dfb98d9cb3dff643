//! The wallet's rows, and every statement that touches them.
//!
//! A row never holds a secret: a proof is its keyset, counter, amount and signature, and
//! worth nothing without the seed file. `holder` says who a proof was set aside for: a
//! withdrawal or an exchange with the mint; without one it is in the pool.

use std::collections::HashMap;
use std::str::FromStr;

use cdk::nuts::{Id, PublicKey};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::incoming::{POINT_BYTES, points};
use crate::clock::UnixMs;
use crate::ids::{AccountId, DepositId};
use crate::money::Msat;
use crate::store::StoreError;

/// The wallet's part of the database's schema; safe to run again.
pub const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS wallet_seed (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    fingerprint TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS counters (
    keyset TEXT PRIMARY KEY,
    next INTEGER NOT NULL CHECK (next BETWEEN 0 AND 2147483647)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS redemptions (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    account TEXT NOT NULL,
    mint TEXT NOT NULL,
    unit TEXT NOT NULL,
    keyset TEXT NOT NULL,
    counter_start INTEGER NOT NULL CHECK (counter_start >= 0),
    outputs TEXT NOT NULL,
    amount INTEGER NOT NULL CHECK (amount > 0),
    amount_msat INTEGER NOT NULL CHECK (amount_msat > 0),
    fee_msat INTEGER NOT NULL CHECK (fee_msat >= 0),
    ys BLOB NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('recorded', 'lapsed', 'redeemed', 'credited')),
    tries INTEGER NOT NULL DEFAULT 0,
    asked_ms INTEGER NOT NULL,
    next_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS redemptions_due ON redemptions (next_ms) WHERE state <> 'credited';
CREATE INDEX IF NOT EXISTS redemptions_of ON redemptions (account, seq);
CREATE TABLE IF NOT EXISTS proofs (
    keyset TEXT NOT NULL,
    counter INTEGER NOT NULL,
    mint TEXT NOT NULL,
    unit TEXT NOT NULL,
    amount INTEGER NOT NULL CHECK (amount > 0),
    c BLOB NOT NULL CHECK (length(c) = 33),
    source TEXT NOT NULL,
    holder TEXT,
    PRIMARY KEY (keyset, counter)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS proofs_pool ON proofs (mint, unit, amount) WHERE holder IS NULL;
CREATE INDEX IF NOT EXISTS proofs_pool_keyset ON proofs (keyset) WHERE holder IS NULL;
CREATE INDEX IF NOT EXISTS proofs_held ON proofs (holder) WHERE holder IS NOT NULL;
CREATE INDEX IF NOT EXISTS proofs_source ON proofs (source);
CREATE TABLE IF NOT EXISTS outgoing (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    account TEXT NOT NULL,
    mint TEXT NOT NULL,
    unit TEXT NOT NULL,
    amount INTEGER NOT NULL CHECK (amount > 0),
    amount_msat INTEGER NOT NULL CHECK (amount_msat > 0),
    state TEXT NOT NULL CHECK (state IN ('issuing', 'issued', 'claimed')),
    checked_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS outgoing_unclaimed ON outgoing (checked_ms) WHERE state = 'issued';
CREATE TABLE IF NOT EXISTS exchanges (
    id TEXT PRIMARY KEY,
    withdrawal TEXT,
    mint TEXT NOT NULL,
    unit TEXT NOT NULL,
    keyset TEXT NOT NULL,
    counter_start INTEGER NOT NULL CHECK (counter_start >= 0),
    outputs TEXT NOT NULL,
    fee INTEGER NOT NULL CHECK (fee >= 0),
    fee_msat INTEGER NOT NULL CHECK (fee_msat >= 0),
    state TEXT NOT NULL CHECK (state IN ('recorded', 'done', 'lost')),
    tries INTEGER NOT NULL DEFAULT 0,
    next_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS exchanges_due ON exchanges (next_ms) WHERE state = 'recorded';
CREATE UNIQUE INDEX IF NOT EXISTS exchanges_for ON exchanges (withdrawal)
    WHERE state = 'recorded' AND withdrawal IS NOT NULL;
";

/// Outputs given to the mint to sign, and the inputs they are to be paid with: all that is
/// needed to ask again, or to find out what became of it.
#[derive(Clone)]
pub(super) struct Attempt {
    pub(super) mint: String,
    pub(super) unit: String,
    pub(super) keyset: Id,
    pub(super) counter_start: u32,
    pub(super) outputs: Vec<u64>,
    pub(super) ys: Vec<PublicKey>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Written down; the mint is being asked, or was and did not say.
    Recorded,
    /// The mint had not seen it when we last looked: the token is the client's.
    Lapsed,
    /// The proofs are ours, no account has them.
    Redeemed,
    Credited,
}

impl State {
    const ALL: [Self; 4] = [Self::Recorded, Self::Lapsed, Self::Redeemed, Self::Credited];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Recorded => "recorded",
            Self::Lapsed => "lapsed",
            Self::Redeemed => "redeemed",
            Self::Credited => "credited",
        }
    }
}

#[derive(Clone)]
pub(super) struct RedemptionRow {
    pub(super) id: DepositId,
    pub(super) account: AccountId,
    pub(super) attempt: Attempt,
    pub(super) amount: Msat,
    pub(super) fee: Msat,
    pub(super) state: State,
    pub(super) asked: UnixMs,
}

impl RedemptionRow {
    pub(super) fn find(
        connection: &Connection,
        id: &DepositId,
    ) -> Result<Option<Self>, StoreError> {
        let sql = "SELECT id, account, mint, unit, keyset, counter_start, outputs, amount_msat,
                   fee_msat, ys, state, asked_ms FROM redemptions WHERE id = ?1";
        let found = connection.prepare_cached(sql)?.query_row([id.as_str()], Self::parts);
        found.optional()?.transpose()
    }

    fn parts(row: &Row<'_>) -> rusqlite::Result<Result<Self, StoreError>> {
        let (amount, fee): (i64, i64) = (row.get(7)?, row.get(8)?);
        let ys: Vec<u8> = row.get(9)?;
        let state: String = row.get(10)?;
        let (keyset, outputs): (String, String) = (row.get(4)?, row.get(6)?);
        let (id, account): (String, String) = (row.get(0)?, row.get(1)?);
        let (mint, unit, counter_start) = (row.get(2)?, row.get(3)?, row.get(5)?);
        let asked = UnixMs::from_i64(row.get(11)?);
        Ok((|| {
            let attempt = Attempt {
                mint,
                unit,
                counter_start,
                keyset: keyset_id(&keyset)?,
                outputs: amounts(&outputs)?,
                ys: points(&ys).map_err(|error| damaged(&error.to_string()))?,
            };
            let state = State::ALL.into_iter().find(|known| known.name() == state);
            Ok(Self {
                id: DepositId::stored(id),
                account: AccountId::stored(account),
                attempt,
                amount: Msat::from_i64(amount).ok_or_else(|| damaged("amount"))?,
                fee: Msat::from_i64(fee).ok_or_else(|| damaged("fee"))?,
                state: state.ok_or_else(|| damaged("state"))?,
                asked,
            })
        })())
    }

    /// Writes a new redemption down and takes its counters.
    pub(super) fn insert(&mut self, connection: &Connection) -> Result<(), StoreError> {
        let attempt = &mut self.attempt;
        attempt.counter_start = take_counters(connection, attempt.keyset, attempt.outputs.len())?;
        let sql =
            "INSERT INTO redemptions (id, account, mint, unit, keyset, counter_start, outputs,
                   amount, amount_msat, fee_msat, ys, state, asked_ms, next_ms)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, 'recorded', ?12, ?12)";
        connection.prepare_cached(sql)?.execute(params![
            self.id.as_str(),
            self.account.as_str(),
            attempt.mint,
            attempt.unit,
            attempt.keyset.to_string(),
            attempt.counter_start,
            listed(&attempt.outputs),
            sum(&attempt.outputs)?,
            self.amount.to_i64(),
            self.fee.to_i64(),
            attempt.ys.iter().flat_map(PublicKey::to_bytes).collect::<Vec<u8>>(),
            self.asked.to_i64(),
        ])?;
        Ok(())
    }

    /// Before it is asked for again: the account it is for now, and new counters if the old
    /// outputs can no longer be signed.
    pub(super) fn renew(
        &mut self,
        connection: &Connection,
        outputs: bool,
    ) -> Result<(), StoreError> {
        let attempt = &mut self.attempt;
        if outputs {
            attempt.counter_start =
                take_counters(connection, attempt.keyset, attempt.outputs.len())?;
        }
        self.state = State::Recorded;
        self.asked = UnixMs::now();
        let sql = "UPDATE redemptions SET account = ?2, keyset = ?3, counter_start = ?4,
                   outputs = ?5, state = 'recorded', asked_ms = ?6, next_ms = ?6
                   WHERE id = ?1 AND state IN ('recorded', 'lapsed')";
        let changed = connection.prepare_cached(sql)?.execute(params![
            self.id.as_str(),
            self.account.as_str(),
            attempt.keyset.to_string(),
            attempt.counter_start,
            listed(&attempt.outputs),
            self.asked.to_i64(),
        ])?;
        if changed == 1 { Ok(()) } else { Err(damaged("redemption vanished")) }
    }
}

/// A proof of ours as stored: worthless without the seed.
#[derive(Clone)]
pub(super) struct ProofRow {
    pub(super) keyset: Id,
    pub(super) counter: u32,
    pub(super) amount: u64,
    pub(super) c: PublicKey,
}

impl ProofRow {
    pub(super) fn insert(
        &self,
        connection: &Connection,
        attempt: &Attempt,
        source: &str,
    ) -> Result<(), StoreError> {
        let sql = "INSERT INTO proofs (keyset, counter, mint, unit, amount, c, source)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        connection.prepare_cached(sql)?.execute(params![
            self.keyset.to_string(),
            self.counter,
            attempt.mint,
            attempt.unit,
            i64::try_from(self.amount).map_err(|_| damaged("amount"))?,
            self.c.to_bytes(),
            source,
        ])?;
        Ok(())
    }

    /// The proofs set aside for this holder, always in the same order.
    pub(super) fn held_by(connection: &Connection, holder: &str) -> Result<Vec<Self>, StoreError> {
        let sql = "SELECT keyset, counter, amount, c FROM proofs WHERE holder = ?1
                   ORDER BY keyset, amount DESC, counter";
        Self::query(connection, sql, params![holder])
    }

    pub(super) fn query(
        connection: &Connection,
        sql: &str,
        params: impl rusqlite::Params,
    ) -> Result<Vec<Self>, StoreError> {
        let mut statement = connection.prepare_cached(sql)?;
        let rows = statement.query_map(params, |row| {
            let columns: (String, u32, i64, [u8; POINT_BYTES]) =
                (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
            Ok(columns)
        })?;
        rows.map(|row| {
            let (keyset, counter, amount, c) = row?;
            Ok(Self {
                keyset: keyset_id(&keyset)?,
                counter,
                amount: u64::try_from(amount).map_err(|_| damaged("amount"))?,
                c: PublicKey::from_slice(&c).map_err(|_| damaged("point"))?,
            })
        })
        .collect()
    }

    pub(super) fn hold(&self, connection: &Connection, holder: &str) -> Result<(), StoreError> {
        let sql = "UPDATE proofs SET holder = ?3
                   WHERE keyset = ?1 AND counter = ?2 AND holder IS NULL";
        let keyset = self.keyset.to_string();
        let changed =
            connection.prepare_cached(sql)?.execute(params![keyset, self.counter, holder])?;
        if changed == 1 { Ok(()) } else { Err(damaged("proof is held twice")) }
    }
}

/// The next `count` counters of a keyset; they are never given out again.
pub(super) fn take_counters(
    connection: &Connection,
    keyset: Id,
    count: usize,
) -> Result<u32, StoreError> {
    let count = u32::try_from(count).map_err(|_| damaged("too many outputs"))?;
    let sql = "INSERT INTO counters (keyset, next) VALUES (?1, ?2)
               ON CONFLICT (keyset) DO UPDATE SET next = next + ?2 RETURNING next - ?2";
    let start = connection
        .prepare_cached(sql)?
        .query_row(params![keyset.to_string(), count], |row| row.get(0))?;
    Ok(start)
}

/// Unspent value in the pool by (mint, unit), in units.
pub(super) fn pool(connection: &Connection) -> Result<HashMap<(String, String), u64>, StoreError> {
    let sql = "SELECT mint, unit, SUM(amount) FROM proofs WHERE holder IS NULL GROUP BY mint, unit";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map([], |row| {
        let sum: i64 = row.get(2)?;
        Ok(((row.get(0)?, row.get(1)?), u64::try_from(sum).unwrap_or(0)))
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(super) fn keyset_id(text: &str) -> Result<Id, StoreError> {
    Id::from_str(text).map_err(|_| damaged("keyset"))
}

pub(super) fn listed(amounts: &[u64]) -> String {
    let texts: Vec<String> = amounts.iter().map(u64::to_string).collect();
    texts.join(",")
}

pub(super) fn amounts(list: &str) -> Result<Vec<u64>, StoreError> {
    list.split(',').map(|amount| amount.parse().map_err(|_| damaged("outputs"))).collect()
}

pub(super) fn sum(amounts: &[u64]) -> Result<i64, StoreError> {
    let total = amounts.iter().try_fold(0_u64, |sum, amount| sum.checked_add(*amount));
    total.and_then(|total| i64::try_from(total).ok()).ok_or_else(|| damaged("sum of amounts"))
}

/// A row that we did not write like this.
pub(super) fn damaged(what: &str) -> StoreError {
    StoreError(format!("the wallet's rows are damaged: {what}"))
}
