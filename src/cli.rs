//! The command line: `serve`, `check`, `audit`.
//!
//! Exit codes: 0 all is well; 1 the configuration has mistakes, or the audit found something;
//! 2 the command was wrong, or a file could not be read.

use std::fmt::Display;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use log::LevelFilter;
use nutgate::config::{Config, NotLoaded};

/// An edge gateway that sells access to AI APIs by the request, paid with Cashu ecash.
#[derive(Debug, Parser)]
#[command(name = "nutgate", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway until it is told to stop.
    Serve(ConfigArgument),
    /// Read a configuration and print every mistake in it, each with its line.
    Check(ConfigArgument),
    /// Prove on the data directory that no money was made or lost.
    Audit(ConfigArgument),
}

#[derive(Debug, clap::Args)]
struct ConfigArgument {
    /// The configuration file, merged over the documented default.
    #[arg(long, value_name = "PATH")]
    config: PathBuf,
}

pub(crate) fn run() -> ExitCode {
    let (act, argument): (fn(Config) -> ExitCode, _) = match Arguments::parse().command {
        Command::Serve(argument) => (serve, argument),
        Command::Check(argument) => (check, argument),
        Command::Audit(argument) => (audit, argument),
    };
    match Config::load(&argument.config) {
        Ok(config) => act(config),
        Err(NotLoaded::Mistakes(mistakes)) => {
            say(io::stderr(), mistakes);
            ExitCode::from(FOUND)
        }
        Err(unreadable) => {
            say(io::stderr(), unreadable);
            ExitCode::from(FAILED)
        }
    }
}

fn serve(config: Config) -> ExitCode {
    start_log(&config.log);
    log::info!("nutgate {}: {}", env!("CARGO_PKG_VERSION"), summary(&config));
    match nutgate::serve::serve(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            say(io::stderr(), format_args!("nutgate cannot start: {problem}"));
            ExitCode::from(FAILED)
        }
    }
}

fn check(config: Config) -> ExitCode {
    say(io::stdout(), format_args!("ok: {}", summary(&config)));
    ExitCode::SUCCESS
}

fn audit(config: Config) -> ExitCode {
    let report = match nutgate::serve::audit(&config) {
        Ok(report) => report,
        Err(error) => {
            say(io::stderr(), error);
            return ExitCode::from(FAILED);
        }
    };
    for finding in &report.findings {
        say(io::stderr(), finding);
    }
    let verdict = if report.findings.is_empty() { "balanced" } else { "NOT balanced" };
    say(
        io::stdout(),
        format_args!(
            "{verdict}: {} accounts, deposited {}, owed {}, held {}",
            report.accounts, report.deposited, report.owed, report.held
        ),
    );
    if report.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FOUND) }
}

fn summary(config: &Config) -> String {
    let count = |count: usize, what: &str| match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    };
    format!(
        "{}, {}, {}",
        count(config.models.len(), "model"),
        count(config.upstreams.len(), "upstream"),
        count(config.mints.len(), "mint"),
    )
}

/// Our own lines at `level`; those of libraries at warn or below, because they cannot know which
/// of the bytes that they handle are secret.
fn start_log(level: &str) {
    let level: LevelFilter = level.parse().unwrap_or(LevelFilter::Info);
    env_logger::Builder::new()
        .filter_level(level.min(LevelFilter::Warn))
        .filter_module("nutgate", level)
        .filter_module("lua_free_filters", level)
        .format_timestamp_millis()
        .init();
}

/// A reader that has gone, as in `nutgate check | head -1`, is no failure of ours.
fn say(mut to: impl Write, text: impl Display) {
    drop(writeln!(to, "{text}"));
}

const FOUND: u8 = 1;
const FAILED: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
