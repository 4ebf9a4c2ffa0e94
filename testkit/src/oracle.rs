//! Naive oracles: checksums and parsing in the plainest way, sharing no code with `lvs-core`; and etherparse's opinion.
//! Slow on purpose; what is obvious need not be tested.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{NetSlice, SlicedPacket, TransportSlice};

/// The Internet checksum (RFC 1071), one word after the other.
pub fn checksum(bytes: &[u8]) -> u16 {
    !add(0, bytes)
}

/// One's complement sum of the words in `bytes`, starting from `sum`.
fn add(mut sum: u16, bytes: &[u8]) -> u16 {
    for pair in bytes.chunks(2) {
        let word = u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]);
        let (added, carry) = sum.overflowing_add(word);
        sum = added + u16::from(carry);
    }
    sum
}

/// The sum (not complemented) of a TCP, UDP or ICMPv6 pseudo header: its bytes written out and added.
///
/// # Panics
/// If the addresses are of different families.
pub fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, len: usize) -> u16 {
    let bytes = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            [&source.octets()[..], &destination.octets(), &[0, protocol], &(len as u16).to_be_bytes()].concat()
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            [&source.octets()[..], &destination.octets(), &(len as u32).to_be_bytes(), &[0, 0, 0, protocol]].concat()
        }
        _ => panic!("a pseudo header has addresses of one family"),
    };
    add(0, &bytes)
}

/// Offset of the checksum in the header of TCP, UDP, SCTP, ICMP and ICMPv6.
pub fn checksum_field(protocol: u8) -> Option<usize> {
    match protocol {
        6 => Some(16),
        17 => Some(6),
        132 => Some(8),
        1 | 58 => Some(2),
        _ => None,
    }
}

/// The bytes that belong into the checksum field of a segment, whose own field is taken as zero; `None` for protocols
/// without one, or if the segment is too short.
pub fn transport_checksum(source: IpAddr, destination: IpAddr, protocol: u8, segment: &[u8]) -> Option<Vec<u8>> {
    let field = checksum_field(protocol)?;
    let len = if protocol == 132 { 4 } else { 2 };
    let mut segment = segment.to_vec();
    segment.get_mut(field..field + len)?.fill(0);
    if protocol == 132 {
        // RFC 9260, Appendix A: least significant byte first.
        return Some(crc32c(&segment).to_le_bytes().to_vec());
    }
    let sum = if protocol == 1 { 0 } else { pseudo_header(source, destination, protocol, segment.len()) };
    let checksum = !add(sum, &segment);
    // RFC 768: zero would mean that there is no checksum.
    let checksum = if protocol == 17 && checksum == 0 { 0xffff } else { checksum };
    Some(checksum.to_be_bytes().to_vec())
}

/// CRC32c, bit by bit.
pub fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

/// Source and destination of a packet with an IP header.
pub fn addresses(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    match packet.first()? >> 4 {
        4 => {
            let address = |at| packet.get(at..)?.first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets).into());
            Some((address(12)?, address(16)?))
        }
        6 => {
            let address = |at| packet.get(at..)?.first_chunk::<16>().map(|octets| Ipv6Addr::from(*octets).into());
            Some((address(8)?, address(24)?))
        }
        _ => None,
    }
}

/// A packet taken apart as far as a test needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed<'a> {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Transport protocol, behind extension headers.
    pub protocol: u8,
    /// The IP header with options or extension headers.
    pub ip_header: &'a [u8],
    /// What follows.
    pub segment: &'a [u8],
    /// What was split into fragments: in IPv6 it starts behind the fragment header, and extension headers may be in it.
    pub data: &'a [u8],
    /// Offset in the datagram and whether more fragments follow, if it is a part of several.
    pub fragment: Option<(usize, bool)>,
    /// Identification of a fragment, or of any IPv4 packet.
    pub identification: u32,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// TOS or traffic class.
    pub traffic_class: u8,
    /// IPv4's DF.
    pub dont_fragment: bool,
    /// Length the IP header claims; there may be more bytes, or (quoted packets) fewer.
    pub claimed_len: usize,
}

/// Takes a packet apart. `None` if its headers are not all there.
pub fn parse(packet: &[u8]) -> Option<Parsed<'_>> {
    let (source, destination) = addresses(packet)?;
    let word = |at: usize| packet.get(at..at + 2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
    if source.is_ipv4() {
        let header_len = usize::from(packet[0] & 15) * 4;
        let flags = word(6)?;
        let claimed_len = usize::from(word(2)?);
        let end = claimed_len.max(header_len).min(packet.len());
        let (offset, more) = (usize::from(flags & 0x1fff) * 8, flags & 0x2000 != 0);
        return Some(Parsed {
            source,
            destination,
            protocol: packet[9],
            ip_header: packet.get(..header_len.max(20))?,
            segment: packet.get(header_len.max(20)..end)?,
            data: packet.get(header_len.max(20)..end)?,
            fragment: (offset != 0 || more).then_some((offset, more)),
            identification: u32::from(word(4)?),
            hop_limit: packet[8],
            traffic_class: packet[1],
            dont_fragment: flags & 0x4000 != 0,
            claimed_len,
        });
    }
    let claimed_len = 40 + usize::from(word(4)?);
    let end = claimed_len.min(packet.len());
    let (mut protocol, mut at, mut fragment, mut identification) = (packet[6], 40, None, 0);
    let mut data_at = None;
    while matches!(protocol, 0 | 43 | 44 | 60) && fragment.is_none_or(|(offset, _)| offset == 0) {
        let header = packet.get(at..at + 8)?;
        if protocol == 44 {
            let field = word(at + 2)?;
            fragment = Some((usize::from(field & 0xfff8), field & 1 == 1));
            identification = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
            at += 8;
            data_at = Some(at);
        } else {
            at += (usize::from(header[1]) + 1) * 8;
        }
        protocol = header[0];
    }
    Some(Parsed {
        source,
        destination,
        protocol,
        ip_header: packet.get(..at)?,
        segment: packet.get(at..end)?,
        data: packet.get(data_at.unwrap_or(at)..end)?,
        fragment: fragment.filter(|part| *part != (0, false)),
        identification,
        hop_limit: packet[7],
        traffic_class: packet[0] << 4 | packet[1] >> 4,
        dont_fragment: false,
        claimed_len,
    })
}

/// What is wrong with a packet's checksums: `"IP"` for the IPv4 header, `"L4"` for the transport checksum of an
/// unfragmented packet (UDP without one is right).
pub fn checksum_errors(packet: &[u8]) -> Vec<&'static str> {
    let mut errors = vec![];
    let Some(parsed) = parse(packet) else { return vec!["IP"] };
    if parsed.source.is_ipv4() && checksum(parsed.ip_header) != 0 {
        errors.push("IP");
    }
    if parsed.fragment.is_none() && !transport_checksum_is_right(&parsed) {
        errors.push("L4");
    }
    errors
}

fn transport_checksum_is_right(parsed: &Parsed<'_>) -> bool {
    let Some(right) = transport_checksum(parsed.source, parsed.destination, parsed.protocol, parsed.segment) else {
        return true;
    };
    let field = checksum_field(parsed.protocol).expect("it has a checksum");
    let found = &parsed.segment[field..field + right.len()];
    let no_udp_checksum = parsed.protocol == 17 && found == [0, 0];
    // 0000 and ffff are the same number in one's complement.
    let same_zero = parsed.protocol != 132 && [found, &right].iter().all(|field| matches!(field, [0, 0] | [255, 255]));
    found == right || no_udp_checksum || same_zero
}

/// The transport checksum etherparse computes for a packet, and the one it finds in it; `None` for fragments and for
/// packets etherparse does not know (SCTP, other protocols) or refuses.
pub fn etherparse_checksum(packet: &[u8]) -> Option<(u16, u16)> {
    let sliced = SlicedPacket::from_ip(packet).ok()?;
    let (computed, found) = match (sliced.net?, sliced.transport?) {
        (NetSlice::Ipv4(ip), TransportSlice::Tcp(tcp)) => {
            let header = ip.header();
            (tcp.calc_checksum_ipv4(header.source(), header.destination()).ok()?, tcp.checksum())
        }
        (NetSlice::Ipv6(ip), TransportSlice::Tcp(tcp)) => {
            let header = ip.header();
            (tcp.calc_checksum_ipv6(header.source(), header.destination()).ok()?, tcp.checksum())
        }
        (NetSlice::Ipv4(ip), TransportSlice::Udp(udp)) => {
            let header = ip.header().to_header();
            (udp.to_header().calc_checksum_ipv4(&header, udp.payload()).ok()?, udp.checksum())
        }
        (NetSlice::Ipv6(ip), TransportSlice::Udp(udp)) => {
            let header = ip.header().to_header();
            (udp.to_header().calc_checksum_ipv6(&header, udp.payload()).ok()?, udp.checksum())
        }
        (NetSlice::Ipv4(_), TransportSlice::Icmpv4(icmp)) => {
            (icmp.icmp_type().calc_checksum(icmp.payload()), icmp.checksum())
        }
        _ => return None,
    };
    Some((computed, found))
}

/// Puts fragments of one datagram together: the bytes of the datagram behind the IP headers, if they are all there and
/// do not overlap.
pub fn reassemble<'a>(fragments: impl IntoIterator<Item = &'a [u8]>) -> Option<Vec<u8>> {
    let mut parts: Vec<_> = fragments.into_iter().map(parse).collect::<Option<_>>()?;
    parts.sort_by_key(|part| part.fragment.map_or(0, |(offset, _)| offset));
    let mut datagram = vec![];
    for (index, part) in parts.iter().enumerate() {
        let (offset, more) = part.fragment.unwrap_or((0, false));
        if offset != datagram.len() || more != (index + 1 < parts.len()) {
            return None;
        }
        datagram.extend(part.data);
    }
    Some(datagram)
}
