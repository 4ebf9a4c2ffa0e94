//! Cuts super-packets in software, for devices that cannot: one TCP segment or UDP datagram after the other, as the
//! kernel's own segmentation offload would (`tcp_gso_segment`, `udp_gso_segment` by effect). Pure.

use lvs_core::wire::checksum::transport_checksum;
use lvs_core::wire::ipv4;
use lvs_core::wire::parse::{Headers, parse};
use lvs_core::wire::tcp::TcpFlags;
use lvs_core::wire::udp::sent_checksum;
use lvs_core::{AddressFamily, DropReason, Gso, GsoKind};

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
    let packet = &packet[..headers.packet_len];
    let header_len = header_len(packet, &headers, gso.kind).ok_or(DropReason::BadOffload)?;
    let (head, data) = packet.split_at(header_len);
    let size = usize::from(gso.size);
    if size == 0 || headers.fragment.is_some() {
        return Err(DropReason::BadOffload);
    }
    if buffer.len() < header_len + size.min(data.len()) {
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

#[cfg(test)]
mod tests {
    use lvs_testkit::{describe, oracle, tcp, udp};

    use super::*;

    fn segments(packet: &[u8], kind: GsoKind, size: u16) -> Result<Vec<Vec<u8>>, DropReason> {
        let mut all = Vec::new();
        segment(packet, Gso { kind, size, ecn: false }, &mut [0; 2000], |bytes| all.push(bytes.to_vec()))?;
        Ok(all)
    }

    #[test]
    fn flags_stay_on_the_segments_they_belong_to() {
        let flags = TcpFlags::ACK | TcpFlags::PSH | TcpFlags::FIN | CWR;
        let packet = tcp("[2001:db8::7]:1024", "[2001:db8::1]:80").flags(flags).payload_len(25).build();
        let seen: Vec<u8> = segments(&packet, GsoKind::TcpV6, 10).unwrap().iter().map(|bytes| bytes[40 + 13]).collect();
        assert_eq!(seen, [TcpFlags::ACK | CWR, TcpFlags::ACK, TcpFlags::ACK | TcpFlags::PSH | TcpFlags::FIN]);
    }

    #[test]
    fn udp_datagrams_get_lengths_and_checksums_of_their_own() {
        for (source, target) in [("203.0.113.7:1024", "192.0.2.1:53"), ("[2001:db8::7]:1024", "[2001:db8::1]:53")] {
            let packet = udp(source, target).payload_len(25).build();
            let cut = segments(&packet, GsoKind::Udp, 10).unwrap();
            let ip_len = packet.len() - 33;
            let lengths: Vec<usize> = cut.iter().map(|bytes| bytes.len() - ip_len).collect();
            assert_eq!(lengths, [18, 18, 13]);
            for datagram in &cut {
                assert_eq!(oracle::checksum_errors(datagram), [""; 0], "{}", describe(datagram));
                assert_eq!(usize::from(datagram[ip_len + 5]), datagram.len() - ip_len);
            }
            let data: Vec<u8> = cut.iter().flat_map(|bytes| bytes[ip_len + 8..].to_vec()).collect();
            assert_eq!(data, packet[ip_len + 8..]);
        }
    }

    #[test]
    fn a_context_that_contradicts_the_packet_is_refused() {
        let packet = tcp("203.0.113.7:1024", "192.0.2.1:80").payload_len(25).build();
        for (kind, size) in [(GsoKind::Udp, 10), (GsoKind::TcpV6, 10), (GsoKind::TcpV4, 0)] {
            assert_eq!(segments(&packet, kind, size), Err(DropReason::BadOffload), "{kind:?} {size}");
        }
        let longer_than_the_buffer = tcp("203.0.113.7:1024", "192.0.2.1:80").payload_len(3000).build();
        assert_eq!(segments(&longer_than_the_buffer, GsoKind::TcpV4, 2500), Err(DropReason::NoTailroom));
    }
}
