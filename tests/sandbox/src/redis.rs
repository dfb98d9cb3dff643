//! Real Redis servers on private ports: one alone, a cluster, and a pair that Sentinel watches.
//!
//! They need `redis-server` and `redis-cli` in the path. A server's port stays its own while it
//! is dead, so that a test can start it again at the same address and nobody else answers there.

mod cluster;
mod sentinel;
#[cfg(test)]
mod tests;

use std::process::Stdio;

use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::timeout;

use crate::Result;
use crate::daemon::{Daemon, PATIENCE};
use crate::listening::Port;

pub use cluster::{RedisCluster, SlotMove};
pub use sentinel::RedisSentinel;

/// When the append-only file reaches the disk. Without one a killed server forgets everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AppendOnly {
    #[default]
    Always,
    Everysec,
    Off,
}

#[derive(Clone, Debug, Default)]
pub struct RedisOptions {
    pub append_only: AppendOnly,
}

/// One server with a directory of its own. Dropping it kills it.
pub struct Redis {
    daemon: Daemon,
    port: Port,
    _directory: TempDir,
}

impl Redis {
    pub async fn start(options: RedisOptions) -> Result<Self> {
        Self::start_with(&options, &[]).await
    }

    /// With further arguments of redis-server.
    async fn start_with(options: &RedisOptions, arguments: &[&str]) -> Result<Self> {
        let append_only: &[&str] = match options.append_only {
            AppendOnly::Always => &["--appendonly", "yes", "--appendfsync", "always"],
            AppendOnly::Everysec => &["--appendonly", "yes", "--appendfsync", "everysec"],
            AppendOnly::Off => &["--appendonly", "no"],
        };
        let directory = tempfile::tempdir()?;
        // Nothing but the append-only file: a snapshot would hide what it has lost.
        // A replica is synchronised at once, not after five seconds in which more might come.
        let mut all = vec!["--save", "", "--repl-diskless-sync-delay", "0"];
        all.extend(append_only);
        all.extend(arguments);
        Self::run(directory, &all).await
    }

    /// Runs redis-server on a port of its own in `directory`.
    async fn run(directory: TempDir, arguments: &[&str]) -> Result<Self> {
        // Held for as long as the server lives: it can bind the number too, a stranger cannot.
        let port = Port::take(0)?;
        let number = port.number().to_string();
        let daemon = Daemon::new("redis-server", directory.path())
            .arguments(arguments.iter().copied())
            .arguments(["--bind", "127.0.0.1", "--port", &number]);
        let mut redis = Self { daemon, port, _directory: directory };
        redis.restart().await?;
        Ok(redis)
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Host and port.
    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port())
    }

    /// Starts it again with the same port and files, killing it first if it runs. Returns when it
    /// has loaded them and answers.
    pub async fn restart(&mut self) -> Result<()> {
        let number = self.port();
        let answers =
            async |_: &Daemon| matches!(cli(number, &["PING"]).await, Ok(pong) if pong == "PONG");
        self.daemon.start(answers).await
    }

    /// SIGKILL. Returns when it is dead.
    pub async fn kill(&mut self) -> Result<()> {
        self.daemon.kill().await
    }

    /// SIGTERM. Returns when it has ended in its own way.
    pub async fn stop(&mut self) -> Result<()> {
        self.daemon.stop().await
    }

    /// SIGSTOP: its connections stay open and nobody answers.
    pub fn pause(&self) -> Result<()> {
        self.daemon.signal(Signal::SIGSTOP)
    }

    /// SIGCONT.
    pub fn resume(&self) -> Result<()> {
        self.daemon.signal(Signal::SIGCONT)
    }

    /// The answer to a command, a line for each of its elements. An error reply is an error.
    pub async fn cli(&self, arguments: &[&str]) -> Result<String> {
        cli(self.port(), arguments).await
    }

    /// What it has written to stdout and stderr, over all its starts.
    pub fn log(&self) -> String {
        self.daemon.log()
    }

    /// The value of a line `name:value` in what `INFO` and `CLUSTER INFO` answer.
    async fn field(&self, command: &[&str], name: &str) -> Option<String> {
        let info = self.cli(command).await.ok()?;
        info.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.into()))
    }

    async fn is_master(&self) -> bool {
        self.field(&["INFO", "replication"], "role").await.as_deref() == Some("master")
    }

    /// Whether it is a replica that has all its master had when it connected.
    async fn follows(&self) -> bool {
        self.field(&["INFO", "replication"], "master_link_status").await.as_deref() == Some("up")
    }
}

async fn cli(port: u16, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new("redis-cli");
    // -e: an error reply ends it with an error.
    command.args(["-e", "-h", "127.0.0.1", "-p", &port.to_string()]).args(arguments);
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let what = arguments.join(" ");
    let output = timeout(PATIENCE, output).await.map_err(|_| format!("no answer to {what}"))??;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace('\r', "").trim().to_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    Err(format!("{what}: {}{}", text(&output.stdout), text(&output.stderr)).into())
}
