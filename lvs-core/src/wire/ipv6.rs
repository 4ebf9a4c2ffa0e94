//! The IPv6 header (RFC 8200): setters, which extension headers there are, and the header of packets we make ourselves.

use core::net::Ipv6Addr;

/// Length of the fixed header, in bytes.
pub const HEADER_LEN: usize = 40;

/// Next header: hop-by-hop options.
pub const HOP_BY_HOP: u8 = 0;
/// Next header: routing.
pub const ROUTING: u8 = 43;
/// Next header: fragment.
pub const FRAGMENT: u8 = 44;
/// Next header: authentication (AH, RFC 4302).
pub const AUTHENTICATION: u8 = 51;
/// Next header: destination options.
pub const DESTINATION_OPTIONS: u8 = 60;

/// Length of the fragment header, in bytes.
pub const FRAGMENT_HEADER_LEN: usize = 8;

/// Longest packet that every link takes, in bytes (RFC 8200 §5).
pub const LEAST_MTU: u16 = 1280;

/// Whether a next-header number names an extension header to step over on the way to the transport header.
pub const fn is_extension(next_header: u8) -> bool {
    matches!(next_header, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS)
}

/// Length of an extension header in bytes, by its second byte. AH counts words of four bytes (RFC 4302 §2.2), the
/// others of eight; a fragment header has one length.
pub const fn extension_len(kind: u8, length_field: u8) -> usize {
    match kind {
        FRAGMENT => FRAGMENT_HEADER_LEN,
        AUTHENTICATION => (length_field as usize + 2) * 4,
        _ => (length_field as usize + 1) * 8,
    }
}

/// The header of a packet the director makes. The flow label is zero, as in Linux with `auto_flowlabels=0`.
///
/// ```
/// use lvs_core::wire::ipv6;
/// let mut bytes = [0; ipv6::HEADER_LEN];
/// ipv6::write_header(&mut bytes, &ipv6::Header {
///     traffic_class: 0x12,
///     payload_len: 8,
///     next_header: 58,
///     hop_limit: 64,
///     source: "2001:db8::1".parse().unwrap(),
///     destination: "2001:db8::2".parse().unwrap(),
/// });
/// assert_eq!(bytes[..8], [0x61, 0x20, 0, 0, 0, 8, 58, 64]);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// Bytes behind this header.
    pub payload_len: u16,
    /// IANA number of what follows.
    pub next_header: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source address.
    pub source: Ipv6Addr,
    /// Destination address.
    pub destination: Ipv6Addr,
}

/// Writes a header.
#[inline]
pub fn write_header(bytes: &mut [u8; HEADER_LEN], header: &Header) {
    bytes[..4].copy_from_slice(&(6 << 28 | u32::from(header.traffic_class) << 20).to_be_bytes());
    bytes[4..6].copy_from_slice(&header.payload_len.to_be_bytes());
    bytes[6] = header.next_header;
    bytes[7] = header.hop_limit;
    set_addresses(bytes, header.source, header.destination);
}

/// Replaces both addresses.
pub fn set_addresses(header: &mut [u8; HEADER_LEN], source: Ipv6Addr, destination: Ipv6Addr) {
    header[8..24].copy_from_slice(&source.octets());
    header[24..40].copy_from_slice(&destination.octets());
}

/// Takes one from the hop limit, not below zero.
pub fn decrement_hop_limit(header: &mut [u8; HEADER_LEN]) {
    header[7] = header[7].saturating_sub(1);
}

/// Takes the fragment header at `offset` out: what was in front of it moves back by its eight bytes, so that the packet
/// starts [`FRAGMENT_HEADER_LEN`] bytes further on. Nothing happens if the headers in front do not lead there.
pub fn remove_fragment_header(bytes: &mut [u8], offset: usize) {
    let (mut announced_at, mut at) = (6, HEADER_LEN);
    while at < offset {
        let (kind, Some(&length_field)) = (bytes[announced_at], bytes.get(at + 1)) else { return };
        (announced_at, at) = (at, at + extension_len(kind, length_field));
    }
    let Some(&next_header) = bytes.get(offset) else { return };
    if at != offset || bytes.len() < offset + FRAGMENT_HEADER_LEN || bytes[announced_at] != FRAGMENT {
        return;
    }
    bytes[announced_at] = next_header;
    let payload_len = u16::from_be_bytes([bytes[4], bytes[5]]);
    bytes[4..6].copy_from_slice(&payload_len.saturating_sub(FRAGMENT_HEADER_LEN as u16).to_be_bytes());
    bytes.copy_within(..offset, FRAGMENT_HEADER_LEN);
}
