//! The gateway as its clients meet it: the real binary between a real mint and a scripted
//! upstream. One module per promise; what they share is in [`support`].

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where it stopped")]

mod answers;
mod api_balance;
mod audit;
mod catalogue;
mod challenge;
mod chaos;
mod child_keys;
mod concurrency;
mod crash;
mod endings;
mod feed;
mod fleet;
mod fleet_audit;
mod framing;
mod history;
mod http2;
mod lightning;
mod limits;
mod metering;
mod outage;
mod rate_limits;
mod recovery;
mod rolling;
mod secrets;
mod support;
mod telemetry;
mod tls;
mod upstreams;
