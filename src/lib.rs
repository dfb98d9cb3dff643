//! nutgate: an edge gateway that sells access to AI APIs by the request.
//!
//! The library is the whole program but its command line; README.md has the map.

pub mod api;
pub mod catalogue;
pub mod clock;
pub mod config;
pub mod crash;
pub mod edge;
pub mod error;
pub mod fetch;
pub mod ids;
pub mod ledger;
pub mod money;
pub mod once;
pub mod pricing;
pub mod seal;
pub mod serve;
pub mod store;
pub mod telemetry;
pub mod till;
pub mod upstream;
pub mod wallet;
pub mod webhook;
