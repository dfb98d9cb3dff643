//! The ledger's rows: how a [`Book`] is paged in from SQLite and written through to it.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::book::{Book, Ending, Held, Place, Placed, Touched};
use super::once_rows::save_once;
use super::terms::{Cap, Reset, Terms, Usage, Window};
use super::{Account, Deposit, Ended, Receipt, Record, UsageSource, Withdrawal, WithdrawalState};
use crate::clock::UnixMs;
use crate::ids::{AccountId, DepositId, ReservationId, WithdrawalId};
use crate::money::Msat;
use crate::store::StoreError;

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

/// Brings an account and its children into the book, and names them: a parent's that were not
/// revoked, in the order of their ids.
pub(super) fn load_family(
    connection: &Connection,
    book: &mut Book,
    id: &AccountId,
) -> Result<Vec<AccountId>, StoreError> {
    load_account(connection, book, id)?;
    let mut statement = connection.prepare_cached(CHILDREN)?;
    let children = statement
        .query_map([id.as_str()], |row| row.get::<_, String>(0).map(AccountId::stored))?
        .collect::<Result<Vec<_>, _>>()?;
    children.iter().try_for_each(|child| load_account(connection, book, child))?;
    Ok(children)
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
        if held.end.is_some() {
            book.touched.ended.insert(id.clone());
        }
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
        .prepare_cached("SELECT * FROM deposits WHERE id = ?1")?
        .query_row([id.as_str()], |row| {
            let what = Deposit {
                id: id.clone(),
                account: AccountId::stored(row.get::<_, String>("account")?),
                amount: amount(row, "amount")?,
            };
            Ok(Placed { what, place: place_of(row)? })
        })
        .optional()?;
    let Some(deposit) = found else { return Ok(()) };
    load_account(connection, book, &deposit.what.account)?;
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
        .query_row([id.as_str()], |row| {
            Ok(Placed { what: withdrawal_of(row)?, place: place_of(row)? })
        })
        .optional()?;
    let Some(withdrawal) = found else { return Ok(()) };
    load_account(connection, book, &withdrawal.what.account)?;
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
        if let Some(Placed { what: deposit, place }) = book.deposits.get(id) {
            let row = params![
                id.as_str(),
                deposit.account.as_str(),
                deposit.amount.to_i64(),
                place.at.to_i64(),
                place.nth.cast_signed(),
            ];
            connection
                .prepare_cached("INSERT INTO deposits VALUES (?1, ?2, ?3, ?4, ?5)")?
                .execute(row)?;
        }
    }
    for id in &touched.withdrawals {
        if let Some(withdrawal) = book.withdrawals.get(id) {
            save_withdrawal(connection, withdrawal)?;
        }
    }
    save_once(connection, book, touched)
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
             ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28)",
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
            account.entries.cast_signed(),
        ])?;
    Ok(())
}

fn save_reservation(
    connection: &Connection,
    id: &ReservationId,
    held: &Held,
    now: UnixMs,
) -> Result<(), StoreError> {
    if let Some(ending) = &held.end {
        return save_ending(connection, id, held, ending);
    }
    connection
        .prepare_cached(
            "INSERT INTO reservations
             (id, account, key, amount, tokens, deadline_ms, accrued, written_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT (id) DO UPDATE SET amount = ?4, deadline_ms = ?6, accrued = ?7,
             written_ms = ?8",
        )?
        .execute(params![
            id.as_str(),
            held.account.as_str(),
            held.key.as_str(),
            held.amount.to_i64(),
            held.tokens.cast_signed(),
            held.deadline.to_i64(),
            held.accrued.to_i64(),
            now.to_i64(),
        ])?;
    Ok(())
}

/// The verb that ends a reservation is never the one that made it, so its row is there.
fn save_ending(
    connection: &Connection,
    id: &ReservationId,
    held: &Held,
    Ending { receipt, record, place, key_nth }: &Ending,
) -> Result<(), StoreError> {
    let written = connection
        .prepare_cached(
            "UPDATE reservations SET deadline_ms = ?2, accrued = ?3, how = ?4, spent = ?5,
             returned = ?6, shortfall = ?7, available_after = ?8, request_id = ?9, model = ?10,
             usage_source = ?11, input_tokens = ?12, output_tokens = ?13, written_ms = ?14,
             route = ?15, usage = ?16, nth = ?17, key_nth = ?18 WHERE id = ?1",
        )?
        .execute(params![
            id.as_str(),
            held.deadline.to_i64(),
            held.accrued.to_i64(),
            receipt.how.name(),
            receipt.spent.to_i64(),
            receipt.returned.to_i64(),
            receipt.shortfall.to_i64(),
            receipt.available.to_i64(),
            record.request_id,
            record.model,
            record.usage_source.map_or("", UsageSource::name),
            record.input_tokens.cast_signed(),
            record.output_tokens.cast_signed(),
            place.at.to_i64(),
            record.route,
            record.usage,
            place.nth.cast_signed(),
            key_nth.cast_signed(),
        ])?;
    if written == 1 { Ok(()) } else { Err(StoreError(format!("no row of reservation {id}"))) }
}

fn save_withdrawal(
    connection: &Connection,
    Placed { what: withdrawal, place }: &Placed<Withdrawal>,
) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "INSERT INTO withdrawals VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT (id) DO UPDATE SET account = ?2, amount = ?3, mint = ?4, unit = ?5,
             state = ?6, written_ms = ?7, nth = ?8",
        )?
        .execute(params![
            withdrawal.id.as_str(),
            withdrawal.account.as_str(),
            withdrawal.amount.to_i64(),
            withdrawal.mint,
            withdrawal.unit,
            state_name(withdrawal.state),
            place.at.to_i64(),
            place.nth.cast_signed(),
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
        entries: count("entries")?,
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
        Some(how) => Some(Ending {
            receipt: Receipt {
                spent: amount(row, "spent")?,
                returned: amount(row, "returned")?,
                shortfall: amount(row, "shortfall")?,
                available: amount(row, "available_after")?,
                how,
            },
            record: record_of(row)?,
            place: place_of(row)?,
            key_nth: row.get::<_, i64>("key_nth")?.cast_unsigned(),
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
    };
    Ok((ReservationId::stored(row.get::<_, String>("id")?), held))
}

pub(super) fn record_of(row: &Row<'_>) -> rusqlite::Result<Record> {
    Ok(Record {
        request_id: row.get("request_id")?,
        route: row.get("route")?,
        model: row.get("model")?,
        usage_source: UsageSource::named(&row.get::<_, String>("usage_source")?),
        input_tokens: row.get::<_, i64>("input_tokens")?.cast_unsigned(),
        output_tokens: row.get::<_, i64>("output_tokens")?.cast_unsigned(),
        usage: row.get("usage")?,
    })
}

pub(super) fn place_of(row: &Row<'_>) -> rusqlite::Result<Place> {
    let nth = row.get::<_, i64>("nth")?.cast_unsigned();
    Ok(Place { nth, at: UnixMs::from_i64(row.get("written_ms")?) })
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
pub(super) fn amount(
    row: &Row<'_>,
    column: impl rusqlite::RowIndex + Copy,
) -> rusqlite::Result<Msat> {
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

/// By the index of this condition.
const CHILDREN: &str = "
SELECT id FROM accounts WHERE parent = ?1 AND expires_ms IS NOT 0 ORDER BY id";
