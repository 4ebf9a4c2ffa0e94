//! Which shard a packet belongs to: both directions of a client's flows, errors about them and their fragments go to
//! the shard its address names. By address alone: a port in the hash would tear apart persistence, fragments and
//! services by mark. The hash is `steer/hash.rs`. Only behind FullNAT servers do not know the client: there the shard has named the local port
//! (`lvs_core::local_address::LocalPorts`), and the port names the shard.

mod hash;

use std::net::IpAddr;

use lvs_core::local_address::LocalPorts;
use lvs_core::wire::icmp::related;
use lvs_core::wire::parse::{Headers, parse};
use lvs_core::{Direction, Protocol, Seed};

use crate::known::{AddressChange, AddressRole};
use crate::networks::Networks;
use crate::prefix::Prefix;

pub use hash::{AddressHash, MIX, SHIFTS};

/// Steers packets to shards.
///
/// ```
/// use lvs_core::Seed;
/// use lvs_io::Steering;
///
/// let steering = Steering::new(4, vec!["10.0.0.0/8".parse().unwrap()], Seed::new(7));
/// let request = [
///     0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0x7c, 0xc8, 203, 0, 113, 7, 192, 0, 2, 1, 4, 0, 0, 80, 0, 8, 0, 0,
/// ];
/// assert!(steering.shard(&request) < 4);
/// ```
#[derive(Clone, Debug)]
pub struct Steering {
    shards: u32,
    servers: Networks,
    locals: Networks,
    hash: AddressHash,
}

/// Where a packet goes, and whether that is for good.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    /// To the shard that owns it.
    Owner(usize),
    /// To the shard that remembers which one owns it: a fragment to a local address.
    Sorter(usize),
}

impl Steering {
    /// Steering to `shards` shards (at least one). `servers` are the networks of the real servers: what comes from
    /// there is a reply, so its destination is the client. The seed keeps clients from choosing their shard.
    pub fn new(shards: u32, servers: Vec<Prefix>, seed: Seed) -> Self {
        let servers = servers.into_iter().collect();
        Self { shards: shards.max(1), servers, locals: Networks::default(), hash: AddressHash::new(seed) }
    }

    /// Sets FullNAT's local addresses: what is sent there comes from servers and goes to the shard its port names.
    /// Shard `i` must lease ports with `port % shards == i` only: see [`Self::local_ports`].
    pub fn with_local_addresses(self, locals: Vec<Prefix>) -> Self {
        Self { locals: locals.into_iter().collect(), ..self }
    }

    /// Takes in that a server or a local address has come or gone. One that has gone is best told when the last of its
    /// connections has ended: their replies still come.
    pub fn learn(&mut self, change: &AddressChange) {
        let networks = match change.role {
            AddressRole::Virtual => return,
            AddressRole::Server => &mut self.servers,
            AddressRole::Local => &mut self.locals,
        };
        match change.is_there {
            true => networks.insert(change.address),
            false => networks.remove(change.address),
        }
    }

    /// The local ports of one shard, out of a range that all of them share.
    ///
    /// ```
    /// use lvs_core::Seed;
    /// use lvs_core::local_address::LocalPorts;
    /// let steering = lvs_io::Steering::new(4, Vec::new(), Seed::new(7));
    /// let ports = steering.local_ports(1, LocalPorts::default());
    /// assert_eq!((ports.shard, ports.shards), (1, 4));
    /// ```
    pub fn local_ports(&self, shard: usize, all: LocalPorts) -> LocalPorts {
        all.with(|ports| {
            ports.shard = shard as u16;
            ports.shards = self.shards as u16;
        })
    }

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.shards as usize
    }

    /// The shard of a packet whose direction its source tells; 0 for what is no IP packet. Of a fragment to a local
    /// address, the shard that finds out ([`crate::share()`] does).
    pub fn shard(&self, packet: &[u8]) -> usize {
        let (Way::Owner(shard) | Way::Sorter(shard)) = self.way(packet, None);
        shard
    }

    /// The same for a packet whose direction is known from the device it came by.
    pub fn shard_by_direction(&self, packet: &[u8], direction: Direction) -> usize {
        let (Way::Owner(shard) | Way::Sorter(shard)) = self.way(packet, Some(direction));
        shard
    }

    /// Where a packet goes; `direction` if it is known from the device it came by.
    pub(crate) fn way(&self, packet: &[u8], direction: Option<Direction>) -> Way {
        let Ok(headers) = parse(packet) else { return Way::Owner(0) };
        if self.is_local(headers.destination) {
            if headers.is_fragment_head() || headers.is_later_fragment() {
                return Way::Sorter(self.shard_of(headers.source));
            }
            if let Some(shard) = self.shard_by_port(packet, &headers) {
                return Way::Owner(shard);
            }
        }
        let by_source = || if self.is_server(headers.source) { Direction::Reply } else { Direction::Request };
        Way::Owner(self.shard_of(client(packet, &headers, direction.unwrap_or_else(by_source))))
    }

    /// The shard that leased the local port a packet is for, or is about.
    pub(crate) fn shard_by_port(&self, packet: &[u8], headers: &Headers) -> Option<usize> {
        let port = match related(packet, headers) {
            Ok(Some(error)) if self.is_local(error.quoted.source) => error.quoted.ports(packet)?.0,
            _ if Protocol::from_number(headers.protocol).is_some() => headers.ports(packet)?.1,
            _ => return None,
        };
        Some((u32::from(port) % self.shards) as usize)
    }

    fn is_local(&self, address: IpAddr) -> bool {
        self.locals.contains(address)
    }

    fn is_server(&self, address: IpAddr) -> bool {
        self.servers.contains(address)
    }

    fn shard_of(&self, client: IpAddr) -> usize {
        (self.hash.of(client) % self.shards) as usize
    }

    /// The shard that owns a client: all of it but what comes to a local address of another one.
    pub fn owner(&self, client: IpAddr) -> usize {
        self.shard_of(client)
    }

    /// The networks of the real servers.
    pub fn servers(&self) -> &Networks {
        &self.servers
    }

    /// FullNAT's local addresses.
    pub fn local_addresses(&self) -> &Networks {
        &self.locals
    }

    /// The hash that spreads clients; the shard is what remains when it is divided by their number.
    pub fn hash(&self) -> &AddressHash {
        &self.hash
    }
}

/// The client's address in a packet of this direction. An ICMP error is about a packet of the other direction: from
/// the client side it quotes a reply, whose destination is the client (whoever sent the error), and the other way
/// round.
fn client(packet: &[u8], headers: &Headers, direction: Direction) -> IpAddr {
    let quoted = related(packet, headers).ok().flatten().map(|error| error.quoted);
    match (direction, quoted) {
        (Direction::Request, None) => headers.source,
        (Direction::Request, Some(quoted)) => quoted.destination,
        (Direction::Reply, None) => headers.destination,
        (Direction::Reply, Some(quoted)) => quoted.source,
    }
}

#[cfg(test)]
mod tests {
    use lvs_testkit::{icmp_error, tcp, udp};

    use super::*;

    const SHARDS: u32 = 8;

    fn steering() -> Steering {
        Steering::new(SHARDS, vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()], Seed::new(7))
    }

    #[test]
    fn everything_about_a_client_goes_to_one_shard() {
        for number in 1..100 {
            let client = format!("203.0.113.{number}:1024");
            let (service, server) = ("192.0.2.1:80", "10.0.0.2:8080");
            let request = tcp(client.as_str(), service).build();
            let wanted = steering().shard(&request);
            let other_port = format!("203.0.113.{number}:2048");
            let reply = tcp(server, client.as_str()).build();
            let at_client = tcp(service, client.as_str()).build();
            let at_server = tcp(client.as_str(), server).build();
            for packet in [
                udp(other_port.as_str(), service).build(),
                udp(client.as_str(), service).fragment(8, false).payload(&[0; 16]).build(),
                reply,
                // Errors: from the client, from a router on the client's side, from the server.
                icmp_error("203.0.113.1", 3, 3, 0, &at_client).build(),
                icmp_error("198.18.0.1", 11, 0, 0, &at_client).build(),
                icmp_error("10.0.0.2", 3, 3, 0, &at_server).build(),
            ] {
                assert_eq!(steering().shard(&packet), wanted, "{}", lvs_testkit::describe(&packet));
            }
        }
    }

    #[test]
    fn clients_spread_over_all_shards() {
        let mut counts = [0; SHARDS as usize];
        for number in 0..=255 {
            let client = format!("[2001:db8::{number:x}]:1024");
            counts[steering().shard(&tcp(client.as_str(), "[2001:db8::80]:80").build())] += 1;
        }
        assert!(counts.iter().all(|count| (16..=48).contains(count)), "{counts:?}");
    }

    #[test]
    fn what_is_no_packet_goes_to_the_first_shard() {
        assert_eq!(steering().shard(&[]), 0);
        assert_eq!(steering().shard_by_direction(&[0x45], Direction::Reply), 0);
    }
}
