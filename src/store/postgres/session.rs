//! One connection, and the transaction on it.

use std::collections::HashMap;
use std::error::Error;

use bytes::BytesMut;
use postgres::error::SqlState;
use postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use postgres::{Client, Statement};
use sha2::{Digest, Sha256};

use super::Address;
use crate::store::dialect::Dialect;
use crate::store::{Row, StoreError, Tx, Value};

pub(in crate::store) struct Session {
    client: Client,
    /// Prepared once per connection.
    statements: HashMap<String, Statement>,
    /// A statement of this transaction has failed. The server answers its COMMIT by rolling
    /// back, and does not call that an error.
    failed: bool,
    usable: bool,
}

impl Session {
    pub(super) fn connect(address: &Address) -> Result<Self, StoreError> {
        let mut client = address.connect().map_err(|error| told(&error))?;
        client.batch_execute(SETTINGS).map_err(|error| told(&error))?;
        Ok(Self { client, statements: HashMap::new(), failed: false, usable: true })
    }

    /// False when the connection is lost, or leads to a server that no longer writes.
    pub(super) fn is_usable(&self) -> bool {
        self.usable && !self.client.is_closed()
    }

    pub(super) fn begin(&mut self, begin: &str) -> Result<(), StoreError> {
        self.failed = false;
        self.client.batch_execute(begin).map_err(|error| told(&error))
    }

    /// Runs the work of a transaction that has begun, and ends it.
    pub(super) fn finish<T>(
        &mut self,
        work: impl FnOnce(&mut Tx<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut done = work(&mut Tx::postgres(self));
        if self.failed && done.is_ok() {
            done = Err(StoreError("a statement of the transaction had failed".to_owned()));
        }
        let ended = self.client.batch_execute(if done.is_ok() { "COMMIT" } else { "ROLLBACK" });
        if let Err(error) = ended {
            self.usable = false;
            log::warn!("the database did not say how a transaction ended: {}", told(&error));
            done = done.and(Err(told(&error)));
        }
        done
    }

    pub(in crate::store) fn execute(
        &mut self,
        sql: &str,
        values: &[Value],
    ) -> Result<u64, StoreError> {
        self.run(sql, |client, statement| client.execute(statement, &passed(values)))
    }

    pub(in crate::store) fn rows(
        &mut self,
        sql: &str,
        values: &[Value],
    ) -> Result<Vec<Row>, StoreError> {
        self.run(sql, |client, statement| {
            let rows = client.query(statement, &passed(values))?;
            let row = |row: &postgres::Row| {
                (0..row.len()).map(|column| row.try_get(column)).collect::<Result<_, _>>().map(Row)
            };
            rows.iter().map(row).collect()
        })
    }

    /// Once, and one gateway at a time. A schema that is there is left alone although it is safe
    /// to run again, because looking whether an index exists waits for whoever writes its table.
    pub(in crate::store) fn create(&mut self, schema: &str) -> Result<(), StoreError> {
        let hash = hex::encode(Sha256::digest(schema));
        let spelled = Dialect::Postgres.spell_schema(schema);
        let create = |client: &mut Client| {
            client.batch_execute(&format!(
                "SELECT pg_advisory_xact_lock({SCHEMA_LOCK});
                 CREATE TABLE IF NOT EXISTS schemas (hash TEXT PRIMARY KEY)"
            ))?;
            if client.execute("INSERT INTO schemas VALUES ($1) ON CONFLICT DO NOTHING", &[&hash])?
                == 0
            {
                return Ok(());
            }
            client.batch_execute(&spelled)
        };
        let created: Result<(), postgres::Error> = create(&mut self.client);
        created.map_err(|error| self.failure(&error))
    }

    fn run<T>(
        &mut self,
        sql: &str,
        ask: impl FnOnce(&mut Client, &Statement) -> Result<T, postgres::Error>,
    ) -> Result<T, StoreError> {
        let answer = match self.statements.get(sql) {
            Some(statement) => ask(&mut self.client, statement),
            None => self.client.prepare(&Dialect::Postgres.spell(sql)).and_then(|statement| {
                let answer = ask(&mut self.client, &statement);
                self.statements.insert(sql.to_owned(), statement);
                answer
            }),
        };
        answer.map_err(|error| self.failure(&error))
    }

    fn failure(&mut self, error: &postgres::Error) -> StoreError {
        self.failed = true;
        if error.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION) {
            self.usable = false;
        }
        told(error)
    }
}

/// Without the rows' values, which PostgreSQL keeps in an error's details.
fn told(error: &postgres::Error) -> StoreError {
    StoreError(match (error.as_db_error(), error.source()) {
        (Some(answer), _) => format!("{} ({})", answer.message(), answer.code().code()),
        (None, Some(source)) => format!("{error}: {source}"),
        (None, None) => error.to_string(),
    })
}

fn passed(values: &[Value]) -> Vec<&(dyn ToSql + Sync)> {
    values.iter().map(|value| value as &(dyn ToSql + Sync)).collect()
}

impl ToSql for Value {
    fn to_sql(
        &self,
        of: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match (self, of) {
            (Self::Null, _) => Ok(IsNull::Yes),
            (Self::Integer(number), &Type::INT8) => number.to_sql(of, out),
            (Self::Integer(number), &Type::INT4) => i32::try_from(*number)?.to_sql(of, out),
            (Self::Text(text), &Type::TEXT) => text.to_sql(of, out),
            (Self::Bytes(bytes), &Type::BYTEA) => bytes.to_sql(of, out),
            _ => Err(format!("a value of another kind than {of}").into()),
        }
    }

    fn accepts(of: &Type) -> bool {
        matches!(*of, Type::INT8 | Type::INT4 | Type::TEXT | Type::BYTEA)
    }

    to_sql_checked!();
}

impl FromSql<'_> for Value {
    fn from_sql(of: &Type, raw: &[u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(match *of {
            Type::INT8 => Self::Integer(i64::from_sql(of, raw)?),
            Type::INT4 => Self::Integer(i32::from_sql(of, raw)?.into()),
            Type::BOOL => Self::Integer(bool::from_sql(of, raw)?.into()),
            Type::BYTEA => Self::Bytes(Vec::from_sql(of, raw)?),
            _ => Self::Text(String::from_sql(of, raw)?),
        })
    }

    fn from_sql_null(_: &Type) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self::Null)
    }

    fn accepts(of: &Type) -> bool {
        <Self as ToSql>::accepts(of) || *of == Type::BOOL
    }
}

/// Of every session. What the operator set for durability stays, unless it is less than a
/// commit on this server's disk.
const SETTINGS: &str = "
    SET statement_timeout = '4s';
    SET lock_timeout = '2s';
    SET idle_in_transaction_session_timeout = '5s';
    SET default_transaction_isolation = 'read committed';
    SET client_min_messages = 'warning';
    SELECT set_config('synchronous_commit', 'on', false)
        WHERE current_setting('synchronous_commit') IN ('off', 'local')";

/// Any number that no other program on this database takes.
const SCHEMA_LOCK: i64 = 0x006e_7574_6761_7465;
