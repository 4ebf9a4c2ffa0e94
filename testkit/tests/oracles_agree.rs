//! The builder and the naive oracles against etherparse and published vectors: two roads to the same bytes.

use lvs_testkit::{describe, oracle, strategy, tcp, udp};
use proptest::prelude::*;

proptest! {
    #![proptest_config(strategy::config())]

    #[test]
    fn what_the_builder_builds_is_right_for_etherparse_and_the_naive_sum(packet in strategy::packet()) {
        let bytes = packet.build();
        prop_assert_eq!(oracle::checksum_errors(&bytes), Vec::<&str>::new(), "{}", describe(&bytes));
        if let Some((computed, found)) = oracle::etherparse_checksum(&bytes) {
            prop_assert!(computed == found || found == 0, "{}: {computed:04x} {found:04x}", describe(&bytes));
        }
    }

    #[test]
    fn fragments_make_up_the_datagram_they_were_cut_from(packet in strategy::balanced_packet(), step in 1usize..40) {
        let whole = packet.build();
        let fragments = packet.fragments(step * 8);
        let datagram = oracle::reassemble(fragments.iter().map(Vec::as_slice)).expect("all fragments are there");
        prop_assert_eq!(&datagram, oracle::parse(&whole).unwrap().segment);
    }

    #[test]
    fn no_bytes_are_too_odd_to_describe(bytes in strategy::bytes()) {
        prop_assert!(!describe(&bytes).is_empty() || bytes.is_empty());
    }
}

#[test]
fn the_bitwise_crc_matches_the_published_check_value() {
    assert_eq!(oracle::crc32c(b"123456789"), 0xe306_9283);
}

#[test]
fn damage_is_named() {
    let packet = tcp("10.0.0.1:1", "10.0.0.2:2").payload(b"x");
    assert_eq!(oracle::checksum_errors(&packet.clone().bad_checksum().build()), ["L4"]);
    assert_eq!(oracle::checksum_errors(&packet.bad_ip_checksum().build()), ["IP"]);
    let none = udp("10.0.0.1:1", "10.0.0.2:2").no_checksum().build();
    assert!(describe(&none).contains("csum0"));
}
