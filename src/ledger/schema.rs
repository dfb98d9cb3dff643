//! The ledger's tables on one machine, those of its spool, and the way there from the tables of
//! an earlier version.

use rusqlite::Connection;

use crate::store::StoreError;

/// Makes the ledger's tables, or what an earlier version left into them. A process that dies in
/// the middle of it has changed nothing.
pub(super) fn prepare(connection: &Connection) -> Result<(), StoreError> {
    if has_column(connection, "reservations", OF_THE_FIRST)? {
        connection.execute_batch(HISTORY_CAME)?;
    }
    Ok(connection.execute_batch(SCHEMA)?)
}

/// The same for the spool.
pub(super) fn prepare_spool(connection: &Connection) -> Result<(), StoreError> {
    if has_column(connection, "ends", OF_THE_FIRST)? {
        connection.execute_batch(USAGE_CAME)?;
    }
    Ok(connection.execute_batch(SPOOL)?)
}

fn has_column(connection: &Connection, table: &str, column: &str) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM pragma_table_info(?1) WHERE name = ?2)";
    Ok(connection.query_row(sql, [table, column], |row| row.get(0))?)
}

/// A column that only tables of the first version have.
const OF_THE_FIRST: &str = "cached_input_tokens";

/// Safe to run on every start. What a later version added stands at a table's end, which is
/// where it comes to stand in a table of an earlier one. The checks repeat the book's rules, so
/// that a bug of ours fails a commit instead of writing a wrong balance.
const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS accounts (
    id TEXT PRIMARY KEY,
    deposited INTEGER NOT NULL,
    available INTEGER NOT NULL CHECK (available >= 0),
    reserved INTEGER NOT NULL CHECK (reserved >= 0),
    spent INTEGER NOT NULL CHECK (spent >= 0),
    refunded INTEGER NOT NULL CHECK (refunded >= 0),
    shortfall INTEGER NOT NULL CHECK (shortfall >= 0),
    requests INTEGER NOT NULL,
    withdrawals INTEGER NOT NULL,
    open_reservations INTEGER NOT NULL,
    parent TEXT,
    expires_ms INTEGER,
    cap INTEGER,
    cap_reset TEXT,
    requests_per_minute INTEGER,
    tokens_per_hour INTEGER,
    concurrent INTEGER,
    key_open INTEGER NOT NULL CHECK (key_open >= 0),
    key_held INTEGER NOT NULL CHECK (key_held >= 0),
    key_tokens_held INTEGER NOT NULL CHECK (key_tokens_held >= 0),
    key_spent INTEGER NOT NULL CHECK (key_spent >= 0),
    key_spent_before INTEGER NOT NULL,
    period INTEGER NOT NULL,
    requests_start_ms INTEGER NOT NULL,
    requests_count INTEGER NOT NULL,
    tokens_start_ms INTEGER NOT NULL,
    tokens_count INTEGER NOT NULL,
    entries INTEGER NOT NULL DEFAULT 0,
    CHECK (deposited = available + reserved + spent + refunded)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS accounts_of ON accounts (parent, id)
    WHERE parent IS NOT NULL AND expires_ms IS NOT 0;
CREATE TABLE IF NOT EXISTS reservations (
    id TEXT PRIMARY KEY,
    account TEXT NOT NULL,
    key TEXT NOT NULL,
    amount INTEGER NOT NULL CHECK (amount >= 0),
    tokens INTEGER NOT NULL,
    deadline_ms INTEGER NOT NULL,
    accrued INTEGER NOT NULL CHECK (accrued >= 0),
    how TEXT CHECK (how IN ('settled', 'released', 'expired')),
    spent INTEGER NOT NULL DEFAULT 0 CHECK (spent >= 0),
    returned INTEGER NOT NULL DEFAULT 0 CHECK (returned >= 0),
    shortfall INTEGER NOT NULL DEFAULT 0 CHECK (shortfall >= 0),
    available_after INTEGER NOT NULL DEFAULT 0,
    request_id TEXT NOT NULL DEFAULT '',
    model TEXT NOT NULL DEFAULT '',
    usage_source TEXT NOT NULL DEFAULT '',
    input_tokens INTEGER NOT NULL DEFAULT 0,
    output_tokens INTEGER NOT NULL DEFAULT 0,
    written_ms INTEGER NOT NULL,
    route TEXT NOT NULL DEFAULT '',
    usage TEXT NOT NULL DEFAULT '',
    nth INTEGER NOT NULL DEFAULT 0,
    key_nth INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS reservations_open ON reservations (account) WHERE how IS NULL;
CREATE INDEX IF NOT EXISTS reservations_due ON reservations (deadline_ms) WHERE how IS NULL;
CREATE INDEX IF NOT EXISTS reservations_of ON reservations (account, nth) WHERE nth > 0;
CREATE INDEX IF NOT EXISTS reservations_through ON reservations (key, key_nth) WHERE key_nth > 0;
CREATE TABLE IF NOT EXISTS deposits (
    id TEXT PRIMARY KEY,
    account TEXT NOT NULL,
    amount INTEGER NOT NULL CHECK (amount >= 0),
    written_ms INTEGER NOT NULL,
    nth INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS deposits_of ON deposits (account, nth);
CREATE TABLE IF NOT EXISTS forgotten (
    account TEXT PRIMARY KEY,
    spent INTEGER NOT NULL CHECK (spent >= 0),
    shortfall INTEGER NOT NULL CHECK (shortfall >= 0)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS withdrawals (
    id TEXT PRIMARY KEY,
    account TEXT NOT NULL,
    amount INTEGER NOT NULL CHECK (amount > 0),
    mint TEXT NOT NULL,
    unit TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('begun', 'committed', 'reverted')),
    written_ms INTEGER NOT NULL,
    nth INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS withdrawals_of ON withdrawals (account, nth)
    WHERE state <> 'reverted';
CREATE INDEX IF NOT EXISTS withdrawals_begun ON withdrawals (written_ms) WHERE state = 'begun';
CREATE TABLE IF NOT EXISTS once (
    id TEXT PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    attempt TEXT NOT NULL,
    first TEXT NOT NULL,
    until_ms INTEGER NOT NULL,
    lease_ms INTEGER,
    answer BLOB
) STRICT;
CREATE INDEX IF NOT EXISTS once_until ON once (until_ms);
CREATE TABLE IF NOT EXISTS once_kept (
    account TEXT PRIMARY KEY,
    start_ms INTEGER NOT NULL,
    count INTEGER NOT NULL CHECK (count >= 0)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS once_kept_since ON once_kept (start_ms);
";

/// What was counted becomes one text, and everything that has happened gets its number in the
/// history of its account, in the order in which it was written.
const HISTORY_CAME: &str = "
BEGIN IMMEDIATE;
ALTER TABLE accounts ADD COLUMN entries INTEGER NOT NULL DEFAULT 0;
ALTER TABLE reservations ADD COLUMN route TEXT NOT NULL DEFAULT '';
ALTER TABLE reservations ADD COLUMN usage TEXT NOT NULL DEFAULT '';
ALTER TABLE reservations ADD COLUMN nth INTEGER NOT NULL DEFAULT 0;
ALTER TABLE reservations ADD COLUMN key_nth INTEGER NOT NULL DEFAULT 0;
ALTER TABLE deposits ADD COLUMN nth INTEGER NOT NULL DEFAULT 0;
ALTER TABLE withdrawals ADD COLUMN nth INTEGER NOT NULL DEFAULT 0;
CREATE TEMP TABLE placed (account TEXT, id TEXT, nth INTEGER, PRIMARY KEY (account, id));
INSERT INTO placed SELECT account, id,
    row_number() OVER (PARTITION BY account ORDER BY written_ms, id) FROM (
        SELECT account, id, written_ms FROM deposits
        UNION ALL SELECT account, id, written_ms FROM withdrawals WHERE state <> 'reverted'
        UNION ALL SELECT account, id, written_ms FROM reservations WHERE how IS NOT NULL
        UNION ALL SELECT key, id, written_ms FROM reservations
            WHERE how IS NOT NULL AND key <> account);
UPDATE deposits SET nth = placed.nth FROM placed
    WHERE placed.account = deposits.account AND placed.id = deposits.id;
UPDATE withdrawals SET nth = placed.nth FROM placed
    WHERE placed.account = withdrawals.account AND placed.id = withdrawals.id;
UPDATE reservations SET nth = placed.nth,
    usage = IFNULL(NULLIF(json_patch('{}', json_object(
        'input_tokens', NULLIF(input_tokens, 0),
        'cached_input_tokens', NULLIF(cached_input_tokens, 0),
        'output_tokens', NULLIF(output_tokens, 0))), '{}'), '') FROM placed
    WHERE placed.account = reservations.account AND placed.id = reservations.id;
UPDATE reservations SET key_nth = placed.nth FROM placed
    WHERE key <> reservations.account AND placed.account = key AND placed.id = reservations.id;
UPDATE accounts SET entries = counted.entries
    FROM (SELECT account, COUNT(*) AS entries FROM placed GROUP BY account) AS counted
    WHERE counted.account = accounts.id;
DROP TABLE placed;
ALTER TABLE reservations DROP COLUMN cached_input_tokens;
COMMIT;";

const SPOOL: &str = "
CREATE TABLE IF NOT EXISTS ends (
    nth INTEGER PRIMARY KEY,
    reservation TEXT NOT NULL UNIQUE,
    account TEXT NOT NULL,
    amount INTEGER NOT NULL,
    cost INTEGER,
    request_id TEXT NOT NULL,
    model TEXT NOT NULL,
    usage_source TEXT NOT NULL,
    input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    since INTEGER NOT NULL,
    route TEXT NOT NULL DEFAULT '',
    usage TEXT NOT NULL DEFAULT ''
) STRICT;";

const USAGE_CAME: &str = "
BEGIN IMMEDIATE;
ALTER TABLE ends ADD COLUMN route TEXT NOT NULL DEFAULT '';
ALTER TABLE ends ADD COLUMN usage TEXT NOT NULL DEFAULT '';
UPDATE ends SET usage = json_patch('{}', json_object(
    'input_tokens', NULLIF(input_tokens, 0),
    'cached_input_tokens', NULLIF(cached_input_tokens, 0),
    'output_tokens', NULLIF(output_tokens, 0))) WHERE cost IS NOT NULL;
ALTER TABLE ends DROP COLUMN cached_input_tokens;
COMMIT;";

#[cfg(test)]
#[path = "schema_tests.rs"]
mod tests;
