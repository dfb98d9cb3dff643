//! The real nutgate as a child process, which can be killed, restarted and told to end.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpSocket;
use tokio::process::{Child, Command};

use super::{LOOK_AGAIN, Raw, within};

pub(crate) struct Gateway {
    child: Option<Child>,
    directory: TempDir,
    public: KeptPort,
    admin: KeptPort,
    /// Whether clients are spoken to in TLS.
    is_secure: bool,
    env: Vec<(String, String)>,
    starts: u32,
}

/// Memory that is in use, by pages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    pub(crate) resident_kib: u64,
    /// The most that was ever resident.
    pub(crate) most_kib: u64,
}

impl Gateway {
    /// Starts it on `config`, to which the addresses and the data directory are added, and
    /// returns when it answers.
    pub(crate) async fn start(config: Value) -> Self {
        let mut gateway = Self::prepare(config);
        gateway.restart().await;
        gateway
    }

    /// Writes its configuration and takes its ports, and does not start it.
    pub(crate) fn prepare(mut config: Value) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let is_secure = config["listen"]["tls"].is_object();
        let public = KeptPort::take();
        let admin = KeptPort::take();
        config["listen"]["address"] = json!(public.address().to_string());
        config["admin"]["address"] = json!(admin.address().to_string());
        config["data_dir"] = json!(directory.path().join("data"));
        // JSON is YAML.
        std::fs::write(directory.path().join("nutgate.yaml"), config.to_string()).unwrap();
        Self { child: None, directory, public, admin, is_secure, env: Vec::new(), starts: 0 }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.public.address()
    }

    pub(crate) fn admin_address(&self) -> SocketAddr {
        self.admin.address()
    }

    pub(crate) fn url(&self) -> String {
        let scheme = if self.is_secure { "https" } else { "http" };
        format!("{scheme}://{}", self.address())
    }

    pub(crate) fn config_path(&self) -> PathBuf {
        self.directory.path().join("nutgate.yaml")
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Everything it has written to stdout and stderr, over all its starts.
    pub(crate) fn log(&self) -> String {
        (1..=self.starts)
            .map(|start| std::fs::read_to_string(self.log_path(start)).unwrap())
            .collect()
    }

    /// An environment variable for the starts that follow.
    pub(crate) fn set_env(&mut self, name: &str, value: &str) {
        self.clear_env(name);
        self.env.push((name.to_owned(), value.to_owned()));
    }

    pub(crate) fn clear_env(&mut self, name: &str) {
        self.env.retain(|(kept, _)| kept != name);
    }

    /// Starts it, killing it first if it runs. Returns when it answers.
    pub(crate) async fn restart(&mut self) {
        if let Err(status) = self.try_restart().await {
            panic!("nutgate did not start: {status}\n{}", self.log());
        }
    }

    /// The same for one that may end before it answers: the error is how it ended.
    pub(crate) async fn try_restart(&mut self) -> Result<(), ExitStatus> {
        self.spawn().await;
        let healthy = async {
            while !self.is_healthy().await {
                if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                    self.child = None;
                    return Err(status);
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            Ok(())
        };
        within("nutgate answers", healthy).await
    }

    /// Starts it, and does not wait for it to answer.
    pub(crate) async fn spawn(&mut self) {
        self.kill().await;
        self.starts += 1;
        let log = File::create(self.log_path(self.starts)).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_nutgate"))
            .args(["serve", "--config"])
            .arg(self.config_path())
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    /// SIGKILL, whatever it is doing.
    pub(crate) async fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().await.unwrap();
        }
    }

    /// The process that runs.
    pub(crate) fn id(&self) -> i32 {
        self.child.as_ref().unwrap().id().unwrap().try_into().unwrap()
    }

    /// Asks it to finish what is open and end.
    pub(crate) fn sigterm(&self) {
        kill(Pid::from_raw(self.id()), Signal::SIGTERM).unwrap();
    }

    /// What the kernel says of its memory.
    pub(crate) fn memory(&self) -> Memory {
        let id = self.id();
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
        };
        Memory { resident_kib: kib("VmRSS:"), most_kib: kib("VmHWM:") }
    }

    /// Returns when it has ended, which the test expects.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        within("nutgate ends", child.wait()).await.unwrap()
    }

    /// Runs `nutgate <command> --config …` beside it, and answers with its exit code and what it
    /// said on both of its outputs.
    pub(crate) async fn run(&self, command: &str) -> (Option<i32>, String) {
        let mut run = Command::new(env!("CARGO_BIN_EXE_nutgate"));
        run.arg(command).arg("--config").arg(self.config_path()).kill_on_drop(true);
        let output = within(command, run.output()).await.unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    }

    async fn is_healthy(&self) -> bool {
        // Neither listener waits for the other.
        if Raw::try_connect(self.admin_address()).await.is_err() {
            return false;
        }
        let Ok(mut raw) = Raw::try_connect(self.address()).await else { return false };
        if self.is_secure {
            // It listens when it is ready for requests, and this is none.
            return true;
        }
        raw.send("GET /healthz HTTP/1.1\r\nhost: nutgate\r\nconnection: close\r\n\r\n").await;
        raw.try_head().await.is_some_and(|head| head.status == 200)
    }

    fn log_path(&self, start: u32) -> PathBuf {
        self.directory.path().join(format!("log-{start}"))
    }
}

#[expect(clippy::print_stdout, reason = "a failed test shows what the gateway wrote")]
impl Drop for Gateway {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        if let (Ok(Some(status)), false) = (child.try_wait(), std::thread::panicking()) {
            panic!("nutgate died by itself: {status}\n{}", self.log());
        }
        if std::thread::panicking() && self.starts > 0 {
            println!("nutgate's log:\n{}", self.log());
        }
    }
}

/// A port that stays ours while nobody listens on it: the gateway can bind it as often as it is
/// started, and nobody else is given its number.
struct KeptPort(TcpSocket);

impl KeptPort {
    fn take() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        // With this on both sides, a socket that does not listen is in nobody's way.
        socket.set_reuseaddr(true).unwrap();
        socket.bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        Self(socket)
    }

    fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }
}
