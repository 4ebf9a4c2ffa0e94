//! Floods: packets of the user's making at an even rate, beside whatever conversations are going on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::packet::syn;

/// A run of raw packets from one host's link. Start it with [`crate::Simulation::flood`].
pub struct Flood {
    pub(crate) count: u64,
    pub(crate) interval: Duration,
    pub(crate) packet: Box<dyn FnMut(u64) -> Vec<u8>>,
}

impl Flood {
    /// `count` packets, `packets_per_s` in a second; `packet` makes each from its index.
    pub fn new(count: u64, packets_per_s: u64, packet: impl FnMut(u64) -> Vec<u8> + 'static) -> Self {
        let interval = Duration::from_nanos(1_000_000_000 / packets_per_s.max(1));
        Self { count, interval, packet: Box::new(packet) }
    }

    /// A SYN flood on a service: each packet from another invented client, in 100.64.0.0/10 (RFC 6598) or 0100::/64
    /// (RFC 6666), where no host answers.
    pub fn syn(count: u64, packets_per_s: u64, to: SocketAddr) -> Self {
        Self::new(count, packets_per_s, move |index| {
            let address: IpAddr = match to {
                SocketAddr::V4(_) => Ipv4Addr::from_bits(0x6440_0000 | (index as u32 & 0x003f_ffff)).into(),
                SocketAddr::V6(_) => Ipv6Addr::from_bits(0x0100 << 112 | u128::from(index)).into(),
            };
            // Ports differ too, once every IPv4 address was used.
            let port = 1_024 + (index >> 22) as u16 % 60_000;
            syn(SocketAddr::new(address, port), to, index as u32)
        })
    }
}

impl std::fmt::Debug for Flood {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flood").field("count", &self.count).field("interval", &self.interval).finish_non_exhaustive()
    }
}
