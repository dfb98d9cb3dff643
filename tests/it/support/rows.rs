//! The ledger's rows, read from the files of a gateway.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::Gateway;

/// How one reservation ended, as the receipt has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReservationRow {
    pub(crate) amount: u64,
    pub(crate) how: Option<String>,
    pub(crate) spent: u64,
    pub(crate) shortfall: u64,
    pub(crate) request_id: String,
    pub(crate) model: String,
    pub(crate) usage_source: String,
    pub(crate) input_tokens: u64,
    pub(crate) output_tokens: u64,
    pub(crate) route: String,
    pub(crate) usage: String,
}

impl Gateway {
    /// Every reservation ever made, in the order of their ids, which is that of time.
    pub(crate) fn reservations(&self) -> Vec<ReservationRow> {
        let database = self.database();
        let mut statement = database
            .prepare(
                "SELECT amount, how, spent, shortfall, request_id, model, usage_source,
                        input_tokens, output_tokens, route, usage
                 FROM reservations ORDER BY id",
            )
            .unwrap();
        let rows = statement.query_map([], |row| {
            Ok(ReservationRow {
                amount: row.get(0)?,
                how: row.get(1)?,
                spent: row.get(2)?,
                shortfall: row.get(3)?,
                request_id: row.get(4)?,
                model: row.get(5)?,
                usage_source: row.get(6)?,
                input_tokens: row.get(7)?,
                output_tokens: row.get(8)?,
                route: row.get(9)?,
                usage: row.get(10)?,
            })
        });
        rows.unwrap().map(Result::unwrap).collect()
    }

    /// The gateway's database, for looking only.
    pub(crate) fn database(&self) -> Connection {
        let is_sqlite = |path: &Path| {
            std::fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"SQLite format 3\0"))
        };
        let path = std::fs::read_dir(self.data_dir())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| is_sqlite(path))
            .expect("a database");
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap()
    }
}
