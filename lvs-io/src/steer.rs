//! Which shard a packet belongs to: both directions of a client's flows, errors about them and their fragments go to
//! the shard its address names. By address alone: a port in the hash would tear apart persistence, fragments and
//! services by mark.

use std::net::{IpAddr, Ipv6Addr};

use lvs_core::rng::Rng;
use lvs_core::wire::icmp::related;
use lvs_core::wire::parse::{Headers, parse};
use lvs_core::{Direction, Seed};

use crate::prefix::Prefix;

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
    servers: Vec<Prefix>,
    secret: u32,
}

impl Steering {
    /// Steering to `shards` shards (at least one). `servers` are the networks of the real servers: what comes from
    /// there is a reply, so its destination is the client. The seed keeps clients from choosing their shard.
    pub fn new(shards: u32, servers: Vec<Prefix>, seed: Seed) -> Self {
        Self { shards: shards.max(1), servers, secret: Rng::new(seed).next_u64() as u32 }
    }

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.shards as usize
    }

    /// The shard of a packet whose direction its source tells; 0 for what is no IP packet.
    pub fn shard(&self, packet: &[u8]) -> usize {
        parse(packet).map_or(0, |headers| {
            let direction = if self.is_server(headers.source) { Direction::Reply } else { Direction::Request };
            self.shard_of(client(packet, &headers, direction))
        })
    }

    /// The shard of a packet whose direction is known from the device it came by.
    pub fn shard_by_direction(&self, packet: &[u8], direction: Direction) -> usize {
        parse(packet).map_or(0, |headers| self.shard_of(client(packet, &headers, direction)))
    }

    fn is_server(&self, address: IpAddr) -> bool {
        self.servers.iter().any(|network| network.contains(address))
    }

    fn shard_of(&self, client: IpAddr) -> usize {
        let hash = match client {
            IpAddr::V4(address) => address_hash(self.secret, &[address.to_bits()]),
            IpAddr::V6(address) => address_hash(self.secret, &words(address)),
        };
        (hash % self.shards) as usize
    }

    /// The networks of the real servers.
    pub fn servers(&self) -> &[Prefix] {
        &self.servers
    }

    /// What [`address_hash`] starts from.
    pub fn secret(&self) -> u32 {
        self.secret
    }
}

/// The hash that spreads clients: an address, in words of 32 bits, most significant first. The shard is what remains when
/// it is divided by their number. Made of what a classic BPF program can do too, so that a kernel can steer alike.
/// (The mixing steps are MurmurHash3's finaliser, Appleby 2011, with the secret and each word mixed in.)
pub fn address_hash(secret: u32, words: &[u32]) -> u32 {
    words.iter().fold(secret, |hash, word| {
        let mut hash = (hash ^ word).wrapping_mul(MIX[0]);
        hash ^= hash >> SHIFT[0];
        hash = hash.wrapping_mul(MIX[1]);
        hash ^ (hash >> SHIFT[1])
    })
}

/// The factors of [`address_hash`], and the shifts behind each.
pub const MIX: [u32; 2] = [0x85eb_ca6b, 0xc2b2_ae35];
/// See [`MIX`].
pub const SHIFT: [u32; 2] = [13, 16];

fn words(address: Ipv6Addr) -> [u32; 4] {
    let bits = address.to_bits();
    [96, 64, 32, 0].map(|shift| (bits >> shift) as u32)
}

/// The client's address in a packet of this direction. An ICMP error is about a packet of the other direction: from
/// the client side it quotes a reply, whose destination is the client (whoever sent the error), and the other way round.
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
