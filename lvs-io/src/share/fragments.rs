//! Which shard the fragments of a datagram belong to, where only the first one tells: those to FullNAT's local addresses.
//! What comes before the first waits for it. Bounded, without a clock: the oldest gives way to the newest.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use lvs_core::wire::parse::Headers;

/// Datagrams whose shard is remembered.
const DATAGRAMS_MAX: usize = 1024;
/// Fragments that wait for their datagram's first.
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

/// The memory of one shard; `T` is a fragment that waits.
pub(super) struct Fragments<T> {
    owners: HashMap<Datagram, usize>,
    /// The same datagrams, oldest first.
    order: VecDeque<Datagram>,
    waiting: VecDeque<(Datagram, T)>,
}

impl<T> Fragments<T> {
    pub fn new() -> Self {
        Self { owners: HashMap::new(), order: VecDeque::new(), waiting: VecDeque::new() }
    }

    /// The shard the datagram's first fragment named.
    pub fn owner(&self, datagram: &Datagram) -> Option<usize> {
        self.owners.get(datagram).copied()
    }

    /// Notes what a first fragment says. Returns those that waited for it, in the order they came.
    pub fn learn(&mut self, datagram: Datagram, owner: usize) -> Vec<T> {
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

    /// Lets a fragment wait. Returns the one that gives way to it.
    pub fn wait(&mut self, datagram: Datagram, fragment: T) -> Option<T> {
        self.waiting.push_back((datagram, fragment));
        if self.waiting.len() > WAITING_MAX { self.waiting.pop_front().map(|(_, fragment)| fragment) } else { None }
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

    #[test]
    fn what_waits_comes_back_in_order_with_the_first() {
        let mut fragments = Fragments::new();
        for number in 0..4 {
            assert_eq!(fragments.wait(datagram(number % 2), number), None);
        }
        assert_eq!(fragments.learn(datagram(1), 5), [1, 3]);
        assert_eq!((fragments.owner(&datagram(1)), fragments.owner(&datagram(0))), (Some(5), None));
        assert_eq!(fragments.learn(datagram(1), 5), []);
        assert_eq!(fragments.learn(datagram(0), 6), [0, 2]);
    }

    #[test]
    fn the_oldest_gives_way() {
        let mut fragments = Fragments::new();
        for number in 0..=WAITING_MAX as u32 {
            let expected = (number == WAITING_MAX as u32).then_some(0);
            assert_eq!(fragments.wait(datagram(number), number), expected);
        }
        for number in 0..=DATAGRAMS_MAX as u32 {
            let _ = fragments.learn(datagram(number), 1);
        }
        assert_eq!((fragments.owner(&datagram(0)), fragments.owner(&datagram(1))), (None, Some(1)));
        assert_eq!((fragments.owners.len(), fragments.order.len()), (DATAGRAMS_MAX, DATAGRAMS_MAX));
        assert!(fragments.waiting.is_empty());
    }
}
