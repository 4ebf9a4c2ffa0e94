//! Cuts super-packets in software, for devices that cannot: one TCP segment or UDP datagram after the other, as the
//! kernel's own segmentation offload would. Pure.

use crate::wire::checksum::transport_checksum;
use crate::wire::ipv4;
use crate::wire::parse::{Headers, parse};
use crate::wire::tcp::TcpFlags;
use crate::wire::udp::sent_checksum;
use crate::{AddressFamily, DropReason, Gso, GsoKind, Offload, PacketBuf};

/// Writes the segments of the super-packet `packet` into `buffer`, one after the other, and calls `each` with every
/// one, its checksums complete.
///
/// IPv4 identifications count up from the super-packet's. FIN and PSH are kept on the last segment only, CWR on the
/// first (RFC 3168 §6.1.2).
///
/// # Errors
/// `each` has not been called. [`DropReason::BadOffload`]: the packet is not of the kind `gso` says (an encapsulated
/// super-packet is not either), or its segment size is zero. [`DropReason::NoTailroom`]: `buffer` is shorter than a
/// segment. Or what [`parse`] finds wrong.
pub fn segment(packet: &[u8], gso: Gso, buffer: &mut [u8], mut each: impl FnMut(&[u8])) -> Result<(), DropReason> {
    let headers = parse(packet)?;
    let first_len = first_len(packet, &headers, gso)?;
    let packet = &packet[..headers.packet_len];
    let header_len = header_len(packet, &headers, gso.kind).ok_or(DropReason::BadOffload)?;
    let (head, data) = packet.split_at(header_len);
    let size = usize::from(gso.size);
    if buffer.len() < first_len {
        return Err(DropReason::NoTailroom);
    }
    let count = data.chunks(size).len();
    for (index, part) in data.chunks(size).enumerate() {
        let segment = &mut buffer[..header_len + part.len()];
        segment[..header_len].copy_from_slice(head);
        segment[header_len..].copy_from_slice(part);
        let place = Place { index, start: index * size, is_last: index + 1 == count };
        finish_ip_header(segment, &headers, &place);
        finish_transport(segment, &headers, gso.kind, &place);
        each(segment);
    }
    Ok(())
}

/// Length of the first segment of a super-packet that was parsed: what [`keep_first`] makes of it.
///
/// # Errors
/// [`DropReason::BadOffload`], as [`segment`].
pub fn first_len(bytes: &[u8], headers: &Headers, gso: Gso) -> Result<usize, DropReason> {
    let packet = bytes.get(..headers.packet_len).ok_or(DropReason::BadOffload)?;
    let header_len = header_len(packet, headers, gso.kind).ok_or(DropReason::BadOffload)?;
    if gso.size == 0 || headers.fragment.is_some() {
        return Err(DropReason::BadOffload);
    }
    Ok((header_len + usize::from(gso.size)).min(packet.len()))
}

/// Cuts a super-packet off behind its first segment, in place, and completes that one's checksums. A packet that is no
/// super-packet stays as it is.
///
/// # Errors
/// The packet is unchanged. [`DropReason::BadOffload`], as [`segment`].
pub fn keep_first(packet: &mut PacketBuf<'_>, headers: &Headers) -> Result<(), DropReason> {
    let Some(gso) = packet.offload.gso else { return Ok(()) };
    let len = first_len(packet.bytes(), headers, gso)?;
    packet.set_len(len);
    packet.offload = Offload::default();
    let place = Place { index: 0, start: 0, is_last: len == headers.packet_len };
    finish_ip_header(packet.bytes_mut(), headers, &place);
    finish_transport(packet.bytes_mut(), headers, gso.kind, &place);
    Ok(())
}

/// Which segment of the super-packet this is.
struct Place {
    index: usize,
    /// Offset of its data in the super-packet's.
    start: usize,
    is_last: bool,
}

/// Length of all headers; `None` if the packet is not what `kind` says.
fn header_len(packet: &[u8], headers: &Headers, kind: GsoKind) -> Option<usize> {
    let transport = packet.get(headers.transport..)?;
    let len = match (kind, headers.family, headers.protocol) {
        (GsoKind::TcpV4, AddressFamily::Ipv4, TCP) | (GsoKind::TcpV6, AddressFamily::Ipv6, TCP) => {
            Some(usize::from(transport.get(12)? >> 4) * 4).filter(|len| *len >= 20)?
        }
        (GsoKind::Udp, _, UDP) => 8,
        _ => return None,
    };
    (len <= transport.len()).then_some(headers.transport + len)
}

fn finish_ip_header(segment: &mut [u8], headers: &Headers, place: &Place) {
    let len = segment.len();
    match headers.family {
        AddressFamily::Ipv4 => {
            segment[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            let identification = u16::from_be_bytes([segment[4], segment[5]]).wrapping_add(place.index as u16);
            segment[4..6].copy_from_slice(&identification.to_be_bytes());
            ipv4::recompute_checksum(segment, headers.transport);
        }
        AddressFamily::Ipv6 => segment[4..6].copy_from_slice(&((len - 40) as u16).to_be_bytes()),
    }
}

fn finish_transport(segment: &mut [u8], headers: &Headers, kind: GsoKind, place: &Place) {
    let transport = &mut segment[headers.transport..];
    let len = transport.len() as u16;
    let field = match kind {
        GsoKind::TcpV4 | GsoKind::TcpV6 => {
            let sequence = u32::from_be_bytes([transport[4], transport[5], transport[6], transport[7]]);
            transport[4..8].copy_from_slice(&sequence.wrapping_add(place.start as u32).to_be_bytes());
            if !place.is_last {
                transport[13] &= !(TcpFlags::FIN | TcpFlags::PSH);
            }
            if place.index > 0 {
                transport[13] &= !CWR;
            }
            16
        }
        GsoKind::Udp => {
            transport[4..6].copy_from_slice(&len.to_be_bytes());
            6
        }
    };
    transport[field..field + 2].fill(0);
    let mut checksum = transport_checksum(headers.source, headers.destination, headers.protocol, transport);
    if kind == GsoKind::Udp {
        checksum = sent_checksum(checksum);
    }
    transport[field..field + 2].copy_from_slice(&checksum.to_be_bytes());
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const CWR: u8 = 0x80;
