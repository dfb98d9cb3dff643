//! What a key may do besides having the money: when it ends, how much it may spend, how fast.
//!
//! Windows are fixed and start with the first request in them; periods are calendar periods in
//! UTC, weeks starting on Monday. A clock that goes back restarts a window and never lengthens
//! one; a period that was over stays over.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]

use std::time::Duration;

use crate::clock::UnixMs;
use crate::money::Msat;

/// The limits of a gateway's configuration, for every key that has none of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub requests_per_minute: u64,
    pub tokens_per_hour: u64,
    /// Open reservations at any instant.
    pub concurrent: u64,
}

impl Limits {
    /// The largest number a limit can be, and as good as none: what a Redis script counts
    /// exactly.
    pub const MOST: u64 = (1 << 53) - 1;
    pub const NONE: Self = Self {
        requests_per_minute: Self::MOST,
        tokens_per_hour: Self::MOST,
        concurrent: Self::MOST,
    };
}

/// What one key may do. Written when the key is opened; a key cannot change its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Not valid from here on.
    pub expires: Option<UnixMs>,
    pub cap: Option<Cap>,
    pub requests_per_minute: Option<u64>,
    pub tokens_per_hour: Option<u64>,
    pub concurrent: Option<u64>,
}

impl Terms {
    pub fn limits(&self, configured: Limits) -> Limits {
        Limits {
            requests_per_minute: self.requests_per_minute.unwrap_or(configured.requests_per_minute),
            tokens_per_hour: self.tokens_per_hour.unwrap_or(configured.tokens_per_hour),
            concurrent: self.concurrent.unwrap_or(configured.concurrent),
        }
    }

    /// A parent took this key back.
    pub fn is_revoked(&self) -> bool {
        self.expires == Some(REVOKED)
    }

    pub(super) fn period(&self, now: UnixMs) -> u64 {
        self.cap.map_or(0, |cap| cap.reset.period(now))
    }
}

/// The most that a key may spend, open reservations included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cap {
    pub amount: Msat,
    pub reset: Reset,
}

/// When what was spent under a cap is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    Never,
    Daily,
    Weekly,
    Monthly,
}

impl Reset {
    const ALL: [Self; 4] = [Self::Never, Self::Daily, Self::Weekly, Self::Monthly];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reset| reset.name() == name)
    }

    /// The number of the period that `now` falls in; a later one is larger.
    pub fn period(self, now: UnixMs) -> u64 {
        let days = now.0 / DAY_MS;
        match self {
            Self::Never => 0,
            Self::Daily => days,
            // 1970 began on a Thursday.
            Self::Weekly => days.saturating_add(3) / 7,
            Self::Monthly => months(days),
        }
    }
}

/// Months since March of the year 0, from days since 1970. Counting from March puts the leap
/// day last, so that the lengths of months repeat every five.
fn months(days: u64) -> u64 {
    let days = days.saturating_add(DAYS_BEFORE_1970);
    let (era, day) = (days / DAYS_PER_ERA, days % DAYS_PER_ERA);
    let leap_days = |day: u64| (day / 1_460).saturating_add(day / 146_096);
    let year = day.saturating_add(day / 36_524).saturating_sub(leap_days(day)) / 365;
    let before = year.saturating_mul(365).saturating_add(year / 4).saturating_sub(year / 100);
    let month = day.saturating_sub(before).saturating_mul(5).saturating_add(2) / 153;
    era.saturating_mul(400).saturating_add(year).saturating_mul(12).saturating_add(month)
}

/// What has gone through a key, as far as its terms and limits ask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Reservations open now, and what they hold.
    pub open: u64,
    pub held: Msat,
    pub tokens_held: u64,
    /// Spent through this key ever, and at the beginning of the cap's current period.
    pub spent: Msat,
    pub spent_before: Msat,
    pub period: u64,
    pub requests: Window,
    pub tokens: Window,
}

impl Usage {
    /// What counts against a cap at `period`: spent in it, and held.
    pub(super) fn under_cap(&self, period: u64) -> Msat {
        let before = if period > self.period { self.spent } else { self.spent_before };
        self.spent.saturating_sub(before).saturating_add(self.held)
    }

    /// What these limits leave. Tokens are counted when they were used, and before that as the
    /// most that open requests may use.
    pub fn standing(&self, limits: Limits, now: UnixMs) -> Standing {
        let requests = self.requests.at(now, REQUESTS_WINDOW);
        let tokens = self.tokens.at(now, TOKENS_WINDOW);
        let used = tokens.count.saturating_add(self.tokens_held);
        Standing {
            requests: Room {
                limit: limits.requests_per_minute,
                left: limits.requests_per_minute.saturating_sub(requests.count),
                reset_in: requests.ends_in(now, REQUESTS_WINDOW),
            },
            tokens: Room {
                limit: limits.tokens_per_hour,
                left: limits.tokens_per_hour.saturating_sub(used),
                reset_in: tokens.ends_in(now, TOKENS_WINDOW),
            },
        }
    }

    /// The same by another clock than the ledger's: by one that is behind, a window that has
    /// begun begins now, and does not start again.
    pub fn standing_about(&self, limits: Limits, now: UnixMs) -> Standing {
        let begun = |window: Window| Window { start: window.start.min(now), ..window };
        let (requests, tokens) = (begun(self.requests), begun(self.tokens));
        Self { requests, tokens, ..self.clone() }.standing(limits, now)
    }
}

/// Where a key stands with its limits at one moment of the ledger's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    pub requests: Room,
    pub tokens: Room,
}

/// What one limit leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    pub limit: u64,
    pub left: u64,
    /// Until the window ends; a window that nothing was counted in yet is still whole.
    pub reset_in: Duration,
}

impl Standing {
    /// The same after so much time, as far as it is known: only windows are nearer to their end.
    pub fn after(self, elapsed: Duration) -> Self {
        let after = |room: Room| Room { reset_in: room.reset_in.saturating_sub(elapsed), ..room };
        Self { requests: after(self.requests), tokens: after(self.tokens) }
    }
}

/// A count that starts again when its time is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    pub start: UnixMs,
    pub count: u64,
}

impl Window {
    /// This window if `now` falls in it and anything was counted in it, else a new one.
    pub fn at(self, now: UnixMs, length: Duration) -> Self {
        if self.count > 0 && self.start <= now && now < self.start.plus(length) {
            self
        } else {
            Self { start: now, count: 0 }
        }
    }

    pub(super) fn plus(self, count: u64) -> Self {
        Self { count: self.count.saturating_add(count).min(Limits::MOST), ..self }
    }

    /// How long until it starts again.
    pub fn ends_in(self, now: UnixMs, length: Duration) -> Duration {
        Duration::from_millis(self.start.plus(length).0.saturating_sub(now.0))
    }
}

/// When a revoked key expired: before every clock. Nobody can ask for this instant.
pub const REVOKED: UnixMs = UnixMs(0);

pub const REQUESTS_WINDOW: Duration = Duration::from_secs(60);
pub const TOKENS_WINDOW: Duration = Duration::from_secs(3_600);

const DAY_MS: u64 = 86_400_000;
/// From the first of March of the year 0 to the first of January 1970.
const DAYS_BEFORE_1970: u64 = 719_468;
/// 400 years, after which the calendar repeats.
const DAYS_PER_ERA: u64 = 146_097;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn at(days: u64) -> UnixMs {
        UnixMs(days * DAY_MS)
    }

    #[test]
    fn months_begin_on_their_first_day_in_leap_years_and_others() {
        // 2024-02-29, 2024-03-01, 2024-12-31, 2025-01-01, 2025-02-28, 2025-03-01
        let days = [19_782, 19_783, 20_088, 20_089, 20_147, 20_148];
        let months = days.map(|day| Reset::Monthly.period(at(day)));
        let first = months[0];
        assert_eq!(months.map(|month| month - first), [0, 1, 10, 11, 12, 13]);
        let days_of_century = 0..36_525;
        let changes = days_of_century
            .filter(|day| Reset::Monthly.period(at(*day)) != Reset::Monthly.period(at(*day + 1)));
        assert_eq!(changes.count(), 1_200, "a century has 1,200 months");
    }

    #[test]
    fn weeks_begin_on_monday_and_days_at_midnight() {
        // 2026-11-22 is a Sunday.
        assert_ne!(Reset::Weekly.period(at(20_779)), Reset::Weekly.period(at(20_780)));
        assert_eq!(Reset::Weekly.period(at(20_779)), Reset::Weekly.period(at(20_773)));
        let midnight = at(20_780);
        assert_ne!(Reset::Daily.period(UnixMs(midnight.0 - 1)), Reset::Daily.period(midnight));
    }

    #[test]
    fn a_window_ends_by_time_and_restarts_when_the_clock_goes_back() {
        let window = Window { start: UnixMs(1_000), count: 7 };
        let minute = REQUESTS_WINDOW;
        assert_eq!(window.at(UnixMs(60_999), minute), window);
        assert_eq!(window.at(UnixMs(61_000), minute), Window { start: UnixMs(61_000), count: 0 });
        assert_eq!(window.at(UnixMs(999), minute), Window { start: UnixMs(999), count: 0 });
        assert_eq!(window.ends_in(UnixMs(60_000), minute), Duration::from_secs(1));
    }

    const fn limits(requests_per_minute: u64, tokens_per_hour: u64) -> Limits {
        Limits { requests_per_minute, tokens_per_hour, concurrent: 1 }
    }

    #[test]
    fn a_standing_says_what_is_left_and_when_each_window_ends() {
        let usage = Usage {
            requests: Window { start: UnixMs(1_000), count: 3 },
            tokens: Window { start: UnixMs(500), count: 40 },
            tokens_held: 50,
            ..Usage::default()
        };
        let standing = usage.standing(limits(3, 100), UnixMs(2_000));
        let reset_in = Duration::from_secs(59);
        assert_eq!(standing.requests, Room { limit: 3, left: 0, reset_in });
        let reset_in = Duration::from_millis(3_598_500);
        assert_eq!(standing.tokens, Room { limit: 100, left: 10, reset_in });
        assert_eq!(standing.after(Duration::from_secs(60)).requests.reset_in, Duration::ZERO);
        // What open requests hold outlives the window.
        let later = usage.standing(limits(3, 100), UnixMs(7_200_000));
        assert_eq!((later.requests.left, later.tokens.left), (3, 50));
        assert_eq!(later.requests.reset_in, REQUESTS_WINDOW);
    }

    #[test]
    fn a_clock_that_is_behind_the_ledgers_does_not_make_a_window_start_again() {
        let usage =
            Usage { requests: Window { start: UnixMs(10_000), count: 3 }, ..Usage::default() };
        let behind = usage.standing_about(limits(5, 100), UnixMs(9_990));
        assert_eq!(behind.requests, Room { limit: 5, left: 2, reset_in: REQUESTS_WINDOW });
        let ahead = usage.standing_about(limits(5, 100), UnixMs(69_999));
        assert_eq!(ahead, usage.standing(limits(5, 100), UnixMs(69_999)));
    }

    fn window() -> impl Strategy<Value = Window> {
        let start = prop_oneof![0..10_000_u64, any::<u64>()];
        let count = prop_oneof![0..10_u64, 0..=Limits::MOST];
        (start, count).prop_map(|(start, count)| Window { start: UnixMs(start), count })
    }

    proptest! {
        #[test]
        fn nothing_negative_is_left_and_what_is_gone_was_used_or_is_held(
            requests in window(),
            tokens in window(),
            tokens_held in prop_oneof![0..10_u64, 0..=Limits::MOST],
            most in prop_oneof![0..20_u64, 0..=Limits::MOST],
            now in prop_oneof![0..10_000_u64, any::<u64>()],
        ) {
            let usage = Usage { requests, tokens, tokens_held, ..Usage::default() };
            let Standing { requests: made, tokens: used } =
                usage.standing(limits(most, most), UnixMs(now));
            let counted = |window: Window, length| window.at(UnixMs(now), length).count;
            let made_now = counted(requests, REQUESTS_WINDOW);
            let used_now = counted(tokens, TOKENS_WINDOW).saturating_add(tokens_held);
            prop_assert_eq!(made.limit - made.left, made_now.min(most));
            prop_assert_eq!(used.limit - used.left, used_now.min(most));
            prop_assert!(made.reset_in <= REQUESTS_WINDOW && used.reset_in <= TOKENS_WINDOW);
        }
    }
}
