//! Who gives way to whom in the memory of fragmented datagrams.
//!
//! Who has proved nothing gives way first. When a place is needed, the oldest datagram gives way that is nobody's of
//! ours; then the oldest of which it is not known; what a server answers keeps its place, but leaves newcomers a quarter
//! of the table. When bytes are needed, the oldest parts give way that wait. No source has more than an eighth of either;
//! of what a server answers neither, but for itself: whoever sends in its place pushes none of that out.

use super::{DatagramId, Decision, FragmentMemory, PARTS_MAX, waiting_len};
use crate::drop_reason::DropReason;
use crate::fragment::DatagramKey;
use crate::wire::parse::Headers;
use crate::wire::reassembly::Assembly;

/// What gives way in which order: the lower first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Rank {
    /// Nobody's of ours.
    Stranger,
    /// Its first part has not come, or it is being put together: it holds bytes.
    Waiting,
    /// A client's, on its way.
    Following,
    /// A server's answer, on its way.
    Proved,
}

/// What made room for others since it was last asked for.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct GivenUp {
    /// Datagrams of ours, or that might have been.
    pub datagrams: u32,
    /// Parts of them that had waited.
    pub parts: u32,
}

/// The datagrams that give way for one part.
type Victims = ([u32; VICTIMS_MAX], usize);

impl<F: Copy> FragmentMemory<F> {
    /// Whether another datagram of ours would find a place: another one gives way to it.
    pub fn has_place(&self) -> bool {
        self.store.capacity() > 0
    }

    /// Whether a quarter of the places and of the bytes are free.
    pub fn is_relaxed(&self) -> bool {
        let capacity = self.store.capacity();
        self.store.len() <= capacity - capacity / 4 && self.held <= self.bytes_max - self.bytes_max / 4
    }

    /// Whether [`Self::wait`], or [`Self::collect`], would find room for a part of a datagram that is known or new.
    pub fn has_room_for(
        &self,
        (id, key, is_server): (Option<DatagramId>, &DatagramKey, bool),
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
            && self.victims(self.sharer(key, is_server), id.map(|id| id.0.index), bytes).is_some()
    }

    /// What has given way since this was last asked for.
    pub fn take_given_up(&mut self) -> GivenUp {
        core::mem::take(&mut self.given_up)
    }

    pub(super) fn make_room(&mut self, id: DatagramId, bytes: usize) -> Result<(), DropReason> {
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
    pub(super) fn least(&self, rank: Rank) -> Option<u32> {
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

    pub(super) fn give_up(&mut self, place: Option<u32>) {
        let Some((handle, datagram)) = place.and_then(|place| self.store.at(place)) else { return };
        self.given_up.datagrams += u32::from(datagram.rank != Rank::Stranger);
        self.given_up.parts += self.forget(DatagramId(handle));
    }

    pub(super) fn sharer(&self, key: &DatagramKey, is_server: bool) -> usize {
        self.hasher.hash_one(key.sharer(is_server)) as usize % self.held_by.len()
    }

    /// The list of what a sharer has of this rank.
    pub(super) fn share_list(&self, sharer: usize, rank: Rank) -> usize {
        if rank == Rank::Proved { self.held_by.len() + sharer } else { sharer }
    }

    /// Most datagrams of one sharer, and most of those that keep their places.
    pub(super) fn share(&self) -> u32 {
        (self.store.capacity() / SHARE as u32).max(SHARE_MIN)
    }

    /// Most datagrams that keep their places from newcomers.
    pub(super) fn proved_max(&self) -> u32 {
        self.store.capacity().saturating_sub((self.store.capacity() / 4).max(1))
    }
}

pub(super) fn rank_of<F>(decision: &Decision<F>, is_proved: bool) -> Rank {
    match decision {
        Decision::Open | Decision::Collecting => Rank::Waiting,
        Decision::Pass | Decision::Drop(_) => Rank::Stranger,
        Decision::Follow(_) if is_proved => Rank::Proved,
        Decision::Follow(_) => Rank::Following,
    }
}

/// By how many values of a hash the sources of so many datagrams are told apart.
pub(super) fn sharers(capacity: u32) -> usize {
    capacity.clamp(1, SHARERS_MAX) as usize
}

pub(super) const RANKS: usize = 4;
/// Sources are told apart by a hash of so many values at most.
const SHARERS_MAX: u32 = 256;
/// No source has more than one in so many places and bytes,
const SHARE: usize = 8;
/// but so many places,
const SHARE_MIN: u32 = 16;
/// and the bytes of a datagram as long as can be, with what it takes to put it together.
const SHARE_BYTES_MIN: usize = 128 << 10;
/// Datagrams that may give way to one part.
const VICTIMS_MAX: usize = 64;
/// Datagrams that are asked for it, of the same source and of all.
const LOOKED_AT_MAX: usize = 64;
