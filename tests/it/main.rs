//! The gateway as its clients meet it: the real binary between a real mint and a scripted
//! upstream. One module per promise; what they share is in [`support`].

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where it stopped")]

mod affordable;
mod answers;
mod api_balance;
mod audit;
mod capture;
mod catalogue;
mod challenge;
mod chaos;
mod child_keys;
mod concurrency;
mod crash;
mod endings;
mod failover;
mod feed;
mod fleet;
mod fleet_audit;
mod framing;
mod history;
mod http2;
mod lightning;
mod lightning_refund;
mod limits;
mod long_stream;
mod metering;
mod outage;
mod pacing;
mod policies;
mod rate_limits;
mod receipts;
mod recovery;
mod rolling;
mod routes;
mod secrets;
mod support;
mod telemetry;
mod tls;
mod unsold;
mod upstreams;
