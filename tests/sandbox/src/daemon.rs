//! Servers of somebody else's as child processes: killed, paused and started again at will, and
//! gone for certain when they are dropped.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Gid, Pid, Uid};
use tokio::time::{sleep, timeout};

use crate::Result;

/// Who a server runs as, where that is not whoever runs the tests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Account {
    pub(crate) user: Uid,
    pub(crate) group: Gid,
}

/// One program with its arguments, which runs or does not.
pub(crate) struct Daemon {
    program: PathBuf,
    arguments: Vec<OsString>,
    account: Option<Account>,
    home: PathBuf,
    child: Option<Child>,
    starts: u32,
}

impl Daemon {
    /// Runs in `home`, where its log goes too.
    pub(crate) fn new(program: impl Into<PathBuf>, home: &Path) -> Self {
        Self {
            program: program.into(),
            arguments: Vec::new(),
            account: None,
            home: home.to_owned(),
            child: None,
            starts: 0,
        }
    }

    pub(crate) fn arguments<A: Into<OsString>>(
        mut self,
        arguments: impl IntoIterator<Item = A>,
    ) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    pub(crate) fn account(mut self, account: Option<Account>) -> Self {
        self.account = account;
        self
    }

    /// Starts the program, killing it first if it runs, and waits until it `is_ready`.
    pub(crate) async fn start(&mut self, is_ready: impl AsyncFn(&Self) -> bool) -> Result<()> {
        self.kill().await?;
        self.starts += 1;
        let log = File::create(self.log_path(self.starts))?;
        let mut command = command(&self.program, self.account, &self.home);
        command.args(&self.arguments).stdout(log.try_clone()?).stderr(log);
        let name = self.program.display().to_string();
        self.child = Some(command.spawn().map_err(|error| format!("{name}: {error}"))?);
        let ready = async {
            while !is_ready(self).await {
                if let Some(status) = self.ended()? {
                    return Err(format!("{name} ended with {status}").into());
                }
                sleep(LOOK_AGAIN).await;
            }
            Ok(())
        };
        let ready = match timeout(PATIENCE, ready).await {
            Ok(ready) => ready,
            Err(_) => Err(format!("{name} is not ready").into()),
        };
        ready.map_err(|error: crate::Error| format!("{error}\n{}", self.log()).into())
    }

    /// SIGKILL. Returns when the process is no more; does nothing to one that does not run.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        self.end(Signal::SIGKILL).await
    }

    /// SIGTERM: it may tidy up first.
    pub(crate) async fn stop(&mut self) -> Result<()> {
        self.end(Signal::SIGTERM).await
    }

    async fn end(&mut self, how: Signal) -> Result<()> {
        if self.child.is_some() {
            self.signal(how)?;
            until("a server ends", async || matches!(self.ended(), Ok(Some(_)))).await?;
            self.child = None;
        }
        Ok(())
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.pid().ok_or("the server does not run")?;
        Ok(kill(pid, signal)?)
    }

    pub(crate) fn pid(&self) -> Option<Pid> {
        let id = self.child.as_ref()?.id();
        i32::try_from(id).ok().map(Pid::from_raw)
    }

    fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.as_mut().map_or(Ok(None), Child::try_wait)
    }

    /// Everything it has written to stdout and stderr, over all its starts.
    pub(crate) fn log(&self) -> String {
        let read = |start| std::fs::read_to_string(self.log_path(start)).unwrap_or_default();
        (1..=self.starts).map(read).collect()
    }

    fn log_path(&self, start: u32) -> PathBuf {
        self.home.join(format!("start-{start}.log"))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Both fail only for a process that has gone already.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// A command that runs in `home` as `account`, and hears nothing.
pub(crate) fn command(program: &Path, account: Option<Account>, home: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(home).stdin(Stdio::null());
    if let Some(Account { user, group }) = account {
        command.uid(user.as_raw()).gid(group.as_raw());
    }
    command
}

/// Looks again and again, since these servers tell nobody when something has become so.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) -> Result<()> {
    let look = async {
        while !is_so().await {
            sleep(LOOK_AGAIN).await;
        }
    };
    timeout(PATIENCE, look).await.map_err(|_| format!("waited for ever: {what}").into())
}

const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// Far above what anything takes on a busy machine, and below the minute after which a test is
/// called slow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
