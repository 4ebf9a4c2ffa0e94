//! What happens when: events ordered by time, and by the order they were made where times are equal.

use std::collections::BTreeMap;

use lvs_core::Instant;

/// A queue of events. The sequence number makes the order total, so that a run depends on nothing else.
#[derive(Debug)]
pub(crate) struct Schedule<E> {
    events: BTreeMap<(Instant, u64), E>,
    sequence: u64,
}

impl<E> Schedule<E> {
    pub(crate) fn new() -> Self {
        Self { events: BTreeMap::new(), sequence: 0 }
    }

    pub(crate) fn add(&mut self, at: Instant, event: E) {
        self.events.insert((at, self.sequence), event);
        self.sequence += 1;
    }

    /// The earliest event, if it is not after `until`.
    pub(crate) fn pop_until(&mut self, until: Instant) -> Option<(Instant, E)> {
        let entry = self.events.first_entry()?;
        if entry.key().0 > until {
            return None;
        }
        let ((at, _), event) = entry.remove_entry();
        Some((at, event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_in_the_order_they_were_made() {
        let mut schedule = Schedule::new();
        for (at, name) in [(2, "c"), (1, "a"), (2, "d"), (1, "b"), (9, "late")] {
            schedule.add(Instant::from_secs(at), name);
        }
        let order: Vec<_> = std::iter::from_fn(|| schedule.pop_until(Instant::from_secs(5))).collect();
        assert_eq!(order.iter().map(|(_, name)| *name).collect::<String>(), "abcd");
    }
}
