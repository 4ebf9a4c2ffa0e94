//! Fragmented datagrams: which one a fragment belongs to, what is remembered of it, and for how long.
//! `memory.rs` is the table, `order.rs` says who gives way when it is full, `stretches.rs` what of a datagram has come;
//! [`Reassembler`] puts datagrams together for whoever needs them whole, [`Follower`] sends all of one the same way.
//! Sources: RFC 791 §3.2, RFC 8200 §4.5, RFC 5722.

mod follower;
mod memory;
mod order;
mod reassembler;
mod stretches;

use core::net::IpAddr;
use core::time::Duration;

pub use self::follower::{Follower, Waited};
pub(crate) use self::memory::{DatagramId, Decision, Fit, FragmentMemory, GivenUp, Part};
pub use self::reassembler::{Collected, Reassembler};
use crate::flow::AddressFamily;
use crate::wire::parse::{FragmentPart, Headers};

/// Which datagram a fragment belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct DatagramKey {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    id: u32,
}

impl DatagramKey {
    pub fn of(headers: &Headers, part: &FragmentPart) -> Self {
        // RFC 8200 §4.5: in IPv6 the protocol is not part of the key. Only the first part tells it where headers follow
        // the fragment header.
        let protocol = if headers.family == AddressFamily::Ipv4 { headers.protocol } else { 0 };
        Self { source: headers.source, destination: headers.destination, protocol, id: part.id }
    }

    /// How long the parts of this datagram may be apart.
    fn lifetime(&self) -> Duration {
        match self.source {
            // Linux `ipfrag_time`.
            IpAddr::V4(_) => Duration::from_secs(30),
            // RFC 8200 §4.5, Linux `ip6frag_time`.
            IpAddr::V6(_) => Duration::from_secs(60),
        }
    }

    /// Whose share it is counted in: its source, in IPv6 its source's /64, of which a host has all addresses. A server's
    /// address is known, so that it has a share of its own.
    fn sharer(&self, is_server: bool) -> IpAddr {
        match self.source {
            IpAddr::V6(address) if !is_server => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
            source => source,
        }
    }
}
