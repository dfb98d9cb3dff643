//! When an upstream is left alone: a breaker, as a pure state machine.
//!
//! Closed, everybody is let through, and so many failures in a row open it. Open, nobody is until
//! a cooldown has passed. Then it is half open: one request at a time is let through as a trial.
//! An answer closes it; a failure opens it again for twice as long, up to a bound. There is no
//! clock in here: `now` is time since any one moment, and never goes back.

use std::time::Duration;

/// When to open, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rules {
    /// So many failures in a row open it; at least 1.
    pub(super) failures: u32,
    /// How long it stays open at first.
    pub(super) cooldown: Duration,
}

/// The state of one upstream.
#[derive(Clone, Debug)]
pub(super) struct Breaker {
    rules: Rules,
    /// How often it has opened. What was let through before says nothing about what is now.
    epoch: u64,
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    Closed { failures: u32 },
    Open(Open),
}

#[derive(Clone, Debug)]
struct Open {
    /// Nobody is let through before.
    until: Duration,
    /// How often it has opened since it was last closed; doubles the cooldown.
    in_a_row: u32,
    trials: u64,
    trial: Option<Trial>,
}

/// The one request that is let through.
#[derive(Clone, Copy, Debug)]
struct Trial {
    number: u64,
    /// From then on it counts as lost, and another one may try.
    lost_at: Duration,
}

/// What was let through. Whoever has it reports how it ended, or that it was abandoned.
#[derive(Debug)]
pub(super) struct Pass {
    epoch: u64,
    trial: Option<u64>,
    /// The failures in a row that its answer ended, should that answer break off.
    ended: u32,
}

/// What an operator sees of a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    Closed,
    HalfOpen,
    Open,
}

/// What a report has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moved {
    /// For how long.
    Opened(Duration),
    Closed,
}

impl Breaker {
    pub(super) fn new(rules: Rules) -> Self {
        Self { rules, epoch: 0, state: State::Closed { failures: 0 } }
    }

    /// Lets a request through, or not.
    pub(super) fn begin(&mut self, now: Duration) -> Option<Pass> {
        if self.waits_until(now).is_some() {
            return None;
        }
        let trial = match &mut self.state {
            State::Closed { .. } => None,
            State::Open(open) => {
                open.trials = open.trials.saturating_add(1);
                let lost_at = now.saturating_add(TRIAL_LASTS_MAX);
                open.trial = Some(Trial { number: open.trials, lost_at });
                Some(open.trials)
            }
        };
        Some(Pass { epoch: self.epoch, trial, ended: 0 })
    }

    /// When it may be tried again; `None`: at once.
    pub(super) fn waits_until(&self, now: Duration) -> Option<Duration> {
        let until = match &self.state {
            State::Closed { .. } => return None,
            State::Open(open) => open.trial.map_or(open.until, |trial| trial.lost_at),
        };
        (now < until).then_some(until)
    }

    pub(super) fn position(&self, now: Duration) -> Position {
        match &self.state {
            State::Closed { .. } => Position::Closed,
            State::Open(open) if now < open.until => Position::Open,
            State::Open(_) => Position::HalfOpen,
        }
    }

    /// The upstream has begun an answer. Whether it will end it is not known yet: see
    /// [`Self::failed`].
    pub(super) fn answered(&mut self, pass: &mut Pass) -> Option<Moved> {
        if pass.epoch != self.epoch {
            return None;
        }
        let before = std::mem::replace(&mut self.state, State::Closed { failures: 0 });
        match before {
            State::Closed { failures } => {
                pass.ended = failures;
                None
            }
            State::Open(_) => {
                pass.ended = self.rules.failures;
                Some(Moved::Closed)
            }
        }
    }

    /// The upstream has failed. Where it had begun an answer, that ended nothing after all: an
    /// upstream that breaks off every answer opens the breaker as well.
    pub(super) fn failed(&mut self, pass: &Pass, now: Duration) -> Option<Moved> {
        if pass.epoch != self.epoch {
            return None;
        }
        match &mut self.state {
            State::Closed { failures } => {
                *failures = (*failures).max(pass.ended).saturating_add(1);
                (*failures >= self.rules.failures).then(|| self.open(now))
            }
            State::Open(_) => Some(self.open(now)),
        }
    }

    /// The request ended without saying anything about the upstream.
    pub(super) fn abandoned(&mut self, pass: &Pass) {
        if let State::Open(open) = &mut self.state
            && pass.epoch == self.epoch
            && pass.trial.is_some()
            && pass.trial == open.trial.map(|trial| trial.number)
        {
            open.trial = None;
        }
    }

    /// The upstream was asked whether it lives.
    pub(super) fn probed(&mut self, alive: bool, now: Duration) -> Option<Moved> {
        match (&self.state, alive) {
            (State::Closed { .. }, true) => None,
            (State::Open(_), true) => {
                self.state = State::Closed { failures: 0 };
                Some(Moved::Closed)
            }
            (_, false) => Some(self.open(now)),
        }
    }

    fn open(&mut self, now: Duration) -> Moved {
        let before = match &self.state {
            State::Closed { .. } => 0,
            State::Open(open) => open.in_a_row,
        };
        let times = 1_u32.checked_shl(before).unwrap_or(u32::MAX);
        let max = COOLDOWN_MAX.max(self.rules.cooldown);
        let lasts = self.rules.cooldown.saturating_mul(times).min(max);
        self.epoch = self.epoch.wrapping_add(1);
        self.state = State::Open(Open {
            until: now.saturating_add(lasts),
            in_a_row: before.saturating_add(1),
            trials: 0,
            trial: None,
        });
        Moved::Opened(lasts)
    }
}

/// Doubling ends here, unless the configured cooldown is longer: an upstream that is back is
/// noticed within this.
pub(super) const COOLDOWN_MAX: Duration = Duration::from_secs(300);

/// A trial that has not been heard of for so long is given up, and another request may try.
pub(super) const TRIAL_LASTS_MAX: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULES: Rules = Rules { failures: 3, cooldown: Duration::from_secs(10) };

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn fail(breaker: &mut Breaker, now: Duration) -> Option<Moved> {
        let pass = breaker.begin(now).unwrap();
        breaker.failed(&pass, now)
    }

    fn opened() -> Breaker {
        let mut breaker = Breaker::new(RULES);
        for _ in 0..2 {
            assert_eq!(fail(&mut breaker, s(0)), None);
        }
        assert_eq!(fail(&mut breaker, s(0)), Some(Moved::Opened(s(10))));
        breaker
    }

    #[test]
    fn so_many_failures_in_a_row_open_it_and_an_answer_begins_the_count_anew() {
        let mut breaker = Breaker::new(RULES);
        for _ in 0..3 {
            assert_eq!(fail(&mut breaker, s(0)), None);
            assert_eq!(fail(&mut breaker, s(0)), None);
            let mut pass = breaker.begin(s(0)).unwrap();
            assert_eq!(breaker.answered(&mut pass), None);
        }
        assert_eq!(breaker.position(s(0)), Position::Closed);
        let breaker = opened();
        assert_eq!(breaker.position(s(9)), Position::Open);
        assert_eq!(breaker.waits_until(s(9)), Some(s(10)));
    }

    #[test]
    fn one_trial_at_a_time_is_let_through_when_the_cooldown_has_passed() {
        let mut breaker = opened();
        assert!(breaker.begin(s(9)).is_none());
        assert_eq!(breaker.position(s(10)), Position::HalfOpen);
        let mut trial = breaker.begin(s(10)).unwrap();
        assert!(breaker.begin(s(10)).is_none());
        assert_eq!(breaker.answered(&mut trial), Some(Moved::Closed));
        assert!(breaker.begin(s(10)).is_some());
        assert_eq!(breaker.position(s(10)), Position::Closed);
    }

    #[test]
    fn a_failed_trial_opens_it_for_twice_as_long_up_to_the_bound() {
        let mut breaker = opened();
        let mut now = s(10);
        for seconds in [20, 40, 80, 160, 300, 300] {
            assert_eq!(fail(&mut breaker, now), Some(Moved::Opened(s(seconds))));
            assert!(breaker.begin(now + s(seconds - 1)).is_none());
            now += s(seconds);
        }
        let mut trial = breaker.begin(now).unwrap();
        breaker.answered(&mut trial);
        assert_eq!(breaker.failed(&trial, now), Some(Moved::Opened(s(10))), "it starts over");
    }

    #[test]
    fn a_cooldown_beyond_the_bound_is_kept_and_not_doubled() {
        let cooldown = COOLDOWN_MAX + s(1);
        let mut breaker = Breaker::new(Rules { failures: 1, cooldown });
        assert_eq!(fail(&mut breaker, s(0)), Some(Moved::Opened(cooldown)));
        assert_eq!(fail(&mut breaker, cooldown), Some(Moved::Opened(cooldown)));
    }

    #[test]
    fn a_trial_that_is_abandoned_or_lost_makes_room_for_the_next() {
        let mut breaker = opened();
        let abandoned = breaker.begin(s(10)).unwrap();
        breaker.abandoned(&abandoned);
        let lost = breaker.begin(s(10)).unwrap();
        let lost_at = s(10) + TRIAL_LASTS_MAX;
        assert!(breaker.begin(lost_at - Duration::from_nanos(1)).is_none());
        let next = breaker.begin(lost_at).unwrap();
        breaker.abandoned(&lost);
        assert!(breaker.begin(lost_at).is_none(), "the lost one does not free another's place");
        assert_eq!(breaker.failed(&next, lost_at), Some(Moved::Opened(s(20))));
    }

    #[test]
    fn what_began_before_it_opened_says_nothing_any_more() {
        let mut breaker = Breaker::new(RULES);
        let (mut early, late) = (breaker.begin(s(0)).unwrap(), breaker.begin(s(0)).unwrap());
        for _ in 0..3 {
            fail(&mut breaker, s(0));
        }
        assert_eq!(breaker.answered(&mut early), None);
        assert_eq!(breaker.failed(&late, s(5)), None);
        assert_eq!(breaker.waits_until(s(5)), Some(s(10)));
    }

    #[test]
    fn answers_that_always_break_off_open_it_one_by_one_and_all_at_once() {
        let mut breaker = Breaker::new(RULES);
        let broken = |breaker: &mut Breaker| {
            let mut pass = breaker.begin(s(0)).unwrap();
            breaker.answered(&mut pass);
            breaker.failed(&pass, s(0))
        };
        assert_eq!(broken(&mut breaker), None);
        assert_eq!(broken(&mut breaker), None);
        assert_eq!(broken(&mut breaker), Some(Moved::Opened(s(10))));
        let mut breaker = Breaker::new(RULES);
        let mut open: Vec<Pass> = (0..3).map(|_| breaker.begin(s(0)).unwrap()).collect();
        for pass in &mut open {
            assert_eq!(breaker.answered(pass), None);
        }
        let moved: Vec<_> = open.iter().map(|pass| breaker.failed(pass, s(0))).collect();
        assert_eq!(moved, [None, None, Some(Moved::Opened(s(10)))]);
    }

    #[test]
    fn a_probe_opens_and_closes_it() {
        let mut breaker = Breaker::new(RULES);
        assert_eq!(breaker.probed(true, s(0)), None);
        assert_eq!(breaker.probed(false, s(0)), Some(Moved::Opened(s(10))));
        assert_eq!(breaker.probed(false, s(5)), Some(Moved::Opened(s(20))));
        assert_eq!(breaker.probed(true, s(6)), Some(Moved::Closed));
        assert!(breaker.begin(s(6)).is_some());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Begin,
        Answer(usize),
        Fail(usize),
        Abandon(usize),
        Probe(bool),
        Wait(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => Just(Step::Begin),
            1 => (0..8_usize).prop_map(Step::Answer),
            3 => (0..8_usize).prop_map(Step::Fail),
            1 => (0..8_usize).prop_map(Step::Abandon),
            1 => any::<bool>().prop_map(Step::Probe),
            2 => (0..100_u64).prop_map(Step::Wait),
        ];
        proptest::collection::vec(step, 0..200)
    }

    proptest! {
        #[test]
        fn whatever_happens_it_lets_one_trial_at_a_time_through_and_is_never_stuck(
            steps in steps(), failures in 1..4_u32,
        ) {
            let mut breaker = Breaker::new(Rules { failures, cooldown: s(7) });
            let (mut passes, mut now) = (Vec::new(), s(0));
            let mut trials: Vec<(u64, Option<u64>, Duration)> = Vec::new();
            for step in steps {
                let any = |at: usize, passes: &Vec<Pass>| at % passes.len().max(1);
                match step {
                    Step::Begin => if let Some(pass) = breaker.begin(now) {
                        if pass.trial.is_some() {
                            let lives = |(epoch, _, begun): &(u64, Option<u64>, Duration)| {
                                *epoch == pass.epoch && now < *begun + TRIAL_LASTS_MAX
                            };
                            prop_assert!(!trials.iter().any(lives));
                            trials.push((pass.epoch, pass.trial, now));
                        }
                        passes.push(pass);
                    },
                    Step::Probe(alive) => _ = breaker.probed(alive, now),
                    Step::Wait(seconds) => now += s(seconds),
                    Step::Answer(at) | Step::Fail(at) | Step::Abandon(at) => {
                        if passes.is_empty() {
                            continue;
                        }
                        let mut pass = passes.swap_remove(any(at, &passes));
                        match step {
                            Step::Answer(_) => _ = breaker.answered(&mut pass),
                            Step::Fail(_) => _ = breaker.failed(&pass, now),
                            _ => breaker.abandoned(&pass),
                        }
                        let ended = (pass.epoch, pass.trial);
                        trials.retain(|(epoch, trial, _)| (*epoch, *trial) != ended);
                    }
                }
                let at_last = now + COOLDOWN_MAX + TRIAL_LASTS_MAX;
                prop_assert!(breaker.clone().begin(at_last).is_some());
                let waits = breaker.waits_until(now);
                prop_assert_eq!(breaker.clone().begin(now).is_none(), waits.is_some());
                if let Some(until) = waits {
                    prop_assert!(until > now && breaker.clone().begin(until).is_some());
                }
            }
        }
    }
}
