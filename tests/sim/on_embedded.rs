//! The ledger of one machine as a subject.

use std::path::Path;
use std::thread;

use nutgate::clock::Clock;
use nutgate::ids::AccountId;
use nutgate::ledger::embedded::{Embedded, open_store};
use nutgate::store::{Durability, read_only};
use rusqlite::Connection;
use tempfile::TempDir;

use crate::subject::{AccountRow, OpenRow, Rows, Subject};

#[derive(Default)]
pub(crate) struct OnEmbedded {
    opened: Option<Opened>,
    /// SQL that is run besides the schema.
    pub(crate) planted: &'static str,
}

struct Opened {
    ledger: Embedded,
    reader: Connection,
    clock: Clock,
    directory: TempDir,
}

impl Opened {
    async fn at(directory: TempDir, clock: &Clock, planted: &'static str) -> Self {
        let path = directory.path().join("ledger.db");
        let store = loop {
            // The store of a ledger just dropped lets go of its lock a moment later.
            match open_store(&path) {
                Ok(store) => break store,
                Err(_) => thread::yield_now(),
            }
        };
        let plant = |connection: &Connection| Ok(connection.execute_batch(planted)?);
        store.write(Durability::Process, plant).await.unwrap();
        let ledger = Embedded::new(store, clock.clone());
        let reader = read_only(&path).unwrap();
        Self { ledger, reader, clock: clock.clone(), directory }
    }
}

impl Subject for OnEmbedded {
    type Ledger = Embedded;

    async fn fresh(&mut self, clock: &Clock) {
        // Only processes die here, so memory does as a disk.
        let directory = if Path::new(MEMORY).is_dir() {
            tempfile::tempdir_in(MEMORY)
        } else {
            tempfile::tempdir()
        };
        self.opened = Some(Opened::at(directory.unwrap(), clock, self.planted).await);
    }

    fn ledger(&self) -> &Embedded {
        &self.opened.as_ref().unwrap().ledger
    }

    async fn crash(&mut self) {
        let Opened { clock, directory, .. } = self.opened.take().unwrap();
        self.opened = Some(Opened::at(directory, &clock, self.planted).await);
    }

    async fn rows(&mut self, _: &[AccountId]) -> Result<Rows, String> {
        read(&self.opened.as_ref().unwrap().reader).map_err(|error| error.to_string())
    }
}

fn read(connection: &Connection) -> rusqlite::Result<Rows> {
    let mut accounts = connection.prepare_cached(ACCOUNTS)?;
    let accounts = accounts.query_map([], |row| {
        let account = AccountRow {
            deposited: row.get(1)?,
            available: row.get(2)?,
            reserved: row.get(3)?,
            spent: row.get(4)?,
            refunded: row.get(5)?,
            shortfall: row.get(6)?,
            open: row.get(7)?,
            deposits: row.get(8)?,
            withdrawn: row.get(9)?,
        };
        Ok((row.get(0)?, account))
    })?;
    let mut open = connection.prepare_cached(OPEN)?;
    let open = open.query_map([], |row| {
        Ok(OpenRow {
            id: row.get(0)?,
            payer: row.get(1)?,
            key: row.get(2)?,
            amount: row.get(3)?,
            deadline_ms: row.get(4)?,
            accrued: row.get(5)?,
        })
    })?;
    Ok(Rows {
        accounts: accounts.collect::<Result<_, _>>()?,
        open: open.collect::<Result<_, _>>()?,
    })
}

const MEMORY: &str = "/dev/shm";

const ACCOUNTS: &str = "
SELECT id, deposited, available, reserved, spent, refunded, shortfall, open_reservations,
    (SELECT IFNULL(SUM(amount), 0) FROM deposits WHERE account = accounts.id),
    (SELECT IFNULL(SUM(amount), 0) FROM withdrawals
        WHERE account = accounts.id AND state <> 'reverted')
FROM accounts";

const OPEN: &str = "
SELECT id, account, key, amount, deadline_ms, accrued FROM reservations WHERE how IS NULL";
