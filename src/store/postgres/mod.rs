//! PostgreSQL: a few workers, each a thread with one connection, fed from one queue.
//!
//! A piece of work is one transaction on one connection, never mixed with others: a row lock
//! of one would wait for another's, in any order. The server commits many together by itself.
//!
//! **Isolation is READ COMMITTED**, and each kind of statement says what it relies on:
//!
//! * `INSERT … ON CONFLICT` under a unique id waits for whoever inserts the same one, and then
//!   sees the row: one of two gateways wins, the other knows.
//! * `UPDATE … WHERE id = … AND state = … AND owner = …` waits for the row's lock and then looks
//!   at its condition again. What has changed meanwhile changes no row, and whoever finds none
//!   changed reloads. It never acts on what it read earlier.
//! * Proofs of the pool are taken with `FOR UPDATE SKIP LOCKED`: what another gateway is about
//!   to take counts as taken. Nobody waits for a proof, so nobody waits in a circle.
//! * Counters are one row per keyset, and the last lock that anything takes.
//!
//! SERIALIZABLE would ask for repetitions where these wait or walk past.
//!
//! **Every wait has a bound**: for a connection, a lock, a statement, a place in the queue, and
//! the caller's for all of it. A server that stops answering fails what it was asked and is
//! asked again by whoever comes next: nothing is kept for it. The workers are fixed in number
//! and so are the connections.

mod address;
mod session;

use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

use self::address::Address;
use super::{Durability, StoreError, Tx};
use crate::clock::Stopwatch;

pub use self::address::check as check_address;
pub(super) use self::session::Session;

/// A handle to the workers; they end with the last one.
#[derive(Clone)]
pub struct Postgres(mpsc::SyncSender<Box<dyn Job>>);

/// One transaction, with whom to tell how it went.
trait Job: Send {
    /// False when nobody waits for the outcome any more: then it is not begun.
    fn is_wanted(&self) -> bool;

    fn begin(&self) -> &'static str;

    /// Runs in a transaction that has begun, or hears why there is none.
    fn run(self: Box<Self>, session: Result<&mut Session, StoreError>);
}

struct Piece<T, F> {
    begin: &'static str,
    work: F,
    answer: oneshot::Sender<Result<T, StoreError>>,
}

impl Postgres {
    pub(super) fn new(address: &str) -> Result<Self, StoreError> {
        let address = Address::parse(address)?;
        let (queue, jobs) = mpsc::sync_channel(QUEUE_MAX);
        let jobs = Arc::new(Mutex::new(jobs));
        for _ in 0..WORKERS {
            let (jobs, worker) = (jobs.clone(), Worker::new(address.clone()));
            let started = thread::Builder::new().name("postgres".to_owned());
            let started = started.spawn(move || worker.serve(&jobs));
            started.map_err(|error| StoreError(error.to_string()))?;
        }
        Ok(Self(queue))
    }

    pub(super) async fn write<T, F>(&self, durability: Durability, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let begin = match durability {
            Durability::Process => "BEGIN; SET LOCAL synchronous_commit TO off",
            Durability::Disk => "BEGIN",
        };
        self.ask(begin, ANSWER_MAX, work).await
    }

    pub(super) async fn snapshot<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        self.ask(SNAPSHOT, SNAPSHOT_MAX, work).await
    }

    async fn ask<T, F>(
        &self,
        begin: &'static str,
        patience: Duration,
        work: F,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        self.0.try_send(Box::new(Piece { begin, work, answer })).map_err(|refused| {
            StoreError(match refused {
                mpsc::TrySendError::Full(_) => "the database's queue is full".to_owned(),
                mpsc::TrySendError::Disconnected(_) => "the database's workers ended".to_owned(),
            })
        })?;
        let late = |_| StoreError("the database did not answer in time".to_owned());
        let answered = tokio::time::timeout(patience, answered).await.map_err(late)?;
        answered.map_err(|_| StoreError("the database's worker did not run this".to_owned()))?
    }
}

impl<T, F> Job for Piece<T, F>
where
    T: Send,
    F: FnOnce(&mut Tx<'_>) -> Result<T, StoreError> + Send,
{
    fn is_wanted(&self) -> bool {
        !self.answer.is_closed()
    }

    fn begin(&self) -> &'static str {
        self.begin
    }

    fn run(self: Box<Self>, session: Result<&mut Session, StoreError>) {
        let Self { work, answer, .. } = *self;
        // A caller that went away does not need the answer.
        let _gone = answer.send(session.and_then(|session| session.finish(work)));
    }
}

/// A thread's connection, made when it is needed and again when it is lost.
struct Worker {
    address: Address,
    session: Option<Session>,
    unreachable: Option<Unreachable>,
}

/// The server could not be connected to: until then it is not asked again.
struct Unreachable {
    since: Stopwatch,
    rest: Duration,
    why: StoreError,
}

impl Worker {
    fn new(address: Address) -> Self {
        Self { address, session: None, unreachable: None }
    }

    fn serve(mut self, jobs: &Mutex<mpsc::Receiver<Box<dyn Job>>>) {
        loop {
            // The lock is held while waiting: the others wait for it instead of for the queue.
            let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(job) = next else { return };
            if !job.is_wanted() {
                continue;
            }
            let begun = self.begin(job.begin());
            job.run(begun);
            self.session = self.session.take().filter(Session::is_usable);
        }
    }

    /// A transaction on the connection at hand, or on a new one if that one is dead: nothing
    /// has been done on it that could be done twice.
    fn begin(&mut self, begin: &str) -> Result<&mut Session, StoreError> {
        let at_hand = self.session.take();
        let begun = at_hand.and_then(|mut session| session.begin(begin).ok().map(|()| session));
        let session = match begun {
            Some(session) => session,
            None => {
                let mut session = self.connect()?;
                session.begin(begin)?;
                session
            }
        };
        Ok(self.session.insert(session))
    }

    fn connect(&mut self) -> Result<Session, StoreError> {
        let rested = self.unreachable.take();
        if let Some(unreachable) = &rested
            && unreachable.since.elapsed() < unreachable.rest
        {
            let why = unreachable.why.clone();
            self.unreachable = rested;
            return Err(why);
        }
        Session::connect(&self.address).inspect_err(|why| {
            let rest = rested.map_or(REST_MIN, |before| before.rest.saturating_mul(2));
            log::warn!("the database cannot be reached: {why}");
            self.unreachable = Some(Unreachable {
                since: Stopwatch::start(),
                rest: rest.min(REST_MAX),
                why: why.clone(),
            });
        })
    }
}

/// Connections of one gateway: work is short, and a server has about a hundred for everybody.
const WORKERS: usize = 4;

/// Work that waits for a worker; beyond it a caller is refused at once rather than queued.
const QUEUE_MAX: usize = 1024;

/// Longer than a connection and a statement may take together.
const ANSWER_MAX: Duration = Duration::from_secs(8);

const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
    SET LOCAL statement_timeout = '5min'";
const SNAPSHOT_MAX: Duration = Duration::from_secs(600);

/// Between attempts to connect, so that a server that comes back is noticed within a second.
const REST_MIN: Duration = Duration::from_millis(50);
const REST_MAX: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests;
