//! What happens when: events ordered by time, and by the order they were made where times are equal.

use std::collections::BTreeMap;

use lvs_core::Instant;

/// A queue of events. The sequence number makes the order total, so that a run depends on nothing else.
#[derive(Debug)]
pub(crate) struct Schedule<E> {
    events: BTreeMap<(Instant, u64), Entry<E>>,
    sequence: u64,
    /// How many events are no timers.
    work: usize,
}

#[derive(Debug)]
struct Entry<E> {
    event: E,
    is_timer: bool,
}

impl<E> Schedule<E> {
    pub(crate) fn new() -> Self {
        Self { events: BTreeMap::new(), sequence: 0, work: 0 }
    }

    /// Adds something that will happen: while there is such an event, the network is not idle.
    pub(crate) fn add(&mut self, at: Instant, event: E) {
        self.insert(at, Entry { event, is_timer: false });
        self.work += 1;
    }

    /// Adds a time at which somebody wants to be asked.
    pub(crate) fn add_timer(&mut self, at: Instant, event: E) {
        self.insert(at, Entry { event, is_timer: true });
    }

    fn insert(&mut self, at: Instant, entry: Entry<E>) {
        self.events.insert((at, self.sequence), entry);
        self.sequence += 1;
    }

    /// Whether nothing but timers is left.
    pub(crate) fn is_idle(&self) -> bool {
        self.work == 0
    }

    /// Whether there is an event that is not after `until`.
    pub(crate) fn is_due(&self, until: Instant) -> bool {
        self.events.first_key_value().is_some_and(|((at, _), _)| *at <= until)
    }

    /// The earliest event, if it is not after `until`.
    pub(crate) fn pop_until(&mut self, until: Instant) -> Option<(Instant, E)> {
        if !self.is_due(until) {
            return None;
        }
        let ((at, _), entry) = self.events.pop_first()?;
        self.work -= usize::from(!entry.is_timer);
        Some((at, entry.event))
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

    #[test]
    fn timers_do_not_keep_it_busy() {
        let mut schedule = Schedule::new();
        schedule.add_timer(Instant::from_secs(1), "timer");
        assert!(schedule.is_idle());
        schedule.add(Instant::from_secs(2), "packet");
        assert!(!schedule.is_idle());
        while schedule.pop_until(Instant::from_secs(2)).is_some() {}
        assert!(schedule.is_idle());
    }
}
