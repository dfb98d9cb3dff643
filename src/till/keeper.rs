//! The keeper finishes what was left unfinished: by a dead process, once at the start; by a
//! mint or a ledger that was away, in the background ever after.
//!
//! It boards the same flights as everybody else, so that it never works on what a live
//! request works on; and of a fleet's unfinished matters the wallet gives it only those that no
//! live gateway is at.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;

use super::flights::Boarding;
use super::payment::payment_of;
use super::{Recovery, RedeemRefused, RefundFlown, Till};
use crate::clock::Stopwatch;
use crate::ids::{DepositId, WithdrawalId};
use crate::ledger::{Ledger, Withdrawal};
use crate::wallet::Resolved;

/// How one unfinished matter stands after a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Matter {
    Completed,
    Forgotten,
    Open,
}

impl<L: Ledger> Till<L> {
    /// Completes or undoes what a dead process left, as far as the mints answer in time; the
    /// rest, and all that is left later, is kept at in the background from here on.
    ///
    /// To be called before anything is served: in this order no live request is mistaken for
    /// a dead one.
    pub async fn recover(&self) -> Recovery {
        let report = Arc::new(Mutex::new(Recovery::default()));
        let work = {
            let (till, report) = (self.clone(), report.clone());
            self.wallet().handle().spawn(async move { till.look_at_all(&report).await })
        };
        let bound = self.wallet().timeout().saturating_mul(RECOVERY_TIMEOUTS);
        if tokio::time::timeout(bound, work).await.is_err() {
            log::warn!("recovery: the mints do not answer in time; it goes on in the background");
        }
        self.keep();
        report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn look_at_all(self, report: &Arc<Mutex<Recovery>>) {
        let bound = self.look_bound();
        let note = |change: &dyn Fn(&mut Recovery)| {
            change(&mut report.lock().unwrap_or_else(PoisonError::into_inner));
        };
        let due = self.wallet().due(true).await.unwrap_or_else(|error| {
            log::error!("recovery: {error}");
            Default::default()
        });
        // Counted as open until something better is known, should the time run out.
        let redemptions = u64::try_from(due.redemptions.len()).unwrap_or(u64::MAX);
        note(&|report| report.redemptions_unknown = redemptions);
        let looks = due.redemptions.into_iter().map(|id| self.clone().look_at_redemption(id));
        in_parallel(bound, looks, |matter| {
            note(&|report| match matter {
                Matter::Completed => {
                    report.redemptions_unknown -= 1;
                    report.redemptions_completed += 1;
                }
                Matter::Forgotten => {
                    report.redemptions_unknown -= 1;
                    report.redemptions_forgotten += 1;
                }
                Matter::Open => {}
            });
        })
        .await;
        let quotes = due.quotes.into_iter().map(|id| self.clone().look_at_quote(id));
        in_parallel(bound, quotes, |matter| {
            note(&|report| report.invoices_completed += u64::from(matter == Matter::Completed));
        })
        .await;
        let exchanges = due.exchanges.into_iter().map(|id| self.clone().look_at_exchange(id));
        in_parallel(bound, exchanges, |_| {}).await;
        let open = self.ledger().withdrawals_open().await.unwrap_or_else(|why| {
            log::error!("recovery: the ledger does not answer: {why:?}");
            Vec::new()
        });
        note(&|report| report.withdrawals_pending = open.len() as u64);
        let looks = open.into_iter().map(|withdrawal| self.clone().look_at_withdrawal(withdrawal));
        in_parallel(bound, looks, |matter| {
            if matter == Matter::Completed {
                note(&|report| {
                    report.withdrawals_pending -= 1;
                    report.withdrawals_completed += 1;
                });
            }
        })
        .await;
        self.sweep().await;
    }

    /// Keeps at it in the background, until the last handle to this till is gone.
    fn keep(&self) {
        if self.0.kept.swap(true, Ordering::Relaxed) {
            return;
        }
        let till = Arc::downgrade(&self.0);
        self.wallet().handle().spawn(async move {
            let mut patience = Patience::default();
            for round in 1_u64.. {
                tokio::time::sleep(ROUND).await;
                let Some(till) = till.upgrade().map(Till) else { return };
                till.round(round, &mut patience).await;
            }
        });
    }

    async fn round(&self, round: u64, patience: &mut Patience) {
        let bound = self.look_bound();
        match self.wallet().due(false).await {
            Ok(due) => {
                let looks = due.redemptions.into_iter();
                in_parallel(bound, looks.map(|id| self.clone().look_at_redemption(id)), |_| {})
                    .await;
                let looks = due.quotes.into_iter();
                in_parallel(bound, looks.map(|id| self.clone().look_at_quote(id)), |_| {}).await;
                let looks = due.exchanges.into_iter();
                in_parallel(bound, looks.map(|id| self.clone().look_at_exchange(id)), |_| {}).await;
            }
            Err(error) => log::warn!("keeper: {error}"),
        }
        let open = self.ledger().withdrawals_open().await.unwrap_or_default();
        let looks = patience.whose_turn(round, open).into_iter();
        let looks = looks.map(|withdrawal| self.clone().look_at_withdrawal(withdrawal));
        in_parallel(bound, looks, |_| {}).await;
        if round.is_multiple_of(CLAIMED_ROUNDS)
            && let Err(error) = self.wallet().note_claimed().await
        {
            log::warn!("keeper: {error}");
        }
        if round.is_multiple_of(SWEEP_ROUNDS) {
            self.sweep().await;
        }
        if round.is_multiple_of(KEYSET_ROUNDS) {
            self.wallet().refresh_keysets().await;
            if let Err(error) = self.wallet().leave_inactive_keysets().await {
                log::warn!("keeper: {error}");
            }
        }
    }

    /// A look asks a mint a few times, each within its timeout.
    fn look_bound(&self) -> Duration {
        self.wallet().timeout().saturating_mul(LOOK_TIMEOUTS)
    }

    async fn look_at_redemption(self, id: DepositId) -> Matter {
        let Boarding::Pilot(flight) = self.0.redemptions.board(&id) else { return Matter::Open };
        flight.asked();
        match self.wallet().resolve_redemption(&id).await {
            Resolved::Redeemed(redemption) => {
                let outcome = self.credit(redemption).await;
                let credited = outcome.is_ok();
                flight.land(Some(outcome));
                if credited { Matter::Completed } else { Matter::Open }
            }
            Resolved::Forgotten => {
                flight.land(None);
                Matter::Forgotten
            }
            Resolved::Unknown => {
                flight.land(Some(Err(RedeemRefused::Unknown)));
                Matter::Open
            }
        }
    }

    async fn look_at_exchange(self, id: String) -> Matter {
        match self.wallet().resolve_exchange(&id).await {
            Ok(true) => Matter::Completed,
            Ok(false) => Matter::Open,
            Err(error) => {
                log::warn!("exchange {id}: {error}");
                Matter::Open
            }
        }
    }

    async fn look_at_withdrawal(self, withdrawal: Withdrawal) -> Matter {
        let Boarding::Pilot(flight) = self.0.refunds.board(&withdrawal.account) else {
            return Matter::Open;
        };
        flight.asked();
        let finished = match payment_of(&withdrawal) {
            Some(_) => self.end_payment(&withdrawal).await.is_ok(),
            None => self.finish(&withdrawal, Duration::ZERO).await.is_ok(),
        };
        flight.land(RefundFlown::Kept);
        if finished { Matter::Completed } else { Matter::Open }
    }
}

/// How often each open withdrawal was looked at in vain: its turns grow rarer.
#[derive(Default)]
struct Patience(HashMap<WithdrawalId, u32>);

impl Patience {
    fn whose_turn(&mut self, round: u64, open: Vec<Withdrawal>) -> Vec<Withdrawal> {
        let looked: HashMap<WithdrawalId, u32> = open
            .iter()
            .map(|open| (open.id.clone(), self.0.get(&open.id).copied().unwrap_or(0)))
            .collect();
        self.0 = looked;
        let mut turns = Vec::new();
        for withdrawal in open {
            let tries = self.0.entry(withdrawal.id.clone()).or_default();
            if turns.len() < TURNS_MAX && round.is_multiple_of(1 << (*tries).min(RARER_MAX)) {
                *tries = tries.saturating_add(1);
                turns.push(withdrawal);
            }
        }
        turns
    }
}

/// Runs the looks, a bounded number at once; `done` hears how each ended. One that takes
/// longer than `bound` is no longer waited for, but never cancelled: it may be at a swap.
async fn in_parallel<F>(
    bound: Duration,
    looks: impl Iterator<Item = F>,
    mut done: impl FnMut(Matter),
) where
    F: Future<Output = Matter> + Send + 'static,
{
    let mut looks = looks.peekable();
    while looks.peek().is_some() {
        let spawned: Vec<_> =
            looks.by_ref().take(PARALLEL_MAX).map(|look| Handle::current().spawn(look)).collect();
        let started = Stopwatch::start();
        for look in spawned {
            let left = bound.saturating_sub(started.elapsed());
            if let Ok(Ok(matter)) = tokio::time::timeout(left, look).await {
                done(matter);
            }
        }
    }
}

const ROUND: Duration = Duration::from_secs(2);

/// Rounds between looks at tokens given out, at what nobody claims, and at the mints' keysets.
const CLAIMED_ROUNDS: u64 = 15;
const SWEEP_ROUNDS: u64 = 15;
const KEYSET_ROUNDS: u64 = 150;

/// Withdrawals looked at in one round; the others have the next.
const TURNS_MAX: usize = 64;
/// At most every 2^5th round, about once a minute.
const RARER_MAX: u32 = 5;

const PARALLEL_MAX: usize = 16;
const LOOK_TIMEOUTS: u32 = 3;

/// How many mint timeouts the start waits for mints that do not answer.
const RECOVERY_TIMEOUTS: u32 = 4;
