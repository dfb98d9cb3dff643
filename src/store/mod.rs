//! Where rows are kept: SQLite for one machine, PostgreSQL for a fleet.
//!
//! A [`Store`] is one SQLite file; the embedded ledger works on it directly. [`Db`] is either
//! database behind one face, for the wallet: a piece of work is a closure over a [`Tx`], its
//! statements are written once ([`dialect`]), and it runs as one transaction whose outcome is
//! answered when the commit is known. An error means: not known to be kept. The database may
//! have committed all the same when the connection broke in that moment, so work is written to
//! be repeatable, by ids that were made before it.

mod dialect;
#[cfg(test)]
pub(crate) mod place;
mod postgres;
mod rows;
mod sqlite;

use std::fmt;

pub use self::dialect::Dialect;
pub use self::postgres::{Postgres, check_address};
pub(crate) use self::rows::values;
pub use self::rows::{Row, Tx, Value};
pub use self::sqlite::{Store, read_only};

/// What must be true when the answer arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// Survives the death of the process (SQLite: in the write-ahead log, not yet forced to
    /// disk; PostgreSQL: with the server, which forces it to disk within a moment).
    Process,
    /// Survives the death of the machine (forced to disk).
    Disk,
}

/// The database did not do what was asked; nothing of that piece of work was kept, unless its
/// answer was lost on the way back.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct StoreError(pub String);

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self(error.to_string())
    }
}

/// Either database. Cheap to clone; its threads end with the last handle.
#[derive(Clone)]
pub enum Db {
    Sqlite(Store),
    Postgres(Postgres),
}

impl Db {
    /// The database of a fleet. Nothing is connected to before the first piece of work.
    ///
    /// # Errors
    /// The address cannot be used, in words that do not repeat it: it may hold a password.
    pub fn postgres(address: &str) -> Result<Self, StoreError> {
        Postgres::new(address).map(Self::Postgres)
    }

    /// Whether other gateways work on it as well.
    pub fn is_shared(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }

    /// Runs `work` as one transaction (on PostgreSQL: READ COMMITTED) and answers once its
    /// commit is known.
    pub async fn write<T, F>(&self, durability: Durability, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        match self {
            Self::Sqlite(store) => {
                store.write(durability, |connection| work(&mut Tx::sqlite(connection))).await
            }
            Self::Postgres(postgres) => postgres.write(durability, work).await,
        }
    }

    /// Reads at length from one consistent snapshot; on PostgreSQL without being in anybody's
    /// way, on SQLite between two pieces of work.
    pub async fn snapshot<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        match self {
            Self::Sqlite(_) => self.write(Durability::Process, work).await,
            Self::Postgres(postgres) => postgres.snapshot(work).await,
        }
    }
}

impl From<Store> for Db {
    fn from(store: Store) -> Self {
        Self::Sqlite(store)
    }
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sqlite(_) => "Sqlite",
            Self::Postgres(_) => "Postgres",
        })
    }
}
