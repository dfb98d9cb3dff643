//! The rows of requests that are made once.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::book::{Book, Touched};
use super::journal::load_reservation;
use super::once::{KEPT_WINDOW, Remembered};
use super::terms::Window;
use crate::clock::UnixMs;
use crate::ids::{AccountId, AttemptId, OnceId, ReservationId};
use crate::store::StoreError;

/// Brings what is remembered under a key into the book, and the reservation that it may name.
pub(super) fn load_once(
    connection: &Connection,
    book: &mut Book,
    id: &OnceId,
) -> Result<(), StoreError> {
    let found = connection
        .prepare_cached("SELECT * FROM once WHERE id = ?1")?
        .query_row([id.as_str()], remembered_of)
        .optional()?;
    let Some(remembered) = found else { return Ok(()) };
    if remembered.lease.is_none() {
        let reservation = ReservationId::stored(remembered.attempt.as_str());
        load_reservation(connection, book, &reservation)?;
    }
    book.once.insert(id.clone(), remembered);
    Ok(())
}

/// Brings how much an account has kept into the book.
pub(super) fn load_kept(
    connection: &Connection,
    book: &mut Book,
    account: &AccountId,
) -> Result<(), StoreError> {
    let found = connection
        .prepare_cached("SELECT start_ms, count FROM once_kept WHERE account = ?1")?
        .query_row([account.as_str()], |row| {
            let start = UnixMs::from_i64(row.get(0)?);
            Ok(Window { start, count: row.get::<_, i64>(1)?.cast_unsigned() })
        })
        .optional()?;
    book.kept.extend(found.map(|window| (account.clone(), window)));
    Ok(())
}

pub(super) fn save_once(
    connection: &Connection,
    book: &Book,
    touched: &Touched,
) -> Result<(), StoreError> {
    for id in &touched.once {
        match book.once.get(id) {
            Some(remembered) => save_remembered(connection, id, remembered)?,
            None => {
                connection
                    .prepare_cached("DELETE FROM once WHERE id = ?1")?
                    .execute([id.as_str()])?;
            }
        }
    }
    for account in &touched.kept {
        if let Some(window) = book.kept.get(account) {
            connection
                .prepare_cached("INSERT OR REPLACE INTO once_kept VALUES (?1, ?2, ?3)")?
                .execute(params![
                    account.as_str(),
                    window.start.to_i64(),
                    window.count.cast_signed()
                ])?;
        }
    }
    Ok(())
}

fn save_remembered(
    connection: &Connection,
    id: &OnceId,
    remembered: &Remembered,
) -> Result<(), StoreError> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO once VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
        .execute(params![
        id.as_str(),
        remembered.fingerprint,
        remembered.attempt.as_str(),
        remembered.first.as_str(),
        remembered.until.to_i64(),
        remembered.lease.map(UnixMs::to_i64),
        remembered.answer,
    ])?;
    Ok(())
}

/// Deletes what nobody is told of any more, a bounded number of it. Only long after that: a clock
/// that was set back must not find that something is gone.
pub(super) fn prune_once(connection: &Connection, now: UnixMs) -> Result<(), StoreError> {
    let before = UnixMs(now.0.saturating_sub(MARGIN_MS));
    connection.prepare_cached(PRUNE_ONCE)?.execute(params![before.to_i64(), PRUNED_AT_ONCE_MAX])?;
    let window = u64::try_from(KEPT_WINDOW.as_millis()).unwrap_or(u64::MAX);
    let before = UnixMs(before.0.saturating_sub(window));
    connection.prepare_cached(PRUNE_KEPT)?.execute(params![before.to_i64(), PRUNED_AT_ONCE_MAX])?;
    Ok(())
}

fn remembered_of(row: &Row<'_>) -> rusqlite::Result<Remembered> {
    Ok(Remembered {
        fingerprint: row.get("fingerprint")?,
        attempt: AttemptId::stored(row.get::<_, String>("attempt")?),
        first: AttemptId::stored(row.get::<_, String>("first")?),
        until: UnixMs::from_i64(row.get("until_ms")?),
        lease: row.get::<_, Option<i64>>("lease_ms")?.map(UnixMs::from_i64),
        answer: row.get("answer")?,
    })
}

const PRUNE_ONCE: &str = "
DELETE FROM once WHERE id IN (SELECT id FROM once WHERE until_ms < ?1 ORDER BY until_ms LIMIT ?2)";

const PRUNE_KEPT: &str = "
DELETE FROM once_kept WHERE account IN
    (SELECT account FROM once_kept WHERE start_ms < ?1 ORDER BY start_ms LIMIT ?2)";

/// A week.
const MARGIN_MS: u64 = 7 * 24 * 3_600_000;

/// So that it never holds the writer for long.
const PRUNED_AT_ONCE_MAX: u32 = 2_000;
