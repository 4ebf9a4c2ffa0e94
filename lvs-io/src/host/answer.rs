//! How the host's answers look: reset, ICMP error, echo reply. Each is built in the buffer of the packet it answers;
//! where the buffer is too small for it, nothing is sent.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lvs_core::PacketBuf;

use crate::checksum::{pseudo_header, sum};

/// Hop limit of everything the host makes (Linux `ip_default_ttl`).
const HOP_LIMIT: u8 = 64;

const TCP: u8 = 6;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// An ICMP or ICMPv6 error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct IcmpError {
    pub kind: u8,
    pub code: u8,
    /// The 32 bits after the checksum: MTU or pointer.
    pub information: u32,
}

impl IcmpError {
    // RFC 792.
    pub const PROTOCOL_UNREACHABLE: Self = Self { kind: 3, code: 2, information: 0 };
    pub const PORT_UNREACHABLE: Self = Self { kind: 3, code: 3, information: 0 };
    pub const TIME_EXCEEDED: Self = Self { kind: 11, code: 0, information: 0 };
    // RFC 4443.
    pub const PORT_UNREACHABLE_V6: Self = Self { kind: 1, code: 4, information: 0 };
    pub const TIME_EXCEEDED_V6: Self = Self { kind: 3, code: 0, information: 0 };

    /// RFC 1191 §4.
    pub const fn fragmentation_needed(mtu: u16) -> Self {
        Self { kind: 3, code: 4, information: mtu as u32 }
    }

    /// RFC 4443 §3.2.
    pub const fn packet_too_big(mtu: u16) -> Self {
        Self { kind: 2, code: 0, information: mtu as u32 }
    }

    /// RFC 4443 §3.4: `pointer` is the offset of the field that names the header.
    pub const fn unknown_next_header(pointer: u32) -> Self {
        Self { kind: 4, code: 1, information: pointer }
    }
}

/// Where the parts of a packet are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub source: IpAddr,
    pub target: IpAddr,
    /// Offset of the transport header.
    pub transport: usize,
}

/// The reset for a TCP segment nobody expects, in its place (RFC 9293 §3.10.7.1); `None` for a reset.
/// `packet` holds a whole TCP header with a plausible data offset.
pub(super) fn reset(packet: &mut PacketBuf<'_>, layout: Layout) -> Option<()> {
    let segment = packet.bytes().get(layout.transport..)?;
    let header = *segment.first_chunk::<20>()?;
    let flags = header[13];
    if flags & RST != 0 {
        return None;
    }
    let data_len = segment.len().checked_sub(usize::from(header[12] >> 4) * 4)?;
    let sequence = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    let mut answer = [0; 20];
    answer[0..2].copy_from_slice(&header[2..4]);
    answer[2..4].copy_from_slice(&header[0..2]);
    answer[12] = 5 << 4;
    if flags & ACK != 0 {
        answer[4..8].copy_from_slice(&header[8..12]);
        answer[13] = RST;
    } else {
        let controls = u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
        // At most 64 KiB of data fit an IP packet.
        let acknowledged = sequence.wrapping_add(data_len as u32).wrapping_add(controls);
        answer[8..12].copy_from_slice(&acknowledged.to_be_bytes());
        answer[13] = RST | ACK;
    }
    let seed = pseudo_header(layout.target, layout.source, TCP, answer.len());
    let checksum = !sum(seed, &answer);
    answer[16..18].copy_from_slice(&checksum.to_be_bytes());
    match (layout.source, layout.target) {
        (IpAddr::V4(source), IpAddr::V4(target)) => {
            let service = packet.bytes()[1];
            packet.set_len(IPV4_LEN + answer.len())?;
            // Nothing of the connection is kept, so no identification is spent: 0 and DF (RFC 6864 §4.1).
            let header = Ipv4Header { service, identification: 0, dont_fragment: true, protocol: TCP };
            header.write(packet, target, source);
            packet.bytes_mut()[IPV4_LEN..].copy_from_slice(&answer);
        }
        (IpAddr::V6(source), IpAddr::V6(target)) => {
            packet.set_len(IPV6_LEN + answer.len())?;
            write_ipv6(packet, TCP, target, source);
            packet.bytes_mut()[IPV6_LEN..].copy_from_slice(&answer);
        }
        _ => return None,
    }
    Some(())
}

/// Puts an ICMP error before the packet, which becomes its quotation (RFC 1812 §4.3.2.3: as much as fits 576 bytes).
pub(super) fn icmp_error(
    packet: &mut PacketBuf<'_>,
    error: IcmpError,
    identification: u16,
    sender: Ipv4Addr,
    receiver: Ipv4Addr,
) -> Option<()> {
    // RFC 1812 §4.3.2.5: the type of service of the quoted packet (RFC 1349: four bits), precedence 6.
    let service = (packet.bytes()[1] & 0x1e) | 0xc0;
    packet.grow_front(IPV4_LEN + ICMP_LEN)?;
    let len = packet.len().min(576);
    packet.set_len(len)?;
    Ipv4Header { service, identification, dont_fragment: false, protocol: ICMP }.write(packet, sender, receiver);
    write_icmp(&mut packet.bytes_mut()[IPV4_LEN..], error, 0);
    Some(())
}

/// Puts an ICMPv6 error before the packet, which becomes its quotation (RFC 4443 §2.4(c): as much as fits 1280 bytes).
pub(super) fn icmpv6_error(
    packet: &mut PacketBuf<'_>,
    error: IcmpError,
    sender: Ipv6Addr,
    receiver: Ipv6Addr,
) -> Option<()> {
    packet.grow_front(IPV6_LEN + ICMP_LEN)?;
    let len = packet.len().min(1280);
    packet.set_len(len)?;
    write_ipv6(packet, ICMPV6, sender, receiver);
    let seed = pseudo_header(sender.into(), receiver.into(), ICMPV6, len - IPV6_LEN);
    write_icmp(&mut packet.bytes_mut()[IPV6_LEN..], error, seed);
    Some(())
}

/// Turns an echo request into its reply (RFC 792; RFC 4443 §4.2). Extension headers and options are left out.
/// `packet` holds a whole ICMP header.
pub(super) fn echo_reply(packet: &mut PacketBuf<'_>, layout: Layout, identification: u16) -> Option<()> {
    let service = packet.bytes()[1];
    let header_len = if layout.target.is_ipv4() { IPV4_LEN } else { IPV6_LEN };
    packet.shrink_front(layout.transport.checked_sub(header_len)?)?;
    let message_len = packet.len() - header_len;
    let seed = match (layout.source, layout.target) {
        (IpAddr::V4(source), IpAddr::V4(target)) => {
            Ipv4Header { service, identification, dont_fragment: false, protocol: ICMP }.write(packet, target, source);
            packet.bytes_mut()[IPV4_LEN] = 0;
            0
        }
        (IpAddr::V6(source), IpAddr::V6(target)) => {
            write_ipv6(packet, ICMPV6, target, source);
            packet.bytes_mut()[IPV6_LEN] = 129;
            pseudo_header(layout.target, layout.source, ICMPV6, message_len)
        }
        _ => return None,
    };
    let message = &mut packet.bytes_mut()[header_len..];
    message[2..4].fill(0);
    let checksum = !sum(seed, message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    Some(())
}

fn write_icmp(message: &mut [u8], error: IcmpError, seed: u16) {
    message[0] = error.kind;
    message[1] = error.code;
    message[2..4].fill(0);
    message[4..8].copy_from_slice(&error.information.to_be_bytes());
    let checksum = !sum(seed, message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
}

/// The fields of an IPv4 header that differ between the host's answers.
struct Ipv4Header {
    service: u8,
    identification: u16,
    dont_fragment: bool,
    protocol: u8,
}

impl Ipv4Header {
    /// Writes the first 20 bytes of the packet, for its whole length.
    fn write(self, packet: &mut PacketBuf<'_>, source: Ipv4Addr, target: Ipv4Addr) {
        let len = u16::try_from(packet.len()).unwrap_or(u16::MAX);
        let mut header = [0; IPV4_LEN];
        header[0] = 0x45;
        header[1] = self.service;
        header[2..4].copy_from_slice(&len.to_be_bytes());
        header[4..6].copy_from_slice(&self.identification.to_be_bytes());
        header[6] = if self.dont_fragment { 0x40 } else { 0 };
        header[8] = HOP_LIMIT;
        header[9] = self.protocol;
        header[12..16].copy_from_slice(&source.octets());
        header[16..20].copy_from_slice(&target.octets());
        let checksum = !sum(0, &header);
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        packet.bytes_mut()[..IPV4_LEN].copy_from_slice(&header);
    }
}

/// Writes the first 40 bytes of the packet, for its whole length: traffic class and flow label 0.
fn write_ipv6(packet: &mut PacketBuf<'_>, next_header: u8, source: Ipv6Addr, target: Ipv6Addr) {
    let payload_len = u16::try_from(packet.len() - IPV6_LEN).unwrap_or(u16::MAX);
    let header = &mut packet.bytes_mut()[..IPV6_LEN];
    header[..4].copy_from_slice(&[0x60, 0, 0, 0]);
    header[4..6].copy_from_slice(&payload_len.to_be_bytes());
    header[6] = next_header;
    header[7] = HOP_LIMIT;
    header[8..24].copy_from_slice(&source.octets());
    header[24..40].copy_from_slice(&target.octets());
}

const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
const ICMP_LEN: usize = 8;
