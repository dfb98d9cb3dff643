//! SQLite: one file, one writer thread, group commit.
//!
//! Every piece of work is one transaction's part: it runs inside a savepoint of its own, so
//! that its failure undoes only itself, and it is answered only after the commit that holds
//! it. Work that waits while a commit runs shares the next one.

use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use tokio::sync::oneshot;

use super::{Durability, StoreError};

/// A handle to the writer thread; cheap to clone. The thread ends with the last handle.
#[derive(Clone, Debug)]
pub struct Store {
    queue: mpsc::SyncSender<Job>,
    failures: Arc<AtomicU64>,
}

/// One piece of work, with the answer it will give once its commit is known.
struct Job {
    durability: Durability,
    /// Runs inside the savepoint; returns what to do when the commit is known.
    run: Box<dyn FnOnce(&Connection) -> Ran + Send>,
}

struct Ran {
    kept: bool,
    answer: Answer,
}

type Answer = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

impl Store {
    /// Opens or creates the database and runs `schema`, which must be safe to run again.
    /// A lock beside it keeps a second writer out; readers of other processes may come.
    pub fn open(path: &Path, schema: &str) -> Result<Self, StoreError> {
        Self::prepared(path, |connection| Ok(connection.execute_batch(schema)?))
    }

    /// The same for a schema that takes more than to be run: `prepare` may find the tables of
    /// an earlier version.
    pub(crate) fn prepared(
        path: &Path,
        prepare: impl FnOnce(&Connection) -> Result<(), StoreError>,
    ) -> Result<Self, StoreError> {
        let lock = writer_lock(path)?;
        let connection = Connection::open(path)?;
        connection.busy_timeout(BUSY_MAX)?;
        connection.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;",
        )?;
        // A checkpoint forces the database to disk on this thread while everybody waits, and the
        // same few pages change again and again: fewer, larger ones write each of them once.
        connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        prepare(&connection)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        let (queue, jobs) = mpsc::sync_channel(QUEUE_MAX);
        let failures = Arc::new(AtomicU64::new(0));
        let counted = failures.clone();
        thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || {
                serve(&connection, &jobs, &counted);
                drop(connection);
                drop(lock);
            })
            .map_err(|error| StoreError(error.to_string()))?;
        Ok(Self { queue, failures })
    }

    /// Runs `work` on the writer thread and answers once its commit is known. On an error the
    /// database is as if `work` had never run.
    ///
    /// The work is done also when the caller stops waiting.
    pub async fn write<T, F>(&self, durability: Durability, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let run = move |connection: &Connection| {
            let outcome = work(connection);
            let kept = outcome.is_ok();
            let answer = move |committed: Result<(), StoreError>| {
                let answer = outcome.and_then(|value| committed.map(|()| value));
                // A caller that went away does not need the answer.
                let _gone = sender.send(answer);
            };
            Ran { kept, answer: Box::new(answer) }
        };
        let job = Job { durability, run: Box::new(run) };
        self.queue.try_send(job).map_err(|refused| match refused {
            mpsc::TrySendError::Full(_) => StoreError("the store's queue is full".to_owned()),
            mpsc::TrySendError::Disconnected(_) => StoreError("the store has ended".to_owned()),
        })?;
        receiver.await.map_err(|_| StoreError("the store did not run this".to_owned()))?
    }

    /// How many commits have failed. Whoever keeps a copy of rows in memory compares it before
    /// trusting the copy: a failed commit took back work whose effects the copy still has.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::SeqCst)
    }
}

/// A connection that only reads, beside a writer of any process, for as long as it lives from
/// one consistent snapshot per transaction.
pub fn read_only(path: &Path) -> Result<Connection, StoreError> {
    // Not SQLITE_OPEN_READ_ONLY: after a crash even a reader must set up the log's index.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_MAX)?;
    connection.execute_batch("PRAGMA query_only = ON")?;
    Ok(connection)
}

/// Held as long as the file is open, so a dead process never keeps it.
fn writer_lock(path: &Path) -> Result<File, StoreError> {
    let path = path.with_extension("lock");
    let problem = |why: &dyn std::fmt::Display| StoreError(format!("{}: {why}", path.display()));
    let lock = File::options().create(true).append(true).open(&path);
    let lock = lock.map_err(|error| problem(&error))?;
    lock.try_lock().map_err(|_| problem(&"another process uses this data directory"))?;
    Ok(lock)
}

/// The writer thread: takes what waits, commits it together, answers.
fn serve(connection: &Connection, jobs: &mpsc::Receiver<Job>, failures: &AtomicU64) {
    let mut forced = true;
    while let Ok(first) = jobs.recv() {
        let mut batch = vec![first];
        while batch.len() < BATCH_MAX
            && let Ok(next) = jobs.try_recv()
        {
            batch.push(next);
        }
        let disk = batch.iter().any(|job| job.durability == Durability::Disk);
        let begun = switch_durability(connection, &mut forced, disk)
            .and_then(|()| execute(connection, "BEGIN IMMEDIATE"));
        if let Err(error) = begun {
            // Nothing ran: dropping the batch tells every caller so.
            log::error!("store: no transaction: {error}");
            continue;
        }
        let answers: Vec<_> =
            batch.into_iter().map(|job| run_in_savepoint(connection, job)).collect();
        let committed = commit(connection);
        if let Err(error) = &committed {
            failures.fetch_add(1, Ordering::SeqCst);
            log::error!("store: commit failed, nothing of this batch was kept: {error}");
        }
        for answer in answers {
            answer(committed.clone());
        }
    }
}

fn run_in_savepoint(connection: &Connection, job: Job) -> Answer {
    if let Err(error) = execute(connection, "SAVEPOINT job") {
        log::error!("store: no savepoint: {error}");
    }
    let ran = (job.run)(connection);
    let end = if ran.kept { "RELEASE job" } else { "ROLLBACK TO job; RELEASE job" };
    if let Err(error) = connection.execute_batch(end) {
        // The commit of the whole transaction fails too, and with it every answer.
        log::error!("store: a savepoint did not end: {error}");
    }
    ran.answer
}

fn commit(connection: &Connection) -> Result<(), StoreError> {
    let committed = execute(connection, "COMMIT");
    if committed.is_err() && !connection.is_autocommit() {
        execute(connection, "ROLLBACK")?;
    }
    committed
}

/// `synchronous = FULL` forces the log to disk at each commit, `NORMAL` only at checkpoints.
fn switch_durability(
    connection: &Connection,
    forced: &mut bool,
    disk: bool,
) -> Result<(), StoreError> {
    if *forced != disk {
        let level = if disk { "FULL" } else { "NORMAL" };
        connection.execute_batch(&format!("PRAGMA synchronous = {level}"))?;
        *forced = disk;
    }
    Ok(())
}

fn execute(connection: &Connection, sql: &str) -> Result<(), StoreError> {
    connection.prepare_cached(sql)?.execute([])?;
    Ok(())
}

/// Work that waits for the writer; beyond it a caller is refused at once rather than queued.
const QUEUE_MAX: usize = 16_384;

/// Pieces of work in one commit: bounds how long the first of them waits for the last.
const BATCH_MAX: usize = 512;

const STATEMENTS_MAX: usize = 64;

/// Pages in the write-ahead log that make a checkpoint due: 40 MB of it.
const CHECKPOINT_PAGES: u32 = 10_000;

/// How long a checkpoint of ours or of a reader may keep the other waiting.
const BUSY_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS n (n INTEGER PRIMARY KEY) STRICT;";

    async fn insert(store: &Store, n: i64, fail: bool) -> Result<(), StoreError> {
        store
            .write(Durability::Process, move |connection| {
                connection.execute("INSERT INTO n VALUES (?1)", [n])?;
                if fail { Err(StoreError("on purpose".to_owned())) } else { Ok(()) }
            })
            .await
    }

    async fn count(store: &Store) -> i64 {
        let count = |connection: &Connection| {
            Ok(connection.query_row("SELECT count(*) FROM n", [], |row| row.get(0))?)
        };
        store.write(Durability::Disk, count).await.unwrap()
    }

    #[tokio::test]
    async fn failed_work_undoes_only_itself() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("db"), SCHEMA).unwrap();
        let (a, b, c, d) = tokio::join!(
            insert(&store, 1, false),
            insert(&store, 2, true),
            insert(&store, 3, false),
            insert(&store, 1, false),
        );
        assert!(a.is_ok() && b.is_err() && c.is_ok() && d.is_err());
        assert_eq!(count(&store).await, 2);
        assert_eq!(store.failures(), 0);
    }

    #[tokio::test]
    async fn what_was_answered_is_there_when_the_file_is_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let store = Store::open(&path, SCHEMA).unwrap();
        insert(&store, 1, false).await.unwrap();
        assert!(Store::open(&path, SCHEMA).is_err(), "one process at a time");
        drop(store);
        let reopened = loop {
            // The first handle's thread lets go of the lock when it has seen the last handle go.
            match Store::open(&path, SCHEMA) {
                Ok(store) => break store,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        assert_eq!(count(&reopened).await, 1);
    }

    #[tokio::test]
    async fn a_commit_that_fails_is_counted_and_answered_as_failed() {
        let dir = tempfile::tempdir().unwrap();
        let schema = "CREATE TABLE p (id INTEGER PRIMARY KEY) STRICT;
             CREATE TABLE c (p INTEGER REFERENCES p(id) DEFERRABLE INITIALLY DEFERRED) STRICT;";
        let store = Store::open(&dir.path().join("db"), schema).unwrap();
        let orphan = store.write(Durability::Process, |connection| {
            connection.execute("INSERT INTO c VALUES (7)", [])?;
            Ok(())
        });
        assert!(orphan.await.is_err());
        assert_eq!(store.failures(), 1);
    }
}
