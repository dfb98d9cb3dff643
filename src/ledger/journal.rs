//! The ledger's rows: how a [`Book`] is paged in from SQLite and written through to it.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::book::{Book, Held, Touched};
use super::terms::{Cap, Reset, Terms, Usage, Window};
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
    CHECK (deposited = available + reserved + spent + refunded)
) STRICT, WITHOUT ROWID;
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

/// Brings an account, its parent and the open reservations of whoever pays into the book.
pub(super) fn load_account(
    connection: &Connection,
    book: &mut Book,
    id: &AccountId,
) -> Result<(), StoreError> {
    if book.accounts.contains_key(id) {
        return Ok(());
    }
    let account = connection
        .prepare_cached("SELECT * FROM accounts WHERE id = ?1")?
        .query_row([id.as_str()], account_of)
        .optional()?;
    let Some(account) = account else { return Ok(()) };
    if let Some(parent) = &account.parent {
        load_account(connection, book, parent)?;
    }
    let mut statement = connection
        .prepare_cached("SELECT * FROM reservations WHERE account = ?1 AND how IS NULL")?;
    let mut rows = statement.query([id.as_str()])?;
    while let Some(row) = rows.next()? {
        let (id, held) = held_of(row)?;
        book.reservations.insert(id, held);
    }
    book.accounts.insert(id.clone(), account);
    Ok(())
}

/// Brings a reservation, ended or not, its key and who pays into the book.
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
    let owners = book.reservations.get(id).map(|held| [held.account.clone(), held.key.clone()]);
    owners.into_iter().flatten().try_for_each(|owner| load_account(connection, book, &owner))
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
    let Account { terms, usage, .. } = account;
    let number = |limit: Option<u64>| limit.map(u64::cast_signed);
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO accounts VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11,
             ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26, ?27)",
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
            account.open_reservations.cast_signed(),
            account.parent.as_ref().map(AccountId::as_str),
            terms.expires.map(UnixMs::to_i64),
            terms.cap.map(|cap| cap.amount.to_i64()),
            terms.cap.map(|cap| cap.reset.name()),
            number(terms.requests_per_minute),
            number(terms.tokens_per_hour),
            number(terms.concurrent),
            usage.open.cast_signed(),
            usage.held.to_i64(),
            usage.tokens_held.cast_signed(),
            usage.spent.to_i64(),
            usage.spent_before.to_i64(),
            usage.period.cast_signed(),
            usage.requests.start.to_i64(),
            usage.requests.count.cast_signed(),
            usage.tokens.start.to_i64(),
            usage.tokens.count.cast_signed(),
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
             (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)
             ON CONFLICT (id) DO UPDATE SET amount = ?4, deadline_ms = ?6, accrued = ?7, how = ?8,
             spent = ?9, returned = ?10, shortfall = ?11, available_after = ?12,
             request_id = ?13, model = ?14, usage_source = ?15, input_tokens = ?16,
             cached_input_tokens = ?17, output_tokens = ?18, written_ms = ?19",
        )?
        .execute(params![
            id.as_str(),
            held.account.as_str(),
            held.key.as_str(),
            held.amount.to_i64(),
            held.tokens.cast_signed(),
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
    let count = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
    let limit =
        |column| row.get::<_, Option<i64>>(column).map(|limit| limit.map(i64::cast_unsigned));
    let time = |column| row.get(column).map(UnixMs::from_i64);
    let reset: Option<String> = row.get("cap_reset")?;
    let cap = match reset.as_deref().and_then(Reset::named) {
        None => None,
        Some(reset) => Some(Cap { amount: amount(row, "cap")?, reset }),
    };
    Ok(Account {
        deposited: amount(row, "deposited")?,
        available: amount(row, "available")?,
        reserved: amount(row, "reserved")?,
        spent: amount(row, "spent")?,
        refunded: amount(row, "refunded")?,
        shortfall: amount(row, "shortfall")?,
        requests: count("requests")?,
        withdrawals: count("withdrawals")?,
        open_reservations: count("open_reservations")?,
        parent: row.get::<_, Option<String>>("parent")?.map(AccountId::stored),
        terms: Terms {
            expires: row.get::<_, Option<i64>>("expires_ms")?.map(UnixMs::from_i64),
            cap,
            requests_per_minute: limit("requests_per_minute")?,
            tokens_per_hour: limit("tokens_per_hour")?,
            concurrent: limit("concurrent")?,
        },
        usage: Usage {
            open: count("key_open")?,
            held: amount(row, "key_held")?,
            tokens_held: count("key_tokens_held")?,
            spent: amount(row, "key_spent")?,
            spent_before: amount(row, "key_spent_before")?,
            period: count("period")?,
            requests: Window { start: time("requests_start_ms")?, count: count("requests_count")? },
            tokens: Window { start: time("tokens_start_ms")?, count: count("tokens_count")? },
        },
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
        key: AccountId::stored(row.get::<_, String>("key")?),
        amount: amount(row, "amount")?,
        tokens: row.get::<_, i64>("tokens")?.cast_unsigned(),
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
