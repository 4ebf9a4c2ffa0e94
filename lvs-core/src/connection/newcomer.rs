//! Connections that have proved nothing, in the order they came, by what they wait for: whoever needs the place or the
//! local port of one finds it in constant work. What cannot make room is not in here.
//! Knows places only; which connection is what, [`crate::connection::Connection::newcomer`] says.

use alloc::vec::Vec;
use core::net::IpAddr;

use crate::connection::queue::{KeyedQueues, Links, Queue};
use crate::flow::{Endpoint, Protocol};
use crate::reserve::{Refused, bytes_of, room};
use crate::rng::Seed;

/// What a connection is whose client may not even exist.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Newcomer {
    /// A TCP handshake or SCTP association that has not come about: what a SYN flood leaves behind.
    HalfOpen,
    /// Datagrams whose client has not talked on after an answer. A made-up address never does.
    Unproven,
    /// A helper expects it, and no packet of it has come.
    Expected,
}

impl Newcomer {
    const COUNT: usize = 3;
}

/// Whose local port a FullNAT connection holds, and towards whom.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct PortHolder {
    pub protocol: Protocol,
    pub real: Endpoint,
    /// The client, as [`crate::client_group::ClientGroups`] tells them apart.
    pub client: IpAddr,
}

/// The newcomers of one connection table.
pub(crate) struct Newcomers {
    links: Links,
    kinds: Vec<Option<Newcomer>>,
    queues: [Queue; Newcomer::COUNT],
    /// Those that hold a local port, by real server, and by client too.
    by_server: KeyedQueues<(Protocol, Endpoint)>,
    by_client: KeyedQueues<PortHolder>,
}

impl Newcomers {
    /// None, in a table of so many places. Reserves 9 bytes for each; places of FullNAT connections take 16 more.
    ///
    /// # Errors
    /// There is no memory for it.
    pub(crate) fn try_new(capacity: u32, seed: Seed) -> Result<Self, Refused> {
        Ok(Self {
            links: Links::try_new(capacity)?,
            kinds: room(capacity)?,
            queues: [Queue::EMPTY; Newcomer::COUNT],
            by_server: KeyedQueues::new(seed.derive(0)),
            by_client: KeyedQueues::new(seed.derive(1)),
        })
    }

    /// How many bytes are reserved for so many places.
    pub(crate) fn bytes(capacity: u32) -> u64 {
        Links::bytes(capacity) + bytes_of::<Option<Newcomer>>(capacity.into())
    }

    /// Says what is in this place: a newcomer, from now on if it was none or another one, or somebody else or nobody.
    /// `holder` is the same as long as the connection is there.
    pub(crate) fn set(&mut self, place: u32, kind: Option<Newcomer>, holder: Option<PortHolder>) {
        if self.kinds.len() <= place as usize {
            self.kinds.resize(place as usize + 1, None);
        }
        let before = core::mem::replace(&mut self.kinds[place as usize], kind);
        if before == kind {
            return;
        }
        if let Some(before) = before {
            self.links.set(&mut self.queues[before as usize], place, false);
        }
        if let Some(kind) = kind {
            self.links.set(&mut self.queues[kind as usize], place, true);
        }
        if let Some(holder) = holder {
            self.by_server.set((holder.protocol, holder.real), place, kind.is_some());
            self.by_client.set(holder, place, kind.is_some());
        }
    }

    /// Makes a newcomer the newest of its kind.
    pub(crate) fn renew(&mut self, place: u32) {
        if let Some(kind) = self.kind(place) {
            let queue = &mut self.queues[kind as usize];
            self.links.set(queue, place, false);
            self.links.set(queue, place, true);
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

    /// The one that has held a local port towards this server longest.
    pub(crate) fn oldest_towards(&self, protocol: Protocol, real: Endpoint) -> Option<u32> {
        self.by_server.oldest(&(protocol, real))
    }

    /// The one of this client that has held a local port towards this server longest.
    pub(crate) fn oldest_of(&self, holder: &PortHolder) -> Option<u32> {
        self.by_client.oldest(holder)
    }

    /// Bytes reserved at the start, to show that they never change.
    #[cfg(test)]
    pub(crate) fn reserved_len(&self) -> usize {
        self.links.reserved_len() + self.kinds.capacity() * size_of::<Option<Newcomer>>()
    }
}
