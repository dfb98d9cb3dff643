//! Ecash of mints that are not accepted, and that configuration names for this: such a mint pays
//! an invoice of one that is accepted with it (NUT-05).
//!
//! ```text
//! (asked what it costs) ──▶ recorded ──▶ the foreign mint pays ──▶ a quote that is paid
//! ```
//!
//! What it costs is asked before anything is written or taken: our mint for an invoice, the
//! foreign mint for what it reserves to pay it. Beyond the bound, nothing happens. Else the
//! invoice, as a quote of the deposit that the token is to become (`quote.rs`), and the foreign
//! mint's offer are on disk in one commit before the foreign mint is asked to pay. From there on
//! the value is credited when **our** mint says that it has the payment, by whoever looks, and
//! nobody believes the foreign mint anything: its word decides only what the client is told.
//!
//! | the foreign mint's answer | the client reads |
//! |---|---|
//! | paid | the deposit, when our mint has it |
//! | no connection, or rate limited | the token is untouched |
//! | anything else, and then … it is unpaid, the inputs unspent | why; the token is untouched |
//! | … unpaid, the inputs spent | already spent |
//! | … pending, or no answer | not known; it is credited when it arrives, repeating finds out |
//!
//! A repetition looks first, and then pays the same invoice by the same offer, which a mint does
//! once. A payment that was never made is replaced only when it cannot be made any more: its
//! offer expired long ago, the inputs are unspent, and our mint has nothing.
//!
//! What the foreign mint did not need of its reserve comes back as signatures on outputs of ours
//! (NUT-08). It is the client's, and handed out as a token of the foreign mint's, again and
//! again; it is not in the pool, and the books do not know it.

use std::sync::Arc;
use std::time::Duration;

use cdk::nuts::BlindSignature;

use super::attempt;
use super::foreign_rows::{MeltRow, readdress};
use super::incoming::{Incoming, Inputs, unfetched};
use super::melt_mint::{MeltOffer, Melting, Payable, blanks_for};
use super::mint::{Mint, MintError, Spending, Unit};
use super::quote::QuoteAsk;
use super::quote_mint::{Offer, Payment};
use super::quote_rows::{Purpose, QuoteRow, QuoteState};
use super::redeem::{LATE, refusal};
use super::{CashuToken, Payee, RedeemRefused, Wallet, WalletError};
use crate::clock::UnixMs;
use crate::config;
use crate::crash::{self, Step};
use crate::ids::DepositId;
use crate::money::Msat;
use crate::store::{Durability, StoreError, Tx};

/// What a token of a foreign mint's became, for who paid with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swapped {
    pub mint: String,
    pub value: Msat,
    /// What both mints and Lightning took of it. `None` until the foreign mint has said what is
    /// left over; so is `change`.
    pub fees: Option<Msat>,
    /// Of the foreign mint's.
    pub change: Option<CashuToken>,
}

/// The foreign mints, and what it may cost.
pub(super) struct ForeignMints {
    mints: Vec<Arc<Mint>>,
    fee_sats_max: u64,
    fee_permille_max: u64,
}

impl ForeignMints {
    pub(super) fn new(
        foreign: &config::ForeignMints,
        timeout: Duration,
    ) -> Result<Self, WalletError> {
        let mints: Result<Vec<_>, _> =
            foreign.mints.iter().map(|mint| Mint::new(mint, timeout).map(Arc::new)).collect();
        let config::ForeignMints { fee_sats_max, fee_permille_max, .. } = *foreign;
        Ok(Self { mints: mints?, fee_sats_max, fee_permille_max })
    }

    /// What may be taken of so much.
    fn fees_max(&self, value: Msat) -> Msat {
        let share = u128::from(value.get()) * u128::from(self.fee_permille_max) / 1000;
        let share = u64::try_from(share).ok().and_then(Msat::new).unwrap_or(Msat::MAX);
        let flat = Msat::from_sats(self.fee_sats_max).unwrap_or(Msat::MAX);
        flat.saturating_add(share)
    }
}

/// A payment that can be made: our invoice, and what the foreign mint takes for paying it.
struct Plan {
    /// Ours.
    mint: Arc<Mint>,
    unit: Unit,
    amount: Msat,
    offer: Offer,
    melt: MeltOffer,
}

impl Wallet {
    pub(super) fn foreign_mints(&self) -> &[Arc<Mint>] {
        &self.0.foreign.mints
    }

    /// Whether there is a mint whose ecash is paid in over Lightning.
    pub(crate) fn takes_foreign(&self) -> bool {
        !self.foreign_mints().is_empty()
    }

    /// Has a foreign mint pay our mint with this token. When this returns, or says that it does
    /// not know, the quote of the deposit that this token becomes is to be looked at.
    ///
    /// One call at a time per token in this process, and never dropped half way, as with
    /// [`Self::redeem`]. Several gateways may be at it: a mint pays an offer once.
    pub(crate) async fn pay_with_foreign(
        &self,
        text: &str,
        payee: &Payee,
        asked: &(dyn Fn() + Send + Sync),
    ) -> Result<(), RedeemRefused> {
        let id = DepositId::of_cashu_token(text);
        let incoming = Incoming::parse(text, self.foreign_mints())?;
        let inputs = incoming.inputs().await?;
        let mint = incoming.mint.clone();
        for _ in 0..PLANS_MAX {
            let Some(row) = self.melt_row(&id).await.map_err(unrecorded)? else {
                let plan = self.plan_swap(&id, &incoming, &inputs).await?;
                let Some(row) = self.record_swap(&id, payee, &incoming, plan).await? else {
                    continue;
                };
                asked();
                crash::point(Step::MeltRecorded);
                return self.melt(&mint, &row, inputs).await;
            };
            asked();
            if self.is_paid_here(&id).await.map_err(unrecorded)? {
                return Ok(());
            }
            match mint.melting(&row.quote).await {
                Ok(Melting::Paid { change, .. }) => {
                    self.note_change(&mint, &row, change).await;
                    return Ok(());
                }
                Ok(Melting::Unpaid) if UnixMs::now() < row.expires => {
                    if !self.readdress(&id, payee).await.map_err(unrecorded)? {
                        return Err(RedeemRefused::Unknown);
                    }
                    return self.melt(&mint, &row, inputs).await;
                }
                Ok(Melting::Unpaid) => self.replace(&mint, &row, &inputs).await?,
                Ok(Melting::Pending) | Err(_) => return Err(RedeemRefused::Unknown),
            }
        }
        Err(RedeemRefused::Unknown)
    }

    /// Finds an amount that pays for itself with what the foreign mint reserves for it. Nothing is
    /// written, and nothing is taken whoever gives up.
    async fn plan_swap(
        &self,
        id: &DepositId,
        incoming: &Incoming,
        inputs: &Inputs,
    ) -> Result<Plan, RedeemRefused> {
        let worth = |count| incoming.unit.msat(count).unwrap_or(Msat::MAX);
        let (value, net) = (worth(incoming.value), incoming.value.saturating_sub(inputs.fee));
        let fees_max = self.0.foreign.fees_max(value);
        let dear = |fees: Msat| RedeemRefused::SwapTooDear { value, fees, fees_max };
        let mut reserve = 0_u64;
        for _ in 0..AMOUNTS_MAX {
            let fees = worth(inputs.fee.saturating_add(reserve));
            let left = net.checked_sub(reserve).filter(|left| *left > 0);
            let left = left.ok_or_else(|| dear(fees))?;
            if fees > fees_max {
                return Err(dear(fees));
            }
            let plan = self.offers(id, incoming, worth(left)).await?.ok_or_else(|| dear(fees))?;
            reserve = reserve.max(plan.melt.fee_reserve);
            let taken = plan.melt.count.saturating_add(plan.melt.fee_reserve);
            let fees = worth(inputs.fee.saturating_add(plan.melt.fee_reserve));
            if fees > fees_max {
                return Err(dear(fees));
            }
            if taken <= net {
                return Ok(plan);
            }
        }
        Err(dear(worth(inputs.fee.saturating_add(reserve))))
    }

    /// An invoice of the first accepted mint that gives one for as much of this as it can, and
    /// what the foreign mint takes for it. Nothing when that is less than the smallest unit.
    async fn offers(
        &self,
        id: &DepositId,
        incoming: &Incoming,
        most: Msat,
    ) -> Result<Option<Plan>, RedeemRefused> {
        let key = self.seed().quote_key(id).map_err(|error| {
            log::error!("invoice {id}: {error}");
            RedeemRefused::LedgerUnavailable
        })?;
        let mut fits = false;
        for mint in self.mints() {
            let Some(unit) = mint.units.first() else { continue };
            let size = unit.size.max(incoming.unit.size);
            let amount = most.floor_to(size);
            if amount == Msat::ZERO {
                continue;
            }
            fits = true;
            let offer = match mint.offer(unit, unit.count(amount), key.public_key()).await {
                Ok(offer) => offer,
                Err(error) => {
                    log::warn!("mint {}: no invoice: {error:?}", mint.url);
                    continue;
                }
            };
            let payable = Payable::checked(&offer.bolt11, amount, UnixMs::now())
                .map_err(|why| RedeemRefused::Failed(why.to_owned()))?;
            let melt = incoming.mint.melt_offer(&incoming.unit, &payable).await;
            let melt = melt.map_err(|error| unfetched(&error))?;
            let hash = &payable.payment_hash;
            log::debug!("swap {id}: {} offers to pay {hash} to {}", incoming.mint.url, mint.url);
            let (mint, unit) = (mint.clone(), unit.clone());
            return Ok(Some(Plan { mint, unit, amount, offer, melt }));
        }
        if fits { Err(RedeemRefused::MintUnreachable) } else { Ok(None) }
    }

    /// Invoice and offer on disk, in one commit. Nothing if somebody else was faster.
    async fn record_swap(
        &self,
        id: &DepositId,
        payee: &Payee,
        incoming: &Incoming,
        plan: Plan,
    ) -> Result<Option<MeltRow>, RedeemRefused> {
        let Plan { mint, unit, amount, offer, melt } = plan;
        let keyset = incoming.mint.active(&incoming.unit).await;
        let keyset = keyset.map_err(|error| unfetched(&error))?.id;
        let blanks = blanks_for(incoming.value.saturating_sub(melt.count));
        let counter_start = self.counters(keyset, blanks).await.map_err(unrecorded)?;
        let quote = QuoteAsk {
            id: id.clone(),
            account: payee.account.clone(),
            purpose: purpose(payee),
            terms: payee.terms.clone(),
            amount,
            mint: Some(mint.url.to_string()),
        };
        let quote = quote.recorded(&mint, &unit);
        let row = MeltRow {
            id: id.clone(),
            mint: incoming.mint.url.to_string(),
            unit: incoming.unit.name.clone(),
            quote: melt.quote,
            value: incoming.value,
            amount,
            keyset,
            counter_start,
            blanks,
            expires: melt.expires,
            change: None,
        };
        let gateway = self.gateway().to_owned();
        let write = move |tx: &mut Tx<'_>| {
            // First this row, which waits for another gateway that is writing one.
            if !row.insert(tx)? {
                return Ok(Recorded::Elsewhere);
            }
            if !quote.insert(tx, &gateway)? {
                row.replace(tx)?;
                return Ok(Recorded::TooMany);
            }
            QuoteRow::offer(tx, &quote.id, &offer, &gateway)?;
            Ok(Recorded::Ours(Box::new(row)))
        };
        match self.db().write(Durability::Disk, write).await.map_err(unrecorded)? {
            Recorded::Ours(row) => Ok(Some(*row)),
            Recorded::Elsewhere => Ok(None),
            Recorded::TooMany => Err(RedeemRefused::MintRateLimited),
        }
    }

    /// Asks the foreign mint to pay; to ask again is safe.
    async fn melt(&self, mint: &Mint, row: &MeltRow, inputs: Inputs) -> Result<(), RedeemRefused> {
        let blanks = self.seed().outputs(row.keyset, row.counter_start, &vec![0; row.blanks]);
        let blanks = blanks.map_err(|_| RedeemRefused::Failed("its keyset".to_owned()))?;
        let Inputs { proofs, ys, .. } = inputs;
        let error = match mint.melt(&row.quote, proofs, attempt::blinded(&blanks)).await {
            Ok(Melting::Paid { change, .. }) => {
                crash::point(Step::MeltPaid);
                self.note_change(mint, row, change).await;
                return Ok(());
            }
            Ok(Melting::Pending) => return Err(RedeemRefused::Unknown),
            Ok(Melting::Unpaid) => MintError::Refused("it could not pay over Lightning"),
            Err(MintError::Unreachable) => return Err(RedeemRefused::MintUnreachable),
            Err(MintError::RateLimited) => return Err(RedeemRefused::MintRateLimited),
            Err(error) => error,
        };
        log::warn!("swap {} at {}: {error:?}", row.id, row.mint);
        // In this order: inputs that are spent when the payment is not made are somebody else's.
        match (mint.spending(ys).await, mint.melting(&row.quote).await) {
            (_, Ok(Melting::Paid { change, .. })) => {
                self.note_change(mint, row, change).await;
                Ok(())
            }
            (Ok(Spending::Unspent), Ok(Melting::Unpaid)) => Err(refusal(&error)),
            (Ok(Spending::Spent), Ok(Melting::Unpaid)) => Err(RedeemRefused::AlreadySpent),
            _ => Err(RedeemRefused::Unknown),
        }
    }

    /// Gives up a payment that cannot be made any more, so that another one can.
    async fn replace(
        &self,
        mint: &Mint,
        row: &MeltRow,
        inputs: &Inputs,
    ) -> Result<(), RedeemRefused> {
        let expired = || RedeemRefused::Failed("its offer has expired; later again".to_owned());
        match mint.spending(inputs.ys.clone()).await {
            Ok(Spending::Unspent) => {}
            Ok(Spending::Spent) => return Err(RedeemRefused::AlreadySpent),
            Ok(Spending::Pending) | Err(_) => return Err(RedeemRefused::Unknown),
        }
        if UnixMs::now() < row.expires.plus(LATE) {
            return Err(expired());
        }
        let id = row.id.clone();
        let find = move |tx: &mut Tx<'_>| QuoteRow::find(tx, &id);
        let quote = self.db().write(Durability::Process, find).await.map_err(unrecorded)?;
        if let Some(QuoteRow { mint, quote: Some(quote), count, .. }) = quote {
            let Some(mint) = self.mint_at(&mint) else { return Err(RedeemRefused::Unknown) };
            if !matches!(mint.payment(&quote, count).await, Ok(Payment::Unpaid)) {
                return Err(RedeemRefused::Unknown);
            }
        }
        let row = row.clone();
        let replace = move |tx: &mut Tx<'_>| row.replace(tx);
        let replaced = self.db().write(Durability::Disk, replace).await.map_err(unrecorded)?;
        if replaced { Ok(()) } else { Err(RedeemRefused::Unknown) }
    }

    /// What became of a foreign token; asks the foreign mint if it has not said what is left over.
    pub(crate) async fn swapped(&self, id: &DepositId) -> Result<Option<Swapped>, WalletError> {
        let Some(mut row) = self.melt_row(id).await? else { return Ok(None) };
        if row.change.is_none()
            && let Some(mint) = self.foreign_mint_at(&row.mint)
            && let Ok(Melting::Paid { change, .. }) = mint.melting(&row.quote).await
        {
            self.note_change(&mint, &row, change).await;
            row = self.melt_row(id).await?.unwrap_or(row);
        }
        let Some(unit) = Unit::named(&row.unit) else { return Ok(None) };
        let value = unit.msat(row.value).unwrap_or(Msat::MAX);
        let MeltRow { mint, change, amount, .. } = row;
        let Some(change) = change else {
            return Ok(Some(Swapped { mint, value, fees: None, change: None }));
        };
        let left = change.iter().fold(0_u64, |sum, proof| sum.saturating_add(proof.amount));
        let left = unit.msat(left).unwrap_or(Msat::MAX);
        let fees = Some(value.saturating_sub(amount).saturating_sub(left));
        let change = match change.is_empty() {
            true => None,
            false => Some(self.token_text(&mint, &unit.name, &change)?),
        };
        Ok(Some(Swapped { mint, value, fees, change }))
    }

    /// Stores what the foreign mint has left over. What fails here is tried again when somebody
    /// asks for it.
    async fn note_change(
        &self,
        mint: &Mint,
        row: &MeltRow,
        signatures: Option<Vec<BlindSignature>>,
    ) {
        let noted = self.try_to_note_change(mint, row, signatures).await;
        if let Err(why) = noted {
            log::warn!("swap {} at {}: change not noted yet: {why}", row.id, row.mint);
        }
    }

    async fn try_to_note_change(
        &self,
        mint: &Mint,
        row: &MeltRow,
        signatures: Option<Vec<BlindSignature>>,
    ) -> Result<(), String> {
        let blanks = self.seed().outputs(row.keyset, row.counter_start, &vec![0; row.blanks]);
        let blanks = blanks.map_err(|error| error.to_string())?;
        let signatures = match signatures {
            Some(signatures) => signatures,
            None => {
                let restored = mint.restore_change(attempt::blinded(&blanks)).await;
                restored.map_err(|error| format!("{error:?}"))?
            }
        };
        let keyset = mint.keys(row.keyset).await.map_err(|error| format!("{error:?}"))?;
        let change = attempt::accept_change(&blanks, &signatures, &keyset)?;
        let id = row.id.clone();
        let write = move |tx: &mut Tx<'_>| MeltRow::note_change(tx, &id, &change);
        self.db().write(Durability::Disk, write).await.map_err(|error| error.to_string())
    }

    async fn melt_row(&self, id: &DepositId) -> Result<Option<MeltRow>, StoreError> {
        let id = id.clone();
        let find = move |tx: &mut Tx<'_>| MeltRow::find(tx, &id);
        self.db().write(Durability::Process, find).await
    }

    /// Whether our mint was known to have the payment before.
    async fn is_paid_here(&self, id: &DepositId) -> Result<bool, StoreError> {
        let id = id.clone();
        let find = move |tx: &mut Tx<'_>| QuoteRow::find(tx, &id);
        let row = self.db().write(Durability::Process, find).await?;
        let over = [QuoteState::Paid, QuoteState::Redeemed, QuoteState::Lost];
        Ok(row.is_some_and(|row| over.contains(&row.state)))
    }

    /// The payment becomes this payee's, whoever the token was shown for before. False when the
    /// invoice is not waiting for it any more, or somebody is looking at it for another one.
    async fn readdress(&self, id: &DepositId, payee: &Payee) -> Result<bool, StoreError> {
        let (id, payee) = (id.clone(), payee.clone());
        let write = move |tx: &mut Tx<'_>| {
            let Some(row) = QuoteRow::find(tx, &id)? else { return Ok(false) };
            let is_theirs = row.account == payee.account && row.terms == payee.terms;
            match is_theirs {
                true => Ok(row.state == QuoteState::Offered),
                false => readdress(tx, &id, &payee, purpose(&payee)),
            }
        };
        self.db().write(Durability::Disk, write).await
    }

    fn foreign_mint_at(&self, url: &str) -> Option<Arc<Mint>> {
        self.foreign_mints().iter().find(|mint| mint.url.to_string() == url).cloned()
    }
}

enum Recorded {
    Ours(Box<MeltRow>),
    Elsewhere,
    TooMany,
}

/// Terms are for an account that this value opens.
fn purpose(payee: &Payee) -> Purpose {
    match payee.terms {
        Some(_) => Purpose::Create,
        None => Purpose::TopUp,
    }
}

fn unrecorded(error: StoreError) -> RedeemRefused {
    log::error!("wallet: {error}");
    RedeemRefused::LedgerUnavailable
}

/// Amounts tried until one and what is reserved for it are not more than there is: the reserve
/// mostly falls with the amount, so that the second fits. Then it is too dear.
const AMOUNTS_MAX: u32 = 4;

/// Rows met by one call: one that is replaced, one that another gateway wrote meanwhile.
const PLANS_MAX: u32 = 4;
