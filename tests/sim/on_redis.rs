//! The ledger of a fleet as a subject.

use std::time::Duration;

use nutgate::clock::Clock;
use nutgate::ids::AccountId;
use nutgate::ledger::redis::{Redis, Scripts};
use nutgate_sandbox::{AppendOnly, RedisOptions};

use crate::subject::{AccountRow, OpenRow, Rows, Subject};

pub(crate) struct OnRedis {
    server: nutgate_sandbox::Redis,
    reader: redis::Connection,
    rows: redis::Script,
    pub(crate) scripts: Scripts,
    deadly: bool,
    opened: Option<(Redis, Clock)>,
}

impl OnRedis {
    /// A crash is a gateway's.
    pub(crate) async fn start() -> Self {
        Self::on(AppendOnly::Off, false).await
    }

    /// A crash is the server's too: it is killed and starts again from its file.
    pub(crate) async fn start_deadly() -> Self {
        Self::on(AppendOnly::Always, true).await
    }

    async fn on(append_only: AppendOnly, deadly: bool) -> Self {
        let server = nutgate_sandbox::Redis::start(RedisOptions { append_only }).await.unwrap();
        let reader = connect(&server);
        let (rows, scripts) = (redis::Script::new(ROWS), Scripts::default());
        Self { server, reader, rows, scripts, deadly, opened: None }
    }

    fn open(&mut self, clock: &Clock) {
        let ledger = Redis::with(&self.server.url(), PATIENCE, clock.clone(), self.scripts.clone());
        self.opened = Some((ledger.unwrap(), clock.clone()));
    }
}

impl Subject for OnRedis {
    type Ledger = Redis;

    async fn fresh(&mut self, clock: &Clock) {
        redis::cmd("FLUSHALL").exec(&mut self.reader).unwrap();
        self.open(clock);
    }

    fn ledger(&self) -> &Redis {
        &self.opened.as_ref().unwrap().0
    }

    async fn crash(&mut self) {
        let (ledger, clock) = self.opened.take().unwrap();
        drop(ledger);
        if self.deadly {
            self.server.restart().await.unwrap();
            self.reader = connect(&self.server);
        } else {
            redis::cmd("SCRIPT").arg("FLUSH").exec(&mut self.reader).unwrap();
        }
        self.open(&clock);
    }

    async fn rows(&mut self, accounts: &[AccountId]) -> Result<Rows, String> {
        let mut read = self.rows.prepare_invoke();
        for account in accounts {
            read.arg(account.as_str());
        }
        let (accounts, open): (Vec<Vec<String>>, Vec<Vec<String>>) =
            read.invoke(&mut self.reader).map_err(|error| error.to_string())?;
        let accounts = accounts.iter().map(|row| account(row).ok_or(format!("account {row:?}")));
        let open = open.iter().map(|row| open_row(row).ok_or(format!("reservation {row:?}")));
        Ok(Rows {
            accounts: accounts.collect::<Result<_, _>>()?,
            open: open.collect::<Result<_, _>>()?,
        })
    }
}

fn connect(server: &nutgate_sandbox::Redis) -> redis::Connection {
    redis::Client::open(server.url()).unwrap().get_connection().unwrap()
}

/// `None`: not numbers, or not that many.
fn account(row: &[String]) -> Option<(String, AccountRow)> {
    let (id, parts) = row.split_first()?;
    let parts: Vec<i64> = parts.iter().map(|part| part.parse()).collect::<Result<_, _>>().ok()?;
    let [deposited, available, reserved, spent, refunded, shortfall, open, deposits, withdrawn] =
        parts.try_into().ok()?;
    let row = AccountRow {
        deposited,
        available,
        reserved,
        spent,
        refunded,
        shortfall,
        open,
        deposits,
        withdrawn,
    };
    Some((id.clone(), row))
}

fn open_row(row: &[String]) -> Option<OpenRow> {
    let [id, payer, key, amount, deadline_ms, accrued] = row else { return None };
    Some(OpenRow {
        id: id.clone(),
        payer: payer.clone(),
        key: key.clone(),
        amount: amount.parse().ok()?,
        deadline_ms: deadline_ms.parse().ok()?,
        accrued: accrued.parse().ok()?,
    })
}

const ROWS: &str = include_str!("rows.lua");

/// Nobody waits for it unless something is wrong.
const PATIENCE: Duration = Duration::from_secs(10);
