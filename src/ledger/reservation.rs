//! What a process holds while a reservation is open, and how the reaper learns of it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Renewal;
use crate::ids::{AccountId, ReservationId};
use crate::money::Msat;

/// An open reservation: an obligation to end it. Consumed by [`settle`](super::Ledger::settle) or
/// [`release`](super::Ledger::release); dropped on any other path, the reaper ends it with what
/// had accrued.
///
/// ```compile_fail
/// fn twice(reservation: nutgate::ledger::Reservation) {
///     let _copy = reservation.clone();
/// }
/// ```
#[must_use = "a reservation ends in `settle` or `release`"]
#[derive(Debug)]
pub struct Reservation {
    pub id: ReservationId,
    pub account: AccountId,
    pub amount: Msat,
    live: Option<(Live, Accrued)>,
}

impl Reservation {
    /// Armed from here on: also before the ledger was asked, so that one whose answer is lost
    /// is handed back rather than held until its deadline.
    pub fn open(id: ReservationId, account: AccountId, amount: Msat, live: &Live) -> Self {
        let accrued = live.enter(&id, &account);
        Self { id, account, amount, live: Some((live.clone(), accrued)) }
    }

    /// Notes the cost of what has been delivered so far: what an expiry would charge.
    pub fn note_accrued(&self, cost: Msat) {
        if let Some((_, accrued)) = &self.live {
            accrued.note(cost);
        }
    }

    /// The ledger has recorded the end: nobody needs to renew or end it any more.
    pub(super) fn ended(mut self) {
        if let Some((live, _)) = self.live.take() {
            live.leave(&self.id);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some((live, _)) = self.live.take() {
            live.abandon(&self.id);
        }
    }
}

/// The cost accrued by one live request, in msat; written by its exchange, read by the reaper.
#[derive(Clone, Debug, Default)]
struct Accrued(Arc<AtomicU64>);

impl Accrued {
    fn note(&self, cost: Msat) {
        self.0.store(cost.get(), Ordering::Relaxed);
    }

    fn read(&self) -> Msat {
        Msat::new(self.0.load(Ordering::Relaxed)).unwrap_or(Msat::MAX)
    }
}

/// The reservations that this process holds open, and those it lost track of.
#[derive(Clone, Debug, Default)]
pub struct Live(Arc<Mutex<HashMap<ReservationId, Entry>>>);

#[derive(Debug)]
struct Entry {
    account: AccountId,
    accrued: Accrued,
    abandoned: bool,
}

impl Live {
    pub fn open_count(&self) -> usize {
        self.entries().len()
    }

    fn enter(&self, id: &ReservationId, account: &AccountId) -> Accrued {
        let accrued = Accrued::default();
        let entry = Entry { account: account.clone(), accrued: accrued.clone(), abandoned: false };
        self.entries().insert(id.clone(), entry);
        accrued
    }

    fn leave(&self, id: &ReservationId) {
        self.entries().remove(id);
    }

    fn abandon(&self, id: &ReservationId) {
        if let Some(entry) = self.entries().get_mut(id) {
            entry.abandoned = true;
        }
    }

    /// What nobody will end any more: to be ended at once, at what had accrued.
    pub(super) fn abandoned(&self) -> Vec<Renewal> {
        let mut renewals = self.renewals(Duration::MAX);
        renewals.retain(|renewal| renewal.lifetime == Duration::ZERO);
        renewals
    }

    /// What to renew for `lifetime`, and what is abandoned.
    pub(super) fn renewals(&self, lifetime: Duration) -> Vec<Renewal> {
        let renewal = |(id, entry): (&ReservationId, &Entry)| Renewal {
            reservation: id.clone(),
            account: entry.account.clone(),
            lifetime: if entry.abandoned { Duration::ZERO } else { lifetime },
            accrued: entry.accrued.read(),
        };
        self.entries().iter().map(renewal).collect()
    }

    /// Forgets the abandoned once the ledger has ended them.
    pub(super) fn forget_abandoned(&self, renewed: &[Renewal]) {
        let mut entries = self.entries();
        for renewal in renewed.iter().filter(|renewal| renewal.lifetime == Duration::ZERO) {
            entries.remove(&renewal.reservation);
        }
    }

    // The map is sound after a panic elsewhere: every change to it is a single call.
    fn entries(&self) -> MutexGuard<'_, HashMap<ReservationId, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
