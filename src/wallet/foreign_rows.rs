//! The rows of what foreign mints are asked to pay, and the statements over them.

use std::str::FromStr;

use cdk::nuts::{Id, PublicKey};

use super::Payee;
use super::quote_rows::Purpose;
use super::rows::{ProofRow, damaged, keyset_id, msat};
use crate::clock::UnixMs;
use crate::ids::DepositId;
use crate::money::Msat;
use crate::store::{Row, StoreError, Tx, Value, values};

/// A foreign mint's payment of our mint's invoice, which is the quote of the same id.
#[derive(Clone)]
pub(super) struct MeltRow {
    pub(super) id: DepositId,
    /// The foreign mint, and the unit of the ecash that it is paid with.
    pub(super) mint: String,
    pub(super) unit: String,
    /// Its name there.
    pub(super) quote: String,
    /// What the ecash is worth, in the unit.
    pub(super) value: u64,
    /// What the invoice is for.
    pub(super) amount: Msat,
    /// The outputs for what is left over (NUT-08).
    pub(super) keyset: Id,
    pub(super) counter_start: u32,
    pub(super) blanks: usize,
    pub(super) expires: UnixMs,
    /// What was left over, once that is known: proofs of ours, and the client's.
    pub(super) change: Option<Vec<ProofRow>>,
}

impl MeltRow {
    pub(super) fn find(tx: &mut Tx<'_>, id: &DepositId) -> Result<Option<Self>, StoreError> {
        let sql = "SELECT id, mint, unit, quote, value, amount_msat, keyset, counter_start, blanks,
                   expires_ms, change FROM foreign_melts WHERE id = ?1";
        tx.row(sql, values![id.as_str()])?.map(|row| Self::read(&row)).transpose()
    }

    fn read(row: &Row) -> Result<Self, StoreError> {
        let keyset = keyset_id(&row.get::<String>(6)?)?;
        let change = row.get::<Option<String>>(10)?;
        Ok(Self {
            id: DepositId::stored(row.get::<String>(0)?),
            mint: row.get(1)?,
            unit: row.get(2)?,
            quote: row.get(3)?,
            value: row.get(4)?,
            amount: msat(row, 5)?,
            keyset,
            counter_start: row.get(7)?,
            blanks: usize::try_from(row.get::<u64>(8)?).map_err(|_| damaged("blanks"))?,
            expires: UnixMs::from_i64(row.get(9)?),
            change: change.map(|text| proofs(&text, keyset)).transpose()?,
        })
    }

    /// False, and nothing written, if there is one already.
    pub(super) fn insert(&self, tx: &mut Tx<'_>) -> Result<bool, StoreError> {
        let sql = "INSERT INTO foreign_melts (id, mint, unit, quote, value, amount_msat, keyset,
                   counter_start, blanks, expires_ms)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
                   ON CONFLICT (id) DO NOTHING";
        let values = values![
            self.id.as_str(),
            &self.mint,
            &self.unit,
            &self.quote,
            i64::try_from(self.value).map_err(|_| damaged("value"))?,
            self.amount.to_i64(),
            self.keyset.to_string(),
            self.counter_start,
            i64::try_from(self.blanks).map_err(|_| damaged("blanks"))?,
            self.expires.to_i64(),
        ];
        Ok(tx.execute(sql, values)? == 1)
    }

    /// Nothing is paid any more by it, nor by the invoice that it is for. False, and nothing
    /// changed, if that has been paid or is being looked at.
    pub(super) fn replace(&self, tx: &mut Tx<'_>) -> Result<bool, StoreError> {
        let sql = "DELETE FROM quotes WHERE id = ?1 AND state = 'offered' AND owner IS NULL";
        tx.execute(sql, values![self.id.as_str()])?;
        let sql = "DELETE FROM foreign_melts WHERE id = ?1 AND quote = ?2
                   AND NOT EXISTS (SELECT 1 FROM quotes WHERE quotes.id = foreign_melts.id)";
        Ok(tx.execute(sql, values![self.id.as_str(), &self.quote])? == 1)
    }

    pub(super) fn note_change(
        tx: &mut Tx<'_>,
        id: &DepositId,
        change: &[ProofRow],
    ) -> Result<(), StoreError> {
        let sql = "UPDATE foreign_melts SET change = ?2 WHERE id = ?1 AND change IS NULL";
        tx.execute(sql, values![id.as_str(), text(change)])?;
        Ok(())
    }
}

/// The token is shown for somebody else now, and was not taken before: its payment is theirs.
/// False if the invoice does not wait for it, or somebody is at it.
pub(super) fn readdress(
    tx: &mut Tx<'_>,
    id: &DepositId,
    payee: &Payee,
    purpose: Purpose,
) -> Result<bool, StoreError> {
    let sql = "UPDATE quotes SET account = ?2, purpose = ?3, terms = ?4
               WHERE id = ?1 AND state = 'offered' AND owner IS NULL";
    let terms = payee.terms.clone().map_or(Value::Null, Value::from);
    let values = values![id.as_str(), payee.account.as_str(), purpose.name(), terms];
    Ok(tx.execute(sql, values)? == 1)
}

/// `counter:amount:signature` of each, the keyset is the row's. No secret: see `schema.rs`.
fn text(proofs: &[ProofRow]) -> String {
    let each = |proof: &ProofRow| format!("{}:{}:{}", proof.counter, proof.amount, proof.c);
    proofs.iter().map(each).collect::<Vec<_>>().join(",")
}

fn proofs(text: &str, keyset: Id) -> Result<Vec<ProofRow>, StoreError> {
    let each = |part: &str| {
        let mut parts = part.split(':');
        let mut next = || parts.next().ok_or_else(|| damaged("change"));
        let counter = next()?.parse().map_err(|_| damaged("change"))?;
        let amount = next()?.parse().map_err(|_| damaged("change"))?;
        let c = PublicKey::from_str(next()?).map_err(|_| damaged("change"))?;
        Ok(ProofRow { keyset, counter, amount, c })
    };
    text.split(',').filter(|part| !part.is_empty()).map(each).collect()
}
