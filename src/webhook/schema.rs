//! The tables of webhooks, beside the wallet's.
//!
//! `listeners` has a row for each account that has a webhook: up to which entry its history has
//! become deliveries (`mark`), whether its balance was low and which end of validity was told, so
//! that each is told once; and when to look again. `webhooks` are the registrations: `secret` is
//! sealed, `since` is the entry after which one hears, `due_ms` is when its earliest delivery is
//! due, and `holder` works on it until `held_ms`. `deliveries` is the queue.

/// Written for SQLite, safe to run again.
pub(super) const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS listeners (
    account TEXT PRIMARY KEY,
    mark INTEGER NOT NULL,
    low INTEGER NOT NULL,
    expired_ms INTEGER NOT NULL,
    idle INTEGER NOT NULL,
    next_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS listeners_due ON listeners (next_ms);
CREATE TABLE IF NOT EXISTS webhooks (
    id TEXT PRIMARY KEY,
    account TEXT NOT NULL,
    url TEXT NOT NULL,
    events TEXT NOT NULL,
    secret BLOB NOT NULL,
    since INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    succeeded_ms INTEGER,
    failed_ms INTEGER,
    failure TEXT,
    disabled_ms INTEGER,
    disabled_why TEXT,
    holder TEXT,
    held_ms INTEGER NOT NULL,
    due_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS webhooks_of ON webhooks (account);
CREATE INDEX IF NOT EXISTS webhooks_due ON webhooks (due_ms) WHERE disabled_ms IS NULL;
CREATE TABLE IF NOT EXISTS deliveries (
    webhook TEXT NOT NULL,
    event TEXT NOT NULL,
    body TEXT NOT NULL,
    tries INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    next_ms INTEGER NOT NULL,
    PRIMARY KEY (webhook, event)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS deliveries_due ON deliveries (webhook, next_ms);
";
