//! An invoice, then its payment, then a deposit: Lightning becomes balance once, however often
//! the mint is asked and whoever asks.
//!
//! ```text
//! wallet: recorded → offered → paid      ledger: opened (with its terms)
//! wallet: redeemed                       ledger: deposit        wallet: credited
//! ```
//!
//! An invoice is looked at when its holder asks for it and by the keeper, as flights of the
//! deposit that it is to become. The account is opened only when the mint has the payment, so
//! that invoices that nobody pays leave nothing in the ledger.

use std::time::Duration;

use super::flights::{Boarding, Flight};
use super::keeper::Matter;
use super::terms::{kept, restored};
use super::{Landed, RedeemRefused, Till};
use crate::clock::UnixMs;
use crate::ids::{AccountId, ApiKey, DepositId, InvoiceId};
use crate::ledger::terms::Terms;
use crate::ledger::{Ledger, Opening};
use crate::money::Msat;
use crate::wallet::{self, Looked, PaidQuote, Progress, Purpose, QuoteAsk, QuoteRefused};

/// What an invoice is asked for.
#[derive(Clone, Debug)]
pub struct InvoiceAsk {
    pub amount: Msat,
    pub goes: Goes,
    /// `None`: the first accepted mint that gives an invoice.
    pub mint: Option<String>,
}

/// Where the payment of an invoice goes.
#[derive(Clone, Debug)]
pub enum Goes {
    /// To the account of the invoice's own key, which it opens under these terms.
    ToItsOwnKey(Terms),
    ToAccount(AccountId),
}

/// An invoice, for who asked for it. Whoever has the id is shown the key.
#[derive(Clone, Debug)]
pub struct Invoice {
    pub id: InvoiceId,
    pub bolt11: String,
    /// The invoice's own, in hex.
    pub payment_hash: String,
    pub expires: UnixMs,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvoiceRefused {
    #[error("the mint is not accepted")]
    MintNotAccepted,
    #[error("no mint gives an invoice")]
    NoInvoice,
    #[error("too many invoices wait for their payment")]
    TooMany,
    #[error("nothing could be written down")]
    Unavailable,
}

/// How an invoice stands, for its holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvoiceStatus {
    pub state: InvoiceState,
    /// The key that it opens; usable once it is paid. `None` for a top-up.
    pub key: Option<ApiKey>,
    pub amount: Msat,
    pub created: UnixMs,
    pub expires: UnixMs,
    pub paid: Option<UnixMs>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvoiceState {
    Pending,
    /// The balance has it.
    Paid,
    /// Not paid in time. A payment that arrives all the same is credited still, for some days.
    Expired,
    /// Paid, and the mint gave the value to somebody else. The operator is told.
    Lost,
}

impl<L: Ledger> Till<L> {
    /// Gets an invoice. It is on disk before anybody can pay it.
    pub async fn invoice(&self, ask: InvoiceAsk) -> Result<Invoice, InvoiceRefused> {
        let id = InvoiceId::fresh().map_err(|error| {
            log::error!("no invoice: {error}");
            InvoiceRefused::Unavailable
        })?;
        let (purpose, account, terms) = match ask.goes {
            Goes::ToItsOwnKey(terms) => {
                (Purpose::Create, ApiKey::of_invoice(&id).account(), kept(&terms))
            }
            Goes::ToAccount(account) => (Purpose::TopUp, account, None),
        };
        let deposit = DepositId::of_invoice(&id);
        let (amount, mint) = (ask.amount, ask.mint);
        let quote = QuoteAsk { id: deposit, account, purpose, terms, amount, mint };
        let wallet = self.wallet().clone();
        let asking = async move { wallet.quote(quote).await };
        let quoted = self.wallet().handle().spawn(asking).await;
        let quoted = quoted.map_err(|_| InvoiceRefused::Unavailable)?.map_err(refused)?;
        let wallet::Quoted { bolt11, payment_hash, expires } = quoted;
        Ok(Invoice { id, bolt11, payment_hash, expires })
    }

    /// How an invoice stands; looks at the mint first, if that was not done a moment ago.
    /// `None`: there is no such invoice, or nobody has paid it and it is forgotten.
    pub async fn invoice_status(
        &self,
        invoice: &InvoiceId,
    ) -> Result<Option<InvoiceStatus>, InvoiceRefused> {
        let id = DepositId::of_invoice(invoice);
        let mut known = self.known(&id).await?;
        if matches!(&known, Some(known) if known.progress == Progress::Open) {
            self.look_now(&id).await?;
            known = self.known(&id).await?;
        }
        Ok(known.map(|known| InvoiceStatus {
            state: match known.progress {
                Progress::Credited => InvoiceState::Paid,
                Progress::Lost => InvoiceState::Lost,
                Progress::Open if known.paid.is_none() && known.expires <= UnixMs::now() => {
                    InvoiceState::Expired
                }
                Progress::Open => InvoiceState::Pending,
            },
            key: (known.purpose == Purpose::Create).then(|| ApiKey::of_invoice(invoice)),
            amount: known.amount,
            created: known.created,
            expires: known.expires,
            paid: known.paid,
        }))
    }

    async fn known(&self, id: &DepositId) -> Result<Option<wallet::Invoice>, InvoiceRefused> {
        self.wallet().invoice(id).await.map_err(|error| {
            log::error!("invoice {id}: {error}");
            InvoiceRefused::Unavailable
        })
    }

    /// One look, shared with whoever is at it already; waits a bounded time for its outcome.
    async fn look_now(&self, id: &DepositId) -> Result<(), InvoiceRefused> {
        let may = self.wallet().may_look_at_quote(id).await;
        if !may.map_err(|_| InvoiceRefused::Unavailable)? {
            return Ok(());
        }
        let waiting = match self.0.redemptions.board(id) {
            Boarding::Pilot(flight) => {
                let waiting = flight.waiting();
                self.wallet().handle().spawn(self.clone().fly_to_quote(flight, id.clone()));
                waiting
            }
            Boarding::Passenger(waiting) => waiting,
        };
        // Whatever it is, it is in the rows.
        drop(waiting.outcome(self.wallet().timeout().min(LOOK_MAX)).await);
        Ok(())
    }

    /// The keeper's look.
    pub(super) async fn look_at_quote(self, id: DepositId) -> Matter {
        match self.0.redemptions.board(&id) {
            Boarding::Pilot(flight) => self.fly_to_quote(flight, id).await,
            Boarding::Passenger(_) => Matter::Open,
        }
    }

    async fn fly_to_quote(self, flight: Flight<DepositId, Landed>, id: DepositId) -> Matter {
        flight.asked();
        let (outcome, matter) = match self.wallet().look_at_quote(&id).await {
            Looked::Paid(paid) => self.settle(&id, *paid).await,
            Looked::Redeemed(redemption) => landed(self.credit(redemption).await),
            Looked::Unpaid => (None, Matter::Open),
            Looked::Forgotten => (None, Matter::Forgotten),
            Looked::Unknown => (Some(Err(RedeemRefused::Unknown)), Matter::Open),
        };
        flight.land(outcome);
        matter
    }

    pub(super) async fn settle(&self, id: &DepositId, paid: PaidQuote) -> (Landed, Matter) {
        // Nothing is taken from the mint while it could not be credited.
        if let Err(why) = self.open_for(&paid).await {
            log::warn!("invoice {id}: paid, and not credited yet: {why}");
            self.wallet().let_go_of_quote(id).await;
            return (Some(Err(RedeemRefused::LedgerUnavailable)), Matter::Open);
        }
        match self.wallet().redeem_quote(paid).await {
            Some(redemption) => landed(self.credit(redemption).await),
            None => (Some(Err(RedeemRefused::Unknown)), Matter::Open),
        }
    }

    /// Opens the account under its terms; repeated, it keeps those it has.
    async fn open_for(&self, paid: &PaidQuote) -> Result<(), String> {
        let account = paid.account().clone();
        let answered = match paid.purpose() {
            Purpose::TopUp => self.ledger().account(account).await.map(drop),
            Purpose::Create => {
                let terms = paid.terms().map_or(Ok(Terms::default()), restored)?;
                self.ledger().open(Opening { account, terms }).await.map(drop)
            }
        };
        answered.map_err(|why| why.to_string())
    }
}

fn landed(outcome: Result<super::Redeemed, RedeemRefused>) -> (Landed, Matter) {
    let matter = if outcome.is_ok() { Matter::Completed } else { Matter::Open };
    (Some(outcome), matter)
}

fn refused(refused: QuoteRefused) -> InvoiceRefused {
    match refused {
        QuoteRefused::MintNotAccepted => InvoiceRefused::MintNotAccepted,
        QuoteRefused::NoInvoice => InvoiceRefused::NoInvoice,
        QuoteRefused::TooMany => InvoiceRefused::TooMany,
        QuoteRefused::NotRecorded => InvoiceRefused::Unavailable,
    }
}

/// How long somebody who asks for an invoice waits for the mint's word; what it says later is
/// in the next answer.
const LOOK_MAX: Duration = Duration::from_secs(3);
