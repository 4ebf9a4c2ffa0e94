//! Laws of splitting: every fragment fits and is well formed, and all together are the packet again.

use lvs_core::DropReason;
use lvs_core::wire::fragment::fragment;
use lvs_core::wire::parse::parse;
use lvs_testkit::{describe, oracle, strategy, tcp, udp};
use proptest::prelude::*;

/// The fragments of a packet.
fn split(bytes: &[u8], mtu: usize) -> Result<Vec<Vec<u8>>, DropReason> {
    let mut fragments = vec![];
    fragment(bytes, mtu, 0xabcd_ef01, &mut vec![0; mtu], |fragment| fragments.push(fragment.to_vec()))?;
    Ok(fragments)
}

fn reassembled(fragments: &[Vec<u8>]) -> Option<Vec<u8>> {
    oracle::reassemble(fragments.iter().map(Vec::as_slice))
}

proptest! {
    #![proptest_config(strategy::config())]

    #[test]
    fn fragments_fit_and_make_up_the_packet(packet in strategy::balanced_packet(), mtu in 90usize..700) {
        let bytes = packet.build();
        let fragments = split(&bytes, mtu).unwrap();
        let headers = parse(&bytes).unwrap();
        for fragment in &fragments {
            prop_assert!(fragment.len() <= mtu, "{}", describe(fragment));
            let part = parse(fragment).expect("a well-formed fragment");
            prop_assert_eq!((part.source, part.destination), (headers.source, headers.destination));
            prop_assert_eq!((part.hop_limit, part.traffic_class), (headers.hop_limit, headers.traffic_class));
            prop_assert_eq!(part.fragment.is_some(), bytes.len() > mtu);
        }
        // In IPv6, headers that only the receiver reads are part of what is split.
        let datagram = reassembled(&fragments).expect("no gap, no overlap");
        prop_assert!(bytes.ends_with(&datagram) && datagram.ends_with(headers.payload(&bytes)));
    }

    #[test]
    fn fragments_of_fragments_still_make_up_the_packet(len in 200usize..900, outer in 10usize..40, mtu in 100usize..200, v6: bool) {
        let packet = if v6 { udp("[fd00::1]:1", "[fd00::2]:2") } else { udp("10.0.0.1:1", "10.0.0.2:2") }.payload_len(len);
        let mut fragments = vec![];
        for fragment in packet.clone().identification(77).fragments(outer * 8) {
            fragments.extend(split(&fragment, mtu).unwrap());
        }
        // One datagram still: the identification it came with stays, in IPv6 too.
        prop_assert!(fragments.iter().all(|fragment| parse(fragment).unwrap().fragment.unwrap().id == 77));
        let whole = packet.build();
        let datagram = reassembled(&fragments).expect("no gap, no overlap");
        prop_assert_eq!(&datagram, oracle::parse(&whole).unwrap().segment);
    }
}

#[test]
fn a_packet_with_df_is_not_split() {
    let packet = tcp("10.0.0.1:1", "10.0.0.2:2").dont_fragment().payload_len(1000);
    assert_eq!(split(&packet.build(), 576), Err(DropReason::TooBig));
    assert_eq!(split(&packet.build(), 1500).map(|fragments| fragments.len()), Ok(1));
}

#[test]
fn an_mtu_without_room_for_data_is_refused() {
    let packet = udp("10.0.0.1:1", "10.0.0.2:2").payload_len(100);
    assert_eq!(split(&packet.build(), 27), Err(DropReason::TooBig));
    assert!(split(&packet.build(), 28).is_ok());
    let mut small = [0; 67];
    let refused = fragment(&packet.build(), 68, 0, &mut small, |_| unreachable!("nothing is given before the check"));
    assert_eq!(refused, Err(DropReason::NoTailroom));
}

#[test]
fn options_without_the_copied_bit_are_blanked_in_later_fragments() {
    // Record route (7) is for the first fragment only, router alert (148) for all (RFC 791 §3.1, RFC 2113).
    let packet = udp("10.0.0.1:1", "10.0.0.2:2").ipv4_options(&[7, 7, 4, 0, 0, 0, 0, 1, 148, 4, 0, 0]).payload_len(100);
    let fragments = split(&packet.build(), 96).unwrap();
    assert_eq!(fragments[0][20..32], [7, 7, 4, 0, 0, 0, 0, 1, 148, 4, 0, 0]);
    assert_eq!(fragments[1][20..32], [1, 1, 1, 1, 1, 1, 1, 1, 148, 4, 0, 0]);
}

#[test]
fn an_ipv6_fragment_header_comes_behind_what_routers_read() {
    let packet = udp("[fd00::1]:1", "[fd00::2]:2").hop_by_hop().destination_options().payload_len(400);
    let fragments = split(&packet.build(), 200).unwrap();
    // IPv6 → hop-by-hop → fragment → destination options, which are split with the rest.
    assert_eq!((fragments[0][6], fragments[0][40], fragments[0][48], fragments[0][56]), (0, 44, 60, 17));
    assert_eq!(fragments[0][52..56], [0xab, 0xcd, 0xef, 0x01]);
    assert_eq!((fragments[1][6], fragments[1][40], fragments[1][48]), (0, 44, 60));
}

#[test]
fn an_authentication_header_is_part_of_what_is_split() {
    // Its length counts words of four bytes (RFC 4302 §2.2): here 24 bytes, as in no other extension header.
    let packet = udp("[fd00::1]:1", "[fd00::2]:2").extension(51, &[0; 22]).payload_len(1000).build();
    let fragments = split(&packet, 300).unwrap();
    assert!(fragments.iter().all(|fragment| fragment[6] == 44 && fragment[40] == 51));
    let data: Vec<u8> = fragments.iter().flat_map(|fragment| &fragment[48..]).copied().collect();
    assert_eq!(data, packet[40..]);
}
