//! IPv4 packets: what the host checks, answers and routes.

use std::net::{IpAddr, Ipv4Addr};

use lvs_core::{Direction, Instant, PacketBuf};

use super::answer::{self, IcmpError, Layout};
use super::reassembly::{Collected, Fragment, Key};
use super::{Host, Outcome, has_full_checksum, wire_len};
use crate::checksum::{pseudo_header, sum};

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;

impl Host {
    pub(super) fn handle_ipv4(&mut self, now: Instant, came: Direction, packet: &mut PacketBuf<'_>) -> Outcome {
        let Some(header) = Header::read(packet) else { return Outcome::Drop };
        if header.is_source_routed(packet) || header.target.is_multicast() || header.target.is_broadcast() {
            return Outcome::Drop;
        }
        if !self.is_local(header.target.into()) {
            return self.route_ipv4(came, packet, &header);
        }
        if !header.is_fragment() {
            return self.answer_ipv4(packet, &header);
        }
        match self.reassembly.collect(now, &header.fragment(packet.bytes())) {
            Collected::Complete(storage) => super::on_reassembled(packet, storage, |datagram| {
                Header::read(datagram).map_or(Outcome::Drop, |header| self.answer_ipv4(datagram, &header))
            }),
            Collected::Kept => Outcome::Kept,
            Collected::Refused => Outcome::Drop,
        }
    }

    /// A whole datagram for one of the host's own addresses.
    fn answer_ipv4(&mut self, packet: &mut PacketBuf<'_>, header: &Header) -> Outcome {
        let layout = Layout { source: header.source.into(), target: header.target.into(), transport: header.len };
        let full = has_full_checksum(packet);
        let payload = &packet.bytes()[header.len..];
        let answered = match header.protocol {
            TCP => {
                let plausible = is_plausible_tcp(payload) && (!full || is_transport_sum_right(layout, TCP, payload));
                plausible.then(|| answer::reset(packet, layout)).flatten()
            }
            UDP if !is_plausible_udp(layout, payload, full) => None,
            UDP => self.refuse_ipv4(packet, header, IcmpError::PORT_UNREACHABLE, header.target),
            // RFC 792: only echo requests are answered; errors and everything else are for nobody here.
            ICMP if payload.len() >= 8 && payload[0] == 8 && sum(0, payload) == 0xffff => {
                let identification = self.next_identification();
                answer::echo_reply(packet, layout, identification)
            }
            ICMP => None,
            _ => self.refuse_ipv4(packet, header, IcmpError::PROTOCOL_UNREACHABLE, header.target),
        };
        answered.map_or(Outcome::Drop, |()| Outcome::Answer(header.source.into()))
    }

    /// A packet for somewhere else (RFC 1812 §5.2): the hop limit is checked, then the MTU of the way out, then the hop
    /// limit is lowered.
    fn route_ipv4(&mut self, came: Direction, packet: &mut PacketBuf<'_>, header: &Header) -> Outcome {
        let way_out = self.direction_to(header.target.into());
        let mtu = self.side_towards(way_out).mtu;
        let own = self.side_towards(super::opposite(came)).ipv4;
        let error = if header.hop_limit <= 1 {
            IcmpError::TIME_EXCEEDED
        } else if header.dont_fragment && wire_len(packet, transport_end(packet, header)) > usize::from(mtu) {
            IcmpError::fragmentation_needed(mtu)
        } else {
            header.lower_hop_limit(packet);
            return Outcome::Route(header.target.into());
        };
        own.and_then(|own| self.refuse_ipv4(packet, header, error, own))
            .map_or(Outcome::Drop, |()| Outcome::Answer(header.source.into()))
    }

    /// Answers with an ICMP error where one may be sent.
    fn refuse_ipv4(
        &mut self,
        packet: &mut PacketBuf<'_>,
        header: &Header,
        error: IcmpError,
        sender: Ipv4Addr,
    ) -> Option<()> {
        if !header.may_be_answered_by_error(packet) {
            return None;
        }
        let identification = self.next_identification();
        answer::icmp_error(packet, error, identification, sender, header.source)
    }
}

/// What the host reads from an IPv4 header (RFC 791 §3.1).
pub(super) struct Header {
    pub source: Ipv4Addr,
    pub target: Ipv4Addr,
    pub len: usize,
    identification: u16,
    protocol: u8,
    hop_limit: u8,
    dont_fragment: bool,
    more_fragments: bool,
    /// In bytes.
    fragment_offset: usize,
}

impl Header {
    /// Reads and checks the header and cuts off what lies behind the packet's stated length.
    fn read(packet: &mut PacketBuf<'_>) -> Option<Self> {
        let bytes = packet.bytes();
        let fixed = *bytes.first_chunk::<20>()?;
        let len = usize::from(fixed[0] & 0x0f) * 4;
        let total_len = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
        if len < 20 || total_len < len || total_len > bytes.len() || sum(0, &bytes[..len]) != 0xffff {
            return None;
        }
        packet.set_len(total_len)?;
        let fragment = u16::from_be_bytes([fixed[6], fixed[7]]);
        Some(Self {
            source: Ipv4Addr::new(fixed[12], fixed[13], fixed[14], fixed[15]),
            target: Ipv4Addr::new(fixed[16], fixed[17], fixed[18], fixed[19]),
            len,
            identification: u16::from_be_bytes([fixed[4], fixed[5]]),
            protocol: fixed[9],
            hop_limit: fixed[8],
            dont_fragment: fragment & 0x4000 != 0,
            more_fragments: fragment & 0x2000 != 0,
            fragment_offset: usize::from(fragment & 0x1fff) * 8,
        })
    }

    fn is_fragment(&self) -> bool {
        self.more_fragments || self.fragment_offset > 0
    }

    fn fragment<'a>(&self, packet: &'a [u8]) -> Fragment<'a> {
        let (headers, payload) = packet.split_at(self.len);
        let key = Key {
            source: self.source.into(),
            target: self.target.into(),
            protocol: self.protocol,
            identification: self.identification.into(),
        };
        Fragment { key, offset: self.fragment_offset, more: self.more_fragments, payload, headers }
    }

    /// Loose or strict source routing among the options (RFC 791 §3.1; Linux refuses both by default), or options
    /// whose lengths are wrong.
    fn is_source_routed(&self, packet: &PacketBuf<'_>) -> bool {
        const END: u8 = 0;
        const NO_OPERATION: u8 = 1;
        const LOOSE: u8 = 131;
        const STRICT: u8 = 137;
        let mut options = &packet.bytes()[20..self.len];
        loop {
            match *options {
                [] | [END, ..] => return false,
                [NO_OPERATION, ref rest @ ..] => options = rest,
                [LOOSE | STRICT, ..] => return true,
                [_, len, ..] if len >= 2 && usize::from(len) <= options.len() => options = &options[usize::from(len)..],
                _ => return true,
            }
        }
    }

    /// RFC 1122 §3.2.2: no error about an error, a later fragment, or a packet whose sender is nobody in particular.
    fn may_be_answered_by_error(&self, packet: &PacketBuf<'_>) -> bool {
        let source_is_one_host =
            !(self.source.is_unspecified() || self.source.is_multicast() || self.source.is_broadcast());
        let is_icmp_error = self.protocol == ICMP
            && packet.bytes().get(self.len).is_none_or(|kind| matches!(kind, 3 | 4 | 5 | 11 | 12));
        source_is_one_host && self.fragment_offset == 0 && !is_icmp_error
    }

    /// Lowers the hop limit by one; the header checksum follows (RFC 1624).
    fn lower_hop_limit(&self, packet: &mut PacketBuf<'_>) {
        let header = &mut packet.bytes_mut()[..self.len];
        header[8] -= 1;
        header[10..12].fill(0);
        let checksum = !sum(0, header);
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
    }
}

/// Whether the bytes begin with a whole TCP header.
pub(super) fn is_plausible_tcp(segment: &[u8]) -> bool {
    segment.first_chunk::<20>().is_some_and(|header| {
        let len = usize::from(header[12] >> 4) * 4;
        (20..=segment.len()).contains(&len)
    })
}

/// Whether the bytes are a UDP datagram a host accepts: whole, and its checksum right or absent (RFC 768).
pub(super) fn is_plausible_udp(layout: Layout, datagram: &[u8], verify: bool) -> bool {
    let Some(header) = datagram.first_chunk::<8>() else { return false };
    let len = usize::from(u16::from_be_bytes([header[4], header[5]]));
    if len < 8 || len > datagram.len() {
        return false;
    }
    let has_checksum = header[6..8] != [0, 0];
    match layout.target {
        IpAddr::V4(_) if !has_checksum => true,
        // RFC 8200 §8.1: over IPv6 the checksum is mandatory.
        IpAddr::V6(_) if !has_checksum => false,
        _ => !verify || is_transport_sum_right(layout, UDP, &datagram[..len]),
    }
}

pub(super) fn is_transport_sum_right(layout: Layout, protocol: u8, transport: &[u8]) -> bool {
    sum(pseudo_header(layout.source, layout.target, protocol, transport.len()), transport) == 0xffff
}

/// Where the TCP or UDP header of a super-packet ends.
fn transport_end(packet: &PacketBuf<'_>, header: &Header) -> usize {
    super::transport_header_end(packet.bytes(), header.protocol, header.len)
}
