//! The ledger's rows: how a [`Book`] is paged in from SQLite and written through to it.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::book::{Book, Held, Touched};
use super::{Account, Deposit, Ended, Receipt, Record, Withdrawal, WithdrawalState};
use crate::clock::UnixMs;
use crate::ids::{AccountId, DepositId, ReservationId, WithdrawalId};
use crate::money::Msat;
use crate::store::StoreError;

/// Safe to run on every start. The checks repeat the book's rules, so that a bug of ours fails
/// a commit instead of writing a wrong balance.
pub const SCHEMA: &str = "
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
    CHECK (deposited = available + reserved + spent + refunded)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS reservations (
    id TEXT PRIMARY KEY,
    account TEXT NOT NULL,
    amount INTEGER NOT NULL CHECK (amount >= 0),
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
    cached_input_tokens INTEGER NOT NULL DEFAULT 0,
    output_tokens INTEGER NOT NULL DEFAULT 0,
    written_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS reservations_open ON reservations (account) WHERE how IS NULL;
CREATE INDEX IF NOT EXISTS reservations_due ON reservations (deadline_ms) WHERE how IS NULL;
CREATE TABLE IF NOT EXISTS deposits (
    id TEXT PRIMARY KEY,
    account TEXT NOT NULL,
    amount INTEGER NOT NULL CHECK (amount >= 0),
    written_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS withdrawals (
    id TEXT PRIMARY KEY,
    account TEXT NOT NULL,
    amount INTEGER NOT NULL CHECK (amount > 0),
    mint TEXT NOT NULL,
    unit TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('begun', 'committed', 'reverted')),
    written_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS withdrawals_begun ON withdrawals (written_ms) WHERE state = 'begun';
";

/// Brings an account and its open reservations into the book.
pub(super) fn load_account(
    connection: &Connection,
    book: &mut Book,
    id: &AccountId,
) -> Result<(), StoreError> {
    if book.accounts.contains_key(id) {
        return Ok(());
    }
    let mut account = connection
        .prepare_cached(
            "SELECT deposited, available, reserved, spent, refunded, shortfall, requests,
                    withdrawals FROM accounts WHERE id = ?1",
        )?
        .query_row([id.as_str()], account_of)
        .optional()?;
    let Some(account) = &mut account else { return Ok(()) };
    let mut statement = connection
        .prepare_cached("SELECT * FROM reservations WHERE account = ?1 AND how IS NULL")?;
    let mut rows = statement.query([id.as_str()])?;
    while let Some(row) = rows.next()? {
        let (id, held) = held_of(row)?;
        account.open_reservations = account.open_reservations.saturating_add(1);
        book.reservations.insert(id, held);
    }
    book.accounts.insert(id.clone(), account.clone());
    Ok(())
}

/// Brings a reservation, ended or not, and its account into the book.
pub(super) fn load_reservation(
    connection: &Connection,
    book: &mut Book,
    id: &ReservationId,
) -> Result<(), StoreError> {
    if !book.reservations.contains_key(id) {
        let found = connection
            .prepare_cached("SELECT * FROM reservations WHERE id = ?1")?
            .query_row([id.as_str()], held_of)
            .optional()?;
        let Some((id, held)) = found else { return Ok(()) };
        book.reservations.insert(id, held);
    }
    let owner = book.reservations.get(id).map(|held| held.account.clone());
    owner.map_or(Ok(()), |owner| load_account(connection, book, &owner))
}

pub(super) fn load_deposit(
    connection: &Connection,
    book: &mut Book,
    id: &DepositId,
) -> Result<(), StoreError> {
    let found = connection
        .prepare_cached("SELECT account, amount FROM deposits WHERE id = ?1")?
        .query_row([id.as_str()], |row| {
            Ok(Deposit {
                id: id.clone(),
                account: AccountId::stored(row.get::<_, String>(0)?),
                amount: amount(row, 1)?,
            })
        })
        .optional()?;
    let Some(deposit) = found else { return Ok(()) };
    load_account(connection, book, &deposit.account)?;
    book.deposits.insert(id.clone(), deposit);
    Ok(())
}

pub(super) fn load_withdrawal(
    connection: &Connection,
    book: &mut Book,
    id: &WithdrawalId,
) -> Result<(), StoreError> {
    let found = connection
        .prepare_cached("SELECT * FROM withdrawals WHERE id = ?1")?
        .query_row([id.as_str()], withdrawal_of)
        .optional()?;
    let Some(withdrawal) = found else { return Ok(()) };
    load_account(connection, book, &withdrawal.account)?;
    book.withdrawals.insert(id.clone(), withdrawal);
    Ok(())
}

/// Open reservations whose deadline has passed, the longest overdue first.
pub(super) fn due(
    connection: &Connection,
    now: UnixMs,
    most: usize,
) -> Result<Vec<ReservationId>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT id FROM reservations WHERE how IS NULL AND deadline_ms <= ?1
         ORDER BY deadline_ms LIMIT ?2",
    )?;
    let ids = statement
        .query_map(params![now.to_i64(), i64::try_from(most).unwrap_or(i64::MAX)], |row| {
            Ok(ReservationId::stored(row.get::<_, String>(0)?))
        })?
        .collect::<Result<_, _>>()?;
    Ok(ids)
}

pub(super) fn withdrawals_begun(connection: &Connection) -> Result<Vec<Withdrawal>, StoreError> {
    let mut statement = connection
        .prepare_cached("SELECT * FROM withdrawals WHERE state = 'begun' ORDER BY written_ms")?;
    let found = statement.query_map([], withdrawal_of)?.collect::<Result<_, _>>()?;
    Ok(found)
}

/// Writes every touched row as the book now has it.
pub(super) fn save(
    connection: &Connection,
    book: &Book,
    touched: &Touched,
    now: UnixMs,
) -> Result<(), StoreError> {
    for id in &touched.accounts {
        if let Some(account) = book.accounts.get(id) {
            save_account(connection, id, account)?;
        }
    }
    for id in &touched.reservations {
        if let Some(held) = book.reservations.get(id) {
            save_reservation(connection, id, held, now)?;
        }
    }
    for id in &touched.deposits {
        if let Some(deposit) = book.deposits.get(id) {
            let row = params![
                id.as_str(),
                deposit.account.as_str(),
                deposit.amount.to_i64(),
                now.to_i64()
            ];
            connection
                .prepare_cached("INSERT INTO deposits VALUES (?1, ?2, ?3, ?4)")?
                .execute(row)?;
        }
    }
    for id in &touched.withdrawals {
        if let Some(withdrawal) = book.withdrawals.get(id) {
            save_withdrawal(connection, withdrawal, now)?;
        }
    }
    Ok(())
}

fn save_account(
    connection: &Connection,
    id: &AccountId,
    account: &Account,
) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "INSERT INTO accounts VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
             ON CONFLICT (id) DO UPDATE SET deposited = ?2, available = ?3, reserved = ?4,
             spent = ?5, refunded = ?6, shortfall = ?7, requests = ?8, withdrawals = ?9",
        )?
        .execute(params![
            id.as_str(),
            account.deposited.to_i64(),
            account.available.to_i64(),
            account.reserved.to_i64(),
            account.spent.to_i64(),
            account.refunded.to_i64(),
            account.shortfall.to_i64(),
            account.requests.cast_signed(),
            account.withdrawals.cast_signed(),
        ])?;
    Ok(())
}

fn save_reservation(
    connection: &Connection,
    id: &ReservationId,
    held: &Held,
    now: UnixMs,
) -> Result<(), StoreError> {
    let end = held.end.map(|receipt| {
        let parts = [receipt.spent, receipt.returned, receipt.shortfall, receipt.available];
        (receipt.how.name(), parts.map(Msat::to_i64))
    });
    let (how, [spent, returned, shortfall, available]) =
        end.map_or((None, [0; 4]), |(how, parts)| (Some(how), parts));
    connection
        .prepare_cached(
            "INSERT INTO reservations VALUES
             (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)
             ON CONFLICT (id) DO UPDATE SET deadline_ms = ?4, accrued = ?5, how = ?6, spent = ?7,
             returned = ?8, shortfall = ?9, available_after = ?10, request_id = ?11, model = ?12,
             usage_source = ?13, input_tokens = ?14, cached_input_tokens = ?15,
             output_tokens = ?16, written_ms = ?17",
        )?
        .execute(params![
            id.as_str(),
            held.account.as_str(),
            held.amount.to_i64(),
            held.deadline.to_i64(),
            held.accrued.to_i64(),
            how,
            spent,
            returned,
            shortfall,
            available,
            held.record.request_id,
            held.record.model,
            held.record.usage_source,
            held.record.input_tokens.cast_signed(),
            held.record.cached_input_tokens.cast_signed(),
            held.record.output_tokens.cast_signed(),
            now.to_i64(),
        ])?;
    Ok(())
}

fn save_withdrawal(
    connection: &Connection,
    withdrawal: &Withdrawal,
    now: UnixMs,
) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "INSERT INTO withdrawals VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT (id) DO UPDATE SET account = ?2, amount = ?3, mint = ?4, unit = ?5,
             state = ?6",
        )?
        .execute(params![
            withdrawal.id.as_str(),
            withdrawal.account.as_str(),
            withdrawal.amount.to_i64(),
            withdrawal.mint,
            withdrawal.unit,
            state_name(withdrawal.state),
            now.to_i64(),
        ])?;
    Ok(())
}

fn account_of(row: &Row<'_>) -> rusqlite::Result<Account> {
    Ok(Account {
        deposited: amount(row, 0)?,
        available: amount(row, 1)?,
        reserved: amount(row, 2)?,
        spent: amount(row, 3)?,
        refunded: amount(row, 4)?,
        shortfall: amount(row, 5)?,
        requests: row.get::<_, i64>(6)?.cast_unsigned(),
        withdrawals: row.get::<_, i64>(7)?.cast_unsigned(),
        open_reservations: 0,
    })
}

fn held_of(row: &Row<'_>) -> rusqlite::Result<(ReservationId, Held)> {
    let how: Option<String> = row.get("how")?;
    let end = match how.as_deref().and_then(Ended::named) {
        None => None,
        Some(how) => Some(Receipt {
            spent: amount(row, "spent")?,
            returned: amount(row, "returned")?,
            shortfall: amount(row, "shortfall")?,
            available: amount(row, "available_after")?,
            how,
        }),
    };
    let held = Held {
        account: AccountId::stored(row.get::<_, String>("account")?),
        amount: amount(row, "amount")?,
        deadline: UnixMs::from_i64(row.get("deadline_ms")?),
        accrued: amount(row, "accrued")?,
        end,
        record: Record::default(),
    };
    Ok((ReservationId::stored(row.get::<_, String>("id")?), held))
}

fn withdrawal_of(row: &Row<'_>) -> rusqlite::Result<Withdrawal> {
    let state: String = row.get("state")?;
    Ok(Withdrawal {
        id: WithdrawalId::stored(row.get::<_, String>("id")?),
        account: AccountId::stored(row.get::<_, String>("account")?),
        amount: amount(row, "amount")?,
        mint: row.get("mint")?,
        unit: row.get("unit")?,
        state: match state.as_str() {
            "begun" => WithdrawalState::Begun,
            "committed" => WithdrawalState::Committed,
            _ => WithdrawalState::Reverted,
        },
    })
}

/// An amount, refused when the row holds what no amount can be.
fn amount(row: &Row<'_>, column: impl rusqlite::RowIndex + Copy) -> rusqlite::Result<Msat> {
    let value: i64 = row.get(column)?;
    Msat::from_i64(value).ok_or(rusqlite::Error::IntegralValueOutOfRange(0, value))
}

const fn state_name(state: WithdrawalState) -> &'static str {
    match state {
        WithdrawalState::Begun => "begun",
        WithdrawalState::Committed => "committed",
        WithdrawalState::Reverted => "reverted",
    }
}
