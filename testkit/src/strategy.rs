//! Packets for property tests: valid ones of every kind, damaged ones, and arbitrary bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use crate::packet::{Packet, icmp, raw, sctp, tcp, udp};

/// How the workspace runs its properties: with one seed, so that a run can be repeated. Set `PROPTEST_RNG_SEED` to look
/// elsewhere and `PROPTEST_CASES` to look longer.
pub fn config() -> ProptestConfig {
    let mut config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    if config.rng_seed == RngSeed::Random {
        config.rng_seed = RngSeed::Fixed(0x1b5);
    }
    config
}

/// A unicast address and a port; IPv6 if `v6`.
pub fn endpoint(v6: bool) -> impl Strategy<Value = SocketAddr> {
    (any::<u128>(), any::<u16>()).prop_map(move |(bits, port)| {
        let address = if v6 {
            // 2000::/3: global unicast.
            IpAddr::V6(Ipv6Addr::from(bits >> 3 | 1 << 125))
        } else {
            IpAddr::V4(Ipv4Addr::new(1 + (bits % 126) as u8, (bits >> 8) as u8, (bits >> 16) as u8, (bits >> 24) as u8))
        };
        SocketAddr::new(address, port)
    })
}

/// Two endpoints of one family.
pub fn endpoints() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
    any::<bool>().prop_flat_map(|v6| (endpoint(v6), endpoint(v6)))
}

/// A well-formed TCP, UDP or SCTP packet, unfragmented, with right checksums (UDP sometimes without), sometimes with
/// IPv4 options or IPv6 extension headers, up to about 600 bytes.
pub fn balanced_packet() -> impl Strategy<Value = Packet> {
    let shape = (0u8..3, any::<u8>(), any::<bool>(), 0u8..4);
    (endpoints(), shape, prop::collection::vec(any::<u8>(), 0..600), any::<(u8, u8, u32)>()).prop_map(
        |((from, to), (kind, flags, no_checksum, headers), payload, (hop_limit, class, id))| {
            let packet = match kind {
                0 => tcp(from, to).flags(flags).payload(&payload),
                1 if no_checksum => udp(from, to).no_checksum().payload(&payload),
                1 => udp(from, to).payload(&payload),
                _ => sctp(from, to).tag(id).chunk(flags, &payload),
            };
            let packet = packet.hop_limit(hop_limit).traffic_class(class).identification(id);
            with_headers(packet, headers)
        },
    )
}

/// Any well-formed packet: those of [`balanced_packet`], ICMP messages, other protocols.
pub fn packet() -> impl Strategy<Value = Packet> {
    let other = (endpoints(), any::<u8>(), any::<(u8, u8, u32)>(), prop::collection::vec(any::<u8>(), 0..200))
        .prop_map(|((from, to), protocol, (icmp_type, code, rest), payload)| match protocol {
            0..=99 => icmp(from, to, icmp_type, code, rest).payload(&payload),
            // Numbers that are no extension header and none of the protocols above.
            _ => raw(from, to, 61 + protocol % 60).payload(&payload),
        });
    prop_oneof![3 => balanced_packet(), 1 => other]
}

/// The bytes of a well-formed packet with a few bytes changed, cut off or added; sometimes the IPv4 header checksum is
/// made right again, so that the damage is not found out at once.
pub fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    (packet(), changes, any::<prop::sample::Index>(), 0usize..4, any::<bool>()).prop_map(
        |(packet, changes, end, resize, repair)| {
            let mut bytes = packet.build();
            for (index, value) in changes {
                // Headers are where it hurts.
                let index = index.index(bytes.len().min(80));
                bytes[index] = value;
            }
            match resize {
                0 => bytes.truncate(end.index(bytes.len() + 1)),
                1 => bytes.extend([0xee; 7]),
                _ => {}
            }
            if repair {
                repair_ipv4_checksum(&mut bytes);
            }
            bytes
        },
    )
}

/// Bytes of every kind: arbitrary, arbitrary behind a plausible first byte, damaged packets.
pub fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let arbitrary = prop::collection::vec(any::<u8>(), 0..200);
    let first = prop_oneof![Just(0x45u8), Just(0x46), Just(0x4f), Just(0x60)];
    let plausible = (first, prop::collection::vec(any::<u8>(), 40..200)).prop_map(|(first, mut bytes)| {
        bytes[0] = first;
        let (at, len) = if first >> 4 == 4 { (2, bytes.len()) } else { (4, bytes.len() - 40) };
        bytes[at..at + 2].copy_from_slice(&(len as u16).to_be_bytes());
        repair_ipv4_checksum(&mut bytes);
        bytes
    });
    prop_oneof![1 => arbitrary, 2 => plausible, 3 => mutated()]
}

/// Makes the checksum of an IPv4 header right, if there is a whole one.
pub fn repair_ipv4_checksum(bytes: &mut [u8]) {
    let header_len = bytes.first().map_or(0, |first| if first >> 4 == 4 { usize::from(first & 15) * 4 } else { 0 });
    if header_len < 20 || header_len > bytes.len() {
        return;
    }
    bytes[10..12].fill(0);
    let checksum = crate::oracle::checksum(&bytes[..header_len]);
    bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
}

fn with_headers(packet: Packet, choice: u8) -> Packet {
    match choice {
        // A router-alert option in IPv4; each call is ignored by the other family.
        1 => packet.ipv4_options(&[148, 4, 0, 0]).hop_by_hop(),
        2 => packet.ipv4_options(&[1, 7, 7, 4, 0, 0, 0, 0]).hop_by_hop().destination_options(),
        _ => packet,
    }
}
