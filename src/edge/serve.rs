//! Starting the gateway: store, ledger, wallet, recovery, and only then the listeners.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use pingora::apps::http_app::ServeHttp;
use pingora::protocols::http::ServerSession;
use pingora::server::configuration::ServerConf;
use pingora::server::{ExecutionPhase, Server};
use pingora::services::background::background_service;
use pingora::services::listening::Service;

use super::Edge;
use super::certificates::Certificates;
use super::context::OpenCount;
use super::guard::Guard;
use super::listener::Public;
use super::peers::Peers;
use super::probe::Probes;
use crate::api::{self, ApiState};
use crate::catalogue::Shelf;
use crate::clock::Stopwatch;
use crate::config::{Config, LightningRefunds};
use crate::fetch::Fetch;
use crate::ledger::Ledger;
use crate::ledger::spool::Spool;
use crate::telemetry::Metrics;
use crate::till::{FeeMax, PayOut, Payees, Till};
use crate::upstream::Upstreams;
use crate::webhook::Webhooks;

/// What `serve` runs on; everything in it has been recovered already.
pub struct Parts<L: Ledger> {
    pub config: Arc<Config>,
    pub prices: Shelf,
    pub upstreams: Upstreams,
    pub till: Till<L>,
    pub webhooks: Webhooks<L>,
    /// Open already, so that what waits in it is alive. [`Spool::run`] is the caller's to spawn.
    pub spool: Option<Spool<L>>,
    pub metrics: Metrics,
}

/// Listens until a signal says otherwise. SIGTERM stops listening and ends the process when the
/// last open request has ended, at the latest after `listen.drain_max`.
///
/// # Errors
/// What keeps it from starting, in words for the operator.
pub fn serve<L: Ledger>(parts: Parts<L>) -> Result<(), String> {
    let Parts { config, prices, upstreams, till, webhooks, spool, metrics } = parts;
    metrics.watch(till.ledger(), spool.as_ref());
    metrics.watch_upstreams(&upstreams);
    let state = ApiState {
        config: config.clone(),
        prices: prices.clone(),
        till: till.clone(),
        webhooks,
        pay_out: pay_out(config.lightning.refunds)?,
    };
    let open = Arc::new(OpenCount::default());
    let mut server = Server::new_with_opt_and_conf(None, server_conf(&config));
    server.bootstrap();
    let peers = Arc::new(Peers::new(&upstreams)?);
    let probes = Probes::new(upstreams.clone(), peers.clone());
    let edge = Edge {
        peers,
        connector: pingora::connectors::http::Connector::new(None),
        api: api::router(state),
        guard: Guard::new(&config.guard),
        open: open.clone(),
        config: config.clone(),
        prices,
        upstreams,
        till: till.clone(),
        spool,
        metrics: metrics.clone(),
    };
    let connections = Arc::new(OpenCount::default());
    let h2c = config.listen.h2c;
    let public = Public::new(edge, &server.configuration, h2c, connections.clone());
    let mut public = Service::new("public".to_owned(), public);
    let address = config.listen.address.to_string();
    match config.listen.tls.as_ref().map(Certificates::open).transpose()? {
        None => public.add_tcp(&address),
        Some(certificates) => {
            public.add_tls_with_settings(&address, None, certificates.settings()?);
            let shown = certificates.clone();
            metrics.watch_certificate(move || shown.expires_s());
            server.add_service(background_service("certificates", certificates));
        }
    }
    let admin = Admin(api::admin_router(&config, metrics, till));
    let mut admin = Service::new("admin".to_owned(), admin);
    admin.threads = Some(1);
    admin.add_tcp(&config.admin_address.to_string());
    server.add_service(public);
    server.add_service(admin);
    server.add_service(background_service("probes", probes));
    exit_when_drained(&server, open, connections, config.listen.drain_max);
    log::info!("listening on {}, admin on {}", config.listen.address, config.admin_address);
    server.run_forever();
}

/// Who pays Lightning addresses, where that is offered.
fn pay_out(refunds: Option<LightningRefunds>) -> Result<Option<Arc<PayOut>>, String> {
    let Some(refunds) = refunds else { return Ok(None) };
    let payees = Payees::new(Fetch::new(None)?, refunds.private_hosts);
    let fee_max = FeeMax { sats: refunds.fee_sats_max, percent: refunds.fee_percent_max };
    Ok(Some(Arc::new(PayOut { payees, fee_max })))
}

fn server_conf(config: &Config) -> ServerConf {
    ServerConf {
        threads: config.listen.threads,
        grace_period_seconds: Some(config.listen.drain_max.as_secs()),
        graceful_shutdown_timeout_seconds: Some(1),
        upstream_keepalive_pool_size: UPSTREAM_CONNECTIONS_POOLED_MAX,
        ..ServerConf::default()
    }
}

/// Pingora sleeps its whole grace period on SIGTERM. This ends the process as soon as nothing
/// is open any more. On HTTP/2 the end of an answer is still with its connection then, which says
/// goodbye when it has been sent; that is waited for no longer than [`GOODBYE_MAX`].
fn exit_when_drained(
    server: &Server,
    open: Arc<OpenCount>,
    connections: Arc<OpenCount>,
    drain_max: Duration,
) {
    let mut phases = server.watch_execution_phase();
    let wait = move || {
        while let Ok(phase) = phases.blocking_recv() {
            if !matches!(phase, ExecutionPhase::ShutdownGracePeriod) {
                continue;
            }
            let draining = Stopwatch::start();
            let drained = open.wait_for_none(drain_max);
            let said_goodbye = connections.wait_for_none(GOODBYE_MAX);
            let took_ms = draining.elapsed().as_millis();
            log::info!("drained: {drained}, goodbyes said: {said_goodbye}, after {took_ms} ms");
            exit();
        }
    };
    if let Err(error) = thread::Builder::new().name("drain".to_owned()).spawn(wait) {
        log::error!("draining will take the whole grace period: {error}");
    }
}

/// Every open request has recorded its end by now: its context lives until it has.
#[expect(clippy::exit, reason = "Pingora sleeps on after the last request, and nothing is left")]
fn exit() -> ! {
    std::process::exit(0)
}

/// The admin listener: the same router technique, on its own port.
struct Admin(axum::Router);

#[async_trait]
impl ServeHttp for Admin {
    async fn response(&self, session: &mut ServerSession) -> http::Response<Vec<u8>> {
        let head = session.req_header();
        let mut request = http::Request::new(Bytes::new());
        request.method_mut().clone_from(&head.method);
        request.uri_mut().clone_from(&head.uri);
        request.headers_mut().clone_from(&head.headers);
        api::answer(&self.0, request).await.map(|body| body.to_vec())
    }
}

/// A connection that takes longer to close has a client that does not answer.
const GOODBYE_MAX: Duration = Duration::from_secs(5);

/// Idle upstream connections kept for reuse, in all.
const UPSTREAM_CONNECTIONS_POOLED_MAX: usize = 1024;
