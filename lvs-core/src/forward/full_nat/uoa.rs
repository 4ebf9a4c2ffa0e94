//! UOA: a client's address between the IP and the UDP header of its first datagrams, for servers with a UOA kernel
//! module. Decides whether there is room, puts it in, and makes the packet that carries it where there is none. Its
//! bytes: `client_address.rs`. Which datagrams carry it: `sequence.rs`. Source: the published behaviour of DPVS, its
//! default form.

use alloc::vec::Vec;
use core::net::IpAddr;

use crate::flow::{AddressFamily, Endpoint, Protocol};
use crate::forward::full_nat::client_address::{UOA_OPTION, UOA_PROTOCOL, uoa_header};
use crate::forward::full_nat::segment::move_front;
use crate::forward::{Path, segment_len};
use crate::packet::{ChecksumOffload, HEADROOM, PacketBuf};
use crate::wire::checksum::transport_checksum;
use crate::wire::parse::Headers;
use crate::wire::{ipv4, ipv6, read_u16, udp, write_u16};

/// Whether a datagram can carry its client's address: it stays within the MTU and the buffer, and is whole, one only,
/// and without IPv6 extension headers, behind which servers do not look.
pub(super) fn has_room(packet: &PacketBuf<'_>, headers: &Headers, path: &Path) -> bool {
    let header_growth = path.header_growth(headers);
    let growth = uoa_header(path.client).as_bytes().len().saturating_add_signed(header_growth.max(0));
    let mtu = usize::from(path.mtu).saturating_add_signed(header_growth.saturating_neg());
    let has_extensions = headers.family == AddressFamily::Ipv6 && headers.has_options;
    headers.fragment.is_none()
        && packet.offload.gso.is_none()
        && !has_extensions
        && segment_len(packet, headers) + growth <= mtu
        && growth <= packet.headroom() + packet.tailroom()
}

/// Puts the header before the UDP header at `transport`. A checksum over IPv4 gives way to none, as DPVS does; over
/// IPv6 it holds, because it covers neither this header nor the number the IP header names it by (RFC 8200 §8.1).
pub(super) fn insert(packet: &mut PacketBuf<'_>, family: AddressFamily, transport: usize, header: &[u8]) {
    let count = header.len();
    move_front(packet, transport, 0, count as isize);
    let offload = packet.offload.checksum;
    let bytes = packet.bytes_mut();
    let Some(place) = bytes.get_mut(transport..transport + count) else { return };
    place.copy_from_slice(header);
    let len_field = if family == AddressFamily::Ipv4 { 2 } else { 4 };
    let len = read_u16(bytes, len_field).unwrap_or(0).saturating_add(count as u16);
    write_u16(bytes, len_field, len);
    match family {
        AddressFamily::Ipv4 => {
            bytes[9] = UOA_PROTOCOL;
            ipv4::recompute_checksum(bytes, transport);
            write_u16(bytes, transport + count + udp::CHECKSUM, 0);
            packet.offload.checksum = ChecksumOffload::Full;
        }
        AddressFamily::Ipv6 => {
            bytes[6] = UOA_PROTOCOL;
            if let ChecksumOffload::Partial { start, offset } = offload {
                packet.offload.checksum = ChecksumOffload::Partial { start: start + count as u16, offset };
            }
        }
    }
}

/// The packet that carries the client's address alone, for a datagram that has no room: a UDP header without payload,
/// of the datagram's ends, hop limit and traffic class. With [`HEADROOM`] before it. `None` if the path has no such
/// ends.
pub(crate) fn alone(headers: &Headers, path: &Path) -> Option<Vec<u8>> {
    let (local, real) = (path.full_nat.local?, path.real);
    let header = uoa_header(path.client);
    let header = header.as_bytes();
    let payload_len = (header.len() + udp::HEADER_LEN) as u16;
    let hop_limit = headers.hop_limit.saturating_sub(1);
    let mut storage = alloc::vec![0; HEADROOM];
    match (local.address, real.address) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut bytes = [0; ipv4::HEADER_LEN];
            let fields = ipv4::Header {
                traffic_class: headers.traffic_class,
                total_len: ipv4::HEADER_LEN as u16 + payload_len,
                identification: path.identification as u16,
                dont_fragment: true,
                hop_limit,
                protocol: UOA_PROTOCOL,
                source,
                destination,
            };
            ipv4::write_header(&mut bytes, &fields);
            storage.extend_from_slice(&bytes);
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut bytes = [0; ipv6::HEADER_LEN];
            let traffic_class = headers.traffic_class;
            let next_header = UOA_PROTOCOL;
            let fields = ipv6::Header { traffic_class, payload_len, next_header, hop_limit, source, destination };
            ipv6::write_header(&mut bytes, &fields);
            storage.extend_from_slice(&bytes);
        }
        _ => return None,
    }
    storage.extend_from_slice(header);
    storage.extend_from_slice(&empty_datagram(local, real));
    Some(storage)
}

/// A UDP header with nothing behind it; over IPv6, which asks for one, with a checksum.
fn empty_datagram(source: Endpoint, destination: Endpoint) -> [u8; udp::HEADER_LEN] {
    let mut datagram = [0; udp::HEADER_LEN];
    udp::write_header(&mut datagram, source.port, destination.port, udp::HEADER_LEN as u16);
    if !source.address.is_ipv4() {
        let udp = Protocol::Udp.number();
        let checksum = transport_checksum(source.address, destination.address, udp, &datagram);
        write_u16(&mut datagram, udp::CHECKSUM, udp::sent_checksum(checksum));
    }
    datagram
}

/// Blanks what a client says of its own address: in IPv4, the other form of UOA is an option of this kind. Whatever the
/// service tells its servers itself: one with a UOA module believes who says it.
pub(super) fn blank_spoofed(packet: &mut PacketBuf<'_>, headers: &Headers) {
    let may_carry = headers.protocol == Protocol::Udp.number() && headers.family == AddressFamily::Ipv4;
    if may_carry && headers.has_options {
        ipv4::blank_option(packet.bytes_mut(), headers.transport, UOA_OPTION);
    }
}
