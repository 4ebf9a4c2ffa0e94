//! Records that end: a slab with generations in its ids, and the timer of each record.
//! Decides when a record is due to end; how records are found by their keys is the tables' business.

use alloc::vec::Vec;
use core::time::Duration;

use crate::connection::wheel::Wheel;
use crate::reserve::{Refused, bytes_of, room};
use crate::time::Instant;

/// A record with a timer.
pub(crate) trait Timed {
    /// When it ends.
    fn deadline(&self) -> Instant;
    /// Writes when it ends, and how far that was ahead when it was last refreshed.
    fn set_timer(&mut self, timeout: Duration, deadline: Instant);
    /// Brings its end forward.
    fn set_deadline(&mut self, deadline: Instant);
}

/// A record in its place, with what its timer needs.
pub(crate) struct Tenant<'a, T> {
    pub record: &'a mut T,
    is_filed: bool,
}

impl<T: Timed> Tenant<'_, T> {
    /// [`Store::rearm`] where the wheel need not know: the record is filed already, and its end is put off. Returns
    /// whether that was so.
    #[inline]
    pub(crate) fn put_off(&mut self, now: Instant, timeout: Duration) -> bool {
        let deadline = now + timeout;
        // A filed record comes up no later than at its old deadline.
        let is_put_off = self.is_filed && self.record.deadline() <= deadline;
        if is_put_off {
            self.record.set_timer(timeout, deadline);
        }
        is_put_off
    }
}

/// A record's place and which of the place's tenants it is. A handle to a removed record finds nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct Handle {
    pub(crate) index: u32,
    generation: u32,
}

impl Handle {
    /// As one number, for a snapshot to name it by.
    pub(crate) fn to_bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }
}

/// At most `capacity` records. All memory is reserved at creation.
pub(crate) struct Store<T> {
    slots: Vec<Slot<T>>,
    /// The free place used last, which leads to the others.
    free: Option<u32>,
    len: u32,
    capacity: u32,
    wheel: Wheel,
}

/// A place. Aligned, so that the beginning of a record shares one cache line with the generation.
#[repr(C, align(64))]
struct Slot<T> {
    generation: u32,
    /// Whether the wheel knows the record; saves a look there with every packet.
    is_filed: bool,
    content: Content<T>,
}

enum Content<T> {
    Free { next: Option<u32> },
    Record(T),
}

impl<T: Timed> Store<T> {
    /// An empty store for `capacity` records.
    ///
    /// # Errors
    /// There is no memory for it.
    pub(crate) fn try_new(capacity: u32) -> Result<Self, Refused> {
        Ok(Self { slots: room(capacity)?, free: None, len: 0, capacity, wheel: Wheel::try_new(capacity)? })
    }

    /// How many bytes such a store takes.
    pub(crate) fn bytes(capacity: u32) -> u64 {
        bytes_of::<Slot<T>>(capacity.into()) + Wheel::bytes(capacity)
    }

    /// Adds a record and starts its timer; `None` if the store is full.
    pub(crate) fn insert(&mut self, record: T) -> Option<Handle> {
        if self.len == self.capacity {
            return None;
        }
        let deadline = record.deadline();
        let index = match self.free {
            Some(index) => index,
            None => {
                self.slots.push(Slot { generation: 0, is_filed: false, content: Content::Free { next: None } });
                self.slots.len() as u32 - 1
            }
        };
        let slot = &mut self.slots[index as usize];
        match core::mem::replace(&mut slot.content, Content::Record(record)) {
            Content::Free { next } => self.free = next,
            Content::Record(_) => unreachable!("the free list holds free places only"),
        }
        slot.is_filed = true;
        let generation = slot.generation;
        self.len += 1;
        self.wheel.schedule(index, deadline);
        Some(Handle { index, generation })
    }

    /// Removes a record and its timer; `None` if it is gone.
    pub(crate) fn remove(&mut self, handle: Handle) -> Option<T> {
        self.get(handle)?;
        self.wheel.cancel(handle.index);
        let slot = &mut self.slots[handle.index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        self.len -= 1;
        match core::mem::replace(&mut slot.content, Content::Free { next: self.free.replace(handle.index) }) {
            Content::Record(record) => Some(record),
            Content::Free { .. } => unreachable!("the handle found a record"),
        }
    }

    /// The record, unless it is gone.
    #[inline]
    pub(crate) fn get(&self, handle: Handle) -> Option<&T> {
        match self.slots.get(handle.index as usize)? {
            Slot { generation, content: Content::Record(record), .. } if *generation == handle.generation => {
                Some(record)
            }
            _ => None,
        }
    }

    /// The record, unless it is gone. Its timer is not for the caller to write.
    #[inline]
    pub(crate) fn get_mut(&mut self, handle: Handle) -> Option<&mut T> {
        match self.slots.get_mut(handle.index as usize)? {
            Slot { generation, content: Content::Record(record), .. } if *generation == handle.generation => {
                Some(record)
            }
            _ => None,
        }
    }

    /// The record with its timer, unless it is gone.
    #[inline]
    pub(crate) fn tenant(&mut self, handle: Handle) -> Option<Tenant<'_, T>> {
        match self.slots.get_mut(handle.index as usize)? {
            Slot { generation, is_filed, content: Content::Record(record) } if *generation == handle.generation => {
                Some(Tenant { record, is_filed: *is_filed })
            }
            _ => None,
        }
    }

    /// The record in a place, with its handle.
    #[inline]
    pub(crate) fn at(&self, index: u32) -> Option<(Handle, &T)> {
        let slot = self.slots.get(index as usize)?;
        match &slot.content {
            Content::Record(record) => Some((Handle { index, generation: slot.generation }, record)),
            Content::Free { .. } => None,
        }
    }

    /// Restarts a record's timer: it ends `timeout` after `now`. Returns whether the record is still there.
    ///
    /// A later end is only written and looked at when the old one comes up, so that refreshing costs nothing with every
    /// packet; an earlier one is filed at once.
    #[inline]
    pub(crate) fn rearm(&mut self, handle: Handle, now: Instant, timeout: Duration) -> bool {
        let Some(mut tenant) = self.tenant(handle) else { return false };
        if !tenant.put_off(now, timeout) {
            let deadline = now + timeout;
            tenant.record.set_timer(timeout, deadline);
            self.file(handle.index, deadline);
        }
        true
    }

    /// Ends a record now, leaving its timeout as it is. It stays in its place until it comes up.
    /// Returns whether the record is still there.
    pub(crate) fn expire_now(&mut self, handle: Handle, now: Instant) -> bool {
        let Some(record) = self.get_mut(handle) else { return false };
        if record.deadline() > now {
            record.set_deadline(now);
            self.file(handle.index, now);
        }
        true
    }

    /// The next record that has ended. It has no timer any more: the caller removes it or restarts its timer.
    /// Each step of the wheel costs one unit of `budget`; `None` if nothing has ended or the budget ran out.
    pub(crate) fn pop_expired(&mut self, now: Instant, budget: &mut u32) -> Option<Handle> {
        while let Some(index) = self.wheel.pop_due(now, budget) {
            let (handle, record) = self.at(index).expect("removing a record cancels its timer");
            let deadline = record.deadline();
            if deadline <= now {
                self.slots[index as usize].is_filed = false;
                return Some(handle);
            }
            self.wheel.schedule(index, deadline);
        }
        None
    }

    /// Whether any record may have ended: `false` promises that none has.
    pub(crate) fn may_have_expired(&self, now: Instant) -> bool {
        self.wheel.may_be_due(now)
    }

    /// When to call [`Store::pop_expired`] next; `None` while there is no timer. See [`Wheel::next_due`].
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.wheel.next_due()
    }

    /// Records, those that have ended and not come up yet included.
    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    /// The most records there can be.
    pub(crate) fn capacity(&self) -> u32 {
        self.capacity
    }

    /// All records by place, those that have ended and not come up yet included.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Handle, &T)> {
        (0..self.slots.len() as u32).filter_map(|index| self.at(index))
    }

    /// Places there are, empty ones included: every record's is below.
    pub(crate) fn places(&self) -> u32 {
        self.slots.len() as u32
    }

    /// Files a record's timer, unless it comes up early enough as it is.
    fn file(&mut self, index: u32, deadline: Instant) {
        self.slots[index as usize].is_filed = true;
        if self.wheel.filed_at(index).is_none_or(|filed| deadline < filed) {
            self.wheel.schedule(index, deadline);
        }
    }

    /// Bytes reserved, to show that they never change.
    #[cfg(test)]
    pub(crate) fn reserved_len(&self) -> usize {
        self.slots.capacity() * size_of::<Slot<T>>() + self.wheel.reserved_len()
    }
}
