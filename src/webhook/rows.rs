//! The rows of webhooks, and the statements over them.
//!
//! Gateways of a fleet share them. A step that must happen once is a statement that asks for the
//! state it begins from, and changes no row when another gateway was faster. The times by which
//! something is due are the database's own.

use super::event::{Event, EventKind};
use crate::clock::UnixMs;
use crate::ids::AccountId;
use crate::store::{Row, StoreError, Tx, values};

/// A registration, as its owner sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    pub id: String,
    pub url: String,
    pub events: Vec<EventKind>,
    pub created: UnixMs,
    pub last_success: Option<UnixMs>,
    /// When, and what it was.
    pub last_failure: Option<(UnixMs, String)>,
    /// Since when nothing is delivered to it any more, and why.
    pub disabled: Option<(UnixMs, String)>,
    /// Deliveries that wait.
    pub queued: u64,
}

/// What of an account has become deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Listener {
    /// The number of the last entry that has.
    pub(super) mark: u64,
    pub(super) low: bool,
    /// The end of its validity that was told.
    pub(super) expired: Option<UnixMs>,
}

/// A webhook that this gateway is at.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) id: String,
    pub(super) url: String,
    pub(super) sealed: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Delivery {
    pub(super) event: String,
    pub(super) body: String,
    /// Attempts that have failed.
    pub(super) tries: u32,
    pub(super) created: UnixMs,
}

/// A registration to be.
pub(super) struct New {
    pub(super) id: String,
    pub(super) account: AccountId,
    pub(super) url: String,
    pub(super) events: Vec<EventKind>,
    pub(super) sealed: Vec<u8>,
    /// How the account stands: what was before is not told.
    pub(super) from: Listener,
}

impl New {
    /// False when the account has as many as it may have.
    ///
    /// The first statement locks the account's row, so that of two at once each sees the other.
    pub(super) fn insert(&self, tx: &mut Tx<'_>) -> Result<bool, StoreError> {
        let account = self.account.as_str();
        let Listener { mark, low, expired } = self.from;
        let sql = "INSERT INTO listeners (account, mark, low, expired_ms, idle, next_ms)
                   VALUES (?1, ?2, ?3, ?4, 0, now_ms())
                   ON CONFLICT (account) DO UPDATE SET next_ms = now_ms()";
        let row = values![account, integer(mark), i64::from(low), told(expired)];
        tx.execute(sql, row)?;
        let sql = "SELECT COUNT(*) FROM webhooks WHERE account = ?1";
        let there: u64 = tx.row(sql, values![account])?.map_or(Ok(0), |row| row.get(0))?;
        if there >= PER_ACCOUNT_MAX {
            return Ok(false);
        }
        let sql = "SELECT COUNT(*) FROM webhooks WHERE account = ?1 AND disabled_ms IS NULL";
        let heard: u64 = tx.row(sql, values![account])?.map_or(Ok(0), |row| row.get(0))?;
        if heard == 0 {
            // Nobody wants what happened since the last one was disabled.
            let sql = "UPDATE listeners SET mark = ?2, low = ?3, expired_ms = ?4
                       WHERE account = ?1";
            tx.execute(sql, row)?;
        }
        let sql = "INSERT INTO webhooks (id, account, url, events, secret, since, created_ms,
                   held_ms, due_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, ?8)";
        let names: Vec<&str> = self.events.iter().map(|kind| kind.name()).collect();
        let row = values![
            &self.id,
            account,
            &self.url,
            names.join(","),
            self.sealed.clone(),
            integer(mark),
            UnixMs::now().to_i64(),
            NEVER_MS,
        ];
        Ok(tx.execute(sql, row)? == 1)
    }
}

impl Registered {
    /// All of an account, in the order of their registration.
    pub(super) fn of(tx: &mut Tx<'_>, account: &AccountId) -> Result<Vec<Self>, StoreError> {
        let sql = "SELECT id, url, events, created_ms, succeeded_ms, failed_ms, failure,
                   disabled_ms, disabled_why,
                   (SELECT COUNT(*) FROM deliveries WHERE webhook = webhooks.id)
                   FROM webhooks WHERE account = ?1 ORDER BY created_ms, id";
        tx.rows(sql, values![account.as_str()])?.iter().map(Self::read).collect()
    }

    fn read(row: &Row) -> Result<Self, StoreError> {
        let dated = |at: usize| -> Result<Option<(UnixMs, String)>, StoreError> {
            let when = row.get::<Option<i64>>(at)?.map(UnixMs::from_i64);
            Ok(when.zip(row.get::<Option<String>>(at + 1)?))
        };
        Ok(Self {
            id: row.get(0)?,
            url: row.get(1)?,
            events: kinds(&row.get::<String>(2)?),
            created: UnixMs::from_i64(row.get(3)?),
            last_success: row.get::<Option<i64>>(4)?.map(UnixMs::from_i64),
            last_failure: dated(5)?,
            disabled: dated(7)?,
            queued: row.get(9)?,
        })
    }
}

/// Removes one with all that waits for it. False: the account has no such webhook.
pub(super) fn delete(tx: &mut Tx<'_>, account: &AccountId, id: &str) -> Result<bool, StoreError> {
    let account = account.as_str();
    // Locks the account's row, as registering does.
    tx.execute("UPDATE listeners SET idle = 0 WHERE account = ?1", values![account])?;
    let sql = "DELETE FROM webhooks WHERE id = ?1 AND account = ?2";
    if tx.execute(sql, values![id, account])? == 0 {
        return Ok(false);
    }
    tx.execute("DELETE FROM deliveries WHERE webhook = ?1", values![id])?;
    let sql = "DELETE FROM listeners WHERE account = ?1
               AND NOT EXISTS (SELECT 1 FROM webhooks WHERE account = ?1)";
    tx.execute(sql, values![account])?;
    Ok(true)
}

/// The accounts that somebody listens for.
pub(super) fn listened(tx: &mut Tx<'_>) -> Result<Vec<AccountId>, StoreError> {
    let rows = tx.rows("SELECT account FROM listeners", values![])?;
    rows.iter().map(|row| Ok(AccountId::stored(row.get::<String>(0)?))).collect()
}

/// Accounts whose turn it is to be looked at, the longest due first; each has its next turn after
/// twice as long, unless something is found.
pub(super) fn take_due_accounts(tx: &mut Tx<'_>, most: u32) -> Result<Vec<AccountId>, StoreError> {
    let rows = tx.rows(ACCOUNTS_DUE, values![most])?;
    rows.iter().map(|row| Ok(AccountId::stored(row.get::<String>(0)?))).collect()
}

const ACCOUNTS_DUE: &str = "UPDATE listeners SET idle = idle + 1,
    next_ms = now_ms() + (2000 << CAST(CASE WHEN idle > 5 THEN 5 ELSE idle END AS INTEGER))
    WHERE account IN (SELECT account FROM listeners WHERE next_ms <= now_ms()
        ORDER BY next_ms LIMIT ?1 FOR UPDATE SKIP LOCKED)
    RETURNING account";

impl Listener {
    pub(super) fn find(tx: &mut Tx<'_>, account: &AccountId) -> Result<Option<Self>, StoreError> {
        let sql = "SELECT mark, low, expired_ms FROM listeners WHERE account = ?1";
        let row = tx.row(sql, values![account.as_str()])?;
        row.map(|row| {
            let expired: i64 = row.get(2)?;
            let expired = (expired != NOT_TOLD).then(|| UnixMs::from_i64(expired));
            Ok(Self { mark: row.get(0)?, low: row.get(1)?, expired })
        })
        .transpose()
    }

    /// The account is looked at again when its validity ends.
    pub(super) fn look_again_at(
        tx: &mut Tx<'_>,
        account: &AccountId,
        at: UnixMs,
    ) -> Result<(), StoreError> {
        let sql = "UPDATE listeners SET next_ms = ?2 WHERE account = ?1 AND next_ms > ?2";
        tx.execute(sql, values![account.as_str(), at.to_i64()])?;
        Ok(())
    }

    /// From `self` to `next`, and the events between them into the queues of who wants them, in one
    /// step. `None`: another gateway has done it. Otherwise what became of the deliveries.
    pub(super) fn advance(
        self,
        tx: &mut Tx<'_>,
        account: &AccountId,
        next: Self,
        events: &[Event],
    ) -> Result<Option<Queued>, StoreError> {
        let account = account.as_str();
        let sql = "UPDATE listeners SET mark = ?2, low = ?3, expired_ms = ?4, idle = 0,
                   next_ms = now_ms() + 2000
                   WHERE account = ?1 AND mark = ?5 AND low = ?6 AND expired_ms = ?7";
        let values = values![
            account,
            integer(next.mark),
            i64::from(next.low),
            told(next.expired),
            integer(self.mark),
            i64::from(self.low),
            told(self.expired),
        ];
        if tx.execute(sql, values)? == 0 {
            return Ok(None);
        }
        if next.mark < self.mark {
            let sql = "UPDATE webhooks SET since = ?2 WHERE account = ?1 AND since > ?2";
            tx.execute(sql, values![account, integer(next.mark)])?;
        }
        let mut queued = Queued::default();
        let sql = "SELECT id, events, since FROM webhooks
                   WHERE account = ?1 AND disabled_ms IS NULL ORDER BY id FOR UPDATE";
        for row in tx.rows(sql, values![account])? {
            let (id, names, since): (String, String, u64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let kinds = kinds(&names);
            let wanted = |event: &&Event| {
                kinds.contains(&event.kind) && event.nth.is_none_or(|nth| nth > since)
            };
            enqueue(tx, &id, events.iter().filter(wanted), &mut queued)?;
        }
        Ok(Some(queued))
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Queued {
    pub(super) added: u64,
    /// For which there was no room.
    pub(super) dropped: u64,
}

/// Whoever calls has locked the webhook's row, so that nobody says at the same time that nothing is
/// due.
fn enqueue<'e>(
    tx: &mut Tx<'_>,
    webhook: &str,
    events: impl Iterator<Item = &'e Event>,
    queued: &mut Queued,
) -> Result<(), StoreError> {
    let mut events = events.peekable();
    if events.peek().is_none() {
        return Ok(());
    }
    let sql = "SELECT COUNT(*) FROM deliveries WHERE webhook = ?1";
    let there: u64 = tx.row(sql, values![webhook])?.map_or(Ok(0), |row| row.get(0))?;
    let mut room = QUEUE_MAX.saturating_sub(there);
    for event in events {
        if room == 0 {
            queued.dropped = queued.dropped.saturating_add(1);
            continue;
        }
        let sql = "INSERT INTO deliveries (webhook, event, body, tries, created_ms, next_ms)
                   VALUES (?1, ?2, ?3, 0, ?4, now_ms()) ON CONFLICT (webhook, event) DO NOTHING";
        let values = values![webhook, &event.id, &event.body, UnixMs::now().to_i64()];
        let added = tx.execute(sql, values)?;
        room = room.saturating_sub(added);
        queued.added = queued.added.saturating_add(added);
    }
    let sql = "UPDATE webhooks SET due_ms = now_ms() WHERE id = ?1 AND due_ms > now_ms()";
    tx.execute(sql, values![webhook])?;
    Ok(())
}

/// On one machine: whoever held a webhook before this process is dead.
pub(super) fn release_all(tx: &mut Tx<'_>) -> Result<(), StoreError> {
    tx.execute("UPDATE webhooks SET held_ms = 0 WHERE held_ms > 0", values![])?;
    Ok(())
}

impl Held {
    /// Webhooks that something is due for, from here on this gateway's for so long, the longest
    /// due first.
    pub(super) fn take_due(
        tx: &mut Tx<'_>,
        gateway: &str,
        held_ms: i64,
        most: u32,
    ) -> Result<Vec<Self>, StoreError> {
        let rows = tx.rows(WEBHOOKS_DUE, values![gateway, held_ms, most])?;
        let read = |row: &Row| Ok(Self { id: row.get(0)?, url: row.get(1)?, sealed: row.get(2)? });
        rows.iter().map(read).collect()
    }

    /// Of what is due, the longest due first.
    pub(super) fn due(&self, tx: &mut Tx<'_>, most: u32) -> Result<Vec<Delivery>, StoreError> {
        let sql = "SELECT event, body, tries, created_ms FROM deliveries
                   WHERE webhook = ?1 AND next_ms <= now_ms() ORDER BY next_ms LIMIT ?2";
        let rows = tx.rows(sql, values![&self.id, most])?;
        let read = |row: &Row| {
            Ok(Delivery {
                event: row.get(0)?,
                body: row.get(1)?,
                tries: row.get(2)?,
                created: UnixMs::from_i64(row.get(3)?),
            })
        };
        rows.iter().map(read).collect()
    }

    /// Locks it. `None`: it is gone or disabled, or another gateway has taken over. Otherwise when
    /// a delivery last succeeded.
    pub(super) fn still_held(
        &self,
        tx: &mut Tx<'_>,
        gateway: &str,
    ) -> Result<Option<Option<UnixMs>>, StoreError> {
        let sql = "SELECT succeeded_ms FROM webhooks
                   WHERE id = ?1 AND holder = ?2 AND held_ms > 0 AND disabled_ms IS NULL
                   FOR UPDATE";
        let row = tx.row(sql, values![&self.id, gateway])?;
        row.map(|row| Ok(row.get::<Option<i64>>(0)?.map(UnixMs::from_i64))).transpose()
    }

    pub(super) fn delivered(&self, tx: &mut Tx<'_>, event: &str) -> Result<(), StoreError> {
        self.forget(tx, event)?;
        let sql = "UPDATE webhooks SET succeeded_ms = ?2 WHERE id = ?1";
        tx.execute(sql, values![&self.id, UnixMs::now().to_i64()])?;
        Ok(())
    }

    pub(super) fn failed(&self, tx: &mut Tx<'_>, why: &str) -> Result<(), StoreError> {
        let sql = "UPDATE webhooks SET failed_ms = ?2, failure = ?3 WHERE id = ?1";
        tx.execute(sql, values![&self.id, UnixMs::now().to_i64(), why])?;
        Ok(())
    }

    pub(super) fn retry(
        &self,
        tx: &mut Tx<'_>,
        event: &str,
        after_ms: i64,
    ) -> Result<(), StoreError> {
        let sql = "UPDATE deliveries SET tries = tries + 1, next_ms = now_ms() + ?3
                   WHERE webhook = ?1 AND event = ?2";
        tx.execute(sql, values![&self.id, event, after_ms])?;
        Ok(())
    }

    pub(super) fn forget(&self, tx: &mut Tx<'_>, event: &str) -> Result<(), StoreError> {
        let sql = "DELETE FROM deliveries WHERE webhook = ?1 AND event = ?2";
        tx.execute(sql, values![&self.id, event])?;
        Ok(())
    }

    /// Nothing is delivered to it any more. Answers how many deliveries that leaves undone.
    pub(super) fn disable(&self, tx: &mut Tx<'_>, why: &str) -> Result<u64, StoreError> {
        let sql = "UPDATE webhooks SET disabled_ms = ?2, disabled_why = ?3 WHERE id = ?1";
        tx.execute(sql, values![&self.id, UnixMs::now().to_i64(), why])?;
        tx.execute("DELETE FROM deliveries WHERE webhook = ?1", values![&self.id])
    }

    /// Somebody else may have it, when the next of its deliveries is due. One that has waited for
    /// longer does not come before others because of that.
    pub(super) fn release(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let sql = "SELECT MIN(next_ms) FROM deliveries WHERE webhook = ?1";
        let next = tx.row(sql, values![&self.id])?.map_or(Ok(None), |row| row.get(0))?;
        let next: i64 = next.unwrap_or(NEVER_MS);
        let sql = "UPDATE webhooks SET holder = NULL, held_ms = 0,
                   due_ms = CASE WHEN ?2 < now_ms() THEN now_ms() ELSE ?2 END WHERE id = ?1";
        tx.execute(sql, values![&self.id, next])?;
        Ok(())
    }
}

const WEBHOOKS_DUE: &str = "UPDATE webhooks SET holder = ?1, held_ms = now_ms() + ?2
    WHERE id IN (SELECT id FROM webhooks
        WHERE disabled_ms IS NULL AND due_ms <= now_ms() AND held_ms <= now_ms()
        ORDER BY due_ms LIMIT ?3 FOR UPDATE SKIP LOCKED)
    RETURNING id, url, secret";

/// How many deliveries wait, and how long the webhook has waited that nobody is at, in ms.
pub(super) fn backlog(tx: &mut Tx<'_>) -> Result<(u64, u64), StoreError> {
    let row = tx.row("SELECT COUNT(*) FROM deliveries", values![])?;
    let count = row.map_or(Ok(0), |row| row.get(0))?;
    let sql = "SELECT COALESCE(MAX(now_ms() - due_ms), 0) FROM webhooks
               WHERE disabled_ms IS NULL AND due_ms <= now_ms() AND held_ms <= now_ms()";
    let waited = tx.row(sql, values![])?.map_or(Ok(0), |row| row.get::<i64>(0))?;
    Ok((count, u64::try_from(waited).unwrap_or(0)))
}

fn kinds(names: &str) -> Vec<EventKind> {
    names.split(',').filter_map(EventKind::named).collect()
}

fn told(expired: Option<UnixMs>) -> i64 {
    expired.map_or(NOT_TOLD, UnixMs::to_i64)
}

fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A revoked key has expired at 0.
const NOT_TOLD: i64 = -1;

/// When nothing is due: a time that does not come, with room for sums.
const NEVER_MS: i64 = i64::MAX / 2;

/// Webhooks of one account; one more is refused.
pub const PER_ACCOUNT_MAX: u64 = 10;

/// Deliveries that wait for one webhook. While there are as many, new events are not delivered to
/// it: what it was promised first is kept, and the history has everything.
pub(super) const QUEUE_MAX: u64 = 1_000;
