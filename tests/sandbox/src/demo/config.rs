//! The gateway's configuration for the demo: one mint, one upstream, a model per misbehaviour, and
//! one for each thing that is not sold by its text.

use super::{DEFAULT_API_KEY, Plan};
use crate::Misbehaviour;

pub(super) fn text(plan: &Plan, mint_url: &str, upstream_base_url: &str) -> String {
    let Plan { gateway_port, admin_port, slice_output_tokens, data_dir, .. } = plan;
    let reservation = slice_output_tokens
        .map(|slice| format!("reservation: {{slice_output_tokens: {slice}}}\n"))
        .unwrap_or_default();
    let mut models: String = Misbehaviour::models().map(|id| model(&id, TEXT)).collect();
    models.extend(OTHERS.map(|(id, price)| model(id, price)));
    // A path is written as JSON, which is YAML and escapes whatever a directory may be called.
    let data_dir = serde_json::Value::from(data_dir.join("nutgate").display().to_string());
    format!(
        "listen: {{address: \"127.0.0.1:{gateway_port}\"}}\n\
         admin: {{address: \"127.0.0.1:{admin_port}\"}}\n\
         data_dir: {data_dir}\n\
         {reservation}\
         mints:\n\
         - {{url: \"{mint_url}\", units: [sat]}}\n\
         upstreams:\n\
         - {{name: sandbox, base_url: \"{upstream_base_url}\", api_key: {DEFAULT_API_KEY}}}\n\
         models:\n{models}"
    )
}

fn model(id: &str, price: &str) -> String {
    format!(
        "- id: {id}\n  \
           upstreams: [sandbox]\n  \
           context_length: 128000\n  \
           max_output_tokens: 256\n  \
           price: {{currency: sat, {price}}}\n"
    )
}

/// Priced so that twenty words cost a few sats: enough to see in change given in whole sats.
const TEXT: &str = "input: 50000, output: 200000";

/// What is sold by something else than its text.
const OTHERS: [(&str, &str); 6] = [
    ("demo-embeddings", "input: 50000, output: 0"),
    ("demo-image", "input: 0, output: 0, request: 4"),
    ("demo-transcribe", "input: 0, output: 0, request: 3"),
    ("demo-speech", "input: 0, output: 0, request: 2"),
    ("demo-moderation", "input: 0, output: 0, request: 1"),
    ("demo-rerank", "input: 0, output: 0, request: 2"),
];
