//! A stand-in for the Linux host behind a director that has none (two TUN arms, a simulation, a recorded scenario):
//! answers packets for the host's own addresses, on which nothing listens, and routes the rest.
//! Sans I/O: packets and the time go in, at most one packet comes out, in the same buffer.
//!
//! It decides local, routed or dropped; how answers look is in `answer.rs`.
//! RFC 1122 §3.2.2, RFC 1812 §4.3 and §5.2, RFC 4443, RFC 9293 §3.10.7.1; details as recorded from Linux 6.1.

use std::net::IpAddr;

use lvs_core::answer_limit::{AnswerLimit, AnswerRates, Refused};
use lvs_core::fragment::{Collected, Reassembler};
use lvs_core::rng::Rng;
use lvs_core::wire::checksum::{fold, pseudo_header_sum, sum};
use lvs_core::wire::icmp::{ICMP, ICMPV6, IcmpError, checksum_is_valid, make_error, may_answer};
use lvs_core::wire::ipv4::fill_record_route;
use lvs_core::wire::ipv6::{AUTHENTICATION, FRAGMENT_HEADER_LEN, ROUTING, extension_len, remove_fragment_header};
use lvs_core::wire::parse::{Headers, parse};
use lvs_core::wire::rewrite::decrement_hop_limit;
use lvs_core::{ChecksumOffload, Direction, HEADROOM, Instant, Offload, PacketBuf, Seed, Side};

use crate::networks::Networks;
use crate::prefix::Prefix;

mod answer;
mod known;

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
    /// How many ICMP errors and RSTs it may send. Default: Linux's limits.
    pub answer_rates: AnswerRates,
    /// Only answers for its own addresses and routes nothing: another host receives the same packets and does that.
    pub answers_only: bool,
}

/// What the host has done with packets.
#[non_exhaustive]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HostCounters {
    /// Packets answered: resets, ICMP errors, echo replies.
    pub answered: u64,
    /// Packets routed on.
    pub routed: u64,
    /// Fragments kept for a datagram that is not complete.
    pub fragments_kept: u64,
    /// Packets that would have been answered, had not enough been answered already ([`HostConfig::answer_rates`]).
    pub answers_limited: u64,
    /// Packets dropped, those included: malformed, with a wrong checksum, or of a kind nobody answers.
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
    /// Every address it owns.
    own: Networks,
    /// What it owned once: packets for these are dropped.
    former: Networks,
    former_count: usize,
    /// What lies behind the server side.
    servers: Networks,
    /// Identification of the next IPv4 packet the host makes (RFC 791 §3.2).
    identification: u16,
    reassembler: Reassembler,
    answer_limit: AnswerLimit,
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
        let sides = [&config.client_side, &config.server_side];
        let of_sides =
            sides.into_iter().flat_map(|side| [side.ipv4.map(IpAddr::V4), side.ipv6.map(IpAddr::V6)]).flatten();
        let own = of_sides.chain(config.local_addresses.iter().copied()).map(Prefix::from).collect();
        let servers = config.servers.iter().filter_map(|&(network, len)| Prefix::new(network, len)).collect();
        Self {
            config,
            own,
            former: Networks::default(),
            former_count: 0,
            servers,
            identification: Rng::new(seed).next_u64() as u16,
            answer_limit: AnswerLimit::new(seed.derive(2)),
            reassembler: Reassembler::new(DATAGRAMS_MAX, FRAGMENT_BYTES_MAX, seed.derive(1)),
            counters: HostCounters::default(),
        }
    }

    /// Handles a packet that travels in direction `came`: `Request` from the client side, `Reply` from the server side.
    ///
    /// `Some`: the buffer now holds a packet to send (the answer, or the packet itself with its hop limit lowered; one
    /// longer than `mtu` is IPv4 without DF and is to be fragmented). `None`: nothing is to be sent, the buffer's
    /// content is spent.
    pub fn handle_packet(&mut self, now: Instant, came: Direction, packet: &mut PacketBuf<'_>) -> Option<Transmit> {
        match self.decide(now, came, packet) {
            Outcome::Answer(next_hop) => {
                self.counters.answered += 1;
                if let Ok(headers) = parse(packet.bytes()) {
                    self.answer_limit.spend(now, &self.config.answer_rates, &headers, packet.bytes());
                }
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

    /// Changes how many ICMP errors and RSTs it may send.
    pub fn set_answer_rates(&mut self, rates: AnswerRates) {
        self.config.answer_rates = rates;
    }

    /// What the host has done so far.
    pub fn counters(&self) -> &HostCounters {
        &self.counters
    }

    fn decide(&mut self, now: Instant, came: Direction, packet: &mut PacketBuf<'_>) -> Outcome {
        let Ok(headers) = parse(packet.bytes()) else { return Outcome::Drop };
        packet.set_len(headers.packet_len);
        // Linux refuses source routes by default, and nothing here is in a multicast group.
        let is_source_routed = headers.source_route && headers.source.is_ipv4();
        if is_source_routed || is_for_many(headers.destination) || headers.source.is_multicast() {
            return Outcome::Drop;
        }
        if !self.is_local(headers.destination) {
            if self.config.answers_only || self.former.contains(headers.destination) {
                return Outcome::Drop;
            }
            return self.route(now, came, packet, &headers);
        }
        if headers.fragment.is_none() {
            return self.answer(now, packet, &headers);
        }
        let collected = match headers.is_later_fragment() || headers.fragment.is_some_and(|part| part.more) {
            true => self.reassembler.collect(now, packet, &headers),
            // RFC 6946: an atomic fragment is a whole datagram and waits for nobody.
            false => Ok(Collected::Whole([&[0; HEADROOM], packet.bytes()].concat())),
        };
        self.reassembler.handle_timeout(now);
        match collected {
            Ok(Collected::Whole(storage)) => {
                on_reassembled(packet, storage, |datagram, headers| self.answer(now, datagram, headers))
            }
            Ok(Collected::Kept) => Outcome::Kept,
            Ok(Collected::Declined) | Err(_) => Outcome::Drop,
        }
    }

    /// A whole datagram for one of the host's own addresses.
    fn answer(&mut self, now: Instant, packet: &mut PacketBuf<'_>, headers: &Headers) -> Outcome {
        let refused = self.refused(now, headers.source);
        let verify = packet.offload.checksum == ChecksumOffload::Full;
        let payload = headers.payload(packet.bytes());
        let is_ipv4 = headers.source.is_ipv4();
        if let Some(error) = refused_extension(packet.bytes(), headers) {
            let answered = self.refuse(refused, packet, headers, error, headers.destination);
            return answered.map_or(Outcome::Drop, |()| Outcome::Answer(headers.source));
        }
        let echo_request = if is_ipv4 { ECHO_REQUEST_V4 } else { ECHO_REQUEST_V6 };
        let answered = match headers.protocol {
            TCP if is_acceptable_tcp(headers, payload, verify) => {
                if self.may_send(refused.is_reset()) {
                    answer::reset(packet, headers)
                } else {
                    None
                }
            }
            UDP if is_acceptable_udp(headers, payload, verify) => {
                self.refuse(refused, packet, headers, IcmpError::PortUnreachable, headers.destination)
            }
            TCP | UDP => None,
            ICMP | ICMPV6 if is_ipv4 == (headers.protocol == ICMP) => {
                // Only echo requests are answered: errors and everything else are for nobody here.
                let is_echo = payload.len() >= 8 && payload[0] == echo_request;
                let is_right = is_echo && checksum_is_valid(packet.bytes(), headers);
                let identification = self.next_identification();
                is_right.then(|| answer::echo_reply(packet, headers, identification)).flatten()
            }
            NO_NEXT_HEADER if !is_ipv4 => None,
            _ => {
                let error = if is_ipv4 {
                    // RFC 792: protocol unreachable.
                    IcmpError::Other { error_type: 3, code: 2, rest: 0 }
                } else {
                    // RFC 4443 §3.4: unrecognised next header, and the offset of the byte that names it.
                    IcmpError::Other { error_type: 4, code: 1, rest: naming_byte(packet.bytes(), headers) }
                };
                self.refuse(refused, packet, headers, error, headers.destination)
            }
        };
        answered.map_or(Outcome::Drop, |()| Outcome::Answer(headers.source))
    }

    /// A packet for somewhere else (RFC 1812 §5.2, RFC 8200 §3): the hop limit is checked, then the MTU of the way out,
    /// then the hop limit is lowered.
    fn route(&mut self, now: Instant, came: Direction, packet: &mut PacketBuf<'_>, headers: &Headers) -> Outcome {
        if is_link_local(headers.destination) || is_link_local(headers.source) {
            return Outcome::Drop;
        }
        let way_out = self.side_towards(self.direction_to(headers.destination));
        let mtu = way_out.mtu;
        let may_be_fragmented = headers.source.is_ipv4() && !headers.dont_fragment;
        let error = if headers.hop_limit <= 1 {
            IcmpError::TimeExceeded
        } else if !may_be_fragmented && wire_len(packet, headers) > usize::from(mtu) {
            IcmpError::TooBig { mtu: mtu.into() }
        } else {
            if let Some(own) = way_out.ipv4 {
                fill_record_route(packet.bytes_mut(), headers, own.into());
            }
            decrement_hop_limit(packet.bytes_mut(), headers.family);
            return Outcome::Route(headers.destination);
        };
        let side = self.side_towards(opposite(came));
        let own = if headers.source.is_ipv4() { side.ipv4.map(IpAddr::V4) } else { side.ipv6.map(IpAddr::V6) };
        let refused = self.refused(now, headers.source);
        own.and_then(|own| self.refuse(refused, packet, headers, error, own))
            .map_or(Outcome::Drop, |()| Outcome::Answer(headers.source))
    }

    /// Answers with an ICMP error where one may be sent.
    fn refuse(
        &mut self,
        refused: Refused,
        packet: &mut PacketBuf<'_>,
        headers: &Headers,
        error: IcmpError,
        own: IpAddr,
    ) -> Option<()> {
        let (error_type, code, _) = error.header(headers.family);
        if !may_answer(headers, packet.bytes())
            || !self.may_send(refused.is_error(headers.source.is_ipv4(), error_type, code))
        {
            return None;
        }
        let identification = self.next_identification();
        make_error(packet, headers, error, own, identification).ok()
    }

    /// What this receiver may not be answered now.
    fn refused(&self, now: Instant, receiver: IpAddr) -> Refused {
        self.answer_limit.refused(now, || self.config.answer_rates, receiver)
    }

    /// Whether an answer may be sent; counts it if not.
    fn may_send(&mut self, is_refused: bool) -> bool {
        self.counters.answers_limited += u64::from(is_refused);
        !is_refused
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
        if self.servers.contains(address) { Direction::Request } else { Direction::Reply }
    }

    fn is_local(&self, address: IpAddr) -> bool {
        self.own.contains(address)
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
    handle: impl FnOnce(&mut PacketBuf<'_>, &Headers) -> Outcome,
) -> Outcome {
    let len = storage.len() - HEADROOM;
    let mut datagram = PacketBuf::new(&mut storage, HEADROOM, len);
    let Ok(mut headers) = parse(datagram.bytes()) else { return Outcome::Drop };
    if let Some(part) = headers.fragment.filter(|_| headers.source.is_ipv6()) {
        remove_fragment_header(datagram.bytes_mut(), part.header);
        datagram.shrink_front(FRAGMENT_HEADER_LEN);
        let Ok(without) = parse(datagram.bytes()) else { return Outcome::Drop };
        headers = without;
    }
    let outcome = handle(&mut datagram, &headers);
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

fn is_for_many(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_multicast() || address.is_broadcast() || address.is_unspecified(),
        IpAddr::V6(address) => address.is_multicast() || address.is_unspecified(),
    }
}

/// RFC 3927 §2.7, RFC 4291 §2.5.6: never routed.
fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// Whether this is a whole TCP header with a right checksum.
fn is_acceptable_tcp(headers: &Headers, segment: &[u8], verify: bool) -> bool {
    let Some(header) = segment.first_chunk::<20>() else { return false };
    let len = usize::from(header[12] >> 4) * 4;
    (20..=segment.len()).contains(&len) && (!verify || is_sum_right(headers, TCP, segment))
}

/// Whether this is a whole UDP datagram whose checksum is right, or absent over IPv4 (RFC 768; RFC 8200 §8.1).
fn is_acceptable_udp(headers: &Headers, datagram: &[u8], verify: bool) -> bool {
    let Some(header) = datagram.first_chunk::<8>() else { return false };
    let Some(datagram) = datagram.get(..usize::from(u16::from_be_bytes([header[4], header[5]]))) else { return false };
    let is_absent = header[6..8] == [0, 0];
    match is_absent {
        true => headers.source.is_ipv4() && datagram.len() >= 8,
        false => datagram.len() >= 8 && (!verify || is_sum_right(headers, UDP, datagram)),
    }
}

fn is_sum_right(headers: &Headers, protocol: u8, transport: &[u8]) -> bool {
    let seed = pseudo_header_sum(headers.source, headers.destination, protocol, transport.len());
    fold(seed + sum(transport)) == 0xffff
}

/// Longest packet this one becomes on the wire: itself, or one segment of a super-packet.
fn wire_len(packet: &PacketBuf<'_>, headers: &Headers) -> usize {
    let Some(gso) = packet.offload.gso else { return packet.len() };
    let transport_len = match headers.protocol {
        TCP => headers.transport_header::<20>(packet.bytes()).map_or(20, |header| usize::from(header[12] >> 4) * 4),
        _ => 8,
    };
    headers.transport + transport_len + usize::from(gso.size)
}

/// What the host says to extension headers it does not process: AH, for which it has no keys, is unrecognised; a
/// routing header with segments left has a type it does not know (RFC 8200 §4.4, RFC 5095).
fn refused_extension(packet: &[u8], headers: &Headers) -> Option<IcmpError> {
    if headers.source.is_ipv4() {
        return None;
    }
    let error = |code, pointer: usize| Some(IcmpError::Other { error_type: 4, code, rest: pointer as u32 });
    let (mut named_at, mut offset) = (6, 40);
    while offset < headers.transport {
        match packet[named_at] {
            AUTHENTICATION => return error(1, named_at),
            ROUTING if packet[offset + 3] != 0 => return error(0, offset + 2),
            kind => {
                named_at = offset;
                offset += extension_len(kind, packet[offset + 1]);
            }
        }
    }
    None
}

/// Offset of the byte that names the transport protocol of a parsed IPv6 packet.
fn naming_byte(packet: &[u8], headers: &Headers) -> u32 {
    naming_byte_of(packet, headers.transport) as u32
}

/// Offset of the byte that names the header at `header`, one of the chain of a parsed IPv6 packet.
fn naming_byte_of(packet: &[u8], header: usize) -> usize {
    let (mut named_at, mut offset) = (6, 40);
    while offset < header {
        let len = extension_len(packet[named_at], packet[offset + 1]);
        named_at = offset;
        offset += len;
    }
    named_at
}

const TCP: u8 = 6;
const UDP: u8 = 17;
/// RFC 8200 §4.7.
const NO_NEXT_HEADER: u8 = 59;
const ECHO_REQUEST_V4: u8 = 8;
const ECHO_REPLY_V4: u8 = 0;
const ECHO_REQUEST_V6: u8 = 128;
const ECHO_REPLY_V6: u8 = 129;
/// Fragmented datagrams in progress, and bytes of memory for them: Linux's `ipfrag_high_thresh`.
const DATAGRAMS_MAX: u32 = 1_024;
const FRAGMENT_BYTES_MAX: u32 = 4 << 20;
