//! A place where tunnels end: packets in, what was inside them out, for given addresses. Outer packets that came in
//! parts are put together here, as a host does, because a tunnel header is worth nothing without what follows it. The
//! memory for parts is bounded in datagrams, bytes and time. Sources: RFC 791 §3.2, RFC 8200 §4.5, RFC 5722.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::IpAddr;

use super::gre;
use super::{Accepts, IPV4_IN_IP, IPV6_IN_IP, UDP, decapsulate};
use crate::drop_reason::DropReason;
use crate::fragment::{Collected, Reassembler};
use crate::packet::{HEADROOM, Offload, PacketBuf};
use crate::rng::Seed;
use crate::time::Instant;
use crate::wire::parse::{Headers, parse};
use crate::wire::read_u16;

/// What became of a packet at the end of a tunnel.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// The buffer now holds the inner packet.
    TakenOut,
    /// A part of an outer packet; a copy is kept until the others have come. The packet is unchanged.
    Held,
    /// Not for this end: no tunnel that is accepted, or not for one of its addresses. In the second case the buffer
    /// holds the inner packet, else it is unchanged.
    NotOurs,
    /// Refused; the packet is unchanged.
    Refused(DropReason),
}

/// What an end of tunnels has counted. Parts are counted as packets are: one by one.
#[non_exhaustive]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EndCounters {
    /// Inner packets taken out.
    pub taken_out: u64,
    /// Of those, how many came in parts.
    pub joined: u64,
    /// Outer packets refused because their source is not one of the peers.
    pub strangers: u64,
    /// Outer packets refused: malformed, with a wrong checksum, or with a congestion mark that cannot be handed on.
    pub refused: u64,
    /// Parts refused or given up because too many datagrams or bytes waited for their other parts.
    pub parts_full: u64,
    /// Parts refused because they had come already.
    pub parts_overlapping: u64,
    /// Parts given up because the others did not come in time (30 s).
    pub parts_timed_out: u64,
}

/// The real server's end of tunnels.
///
/// ```
/// use lvs_core::tunnel::{Accepts, Ending, TunnelEnd};
/// use lvs_core::{HEADROOM, Instant, PacketBuf, Seed};
/// let accepts = Accepts { ipip: true, ..Accepts::default() };
/// let mut end = TunnelEnd::new(accepts, vec!["192.0.2.1".parse().unwrap()], Seed::new(1));
/// // 203.0.113.7:1024 > 192.0.2.1:80 UDP "hi" in 10.0.0.254 > 10.0.0.2, in two parts: 24 bytes, and the rest.
/// let parts: [&[u8]; 2] = [
///     &[
///         0x45, 0, 0, 44, 0, 1, 0x20, 0, 64, 4, 0x45, 0xce, 10, 0, 0, 254, 10, 0, 0, 2,
///         0x45, 0, 0, 30, 0, 0, 0, 0, 64, 17, 0x7c, 0xc6, 203, 0, 113, 7, 192, 0, 2, 1, 4, 0, 0, 80,
///     ],
///     &[0x45, 0, 0, 26, 0, 1, 0, 3, 64, 4, 0x65, 0xdd, 10, 0, 0, 254, 10, 0, 0, 2, 0, 10, 0, 0, b'h', b'i'],
/// ];
/// for part in parts {
///     let mut storage = [&[0; HEADROOM], part].concat();
///     let mut packet = PacketBuf::new(&mut storage, HEADROOM, part.len());
///     assert_eq!(end.handle_packet(Instant::ZERO, &mut packet), Ending::Held);
/// }
/// let mut joined = end.poll_joined().expect("all of it is there");
/// assert_eq!(joined.packet().len(), 30);
/// ```
#[derive(Debug)]
pub struct TunnelEnd {
    accepts: Accepts,
    addresses: Vec<IpAddr>,
    /// Who may send; `None`: anybody.
    peers: Option<Vec<(IpAddr, u8)>>,
    parts: Reassembler,
    ready: VecDeque<Joined>,
    counters: EndCounters,
}

/// An inner packet whose outer one came in parts.
#[derive(Debug)]
pub struct Joined {
    storage: Vec<u8>,
    start: usize,
    len: usize,
    offload: Offload,
}

impl Joined {
    /// The packet, with [`HEADROOM`] bytes of room before it or more.
    pub fn packet(&mut self) -> PacketBuf<'_> {
        let mut packet = PacketBuf::new(&mut self.storage, self.start, self.len);
        packet.offload = self.offload;
        packet
    }
}

impl TunnelEnd {
    /// An end of the tunnels `accepts` names, for inner packets to one of `addresses`.
    pub fn new(accepts: Accepts, addresses: Vec<IpAddr>, seed: Seed) -> Self {
        let parts = Reassembler::new(DATAGRAMS_MAX, BYTES_MAX, seed);
        Self { accepts, addresses, peers: None, parts, ready: VecDeque::new(), counters: EndCounters::default() }
    }

    /// Takes packets from these sources only: addresses with prefix lengths. A tunnel carries no proof of who sends; and
    /// whoever may send reaches this machine's own address from any source he likes. From others:
    /// [`DropReason::UnknownTunnelPeer`].
    #[must_use]
    pub fn with_peers(mut self, peers: Vec<(IpAddr, u8)>) -> Self {
        self.peers = Some(peers);
        self
    }

    /// Takes the packet out of its tunnel, if it came by one that ends here. The last part of an outer packet makes
    /// [`Self::poll_joined`] have its inner one.
    pub fn handle_packet(&mut self, now: Instant, packet: &mut PacketBuf<'_>) -> Ending {
        let headers = match parse(packet.bytes()) {
            Ok(headers) => headers,
            Err(reason) => return self.refuse(reason),
        };
        if !self.is_peer(headers.source) {
            let is_tunnel = self.is_tunnel(packet.bytes(), &headers);
            return if is_tunnel { self.refuse(DropReason::UnknownTunnelPeer) } else { Ending::NotOurs };
        }
        match headers.fragment.filter(|part| part.more || part.offset != 0) {
            None => self.take_out(packet),
            Some(_) if !self.may_be_tunnel(&headers) => Ending::NotOurs,
            Some(_) => match self.keep(now, packet, &headers) {
                Ok(ending) => ending,
                Err(reason) => self.refuse(reason),
            },
        }
    }

    /// The next inner packet whose outer one has been put together. At most one for each part handed over.
    pub fn poll_joined(&mut self) -> Option<Joined> {
        self.ready.pop_front()
    }

    /// Gives up parts whose others did not come in time: a bounded number at each call, the rest at the next.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.counters.parts_timed_out += u64::from(self.parts.handle_timeout(now));
    }

    /// What has been counted so far.
    pub fn counters(&self) -> EndCounters {
        self.counters
    }

    fn take_out(&mut self, packet: &mut PacketBuf<'_>) -> Ending {
        match decapsulate(packet, &self.accepts) {
            Ok(None) => Ending::NotOurs,
            // Whatever else comes out of a tunnel is nobody's business here.
            Ok(Some(_)) if !self.is_for_us(packet) => Ending::NotOurs,
            Ok(Some(_)) => {
                self.counters.taken_out += 1;
                Ending::TakenOut
            }
            Err(reason) => self.refuse(reason),
        }
    }

    fn is_for_us(&self, packet: &PacketBuf<'_>) -> bool {
        parse(packet.bytes()).is_ok_and(|inner| self.addresses.contains(&inner.destination))
    }

    fn is_peer(&self, source: IpAddr) -> bool {
        let Some(peers) = &self.peers else { return true };
        peers.iter().any(|(network, len)| is_in_network(source, *network, *len))
    }

    /// Whether this is a packet of a tunnel that ends here, or a part of one as far as it tells.
    fn is_tunnel(&self, bytes: &[u8], headers: &Headers) -> bool {
        let has_port = || !headers.is_later_fragment() && read_u16(headers.payload(bytes), 2) == self.accepts.gue_port;
        self.may_be_tunnel(headers) && (headers.protocol != UDP || has_port())
    }

    fn may_be_tunnel(&self, headers: &Headers) -> bool {
        match headers.protocol {
            IPV4_IN_IP | IPV6_IN_IP => self.accepts.ipip,
            gre::PROTOCOL => self.accepts.gre,
            UDP => self.accepts.gue_port.is_some(),
            _ => false,
        }
    }

    /// Keeps a part; takes the inner packet out once all of the outer one is there.
    fn keep(&mut self, now: Instant, packet: &PacketBuf<'_>, headers: &Headers) -> Result<Ending, DropReason> {
        // Only the first part of a UDP datagram says whose it is.
        let is_first = !headers.is_later_fragment();
        let port = || read_u16(headers.payload(packet.bytes()), 2);
        if headers.protocol == UDP && is_first && port() != self.accepts.gue_port {
            self.parts.decline(now, headers);
            return Ok(Ending::NotOurs);
        }
        let collected = self.parts.collect(now, packet, headers);
        self.counters.parts_full += u64::from(self.parts.take_given_up());
        match collected? {
            Collected::Whole(storage) => self.complete(storage),
            Collected::Kept => {}
            Collected::Declined => return Ok(Ending::NotOurs),
        }
        Ok(Ending::Held)
    }

    fn complete(&mut self, mut storage: Vec<u8>) {
        let len = storage.len() - HEADROOM;
        let mut packet = PacketBuf::new(&mut storage, HEADROOM, len);
        if self.take_out(&mut packet) == Ending::TakenOut {
            let (start, len, offload) = (packet.start(), packet.len(), packet.offload);
            self.counters.joined += 1;
            self.ready.push_back(Joined { storage, start, len, offload });
        }
    }

    fn refuse(&mut self, reason: DropReason) -> Ending {
        *match reason {
            DropReason::UnknownTunnelPeer => &mut self.counters.strangers,
            DropReason::FragmentTableFull => &mut self.counters.parts_full,
            DropReason::OverlappingFragment => &mut self.counters.parts_overlapping,
            _ => &mut self.counters.refused,
        } += 1;
        Ending::Refused(reason)
    }
}

fn is_in_network(address: IpAddr, network: IpAddr, len: u8) -> bool {
    match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            (address.to_bits() ^ network.to_bits()).leading_zeros() >= u32::from(len.min(32))
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => {
            (address.to_bits() ^ network.to_bits()).leading_zeros() >= u32::from(len.min(128))
        }
        _ => false,
    }
}

/// Outer packets in parts at once, and bytes of them: the director's own measures for fragments.
const DATAGRAMS_MAX: u32 = 1_024;
const BYTES_MAX: u32 = 4 << 20;
