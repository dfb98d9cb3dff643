//! What one request carries from hook to hook.
//!
//! [`Stage`] is the state machine that money depends on; everything else here is for the log.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::meter::Meter;
use super::once::Attempt;
use super::order::Order;
use super::rolling::Holding;
use super::verdict::Verdict;
use crate::clock::{Stopwatch, UnixMs};
use crate::ids::AccountId;
use crate::ledger::Receipt;
use crate::ledger::terms::Standing;
use crate::money::Msat;
use crate::pricing::Price;
use crate::upstream::Upstream;

/// The state of one request; dropped with it, whatever happens.
#[derive(Debug)]
pub struct Ctx {
    pub(super) request_id: String,
    pub(super) started: Stopwatch,
    pub(super) stage: Stage,
    pub(super) meter: Meter,
    pub(super) presence: Presence,
    /// The upstream being asked, or the one that answered.
    pub(super) candidate: Option<Arc<Upstream>>,
    /// An upstream has the request and has not declined it: it may be at work, which somebody pays.
    pub(super) at_work: bool,
    /// What it would take to pay for this request, told with its refusal.
    pub(super) challenge: Option<Msat>,
    /// Where the payer's key stood with its limits when the ledger was asked, and since when that
    /// is.
    pub(super) standing: Option<(Standing, Stopwatch)>,
    /// Of a request that is to be made once.
    pub(super) attempt: Option<Attempt>,
    /// Header lines that the head of this answer gets besides the upstream's own.
    pub(super) added: crate::api::HeaderList,
    pub(super) log: LogLine,
    pub(super) _open: Open,
}

/// What the access log says of a request, known step by step.
#[derive(Debug, Default)]
pub(super) struct LogLine {
    pub(super) model: String,
    pub(super) reserved: Msat,
    pub(super) verdict: Option<Verdict>,
    pub(super) receipt: Option<Receipt>,
    pub(super) ended: &'static str,
}

/// Where a request stands with the ledger.
#[derive(Debug)]
pub(super) enum Stage {
    /// Nothing is reserved, nothing may be forwarded.
    Unpaid,
    /// A reservation is open; it ends in `close` and nowhere else.
    Reserved(Ticket),
    /// The reservation has ended.
    Closed,
}

/// The right to be forwarded.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) order: Arc<Order>,
    pub(super) reservation: Holding,
    pub(super) reserved: Msat,
    /// Which of the order's bids it is charged by: that of the upstream being asked.
    pub(super) bid: usize,
    /// What the account had left beside this reservation when it was made or last raised.
    pub(super) available: Msat,
    /// The output tokens that `reserved` pays for; fewer than the most while it is rolling.
    pub(super) covered: u64,
    /// Whether to ask for the next slice before this one is used up.
    pub(super) asks_ahead: bool,
    pub(super) payer: AccountId,
    /// Paid by `X-Cashu`: what is left goes back with the answer.
    pub(super) wants_change: bool,
}

impl Ticket {
    /// What it is charged by.
    pub(super) fn price(&self) -> Price {
        self.order.bids.get(self.bid).map_or_else(Price::default, |bid| bid.price)
    }

    /// What the account will have when this request has cost `cost`, other requests aside.
    pub(super) fn remaining(&self, cost: Msat) -> Msat {
        let returned = self.reserved.saturating_sub(cost);
        let beyond = cost.saturating_sub(self.reserved);
        self.available.saturating_add(returned).saturating_sub(beyond)
    }
}

/// Whether there is still somebody to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    /// Its leaving ends the exchange.
    Watched,
    /// Its leaving is noted, and the upstream is heard to its end (`abort: drain`).
    Optional,
    /// It left, and the upstream is heard to its end.
    Gone,
}

/// How many requests or connections are open, and word when none is.
#[derive(Debug, Default)]
pub(super) struct OpenCount {
    open: AtomicUsize,
    lock: Mutex<()>,
    none: Condvar,
}

impl OpenCount {
    /// Waits until none is open; false when that took longer than `limit`.
    pub(super) fn wait_for_none(&self, limit: Duration) -> bool {
        let lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let is_open = |(): &mut ()| self.open.load(Ordering::SeqCst) > 0;
        let waited = self.none.wait_timeout_while(lock, limit, is_open);
        waited.is_ok_and(|(_, result)| !result.timed_out())
    }
}

/// Counts this request, or connection, among the open ones until it is dropped.
#[derive(Debug)]
pub(super) struct Open(Arc<OpenCount>);

impl Open {
    pub(super) fn new(count: &Arc<OpenCount>) -> Self {
        count.open.fetch_add(1, Ordering::SeqCst);
        Self(count.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.0.open.fetch_sub(1, Ordering::SeqCst) == 1 {
            // Under the lock, so that it cannot fall between a look at the count and the wait.
            let _lock = self.0.lock.lock().unwrap_or_else(PoisonError::into_inner);
            self.0.none.notify_all();
        }
    }
}

impl Ctx {
    pub(super) fn new(open: &Arc<OpenCount>) -> Self {
        Self {
            request_id: String::new(),
            started: Stopwatch::start(),
            stage: Stage::Unpaid,
            meter: Meter::Nothing,
            presence: Presence::Watched,
            candidate: None,
            at_work: false,
            challenge: None,
            standing: None,
            attempt: None,
            added: Vec::new(),
            log: LogLine::default(),
            _open: Open::new(open),
        }
    }

    pub(super) fn stands(&mut self, standing: Standing) {
        self.standing = Some((standing, Stopwatch::start()));
    }

    /// The rate limit lines for a head that leaves now; none when the ledger knew no key.
    pub(super) fn rate_limit_lines(&self) -> crate::api::HeaderList {
        self.standing.map_or_else(Vec::new, |(standing, since)| {
            crate::api::rate_limit_headers(standing.after(since.elapsed()), UnixMs::now())
        })
    }

    pub(super) fn ticket(&self) -> Option<&Ticket> {
        match &self.stage {
            Stage::Reserved(ticket) => Some(ticket),
            Stage::Unpaid | Stage::Closed => None,
        }
    }

    pub(super) fn ticket_mut(&mut self) -> Option<&mut Ticket> {
        match &mut self.stage {
            Stage::Reserved(ticket) => Some(ticket),
            Stage::Unpaid | Stage::Closed => None,
        }
    }
}
