//! A real PostgreSQL server on a private port.
//!
//! `initdb` and `postgres` are taken from the path or from where Debian puts them. PostgreSQL
//! refuses to run as root, so for root it runs as nobody.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Gid, Pid, Uid, geteuid};
use tempfile::TempDir;
use tokio::process::Command;

use crate::Result;
use crate::daemon::{Account, Daemon, command, until};
use crate::listening::Port;

#[derive(Clone, Copy, Debug)]
pub struct PostgresOptions {
    /// Whether a commit that was acknowledged survives the machine as well as the process.
    pub fsync: bool,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self { fsync: true }
    }
}

/// One server with a data directory of its own. Dropping it kills it.
pub struct Postgres {
    daemon: Daemon,
    port: Port,
    programs: Programs,
    data: PathBuf,
    databases: AtomicU32,
    _directory: TempDir,
}

impl Postgres {
    pub async fn start(options: PostgresOptions) -> Result<Self> {
        let programs = Programs::find()?;
        let directory = tempfile::tempdir()?;
        programs.give(directory.path())?;
        let data = directory.path().join("data");
        let template = programs.template().await?;
        programs.run("cp", ["-a".as_ref(), template.as_os_str(), data.as_os_str()]).await?;
        // Held for as long as the server lives: it can bind the number too, a stranger cannot.
        let port = Port::take(0)?;
        let daemon = Daemon::new(programs.path("postgres"), directory.path())
            .account(programs.account)
            .arguments([OsString::from("-D"), data.clone().into()])
            .arguments(["-p", &port.number().to_string()])
            .arguments(["-c", if options.fsync { "fsync=on" } else { "fsync=off" }])
            // After a crash one call instead of thousands: every file of the copy is new.
            .arguments(["-c", "recovery_init_sync_method=syncfs"])
            .arguments(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]);
        let databases = AtomicU32::new(0);
        let mut postgres = Self { daemon, port, programs, data, databases, _directory: directory };
        postgres.restart().await?;
        Ok(postgres)
    }

    /// The database that every server has.
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The URL of a fresh, empty database.
    pub async fn database(&self) -> Result<String> {
        let name = format!("db{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let url = self.url();
        self.programs
            .run(&self.programs.path("createdb"), ["--maintenance-db", &url, &name])
            .await?;
        Ok(self.url_of(&name))
    }

    /// What psql answers to a statement: a line for each row, its columns between bars.
    pub async fn sql(&self, url: &str, statement: &str) -> Result<String> {
        let arguments = ["-qAtX", "-v", "ON_ERROR_STOP=1", "-d", url, "-c", statement];
        self.programs.run(&self.programs.path("psql"), arguments).await
    }

    /// SIGKILL to the server and to everything that serves its connections.
    pub async fn kill(&mut self) -> Result<()> {
        let children = self.kill_children()?;
        self.daemon.kill().await?;
        // As long as one is there, the next server finds their memory in use and ends.
        until("its children end", async || !children.iter().any(|child| runs(child))).await
    }

    /// Starts it again with the same port and data, killing it first if it runs. Returns when it
    /// has recovered and takes connections.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill().await?;
        let data = self.data.clone();
        let ready = async |daemon: &Daemon| says_ready(&data, daemon.pid()).unwrap_or(false);
        self.daemon.start(ready).await
    }

    /// What it has written to stdout and stderr, over all its starts.
    pub fn log(&self) -> String {
        self.daemon.log()
    }

    /// Their numbers; what each has not done by then it will not do.
    fn kill_children(&self) -> Result<Vec<String>> {
        let Some(pid) = self.daemon.pid() else { return Ok(Vec::new()) };
        // Stopped, it starts no more of them.
        self.daemon.signal(Signal::SIGSTOP)?;
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        let children: Vec<String> = children.split_whitespace().map(str::to_owned).collect();
        for child in children.iter().filter_map(|child| child.parse().ok()) {
            // It may have ended by itself.
            kill(Pid::from_raw(child), Signal::SIGKILL).ok();
        }
        Ok(children)
    }

    fn url_of(&self, database: &str) -> String {
        format!("postgresql://{USER}@127.0.0.1:{}/{database}", self.port())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // They would see that it is gone, but not before their directory is.
        drop(self.kill_children());
    }
}

/// Whether a process is there and not only its name, which waits for somebody to ask for it.
fn runs(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with(['Z', 'X']))
}

/// The server says in its lock file how far it has come, as pg_ctl knows too.
fn says_ready(data: &Path, pid: Option<Pid>) -> Option<bool> {
    let lock = fs::read_to_string(data.join("postmaster.pid")).ok()?;
    let lines: Vec<&str> = lock.lines().collect();
    // A lock left by one that was killed says "ready" too, under another number.
    let ours = *lines.first()? == pid?.to_string();
    Some(ours && lines.get(STATUS_LINE)?.trim() == "ready")
}

/// PostgreSQL's programs, and who may run them.
struct Programs {
    folder: PathBuf,
    account: Option<Account>,
}

impl Programs {
    fn find() -> Result<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let debian = fs::read_dir(DEBIAN).into_iter().flatten().flatten();
        let mut debian: Vec<PathBuf> = debian.map(|version| version.path()).collect();
        // By the major version, which names the folder.
        debian.sort_by_key(|path| path.file_name()?.to_str()?.parse::<u32>().ok());
        let folder = std::env::split_paths(&path)
            .chain(debian.iter().rev().map(|version| version.join("bin")))
            .find(|folder| PROGRAMS.iter().all(|program| folder.join(program).is_file()))
            .ok_or("PostgreSQL is not installed")?;
        let account = geteuid().is_root().then_some(NOBODY);
        Ok(Self { folder, account })
    }

    fn path(&self, program: &str) -> PathBuf {
        self.folder.join(program)
    }

    /// Lets the account own a directory that root made.
    fn give(&self, directory: &Path) -> Result<()> {
        if let Some(Account { user, group }) = self.account {
            chown(directory, Some(user.as_raw()), Some(group.as_raw()))?;
        }
        Ok(())
    }

    /// Runs a program to its end and returns what it said.
    async fn run(
        &self,
        program: impl AsRef<Path>,
        arguments: impl IntoIterator<Item: AsRef<OsStr>>,
    ) -> Result<String> {
        let program = program.as_ref();
        let mut command = Command::from(command(program, self.account, &std::env::temp_dir()));
        command.args(arguments).kill_on_drop(true);
        let output = command.output().await?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!("{}: {}\n{said}", program.display(), output.status).into())
    }

    /// A data directory to copy: making one takes the better part of a second, and every test is
    /// a process of its own. It is made once for each account and version, and kept.
    async fn template(&self) -> Result<PathBuf> {
        let user = self.account.map_or(geteuid(), |account| account.user);
        // "postgres (PostgreSQL) 15.10 (Debian …)"
        let version = self.run(self.path("postgres"), ["--version"]).await?;
        let version = version.split_whitespace().nth(2).unwrap_or_default();
        let kept = std::env::temp_dir().join(format!("nutgate-postgres-{version}-{user}"));
        if !kept.exists() {
            let fresh = tempfile::tempdir()?;
            self.give(fresh.path())?;
            let data = fresh.path().join("data");
            let flags = ["--no-sync", "-A", "trust", "-U", USER, "-E", "UTF8", "--locale=C", "-D"];
            let arguments = flags.iter().map(OsStr::new).chain([data.as_os_str()]);
            self.run(self.path("initdb"), arguments).await?;
            // Whole or not at all. Of several who make it at once one is first, which is enough.
            if fs::rename(&data, &kept).is_err() && !kept.exists() {
                return Err(format!("cannot make {}", kept.display()).into());
            }
        }
        if fs::metadata(&kept)?.uid() != user.as_raw() {
            return Err(format!("{} is somebody else's", kept.display()).into());
        }
        Ok(kept)
    }
}

const USER: &str = "nutgate";
const DEBIAN: &str = "/usr/lib/postgresql";
/// One folder has them all, or it is not taken: versions do not mix.
const PROGRAMS: &[&str] = &["initdb", "postgres", "createdb", "psql"];
/// Who has no rights, on every system.
const NOBODY: Account = Account { user: Uid::from_raw(65_534), group: Gid::from_raw(65_534) };
/// Of the lock file, counted from 0.
const STATUS_LINE: usize = 7;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_database_is_fresh_and_survives_sigkill() -> Result<()> {
        let mut postgres = Postgres::start(PostgresOptions::default()).await?;
        let (one, other) = (postgres.database().await?, postgres.database().await?);
        postgres.sql(&one, "CREATE TABLE t AS SELECT 7 AS n").await?;
        assert!(postgres.sql(&other, "SELECT n FROM t").await.is_err(), "databases are apart");
        assert_eq!(postgres.sql(&one, "SHOW fsync").await?, "on");

        postgres.kill().await?;
        assert!(postgres.sql(&one, "SELECT 1").await.is_err(), "nobody answers for the dead");
        postgres.restart().await?;
        assert_eq!(postgres.sql(&one, "SELECT n FROM t").await?, "7");
        Ok(())
    }

    #[tokio::test]
    async fn a_server_that_runs_is_restarted_too() -> Result<()> {
        let mut postgres = Postgres::start(PostgresOptions { fsync: false }).await?;
        let url = postgres.database().await?;
        assert_eq!(postgres.sql(&url, "SHOW fsync").await?, "off");
        postgres.restart().await?;
        assert_eq!(postgres.sql(&url, "SELECT 1").await?, "1");
        Ok(())
    }
}
