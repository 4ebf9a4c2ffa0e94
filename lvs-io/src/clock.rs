//! Where the worker loop gets the time from. The core never reads a clock; this is where one is read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lvs_core::Instant;

/// Tells the time.
pub trait Clock: Send {
    /// Now, in this clock's own epoch.
    fn now(&self) -> Instant;
}

/// The machine's monotonic clock; its epoch is when it was made.
#[derive(Clone, Copy, Debug)]
pub struct MonotonicClock {
    epoch: std::time::Instant,
}

impl MonotonicClock {
    /// A clock that starts at zero now.
    pub fn new() -> Self {
        Self { epoch: std::time::Instant::now() }
    }
}

impl Default for MonotonicClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for MonotonicClock {
    fn now(&self) -> Instant {
        Instant::ZERO + self.epoch.elapsed()
    }
}

/// A clock a test moves by hand. Clones share the time.
///
/// ```
/// use std::time::Duration;
/// use lvs_io::{Clock, ManualClock};
///
/// let clock = ManualClock::new();
/// let seen_by_the_worker = clock.clone();
/// clock.advance(Duration::from_secs(5));
/// assert_eq!(seen_by_the_worker.now(), lvs_core::Instant::from_secs(5));
/// ```
#[derive(Clone, Debug, Default)]
pub struct ManualClock {
    nanos: Arc<AtomicU64>,
}

impl ManualClock {
    /// A clock that stands at zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves the clock to `now`, which may lie in the past.
    pub fn set(&self, now: Instant) {
        self.nanos.store(now.as_nanos(), Ordering::Relaxed);
    }

    /// Moves the clock on.
    pub fn advance(&self, by: Duration) {
        self.set(self.now() + by);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Instant {
        Instant::from_nanos(self.nanos.load(Ordering::Relaxed))
    }
}
