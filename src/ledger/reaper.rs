//! The reaper: keeps live reservations alive and ends those that nobody will end.
//!
//! Each tick renews everything this process holds open, in one call and with what has accrued;
//! hands back what was dropped without an end; and expires what is overdue. A reservation
//! whose settle got no answer comes this way too: its cost is what it has accrued.

use std::time::Duration;

use super::{Ledger, Live};
use crate::clock::UnixMs;

/// One tick. A ledger that does not answer is asked again with the next one; nothing is
/// forgotten before it has.
pub async fn tick<L: Ledger>(ledger: &L, live: &Live, lifetime: Duration) {
    let now = UnixMs::now();
    let renewals = live.renewals(now, now.plus(lifetime));
    match ledger.renew(renewals.clone()).await {
        Ok(()) => live.forget_abandoned(&renewals, now),
        Err(error) => {
            log::warn!("reaper: {} reservations not renewed: {error}", renewals.len());
            return;
        }
    }
    match ledger.expire(now).await {
        Ok(receipts) if receipts.is_empty() => {}
        Ok(receipts) => log::warn!("reaper: {} reservations expired", receipts.len()),
        Err(error) => log::warn!("reaper: could not expire: {error}"),
    }
}

/// Ticks until the caller drops it.
pub async fn run<L: Ledger>(ledger: L, live: Live, lifetime: Duration, every: Duration) {
    let mut interval = tokio::time::interval(every);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        tick(&ledger, &live, lifetime).await;
    }
}
