//! What the wallet's rows say, summed: for `nutgate audit`, which needs no seed, no mint and
//! no running gateway.
//!
//! Every proof has a source (a redemption or an exchange) that wrote down beforehand what it
//! would be worth, and every proof that left has a withdrawal that wrote down its amount: a
//! row changed by hand, or lost, shows as a mismatch. And nothing appears or disappears:
//! `redeemed = pool + held + issued + lost + exchange fees`.

use rusqlite::Connection;

use crate::money::Msat;
use crate::store::StoreError;

/// Sums in msat, counts of rows that contradict each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// In the pool: what a refund can be paid from.
    pub pool: Msat,
    /// Held by exchanges that are under way: ours, in one form or the other.
    pub held: Msat,
    /// Held by exchanges whose inputs were spent elsewhere.
    pub lost: Msat,
    /// Redemptions whose proofs are ours and that no account has yet.
    pub uncredited: Msat,
    pub credited: Msat,
    /// Set aside for tokens given out; `claimed` is the part that the mint has seen spent.
    pub issued: Msat,
    pub claimed: Msat,
    pub redemption_fees: Msat,
    pub exchange_fees: Msat,
    pub redemptions_mismatched: u64,
    pub exchanges_mismatched: u64,
    pub outgoing_mismatched: u64,
    /// Proofs whose source, or whose holder, does not exist.
    pub proofs_stray: u64,
}

impl Audit {
    /// What is still there to pay accounts from, now or when an exchange is done.
    pub fn backing(&self) -> Option<Msat> {
        self.pool.checked_add(self.held)
    }

    /// Whether the rows agree with each other. The ledger is not looked at here.
    pub fn is_consistent(&self) -> bool {
        let came = self.uncredited.checked_add(self.credited);
        let rest = [self.held, self.lost, self.issued, self.exchange_fees];
        let went = rest.into_iter().try_fold(self.pool, Msat::checked_add);
        let mismatched =
            [self.redemptions_mismatched, self.exchanges_mismatched, self.outgoing_mismatched];
        came.is_some() && came == went && mismatched == [0; 3] && self.proofs_stray == 0
    }
}

/// Sums the wallet's rows of a database that was opened with [`super::SCHEMA`].
pub fn audit_rows(connection: &Connection) -> Result<Audit, StoreError> {
    // A sum that is no amount counts as the nearest: what makes it so contradicts another row.
    let sum = |sql: &str| -> Result<Msat, StoreError> {
        let total: Option<i64> = connection.query_row(sql, [], |row| row.get(0))?;
        Ok(Msat::from_i64(total.unwrap_or(0).max(0)).unwrap_or(Msat::MAX))
    };
    let count = |sql: &str| -> Result<u64, StoreError> {
        let rows: i64 = connection.query_row(sql, [], |row| row.get(0))?;
        Ok(rows.unsigned_abs())
    };
    let of_proofs = |filter: &str| sum(&format!("SELECT SUM({WORTH}) FROM proofs WHERE {filter}"));
    let of_redemptions = |column: &str, states: &str| {
        sum(&format!("SELECT SUM({column}) FROM redemptions WHERE state IN ({states})"))
    };
    Ok(Audit {
        pool: of_proofs("holder IS NULL")?,
        held: of_proofs("holder IN (SELECT id FROM exchanges WHERE state = 'recorded')")?,
        lost: of_proofs("holder IN (SELECT id FROM exchanges WHERE state = 'lost')")?,
        uncredited: of_redemptions("amount_msat", "'redeemed'")?,
        credited: of_redemptions("amount_msat", "'credited'")?,
        issued: of_proofs("holder IN (SELECT id FROM outgoing)")?,
        claimed: of_proofs("holder IN (SELECT id FROM outgoing WHERE state = 'claimed')")?,
        redemption_fees: of_redemptions("fee_msat", "'redeemed', 'credited'")?,
        exchange_fees: sum("SELECT SUM(fee_msat) FROM exchanges WHERE state = 'done'")?,
        redemptions_mismatched: count(REDEMPTIONS_MISMATCHED)?,
        exchanges_mismatched: count(EXCHANGES_MISMATCHED)?,
        outgoing_mismatched: count(OUTGOING_MISMATCHED)?,
        proofs_stray: count(PROOFS_STRAY)?,
    })
}

const WORTH: &str = "amount * CASE unit WHEN 'sat' THEN 1000 WHEN 'msat' THEN 1 END";

/// Completed redemptions whose proofs are not worth what was recorded before the mint was
/// asked, or is not what their account was given.
const REDEMPTIONS_MISMATCHED: &str = "
    SELECT COUNT(*) FROM redemptions WHERE state IN ('redeemed', 'credited') AND (
        amount * CASE unit WHEN 'sat' THEN 1000 WHEN 'msat' THEN 1 END <> amount_msat
        OR amount <> (SELECT TOTAL(amount) FROM proofs WHERE source = redemptions.id)
        OR LENGTH(outputs) - LENGTH(REPLACE(outputs, ',', '')) + 1
            <> (SELECT COUNT(*) FROM proofs WHERE source = redemptions.id))";

const EXCHANGES_MISMATCHED: &str = "
    SELECT COUNT(*) FROM exchanges WHERE
        fee * CASE unit WHEN 'sat' THEN 1000 WHEN 'msat' THEN 1 END <> fee_msat
        OR (state = 'done') <> EXISTS (SELECT 1 FROM proofs WHERE source = exchanges.id)
        OR (state = 'done' AND
            (SELECT TOTAL(amount) FROM proofs WHERE holder = exchanges.id) <>
            (SELECT TOTAL(amount) FROM proofs WHERE source = exchanges.id) + fee)";

const OUTGOING_MISMATCHED: &str = "
    SELECT COUNT(*) FROM outgoing WHERE
        (amount * CASE unit WHEN 'sat' THEN 1000 WHEN 'msat' THEN 1 END <> amount_msat)
        OR (state = 'issuing') = EXISTS (SELECT 1 FROM proofs WHERE holder = outgoing.id)
        OR (state <> 'issuing' AND
            amount <> (SELECT TOTAL(amount) FROM proofs WHERE holder = outgoing.id))";

const PROOFS_STRAY: &str = "
    SELECT COUNT(*) FROM proofs WHERE
        (source NOT IN (SELECT id FROM redemptions) AND source NOT IN (SELECT id FROM exchanges))
        OR (holder IS NOT NULL AND holder NOT IN (SELECT id FROM outgoing)
            AND holder NOT IN (SELECT id FROM exchanges))";
