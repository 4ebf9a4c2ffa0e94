//! Which servers have something due, and when: a step of a slow start, the end of a drain.
//! A handful of timers at most, so ordered trees do; connections have their wheel.

use alloc::collections::{BTreeMap, BTreeSet};

use crate::service::ServerId;
use crate::time::Instant;

/// What is due.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum ServerTimer {
    /// The effective weight may have grown.
    Ramp,
    /// The drain's time is over.
    Drain,
}

/// At most one timer of each kind a server.
#[derive(Debug, Default)]
pub(super) struct ServerTimers {
    due: BTreeMap<(ServerId, ServerTimer), Instant>,
    by_time: BTreeSet<(Instant, ServerId, ServerTimer)>,
}

impl ServerTimers {
    /// Sets a timer, or clears it.
    pub fn set(&mut self, id: ServerId, timer: ServerTimer, at: Option<Instant>) {
        let before = match at {
            Some(at) => self.due.insert((id, timer), at),
            None => self.due.remove(&(id, timer)),
        };
        if let Some(before) = before {
            self.by_time.remove(&(before, id, timer));
        }
        if let Some(at) = at {
            self.by_time.insert((at, id, timer));
        }
    }

    /// Clears both timers of a server.
    pub fn clear(&mut self, id: ServerId) {
        self.set(id, ServerTimer::Ramp, None);
        self.set(id, ServerTimer::Drain, None);
    }

    /// When the first one is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, ..)| *at)
    }

    /// Takes out the first one that is due.
    pub fn pop(&mut self, now: Instant) -> Option<(ServerId, ServerTimer)> {
        let (at, id, timer) = *self.by_time.first()?;
        if at > now {
            return None;
        }
        self.set(id, timer, None);
        Some((id, timer))
    }
}
