//! The Internet checksum (RFC 1071), for packets made or completed outside the core.

use std::net::IpAddr;

/// The ones'-complement sum of 16-bit words, on top of `initial`, folded to 16 bits. An odd last byte counts as the
/// high half of a word (RFC 1071 §4.1).
pub(crate) fn sum(initial: u16, bytes: &[u8]) -> u16 {
    let mut total = u64::from(initial);
    let (words, rest) = bytes.as_chunks::<4>();
    for word in words {
        total += u64::from(u32::from_be_bytes(*word));
    }
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    total += u64::from(u32::from_be_bytes(last));
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

/// The folded, un-complemented sum of the pseudo-header (RFC 9293 §3.1, RFC 8200 §8.1).
pub(crate) fn pseudo_header(source: IpAddr, target: IpAddr, protocol: u8, transport_len: usize) -> u16 {
    let len = u32::try_from(transport_len).unwrap_or(u32::MAX).to_be_bytes();
    let rest = sum(sum(0, &len), &[0, protocol]);
    match (source, target) {
        (IpAddr::V4(source), IpAddr::V4(target)) => sum(sum(rest, &source.octets()), &target.octets()),
        (IpAddr::V6(source), IpAddr::V6(target)) => sum(sum(rest, &source.octets()), &target.octets()),
        _ => unreachable!("both addresses come from one header"),
    }
}
