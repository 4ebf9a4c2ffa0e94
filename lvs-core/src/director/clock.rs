//! The time inside. It never runs backwards and goes on at the caller's pace, whatever the caller's clock does: one that
//! is set back goes on from where it was; one that leaps ahead and comes back has ended once what its leap ended.

use core::time::Duration;

use crate::time::Instant;

/// What the caller's clock says, and the time inside.
#[derive(Debug)]
pub(super) struct Clock {
    /// What the caller's clock said last, but for small steps back.
    told: Instant,
    /// The time inside, as of the last call; it never runs backwards.
    pub now: Instant,
}

impl Clock {
    pub const START: Self = Self { told: Instant::ZERO, now: Instant::ZERO };

    /// The caller's clock says this.
    #[inline]
    pub fn advance(&mut self, told: Instant) -> Instant {
        let step = told.as_nanos().wrapping_sub(self.told.as_nanos());
        if step > LEAP_MAX_NANOS {
            return self.leap(told);
        }
        self.told = told;
        self.now = Instant::from_nanos(self.now.as_nanos().saturating_add(step));
        self.now
    }

    #[cold]
    fn leap(&mut self, told: Instant) -> Instant {
        self.now = self.time_at(told);
        // Clocks of several processors differ a little: such a step back is waited out.
        if told > self.told || self.told.duration_since(told) > STEP_BACK_MAX {
            self.told = told;
        }
        self.now
    }

    /// The time inside when the caller's clock says this, for those who only look.
    pub fn time_at(&self, told: Instant) -> Instant {
        match told.as_nanos().checked_sub(self.told.as_nanos()) {
            Some(step) => self.now + Duration::from_nanos(step.min(LEAP_MAX_NANOS)),
            None => self.now,
        }
    }

    /// When something is due, by the caller's clock; `None` if that ends before.
    pub fn told_at(&self, due: Instant) -> Option<Instant> {
        let (told, now, due) = (self.told.as_nanos(), self.now.as_nanos(), due.as_nanos());
        match due.checked_sub(now) {
            Some(ahead) => told.checked_add(ahead),
            None => Some(told.saturating_sub(now - due)),
        }
        .map(Instant::from_nanos)
    }
}

/// A longer leap ahead counts as this much: a year. So no clock can bring about the end of time, at which all ends.
const LEAP_MAX_NANOS: u64 = 365 * 86_400 * 1_000_000_000;
/// A clock that goes back further was set back.
const STEP_BACK_MAX: Duration = Duration::from_secs(1);
