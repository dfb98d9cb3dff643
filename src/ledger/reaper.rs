//! The reaper: keeps live reservations alive and ends those that nobody will end.
//!
//! Each tick renews everything this process holds open, in one call and with what has accrued,
//! and expires what is overdue, whoever made it. What was dropped without an end, and what may
//! have been made although its answer was lost, is handed back between the ticks: it ends at
//! what had accrued. A reservation whose settle got no answer comes this way too.

use std::time::Duration;

use super::{Ledger, Renewal};
use crate::clock::Stopwatch;

/// One tick; true when the ledger answered all of it. A ledger that does not answer is asked
/// again with the next one; nothing is forgotten before it has.
///
/// `may_expire` is false for the first tick after an outage: deadlines have passed that nobody
/// could renew, and the gateways that hold those reservations come first.
pub async fn tick<L: Ledger>(ledger: &L, lifetime: Duration, may_expire: bool) -> bool {
    renew(ledger, ledger.live().renewals(lifetime)).await
        && (!may_expire || expire_all(ledger).await)
}

async fn renew<L: Ledger>(ledger: &L, renewals: Vec<Renewal>) -> bool {
    match ledger.renew(renewals.clone()).await {
        Ok(()) => {
            ledger.live().forget_abandoned(&renewals);
            true
        }
        Err(error) => {
            log::warn!("reaper: {} reservations not renewed: {error}", renewals.len());
            false
        }
    }
}

async fn expire_all<L: Ledger>(ledger: &L) -> bool {
    loop {
        match ledger.expire().await {
            Ok(receipts) if receipts.is_empty() => return true,
            Ok(receipts) => log::warn!("reaper: {} reservations expired", receipts.len()),
            Err(error) => {
                log::warn!("reaper: could not expire: {error}");
                return false;
            }
        }
    }
}

/// Ticks until the caller drops it.
pub async fn run<L: Ledger>(ledger: L, lifetime: Duration, every: Duration) {
    let mut answered = false;
    loop {
        answered = tick(&ledger, lifetime, answered).await;
        let since = Stopwatch::start();
        while since.elapsed() < every {
            let left = every.saturating_sub(since.elapsed());
            tokio::time::sleep(left.min(HAND_BACK_EVERY)).await;
            let abandoned = ledger.live().abandoned();
            if !abandoned.is_empty() {
                renew(&ledger, abandoned).await;
            }
        }
    }
}

/// How long money may stay set aside for a request that this process has given up.
const HAND_BACK_EVERY: Duration = Duration::from_secs(1);
