//! Which shard the fragments of a datagram belong to, where only the first one tells: those to FullNAT's local
//! addresses. What comes before the first waits for it, as a copy, so that it holds nothing others need.
//! Bounded, without a clock: the oldest gives way to the newest.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use lvs_core::PacketBuf;
use lvs_core::wire::parse::Headers;

use crate::share::parcel::Kept;

/// Datagrams whose shard is remembered.
const DATAGRAMS_MAX: usize = 1024;
/// Fragments that wait for their datagram's first. None is longer than an IP packet: 4 MiB in all at the worst.
const WAITING_MAX: usize = 64;

/// What the fragments of a datagram have in common (RFC 791 §3.2, RFC 8200 §4.5).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Datagram {
    source: IpAddr,
    destination: IpAddr,
    /// Not in IPv6, where later fragments may name an extension header.
    protocol: u8,
    id: u32,
}

impl Datagram {
    /// `None` for a packet that is no fragment.
    pub fn of(headers: &Headers) -> Option<Self> {
        let part = headers.fragment?;
        let protocol = if headers.source.is_ipv4() { headers.protocol } else { 0 };
        Some(Self { source: headers.source, destination: headers.destination, protocol, id: part.id })
    }
}

/// The memory of one shard.
pub(super) struct Fragments {
    owners: HashMap<Datagram, usize>,
    /// The same datagrams, oldest first.
    order: VecDeque<Datagram>,
    waiting: VecDeque<(Datagram, Kept)>,
}

impl Fragments {
    pub fn new() -> Self {
        Self { owners: HashMap::new(), order: VecDeque::new(), waiting: VecDeque::new() }
    }

    /// The shard the datagram's first fragment named.
    pub fn owner(&self, datagram: &Datagram) -> Option<usize> {
        self.owners.get(datagram).copied()
    }

    /// Notes what a first fragment says. Returns those that waited for it, in the order they came.
    pub fn learn(&mut self, datagram: Datagram, owner: usize) -> Vec<Kept> {
        if self.owners.insert(datagram, owner).is_none() {
            self.order.push_back(datagram);
            if self.order.len() > DATAGRAMS_MAX {
                self.order.pop_front().inspect(|oldest| _ = self.owners.remove(oldest));
            }
        }
        if self.waiting.is_empty() {
            return Vec::new();
        }
        let all = std::mem::take(&mut self.waiting);
        let (own, others): (VecDeque<_>, _) = all.into_iter().partition(|(of, _)| *of == datagram);
        self.waiting = others;
        own.into_iter().map(|(_, fragment)| fragment).collect()
    }

    /// Lets a copy of a fragment wait. Returns whether the oldest gave way to it.
    #[must_use]
    pub fn wait(&mut self, datagram: Datagram, fragment: &PacketBuf<'_>) -> bool {
        let oldest = if self.waiting.len() < WAITING_MAX { None } else { self.waiting.pop_front() };
        let gave_way = oldest.is_some();
        let mut kept = oldest.map_or_else(Kept::default, |(_, kept)| kept);
        kept.fill(fragment);
        self.waiting.push_back((datagram, kept));
        gave_way
    }
}

#[cfg(test)]
mod tests {
    use lvs_core::wire::parse::parse;
    use lvs_testkit::udp;

    use super::*;

    /// The datagram `id`.
    fn datagram(id: u32) -> Datagram {
        let parts = udp("10.0.0.2:53", "10.0.0.200:2000").identification(id).payload_len(100).fragments(56);
        Datagram::of(&parse(&parts[0]).unwrap()).unwrap()
    }

    /// Has a fragment of the datagram `id` wait, told apart by its number.
    fn wait(fragments: &mut Fragments, id: u32, number: u8) -> bool {
        fragments.wait(datagram(id), &PacketBuf::new(&mut [number], 0, 1))
    }

    /// The numbers of those that waited.
    fn learn(fragments: &mut Fragments, id: u32, owner: usize) -> Vec<u8> {
        fragments.learn(datagram(id), owner).iter_mut().map(|kept| kept.packet().bytes()[0]).collect()
    }

    #[test]
    fn what_waits_comes_back_in_order_with_the_first() {
        let mut fragments = Fragments::new();
        for number in 0..4 {
            assert!(!wait(&mut fragments, u32::from(number % 2), number));
        }
        assert_eq!(learn(&mut fragments, 1, 5), [1, 3]);
        assert_eq!((fragments.owner(&datagram(1)), fragments.owner(&datagram(0))), (Some(5), None));
        assert_eq!(learn(&mut fragments, 1, 5), []);
        assert_eq!(learn(&mut fragments, 0, 6), [0, 2]);
    }

    #[test]
    fn the_oldest_gives_way() {
        let mut fragments = Fragments::new();
        for number in 0..=WAITING_MAX as u8 {
            assert_eq!(wait(&mut fragments, u32::from(number), number), usize::from(number) == WAITING_MAX);
        }
        assert_eq!((learn(&mut fragments, 0, 1), learn(&mut fragments, 1, 1)), (vec![], vec![1]));
        assert_eq!(learn(&mut fragments, WAITING_MAX as u32, 1), [WAITING_MAX as u8]);
        for number in 0..=DATAGRAMS_MAX as u32 {
            let _ = fragments.learn(datagram(number), 1);
        }
        assert_eq!(
            (fragments.owner(&datagram(DATAGRAMS_MAX as u32)), fragments.owners.len()),
            (Some(1), DATAGRAMS_MAX)
        );
        assert_eq!(fragments.order.len(), DATAGRAMS_MAX);
        assert_eq!(fragments.owner(&datagram(0)), None);
        assert!(fragments.waiting.is_empty());
    }
}
