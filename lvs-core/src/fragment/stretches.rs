//! Which stretches of a datagram have come, without their bytes: enough to see overlaps and its end.

/// Disjoint stretches of one datagram that may be known at once; parts that come in order make one.
const STRETCHES_MAX: usize = 16;

/// Disjoint stretches of a datagram, in order; those that touch are one.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Stretches {
    stretches: [(u32, u32); STRETCHES_MAX],
    len: usize,
}

impl Stretches {
    fn known(&self) -> &[(u32, u32)] {
        &self.stretches[..self.len]
    }

    /// Where the last one ends.
    pub fn reach(&self) -> u32 {
        self.known().last().map_or(0, |(_, end)| *end)
    }

    /// Whether this stretch overlaps none.
    pub fn is_free(&self, start: u32, end: u32) -> bool {
        self.known().iter().all(|(known_start, known_end)| end <= *known_start || start >= *known_end)
    }

    /// Whether this stretch overlaps none, and there is room to note it.
    pub fn has_room_for(&self, start: u32, end: u32) -> bool {
        let touches = self.known().iter().any(|(known_start, known_end)| end == *known_start || start == *known_end);
        self.is_free(start, end) && (touches || self.len < STRETCHES_MAX)
    }

    /// Notes a stretch there is room for.
    pub fn add(&mut self, start: u32, end: u32) {
        let at = self.known().iter().position(|(known_start, _)| *known_start >= end).unwrap_or(self.len);
        let joins_before = at > 0 && self.stretches[at - 1].1 == start;
        let joins_after = at < self.len && self.stretches[at].0 == end;
        match (joins_before, joins_after) {
            (true, true) => {
                self.stretches[at - 1].1 = self.stretches[at].1;
                self.stretches.copy_within(at + 1..self.len, at);
                self.len -= 1;
            }
            (true, false) => self.stretches[at - 1].1 = end,
            (false, true) => self.stretches[at].0 = start,
            (false, false) if self.len < STRETCHES_MAX => {
                self.stretches.copy_within(at..self.len, at + 1);
                self.stretches[at] = (start, end);
                self.len += 1;
            }
            (false, false) => {}
        }
    }

    /// Whether all of so many bytes has come, and nothing else.
    pub fn is_exactly(&self, end: u32) -> bool {
        self.known() == [(0, end)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_grow_together_whatever_their_order() {
        let mut seen = Stretches::default();
        for (start, end) in [(704, 900), (0, 400), (400, 704)] {
            assert!(seen.has_room_for(start, end));
            seen.add(start, end);
        }
        assert!(seen.is_exactly(900));
    }

    #[test]
    fn an_overlap_of_one_byte_is_seen_on_either_side() {
        let mut seen = Stretches::default();
        seen.add(80, 160);
        assert!(!seen.has_room_for(0, 81));
        assert!(!seen.has_room_for(159, 200));
        assert!(!seen.has_room_for(80, 160));
        assert!(seen.has_room_for(0, 80) && seen.has_room_for(160, 200));
    }

    #[test]
    fn more_holes_than_fit_are_refused() {
        let mut seen = Stretches::default();
        for hole in 0..STRETCHES_MAX as u32 {
            seen.add(hole * 16, hole * 16 + 8);
        }
        assert!(!seen.has_room_for(8000, 8008));
        assert!(seen.has_room_for(8, 16), "a part that closes a hole still fits");
    }
}
