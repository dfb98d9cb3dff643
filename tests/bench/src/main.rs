//! `make bench`: what billing costs on top of a plain Pingora proxy.
//!
//! Three processes besides this one: a scripted upstream that answers from memory, a plain
//! Pingora pass-through, and nutgate with the embedded ledger and a funded key. The two proxies
//! are driven in turns, in alternating order, by the same closed loop over keep-alive
//! connections; their CPU is read from the kernel's own accounting. Figures are ratios of one
//! run: absolute ones say more about the machine.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a table is what it is for")]
#![expect(clippy::float_arithmetic, reason = "measurements, not money")]
#![expect(clippy::disallowed_methods, reason = "it measures time, and its tasks end with it")]

mod driver;
mod plain;
mod subject;
mod upstream;

use std::process::ExitCode;

use driver::{Load, Measured};
use subject::Subject;

/// Rounds, each driving both proxies once under every load.
const ROUNDS: usize = 5;

const LOADS: [Load; 3] = [
    Load { name: "JSON, 1 connection", connections: 1, requests: 3_000, stream: false },
    Load { name: "JSON, 8 connections", connections: 8, requests: 12_000, stream: false },
    Load {
        name: "stream of 20 events, 8 connections",
        connections: 8,
        requests: 4_000,
        stream: true,
    },
];

fn main() -> ExitCode {
    let role = std::env::args().nth(1);
    match role.as_deref() {
        Some("upstream") => upstream::serve(),
        Some("plain") => plain::serve(),
        _ => match compare() {
            Ok(()) => ExitCode::SUCCESS,
            Err(problem) => {
                eprintln!("bench: {problem}");
                ExitCode::FAILURE
            }
        },
    }
}

fn compare() -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let upstream = Subject::upstream()?;
    let plain = Subject::plain(&upstream)?;
    let nutgate = runtime.block_on(Subject::nutgate(&upstream))?;
    for subject in [&upstream, &plain, &nutgate] {
        runtime.block_on(subject.ready())?;
    }
    for load in LOADS {
        let mut sides = [Vec::new(), Vec::new()];
        for round in 0..ROUNDS {
            let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
            for side in order {
                let subject = [&plain, &nutgate][side];
                sides[side].push(runtime.block_on(driver::drive(subject, load))?);
            }
        }
        print(load, &sides);
    }
    Ok(())
}

/// One table per load: median (lowest–highest) of each figure, and the ratio of the medians.
fn print(load: Load, sides: &[Vec<Measured>; 2]) {
    println!("\n{} ({ROUNDS} rounds of {} requests)", load.name, load.requests);
    println!("{:<24} {:>28} {:>28} {:>7}", "", "plain Pingora", "nutgate, embedded", "ratio");
    for (name, figure) in FIGURES {
        let [plain, nutgate] = sides.each_ref().map(|rounds| spread(rounds, figure));
        let show = |[low, median, high]: [f64; 3]| format!("{median:.1} ({low:.1}–{high:.1})");
        let ratio = nutgate[1] / plain[1];
        println!("{name:<24} {:>28} {:>28} {ratio:>7.2}", show(plain), show(nutgate));
    }
}

type Figure = fn(&Measured) -> f64;

const FIGURES: [(&str, Figure); 4] = [
    ("CPU per request, µs", |measured| measured.cpu_us),
    ("latency p50, µs", |measured| measured.p50_us),
    ("latency p99, µs", |measured| measured.p99_us),
    ("requests per second", |measured| measured.per_second),
];

/// Lowest, median, highest.
fn spread(rounds: &[Measured], figure: Figure) -> [f64; 3] {
    let mut values: Vec<f64> = rounds.iter().map(figure).collect();
    values.sort_by(f64::total_cmp);
    [values[0], values[values.len() / 2], values[values.len() - 1]]
}
