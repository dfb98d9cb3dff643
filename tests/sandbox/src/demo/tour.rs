//! What the demo prints once everything runs: commands that work when pasted in their order.

use std::io::{self, Write};

use super::Plan;

/// One line `ready`, a `CashuToken`, and a tour of the gateway in curl.
pub(super) fn print(plan: &Plan, cashu: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text(plan, cashu).as_bytes())?;
    out.flush()
}

fn text(plan: &Plan, cashu: &str) -> String {
    let at = |port: u16| format!("http://127.0.0.1:{port}");
    include_str!("tour.txt")
        .replace("@faucet", &format!("{}/faucet", at(plan.upstream_port)))
        .replace("@gateway", &at(plan.gateway_port))
        .replace("@admin", &at(plan.admin_port))
        .replace("@cashu", cashu)
}
