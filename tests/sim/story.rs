//! What happens in a simulation: steps thrown by a seed, the same for every backend.
//!
//! Balances, caps and limits are small, so that most of them are met; ids come again often, also
//! long after; the clock goes forwards, far forwards and back.

mod once;

use std::time::Duration;

use nutgate::clock::{Clock, UnixMs};
use nutgate::ids::{AccountId, DepositId, ReservationId, WithdrawalId};
use nutgate::ledger::once::Claim;
use nutgate::ledger::terms::{Cap, Limits, Reset, Terms};
use nutgate::ledger::{
    Admission, Amendment, Amount, Change, Children, Cursor, Deposit, Opening, Record, Renewal,
    UsageSource, WithdrawalAsk,
};
use nutgate::money::Msat;

use crate::command::{Command, Known, Step};
use crate::dice::Dice;
use crate::oracle::Oracle;

/// A whole simulation, to be played on any backend.
pub(crate) struct Story {
    pub(crate) seed: u64,
    pub(crate) begins: UnixMs,
    /// Everybody who may come to exist.
    pub(crate) accounts: Vec<AccountId>,
    pub(crate) steps: Vec<Step>,
}

impl Story {
    pub(crate) async fn of(seed: u64, steps: usize) -> Self {
        let mut teller = Teller::new(seed);
        let begins = teller.now;
        let clock = Clock::manual(begins);
        let oracle = Oracle::new(clock.clone());
        let mut told = Vec::with_capacity(steps);
        while told.len() < steps {
            let step = teller.next(&oracle, told.len());
            match &step {
                Step::Say(command) | Step::SayTwice { command, .. } => {
                    command.say(&oracle).await;
                }
                Step::SetClock(to) => clock.set(*to),
                Step::Crash => {}
            }
            told.push(step);
        }
        Self { seed, begins, accounts: teller.everybody(), steps: told }
    }
}

/// Throws one step after the other, knowing what the book says about those before.
struct Teller {
    dice: Dice,
    now: UnixMs,
    /// Some seeds count up to the limit of what can be counted.
    rich: bool,
    payers: Vec<AccountId>,
    /// Each with the payer whose child it would be, in whose shard it is.
    children: Vec<(AccountId, AccountId)>,
    asks: Vec<Admission>,
    deposits: Vec<Deposit>,
    withdrawals: Vec<WithdrawalAsk>,
    claims: Vec<Claim>,
}

type Throw = fn(&mut Teller, &Oracle) -> Option<Command>;

impl Teller {
    fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let shards = [dice.below(256), dice.below(256)];
        let id = |shard: usize, name: u64| {
            AccountId::stored(format!("{:02x}{seed:030x}{name:032x}", shards[shard]))
        };
        // Two payers share a shard, the third is alone with its children.
        let payers = vec![id(0, 1), id(0, 2), id(1, 3)];
        let child = |shard, name, parent: usize| (id(shard, name), payers[parent].clone());
        let children = vec![child(0, 4, 0), child(0, 5, 0), child(1, 6, 2), child(1, 7, 2)];
        Self {
            now: UnixMs(BEGINNING_MS + dice.below(400 * DAY_MS)),
            rich: dice.percent(20),
            dice,
            payers,
            children,
            asks: Vec::new(),
            deposits: Vec::new(),
            withdrawals: Vec::new(),
            claims: Vec::new(),
        }
    }

    fn everybody(&self) -> Vec<AccountId> {
        self.payers.iter().chain(self.children.iter().map(|(child, _)| child)).cloned().collect()
    }

    fn next(&mut self, oracle: &Oracle, told: usize) -> Step {
        let beginning = told < 10;
        if !beginning && self.dice.percent(10) {
            return Step::SetClock(self.turn_clock());
        }
        let throws: &[(u64, Throw)] = if beginning { &BEGINNING } else { &THROWS };
        let weights: Vec<u64> = throws.iter().map(|(weight, _)| *weight).collect();
        let command = loop {
            if let Some(command) = throws[self.dice.weigh(&weights)].1(self, oracle) {
                break command;
            }
        };
        match self.dice.below(1_000) {
            0..5 => Step::Crash,
            5..10 => Step::SayTwice { command, crash_between: true },
            10..100 => Step::SayTwice { command, crash_between: false },
            _ => Step::Say(command),
        }
    }

    fn turn_clock(&mut self) -> UnixMs {
        let (back, most) = match self.dice.below(100) {
            0..60 => (false, 20_000),
            60..75 => (false, 2 * HOUR_MS),
            75..82 => (false, 40 * DAY_MS),
            82..90 => (true, 30_000),
            _ => (true, 2 * DAY_MS),
        };
        let by = self.dice.below(most);
        self.now = UnixMs(if back { self.now.0 - by } else { self.now.0 + by });
        self.now
    }

    fn open(&mut self, _: &Oracle) -> Option<Command> {
        let account = self.somebody(5)?;
        let terms = self.terms();
        Some(Command::Open(Opening { account, terms }))
    }

    fn open_children(&mut self, _: &Oracle) -> Option<Command> {
        let (child, parent) = self.dice.pick(&self.children)?.clone();
        let sibling = self.sibling(&child, &parent)?;
        // A child is no parent.
        let (parent, accounts) = match self.dice.below(20) {
            0..3 => (sibling, vec![child]),
            3..7 => (parent, vec![sibling, child]),
            _ => (parent, vec![child]),
        };
        let terms = self.terms();
        Some(Command::OpenChildren(Children { parent, accounts, terms }))
    }

    /// Mostly by its parent.
    fn amend(&mut self, _: &Oracle) -> Option<Command> {
        let (child, parent) = self.dice.pick(&self.children)?.clone();
        let sibling = self.sibling(&child, &parent)?;
        let parent = match self.dice.below(20) {
            0 => sibling,
            1 => child.clone(),
            2..4 => self.dice.pick(&self.payers)?.clone(),
            _ => parent,
        };
        let change = if self.dice.percent(15) { Change::Revoke } else { Change::ResetCap };
        Some(Command::Amend(Amendment { parent, child, change }))
    }

    /// Two of each shard stand beside each other.
    fn sibling(&self, child: &AccountId, parent: &AccountId) -> Option<AccountId> {
        let is_sibling = |(other, of): &&(AccountId, AccountId)| of == parent && other != child;
        self.children.iter().find(is_sibling).map(|(sibling, _)| sibling.clone())
    }

    fn terms(&mut self) -> Terms {
        const RESETS: [Reset; 4] = [Reset::Never, Reset::Daily, Reset::Weekly, Reset::Monthly];
        let limit = |dice: &mut Dice, most| dice.percent(25).then(|| dice.below(most));
        let dice = &mut self.dice;
        let expires = dice.percent(30).then(|| UnixMs(self.now.0 + dice.below(900_000) - 60_000));
        let cap = dice.percent(60).then(|| Cap {
            amount: msat(dice.below(4_000)),
            reset: dice.pick(&RESETS).copied().unwrap_or(Reset::Never),
        });
        Terms {
            expires,
            cap,
            requests_per_minute: limit(dice, 8),
            tokens_per_hour: limit(dice, 3_000),
            concurrent: limit(dice, 5),
        }
    }

    fn deposit(&mut self, _: &Oracle) -> Option<Command> {
        let again = self.dice.percent(25).then(|| self.dice.pick(&self.deposits).cloned());
        let deposit = match again.flatten() {
            Some(again) => again,
            None => Deposit {
                id: DepositId::stored(format!("deposit-{}", self.deposits.len())),
                account: self.somebody(20)?,
                amount: self.amount(3_000),
            },
        };
        self.deposits.push(deposit.clone());
        Some(Command::Deposit(deposit))
    }

    fn admit(&mut self, _: &Oracle) -> Option<Command> {
        let again = self.dice.percent(15).then(|| recent(&mut self.dice, &self.asks).cloned());
        let ask = match again.flatten() {
            Some(again) => again,
            None => {
                let account = self.somebody(50)?;
                Admission {
                    reservation: self.reservation(),
                    ceiling: self.amount(1_200),
                    tokens: self.dice.below(400),
                    lifetime: self.lifetime(),
                    limits: self.limits(),
                    once: self.maybe_once_of(&account),
                    account,
                }
            }
        };
        self.asks.push(ask.clone());
        Some(Command::Admit(ask))
    }

    fn reservation(&self) -> ReservationId {
        ReservationId::stored(format!("reservation-{:04}", self.asks.len()))
    }

    fn limits(&mut self) -> Limits {
        if self.dice.percent(70) {
            return Limits::NONE;
        }
        Limits {
            requests_per_minute: self.dice.below(8),
            tokens_per_hour: self.dice.below(3_000),
            concurrent: self.dice.below(5),
        }
    }

    fn extend(&mut self, oracle: &Oracle) -> Option<Command> {
        let known = self.known(oracle)?;
        let amount = known.amount.saturating_add(self.amount(1_200));
        let amount = if self.dice.percent(20) { self.amount(1_200) } else { amount };
        Some(Command::Extend(known, amount))
    }

    fn renew(&mut self, oracle: &Oracle) -> Option<Command> {
        let mut renewals = Vec::new();
        for _ in 0..=self.dice.below(4) {
            let Known { id, account, amount } = self.known(oracle)?;
            let accrued = self.cost(amount);
            let lifetime = self.lifetime();
            renewals.push(Renewal { reservation: id, account, lifetime, accrued });
        }
        Some(Command::Renew(renewals))
    }

    fn settle(&mut self, oracle: &Oracle) -> Option<Command> {
        let known = self.known(oracle)?;
        let cost = self.cost(known.amount);
        let input_tokens = self.dice.below(300);
        let record = Record {
            request_id: known.id.to_string(),
            route: "/route".to_owned(),
            model: "a model\nof \"two\" lines".to_owned(),
            usage_source: self.dice.pick(&UsageSource::ALL).copied(),
            input_tokens,
            output_tokens: self.dice.below(300),
            usage: format!(r#"{{"images":{input_tokens}}}"#),
        };
        Some(Command::Settle(known, cost, record))
    }

    fn release(&mut self, oracle: &Oracle) -> Option<Command> {
        self.known(oracle).map(Command::Release)
    }

    fn expire(&mut self, _: &Oracle) -> Option<Command> {
        Some(Command::Expire)
    }

    fn withdraw_begin(&mut self, oracle: &Oracle) -> Option<Command> {
        let again =
            self.dice.percent(25).then(|| recent(&mut self.dice, &self.withdrawals).cloned());
        let ask = match again.flatten() {
            Some(again) => again,
            None => self.withdrawal_ask(oracle)?,
        };
        self.withdrawals.push(ask.clone());
        Some(Command::WithdrawBegin(ask))
    }

    fn withdrawal_ask(&mut self, oracle: &Oracle) -> Option<WithdrawalAsk> {
        let account = self.somebody(10)?;
        let known = oracle.knows(&account).unwrap_or_default();
        let amount = match self.dice.below(10) {
            0..3 => Amount::Everything { unit: msat(1_000) },
            3..6 => Amount::Everything { unit: msat(1) },
            6 => Amount::Exactly(known.available),
            _ => Amount::Exactly(self.amount(2_000)),
        };
        // Whose sequence it was when somebody looked, perhaps a moment ago.
        let sequence = known.withdrawals.saturating_sub(u64::from(self.dice.percent(20)));
        Some(WithdrawalAsk {
            id: WithdrawalId::nth(&account, sequence),
            account,
            amount,
            mint: "https://mint.example.com".to_owned(),
            unit: "sat".to_owned(),
        })
    }

    fn withdraw_commit(&mut self, _: &Oracle) -> Option<Command> {
        let WithdrawalAsk { account, id, .. } = self.withdrawal()?;
        Some(Command::WithdrawCommit(account, id))
    }

    fn withdraw_revert(&mut self, _: &Oracle) -> Option<Command> {
        let WithdrawalAsk { account, id, .. } = self.withdrawal()?;
        Some(Command::WithdrawRevert(account, id))
    }

    fn look_at_withdrawal(&mut self, _: &Oracle) -> Option<Command> {
        let WithdrawalAsk { account, id, .. } = self.withdrawal()?;
        Some(Command::Withdrawal(account, id))
    }

    fn look_at_withdrawals(&mut self, _: &Oracle) -> Option<Command> {
        Some(Command::WithdrawalsOpen)
    }

    fn look_at_account(&mut self, _: &Oracle) -> Option<Command> {
        self.somebody(50).map(Command::Account)
    }

    fn look_at_family(&mut self, _: &Oracle) -> Option<Command> {
        self.somebody(30).map(Command::Family)
    }

    /// From the newest on, or from anywhere.
    fn look_at_history(&mut self, _: &Oracle) -> Option<Command> {
        let account = self.somebody(40)?;
        let from = self.dice.below(80);
        let before = if self.dice.percent(60) { Cursor::below(from) } else { None };
        let limit = u32::try_from(self.dice.below(20)).ok()?;
        Some(Command::History(account, before, limit))
    }

    /// Somebody who pays, or in so many of a hundred cases a child.
    fn somebody(&mut self, child: u64) -> Option<AccountId> {
        if self.dice.percent(child) {
            self.dice.pick(&self.children).map(|(child, _)| child.clone())
        } else {
            self.dice.pick(&self.payers).cloned()
        }
    }

    /// A reservation that is open, or one that was asked for and has ended or was never granted.
    fn known(&mut self, oracle: &Oracle) -> Option<Known> {
        let open = self.dice.percent(50).then(|| self.dice.pick(&oracle.open()).cloned());
        if let Some(known) = open.flatten() {
            return Some(known);
        }
        let ask = recent(&mut self.dice, &self.asks)?;
        let Admission { reservation, account, ceiling, .. } = ask.clone();
        Some(Known { id: reservation, account, amount: ceiling })
    }

    fn withdrawal(&mut self) -> Option<WithdrawalAsk> {
        recent(&mut self.dice, &self.withdrawals).cloned()
    }

    fn amount(&mut self, most: u64) -> Msat {
        match self.dice.below(100) {
            0..3 => Msat::ZERO,
            3..5 if self.rich => msat(Msat::MAX.get() - self.dice.below(3)),
            5..20 if self.rich => msat(self.dice.below(Msat::MAX.get())),
            _ => msat(self.dice.below(most)),
        }
    }

    /// Mostly below what is reserved, sometimes above.
    fn cost(&mut self, reserved: Msat) -> Msat {
        match self.dice.below(100) {
            0 => Msat::MAX,
            1..10 => reserved,
            10..75 => msat(self.dice.below(reserved.get())),
            _ => reserved.saturating_add(msat(self.dice.below(800))),
        }
    }

    fn lifetime(&mut self) -> Duration {
        let most = if self.dice.percent(10) { 1 } else { 120_000 };
        Duration::from_millis(self.dice.below(most))
    }
}

/// One of the last few, or sometimes any.
fn recent<'t, T>(dice: &mut Dice, all: &'t [T]) -> Option<&'t T> {
    let last = &all[all.len().saturating_sub(12)..];
    if dice.percent(85) { dice.pick(last) } else { dice.pick(all) }
}

fn msat(amount: u64) -> Msat {
    Msat::new(amount).unwrap_or(Msat::MAX)
}

const BEGINNING: [(u64, Throw); 3] =
    [(2, Teller::open), (3, Teller::open_children), (5, Teller::deposit)];
// Expiring, and looking for what was begun, ask every shard of a fleet's ledger: few of them.
const THROWS: [(u64, Throw); 22] = [
    (9, Teller::open),
    (21, Teller::open_children),
    (12, Teller::amend),
    (80, Teller::deposit),
    (300, Teller::admit),
    (80, Teller::extend),
    (60, Teller::renew),
    (170, Teller::settle),
    (60, Teller::release),
    (5, Teller::expire),
    (70, Teller::withdraw_begin),
    (30, Teller::withdraw_commit),
    (30, Teller::withdraw_revert),
    (10, Teller::look_at_withdrawal),
    (1, Teller::look_at_withdrawals),
    (34, Teller::look_at_account),
    (20, Teller::look_at_family),
    (20, Teller::look_at_history),
    (60, Teller::claim),
    (60, Teller::keep),
    (15, Teller::forget),
    (15, Teller::look_at_kept),
];

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;
/// Late in 2026.
const BEGINNING_MS: u64 = 1_790_000_000_000;
