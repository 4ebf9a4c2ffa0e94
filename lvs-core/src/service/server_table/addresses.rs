//! What is known of the addresses that servers have: whether one has it, the path MTU that routers have told of the way
//! to it, and what only the path knows.

use core::net::IpAddr;
use core::time::Duration;

use super::{ServerTable, UsedRoute};
use crate::answer_limit::Bucket;
use crate::time::Instant;
use crate::wire::ipv6;

/// How long a learned path MTU is believed: Linux's `net.ipv4.route.mtu_expires`.
const PATH_MTU_LIFETIME: Duration = Duration::from_secs(600);
/// Less than this is not believed: Linux's `net.ipv4.route.min_pmtu`. It keeps forged errors from doing much harm.
const PATH_MTU_MIN: u16 = 552;

/// Wrong guesses at a proof of 16 bits: so many at once, then one in so long a time. Whoever makes more needs hours for
/// a right one.
const GUESSES_AT_ONCE: u32 = 16;
const GUESS_PERIOD: Duration = Duration::from_millis(250);

/// What is known of an address that servers have.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct KnownAddress {
    /// How many servers have it.
    pub servers: u32,
    path_mtu: Option<PathMtu>,
    /// Wrong guesses at what only the path to it knows.
    guesses: Bucket,
}

/// What routers told of the way to an address.
#[derive(Clone, Copy, Debug)]
struct PathMtu {
    /// Longest packet it takes.
    mtu: u16,
    /// When the first of them told so.
    since: Instant,
    /// How long it is believed.
    until: Instant,
}

impl KnownAddress {
    fn believed(&self, now: Instant) -> Option<PathMtu> {
        self.path_mtu.filter(|path| path.until > now)
    }

    /// What is believed once a router has reported this.
    fn told(&self, now: Instant, reported: u32, least: u16) -> PathMtu {
        let mtu = u16::try_from(reported).unwrap_or(u16::MAX).max(least);
        let until = now + PATH_MTU_LIFETIME;
        match self.believed(now) {
            None => PathMtu { mtu, since: now, until },
            Some(before) if mtu <= before.mtu => PathMtu { mtu, until, ..before },
            Some(before) => before,
        }
    }
}

impl ServerTable {
    /// Whether a known server, deleted ones included, has this address.
    pub fn has_address(&self, address: IpAddr) -> bool {
        self.addresses.contains_key(&address)
    }

    /// What only the path to this address knows.
    pub fn proof(&self, address: IpAddr) -> u32 {
        let bits = match address {
            IpAddr::V4(address) => u128::from(address.to_bits()),
            IpAddr::V6(address) => address.to_bits(),
        };
        let proof = self.proofs.derive(bits as u64).derive((bits >> 64) as u64).value() as u32 & 0xf_ffff;
        // None is told by zero.
        if proof & 0xffff == 0 { proof | 1 } else { proof }
    }

    /// Whether errors about packets to this address are believed at all: while too many guess at its proof, none is.
    pub fn believes_errors(&self, now: Instant, address: IpAddr) -> bool {
        let known = self.addresses.get(&address);
        known.is_some_and(|known| known.guesses.has_place(now, GUESS_PERIOD, GUESSES_AT_ONCE))
    }

    /// Somebody has guessed wrong.
    pub fn note_wrong_guess(&mut self, now: Instant, address: IpAddr) {
        if let Some(known) = self.addresses.get_mut(&address) {
            known.guesses.pay(now, GUESS_PERIOD, GUESSES_AT_ONCE);
        }
    }

    /// Remembers the path MTU a router reported, if it is not above the one known.
    pub fn learn_path_mtu(&mut self, now: Instant, address: IpAddr, reported: u32) {
        if let Some(known) = self.addresses.get_mut(&address) {
            known.path_mtu = Some(known.told(now, reported, least_mtu(address)));
            self.has_learned_mtu = true;
        }
    }

    /// The path MTU learned for this address, while it is believed.
    pub fn path_mtu(&self, now: Instant, address: IpAddr) -> Option<u16> {
        if !self.has_learned_mtu {
            return None;
        }
        self.addresses.get(&address)?.believed(now).map(|path| path.mtu)
    }

    /// The MTU of the route a server's tunnel used last, once a router has `reported` another. Linux keeps it as it was
    /// then until the next packet; but a route a router had told of already follows at once.
    pub fn used_route_mtu(&self, now: Instant, address: IpAddr, route: UsedRoute, reported: u32) -> u16 {
        let known = self.addresses.get(&address).copied().unwrap_or_default();
        match known.believed(now) {
            Some(path) if path.since < route.at => known.told(now, reported, least_mtu(address)).mtu,
            _ => route.mtu,
        }
    }

    pub(super) fn leave_address(&mut self, address: IpAddr) {
        if let Some(known) = self.addresses.get_mut(&address) {
            known.servers -= 1;
            if known.servers == 0 {
                self.addresses.remove(&address);
            }
        }
    }
}

/// Less than this is not believed of the way to an address.
fn least_mtu(address: IpAddr) -> u16 {
    if address.is_ipv4() { PATH_MTU_MIN } else { ipv6::LEAST_MTU }
}
