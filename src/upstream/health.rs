//! How an upstream does: what its answers say about it, and whether it is asked now.
//!
//! [`Health`] decides from reports and the time it is given. [`Asking`] is the right to ask once:
//! whoever has it reports how that went, and dropping it without a report says nothing about the
//! upstream.

use std::sync::Arc;
use std::time::Duration;

use super::Upstream;
use super::breaker::{Breaker, Moved, Pass, Position, Rules};
use super::latency::Latency;

/// How asking an upstream went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It began what was asked for.
    Answered {
        first_byte: Duration,
    },
    /// It answered that the client is mistaken, which is quickly said and shows that it lives.
    Declined,
    Failed(Failure),
    /// 429: it lives, and wants to be left alone for so long.
    Limited {
        retry_after: Duration,
    },
    /// It refused this gateway, with 401, 402, 403 or 407.
    Refused {
        status: u16,
    },
}

/// How an upstream can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No name, no connection, no TLS.
    Unreachable,
    /// No byte of an answer in time.
    TimedOut,
    /// 502, 503, 504 or 529.
    Status,
    /// It broke off, before an answer or in it; or what came is not HTTP.
    Broken,
}

impl Failure {
    pub const ALL: [Self; 4] = [Self::Unreachable, Self::TimedOut, Self::Status, Self::Broken];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::TimedOut => "timeout",
            Self::Status => "status",
            Self::Broken => "broken",
        }
    }
}

/// What is known of one upstream.
#[derive(Clone, Debug)]
pub(super) struct Health {
    breaker: Breaker,
    latency: Latency,
    limited_until: Duration,
    refuses: bool,
    /// Kept apart, because a key may be good for requests and not for what is probed.
    refuses_probes: bool,
    counts: Counts,
}

/// What has happened since the start, for the operator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// In the order of [`Failure::ALL`].
    pub failures: [u64; 4],
    /// In the order of [`REFUSALS`].
    pub refusals: [u64; 4],
}

/// The statuses that refuse this gateway and not its client.
pub const REFUSALS: [u16; 4] = [401, 402, 403, 407];

/// A report that an operator reads of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Moved(Moved),
    /// It refuses this gateway, with this status, and did not before.
    Refuses(u16),
    /// It takes this gateway again.
    Accepts,
}

impl Health {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            breaker: Breaker::new(rules),
            latency: Latency::default(),
            limited_until: Duration::ZERO,
            refuses: false,
            refuses_probes: false,
            counts: Counts::default(),
        }
    }

    pub(super) fn begin(&mut self, now: Duration) -> Option<Pass> {
        self.breaker.begin(now)
    }

    /// Until when it is better left alone; `None`: it can be asked now.
    pub(super) fn waits_until(&self, now: Duration) -> Option<Duration> {
        let limited = (now < self.limited_until).then_some(self.limited_until);
        self.breaker.waits_until(now).max(limited)
    }

    /// Until when [`Self::begin`] lets nobody through.
    pub(super) fn closed_until(&self, now: Duration) -> Option<Duration> {
        self.breaker.waits_until(now)
    }

    pub(super) fn position(&self, now: Duration) -> Position {
        self.breaker.position(now)
    }

    pub(super) fn first_byte(&self) -> Option<Duration> {
        self.latency.average()
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// At most two things change at once.
    pub(super) fn report(
        &mut self,
        pass: &mut Pass,
        outcome: Outcome,
        now: Duration,
    ) -> [Option<Change>; 2] {
        match outcome {
            Outcome::Answered { first_byte } => {
                self.latency.note(first_byte);
                self.lives(pass)
            }
            Outcome::Declined => self.lives(pass),
            Outcome::Limited { retry_after } => {
                let wait = retry_after.clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX);
                self.limited_until = self.limited_until.max(now.saturating_add(wait));
                self.lives(pass)
            }
            Outcome::Failed(failure) => {
                count(&mut self.counts.failures, &Failure::ALL, &failure);
                [self.breaker.failed(pass, now).map(Change::Moved), None]
            }
            Outcome::Refused { status } => {
                count(&mut self.counts.refusals, &REFUSALS, &status);
                self.refused(pass, status, now)
            }
        }
    }

    /// What is wrong with our credentials or our account is wrong for every request, so it counts
    /// as a failure. A 403 may be about what this one client asked for: were it to count, whoever
    /// asks for what is not allowed could close the upstream to everybody.
    fn refused(&mut self, pass: &mut Pass, status: u16, now: Duration) -> [Option<Change>; 2] {
        if status == FORBIDDEN {
            return [self.breaker.answered(pass).map(Change::Moved), None];
        }
        let news = !std::mem::replace(&mut self.refuses, true);
        let moved = self.breaker.failed(pass, now).map(Change::Moved);
        [news.then_some(Change::Refuses(status)), moved]
    }

    fn lives(&mut self, pass: &mut Pass) -> [Option<Change>; 2] {
        let accepts = std::mem::replace(&mut self.refuses, false).then_some(Change::Accepts);
        [accepts, self.breaker.answered(pass).map(Change::Moved)]
    }

    pub(super) fn abandoned(&mut self, pass: &Pass) {
        self.breaker.abandoned(pass);
    }

    /// What a probe found: a status, or no answer at all. One that is refused shows that the
    /// upstream lives, but not that it would serve: it neither opens nor closes the breaker.
    pub(super) fn probed(
        &mut self,
        found: Result<u16, Failure>,
        now: Duration,
    ) -> [Option<Change>; 2] {
        match found {
            Ok(status) if REFUSALS.contains(&status) && status != FORBIDDEN => {
                count(&mut self.counts.refusals, &REFUSALS, &status);
                let news = !std::mem::replace(&mut self.refuses_probes, true);
                return [news.then_some(Change::Refuses(status)), None];
            }
            Ok(FORBIDDEN) => count(&mut self.counts.refusals, &REFUSALS, &FORBIDDEN),
            Ok(_) => self.refuses_probes = false,
            Err(failure) => count(&mut self.counts.failures, &Failure::ALL, &failure),
        }
        [self.breaker.probed(found.is_ok(), now).map(Change::Moved), None]
    }
}

fn count<T: PartialEq, const N: usize>(counts: &mut [u64; N], all: &[T; N], one: &T) {
    for (count, _) in counts.iter_mut().zip(all).filter(|(_, known)| *known == one) {
        *count = count.saturating_add(1);
    }
}

/// The right to ask an upstream once.
///
/// Report when the head of its answer is there, or what came instead. An answer that breaks off
/// later is reported once more, as [`Failure::Broken`]; for that it is kept as long as the answer.
#[derive(Debug)]
#[must_use = "what asking has shown is reported"]
pub struct Asking {
    upstream: Arc<Upstream>,
    pass: Pass,
    reported: bool,
}

impl Asking {
    pub(super) fn new(upstream: Arc<Upstream>, pass: Pass) -> Self {
        Self { upstream, pass, reported: false }
    }

    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    pub fn report(&mut self, outcome: Outcome) {
        self.reported = true;
        self.upstream.report(&mut self.pass, outcome);
    }
}

/// A client that left before the answer, say: nothing is known, and another may try.
impl Drop for Asking {
    fn drop(&mut self) {
        if !self.reported {
            self.upstream.abandoned(&self.pass);
        }
    }
}

/// An upstream that says 429 is left alone for a second at least, and for an hour at most.
const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

const FORBIDDEN: u16 = 403;

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules { failures: 2, cooldown: Duration::from_secs(10) };
    const ANSWERED: Outcome = Outcome::Answered { first_byte: Duration::from_millis(7) };

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn health() -> Health {
        Health::new(RULES)
    }

    fn report(health: &mut Health, outcome: Outcome, now: Duration) -> Vec<Change> {
        let mut pass = health.begin(now).unwrap();
        health.report(&mut pass, outcome, now).into_iter().flatten().collect()
    }

    #[test]
    fn every_way_to_fail_counts_towards_the_breaker_and_is_counted_by_kind() {
        for (index, failure) in Failure::ALL.into_iter().enumerate() {
            let mut health = health();
            assert_eq!(report(&mut health, Outcome::Failed(failure), s(0)), []);
            let opened = Change::Moved(Moved::Opened(s(10)));
            assert_eq!(report(&mut health, Outcome::Failed(failure), s(0)), [opened]);
            assert_eq!(health.counts().failures[index], 2);
            assert_eq!(health.counts().failures.iter().sum::<u64>(), 2);
        }
    }

    #[test]
    fn a_limit_is_no_failure_and_waits_for_its_time_within_bounds() {
        let limited = |retry_after| {
            let mut health = health();
            for _ in 0..5 {
                report(&mut health, Outcome::Limited { retry_after }, s(100));
            }
            assert!(health.begin(s(100)).is_some(), "it may still be asked");
            assert_eq!(health.position(s(100)), Position::Closed);
            health
        };
        let waits = |retry_after| limited(retry_after).waits_until(s(100));
        assert_eq!(waits(s(30)), Some(s(130)));
        assert_eq!(waits(s(0)), Some(s(101)));
        assert_eq!(waits(s(3600)), Some(s(3700)));
        assert_eq!(waits(Duration::MAX), Some(s(3700)));
        assert_eq!(limited(s(30)).waits_until(s(130)), None);
    }

    #[test]
    fn credentials_that_are_refused_are_told_once_and_open_the_breaker() {
        let mut health = health();
        let refused = Outcome::Refused { status: 401 };
        assert_eq!(report(&mut health, refused, s(0)), [Change::Refuses(401)]);
        let opened = Change::Moved(Moved::Opened(s(10)));
        assert_eq!(report(&mut health, refused, s(0)), [opened]);
        let opened = Change::Moved(Moved::Opened(s(20)));
        assert_eq!(report(&mut health, refused, s(10)), [opened], "it is known already");
        let closed = Change::Moved(Moved::Closed);
        assert_eq!(report(&mut health, ANSWERED, s(30)), [Change::Accepts, closed]);
        assert_eq!(report(&mut health, refused, s(30)), [Change::Refuses(401)]);
        assert_eq!(health.counts().refusals, [4, 0, 0, 0]);
    }

    #[test]
    fn what_one_client_may_not_ask_for_closes_an_upstream_to_nobody() {
        let mut health = health();
        for _ in 0..100 {
            assert_eq!(report(&mut health, Outcome::Refused { status: 403 }, s(0)), []);
        }
        assert_eq!(health.waits_until(s(0)), None);
        assert_eq!(health.counts().refusals, [0, 0, 100, 0]);
    }

    #[test]
    fn only_answers_are_timed() {
        let mut health = health();
        report(&mut health, Outcome::Failed(Failure::TimedOut), s(0));
        report(&mut health, Outcome::Limited { retry_after: s(1) }, s(0));
        report(&mut health, Outcome::Declined, s(0));
        assert_eq!(health.first_byte(), None);
        report(&mut health, ANSWERED, s(0));
        assert_eq!(health.first_byte(), Some(Duration::from_millis(7)));
    }

    #[test]
    fn a_probe_that_is_refused_is_told_once_and_moves_nothing() {
        let mut health = health();
        assert_eq!(health.probed(Ok(401), s(0)), [Some(Change::Refuses(401)), None]);
        assert_eq!(health.probed(Ok(401), s(0)), [None, None]);
        assert_eq!(report(&mut health, ANSWERED, s(0)), [], "requests are another matter");
        assert_eq!(health.position(s(0)), Position::Closed);
        let opened = Change::Moved(Moved::Opened(s(10)));
        assert_eq!(health.probed(Err(Failure::TimedOut), s(0)), [Some(opened), None]);
        assert_eq!(health.probed(Ok(401), s(0)), [None, None]);
        assert_eq!(health.position(s(0)), Position::Open);
        let closed = Change::Moved(Moved::Closed);
        assert_eq!(health.probed(Ok(403), s(0)), [Some(closed), None]);
        assert_eq!(health.probed(Ok(200), s(0)), [None, None]);
        assert_eq!(health.probed(Ok(407), s(0)), [Some(Change::Refuses(407)), None]);
        assert_eq!(health.counts().refusals, [3, 0, 1, 1]);
    }
}
