//! Changes inside a TCP segment that a router never makes: numbers, SACK edges, and text of another length. Checksums
//! and the IP header's length follow. Decides nothing; who asks has checked that what he asks for can be done.
//! RFC 9293 §3.1, RFC 2018 §3.

use core::ops::Range;

use crate::wire::checksum::{self, Delta};
use crate::wire::parse::Headers;
use crate::wire::tcp::{self, TcpFlags};
use crate::wire::{ipv6, read_u16, write_u16};
use crate::{AddressFamily, ChecksumOffload, PacketBuf, Protocol};

/// Where the payload of a whole TCP segment is in its packet; `None` if its header is cut off or says it is longer than
/// the packet.
pub(crate) fn payload(bytes: &[u8], headers: &Headers) -> Option<Range<usize>> {
    let start = headers.transport + header_len(bytes, headers)?;
    (start <= headers.packet_len).then_some(start..headers.packet_len)
}

/// Sequence and acknowledgement number; the latter only if the ACK flag is set.
pub(crate) fn numbers(bytes: &[u8], headers: &Headers) -> Option<(u32, Option<u32>)> {
    let header: &[u8; tcp::HEADER_LEN] = headers.transport_header(bytes)?;
    let [_, _, _, _, a, b, c, d, e, f, g, h, _, flags, ..] = *header;
    let acknowledgement = TcpFlags(flags).ack().then_some(u32::from_be_bytes([e, f, g, h]));
    Some((u32::from_be_bytes([a, b, c, d]), acknowledgement))
}

/// Whether the checksum of a whole segment is right, or is left to the device.
pub(crate) fn checksum_is_valid(packet: &PacketBuf<'_>, headers: &Headers) -> bool {
    let segment = headers.payload(packet.bytes());
    let is_left_to_device = packet.offload.checksum != ChecksumOffload::Full;
    is_left_to_device
        || checksum::transport_checksum(headers.source, headers.destination, Protocol::Tcp.number(), segment) == 0
}

/// Writes new numbers: `sent` is applied to the segment's own, `acknowledged` to the acknowledgement number and,
/// because they count the same bytes, to the edges of SACK blocks.
pub(crate) fn renumber(
    packet: &mut PacketBuf<'_>,
    headers: &Headers,
    sent: impl Fn(u32) -> u32,
    acknowledged: impl Fn(u32) -> u32,
) {
    let Some((sequence, acknowledgement)) = numbers(packet.bytes(), headers) else { return };
    let mut delta = Delta::new();
    let options = options(packet.bytes(), headers);
    let bytes = packet.bytes_mut();
    write_number(bytes, headers.transport + SEQUENCE, sent(sequence), &mut delta);
    if let Some(number) = acknowledgement {
        write_number(bytes, headers.transport + ACKNOWLEDGEMENT, acknowledged(number), &mut delta);
        for edge in sack_edges(bytes, options) {
            let number = read_u32(bytes, edge);
            write_number(bytes, edge, acknowledged(number), &mut delta);
        }
    }
    let field = headers.transport + tcp::CHECKSUM;
    // What is left to the device will be summed by it, these fields included.
    if let (Some(before), ChecksumOffload::Full) = (read_u16(bytes, field), packet.offload.checksum) {
        write_u16(packet.bytes_mut(), field, delta.apply(before));
    }
}

/// Whether there is room to make the packet this much longer, at either end, and its IP header can say so.
pub(crate) fn has_room(packet: &PacketBuf<'_>, headers: &Headers, growth: usize) -> bool {
    let tailroom = packet.tailroom() + (packet.len() - headers.packet_len);
    let fits = headers.packet_len + growth <= usize::from(u16::MAX);
    fits && (growth <= tailroom || growth <= packet.headroom())
}

/// Replaces `range` of the packet's bytes, which lies in the payload, by `text`; returns the headers of the changed
/// packet. `None`, and no change, if there is no room ([`has_room`]).
pub(crate) fn replace(
    packet: &mut PacketBuf<'_>,
    headers: &Headers,
    range: Range<usize>,
    text: &[u8],
) -> Option<Headers> {
    let len = headers.packet_len - range.len() + text.len();
    packet.set_len(headers.packet_len)?;
    match len.checked_sub(headers.packet_len) {
        Some(growth) if growth > packet.tailroom() => {
            packet.grow_front(growth)?;
            packet.bytes_mut().copy_within(growth..growth + range.start, 0);
        }
        Some(_) => {
            packet.set_len(len)?;
            packet.bytes_mut().copy_within(range.end..headers.packet_len, range.start + text.len());
        }
        None => {
            packet.bytes_mut().copy_within(range.end..headers.packet_len, range.start + text.len());
            packet.set_len(len)?;
        }
    }
    packet.bytes_mut()[range.start..range.start + text.len()].copy_from_slice(text);
    let headers = Headers { packet_len: len, ..*headers };
    write_len(packet.bytes_mut(), &headers);
    write_checksum(packet, &headers);
    Some(headers)
}

/// Writes the packet's length into its IP header.
fn write_len(bytes: &mut [u8], headers: &Headers) {
    let (field, len) = match headers.family {
        AddressFamily::Ipv4 => (IPV4_LEN, headers.packet_len),
        AddressFamily::Ipv6 => (IPV6_LEN, headers.packet_len - ipv6::HEADER_LEN),
    };
    let (before, len) = (read_u16(bytes, field).unwrap_or(0), len as u16);
    write_u16(bytes, field, len);
    if headers.family == AddressFamily::Ipv4 {
        let mut delta = Delta::new();
        delta.replace_u16(before, len);
        let checksum = read_u16(bytes, IPV4_CHECKSUM).unwrap_or(0);
        write_u16(bytes, IPV4_CHECKSUM, delta.apply(checksum));
    }
}

/// Computes the TCP checksum anew: behind text of another length nothing stays in its place.
fn write_checksum(packet: &mut PacketBuf<'_>, headers: &Headers) {
    let field = headers.transport + tcp::CHECKSUM;
    let (source, destination, tcp) = (headers.source, headers.destination, Protocol::Tcp.number());
    let checksum = if packet.offload.checksum == ChecksumOffload::Full {
        write_u16(packet.bytes_mut(), field, 0);
        checksum::transport_checksum(source, destination, tcp, headers.payload(packet.bytes()))
    } else {
        let len = headers.packet_len - headers.transport;
        checksum::fold(checksum::pseudo_header_sum(source, destination, tcp, len))
    };
    write_u16(packet.bytes_mut(), field, checksum);
}

fn header_len(bytes: &[u8], headers: &Headers) -> Option<usize> {
    let header: &[u8; tcp::HEADER_LEN] = headers.transport_header(bytes)?;
    Some(usize::from(header[12] >> 4) * 4).filter(|len| *len >= tcp::HEADER_LEN)
}

/// Where the options are, as far as they are there.
fn options(bytes: &[u8], headers: &Headers) -> Range<usize> {
    let start = headers.transport + tcp::HEADER_LEN;
    let end = headers.transport + header_len(bytes, headers).unwrap_or(0);
    start..end.clamp(start, headers.packet_len.max(start))
}

/// Offsets of the numbers in SACK options (RFC 2018 §3: kind 5, then pairs of edges).
fn sack_edges(bytes: &[u8], options: Range<usize>) -> impl Iterator<Item = usize> + use<> {
    // A header has room for four blocks: eight edges.
    let (mut edges, mut count) = ([0; 8], 0);
    let mut offset = options.start;
    while offset + 1 < options.end {
        let len = match bytes[offset] {
            OPTION_END => break,
            OPTION_NOP => 1,
            _ => usize::from(bytes[offset + 1]),
        };
        if len == 0 || offset + len > options.end || (len == 1 && bytes[offset] != OPTION_NOP) {
            break;
        }
        if bytes[offset] == OPTION_SACK {
            for edge in (offset + 2..offset + len).step_by(4).filter(|edge| edge + 4 <= offset + len).take(8 - count) {
                edges[count] = edge;
                count += 1;
            }
        }
        offset += len;
    }
    edges.into_iter().take(count)
}

/// Replaces a number at any offset: one at an odd offset lies across the words that are summed.
fn write_number(bytes: &mut [u8], offset: usize, number: u32, delta: &mut Delta) {
    let (start, end) = (offset & !1, (offset + 5) & !1);
    let words = |bytes: &[u8]| [0, 2, 4].map(|word| read_u16(bytes, start + word).filter(|_| start + word < end));
    let before = words(bytes);
    if let Some(field) = bytes.get_mut(offset..offset + 4) {
        field.copy_from_slice(&number.to_be_bytes());
    }
    for (old, new) in before.into_iter().zip(words(bytes)) {
        if let (Some(old), Some(new)) = (old, new) {
            delta.replace_u16(old, new);
        }
    }
}

fn read_u32(bytes: &[u8], offset: usize) -> u32 {
    bytes.get(offset..).and_then(|rest| rest.first_chunk()).map_or(0, |number| u32::from_be_bytes(*number))
}

const SEQUENCE: usize = 4;
const ACKNOWLEDGEMENT: usize = 8;
const IPV4_LEN: usize = 2;
const IPV4_CHECKSUM: usize = 10;
const IPV6_LEN: usize = 4;
const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_SACK: u8 = 5;
