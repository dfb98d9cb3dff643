//! From a configuration to a running gateway.
//!
//! The order is the promise: what a dead process left is completed or undone before the first
//! request is accepted. One machine keeps ledger and wallet in its data directory; a fleet
//! shares a Redis and a PostgreSQL, and a gateway of it keeps nothing but what it could not
//! deliver to them yet.

use std::path::PathBuf;
use std::sync::Arc;

use crate::catalogue::{Catalogue, Shelf};
use crate::clock::{Clock, Stopwatch};
use crate::config::{Config, Fleet};
use crate::edge;
use crate::ledger::embedded::{self, Embedded};
use crate::ledger::redis::Redis;
use crate::ledger::spool::Spool;
use crate::ledger::{Ledger, Retention, audit, reaper, redis};
use crate::store::Db;
use crate::telemetry::{Counted, Finding, Metrics, audit_every};
use crate::till::Till;
use crate::upstream::Upstreams;
use crate::wallet::Wallet;
use crate::webhook::Webhooks;

/// Opens ledger and wallet, recovers, and listens until a signal says otherwise.
///
/// # Errors
/// What keeps the gateway from starting, in words for the operator.
pub fn serve(config: Config) -> Result<(), String> {
    let started = Stopwatch::start();
    let config = Arc::new(config);
    let upstreams = Upstreams::new(&config.upstreams)?;
    std::fs::create_dir_all(&config.data_dir)
        .map_err(|error| format!("{}: {error}", config.data_dir.display()))?;
    let metrics = Metrics::default();
    // Asks its sources while the books are recovered.
    let catalogue = Catalogue::open(&config, &upstreams, &metrics)?;
    let parts = Parts { config, catalogue, upstreams, metrics, started };
    match parts.config.fleet.clone() {
        None => parts.one_machine(),
        Some(fleet) => parts.fleet(&fleet),
    }
}

/// What does not depend on where the ledger is.
struct Parts {
    config: Arc<Config>,
    catalogue: Catalogue,
    upstreams: Upstreams,
    metrics: Metrics,
    started: Stopwatch,
}

impl Parts {
    fn one_machine(self) -> Result<(), String> {
        let (till, webhooks) = block_on(async {
            let store = embedded::open_store(&database(&self.config));
            let store = store.map_err(|error| error.0)?;
            let ledger = Embedded::new(store.clone(), Clock::System);
            let ledger = ledger.keeping(self.config.history);
            let expired = ledger.expire_all().await.map_err(|error| error.to_string())?;
            log::info!("recovery: {} reservations ended", expired.len());
            let counted = Counted::new(ledger.clone(), self.metrics.clone());
            let till = self.till(counted.clone(), store.into()).await?;
            let webhooks = self.webhooks(&counted, &till).await?;
            till.wallet().handle().spawn(ledger.forget_for_ever());
            Ok((till, webhooks))
        })?;
        self.listen(till, webhooks, None)
    }

    fn fleet(self, fleet: &Fleet) -> Result<(), String> {
        let (till, webhooks, spool) = block_on(async {
            let redis = ledger_of(fleet, self.config.history)?;
            let ledger = Counted::new(redis.clone(), self.metrics.clone());
            let spool = Spool::open(&self.config.data_dir.join(SPOOL), ledger.clone()).await;
            let spool = spool.map_err(|error| error.0)?;
            redis.handle().spawn(spool.clone().run());
            let till = self.till(ledger.clone(), wallet_of(fleet)?).await?;
            let webhooks = self.webhooks(&ledger, &till).await?;
            Ok((till, webhooks, spool))
        })?;
        self.listen(till, webhooks, Some(spool))
    }

    async fn till<L: Ledger>(&self, ledger: L, db: Db) -> Result<Till<L>, String> {
        let config = &*self.config;
        let Config { seed_file, mints, foreign_mints, mint_timeout, reservation, .. } = config;
        let wallet = Wallet::open_with(db, seed_file, mints, foreign_mints, *mint_timeout)
            .await
            .map_err(|error| error.to_string())?;
        let (lifetime, every) = (reservation.lifetime, reservation.renew_every);
        wallet.handle().spawn(reaper::run(ledger.clone(), lifetime, every));
        wallet.prefetch();
        let till = Till::sweeping(ledger, wallet, config.sweep_after);
        let recovery = till.recover().await;
        log::info!("recovery: {recovery:?}");
        Ok(till)
    }

    async fn webhooks<L: Ledger>(
        &self,
        ledger: &Counted<L>,
        till: &Till<Counted<L>>,
    ) -> Result<Webhooks<Counted<L>>, String> {
        let (news, config) = (ledger.news().clone(), self.config.webhooks.clone());
        let enabled = config.enabled;
        let wallet = till.wallet();
        let webhooks =
            Webhooks::open(ledger.clone(), news, wallet, config, self.metrics.clone()).await?;
        if enabled {
            webhooks.run(wallet.handle());
        }
        Ok(webhooks)
    }

    fn listen<L: Ledger>(
        self,
        till: Till<L>,
        webhooks: Webhooks<L>,
        spool: Option<Spool<L>>,
    ) -> Result<(), String> {
        let Self { config, catalogue, upstreams, metrics, started } = self;
        // On a fresh machine there was nothing to audit before.
        if let Some(every) = config.audit_every {
            let audited = config.clone();
            audit_every(every, metrics.clone(), move || finding(&audited))?;
        }
        let prices: Shelf = catalogue.settled();
        log::info!("recovered and ready to listen after {} ms", started.elapsed().as_millis());
        let parts =
            edge::serve::Parts { config, prices, upstreams, till, webhooks, spool, metrics };
        edge::serve::serve(parts)
    }
}

/// Audits what this configuration names, whether a gateway is running on it or not.
///
/// # Errors
/// It cannot be read, which is not the same as a finding.
pub fn audit(config: &Config) -> Result<audit::Report, String> {
    let Some(fleet) = &config.fleet else {
        let database = database(config);
        return audit::run(&database).map_err(|error| format!("{}: {error}", database.display()));
    };
    block_on(async {
        let ledger = ledger_of(fleet, config.history)?;
        redis::audit::run(&ledger, &wallet_of(fleet)?).await.map_err(|error| error.to_string())
    })
}

/// What an audit made beside the traffic tells the metrics.
fn finding(config: &Config) -> Result<Finding, String> {
    let report = audit(config)?;
    let drift = report.owed.saturating_sub(report.held);
    Ok(Finding { drift, contradictions: report.findings })
}

fn ledger_of(fleet: &Fleet, retention: Retention) -> Result<Redis, String> {
    Redis::keeping(fleet.redis.reveal(), fleet.ledger_timeout, retention)
        .map_err(|why| format!("fleet.redis: {why}"))
}

fn wallet_of(fleet: &Fleet) -> Result<Db, String> {
    Db::postgres(fleet.postgres.reveal()).map_err(|why| format!("fleet.postgres: {why}"))
}

/// The one database of a data directory.
fn database(config: &Config) -> PathBuf {
    config.data_dir.join("nutgate.db")
}

fn block_on<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| error.to_string())?.block_on(work)
}

/// In the data directory of a gateway whose ledger is another server.
const SPOOL: &str = "spool.db";
