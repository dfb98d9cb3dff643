//! The rows of exchanges, and the choice of what to exchange: each plan is one transaction
//! that holds the inputs, takes the counters and writes the exchange down.

use std::collections::HashMap;
use std::sync::Arc;

use cdk::nuts::Id;

use super::incoming::PPK;
use super::issue::{Claim, Issue, claim};
use super::lease::free;
use super::mint::Unit;
use super::rows::{Attempt, ProofRow, amounts, damaged, keyset_id, listed, msat, take_counters};
use super::split;
use crate::clock::UnixMs;
use crate::ids::{AccountId, WithdrawalId};
use crate::store::{StoreError, Tx, values};

#[derive(Clone)]
pub(super) struct Exchange {
    pub(super) id: String,
    pub(super) withdrawal: Option<Issue>,
    /// Its Ys are left out: they follow from the inputs.
    pub(super) attempt: Attempt,
    pub(super) inputs: Vec<ProofRow>,
}

/// Under which name, and for whom, an exchange is written down.
pub(super) struct NewExchange {
    pub(super) id: String,
    pub(super) owner: String,
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
    /// Another gateway was faster, and is at it.
    Elsewhere,
}

impl Exchange {
    /// The id of the one that is under way for this withdrawal.
    pub(super) fn find_for(
        tx: &mut Tx<'_>,
        withdrawal: &WithdrawalId,
    ) -> Result<Option<String>, StoreError> {
        let sql = "SELECT id FROM exchanges WHERE withdrawal = ?1 AND state = 'recorded'";
        tx.row(sql, values![withdrawal.as_str()])?.map(|row| row.get(0)).transpose()
    }

    /// Makes this gateway the owner of an exchange that is under way, if it is free.
    pub(super) fn take(tx: &mut Tx<'_>, id: &str, gateway: &str) -> Result<bool, StoreError> {
        let sql = concat!(
            "UPDATE exchanges SET owner = ?2 WHERE id = ?1 AND state = 'recorded' AND ",
            free!("?2")
        );
        Ok(tx.execute(sql, values![id, gateway])? == 1)
    }

    pub(super) fn is_recorded(tx: &mut Tx<'_>, id: &str) -> Result<bool, StoreError> {
        let sql = "SELECT id FROM exchanges WHERE id = ?1 AND state = 'recorded'";
        Ok(tx.row(sql, values![id])?.is_some())
    }

    pub(super) fn find(tx: &mut Tx<'_>, id: &str) -> Result<Option<Self>, StoreError> {
        let sql = "SELECT withdrawal, mint, unit, keyset, counter_start, outputs FROM exchanges
                   WHERE id = ?1 AND state = 'recorded'";
        let Some(row) = tx.row(sql, values![id])? else { return Ok(None) };
        let attempt = Attempt {
            mint: row.get(1)?,
            unit: row.get(2)?,
            keyset: keyset_id(&row.get::<String>(3)?)?,
            counter_start: row.get(4)?,
            outputs: amounts(&row.get::<String>(5)?)?,
            ys: Vec::new(),
        };
        let withdrawal: Option<String> = row.get(0)?;
        let withdrawal = withdrawal.map(|id| outgoing(tx, &id)).transpose()?;
        let inputs = ProofRow::held_by(tx, id)?;
        Ok(Some(Self { id: id.to_owned(), withdrawal, attempt, inputs }))
    }

    fn insert(
        &self,
        tx: &mut Tx<'_>,
        owner: &str,
        unit: &Unit,
        fee: u64,
    ) -> Result<(), StoreError> {
        for proof in &self.inputs {
            proof.hold(tx, &self.id)?;
        }
        let sql =
            "INSERT INTO exchanges (id, withdrawal, mint, unit, keyset, counter_start, outputs,
                   fee, fee_msat, state, owner, next_ms)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 'recorded', ?11, ?10)";
        let values = values![
            &self.id,
            self.withdrawal.as_ref().map(|issue| issue.id.as_str()),
            &self.attempt.mint,
            &self.attempt.unit,
            self.attempt.keyset.to_string(),
            self.attempt.counter_start,
            listed(&self.attempt.outputs),
            fee.cast_signed(),
            unit.msat(fee).ok_or_else(|| damaged("fee"))?.to_i64(),
            UnixMs::now().to_i64(),
            owner,
        ];
        tx.execute(sql, values)?;
        Ok(())
    }
}

/// Chooses inputs for a withdrawal that the pool could not compose a moment ago.
pub(super) fn plan_for(
    tx: &mut Tx<'_>,
    new: NewExchange,
    issue: &Issue,
    terms: &Terms,
) -> Result<Planned, StoreError> {
    // From here on the withdrawal's row is this transaction's: nobody else plans for it.
    if claim(tx, issue)? == Claim::Issued {
        return Ok(Planned::Claimed);
    }
    if Exchange::find_for(tx, &issue.id)?.is_some() {
        return Ok(Planned::Elsewhere);
    }
    let count = terms.unit.count(issue.amount);
    let Some((inputs, fee)) = covering(tx, issue, count, terms)? else {
        return Ok(Planned::Short);
    };
    let rest = total(&inputs).saturating_sub(fee).saturating_sub(count);
    let mut outputs = split::binary(count, terms.largest);
    outputs.extend(split::complete(rest, terms.largest));
    outputs.sort_unstable();
    let exchange = Exchange {
        id: new.id,
        withdrawal: Some(issue.clone()),
        attempt: terms.attempt(tx, &issue.mint, outputs)?,
        inputs,
    };
    exchange.insert(tx, &new.owner, &terms.unit, fee)?;
    Ok(Planned::Exchange(Box::new(exchange)))
}

/// Chooses proofs of a keyset to be left. Outputs keep the inputs' amounts, so that what the
/// pool could compose it still can; the fee comes out of the smallest.
pub(super) fn plan_leaving(
    tx: &mut Tx<'_>,
    new: NewExchange,
    mint: &str,
    keyset: Id,
    terms: &Terms,
) -> Result<Option<Exchange>, StoreError> {
    let sql = "SELECT keyset, counter, amount, c FROM proofs
               WHERE keyset = ?1 AND mint = ?2 AND holder IS NULL LIMIT ?3 FOR UPDATE SKIP LOCKED";
    let inputs = ProofRow::query(tx, sql, values![keyset.to_string(), mint, INPUTS_MAX])?;
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
    let attempt = terms.attempt(tx, mint, kept)?;
    let exchange = Exchange { id: new.id, withdrawal: None, attempt, inputs };
    exchange.insert(tx, &new.owner, &terms.unit, fee)?;
    Ok(Some(exchange))
}

pub(super) fn fresh_id() -> String {
    format!("exchange-{}", uuid::Uuid::now_v7().simple())
}

/// Proofs worth the amount and the fee for swapping them: one if there is a large one, else
/// the fewest. Taking large ones spares the small ones that compose others' change.
fn covering(
    tx: &mut Tx<'_>,
    issue: &Issue,
    count: u64,
    terms: &Terms,
) -> Result<Option<(Vec<ProofRow>, u64)>, StoreError> {
    let sql = "SELECT keyset, counter, amount, c FROM proofs
               WHERE mint = ?1 AND unit = ?2 AND amount >= ?3 AND holder IS NULL
               ORDER BY amount LIMIT ?4 FOR UPDATE SKIP LOCKED";
    let wanted = values![&issue.mint, &issue.unit, count.cast_signed(), LARGER_MAX];
    for proof in ProofRow::query(tx, sql, wanted)? {
        let fee = terms.fee(std::slice::from_ref(&proof));
        if proof.amount >= count.saturating_add(fee) {
            return Ok(Some((vec![proof], fee)));
        }
    }
    let sql = "SELECT keyset, counter, amount, c FROM proofs
               WHERE mint = ?1 AND unit = ?2 AND holder IS NULL ORDER BY amount DESC LIMIT ?3
               FOR UPDATE SKIP LOCKED";
    let mut chosen = Vec::new();
    let wanted = values![&issue.mint, &issue.unit, INPUTS_MAX];
    for proof in ProofRow::query(tx, sql, wanted)? {
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
        tx: &mut Tx<'_>,
        mint: &str,
        outputs: Vec<u64>,
    ) -> Result<Attempt, StoreError> {
        Ok(Attempt {
            mint: mint.to_owned(),
            unit: self.unit.name.clone(),
            keyset: self.keyset,
            counter_start: take_counters(tx, self.keyset, outputs.len())?,
            outputs,
            ys: Vec::new(),
        })
    }

    /// NUT-02: the sum over the inputs, rounded up once.
    pub(super) fn fee(&self, inputs: &[ProofRow]) -> u64 {
        let each = inputs.iter().map(|proof| self.ppk.get(&proof.keyset).copied().unwrap_or(0));
        each.fold(0_u64, u64::saturating_add).div_ceil(PPK)
    }
}

pub(super) fn total(proofs: &[ProofRow]) -> u64 {
    proofs.iter().fold(0, |sum, proof| sum.saturating_add(proof.amount))
}

fn outgoing(tx: &mut Tx<'_>, id: &str) -> Result<Issue, StoreError> {
    let sql = "SELECT account, mint, unit, amount_msat FROM outgoing WHERE id = ?1";
    let row = tx.row(sql, values![id])?.ok_or_else(|| damaged("an exchange for nothing"))?;
    Ok(Issue {
        id: WithdrawalId::stored(id),
        account: AccountId::stored(row.get::<String>(0)?),
        mint: row.get(1)?,
        unit: row.get(2)?,
        amount: msat(&row, 3)?,
    })
}

/// Inputs of one exchange: mints bound what they take in one swap.
const INPUTS_MAX: u32 = 100;

/// Proofs looked at for one that pays the amount and its fee alone: of the same amount in
/// keysets of different fees, and the next larger ones.
const LARGER_MAX: u32 = 8;
