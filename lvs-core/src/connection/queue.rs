//! Places of a table in the order they came, so that those that may have to make room can be counted and the oldest of
//! them found. Knows places only; who is in which queue, their owners say. Every verb is constant work.

use alloc::vec::Vec;
use core::hash::Hash;

use ahash::RandomState;
use hashbrown::HashMap;

use crate::reserve::{Refused, bytes_of, room};
use crate::rng::Seed;

/// The ends of one queue; its places are chained in [`Links`], which several queues may share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Queue {
    oldest: u32,
    newest: u32,
    len: u32,
}

impl Queue {
    pub(crate) const EMPTY: Self = Self { oldest: NONE, newest: NONE, len: 0 };

    /// How many there are.
    pub(crate) const fn len(&self) -> u32 {
        self.len
    }
}

/// Each place's neighbours in the one queue it is in.
#[derive(Debug)]
pub(crate) struct Links {
    links: Vec<Link>,
}

/// A place's neighbours. One that is in no queue has itself as its older neighbour.
#[derive(Clone, Copy, Debug)]
struct Link {
    older: u32,
    newer: u32,
}

impl Links {
    /// Links for the places `0..capacity`. Reserves all memory they will ever use (8 bytes a place).
    ///
    /// # Errors
    /// There is no memory for it.
    pub(crate) fn try_new(capacity: u32) -> Result<Self, Refused> {
        Ok(Self { links: room(capacity)? })
    }

    /// How many bytes such links take.
    pub(crate) fn bytes(capacity: u32) -> u64 {
        bytes_of::<Link>(capacity.into())
    }

    /// Links that take memory as places are used (8 bytes for each below the highest one).
    pub(crate) const fn growing() -> Self {
        Self { links: Vec::new() }
    }

    /// Adds `place` as the newest, or takes it out. Nothing happens if it is so already.
    pub(crate) fn set(&mut self, queue: &mut Queue, place: u32, is_in: bool) {
        match (is_in, self.contains(place)) {
            (true, false) => self.push(queue, place),
            (false, true) => self.remove(queue, place),
            _ => {}
        }
    }

    /// All of a queue, the one that has been there longest first.
    pub(crate) fn oldest_first(&self, queue: &Queue) -> impl Iterator<Item = u32> + '_ {
        let existing = |place: u32| (place != NONE).then_some(place);
        core::iter::successors(existing(queue.oldest), move |place| existing(self.links[*place as usize].newer))
    }

    /// Whether `place` is in a queue.
    pub(crate) fn contains(&self, place: u32) -> bool {
        self.links.get(place as usize).is_some_and(|link| link.older != place)
    }

    fn push(&mut self, queue: &mut Queue, place: u32) {
        while self.links.len() <= place as usize {
            let next = self.links.len() as u32;
            self.links.push(Link { older: next, newer: NONE });
        }
        self.links[place as usize] = Link { older: queue.newest, newer: NONE };
        match self.links.get_mut(queue.newest as usize) {
            Some(link) => link.newer = place,
            None => queue.oldest = place,
        }
        queue.newest = place;
        queue.len += 1;
    }

    fn remove(&mut self, queue: &mut Queue, place: u32) {
        let Link { older, newer } = self.links[place as usize];
        match self.links.get_mut(older as usize) {
            Some(link) => link.newer = newer,
            None => queue.oldest = newer,
        }
        match self.links.get_mut(newer as usize) {
            Some(link) => link.older = older,
            None => queue.newest = older,
        }
        self.links[place as usize].older = place;
        queue.len -= 1;
    }

    /// Bytes reserved, to show that they never change.
    #[cfg(test)]
    pub(crate) fn reserved_len(&self) -> usize {
        self.links.capacity() * size_of::<Link>()
    }
}

/// One queue for each key. A key without places takes no memory.
#[derive(Debug)]
pub(crate) struct KeyedQueues<K> {
    links: Links,
    queues: HashMap<K, Queue, RandomState>,
}

impl<K: Eq + Hash> KeyedQueues<K> {
    /// No queue. The seed keys the hash.
    pub(crate) fn new(seed: Seed) -> Self {
        let word = |part| seed.derive(part).value();
        let state = RandomState::with_seeds(word(0), word(1), word(2), word(3));
        Self { links: Links::growing(), queues: HashMap::with_hasher(state) }
    }

    /// Adds `place` to the queue of `key` as the newest, or takes it out. Nothing happens if it is so already.
    pub(crate) fn set(&mut self, key: K, place: u32, is_in: bool) {
        if is_in == self.links.contains(place) {
            return;
        }
        if is_in {
            self.links.push(self.queues.entry(key).or_insert(Queue::EMPTY), place);
            return;
        }
        let Some(queue) = self.queues.get_mut(&key) else { return };
        self.links.remove(queue, place);
        if queue.len == 0 {
            self.queues.remove(&key);
        }
    }

    /// The place that has been in the queue of `key` longest.
    pub(crate) fn oldest(&self, key: &K) -> Option<u32> {
        self.queues.get(key).map(|queue| queue.oldest)
    }
}

const NONE: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(links: &mut Links, queue: &mut Queue) -> Vec<u32> {
        let places: Vec<u32> = links.oldest_first(queue).collect();
        places.iter().for_each(|place| links.set(queue, *place, false));
        places
    }

    #[test]
    fn the_oldest_comes_first_whoever_left_before() {
        let (mut links, mut queue) = (Links::try_new(8).ok().expect("memory for eight"), Queue::EMPTY);
        for place in [5, 0, 3, 7] {
            links.set(&mut queue, place, true);
        }
        links.set(&mut queue, 0, true); // there already: stays where it is
        links.set(&mut queue, 3, false);
        links.set(&mut queue, 3, false);
        links.set(&mut queue, 1, false); // never was
        assert_eq!(queue.len(), 3);
        assert_eq!(drain(&mut links, &mut queue), [5, 0, 7]);
        assert_eq!((queue.len(), links.oldest_first(&queue).next()), (0, None));
    }

    #[test]
    fn who_comes_back_is_the_newest() {
        let (mut links, mut queue) = (Links::try_new(4).ok().expect("memory for four"), Queue::EMPTY);
        (0..4).for_each(|place| links.set(&mut queue, place, true));
        for place in [0, 3] {
            links.set(&mut queue, place, false);
            links.set(&mut queue, place, true);
        }
        assert_eq!(drain(&mut links, &mut queue), [1, 2, 0, 3]);
    }

    #[test]
    fn queues_by_key_know_nothing_of_each_other_and_are_forgotten_when_they_are_empty() {
        let mut queues = KeyedQueues::new(Seed::new(1));
        for (key, place) in [("a", 4), ("b", 0), ("a", 2), ("b", 3)] {
            queues.set(key, place, true);
        }
        assert_eq!((queues.oldest(&"a"), queues.oldest(&"b"), queues.oldest(&"c")), (Some(4), Some(0), None));
        queues.set("a", 4, false);
        queues.set("b", 0, false);
        queues.set("b", 3, false);
        assert_eq!((queues.oldest(&"a"), queues.oldest(&"b"), queues.queues.len()), (Some(2), None, 1));
    }
}
