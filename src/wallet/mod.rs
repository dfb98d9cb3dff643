//! The wallet: value as proofs of ours at mints that configuration names. The only module
//! that names cdk, and of cdk only the protocol: parsing, blinding, the mint's calls.
//!
//! * `redeem`: somebody's token becomes proofs of ours, once (states and outcomes in
//!   `redeem.rs`).
//! * `issue`: proofs of ours become a token, without the mint wherever the pool can
//!   compose the amount (`issue.rs`, `split.rs`), else after an exchange (`exchange.rs`).
//! * `foreign`: what a mint that is not accepted pays one that is, for somebody's token
//!   (`foreign.rs`).
//! * `quote`: what a mint was paid over Lightning becomes proofs of ours (`quote.rs`).
//! * `pay`: proofs of ours pay an invoice, through their mint (`payment.rs`).
//!
//! Promises: every request that could take or give value is on disk, with the counters its
//! secrets derive from, before a mint sees it, so that its fate can always be found out
//! (`attempt.rs`). No secret is at rest but the seed file; tokens shown to us are never
//! written. A mint that configuration does not name is never connected to. No lock is held
//! across a call to a mint, and requests for different tokens never wait for each other.
//!
//! Mints are called on the wallet's own runtime, never on the proxy's threads; what must not
//! be cancelled runs there to its end while its callers bound their waiting.

mod attempt;
mod audit;
mod binding;
mod challenge;
mod claim;
mod exchange;
mod exchange_rows;
mod foreign;
mod foreign_rows;
mod incoming;
mod issue;
mod lease;
mod melt_mint;
mod mint;
mod payment;
mod payment_melting;
mod payment_rows;
mod quote;
mod quote_mint;
mod quote_rows;
mod quote_settling;
mod redeem;
mod rows;
mod schema;
mod seed;
mod split;
#[cfg(test)]
pub(crate) mod tests;
mod unclaimed;
mod upkeep;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cdk::nuts::Id;
use tokio::runtime::{Handle, Runtime};

use self::exchange::Exchanging;
use self::foreign::ForeignMints;
use self::mint::Mint;
use self::rows::{RedemptionRow, State, take_counters};
use self::seed::Seed;
use crate::config;
use crate::ids::{AccountId, DepositId};
use crate::money::Msat;
use crate::store::{Db, Durability, StoreError, Tx};

pub use self::audit::{Audit, CameIn, WentOut, audit_rows, came_in_after, went_out_after};
pub use self::challenge::payment_request;
pub use self::foreign::Swapped;
pub use self::incoming::{TOKEN_BYTES_MAX, TOKEN_PROOFS_MAX};
pub(crate) use self::issue::Issue;
pub use self::mint::Unit;
pub(crate) use self::payment::{Paid, Payment, PlanRefused};
pub(crate) use self::payment_rows::{PaymentPlan, PaymentState};
pub(crate) use self::quote::{
    Invoice, Looked, PaidQuote, Progress, Purpose, QuoteAsk, QuoteRefused, Quoted,
};
pub(crate) use self::redeem::Resolved;
pub use self::schema::SCHEMA;
pub(crate) use self::unclaimed::Unclaimed;

/// Ecash as text: a bearer secret. Nothing prints it.
#[derive(Clone, PartialEq, Eq)]
pub struct CashuToken(String);

impl CashuToken {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for CashuToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CashuToken(redacted)")
    }
}

/// Why a token did not become balance.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedeemRefused {
    #[error("not a Cashu token: {0}")]
    Invalid(String),
    #[error("the token is worth nothing")]
    ZeroValue,
    #[error("the mint is not accepted")]
    MintNotAccepted,
    #[error("the unit is not accepted")]
    UnitNotAccepted,
    #[error("worth {} msat, {} msat are needed", value.get(), required.get())]
    TooSmall { required: Msat, value: Msat },
    #[error("already spent")]
    AlreadySpent,
    #[error("the mint's fees exceed the amount")]
    FeesExceedAmount,
    /// What it costs to have another mint's token paid out over Lightning.
    #[error("{} msat of fees on {} msat, {} msat at most", fees.get(), value.get(), fees_max.get())]
    SwapTooDear { value: Msat, fees: Msat, fees_max: Msat },
    #[error("the mint cannot be reached")]
    MintUnreachable,
    #[error("the mint limits our requests")]
    MintRateLimited,
    /// The mint refused the swap for a reason of its own.
    #[error("the mint refused: {0}")]
    Failed(String),
    /// The mint was asked and did not answer in time: the token may be ours or still the
    /// client's. Repeating the request, or the claim endpoint, finds out.
    #[error("the outcome of the redemption is not known yet")]
    Unknown,
    /// Redeemed, and not credited yet (recovery will); or nothing could be written down or
    /// credited, and the mint was not asked.
    #[error("the ledger cannot be reached")]
    LedgerUnavailable,
}

impl RedeemRefused {
    /// True when the token certainly still is the client's, so that it may be echoed.
    pub fn is_untouched(&self) -> bool {
        !matches!(self, Self::AlreadySpent | Self::Unknown | Self::LedgerUnavailable)
    }
}

/// The wallet could not do its part. Nothing secret is in the text.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WalletError {
    #[error("the seed: {0}")]
    Seed(String),
    #[error("configuration: {0}")]
    Config(String),
    #[error("{0}")]
    Crypto(String),
    #[error("{0}")]
    Store(#[from] StoreError),
}

/// Whom a token's value is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Payee {
    pub(crate) account: AccountId,
    /// The till's words, for an account that this value opens: given back until it is credited.
    pub(crate) terms: Option<String>,
}

impl From<AccountId> for Payee {
    fn from(account: AccountId) -> Self {
        Self { account, terms: None }
    }
}

/// A token that became proofs of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Redemption {
    pub(crate) id: DepositId,
    pub(crate) account: AccountId,
    pub(crate) terms: Option<String>,
    pub(crate) amount: Msat,
    pub(crate) credited: bool,
    /// Became ours by this very call.
    pub(crate) fresh: bool,
}

impl Redemption {
    fn of(row: &RedemptionRow) -> Self {
        Self {
            id: row.id.clone(),
            account: row.account.clone(),
            terms: row.terms.clone(),
            amount: row.amount,
            credited: row.state == State::Credited,
            fresh: false,
        }
    }
}

/// An accepted mint, for discovery and payment requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptedMint {
    pub url: String,
    pub units: Vec<Unit>,
}

/// What the pool holds of one mint and unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    pub mint: String,
    pub unit: String,
    pub amount: Msat,
}

/// A handle; cheap to clone. The runtime ends with the last one.
#[derive(Clone)]
pub struct Wallet(Arc<Inner>);

struct Inner {
    db: Db,
    /// This process, as `owner` of what it is at.
    gateway: String,
    seed: Seed,
    mints: Vec<Arc<Mint>>,
    foreign: ForeignMints,
    timeout: Duration,
    exchanging: Exchanging,
    runtime: Option<Runtime>,
}

impl Wallet {
    /// Opens the wallet in this database, and creates its tables there if need be. Connects to
    /// no mint. Refuses a seed that is not the one this database belongs to.
    pub async fn open(
        db: Db,
        seed_file: &Path,
        mints: &[config::Mint],
        timeout: Duration,
    ) -> Result<Self, WalletError> {
        let foreign = config::ForeignMints::default();
        Self::open_with(db, seed_file, mints, &foreign, timeout).await
    }

    /// The same, with mints whose ecash is paid in over Lightning.
    pub async fn open_with(
        db: Db,
        seed_file: &Path,
        mints: &[config::Mint],
        foreign: &config::ForeignMints,
        timeout: Duration,
    ) -> Result<Self, WalletError> {
        let mints: Result<Vec<_>, _> =
            mints.iter().map(|mint| Mint::new(mint, timeout).map(Arc::new)).collect();
        let mints = mints?;
        let foreign = ForeignMints::new(foreign, timeout)?;
        let create = |tx: &mut Tx<'_>| tx.create(SCHEMA).and_then(|()| claim::create(tx));
        db.write(Durability::Process, create).await?;
        let seed = binding::bound(&db, seed_file).await?;
        let gateway = uuid::Uuid::now_v7().to_string();
        lease::enter(&db, &gateway).await?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .thread_name("wallet")
            .enable_all()
            .build()
            .map_err(|error| WalletError::Config(error.to_string()))?;
        let (exchanging, runtime) = (Exchanging::default(), Some(runtime));
        let inner = Inner { db, gateway, seed, mints, foreign, timeout, exchanging, runtime };
        let wallet = Self(Arc::new(inner));
        wallet.keep_lease();
        Ok(wallet)
    }

    /// The accepted mints, in configuration's order.
    pub fn accepted(&self) -> Vec<AcceptedMint> {
        let accepted = |mint: &Arc<Mint>| AcceptedMint {
            url: mint.url.to_string(),
            units: mint.units.clone(),
        };
        self.0.mints.iter().map(accepted).collect()
    }

    /// What the pool can pay refunds from.
    pub async fn holdings(&self) -> Result<Vec<Holding>, WalletError> {
        let pool = self.db().write(Durability::Process, rows::pool).await?;
        let mut holdings: Vec<Holding> = pool
            .into_iter()
            .filter_map(|((mint, unit), count)| {
                let amount = Unit::named(&unit)?.msat(count)?;
                Some(Holding { mint, unit, amount })
            })
            .collect();
        holdings.sort_by(|a, b| (&a.mint, &a.unit).cmp(&(&b.mint, &b.unit)));
        Ok(holdings)
    }

    /// Asks every mint for its keysets in the background, so that the first token does not
    /// wait for them. A mint that is down is asked again when a token names it.
    pub fn prefetch(&self) {
        for mint in self.0.mints.clone() {
            self.handle().spawn(async move {
                for unit in mint.units.clone() {
                    if let Err(error) = mint.active(&unit).await {
                        log::warn!("mint {}: no keyset of unit {}: {error:?}", mint.url, unit.name);
                    }
                }
            });
        }
    }

    /// Whether the database does anything at all.
    pub async fn ask_store(&self) -> Result<(), WalletError> {
        let ask = |tx: &mut Tx<'_>| tx.row("SELECT 1", &[]).map(drop);
        Ok(self.db().write(Durability::Process, ask).await?)
    }

    /// How long callers wait for a mint's answer.
    pub fn timeout(&self) -> Duration {
        self.0.timeout
    }

    /// The runtime on which everything runs that must not be cancelled.
    pub(crate) fn handle(&self) -> &Handle {
        let runtime = self.0.runtime.as_ref();
        runtime.expect("it is taken out only when the last handle is dropped").handle()
    }

    /// The database, for what is kept beside the ecash.
    pub(crate) fn db(&self) -> &Db {
        &self.0.db
    }

    /// The name of this process, which no other one ever has.
    pub(crate) fn gateway(&self) -> &str {
        &self.0.gateway
    }

    /// The next counters of a keyset, in a transaction of their own: they are a row that all
    /// gateways want, and so is locked for as short as can be. Who writes down what they are
    /// for forces them to disk with it.
    async fn counters(&self, keyset: Id, count: usize) -> Result<u32, StoreError> {
        let take = move |tx: &mut Tx<'_>| take_counters(tx, keyset, count);
        self.db().write(Durability::Process, take).await
    }

    /// A secret of this wallet's seed, the same in all gateways that share it, for this purpose
    /// alone.
    pub(crate) fn sealing_key(&self, purpose: &str) -> [u8; 32] {
        self.seed().sealing_key(purpose)
    }

    fn seed(&self) -> &Seed {
        &self.0.seed
    }

    fn mints(&self) -> &[Arc<Mint>] {
        &self.0.mints
    }

    fn mint_at(&self, url: &str) -> Option<Arc<Mint>> {
        self.0.mints.iter().find(|mint| mint.url.to_string() == url).cloned()
    }
}

impl fmt::Debug for Wallet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wallet")
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The last handle may be dropped on any runtime's thread, where waiting is not allowed.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// One spelling for each mint: what configuration, tokens and rows are compared by.
pub fn normalised_url(url: &str) -> Option<String> {
    mint::normalise(url).map(|url| url.to_string())
}

const WORKERS: usize = 2;
