//! A fresh database of either kind, for the tests of what works on both.

use std::sync::Arc;

use nutgate_sandbox::{Postgres, PostgresOptions};

use super::{Db, Durability, Row, Store, Tx, Value, values};

#[derive(Clone, Copy, Debug)]
pub(crate) enum Over {
    Sqlite,
    Postgres,
}

/// Where a test's wallet is: beside the embedded ledger, or on a server of its own.
#[derive(Clone)]
pub(crate) enum Place {
    Sqlite,
    Postgres { server: Arc<Postgres>, url: String },
}

impl Place {
    pub(crate) async fn fresh(over: Over) -> Self {
        match over {
            Over::Sqlite => Self::Sqlite,
            Over::Postgres => {
                let server = Postgres::start(PostgresOptions { fsync: false }).await.unwrap();
                Self::Postgres { url: server.url(), server: Arc::new(server) }
            }
        }
    }

    /// A handle of one more gateway; on one machine there is only the one store.
    pub(crate) fn open(&self, store: &Store) -> Db {
        match self {
            Self::Sqlite => store.clone().into(),
            Self::Postgres { url, .. } => Db::postgres(url).unwrap(),
        }
    }

    /// What `db` holds now, where nobody else works on it. Files are for the caller to copy.
    pub(crate) async fn copied(&self, db: &Db, schema: &'static str) -> Self {
        let Self::Postgres { server, .. } = self else { return Self::Sqlite };
        let copy = Self::Postgres { url: server.database().await.unwrap(), server: server.clone() };
        let Self::Postgres { url, .. } = &copy else { return copy };
        let tables = db.snapshot(|tx| Ok(TABLES.map(|table| (table, all(tx, table))))).await;
        let fill = move |tx: &mut Tx<'_>| {
            tx.create(schema)?;
            for (table, rows) in tables? {
                let after = i64::try_from(rows.len()).unwrap();
                for row in rows {
                    let places: Vec<String> = (1..=row.0.len()).map(|n| format!("?{n}")).collect();
                    let places = places.join(", ");
                    let sql =
                        format!("INSERT INTO {table} OVERRIDING SYSTEM VALUE VALUES ({places})");
                    tx.execute(&sql, &row.0)?;
                }
                if NUMBERED.contains(&table) && after > 0 {
                    let sql = format!("SELECT setval('{table}_seq_seq', ?1)");
                    tx.row(&sql, values![after])?;
                }
            }
            Ok(())
        };
        Db::postgres(url).unwrap().write(Durability::Disk, fill).await.unwrap();
        copy
    }
}

fn all(tx: &mut Tx<'_>, table: &str) -> Vec<Row> {
    tx.rows(&format!("SELECT * FROM {table}"), values![]).unwrap()
}

/// One statement, for what only a test does to a row.
pub(crate) async fn statement(db: &Db, sql: &str, values: &[Value]) -> u64 {
    let (sql, values) = (sql.to_owned(), values.to_vec());
    db.write(Durability::Process, move |tx| tx.execute(&sql, &values)).await.unwrap()
}

/// Not `gateways`: those of the copied database are dead where it goes.
const TABLES: [&str; 10] = [
    "wallet_seed",
    "counters",
    "redemptions",
    "quotes",
    "proofs",
    "outgoing",
    "handed_out",
    "unclaimed",
    "payments",
    "exchanges",
];

/// Their `seq` goes on after the rows copied.
const NUMBERED: [&str; 2] = ["redemptions", "outgoing"];

/// A test over each database of each of these functions, which are told which.
macro_rules! over_both {
    ($($name:ident)*) => {
        mod sqlite {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    super::$name($crate::store::place::Over::Sqlite).await;
                }
            )*
        }
        mod postgres {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    super::$name($crate::store::place::Over::Postgres).await;
                }
            )*
        }
    };
}
pub(crate) use over_both;
