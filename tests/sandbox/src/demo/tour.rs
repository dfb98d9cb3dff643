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
    let gateway = format!("http://127.0.0.1:{}", plan.gateway_port);
    let admin = format!("http://127.0.0.1:{}", plan.admin_port);
    let faucet = format!("http://127.0.0.1:{}/faucet", plan.upstream_port);
    let ask = format!("{gateway}/v1/chat/completions -H 'Content-Type: application/json'");
    format!(
        r#"ready

# 100 sat of fresh ecash. More: curl -s '{faucet}?amount=100&format=B'
TOKEN={cashu}

# An API key for it. Asking again with the same ecash gives the same key.
KEY=$(curl -s {gateway}/v1/balance/create -H 'Content-Type: application/json' -d "{{\"initial_balance_token\":\"$TOKEN\"}}" | sed 's/.*"api_key": *"\([^"]*\)".*/\1/'); echo "$KEY"

# A completion paid from the key, and the same as a stream.
curl -s -w '\n' {ask} -H "Authorization: Bearer $KEY" -d '{{"model":"demo","messages":[{{"role":"user","content":"Where do my sats go?"}}]}}'
curl -sN {ask} -H "Authorization: Bearer $KEY" -d '{{"model":"demo","stream":true,"messages":[{{"role":"user","content":"Where do my sats go?"}}]}}'

# A completion paid with ecash alone: the change is in the header X-Cashu.
curl -si -w '\n' {ask} -H "X-Cashu: $(curl -s '{faucet}?amount=100&format=B')" -d '{{"model":"demo","messages":[{{"role":"user","content":"And the change?"}}]}}'

# What is for sale, what the gateway is, and what is left on the key.
curl -s -w '\n' {gateway}/v1/models
curl -s -w '\n' {gateway}/v1/info
curl -s -w '\n' {gateway}/v1/balance/info -H "Authorization: Bearer $KEY"

# Everything back as ecash.
curl -s -w '\n' -X POST {gateway}/v1/balance/refund -H "Authorization: Bearer $KEY"

# Other models misbehave by name, see {gateway}/v1/models. Admin: {admin}. Ctrl-C ends all of it.
"#
    )
}
