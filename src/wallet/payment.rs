//! Paying over Lightning: proofs of ours pay an invoice, and what is left of the fee comes back.
//!
//! ```text
//! planned ──▶ paying ──▶ paid ──▶ (a redemption of the unused fee, to be credited)
//!    │          │
//!    └──────────┴─────▶ failed ──▶ (a redemption of all that was booked)
//! ```
//!
//! A payment is written down with the mint's quote and the outputs for its change before the
//! ledger is asked to book it, and the withdrawal names the payment: a plan that the ledger did
//! not book is never carried out. Its proofs are set aside under the withdrawal's id as a token's
//! are, worth exactly what was booked: the amount and the most that it may cost. The mint is
//! asked when all that is on disk.
//!
//! A mint pays a quote once, so that asking again is safe; what is not safe is to give the value
//! back while a request is still on its way. So a payment ends as `failed` only when the mint
//! says that it is not paid, its proofs are unspent, and no request can arrive any more
//! (`payment_melting.rs`). What comes back, of a payment or of a failed one, becomes a redemption
//! in the commit that ends the payment, and is credited, recovered and audited like every other:
//! the account's `refunded` stays, and its `deposited` grows by what came back.

use std::time::Duration;

use super::melt_mint::{MeltOffer, Payable, blanks_for};
use super::mint::MintError;
use super::payment_rows::{PaymentPlan, PaymentRow, PaymentState};
use super::rows::{ProofRow, RedemptionRow, damaged};
use super::{Redemption, Wallet, WalletError};
use crate::clock::UnixMs;
use crate::crash::{self, Step};
use crate::ids::PaymentId;
use crate::money::Msat;
use crate::store::{Durability, StoreError, Tx, values};

/// Why an invoice is not going to be paid. Nothing was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PlanRefused {
    /// Not the invoice that was asked for.
    Invoice(&'static str),
    /// The mint asks for more than was allowed.
    Fee { asked: Msat },
    /// The mint does not answer.
    MintSilent,
    /// The mint does not pay this invoice.
    MintRefused,
    /// The database did not answer.
    NotRecorded,
}

/// What a payment was, for who asks again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Payment {
    pub(crate) state: PaymentState,
    pub(crate) recipient: String,
    pub(crate) everything: bool,
    /// What the account had ever been paid when this was planned.
    pub(crate) deposited: Msat,
    pub(crate) amount: Msat,
    pub(crate) booked: Msat,
    /// What has come back of `booked`.
    pub(crate) returned: Msat,
    pub(crate) ended: Option<UnixMs>,
}

/// How far a payment has come.
#[derive(Clone, Debug)]
pub(crate) enum Paid {
    /// Paid or failed for good; the till credits what came back.
    Ended(Payment, Option<Redemption>),
    /// To be asked about again.
    Pending,
}

impl Wallet {
    /// Writes down that this invoice is to be paid, once its withdrawal is booked.
    pub(crate) async fn plan_payment(
        &self,
        plan: PaymentPlan,
        bolt11: &str,
    ) -> Result<(), PlanRefused> {
        let payable = Payable::checked(bolt11, plan.amount, UnixMs::now());
        let payable = payable.map_err(PlanRefused::Invoice)?;
        let mint = self.mint_at(&plan.mint).ok_or(PlanRefused::MintRefused)?;
        let silent = |error: MintError| {
            log::warn!("payment {}: mint {}: {error:?}", plan.id, plan.mint);
            match error {
                MintError::Refused(_) | MintError::KeysetInactive => PlanRefused::MintRefused,
                _ => PlanRefused::MintSilent,
            }
        };
        let offer = mint.melt_offer(&plan.unit, &payable).await.map_err(silent)?;
        let MeltOffer { quote, fee_reserve, expires, .. } = offer;
        let most = plan.booked.saturating_sub(plan.amount);
        let asked = plan.unit.msat(fee_reserve).unwrap_or(Msat::MAX);
        if asked > most {
            return Err(PlanRefused::Fee { asked });
        }
        let keyset = mint.active(&plan.unit).await.map_err(silent)?.id;
        let blanks = blanks_for(plan.unit.count(most));
        let counter_start = self.counters(keyset, blanks).await.map_err(unrecorded)?;
        let payment_hash = payable.payment_hash;
        let row = PaymentRow {
            plan,
            fee_reserve,
            quote,
            payment_hash,
            keyset,
            counter_start,
            blanks,
            state: PaymentState::Planned,
            expires,
            asked: None,
            heard: false,
            ended: None,
            returned: Msat::ZERO,
        };
        // Nobody is at it until the ledger has booked it; then whoever sees that first.
        let insert = move |tx: &mut Tx<'_>| row.insert(tx);
        self.db().write(Durability::Disk, insert).await.map_err(unrecorded)?;
        crash::point(Step::PaymentPlanned);
        Ok(())
    }

    /// The ledger has not booked it, and never will.
    pub(crate) async fn forget_plan(&self, id: &PaymentId) {
        let wanted = id.clone();
        let write = move |tx: &mut Tx<'_>| {
            let sql = "DELETE FROM payments WHERE id = ?1 AND state = 'planned'";
            tx.execute(sql, values![wanted.as_str()])
        };
        if let Err(error) = self.db().write(Durability::Process, write).await {
            log::info!("payment {id}: not forgotten: {error}");
        }
    }

    /// What is known of a payment, without asking anybody.
    pub(crate) async fn payment(&self, id: &PaymentId) -> Result<Option<Payment>, StoreError> {
        let id = id.clone();
        let find = move |tx: &mut Tx<'_>| PaymentRow::find(tx, &id);
        Ok(self.db().write(Durability::Process, find).await?.map(|row| seen(&row)))
    }

    /// Makes a payment whose withdrawal is booked, or finds out what became of it. Idempotent;
    /// of several gateways one is at it, and the others hear that it is pending.
    pub(crate) async fn pay(&self, id: &PaymentId) -> Result<Paid, WalletError> {
        let (wanted, gateway) = (id.clone(), self.gateway().to_owned());
        let take = move |tx: &mut Tx<'_>| {
            let taken = PaymentRow::take(tx, &wanted, &gateway)?;
            Ok((taken, PaymentRow::find(tx, &wanted)?))
        };
        let (taken, row) = self.db().write(Durability::Process, take).await?;
        let row = row.ok_or_else(|| damaged("a withdrawal for a payment that is not there"))?;
        if taken {
            let worked = self.work_on_payment(row).await;
            self.let_go_of_payment(id).await?;
            worked?;
        }
        let wanted = id.clone();
        let look = move |tx: &mut Tx<'_>| {
            let row = PaymentRow::find(tx, &wanted)?.ok_or_else(|| damaged("payment"))?;
            let redemption = RedemptionRow::find(tx, &row.deposit())?;
            Ok((row, redemption))
        };
        let (row, redemption) = self.db().write(Durability::Process, look).await?;
        Ok(match row.state {
            PaymentState::Planned | PaymentState::Paying => Paid::Pending,
            PaymentState::Paid | PaymentState::Failed => {
                Paid::Ended(seen(&row), redemption.as_ref().map(Redemption::of))
            }
        })
    }

    async fn work_on_payment(&self, row: PaymentRow) -> Result<(), WalletError> {
        let Some(mint) = self.mint_at(&row.plan.mint) else { return Ok(()) };
        if row.state == PaymentState::Paying {
            return self.resume_payment(&mint, row).await;
        }
        if row.expires <= UnixMs::now() {
            return self.fail_payment(&row, "its invoice expired before it could be paid").await;
        }
        self.set_aside(&row.issue(), Duration::ZERO).await?;
        let Some(terms) = self.terms(&mint, row.plan.unit.clone()).await else { return Ok(()) };
        let gateway = self.gateway().to_owned();
        let begun = row.clone();
        let begin = move |tx: &mut Tx<'_>| begun.begin(tx, &gateway);
        let Some(inputs) = self.db().write(Durability::Disk, begin).await? else { return Ok(()) };
        crash::point(Step::PaymentBegun);
        let least = row.count().saturating_add(row.fee_reserve).saturating_add(terms.fee(&inputs));
        if row.booked_count() < least {
            return self.fail_payment(&row, "the mint's fee for its proofs is too high").await;
        }
        self.ask_to_pay(&mint, row, &inputs, true).await
    }

    /// Undecided, unless it has ended: the next to be asked may look again.
    async fn let_go_of_payment(&self, id: &PaymentId) -> Result<(), WalletError> {
        let (id, gateway) = (id.clone(), self.gateway().to_owned());
        let write = move |tx: &mut Tx<'_>| {
            let sql = "UPDATE payments SET owner = NULL WHERE id = ?1 AND owner = ?2";
            tx.execute(sql, values![id.as_str(), gateway])?;
            Ok(())
        };
        Ok(self.db().write(Durability::Process, write).await?)
    }

    /// The caller knows that no request to pay it can arrive any more.
    pub(super) async fn fail_payment(
        &self,
        row: &PaymentRow,
        why: &str,
    ) -> Result<(), WalletError> {
        log::warn!("payment {} at {}: failed: {why}", row.plan.id, row.plan.mint);
        let (row, gateway) = (row.clone(), self.gateway().to_owned());
        let write = move |tx: &mut Tx<'_>| row.fail(tx, &gateway);
        if self.db().write(Durability::Disk, write).await? {
            crash::point(Step::PaymentEnded);
        }
        Ok(())
    }

    pub(super) async fn payment_inputs(
        &self,
        row: &PaymentRow,
    ) -> Result<Vec<ProofRow>, WalletError> {
        let row = row.clone();
        Ok(self.db().write(Durability::Process, move |tx| row.inputs(tx)).await?)
    }
}

fn seen(row: &PaymentRow) -> Payment {
    let plan = row.plan.clone();
    Payment {
        state: row.state,
        recipient: plan.recipient,
        everything: plan.everything,
        deposited: plan.deposited,
        amount: plan.amount,
        booked: plan.booked,
        returned: row.returned,
        ended: row.ended,
    }
}

fn unrecorded(error: StoreError) -> PlanRefused {
    log::warn!("payment: not written down: {error}");
    PlanRefused::NotRecorded
}
