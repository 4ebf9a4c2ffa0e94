//! How the host's own answers look: resets and echo replies, built in the buffer of the packet they answer.
//! (ICMP errors are [`lvs_core::wire::icmp::make_error`].) Where the buffer is too small, nothing is sent.

use std::net::IpAddr;

use lvs_core::PacketBuf;
use lvs_core::wire::checksum::{checksum, transport_checksum};
use lvs_core::wire::icmp::{ICMP, ICMPV6};
use lvs_core::wire::parse::Headers;
use lvs_core::wire::tcp::TcpFlags;
use lvs_core::wire::{ipv4, ipv6};

use super::{ECHO_REPLY_V4, ECHO_REPLY_V6, TCP};

/// Hop limit of everything the host makes (Linux `ip_default_ttl`).
const HOP_LIMIT: u8 = 64;

/// The two bits of the traffic class that are not DSCP.
const ECN: u8 = 0x03;

const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// The reset for a TCP segment nobody expects, in its place (RFC 9293 §3.10.7.1); `None` for a reset.
/// The segment holds a whole TCP header with a plausible data offset.
pub(super) fn reset(packet: &mut PacketBuf<'_>, headers: &Headers) -> Option<()> {
    let segment = headers.payload(packet.bytes());
    let header = *segment.first_chunk::<20>()?;
    let flags = TcpFlags(header[13]);
    if flags.rst() {
        return None;
    }
    let mut answer = [0; 20];
    answer[0..2].copy_from_slice(&header[2..4]);
    answer[2..4].copy_from_slice(&header[0..2]);
    answer[12] = 5 << 4;
    if flags.ack() {
        answer[4..8].copy_from_slice(&header[8..12]);
        answer[13] = RST;
    } else {
        let data_len = segment.len().checked_sub(usize::from(header[12] >> 4) * 4)?;
        let sequence = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        let controls = u32::from(flags.syn()) + u32::from(flags.fin());
        // At most 64 KiB of data fit an IP packet.
        let acknowledged = sequence.wrapping_add(data_len as u32).wrapping_add(controls);
        answer[8..12].copy_from_slice(&acknowledged.to_be_bytes());
        answer[13] = RST | ACK;
    }
    let checksum = transport_checksum(headers.destination, headers.source, TCP, &answer);
    answer[16..18].copy_from_slice(&checksum.to_be_bytes());
    let header_len = if headers.source.is_ipv4() { ipv4::HEADER_LEN } else { ipv6::HEADER_LEN };
    packet.set_len(header_len + answer.len())?;
    packet.bytes_mut()[header_len..].copy_from_slice(&answer);
    // Nothing of the connection is kept, so no identification is spent: 0 and DF (RFC 6864 §4.1).
    // RFC 3168 §6.1.1: the answer to a segment is not ECN-capable just because the segment was.
    let traffic_class = headers.traffic_class & !ECN;
    write_ip_header(packet, headers, TCP, IpExtras { identification: 0, dont_fragment: true, traffic_class })
}

/// Turns an echo request into its reply (RFC 792, RFC 4443 §4.2). Options and extension headers are left out.
/// The message holds a whole ICMP header.
pub(super) fn echo_reply(packet: &mut PacketBuf<'_>, headers: &Headers, identification: u16) -> Option<()> {
    let is_ipv4 = headers.source.is_ipv4();
    let header_len = if is_ipv4 { ipv4::HEADER_LEN } else { ipv6::HEADER_LEN };
    packet.shrink_front(headers.transport.checked_sub(header_len)?)?;
    let protocol = if is_ipv4 { ICMP } else { ICMPV6 };
    let traffic_class = if is_ipv4 { headers.traffic_class } else { 0 };
    write_ip_header(packet, headers, protocol, IpExtras { identification, dont_fragment: false, traffic_class })?;
    let message = &mut packet.bytes_mut()[header_len..];
    message[0] = if is_ipv4 { ECHO_REPLY_V4 } else { ECHO_REPLY_V6 };
    message[2..4].fill(0);
    let checksum = if is_ipv4 {
        checksum(message)
    } else {
        transport_checksum(headers.destination, headers.source, ICMPV6, message)
    };
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    Some(())
}

/// In what the headers of answers differ. The first two are IPv4's.
struct IpExtras {
    identification: u16,
    dont_fragment: bool,
    traffic_class: u8,
}

/// Writes the IP header, for the packet's whole length, from the destination of `headers` to its source.
fn write_ip_header(packet: &mut PacketBuf<'_>, headers: &Headers, protocol: u8, extras: IpExtras) -> Option<()> {
    let len = packet.len();
    match (headers.destination, headers.source) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let header = ipv4::Header {
                traffic_class: extras.traffic_class,
                total_len: u16::try_from(len).ok()?,
                identification: extras.identification,
                dont_fragment: extras.dont_fragment,
                hop_limit: HOP_LIMIT,
                protocol,
                source,
                destination,
            };
            ipv4::write_header(packet.bytes_mut().first_chunk_mut()?, &header);
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let header = ipv6::Header {
                traffic_class: extras.traffic_class,
                payload_len: u16::try_from(len - ipv6::HEADER_LEN).ok()?,
                next_header: protocol,
                hop_limit: HOP_LIMIT,
                source,
                destination,
            };
            ipv6::write_header(packet.bytes_mut().first_chunk_mut()?, &header);
        }
        _ => return None,
    }
    Some(())
}
