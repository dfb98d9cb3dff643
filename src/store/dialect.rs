//! One spelling for two databases.
//!
//! Statements are written in the words that SQLite and PostgreSQL share (`ON CONFLICT`,
//! `RETURNING`, partial indexes), with parameters as `?1`. What differs is written in one of
//! the two and put into the other's words here:
//!
//! * row locks (`FOR UPDATE`, `SKIP LOCKED`) as PostgreSQL has them. SQLite has one writer and
//!   needs none;
//! * `now_ms()`, the database's own clock;
//! * the schema as SQLite has it. Text is compared by its bytes in both.

use std::borrow::Cow;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    Sqlite,
    Postgres,
}

impl Dialect {
    pub(super) fn spell(self, sql: &str) -> Cow<'_, str> {
        match self {
            Self::Sqlite if sql.contains(" FOR UPDATE") || sql.contains(NOW) => sql
                .replace(" FOR UPDATE SKIP LOCKED", "")
                .replace(" FOR UPDATE", "")
                .replace(NOW, "CAST(unixepoch('subsec') * 1000 AS INTEGER)")
                .into(),
            Self::Sqlite => sql.into(),
            Self::Postgres => sql.replace('?', "$").replace(NOW, POSTGRES_NOW).into(),
        }
    }

    /// A schema that is written for SQLite.
    pub(super) fn spell_schema(self, schema: &str) -> Cow<'_, str> {
        match self {
            Self::Sqlite => schema.into(),
            Self::Postgres => POSTGRES_WORDS
                .iter()
                .fold(schema.to_owned(), |schema, (theirs, ours)| schema.replace(theirs, ours))
                .into(),
        }
    }
}

const NOW: &str = "now_ms()";
const POSTGRES_NOW: &str = "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)";

/// In this order: the first is made of words that the others would change.
const POSTGRES_WORDS: [(&str, &str); 6] = [
    ("seq INTEGER PRIMARY KEY", "seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY"),
    (" STRICT, WITHOUT ROWID", ""),
    (" STRICT", ""),
    (" INTEGER", " BIGINT"),
    (" TEXT", " TEXT COLLATE \"C\""),
    (" BLOB", " BYTEA"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_are_postgresqls_alone_and_parameters_are_numbered_in_both() {
        let sql = "SELECT a FROM t WHERE b = ?1 LIMIT ?2 FOR UPDATE SKIP LOCKED";
        assert_eq!(Dialect::Sqlite.spell(sql), "SELECT a FROM t WHERE b = ?1 LIMIT ?2");
        let postgres = "SELECT a FROM t WHERE b = $1 LIMIT $2 FOR UPDATE SKIP LOCKED";
        assert_eq!(Dialect::Postgres.spell(sql), postgres);
        assert!(!Dialect::Sqlite.spell("SELECT now_ms()").contains("now_ms"));
    }
}
