//! Links: how long a packet takes from one end to the other, and what may befall it. The dice come from the
//! simulation's seed, so a run's accidents are the same each time.

use std::time::Duration;

use lvs_core::rng::Rng;
use lvs_core::{Instant, Seed};

/// A link between a host and the director, the same in both directions.
///
/// ```
/// use std::time::Duration;
/// use lvs_sim::{Faults, Link};
///
/// let satellite = Link { delay: Duration::from_millis(300), mtu: 1400, ..Link::default() };
/// let bad = Link { faults: Faults { loss_permille: 50, ..Faults::NONE }, ..satellite };
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link {
    /// Time from one end to the other. Default 1 ms.
    pub delay: Duration,
    /// Longest packet it carries, in bytes. Longer ones are fragmented, or lost if they may not be. Default 1500.
    pub mtu: u16,
    /// Bits it carries in a second; `None` is no limit. Packets wait for their turn. Default `None`.
    pub bandwidth_bits_per_s: Option<u64>,
    /// Longest time a packet waits for its turn; packets that would wait longer are lost. Default 100 ms.
    pub queue_max: Duration,
    /// What may befall a packet. Default nothing.
    pub faults: Faults,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            delay: Duration::from_millis(1),
            mtu: 1500,
            bandwidth_bits_per_s: None,
            queue_max: Duration::from_millis(100),
            faults: Faults::NONE,
        }
    }
}

/// What may befall a packet: chances out of a thousand, rolled for each packet by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Faults {
    /// It is lost. 1000 cuts the link.
    pub loss_permille: u16,
    /// It arrives twice.
    pub duplicate_permille: u16,
    /// It is held back and packets sent after it may arrive before it.
    pub reorder_permille: u16,
    /// One bit of it is flipped. Checksums find every flip, also where a packet is hit on both its links: bits flipped
    /// on the way to the director and away from it never cancel out.
    pub corrupt_permille: u16,
    /// Longest time a reordered packet or a duplicate is held back.
    pub reorder_by: Duration,
}

impl Faults {
    /// A perfect link.
    pub const NONE: Self = Self {
        loss_permille: 0,
        duplicate_permille: 0,
        reorder_permille: 0,
        corrupt_permille: 0,
        reorder_by: Duration::from_millis(5),
    };
}

impl Default for Faults {
    fn default() -> Self {
        Self::NONE
    }
}

/// What befell the packets handed to one direction of a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LinkCounters {
    /// Packets handed to the link.
    pub sent: u64,
    /// Lost by chance.
    pub lost: u64,
    /// Delivered twice.
    pub duplicated: u64,
    /// Held back.
    pub reordered: u64,
    /// Delivered with a flipped bit.
    pub corrupted: u64,
    /// Lost because too many waited for their turn.
    pub overflowed: u64,
    /// Lost because they were longer than the MTU.
    pub too_big: u64,
}

/// One direction of a link, in use.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) counters: LinkCounters,
    heading: Heading,
    rng: Rng,
    busy_until: Instant,
}

/// Which end of the link a direction leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Heading {
    Director,
    Host,
}

impl Wire {
    pub(crate) fn new(heading: Heading, seed: Seed) -> Self {
        let rng = Rng::new(seed.derive(heading as u64));
        Self { counters: LinkCounters::default(), heading, rng, busy_until: Instant::ZERO }
    }

    /// Takes a packet at `now` and tells when what arrives at the other end: nothing, the packet, or two of it.
    pub(crate) fn carry(
        &mut self,
        now: Instant,
        link: &Link,
        mut packet: Vec<u8>,
        mut arrive: impl FnMut(Instant, Vec<u8>),
    ) {
        self.counters.sent += 1;
        if packet.len() > usize::from(link.mtu) {
            self.counters.too_big += 1;
            return;
        }
        let Some(departs) = self.take_turn(now, link, packet.len()) else {
            self.counters.overflowed += 1;
            return;
        };
        let mut arrives = departs + link.delay;
        let faults = &link.faults;
        if self.happens(faults.loss_permille) {
            self.counters.lost += 1;
            return;
        }
        if self.happens(faults.duplicate_permille) {
            self.counters.duplicated += 1;
            arrive(arrives + self.hold_back(faults), packet.clone());
        }
        if self.happens(faults.reorder_permille) {
            self.counters.reordered += 1;
            arrives = arrives + self.hold_back(faults);
        }
        if self.happens(faults.corrupt_permille) && !packet.is_empty() {
            self.counters.corrupted += 1;
            // Even bits one way, odd bits the other: no two are in one column of the Internet checksum (RFC 1071).
            let bit = self.rng.up_to(packet.len() as u32 * 4 - 1) * 2 + self.heading as u32;
            packet[bit as usize / 8] ^= 1 << (bit % 8);
        }
        arrive(arrives, packet);
    }

    /// When the packet's last bit leaves, if the queue is not too long.
    fn take_turn(&mut self, now: Instant, link: &Link, len: usize) -> Option<Instant> {
        let Some(bits_per_s) = link.bandwidth_bits_per_s else { return Some(now) };
        let begins = self.busy_until.max(now);
        if begins.duration_since(now) > link.queue_max {
            return None;
        }
        let nanos = (len as u64 * 8).saturating_mul(1_000_000_000) / bits_per_s.max(1);
        self.busy_until = begins + Duration::from_nanos(nanos);
        Some(self.busy_until)
    }

    fn happens(&mut self, permille: u16) -> bool {
        permille > 0 && self.rng.up_to(999) < u32::from(permille)
    }

    fn hold_back(&mut self, faults: &Faults) -> Duration {
        let micros = u32::try_from(faults.reorder_by.as_micros()).unwrap_or(u32::MAX);
        Duration::from_micros(u64::from(self.rng.up_to(micros)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn carry_many(link: &Link, count: usize) -> (Vec<(Instant, Vec<u8>)>, LinkCounters) {
        let mut wire = Wire::new(Heading::Director, Seed::new(1));
        let mut arrived = Vec::new();
        for index in 0..count {
            wire.carry(Instant::from_millis(index as u64), link, vec![index as u8; 100], |at, packet| {
                arrived.push((at, packet));
            });
        }
        (arrived, wire.counters)
    }

    #[test]
    fn a_perfect_link_delivers_everything_after_its_delay() {
        let (arrived, _) = carry_many(&Link::default(), 3);
        let times: Vec<_> = arrived.iter().map(|(at, _)| *at).collect();
        assert_eq!(times, [1, 2, 3].map(Instant::from_millis));
    }

    #[test]
    fn each_fault_happens_about_as_often_as_asked() {
        let faults = Faults { loss_permille: 100, duplicate_permille: 100, reorder_permille: 100, ..Faults::NONE };
        let faults = Faults { corrupt_permille: 100, ..faults };
        let (arrived, counters) = carry_many(&Link { faults, ..Link::default() }, 10_000);
        for happened in [counters.lost, counters.duplicated, counters.reordered, counters.corrupted] {
            assert!((800..=1200).contains(&happened), "{counters:?}");
        }
        assert_eq!(arrived.len() as u64, counters.sent - counters.lost + counters.duplicated);
    }

    #[test]
    fn a_slow_link_sends_one_packet_after_the_other_and_loses_what_would_wait_too_long() {
        // 100 bytes at 80 kbit/s take 10 ms; packets come each millisecond.
        let slow = Link { bandwidth_bits_per_s: Some(80_000), delay: Duration::ZERO, ..Link::default() };
        let (arrived, counters) = carry_many(&slow, 50);
        assert_eq!(arrived[0].0, Instant::from_millis(10));
        assert_eq!(arrived[1].0, Instant::from_millis(20));
        assert!(counters.overflowed > 0);
        assert_eq!(arrived.len() as u64, counters.sent - counters.overflowed);
    }

    #[test]
    fn a_packet_longer_than_the_mtu_is_lost_and_counted() {
        let (arrived, counters) = carry_many(&Link { mtu: 99, ..Link::default() }, 1);
        assert!(arrived.is_empty());
        assert_eq!(counters.too_big, 1);
    }
}
