//! The gateway's configuration for the demo: one mint, one upstream, a model per misbehaviour, and
//! one for each thing that is not sold by its text.

use super::{DEFAULT_API_KEY, Plan};
use crate::Misbehaviour;

pub(super) fn text(plan: &Plan, mint_url: &str, upstream_base_url: &str) -> String {
    let Plan { gateway_port, admin_port, slice_output_tokens, data_dir, .. } = plan;
    let reservation = slice_output_tokens
        .map(|slice| format!("reservation: {{slice_output_tokens: {slice}}}\n"))
        .unwrap_or_default();
    let is_other = |id: &String| OTHERS.iter().any(|(other, ..)| id == other);
    let texts = Misbehaviour::models().filter(|id| !is_other(id));
    let mut models: String = texts.map(|id| model(&id, "null", TEXT)).collect();
    models.extend(OTHERS.map(|(id, routes, price)| model(id, routes, price)));
    // A path is written as JSON, which is YAML and escapes whatever a directory may be called.
    let data_dir = serde_json::Value::from(data_dir.join("nutgate").display().to_string());
    format!(
        "listen: {{address: \"127.0.0.1:{gateway_port}\"}}\n\
         admin: {{address: \"127.0.0.1:{admin_port}\"}}\n\
         data_dir: {data_dir}\n\
         {reservation}\
         guard: {{unpaid_per_minute: 0, unknown_keys_per_minute: 0, \
         failed_redemptions_per_minute: 0, openings_per_minute: 0}}\n\
         webhooks: {{allow_private: true}}\n\
         lightning: {{refunds: {{private_hosts: true}}}}\n\
         mints:\n\
         - {{url: \"{mint_url}\", units: [sat]}}\n\
         upstreams:\n\
         - {{name: sandbox, base_url: \"{upstream_base_url}\", api_key: {DEFAULT_API_KEY}}}\n\
         models:\n{models}"
    )
}

/// Sold on these routes; on what its price is good for where `routes` is `null`.
fn model(id: &str, routes: &str, price: &str) -> String {
    format!(
        "- id: {id}\n  \
           upstreams: [sandbox]\n  \
           routes: {routes}\n  \
           context_length: 128000\n  \
           max_output_tokens: {OUTPUT_TOKENS}\n  \
           price: {{currency: sat, {price}}}\n"
    )
}

/// An image of high quality is 400 of them.
const OUTPUT_TOKENS: u64 = 400;

/// Priced so that twenty words cost a few sats: enough to see in change given in whole sats.
const TEXT: &str = "input: 50000, output: 200000";

/// What is sold by something else than its text.
const OTHERS: [(&str, &str, &str); 8] = [
    ("demo-embeddings", "[embeddings]", "input: 50000, output: 0"),
    ("demo-image", "[images, image_edits]", "input: 0, output: 0, images: [{price: 4}]"),
    ("demo-image-usage", "[images, image_edits]", TEXT),
    ("demo-transcribe", "[transcriptions, translations]", "input: 0, output: 0, audio_second: 1"),
    ("demo-by-tokens", "[transcriptions, translations, rerank]", TEXT),
    ("demo-speech", "[speech]", "input: 0, output: 0, characters: 100000"),
    ("demo-moderation", "[moderations]", "input: 0, output: 0, request: 1"),
    ("demo-rerank", "[rerank]", "input: 0, output: 0, search_unit: 2"),
];
