//! The till: where ecash becomes balance and balance becomes ecash again.
//!
//! It puts the ledger and the wallet in order so that no crash between them loses or makes
//! money: value that reached us is credited under an id that a repetition finds again, value
//! that leaves is booked before it leaves.

use std::fmt;

use crate::ids::AccountId;
use crate::ledger::Ledger;
use crate::money::Msat;

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

/// A token that has become balance, now or earlier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redeemed {
    pub account: AccountId,
    /// What was credited: the token's value less the mint's fee.
    pub amount: Msat,
    /// False when this very token had been redeemed before.
    pub fresh: bool,
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
    /// Redeemed, and not credited yet; recovery will.
    #[error("the ledger cannot be reached")]
    LedgerUnavailable,
}

impl RedeemRefused {
    /// True when the token certainly still is the client's, so that it may be echoed.
    pub fn is_untouched(&self) -> bool {
        !matches!(self, Self::AlreadySpent | Self::Unknown | Self::LedgerUnavailable)
    }
}

/// What is asked back: an exact amount, or with `None` everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RefundAsk {
    pub amount: Option<Msat>,
    /// Which mint's ecash; `None` is the one the account was last paid with.
    pub mint: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refunded {
    pub cashu_token: CashuToken,
    pub amount: Msat,
    pub mint: String,
    pub unit: String,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefundRefused {
    #[error("unknown account")]
    NoAccount,
    #[error("No balance to refund")]
    NothingToRefund,
    #[error("less than one unit of the mint is available")]
    TooSmall { available: Msat },
    #[error("{} msat are available", available.get())]
    Insufficient { available: Msat },
    #[error("{open} ongoing requests")]
    InProgress { open: u64 },
    #[error("the mint is not accepted")]
    MintNotAccepted,
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
}

/// The ledger and the wallet, in order.
#[derive(Clone, Debug)]
pub struct Till<L: Ledger> {
    ledger: L,
}

impl<L: Ledger> Till<L> {
    /// Makes this token the balance of `into`, once; a repetition answers the same. Nothing is
    /// taken unless its value after fees is at least `at_least`.
    ///
    /// Runs to its end on the wallet's own runtime, also when the caller goes away.
    pub async fn redeem(
        &self,
        _cashu_token: &str,
        _into: AccountId,
        _at_least: Msat,
    ) -> Result<Redeemed, RedeemRefused> {
        Err(RedeemRefused::Unknown)
    }

    /// Gives value back as ecash. Repeated when nothing more is left, it answers the last
    /// refund again.
    pub async fn refund(
        &self,
        _account: AccountId,
        _ask: RefundAsk,
    ) -> Result<Refunded, RefundRefused> {
        Err(RefundRefused::Pending)
    }

    /// Whether a redemption of this token is under way or undecided.
    pub async fn is_redeeming(&self, _cashu_token: &str) -> bool {
        false
    }

    /// Completes or undoes what a dead process left, as far as the mints answer.
    pub async fn recover(&self) -> Recovery {
        Recovery::default()
    }

    pub fn ledger(&self) -> &L {
        &self.ledger
    }
}
