//! Everything nutgate needs around it, on loopback and for real: a Cashu mint with a fake
//! Lightning backend, a faucet that hands out fresh ecash of that mint, and a scripted
//! OpenAI-compatible upstream whose misbehaviours have names.
//!
//! The integration tests use this crate as a library, `make demo` runs its binary. Servers run
//! on the current tokio runtime. Stopping or dropping one closes its listener **and** its
//! connections, so that a client sees what it would see if the machine had gone.
//!
//! What a fleet shares, [`Redis`] and [`Postgres`], are the real programs as child processes.

mod daemon;
pub mod demo;
pub mod faucet;
mod listening;
pub mod mint;
mod network;
pub mod payee;
pub mod payments;
pub mod postgres;
pub mod redis;
pub mod upstream;

#[cfg(test)]
mod ecash_tests;

pub use cdk::nuts::{CurrencyUnit, PaymentRequest};

pub use faucet::{Faucet, TokenFormat};
pub use mint::{Mint, MintOptions};
pub use network::{Network, Transit};
pub use payee::Payee;
pub use payments::Payments;
pub use postgres::{Postgres, PostgresOptions};
pub use redis::{AppendOnly, Redis, RedisCluster, RedisOptions, RedisSentinel};
pub use upstream::{Misbehaviour, Seen, Upstream, UpstreamOptions};

/// The sandbox has no caller that could react to one failure differently from another.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
pub type Result<T, E = Error> = std::result::Result<T, E>;
