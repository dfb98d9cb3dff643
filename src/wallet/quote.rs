//! Being paid over Lightning: a mint's invoice is paid, and the mint signs proofs of ours for it.
//!
//! ```text
//! recorded ──▶ offered ──▶ paid ──▶ redeemed ──▶ (a redemption, to be credited)
//!    │  the mint  │  the mint  │  the mint has signed
//!    ▼  answers   ▼  has it    ▼
//! (forgotten)             lost
//! ```
//!
//! The row is on disk before its invoice is shown to anybody. When the mint says that it is
//! paid, the outputs to be signed are on disk before the mint is asked to sign them. The commit
//! that stores the proofs makes it a redemption that is `redeemed`, of the same id, which is
//! credited, recovered and audited like every other (`quote_settling.rs`). It costs no fee.
//!
//! A quote is locked to a key of ours (NUT-20) wherever the mint can do that: then `lost` cannot
//! happen, and what is in the rows is of no use to who reads them.
//!
//! A payment may come late. Expired invoices are looked at for [`LATE_PAYMENT`] more, and are
//! forgotten when the mint says then that nobody has paid.

use std::sync::Arc;
use std::time::Duration;

use super::attempt;
use super::mint::{Mint, MintError, Unit};
use super::quote_mint::{Offer, Payment};
use super::quote_rows::{Outputs, QuoteRow, QuoteState, unanswered_until};
use super::rows::{RedemptionRow, State, damaged};
use super::{Redemption, Wallet, WalletError, split};
use crate::clock::UnixMs;
use crate::crash::{self, Step};
use crate::ids::{AccountId, DepositId};
use crate::money::Msat;
use crate::store::{Durability, StoreError, Tx, values};

pub(crate) use super::quote_rows::Purpose;

/// An invoice to be asked for.
#[derive(Clone, Debug)]
pub(crate) struct QuoteAsk {
    pub(crate) id: DepositId,
    /// Whose its payment will be.
    pub(crate) account: AccountId,
    pub(crate) purpose: Purpose,
    /// The till's words, given back when it is paid.
    pub(crate) terms: Option<String>,
    pub(crate) amount: Msat,
    /// `None`: the first accepted mint that gives one.
    pub(crate) mint: Option<String>,
}

impl QuoteAsk {
    /// As it is written down before this mint is asked.
    pub(super) fn recorded(&self, mint: &Mint, unit: &Unit) -> QuoteRow {
        let created = UnixMs::now();
        QuoteRow {
            id: self.id.clone(),
            account: self.account.clone(),
            purpose: self.purpose,
            terms: self.terms.clone(),
            mint: mint.url.to_string(),
            unit: unit.name.clone(),
            count: unit.count(self.amount),
            amount: self.amount,
            quote: None,
            locked: false,
            outputs: None,
            state: QuoteState::Recorded,
            created,
            expires: unanswered_until(created),
            paid: None,
        }
    }
}

/// An invoice, for who is to pay it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Quoted {
    pub(crate) bolt11: String,
    pub(crate) payment_hash: String,
    pub(crate) expires: UnixMs,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum QuoteRefused {
    MintNotAccepted,
    /// No mint that may be asked gave an invoice.
    NoInvoice,
    /// So many wait for their payment already.
    TooMany,
    /// The database did not answer.
    NotRecorded,
}

/// What is known of an invoice without asking anybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Invoice {
    pub(crate) purpose: Purpose,
    pub(crate) amount: Msat,
    pub(crate) progress: Progress,
    pub(crate) created: UnixMs,
    pub(crate) expires: UnixMs,
    /// When we first heard of its payment.
    pub(crate) paid: Option<UnixMs>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Not paid as far as we know, or on its way to the account.
    Open,
    /// The account has it.
    Credited,
    /// The mint gave what it was paid with to somebody else.
    Lost,
}

/// What a look at a mint found.
pub(crate) enum Looked {
    /// The mint has the payment; [`Wallet::redeem_quote`] makes it ours.
    Paid(Box<PaidQuote>),
    /// It is ours already.
    Redeemed(Redemption),
    Unpaid,
    /// There is no such invoice, or none any more.
    Forgotten,
    Unknown,
}

/// A quote that the mint says is paid, with its outputs on disk.
pub(crate) struct PaidQuote {
    pub(super) row: QuoteRow,
    pub(super) mint: Arc<Mint>,
    /// The mint was certainly not asked for these outputs yet.
    pub(super) fresh: bool,
}

impl PaidQuote {
    pub(crate) fn account(&self) -> &AccountId {
        &self.row.account
    }

    pub(crate) fn purpose(&self) -> Purpose {
        self.row.purpose
    }

    pub(crate) fn terms(&self) -> Option<&str> {
        self.row.terms.as_deref()
    }
}

/// Why a payment is not ours yet; it is tried again later.
pub(super) struct Later;

impl From<StoreError> for Later {
    fn from(error: StoreError) -> Self {
        log::warn!("invoice: {error}");
        Self
    }
}

impl From<WalletError> for Later {
    fn from(error: WalletError) -> Self {
        log::error!("invoice: {error}");
        Self
    }
}

impl Wallet {
    /// Gets an invoice for this amount from a mint. It is on disk when this returns.
    pub(crate) async fn quote(&self, ask: QuoteAsk) -> Result<Quoted, QuoteRefused> {
        let mints = match &ask.mint {
            None => self.mints().to_vec(),
            Some(url) => {
                let url = self.accepted_url(url).ok_or(QuoteRefused::MintNotAccepted)?;
                self.mint_at(&url).into_iter().collect()
            }
        };
        for mint in mints {
            let fits = |unit: &&Unit| unit.msat(unit.count(ask.amount)) == Some(ask.amount);
            let Some(unit) = mint.units.iter().find(fits) else { continue };
            if let Some(quoted) = self.quote_at(&mint, unit, &ask).await? {
                return Ok(quoted);
            }
        }
        Err(QuoteRefused::NoInvoice)
    }

    /// Nothing when this mint gives no invoice.
    async fn quote_at(
        &self,
        mint: &Mint,
        unit: &Unit,
        ask: &QuoteAsk,
    ) -> Result<Option<Quoted>, QuoteRefused> {
        let row = ask.recorded(mint, unit);
        let (id, count) = (row.id.clone(), row.count);
        let gateway = self.gateway().to_owned();
        let insert = move |tx: &mut Tx<'_>| row.insert(tx, &gateway);
        let inserted = self.db().write(Durability::Process, insert).await.map_err(unrecorded)?;
        if !inserted {
            return Err(QuoteRefused::TooMany);
        }
        crash::point(Step::QuoteRecorded);
        let key = self.seed().quote_key(&id).map_err(|error| {
            log::error!("invoice {id}: {error}");
            QuoteRefused::NoInvoice
        })?;
        match mint.offer(unit, count, key.public_key()).await {
            Ok(offer) => self.record_offer(&id, offer).await.map(Some),
            Err(error) => {
                log::warn!("mint {}: no invoice: {error:?}", mint.url);
                self.forget_quote(&id).await;
                Ok(None)
            }
        }
    }

    async fn record_offer(&self, id: &DepositId, offer: Offer) -> Result<Quoted, QuoteRefused> {
        let Offer { bolt11, payment_hash, expires, .. } = offer.clone();
        let quoted = Quoted { bolt11, payment_hash, expires };
        let (id, gateway) = (id.clone(), self.gateway().to_owned());
        let write = move |tx: &mut Tx<'_>| QuoteRow::offer(tx, &id, &offer, &gateway);
        match self.db().write(Durability::Disk, write).await.map_err(unrecorded)? {
            true => {
                crash::point(Step::QuoteOffered);
                Ok(quoted)
            }
            // Taken by another gateway that held this one for dead: nobody was shown it.
            false => Err(QuoteRefused::NoInvoice),
        }
    }

    /// What is known of an invoice. `None`: there is none of this id, or it was never shown.
    pub(crate) async fn invoice(&self, id: &DepositId) -> Result<Option<Invoice>, StoreError> {
        let id = id.clone();
        let read = move |tx: &mut Tx<'_>| {
            let Some(row) = QuoteRow::find(tx, &id)? else { return Ok(None) };
            let progress = match row.state {
                QuoteState::Recorded => return Ok(None),
                QuoteState::Offered | QuoteState::Paid => Progress::Open,
                QuoteState::Lost => Progress::Lost,
                QuoteState::Redeemed => match RedemptionRow::find(tx, &id)? {
                    Some(redemption) if redemption.state == State::Credited => Progress::Credited,
                    Some(_) => Progress::Open,
                    None => return Err(damaged("an invoice's redemption is missing")),
                },
            };
            let QuoteRow { purpose, amount, created, expires, paid, .. } = row;
            Ok(Some(Invoice { purpose, amount, progress, created, expires, paid }))
        };
        self.db().write(Durability::Process, read).await
    }

    /// Whether somebody who asks for this invoice may cause a look at its mint now: once in a
    /// while for all gateways together, however often it is asked for.
    pub(crate) async fn may_look_at_quote(&self, id: &DepositId) -> Result<bool, StoreError> {
        let id = id.clone();
        let write = move |tx: &mut Tx<'_>| {
            let now = UnixMs::now();
            let since = now.0.saturating_sub(LOOK_EVERY_MS).cast_signed();
            let sql = "UPDATE quotes SET checked_ms = ?2 WHERE id = ?1 AND checked_ms <= ?3";
            Ok(tx.execute(sql, values![id.as_str(), now.to_i64(), since])? == 1)
        };
        self.db().write(Durability::Process, write).await
    }

    /// Looks whether an invoice is paid. Of one that is, the outputs are on disk when this
    /// returns, and this gateway is its owner until [`Self::redeem_quote`] or
    /// [`Self::let_go_of_quote`].
    pub(crate) async fn look_at_quote(&self, id: &DepositId) -> Looked {
        let looked = self.looked_at_quote(id).await.unwrap_or(Looked::Unknown);
        if !matches!(looked, Looked::Paid(_)) {
            self.let_go_of_quote(id).await;
        }
        looked
    }

    async fn looked_at_quote(&self, id: &DepositId) -> Result<Looked, Later> {
        let (wanted, gateway) = (id.clone(), self.gateway().to_owned());
        let take = move |tx: &mut Tx<'_>| {
            let taken = QuoteRow::take(tx, &wanted, &gateway)?;
            let row = QuoteRow::find(tx, &wanted)?;
            let redemption = match &row {
                Some(row) if row.state == QuoteState::Redeemed => RedemptionRow::find(tx, &wanted)?,
                _ => None,
            };
            Ok((taken, row, redemption))
        };
        let (taken, row, redemption) = self.db().write(Durability::Process, take).await?;
        if let Some(redemption) = redemption {
            return Ok(Looked::Redeemed(Redemption::of(&redemption)));
        }
        let Some(row) = row else { return Ok(Looked::Forgotten) };
        if !taken {
            return Ok(Looked::Unknown);
        }
        if row.state == QuoteState::Recorded {
            return Ok(self.look_at_unanswered(&row).await);
        }
        let Some(mint) = self.mint_at(&row.mint) else { return Ok(Looked::Unknown) };
        match row.state {
            QuoteState::Paid => Ok(Looked::Paid(Box::new(PaidQuote { row, mint, fresh: false }))),
            _ => self.ask_for_payment(row, mint).await,
        }
    }

    /// Nobody was shown it, so nobody pays it.
    async fn look_at_unanswered(&self, row: &QuoteRow) -> Looked {
        if UnixMs::now() < row.expires {
            return Looked::Unknown;
        }
        self.forget_quote(&row.id).await;
        Looked::Forgotten
    }

    async fn ask_for_payment(&self, row: QuoteRow, mint: Arc<Mint>) -> Result<Looked, Later> {
        let quote = row.quote.as_deref().ok_or_else(|| damaged("quote"))?;
        let answer = mint.payment(quote, row.count).await;
        let given_up = UnixMs::now() >= row.expires.plus(LATE_PAYMENT);
        match answer {
            Ok(Payment::Paid) => self.record_payment(row, mint).await,
            Ok(Payment::Issued) => {
                self.lose_quote(&row).await?;
                Ok(Looked::Unknown)
            }
            // Also a mint that does not know it any more.
            Ok(Payment::Unpaid) | Err(MintError::Refused(_)) if given_up => {
                self.forget_quote(&row.id).await;
                Ok(Looked::Forgotten)
            }
            Ok(Payment::Unpaid) => Ok(Looked::Unpaid),
            Err(_) => Ok(Looked::Unknown),
        }
    }

    async fn record_payment(&self, mut row: QuoteRow, mint: Arc<Mint>) -> Result<Looked, Later> {
        row.outputs = Some(self.outputs_for(&row, &mint).await?);
        row.state = QuoteState::Paid;
        let row = self.write_payment(row).await?;
        crash::point(Step::QuotePaid);
        Ok(Looked::Paid(Box::new(PaidQuote { row, mint, fresh: true })))
    }

    pub(super) async fn outputs_for(&self, row: &QuoteRow, mint: &Mint) -> Result<Outputs, Later> {
        let unit = mint.units.iter().find(|unit| unit.name == row.unit).ok_or(Later)?;
        let keyset = mint.active(unit).await.map_err(|error| {
            log::warn!("invoice {}: no keyset at {}: {error:?}", row.id, row.mint);
            Later
        })?;
        let largest = attempt::largest_part(&keyset).ok_or(Later)?;
        let parts = split::complete(row.count, largest);
        let counter_start = self.counters(keyset.id, parts.len()).await?;
        Ok(Outputs { keyset: keyset.id, counter_start, parts })
    }

    pub(super) async fn write_payment(&self, row: QuoteRow) -> Result<QuoteRow, Later> {
        let gateway = self.gateway().to_owned();
        let write = move |tx: &mut Tx<'_>| Ok(row.pay(tx, &gateway)?.then_some(row));
        // Nothing: another gateway took over.
        self.db().write(Durability::Disk, write).await?.ok_or(Later)
    }

    /// The next to be asked may look again.
    pub(crate) async fn let_go_of_quote(&self, id: &DepositId) {
        let (wanted, gateway) = (id.clone(), self.gateway().to_owned());
        let write = move |tx: &mut Tx<'_>| {
            let sql = "UPDATE quotes SET owner = NULL WHERE id = ?1 AND owner = ?2";
            tx.execute(sql, values![wanted.as_str(), gateway])
        };
        if let Err(error) = self.db().write(Durability::Process, write).await {
            log::warn!("invoice {id}: not let go of: {error}");
        }
    }

    async fn forget_quote(&self, id: &DepositId) {
        let (wanted, gateway) = (id.clone(), self.gateway().to_owned());
        let write = move |tx: &mut Tx<'_>| {
            let sql = "DELETE FROM quotes
                       WHERE id = ?1 AND state IN ('recorded', 'offered') AND owner = ?2";
            let forgotten = tx.execute(sql, values![wanted.as_str(), gateway])?;
            if forgotten == 1 {
                tx.execute("DELETE FROM foreign_melts WHERE id = ?1", values![wanted.as_str()])?;
            }
            Ok(())
        };
        if let Err(error) = self.db().write(Durability::Process, write).await {
            log::warn!("invoice {id}: not forgotten: {error}");
        }
    }

    pub(super) async fn lose_quote(&self, row: &QuoteRow) -> Result<(), StoreError> {
        let (id, gateway) = (row.id.clone(), self.gateway().to_owned());
        let write = move |tx: &mut Tx<'_>| {
            let sql = "UPDATE quotes SET state = 'lost', owner = NULL
                       WHERE id = ?1 AND state IN ('offered', 'paid') AND owner = ?2";
            tx.execute(sql, values![id.as_str(), gateway])
        };
        if self.db().write(Durability::Disk, write).await? == 1 {
            log::error!(
                "invoice {}: {} has signed for it, and not for us; is this seed used twice?",
                row.id,
                row.mint
            );
        }
        Ok(())
    }
}

/// No mint is asked, and nobody is shown an invoice, before its row is written.
fn unrecorded(error: StoreError) -> QuoteRefused {
    log::error!("wallet: {error}");
    QuoteRefused::NotRecorded
}

/// How long after its expiry an invoice's payment is still waited for. Lightning payments that
/// were under way at the expiry arrive within days at the most.
pub(super) const LATE_PAYMENT: Duration = Duration::from_secs(7 * 24 * 3600);

const LOOK_EVERY_MS: u64 = 1000;
