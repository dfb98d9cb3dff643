//! Histories as one machine keeps them: read from the rows of what happened, as far back as they
//! are told, and forgotten behind that.
//!
//! What came in and what left is never deleted, only not told any more: a repetition must find it.
//! A request that ended is deleted when neither its payer's history nor its key's tells it and no
//! repetition asks for its receipt; what it cost stays in `forgotten`, so that the books add up.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::book::Place;
use super::history::Retention;
use super::journal::{amount, place_of, record_of};
use super::redis::RECEIPTS_KEPT;
use super::{Cursor, Ended, Entry, Page, What};
use crate::clock::UnixMs;
use crate::ids::{AccountId, DepositId, ReservationId, WithdrawalId};
use crate::store::StoreError;

/// At most `limit` entries of an account's history, as far back as it is told. See [`HISTORY`].
pub(super) fn history(
    connection: &Connection,
    account: &AccountId,
    before: Option<Cursor>,
    limit: u32,
    retention: Retention,
    now: UnixMs,
) -> Result<Page, StoreError> {
    let limit = Page::limit(limit);
    let before = before.map_or(i64::MAX, |cursor| cursor.nth().cast_signed());
    let entries = connection
        .prepare_cached("SELECT entries FROM accounts WHERE id = ?1")?
        .query_row([account.as_str()], |row| row.get::<_, i64>(0))
        .optional()?;
    let untold = entries.unwrap_or(0).saturating_sub(retention.entries_max.cast_signed());
    let since = retention.since(now).to_i64();
    let mut statement = connection.prepare_cached(HISTORY)?;
    let values = params![account.as_str(), before, limit.saturating_add(1), untold, since];
    let found = statement.query_map(values, entry_of)?.collect::<Result<_, _>>()?;
    Ok(Page::of(found, limit))
}

/// Looks at the requests after `last`, in the order of their ids, and forgets those that nobody is
/// told of any more: a bounded number of them. Answers where to go on; nothing at the end.
pub(super) fn forget(
    connection: &Connection,
    last: &str,
    retention: Retention,
    now: UnixMs,
) -> Result<Option<String>, StoreError> {
    let most = LOOKED_AT_ONCE_MAX;
    let last_sql = "SELECT id FROM reservations WHERE id > ?1 ORDER BY id LIMIT 1 OFFSET ?2";
    let end = connection
        .prepare_cached(last_sql)?
        .query_row(params![last, most - 1], |row| row.get::<_, String>(0))
        .optional()?;
    let told = retention.since(now).to_i64();
    let asked_for = now.0.saturating_sub(millis(RECEIPTS_KEPT)).cast_signed();
    let upto = end.clone().unwrap_or_else(|| LAST_ID.to_owned());
    let values = params![last, upto, told, retention.entries_max.cast_signed(), asked_for];
    connection.prepare_cached(FORGET_SUMS)?.execute(values)?;
    let values = params![last, upto, told, retention.entries_max.cast_signed(), asked_for];
    connection.prepare_cached(FORGET)?.execute(values)?;
    Ok(end)
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// One row of [`HISTORY`], with its number.
fn entry_of(row: &Row<'_>) -> rusqlite::Result<(u64, Entry)> {
    let (kind, id): (String, String) = (row.get("kind")?, row.get("id")?);
    let Place { nth, at } = place_of(row)?;
    let amount = |column| amount(row, column);
    let what = match kind.as_str() {
        "deposit" => What::Deposit { id: DepositId::stored(id), amount: amount("amount")? },
        "withdrawal" => {
            What::Withdrawal { id: WithdrawalId::stored(id), amount: amount("amount")? }
        }
        _ => What::Request {
            id: ReservationId::stored(id),
            reserved: amount("amount")?,
            spent: amount("spent")?,
            shortfall: amount("shortfall")?,
            how: Ended::named(&row.get::<_, String>("how")?).unwrap_or(Ended::Expired),
            record: record_of(row)?,
        },
    };
    Ok((nth, Entry { at, what }))
}

/// Each part is in the order of an index, so that SQLite merges them and reads what it answers,
/// one row of each part more at most. The third is a payer's requests, the last a child's.
const HISTORY: &str = "
SELECT nth, written_ms, 'deposit' AS kind, id, amount, 0 AS spent, 0 AS shortfall, '' AS how,
    '' AS request_id, '' AS route, '' AS model, '' AS usage_source, 0 AS input_tokens,
    0 AS output_tokens, '' AS usage
    FROM deposits WHERE account = ?1 AND nth < ?2 AND nth > ?4 AND written_ms >= ?5
UNION ALL SELECT nth, written_ms, 'withdrawal', id, amount, 0, 0, '', '', '', '', '', 0, 0, ''
    FROM withdrawals WHERE account = ?1 AND nth < ?2 AND nth > ?4 AND written_ms >= ?5
        AND state <> 'reverted'
UNION ALL SELECT nth, written_ms, 'request', id, amount, spent, shortfall, how, request_id, route,
    model, usage_source, input_tokens, output_tokens, usage
    FROM reservations WHERE account = ?1 AND nth > 0 AND nth < ?2 AND nth > ?4
        AND written_ms >= ?5
UNION ALL SELECT key_nth, written_ms, 'request', id, amount, spent, shortfall, how, request_id,
    route, model, usage_source, input_tokens, output_tokens, usage
    FROM reservations WHERE key = ?1 AND key_nth > 0 AND key_nth < ?2 AND key_nth > ?4
        AND written_ms >= ?5
ORDER BY nth DESC LIMIT ?3";

/// Requests in a range of ids that no history tells and no repetition asks for. The order of the
/// tables is the one to read them in.
macro_rules! untold {
    () => {
        "FROM reservations AS old CROSS JOIN accounts AS payer ON payer.id = old.account
         LEFT JOIN accounts AS child ON child.id = old.key AND old.key_nth > 0
         WHERE old.id > ?1 AND old.id <= ?2 AND old.how IS NOT NULL AND old.written_ms < ?5
             AND (old.written_ms < ?3 OR (old.nth <= payer.entries - ?4
                 AND (old.key_nth = 0 OR old.key_nth <= child.entries - ?4)))"
    };
}

const FORGET_SUMS: &str = concat!(
    "INSERT INTO forgotten (account, spent, shortfall)
     SELECT old.account, SUM(old.spent), SUM(old.shortfall) ",
    untold!(),
    " GROUP BY old.account
     ON CONFLICT (account) DO UPDATE SET spent = spent + excluded.spent,
         shortfall = shortfall + excluded.shortfall"
);

const FORGET: &str =
    concat!("DELETE FROM reservations WHERE id IN (SELECT old.id ", untold!(), ")");

/// Behind every id of ours.
const LAST_ID: &str = "~";

/// Requests looked at in one step, so that it never holds the writer for long.
pub(super) const LOOKED_AT_ONCE_MAX: i64 = 500;

#[cfg(test)]
#[path = "history_rows_tests.rs"]
mod tests;
