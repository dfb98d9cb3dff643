//! From an order to an open reservation, redeeming the payer's ecash on the way if need be.

use std::sync::Arc;

use super::Edge;
use super::context::{Ctx, Stage, Ticket};
use super::once::Attempt;
use super::order::Order;
use super::payer::Payer;
use super::rolling::Holding;
use crate::api;
use crate::crash::{self, Step};
use crate::error::Refusal;
use crate::ids::{AttemptId, ReservationId};
use crate::ledger::terms::TOKENS_WINDOW;
use crate::ledger::{Admission, Admitted, Denied, Ledger, Limit, Limited};
use crate::money::Msat;
use crate::once;
use crate::till::RedeemRefused;

/// What a request may go on to.
#[derive(Debug)]
pub(super) enum Reserved {
    Now(Arc<Order>),
    /// It was made before under the same key, and charged.
    Before,
}

/// A refusal, and what it means for a token that came with the request.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) refusal: Refusal,
    pub(super) ecash: Ecash,
    /// What it takes to be served, for whoever could pay that in `X-Cashu` instead of by key.
    pub(super) challenge: Option<Msat>,
}

/// Where the value of a token is when its request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ecash {
    /// Still the client's, as it was sent.
    Untouched,
    /// On an account, to which this request has brought it: it goes back as change.
    Redeemed,
    /// On an account since an earlier request, or nobody knows yet: it is claimed.
    Elsewhere,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, ecash: Ecash::Untouched, challenge: None }
    }
}

impl<L: Ledger> Edge<L> {
    /// Reserves the ceiling, redeeming the payer's token first if its account is new. An order
    /// whose length nobody asked for is made as short as the balance affords.
    pub(super) async fn reserve(
        &self,
        ctx: &mut Ctx,
        payer: &Payer,
        mut order: Order,
    ) -> Result<Reserved, Refused> {
        // Before anything was redeemed the token is as the client sent it. What is left of one that
        // was redeemed earlier is change to be claimed, and not enough for a shorter answer.
        let least = match payer.per_request {
            true => 0,
            false => self.config.reservation.affordable_output_min,
        };
        let denied = match self.admit(ctx, payer, &mut order, least).await.map_err(Refused::from)? {
            Ok(admitted) => {
                return Ok(reserved(ctx, payer, order, admitted));
            }
            Err(Denied::Served) => return Ok(Reserved::Before),
            Err(denied) => denied,
        };
        let (Denied::NoAccount, Some(cashu_token)) = (denied, &payer.cashu_token) else {
            let refusal = denied_refusal(denied, payer, &order);
            let is_short = matches!(denied, Denied::Insufficient { .. });
            let challenge = (is_short && payer.cashu_token.is_none()).then_some(order.ceiling);
            return Err(Refused { refusal, ecash: Ecash::Elsewhere, challenge });
        };
        // Nothing is redeemed for a request that not even a new account may make.
        let limit = self.config.rate_limits.tokens_per_hour;
        if order.tokens_max() > limit {
            let limited = Limited { which: Limit::Tokens, limit, retry_after: TOKENS_WINDOW };
            return Err(Refusal::rate_limited(&limited).into());
        }
        let least = self.config.reservation.affordable_output_min;
        self.till
            .redeem(cashu_token.reveal(), payer.account.clone(), order.least_ceiling(least))
            .await
            .map_err(|refused| redeem_refused(&refused, order.ceiling))?;
        let unanswered = |refusal| Refused { refusal, ecash: Ecash::Elsewhere, challenge: None };
        let admitted = self.admit(ctx, payer, &mut order, least).await.map_err(unanswered)?;
        let denied = match admitted {
            Ok(admitted) => return Ok(reserved(ctx, payer, order, admitted)),
            Err(Denied::Served) => return Ok(Reserved::Before),
            Err(denied) => denied,
        };
        let ecash = match denied {
            // The same request gives it back, which came first.
            Denied::InFlight | Denied::Reused => Ecash::Elsewhere,
            _ => Ecash::Redeemed,
        };
        let refusal = denied_refusal(denied, payer, &order);
        Err(Refused { refusal, ecash, challenge: None })
    }

    /// Asks the ledger for the ceiling, and once more for less where `least` of output serves.
    /// Where the key stands is told with the answer, whatever that will be.
    async fn admit(
        &self,
        ctx: &mut Ctx,
        payer: &Payer,
        order: &mut Order,
        least: u64,
    ) -> Result<Result<Admitted, Denied>, Refusal> {
        match self.admit_once(ctx, payer, order).await? {
            Err(denied @ Denied::Insufficient { available, .. }) => {
                match order.lower_to(available, least) {
                    true => self.admit_once(ctx, payer, order).await,
                    false => Ok(Err(denied)),
                }
            }
            other => Ok(other),
        }
    }

    async fn admit_once(
        &self,
        ctx: &mut Ctx,
        payer: &Payer,
        order: &Order,
    ) -> Result<Result<Admitted, Denied>, Refusal> {
        let ask = Admission {
            reservation: ReservationId::fresh(),
            account: payer.account.clone(),
            ceiling: order.ceiling,
            tokens: order.tokens_max(),
            lifetime: self.config.reservation.lifetime,
            limits: self.config.rate_limits,
            once: payer.keyed.as_ref().map(|keyed| keyed.once.clone()),
        };
        let admitted = self.till.ledger().admit(ask).await.map_err(|error| {
            log::error!("admission: {error}");
            Refusal::ledger_unavailable()
        })?;
        if let Some(spool) = &self.spool {
            spool.ledger_answered();
        }
        let standing = match &admitted {
            Ok(admitted) => Some(admitted.standing),
            Err(denial) => denial.standing,
        };
        if let Some(standing) = standing {
            ctx.stands(standing);
        }
        Ok(admitted.map_err(|denial| denial.denied))
    }
}

fn reserved(ctx: &mut Ctx, payer: &Payer, order: Order, admitted: Admitted) -> Reserved {
    let order = Arc::new(order);
    ctx.log.reserved = order.ceiling;
    if let Some(limit) = order.lowered {
        ctx.added.push(api::max_output_tokens(limit));
    }
    let kept = payer.keyed.as_ref().filter(|_| !order.peeked.stream);
    ctx.attempt = kept
        .map(|keyed| Attempt { keyed: keyed.clone(), id: AttemptId::of(&admitted.reservation.id) });
    ctx.stage = Stage::Reserved(Ticket {
        reservation: Holding::Here(admitted.reservation),
        reserved: order.ceiling,
        bid: 0,
        available: admitted.available,
        covered: order.covered,
        asks_ahead: true,
        payer: payer.account.clone(),
        wants_change: payer.per_request,
        order: order.clone(),
    });
    crash::point(Step::Reserved);
    Reserved::Now(order)
}

fn redeem_refused(refused: &RedeemRefused, required: Msat) -> Refused {
    let ecash = if refused.is_untouched() { Ecash::Untouched } else { Ecash::Elsewhere };
    let refusal = match refused {
        // What the whole order takes: whoever pays that much is served in full.
        RedeemRefused::TooSmall { value, .. } => Refusal::insufficient_balance(required, *value),
        _ => api::redeem_refusal(refused),
    };
    Refused { refusal, ecash, challenge: None }
}

fn denied_refusal(denied: Denied, payer: &Payer, order: &Order) -> Refusal {
    match denied {
        Denied::Insufficient { account_idle: true, .. } if payer.per_request => {
            api::redeem_refusal(&RedeemRefused::AlreadySpent)
        }
        _ => in_words(denied, order.ceiling),
    }
}

/// Why the ledger did not reserve `required`, in the client's words.
pub(super) fn in_words(denied: Denied, required: Msat) -> Refusal {
    match denied {
        Denied::NoAccount => Refusal::key_not_found(),
        Denied::Insufficient { available, .. } => {
            Refusal::insufficient_balance(required, available)
        }
        Denied::Expired => Refusal::key_expired(),
        Denied::Capped { left } => Refusal::balance_limit_exceeded(required, left),
        Denied::Limited(limited) => Refusal::rate_limited(&limited),
        Denied::InFlight => once::in_flight(),
        Denied::Reused => once::reused(),
        Denied::Served => once::not_replayable(),
        Denied::AlreadyEnded => Refusal::internal(),
    }
}
