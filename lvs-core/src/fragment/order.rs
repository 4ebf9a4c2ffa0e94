//! Lists over the places of a table, each in the order its places came: who is oldest, and so gives way first.
//! A place is in one list of a set or in none; which one, its owner knows. Every verb is constant work.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::reserve::{Refused, bytes_of, filled, room};

/// A set of lists. All memory is reserved at creation.
pub(super) struct Lists {
    links: Vec<Link>,
    ends: Box<[Ends]>,
}

#[derive(Clone, Copy)]
struct Link {
    older: u32,
    newer: u32,
}

#[derive(Clone, Copy)]
struct Ends {
    oldest: u32,
    newest: u32,
    len: u32,
}

impl Lists {
    /// So many empty lists over so many places.
    ///
    /// # Errors
    /// There is no memory for them.
    pub fn try_new(count: usize, places: u32) -> Result<Self, Refused> {
        Ok(Self { links: room(places)?, ends: filled(Ends { oldest: NONE, newest: NONE, len: 0 }, count)? })
    }

    /// How many bytes such lists take.
    pub fn bytes(count: usize, places: u32) -> u64 {
        bytes_of::<Link>(places.into()) + bytes_of::<Ends>(count as u64)
    }

    /// Adds a place that is in no list as the newest of this one.
    pub fn push(&mut self, list: usize, place: u32) {
        if self.links.len() <= place as usize {
            self.links.resize(place as usize + 1, Link { older: NONE, newer: NONE });
        }
        let ends = &mut self.ends[list];
        self.links[place as usize] = Link { older: ends.newest, newer: NONE };
        match self.links.get_mut(ends.newest as usize) {
            Some(link) => link.newer = place,
            None => ends.oldest = place,
        }
        ends.newest = place;
        ends.len += 1;
    }

    /// Takes a place out of the list it is in.
    pub fn remove(&mut self, list: usize, place: u32) {
        let Link { older, newer } = self.links[place as usize];
        let ends = &mut self.ends[list];
        match self.links.get_mut(older as usize) {
            Some(link) => link.newer = newer,
            None => ends.oldest = newer,
        }
        match self.links.get_mut(newer as usize) {
            Some(link) => link.older = older,
            None => ends.newest = older,
        }
        ends.len -= 1;
    }

    /// The places of a list, the oldest first.
    pub fn oldest_first(&self, list: usize) -> impl Iterator<Item = u32> + '_ {
        let existing = |place: u32| (place != NONE).then_some(place);
        let oldest = existing(self.ends[list].oldest);
        core::iter::successors(oldest, move |place| existing(self.links[*place as usize].newer))
    }

    /// The oldest place of a list.
    pub fn oldest(&self, list: usize) -> Option<u32> {
        self.oldest_first(list).next()
    }

    /// How many places are in a list.
    pub fn len(&self, list: usize) -> u32 {
        self.ends[list].len
    }
}

const NONE: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_leave_from_anywhere_and_the_oldest_comes_first() {
        let mut lists = Lists::try_new(2, 8).ok().expect("there is memory");
        for (list, place) in [(0, 5), (1, 2), (0, 0), (0, 3), (1, 7)] {
            lists.push(list, place);
        }
        lists.remove(0, 0);
        assert_eq!(lists.oldest_first(0).collect::<Vec<_>>(), [5, 3]);
        lists.remove(0, 5);
        lists.push(1, 5);
        assert_eq!((lists.oldest(0), lists.len(0)), (Some(3), 1));
        assert_eq!(lists.oldest_first(1).collect::<Vec<_>>(), [2, 7, 5]);
        lists.remove(0, 3);
        assert_eq!((lists.oldest(0), lists.len(0), lists.len(1)), (None, 0, 3));
    }
}
