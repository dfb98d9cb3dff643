//! Statements, what goes into them and what comes out, the same over both databases.

use super::StoreError;
use super::dialect::Dialect;
use super::postgres::Session;

/// A transaction under way. Who has it can run statements and nothing else: it ends with the
/// piece of work that it was given to.
pub struct Tx<'c>(Connection<'c>);

enum Connection<'c> {
    Sqlite(&'c rusqlite::Connection),
    Postgres(&'c mut Session),
}

impl<'c> Tx<'c> {
    /// Whatever transaction this connection is in.
    pub(crate) fn sqlite(connection: &'c rusqlite::Connection) -> Self {
        Self(Connection::Sqlite(connection))
    }

    pub(super) fn postgres(session: &'c mut Session) -> Self {
        Self(Connection::Postgres(session))
    }

    pub fn dialect(&self) -> Dialect {
        match self.0 {
            Connection::Sqlite(_) => Dialect::Sqlite,
            Connection::Postgres(_) => Dialect::Postgres,
        }
    }

    /// How many rows the statement changed.
    pub fn execute(&mut self, sql: &str, values: &[Value]) -> Result<u64, StoreError> {
        match &mut self.0 {
            Connection::Sqlite(connection) => {
                let mut statement = connection.prepare_cached(&Dialect::Sqlite.spell(sql))?;
                Ok(statement.execute(rusqlite::params_from_iter(values))? as u64)
            }
            Connection::Postgres(session) => session.execute(sql, values),
        }
    }

    pub fn rows(&mut self, sql: &str, values: &[Value]) -> Result<Vec<Row>, StoreError> {
        match &mut self.0 {
            Connection::Sqlite(connection) => {
                let mut statement = connection.prepare_cached(&Dialect::Sqlite.spell(sql))?;
                let columns = statement.column_count();
                let rows = statement.query_map(rusqlite::params_from_iter(values), |row| {
                    (0..columns).map(|column| row.get(column)).collect::<Result<_, _>>().map(Row)
                })?;
                Ok(rows.collect::<Result<_, _>>()?)
            }
            Connection::Postgres(session) => session.rows(sql, values),
        }
    }

    /// The only row, or the first.
    pub fn row(&mut self, sql: &str, values: &[Value]) -> Result<Option<Row>, StoreError> {
        Ok(self.rows(sql, values)?.into_iter().next())
    }

    /// Steps of SQLite's machine that this statement took since it was asked last.
    #[cfg(test)]
    pub(crate) fn steps_of(&self, sql: &str) -> Result<u64, StoreError> {
        let Connection::Sqlite(connection) = &self.0 else { return Ok(0) };
        let statement = connection.prepare_cached(&Dialect::Sqlite.spell(sql))?;
        let steps = statement.reset_status(rusqlite::StatementStatus::VmStep);
        Ok(steps.unsigned_abs().into())
    }

    /// A schema that is written for SQLite and safe to run again.
    pub fn create(&mut self, schema: &str) -> Result<(), StoreError> {
        match &mut self.0 {
            Connection::Sqlite(connection) => Ok(connection.execute_batch(schema)?),
            Connection::Postgres(session) => session.create(schema),
        }
    }
}

/// One value of a row or of a statement's parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Null,
    Integer(i64),
    Text(String),
    Bytes(Vec<u8>),
}

/// The parameters of a statement, in their order: `values![id, amount]`.
macro_rules! values {
    ($($value:expr),* $(,)?) => { &[$($crate::store::Value::from($value)),*][..] };
}
pub(crate) use values;

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Integer(number.into())
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<&String> for Value {
    fn from(text: &String) -> Self {
        Self::Text(text.clone())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

impl<T> From<Option<T>> for Value
where
    Self: From<T>,
{
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Self::from)
    }
}

impl rusqlite::ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        use rusqlite::types::{ToSqlOutput, ValueRef};
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Integer(number) => ValueRef::Integer(*number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Bytes(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

impl rusqlite::types::FromSql for Value {
    fn column_result(value: rusqlite::types::ValueRef<'_>) -> rusqlite::types::FromSqlResult<Self> {
        use rusqlite::types::{FromSqlError, ValueRef};
        match value {
            ValueRef::Null => Ok(Self::Null),
            ValueRef::Integer(number) => Ok(Self::Integer(number)),
            ValueRef::Text(_) => value.as_str().map(Self::from),
            ValueRef::Blob(bytes) => Ok(Self::Bytes(bytes.to_vec())),
            ValueRef::Real(_) => Err(FromSqlError::InvalidType),
        }
    }
}

/// One row that a statement answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row(pub(super) Vec<Value>);

impl Row {
    /// The value of a column, counted from 0. A value of another kind is an error: the row is
    /// not one that we wrote.
    pub fn get<T: Column>(&self, column: usize) -> Result<T, StoreError> {
        let unfit = || StoreError(format!("column {column} holds no {}", T::KIND));
        self.0.get(column).and_then(T::of).ok_or_else(unfit)
    }
}

/// What a column can be read as.
pub trait Column: Sized {
    const KIND: &str;

    fn of(value: &Value) -> Option<Self>;
}

impl Column for i64 {
    const KIND: &str = "number";

    fn of(value: &Value) -> Option<Self> {
        if let Value::Integer(number) = value { Some(*number) } else { None }
    }
}

impl Column for u64 {
    const KIND: &str = "number from 0 on";

    fn of(value: &Value) -> Option<Self> {
        i64::of(value)?.try_into().ok()
    }
}

impl Column for u32 {
    const KIND: &str = "small number from 0 on";

    fn of(value: &Value) -> Option<Self> {
        i64::of(value)?.try_into().ok()
    }
}

/// SQLite has 0 and 1 for it.
impl Column for bool {
    const KIND: &str = "truth";

    fn of(value: &Value) -> Option<Self> {
        i64::of(value).map(|number| number != 0)
    }
}

impl Column for String {
    const KIND: &str = "text";

    fn of(value: &Value) -> Option<Self> {
        if let Value::Text(text) = value { Some(text.clone()) } else { None }
    }
}

impl Column for Vec<u8> {
    const KIND: &str = "bytes";

    fn of(value: &Value) -> Option<Self> {
        if let Value::Bytes(bytes) = value { Some(bytes.clone()) } else { None }
    }
}

impl<T: Column> Column for Option<T> {
    const KIND: &str = T::KIND;

    fn of(value: &Value) -> Option<Self> {
        if *value == Value::Null { Some(None) } else { T::of(value).map(Some) }
    }
}
