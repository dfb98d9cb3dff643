//! From a configuration to a running gateway.
//!
//! The order is the promise: what a dead process left is completed or undone before the first
//! request is accepted.

use std::sync::Arc;

use crate::clock::{Clock, Stopwatch};
use crate::config::Config;
use crate::edge;
use crate::ledger::embedded::Embedded;
use crate::ledger::{audit, reaper};
use crate::pricing::PriceList;
use crate::store::Store;
use crate::telemetry::{Counted, Finding, Metrics, audit_every};
use crate::till::Till;
use crate::upstream::Upstreams;
use crate::wallet::Wallet;

/// Opens the data directory, recovers, and listens until a signal says otherwise.
///
/// # Errors
/// What keeps the gateway from starting, in words for the operator.
pub fn serve(config: Config) -> Result<(), String> {
    let started = Stopwatch::start();
    let config = Arc::new(config);
    let prices = PriceList::new(&config).map_err(|problems| {
        problems
            .into_iter()
            .map(|(path, problem)| format!("{path}: {problem}\n"))
            .collect::<String>()
    })?;
    let upstreams = Upstreams::new(&config.upstreams)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let metrics = Metrics::default();
    let till = runtime.block_on(open(&config, &metrics))?;
    drop(runtime);
    if let Some(every) = config.audit_every {
        let database = config.data_dir.join(DATABASE);
        audit_every(every, metrics.clone(), move || match audit::run(&database) {
            Ok(report) => Ok(Finding {
                drift: report.owed.saturating_sub(report.held),
                contradictions: report.findings,
            }),
            Err(error) => Err(error.0),
        })?;
    }
    log::info!("recovered and ready to listen after {} ms", started.elapsed().as_millis());
    let parts = edge::serve::Parts {
        config,
        prices: Arc::new(prices),
        upstreams,
        till,
        // This ledger is on the same disk as a spool would be.
        spool: None,
        metrics,
    };
    edge::serve::serve(parts)
}

async fn open(config: &Config, metrics: &Metrics) -> Result<Till<Counted<Embedded>>, String> {
    let database = config.data_dir.join(DATABASE);
    std::fs::create_dir_all(&config.data_dir)
        .map_err(|error| format!("{}: {error}", config.data_dir.display()))?;
    let store = Store::open(&database, &audit::schema()).map_err(|error| error.0)?;
    let ledger = Embedded::new(store.clone(), Clock::System);
    let expired = ledger.expire_all().await.map_err(|error| error.to_string())?;
    let ledger = Counted::new(ledger, metrics.clone());
    let wallet = Wallet::open(&config.data_dir, store, &config.mints, config.mint_timeout)
        .await
        .map_err(|error| error.to_string())?;
    let reservation = &config.reservation;
    let (lifetime, every) = (reservation.lifetime, reservation.renew_every);
    wallet.handle().spawn(reaper::run(ledger.clone(), lifetime, every));
    wallet.prefetch();
    let till = Till::open(ledger, wallet);
    let recovery = till.recover().await;
    log::info!("recovery: {} reservations ended, {recovery:?}", expired.len());
    Ok(till)
}

/// The one database of a data directory.
pub const DATABASE: &str = "nutgate.db";
