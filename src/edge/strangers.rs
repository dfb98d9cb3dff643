//! Where the guard stands: before a body is read, and again when it is known what a request was.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use pingora::proxy::Session;

use super::Edge;
use super::client_address::client_address;
use super::context::Ctx;
use super::guard::{Event, Source, told_by};
use super::payer::Payer;
use crate::api::{self, Door};
use crate::error::{Kind, Refusal};
use crate::ids::AccountId;
use crate::ledger::Ledger;
use crate::till::CashuToken;

/// Who is at the door.
#[derive(Debug)]
pub(super) struct Visit {
    pub(super) from: Source,
    /// Of the credential that was shown, whether there is such an account or not.
    account: Option<AccountId>,
}

impl<L: Ledger> Edge<L> {
    pub(super) fn visit(&self, session: &Session, account: Option<&AccountId>) -> Visit {
        let address = || {
            let peer = session.client_addr().and_then(|peer| Some(peer.as_inet()?.ip()));
            // A connection without an address is the machine's own.
            let peer = peer.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
            client_address(peer, &session.req_header().headers, self.guard.trusted_proxies())
        };
        Visit { from: self.guard.source(account, address), account: account.cloned() }
    }

    /// Whether somebody who wants to pay for a request may go on. A key that is new here is looked
    /// up before its body is read: a made-up one would have megabytes held for nothing.
    pub(super) async fn let_pay(&self, visit: &Visit, payer: &Payer) -> Result<(), Refusal> {
        if payer.cashu_token.is_some() {
            return self.guard.allows(Event::FailedRedemption, &visit.from);
        }
        self.guard.allows(Event::UnknownKey, &visit.from)?;
        if matches!(visit.from, Source::Known(_)) {
            return Ok(());
        }
        match self.till.ledger().account(payer.account.clone()).await {
            Ok(Some(_)) => {
                self.guard.met(&payer.account);
                Ok(())
            }
            Ok(None) => {
                self.guard.count(Event::UnknownKey, &visit.from);
                Err(Refusal::key_not_found())
            }
            Err(why) => {
                log::error!("a key could not be looked up: {why}");
                Err(Refusal::ledger_unavailable())
            }
        }
    }

    /// Whether somebody may go on to what the gateway answers itself.
    pub(super) fn let_in(&self, visit: &Visit, door: Door) -> Result<(), Refusal> {
        let Visit { from, account } = visit;
        match door {
            Door::Open => return Ok(()),
            Door::Invoice => return self.guard.allows(Event::UnknownKey, from),
            Door::Account | Door::Claim if account.is_none() => {
                return self.guard.admit(Event::Unpaid, from);
            }
            Door::Account | Door::Claim => self.guard.allows(Event::UnknownKey, from)?,
            Door::Opening => {}
        }
        self.guard.allows(Event::FailedRedemption, from)?;
        match door {
            Door::Opening => self.guard.admit(Event::Opening, from),
            _ => Ok(()),
        }
    }

    /// What was learned of a visitor that was refused with this code.
    pub(super) fn note_refused(&self, visit: &Visit, code: &str) {
        if let Some(event) = told_by(code) {
            self.guard.count(event, &visit.from);
        }
    }

    /// What was learned of one that got an answer here. An unpaid visit was counted at the door.
    pub(super) fn note_answered(&self, visit: &Visit, door: Door, answer: &http::Extensions) {
        if answer.get::<api::KnownKey>().is_some()
            && let Some(account) = &visit.account
        {
            self.guard.met(account);
        }
        if let Some(api::Opened(account)) = answer.get() {
            self.guard.met(account);
        }
        let counted = match door {
            Door::Open => true,
            Door::Account | Door::Claim => visit.account.is_none(),
            Door::Opening | Door::Invoice => false,
        };
        if let (false, Some(api::RefusalCode(code))) = (counted, answer.get()) {
            self.note_refused(visit, code);
        }
    }

    /// Refuses somebody that is not let in. Of whoever has had its limit nothing is read but what
    /// keeps the answer from being lost, and the connection ends where there is more.
    pub(super) async fn turn_away(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
        refusal: &Refusal,
        ecash: Option<&CashuToken>,
    ) -> pingora::Result<()> {
        let per_request = session.req_header().headers.contains_key("x-cashu");
        if session.is_body_empty() {
            return self.refuse(session, ctx, refusal, per_request, ecash).await;
        }
        if refusal.kind() != Kind::RateLimitExceeded {
            return self.refuse_early(session, ctx, refusal, per_request, ecash).await;
        }
        session.set_keepalive(None);
        self.refuse(session, ctx, refusal, per_request, ecash).await?;
        drain(session, DRAINED_BYTES_MAX, DRAIN_TIME_MAX).await;
        Ok(())
    }
}

/// Reads away what is still arriving, up to these bounds: closing on unread bytes would reset the
/// connection, and the client would lose the answer that says why.
pub(super) async fn drain(session: &mut Session, bytes_max: usize, time_max: Duration) {
    // There the rest of the body is refused by itself, and its connection goes on.
    if session.is_http2() {
        return;
    }
    let drain = async {
        let mut drained: usize = 0;
        while let Ok(Some(chunk)) = session.read_request_body().await {
            drained = drained.saturating_add(chunk.len());
            if drained > bytes_max {
                break;
            }
        }
    };
    // Whether it was drained or not, the connection closes.
    drop(tokio::time::timeout(time_max, drain).await);
}

/// What is read of a body that nobody asked for. Whoever sends more may lose the answer.
const DRAINED_BYTES_MAX: usize = 64 << 10;
const DRAIN_TIME_MAX: Duration = Duration::from_secs(1);
