//! The packet the demo has explained at the end: the first segment of one more connection.
//! Written out byte by byte (RFC 791, RFC 9293), because nothing else in the daemon makes packets.

use std::net::{Ipv4Addr, SocketAddrV4};

/// An IPv4 packet with a TCP SYN `from` a client `to` a virtual service, checksums included.
pub fn syn(from: SocketAddrV4, to: SocketAddrV4) -> [u8; SYN_LEN] {
    let mut packet = [0; SYN_LEN];
    let (ip, tcp) = packet.split_at_mut(20);
    ip[..12].copy_from_slice(&[
        0x45, 0, 0, 40, // version 4, 5 words of header; 40 bytes in all
        0, 0, 0x40, 0, // don't fragment
        64, 6, 0, 0, // time to live; TCP; checksum below
    ]);
    ip[12..16].copy_from_slice(&from.ip().octets());
    ip[16..20].copy_from_slice(&to.ip().octets());
    let checksum = ones_complement_sum(ip, 0);
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());

    tcp[..2].copy_from_slice(&from.port().to_be_bytes());
    tcp[2..4].copy_from_slice(&to.port().to_be_bytes());
    tcp[12..16].copy_from_slice(&[0x50, 0x02, 0xff, 0xff]); // 5 words of header, SYN, the largest window
    let checksum = ones_complement_sum(tcp, pseudo_header_sum(*from.ip(), *to.ip(), 20));
    tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
    packet
}

fn pseudo_header_sum(source: Ipv4Addr, destination: Ipv4Addr, len: u32) -> u32 {
    let address_sum = |address: Ipv4Addr| (address.to_bits() >> 16) + (address.to_bits() & 0xffff);
    address_sum(source) + address_sum(destination) + 6 + len
}

/// RFC 1071, over an even number of bytes.
fn ones_complement_sum(bytes: &[u8], start: u32) -> u16 {
    let words = bytes.chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let mut sum = words.sum::<u32>() + start;
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}

/// Two headers without options, and nothing else.
pub const SYN_LEN: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_segment_is_a_syn_with_valid_checksums() {
        let packet = syn("10.1.0.1:40000".parse().expect("an address"), "192.0.2.80:80".parse().expect("an address"));
        // Packed, and its checksums added up, by a few lines of Python's `struct`.
        let expected = [
            [0x45, 0x00, 0x00, 0x28, 0x00, 0x00, 0x40, 0x00, 0x40, 0x06],
            [0x6e, 0x7e, 0x0a, 0x01, 0x00, 0x01, 0xc0, 0x00, 0x02, 0x50],
            [0x9c, 0x40, 0x00, 0x50, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00],
            [0x00, 0x00, 0x50, 0x02, 0xff, 0xff, 0x47, 0x00, 0x00, 0x00],
        ];
        assert_eq!(packet, expected.as_flattened());
    }
}
