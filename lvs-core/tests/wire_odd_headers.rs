//! Odd and broken IP headers: each is read for what it is or refused with the reason that names it.

use lvs_core::DropReason::{self, BadIpChecksum, MalformedExtensionHeader, MalformedIp};
use lvs_core::wire::ipv6;
use lvs_core::wire::parse::{FragmentPart, parse, parse_quoted};
use lvs_testkit::{Packet, strategy::repair_ipv4_checksum, tcp, udp};

#[test]
fn lengths_and_versions_are_checked_against_the_bytes() {
    check(&[], Err(MalformedIp));
    check(&[0x45; 19], Err(MalformedIp));
    check(&[0x60; 39], Err(MalformedIp));
    check(&edited(v4(), 0, 0x55), Err(MalformedIp)); // version 5
    check(&edited(v4(), 0, 0x44), Err(MalformedIp)); // header of 16 bytes
    check(&edited(v4(), 0, 0x4f), Err(MalformedIp)); // header longer than the packet
    check(&edited(v4(), 3, 19), Err(MalformedIp)); // packet shorter than its header
    check(&edited(v4(), 3, 29), Err(MalformedIp)); // packet longer than the bytes
    check(&edited(v6(), 5, 9), Err(MalformedIp));
    check(&edited(v6(), 5, 8), Ok(17));
    check(&v4().bad_ip_checksum().build(), Err(BadIpChecksum));
}

#[test]
fn link_padding_is_not_part_of_the_packet() {
    for packet in [v4(), v6()] {
        let bytes = packet.trailing(&[0xee; 18]).build();
        assert_eq!(parse(&bytes).unwrap().packet_len, bytes.len() - 18);
    }
}

#[test]
fn broken_ipv4_options_make_a_malformed_packet() {
    let with = |options: &[u8]| v4().ipv4_options(options).build();
    check(&with(&[68, 0, 0, 0]), Err(MalformedIp)); // length zero: would never end
    check(&with(&[68, 1, 0, 0]), Err(MalformedIp)); // shorter than its own header
    check(&with(&[68, 5, 0, 0]), Err(MalformedIp)); // longer than the options
    check(&with(&[1, 1, 1, 68]), Err(MalformedIp)); // without a length
    check(&with(&[7, 2, 0, 0]), Err(MalformedIp)); // record route without a pointer
    check(&with(&[7, 7, 3, 0, 0, 0, 0, 0]), Err(MalformedIp)); // pointer into the option's head
    check(&with(&[7, 7, 5, 0, 0, 0, 0, 0]), Err(MalformedIp)); // RFC 791: some room, but not for an address
    check(&with(&[7, 7, 8, 0, 0, 0, 0, 0]), Ok(17)); // full
    check(&with(&[0, 68, 0, 0]), Ok(17)); // what follows the end does not count
    check(&with(&[200, 4, 9, 9]), Ok(17)); // unknown, but whole
}

#[test]
fn options_that_matter_are_found() {
    let headers = parse(&v4().ipv4_options(&[1, 7, 7, 4, 0, 0, 0, 0]).build()).unwrap();
    assert_eq!((headers.has_options, headers.record_route, headers.source_route), (true, Some(21), false));
    for source_route in [131, 137] {
        let headers = parse(&v4().ipv4_options(&[source_route, 7, 4, 10, 0, 0, 9]).build()).unwrap();
        assert!(headers.source_route);
    }
    let waypoint = |segments_left: u8| [0, segments_left, 0, 0, 0, 0];
    assert!(parse(&v6().extension(43, &waypoint(1)).build()).unwrap().source_route);
    assert!(!parse(&v6().extension(43, &waypoint(0)).build()).unwrap().source_route);
}

#[test]
fn an_extension_header_chain_is_followed_to_its_end_and_no_further() {
    check(&v6().hop_by_hop().destination_options().build(), Ok(17));
    let many = |count| (0..count).fold(v6(), |packet, _| packet.destination_options()).build();
    check(&many(8), Ok(17));
    check(&many(9), Err(MalformedExtensionHeader));
    check(&v6().destination_options().hop_by_hop().build(), Err(MalformedExtensionHeader)); // not in first place
    check(&edited(v6().destination_options(), 41, 2), Err(MalformedExtensionHeader)); // reaches behind the packet
    check(&edited(v6().destination_options(), 40, 59), Ok(59)); // no next header
    let fragment = &[0, 0, 0, 0, 0, 1];
    check(&v6().extension(44, fragment).build(), Ok(17)); // an atomic fragment, RFC 6946
    check(&v6().extension(44, fragment).extension(44, fragment).build(), Err(MalformedExtensionHeader));
}

#[test]
fn in_ipv6_ah_is_an_extension_header_whose_length_counts_words_of_four_bytes() {
    for len in [10, 14, 22] {
        let bytes = v6().extension(51, &vec![0; len]).destination_options().payload_len(4).build();
        let headers = parse(&bytes).unwrap();
        assert_eq!((headers.protocol, headers.ports(&bytes), headers.has_options), (17, Some((1, 2)), true));
        assert_eq!(headers.transport, 40 + 2 + len + 8);
    }
    check(&edited(v6().extension(51, &[0; 10]), 41, 5), Err(MalformedExtensionHeader)); // reaches behind the packet
    check(&edited(v6().extension(51, &[0; 14]), 40, 50), Ok(50)); // ESP is what it protects, and ends the chain
    // Behind a fragment header it is data like the rest: 20 + 8 + 4 bytes are a multiple of eight.
    let first = v6().extension(44, &[0, 1, 0, 0, 0, 9]).extension(51, &[0; 18]).payload_len(4).build();
    check(&first, Ok(17));
    check(&[&first[..], &[0; 4]].concat(), Ok(17)); // link padding
}

#[test]
fn a_fragment_header_behind_ah_is_found_and_taken_out() {
    let mut bytes = v6().extension(51, &[0; 22]).extension(44, &[0, 0, 0, 0, 0, 9]).payload_len(4).build();
    let fragment = parse(&bytes).unwrap().fragment.unwrap();
    ipv6::remove_fragment_header(&mut bytes, fragment.header);
    let without = v6().extension(51, &[0; 22]).payload_len(4).build();
    assert_eq!(bytes[8..], without);
}

#[test]
fn fragments_are_told_apart() {
    for (packet, header) in [(tcp("10.0.0.1:1", "10.0.0.2:2"), 0), (tcp("[fd00::1]:1", "[fd00::2]:2"), 40)] {
        let fragments = packet.payload_len(100).identification(77).fragments(56);
        let expected = [(0, true, false), (56, true, true), (112, false, true)];
        for (bytes, (offset, more, is_later)) in fragments.iter().zip(expected) {
            let headers = parse(bytes).unwrap();
            assert_eq!(headers.fragment, Some(FragmentPart { offset, more, id: 77, header }));
            assert_eq!((headers.is_later_fragment(), headers.is_fragment_head()), (is_later, !is_later));
            assert_eq!(headers.ports(bytes), (!is_later).then_some((1, 2)));
            assert_eq!(headers.tcp_flags(bytes).is_some(), !is_later);
            assert_eq!(headers.protocol, 6);
        }
    }
}

#[test]
fn a_fragment_that_fits_into_no_datagram_is_refused() {
    for (packet, refusal) in [(v4(), MalformedIp), (v6(), MalformedExtensionHeader)] {
        check(&packet.clone().payload_len(9).fragment(8, true).build(), Err(refusal)); // no multiple of eight
        check(&packet.clone().payload_len(9).fragment(8, false).build(), Ok(17)); // but the last one may be
        check(&packet.clone().payload_len(8).fragment(65528, false).build(), Err(refusal)); // beyond 65535
        let empty = packet.clone().fragment(8, false).build();
        let header_len = empty.len() - 8;
        let mut empty = empty[..header_len].to_vec();
        match refusal {
            MalformedIp => empty[3] = 20,
            _ => empty[5] = 8,
        }
        repair_ipv4_checksum(&mut empty);
        check(&empty, Err(refusal));
    }
}

#[test]
fn a_quoted_packet_may_be_cut_short_and_damaged_but_not_headless() {
    let whole = v4().payload_len(100).bad_ip_checksum().build();
    let headers = parse_quoted(&whole[..24]).unwrap();
    assert_eq!((headers.packet_len, headers.ports(&whole[..24])), (24, Some((1, 2))));
    assert_eq!(parse_quoted(&whole[..19]), None);
    assert_eq!(parse_quoted(&edited(v4(), 0, 0x4f)[..28]), None);
    assert_eq!(parse_quoted(&edited(v4(), 0, 0x35)), None);
    // A garbled length: all there is belongs to the packet.
    assert_eq!(parse_quoted(&edited(v4(), 3, 1)).unwrap().packet_len, 28);
    let whole = v6().destination_options().payload_len(100).build();
    assert_eq!(parse_quoted(&whole[..52]).unwrap().ports(&whole[..52]), Some((1, 2)));
    assert_eq!(parse_quoted(&whole[..47]), None);
}

/// What becomes of a packet: its transport protocol, or why it is refused.
fn check(bytes: &[u8], expected: Result<u8, DropReason>) {
    assert_eq!(parse(bytes).map(|headers| headers.protocol), expected, "{bytes:02x?}");
}

fn v4() -> Packet {
    udp("10.0.0.1:1", "10.0.0.2:2")
}

fn v6() -> Packet {
    udp("[fd00::1]:1", "[fd00::2]:2")
}

/// The packet with one byte changed and the IPv4 header checksum right again.
fn edited(packet: Packet, offset: usize, value: u8) -> Vec<u8> {
    let mut bytes = packet.build();
    bytes[offset] = value;
    repair_ipv4_checksum(&mut bytes);
    bytes
}
