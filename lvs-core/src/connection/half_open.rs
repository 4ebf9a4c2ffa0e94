//! Half-open TCP connections in the order they came, so that they can be counted and the oldest of them found.
//! Knows places in the connection table only; which state is half-open, `State::is_half_open` says.

use alloc::vec::Vec;

/// A list over the places `0..capacity`; each place is in it once or not at all. Every verb is constant work.
pub(crate) struct HalfOpenList {
    links: Vec<Link>,
    oldest: u32,
    newest: u32,
    len: u32,
}

/// A place's neighbours. One that is not in the list has itself as its older neighbour.
#[derive(Clone, Copy)]
struct Link {
    older: u32,
    newer: u32,
}

impl HalfOpenList {
    /// An empty list. Reserves all memory it will ever use (8 bytes a place).
    pub(crate) fn new(capacity: u32) -> Self {
        Self { links: Vec::with_capacity(capacity as usize), oldest: NONE, newest: NONE, len: 0 }
    }

    /// Adds `place` as the newest, or takes it out. Nothing happens if it is so already.
    pub(crate) fn set(&mut self, place: u32, is_half_open: bool) {
        match (is_half_open, self.contains(place)) {
            (true, false) => self.push(place),
            (false, true) => self.remove(place),
            _ => {}
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    /// All of them, the one that has been there longest first.
    pub(crate) fn oldest_first(&self) -> impl Iterator<Item = u32> + '_ {
        let existing = |place: u32| (place != NONE).then_some(place);
        core::iter::successors(existing(self.oldest), move |place| existing(self.links[*place as usize].newer))
    }

    fn contains(&self, place: u32) -> bool {
        self.links.get(place as usize).is_some_and(|link| link.older != place)
    }

    fn push(&mut self, place: u32) {
        while self.links.len() <= place as usize {
            let next = self.links.len() as u32;
            self.links.push(Link { older: next, newer: NONE });
        }
        self.links[place as usize] = Link { older: self.newest, newer: NONE };
        match self.links.get_mut(self.newest as usize) {
            Some(link) => link.newer = place,
            None => self.oldest = place,
        }
        self.newest = place;
        self.len += 1;
    }

    fn remove(&mut self, place: u32) {
        let Link { older, newer } = self.links[place as usize];
        match self.links.get_mut(older as usize) {
            Some(link) => link.newer = newer,
            None => self.oldest = newer,
        }
        match self.links.get_mut(newer as usize) {
            Some(link) => link.older = older,
            None => self.newest = older,
        }
        self.links[place as usize].older = place;
        self.len -= 1;
    }

    /// Bytes reserved, to show that they never change.
    #[cfg(test)]
    pub(crate) fn reserved_len(&self) -> usize {
        self.links.capacity() * size_of::<Link>()
    }
}

const NONE: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(list: &mut HalfOpenList) -> Vec<u32> {
        let places: Vec<u32> = list.oldest_first().collect();
        places.iter().for_each(|place| list.set(*place, false));
        places
    }

    #[test]
    fn the_oldest_comes_first_whoever_left_before() {
        let mut list = HalfOpenList::new(8);
        for place in [5, 0, 3, 7] {
            list.set(place, true);
        }
        list.set(0, true); // there already: stays where it is
        list.set(3, false);
        list.set(3, false);
        list.set(1, false); // never was
        assert_eq!(list.len(), 3);
        assert_eq!(drain(&mut list), [5, 0, 7]);
        assert_eq!((list.len(), list.oldest_first().next()), (0, None));
    }

    #[test]
    fn who_comes_back_is_the_newest() {
        let mut list = HalfOpenList::new(4);
        (0..4).for_each(|place| list.set(place, true));
        for place in [0, 3] {
            list.set(place, false);
            list.set(place, true);
        }
        assert_eq!(drain(&mut list), [1, 2, 0, 3]);
    }
}
