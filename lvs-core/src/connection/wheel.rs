//! The timer wheel: which item is due next, in amortised constant work and without allocation after creation.
//! Decides only *when*; what an item is, and whether its deadline has moved meanwhile, its owner knows.
//!
//! Eight levels of 256 slots: level `n` sorts by byte `n` of the time in nanoseconds, so the wheel spans all of time,
//! an item comes up at exactly its time, and it moves down at most seven times (Varghese and Lauck 1987, scheme 7).

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::reserve::{Refused, bytes_of, filled, room};
use crate::time::Instant;

/// Timers over the item indexes `0..capacity`; each item is filed once or not at all.
///
/// An item's slot is found by the highest byte in which its time differs from `current`: that byte's position is the
/// level, its value the slot. So everything on a lower level is earlier than everything on a higher one, and within a
/// level a lower slot is earlier. `current` follows the clock forwards only; what is filed before it, because the clock
/// went back, waits in a list of its own that is searched by exact time.
pub(crate) struct Wheel {
    current: u64,
    /// Bit `n`: level `n` holds something.
    levels: u8,
    occupied: [[u64; WORDS]; LEVELS],
    /// First item of each slot's ring, then of the overdue ring; `NONE` if empty.
    heads: Box<[u32]>,
    links: Vec<Link>,
    capacity: u32,
    len: u32,
    /// The slot whose items are being returned or moved down; nothing else may come up before it is empty.
    draining: Option<u16>,
    overdue_len: u32,
    /// No overdue item is due before this.
    overdue_earliest: u64,
}

/// An item's place in its slot's ring.
#[derive(Clone, Copy)]
struct Link {
    at: u64,
    previous: u32,
    next: u32,
    slot: u16,
}

impl Wheel {
    /// A wheel for items `0..capacity`. Reserves all memory it will ever use (24 bytes an item).
    ///
    /// # Errors
    /// There is no memory for it.
    pub(crate) fn try_new(capacity: u32) -> Result<Self, Refused> {
        Ok(Self {
            current: 0,
            levels: 0,
            occupied: [[0; WORDS]; LEVELS],
            heads: filled(NONE, usize::from(OVERDUE) + 1)?,
            links: room(capacity)?,
            capacity,
            len: 0,
            draining: None,
            overdue_len: 0,
            overdue_earliest: u64::MAX,
        })
    }

    /// The same for tests.
    #[cfg(test)]
    pub(crate) fn new(capacity: u32) -> Self {
        Self::try_new(capacity).unwrap_or_else(|Refused| panic!("there is no memory for a table"))
    }

    /// How many bytes such a wheel takes.
    pub(crate) fn bytes(capacity: u32) -> u64 {
        bytes_of::<u32>(u64::from(OVERDUE) + 1) + bytes_of::<Link>(capacity.into())
    }

    /// Files `index` to come up at `at`, wherever it was filed before. Constant work.
    ///
    /// # Panics
    /// If `index` is not below the capacity.
    pub(crate) fn schedule(&mut self, index: u32, at: Instant) {
        assert!(index < self.capacity, "the wheel was made for fewer items");
        if self.links.len() <= index as usize {
            self.links.resize(index as usize + 1, Link::UNFILED);
        }
        self.cancel(index);
        self.len += 1;
        self.file(index, at.as_nanos());
    }

    /// Takes `index` out. Nothing happens if it is not filed. Constant work.
    pub(crate) fn cancel(&mut self, index: u32) {
        if self.filed_at(index).is_some() {
            self.unlink(index);
            self.len -= 1;
        }
    }

    /// The time `index` is filed for, if it is filed.
    pub(crate) fn filed_at(&self, index: u32) -> Option<Instant> {
        let link = self.links.get(index as usize)?;
        (link.slot != UNFILED).then(|| Instant::from_nanos(link.at))
    }

    /// Takes out and returns an item whose time is not after `now`; `None` if there is none, or if the budget ran out.
    ///
    /// Each item looked at or moved to a lower level costs one unit of `budget`; a later call goes on where this one
    /// stopped. Items come out in slot order and, within a slot, in the order they were filed: one sequence of calls
    /// always gives one sequence of items, but items closer together than a slot is wide may change places.
    pub(crate) fn pop_due(&mut self, now: Instant, budget: &mut u32) -> Option<u32> {
        let now = now.as_nanos();
        if let Some(index) = self.pop_overdue(now, budget) {
            return Some(index);
        }
        if now < self.current {
            return None; // The clock went back; everything else is filed at or after `current`.
        }
        while let Some(slot) = self.due_slot(now) {
            let index = self.heads[usize::from(slot)];
            if index == NONE {
                self.draining = None;
                continue;
            }
            spend(budget)?;
            self.unlink(index);
            let at = self.links[index as usize].at;
            if at <= now {
                self.len -= 1;
                return Some(index);
            }
            self.file(index, at);
        }
        None
    }

    /// When to call [`Wheel::pop_due`] next; `None` only while nothing is filed.
    ///
    /// Never later than the earliest item's time rounded up to the end of its 16.8 ms (2²⁴ ns). May be earlier: far
    /// items must first move down a level, and work that a budget cut short is due at once.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        if self.len == 0 {
            return None;
        }
        let filed = match self.is_draining() {
            true => self.current,
            false => self.first_slot().map_or(u64::MAX, |(level, _, start)| match level <= COARSE_LEVEL {
                true => start | ((1 << (8 * COARSE_LEVEL)) - 1),
                false => start,
            }),
        };
        let overdue = if self.overdue_len == 0 { u64::MAX } else { self.overdue_earliest };
        Some(Instant::from_nanos(filed.min(overdue)))
    }

    /// Whether [`Wheel::pop_due`] has work to do: `false` promises that nothing is due, `true` that it may be.
    pub(crate) fn may_be_due(&self, now: Instant) -> bool {
        let now = now.as_nanos();
        let overdue = self.overdue_len > 0 && self.overdue_earliest <= now;
        let filed = self.is_draining() || self.first_slot().is_some_and(|(_, _, start)| start <= now);
        overdue || filed && self.current <= now
    }

    /// Whether a slot whose time has come still holds something.
    fn is_draining(&self) -> bool {
        self.draining.is_some_and(|slot| self.heads[usize::from(slot)] != NONE)
    }

    /// The slot to empty next, if its time has come. Moves `current` up to it, or up to `now` if nothing is due.
    fn due_slot(&mut self, now: u64) -> Option<u16> {
        if self.draining.is_none() {
            match self.first_slot() {
                Some((_, slot, start)) if start <= now => {
                    self.current = start;
                    self.draining = Some(slot);
                }
                _ => self.current = now,
            }
        }
        self.draining
    }

    /// The earliest occupied slot: its level, number and first nanosecond.
    fn first_slot(&self) -> Option<(u32, u16, u64)> {
        if self.levels == 0 {
            return None;
        }
        let level = self.levels.trailing_zeros();
        let words = &self.occupied[level as usize];
        let word = words.iter().position(|&word| word != 0).expect("the level's bit says it holds something");
        let digit = word as u32 * u64::BITS + words[word].trailing_zeros();
        // Bytes above the level are those of `current`, bytes below it zero.
        let above = self.current & u64::MAX.checked_shl(8 * (level + 1)).unwrap_or(0);
        let start = above | u64::from(digit) << (8 * level);
        Some((level, (level * SLOTS + digit) as u16, start))
    }

    /// Looks through the items filed before `current`. All of them are due unless the clock went back.
    fn pop_overdue(&mut self, now: u64, budget: &mut u32) -> Option<u32> {
        if self.overdue_len == 0 || now < self.overdue_earliest {
            return None;
        }
        let mut earliest = u64::MAX;
        for _ in 0..self.overdue_len {
            spend(budget)?;
            let index = self.heads[usize::from(OVERDUE)];
            let link = self.links[index as usize];
            if link.at <= now {
                self.unlink(index);
                self.len -= 1;
                return Some(index);
            }
            earliest = earliest.min(link.at);
            // Turn the ring, so that a call with a small budget does not see the same items for ever.
            self.heads[usize::from(OVERDUE)] = link.next;
        }
        self.overdue_earliest = earliest;
        None
    }

    fn file(&mut self, index: u32, at: u64) {
        if at < self.current {
            self.overdue_earliest = if self.overdue_len == 0 { at } else { self.overdue_earliest.min(at) };
            self.overdue_len += 1;
            return self.link(index, at, OVERDUE);
        }
        // The highest byte that differs from `current`; the lowest one if none does.
        let level = (at ^ self.current).checked_ilog2().unwrap_or(0) / 8;
        let digit = (at >> (8 * level)) as u8;
        self.levels |= 1 << level;
        self.occupied[level as usize][usize::from(digit / 64)] |= 1 << (digit % 64);
        self.link(index, at, (level * SLOTS) as u16 + u16::from(digit));
    }

    /// Appends to the slot's ring.
    fn link(&mut self, index: u32, at: u64, slot: u16) {
        let head = self.heads[usize::from(slot)];
        if head == NONE {
            self.heads[usize::from(slot)] = index;
            self.links[index as usize] = Link { at, previous: index, next: index, slot };
            return;
        }
        let tail = self.links[head as usize].previous;
        self.links[tail as usize].next = index;
        self.links[head as usize].previous = index;
        self.links[index as usize] = Link { at, previous: tail, next: head, slot };
    }

    /// Takes a filed item out of its slot's ring and, if that was the last one, the slot out of the bitmaps.
    fn unlink(&mut self, index: u32) {
        let Link { previous, next, slot, .. } = self.links[index as usize];
        self.links[index as usize].slot = UNFILED;
        if slot == OVERDUE {
            self.overdue_len -= 1;
        }
        if next != index {
            self.links[previous as usize].next = next;
            self.links[next as usize].previous = previous;
            if self.heads[usize::from(slot)] == index {
                self.heads[usize::from(slot)] = next;
            }
            return;
        }
        self.heads[usize::from(slot)] = NONE;
        if slot != OVERDUE {
            let (level, digit) = (usize::from(slot) / SLOTS as usize, usize::from(slot) % SLOTS as usize);
            self.occupied[level][digit / 64] &= !(1 << (digit % 64));
            if self.occupied[level] == [0; WORDS] {
                self.levels &= !(1 << level);
            }
        }
    }

    /// Bytes reserved, to show that they never change.
    #[cfg(test)]
    pub(crate) fn reserved_len(&self) -> usize {
        self.links.capacity() * size_of::<Link>()
    }
}

/// Takes one unit from the budget; `None` if it is used up.
fn spend(budget: &mut u32) -> Option<()> {
    *budget = budget.checked_sub(1)?;
    Some(())
}

impl Link {
    const UNFILED: Self = Self { at: 0, previous: NONE, next: NONE, slot: UNFILED };
}

/// One level a byte of the time.
const LEVELS: usize = 8;
const SLOTS: u32 = 256;
const WORDS: usize = 4;
/// Level 3's slots are 2²⁴ ns = 16.8 ms wide: finer than that nobody needs to be woken.
const COARSE_LEVEL: u32 = 3;
/// The ring of items filed before `current`.
const OVERDUE: u16 = (LEVELS as u32 * SLOTS) as u16;
const UNFILED: u16 = u16::MAX;
const NONE: u32 = u32::MAX;

#[cfg(test)]
mod tests;
