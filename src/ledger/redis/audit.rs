//! The audit of a fleet, beside its traffic: Redis against PostgreSQL.
//!
//! There is no snapshot of two servers. But value is the wallet's before it is the ledger's and
//! leaves the ledger before the wallet, and what came in and what went out only ever grows. So
//! what went out is read first, then the ledger, account by account, then what came in: each
//! comparison then holds at every instant of sound traffic, and what it does not hold for has
//! been made or lost.

use std::collections::{BTreeMap, BTreeSet};

use super::{Look, Redis};
use crate::ids::{AccountId, DepositId, WithdrawalId};
use crate::ledger::audit::Report;
use crate::ledger::{Unavailable, WithdrawalState};
use crate::money::Msat;
use crate::store::{Db, StoreError, Tx};
use crate::wallet::{self, CameIn, WentOut};

/// Audits a fleet's ledger and wallet. Takes memory in proportion to the deposits and
/// withdrawals there ever were, some 300 bytes each.
///
/// # Errors
/// One of them cannot be read, which is not the same as a finding.
pub async fn run(ledger: &Redis, wallet: &Db) -> Result<Report, NotAudited> {
    let before = wallet.snapshot(Before::read).await?;
    let mut books = Books::default();
    let strays = ledger.walk(&mut |look| books.enter(&look)).await?;
    let after = wallet.snapshot(After::read).await?;
    if !strays.is_empty() {
        books.find(format!("{} open reservations that nobody would end", strays.len()));
    }
    Ok(books.close(&before, &after))
}

/// The audit could not be made.
#[derive(Debug, thiserror::Error)]
pub enum NotAudited {
    #[error("{0}")]
    Ledger(#[from] Unavailable),
    #[error("wallet: {0}")]
    Wallet(#[from] StoreError),
}

/// What the wallet knew before the ledger was looked at: all of it must be in the ledger.
struct Before {
    credited: BTreeSet<DepositId>,
    out: BTreeMap<WithdrawalId, WentOut>,
}

/// What it knows afterwards: all that the ledger says of it must be in here.
struct After {
    came: BTreeMap<DepositId, CameIn>,
    out: BTreeMap<WithdrawalId, WentOut>,
    sums: wallet::Audit,
}

impl Before {
    fn read(tx: &mut Tx<'_>) -> Result<Self, StoreError> {
        let credited = all_that_came(tx)?.into_values().filter(|came| came.credited);
        Ok(Self { credited: credited.map(|came| came.id).collect(), out: all_that_went(tx)? })
    }
}

impl After {
    fn read(tx: &mut Tx<'_>) -> Result<Self, StoreError> {
        let sums = wallet::audit_rows(tx)?;
        Ok(Self { came: all_that_came(tx)?, out: all_that_went(tx)?, sums })
    }
}

fn all_that_came(tx: &mut Tx<'_>) -> Result<BTreeMap<DepositId, CameIn>, StoreError> {
    let mut all = BTreeMap::new();
    let mut last = None;
    loop {
        let page = wallet::came_in_after(tx, last.as_ref())?;
        let Some(end) = page.last() else { return Ok(all) };
        last = Some(end.id.clone());
        all.extend(page.into_iter().map(|came| (came.id.clone(), came)));
    }
}

fn all_that_went(tx: &mut Tx<'_>) -> Result<BTreeMap<WithdrawalId, WentOut>, StoreError> {
    let mut all = BTreeMap::new();
    let mut last = None;
    loop {
        let page = wallet::went_out_after(tx, last.as_ref())?;
        let Some(end) = page.last() else { return Ok(all) };
        last = Some(end.id.clone());
        all.extend(page.into_iter().map(|went| (went.id.clone(), went)));
    }
}

/// What the ledger said, account by account.
#[derive(Default)]
struct Books {
    accounts: u64,
    deposited: Msat,
    spendable: Msat,
    deposits: BTreeMap<DepositId, (AccountId, Msat)>,
    withdrawals: BTreeMap<WithdrawalId, (AccountId, Msat, WithdrawalState)>,
    findings: Vec<String>,
}

impl Books {
    fn find(&mut self, finding: String) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        }
    }

    /// One account against itself, and its parts into the sums.
    fn enter(&mut self, look: &Look) {
        let Look { id, account, .. } = look;
        self.accounts = self.accounts.saturating_add(1);
        self.deposited = self.deposited.saturating_add(account.deposited);
        let spendable = account.available.saturating_add(account.reserved);
        self.spendable = self.spendable.saturating_add(spendable);
        let total = |amounts: &mut dyn Iterator<Item = Msat>| {
            amounts.fold(Msat::ZERO, Msat::saturating_add)
        };
        let came = total(&mut look.deposits.iter().map(|(_, amount)| *amount));
        let kept = look.withdrawals.iter().filter(|one| one.state != WithdrawalState::Reverted);
        let went = total(&mut kept.map(|one| one.amount));
        let usage = &account.usage;
        for (what, says, sum) in [
            ("deposited", account.deposited, came),
            ("refunded", account.refunded, went),
            ("reserved", account.reserved, look.paid.0),
            ("held by its key", usage.held, look.through.0),
        ] {
            if says != sum {
                self.find(format!("account {id}: {what} is {says}, its parts add up to {sum}"));
            }
        }
        let counts = [account.open_reservations, usage.open];
        if counts != [look.paid.1, look.through.1] {
            self.find(format!("account {id}: counts {counts:?} open reservations wrongly"));
        }
        if !account.is_balanced() {
            self.find(format!("account {id}: does not balance: {account:?}"));
        }
        let deposits = look.deposits.iter();
        self.deposits.extend(deposits.map(|(one, amount)| (one.clone(), (id.clone(), *amount))));
        let withdrawals = look.withdrawals.iter();
        self.withdrawals
            .extend(withdrawals.map(|one| (one.id.clone(), (id.clone(), one.amount, one.state))));
    }

    /// The ledger against the wallet.
    fn close(mut self, before: &Before, after: &After) -> Report {
        let mut findings = Vec::new();
        for (id, (account, amount)) in &self.deposits {
            let came = after.came.get(id);
            if came.is_none_or(|came| (&came.account, came.amount) != (account, *amount)) {
                findings.push(format!("deposit {id}: no redemption of {amount} brought it"));
            }
        }
        for id in before.credited.iter().filter(|id| !self.deposits.contains_key(id)) {
            findings.push(format!("redemption {id}: credited, and there is no such deposit"));
        }
        for (id, (account, amount, state)) in &self.withdrawals {
            let wrong = match (after.out.get(id), state) {
                (None, state) => *state == WithdrawalState::Committed,
                (Some(_), WithdrawalState::Reverted) => true,
                (Some(went), _) => (&went.account, went.amount) != (account, *amount),
            };
            if wrong {
                findings.push(format!("withdrawal {id}: its ecash is not {amount}"));
            }
        }
        for id in before.out.keys().filter(|id| !self.withdrawals.contains_key(id)) {
            findings.push(format!("ecash {id}: given out, and no withdrawal paid for it"));
        }
        findings.into_iter().for_each(|finding| self.find(finding));
        if !after.sums.is_consistent() {
            self.find(format!("the wallet's rows contradict each other: {:?}", after.sums));
        }
        let owed = self.owed(before);
        let held = held(before, after);
        if held < owed {
            let missing = owed.saturating_sub(held);
            self.find(format!("the wallet holds {missing} less than accounts are owed"));
        }
        let Self { accounts, deposited, findings, .. } = self;
        Report { accounts, deposited, owed, held, findings }
    }

    /// What accounts can spend or have reserved, and what has left them for ecash that was not
    /// set aside when the wallet was first looked at.
    fn owed(&self, before: &Before) -> Msat {
        let under_way = self.withdrawals.iter().filter(|(id, (_, _, state))| {
            *state != WithdrawalState::Reverted && !before.out.contains_key(id)
        });
        under_way.fold(self.spendable, |sum, (_, (_, amount, _))| sum.saturating_add(*amount))
    }
}

/// What came in until the end, less all that had left at the beginning.
fn held(before: &Before, after: &After) -> Msat {
    let came = after.came.values().fold(Msat::ZERO, |sum, came| sum.saturating_add(came.amount));
    let went = before.out.values().fold(Msat::ZERO, |sum, went| sum.saturating_add(went.amount));
    [went, after.sums.lost, after.sums.exchange_fees].into_iter().fold(came, Msat::saturating_sub)
}

/// Contradictions told one by one; more of them say nothing new.
const FINDINGS_MAX: usize = 100;
