//! Local addresses (FullNAT): which endpoint of the director's own a connection uses towards its real server.
//! The one promise: no two connections of a protocol have the same pair of real and local endpoint at once, and a pair
//! that was used rests for a while. The same local endpoint serves different real servers at once.
//!
//! Each pair of real server and local address has its own ports (a *lane*), made when it is first used. A lane hands
//! out ports that have rested, oldest first, then ports it does not remember, in an order drawn from the seed. Both
//! take constant work. When the memory for ports is full, lanes give back what has rested.
//! Source: the published behaviour of DPVS and Alibaba LVS.
//!
//! A service needs local addresses of its servers' family. Whoever carries the packets sees to it that the servers'
//! replies to them ([`crate::Director::local_addresses`]) reach the director:
//!
//! ```
//! use lvs_core::{Command, Director, DirectorConfig, Instant, Protocol, Seed, ServerConfig, ServiceConfig, ServiceKey};
//!
//! let mut director = Director::new(DirectorConfig::default(), Seed::new(0x5eed));
//! let web = ServiceKey::address(Protocol::Tcp, "192.0.2.80:80".parse().unwrap());
//! for command in [
//!     Command::AddService(web, ServiceConfig::new("rr")),
//!     Command::AddLocalAddress(web, "10.0.0.200".parse().unwrap()),
//!     Command::AddServer(web, ServerConfig::full_nat("10.1.0.2:8080".parse().unwrap())),
//! ] {
//!     director.apply(Instant::ZERO, &command).unwrap();
//! }
//! assert_eq!(director.local_addresses().count(), 1);
//! ```

mod lane;
pub(crate) mod pool;

use core::net::IpAddr;
use core::time::Duration;

use crate::flow::{Endpoint, Protocol};

pub(crate) use self::lane::LaneKey;
pub(crate) use self::pool::LocalAddressPool;

/// Local addresses one service may have. All are tried for a connection before it is refused, so this also bounds the
/// work.
pub const LOCAL_ADDRESSES_MAX: usize = 64;

/// Which local ports FullNAT may use, and how.
///
/// ```
/// use lvs_core::local_address::LocalPorts;
/// let second_of_four = LocalPorts::default().with(|ports| {
///     ports.shard = 1;
///     ports.shards = 4;
/// });
/// assert_eq!(second_of_four.count(), 16_128); // 1025, 1029, … 65533
/// ```
#[non_exhaustive]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LocalPorts {
    /// First port of the range. Default 1025, as DPVS.
    pub first: u16,
    /// Last port of the range. Default 65535.
    pub last: u16,
    /// Which of several directors that share the local addresses this one is, from 0. Default 0.
    pub shard: u16,
    /// How many directors share the local addresses: this one uses only ports with `port % shards == shard`, so that
    /// whoever steers packets can tell from a reply whose it is. 0 counts as 1. Default 1.
    pub shards: u16,
    /// How long a port rests after its connection before it may be used towards the same server again. Default 5 s:
    /// late segments of the old connection are gone by then; that a server still in TIME_WAIT takes the new one is seen
    /// to by rewritten sequence numbers ([`crate::service::FullNatOptions::rewrite_sequence`]). Where those are off,
    /// set at least the servers' TIME_WAIT, 60 s on Linux.
    pub quarantine: Duration,
    /// Most ports in use or remembered for having been in use, over all servers; 16 bytes each, allocated as needed.
    /// Default 262,144. A server that needs more makes others give back ports that have rested, 64 at a time.
    pub remembered_max: u32,
    /// Most ports one client may have at once towards one server, on all local addresses of its service together
    /// (IPv6 clients: one network, [`crate::DirectorConfig::client_ipv6_prefix`]). At the bound its own connections on
    /// those addresses that have proved nothing give way, or are over, or have only talked in datagrams; where there are none, it is refused ([`crate::DropReason::ClientPortsFull`]).
    /// `u32::MAX`, the default, stands for a quarter of them, and for 16 where that is less.
    pub client_max: u32,
}

impl LocalPorts {
    /// The same with some fields changed. Fields may be added in any version, so a literal outside this crate is no way to
    /// make one.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// How many ports these are, for each local address and server.
    pub const fn count(&self) -> u32 {
        let first = self.first_port();
        if first > self.last as u32 { 0 } else { (self.last as u32 - first) / self.step() + 1 }
    }

    /// The first port of this shard. Port 0 is never used.
    const fn first_port(&self) -> u32 {
        let first = if self.first == 0 { 1 } else { self.first as u32 };
        let shard = self.shard as u32 % self.step();
        first + (shard + self.step() - first % self.step()) % self.step()
    }

    const fn step(&self) -> u32 {
        if self.shards == 0 { 1 } else { self.shards as u32 }
    }

    /// Whether this is one of them.
    fn has(&self, port: u16) -> bool {
        let first = self.first_port();
        u32::from(port) >= first && port <= self.last && (u32::from(port) - first) % self.step() == 0
    }

    /// A port's number; [`LocalPorts::port`] turns it back.
    fn number(&self, port: u16) -> u32 {
        (u32::from(port) - self.first_port()) / self.step()
    }

    /// The port with this number, which is below [`LocalPorts::count`].
    fn port(&self, index: u32) -> u16 {
        u16::try_from(self.first_port() + index * self.step()).unwrap_or(self.last)
    }
}

impl Default for LocalPorts {
    fn default() -> Self {
        Self {
            first: 1025,
            last: u16::MAX,
            shard: 0,
            shards: 1,
            quarantine: Duration::from_secs(5),
            remembered_max: 1 << 18,
            client_max: u32::MAX,
        }
    }
}

/// How many ports of a local address are in which state, towards one real server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct LocalPortsView {
    /// The protocol.
    pub protocol: Protocol,
    /// The real server.
    pub real: Endpoint,
    /// The local address.
    pub local: IpAddr,
    /// Used by a connection.
    pub leased: u32,
    /// Ready to be used.
    pub free: u32,
    /// Resting after their last connection.
    pub quarantined: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_share_the_ports_without_overlap() {
        for shards in [1, 3, 4, 7] {
            let of = |shard| LocalPorts { shard, shards, ..LocalPorts::default() };
            assert_eq!((0..shards).map(|shard| of(shard).count()).sum::<u32>(), 64_511);
            assert!((0..shards).all(|shard| of(shard).first_port() % u32::from(shards) == u32::from(shard)));
        }
        assert_eq!(LocalPorts { first: 9, last: 5, ..LocalPorts::default() }.count(), 0);
    }
}
