//! From IPv6 to IPv4 and back in the packet's own buffer (NAT64): the header is replaced, ports and checksums follow.
//! Done for TCP, UDP and SCTP packets directly behind their IP header, for their fragments, and for ICMP errors that
//! quote one.
//! RFC 7915, with addresses from a connection instead of an embedding.

use core::net::IpAddr;

use crate::packet::{ChecksumOffload, GsoKind, Offload, PacketBuf};
use crate::wire::icmp::{self, ICMP, ICMPV6, Related, write_message_checksum};
use crate::wire::parse::{FragmentPart, Headers};
use crate::wire::rewrite::{Care, Rewrite, Transport};
use crate::wire::{ipv4, ipv6, read_u16, udp, write_u16};
use crate::{AddressFamily, DropReason, Endpoint, Protocol};

/// Longest ICMPv6 error (RFC 4443 §2.4(c)).
const ICMPV6_LEN_MAX: usize = 1280;

/// Gives the packet a header of the other family with these ends. IPv4 options are lost (RFC 7915 §4.1). Traffic class
/// and hop limit stay; there is no flow label. Towards IPv4, what was longer than every IPv6 link takes has DF and
/// identification 0; what was not, and so cannot be asked to be shorter, has `identification` and may be fragmented (RFC
/// 7915 §5.1). A fragment stays one: towards IPv6 it has a fragment header, eight bytes more, and towards IPv4 the lower
/// half of its identification and no DF. Returns the offset of the transport header, or of what is there in its place.
///
/// # Errors
/// The packet is unchanged. [`DropReason::NotForwardable`]: other IPv6 extension headers, a source route, another
/// protocol, ends of different families, or the first fragment of an IPv4 datagram without UDP checksum, which IPv6
/// asks for (RFC 7915 §4.5). [`DropReason::TooBig`]: a super-packet longer than IPv4's. [`DropReason::NoHeadroom`]; and
/// those of [`crate::wire::rewrite::rewrite`].
pub(crate) fn translate(
    packet: &mut PacketBuf<'_>,
    headers: &Headers,
    (source, destination): (Endpoint, Endpoint),
    identification: u16,
) -> Result<usize, DropReason> {
    let Some(bytes) = packet.bytes().get(..headers.packet_len) else { return Err(DropReason::MalformedIp) };
    if !is_plain(headers) || Protocol::from_number(headers.protocol).is_none() {
        return Err(DropReason::NotForwardable);
    }
    let change = Rewrite { source: Some(source), destination: Some(destination) };
    let new_family = AddressFamily::of(destination.address);
    if new_family == AddressFamily::Ipv6 && lacks_checksum(bytes, headers) {
        return Err(DropReason::NotForwardable);
    }
    let transport = Transport::check(bytes, headers, &change, packet.offload.checksum, Care::Strict)?;
    let payload_len = bytes.len() - headers.transport;
    let header_len = header_len(new_family) + fragment_header_len(new_family, headers.fragment);
    if new_family == AddressFamily::Ipv4 && header_len + payload_len > usize::from(u16::MAX) {
        return Err(DropReason::TooBig);
    }
    let may_be_fragmented = wire_len(packet, headers) <= usize::from(ipv6::LEAST_MTU);
    replace_front(packet, headers.transport, header_len, headers.packet_len)?;

    // The old header is gone as far as the new one is shorter; its fields are in `headers`.
    let bytes = packet.bytes_mut();
    let moved = Headers { transport: header_len, packet_len: bytes.len(), ..*headers };
    let fields = Fields {
        traffic_class: headers.traffic_class,
        hop_limit: headers.hop_limit,
        protocol: headers.protocol,
        payload_len: payload_len as u16,
        fragment: headers.fragment,
        identification: may_be_fragmented.then_some(identification),
    };
    write_header(bytes, source.address, destination.address, &fields)?;
    if transport.computes_crc() {
        packet.offload.checksum = ChecksumOffload::Full;
    }
    transport.moved_to(headers.transport, header_len).write(
        packet.bytes_mut(),
        &moved,
        source.address,
        destination.address,
    );
    move_offload(&mut packet.offload, header_len);
    Ok(header_len)
}

/// Where the parts of a translated ICMP error are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ErrorPlaces {
    /// The ICMP header.
    pub message: usize,
    /// The transport header of the quoted packet.
    pub quoted_transport: usize,
}

/// Translates an ICMP error and the packet it quotes to the other family; `outer` gives the error's own new addresses,
/// `quoted` the new ends of the packet it quotes, whose transport checksum becomes stale.
///
/// # Errors
/// The packet is unchanged. [`DropReason::NotForwardable`]: an error without a counterpart (RFC 7915 §§4.2, 5.2), or a
/// quoted packet that is not plain. [`DropReason::TruncatedIcmp`]: ports are not quoted. [`DropReason::NoHeadroom`].
pub(crate) fn translate_error(
    packet: &mut PacketBuf<'_>,
    headers: &Headers,
    related: &Related,
    outer: (IpAddr, IpAddr),
    quoted: (Endpoint, Endpoint),
) -> Result<ErrorPlaces, DropReason> {
    let new_family = AddressFamily::of(outer.1);
    let inner = related.quoted;
    let message = new_message(headers.family, related).ok_or(DropReason::NotForwardable)?;
    let is_translatable = is_plain(headers)
        && headers.fragment.is_none()
        && inner.fragment.is_none()
        && (inner.family == AddressFamily::Ipv4 || inner.transport == related.quoted_start + ipv6::HEADER_LEN)
        && Protocol::from_number(inner.protocol).is_some();
    if !is_translatable {
        return Err(DropReason::NotForwardable);
    }
    if inner.ports(packet.bytes()).is_none() {
        return Err(DropReason::TruncatedIcmp);
    }
    let payload_len = claimed_payload_len(packet.bytes(), related);
    let header_len = header_len(new_family);
    let front_len = 2 * header_len + icmp::HEADER_LEN;
    let quoted_len = headers.packet_len - inner.transport;
    let end = match new_family {
        AddressFamily::Ipv4 => headers.packet_len,
        AddressFamily::Ipv6 => inner.transport + quoted_len.min(ICMPV6_LEN_MAX - front_len),
    };
    replace_front(packet, inner.transport, front_len, end)?;
    packet.offload = Offload::default();

    let bytes = packet.bytes_mut();
    let message_len = bytes.len() - header_len;
    let fields = Fields {
        traffic_class: headers.traffic_class,
        hop_limit: headers.hop_limit,
        protocol: if new_family == AddressFamily::Ipv4 { ICMP } else { ICMPV6 },
        payload_len: message_len as u16,
        fragment: None,
        identification: None,
    };
    write_header(bytes, outer.0, outer.1, &fields)?;
    let inner_fields = Fields {
        traffic_class: inner.traffic_class,
        hop_limit: inner.hop_limit,
        protocol: inner.protocol,
        payload_len,
        fragment: None,
        identification: None,
    };
    let quoted_start = header_len + icmp::HEADER_LEN;
    write_header(&mut bytes[quoted_start..], quoted.0.address, quoted.1.address, &inner_fields)?;
    write_u16(bytes, front_len, quoted.0.port);
    write_u16(bytes, front_len + 2, quoted.1.port);
    let (error_type, code, rest) = message;
    bytes[header_len..header_len + 4].copy_from_slice(&[error_type, code, 0, 0]);
    bytes[header_len + 4..quoted_start].copy_from_slice(&rest.to_be_bytes());
    write_message_checksum(&mut bytes[header_len..], outer.0, outer.1);
    Ok(ErrorPlaces { message: header_len, quoted_transport: front_len })
}

/// What both families' headers say.
struct Fields {
    traffic_class: u8,
    hop_limit: u8,
    protocol: u8,
    payload_len: u16,
    fragment: Option<FragmentPart>,
    /// Of an IPv4 packet that may be fragmented on its way; others have DF.
    identification: Option<u16>,
}

fn write_header(bytes: &mut [u8], source: IpAddr, destination: IpAddr, fields: &Fields) -> Result<(), DropReason> {
    let Fields { traffic_class, hop_limit, protocol, payload_len, fragment, identification } = *fields;
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let total_len = payload_len.saturating_add(ipv4::HEADER_LEN as u16);
            let identification = fragment.map(|part| part.id as u16).or(identification);
            let (identification, dont_fragment) = (identification.unwrap_or(0), identification.is_none());
            let header = ipv4::Header {
                traffic_class,
                total_len,
                identification,
                dont_fragment,
                hop_limit,
                protocol,
                source,
                destination,
            };
            ipv4::write_header(bytes.first_chunk_mut().ok_or(DropReason::NotForwardable)?, &header);
            if let Some(part) = fragment {
                write_u16(bytes, 6, (part.offset / 8) | (u16::from(part.more) << 13));
                ipv4::recompute_checksum(bytes, ipv4::HEADER_LEN);
            }
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let next_header = if fragment.is_some() { ipv6::FRAGMENT } else { protocol };
            let payload_len = payload_len.saturating_add(fragment_header_len(AddressFamily::Ipv6, fragment) as u16);
            let header = ipv6::Header { traffic_class, payload_len, next_header, hop_limit, source, destination };
            ipv6::write_header(bytes.first_chunk_mut().ok_or(DropReason::NotForwardable)?, &header);
            if let Some(part) = fragment {
                let [a, b] = (part.offset | u16::from(part.more)).to_be_bytes();
                let [c, d, e, f] = part.id.to_be_bytes();
                let place = bytes.get_mut(ipv6::HEADER_LEN..).and_then(|rest| rest.first_chunk_mut());
                *place.ok_or(DropReason::NotForwardable)? = [protocol, 0, a, b, c, d, e, f];
            }
        }
        _ => return Err(DropReason::NotForwardable),
    }
    Ok(())
}

/// Length of the packet, or of the segments it becomes on the wire.
fn wire_len(packet: &PacketBuf<'_>, headers: &Headers) -> usize {
    let Some(gso) = packet.offload.gso else { return headers.packet_len };
    let header_len = match headers.protocol == Protocol::Udp.number() {
        true => udp::HEADER_LEN,
        false => packet.bytes().get(headers.transport + 12).map_or(20, |offset| usize::from(offset >> 4) * 4),
    };
    (headers.transport + header_len + usize::from(gso.size)).min(headers.packet_len)
}

/// Replaces the first `old_len` bytes by `new_len` others, still to be written, and ends the packet at `end`.
fn replace_front(packet: &mut PacketBuf<'_>, old_len: usize, new_len: usize, end: usize) -> Result<(), DropReason> {
    if new_len > old_len + packet.headroom() {
        return Err(DropReason::NoHeadroom);
    }
    packet.set_len(end);
    if new_len > old_len {
        packet.grow_front(new_len - old_len);
    } else {
        packet.shrink_front(old_len - new_len);
    }
    Ok(())
}

/// Nothing between IP and transport header but IPv4 options, or the IPv6 fragment header.
fn is_plain(headers: &Headers) -> bool {
    let plain_len = ipv6::HEADER_LEN + fragment_header_len(headers.family, headers.fragment);
    let has_extensions = headers.family == AddressFamily::Ipv6 && headers.transport != plain_len;
    !headers.source_route && !has_extensions
}

/// The first fragment of a datagram that has no UDP checksum, nor could be given one.
fn lacks_checksum(bytes: &[u8], headers: &Headers) -> bool {
    headers.is_fragment_head()
        && headers.protocol == Protocol::Udp.number()
        && read_u16(bytes, headers.transport + udp::CHECKSUM) == Some(0)
}

const fn fragment_header_len(family: AddressFamily, fragment: Option<FragmentPart>) -> usize {
    match (family, fragment) {
        (AddressFamily::Ipv6, Some(_)) => ipv6::FRAGMENT_HEADER_LEN,
        _ => 0,
    }
}

const fn header_len(family: AddressFamily) -> usize {
    match family {
        AddressFamily::Ipv4 => ipv4::HEADER_LEN,
        AddressFamily::Ipv6 => ipv6::HEADER_LEN,
    }
}

/// The checksum left to the device starts elsewhere now, and segments are of the other family.
fn move_offload(offload: &mut Offload, transport: usize) {
    if let ChecksumOffload::Partial { start, .. } = &mut offload.checksum {
        *start = transport as u16;
    }
    if let Some(gso) = &mut offload.gso {
        gso.kind = match gso.kind {
            GsoKind::TcpV4 => GsoKind::TcpV6,
            GsoKind::TcpV6 => GsoKind::TcpV4,
            GsoKind::Udp => GsoKind::Udp,
        };
    }
}

/// Length of the quoted packet's payload as its header has it.
fn claimed_payload_len(bytes: &[u8], related: &Related) -> u16 {
    let start = related.quoted_start;
    match related.quoted.family {
        AddressFamily::Ipv4 => {
            let options_and_header = (related.quoted.transport - start) as u16;
            read_u16(bytes, start + 2).unwrap_or(0).saturating_sub(options_and_header)
        }
        AddressFamily::Ipv6 => read_u16(bytes, start + 4).unwrap_or(0),
    }
}

/// Type, code and last four bytes of the error in the other family; `None` if it has no counterpart.
fn new_message(from: AddressFamily, related: &Related) -> Option<(u8, u8, u32)> {
    let added = (ipv6::HEADER_LEN - ipv4::HEADER_LEN) as u32;
    let message = match (from, related.error_type, related.code) {
        (AddressFamily::Ipv4, 3, 0 | 1 | 5..=8 | 11 | 12) => (1, 0, 0),
        // Parameter problem: the next header is not known there.
        (AddressFamily::Ipv4, 3, 2) => (4, 1, 6),
        (AddressFamily::Ipv4, 3, 3) => (1, 4, 0),
        (AddressFamily::Ipv4, 3, 4) => (2, 0, (related.rest & 0xffff).saturating_add(added).max(1280)),
        (AddressFamily::Ipv4, 3, 9 | 10 | 13 | 15) => (1, 1, 0),
        (AddressFamily::Ipv4, 11, code) => (3, code, 0),
        (AddressFamily::Ipv6, 1, 0 | 2 | 3) => (3, 1, 0),
        (AddressFamily::Ipv6, 1, 1) => (3, 10, 0),
        (AddressFamily::Ipv6, 1, 4) => (3, 3, 0),
        (AddressFamily::Ipv6, 2, _) => (3, 4, related.rest.saturating_sub(added).min(0xffff)),
        (AddressFamily::Ipv6, 3, code) => (11, code, 0),
        (AddressFamily::Ipv6, 4, 1) => (3, 2, 0),
        _ => return None,
    };
    Some(message)
}
