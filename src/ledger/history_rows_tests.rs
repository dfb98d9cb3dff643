//! What a history costs to read.

use rusqlite::StatementStatus;

use super::*;
use crate::ids::AccountId;
use crate::ledger::book::Book;
use crate::ledger::{Deposit, journal, schema};
use crate::money::Msat;

fn database() -> Connection {
    let connection = Connection::open_in_memory().unwrap();
    schema::prepare(&connection).unwrap();
    connection
}

#[test]
fn a_page_is_read_by_index_and_sorted_by_nobody() {
    let connection = database();
    let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {HISTORY}")).unwrap();
    let steps =
        plan.query_map(params!["a", 9, 5, 0, 0], |row| row.get::<_, String>("detail")).unwrap();
    let steps: Vec<String> = steps.collect::<Result<_, _>>().unwrap();
    let indexes = ["deposits_of", "withdrawals_of", "reservations_of", "reservations_through"];
    for index in indexes {
        let searched = |step: &&String| step.starts_with("SEARCH") && step.contains(index);
        assert_eq!(steps.iter().filter(searched).count(), 1, "{index}: {steps:#?}");
    }
    for slow in ["SCAN", "TEMP B-TREE"] {
        assert!(!steps.iter().any(|step| step.contains(slow)), "{steps:#?}");
    }
}

#[test]
fn a_page_costs_the_same_however_long_the_history_is() {
    let steps = |entries: u64| {
        let connection = database();
        let mut book = Book::default();
        let account = AccountId::stored("a");
        for nth in 0..entries {
            let id = DepositId::stored(format!("d-{nth}"));
            let deposit = Deposit { id, account: account.clone(), amount: Msat::ZERO };
            book.deposit(deposit, UnixMs(nth)).unwrap();
        }
        let touched = book.take_touched();
        journal::save(&connection, &book, &touched, UnixMs(0)).unwrap();
        for before in [None, Cursor::below(entries / 2)] {
            let page = history(&connection, &account, before, 10, EVERYTHING, UnixMs(0)).unwrap();
            assert_eq!(page.entries.len(), 10);
            assert_eq!(page, book.history(&account, before, 10));
        }
        let statement = connection.prepare_cached(HISTORY).unwrap();
        statement.get_status(StatementStatus::VmStep)
    };
    assert_eq!(steps(4_000), steps(40));
}

const EVERYTHING: Retention = Retention { entries_max: 100_000, kept: None };
