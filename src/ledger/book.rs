//! The rules of the ledger as a pure state machine: no I/O, no clock, no locks.
//!
//! It is the embedded backend's memory and every other backend's oracle. Each verb either
//! does all of itself or nothing, and the identity of [`Account`] holds after every one of them
//! ([`Book::check_invariants`], swept in debug builds).

#![warn(clippy::arithmetic_side_effects)]

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::once::Remembered;
use super::terms::{Limits, REQUESTS_WINDOW, Standing, TOKENS_WINDOW, Usage, Window};
use super::{
    Account, Admission, Amount, CONCURRENT_RETRY, Denial, Denied, Deposit, Ended, Limit, Limited,
    Opening, Receipt, Record, Renewal, UsageSource, Withdrawal, WithdrawalAsk, WithdrawalDenied,
    WithdrawalState,
};
use crate::clock::UnixMs;
use crate::ids::{AccountId, DepositId, OnceId, ReservationId, WithdrawalId};
use crate::money::Msat;

/// Where an entry stands in a history, and since when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    pub nth: u64,
    pub at: UnixMs,
}

/// What stands in the history of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed<T> {
    pub what: T,
    pub place: Place,
}

/// How a reservation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    pub receipt: Receipt,
    pub record: Record,
    pub place: Place,
    /// Its number in the history of a child; 0 where the key pays for itself.
    pub key_nth: u64,
}

/// A reservation as the book holds it, open until `end` says how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Who pays.
    pub account: AccountId,
    /// Whose key was shown: the account itself, or a child of it.
    pub key: AccountId,
    pub amount: Msat,
    pub tokens: u64,
    pub deadline: UnixMs,
    pub accrued: Msat,
    pub end: Option<Ending>,
}

/// Every account and everything that moved between them, or the part of it that is loaded.
#[derive(Clone, Debug, Default)]
pub struct Book {
    pub(super) accounts: HashMap<AccountId, Account>,
    pub(super) reservations: HashMap<ReservationId, Held>,
    pub(super) deposits: HashMap<DepositId, Placed<Deposit>>,
    pub(super) withdrawals: HashMap<WithdrawalId, Placed<Withdrawal>>,
    pub(super) once: HashMap<OnceId, Remembered>,
    /// Bytes of answers that an account has kept lately.
    pub(super) kept: HashMap<AccountId, Window>,
    pub(super) touched: Touched,
}

/// The rows that verbs have changed since somebody last asked.
#[derive(Clone, Debug, Default)]
pub struct Touched {
    pub accounts: HashSet<AccountId>,
    pub reservations: HashSet<ReservationId>,
    /// Had ended when they were read, so there is nothing to write and nothing to remember.
    pub ended: HashSet<ReservationId>,
    pub deposits: HashSet<DepositId>,
    pub withdrawals: HashSet<WithdrawalId>,
    pub once: HashSet<OnceId>,
    pub kept: HashSet<AccountId>,
}

impl Book {
    pub fn account(&self, id: &AccountId) -> Option<&Account> {
        self.accounts.get(id)
    }

    pub fn reservation(&self, id: &ReservationId) -> Option<&Held> {
        self.reservations.get(id)
    }

    pub fn withdrawal(&self, id: &WithdrawalId) -> Option<&Withdrawal> {
        self.withdrawals.get(id).map(|placed| &placed.what)
    }

    /// Opens a key under terms. One that exists stays as it is.
    pub fn open(&mut self, opening: &Opening) -> Account {
        if let Some(known) = self.accounts.get(&opening.account) {
            return known.clone();
        }
        let account = Account { terms: opening.terms.clone(), ..Account::default() };
        self.put(&opening.account, account.clone());
        account
    }

    /// Adds value to an account, or to the parent of a child, opening it if it is new. `None`
    /// when it would hold more than can be counted.
    pub fn deposit(&mut self, deposit: Deposit, now: UnixMs) -> Option<Account> {
        if let Some(known) = self.deposits.get(&deposit.id) {
            return self.accounts.get(&known.what.account).cloned();
        }
        let payer = self.payer(&deposit.account).unwrap_or_else(|| deposit.account.clone());
        let mut account = self.accounts.get(&payer).cloned().unwrap_or_default();
        account.deposited = account.deposited.checked_add(deposit.amount)?;
        account.available = account.available.checked_add(deposit.amount)?;
        let place = next_place(&mut account, now);
        self.touched.deposits.insert(deposit.id.clone());
        self.put(&payer, account.clone());
        let what = Deposit { account: payer, ..deposit };
        self.deposits.insert(what.id.clone(), Placed { what, place });
        Some(account)
    }

    /// Checks the key's terms, whether the request was made before, limits and cap and the payer's
    /// balance, in this order, and reserves the ceiling. Answers what is left beside it, and of the
    /// limits.
    pub fn admit(&mut self, ask: &Admission, now: UnixMs) -> Result<(Msat, Standing), Denial> {
        if let Some(held) = self.reservations.get(&ask.reservation) {
            let payer = self.accounts.get(&held.account).filter(|_| held.end.is_none());
            let available = payer.ok_or(Denied::AlreadyEnded)?.available;
            return Ok((available, self.standing(ask, now)?));
        }
        let payer = self.payer(&ask.account).ok_or(Denied::NoAccount)?;
        let key = self.accounts.get(&ask.account).ok_or(Denied::NoAccount)?;
        if key.terms.expires.is_some_and(|expires| expires <= now) {
            return Err(Denied::Expired.into());
        }
        let standing = self.standing(ask, now)?;
        let denial = |denied| Denial { denied, standing: Some(standing) };
        self.is_first(ask, now).map_err(denial)?;
        within_limits(key, ask, now).map_err(denial)?;
        let period = key.terms.period(now);
        under_cap(key, period, ask.ceiling).map_err(denial)?;
        let available = self.reserve(&payer, ask.ceiling).map_err(denial)?;
        self.on(&payer, |account| {
            account.open_reservations = account.open_reservations.saturating_add(1);
        });
        self.on(&ask.account, |key| {
            let usage = &mut key.usage;
            usage.open = usage.open.saturating_add(1);
            usage.held = usage.held.saturating_add(ask.ceiling);
            usage.tokens_held = usage.tokens_held.saturating_add(ask.tokens);
            usage.requests = usage.requests.at(now, REQUESTS_WINDOW).plus(1);
            if period > usage.period {
                (usage.period, usage.spent_before) = (period, usage.spent);
            }
        });
        let held = Held {
            account: payer,
            key: ask.account.clone(),
            amount: ask.ceiling,
            tokens: ask.tokens,
            deadline: now.plus(ask.lifetime),
            accrued: Msat::ZERO,
            end: None,
        };
        self.reservations.insert(ask.reservation.clone(), held);
        self.touched.reservations.insert(ask.reservation.clone());
        self.remember(ask, now);
        Ok((available, self.standing(ask, now)?))
    }

    /// Raises an open reservation to `amount`. Answers what is left beside it.
    pub fn extend(
        &mut self,
        id: &ReservationId,
        amount: Msat,
        now: UnixMs,
    ) -> Result<Msat, Denied> {
        let held = self.reservations.get(id).filter(|held| held.end.is_none());
        let held = held.ok_or(Denied::AlreadyEnded)?;
        let (payer, key) = (held.account.clone(), held.key.clone());
        let more = amount.saturating_sub(held.amount);
        let owner = self.accounts.get(&key).ok_or(Denied::NoAccount)?;
        under_cap(owner, owner.terms.period(now), more)?;
        let available = self.reserve(&payer, more)?;
        self.on(&key, |key| key.usage.held = key.usage.held.saturating_add(more));
        if let Some(held) = self.reservations.get_mut(id) {
            held.amount = held.amount.max(amount);
            self.touched.reservations.insert(id.clone());
        }
        Ok(available)
    }

    /// Moves a deadline and notes what has accrued; with no lifetime left it ends at that, at
    /// once. An ended or unknown reservation stays so.
    pub fn renew(&mut self, renewal: &Renewal, now: UnixMs) {
        let Some(held) = self.reservations.get_mut(&renewal.reservation) else { return };
        if held.end.is_some() {
            return;
        }
        held.deadline = now.plus(renewal.lifetime);
        held.accrued = renewal.accrued;
        self.touched.reservations.insert(renewal.reservation.clone());
        if renewal.lifetime == Duration::ZERO {
            self.expire(&renewal.reservation, now, now);
        }
    }

    /// Ends a reservation at `cost`; the first end is the only one. `None`: never heard of it.
    pub fn end(
        &mut self,
        id: &ReservationId,
        how: Ended,
        cost: Msat,
        record: Record,
        now: UnixMs,
    ) -> Option<Receipt> {
        let held = self.reservations.get_mut(id)?;
        if let Some(ending) = &held.end {
            return Some(ending.receipt);
        }
        let mut account = self.accounts.get(&held.account)?.clone();
        let from_reserve = cost.min(held.amount);
        let beyond = cost.saturating_sub(held.amount).min(account.available);
        let returned = held.amount.checked_sub(from_reserve)?;
        let spent = from_reserve.checked_add(beyond)?;
        let shortfall = cost.checked_sub(spent)?;

        account.reserved = account.reserved.checked_sub(held.amount)?;
        account.available = account.available.checked_sub(beyond)?.checked_add(returned)?;
        account.spent = account.spent.checked_add(spent)?;
        account.shortfall = account.shortfall.saturating_add(shortfall);
        account.open_reservations = account.open_reservations.saturating_sub(1);
        let receipt = Receipt { spent, returned, shortfall, available: account.available, how };
        let place = next_place(&mut account, now);
        let used = record.input_tokens.saturating_add(record.output_tokens);
        let held = held.clone();
        let mut key_nth = 0;
        self.put(&held.account, account);
        self.on(&held.key, |key| {
            if held.key != held.account {
                key_nth = next_place(key, now).nth;
            }
            key.usage.open = key.usage.open.saturating_sub(1);
            key.usage.held = key.usage.held.saturating_sub(held.amount);
            key.usage.tokens_held = key.usage.tokens_held.saturating_sub(held.tokens);
            key.usage.spent = key.usage.spent.saturating_add(spent);
            key.usage.tokens = key.usage.tokens.at(now, TOKENS_WINDOW).plus(used);
            if how == Ended::Settled {
                key.requests = key.requests.saturating_add(1);
            }
        });
        if let Some(held) = self.reservations.get_mut(id) {
            held.end = Some(Ending { receipt, record, place, key_nth });
            self.touched.reservations.insert(id.clone());
        }
        Some(receipt)
    }

    /// Ends an open reservation whose deadline is not after `due`, at what had accrued.
    pub fn expire(&mut self, id: &ReservationId, due: UnixMs, now: UnixMs) -> Option<Receipt> {
        let held = self.reservations.get(id)?;
        if held.end.is_some() || held.deadline > due {
            return None;
        }
        let record = Record { usage_source: Some(UsageSource::Floor), ..Record::default() };
        self.end(id, Ended::Expired, held.accrued, record, now)
    }

    /// Books value out of an account. A repeated id answers the withdrawal it named first.
    pub fn withdraw_begin(
        &mut self,
        ask: &WithdrawalAsk,
        now: UnixMs,
    ) -> Result<Withdrawal, WithdrawalDenied> {
        if let Some(known) = self.withdrawal(&ask.id)
            && known.state != WithdrawalState::Reverted
        {
            return Ok(known.clone());
        }
        let account = self.accounts.get(&ask.account).ok_or(WithdrawalDenied::NoAccount)?;
        if account.parent.is_some() {
            return Err(WithdrawalDenied::Child);
        }
        let available = account.available;
        let amount = match ask.amount {
            Amount::Exactly(amount) => amount,
            Amount::Everything { .. } if account.open_reservations > 0 => {
                let open = account.open_reservations;
                return Err(WithdrawalDenied::RequestsInProgress { open });
            }
            Amount::Everything { unit } => available.floor_to(unit),
        };
        if amount == Msat::ZERO {
            return Err(WithdrawalDenied::TooSmall { available });
        }
        let mut account = account.clone();
        let insufficient = WithdrawalDenied::Insufficient { available };
        account.available = available.checked_sub(amount).ok_or(insufficient)?;
        account.refunded = account.refunded.checked_add(amount).ok_or(insufficient)?;
        account.withdrawals = account.withdrawals.saturating_add(1);
        let place = next_place(&mut account, now);
        let withdrawal = Withdrawal {
            id: ask.id.clone(),
            account: ask.account.clone(),
            amount,
            mint: ask.mint.clone(),
            unit: ask.unit.clone(),
            state: WithdrawalState::Begun,
        };
        let what = withdrawal.clone();
        self.withdrawals.insert(ask.id.clone(), Placed { what, place });
        self.touched.withdrawals.insert(ask.id.clone());
        self.put(&ask.account, account);
        Ok(withdrawal)
    }

    pub fn withdraw_commit(&mut self, id: &WithdrawalId) {
        if let Some(Placed { what: withdrawal, .. }) = self.withdrawals.get_mut(id)
            && withdrawal.state == WithdrawalState::Begun
        {
            withdrawal.state = WithdrawalState::Committed;
            self.touched.withdrawals.insert(id.clone());
        }
    }

    /// Puts a begun withdrawal back, whole. A committed one stays: its value has left.
    pub fn withdraw_revert(&mut self, id: &WithdrawalId) -> Option<()> {
        let Placed { what: withdrawal, .. } = self.withdrawals.get_mut(id)?;
        if withdrawal.state != WithdrawalState::Begun {
            return None;
        }
        let mut account = self.accounts.get(&withdrawal.account)?.clone();
        account.refunded = account.refunded.checked_sub(withdrawal.amount)?;
        account.available = account.available.checked_add(withdrawal.amount)?;
        account.withdrawals = account.withdrawals.saturating_sub(1);
        withdrawal.state = WithdrawalState::Reverted;
        let owner = withdrawal.account.clone();
        self.touched.withdrawals.insert(id.clone());
        self.put(&owner, account);
        Some(())
    }

    /// The rows changed since the last call.
    pub fn take_touched(&mut self) -> Touched {
        std::mem::take(&mut self.touched)
    }

    /// Every account balances, holds exactly what its open reservations say, and owes nothing
    /// to a reservation, deposit or withdrawal that names no account.
    ///
    /// Only meaningful for a book that holds everything, or every open reservation of the
    /// accounts that it has loaded.
    pub fn check_invariants(&self) -> Result<(), String> {
        let mut paid: HashMap<&AccountId, Open> = HashMap::new();
        let mut through: HashMap<&AccountId, Open> = HashMap::new();
        for (id, held) in &self.reservations {
            if !self.accounts.contains_key(&held.account) {
                return Err(format!("reservation {id} belongs to no account"));
            }
            if held.end.is_none() {
                paid.entry(&held.account).or_default().add(held)?;
                through.entry(&held.key).or_default().add(held)?;
            }
        }
        for (id, account) in &self.accounts {
            let paid = paid.get(id).copied().unwrap_or_default();
            let through = through.get(id).copied().unwrap_or_default();
            let usage = &account.usage;
            if !account.is_balanced() {
                return Err(format!("account {id} does not balance: {account:?}"));
            }
            if (account.reserved, account.open_reservations) != (paid.amount, paid.count) {
                return Err(format!("account {id} holds {account:?}, open are {paid:?}"));
            }
            if (usage.held, usage.open) != (through.amount, through.count) {
                return Err(format!("key {id} holds {usage:?}, open are {through:?}"));
            }
        }
        Ok(())
    }

    /// Where the key of an admission stands now.
    fn standing(&self, ask: &Admission, now: UnixMs) -> Result<Standing, Denied> {
        let key = self.accounts.get(&ask.account).ok_or(Denied::NoAccount)?;
        Ok(key.usage.standing(key.terms.limits(ask.limits), now))
    }

    /// Who pays for this key: its parent, or the account itself.
    fn payer(&self, key: &AccountId) -> Option<AccountId> {
        match &self.accounts.get(key)?.parent {
            None => Some(key.clone()),
            Some(parent) => self.accounts.contains_key(parent).then(|| parent.clone()),
        }
    }

    /// Moves value from available to reserved. Answers what is left available.
    fn reserve(&mut self, payer: &AccountId, amount: Msat) -> Result<Msat, Denied> {
        let mut account = self.accounts.get(payer).ok_or(Denied::NoAccount)?.clone();
        let denied = Denied::Insufficient {
            available: account.available,
            account_idle: account.open_reservations == 0,
        };
        account.available = account.available.checked_sub(amount).ok_or(denied)?;
        account.reserved = account.reserved.checked_add(amount).ok_or(denied)?;
        let available = account.available;
        self.put(payer, account);
        Ok(available)
    }

    pub(super) fn on(&mut self, id: &AccountId, change: impl FnOnce(&mut Account)) {
        if let Some(account) = self.accounts.get_mut(id) {
            change(account);
            self.touched.accounts.insert(id.clone());
        }
    }

    pub(super) fn put(&mut self, id: &AccountId, account: Account) {
        debug_assert!(account.is_balanced(), "account {id} does not balance: {account:?}");
        self.touched.accounts.insert(id.clone());
        self.accounts.insert(id.clone(), account);
    }
}

/// The next place in the history of an account.
fn next_place(account: &mut Account, now: UnixMs) -> Place {
    account.entries = account.entries.saturating_add(1);
    Place { nth: account.entries, at: now }
}

/// A sum over open reservations.
#[derive(Clone, Copy, Debug, Default)]
struct Open {
    amount: Msat,
    count: u64,
}

impl Open {
    fn add(&mut self, held: &Held) -> Result<(), &'static str> {
        let sum = self.amount.checked_add(held.amount);
        self.amount = sum.ok_or("reserved more than can be counted")?;
        self.count = self.count.saturating_add(1);
        Ok(())
    }
}

/// The key's rate limits, before anything of it is held.
fn within_limits(key: &Account, ask: &Admission, now: UnixMs) -> Result<(), Denied> {
    let Limits { requests_per_minute, tokens_per_hour, concurrent } = key.terms.limits(ask.limits);
    let limited =
        |which, limit, retry_after| Err(Denied::Limited(Limited { which, limit, retry_after }));
    let Usage { open, tokens_held, requests, tokens, .. } = key.usage;
    if open >= concurrent {
        return limited(Limit::Concurrent, concurrent, CONCURRENT_RETRY);
    }
    let requests = requests.at(now, REQUESTS_WINDOW);
    if requests.count >= requests_per_minute {
        let after = requests.ends_in(now, REQUESTS_WINDOW);
        return limited(Limit::Requests, requests_per_minute, after);
    }
    let tokens = tokens.at(now, TOKENS_WINDOW);
    let used = tokens.count.saturating_add(tokens_held).saturating_add(ask.tokens);
    if used > tokens_per_hour {
        return limited(Limit::Tokens, tokens_per_hour, tokens.ends_in(now, TOKENS_WINDOW));
    }
    Ok(())
}

fn under_cap(key: &Account, period: u64, more: Msat) -> Result<(), Denied> {
    let Some(cap) = key.terms.cap else { return Ok(()) };
    let left = cap.amount.saturating_sub(key.usage.under_cap(period));
    if more > left { Err(Denied::Capped { left }) } else { Ok(()) }
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
