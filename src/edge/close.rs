//! The one place where a request ends with the ledger.
//!
//! Whatever happened, the open reservation is taken out of the stage exactly once and settled
//! at what the meter concluded, or released when nothing was delivered. When the ledger does not
//! answer, the spool takes over; without one the cost stays as accrued on the dropped
//! reservation, which the reaper ends.

use lua_free_filters::Route;

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
        let upstream = ctx.candidate.as_ref().map(|upstream| upstream.name.as_str());
        let unused = || Record {
            request_id: ctx.request_id.clone(),
            route: Route::ChatCompletions.upstream_path().to_owned(),
            model: ticket.offer.model.id.clone(),
            ..Record::default()
        };
        let end = || match &verdict {
            None => End::Release { record: unused() },
            Some(verdict) => End::Settle {
                cost: verdict.cost.total,
                record: Record {
                    usage_source: Some(verdict.source),
                    input_tokens: verdict.tokens.input,
                    output_tokens: verdict.tokens.output,
                    usage: record_usage(&verdict.tokens, &Facts { upstream, ..Facts::default() }),
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
        ctx.log.verdict = verdict;
        ctx.log.receipt = receipt;
        crash::point(Step::Settled);
        Closed { receipt, change_for }
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
        match self.till.refund(account, RefundAsk::default()).await {
            Ok(refunded) => Some(refunded.cashu_token),
            Err(refused) => {
                log::info!("change is left to be claimed: {refused}");
                None
            }
        }
    }
}
