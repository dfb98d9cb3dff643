//! What every test stands on: a mint, a faucet, an upstream and the gateway, started together,
//! and the client's side of them.
//!
//! Amounts are `u64` msat here: tests compute what is owed by their own arithmetic, not by the
//! gateway's.

mod answer;
mod asks;
mod books;
mod deaths;
mod dice;
mod fleet;
mod gateway;
mod kinds;
mod order;
mod price;
mod purse;
mod rates;
mod raw;
mod receiver;
mod rows;
mod secure;
mod source;
mod used;
mod world;

pub(crate) use answer::{Answer, Events};
pub(crate) use books::Later;
pub(crate) use deaths::{CRASH_AT, assert_killed, start_to_die_at};
pub(crate) use dice::Dice;
pub(crate) use fleet::{Fleet, Servers, is_full_chaos};
pub(crate) use gateway::{Gateway, Memory};
pub(crate) use kinds::{Ask, Kind, Sold};
pub(crate) use order::{Pay, chat, model_of, streamed, with};
pub(crate) use price::{PRICE, Price, length, prompt_tokens};
pub(crate) use purse::{PURSE_SATS, Purse, Way};
pub(crate) use rates::{ImageRate, Rates, priced, tariff};
pub(crate) use raw::{Head, Raw};
pub(crate) use receiver::{Delivered, Receiver};
pub(crate) use rows::ReservationRow;
pub(crate) use secure::{Http2, Site, Whole, ask_http1, asking, replace, shown};
pub(crate) use source::Source;
pub(crate) use used::{
    CONTEXT, Given, IMAGE_TOKENS, Used, WEB_SEARCHES_MAX, given_streamed, given_whole,
};
pub(crate) use world::{Balance, Key, MODEL_OUTPUT_TOKENS, Setting, World, model, upstream};

pub(crate) use nutgate_sandbox::{CurrencyUnit, Misbehaviour, TokenFormat};
pub(crate) use serde_json::{Value, json};

use std::future::Future;
use std::time::Duration;

/// Waits for something that must happen, and says what did not.
pub(crate) async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work)
        .await
        .unwrap_or_else(|_| panic!("not within {} s: {what}", PATIENCE.as_secs()))
}

/// Longer than anything here takes on a busy machine; only a failing test waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at a state that no event announces.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(2);
