//! The memory of fragmented datagrams: which parts came, what was decided for the first, which parts wait for it.
//! Fragments are followed, not put together: the first one decides for the rest. Datagrams whose transport checksum
//! needs every byte are kept until they are complete. Sources: RFC 791 §3.2, RFC 8200 §4.5, RFC 5722.

use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;

use ahash::RandomState;

use crate::connection::index::HashIndex;
use crate::connection::store::{Handle, Store, Timed};
use crate::drop_reason::DropReason;
use crate::flow::AddressFamily;
use crate::packet::{HEADROOM, PacketBuf};
use crate::reserve::Refused;
use crate::rng::Seed;
use crate::time::Instant;
use crate::wire::parse::{FragmentPart, Headers};

/// How long the parts of a datagram may be apart: Linux's `ipfrag_time`.
const LIFETIME: Duration = Duration::from_secs(30);
/// Disjoint stretches of one datagram that may be known at once; parts that come in order make one.
const STRETCHES_MAX: usize = 16;

/// Which datagram a fragment belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct DatagramKey {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    id: u32,
}

impl DatagramKey {
    pub fn of(headers: &Headers, part: &FragmentPart) -> Self {
        // RFC 8200 §4.5: in IPv6 the protocol is not part of the key. Only the first part tells it where headers follow
        // the fragment header.
        let protocol = if headers.family == AddressFamily::Ipv4 { headers.protocol } else { 0 };
        Self { source: headers.source, destination: headers.destination, protocol, id: part.id }
    }
}

/// What was decided for a datagram. `F` is how its fragments travel.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Decision<F> {
    /// The first fragment has not come yet.
    Open,
    /// The datagram is put together before anything is decided.
    Collecting,
    Pass,
    Drop(DropReason),
    Follow(F),
}

/// A part that waits.
pub(crate) struct Part {
    /// The packet, with [`HEADROOM`] before it.
    pub storage: Vec<u8>,
    pub offset: u16,
    pub mark: u32,
}

struct Datagram<F> {
    key: DatagramKey,
    decision: Decision<F>,
    seen: Stretches,
    /// Length of the whole payload, once the last part has come.
    end: Option<u32>,
    longest: usize,
    waiting: Vec<Part>,
    deadline: Instant,
}

impl<F> Timed for Datagram<F> {
    fn deadline(&self) -> Instant {
        self.deadline
    }

    fn set_timer(&mut self, _timeout: Duration, deadline: Instant) {
        self.deadline = deadline;
    }

    fn set_deadline(&mut self, deadline: Instant) {
        self.deadline = deadline;
    }
}

/// Names a remembered datagram.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DatagramId(Handle);

/// At most `capacity` datagrams and `bytes_max` waiting bytes.
pub(crate) struct FragmentMemory<F> {
    store: Store<Datagram<F>>,
    index: HashIndex,
    hasher: RandomState,
    waiting_bytes: usize,
    bytes_max: usize,
}

impl<F: Copy> FragmentMemory<F> {
    pub fn new(capacity: u32, bytes_max: u32, seed: Seed) -> Self {
        Self::in_memory(Store::new(capacity), HashIndex::new(capacity, capacity), bytes_max, seed)
    }

    /// # Errors
    /// There is no memory for it.
    pub fn try_new(capacity: u32, bytes_max: u32, seed: Seed) -> Result<Self, Refused> {
        let (store, index) = (Store::try_new(capacity)?, HashIndex::try_new(capacity, capacity)?);
        Ok(Self::in_memory(store, index, bytes_max, seed))
    }

    /// How many bytes are reserved for so many datagrams.
    pub fn bytes(capacity: u32) -> u64 {
        Store::<Datagram<F>>::bytes(capacity) + HashIndex::bytes(capacity, capacity)
    }

    fn in_memory(store: Store<Datagram<F>>, index: HashIndex, bytes_max: u32, seed: Seed) -> Self {
        let key = |part| seed.derive(part).value();
        Self {
            store,
            index,
            hasher: RandomState::with_seeds(key(0), key(1), key(2), key(3)),
            waiting_bytes: 0,
            bytes_max: bytes_max as usize,
        }
    }

    /// The datagram with this key, unless its time is over.
    pub fn find(&self, now: Instant, key: &DatagramKey) -> Option<DatagramId> {
        self.index
            .with_hash(self.hasher.hash_one(key))
            .filter_map(|place| self.store.at(place))
            .find(|(_, datagram)| datagram.deadline > now && datagram.key == *key)
            .map(|(handle, _)| DatagramId(handle))
    }

    pub fn decision(&self, id: DatagramId) -> Decision<F> {
        self.store.get(id.0).map_or(Decision::Open, |datagram| datagram.decision)
    }

    pub fn decide(&mut self, id: DatagramId, decision: Decision<F>) {
        if let Some(datagram) = self.store.get_mut(id.0) {
            datagram.decision = decision;
        }
    }

    /// Whether another datagram would find a place.
    pub fn has_place(&self) -> bool {
        self.store.len() < self.store.capacity()
    }

    /// Whether so many more bytes may wait.
    pub fn has_room_for(&self, bytes: usize) -> bool {
        self.waiting_bytes + bytes <= self.bytes_max
    }

    /// Remembers a new datagram.
    ///
    /// # Errors
    /// `FragmentTableFull`; nothing has changed.
    pub fn remember(
        &mut self,
        now: Instant,
        key: DatagramKey,
        decision: Decision<F>,
    ) -> Result<DatagramId, DropReason> {
        let datagram = Datagram {
            key,
            decision,
            seen: Stretches::default(),
            end: None,
            longest: 0,
            waiting: Vec::new(),
            deadline: now + LIFETIME,
        };
        let handle = self.store.insert(datagram).ok_or(DropReason::FragmentTableFull)?;
        self.index.insert(handle.index, self.hasher.hash_one(key));
        Ok(DatagramId(handle))
    }

    /// How many datagrams are remembered.
    pub fn len(&self) -> u32 {
        self.store.len()
    }

    /// Whether a part may be added, without adding it.
    ///
    /// # Errors
    /// `OverlappingFragment`: it was there already, in whole or in part, or lies behind the end.
    pub fn check(&self, id: DatagramId, headers: &Headers, part: &FragmentPart) -> Result<(), DropReason> {
        let Some(datagram) = self.store.get(id.0) else { return Ok(()) };
        let (start, end) = extent(headers, part);
        let ends_elsewhere = match datagram.end {
            Some(known) => end > known || (!part.more && end != known),
            None => !part.more && datagram.seen.reach() > end,
        };
        if ends_elsewhere || !datagram.seen.has_room_for(start, end) {
            return Err(DropReason::OverlappingFragment);
        }
        Ok(())
    }

    /// Notes a part that `check` let pass; whether the datagram is now complete.
    pub fn note(&mut self, id: DatagramId, headers: &Headers, part: &FragmentPart) -> bool {
        let Some(datagram) = self.store.get_mut(id.0) else { return false };
        let (start, end) = extent(headers, part);
        datagram.seen.add(start, end);
        datagram.longest = datagram.longest.max(headers.packet_len);
        if !part.more {
            datagram.end = Some(end);
        }
        datagram.end.is_some_and(|end| datagram.seen.is_exactly(end))
    }

    /// Keeps a copy of a part until its datagram is decided or complete.
    ///
    /// # Errors
    /// `FragmentTableFull`: too many bytes wait already; nothing has changed.
    pub fn wait(
        &mut self,
        id: DatagramId,
        packet: &PacketBuf<'_>,
        headers: &Headers,
        offset: u16,
    ) -> Result<(), DropReason> {
        let bytes = &packet.bytes()[..headers.packet_len];
        if !self.has_room_for(bytes.len()) {
            return Err(DropReason::FragmentTableFull);
        }
        let Some(datagram) = self.store.get_mut(id.0) else { return Err(DropReason::FragmentTableFull) };
        let mut storage = Vec::with_capacity(HEADROOM + bytes.len());
        storage.resize(HEADROOM, 0);
        storage.extend_from_slice(bytes);
        self.waiting_bytes += bytes.len();
        datagram.waiting.push(Part { storage, offset, mark: packet.mark });
        Ok(())
    }

    /// Takes the parts that wait, in the order they came, and the length of the longest fragment.
    pub fn take_waiting(&mut self, id: DatagramId) -> (Vec<Part>, usize) {
        let Some(datagram) = self.store.get_mut(id.0) else { return (Vec::new(), 0) };
        let parts = core::mem::take(&mut datagram.waiting);
        self.waiting_bytes -= parts.iter().map(|part| part.storage.len() - HEADROOM).sum::<usize>();
        (parts, datagram.longest)
    }

    /// Forgets a datagram; how many of its parts were waiting.
    pub fn forget(&mut self, id: DatagramId) -> usize {
        let (waiting, _) = self.take_waiting(id);
        if self.store.remove(id.0).is_some() {
            self.index.remove(id.0.index);
        }
        waiting.len()
    }

    /// The next datagram whose time is over; the caller forgets it. Each step costs one unit of `budget`.
    pub fn pop_expired(&mut self, now: Instant, budget: &mut u32) -> Option<DatagramId> {
        self.store.pop_expired(now, budget).map(DatagramId)
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        self.store.next_deadline()
    }
}

/// Where a part lies in its datagram.
fn extent(headers: &Headers, part: &FragmentPart) -> (u32, u32) {
    let start = u32::from(part.offset);
    (start, start + headers.part_len(part) as u32)
}

/// Disjoint stretches of a datagram, in order; those that touch are one.
#[derive(Clone, Copy, Default, Debug)]
struct Stretches {
    stretches: [(u32, u32); STRETCHES_MAX],
    len: usize,
}

impl Stretches {
    fn known(&self) -> &[(u32, u32)] {
        &self.stretches[..self.len]
    }

    fn reach(&self) -> u32 {
        self.known().last().map_or(0, |(_, end)| *end)
    }

    /// Whether this stretch overlaps none, and there is room to note it.
    fn has_room_for(&self, start: u32, end: u32) -> bool {
        let is_free = self.known().iter().all(|(known_start, known_end)| end <= *known_start || start >= *known_end);
        let touches = self.known().iter().any(|(known_start, known_end)| end == *known_start || start == *known_end);
        is_free && (touches || self.len < STRETCHES_MAX)
    }

    fn add(&mut self, start: u32, end: u32) {
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

    fn is_exactly(&self, end: u32) -> bool {
        self.known() == [(0, end)]
    }
}

impl<F> core::fmt::Debug for FragmentMemory<F> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("FragmentMemory").field("waiting_bytes", &self.waiting_bytes).finish_non_exhaustive()
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
