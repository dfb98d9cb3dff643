//! Work that many may wait for and nobody may cancel: one flight per key at a time.
//!
//! The first to come flies (on a task of its own), whoever comes meanwhile is a passenger and
//! gets the same outcome. Waiting is bounded; the flight goes on without its passengers.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};

/// How far a flight is.
#[derive(Clone, Debug)]
enum Phase<V> {
    /// Nothing has happened that could not be taken back; bounded by itself.
    Preparing,
    /// The outcome may be decided by somebody else from here on.
    Asked,
    Landed(V),
}

type Waiters<K, V> = HashMap<K, watch::Receiver<Phase<V>>>;

pub(super) struct Flights<K, V>(Arc<Sky<K, V>>);

struct Sky<K, V> {
    waiters: Mutex<Waiters<K, V>>,
    left: Notify,
}

pub(super) enum Boarding<K: Eq + Hash, V> {
    /// Nobody is at it: whoever holds this must fly and land it.
    Pilot(Flight<K, V>),
    Passenger(Waiting<V>),
}

/// The right to work on a key. Dropped without landing, the passengers learn nothing.
pub(super) struct Flight<K: Eq + Hash, V> {
    flights: Flights<K, V>,
    key: Option<K>,
    phase: watch::Sender<Phase<V>>,
}

pub(super) struct Waiting<V>(watch::Receiver<Phase<V>>);

impl<K: Clone + Eq + Hash, V> Flights<K, V> {
    pub(super) fn board(&self, key: &K) -> Boarding<K, V> {
        let mut waiters = self.lock();
        if let Some(waiter) = waiters.get(key) {
            return Boarding::Passenger(Waiting(waiter.clone()));
        }
        let (phase, waiter) = watch::channel(Phase::Preparing);
        waiters.insert(key.clone(), waiter);
        let (flights, key) = (self.clone(), Some(key.clone()));
        Boarding::Pilot(Flight { flights, key, phase })
    }

    pub(super) fn is_flying(&self, key: &K) -> bool {
        self.lock().contains_key(key)
    }
}

impl<K: Eq + Hash, V> Flights<K, V> {
    /// Returns when nobody flies.
    pub(super) async fn all_landed(&self) {
        loop {
            let left = self.0.left.notified();
            if self.lock().is_empty() {
                return;
            }
            left.await;
        }
    }

    // The map is sound after a panic elsewhere: every change to it is a single call.
    fn lock(&self) -> MutexGuard<'_, Waiters<K, V>> {
        self.0.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K, V> Clone for Flights<K, V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K, V> Default for Flights<K, V> {
    fn default() -> Self {
        Self(Arc::new(Sky { waiters: Mutex::default(), left: Notify::new() }))
    }
}

impl<K: Eq + Hash, V> Flight<K, V> {
    pub(super) fn waiting(&self) -> Waiting<V> {
        Waiting(self.phase.subscribe())
    }

    pub(super) fn asked(&self) {
        self.phase.send_replace(Phase::Asked);
    }

    /// From here on the next to board flies again; then the passengers hear.
    pub(super) fn land(mut self, outcome: V) {
        self.leave();
        self.phase.send_replace(Phase::Landed(outcome));
    }

    fn leave(&mut self) {
        if let Some(key) = self.key.take() {
            self.flights.lock().remove(&key);
            self.flights.0.left.notify_waiters();
        }
    }
}

impl<K: Eq + Hash, V> Drop for Flight<K, V> {
    fn drop(&mut self) {
        self.leave();
    }
}

impl<V: Clone> Waiting<V> {
    /// The outcome, unless it takes longer than `patience` once the matter is out of our hands.
    pub(super) async fn outcome(mut self, patience: Duration) -> Option<V> {
        loop {
            let bound = match &*self.0.borrow_and_update() {
                Phase::Landed(outcome) => return Some(outcome.clone()),
                Phase::Asked => patience,
                Phase::Preparing => patience.saturating_mul(PREPARING),
            };
            tokio::time::timeout(bound, self.0.changed()).await.ok()?.ok()?;
        }
    }
}

/// Preparing asks a mint for its keysets and their keys, each within the same bound.
const PREPARING: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_millis(20);

    fn pilot(flights: &Flights<u8, u8>) -> Flight<u8, u8> {
        match flights.board(&1) {
            Boarding::Pilot(flight) => flight,
            Boarding::Passenger(_) => panic!("somebody flies"),
        }
    }

    fn passenger(flights: &Flights<u8, u8>) -> Waiting<u8> {
        match flights.board(&1) {
            Boarding::Passenger(waiting) => waiting,
            Boarding::Pilot(_) => panic!("nobody flies"),
        }
    }

    #[tokio::test]
    async fn whoever_boards_gets_the_outcome_of_the_one_flight() {
        let flights = Flights::default();
        let flight = pilot(&flights);
        let (first, second) = (flight.waiting(), passenger(&flights));
        flight.land(7);
        assert_eq!(first.outcome(PATIENCE).await, Some(7));
        assert_eq!(second.outcome(PATIENCE).await, Some(7), "also when it has landed before");
        assert!(!flights.is_flying(&1));
    }

    #[tokio::test]
    async fn waiting_is_bounded_and_the_flight_goes_on() {
        let flights = Flights::default();
        let flight = pilot(&flights);
        flight.asked();
        assert_eq!(passenger(&flights).outcome(PATIENCE).await, None);
        assert!(flights.is_flying(&1));
        let (_, ()) = tokio::join!(flights.all_landed(), async { drop(flight) });
        assert!(!flights.is_flying(&1), "a pilot that died blocks nobody");
    }
}
