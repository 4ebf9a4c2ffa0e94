//! A lane: the ports of one local address towards one real server, which of them are out, and which rest.
//! Decides which port comes next; whether there may be another lane is the pool's business.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::IpAddr;

use crate::flow::{Endpoint, Protocol};
use crate::rng::{Rng, Seed};
use crate::time::Instant;

/// Ports that a lane gives back at once.
pub(super) const GIVEN_BACK_MAX: usize = 64;

/// One local address towards one real server.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct LaneKey {
    pub protocol: Protocol,
    pub real: Endpoint,
    pub local: IpAddr,
}

/// The ports of one local address towards one real server.
#[derive(Debug)]
pub(super) struct Lane {
    pub key: LaneKey,
    pub order: Order,
    /// How far `order` is used up.
    pub used: u32,
    /// Which of those are leased or returned: a bit for each place in `order` up to there.
    taken: Vec<u64>,
    pub leased: u32,
    /// Ports that came back, oldest first.
    pub returned: VecDeque<Returned>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Returned {
    pub port: u16,
    pub rests_until: Instant,
}

/// A port to use next.
#[derive(Clone, Copy)]
pub(super) enum Next {
    Rested(u16),
    Unused {
        port: u16,
        /// Its place in the lane's order.
        index: u32,
    },
}

/// Every number below `count` once, in an order drawn from a seed, without memory: `offset + index · step`, where
/// `step` and `count` have no common divisor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order {
    offset: u32,
    step: u32,
    pub count: u32,
}

impl Lane {
    /// A lane that has handed out nothing.
    pub fn new(key: LaneKey, order: Order) -> Self {
        Self { key, order, used: 0, taken: Vec::new(), leased: 0, returned: VecDeque::new() }
    }

    /// Ports leased or returned.
    pub fn remembered(&self) -> u32 {
        self.leased + self.returned.len() as u32
    }

    /// The place in `order` of a port that it does not remember: one that it never had, or else one that it has given
    /// back. Looks at 64 of these at a time.
    pub fn unused(&self) -> Option<u32> {
        if self.used < self.order.count {
            return Some(self.used);
        }
        let free = self.taken.iter().enumerate().find(|(_, taken)| **taken != u64::MAX);
        let index = free.map(|(word, taken)| word as u32 * 64 + taken.trailing_ones());
        index.filter(|index| *index < self.order.count)
    }

    /// The port at this place is leased.
    pub fn use_up(&mut self, index: u32) {
        let word = index as usize / 64;
        if self.taken.len() <= word {
            self.taken.resize(word + 1, 0);
        }
        self.taken[word] |= 1 << (index % 64);
        self.used = self.used.max(index + 1);
    }

    /// The same of the port with this number, wherever it is in the order. Returns whether it was free.
    pub fn use_exactly(&mut self, number: u32) -> bool {
        let index = self.order.place(number, self.order.inverse());
        let taken = self.taken.get(index as usize / 64).copied().unwrap_or_default();
        let is_free = taken >> (index % 64) & 1 == 0;
        if is_free {
            self.use_up(index);
        }
        is_free
    }

    /// Forgets some ports that have rested. Returns how many; `number` tells a port's number in the order.
    pub fn give_back(&mut self, now: Instant, number: impl Fn(u16) -> u32) -> u32 {
        let rested = self.returned.iter().take(GIVEN_BACK_MAX).take_while(|port| port.is_rested(now)).count();
        let inverse = self.order.inverse();
        for rested in self.returned.drain(..rested) {
            let index = self.order.place(number(rested.port), inverse);
            if let Some(word) = self.taken.get_mut(index as usize / 64) {
                *word &= !(1 << (index % 64));
            }
        }
        rested as u32
    }

    /// Whether any of its ports has rested.
    pub fn can_give(&self, now: Instant) -> bool {
        self.returned.front().is_some_and(|port| port.is_rested(now))
    }
}

impl Returned {
    /// Strictly after its time, so that a port never rests for no time at all.
    pub fn is_rested(&self, now: Instant) -> bool {
        self.rests_until < now
    }
}

impl Order {
    pub fn new(seed: Seed, count: u32) -> Self {
        let mut rng = Rng::new(seed);
        let offset = rng.up_to(count.saturating_sub(1));
        let start = rng.up_to(count.saturating_sub(1));
        // Among 2¹⁶ numbers the next one without a common divisor is never more than a few steps away.
        let step = (start.max(1)..).find(|step| are_coprime(*step, count.max(1))).unwrap_or(1);
        Self { offset, step, count }
    }

    /// The number in place `index`, which is below `count`.
    pub fn at(&self, index: u32) -> u32 {
        let place = u64::from(self.offset) + u64::from(index) * u64::from(self.step);
        (place % u64::from(self.count)) as u32
    }
}

impl Order {
    /// What `step` is multiplied by to make 1 modulo `count`: by the extended Euclidean algorithm.
    fn inverse(&self) -> u32 {
        let count = i64::from(self.count);
        let (mut a, mut b) = (i64::from(self.step) % count, count);
        let (mut x, mut y) = (1, 0);
        while b != 0 {
            let quotient = a / b;
            (a, b) = (b, a - quotient * b);
            (x, y) = (y, x - quotient * y);
        }
        x.rem_euclid(count) as u32
    }

    /// In which place a number is, with [`Self::inverse`].
    fn place(&self, number: u32, inverse: u32) -> u32 {
        let count = u64::from(self.count);
        let ahead = (u64::from(number) + count - u64::from(self.offset)) % count;
        (ahead * u64::from(inverse) % count) as u32
    }
}

fn are_coprime(mut a: u32, mut b: u32) -> bool {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_names_every_number_once() {
        for count in [1, 2, 6, 97, 1024, 64_511] {
            let order = Order::new(Seed::new(u64::from(count)), count);
            let mut seen: Vec<_> = (0..count).map(|index| order.at(index)).collect();
            seen.sort_unstable();
            assert!(seen.into_iter().eq(0..count), "{count}");
            let inverse = order.inverse();
            assert!((0..count).all(|index| order.place(order.at(index), inverse) == index), "{count}");
        }
    }
}
