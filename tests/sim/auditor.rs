//! Adds up what a ledger answered, knowing none of its rules but that an end happens once.

use std::collections::{HashMap, HashSet};

use nutgate::ids::{DepositId, ReservationId};
use nutgate::ledger::{Ended, Receipt};

use crate::command::{Answer, Command};
use crate::subject::Rows;

#[derive(Default)]
pub(crate) struct Auditor {
    deposits: HashSet<DepositId>,
    deposited: i64,
    receipts: HashMap<ReservationId, Receipt>,
    spent: i64,
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
                None if receipt.how != Ended::Expired => self.spent += receipt.spent.to_i64(),
                _ => {}
            },
            (Command::Expire, Answer::Expired(receipts)) => {
                self.spent += receipts.iter().map(|receipt| receipt.spent.to_i64()).sum::<i64>();
            }
            _ => {}
        }
        Ok(())
    }

    pub(crate) fn check(&self, rows: &Rows) -> Result<(), String> {
        if rows.deposited() != self.deposited {
            return Err(format!("{} msat came, {} are booked", self.deposited, rows.deposited()));
        }
        if rows.spent() != self.spent {
            return Err(format!("{} msat on receipts, {} are spent", self.spent, rows.spent()));
        }
        Ok(())
    }
}
