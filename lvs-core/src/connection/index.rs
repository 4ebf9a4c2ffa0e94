//! Which records have this hash: chains over record numbers, newest first, in memory reserved once.
//! Knows hashes and numbers only; whether a record really matches, its owner compares.
//!
//! Chained as Linux's table is, so that of two equal keys the newer is found first. A table with open addressing would
//! leave tombstones behind and, under a flood, stop to rehash or grow.

use crate::reserve::{Refused, bytes_of, filled, room};
use alloc::boxed::Box;
use alloc::vec::Vec;

/// A hash index over the nodes `0..nodes`; each node is in one chain or in none.
pub(crate) struct HashIndex {
    /// Start of each chain; a power of two of them.
    heads: Box<[Head]>,
    links: Vec<Link>,
    nodes: u32,
}

/// A chain's first node and, so that finding it costs one cache line, that node's tag.
#[derive(Clone, Copy)]
struct Head {
    tag: u32,
    node: u32,
}

#[derive(Clone, Copy)]
struct Link {
    /// The hash's low half: its lowest bits choose the chain, all of them are compared before the record is touched.
    tag: u32,
    previous: u32,
    next: u32,
}

impl HashIndex {
    /// An index for nodes `0..nodes`, with chains for about `expected` of them.
    ///
    /// # Errors
    /// There is no memory for it.
    pub(crate) fn try_new(nodes: u32, expected: u32) -> Result<Self, Refused> {
        let chains = (expected as usize).next_power_of_two();
        Ok(Self { heads: filled(Head::EMPTY, chains)?, links: room(nodes)?, nodes })
    }

    /// The same for tests.
    ///
    /// # Panics
    /// If there is no memory for it.
    #[cfg(test)]
    pub(crate) fn new(nodes: u32, expected: u32) -> Self {
        Self::try_new(nodes, expected).unwrap_or_else(|Refused| panic!("there is no memory for a table"))
    }

    /// How many bytes such an index takes.
    pub(crate) fn bytes(nodes: u32, expected: u32) -> u64 {
        bytes_of::<Head>(u64::from(expected).next_power_of_two()) + bytes_of::<Link>(nodes.into())
    }

    /// Puts `node`, which is in no chain, before all others with this hash. Constant work.
    ///
    /// # Panics
    /// If `node` is not below the number this index was made for.
    pub(crate) fn insert(&mut self, node: u32, hash: u64) {
        assert!(node < self.nodes, "the index was made for fewer nodes");
        if self.links.len() <= node as usize {
            self.links.resize(node as usize + 1, Link::OUT);
        }
        let tag = hash as u32;
        let chain = self.chain_of(tag);
        let next = self.heads[chain].node;
        if let Some(next) = self.links.get_mut(next as usize) {
            next.previous = node;
        }
        self.heads[chain] = Head { tag, node };
        self.links[node as usize] = Link { tag, previous: NONE, next };
    }

    /// Takes `node`, which is in a chain, out of it. Constant work.
    pub(crate) fn remove(&mut self, node: u32) {
        let Link { tag, previous, next } = self.links[node as usize];
        if let Some(next) = self.links.get_mut(next as usize) {
            next.previous = previous;
        }
        match self.links.get_mut(previous as usize) {
            Some(previous) => previous.next = next,
            None => {
                let chain = self.chain_of(tag);
                self.heads[chain] = self.head_from(next);
            }
        }
        self.links[node as usize] = Link::OUT;
    }

    /// Reads what [`HashIndex::first`] reads first. The answer only keeps the read from being left out.
    #[inline]
    pub(crate) fn touch(&self, hash: u64) -> u32 {
        self.heads[self.chain_of(hash as u32)].tag
    }

    /// The newest node that was inserted with this hash (or, once in 2³², one with another hash).
    #[inline]
    pub(crate) fn first(&self, hash: u64) -> Option<u32> {
        let tag = hash as u32;
        match self.heads[self.chain_of(tag)] {
            Head { node: NONE, .. } => None,
            head if head.tag == tag => Some(head.node),
            head => self.after(head.node, hash),
        }
    }

    /// The next older node with this hash in the chain of `node`.
    #[inline(never)]
    pub(crate) fn after(&self, mut node: u32, hash: u64) -> Option<u32> {
        loop {
            node = self.links.get(node as usize)?.next;
            if self.links.get(node as usize)?.tag == hash as u32 {
                return Some(node);
            }
        }
    }

    /// All of them, newest first.
    pub(crate) fn with_hash(&self, hash: u64) -> impl Iterator<Item = u32> {
        core::iter::successors(self.first(hash), move |&node| self.after(node, hash))
    }

    /// `node`, which may be `NONE`, as the first of its chain.
    fn head_from(&self, node: u32) -> Head {
        self.links.get(node as usize).map_or(Head::EMPTY, |link| Head { tag: link.tag, node })
    }

    fn chain_of(&self, tag: u32) -> usize {
        tag as usize & (self.heads.len() - 1)
    }

    /// Bytes reserved, to show that they never change.
    #[cfg(test)]
    pub(crate) fn reserved_len(&self) -> usize {
        self.links.capacity() * size_of::<Link>() + self.heads.len() * size_of::<Head>()
    }
}

impl Head {
    const EMPTY: Self = Self { tag: 0, node: NONE };
}

impl Link {
    const OUT: Self = Self { tag: 0, previous: NONE, next: NONE };
}

const NONE: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_with_one_hash_come_newest_first_and_leave_from_anywhere() {
        let mut index = HashIndex::new(8, 1); // one chain for all
        for node in 0..6 {
            index.insert(node, u64::from(node % 2));
        }
        let odd = |index: &HashIndex| index.with_hash(1).collect::<Vec<_>>();
        assert_eq!(odd(&index), [5, 3, 1]);
        index.remove(3);
        assert_eq!(odd(&index), [5, 1]);
        index.remove(5);
        index.remove(1);
        assert_eq!(odd(&index), [0u32; 0]);
        assert_eq!(index.with_hash(0).collect::<Vec<_>>(), [4, 2, 0]);
        index.insert(3, 1);
        assert_eq!(odd(&index), [3]);
    }
}
