//! Connections that make room for others, in the order they came, by what they are: whoever needs the place or the
//! local port of one finds it in constant work. What cannot make room is not in here.
//! Knows places only; which connection is what, [`crate::connection::Connection::newcomer`] says.

use alloc::vec::Vec;
use core::net::IpAddr;

use crate::connection::client_queues::ClientQueues;
use crate::connection::queue::{KeyedQueues, Links, Queue};
use crate::local_address::LaneKey;
use crate::reserve::{Refused, bytes_of, room};
use crate::rng::Seed;

/// What a connection is that makes room for others, in three ranks ([`Newcomer::rank`]). The first rank's clients may
/// not even exist.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Newcomer {
    /// A TCP handshake or SCTP association that has not come about: what a SYN flood leaves behind.
    HalfOpen,
    /// Datagrams whose client has not talked on after an answer; an SCTP association whose cookie was not acknowledged.
    Unproven,
    /// A helper expects it, and no packet of it has come.
    Expected,
    /// It has ended and only waits to be forgotten, which a RST or FIN with a made-up address does too.
    Over,
    /// Datagrams whose client has talked on after an answer. That makes a client likely, and proves none: two datagrams
    /// with a made-up address, one before and one after the time of the answer, look the same.
    Talked,
}

/// Who makes room first.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Rank {
    /// Who has proved nothing.
    Unproven,
    /// Who is of no use any more.
    Over,
    /// Who has only talked.
    Talked,
}

impl Newcomer {
    const COUNT: usize = 5;

    pub(crate) const fn rank(self) -> Rank {
        match self {
            Self::HalfOpen | Self::Unproven | Self::Expected => Rank::Unproven,
            Self::Over => Rank::Over,
            Self::Talked => Rank::Talked,
        }
    }
}

impl Rank {
    /// All of them, those first who make room first.
    pub(crate) const ALL: [Self; 3] = [Self::Unproven, Self::Over, Self::Talked];
}

/// Whose connection it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner {
    /// The client, as [`crate::client_group::ClientGroups`] tells them apart.
    pub client: IpAddr,
    /// What its local port belongs to, if it holds one (FullNAT).
    pub lane: Option<LaneKey>,
}

/// The newcomers of one connection table.
pub(crate) struct Newcomers {
    links: Links,
    kinds: Vec<Option<Newcomer>>,
    queues: [Queue; Newcomer::COUNT],
    /// Those that have talked, by client.
    talked: ClientQueues,
    /// Those that hold a local port, by real server and local address, and by client too.
    by_lane: KeyedQueues<(Rank, LaneKey)>,
    by_client: KeyedQueues<(Rank, LaneKey, IpAddr)>,
}

impl Newcomers {
    /// None, in a table of so many places. Reserves 17 bytes for each; places of FullNAT connections take 16 more.
    ///
    /// # Errors
    /// There is no memory for it.
    pub(crate) fn try_new(capacity: u32, seed: Seed) -> Result<Self, Refused> {
        Ok(Self {
            links: Links::try_new(capacity)?,
            kinds: room(capacity)?,
            queues: [Queue::EMPTY; Newcomer::COUNT],
            talked: ClientQueues::try_new(capacity, seed.derive(2))?,
            by_lane: KeyedQueues::new(seed.derive(0)),
            by_client: KeyedQueues::new(seed.derive(1)),
        })
    }

    /// How many bytes are reserved for so many places.
    pub(crate) fn bytes(capacity: u32) -> u64 {
        Links::bytes(capacity) + bytes_of::<Option<Newcomer>>(capacity.into()) + ClientQueues::bytes(capacity)
    }

    /// Says what is in this place: a newcomer, from now on if it was none or another one, or somebody else or nobody.
    /// The owner is the same as long as the connection is there.
    pub(crate) fn set(&mut self, place: u32, kind: Option<Newcomer>, owner: Owner) {
        if self.kinds.len() <= place as usize {
            self.kinds.resize(place as usize + 1, None);
        }
        let before = core::mem::replace(&mut self.kinds[place as usize], kind);
        if before == kind {
            return;
        }
        let (rank_before, rank) = (before.map(Newcomer::rank), kind.map(Newcomer::rank));
        for (kind, is_in) in [(before, false), (kind, true)] {
            let Some(kind) = kind else { continue };
            self.links.set(&mut self.queues[kind as usize], place, is_in);
            if kind == Newcomer::Talked {
                self.talked.set(owner.client, place, is_in);
            }
        }
        let Some(lane) = owner.lane.filter(|_| rank_before != rank) else { return };
        for (rank, is_in) in [(rank_before, false), (rank, true)] {
            let Some(rank) = rank else { continue };
            self.by_lane.set((rank, lane), place, is_in);
            self.by_client.set((rank, lane, owner.client), place, is_in);
        }
    }

    /// Makes the client's connection the newest of its kind.
    pub(crate) fn renew(&mut self, place: u32, client: IpAddr) {
        let Some(kind) = self.kind(place) else { return };
        for is_in in [false, true] {
            self.links.set(&mut self.queues[kind as usize], place, is_in);
            if kind == Newcomer::Talked {
                self.talked.set(client, place, is_in);
            }
        }
    }

    /// What is in this place, if it is a newcomer.
    pub(crate) fn kind(&self, place: u32) -> Option<Newcomer> {
        self.kinds.get(place as usize).copied().flatten()
    }

    /// How many there are of a kind.
    pub(crate) fn len(&self, kind: Newcomer) -> u32 {
        self.queues[kind as usize].len()
    }

    /// Those of a kind, the one that has been there longest first.
    pub(crate) fn oldest_first(&self, kind: Newcomer) -> impl Iterator<Item = u32> + '_ {
        self.links.oldest_first(&self.queues[kind as usize])
    }

    /// Those that have only talked: of this client, if it has so many, or else of everybody, the one that has been there
    /// longest first.
    pub(crate) fn talked_first(&self, client: IpAddr, share: u32) -> impl Iterator<Item = u32> + '_ {
        let of_client = self.talked.len(client) >= share;
        let own = of_client.then(|| self.talked.oldest_first(client)).into_iter().flatten();
        own.chain((!of_client).then(|| self.oldest_first(Newcomer::Talked)).into_iter().flatten())
    }

    /// The one of this rank that has held a port of a lane longest; with a client, of this client's.
    pub(crate) fn oldest_in(&self, rank: Rank, lane: LaneKey, client: Option<IpAddr>) -> Option<u32> {
        match client {
            Some(client) => self.by_client.oldest(&(rank, lane, client)),
            None => self.by_lane.oldest(&(rank, lane)),
        }
    }

    /// Bytes reserved at the start, to show that they never change.
    #[cfg(test)]
    pub(crate) fn reserved_len(&self) -> usize {
        self.links.reserved_len() + self.kinds.capacity() * size_of::<Option<Newcomer>>() + self.talked.reserved_len()
    }
}
