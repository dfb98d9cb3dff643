//! A real CDK mint whose Lightning payments are made up: every quote counts as paid at once, and
//! so does what it is to pay, unless a test says otherwise (`payments.rs`).
//!
//! It can be stopped and started again without forgetting anything but its cache of answers,
//! its swaps can be held up or their answers lost, its quotes be left unpaid, and its keysets
//! rotated.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::future::pending;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use cdk::mint::{MintBuilder, MintMeltLimits, UnitConfig};
use cdk::nuts::{CurrencyUnit, PaymentMethod, SecretKey};
use cdk::types::{FeeReserve, QuoteTTL};
use cdk_axum::create_mint_router;
use cdk_fake_wallet::FakeWallet;
use cdk_sqlite::MintSqliteDatabase;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::listening::{Cut, Cuttable, Port};
use crate::network::{self, Network};
use crate::payments::{Lightning, Node, Payments};
use crate::{Error, Result};

#[derive(Clone, Debug)]
pub struct MintOptions {
    /// 0 takes any free port.
    pub port: u16,
    pub units: Vec<CurrencyUnit>,
    /// Thousandths of the unit charged per proof that is swapped (NUT-02).
    pub input_fee_ppk: u64,
    /// What a Lightning payment costs, and what the mint reserves for that, in the unit.
    pub payment_fee: u64,
    pub payment_fee_reserve: u64,
    /// Where the mint's seed and database live. Without one both are in memory, which a stop and
    /// a start of the same handle survive.
    pub dir: Option<PathBuf>,
    /// What connects it to other mints. Without one every invoice of its own is paid at once.
    pub network: Option<Network>,
}

impl Default for MintOptions {
    fn default() -> Self {
        Self {
            port: 0,
            units: vec![CurrencyUnit::Sat],
            input_fee_ppk: 0,
            payment_fee: 1,
            payment_fee_reserve: 2,
            network: None,
            dir: None,
        }
    }
}

pub struct Mint {
    mint: Arc<cdk::Mint>,
    controls: Arc<Controls>,
    input_fee_ppk: u64,
    port: Port,
    serving: Option<Serving>,
}

impl Mint {
    pub async fn start(options: MintOptions) -> Result<Self> {
        let mut port = Port::take(options.port)?;
        let (database, seed) = open(options.dir.as_deref()).await?;
        let database = Arc::new(database);
        let controls = Arc::new(Controls { network: options.network, ..Controls::default() });
        let mut builder = MintBuilder::new(database.clone()).with_name("nutgate sandbox".into());
        for unit in &options.units {
            let config = UnitConfig { input_fee_ppk: options.input_fee_ppk, ..Default::default() };
            builder.configure_unit(unit.clone(), config)?;
            builder
                .add_payment_processor(
                    unit.clone(),
                    PaymentMethod::BOLT11,
                    MintMeltLimits::new(1, AMOUNT_MAX),
                    Arc::new(Lightning {
                        fake: lightning(unit.clone()),
                        node: controls.node.clone(),
                        unit: unit.clone(),
                        fee: options.payment_fee,
                        fee_reserve: options.payment_fee_reserve,
                    }),
                )
                .await?;
        }
        let mint = builder.build_with_seed(database, &seed).await?;
        mint.set_quote_ttl(QuoteTTL::new(QUOTE_TTL_SECONDS, QUOTE_TTL_SECONDS)).await?;
        mint.start().await?;

        let mint = Arc::new(mint);
        let serving = Serving::start(&mint, &controls, &mut port).await?;
        let input_fee_ppk = options.input_fee_ppk;
        Ok(Self { mint, controls, input_fee_ppk, port, serving: Some(serving) })
    }

    /// Without a trailing slash, as it stands in every `CashuToken` of this mint.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port.number())
    }

    /// Refuses connections and drops those it has. What the mint knows is kept, and swaps that it
    /// has already received are finished before this returns.
    pub async fn stop(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.end().await;
            self.controls.swaps.close();
            self.controls.swaps.wait().await;
            // Failing to keep the number shows when it is taken again, where it can be reported.
            drop(self.port.keep());
        }
    }

    /// Answers again at the same address. Answers cached before the stop are forgotten: a swap
    /// that is repeated now is refused as spent, and only NUT-09 gives its signatures back.
    pub async fn start_again(&mut self) -> Result<()> {
        if self.serving.is_none() {
            let serving = Serving::start(&self.mint, &self.controls, &mut self.port).await?;
            self.serving = Some(serving);
        }
        Ok(())
    }

    /// While on, swaps are executed but their answers wait until this is turned off.
    pub fn hold_swaps(&self, on: bool) {
        self.controls.hold.send_replace(on);
    }

    /// While on, swaps are executed and then the connection breaks instead of an answer.
    pub fn lose_swap_answers(&self, on: bool) {
        self.controls.lose.send_replace(on);
    }

    /// While on, the mint says that no quote is paid, those that were before included.
    pub fn leave_unpaid(&self, on: bool) {
        self.controls.unpaid.send_replace(on);
    }

    /// While on, the mint signs for quotes that are paid and then the connection breaks instead of
    /// an answer.
    pub fn lose_issue_answers(&self, on: bool) {
        self.controls.lose_issues.send_replace(on);
    }

    /// What becomes of what the mint is to pay from here on, and of what is pending.
    pub fn payments(&self, rule: Payments) {
        self.controls.node.rule(rule);
    }

    /// All that the mint has paid over Lightning, in msat, without fees. No invoice was ever paid
    /// twice.
    ///
    /// # Panics
    /// One was.
    pub fn paid_out(&self) -> u64 {
        self.controls.node.paid().iter().sum()
    }

    /// How many payments that were.
    pub fn paid_count(&self) -> u64 {
        self.controls.node.paid().len() as u64
    }

    /// How often a payment was tried.
    pub fn payment_count(&self) -> u64 {
        self.controls.node.asked()
    }

    /// While on, the mint pays and then the connection breaks instead of an answer.
    pub fn lose_payment_answers(&self, on: bool) {
        self.controls.lose_payments.send_replace(on);
    }

    /// How often the mint was asked to sign for a quote, and has decided whether it does.
    pub fn issue_count(&self) -> u64 {
        *self.controls.issued.borrow()
    }

    /// How many swaps the mint has decided, refused ones and those with a held or lost answer too.
    pub fn swap_count(&self) -> u64 {
        *self.controls.decided.borrow()
    }

    /// Returns when `swap_count` has reached `count`.
    pub async fn await_swaps(&self, count: u64) {
        let mut decided = self.controls.decided.subscribe();
        // The sender lives as long as `self`.
        drop(decided.wait_for(|decided| *decided >= count).await);
    }

    /// Makes a new active keyset. Proofs of the old one can still be spent, not received.
    pub async fn rotate_keyset(&self, unit: CurrencyUnit) -> Result<()> {
        let amounts = UnitConfig::default().amounts;
        self.mint.rotate_keyset(unit, amounts, self.input_fee_ppk, true, None).await?;
        Ok(())
    }
}

#[derive(Default)]
struct Controls {
    network: Option<Network>,
    hold: watch::Sender<bool>,
    lose: watch::Sender<bool>,
    decided: watch::Sender<u64>,
    unpaid: watch::Sender<bool>,
    lose_issues: watch::Sender<bool>,
    issued: watch::Sender<u64>,
    lose_payments: watch::Sender<bool>,
    node: Arc<Node>,
    /// Swaps, signing for quotes, and payments.
    swaps: TaskTracker,
}

struct Serving {
    all: CancellationToken,
    server: JoinSet<()>,
    closed: mpsc::Receiver<Infallible>,
}

impl Serving {
    async fn start(
        mint: &Arc<cdk::Mint>,
        controls: &Arc<Controls>,
        port: &mut Port,
    ) -> Result<Self> {
        let router = create_mint_router(mint.clone(), vec!["bolt11".into()])
            .await?
            .layer(from_fn_with_state(controls.clone(), meddle_with_swaps))
            .layer(from_fn_with_state(controls.clone(), meddle_with_quotes))
            .layer(from_fn_with_state(controls.network.clone(), network::meddle))
            .into_make_service_with_connect_info::<Cut>();
        let all = CancellationToken::new();
        let (listener, closed) = Cuttable::new(port.listen()?, all.clone());
        let stopped = all.clone();
        let mut server = JoinSet::new();
        server.spawn(async move {
            tokio::select! {
                () = stopped.cancelled() => {}
                served = async { axum::serve(listener, router).await } => {
                    if let Err(error) = served {
                        log::error!("the mint stopped serving: {error}");
                    }
                }
            }
        });
        Ok(Self { all, server, closed })
    }

    async fn end(mut self) {
        self.all.cancel();
        while let Some(ended) = self.server.join_next().await {
            if let Err(error) = ended {
                log::error!("the mint's server failed: {error}");
            }
        }
        // Nothing is ever sent: this waits until every connection has dropped its sender.
        while self.closed.recv().await.is_some() {}
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.all.cancel();
    }
}

async fn meddle_with_swaps(
    State(controls): State<Arc<Controls>>,
    ConnectInfo(connection): ConnectInfo<Cut>,
    request: Request,
    next: Next,
) -> Response {
    if request.method() != Method::POST || request.uri().path() != "/v1/swap" {
        return next.run(request).await;
    }
    // On its own task: cdk leaves inputs pending for ever when its handler is dropped half way,
    // and a client that dies in a test must find either nothing done or all of it.
    let swap = controls.swaps.spawn({
        let controls = controls.clone();
        async move {
            let answer = next.run(request).await;
            controls.decided.send_modify(|decided| *decided += 1);
            answer
        }
    });
    let Ok(answer) = swap.await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let mut hold = controls.hold.subscribe();
    if hold.wait_for(|hold| !hold).await.is_err() || *controls.lose.borrow() {
        connection.now();
        pending::<()>().await;
    }
    answer
}

async fn meddle_with_quotes(
    State(controls): State<Arc<Controls>>,
    ConnectInfo(connection): ConnectInfo<Cut>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path();
    if request.method() == Method::GET && path.starts_with("/v1/mint/quote/bolt11/") {
        let answer = next.run(request).await;
        return if *controls.unpaid.borrow() { unpaid(answer).await } else { answer };
    }
    let pays = path == "/v1/melt/bolt11";
    if request.method() != Method::POST || !(pays || path == "/v1/mint/bolt11") {
        return next.run(request).await;
    }
    // On its own task for the same reason as a swap.
    let issue = controls.swaps.spawn({
        let controls = controls.clone();
        async move {
            let answer = next.run(request).await;
            controls.issued.send_modify(|issued| *issued += u64::from(!pays));
            answer
        }
    });
    let Ok(answer) = issue.await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let lose = if pays { &controls.lose_payments } else { &controls.lose_issues };
    if *lose.borrow() {
        connection.now();
        pending::<()>().await;
    }
    answer
}

/// The same quote, as if nobody had paid it yet.
async fn unpaid(answer: Response) -> Response {
    let (parts, body) = answer.into_parts();
    let bytes = axum::body::to_bytes(body, QUOTE_BYTES_MAX).await.unwrap_or_default();
    let Ok(mut quote) = serde_json::from_slice::<serde_json::Value>(&bytes) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    for (field, value) in [("state", "UNPAID".into()), ("amount_paid", 0.into())] {
        if quote.get(field).is_some() {
            quote[field] = value;
        }
    }
    (parts.status, axum::Json(quote)).into_response()
}

async fn open(dir: Option<&Path>) -> Result<(MintSqliteDatabase, Vec<u8>), Error> {
    let Some(dir) = dir else {
        return Ok((cdk_sqlite::mint::memory::empty().await?, fresh_seed()));
    };
    std::fs::create_dir_all(dir)?;
    let seed_file = dir.join("mint.seed");
    if !seed_file.exists() {
        std::fs::write(&seed_file, fresh_seed())?;
    }
    let seed = std::fs::read(&seed_file)?;
    Ok((MintSqliteDatabase::new(dir.join("mint.sqlite")).await?, seed))
}

fn fresh_seed() -> Vec<u8> {
    SecretKey::generate().to_secret_bytes().to_vec()
}

fn lightning(unit: CurrencyUnit) -> FakeWallet {
    let fee = FeeReserve { min_fee_reserve: 0.into(), percent_fee_reserve: 0.0 };
    FakeWallet::new(fee, HashMap::new(), HashSet::new(), 0, unit)
}

/// More than any test mints at once, and still far from what an amount can hold.
const AMOUNT_MAX: u64 = 1 << 40;
const QUOTE_TTL_SECONDS: u64 = 3600;
const QUOTE_BYTES_MAX: usize = 64 * 1024;
