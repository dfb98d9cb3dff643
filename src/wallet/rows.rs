//! The wallet's rows, and the statements that most of it shares.

use std::collections::HashMap;
use std::str::FromStr;

use cdk::nuts::{Id, PublicKey};

use super::incoming::points;
use super::lease::free;
use crate::clock::UnixMs;
use crate::ids::{AccountId, DepositId};
use crate::money::Msat;
use crate::store::{Row, StoreError, Tx, Value, values};

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
    pub(super) terms: Option<String>,
    pub(super) attempt: Attempt,
    pub(super) amount: Msat,
    pub(super) fee: Msat,
    pub(super) state: State,
    pub(super) asked: UnixMs,
}

impl RedemptionRow {
    /// Whether the mint has made its value the wallet's.
    pub(super) fn is_ours(&self) -> bool {
        matches!(self.state, State::Redeemed | State::Credited)
    }

    pub(super) fn find(tx: &mut Tx<'_>, id: &DepositId) -> Result<Option<Self>, StoreError> {
        let sql = "SELECT id, account, mint, unit, keyset, counter_start, outputs, amount_msat,
                   fee_msat, ys, state, asked_ms,
                   (SELECT terms FROM openings WHERE openings.id = redemptions.id)
                   FROM redemptions WHERE id = ?1";
        tx.row(sql, values![id.as_str()])?.map(|row| Self::read(&row)).transpose()
    }

    fn read(row: &Row) -> Result<Self, StoreError> {
        let state: String = row.get(10)?;
        let ys: Vec<u8> = row.get(9)?;
        let attempt = Attempt {
            mint: row.get(2)?,
            unit: row.get(3)?,
            keyset: keyset_id(&row.get::<String>(4)?)?,
            counter_start: row.get(5)?,
            outputs: amounts(&row.get::<String>(6)?)?,
            ys: points(&ys).map_err(|error| damaged(&error.to_string()))?,
        };
        let state = State::ALL.into_iter().find(|known| known.name() == state);
        Ok(Self {
            id: DepositId::stored(row.get::<String>(0)?),
            account: AccountId::stored(row.get::<String>(1)?),
            attempt,
            amount: msat(row, 7)?,
            fee: msat(row, 8)?,
            state: state.ok_or_else(|| damaged("state"))?,
            asked: UnixMs::from_i64(row.get(11)?),
            terms: row.get(12)?,
        })
    }

    /// Makes this gateway the owner of a redemption that is not completed, if it is free.
    pub(super) fn take(tx: &mut Tx<'_>, id: &DepositId, gateway: &str) -> Result<bool, StoreError> {
        let sql = concat!(
            "UPDATE redemptions SET owner = ?2
             WHERE id = ?1 AND state IN ('recorded', 'lapsed') AND ",
            free!("?2")
        );
        Ok(tx.execute(sql, values![id.as_str(), gateway])? == 1)
    }

    /// Writes a new redemption down, owned by this gateway; false if there is one already.
    pub(super) fn insert(&self, tx: &mut Tx<'_>, gateway: &str) -> Result<bool, StoreError> {
        let attempt = &self.attempt;
        let sql =
            "INSERT INTO redemptions (id, account, mint, unit, keyset, counter_start, outputs,
                   amount, amount_msat, fee_msat, ys, state, owner, asked_ms, next_ms)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, 'recorded', ?13, ?12, ?12)
                   ON CONFLICT (id) DO NOTHING";
        let values = values![
            self.id.as_str(),
            self.account.as_str(),
            &attempt.mint,
            &attempt.unit,
            attempt.keyset.to_string(),
            attempt.counter_start,
            listed(&attempt.outputs),
            sum(&attempt.outputs)?,
            self.amount.to_i64(),
            self.fee.to_i64(),
            attempt.ys.iter().flat_map(PublicKey::to_bytes).collect::<Vec<u8>>(),
            self.asked.to_i64(),
            gateway,
        ];
        let inserted = tx.execute(sql, values)? == 1;
        if inserted {
            self.write_terms(tx)?;
        }
        Ok(inserted)
    }

    fn write_terms(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let Some(terms) = &self.terms else { return Ok(()) };
        let sql = "INSERT INTO openings (id, terms) VALUES (?1, ?2)";
        tx.execute(sql, values![self.id.as_str(), terms])?;
        Ok(())
    }

    /// Its proofs are ours: stores them and says so. False, and nothing stored, if this gateway
    /// is not its owner any more.
    pub(super) fn keep(
        &self,
        tx: &mut Tx<'_>,
        gateway: &str,
        proofs: &[ProofRow],
    ) -> Result<bool, StoreError> {
        let sql = "UPDATE redemptions SET state = 'redeemed', ys = ?3
                   WHERE id = ?1 AND state IN ('recorded', 'lapsed') AND owner = ?2";
        if tx.execute(sql, values![self.id.as_str(), gateway, Vec::new()])? == 0 {
            return Ok(false);
        }
        for proof in proofs {
            proof.insert(tx, &self.attempt, self.id.as_str())?;
        }
        Ok(true)
    }

    /// Before it is asked for again: whom it is for now, and its outputs. False if this
    /// gateway is not its owner any more.
    pub(super) fn renew(&self, tx: &mut Tx<'_>, gateway: &str) -> Result<bool, StoreError> {
        let sql = "UPDATE redemptions SET account = ?2, keyset = ?3, counter_start = ?4,
                   outputs = ?5, state = 'recorded', asked_ms = ?6, next_ms = ?6
                   WHERE id = ?1 AND state IN ('recorded', 'lapsed') AND owner = ?7";
        let values = values![
            self.id.as_str(),
            self.account.as_str(),
            self.attempt.keyset.to_string(),
            self.attempt.counter_start,
            listed(&self.attempt.outputs),
            self.asked.to_i64(),
            gateway,
        ];
        let renewed = tx.execute(sql, values)? == 1;
        if renewed {
            drop_terms(tx, &self.id)?;
            self.write_terms(tx)?;
        }
        Ok(renewed)
    }
}

/// A redemption opens no account any more.
pub(super) fn drop_terms(tx: &mut Tx<'_>, id: &DepositId) -> Result<(), StoreError> {
    tx.execute("DELETE FROM openings WHERE id = ?1", values![id.as_str()])?;
    Ok(())
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
        tx: &mut Tx<'_>,
        attempt: &Attempt,
        source: &str,
    ) -> Result<(), StoreError> {
        let sql = "INSERT INTO proofs (keyset, counter, mint, unit, amount, c, source)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        let values = values![
            self.keyset.to_string(),
            self.counter,
            &attempt.mint,
            &attempt.unit,
            i64::try_from(self.amount).map_err(|_| damaged("amount"))?,
            self.c.to_bytes().to_vec(),
            source,
        ];
        tx.execute(sql, values)?;
        Ok(())
    }

    /// The proofs set aside for this holder, always in the same order.
    pub(super) fn held_by(tx: &mut Tx<'_>, holder: &str) -> Result<Vec<Self>, StoreError> {
        let sql = "SELECT keyset, counter, amount, c FROM proofs WHERE holder = ?1
                   ORDER BY keyset, amount DESC, counter";
        Self::query(tx, sql, values![holder])
    }

    pub(super) fn query(
        tx: &mut Tx<'_>,
        sql: &str,
        values: &[Value],
    ) -> Result<Vec<Self>, StoreError> {
        let read = |row: &Row| {
            let c: Vec<u8> = row.get(3)?;
            Ok(Self {
                keyset: keyset_id(&row.get::<String>(0)?)?,
                counter: row.get(1)?,
                amount: row.get(2)?,
                c: PublicKey::from_slice(&c).map_err(|_| damaged("point"))?,
            })
        };
        tx.rows(sql, values)?.iter().map(read).collect()
    }

    pub(super) fn hold(&self, tx: &mut Tx<'_>, holder: &str) -> Result<(), StoreError> {
        let sql = "UPDATE proofs SET holder = ?3
                   WHERE keyset = ?1 AND counter = ?2 AND holder IS NULL";
        let values = values![self.keyset.to_string(), self.counter, holder];
        if tx.execute(sql, values)? == 1 { Ok(()) } else { Err(damaged("proof is held twice")) }
    }
}

/// The next `count` counters of a keyset; they are never given out again. The last thing a
/// transaction does that could wait for another: every output of the keyset takes this row.
pub(super) fn take_counters(tx: &mut Tx<'_>, keyset: Id, count: usize) -> Result<u32, StoreError> {
    let count = u32::try_from(count).map_err(|_| damaged("too many outputs"))?;
    let sql = "INSERT INTO counters (keyset, next) VALUES (?1, ?2)
               ON CONFLICT (keyset) DO UPDATE SET next = counters.next + ?2
               RETURNING counters.next - ?2";
    let start = tx.row(sql, values![keyset.to_string(), count])?;
    start.ok_or_else(|| damaged("counters"))?.get(0)
}

/// Unspent value in the pool by (mint, unit), in units.
pub(super) fn pool(tx: &mut Tx<'_>) -> Result<HashMap<(String, String), u64>, StoreError> {
    let sql = "SELECT mint, unit, CAST(SUM(amount) AS BIGINT) FROM proofs WHERE holder IS NULL
               GROUP BY mint, unit";
    let read = |row: &Row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?));
    tx.rows(sql, values![])?.iter().map(read).collect()
}

pub(super) fn msat(row: &Row, column: usize) -> Result<Msat, StoreError> {
    Msat::from_i64(row.get(column)?).ok_or_else(|| damaged("amount"))
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
