//! Rolling reservations: money is set aside slice by slice while a stream is delivered, and the
//! stream ends cleanly where there is no more.
//!
//! The next slice is asked for when half of the last one is left, beside the stream. Only an
//! event that is not paid for waits for the ledger, and never longer than that answers or gives
//! up. What is reserved always pays for the whole prompt, so only output is counted here.

use bytes::Bytes;
use lua_free_filters::{End, Usage};
use pingora::proxy::{ProxyHttp, Session};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::Edge;
use super::context::{Ctx, Ticket};
use super::exchange::send;
use super::reserve::in_words;
use crate::error::{Kind, Refusal};
use crate::ledger::{Denied, Ledger, Reservation, Unavailable};
use crate::money::Msat;

/// The reservation of a ticket.
#[derive(Debug)]
pub(super) enum Holding {
    Here(Reservation),
    /// With the task that asks the ledger for more.
    Away(JoinHandle<Raised>),
    /// That task died with it; the reaper ends it.
    Lost,
}

/// A reservation on its way back from the ledger, with what that said.
#[derive(Debug)]
pub(super) struct Raised {
    reservation: Reservation,
    covered: u64,
    answer: Result<Result<Msat, Denied>, Unavailable>,
}

/// Why a reservation was not raised.
#[derive(Debug)]
pub(super) enum Short {
    Denied(Denied),
    Unavailable(Unavailable),
    Lost,
}

/// What became of a piece of an answer.
pub(super) enum Passed {
    Whole,
    ClientGone,
    /// There is no money for the rest of it.
    Unpaid(Refusal),
}

impl Ticket {
    /// Whether what is reserved pays for this.
    pub(super) fn covers(&self, usage: &Usage) -> bool {
        !self.rolls() || self.output(usage) <= self.covered
    }

    /// Keeps the accrued cost at what has been delivered. It stands still while the reservation
    /// is away, which is for one answer of the ledger.
    fn note_accrued(&self, usage: &Usage) {
        if let (Holding::Here(reservation), Some(verdict)) =
            (&self.reservation, self.verdict(usage))
        {
            reservation.note_accrued(verdict.cost.total);
        }
    }

    fn rolls(&self) -> bool {
        self.covered < self.order.most.output
    }

    fn output(&self, usage: &Usage) -> u64 {
        self.delivered_output(usage).min(self.order.most.output)
    }

    /// What one slice more covers.
    fn one_more(&self, slice: u64) -> u64 {
        self.covered.saturating_add(slice).min(self.order.most.output)
    }

    /// What so much output may cost, with the whole prompt.
    fn ceiling(&self, covered: u64) -> Msat {
        self.order.ceiling_by(&self.price(), covered)
    }

    /// Asks the ledger for `amount` in all, which pays for so much output; [`Ticket::land`] takes
    /// the answer.
    fn raise<L: Ledger>(&mut self, ledger: &L, covered: u64, amount: Msat) {
        let ledger = ledger.clone();
        self.reservation = match std::mem::replace(&mut self.reservation, Holding::Lost) {
            Holding::Here(mut reservation) => Holding::Away(Handle::current().spawn(async move {
                let answer = ledger.extend(&mut reservation, amount).await;
                Raised { reservation, covered, answer }
            })),
            other => other,
        };
    }

    /// Waits until the reservation is here, if it is away.
    pub(super) async fn land(&mut self) -> Result<(), Short> {
        let task = match &mut self.reservation {
            Holding::Here(_) => return Ok(()),
            Holding::Away(task) => task,
            Holding::Lost => return Err(Short::Lost),
        };
        let Ok(Raised { reservation, covered, answer }) = task.await else {
            self.reservation = Holding::Lost;
            return Err(Short::Lost);
        };
        let reserved = reservation.amount;
        self.reservation = Holding::Here(reservation);
        // Asked at every event, a no would stay one; it is asked again when the money is used up.
        self.asks_ahead = !matches!(answer, Ok(Err(_)));
        self.available = answer.map_err(Short::Unavailable)?.map_err(Short::Denied)?;
        (self.covered, self.reserved) = (covered, reserved);
        Ok(())
    }
}

impl<L: Ledger> Edge<L> {
    /// How much output is paid for at a time, if not all of it at once.
    pub(super) fn slice(&self) -> Option<u64> {
        Some(self.config.reservation.slice_output_tokens).filter(|slice| *slice > 0)
    }

    /// Passes on one piece of a flowing answer, as far as there is money for it.
    pub(super) async fn pass_on(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
        chunk: Bytes,
    ) -> pingora::Result<Passed> {
        let mut next = Some(chunk);
        while let Some(chunk) = next.take() {
            let mut body = Some(chunk);
            self.response_body_filter(session, &mut body, false, ctx)?;
            if let Some(ticket) = ctx.ticket() {
                ticket.note_accrued(&ctx.meter.usage());
            }
            if !send(session, ctx, body, false).await {
                return Ok(Passed::ClientGone);
            }
            if let Some(withheld) = ctx.meter.take_withheld() {
                if let Err(refusal) = self.afford(ctx, &withheld.usage).await {
                    return Ok(Passed::Unpaid(refusal));
                }
                next = Some(withheld.bytes);
            }
        }
        self.look_ahead(ctx).await;
        Ok(Passed::Whole)
    }

    /// Asks for the next slice when no more than half of the last one is left, and does not wait
    /// for the answer. Whatever that is, it counts when the money is used up.
    async fn look_ahead(&self, ctx: &mut Ctx) {
        let Some(slice) = self.slice() else { return };
        let usage = ctx.meter.usage();
        let Some(ticket) = ctx.ticket_mut().filter(|ticket| ticket.rolls()) else { return };
        match &ticket.reservation {
            Holding::Away(task) if !task.is_finished() => return,
            Holding::Away(_) | Holding::Here(_) | Holding::Lost => {}
        }
        if let Err(short) = ticket.land().await {
            log::debug!("not extended yet: {short:?}");
        }
        let left = ticket.covered.saturating_sub(ticket.output(&usage));
        if ticket.rolls() && ticket.asks_ahead && left <= slice / 2 {
            let covered = ticket.one_more(slice);
            ticket.raise(self.till.ledger(), covered, ticket.ceiling(covered));
        }
    }

    /// Waits until what is delivered next is paid for, or says why it never is.
    async fn afford(&self, ctx: &mut Ctx, usage: &Usage) -> Result<(), Refusal> {
        let (Some(slice), Some(ticket)) = (self.slice(), ctx.ticket_mut()) else { return Ok(()) };
        // An answer that was no, or none, is not the last word: others may have ended since.
        drop(ticket.land().await);
        if ticket.covers(usage) {
            return Ok(());
        }
        let wanted = ticket.one_more(slice).max(ticket.output(usage));
        self.cover(ticket, wanted).await
    }

    /// Pays for the whole output limit, if it is not paid for yet.
    pub(super) async fn cover_all(&self, ctx: &mut Ctx) -> Result<(), Refusal> {
        match ctx.ticket_mut().filter(|ticket| ticket.rolls()) {
            Some(ticket) => self.cover(ticket, ticket.order.most.output).await,
            None => Ok(()),
        }
    }

    async fn cover(&self, ticket: &mut Ticket, covered: u64) -> Result<(), Refusal> {
        self.raise_to(ticket, covered, ticket.ceiling(covered)).await
    }

    /// Has `amount` reserved in all, which pays for so much output. A refusal speaks of all of it,
    /// as one before anything was reserved does: what is set aside already is the client's too.
    pub(super) async fn raise_to(
        &self,
        ticket: &mut Ticket,
        covered: u64,
        amount: Msat,
    ) -> Result<(), Refusal> {
        ticket.raise(self.till.ledger(), covered, amount);
        ticket.land().await.map_err(|short| match short {
            Short::Denied(denied) => in_words(with_reserved(denied, ticket.reserved), amount),
            Short::Unavailable(why) => {
                log::error!("extension: {why}");
                let message = "the ledger cannot be reached; only what was delivered is charged";
                Refusal::new(Kind::ServiceUnavailable, "ledger_unavailable", message)
                    .retry_after_s(1)
            }
            Short::Lost => Refusal::internal(),
        })
    }

    /// Ends a stream whose money has: a valid last chunk, an error event that says why, and the
    /// usual end. What was delivered is charged.
    pub(super) async fn cut(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
        refusal: &Refusal,
    ) -> pingora::Result<()> {
        ctx.log.ended = refusal.code();
        let closing = ctx.meter.closing().unwrap_or_default();
        self.end_meter(ctx, End::Broken);
        let why = self.error_event(ctx, refusal);
        let last = [closing.as_bytes(), &why, b"data: [DONE]\n\n"].concat();
        if ctx.is_live() {
            return self.end_live(session, ctx, last.into(), true).await;
        }
        let write = session.write_response_body(Some(last.into()), true);
        let ((), written) = tokio::join!(self.leave(ctx), write);
        written
    }
}

/// What a denial leaves, with what its request has reserved.
fn with_reserved(denied: Denied, reserved: Msat) -> Denied {
    match denied {
        Denied::Insufficient { available, account_idle } => {
            Denied::Insufficient { available: available.saturating_add(reserved), account_idle }
        }
        Denied::Capped { left } => Denied::Capped { left: left.saturating_add(reserved) },
        Denied::NoAccount
        | Denied::Expired
        | Denied::Limited(_)
        | Denied::AlreadyEnded
        | Denied::InFlight
        | Denied::Served
        | Denied::Reused => denied,
    }
}
