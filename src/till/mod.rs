//! The till: where ecash becomes balance and balance becomes ecash again.
//!
//! It puts the ledger and the wallet in order so that no crash between them loses or makes
//! money: value that reached us is credited under an id that a repetition finds again, value
//! that leaves is booked before it leaves.
//!
//! What must finish runs on the wallet's runtime, as a flight (`flights.rs`): callers for the
//! same token or account board the same one, wait a bounded time, and may leave. What a dead
//! process left, or a mint that was away, is finished by `keeper.rs`.
//!
//! ```text
//! redeem   wallet: recorded → redeemed      ledger: opened, deposit wallet: credited
//! invoice  wallet: offered → paid           ledger: opened, then as redeem (lightning.rs)
//! foreign  wallet: invoice paid by the foreign mint, then as invoice (foreign.rs)
//! refund   ledger: withdrawal begun         wallet: issued         ledger: committed
//! sweep    ledger: reserved, then settled   wallet: swept          (sweep.rs)
//! pay out  ledger: withdrawal begun         wallet: paid           (payment.rs)
//! ```
//!
//! In a fleet the next request may meet another gateway, at any arrow. The wallet decides who
//! goes on (`lease.rs` there); the ledger's verbs are the same whoever repeats them.
//!
//! Every arrow is idempotent by an id made before the first of them: a crash between two is
//! repaired by doing the rest again.

mod address;
#[cfg(test)]
mod fleet_tests;
mod flights;
mod foreign;
mod keeper;
mod lightning;
#[cfg(test)]
mod lightning_tests;
mod payment;
#[cfg(test)]
mod payment_tests;
mod redeem;
mod refund;
#[cfg(test)]
mod refund_tests;
#[cfg(test)]
mod support;
mod sweep;
#[cfg(test)]
mod sweep_tests;
mod terms;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use self::flights::Flights;
use crate::clock::UnixMs;
use crate::ids::{AccountId, DepositId, WithdrawalId};
use crate::ledger::Ledger;
use crate::money::Msat;
use crate::wallet::Wallet;

pub use self::address::{LightningAddress, NoInvoice, Payees};
pub use self::lightning::{Goes, Invoice, InvoiceAsk, InvoiceRefused, InvoiceState, InvoiceStatus};
pub use self::payment::{FeeMax, PaidOut, PayAsk, PayOut, PayRefused};
pub use crate::wallet::{CashuToken, RedeemRefused, Swapped};

/// A token that has become balance, now or earlier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redeemed {
    pub account: AccountId,
    /// What was credited: the token's value less the mint's fee.
    pub amount: Msat,
    /// False when this very token had been redeemed before.
    pub fresh: bool,
}

/// What is asked back: an exact amount, or with `None` everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RefundAsk {
    pub amount: Option<Msat>,
    /// Which mint's ecash; `None` is the one the account was last paid with.
    pub mint: Option<String>,
    /// The withdrawal that this is, however often it is asked for; `None` is the account's next.
    pub once: Option<WithdrawalId>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refunded {
    pub id: WithdrawalId,
    pub cashu_token: CashuToken,
    pub amount: Msat,
    pub mint: String,
    pub unit: String,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefundRefused {
    #[error("unknown account")]
    NoAccount,
    #[error("a child key has no balance of its own")]
    Child,
    #[error("No balance to refund")]
    NothingToRefund,
    /// What was left to be claimed became the gateway's own.
    #[error("swept at {} s", at.whole_seconds())]
    Swept { at: UnixMs },
    #[error("less than one unit of the mint is available")]
    TooSmall { available: Msat },
    #[error("{} msat are available", available.get())]
    Insufficient { available: Msat },
    #[error("{open} ongoing requests")]
    InProgress { open: u64 },
    #[error("the mint is not accepted")]
    MintNotAccepted,
    /// The mint that was asked for; another may have it.
    #[error("the wallet has too little at this mint")]
    MintHasTooLittle,
    /// Booked; the ecash cannot be composed without the mint, which does not answer.
    #[error("the refund is pending")]
    Pending,
    #[error("the ledger cannot be reached")]
    LedgerUnavailable,
}

/// What recovery did, for the log and for `nutgate serve`'s first lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    pub redemptions_completed: u64,
    pub redemptions_forgotten: u64,
    pub redemptions_unknown: u64,
    pub withdrawals_completed: u64,
    pub withdrawals_pending: u64,
    pub invoices_completed: u64,
}

/// The ledger and the wallet, in order. Cheap to clone.
pub struct Till<L: Ledger>(Arc<Inner<L>>);

struct Inner<L> {
    ledger: L,
    wallet: Wallet,
    redemptions: Flights<DepositId, Landed>,
    refunds: Flights<AccountId, RefundFlown>,
    kept: AtomicBool,
    /// How long change is left to be claimed; `None`: for ever.
    sweep_after: Option<Duration>,
}

/// How a flight that takes value out of an account ended, and what it was asked for.
#[derive(Clone)]
enum RefundFlown {
    Ecash(RefundAsk, Result<Refunded, RefundRefused>),
    Lightning(PayAsk, Result<PaidOut, PayRefused>),
    /// The keeper's: it was asked for nothing new.
    Kept,
}

/// How a redemption's flight ended; nothing when it decided nothing and the passengers are to
/// start their own.
type Landed = Option<Result<Redeemed, RedeemRefused>>;

impl<L: Ledger> Till<L> {
    /// Puts the two in order. Call [`Till::recover`] before anything else uses them.
    pub fn open(ledger: L, wallet: Wallet) -> Self {
        Self::sweeping(ledger, wallet, None)
    }

    /// The same, which keeps what nobody has claimed for so long, unless that is `None`.
    pub fn sweeping(ledger: L, wallet: Wallet, sweep_after: Option<Duration>) -> Self {
        Self(Arc::new(Inner {
            ledger,
            wallet,
            redemptions: Flights::default(),
            refunds: Flights::default(),
            kept: AtomicBool::new(false),
            sweep_after,
        }))
    }

    pub fn ledger(&self) -> &L {
        &self.0.ledger
    }

    pub fn wallet(&self) -> &Wallet {
        &self.0.wallet
    }

    /// Returns when no redemption and no refund is under way: what a process that is told to
    /// end waits for, within a bound of its own. Nothing is lost if it does not.
    pub async fn idle(&self) {
        self.0.redemptions.all_landed().await;
        self.0.refunds.all_landed().await;
    }
}

impl<L: Ledger> Clone for Till<L> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<L: Ledger> fmt::Debug for Till<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Till")
    }
}
