//! The real gateway as a child process, which never outlives the demo.

use std::io::{self, ErrorKind};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::say;
use crate::{Error, Result};

pub(super) struct Gateway(Child);

impl Gateway {
    pub(super) fn spawn(nutgate: &Path, config: &Path) -> Result<Self> {
        let child = Command::new(nutgate)
            .args(["serve", "--config"])
            .arg(config)
            .stdin(Stdio::null())
            // Whatever it says goes to stderr: stdout is for what the reader may paste.
            .stdout(io::stderr())
            // A group of its own, or a Ctrl-C would cut it off before it is asked to finish.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("{}: {error}", nutgate.display()))?;
        Ok(Self(child))
    }

    /// Returns when the gateway has ended by itself, which in a demo is never right.
    pub(super) async fn ended(&mut self) -> Result<ExitCode> {
        let status = self.0.wait().await?;
        say(format_args!("nutgate ended: {status}"));
        Ok(exit_code(status))
    }

    /// Asks the gateway to finish what it is doing and end; insists after a while.
    pub(super) async fn end(&mut self) -> Result<ExitCode> {
        if let Some(id) = self.0.id() {
            kill(Pid::from_raw(id.try_into()?), Signal::SIGTERM)?;
        }
        match timeout(DRAIN_MAX, self.0.wait()).await {
            Ok(status) => status.map(|_| ExitCode::SUCCESS).map_err(Error::from),
            Err(_) => {
                let seconds = DRAIN_MAX.as_secs();
                say(format_args!("nutgate did not end within {seconds} s: killing it"));
                self.0.kill().await?;
                Ok(ExitCode::FAILURE)
            }
        }
    }
}

/// What `NUTGATE_BIN` names, or the `nutgate` that was built beside this program.
pub(super) fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("NUTGATE_BIN") {
        return Ok(path.into());
    }
    let path = std::env::current_exe()?.with_file_name("nutgate");
    if !path.exists() {
        let path = path.display();
        return Err(format!("{path} is not there: build it, or name it in NUTGATE_BIN").into());
    }
    Ok(path)
}

/// Returns when the gateway says that it is healthy, or after a bounded wait why it is not.
pub(super) async fn healthy(port: u16) -> Result<()> {
    let mut last = "it was not asked yet".to_owned();
    let asking = async {
        loop {
            match health(port).await {
                Ok(answer) if answer.split(' ').nth(1) == Some("200") => return,
                Ok(answer) => last = answer.lines().next().unwrap_or_default().to_owned(),
                Err(error) => last = error.to_string(),
            }
            sleep(HEALTH_POLL).await;
        }
    };
    let within = timeout(HEALTHY_WITHIN, asking).await;
    let seconds = HEALTHY_WITHIN.as_secs();
    within.map_err(|_| format!("nutgate was not healthy within {seconds} s: {last}").into())
}

async fn health(port: u16) -> io::Result<String> {
    let exchange = async {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        let request =
            format!("GET /healthz HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    };
    timeout(HEALTH_WITHIN, exchange).await.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
}

/// The child's own code; one that a signal ended has none, and failed.
fn exit_code(status: ExitStatus) -> ExitCode {
    match status.code().map(u8::try_from) {
        Some(Ok(code)) => code.into(),
        Some(Err(_)) | None => ExitCode::FAILURE,
    }
}

const HEALTHY_WITHIN: Duration = Duration::from_secs(30);
const HEALTH_WITHIN: Duration = Duration::from_secs(2);
const HEALTH_POLL: Duration = Duration::from_millis(50);
/// A demo's streams are short; whoever waits at its Ctrl-C should not have to press it again.
const DRAIN_MAX: Duration = Duration::from_secs(10);
