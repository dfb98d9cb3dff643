//! The reaper: keeps live reservations alive and ends those that nobody will end.
//!
//! Each tick renews everything this process holds open, in one call and with what has accrued;
//! hands back what was dropped without an end; and expires what is overdue. A reservation
//! whose settle got no answer comes this way too: its cost is what it has accrued.

use std::time::Duration;

use super::Ledger;

/// One tick; true when the ledger answered all of it. A ledger that does not answer is asked
/// again with the next one; nothing is forgotten before it has.
///
/// `may_expire` is false for the first ticks after an outage: deadlines have passed that nobody
/// could renew, and the gateways that hold those reservations come first.
pub async fn tick<L: Ledger>(ledger: &L, lifetime: Duration, may_expire: bool) -> bool {
    let live = ledger.live();
    let renewals = live.renewals(lifetime);
    match ledger.renew(renewals.clone()).await {
        Ok(()) => live.forget_abandoned(&renewals),
        Err(error) => {
            log::warn!("reaper: {} reservations not renewed: {error}", renewals.len());
            return false;
        }
    }
    !may_expire || expire_all(ledger).await
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
    let mut interval = tokio::time::interval(every);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut answered_in_a_row = 0_u32;
    loop {
        interval.tick().await;
        let answered = tick(&ledger, lifetime, answered_in_a_row >= CALM_TICKS).await;
        answered_in_a_row = if answered { answered_in_a_row.saturating_add(1) } else { 0 };
    }
}

/// Ticks that the ledger must have answered before anybody's reservation is expired.
const CALM_TICKS: u32 = 1;
