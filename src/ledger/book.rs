//! The rules of the ledger as a pure state machine: no I/O, no clock, no locks.
//!
//! It is the embedded backend's memory and every other backend's oracle. Each verb either
//! does all of itself or nothing, and the identity of [`Account`] holds after every one of them
//! ([`Book::check_invariants`], swept in debug builds).

#![warn(clippy::arithmetic_side_effects)]

use std::collections::{HashMap, HashSet};

use super::{
    Account, Admission, Amount, Denied, Deposit, Ended, Receipt, Record, Renewal, Withdrawal,
    WithdrawalAsk, WithdrawalDenied, WithdrawalState,
};
use crate::clock::UnixMs;
use crate::ids::{AccountId, DepositId, ReservationId, WithdrawalId};
use crate::money::Msat;

/// A reservation as the book holds it, open until `end` says how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub account: AccountId,
    pub amount: Msat,
    pub deadline: UnixMs,
    pub accrued: Msat,
    pub end: Option<Receipt>,
    pub record: Record,
}

/// Every account and everything that moved between them, or the part of it that is loaded.
#[derive(Clone, Debug, Default)]
pub struct Book {
    pub(super) accounts: HashMap<AccountId, Account>,
    pub(super) reservations: HashMap<ReservationId, Held>,
    pub(super) deposits: HashMap<DepositId, Deposit>,
    pub(super) withdrawals: HashMap<WithdrawalId, Withdrawal>,
    touched: Touched,
}

/// The rows that verbs have changed since somebody last asked.
#[derive(Clone, Debug, Default)]
pub struct Touched {
    pub accounts: HashSet<AccountId>,
    pub reservations: HashSet<ReservationId>,
    pub deposits: HashSet<DepositId>,
    pub withdrawals: HashSet<WithdrawalId>,
}

impl Book {
    pub fn account(&self, id: &AccountId) -> Option<&Account> {
        self.accounts.get(id)
    }

    pub fn withdrawal(&self, id: &WithdrawalId) -> Option<&Withdrawal> {
        self.withdrawals.get(id)
    }

    /// Adds value to an account, opening it if it is new. `None` when the account would hold
    /// more than can be counted.
    pub fn deposit(&mut self, deposit: Deposit) -> Option<Account> {
        if let Some(known) = self.deposits.get(&deposit.id) {
            return self.accounts.get(&known.account).cloned();
        }
        let mut account = self.accounts.get(&deposit.account).cloned().unwrap_or_default();
        account.deposited = account.deposited.checked_add(deposit.amount)?;
        account.available = account.available.checked_add(deposit.amount)?;
        self.touched.deposits.insert(deposit.id.clone());
        self.put(&deposit.account, account.clone());
        self.deposits.insert(deposit.id.clone(), deposit);
        Some(account)
    }

    /// Reserves the ceiling if it is available. Answers what is left beside it.
    pub fn admit(&mut self, ask: &Admission) -> Result<Msat, Denied> {
        let Some(account) = self.accounts.get(&ask.account) else {
            return Err(Denied::NoAccount);
        };
        if let Some(held) = self.reservations.get(&ask.reservation) {
            return match held.end {
                None => Ok(account.available),
                Some(_) => Err(Denied::AlreadyEnded),
            };
        }
        let mut account = account.clone();
        let denied = Denied::Insufficient {
            available: account.available,
            account_idle: account.open_reservations == 0,
        };
        account.available = account.available.checked_sub(ask.ceiling).ok_or(denied)?;
        account.reserved = account.reserved.checked_add(ask.ceiling).ok_or(denied)?;
        account.open_reservations = account.open_reservations.saturating_add(1);
        let available = account.available;
        let held = Held {
            account: ask.account.clone(),
            amount: ask.ceiling,
            deadline: ask.deadline,
            accrued: Msat::ZERO,
            end: None,
            record: Record::default(),
        };
        self.reservations.insert(ask.reservation.clone(), held);
        self.touched.reservations.insert(ask.reservation.clone());
        self.put(&ask.account, account);
        Ok(available)
    }

    /// Moves a deadline and notes what has accrued. An ended or unknown reservation stays so.
    pub fn renew(&mut self, renewal: &Renewal) {
        if let Some(held) = self.reservations.get_mut(&renewal.reservation)
            && held.end.is_none()
        {
            held.deadline = renewal.deadline;
            held.accrued = renewal.accrued;
            self.touched.reservations.insert(renewal.reservation.clone());
        }
    }

    /// Ends a reservation at `cost`; the first end is the only one. `None`: never heard of it.
    pub fn end(
        &mut self,
        id: &ReservationId,
        how: Ended,
        cost: Msat,
        record: Record,
    ) -> Option<Receipt> {
        let held = self.reservations.get_mut(id)?;
        if let Some(receipt) = held.end {
            return Some(receipt);
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
        if how == Ended::Settled {
            account.requests = account.requests.saturating_add(1);
        }
        let receipt = Receipt { spent, returned, shortfall, available: account.available, how };
        held.end = Some(receipt);
        held.record = record;
        let owner = held.account.clone();
        self.touched.reservations.insert(id.clone());
        self.put(&owner, account);
        Some(receipt)
    }

    /// Ends an open reservation whose deadline has passed, at what had accrued.
    pub fn expire(&mut self, id: &ReservationId, now: UnixMs) -> Option<Receipt> {
        let held = self.reservations.get(id)?;
        if held.end.is_some() || held.deadline > now {
            return None;
        }
        let record = Record { usage_source: "floor", ..Record::default() };
        self.end(id, Ended::Expired, held.accrued, record)
    }

    /// Books value out of an account. A repeated id answers the withdrawal it named first.
    pub fn withdraw_begin(&mut self, ask: &WithdrawalAsk) -> Result<Withdrawal, WithdrawalDenied> {
        if let Some(known) = self.withdrawals.get(&ask.id)
            && known.state != WithdrawalState::Reverted
        {
            return Ok(known.clone());
        }
        let account = self.accounts.get(&ask.account).ok_or(WithdrawalDenied::NoAccount)?;
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
        let withdrawal = Withdrawal {
            id: ask.id.clone(),
            account: ask.account.clone(),
            amount,
            mint: ask.mint.clone(),
            unit: ask.unit.clone(),
            state: WithdrawalState::Begun,
        };
        self.withdrawals.insert(ask.id.clone(), withdrawal.clone());
        self.touched.withdrawals.insert(ask.id.clone());
        self.put(&ask.account, account);
        Ok(withdrawal)
    }

    pub fn withdraw_commit(&mut self, id: &WithdrawalId) {
        if let Some(withdrawal) = self.withdrawals.get_mut(id)
            && withdrawal.state == WithdrawalState::Begun
        {
            withdrawal.state = WithdrawalState::Committed;
            self.touched.withdrawals.insert(id.clone());
        }
    }

    /// Puts a begun withdrawal back, whole. A committed one stays: its value has left.
    pub fn withdraw_revert(&mut self, id: &WithdrawalId) -> Option<()> {
        let withdrawal = self.withdrawals.get_mut(id)?;
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
        let mut open: HashMap<&AccountId, (Msat, u64)> = HashMap::new();
        for (id, held) in &self.reservations {
            if !self.accounts.contains_key(&held.account) {
                return Err(format!("reservation {id} belongs to no account"));
            }
            if held.end.is_none() {
                let (sum, count) = open.entry(&held.account).or_default();
                *sum = sum.checked_add(held.amount).ok_or("reserved more than can be counted")?;
                *count = count.saturating_add(1);
            }
        }
        for (id, account) in &self.accounts {
            let (reserved, count) = open.get(id).copied().unwrap_or_default();
            if !account.is_balanced() {
                return Err(format!("account {id} does not balance: {account:?}"));
            }
            if account.reserved != reserved || account.open_reservations != count {
                return Err(format!("account {id} holds {account:?}, open are {reserved}"));
            }
        }
        Ok(())
    }

    fn put(&mut self, id: &AccountId, account: Account) {
        debug_assert!(account.is_balanced(), "account {id} does not balance: {account:?}");
        self.touched.accounts.insert(id.clone());
        self.accounts.insert(id.clone(), account);
    }
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
