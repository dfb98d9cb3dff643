//! What the wallet's rows say, summed: for `nutgate audit`, which needs no seed, no mint and
//! no running gateway.
//!
//! Every proof has a source (a redemption or an exchange) that wrote down beforehand what it
//! would be worth, and every proof that left has a withdrawal that wrote down its amount: a
//! row changed by hand, or lost, shows as a mismatch. And nothing appears or disappears:
//! `redeemed = pool + held + issued + lost + exchange fees + returned`. What a payment gave back
//! is a redemption too; `returned` is what came back of failed ones, whose proofs never left.

use super::rows::msat;
use crate::ids::{AccountId, DepositId, WithdrawalId};
use crate::money::Msat;
use crate::store::{Row, StoreError, Tx, values};

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
    /// Booked for payments that failed, and redeemed from there.
    pub returned: Msat,
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
        let rest = [self.held, self.lost, self.issued, self.exchange_fees, self.returned];
        let went = rest.into_iter().try_fold(self.pool, Msat::checked_add);
        let mismatched =
            [self.redemptions_mismatched, self.exchanges_mismatched, self.outgoing_mismatched];
        came.is_some() && came == went && mismatched == [0; 3] && self.proofs_stray == 0
    }
}

/// What came in by one redemption.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CameIn {
    pub id: DepositId,
    pub account: AccountId,
    pub amount: Msat,
    pub credited: bool,
}

/// What one withdrawal set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WentOut {
    pub id: WithdrawalId,
    pub account: AccountId,
    pub amount: Msat,
}

/// Sums the wallet's rows, from one snapshot.
pub fn audit_rows(tx: &mut Tx<'_>) -> Result<Audit, StoreError> {
    let redeemed = |state: &str| format!("redemptions WHERE state = '{state}'");
    let held_by = |table: &str, state: &str| {
        format!("proofs WHERE holder IN (SELECT id FROM {table} WHERE state = '{state}')")
    };
    let issued = "proofs WHERE holder IN (SELECT id FROM outgoing)";
    let ours = "redemptions WHERE state IN ('redeemed', 'credited')";
    Ok(Audit {
        pool: sum(tx, WORTH, "proofs WHERE holder IS NULL")?,
        held: sum(tx, WORTH, &held_by("exchanges", "recorded"))?,
        lost: sum(tx, WORTH, &held_by("exchanges", "lost"))?,
        uncredited: sum(tx, "amount_msat", &redeemed("redeemed"))?,
        credited: sum(tx, "amount_msat", &redeemed("credited"))?,
        issued: sum(tx, WORTH, issued)?,
        claimed: sum(tx, WORTH, &held_by("outgoing", "claimed"))?,
        returned: sum(tx, "booked_msat", "payments WHERE state = 'failed'")?,
        redemption_fees: sum(tx, "fee_msat", ours)?,
        exchange_fees: sum(tx, "fee_msat", "exchanges WHERE state = 'done'")?,
        redemptions_mismatched: count(tx, REDEMPTIONS_MISMATCHED)?
            .saturating_add(count(tx, QUOTES_MISMATCHED)?),
        exchanges_mismatched: count(tx, EXCHANGES_MISMATCHED)?,
        outgoing_mismatched: count(tx, OUTGOING_MISMATCHED)?
            .saturating_add(count(tx, PAYMENTS_MISMATCHED)?),
        proofs_stray: count(tx, PROOFS_STRAY)?,
    })
}

/// Redemptions whose value is the wallet's, in the order of their ids, the next page after
/// `last`: to be held against the ledger's deposits. An empty page is the end. They only grow.
pub fn came_in_after(tx: &mut Tx<'_>, last: Option<&DepositId>) -> Result<Vec<CameIn>, StoreError> {
    let sql = "SELECT id, account, amount_msat, state FROM redemptions
               WHERE id > ?1 AND state IN ('redeemed', 'credited') ORDER BY id LIMIT ?2";
    let read = |row: &Row| {
        Ok(CameIn {
            id: DepositId::stored(row.get::<String>(0)?),
            account: AccountId::stored(row.get::<String>(1)?),
            amount: msat(row, 2)?,
            credited: row.get::<String>(3)? == "credited",
        })
    };
    let last = last.map_or("", DepositId::as_str);
    tx.rows(sql, values![last, PAGE])?.iter().map(read).collect()
}

/// Withdrawals whose ecash is set aside, like [`came_in_after`].
///
/// Where the ledger is on another server there is no snapshot of both. Value is the wallet's
/// before it is the ledger's, and leaves the ledger before the wallet. So what left is read
/// first, then the ledger, then what came in.
pub fn went_out_after(
    tx: &mut Tx<'_>,
    last: Option<&WithdrawalId>,
) -> Result<Vec<WentOut>, StoreError> {
    let sql = "SELECT id, account, amount_msat FROM outgoing
               WHERE id > ?1 AND state <> 'issuing' ORDER BY id LIMIT ?2";
    let read = |row: &Row| {
        Ok(WentOut {
            id: WithdrawalId::stored(row.get::<String>(0)?),
            account: AccountId::stored(row.get::<String>(1)?),
            amount: msat(row, 2)?,
        })
    };
    let last = last.map_or("", WithdrawalId::as_str);
    tx.rows(sql, values![last, PAGE])?.iter().map(read).collect()
}

/// A sum that is no amount counts as the nearest: what makes it so contradicts another row.
fn sum(tx: &mut Tx<'_>, what: &str, rows: &str) -> Result<Msat, StoreError> {
    let sql = format!("SELECT CAST(COALESCE(SUM({what}), 0) AS BIGINT) FROM {rows}");
    let total: i64 = tx.row(&sql, values![])?.map_or(Ok(0), |row| row.get(0))?;
    Ok(Msat::from_i64(total.max(0)).unwrap_or(Msat::MAX))
}

fn count(tx: &mut Tx<'_>, sql: &str) -> Result<u64, StoreError> {
    tx.row(sql, values![])?.map_or(Ok(0), |row| row.get(0))
}

const WORTH: &str = "amount * CASE unit WHEN 'sat' THEN 1000 WHEN 'msat' THEN 1 END";

/// Rows of one page.
const PAGE: i64 = 1000;

// `SUM(amount * 1.0)`: whole numbers that are too many would end SQLite's sum with an error
// instead of a mismatch.

/// Completed redemptions whose proofs are not worth what was recorded before the mint was
/// asked, or is not what their account was given.
const REDEMPTIONS_MISMATCHED: &str = "
    SELECT COUNT(*) FROM redemptions WHERE state IN ('redeemed', 'credited') AND (
        amount * CASE unit WHEN 'sat' THEN 1000 WHEN 'msat' THEN 1 END <> amount_msat
        OR CASE WHEN id IN (SELECT deposit FROM payments WHERE state = 'failed') THEN 0
            ELSE amount END <>
            (SELECT COALESCE(SUM(amount * 1.0), 0) FROM proofs WHERE source = redemptions.id)
        OR LENGTH(outputs) - LENGTH(REPLACE(outputs, ',', '')) + 1
            - (SELECT COUNT(*) FROM payments WHERE deposit = redemptions.id AND state = 'failed')
            <> (SELECT COUNT(*) FROM proofs WHERE source = redemptions.id))";

/// Invoices whose payment is ours and is no redemption, or another one. What waits to be paid, or
/// to be signed for, is not the wallet's yet.
const QUOTES_MISMATCHED: &str = "
    SELECT COUNT(*) FROM quotes WHERE
        (state = 'redeemed') <> EXISTS (SELECT 1 FROM redemptions WHERE id = quotes.id)
        OR amount * CASE unit WHEN 'sat' THEN 1000 WHEN 'msat' THEN 1 END <> amount_msat
        OR EXISTS (SELECT 1 FROM redemptions WHERE id = quotes.id AND (
            account <> quotes.account OR amount_msat <> quotes.amount_msat
            OR mint <> quotes.mint OR unit <> quotes.unit))";

const EXCHANGES_MISMATCHED: &str = "
    SELECT COUNT(*) FROM exchanges WHERE
        fee * CASE unit WHEN 'sat' THEN 1000 WHEN 'msat' THEN 1 END <> fee_msat
        OR (state = 'done') <> EXISTS (SELECT 1 FROM proofs WHERE source = exchanges.id)
        OR (state = 'done' AND
            (SELECT COALESCE(SUM(amount * 1.0), 0) FROM proofs WHERE holder = exchanges.id) <>
            (SELECT COALESCE(SUM(amount * 1.0), 0) FROM proofs WHERE source = exchanges.id) + fee)";

const OUTGOING_MISMATCHED: &str = "
    SELECT COUNT(*) FROM outgoing WHERE
        (amount * CASE unit WHEN 'sat' THEN 1000 WHEN 'msat' THEN 1 END <> amount_msat)
        OR (state = 'issuing'
            OR id IN (SELECT withdrawal FROM payments WHERE state = 'failed'))
            = EXISTS (SELECT 1 FROM proofs WHERE holder = outgoing.id)
        OR (state <> 'issuing'
            AND id NOT IN (SELECT withdrawal FROM payments WHERE state = 'failed') AND amount <>
            (SELECT COALESCE(SUM(amount * 1.0), 0) FROM proofs WHERE holder = outgoing.id))";

/// Payments that have begun without the proofs that were booked for them, and what came back of
/// them and is no redemption, or another one.
const PAYMENTS_MISMATCHED: &str = "
    SELECT COUNT(*) FROM payments WHERE
        amount * CASE unit WHEN 'sat' THEN 1000 WHEN 'msat' THEN 1 END <> amount_msat
        OR booked * CASE unit WHEN 'sat' THEN 1000 WHEN 'msat' THEN 1 END <> booked_msat
        OR (state = 'failed' AND returned_msat <> booked_msat)
        OR (state IN ('paying', 'paid', 'failed') AND NOT EXISTS (SELECT 1 FROM outgoing
            WHERE outgoing.id = withdrawal AND outgoing.state <> 'issuing'
                AND outgoing.amount_msat = booked_msat AND outgoing.account = payments.account))
        OR returned_msat <> (SELECT COALESCE(SUM(redemptions.amount_msat), 0) FROM redemptions
            WHERE redemptions.id = payments.deposit AND redemptions.account = payments.account)";

const PROOFS_STRAY: &str = "
    SELECT COUNT(*) FROM proofs WHERE
        (NOT EXISTS (SELECT 1 FROM redemptions WHERE id = proofs.source)
            AND NOT EXISTS (SELECT 1 FROM exchanges WHERE id = proofs.source))
        OR (holder IS NOT NULL
            AND NOT EXISTS (SELECT 1 FROM outgoing WHERE id = proofs.holder)
            AND NOT EXISTS (SELECT 1 FROM exchanges WHERE id = proofs.holder))";
