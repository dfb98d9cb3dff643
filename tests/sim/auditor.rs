//! Adds up what a ledger answered, knowing none of its rules but that an end happens once.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use nutgate::ids::{DepositId, ReservationId};
use nutgate::ledger::{Ended, Receipt, Renewal};

use crate::command::{Answer, Command};
use crate::subject::Rows;

#[derive(Default)]
pub(crate) struct Auditor {
    deposits: HashSet<DepositId>,
    deposited: i64,
    receipts: HashMap<ReservationId, Receipt>,
    spent: i64,
    /// As the rows said when they were last checked.
    open: HashSet<String>,
    /// Renewed without any lifetime, which ends them and answers no receipt.
    given_up: HashSet<ReservationId>,
}

impl Auditor {
    pub(crate) fn hear(&mut self, command: &Command, answer: &Answer) -> Result<(), String> {
        match (command, answer) {
            (Command::Deposit(deposit), Answer::Account(Some(_))) => {
                let first = self.deposits.insert(deposit.id.clone());
                self.deposited += if first { deposit.amount.to_i64() } else { 0 };
            }
            (
                Command::Settle(known, ..) | Command::Release(known),
                Answer::Ended(Some(receipt)),
            ) => match self.receipts.insert(known.id.clone(), *receipt) {
                Some(first) if first != *receipt => {
                    return Err(format!("{} ended twice: {first:?}", known.id));
                }
                // What expired was heard of when it did, without its name.
                None if receipt.how != Ended::Expired || self.given_up.contains(&known.id) => {
                    self.spent += receipt.spent.to_i64();
                }
                _ => {}
            },
            (Command::Expire, Answer::Expired(receipts)) => {
                self.spent += receipts.iter().map(|receipt| receipt.spent.to_i64()).sum::<i64>();
            }
            (Command::Renew(_), Answer::Done) => {
                let given_up = self.given_up_by(command).into_iter();
                self.given_up.extend(given_up.map(|renewal| renewal.reservation));
            }
            _ => {}
        }
        Ok(())
    }

    /// What a command ends without answering how: to be asked for.
    pub(crate) fn given_up_by(&self, command: &Command) -> Vec<Renewal> {
        let renewals = match command {
            Command::Renew(renewals) => renewals.clone(),
            _ => Vec::new(),
        };
        let given_up = |renewal: &Renewal| {
            renewal.lifetime == Duration::ZERO && self.open.contains(renewal.reservation.as_str())
        };
        renewals.into_iter().filter(given_up).collect()
    }

    pub(crate) fn check(&mut self, rows: &Rows) -> Result<(), String> {
        if rows.deposited() != self.deposited {
            return Err(format!("{} msat came, {} are booked", self.deposited, rows.deposited()));
        }
        if rows.spent() != self.spent {
            return Err(format!("{} msat on receipts, {} are spent", self.spent, rows.spent()));
        }
        self.open = rows.open.iter().map(|open| open.id.clone()).collect();
        Ok(())
    }
}
