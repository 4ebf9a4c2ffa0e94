//! One queue of places for each client, in memory that is the same however many clients there are: clients whose hashes
//! agree share one (stochastic fairness queueing, McKenney 1990). Good enough to tell whether one client has a large part
//! of all places; a secret keys the hash, so nobody chooses with whom he shares. Every verb is constant work.

use alloc::vec::Vec;
use core::net::IpAddr;

use ahash::RandomState;

use super::queue::{Links, Queue};
use crate::reserve::{Refused, bytes_of, room};
use crate::rng::Seed;

/// The queues of all clients.
pub(crate) struct ClientQueues {
    links: Links,
    queues: Vec<Queue>,
    hasher: RandomState,
}

impl ClientQueues {
    /// None in any queue, of so many places. The seed keys the hash.
    ///
    /// # Errors
    /// There is no memory for it.
    pub(crate) fn try_new(capacity: u32, seed: Seed) -> Result<Self, Refused> {
        let word = |part| seed.derive(part).value();
        let count = queues_of(capacity);
        let mut queues = room(count)?;
        queues.resize(count as usize, Queue::EMPTY);
        let hasher = RandomState::with_seeds(word(0), word(1), word(2), word(3));
        Ok(Self { links: Links::try_new(capacity)?, queues, hasher })
    }

    /// How many bytes they take.
    pub(crate) fn bytes(capacity: u32) -> u64 {
        Links::bytes(capacity) + bytes_of::<Queue>(queues_of(capacity).into())
    }

    /// Adds `place` to the client's queue as the newest, or takes it out. Nothing happens if it is so already.
    pub(crate) fn set(&mut self, client: IpAddr, place: u32, is_in: bool) {
        let index = self.index(client);
        self.links.set(&mut self.queues[index], place, is_in);
    }

    /// How many places the client has, and those it shares its queue with.
    pub(crate) fn len(&self, client: IpAddr) -> u32 {
        self.queues[self.index(client)].len()
    }

    /// The client's places, the one that has been there longest first.
    pub(crate) fn oldest_first(&self, client: IpAddr) -> impl Iterator<Item = u32> + '_ {
        self.links.oldest_first(&self.queues[self.index(client)])
    }

    fn index(&self, client: IpAddr) -> usize {
        (self.hasher.hash_one(client) % self.queues.len() as u64) as usize
    }

    /// Bytes reserved, to show that they never change.
    #[cfg(test)]
    pub(crate) fn reserved_len(&self) -> usize {
        self.links.reserved_len() + self.queues.capacity() * size_of::<Queue>()
    }
}

/// As many queues as places, up to 1,024: where a client has a quarter of all places, one in 1,024 others shares its queue.
const fn queues_of(capacity: u32) -> u32 {
    match capacity {
        0 => 1,
        1..1024 => capacity,
        _ => 1024,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_has_a_queue_of_its_own_nearly_always() {
        let mut queues = ClientQueues::try_new(4096, Seed::new(1)).ok().expect("memory for some");
        let client = |number: u32| IpAddr::from(number.to_be_bytes());
        (0..40).for_each(|place| queues.set(client(place % 2), place, true));
        queues.set(client(0), 0, false);
        assert_eq!((queues.len(client(0)), queues.len(client(1))), (19, 20));
        assert_eq!(queues.oldest_first(client(0)).next(), Some(2));
        let others = (2..1002).filter(|other| queues.len(client(*other)) > 0).count();
        assert!(others < 20, "{others}");
    }
}
