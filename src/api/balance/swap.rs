//! What an answer says of ecash that came from a foreign mint over Lightning.

use schemars::JsonSchema;
use serde::Serialize;

use crate::api::ApiState;
use crate::ledger::Ledger;
use crate::money::Msat;
use crate::till::Swapped;

/// What the ecash was worth, what that cost, and what is left over at the foreign mint: ecash of
/// that mint, which is the client's. Both are missing while the foreign mint does not say; the
/// same request finds them.
#[derive(Serialize, JsonSchema)]
pub(super) struct Swap {
    mint: String,
    value_msats: Msat,
    fees_msats: Option<Msat>,
    change: Option<String>,
}

/// Nothing for ecash of an accepted mint. The value is credited whatever fails here.
pub(super) async fn swap_of<L: Ledger>(api: &ApiState<L>, cashu_token: &str) -> Option<Swap> {
    let Swapped { mint, value, fees, change } = api.till.swapped(cashu_token).await?;
    let change = change.map(|change| change.reveal().to_owned());
    Some(Swap { mint, value_msats: value, fees_msats: fees, change })
}
