//! How many packets may be answered: ICMP errors by their receiver and all together, RSTs all together. Whoever makes
//! others' packets be answered cannot flood a third party with answers, nor keep the director at nothing else.
//! The limits are Linux's, under its names (`icmp_ratelimit`, `icmp_ratemask`, `icmp_msgs_per_sec`, `icmp_msgs_burst`,
//! `net.ipv6.icmp.ratelimit`).

use alloc::vec;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;

use crate::rng::Seed;
use crate::time::Instant;
use crate::wire::icmp::{ICMP, ICMPV6};
use crate::wire::parse::Headers;

/// The limits in force.
#[non_exhaustive]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AnswerRates {
    /// Least time between ICMP errors to one receiver, after six in a row; zero: no limit. Default 1 s.
    pub icmp_ratelimit: Duration,
    /// Which types of ICMP errors are limited: bit n is type n. Fragmentation needed (3/4) never is. Default 6168:
    /// destination unreachable, source quench, time exceeded, parameter problem.
    pub icmp_ratemask: u32,
    /// Most limited ICMP errors in a second, both families together; zero: no limit. Default 1,000.
    pub icmp_msgs_per_sec: u32,
    /// How many of them may come at once. Default 50.
    pub icmp_msgs_burst: u32,
    /// Least time between ICMPv6 errors to one receiver's /64, after six in a row; zero: no limit. Packet too big is
    /// not limited. Default 1 s.
    pub icmpv6_ratelimit: Duration,
    /// Most RSTs in a second that answer segments; zero: no limit. Default 0, as in Linux.
    pub resets_per_sec: u32,
}

impl Default for AnswerRates {
    fn default() -> Self {
        Self::LINUX
    }
}

impl AnswerRates {
    /// The same with some fields changed. Fields may be added in any version, so a literal outside this crate is no way to
    /// make one.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// Linux's limits.
    pub const LINUX: Self = Self {
        icmp_ratelimit: Duration::from_secs(1),
        icmp_ratemask: 6168,
        icmp_msgs_per_sec: 1_000,
        icmp_msgs_burst: 50,
        icmpv6_ratelimit: Duration::from_secs(1),
        resets_per_sec: 0,
    };

    /// No limits at all.
    pub const UNLIMITED: Self = Self {
        icmp_ratelimit: Duration::ZERO,
        icmp_ratemask: 0,
        icmp_msgs_per_sec: 0,
        icmp_msgs_burst: 0,
        icmpv6_ratelimit: Duration::ZERO,
        resets_per_sec: 0,
    };
}

/// What has been answered of late. Receivers share buckets by a secret hash; their number is fixed.
#[derive(Clone, Debug)]
pub struct AnswerLimit {
    seed: Seed,
    all: Bucket,
    resets: Bucket,
    /// Made with the first limited error.
    receivers: Vec<Bucket>,
    /// From then on every bucket is full again.
    full_at: Instant,
}

/// Which answers may not be sent for now.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Refused {
    /// Types of ICMP errors: bit n is type n.
    icmp_types: u32,
    /// Whether ICMPv6 errors are, all but packet too big.
    icmpv6: bool,
    resets: bool,
}

impl Refused {
    /// Whether an ICMP or ICMPv6 error of this type and code may not be sent.
    pub fn is_error(&self, is_ipv4: bool, error_type: u8, code: u8) -> bool {
        match is_ipv4 {
            true => is_limited_v4(self.icmp_types, error_type, code),
            false => self.icmpv6 && is_limited_v6(error_type),
        }
    }

    /// Whether a RST may not be sent.
    pub fn is_reset(&self) -> bool {
        self.resets
    }
}

impl AnswerLimit {
    /// Nothing has been answered. `seed` decides which receivers share a bucket.
    pub fn new(seed: Seed) -> Self {
        Self { seed, all: Bucket::FULL, resets: Bucket::FULL, receivers: Vec::new(), full_at: Instant::ZERO }
    }

    /// What may not be sent to `receiver` now.
    #[inline]
    pub fn refused(&self, now: Instant, rates: impl FnOnce() -> AnswerRates, receiver: IpAddr) -> Refused {
        if now >= self.full_at { Refused::default() } else { self.look(now, &rates(), receiver) }
    }

    #[inline(never)]
    fn look(&self, now: Instant, rates: &AnswerRates, receiver: IpAddr) -> Refused {
        let own = self.receivers.get(self.bucket_of(receiver)).copied();
        let is_refused = |ratelimit| {
            !self.all.has_place(now, per_second(rates.icmp_msgs_per_sec), rates.icmp_msgs_burst)
                || own.is_some_and(|bucket| !bucket.has_place(now, ratelimit, RECEIVER_BURST))
        };
        Refused {
            icmp_types: match receiver.is_ipv4() && is_refused(rates.icmp_ratelimit) {
                true => rates.icmp_ratemask,
                false => 0,
            },
            icmpv6: receiver.is_ipv6() && is_refused(rates.icmpv6_ratelimit),
            resets: !self.resets.has_place(now, per_second(rates.resets_per_sec), rates.resets_per_sec),
        }
    }

    /// Counts an answer that is sent. `bytes` are its own, and so are the `headers`.
    pub fn spend(&mut self, now: Instant, rates: &AnswerRates, headers: &Headers, bytes: &[u8]) {
        let receiver = headers.destination;
        let &[error_type, code] = headers.transport_header(bytes).unwrap_or(&[0; 2]);
        let ratelimit = match headers.protocol {
            ICMP if is_limited_v4(rates.icmp_ratemask, error_type, code) => rates.icmp_ratelimit,
            ICMPV6 if is_limited_v6(error_type) => rates.icmpv6_ratelimit,
            TCP => {
                let full_at = self.resets.pay(now, per_second(rates.resets_per_sec), rates.resets_per_sec);
                self.full_at = self.full_at.max(full_at);
                return;
            }
            _ => return,
        };
        let all = self.all.pay(now, per_second(rates.icmp_msgs_per_sec), rates.icmp_msgs_burst);
        if self.receivers.is_empty() {
            self.receivers = vec![Bucket::FULL; RECEIVERS];
        }
        let bucket = self.bucket_of(receiver);
        let own = self.receivers[bucket].pay(now, ratelimit, RECEIVER_BURST);
        self.full_at = self.full_at.max(all).max(own);
    }

    fn bucket_of(&self, receiver: IpAddr) -> usize {
        let bits = match receiver {
            IpAddr::V4(address) => u64::from(address.to_bits()),
            IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
        };
        self.seed.derive(bits).value() as usize % RECEIVERS
    }
}

/// A bucket of tokens, kept as the time until which all of them that were taken are paid for.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Bucket {
    paid_until: Instant,
}

impl Bucket {
    /// Nothing has been taken.
    pub const FULL: Self = Self { paid_until: Instant::ZERO };

    /// Whether one more may be taken, of `burst`, where each takes so long to come back.
    pub fn has_place(&self, now: Instant, each: Duration, burst: u32) -> bool {
        each.is_zero() || self.paid_until.duration_since(now) <= each * burst.saturating_sub(1)
    }

    /// Takes one; when all of them are back.
    pub fn pay(&mut self, now: Instant, each: Duration, burst: u32) -> Instant {
        // One that was taken beside the limit, as when it was changed meanwhile, makes no debt.
        let latest = now + each * burst;
        self.paid_until = (self.paid_until.max(now) + each).min(latest);
        self.paid_until
    }
}

/// Types of the mask but fragmentation needed, without which nobody finds a path's MTU (RFC 1191).
fn is_limited_v4(mask: u32, error_type: u8, code: u8) -> bool {
    error_type < 32 && mask & 1 << error_type != 0 && (error_type, code) != (3, 4)
}

/// Every error but packet too big (RFC 8201); informational messages are not limited.
fn is_limited_v6(error_type: u8) -> bool {
    error_type < 128 && error_type != 2
}

/// How long one of so many in a second takes to come back; zero if there is no limit.
fn per_second(count: u32) -> Duration {
    Duration::from_secs(1).checked_div(count).unwrap_or_default()
}

/// Errors to one receiver that may come at once.
const RECEIVER_BURST: u32 = 6;
/// Buckets for receivers: more than there may be errors in a second.
const RECEIVERS: usize = 4_096;
const TCP: u8 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    const RATES: AnswerRates = AnswerRates {
        icmp_ratelimit: Duration::from_secs(1),
        icmp_ratemask: 6168,
        icmp_msgs_per_sec: 100,
        icmp_msgs_burst: 10,
        icmpv6_ratelimit: Duration::from_secs(1),
        resets_per_sec: 3,
    };

    /// How many of so many answers at one moment are sent: `kind` is an ICMP type and code, or a RST.
    fn sent(limit: &mut AnswerLimit, now: Instant, to: IpAddr, kind: Option<(u8, u8)>, wanted: u32) -> u32 {
        let (protocol, bytes) = match (kind, to.is_ipv4()) {
            (None, _) => (TCP, [0; 2]),
            (Some((error_type, code)), true) => (ICMP, [error_type, code]),
            (Some((error_type, code)), false) => (ICMPV6, [error_type, code]),
        };
        let mut headers = crate::wire::parse::parse(&ANY_PACKET).expect("a packet");
        (headers.destination, headers.protocol, headers.transport, headers.packet_len) = (to, protocol, 0, 2);
        let is_sent = |_: &u32| {
            let refused = limit.refused(now, || RATES, to);
            let is_refused =
                kind.map_or(refused.is_reset(), |(error_type, code)| refused.is_error(to.is_ipv4(), error_type, code));
            if !is_refused {
                limit.spend(now, &RATES, &headers, &bytes);
            }
            !is_refused
        };
        (0..wanted).filter(is_sent).count() as u32
    }

    const ANY_PACKET: [u8; 20] = [0x45, 0, 0, 20, 0, 0, 0, 0, 64, 59, 0x66, 0xad, 10, 0, 0, 1, 10, 0, 0, 2];

    fn at(millis: u64) -> Instant {
        Instant::from_millis(1_000_000 + millis)
    }

    #[test]
    fn one_receiver_gets_six_at_once_and_then_one_a_second() {
        for (to, kind) in [("198.51.100.7", (3, 3)), ("2001:db8::7", (1, 4))] {
            let (to, mut limit) = (to.parse().unwrap(), AnswerLimit::new(Seed::new(1)));
            assert_eq!(sent(&mut limit, at(0), to, Some(kind), 100), 6);
            assert_eq!(sent(&mut limit, at(999), to, Some(kind), 100), 0);
            assert_eq!(sent(&mut limit, at(1_000), to, Some(kind), 100), 1);
            assert_eq!(sent(&mut limit, at(4_000), to, Some(kind), 100), 3);
            assert_eq!(sent(&mut limit, at(60_000), to, Some(kind), 100), 6);
        }
    }

    #[test]
    fn a_path_mtu_is_always_told_and_so_is_what_the_mask_leaves_out() {
        let (v4, v6) = ("198.51.100.7".parse().unwrap(), "2001:db8::7".parse().unwrap());
        let mut limit = AnswerLimit::new(Seed::new(1));
        for kind in [(3, 3), (11, 0)] {
            sent(&mut limit, at(0), v4, Some(kind), 100);
        }
        assert_eq!(sent(&mut limit, at(0), v4, Some((3, 4)), 100), 100);
        assert_eq!(sent(&mut limit, at(0), v4, Some((0, 0)), 100), 100);
        sent(&mut limit, at(0), v6, Some((3, 0)), 100);
        assert_eq!(sent(&mut limit, at(0), v6, Some((2, 0)), 100), 100);
    }

    #[test]
    fn all_receivers_together_get_no_more_than_the_whole_allows() {
        let mut limit = AnswerLimit::new(Seed::new(1));
        let receiver = |number: u32| IpAddr::V4(core::net::Ipv4Addr::from_bits(0x2d00_0000 + number));
        let mut together = |now, first: u32| {
            (0..100).map(|n| sent(&mut limit, now, receiver(first + n), Some((3, 3)), 1)).sum::<u32>()
        };
        assert_eq!(together(at(0), 0), 10);
        assert_eq!(together(at(50), 100), 5);
        assert_eq!(together(at(10_000), 200), 10);
    }

    #[test]
    fn resets_have_a_limit_of_their_own() {
        let mut limit = AnswerLimit::new(Seed::new(1));
        let to = "198.51.100.7".parse().unwrap();
        assert_eq!(sent(&mut limit, at(0), to, None, 10), 3);
        assert_eq!(sent(&mut limit, at(0), to, Some((3, 3)), 10), 6);
        assert_eq!(sent(&mut limit, at(400), to, None, 10), 1);
    }
}
