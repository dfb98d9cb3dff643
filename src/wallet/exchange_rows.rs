//! The rows of exchanges, and the choice of what to exchange: each plan is one transaction
//! that holds the inputs, takes the counters and writes the exchange down.

use std::collections::HashMap;
use std::sync::Arc;

use cdk::nuts::Id;
use rusqlite::{Connection, OptionalExtension, params};

use super::incoming::PPK;
use super::issue::{Claim, Issue, claim, put_outgoing};
use super::mint::Unit;
use super::rows::{Attempt, ProofRow, amounts, damaged, keyset_id, listed, take_counters};
use super::split;
use crate::clock::UnixMs;
use crate::ids::{AccountId, WithdrawalId};
use crate::money::Msat;
use crate::store::StoreError;

#[derive(Clone)]
pub(super) struct Exchange {
    pub(super) id: String,
    pub(super) withdrawal: Option<Issue>,
    /// Its Ys are left out: they follow from the inputs.
    pub(super) attempt: Attempt,
    pub(super) inputs: Vec<ProofRow>,
}

/// The keyset that outputs are made in, and what inputs cost.
#[derive(Clone)]
pub(super) struct Terms {
    pub(super) unit: Unit,
    pub(super) keyset: Id,
    pub(super) largest: u64,
    pub(super) ppk: Arc<HashMap<Id, u64>>,
}

pub(super) enum Planned {
    Claimed,
    /// The pool has too little for the amount and the mint's fee.
    Short,
    Exchange(Box<Exchange>),
}

impl Exchange {
    pub(super) fn find_for(
        connection: &Connection,
        withdrawal: &WithdrawalId,
    ) -> Result<Option<Self>, StoreError> {
        let sql = "SELECT id FROM exchanges WHERE withdrawal = ?1 AND state = 'recorded'";
        let id: Option<String> = connection
            .prepare_cached(sql)?
            .query_row([withdrawal.as_str()], |row| row.get(0))
            .optional()?;
        id.map_or(Ok(None), |id| Self::find(connection, &id))
    }

    pub(super) fn find(connection: &Connection, id: &str) -> Result<Option<Self>, StoreError> {
        let sql = "SELECT withdrawal, mint, unit, keyset, counter_start, outputs FROM exchanges
                   WHERE id = ?1 AND state = 'recorded'";
        let found = connection
            .prepare_cached(sql)?
            .query_row([id], |row| {
                let columns: (Option<String>, String, String, String, u32, String) =
                    (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?);
                Ok(columns)
            })
            .optional()?;
        let Some((withdrawal, mint, unit, keyset, counter_start, outputs)) = found else {
            return Ok(None);
        };
        let attempt = Attempt {
            mint,
            unit,
            keyset: keyset_id(&keyset)?,
            counter_start,
            outputs: amounts(&outputs)?,
            ys: Vec::new(),
        };
        let withdrawal = withdrawal.map(|id| outgoing(connection, &id)).transpose()?;
        let inputs = ProofRow::held_by(connection, id)?;
        Ok(Some(Self { id: id.to_owned(), withdrawal, attempt, inputs }))
    }

    fn insert(&self, connection: &Connection, unit: &Unit, fee: u64) -> Result<(), StoreError> {
        for proof in &self.inputs {
            proof.hold(connection, &self.id)?;
        }
        let sql =
            "INSERT INTO exchanges (id, withdrawal, mint, unit, keyset, counter_start, outputs,
                   fee, fee_msat, state, next_ms)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 'recorded', ?10)";
        connection.prepare_cached(sql)?.execute(params![
            self.id,
            self.withdrawal.as_ref().map(|issue| issue.id.as_str()),
            self.attempt.mint,
            self.attempt.unit,
            self.attempt.keyset.to_string(),
            self.attempt.counter_start,
            listed(&self.attempt.outputs),
            fee.cast_signed(),
            unit.msat(fee).ok_or_else(|| damaged("fee"))?.to_i64(),
            UnixMs::now().to_i64(),
        ])?;
        Ok(())
    }
}

/// Chooses inputs for a withdrawal that the pool could not compose a moment ago.
pub(super) fn plan_for(
    connection: &Connection,
    id: String,
    issue: &Issue,
    terms: &Terms,
) -> Result<Planned, StoreError> {
    if claim(connection, issue)? == Claim::Issued {
        return Ok(Planned::Claimed);
    }
    let count = terms.unit.count(issue.amount);
    let Some((inputs, fee)) = covering(connection, issue, count, terms)? else {
        return Ok(Planned::Short);
    };
    put_outgoing(connection, issue, "issuing")?;
    let rest = total(&inputs).saturating_sub(fee).saturating_sub(count);
    let mut outputs = split::binary(count, terms.largest);
    outputs.extend(split::complete(rest, terms.largest));
    outputs.sort_unstable();
    let exchange = Exchange {
        id,
        withdrawal: Some(issue.clone()),
        attempt: terms.attempt(connection, &issue.mint, outputs)?,
        inputs,
    };
    exchange.insert(connection, &terms.unit, fee)?;
    Ok(Planned::Exchange(Box::new(exchange)))
}

/// Chooses proofs of a keyset to be left. Outputs keep the inputs' amounts, so that what the
/// pool could compose it still can; the fee comes out of the smallest.
pub(super) fn plan_leaving(
    connection: &Connection,
    id: String,
    mint: &str,
    keyset: Id,
    terms: &Terms,
) -> Result<Option<Exchange>, StoreError> {
    let sql = "SELECT keyset, counter, amount, c FROM proofs
               WHERE keyset = ?1 AND mint = ?2 AND holder IS NULL LIMIT ?3";
    let wanted = params![keyset.to_string(), mint, INPUTS_MAX];
    let inputs = ProofRow::query(connection, sql, wanted)?;
    let fee = terms.fee(&inputs);
    if total(&inputs) <= fee {
        return Ok(None);
    }
    let mut parts: Vec<u64> = inputs.iter().map(|proof| proof.amount).collect();
    parts.sort_unstable();
    let mut paid = 0;
    let mut kept = Vec::new();
    for part in parts {
        if paid < fee {
            paid += part;
            kept.extend(split::binary(paid.saturating_sub(fee), terms.largest));
        } else {
            kept.extend(split::binary(part, terms.largest));
        }
    }
    kept.sort_unstable();
    let attempt = terms.attempt(connection, mint, kept)?;
    let exchange = Exchange { id, withdrawal: None, attempt, inputs };
    exchange.insert(connection, &terms.unit, fee)?;
    Ok(Some(exchange))
}

pub(super) fn fresh_id() -> String {
    format!("exchange-{}", uuid::Uuid::now_v7().simple())
}

/// Proofs worth the amount and the fee for swapping them: one if there is a large one, else
/// the fewest. Taking large ones spares the small ones that compose others' change.
fn covering(
    connection: &Connection,
    issue: &Issue,
    count: u64,
    terms: &Terms,
) -> Result<Option<(Vec<ProofRow>, u64)>, StoreError> {
    let sql = "SELECT keyset, counter, amount, c FROM proofs
               WHERE mint = ?1 AND unit = ?2 AND amount >= ?3 AND holder IS NULL
               ORDER BY amount LIMIT ?4";
    let wanted = params![issue.mint, issue.unit, count.cast_signed(), INPUTS_MAX];
    for proof in ProofRow::query(connection, sql, wanted)? {
        let fee = terms.fee(std::slice::from_ref(&proof));
        if proof.amount >= count.saturating_add(fee) {
            return Ok(Some((vec![proof], fee)));
        }
    }
    let sql = "SELECT keyset, counter, amount, c FROM proofs
               WHERE mint = ?1 AND unit = ?2 AND holder IS NULL ORDER BY amount DESC LIMIT ?3";
    let mut chosen = Vec::new();
    for proof in ProofRow::query(connection, sql, params![issue.mint, issue.unit, INPUTS_MAX])? {
        chosen.push(proof);
        let fee = terms.fee(&chosen);
        if total(&chosen) >= count.saturating_add(fee) {
            return Ok(Some((chosen, fee)));
        }
    }
    Ok(None)
}

impl Terms {
    fn attempt(
        &self,
        connection: &Connection,
        mint: &str,
        outputs: Vec<u64>,
    ) -> Result<Attempt, StoreError> {
        Ok(Attempt {
            mint: mint.to_owned(),
            unit: self.unit.name.clone(),
            keyset: self.keyset,
            counter_start: take_counters(connection, self.keyset, outputs.len())?,
            outputs,
            ys: Vec::new(),
        })
    }

    /// NUT-02: the sum over the inputs, rounded up once.
    fn fee(&self, inputs: &[ProofRow]) -> u64 {
        let each = inputs.iter().map(|proof| self.ppk.get(&proof.keyset).copied().unwrap_or(0));
        each.fold(0_u64, u64::saturating_add).div_ceil(PPK)
    }
}

fn total(proofs: &[ProofRow]) -> u64 {
    proofs.iter().fold(0, |sum, proof| sum.saturating_add(proof.amount))
}

fn outgoing(connection: &Connection, id: &str) -> Result<Issue, StoreError> {
    let sql = "SELECT account, mint, unit, amount_msat FROM outgoing WHERE id = ?1";
    let (account, mint, unit, amount): (String, String, String, i64) = connection
        .prepare_cached(sql)?
        .query_row([id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
    Ok(Issue {
        id: WithdrawalId::stored(id),
        account: AccountId::stored(account),
        mint,
        unit,
        amount: Msat::from_i64(amount).ok_or_else(|| damaged("amount"))?,
    })
}

/// Inputs of one exchange: mints bound what they take in one swap.
const INPUTS_MAX: u32 = 100;
