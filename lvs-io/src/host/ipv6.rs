//! IPv6 packets: what the host checks, answers and routes.

use std::net::Ipv6Addr;

use lvs_core::{Direction, Instant, PacketBuf};

use super::answer::{self, IcmpError, Layout};
use super::ipv4::{is_plausible_tcp, is_plausible_udp, is_transport_sum_right};
use super::reassembly::{Collected, Fragment, Key, Reassembly};
use super::{Host, Outcome, has_full_checksum, wire_len};

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const NO_NEXT_HEADER: u8 = 59;
const DESTINATION_OPTIONS: u8 = 60;

/// Most extension headers a packet may have; a longer chain is not meant to be understood.
const EXTENSION_HEADERS_MAX: usize = 8;

impl Host {
    pub(super) fn handle_ipv6(&mut self, now: Instant, came: Direction, packet: &mut PacketBuf<'_>) -> Outcome {
        let Some(header) = Header::read(packet) else { return Outcome::Drop };
        if header.target.is_multicast() || header.source.is_multicast() || header.target.is_unspecified() {
            return Outcome::Drop;
        }
        if !self.is_local(header.target.into()) {
            return self.route_ipv6(came, packet, &header);
        }
        let Some(chain) = Chain::read(packet.bytes()) else { return Outcome::Drop };
        if chain.next_header != FRAGMENT {
            return self.answer_ipv6(packet, &header, chain);
        }
        match self.collect(now, packet.bytes(), &header, chain) {
            Collected::Complete(storage) => super::on_reassembled(packet, storage, |datagram| {
                Chain::read(datagram.bytes()).map_or(Outcome::Drop, |chain| self.answer_ipv6(datagram, &header, chain))
            }),
            Collected::Kept => Outcome::Kept,
            Collected::Refused => Outcome::Drop,
        }
    }

    fn collect(&mut self, now: Instant, packet: &[u8], header: &Header, chain: Chain) -> Collected {
        let (before, fragment) = packet.split_at(chain.offset);
        let Some((&fragment, payload)) = fragment.split_first_chunk::<8>() else { return Collected::Refused };
        let mut headers = before.to_vec();
        headers[chain.named_at] = fragment[0];
        let offset_and_more = u16::from_be_bytes([fragment[2], fragment[3]]);
        let key = Key {
            source: header.source.into(),
            target: header.target.into(),
            protocol: 0,
            identification: u32::from_be_bytes([fragment[4], fragment[5], fragment[6], fragment[7]]),
        };
        let fragment = Fragment {
            key,
            offset: usize::from(offset_and_more & 0xfff8),
            more: offset_and_more & 1 != 0,
            payload,
            headers: &headers,
        };
        if fragment.offset == 0 && !fragment.more {
            // RFC 6946: an atomic fragment is a whole datagram and waits for nobody.
            return Reassembly::default().collect(now, &fragment);
        }
        self.reassembly.collect(now, &fragment)
    }

    /// A whole datagram for one of the host's own addresses.
    fn answer_ipv6(&mut self, packet: &mut PacketBuf<'_>, header: &Header, chain: Chain) -> Outcome {
        let layout = Layout { source: header.source.into(), target: header.target.into(), transport: chain.offset };
        let full = has_full_checksum(packet);
        let payload = &packet.bytes()[chain.offset..];
        let answered = match chain.next_header {
            TCP => {
                let plausible = is_plausible_tcp(payload) && (!full || is_transport_sum_right(layout, TCP, payload));
                plausible.then(|| answer::reset(packet, layout)).flatten()
            }
            UDP if !is_plausible_udp(layout, payload, full) => None,
            UDP => refuse(packet, header, IcmpError::PORT_UNREACHABLE_V6, header.target),
            ICMPV6 => {
                let is_echo = payload.len() >= 8 && payload[0] == 128;
                let is_right = is_echo && is_transport_sum_right(layout, ICMPV6, payload);
                is_right.then(|| answer::echo_reply(packet, layout, 0)).flatten()
            }
            NO_NEXT_HEADER => None,
            _ => refuse(packet, header, IcmpError::unknown_next_header(chain.named_at as u32), header.target),
        };
        answered.map_or(Outcome::Drop, |()| Outcome::Answer(header.source.into()))
    }

    /// A packet for somewhere else (RFC 8200 §3): hop limit, then the MTU of the way out. Routers never fragment.
    fn route_ipv6(&mut self, came: Direction, packet: &mut PacketBuf<'_>, header: &Header) -> Outcome {
        // RFC 4291 §2.5.6: never routed.
        if header.target.is_unicast_link_local() || header.source.is_unicast_link_local() {
            return Outcome::Drop;
        }
        let mtu = self.side_towards(self.direction_to(header.target.into())).mtu;
        let own = self.side_towards(super::opposite(came)).ipv6;
        let error = if header.hop_limit <= 1 {
            IcmpError::TIME_EXCEEDED_V6
        } else if segment_len(packet) > usize::from(mtu) {
            IcmpError::packet_too_big(mtu)
        } else {
            packet.bytes_mut()[7] -= 1;
            return Outcome::Route(header.target.into());
        };
        own.and_then(|own| refuse(packet, header, error, own))
            .map_or(Outcome::Drop, |()| Outcome::Answer(header.source.into()))
    }
}

/// Answers with an ICMPv6 error where one may be sent (RFC 4443 §2.4(e)).
fn refuse(packet: &mut PacketBuf<'_>, header: &Header, error: IcmpError, sender: Ipv6Addr) -> Option<()> {
    let about_an_error = Chain::read(packet.bytes()).is_none_or(|chain| {
        // Errors are types below 128; 137 is a redirect.
        let kind = packet.bytes().get(chain.offset).copied();
        chain.next_header == ICMPV6 && kind.is_none_or(|kind| kind < 128 || kind == 137)
    });
    if about_an_error || header.source.is_unspecified() {
        return None;
    }
    answer::icmpv6_error(packet, error, sender, header.source)
}

/// What the host reads from an IPv6 header (RFC 8200 §3).
struct Header {
    source: Ipv6Addr,
    target: Ipv6Addr,
    hop_limit: u8,
}

impl Header {
    /// Reads and checks the header and cuts off what lies behind the packet's stated length.
    fn read(packet: &mut PacketBuf<'_>) -> Option<Self> {
        let bytes = packet.bytes();
        let fixed = *bytes.first_chunk::<40>()?;
        let len = 40 + usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
        if len > bytes.len() {
            return None;
        }
        packet.set_len(len)?;
        Some(Self {
            source: Ipv6Addr::from(*fixed[8..].first_chunk::<16>()?),
            target: Ipv6Addr::from(*fixed[24..].first_chunk::<16>()?),
            hop_limit: fixed[7],
        })
    }
}

/// The end of the chain of extension headers: a fragment header, or what is not an extension header.
#[derive(Clone, Copy, Debug)]
struct Chain {
    next_header: u8,
    /// Where that header starts.
    offset: usize,
    /// Where the field is that names it.
    named_at: usize,
}

impl Chain {
    /// Walks the chain (RFC 8200 §4); `None` if it is cut short or too long.
    fn read(packet: &[u8]) -> Option<Self> {
        let mut chain = Self { next_header: *packet.get(6)?, offset: 40, named_at: 6 };
        for _ in 0..EXTENSION_HEADERS_MAX {
            if !matches!(chain.next_header, HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS) {
                return Some(chain);
            }
            let [next_header, len] = *packet.get(chain.offset..)?.first_chunk::<2>()?;
            let end = chain.offset + 8 + usize::from(len) * 8;
            if end > packet.len() {
                return None;
            }
            chain = Self { next_header, offset: end, named_at: chain.offset };
        }
        None
    }
}

/// Longest packet this one becomes on the wire.
fn segment_len(packet: &PacketBuf<'_>) -> usize {
    let header_end = Chain::read(packet.bytes())
        .map_or(40, |chain| super::transport_header_end(packet.bytes(), chain.next_header, chain.offset));
    wire_len(packet, header_end)
}
