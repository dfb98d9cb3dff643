//! The whole of nutgate on one machine: mint, upstream and faucet of the sandbox, and the real
//! gateway as a child process. One line `ready` on stdout, then what to paste; a signal ends all.

mod config;
mod gateway;
mod tour;

use std::fmt::Display;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};

use crate::listening::Port;
use crate::upstream::DEFAULT_API_KEY;
use crate::{
    Error, Faucet, Mint, MintOptions, Payee, Result, TokenFormat, Upstream, UpstreamOptions,
};
use gateway::Gateway;

/// Runs until a signal or the gateway's own end, and answers with the gateway's exit code.
pub async fn run() -> Result<ExitCode> {
    let plan = Plan::from_env()?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let stop = async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    };
    let result = play(&plan, stop).await;
    if plan.data_dir_is_ours {
        // What is left would be ecash of a mint that no longer exists.
        drop(std::fs::remove_dir_all(&plan.data_dir));
    }
    result
}

/// For people, on stderr: stdout is for what they may paste.
pub fn say(text: impl Display) {
    // Whoever listened there may have gone, which is no reason to end otherwise.
    drop(writeln!(io::stderr(), "{text}"));
}

async fn play(plan: &Plan, stop: impl Future<Output = ()>) -> Result<ExitCode> {
    let dir = Some(plan.data_dir.join("mint"));
    let mint = MintOptions { port: plan.mint_port, dir, ..MintOptions::default() };
    let mut mint = Mint::start(mint).await?;
    let faucet = Arc::new(Faucet::new(&mint.url())?);
    let mut upstream = Upstream::start(UpstreamOptions {
        port: plan.upstream_port,
        faucet: Some(faucet.clone()),
        ..UpstreamOptions::default()
    })
    .await?;
    let _payee = Payee::at(plan.payee_port).await?;

    let config = plan.data_dir.join("nutgate.yaml");
    std::fs::write(&config, config::text(plan, &mint.url(), &upstream.base_url()))?;
    let mut gateway = Gateway::spawn(&plan.nutgate, &config)?;
    tokio::pin!(stop);
    let code = tokio::select! {
        () = &mut stop => gateway.end().await?,
        code = gateway.ended() => code?,
        ready = gateway::healthy(plan.gateway_port) => {
            if let Err(error) = ready {
                gateway.end().await?;
                return Err(error);
            }
            let cashu = faucet.cashu(100, crate::CurrencyUnit::Sat, TokenFormat::B).await?;
            tour::print(plan, &cashu)?;
            tokio::select! {
                () = &mut stop => gateway.end().await?,
                code = gateway.ended() => code?,
            }
        }
    };
    upstream.stop().await;
    mint.stop().await;
    Ok(code)
}

/// What the environment asked for, checked before anything is started.
struct Plan {
    mint_port: u16,
    upstream_port: u16,
    gateway_port: u16,
    admin_port: u16,
    /// Of a host of Lightning addresses, which `alice` has one at; any if not given.
    payee_port: u16,
    /// Streams reserve so much output at a time; the gateway's own default if not given.
    slice_output_tokens: Option<u32>,
    data_dir: PathBuf,
    data_dir_is_ours: bool,
    nutgate: PathBuf,
}

impl Plan {
    fn from_env() -> Result<Self> {
        let given = std::env::var_os("DEMO_DATA_DIR").map(PathBuf::from);
        let fresh = || std::env::temp_dir().join(format!("nutgate-demo-{}", std::process::id()));
        let plan = Self {
            mint_port: port("DEMO_MINT_PORT", 3338)?,
            upstream_port: port("DEMO_UPSTREAM_PORT", 4010)?,
            gateway_port: port("DEMO_GATEWAY_PORT", 8080)?,
            admin_port: port("DEMO_ADMIN_PORT", 9090)?,
            payee_port: port("DEMO_PAYEE_PORT", 0)?,
            slice_output_tokens: number("DEMO_SLICE_OUTPUT_TOKENS")?,
            data_dir_is_ours: given.is_none(),
            data_dir: given.unwrap_or_else(fresh),
            nutgate: gateway::binary()?,
        };
        std::fs::create_dir_all(&plan.data_dir)
            .map_err(|error| format!("DEMO_DATA_DIR {}: {error}", plan.data_dir.display()))?;
        Ok(plan)
    }
}

fn number(variable: &str) -> Result<Option<u32>> {
    let Ok(text) = std::env::var(variable) else { return Ok(None) };
    Ok(Some(text.parse().map_err(|_| format!("{variable} is no number: {text:?}"))?))
}

/// Takes the port for a moment, so that one that is in use is reported by its variable's name.
fn port(variable: &str, default: u16) -> Result<u16> {
    let number = match std::env::var(variable) {
        Ok(text) => text.parse().map_err(|_| format!("{variable} is no port: {text:?}"))?,
        Err(_) => default,
    };
    let taken = |error| -> Error {
        format!("port {number} cannot be used ({error}); choose another with {variable}=…").into()
    };
    let mut port = Port::take(number).map_err(taken)?;
    drop(port.listen().map_err(taken)?);
    Ok(port.number())
}
