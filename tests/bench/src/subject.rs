//! A process under measurement: started, waited for, and its CPU read from the kernel.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nutgate::clock::Clock;
use nutgate::ids::{ApiKey, DepositId};
use nutgate::ledger::embedded::{self, Embedded};
use nutgate::ledger::{Deposit, Ledger};
use nutgate::money::Msat;
use tempfile::TempDir;

/// The funded key's account: any string names one.
pub(crate) const KEY: &str = "sk-00000000000000000000000000000000";

pub(crate) struct Subject {
    child: Child,
    pub(crate) address: SocketAddr,
    /// Removed with the subject.
    _dir: Option<TempDir>,
}

impl Subject {
    pub(crate) fn upstream() -> Result<Self, String> {
        let address = free_address()?;
        Self::myself(&["upstream", &address.to_string()], address)
    }

    pub(crate) fn plain(upstream: &Self) -> Result<Self, String> {
        let address = free_address()?;
        Self::myself(&["plain", &address.to_string(), &upstream.address.to_string()], address)
    }

    /// The release build beside this program, with an account no load can empty.
    pub(crate) async fn nutgate(upstream: &Self) -> Result<Self, String> {
        let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
        let (address, admin) = (free_address()?, free_address()?);
        fund(dir.path()).await?;
        let config = dir.path().join("nutgate.yaml");
        let text = format!(
            "listen: {{ address: \"{address}\", threads: 1 }}\nadmin: {{ address: \"{admin}\" }}\n\
             data_dir: {}\nlog: warn\nrate_limits: {{ requests_per_minute: 1_000_000_000, \
             tokens_per_hour: 1_000_000_000, concurrent: 1000 }}\n\
             upstreams:\n  - name: bench\n    base_url: http://{}/v1\n    \
             api_key: none\nmodels:\n  - id: bench\n    context_length: 8192\n    \
             max_output_tokens: 1024\n    upstreams: [bench]\n    \
             price: {{ currency: sat, input: 1, output: 1, request: 0 }}\n",
            dir.path().display(),
            upstream.address,
        );
        std::fs::write(&config, text).map_err(|error| error.to_string())?;
        let program = beside_me("nutgate")?;
        let mut command = Command::new(program);
        command.args(["serve", "--config"]).arg(&config);
        Self::started(command, address, Some(dir))
    }

    fn myself(arguments: &[&str], address: SocketAddr) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(program);
        command.args(arguments);
        Self::started(command, address, None)
    }

    fn started(
        mut command: Command,
        address: SocketAddr,
        dir: Option<TempDir>,
    ) -> Result<Self, String> {
        let child = command.stdin(Stdio::null()).spawn().map_err(|error| error.to_string())?;
        Ok(Self { child, address, _dir: dir })
    }

    /// Returns when the process accepts connections.
    pub(crate) async fn ready(&self) -> Result<(), String> {
        for _ in 0..500 {
            if tokio::net::TcpStream::connect(self.address).await.is_ok() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(format!("nothing listens on {}", self.address))
    }

    /// User and system time so far, in microseconds.
    pub(crate) fn cpu_us(&self) -> Result<f64, String> {
        let path = format!("/proc/{}/schedstat", self.child.id());
        let tasks = format!("/proc/{}/task", self.child.id());
        let mut nanoseconds = 0.0;
        // The process' own line counts its first thread only.
        for task in std::fs::read_dir(tasks).map_err(|error| format!("{path}: {error}"))? {
            let task = task.map_err(|error| error.to_string())?.path().join("schedstat");
            let text = std::fs::read_to_string(&task).unwrap_or_default();
            let on_cpu = text.split_whitespace().next().and_then(|field| field.parse::<f64>().ok());
            nanoseconds += on_cpu.unwrap_or(0.0);
        }
        Ok(nanoseconds / 1_000.0)
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

async fn fund(dir: &Path) -> Result<(), String> {
    let database = dir.join("nutgate.db");
    let store = embedded::open_store(&database).map_err(|error| error.to_string())?;
    let deposit = Deposit {
        id: DepositId::stored("bench"),
        account: ApiKey::presented(KEY).account(),
        amount: Msat::MAX,
    };
    Embedded::new(store, Clock::System)
        .deposit(deposit)
        .await
        .map_err(|error| error.to_string())?;
    Ok(())
}

fn beside_me(name: &str) -> Result<PathBuf, String> {
    let me = std::env::current_exe().map_err(|error| error.to_string())?;
    let program = me.with_file_name(name);
    program.exists().then_some(program).ok_or_else(|| format!("{name} is not built beside {me:?}"))
}

fn free_address() -> Result<SocketAddr, String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    listener.local_addr().map_err(|error| error.to_string())
}
