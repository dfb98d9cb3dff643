//! `nutgate audit`: proves on the data itself, live or not, that no money was made or lost.
//!
//! Everything is read from one snapshot. Every balance is added up again from the rows that
//! made it, and the wallet is held against what the ledger owes. One finding is one sentence.

use std::path::Path;

use rusqlite::{Connection, params};

use crate::money::Msat;
use crate::store::{StoreError, Tx, read_only};
use crate::wallet::audit_rows;

/// What the audit saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub accounts: u64,
    pub deposited: Msat,
    /// What accounts can spend or have reserved, and withdrawals whose ecash is not set aside.
    pub owed: Msat,
    /// What the wallet holds to pay that from.
    pub held: Msat,
    /// Every contradiction, in words; empty when all is well.
    pub findings: Vec<String>,
}

/// Audits the database of a data directory.
///
/// # Errors
/// The database cannot be read, which is not the same as a finding.
pub fn run(database: &Path) -> Result<Report, StoreError> {
    let mut connection = read_only(database)?;
    let snapshot = connection.transaction()?;
    let mut report = Report::default();
    ledger(&snapshot, &mut report)?;
    let wallet = audit_rows(&mut Tx::sqlite(&snapshot))?;
    between(&snapshot, &mut report)?;
    report.accounts = count(&snapshot, "SELECT COUNT(*) FROM accounts")?;
    report.deposited = sum(&snapshot, "SELECT SUM(amount) FROM deposits")?;
    report.owed = sum(&snapshot, OWED)?;
    report.held = wallet.backing().unwrap_or_default();
    if !wallet.is_consistent() {
        report.findings.push(format!("the wallet's rows contradict each other: {wallet:?}"));
    }
    if report.held < report.owed {
        let missing = report.owed.saturating_sub(report.held);
        report.findings.push(format!("the wallet holds {missing} less than accounts are owed"));
    }
    Ok(report)
}

/// Each account's columns against the rows they sum up.
fn ledger(connection: &Connection, report: &mut Report) -> Result<(), StoreError> {
    report.findings.extend(accounts_off(connection)?);
    for (finding, sql) in LEDGER_ROWS {
        let rows = count(connection, sql)?;
        if rows > 0 {
            report.findings.push(format!("{rows} {finding}"));
        }
    }
    Ok(())
}

/// The columns that their rows contradict.
pub(super) fn accounts_off(connection: &Connection) -> Result<Vec<String>, StoreError> {
    let mut findings = Vec::new();
    let mut statement = connection.prepare(ACCOUNTS_OFF)?;
    let mut rows = statement.query(params![i64::try_from(FINDINGS_MAX).unwrap_or(i64::MAX)])?;
    while let Some(row) = rows.next()? {
        let (id, column): (String, String) = (row.get(0)?, row.get(1)?);
        let (stored, summed): (i64, i64) = (row.get(2)?, row.get(3)?);
        findings.push(format!(
            "account {id}: {column} is {stored} msat, its rows add up to {summed} msat"
        ));
    }
    Ok(findings)
}

/// The ledger's rows against the wallet's: what came in, and what went out.
fn between(connection: &Connection, report: &mut Report) -> Result<(), StoreError> {
    for (finding, sql) in BETWEEN {
        let rows = count(connection, sql)?;
        if rows > 0 {
            report.findings.push(format!("{rows} {finding}"));
        }
    }
    Ok(())
}

fn count(connection: &Connection, sql: &str) -> Result<u64, StoreError> {
    let rows: i64 = connection.query_row(sql, [], |row| row.get(0))?;
    Ok(rows.unsigned_abs())
}

/// A sum that is no amount counts as the nearest: what makes it so is a finding of its own, and
/// must not keep the others from being told.
fn sum(connection: &Connection, sql: &str) -> Result<Msat, StoreError> {
    let total: Option<i64> = connection.query_row(sql, [], |row| row.get(0))?;
    Ok(Msat::from_i64(total.unwrap_or(0).max(0)).unwrap_or(Msat::MAX))
}

/// Grouped first and joined then, so that the time grows with the rows and not their square.
const ACCOUNTS_OFF: &str = "
WITH came AS MATERIALIZED (SELECT account, SUM(amount) AS deposits FROM deposits GROUP BY account),
left_ AS MATERIALIZED (SELECT account, SUM(amount) AS withdrawn FROM withdrawals
    WHERE state <> 'reverted' GROUP BY account),
used AS MATERIALIZED (SELECT account,
    SUM(CASE WHEN how IS NULL THEN amount ELSE 0 END) AS open,
    SUM(CASE WHEN how IS NULL THEN 0 ELSE spent END) AS ended,
    SUM(CASE WHEN how IS NULL THEN 0 ELSE shortfall END) AS short
    FROM (SELECT account, amount, how, spent, shortfall FROM reservations
        UNION ALL SELECT account, 0, 'forgotten', spent, shortfall FROM forgotten)
    GROUP BY account),
summed AS (SELECT accounts.*, IFNULL(deposits, 0) AS deposits, IFNULL(withdrawn, 0) AS withdrawn,
    IFNULL(open, 0) AS open, IFNULL(ended, 0) AS ended, IFNULL(short, 0) AS short
    FROM accounts LEFT JOIN came ON came.account = id LEFT JOIN left_ ON left_.account = id
    LEFT JOIN used ON used.account = id)
SELECT id, 'deposited', deposited, deposits FROM summed WHERE deposited <> deposits
UNION ALL SELECT id, 'reserved', reserved, open FROM summed WHERE reserved <> open
UNION ALL SELECT id, 'spent', spent, ended FROM summed WHERE spent <> ended
UNION ALL SELECT id, 'shortfall', shortfall, short FROM summed WHERE shortfall <> short
UNION ALL SELECT id, 'refunded', refunded, withdrawn FROM summed WHERE refunded <> withdrawn
UNION ALL SELECT id, 'available', available, deposits - open - ended - withdrawn FROM summed
    WHERE available <> deposits - open - ended - withdrawn OR available < 0
LIMIT ?1";

const LEDGER_ROWS: [(&str, &str); 4] = [
    (
        "deposits belong to no account",
        "SELECT COUNT(*) FROM deposits WHERE account NOT IN (SELECT id FROM accounts)",
    ),
    (
        "reservations belong to no account",
        "SELECT COUNT(*) FROM reservations WHERE account NOT IN (SELECT id FROM accounts)",
    ),
    (
        "withdrawals belong to no account",
        "SELECT COUNT(*) FROM withdrawals WHERE account NOT IN (SELECT id FROM accounts)",
    ),
    (
        "ended reservations whose parts are not what was reserved",
        "SELECT COUNT(*) FROM reservations WHERE how IS NOT NULL AND (
            (spent <= amount AND spent + returned <> amount) OR (spent > amount AND returned <> 0)
            OR (how = 'released' AND spent <> 0))",
    ),
];

const BETWEEN: [(&str, &str); 5] = [
    (
        "deposits without the redemption that brought them, or of another amount",
        "SELECT COUNT(*) FROM deposits LEFT JOIN redemptions USING (id)
         WHERE redemptions.id IS NULL OR redemptions.amount_msat <> deposits.amount
            OR redemptions.account <> deposits.account
            OR redemptions.state NOT IN ('redeemed', 'credited')",
    ),
    (
        "credited redemptions without a deposit",
        "SELECT COUNT(*) FROM redemptions WHERE state = 'credited'
            AND id NOT IN (SELECT id FROM deposits)",
    ),
    (
        "withdrawals whose ecash is of another amount, account or mint",
        "SELECT COUNT(*) FROM withdrawals JOIN outgoing USING (id)
         WHERE outgoing.amount_msat <> withdrawals.amount OR withdrawals.state = 'reverted'
            OR outgoing.account <> withdrawals.account
            OR outgoing.unit <> withdrawals.unit
            OR (outgoing.mint <> withdrawals.mint AND NOT EXISTS (SELECT 1 FROM payments
                WHERE withdrawals.mint = 'lightning:' || payments.id
                    AND payments.withdrawal = withdrawals.id AND payments.mint = outgoing.mint))",
    ),
    (
        "committed withdrawals without ecash",
        "SELECT COUNT(*) FROM withdrawals WHERE state = 'committed'
            AND id NOT IN (SELECT id FROM outgoing WHERE state <> 'issuing')",
    ),
    (
        "tokens given out that no withdrawal paid for",
        "SELECT COUNT(*) FROM outgoing WHERE id NOT IN (SELECT id FROM withdrawals)",
    ),
];

const OWED: &str = "
SELECT (SELECT IFNULL(SUM(available + reserved), 0) FROM accounts)
     + (SELECT IFNULL(SUM(amount), 0) FROM withdrawals WHERE state = 'begun'
            AND id NOT IN (SELECT id FROM outgoing WHERE state <> 'issuing'))";

/// Contradictions told one by one; more of them say nothing new.
const FINDINGS_MAX: usize = 100;
