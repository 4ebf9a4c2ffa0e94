//! The IPv4 header (RFC 791): setters that keep its checksum right, and the header of packets we make ourselves.

use core::net::{IpAddr, Ipv4Addr};

use crate::wire::checksum::{Delta, checksum};
use crate::wire::parse::Headers;
use crate::wire::write_u16;

/// Length of the header without options, in bytes.
pub const HEADER_LEN: usize = 20;

/// Offset of the header checksum.
pub const CHECKSUM: usize = 10;

/// End of the options.
pub const OPTION_END: u8 = 0;
/// No operation: padding between options.
pub const OPTION_NOP: u8 = 1;
/// Record route.
pub const OPTION_RECORD_ROUTE: u8 = 7;
/// Loose source and record route.
pub const OPTION_LOOSE_SOURCE_ROUTE: u8 = 131;
/// Strict source and record route.
pub const OPTION_STRICT_SOURCE_ROUTE: u8 = 137;

/// The header of a packet the director makes: an ICMP error, or the outside of a tunnel. No options, no fragment.
///
/// ```
/// use lvs_core::wire::{checksum, ipv4};
/// let mut bytes = [0; ipv4::HEADER_LEN];
/// ipv4::write_header(&mut bytes, &ipv4::Header {
///     traffic_class: 0xc0,
///     total_len: 56,
///     identification: 7,
///     dont_fragment: false,
///     hop_limit: 64,
///     protocol: 1,
///     source: [192, 0, 2, 1].into(),
///     destination: [203, 0, 113, 7].into(),
/// });
/// assert_eq!(bytes[..4], [0x45, 0xc0, 0, 56]);
/// assert_eq!(checksum::sum(&bytes), 0xffff);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// DSCP and ECN (TOS).
    pub traffic_class: u8,
    /// Length of the whole packet in bytes, this header included.
    pub total_len: u16,
    /// Identification.
    pub identification: u16,
    /// Whether routers may not fragment the packet.
    pub dont_fragment: bool,
    /// Time to live.
    pub hop_limit: u8,
    /// IANA number of what follows.
    pub protocol: u8,
    /// Source address.
    pub source: Ipv4Addr,
    /// Destination address.
    pub destination: Ipv4Addr,
}

/// Writes a header, checksum included.
#[inline]
pub fn write_header(bytes: &mut [u8; HEADER_LEN], header: &Header) {
    bytes[0] = 0x45;
    bytes[1] = header.traffic_class;
    bytes[2..4].copy_from_slice(&header.total_len.to_be_bytes());
    bytes[4..6].copy_from_slice(&header.identification.to_be_bytes());
    bytes[6..8].copy_from_slice(&if header.dont_fragment { [0x40, 0] } else { [0, 0] });
    bytes[8] = header.hop_limit;
    bytes[9] = header.protocol;
    bytes[10..12].fill(0);
    bytes[12..16].copy_from_slice(&header.source.octets());
    bytes[16..20].copy_from_slice(&header.destination.octets());
    let checksum = checksum(bytes);
    bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
}

/// Replaces both addresses and updates the header checksum (RFC 1624).
pub fn set_addresses(header: &mut [u8; HEADER_LEN], source: Ipv4Addr, destination: Ipv4Addr) {
    let [.., a, b, c, d, e, f, g, h] = *header;
    let mut delta = Delta::new();
    delta.replace_bytes([a, b, c, d], source.octets());
    delta.replace_bytes([e, f, g, h], destination.octets());
    header[12..16].copy_from_slice(&source.octets());
    header[16..20].copy_from_slice(&destination.octets());
    update_checksum(header, delta);
}

/// Takes one from the TTL, not below zero, and updates the header checksum.
#[inline]
pub fn decrement_ttl(header: &mut [u8; HEADER_LEN]) {
    let before = u16::from_be_bytes([header[8], header[9]]);
    header[8] = header[8].saturating_sub(1);
    let mut delta = Delta::new();
    delta.replace_u16(before, u16::from_be_bytes([header[8], header[9]]));
    update_checksum(header, delta);
}

/// Recomputes the checksum of a header of `header_len` bytes at the start of `bytes`, right or wrong as it was.
pub fn recompute_checksum(bytes: &mut [u8], header_len: usize) {
    write_u16(bytes, CHECKSUM, 0);
    let checksum = checksum(bytes.get(..header_len).unwrap_or(bytes));
    write_u16(bytes, CHECKSUM, checksum);
}

/// Writes `address` into the next free place of the packet's record-route option and updates the header checksum.
/// Nothing happens if there is no such option or it is full.
///
/// Linux records the virtual address on requests, and on replies the address the packet is sent from, which after
/// translation is the virtual address again.
#[inline]
pub fn fill_record_route(bytes: &mut [u8], headers: &Headers, address: IpAddr) {
    let (Some(option), IpAddr::V4(address)) = (headers.record_route, address) else { return };
    let Some(&[_, len, pointer]) = bytes.get(option..).and_then(|rest| rest.first_chunk()) else { return };
    // RFC 791 §3.1: the pointer counts from 1, at the option's type; below 4 it would point at itself.
    let place = option + usize::from(pointer.max(4)) - 1;
    if pointer < 4 || usize::from(pointer) + 3 > usize::from(len) || bytes.len() < place + 4 {
        return;
    }
    bytes[option + 2] = pointer + 4;
    bytes[place..place + 4].copy_from_slice(&address.octets());
    recompute_checksum(bytes, headers.transport);
}

/// Replaces every option of this kind by no-operations and updates the header checksum. `header_len` is the header's
/// length, options included; those of a parsed packet are not broken, and broken ones stay.
pub(crate) fn blank_option(bytes: &mut [u8], header_len: usize, kind: u8) {
    let Some(options) = bytes.get_mut(HEADER_LEN..header_len) else { return };
    let (mut at, mut is_blanked) = (0, false);
    while let Some(&found) = options.get(at) {
        let len = match found {
            OPTION_END => break,
            OPTION_NOP => 1,
            _ => options.get(at + 1).map_or(0, |len| usize::from(*len)),
        };
        let Some(option) = options.get_mut(at..at + len).filter(|option| !option.is_empty()) else { break };
        if found == kind {
            option.fill(OPTION_NOP);
            is_blanked = true;
        }
        at += len;
    }
    if is_blanked {
        recompute_checksum(bytes, header_len);
    }
}

/// Updates the header checksum for what `delta` gathered.
#[inline]
pub(crate) fn update_checksum(header: &mut [u8; HEADER_LEN], delta: Delta) {
    let field = u16::from_be_bytes([header[CHECKSUM], header[CHECKSUM + 1]]);
    header[CHECKSUM..CHECKSUM + 2].copy_from_slice(&delta.apply(field).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::parse::parse;

    /// Golden `nat_ipopts`, step 4: 203.0.113.58:50728 > 10.60.122.39:8080 with an empty record route.
    const RECORD_ROUTE: [u8; 44] = [
        0x48, 0x00, 0x00, 0x2c, 0x12, 0x34, 0x00, 0x00, 0x40, 0x11, 0x99, 0xe4, 0xcb, 0x00, 0x71, 0x3a, 0x0a, 0x3c,
        0x7a, 0x27, 0x07, 0x0b, 0x04, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xc6, 0x28, 0x1f, 0x90,
        0x00, 0x0c, 0x75, 0x9b, 0x6f, 0x70, 0x74, 0x73,
    ];

    const VIRTUAL: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 60, 122, 39));

    #[test]
    fn a_record_route_gets_the_address_and_the_checksum_linux_gives_it() {
        let mut packet = RECORD_ROUTE;
        let headers = parse(&packet).unwrap();
        fill_record_route(&mut packet, &headers, VIRTUAL);
        let header: &mut [u8; HEADER_LEN] = packet.first_chunk_mut().unwrap();
        set_addresses(header, Ipv4Addr::new(203, 0, 113, 58), Ipv4Addr::new(10, 1, 100, 136));
        decrement_ttl(header);
        let expected = [
            0x48, 0x00, 0x00, 0x2c, 0x12, 0x34, 0x00, 0x00, 0x3f, 0x11, 0x49, 0x3a, 0xcb, 0x00, 0x71, 0x3a, 0x0a, 0x01,
            0x64, 0x88, 0x07, 0x0b, 0x08, 0x0a, 0x3c, 0x7a, 0x27, 0x00, 0x00, 0x00, 0x00, 0x00,
        ];
        assert_eq!(packet[..32], expected);
    }

    #[test]
    fn a_full_record_route_stays_as_it_is() {
        let mut packet = RECORD_ROUTE;
        packet[22] = 12;
        recompute_checksum(&mut packet, 32);
        let before = packet;
        let headers = parse(&packet).unwrap();
        fill_record_route(&mut packet, &headers, VIRTUAL);
        assert_eq!(packet, before);
    }

    #[test]
    fn a_ttl_of_zero_stays_zero() {
        let mut header = [0u8; HEADER_LEN];
        header[0] = 0x45;
        decrement_ttl(&mut header);
        assert_eq!(header[8], 0);
    }
}
