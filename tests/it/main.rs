//! The gateway as its clients meet it: the real binary between a real mint and a scripted
//! upstream. One module per promise; what they share is in [`support`].

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where it stopped")]

mod affordable;
mod answers;
mod api_balance;
mod audit;
mod boundary;
mod capture;
mod catalogue;
mod challenge;
mod chaos;
mod child_keys;
mod concurrency;
mod crash;
mod ecash_forms;
mod endings;
mod failover;
mod feed;
mod fleet;
mod fleet_audit;
mod foreign;
mod framing;
mod guard;
mod gzip;
mod history;
mod http2;
mod idempotency;
mod idempotency_calls;
mod lightning;
mod lightning_refund;
mod limits;
mod live;
mod long_stream;
mod metering;
mod origins;
mod outage;
mod pacing;
mod policies;
mod public_http2;
mod public_tls;
mod rate_limits;
mod receipts;
mod recovery;
mod repetition;
mod rolling;
mod routes;
mod secrets;
mod support;
mod sweep;
mod telemetry;
mod terms;
mod tls;
mod unsold;
mod upstreams;
mod webhooks;
