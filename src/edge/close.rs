//! The one place where a request ends with the ledger.
//!
//! Whatever happened, the open reservation is taken out of the stage exactly once and settled
//! at what the meter concluded, or released when nothing was delivered. When the ledger does not
//! answer, the spool takes over; without one the cost stays as accrued on the dropped
//! reservation, which the reaper ends.

use super::Edge;
use super::context::{Ctx, Stage};
use super::rolling::Holding;
use crate::crash::{self, Step};
use crate::ids::AccountId;
use crate::ledger::{End, Facts, Ledger, Receipt, Record, Unsettled, record_usage};
use crate::money::Msat;
use crate::till::{CashuToken, RefundAsk};

/// How a reservation ended, and to whom its change goes.
pub(super) struct Closed {
    pub(super) receipt: Option<Receipt>,
    pub(super) change_for: Option<AccountId>,
}

impl<L: Ledger> Edge<L> {
    /// Ends the reservation if one is open; afterwards none is.
    pub(super) async fn close(&self, ctx: &mut Ctx) -> Closed {
        let stage = std::mem::replace(&mut ctx.stage, Stage::Closed);
        let Stage::Reserved(mut ticket) = stage else {
            ctx.stage = stage;
            return Closed { receipt: None, change_for: None };
        };
        // An extension under way does not matter any more, but its reservation does.
        drop(ticket.land().await);
        let change_for = ticket.wants_change.then(|| ticket.payer.clone());
        let verdict = ticket.verdict(&ctx.meter.usage());
        ctx.log.reserved = ticket.reserved;
        let Holding::Here(reservation) = ticket.reservation else {
            log::error!("request {}: its reservation is lost to the reaper", ctx.request_id);
            return Closed { receipt: None, change_for };
        };
        let order = &*ticket.order;
        let demand = &order.peeked.demand;
        let unused = || Record {
            request_id: ctx.request_id.clone(),
            route: order.route.upstream_path().to_owned(),
            model: order.offer.model.id.clone(),
            ..Record::default()
        };
        let facts = Facts {
            btc_usd_cents: order.offer.btc_usd_cents,
            image_size: demand.image_size.as_deref(),
            image_quality: demand.image_quality.as_deref(),
            upstream: ctx.candidate.as_ref().map(|upstream| upstream.name.as_str()),
        };
        let end = || match &verdict {
            None => End::Release { record: unused() },
            Some(verdict) => End::Settle {
                cost: verdict.cost.total,
                record: Record {
                    usage_source: Some(verdict.source),
                    input_tokens: verdict.counts.input,
                    output_tokens: verdict.counts.output,
                    usage: record_usage(&verdict.counts, &facts),
                    ..unused()
                },
            },
        };
        let receipt = match self.till.ledger().end(reservation, end()).await {
            Ok(receipt) => Some(receipt),
            Err(Unsettled::NoAnswer { reservation, why }) => {
                log::error!("request {}: no receipt: {why}", ctx.request_id);
                match &self.spool {
                    Some(spool) => spool.keep(reservation, end()).await,
                    None => reservation.note_accrued(end().cost()),
                }
                None
            }
            Err(Unsettled::Forgotten) => {
                log::error!("request {}: the ledger has no such reservation", ctx.request_id);
                None
            }
        };
        if let Some(verdict) = &verdict {
            self.metrics.used(verdict.source.name());
        }
        ctx.log.verdict = verdict;
        ctx.log.receipt = receipt;
        crash::point(Step::Settled);
        Closed { receipt, change_for }
    }

    /// The same where the client is given no change: that is left to be claimed.
    pub(super) async fn leave(&self, ctx: &mut Ctx) {
        let closed = self.close(ctx).await;
        let has_change = closed.receipt.is_some_and(|receipt| receipt.available > Msat::ZERO);
        if let Some(account) = closed.change_for.filter(|_| has_change) {
            self.till.leave_unclaimed(account);
        }
    }

    /// The change of a request paid by `X-Cashu`. `None` when there is none, or when it cannot
    /// be composed right now and is claimed instead.
    pub(super) async fn change(&self, closed: Closed) -> Option<CashuToken> {
        let account = closed.change_for?;
        if closed.receipt?.available == Msat::ZERO {
            return None;
        }
        self.refund(account).await
    }

    /// All that an account has; nothing while another request of it is open, which will give it.
    pub(super) async fn refund(&self, account: AccountId) -> Option<CashuToken> {
        match self.till.refund(account.clone(), RefundAsk::default()).await {
            Ok(refunded) => Some(refunded.cashu_token),
            Err(refused) => {
                log::info!("change is left to be claimed: {refused}");
                self.till.leave_unclaimed(account);
                None
            }
        }
    }
}
