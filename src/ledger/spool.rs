//! The spool: ends that the ledger has not recorded yet, on this machine's own disk.
//!
//! Where the ledger is another server it can be away while this gateway goes on to the end of
//! its streams. A settle or release without an answer is written here, its reservation is kept
//! alive with its cost as what has accrued, and it is told again, oldest first, until the ledger
//! has recorded it; also by the next process on this machine. Telling twice is harmless: ends
//! are idempotent by the reservation's id.
//!
//! A ledger on this disk needs none of this: what keeps it from recording would keep the spool.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, Row, params};
use tokio::sync::Notify;

use super::{End, Ledger, Record, Reservation, Unsettled, UsageSource, schema};
use crate::clock::UnixMs;
use crate::ids::{AccountId, ReservationId};
use crate::money::Msat;
use crate::store::{Durability, Store, StoreError};

/// The spool of one gateway; cheap to clone. One process owns its file.
#[derive(Clone, Debug)]
pub struct Spool<L: Ledger>(Arc<Inner<L>>);

#[derive(Debug)]
struct Inner<L> {
    ledger: L,
    store: Store,
    queue: Mutex<Queue>,
    /// Something came in, or the ledger has answered somebody.
    news: Notify,
    entries_max: usize,
}

#[derive(Debug, Default)]
struct Queue {
    /// Oldest first.
    waiting: VecDeque<Entry>,
    /// Since when the one that is being told has waited.
    telling: Option<UnixMs>,
}

#[derive(Debug)]
struct Entry {
    reservation: Reservation,
    end: End,
    since: UnixMs,
}

impl<L: Ledger> Spool<L> {
    /// Opens or creates the file and takes up what an earlier process left: its reservations are
    /// alive again when this returns, and are told to the ledger by [`Spool::run`].
    pub async fn open(file: &Path, ledger: L) -> Result<Self, StoreError> {
        Self::with(file, ledger, ENTRIES_MAX).await
    }

    async fn with(file: &Path, ledger: L, entries_max: usize) -> Result<Self, StoreError> {
        let store = Store::prepared(file, schema::prepare_spool)?;
        let rows = store.write(Durability::Process, rows).await?;
        let since = |(id, account, amount, end, since): Kept| {
            let reservation = Reservation::open(id, account, amount, ledger.live());
            reservation.note_accrued(end.cost());
            Entry { reservation, end, since }
        };
        let waiting: VecDeque<Entry> = rows.into_iter().map(since).collect();
        if !waiting.is_empty() {
            log::warn!("spool: {} ends of an earlier process are to be recorded", waiting.len());
        }
        let queue = Mutex::new(Queue { waiting, telling: None });
        let inner = Inner { ledger, store, queue, news: Notify::new(), entries_max };
        Ok(Self(Arc::new(inner)))
    }

    /// Takes over an end that got no answer; it is on disk when this returns. Beyond
    /// [`ENTRIES_MAX`] it is left to the reaper, which charges what had accrued.
    pub async fn keep(&self, reservation: Reservation, end: End) {
        reservation.note_accrued(end.cost());
        let (id, entries) = (reservation.id.clone(), self.entries());
        if entries >= self.0.entries_max {
            log::error!("spool: full with {entries} entries, {id} is left to the reaper");
            return;
        }
        let entry = Entry { reservation, end, since: UnixMs::now() };
        let row = (entry.reservation.account.clone(), entry.reservation.amount, entry.end.clone());
        let since = entry.since;
        let insert = move |connection: &Connection| insert(connection, &id, &row, since);
        if let Err(why) = self.0.store.write(Durability::Disk, insert).await {
            let id = &entry.reservation.id;
            log::error!("spool: {id} is kept in memory only, and lost with this process: {why}");
        }
        self.queue().waiting.push_back(entry);
        self.0.news.notify_one();
    }

    /// The ledger has answered somebody, so it is worth telling it now.
    pub fn ledger_answered(&self) {
        if self.entries() > 0 {
            self.0.news.notify_one();
        }
    }

    /// How many ends wait to be recorded.
    pub fn entries(&self) -> usize {
        let queue = self.queue();
        queue.waiting.len().saturating_add(usize::from(queue.telling.is_some()))
    }

    /// How long the oldest of them has waited; zero when there is none.
    pub fn oldest(&self) -> Duration {
        let queue = self.queue();
        let waiting = queue.waiting.iter().map(|entry| entry.since);
        let since = waiting.chain(queue.telling).min();
        let waited = since.map_or(0, |since| UnixMs::now().0.saturating_sub(since.0));
        Duration::from_millis(waited)
    }

    /// Tells the ledger until the caller drops it.
    pub async fn run(self) {
        let mut pause = PAUSE_MIN;
        loop {
            let Some(entry) = self.next() else {
                self.0.news.notified().await;
                continue;
            };
            let told = self.tell(entry).await;
            pause = if told { PAUSE_MIN } else { pause.saturating_mul(2).min(PAUSE_MAX) };
            if !told {
                // Whichever comes first.
                drop(tokio::time::timeout(pause, self.0.news.notified()).await);
            }
        }
    }

    fn next(&self) -> Option<Entry> {
        let mut queue = self.queue();
        let entry = queue.waiting.pop_front()?;
        queue.telling = Some(entry.since);
        Some(entry)
    }

    /// False when the ledger did not answer; the entry is the next one again then.
    async fn tell(&self, entry: Entry) -> bool {
        let Entry { reservation, end, since } = entry;
        let id = reservation.id.clone();
        match self.0.ledger.end(reservation, end.clone()).await {
            Ok(receipt) => log::info!("spool: {id} is {}", receipt.how.name()),
            Err(Unsettled::Forgotten) => {
                log::error!("spool: the ledger has no reservation {id}; {end:?} was not recorded");
            }
            Err(Unsettled::NoAnswer { reservation, why }) => {
                log::debug!("spool: {id} waits: {why}");
                let mut queue = self.queue();
                // Behind the others: one that cannot be recorded is not in their way.
                queue.waiting.push_back(Entry { reservation, end, since });
                queue.telling = None;
                return false;
            }
        }
        let delete = move |connection: &Connection| {
            let mut delete = connection.prepare_cached(DELETE)?;
            Ok(delete.execute([id.as_str()]).map(drop)?)
        };
        if let Err(why) = self.0.store.write(Durability::Process, delete).await {
            // The next process tells it once more, and is answered with the same receipt.
            log::error!("spool: what is recorded could not be deleted: {why}");
        }
        self.queue().telling = None;
        true
    }

    // The queue is sound after a panic elsewhere: every change to it is a single call.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Kept = (ReservationId, AccountId, Msat, End, UnixMs);

fn insert(
    connection: &Connection,
    id: &ReservationId,
    (account, amount, end): &(AccountId, Msat, End),
    since: UnixMs,
) -> Result<(), StoreError> {
    let (cost, record) = match end {
        End::Settle { cost, record } => (Some(cost.to_i64()), record),
        End::Release { record } => (None, record),
    };
    connection.prepare_cached(INSERT)?.execute(params![
        id.as_str(),
        account.as_str(),
        amount.to_i64(),
        cost,
        record.request_id,
        record.model,
        record.usage_source.map_or("", UsageSource::name),
        record.input_tokens,
        record.output_tokens,
        since.to_i64(),
        record.route,
        record.usage,
    ])?;
    Ok(())
}

fn rows(connection: &Connection) -> Result<Vec<Kept>, StoreError> {
    let mut statement = connection.prepare(SELECT)?;
    let rows = statement.query_map([], |row| Ok(read(row)))?;
    rows.map(|row| row?).collect()
}

fn read(row: &Row<'_>) -> Result<Kept, StoreError> {
    let amount = |msat| Msat::from_i64(msat).ok_or_else(|| StoreError("no amount".to_owned()));
    let record = Record {
        request_id: row.get(4)?,
        model: row.get(5)?,
        usage_source: UsageSource::named(&row.get::<_, String>(6)?),
        input_tokens: row.get(7)?,
        output_tokens: row.get(8)?,
        route: row.get(10)?,
        usage: row.get(11)?,
    };
    let end = match row.get::<_, Option<i64>>(3)? {
        Some(cost) => End::Settle { cost: amount(cost)?, record },
        None => End::Release { record },
    };
    let id = ReservationId::stored(row.get::<_, String>(0)?);
    let account = AccountId::stored(row.get::<_, String>(1)?);
    Ok((id, account, amount(row.get(2)?)?, end, UnixMs::from_i64(row.get(9)?)))
}

const INSERT: &str = "INSERT OR IGNORE INTO ends (reservation, account, amount, cost, request_id,
    model, usage_source, input_tokens, output_tokens, since, route, usage)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";

const SELECT: &str = "SELECT reservation, account, amount, cost, request_id, model, usage_source,
    input_tokens, output_tokens, since, route, usage FROM ends ORDER BY nth";

const DELETE: &str = "DELETE FROM ends WHERE reservation = ?1";

/// The spool's file in the data directory.
pub const FILE: &str = "spool.db";

/// Ends kept at most, some 50 MB of disk: an hour without a ledger at thirty streams a second.
pub const ENTRIES_MAX: usize = 100_000;

/// Between two attempts to tell the ledger, unless it answers somebody else before.
const PAUSE_MIN: Duration = Duration::from_millis(25);
const PAUSE_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
#[path = "spool_tests.rs"]
mod tests;
