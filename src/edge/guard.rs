//! What strangers may do: counted by address, before anybody else is asked.
//!
//! Counted is what costs us and brings nothing: requests that show nothing to pay with, keys that
//! nobody has, Cashu tokens that are worth nothing, accounts and invoices asked for. Whoever shows
//! a key that the ledger knew lately is no stranger: it is counted by its key, so that neither its
//! neighbours nor whoever shares its proxy can have it refused.
//!
//! The counts are those of pingora-limits' [`Rate`], of the minute that runs: exact for whoever is
//! alone in it, and without an entry per address that a flood could grow. It is a sketch, in which
//! an address shares its counters with others and has the smallest of [`ROWS`]: in error it is
//! counted too high, never too low, by about a 65,536th of all that was counted in that minute.
//! An address is not counted any further than its limit, so the sum grows with the number of
//! addresses and not with their zeal. The proportional estimate over two minutes would be smoother;
//! a count is what a limit can be exact in. At a minute's turn an address has two minutes' worth.

use std::net::IpAddr;
use std::time::Duration;

use pingora_limits::rate::Rate;

use super::client_address::network_of;
use crate::config;
use crate::error::{Kind, Refusal};
use crate::ids::AccountId;

/// The counts of one gateway; a fleet's are not added up.
pub(super) struct Guard {
    limits: config::Guard,
    events: Rate,
    /// The accounts that the ledger knew when it was asked, of this hour and the last. Counted too
    /// high, a stranger is asked about that need not be.
    known: Rate,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Event {
    /// A request that shows nothing to pay with, or nothing that can be read.
    Unpaid,
    /// A key, or the id of an invoice, that nobody has.
    UnknownKey,
    /// A Cashu token that turned out to be worth nothing here.
    FailedRedemption,
    /// An account or an invoice was asked for.
    Opening,
}

/// By whom it is counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Source {
    Network(IpAddr),
    Known(AccountId),
}

impl Guard {
    pub(super) fn new(limits: &config::Guard) -> Self {
        let sketch = |every| Rate::new_with_estimator_config(every, ROWS, COUNTERS);
        Self { limits: limits.clone(), events: sketch(MINUTE), known: sketch(HOUR) }
    }

    pub(super) fn trusted_proxies(&self) -> &[ipnet::IpNet] {
        &self.limits.trusted_proxies
    }

    /// Whoever showed the credential of this account, or else the address that `address` finds.
    pub(super) fn source(
        &self,
        account: Option<&AccountId>,
        address: impl FnOnce() -> IpAddr,
    ) -> Source {
        match account {
            Some(account) if self.knows(account) => Source::Known(account.clone()),
            Some(_) | None => Source::Network(network_of(address())),
        }
    }

    /// The ledger knew this account.
    pub(super) fn met(&self, account: &AccountId) {
        self.known.observe(account, 1);
    }

    fn knows(&self, account: &AccountId) -> bool {
        self.known.rate_with(account, |seen| seen.curr_samples > 0 || seen.prev_samples > 0)
    }

    /// Refuses whoever has had its limit of this in this minute, and counts nothing.
    pub(super) fn allows(&self, event: Event, from: &Source) -> Result<(), Refusal> {
        match self.limit(event) {
            Some(limit) if self.seen(event, from) >= limit => Err(self.refusal(event)),
            Some(_) | None => Ok(()),
        }
    }

    /// Counts one that is about to happen; exact, however many happen at once.
    pub(super) fn admit(&self, event: Event, from: &Source) -> Result<(), Refusal> {
        self.allows(event, from)?;
        match self.limit(event) {
            Some(limit) if self.events.observe(&(event, from), 1) > limit => {
                Err(self.refusal(event))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Counts one that has happened. Those that were under way with it may pass the limit.
    pub(super) fn count(&self, event: Event, from: &Source) {
        if self.limit(event).is_some() {
            self.events.observe(&(event, from), 1);
        }
    }

    fn seen(&self, event: Event, from: &Source) -> isize {
        self.events.rate_with(&(event, from), |seen| seen.curr_samples)
    }

    fn limit(&self, event: Event) -> Option<isize> {
        let limit = match event {
            Event::Unpaid => self.limits.unpaid_per_minute,
            Event::UnknownKey => self.limits.unknown_keys_per_minute,
            Event::FailedRedemption => self.limits.failed_redemptions_per_minute,
            Event::Opening => self.limits.openings_per_minute,
        };
        (limit > 0).then(|| isize::try_from(limit).unwrap_or(isize::MAX))
    }

    fn refusal(&self, event: Event) -> Refusal {
        let (code, message) = match event {
            Event::Unpaid => (
                "too_many_unpaid_requests",
                "too many requests that show nothing to pay with have come from this address",
            ),
            Event::UnknownKey => (
                "too_many_unknown_keys",
                "too many keys that no account has have come from this address",
            ),
            Event::FailedRedemption => (
                "too_many_failed_redemptions",
                "too many Cashu tokens that are not worth anything here have come from this \
                 address; this one was not looked at",
            ),
            Event::Opening => (
                "too_many_openings",
                "too many accounts or invoices were asked for from this address",
            ),
        };
        let left = self.events.rate_with(&event, |at| {
            at.interval.saturating_sub(at.interval.mul_f64(at.current_interval_fraction))
        });
        let seconds = u32::try_from(left.as_millis().div_ceil(1000)).unwrap_or(u32::MAX);
        Refusal::new(Kind::RateLimitExceeded, code, message).retry_after_s(seconds.max(1))
    }
}

/// What a refusal says of whoever got it.
pub(super) fn told_by(code: &str) -> Option<Event> {
    Some(match code {
        "missing_api_key" | "invalid_api_key" | "invoice_not_found" | "refund_not_found" => {
            Event::UnknownKey
        }
        "cashu_token_already_spent"
        | "cashu_token_redemption_failed"
        | "cashu_token_swap_fees_exceed_amount"
        | "cashu_token_zero_value"
        | "invalid_cashu_token"
        | "mint_not_accepted" => Event::FailedRedemption,
        _ => return None,
    })
}

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// A key is counted too high only where it shares a counter in every row.
const ROWS: usize = 4;

/// Of each row. Both sketches hold two periods: 4 MiB each, whatever comes.
const COUNTERS: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ApiKey;

    fn guard(limit: u64) -> Guard {
        Guard::new(&config::Guard {
            trusted_proxies: Vec::new(),
            unpaid_per_minute: limit,
            unknown_keys_per_minute: limit,
            failed_redemptions_per_minute: limit,
            openings_per_minute: limit,
            unpaid_body_bytes_max: 0,
        })
    }

    fn network(nth: u32) -> Source {
        Source::Network(IpAddr::V4(nth.into()))
    }

    const EVENTS: [Event; 4] =
        [Event::Unpaid, Event::UnknownKey, Event::FailedRedemption, Event::Opening];

    #[test]
    fn exactly_the_limit_passes_for_every_event_and_address() {
        let guard = guard(3);
        for event in EVENTS {
            for from in [network(1), network(2)] {
                for _ in 0..3 {
                    guard.admit(event, &from).unwrap();
                }
                for _ in 0..5 {
                    let refusal = guard.admit(event, &from).unwrap_err();
                    assert_eq!(refusal.status_code(), 429);
                    assert!((1..=60).contains(&refusal.retry_after().unwrap()));
                }
                assert_eq!(guard.seen(event, &from), 3, "what is refused is not counted");
            }
            assert!(guard.allows(event, &network(3)).is_ok());
        }
    }

    #[test]
    fn what_is_known_only_afterwards_refuses_the_next() {
        let (guard, from) = (guard(2), network(1));
        for _ in 0..2 {
            guard.allows(Event::UnknownKey, &from).unwrap();
            guard.count(Event::UnknownKey, &from);
        }
        let refusal = guard.allows(Event::UnknownKey, &from).unwrap_err();
        assert_eq!(refusal.code(), "too_many_unknown_keys");
        assert!(guard.allows(Event::FailedRedemption, &from).is_ok());
    }

    #[test]
    fn no_limit_is_none() {
        let (guard, from) = (guard(0), network(1));
        for event in EVENTS {
            guard.count(event, &from);
            assert!((0..1000).all(|_| guard.admit(event, &from).is_ok()));
        }
    }

    #[test]
    fn a_key_that_was_served_is_itself_and_not_its_address() {
        let guard = guard(1);
        let account = ApiKey::of_cashu_token("cashuA").account();
        let address = || IpAddr::V4(1.into());
        assert_eq!(guard.source(Some(&account), address), network(1));
        guard.met(&account);
        assert_eq!(guard.source(Some(&account), address), Source::Known(account));
        let other = ApiKey::of_cashu_token("cashuB").account();
        assert_eq!(guard.source(Some(&other), address), network(1));
    }

    #[test]
    fn three_hundred_thousand_events_elsewhere_do_not_make_a_stranger_refused() {
        let guard = guard(30);
        for nth in 0..100_000 {
            guard.events.observe(&(Event::Unpaid, &network(nth)), 3);
        }
        let refused = (200_000..201_000)
            .filter(|nth| (0..10).any(|_| guard.admit(Event::Unpaid, &network(*nth)).is_err()));
        assert_eq!(refused.count(), 0);
    }
}
