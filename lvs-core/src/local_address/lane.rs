//! A lane: the ports of one local address towards one real server, which of them are out, and which rest.
//! Decides which port comes next; whether there may be another lane is the pool's business.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::IpAddr;

use crate::flow::{Endpoint, Protocol};
use crate::rng::{Rng, Seed};
use crate::time::Instant;

/// A lane gives ports back if it can give this part of what it remembers, so that the work pays.
const FORGET_PART: usize = 8;

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
    /// Ports to pass over in `order`, sorted: leased or resting when the lane last gave ports back.
    pub kept: Vec<u16>,
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
    /// Ports leased or returned.
    pub fn remembered(&self) -> u32 {
        self.leased + self.returned.len() as u32
    }

    /// Whether enough of its ports have rested.
    pub fn can_give(&self, now: Instant) -> bool {
        let has_rested = self.returned.front().is_some_and(|port| port.is_rested(now));
        has_rested && {
            let rested = self.returned.partition_point(|port| port.is_rested(now));
            rested * FORGET_PART >= self.remembered() as usize
        }
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
        }
    }
}
