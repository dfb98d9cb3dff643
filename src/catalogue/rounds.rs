//! Asking again and again, and knowing until when the last answer is good.

use std::time::Duration;

use tokio::time::sleep;

use crate::clock::Stopwatch;
use crate::pricing::feed;

/// The rounds of one thing that is asked for.
#[derive(Debug)]
pub(super) struct Rounds {
    every: Duration,
    stale_after: Duration,
    /// When the last good answer was asked for, so that it is never older than it counts as.
    /// `None`: there is none that still holds.
    good_since: Option<Stopwatch>,
    /// Whether the last round brought nothing.
    failed: bool,
}

impl Rounds {
    pub(super) fn new(every: Duration, stale_after: Duration) -> Self {
        Self { every, stale_after, good_since: None, failed: false }
    }

    /// The first round, at once.
    pub(super) async fn first<T>(&mut self, ask: impl Future<Output = Option<T>>) -> Option<T> {
        let began = Stopwatch::start();
        let answer = ask.await;
        self.noted(began, answer)
    }

    /// The next round, about `every` later, and soon after one that brought nothing. If the last
    /// good answer goes stale before there is another, `lapse` is called, in that moment and once.
    pub(super) async fn next<T>(
        &mut self,
        ask: impl Future<Output = Option<T>>,
        lapse: impl FnOnce(),
    ) -> Option<T> {
        let wait = about(self.wait());
        let round = async {
            sleep(wait).await;
            let began = Stopwatch::start();
            (began, ask.await)
        };
        tokio::pin!(round);
        let lasts = |since: Stopwatch| feed::lasts(since.elapsed(), self.stale_after);
        let left = self.good_since.map(|since| lasts(since).unwrap_or_default());
        let stale = async {
            match left {
                Some(left) => sleep(left).await,
                None => std::future::pending().await,
            }
        };
        let (began, answer) = tokio::select! {
            // In this order, so that an answer in the last moment counts.
            biased;
            ended = &mut round => ended,
            () = stale => {
                lapse();
                self.good_since = None;
                round.await
            }
        };
        self.noted(began, answer)
    }

    /// What is asked for once an hour is not given up for an hour.
    fn wait(&self) -> Duration {
        if self.failed { self.every.min(AGAIN_AFTER) } else { self.every }
    }

    fn noted<T>(&mut self, began: Stopwatch, answer: Option<T>) -> Option<T> {
        self.failed = answer.is_none();
        if answer.is_some() {
            self.good_since = Some(began);
        }
        answer
    }
}

/// Nine to eleven tenths, so that gateways which started together do not ask together for ever.
fn about(every: Duration) -> Duration {
    let mut dice = [0];
    // Without chance it is the middle.
    let die = getrandom::fill(&mut dice).map_or(128, |()| dice[0]);
    every * 9 / 10 + every / 5 * u32::from(die) / 256
}

/// How long somebody who has just failed is left alone.
const AGAIN_AFTER: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_round_comes_about_when_it_is_due() {
        for _ in 0..1_000 {
            let wait = about(MS * 1_000);
            assert!((MS * 900..MS * 1_100).contains(&wait), "{wait:?}");
        }
    }

    #[tokio::test]
    async fn a_round_that_brought_nothing_is_made_again_soon() {
        let mut rounds = Rounds::new(AGAIN_AFTER * 2, AGAIN_AFTER * 4);
        rounds.first(async { None::<u8> }).await;
        assert_eq!(rounds.wait(), AGAIN_AFTER);
        rounds.first(async { Some(1) }).await;
        assert_eq!(rounds.wait(), AGAIN_AFTER * 2);
        let mut often = Rounds::new(MS, MS * 20);
        often.first(async { None::<u8> }).await;
        assert_eq!(often.wait(), MS);
    }

    #[tokio::test]
    async fn what_is_stale_lapses_once_while_nobody_answers() {
        let lapsed = Cell::new(0);
        let lapse = || lapsed.set(lapsed.get() + 1);
        let mut rounds = Rounds::new(MS, MS * 20);
        assert_eq!(rounds.first(async { None::<u8> }).await, None);
        // There is nothing yet that could go stale.
        assert_eq!(rounds.next(async { Some(1) }, lapse).await, Some(1));
        assert_eq!(lapsed.get(), 0);
        // This one answers when it has gone stale, and not before.
        let after = async {
            while lapsed.get() == 0 {
                tokio::task::yield_now().await;
            }
            None::<u8>
        };
        assert_eq!(rounds.next(after, lapse).await, None);
        assert_eq!(rounds.next(async { None::<u8> }, lapse).await, None);
        assert_eq!(lapsed.get(), 1);
        assert_eq!(rounds.next(async { Some(2) }, lapse).await, Some(2));
        assert!(rounds.good_since.is_some());
    }
}
