//! From an account's history to deliveries: exactly the events, none of them lost by a crash, and
//! nothing of it in a request's path.
//!
//! An account's entries are numbered and kept by the ledger, and its row says up to which of them
//! they have become deliveries. A look reads on from there and moves the number together with what
//! it puts into the queues, so a process that dies between the two changes nothing, and of two
//! gateways that look at once one changes nothing. When to look is a hint of this process'
//! (`News`) or the account's turn, which comes every two seconds while something happens and
//! about once a minute otherwise.
//!
//! A ledger tells so many of the newest entries of an account (`history.entries_max`). What more
//! happens between two looks, to an account that no gateway could look at for long, is not
//! delivered; it is counted and logged.

use std::collections::HashSet;
use std::sync::Weak;
use std::time::Duration;

use super::event::Event;
use super::rows::{self, Listener, Queued};
use super::{Inner, Webhooks};
use crate::clock::{Stopwatch, UnixMs};
use crate::ids::AccountId;
use crate::ledger::{Account, Cursor, Ledger, Unavailable};
use crate::money::Msat;
use crate::store::{Durability, StoreError, Tx};

#[derive(Debug, thiserror::Error)]
pub(super) enum NotLooked {
    #[error("{0}")]
    Ledger(#[from] Unavailable),
    #[error("{0}")]
    Store(#[from] StoreError),
}

impl<L: Ledger> Webhooks<L> {
    /// Looks at accounts until the last other handle is gone.
    pub(super) async fn watch(inner: Weak<Inner<L>>) {
        let mut refreshed: Option<Stopwatch> = None;
        loop {
            let Some(webhooks) = inner.upgrade().map(Webhooks) else { return };
            if refreshed.is_none_or(|since| since.elapsed() >= REFRESH_EVERY) {
                webhooks.refresh().await;
                refreshed = Some(Stopwatch::start());
            }
            webhooks.look_around().await;
            let news = webhooks.0.news.clone();
            drop(webhooks);
            if tokio::time::timeout(ROUND, news.told()).await.is_ok() {
                tokio::time::sleep(GATHER).await;
            }
        }
    }

    /// What other gateways have registered is listened for here too; and the metrics are set.
    async fn refresh(&self) {
        let read = |tx: &mut Tx<'_>| Ok((rows::listened(tx)?, rows::backlog(tx)?));
        match self.0.db.snapshot(read).await {
            Ok((accounts, (queued, waited_ms))) => {
                self.0.news.listen(accounts.into_iter().collect());
                self.0.metrics.webhook_backlog(queued, waited_ms / 1000);
            }
            Err(error) => log::warn!("webhooks: {error}"),
        }
    }

    async fn look_around(&self) {
        let mut accounts = self.0.news.take();
        let due = self
            .0
            .db
            .write(Durability::Process, |tx| rows::take_due_accounts(tx, ACCOUNTS_MAX))
            .await;
        match due {
            Ok(due) => accounts.extend(due),
            Err(error) => log::warn!("webhooks: {error}"),
        }
        self.look_at_all(accounts).await;
    }

    async fn look_at_all(&self, accounts: HashSet<AccountId>) {
        for account in accounts {
            match self.look_at(&account).await {
                Ok(()) => {}
                Err(NotLooked::Store(error)) => log::warn!("webhooks: {account}: {error}"),
                Err(NotLooked::Ledger(error)) => {
                    // Nobody else is answered either; all have their next turn.
                    log::warn!("webhooks: {error}");
                    return;
                }
            }
        }
    }

    /// Turns what has happened to an account since the last look into deliveries.
    pub(super) async fn look_at(&self, account: &AccountId) -> Result<(), NotLooked> {
        let of = account.clone();
        let listener = self.0.db.write(Durability::Process, move |tx| Listener::find(tx, &of));
        let Some(mut listener) = listener.await? else { return Ok(()) };
        let Some(now) = self.0.ledger.account(account.clone()).await? else { return Ok(()) };
        if listener.mark > now.entries {
            // It was read before the account was, so the ledger has lost what it had.
            log::warn!("webhooks: the ledger has lost entries of {account}");
            let next = Listener { mark: now.entries, ..listener };
            if !self.advance(account, listener, next, Vec::new()).await? {
                return Ok(());
            }
            listener = next;
        }
        while listener.mark < now.entries {
            let next = Listener { mark: self.page_end(&listener, &now), ..listener };
            let events = self.events(account, &listener, &next).await?;
            if !self.advance(account, listener, next, events).await? {
                return Ok(());
            }
            listener = next;
        }
        let (next, events) = standing(account, &listener, &now, self.0.config.low_balance);
        if next != listener {
            self.advance(account, listener, next, events).await?;
        }
        self.look_when_it_expires(account, &now).await
    }

    fn page_end(&self, listener: &Listener, now: &Account) -> u64 {
        now.entries.min(listener.mark.saturating_add(PAGE.into()))
    }

    /// The events of the entries after `from` up to `to`, which are a page at most.
    pub(super) async fn events(
        &self,
        account: &AccountId,
        from: &Listener,
        to: &Listener,
    ) -> Result<Vec<Event>, NotLooked> {
        let before = to.mark.checked_add(1).and_then(Cursor::below);
        let page = self.0.ledger.history(account.clone(), before, PAGE).await?;
        let new: Vec<_> = page
            .numbers
            .iter()
            .zip(&page.entries)
            .filter(|(nth, _)| (from.mark + 1..=to.mark).contains(nth))
            .collect();
        let found = u64::try_from(new.len()).unwrap_or(u64::MAX);
        let missed = (to.mark - from.mark).saturating_sub(found);
        if missed > 0 {
            log::warn!("webhooks: the ledger has forgotten {missed} entries of {account}");
            self.0.metrics.webhook_events_missed(missed);
        }
        // The oldest first, as they happened.
        Ok(new.iter().rev().filter_map(|(nth, it)| Event::of_entry(account, **nth, it)).collect())
    }

    /// False: another gateway has done it.
    async fn advance(
        &self,
        account: &AccountId,
        from: Listener,
        to: Listener,
        events: Vec<Event>,
    ) -> Result<bool, StoreError> {
        let account = account.clone();
        let advance = move |tx: &mut Tx<'_>| from.advance(tx, &account, to, &events);
        let Some(Queued { added, dropped }) = self.0.db.write(Durability::Process, advance).await?
        else {
            return Ok(false);
        };
        self.0.metrics.webhook_ended("dropped", dropped);
        if added > 0 {
            self.0.queued.notify_one();
        }
        Ok(true)
    }

    async fn look_when_it_expires(
        &self,
        account: &AccountId,
        now: &Account,
    ) -> Result<(), NotLooked> {
        let soon = UnixMs::now().plus(TURN_MAX);
        let Some(expires) = now.terms.expires.filter(|expires| *expires <= soon) else {
            return Ok(());
        };
        if expires <= UnixMs::now() {
            return Ok(());
        }
        let account = account.clone();
        let look = move |tx: &mut Tx<'_>| {
            Listener::look_again_at(tx, &account, expires.plus(Duration::from_millis(1)))
        };
        Ok(self.0.db.write(Durability::Process, look).await?)
    }
}

/// What follows from how an account stands now and no entry tells. A child has no balance.
fn standing(
    account: &AccountId,
    listener: &Listener,
    now: &Account,
    threshold: Msat,
) -> (Listener, Vec<Event>) {
    let from = Listener::standing(now, threshold);
    let mut events = Vec::new();
    if from.low && !listener.low {
        events.push(Event::low(account, now.entries, balance(now), threshold, UnixMs::now()));
    }
    if let Some(expires) = from.expired.filter(|_| from.expired != listener.expired) {
        events.push(Event::expired(account, expires, UnixMs::now()));
    }
    (Listener { mark: listener.mark, ..from }, events)
}

impl Listener {
    /// Of an account all of whose history is known.
    pub(super) fn standing(now: &Account, threshold: Msat) -> Self {
        let is_over = |expires: &UnixMs| *expires <= UnixMs::now();
        Self {
            mark: now.entries,
            low: now.parent.is_none() && balance(now) < threshold,
            expired: now.terms.expires.filter(is_over),
        }
    }
}

/// With what is set aside for open requests: most of that comes back.
fn balance(account: &Account) -> Msat {
    account.available.saturating_add(account.reserved)
}

/// Between two looks when nobody gives a hint.
const ROUND: Duration = Duration::from_secs(1);
/// What happens within this is one look: hints come with every request.
const GATHER: Duration = Duration::from_millis(20);
/// Between two looks at what is listened for, and at the backlog.
const REFRESH_EVERY: Duration = Duration::from_secs(10);
/// Accounts that are looked at in one round; the others have the next.
const ACCOUNTS_MAX: u32 = 100;
/// Entries that become deliveries in one step, for each of an account's webhooks: the database is
/// the wallet's as well, and ecash does not wait for long.
const PAGE: u32 = 25;
/// The longest until an account's turn comes again.
const TURN_MAX: Duration = Duration::from_millis(2_000 << 5);
