//! Time. The only file that asks the machine what time it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixMs(pub u64);

impl UnixMs {
    #[expect(clippy::disallowed_methods, reason = "this is the one clock")]
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    pub fn plus(self, duration: Duration) -> Self {
        let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(ms))
    }

    pub const fn to_i64(self) -> i64 {
        self.0.cast_signed()
    }

    pub fn from_i64(ms: i64) -> Self {
        Self(u64::try_from(ms).unwrap_or(0))
    }

    pub const fn whole_seconds(self) -> u64 {
        self.0 / 1000
    }
}

/// Whose time a ledger goes by: the machine's, or one that is set by hand in simulations.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    #[default]
    System,
    Manual(Arc<AtomicU64>),
}

impl Clock {
    pub fn manual(at: UnixMs) -> Self {
        Self::Manual(Arc::new(AtomicU64::new(at.0)))
    }

    /// The machine's. In a debug build that is told `NUTGATE_LEDGER_CLOCK_MS`, that moment, which
    /// then lasts: a window of a limit never ends while a test asks.
    pub fn of_a_fleet() -> Self {
        match standing_still() {
            Some(at) => Self::manual(at),
            None => Self::System,
        }
    }

    pub fn now(&self) -> UnixMs {
        match self {
            Self::System => UnixMs::now(),
            Self::Manual(at) => UnixMs(at.load(Ordering::SeqCst)),
        }
    }

    /// Sets a manual clock, forwards or back; the machine's cannot be set.
    pub fn set(&self, to: UnixMs) {
        if let Self::Manual(at) = self {
            at.store(to.0, Ordering::SeqCst);
        }
    }
}

#[cfg(debug_assertions)]
fn standing_still() -> Option<UnixMs> {
    std::env::var("NUTGATE_LEDGER_CLOCK_MS").ok()?.parse().ok().map(UnixMs)
}

#[cfg(not(debug_assertions))]
fn standing_still() -> Option<UnixMs> {
    None
}

/// A stopwatch: monotonic, for timings and deadlines within this process.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    #[expect(clippy::disallowed_methods, reason = "this is the one clock")]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}
