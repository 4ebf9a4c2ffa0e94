//! A stand-in for the Linux host behind a director that has none (two TUN arms, a simulation, a recorded scenario):
//! answers packets for the host's own addresses, on which nothing listens, and routes the rest.
//! Sans I/O: packets and the time go in, at most one packet comes out, in the same buffer.
//!
//! It decides local, routed or dropped; how answers look is in `answer.rs`, fragments are in `reassembly.rs`.
//! RFC 1122 §3.2.2, RFC 1812 §4.3 and §5.2, RFC 4443, RFC 9293 §3.10.7.1; details as recorded from Linux 6.1.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lvs_core::rng::Rng;
use lvs_core::{ChecksumOffload, Direction, HEADROOM, Instant, Offload, PacketBuf, Seed, Side};

mod answer;
mod ipv4;
mod ipv6;
mod reassembly;

use reassembly::Reassembly;

/// Where a packet leaves the host.
#[must_use = "the packet in the buffer waits to be sent"]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transmit {
    /// Whom to hand the packet to on the link.
    pub next_hop: IpAddr,
    /// Which side's device it leaves by: `Request` towards the servers, `Reply` towards the clients.
    pub direction: Direction,
    /// Longest packet the way out takes, in bytes.
    pub mtu: u16,
}

/// Addresses and links of the host.
#[derive(Clone, Debug, Default)]
pub struct HostConfig {
    /// The link towards the clients, where everything lies that is not listed in `servers`.
    pub client_side: Side,
    /// The link towards the real servers.
    pub server_side: Side,
    /// Addresses the host owns beside those of its two sides: the virtual addresses.
    pub local_addresses: Vec<IpAddr>,
    /// What lies behind the server side: addresses with prefix lengths.
    pub servers: Vec<(IpAddr, u8)>,
}

/// What the host has done with packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HostCounters {
    /// Packets answered: resets, ICMP errors, echo replies.
    pub answered: u64,
    /// Packets routed on.
    pub routed: u64,
    /// Fragments kept for a datagram that is not complete.
    pub fragments_kept: u64,
    /// Packets dropped: malformed, with a wrong checksum, or of a kind nobody answers.
    pub dropped: u64,
}

/// The host.
///
/// ```
/// use std::net::Ipv4Addr;
/// use lvs_core::{Direction, HEADROOM, Instant, PacketBuf, Seed};
/// use lvs_io::{Host, HostConfig};
///
/// let mut host = Host::new(
///     HostConfig { local_addresses: vec![Ipv4Addr::new(192, 0, 2, 80).into()], ..Default::default() },
///     Seed::new(1),
/// );
/// // An echo request from 198.51.100.7 is answered.
/// let request = [
///     0x45, 0, 0, 28, 0, 1, 0, 0, 64, 1, 0x8e, 0x55, 198, 51, 100, 7, 192, 0, 2, 80, // IPv4
///     8, 0, 0xe6, 0xff, 0x11, 0, 0, 0, // ICMP
/// ];
/// let mut storage = [0; HEADROOM + 100];
/// storage[HEADROOM..][..28].copy_from_slice(&request);
/// let mut packet = PacketBuf::new(&mut storage, HEADROOM, 28);
/// let sent = host.handle_packet(Instant::ZERO, Direction::Request, &mut packet).expect("an answer");
/// assert_eq!(sent.next_hop, Ipv4Addr::new(198, 51, 100, 7));
/// assert_eq!(packet.bytes()[20], 0); // echo reply
/// ```
#[derive(Debug)]
pub struct Host {
    config: HostConfig,
    /// Identification of the next IPv4 packet the host makes (RFC 791 §3.2).
    identification: u16,
    reassembly: Reassembly,
    counters: HostCounters,
}

/// What becomes of one packet.
enum Outcome {
    /// The buffer holds an answer to the packet's sender.
    Answer(IpAddr),
    /// The buffer holds the packet, ready to travel on to this address.
    Route(IpAddr),
    /// A fragment, kept.
    Kept,
    /// Nothing is sent.
    Drop,
}

impl Host {
    /// A host. `seed` decides where its IP identifications start.
    pub fn new(config: HostConfig, seed: Seed) -> Self {
        Self {
            config,
            identification: Rng::new(seed).next_u64() as u16,
            reassembly: Reassembly::default(),
            counters: HostCounters::default(),
        }
    }

    /// Handles a packet that travels in direction `came`: `Request` from the client side, `Reply` from the server side.
    ///
    /// `Some`: the buffer now holds a packet to send (the answer, or the packet itself with its hop limit lowered; one
    /// longer than `mtu` is IPv4 without DF and is to be fragmented). `None`: nothing is to be sent, the buffer's
    /// content is spent.
    pub fn handle_packet(&mut self, now: Instant, came: Direction, packet: &mut PacketBuf<'_>) -> Option<Transmit> {
        let outcome = match packet.bytes().first().map(|byte| byte >> 4) {
            Some(4) => self.handle_ipv4(now, came, packet),
            Some(6) => self.handle_ipv6(now, came, packet),
            _ => Outcome::Drop,
        };
        match outcome {
            Outcome::Answer(next_hop) => {
                self.counters.answered += 1;
                packet.offload = Offload::default();
                packet.mark = 0;
                Some(self.leaving(opposite(came), next_hop))
            }
            Outcome::Route(next_hop) => {
                self.counters.routed += 1;
                Some(self.leaving(self.direction_to(next_hop), next_hop))
            }
            Outcome::Kept => {
                self.counters.fragments_kept += 1;
                None
            }
            Outcome::Drop => {
                self.counters.dropped += 1;
                None
            }
        }
    }

    /// What the host has done so far.
    pub fn counters(&self) -> &HostCounters {
        &self.counters
    }

    fn leaving(&self, direction: Direction, next_hop: IpAddr) -> Transmit {
        Transmit { next_hop, direction, mtu: self.side_towards(direction).mtu }
    }

    /// The side by which packets of this direction leave.
    fn side_towards(&self, direction: Direction) -> &Side {
        match direction {
            Direction::Request => &self.config.server_side,
            Direction::Reply => &self.config.client_side,
        }
    }

    /// The routing table: servers behind the server side, everything else behind the client side.
    fn direction_to(&self, address: IpAddr) -> Direction {
        let is_server = self.config.servers.iter().any(|&(network, len)| in_prefix(address, network, len));
        if is_server { Direction::Request } else { Direction::Reply }
    }

    fn is_local(&self, address: IpAddr) -> bool {
        let own = [&self.config.client_side, &self.config.server_side].into_iter().any(|side| match address {
            IpAddr::V4(address) => side.ipv4 == Some(address),
            IpAddr::V6(address) => side.ipv6 == Some(address),
        });
        own || self.config.local_addresses.contains(&address)
    }

    fn next_identification(&mut self) -> u16 {
        let current = self.identification;
        self.identification = current.wrapping_add(1);
        current
    }
}

/// Handles a datagram that was put together in `storage`, and moves the answer to the buffer of its last fragment.
/// An answer that does not fit there is dropped.
fn on_reassembled(
    last: &mut PacketBuf<'_>,
    mut storage: Vec<u8>,
    handle: impl FnOnce(&mut PacketBuf<'_>) -> Outcome,
) -> Outcome {
    let len = storage.len() - HEADROOM;
    let mut datagram = PacketBuf::new(&mut storage, HEADROOM, len);
    let outcome = handle(&mut datagram);
    if last.set_len(datagram.len()).is_none() {
        return Outcome::Drop;
    }
    last.bytes_mut().copy_from_slice(datagram.bytes());
    outcome
}

fn opposite(direction: Direction) -> Direction {
    match direction {
        Direction::Request => Direction::Reply,
        Direction::Reply => Direction::Request,
    }
}

/// Whether the transport checksum is to be verified: a partial one is not there yet, and the packet never left a host.
fn has_full_checksum(packet: &PacketBuf<'_>) -> bool {
    packet.offload.checksum == ChecksumOffload::Full
}

/// Longest packet this one becomes on the wire: itself, or one segment of a super-packet.
fn wire_len(packet: &PacketBuf<'_>, transport_header_end: usize) -> usize {
    match packet.offload.gso {
        Some(gso) => transport_header_end + usize::from(gso.size),
        None => packet.len(),
    }
}

/// Where the TCP or UDP header at `transport` ends; `transport` itself for anything else.
fn transport_header_end(packet: &[u8], protocol: u8, transport: usize) -> usize {
    match protocol {
        6 => transport + packet.get(transport + 12).map_or(0, |offset| usize::from(offset >> 4) * 4),
        17 => transport + 8,
        _ => transport,
    }
}

fn in_prefix(address: IpAddr, network: IpAddr, len: u8) -> bool {
    match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(len.min(32))).unwrap_or(0);
            Ipv4Addr::to_bits(address) & mask == Ipv4Addr::to_bits(network) & mask
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(len.min(128))).unwrap_or(0);
            Ipv6Addr::to_bits(address) & mask == Ipv6Addr::to_bits(network) & mask
        }
        _ => false,
    }
}
