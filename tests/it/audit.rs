//! `nutgate audit` finds nothing after a busy time, during it, and after any crash; and it finds
//! whatever is changed by hand in a row that holds money.

use std::collections::HashSet;
use std::path::Path;
use std::process::Output;
use std::sync::Arc;

use rusqlite::Connection;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::task::JoinSet;

use crate::support::{
    Answer, Gateway, Key, Misbehaviour, Pay, Setting, Value, World, chat, json, model, model_of,
    streamed, with, within,
};

#[tokio::test]
async fn a_busy_time_balances_and_every_row_that_is_tampered_with_is_found() {
    let mut busy = Busy::start(SEED).await;
    busy.make_an_exchange().await;
    for round in 0..ROUNDS {
        busy.round().await;
        // Beside the running gateway, and now and then beside a dead one.
        busy.world.check_balanced().await;
        if round % 4 == 3 {
            busy.world().gateway.kill().await;
            busy.world.check_balanced().await;
            busy.world().gateway.restart().await;
        }
    }
    check_worth(&mut busy).await;
    let world = busy.world();
    world.gateway.sigterm();
    world.gateway.ended().await;
    world.check_balanced().await;
    check_tampering(&world.gateway).await;
}

#[tokio::test]
async fn what_cannot_be_read_is_not_called_balanced() {
    let directory = tempfile::tempdir().unwrap();
    let gateway = Gateway::prepare(json!({}));
    let missing = Copied::of(&gateway, directory);
    let output = missing.audit().await;
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("nutgate.db"), "{output:?}");
    assert!(!missing.database().exists(), "it makes nothing up");

    std::fs::create_dir_all(missing.database().parent().unwrap()).unwrap();
    std::fs::write(missing.database(), "SQLite it is not").unwrap();
    assert_eq!(missing.audit().await.status.code(), Some(2));
}

/// All that was ever paid back, redeemed in fresh wallets, is what the ledger says was refunded.
async fn check_worth(busy: &mut Busy) {
    let mut given: HashSet<String> = busy.given.drain().collect();
    for paid in &busy.tokens {
        let claim = busy.world.claim(paid).await;
        given.extend(ecash_in(&claim));
    }
    for key in &busy.keys {
        // One whose token was refused has never become an account.
        if busy.world.fetch("/v1/balance/info", Pay::from(key)).await.status != 401 {
            busy.world.settled(key).await;
            given.extend(ecash_in(&busy.world.refund(key).await));
        }
    }
    let mut worth = 0;
    for ecash in &given {
        worth += busy.world.worth(ecash).await * 1000;
    }
    let sql = "SELECT SUM(refunded), SUM(available), SUM(reserved) FROM accounts";
    let sums: [u64; 3] = busy
        .world
        .gateway
        .database()
        .query_row(sql, [], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?]))
        .unwrap();
    assert_eq!((sums[0], sums[2]), (worth, 0));
    let accounts = busy.keys.len() + busy.tokens.len();
    assert!(sums[1] < 1000 * u64::try_from(accounts).unwrap(), "less than a sat on each account");
}

/// What a refund gives, if it gives anything: in its body always, in its head where it fits.
fn ecash_in(refund: &Answer) -> Option<String> {
    refund.json()["token"].as_str().map(str::to_owned)
}

/// Clients that do whatever comes into their head, from a seed.
struct Busy {
    world: Arc<World>,
    dice: Dice,
    keys: Vec<Key>,
    /// Paid by `X-Cashu`.
    tokens: Vec<String>,
    /// Ecash that the gateway has given out.
    given: HashSet<String>,
}

impl Busy {
    async fn start(seed: u64) -> Self {
        let mut cheap = model(CHEAP, &["sandbox"]);
        cheap["price"] = json!({"currency": "sat", "input": 0, "output": 0.001, "request": 0});
        let setting = Setting { more_models: vec![cheap], ..Setting::default() };
        let world = Arc::new(World::with(setting).await);
        Self {
            world,
            dice: Dice(seed),
            keys: Vec::new(),
            tokens: Vec::new(),
            given: HashSet::new(),
        }
    }

    /// The world, while no client is at it.
    fn world(&mut self) -> &mut World {
        Arc::get_mut(&mut self.world).expect("every client has gone")
    }

    /// Some clients at once, each with one thing to do.
    async fn round(&mut self) {
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            match self.dice.below(10) {
                0 => {
                    let sats = 1 + self.dice.below(400);
                    let ecash = self.world.sats(sats).await;
                    self.keys.push(self.world.key_of(&ecash).await);
                }
                1 | 2 => {
                    let ecash = self.world.sats(1 + self.dice.below(120)).await;
                    self.tokens.push(ecash.clone());
                    let (world, body) = (self.world.clone(), self.dice.body());
                    clients.spawn(async move {
                        let answer = world.chat(Pay::XCashu(&ecash), &body).await;
                        answer.change().filter(|change| *change != ecash).map(str::to_owned)
                    });
                }
                3 => {
                    let ecash = self.world.sats(1 + self.dice.below(120)).await;
                    self.keys.push(Key::of(&ecash));
                    let (world, body) = (self.world.clone(), self.dice.body());
                    clients.spawn(async move {
                        drop(world.try_chat(Pay::Bearer(&ecash), &body).await);
                        None
                    });
                }
                does => self.use_a_key(does, &mut clients).await,
            }
        }
        while let Some(given) = within("every client ends", clients.join_next()).await {
            self.given.extend(given.unwrap());
        }
    }

    async fn use_a_key(&mut self, does: u64, clients: &mut JoinSet<Option<String>>) {
        let Some(key) = self.dice.one_of(&self.keys).cloned() else { return };
        let (world, body) = (self.world.clone(), self.dice.body());
        match does {
            4 => {
                let more = json!({"cashu_token": world.sats(1 + self.dice.below(200)).await});
                clients.spawn(async move {
                    world.post("/v1/balance/topup", Pay::from(&key), &more).await;
                    None
                });
            }
            5 => {
                let sats = self.dice.below(20);
                let asked = if sats == 0 { json!({}) } else { json!({"amount_sats": sats}) };
                clients.spawn(async move {
                    let refund = world.post("/v1/balance/refund", Pay::from(&key), &asked).await;
                    ecash_in(&refund)
                });
            }
            6 => {
                // Asks, and leaves without waiting for anything.
                clients.spawn(async move {
                    let mut raw = world.raw().await;
                    let lines = Pay::from(&key).line();
                    raw.post("/v1/chat/completions", &lines, &body.to_string()).await;
                    raw.reset();
                    None
                });
            }
            _ => {
                clients.spawn(async move {
                    drop(world.try_chat(&key, &body).await);
                    None
                });
            }
        }
    }

    /// Refunds that leave the pool, while it is small, with coins too large for the last of them.
    async fn make_an_exchange(&mut self) {
        let (first, second) = (self.world.key(7).await, self.world.key(4).await);
        for (key, sats) in [(&first, 3), (&first, 2), (&second, 3)] {
            let asked = json!({"amount_sats": sats});
            let refund = self.world.post("/v1/balance/refund", Pay::from(key), &asked).await;
            self.given.extend(ecash_in(&refund.expect(200)));
        }
        self.keys.extend([first, second]);
        let database = self.world.gateway.database();
        let sql = "SELECT COUNT(*) FROM exchanges WHERE state = 'done'";
        let done: u64 = database.query_row(sql, [], |row| row.get(0)).unwrap();
        assert_eq!(done, 1, "there is an exchange to tamper with");
    }
}

/// SplitMix64: the same throws for the same seed on every machine.
struct Dice(u64);

impl Dice {
    fn throw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.throw() % bound
    }

    fn one_of<'t, T>(&mut self, things: &'t [T]) -> Option<&'t T> {
        let count = u64::try_from(things.len()).unwrap().max(1);
        things.get(usize::try_from(self.below(count)).unwrap())
    }

    fn body(&mut self) -> Value {
        use Misbehaviour::*;
        let odd = [
            DropsMidStream,
            NoUsage,
            Refuses,
            ContentLength,
            Status429,
            Status401,
            Status500,
            Html,
            InvalidJson,
            Cached,
            ErrorEvent,
            Status400,
            NoDone,
            Big,
            Redirect,
        ];
        let model = match self.below(3) {
            0 => model_of(*self.one_of(&odd).unwrap()),
            1 => CHEAP.to_owned(),
            _ => "demo".to_owned(),
        };
        let body = if self.below(2) == 0 { chat(&model) } else { streamed(&model) };
        with(body, json!({"max_tokens": 1 + self.below(30)}))
    }
}

/// Tampers with one row at a time, each on a fresh copy of the data, and insists on a finding.
async fn check_tampering(gateway: &Gateway) {
    let mut missed = Vec::new();
    let mut tampering: Vec<String> = STATEMENTS.iter().map(ToString::to_string).collect();
    for (table, columns, rows) in AMOUNTS {
        for column in *columns {
            for by in ["+ 1", "- 1", "* 2 + 1000"] {
                tampering.push(format!(
                    "UPDATE {table} SET {column} = {column} {by} WHERE {rows} LIMIT 1"
                ));
            }
        }
        tampering.push(format!("DELETE FROM {table} WHERE {rows} LIMIT 1"));
        tampering.push(forgery(gateway, table, rows));
    }
    for statement in &tampering {
        let copied = Copied::of(gateway, tempfile::tempdir().unwrap());
        copied.tamper(statement);
        let output = copied.audit().await;
        let found = output.status.code() == Some(1) && !output.stderr.is_empty();
        if !found {
            missed.push(format!("{statement}: {output:?}"));
        }
    }
    assert!(missed.is_empty(), "{} not found:\n{}", missed.len(), missed.join("\n"));
    // What was copied is balanced by itself.
    let copied = Copied::of(gateway, tempfile::tempdir().unwrap());
    assert_eq!(copied.audit().await.status.code(), Some(0));
}

/// Adds a second row that says the same as one that is there, under names of its own.
fn forgery(gateway: &Gateway, table: &str, rows: &str) -> String {
    let database = gateway.database();
    let mut statement = database.prepare(&format!("PRAGMA table_info({table})")).unwrap();
    let columns: Vec<String> =
        statement.query_map([], |row| row.get(1)).unwrap().map(Result::unwrap).collect();
    let copied = columns.iter().map(|column| match column.as_str() {
        "seq" => "NULL",
        "id" => "'forged'",
        "counter" => "counter + 1000000000",
        // An exchange is for one withdrawal, and the row that is copied may be for it.
        "withdrawal" if table == "exchanges" => "NULL",
        column => column,
    });
    let copied: Vec<&str> = copied.collect();
    let copied = copied.join(", ");
    format!("INSERT INTO {table} SELECT {copied} FROM {table} WHERE {rows} LIMIT 1")
}

/// A copy of a gateway's data under a configuration of its own.
struct Copied(TempDir);

impl Copied {
    fn of(gateway: &Gateway, directory: TempDir) -> Self {
        let config = std::fs::read_to_string(gateway.config_path()).unwrap();
        let mut config: Value = serde_json::from_str(&config).unwrap();
        let data_dir = directory.path().join("data");
        config["data_dir"] = json!(data_dir);
        std::fs::write(directory.path().join("nutgate.yaml"), config.to_string()).unwrap();
        if let Ok(files) = std::fs::read_dir(gateway.data_dir()) {
            std::fs::create_dir(&data_dir).unwrap();
            for file in files {
                let from = file.unwrap().path();
                std::fs::copy(&from, data_dir.join(from.file_name().unwrap())).unwrap();
            }
        }
        Self(directory)
    }

    fn database(&self) -> std::path::PathBuf {
        self.0.path().join("data/nutgate.db")
    }

    fn tamper(&self, statement: &str) {
        assert!(Path::exists(&self.database()));
        let database = Connection::open(self.database()).unwrap();
        database.execute_batch("PRAGMA ignore_check_constraints = ON").unwrap();
        // SQLite is built without `LIMIT` on what changes rows.
        let statement = match statement.split_once(" WHERE ") {
            Some((head, rows)) if !head.starts_with("INSERT") => {
                let table = head.split(' ').find(|word| TABLES.contains(word)).unwrap();
                let key = if KEYED_BY_COUNTER.contains(&table) { "keyset, counter" } else { "id" };
                format!("{head} WHERE ({key}) IN (SELECT {key} FROM {table} WHERE {rows})")
            }
            _ => statement.to_owned(),
        };
        let changed = database.execute(&statement, []).unwrap();
        assert_eq!(changed, 1, "{statement}");
    }

    async fn audit(&self) -> Output {
        let mut audit = Command::new(env!("CARGO_BIN_EXE_nutgate"));
        audit.args(["audit", "--config"]).arg(self.0.path().join("nutgate.yaml"));
        within("an audit", audit.kill_on_drop(true).output()).await.unwrap()
    }
}

/// Every table that holds money: its amounts, and rows in which they say something.
const AMOUNTS: &[(&str, &[&str], &str)] = &[
    (
        "accounts",
        &["deposited", "available", "reserved", "spent", "refunded", "shortfall"],
        "deposited > 0",
    ),
    ("reservations", &["amount", "spent", "returned", "shortfall"], "spent > 0 AND returned > 0"),
    ("deposits", &["amount"], "amount > 0"),
    ("withdrawals", &["amount"], "state = 'committed'"),
    ("redemptions", &["amount", "amount_msat"], "state = 'credited'"),
    ("proofs", &["amount"], "holder IS NULL"),
    ("proofs", &["amount"], "holder IN (SELECT id FROM outgoing)"),
    ("proofs", &["amount"], "holder IN (SELECT id FROM exchanges)"),
    ("outgoing", &["amount", "amount_msat"], "state = 'issued'"),
    ("exchanges", &["fee", "fee_msat"], "state = 'done'"),
];

/// What else makes or loses money: another state, another owner.
const STATEMENTS: &[&str] = &[
    "UPDATE accounts SET available = available + 1, deposited = deposited + 1 \
     WHERE spent > 0 LIMIT 1",
    "UPDATE reservations SET how = 'released' WHERE spent > 0 LIMIT 1",
    "UPDATE reservations SET how = NULL WHERE spent > 0 LIMIT 1",
    "UPDATE reservations SET account = 'nobody' WHERE spent > 0 LIMIT 1",
    "UPDATE deposits SET account = 'nobody' WHERE amount > 0 LIMIT 1",
    "UPDATE withdrawals SET state = 'reverted' WHERE state = 'committed' LIMIT 1",
    "UPDATE withdrawals SET account = 'nobody' WHERE state = 'committed' LIMIT 1",
    "UPDATE redemptions SET state = 'recorded' WHERE state = 'credited' LIMIT 1",
    "UPDATE redemptions SET state = 'lapsed' WHERE state = 'credited' LIMIT 1",
    "UPDATE redemptions SET account = 'nobody' WHERE state = 'credited' LIMIT 1",
    "UPDATE redemptions SET unit = 'msat' WHERE state = 'credited' LIMIT 1",
    "UPDATE proofs SET holder = NULL WHERE holder IN (SELECT id FROM outgoing) LIMIT 1",
    "UPDATE proofs SET holder = NULL WHERE holder IN (SELECT id FROM exchanges) LIMIT 1",
    "UPDATE proofs SET holder = 'nobody' WHERE holder IS NULL LIMIT 1",
    "UPDATE proofs SET holder = (SELECT id FROM outgoing) WHERE holder IS NULL LIMIT 1",
    "UPDATE proofs SET source = 'nothing' WHERE holder IS NULL LIMIT 1",
    "UPDATE proofs SET unit = 'msat' WHERE holder IS NULL LIMIT 1",
    "UPDATE outgoing SET state = 'issuing' WHERE state = 'issued' LIMIT 1",
    "UPDATE outgoing SET account = 'nobody' WHERE state = 'issued' LIMIT 1",
    "UPDATE exchanges SET state = 'recorded' WHERE state = 'done' LIMIT 1",
    "UPDATE exchanges SET state = 'lost' WHERE state = 'done' LIMIT 1",
];

const TABLES: [&str; 8] = [
    "accounts",
    "reservations",
    "deposits",
    "withdrawals",
    "redemptions",
    "proofs",
    "outgoing",
    "exchanges",
];
const KEYED_BY_COUNTER: [&str; 1] = ["proofs"];

const SEED: u64 = 20_260_101;
const ROUNDS: u32 = 12;
const CLIENTS: u32 = 24;
const CHEAP: &str = "cheap";
