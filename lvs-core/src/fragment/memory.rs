//! The memory of fragmented datagrams: which parts came, what was decided for the first, which parts wait for it.
//! Fragments are followed, not put together: the first one decides for the rest. Datagrams that are needed whole are
//! kept until they are complete.
//!
//! Who has proved nothing gives way first. When a place is needed, the oldest datagram gives way that is nobody's of
//! ours; then the oldest of which it is not known; what a server answers keeps its place, but leaves newcomers a quarter
//! of the table. When bytes are needed, the oldest parts give way that wait. No source has more than an eighth of either.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use ahash::RandomState;

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

/// What gives way in which order: the lower first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Rank {
    /// Nobody's of ours.
    Stranger,
    /// Its first part has not come, or it is being put together: it holds bytes.
    Waiting,
    /// A client's, on its way.
    Following,
    /// A server's answer, on its way.
    Proved,
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

/// What made room for others since it was last asked for.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct GivenUp {
    /// Datagrams of ours, or that might have been.
    pub datagrams: u32,
    /// Parts of them that had waited.
    pub parts: u32,
}

/// At most `capacity` datagrams and `bytes_max` bytes of memory for parts that wait.
pub(crate) struct FragmentMemory<F> {
    store: Store<Datagram<F>>,
    index: HashIndex,
    hasher: RandomState,
    by_rank: Lists,
    by_sharer: Lists,
    /// Bytes held by each sharer's parts.
    held_by: Box<[usize]>,
    held: usize,
    bytes_max: usize,
    given_up: GivenUp,
    /// Datagrams so far.
    count: u64,
}

/// The datagrams that give way for one part.
type Victims = ([u32; VICTIMS_MAX], usize);

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
            by_sharer: Lists::try_new(sharers, capacity)?,
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
            + Lists::bytes(sharers, capacity)
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
        if rank == Rank::Proved && self.by_rank.len(Rank::Proved as usize) >= self.proved_max() {
            self.give_up(self.by_rank.oldest(Rank::Proved as usize));
        }
        let Some(datagram) = self.store.get_mut(id.0) else { return };
        self.by_rank.remove(datagram.rank as usize, id.0.index);
        self.by_rank.push(rank as usize, id.0.index);
        (datagram.decision, datagram.rank) = (decision, rank);
    }

    /// Whether another datagram of ours would find a place: another one gives way to it.
    pub fn has_place(&self) -> bool {
        self.store.capacity() > 0
    }

    /// Remembers a new datagram; who must gives way to it. `None` if there is nobody who must.
    pub fn remember(&mut self, now: Instant, key: DatagramKey, decision: Decision<F>) -> Option<DatagramId> {
        let rank = rank_of(&decision, false);
        let sharer = self.sharer(&key);
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

    /// Whether a quarter of the places and of the bytes are free.
    pub fn is_relaxed(&self) -> bool {
        let capacity = self.store.capacity();
        self.store.len() <= capacity - capacity / 4 && self.held <= self.bytes_max - self.bytes_max / 4
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

    /// Whether [`Self::wait`], or [`Self::collect`], would find room for a part of a datagram that is known or new.
    pub fn has_room_for(
        &self,
        (id, key): (Option<DatagramId>, &DatagramKey),
        packet: &[u8],
        headers: &Headers,
        is_collected: bool,
    ) -> bool {
        let datagram = id.and_then(|id| self.store.get(id.0));
        let bytes = match (is_collected, datagram) {
            (false, _) => waiting_len(headers),
            (true, Some(datagram)) => datagram.assembly.growth(packet, headers),
            (true, None) => Assembly::default().growth(packet, headers),
        };
        self.has_place()
            && datagram.is_none_or(|datagram| datagram.waiting.len() < PARTS_MAX)
            && self.victims(self.sharer(key), id.map(|id| id.0.index), bytes).is_some()
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
        self.by_sharer.remove(datagram.sharer, id.0.index);
        datagram.waiting.len() as u32 + datagram.assembly.parts()
    }

    /// The next datagram whose time is over; the caller forgets it. Each step costs one unit of `budget`.
    pub fn pop_expired(&mut self, now: Instant, budget: &mut u32) -> Option<DatagramId> {
        self.store.pop_expired(now, budget).map(DatagramId)
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        self.store.next_deadline()
    }

    /// What has given way since this was last asked for.
    pub fn take_given_up(&mut self) -> GivenUp {
        core::mem::take(&mut self.given_up)
    }

    fn make_room(&mut self, id: DatagramId, bytes: usize) -> Result<(), DropReason> {
        let sharer = self.store.get(id.0).ok_or(DropReason::FragmentTableFull)?.sharer;
        let found = self.victims(sharer, Some(id.0.index), bytes);
        let (victims, count) = found.ok_or(DropReason::FragmentTableFull)?;
        victims[..count].iter().for_each(|place| self.give_up(Some(*place)));
        Ok(())
    }

    /// Who gives way to so many more bytes of this sharer's; `None` if there are not enough of them, or too many.
    fn victims(&self, sharer: usize, keep: Option<u32>, bytes: usize) -> Option<Victims> {
        let (mut victims, mut count) = ([0; VICTIMS_MAX], 0);
        let mut held = self.held + bytes;
        let mut give_way = |place, bytes: usize, held: &mut usize| {
            *victims.get_mut(count)? = place;
            count += 1;
            *held -= bytes;
            Some(())
        };
        let share = self.bytes_max.min((self.bytes_max / SHARE).max(SHARE_BYTES_MIN));
        let mut own = self.held_by[sharer] + bytes;
        let others = |place: &u32| Some(*place) != keep;
        let at = |place| self.store.at(place).map(|(_, datagram)| datagram);
        for place in self.by_sharer.oldest_first(sharer).filter(others).take(LOOKED_AT_MAX) {
            if own <= share {
                break;
            }
            let freed = at(place).map_or(0, |datagram| datagram.held);
            if freed > 0 {
                give_way(place, freed, &mut held)?;
                own -= freed;
            }
        }
        for place in self.by_rank.oldest_first(Rank::Waiting as usize).filter(others).take(LOOKED_AT_MAX) {
            if held <= self.bytes_max {
                break;
            }
            let datagram = at(place).filter(|datagram| datagram.sharer != sharer && datagram.held > 0);
            if let Some(datagram) = datagram {
                give_way(place, datagram.held, &mut held)?;
            }
        }
        (own <= share && held <= self.bytes_max).then_some((victims, count))
    }

    /// Who gives way to a newcomer of this rank when every place is taken.
    fn least(&self, rank: Rank) -> Option<u32> {
        let oldest = |rank: Rank| self.by_rank.oldest(rank as usize);
        if let Some(stranger) = oldest(Rank::Stranger) {
            return Some(stranger);
        }
        if rank == Rank::Stranger {
            return None;
        }
        let number = |place: &u32| self.store.at(*place).map(|(_, datagram)| datagram.number);
        [oldest(Rank::Waiting), oldest(Rank::Following)].into_iter().flatten().min_by_key(number)
    }

    fn give_up(&mut self, place: Option<u32>) {
        let Some((handle, datagram)) = place.and_then(|place| self.store.at(place)) else { return };
        self.given_up.datagrams += u32::from(datagram.rank != Rank::Stranger);
        self.given_up.parts += self.forget(DatagramId(handle));
    }

    fn set_held(&mut self, id: DatagramId, held: usize) {
        let Some(datagram) = self.store.get_mut(id.0) else { return };
        let before = core::mem::replace(&mut datagram.held, held);
        self.held = self.held - before + held;
        let own = &mut self.held_by[datagram.sharer];
        *own = *own - before + held;
    }

    fn sharer(&self, key: &DatagramKey) -> usize {
        self.hasher.hash_one(key.sharer()) as usize % self.held_by.len()
    }

    /// Most datagrams of one sharer.
    fn share(&self) -> u32 {
        (self.store.capacity() / SHARE as u32).max(SHARE_MIN)
    }

    /// Most datagrams that keep their places from newcomers.
    fn proved_max(&self) -> u32 {
        self.store.capacity().saturating_sub((self.store.capacity() / 4).max(1))
    }
}

fn rank_of<F>(decision: &Decision<F>, is_proved: bool) -> Rank {
    match decision {
        Decision::Open | Decision::Collecting => Rank::Waiting,
        Decision::Pass | Decision::Drop(_) => Rank::Stranger,
        Decision::Follow(_) if is_proved => Rank::Proved,
        Decision::Follow(_) => Rank::Following,
    }
}

/// By how many values of a hash the sources of so many datagrams are told apart.
fn sharers(capacity: u32) -> usize {
    capacity.clamp(1, SHARERS_MAX) as usize
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
const RANKS: usize = 4;
/// Sources are told apart by a hash of so many values at most.
const SHARERS_MAX: u32 = 256;
/// No source has more than one in so many places and bytes,
const SHARE: usize = 8;
/// but so many places,
const SHARE_MIN: u32 = 16;
/// and the bytes of a datagram as long as can be, with what it takes to put it together.
const SHARE_BYTES_MIN: usize = 128 << 10;
/// Parts that wait for one first: a datagram as long as can be over a link of 296 bytes, the least that is in use.
const PARTS_MAX: usize = 256;
/// Datagrams that may give way to one part.
const VICTIMS_MAX: usize = 64;
/// Datagrams that are asked for it, of the same source and of all.
const LOOKED_AT_MAX: usize = 64;

impl<F> core::fmt::Debug for FragmentMemory<F> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("FragmentMemory").field("held", &self.held).finish_non_exhaustive()
    }
}
