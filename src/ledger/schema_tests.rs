//! From the tables of the first version to those of this one, with everything that is in them.

use super::*;
use crate::clock::{Clock, UnixMs};
use crate::ids::{AccountId, DepositId, ReservationId, WithdrawalId};
use crate::ledger::embedded::{Embedded, open_store};
use crate::ledger::spool::Spool;
use crate::ledger::{Deposit, Ended, Entry, Ledger, Record, UsageSource, What};
use crate::money::Msat;

fn msat(amount: u64) -> Msat {
    Msat::new(amount).unwrap()
}

/// A database as the first version left it.
fn old(schema: &str, rows: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("old.db");
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch("PRAGMA journal_mode = WAL").unwrap();
    connection.execute_batch(schema).unwrap();
    connection.execute_batch(rows).unwrap();
    (dir, path)
}

/// Every column and index there is, with its place and kind.
fn shape(connection: &Connection) -> Vec<String> {
    let sql = "SELECT format('%s %d %s %s %d %s %d', m.name, c.cid, c.name, c.type, c.\"notnull\",
            c.dflt_value, c.pk) FROM sqlite_schema AS m, pragma_table_info(m.name) AS c
            WHERE m.type = 'table'
        UNION ALL SELECT sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL ORDER BY 1";
    let mut statement = connection.prepare(sql).unwrap();
    let shape = statement.query_map([], |row| row.get(0)).unwrap();
    shape.collect::<Result<_, _>>().unwrap()
}

#[test]
fn tables_of_the_first_version_take_the_form_of_new_ones() {
    type Prepare = fn(&Connection) -> Result<(), StoreError>;
    for (old, prepare) in [(LEDGER, prepare as Prepare), (SPOOL_THEN, prepare_spool)] {
        let (fresh, taken_over) =
            (Connection::open_in_memory().unwrap(), Connection::open_in_memory().unwrap());
        prepare(&fresh).unwrap();
        taken_over.execute_batch(old).unwrap();
        assert_ne!(shape(&taken_over), shape(&fresh));
        for start in ["the first", "another"] {
            prepare(&taken_over).unwrap();
            assert_eq!(shape(&taken_over), shape(&fresh), "{start} start");
        }
    }
}

#[tokio::test]
async fn what_happened_under_the_first_version_is_history_and_goes_on() {
    let (_dir, path) = old(LEDGER, ROWS);
    let ledger = Embedded::new(open_store(&path).unwrap(), Clock::manual(UnixMs(9_000)));
    let (parent, child) = (AccountId::stored("parent"), AccountId::stored("child"));
    let deposit = |id: &str, amount| What::Deposit { id: DepositId::stored(id), amount };
    let request = |id: &str, spent, how, source, tokens: (u64, u64), usage: &str| What::Request {
        id: ReservationId::stored(id),
        reserved: msat(100),
        spent,
        shortfall: Msat::ZERO,
        how,
        record: Record {
            request_id: format!("of {id}"),
            model: "m".to_owned(),
            usage_source: Some(source),
            input_tokens: tokens.0,
            output_tokens: tokens.1,
            usage: usage.to_owned(),
            ..Record::default()
        },
    };
    let at = |ms, what| Entry { at: UnixMs(ms), what };
    let childs = at(
        3_000,
        request(
            "r-child",
            msat(30),
            Ended::Settled,
            UsageSource::Upstream,
            (7, 20),
            r#"{"input_tokens":7,"cached_input_tokens":3,"output_tokens":20}"#,
        ),
    );
    let mut expect = vec![
        at(5_000, What::Withdrawal { id: WithdrawalId::stored("w-gone"), amount: msat(200) }),
        at(4_000, request("r-due", msat(10), Ended::Expired, UsageSource::Floor, (0, 0), "")),
        childs.clone(),
        at(1_000, deposit("d-1", msat(1_000))),
    ];
    let page = ledger.history(parent.clone(), None, 10).await.unwrap();
    assert_eq!((page.entries, page.next), (expect.clone(), None));
    assert_eq!(ledger.history(child, None, 10).await.unwrap().entries, [childs]);

    let again = Deposit { id: DepositId::stored("d-1"), account: parent.clone(), amount: msat(1) };
    let account = ledger.deposit(again).await.unwrap();
    assert_eq!((account.deposited, account.entries), (msat(1_000), 4), "it was booked before");
    let more = Deposit { id: DepositId::stored("d-2"), account: parent.clone(), amount: msat(5) };
    assert_eq!(ledger.deposit(more).await.unwrap().deposited, msat(1_005));
    assert_eq!(ledger.expire_all().await.unwrap().len(), 1, "what was open then");
    expect.insert(0, at(9_000, deposit("d-2", msat(5))));
    let page = ledger.history(parent.clone(), None, 10).await.unwrap();
    assert_eq!(page.entries[1..], expect);
    assert_eq!(ledger.account(parent).await.unwrap().unwrap().reserved, Msat::ZERO);
}

#[tokio::test]
async fn an_end_spooled_by_the_first_version_is_told_with_its_usage() {
    let (dir, path) = old(SPOOL_THEN, SPOOLED);
    let (_ledger_dir, ledger_path) = old(LEDGER, ROWS);
    let ledger = Embedded::new(open_store(&ledger_path).unwrap(), Clock::manual(UnixMs(6_500)));
    let spool = Spool::open(&path, ledger.clone()).await.unwrap();
    let told = async {
        while spool.entries() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = spool.clone().run() => {}
        () = told => {}
    }
    let page = ledger.history(AccountId::stored("parent"), None, 1).await.unwrap();
    let What::Request { spent, record, .. } = &page.entries[0].what else { panic!("{page:?}") };
    let usage = r#"{"input_tokens":1,"cached_input_tokens":1,"output_tokens":2}"#;
    assert_eq!((*spent, record.usage.as_str()), (msat(44), usage));
    assert_eq!((record.input_tokens, record.output_tokens), (1, 2));
    assert_eq!(record.usage_source, Some(UsageSource::Estimated));
    drop(dir);
}

const ROWS: &str = "
INSERT INTO accounts VALUES ('parent', 1000, 660, 100, 40, 200, 0, 0, 1, 1, NULL, NULL, NULL,
    NULL, NULL, NULL, NULL, 1, 100, 0, 10, 0, 0, 0, 0, 0, 0);
INSERT INTO accounts VALUES ('child', 0, 0, 0, 0, 0, 0, 1, 0, 0, 'parent', NULL, NULL, NULL, NULL,
    NULL, NULL, 0, 0, 0, 30, 0, 0, 0, 0, 0, 0);
INSERT INTO deposits VALUES ('d-1', 'parent', 1000, 1000);
INSERT INTO reservations VALUES ('r-child', 'parent', 'child', 100, 9, 60000, 0, 'settled', 30, 70,
    0, 970, 'of r-child', 'm', 'upstream', 7, 3, 20, 3000);
INSERT INTO reservations VALUES ('r-due', 'parent', 'parent', 100, 9, 3900, 10, 'expired', 10, 90,
    0, 960, 'of r-due', 'm', 'floor', 0, 0, 0, 4000);
INSERT INTO reservations VALUES ('r-open', 'parent', 'parent', 100, 0, 60000, 0, NULL, 0, 0, 0, 0,
    '', '', '', 0, 0, 0, 6000);
INSERT INTO withdrawals VALUES ('w-back', 'parent', 300, 'mint', 'sat', 'reverted', 4500);
INSERT INTO withdrawals VALUES ('w-gone', 'parent', 200, 'mint', 'sat', 'committed', 5000);";

const SPOOLED: &str = "
INSERT INTO ends VALUES (1, 'r-open', 'parent', 100, 44, 'late', 'm', 'estimated', 1, 1, 2, 6400);";

/// As it was.
const LEDGER: &str = "
CREATE TABLE IF NOT EXISTS accounts (
    id TEXT PRIMARY KEY,
    deposited INTEGER NOT NULL,
    available INTEGER NOT NULL CHECK (available >= 0),
    reserved INTEGER NOT NULL CHECK (reserved >= 0),
    spent INTEGER NOT NULL CHECK (spent >= 0),
    refunded INTEGER NOT NULL CHECK (refunded >= 0),
    shortfall INTEGER NOT NULL CHECK (shortfall >= 0),
    requests INTEGER NOT NULL,
    withdrawals INTEGER NOT NULL,
    open_reservations INTEGER NOT NULL,
    parent TEXT,
    expires_ms INTEGER,
    cap INTEGER,
    cap_reset TEXT,
    requests_per_minute INTEGER,
    tokens_per_hour INTEGER,
    concurrent INTEGER,
    key_open INTEGER NOT NULL CHECK (key_open >= 0),
    key_held INTEGER NOT NULL CHECK (key_held >= 0),
    key_tokens_held INTEGER NOT NULL CHECK (key_tokens_held >= 0),
    key_spent INTEGER NOT NULL CHECK (key_spent >= 0),
    key_spent_before INTEGER NOT NULL,
    period INTEGER NOT NULL,
    requests_start_ms INTEGER NOT NULL,
    requests_count INTEGER NOT NULL,
    tokens_start_ms INTEGER NOT NULL,
    tokens_count INTEGER NOT NULL,
    CHECK (deposited = available + reserved + spent + refunded)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS reservations (
    id TEXT PRIMARY KEY,
    account TEXT NOT NULL,
    key TEXT NOT NULL,
    amount INTEGER NOT NULL CHECK (amount >= 0),
    tokens INTEGER NOT NULL,
    deadline_ms INTEGER NOT NULL,
    accrued INTEGER NOT NULL CHECK (accrued >= 0),
    how TEXT CHECK (how IN ('settled', 'released', 'expired')),
    spent INTEGER NOT NULL DEFAULT 0 CHECK (spent >= 0),
    returned INTEGER NOT NULL DEFAULT 0 CHECK (returned >= 0),
    shortfall INTEGER NOT NULL DEFAULT 0 CHECK (shortfall >= 0),
    available_after INTEGER NOT NULL DEFAULT 0,
    request_id TEXT NOT NULL DEFAULT '',
    model TEXT NOT NULL DEFAULT '',
    usage_source TEXT NOT NULL DEFAULT '',
    input_tokens INTEGER NOT NULL DEFAULT 0,
    cached_input_tokens INTEGER NOT NULL DEFAULT 0,
    output_tokens INTEGER NOT NULL DEFAULT 0,
    written_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS reservations_open ON reservations (account) WHERE how IS NULL;
CREATE INDEX IF NOT EXISTS reservations_due ON reservations (deadline_ms) WHERE how IS NULL;
CREATE TABLE IF NOT EXISTS deposits (
    id TEXT PRIMARY KEY,
    account TEXT NOT NULL,
    amount INTEGER NOT NULL CHECK (amount >= 0),
    written_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS withdrawals (
    id TEXT PRIMARY KEY,
    account TEXT NOT NULL,
    amount INTEGER NOT NULL CHECK (amount > 0),
    mint TEXT NOT NULL,
    unit TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('begun', 'committed', 'reverted')),
    written_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS withdrawals_begun ON withdrawals (written_ms) WHERE state = 'begun';
";

/// As it was.
const SPOOL_THEN: &str = "
CREATE TABLE IF NOT EXISTS ends (
    nth INTEGER PRIMARY KEY,
    reservation TEXT NOT NULL UNIQUE,
    account TEXT NOT NULL,
    amount INTEGER NOT NULL,
    cost INTEGER,
    request_id TEXT NOT NULL,
    model TEXT NOT NULL,
    usage_source TEXT NOT NULL,
    input_tokens INTEGER NOT NULL,
    cached_input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    since INTEGER NOT NULL
) STRICT;";
