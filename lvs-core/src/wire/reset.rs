//! TCP resets (RFC 9293 §3.5.2), made of a segment in its own buffer: the answer to it, or in its place. And the probe
//! that makes a silent peer send such a segment.
//! Both carry exactly the sequence number their receiver expects next, as far as one segment tells, so that it need not
//! ask back (RFC 5961 §3.2). Who is to be reset is not decided here.

use core::net::IpAddr;

use crate::flow::Endpoint;
use crate::wire::parse::Headers;
use crate::wire::tcp::{CHECKSUM, HEADER_LEN, TcpFlags};
use crate::wire::{checksum, ipv4, ipv6};
use crate::{DropReason, Offload, PacketBuf, Protocol};

/// Turns the segment into the RST that answers it, from its destination to its source (RFC 9293 §3.10.7.1).
///
/// The packet becomes 40 or 60 bytes long, without options, TTL 64, DF set, and leaves with a default offload context.
///
/// # Errors
/// The packet is unchanged. [`DropReason::TruncatedTransport`]: no whole TCP header.
/// [`DropReason::NotForwardable`]: no TCP segment, or a RST itself, which is never answered.
pub fn answer(packet: &mut PacketBuf<'_>, headers: &Headers) -> Result<(), DropReason> {
    let segment = Segment::read(packet.bytes(), headers)?;
    if segment.flags.rst() {
        return Err(DropReason::NotForwardable);
    }
    let reset = match segment.flags.ack() {
        true => Reset { sequence: segment.acknowledgment, acknowledgment: 0, flags: TcpFlags::RST },
        false => {
            let acknowledgment = segment.sequence.wrapping_add(segment.len);
            Reset { sequence: 0, acknowledgment, flags: TcpFlags::RST | TcpFlags::ACK }
        }
    };
    write(packet, segment.target, segment.source, &reset);
    Ok(())
}

/// Turns the segment into a RST with the segment's own number that goes in its place, to its destination.
/// Length, options, TTL and errors are those of [`answer`].
///
/// # Errors
/// As [`answer`].
pub fn replace(packet: &mut PacketBuf<'_>, headers: &Headers) -> Result<(), DropReason> {
    let segment = Segment::read(packet.bytes(), headers)?;
    if segment.flags.rst() {
        return Err(DropReason::NotForwardable);
    }
    let ack = segment.flags.0 & TcpFlags::ACK;
    let acknowledgment = if ack == 0 { 0 } else { segment.acknowledgment };
    let reset = Reset { sequence: segment.sequence, acknowledgment, flags: TcpFlags::RST | ack };
    write(packet, segment.source, segment.target, &reset);
    Ok(())
}

/// Longest of these packets: IPv6.
pub(crate) const LEN_MAX: usize = ipv6::HEADER_LEN + HEADER_LEN;

/// Writes an empty acknowledgment with `number` for both its numbers into a packet that is at least [`LEN_MAX`] long. A
/// peer that did not expect it answers with its own numbers (RFC 9293 §3.10.7.4). Both endpoints are of one family.
pub(crate) fn write_probe(packet: &mut PacketBuf<'_>, source: Endpoint, target: Endpoint, number: u32) {
    write(packet, source, target, &Reset { sequence: number, acknowledgment: number, flags: TcpFlags::ACK });
}

/// What a reset needs to know of a segment.
struct Segment {
    source: Endpoint,
    target: Endpoint,
    sequence: u32,
    acknowledgment: u32,
    flags: TcpFlags,
    /// Sequence numbers it takes up: its payload, SYN and FIN.
    len: u32,
}

impl Segment {
    fn read(bytes: &[u8], headers: &Headers) -> Result<Self, DropReason> {
        if headers.protocol != Protocol::Tcp.number() {
            return Err(DropReason::NotForwardable);
        }
        let truncated = DropReason::TruncatedTransport;
        let (source_port, target_port) = headers.ports(bytes).ok_or(truncated)?;
        let header: &[u8; HEADER_LEN] = headers.transport_header(bytes).ok_or(truncated)?;
        let [_, _, _, _, s0, s1, s2, s3, a0, a1, a2, a3, offset, flags, ..] = *header;
        let flags = TcpFlags(flags);
        let payload_len = headers.packet_len.saturating_sub(headers.transport + usize::from(offset >> 4) * 4);
        Ok(Self {
            source: Endpoint::new(headers.source, source_port),
            target: Endpoint::new(headers.destination, target_port),
            sequence: u32::from_be_bytes([s0, s1, s2, s3]),
            acknowledgment: u32::from_be_bytes([a0, a1, a2, a3]),
            flags,
            len: payload_len as u32 + u32::from(flags.syn()) + u32::from(flags.fin()),
        })
    }
}

struct Reset {
    sequence: u32,
    acknowledgment: u32,
    flags: u8,
}

/// Writes the whole packet. It is never longer than the segment it is made of.
fn write(packet: &mut PacketBuf<'_>, source: Endpoint, target: Endpoint, reset: &Reset) {
    let mut segment = [0; HEADER_LEN];
    segment[..2].copy_from_slice(&source.port.to_be_bytes());
    segment[2..4].copy_from_slice(&target.port.to_be_bytes());
    segment[4..8].copy_from_slice(&reset.sequence.to_be_bytes());
    segment[8..12].copy_from_slice(&reset.acknowledgment.to_be_bytes());
    segment[12] = 5 << 4; // header length in words; the window of a RST means nothing
    segment[13] = reset.flags;
    let sum = checksum::transport_checksum(source.address, target.address, Protocol::Tcp.number(), &segment);
    segment[CHECKSUM..CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());

    let ip_len = if source.address.is_ipv4() { ipv4::HEADER_LEN } else { ipv6::HEADER_LEN };
    packet.set_len(ip_len + HEADER_LEN).expect("a segment is at least as long as a RST");
    packet.offload = Offload::default();
    let bytes = packet.bytes_mut();
    bytes[ip_len..].copy_from_slice(&segment);
    match (source.address, target.address) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let header = ipv4::Header {
                traffic_class: 0,
                total_len: (ipv4::HEADER_LEN + HEADER_LEN) as u16,
                identification: 0,
                dont_fragment: true,
                hop_limit: HOP_LIMIT,
                protocol: Protocol::Tcp.number(),
                source,
                destination,
            };
            bytes.first_chunk_mut().into_iter().for_each(|bytes| ipv4::write_header(bytes, &header));
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let header = ipv6::Header {
                traffic_class: 0,
                payload_len: HEADER_LEN as u16,
                next_header: Protocol::Tcp.number(),
                hop_limit: HOP_LIMIT,
                source,
                destination,
            };
            bytes.first_chunk_mut().into_iter().for_each(|bytes| ipv6::write_header(bytes, &header));
        }
        _ => unreachable!("both addresses come from one header"),
    }
}

const HOP_LIMIT: u8 = 64;
