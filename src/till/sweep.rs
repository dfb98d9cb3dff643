//! What nobody claims: change that its client was not there to be given, and that becomes the
//! gateway's own after a time, where configuration says so.
//!
//! It is noted when it is left, in the background: a note that is lost leaves it to be claimed for
//! ever. A note says how many entries the account's history had, so that anything that happens to
//! the account ends it. A sweep is a reservation of what was left, settled at all of it: the ledger
//! decides between it and a claim, and its id follows from the note, so that whoever repeats it,
//! after a crash or in another gateway, takes nothing more.

use std::time::Duration;

use super::refund::unread;
use super::{RefundRefused, Till};
use crate::crash::{self, Step};
use crate::ids::{AccountId, ReservationId};
use crate::ledger::terms::Limits;
use crate::ledger::{Account, Admission, Denied, Ledger, Record, Unavailable, Unsettled, What};
use crate::money::Msat;
use crate::wallet::{Unclaimed, WalletError};

/// Why a sweep is left to the next round.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotYet {
    #[error("{0}")]
    Ledger(#[from] Unavailable),
    #[error("{0}")]
    Wallet(#[from] WalletError),
    #[error("it is in use: {0:?}")]
    Denied(Denied),
}

impl<L: Ledger> Till<L> {
    /// The change of this account was not given to its client. Returns at once.
    pub fn leave_unclaimed(&self, account: AccountId) {
        if self.0.sweep_after.is_some() {
            let till = self.clone();
            self.wallet().handle().spawn(async move {
                if let Err(error) = till.note_unclaimed(&account).await {
                    log::info!("change of {account} is never swept: {error}");
                }
            });
        }
    }

    pub(super) async fn note_unclaimed(&self, account: &AccountId) -> Result<(), NotYet> {
        let Some(held) = self.ledger().account(account.clone()).await? else { return Ok(()) };
        if held.parent.is_some() || held.open_reservations > 0 || held.available == Msat::ZERO {
            return Ok(());
        }
        let Account { entries, available: amount, .. } = held;
        let left = Unclaimed { account: account.clone(), entries, amount };
        Ok(self.wallet().note_unclaimed(left).await?)
    }

    /// Sweeps what was left for long enough, a bounded number in one round.
    pub(super) async fn sweep(&self) {
        let Some(after) = self.0.sweep_after else { return };
        let due = match self.wallet().unclaimed_for(after).await {
            Ok(due) => due,
            Err(error) => return log::warn!("sweep: {error}"),
        };
        for left in due {
            if let Err(why) = self.sweep_one(&left).await {
                log::info!("change of {} is not swept yet: {why}", left.account);
            }
        }
    }

    async fn sweep_one(&self, left: &Unclaimed) -> Result<(), NotYet> {
        let Some(held) = self.ledger().account(left.account.clone()).await? else {
            return Ok(self.wallet().forget_unclaimed(left).await?);
        };
        if held.entries == left.entries {
            return self.take(left).await;
        }
        match self.became(left).await? {
            Some(spent) if spent == left.amount => self.taken(left).await,
            Some(_) if held.entries == left.entries + 1 => {
                let again = self.wallet().renew_unclaimed(left).await?;
                self.take(&again).await
            }
            Some(_) | None => Ok(self.wallet().forget_unclaimed(left).await?),
        }
    }

    /// Moves what was left, if it is still there.
    async fn take(&self, left: &Unclaimed) -> Result<(), NotYet> {
        let admission = Admission {
            reservation: left.sweep(),
            account: left.account.clone(),
            ceiling: left.amount,
            tokens: 0,
            lifetime: LIFETIME,
            limits: Limits::NONE,
            once: None,
        };
        let admitted = match self.ledger().admit(admission).await? {
            Ok(admitted) => admitted,
            Err(denial) => return self.not_taken(left, denial.denied).await,
        };
        crash::point(Step::SweepReserved);
        let record = Record {
            request_id: left.sweep().to_string(),
            route: SWEPT.to_owned(),
            model: SWEPT.to_owned(),
            ..Record::default()
        };
        match self.ledger().settle(admitted.reservation, left.amount, record).await {
            Ok(receipt) if receipt.spent == left.amount => {}
            // It had ended otherwise; the next look finds how.
            Ok(_) | Err(Unsettled::Forgotten) => return Ok(()),
            Err(Unsettled::NoAnswer { reservation, why }) => {
                // What the reaper will charge when it ends it.
                reservation.note_accrued(left.amount);
                return Err(why.into());
            }
        }
        crash::point(Step::SweepSettled);
        self.taken(left).await
    }

    async fn not_taken(&self, left: &Unclaimed, denied: Denied) -> Result<(), NotYet> {
        match denied {
            // Something is under way, and the next look finds what became of it.
            Denied::Insufficient { .. } | Denied::AlreadyEnded => Err(NotYet::Denied(denied)),
            // A key with terms of its own, by which nothing can be taken: nobody waits for that.
            Denied::NoAccount
            | Denied::Expired
            | Denied::Limited(_)
            | Denied::Capped { .. }
            | Denied::InFlight
            | Denied::Served
            | Denied::Reused => Ok(self.wallet().forget_unclaimed(left).await?),
        }
    }

    async fn taken(&self, left: &Unclaimed) -> Result<(), NotYet> {
        if self.wallet().note_swept(left).await? {
            let Unclaimed { account, amount, .. } = left;
            log::info!("account {account}: {} msat that nobody claimed are swept", amount.get());
        }
        Ok(())
    }

    /// What a sweep took, if that is the last that happened to the account: nothing, when a crash
    /// interrupted it for so long that its reservation expired.
    async fn became(&self, left: &Unclaimed) -> Result<Option<Msat>, NotYet> {
        let newest = self.ledger().history(left.account.clone(), None, 1).await?;
        Ok(newest.entries.into_iter().find_map(|entry| match entry.what {
            What::Request { id, spent, .. } => (id == left.sweep()).then_some(spent),
            What::Deposit { .. } | What::Withdrawal { .. } => None,
        }))
    }

    /// Somebody came for what this account has, and it cannot be given now: it is not swept.
    pub(super) async fn could_not_give(&self, account: &AccountId, holder: &Account) {
        if self.0.sweep_after.is_none() {
            return;
        }
        let Account { entries, available: amount, .. } = *holder;
        let left = Unclaimed { account: account.clone(), entries, amount };
        if let Err(error) = self.wallet().forget_unclaimed(&left).await {
            log::warn!("refund of {account}: {error}");
        }
    }

    /// Why there is nothing to be given of this account, which has nothing.
    pub(super) async fn nothing_left(
        &self,
        account: &AccountId,
        holder: &Account,
    ) -> Result<RefundRefused, RefundRefused> {
        if self.0.sweep_after.is_none() {
            return Ok(RefundRefused::NothingToRefund);
        }
        let swept = self.wallet().swept(account, holder.entries).await;
        let swept = swept.map_err(|error| unread(&error))?;
        Ok(swept.map_or(RefundRefused::NothingToRefund, |at| RefundRefused::Swept { at }))
    }
}

impl Unclaimed {
    /// The reservation that takes it.
    fn sweep(&self) -> ReservationId {
        ReservationId::of_sweep(&self.account, self.entries)
    }
}

/// What the history of an account says instead of a route and a model.
const SWEPT: &str = "swept";

/// A sweep takes milliseconds. One that a crash interrupts is repeated, or gives back.
const LIFETIME: Duration = Duration::from_secs(60);
