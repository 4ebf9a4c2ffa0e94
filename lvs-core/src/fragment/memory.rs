//! The memory of fragmented datagrams: which parts came, what was decided for the first, which parts wait for it.
//! Fragments are followed, not put together: the first one decides for the rest. Datagrams that are needed whole are
//! kept until they are complete. Who gives way when there is no room, `room.rs` says.

mod room;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use ahash::RandomState;

pub(crate) use self::room::GivenUp;
use self::room::{RANKS, Rank, rank_of, sharers};
use super::DatagramKey;
use super::order::Lists;
use super::stretches::Stretches;
use crate::connection::index::HashIndex;
use crate::connection::store::{Handle, Store, Timed};
use crate::drop_reason::DropReason;
use crate::packet::{HEADROOM, PacketBuf};
use crate::reserve::{Refused, bytes_of, filled};
use crate::rng::Seed;
use crate::time::Instant;
use crate::wire::parse::{FragmentPart, Headers};
use crate::wire::reassembly::Assembly;
pub(crate) use crate::wire::reassembly::Fit;

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
#[derive(Debug)]
pub(crate) struct Part {
    /// The packet, with [`HEADROOM`] before it.
    pub storage: Vec<u8>,
    pub offset: u16,
    pub mark: u32,
    pub link_priority: u8,
}

impl Part {
    /// Bytes of memory it holds.
    pub fn held(&self) -> usize {
        self.storage.capacity() + PART_COST
    }
}

struct Datagram<F> {
    key: DatagramKey,
    decision: Decision<F>,
    rank: Rank,
    /// Whose share it is counted in.
    sharer: usize,
    seen: Stretches,
    /// Length of the whole payload, once the last part has come.
    end: Option<u32>,
    waiting: Vec<Part>,
    assembly: Assembly,
    held: usize,
    mark: u32,
    /// How many came before it.
    number: u64,
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
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct DatagramId(Handle);

/// At most `capacity` datagrams and `bytes_max` bytes of memory for parts that wait.
pub(crate) struct FragmentMemory<F> {
    store: Store<Datagram<F>>,
    index: HashIndex,
    hasher: RandomState,
    by_rank: Lists,
    /// What each sharer has, and after those lists what each has that keeps its place.
    by_sharer: Lists,
    /// Bytes held by each sharer's parts.
    held_by: Box<[usize]>,
    held: usize,
    bytes_max: usize,
    given_up: GivenUp,
    /// Datagrams so far.
    count: u64,
}

impl<F: Copy> FragmentMemory<F> {
    /// # Panics
    /// If there is no memory for it.
    pub fn new(capacity: u32, bytes_max: u32, seed: Seed) -> Self {
        Self::try_new(capacity, bytes_max, seed).unwrap_or_else(|Refused| panic!("there is no memory for a table"))
    }

    /// # Errors
    /// There is no memory for it.
    pub fn try_new(capacity: u32, bytes_max: u32, seed: Seed) -> Result<Self, Refused> {
        let key = |part| seed.derive(part).value();
        let sharers = sharers(capacity);
        Ok(Self {
            store: Store::try_new(capacity)?,
            index: HashIndex::try_new(capacity, capacity)?,
            hasher: RandomState::with_seeds(key(0), key(1), key(2), key(3)),
            by_rank: Lists::try_new(RANKS, capacity)?,
            by_sharer: Lists::try_new(2 * sharers, capacity)?,
            held_by: filled(0, sharers)?,
            held: 0,
            bytes_max: bytes_max as usize,
            given_up: GivenUp::default(),
            count: 0,
        })
    }

    /// How many bytes are reserved for so many datagrams.
    pub fn bytes(capacity: u32) -> u64 {
        let sharers = sharers(capacity);
        Store::<Datagram<F>>::bytes(capacity)
            + HashIndex::bytes(capacity, capacity)
            + Lists::bytes(RANKS, capacity)
            + Lists::bytes(2 * sharers, capacity)
            + bytes_of::<usize>(sharers as u64)
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

    /// Notes what was decided; `is_proved` if a server of ours sends it.
    pub fn decide(&mut self, id: DatagramId, decision: Decision<F>, is_proved: bool) {
        let rank = rank_of(&decision, is_proved && self.proved_max() > 0);
        let Some((sharer, before)) = self.store.get(id.0).map(|datagram| (datagram.sharer, datagram.rank)) else {
            return;
        };
        let (from, to) = (self.share_list(sharer, before), self.share_list(sharer, rank));
        if rank == Rank::Proved && self.by_sharer.len(to) >= self.share() {
            self.give_up(self.by_sharer.oldest(to));
        } else if rank == Rank::Proved && self.by_rank.len(Rank::Proved as usize) >= self.proved_max() {
            self.give_up(self.by_rank.oldest(Rank::Proved as usize));
        }
        let Some(datagram) = self.store.get_mut(id.0) else { return };
        (datagram.decision, datagram.rank) = (decision, rank);
        self.by_rank.remove(before as usize, id.0.index);
        self.by_rank.push(rank as usize, id.0.index);
        if from != to {
            self.by_sharer.remove(from, id.0.index);
            self.by_sharer.push(to, id.0.index);
        }
    }

    /// Remembers a new datagram, whose source is a server of ours or not; who must gives way to it. `None` if there is
    /// nobody who must.
    pub fn remember(
        &mut self,
        now: Instant,
        (key, is_server): (DatagramKey, bool),
        decision: Decision<F>,
    ) -> Option<DatagramId> {
        let rank = rank_of(&decision, false);
        let sharer = self.sharer(&key, is_server);
        if self.by_sharer.len(sharer) >= self.share() {
            self.give_up(self.by_sharer.oldest(sharer));
        } else if self.store.len() == self.store.capacity() {
            self.give_up(Some(self.least(rank)?));
        }
        let datagram = Datagram {
            key,
            decision,
            rank,
            sharer,
            seen: Stretches::default(),
            end: None,
            waiting: Vec::new(),
            assembly: Assembly::default(),
            held: 0,
            mark: 0,
            number: self.count,
            deadline: now + key.lifetime(),
        };
        self.count += 1;
        let handle = self.store.insert(datagram)?;
        self.index.insert(handle.index, self.hasher.hash_one(key));
        self.by_rank.push(rank as usize, handle.index);
        self.by_sharer.push(sharer, handle.index);
        Some(DatagramId(handle))
    }

    /// How many datagrams are remembered.
    pub fn len(&self) -> u32 {
        self.store.len()
    }

    /// How a part goes with those that came.
    pub fn fit(&self, id: DatagramId, packet: &[u8], headers: &Headers, part: &FragmentPart) -> Fit {
        let Some(datagram) = self.store.get(id.0) else { return Fit::Contradicts };
        if matches!(datagram.decision, Decision::Collecting) {
            return datagram.assembly.fit(packet, headers);
        }
        let (start, end) = extent(headers, part);
        let ends_elsewhere = match datagram.end {
            Some(known) => end > known || (!part.more && end != known),
            None => !part.more && datagram.seen.reach() > end,
        };
        if !ends_elsewhere && datagram.seen.is_free(start, end) {
            let has_room = datagram.seen.has_room_for(start, end);
            return if has_room { Fit::Fits } else { Fit::TooManyPieces };
        }
        let data = packet.get(headers.packet_len - headers.part_len(part)..headers.packet_len);
        let is_same = |other: &Part| {
            let start = other.storage.len().saturating_sub(headers.part_len(part));
            other.offset == part.offset && other.storage.get(start.max(HEADROOM)..) == data
        };
        if datagram.waiting.iter().any(is_same) { Fit::Repeats } else { Fit::Contradicts }
    }

    /// Notes a part of a datagram that is followed, if it fits; whether the datagram is now complete.
    pub fn note(&mut self, id: DatagramId, headers: &Headers, part: &FragmentPart) -> bool {
        let Some(datagram) = self.store.get_mut(id.0) else { return false };
        let (start, end) = extent(headers, part);
        if !datagram.seen.has_room_for(start, end) {
            return false;
        }
        datagram.seen.add(start, end);
        if !part.more {
            datagram.end = Some(end);
        }
        datagram.end.is_some_and(|end| datagram.seen.is_exactly(end))
    }

    /// Keeps a copy of a part that fits until its datagram's first one comes. Others give way to it.
    ///
    /// # Errors
    /// `FragmentTableFull`: see [`Self::has_room_for`]; nothing has changed.
    pub fn wait(
        &mut self,
        id: DatagramId,
        packet: &PacketBuf<'_>,
        headers: &Headers,
        part: &FragmentPart,
    ) -> Result<(), DropReason> {
        let datagram = self.store.get(id.0).filter(|datagram| datagram.waiting.len() < PARTS_MAX);
        datagram.ok_or(DropReason::FragmentTableFull)?;
        self.make_room(id, waiting_len(headers))?;
        let bytes = &packet.bytes()[..headers.packet_len];
        let mut storage = Vec::with_capacity(HEADROOM + bytes.len());
        storage.resize(HEADROOM, 0);
        storage.extend_from_slice(bytes);
        let PacketBuf { mark, link_priority, .. } = *packet;
        let part = Part { storage, offset: part.offset, mark, link_priority };
        let datagram = self.store.get_mut(id.0).ok_or(DropReason::FragmentTableFull)?;
        let held = datagram.held + part.held();
        datagram.waiting.push(part);
        self.set_held(id, held);
        Ok(())
    }

    /// Adds a part that fits to a datagram that is collected; whether it is now complete. Others give way to it.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub fn collect(&mut self, id: DatagramId, packet: &PacketBuf<'_>, headers: &Headers) -> Result<bool, DropReason> {
        let datagram = self.store.get(id.0).ok_or(DropReason::FragmentTableFull)?;
        self.make_room(id, datagram.assembly.growth(packet.bytes(), headers))?;
        let datagram = self.store.get_mut(id.0).ok_or(DropReason::FragmentTableFull)?;
        datagram.assembly.add(packet.bytes(), headers);
        datagram.mark = packet.mark;
        let (held, is_complete) = (datagram.assembly.held(), datagram.assembly.is_complete());
        self.set_held(id, held);
        Ok(is_complete)
    }

    /// Takes the parts that wait, in the order they came.
    pub fn take_waiting(&mut self, id: DatagramId) -> Vec<Part> {
        let Some(datagram) = self.store.get_mut(id.0) else { return Vec::new() };
        let parts = core::mem::take(&mut datagram.waiting);
        self.set_held(id, 0);
        parts
    }

    /// Takes what was collected, and the mark of the last part that came.
    pub fn take_assembly(&mut self, id: DatagramId) -> (Assembly, u32) {
        let Some(datagram) = self.store.get_mut(id.0) else { return Default::default() };
        let (assembly, mark) = (core::mem::take(&mut datagram.assembly), datagram.mark);
        self.set_held(id, 0);
        (assembly, mark)
    }

    /// Forgets a datagram; how many of its parts were kept.
    pub fn forget(&mut self, id: DatagramId) -> u32 {
        self.set_held(id, 0);
        let Some(datagram) = self.store.remove(id.0) else { return 0 };
        self.index.remove(id.0.index);
        self.by_rank.remove(datagram.rank as usize, id.0.index);
        self.by_sharer.remove(self.share_list(datagram.sharer, datagram.rank), id.0.index);
        datagram.waiting.len() as u32 + datagram.assembly.parts()
    }

    /// The next datagram whose time is over; the caller forgets it. Each step costs one unit of `budget`.
    pub fn pop_expired(&mut self, now: Instant, budget: &mut u32) -> Option<DatagramId> {
        self.store.pop_expired(now, budget).map(DatagramId)
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        self.store.next_deadline()
    }

    fn set_held(&mut self, id: DatagramId, held: usize) {
        let Some(datagram) = self.store.get_mut(id.0) else { return };
        let before = core::mem::replace(&mut datagram.held, held);
        self.held = self.held - before + held;
        let own = &mut self.held_by[datagram.sharer];
        *own = *own - before + held;
    }
}

/// Where a part lies in its datagram.
fn extent(headers: &Headers, part: &FragmentPart) -> (u32, u32) {
    let start = u32::from(part.offset);
    (start, start + headers.part_len(part) as u32)
}

/// Memory that a part holds which waits.
fn waiting_len(headers: &Headers) -> usize {
    HEADROOM + headers.packet_len + PART_COST
}

/// What a part needs beside its bytes: its place in the list, and the allocator's own.
const PART_COST: usize = size_of::<Part>() + 16;
/// Parts that wait for one first: a datagram as long as can be over a link of 296 bytes, the least that is in use.
const PARTS_MAX: usize = 256;
impl<F> core::fmt::Debug for FragmentMemory<F> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("FragmentMemory").field("held", &self.held).finish_non_exhaustive()
    }
}
