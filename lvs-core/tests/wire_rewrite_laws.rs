//! Laws of rewriting: checksums stay as right as they were, there and back is where we were, a checksum left to the
//! device comes out as if it had been complete, and fragments are rewritten as the whole would have been.

use lvs_core::wire::parse::parse;
use lvs_core::wire::rewrite::{Rewrite, complete_checksum, rewrite};
use lvs_core::{ChecksumOffload, DropReason, Endpoint, Gso, GsoKind, Offload};
use lvs_testkit::{Packet, Storage, describe, oracle, sctp, strategy, tcp, udp};
use proptest::prelude::*;

/// Two ends, and two others of the same family.
fn flow() -> impl Strategy<Value = (Endpoint, Endpoint, Rewrite)> {
    let any_end = |v6| strategy::endpoint(v6).prop_map(|end| Endpoint::new(end.ip(), end.port()));
    let flow = move |v6| (any_end(v6), any_end(v6), prop::option::of(any_end(v6)), prop::option::of(any_end(v6)));
    any::<bool>()
        .prop_flat_map(flow)
        .prop_map(|(from, to, source, destination)| (from, to, Rewrite { source, destination }))
}

/// TCP or UDP with right checksums between two ends.
fn packet(from: Endpoint, to: Endpoint, is_tcp: bool, payload: &[u8]) -> Packet {
    if is_tcp { tcp(from, to).syn().payload(payload) } else { udp(from, to).payload(payload) }
}

/// The bytes after a rewrite.
fn rewritten(bytes: &[u8], offload: ChecksumOffload, change: &Rewrite) -> Result<Vec<u8>, DropReason> {
    let mut storage = Storage::new(bytes).offload(Offload { checksum: offload, gso: None });
    let mut packet = storage.packet();
    let headers = parse(packet.bytes())?;
    rewrite(&mut packet, &headers, change)?;
    complete_checksum(&mut packet)?;
    Ok(packet.bytes().to_vec())
}

/// The rewrite that undoes `change` on a packet from `from` to `to`.
fn back(from: Endpoint, to: Endpoint, change: &Rewrite) -> Rewrite {
    Rewrite { source: change.source.map(|_| from), destination: change.destination.map(|_| to) }
}

/// A TCP segment without options, in which the other zero of one's complement, all ones, is not used.
fn with_one_zero(mut bytes: Vec<u8>) -> Vec<u8> {
    let headers = parse(&bytes).unwrap();
    let field = headers.transport + 16;
    if headers.tcp_flags(&bytes).is_some() && headers.protocol == 6 && bytes[field..field + 2] == [0xff, 0xff] {
        bytes[field..field + 2].fill(0);
    }
    bytes
}

proptest! {
    #![proptest_config(strategy::config())]

    #[test]
    fn right_checksums_stay_right(packet in strategy::balanced_packet(), v4 in strategy::endpoint(false), v6 in strategy::endpoint(true), both: bool) {
        let bytes = packet.build();
        let headers = parse(&bytes).unwrap();
        let end = if headers.source.is_ipv4() { v4 } else { v6 };
        let end = Endpoint::new(end.ip(), end.port());
        let change = Rewrite { source: both.then_some(end), destination: Some(end) };
        let sent = rewritten(&bytes, ChecksumOffload::Full, &change).unwrap();
        prop_assert_eq!(oracle::checksum_errors(&sent), Vec::<&str>::new(), "{} to {}", describe(&bytes), describe(&sent));
        if let Some((computed, found)) = oracle::etherparse_checksum(&sent) {
            // No UDP datagram leaves without a checksum, even if it came without.
            prop_assert_eq!(computed, found, "{}", describe(&sent));
        }
        let after = parse(&sent).unwrap();
        prop_assert_eq!((after.destination, after.ports(&sent).unwrap().1), (end.address, end.port));
        prop_assert_eq!(after.source == end.address, both || headers.source == end.address);
        prop_assert_eq!((after.hop_limit, after.traffic_class), (headers.hop_limit, headers.traffic_class));
    }

    #[test]
    fn wrong_checksums_stay_wrong((from, to, change) in flow(), is_tcp: bool, payload: [u8; 33]) {
        let bytes = packet(from, to, is_tcp, &payload).bad_checksum().build();
        let sent = rewritten(&bytes, ChecksumOffload::Full, &change).unwrap();
        prop_assert_eq!(oracle::checksum_errors(&sent), ["L4"], "{}", describe(&sent));
    }

    #[test]
    fn there_and_back_restores_the_bytes((from, to, change) in flow(), is_tcp: bool, payload: [u8; 33]) {
        let bytes = packet(from, to, is_tcp, &payload).build();
        let there = rewritten(&bytes, ChecksumOffload::Full, &change).unwrap();
        let restored = rewritten(&there, ChecksumOffload::Full, &back(from, to, &change)).unwrap();
        prop_assert_eq!(restored, bytes);
    }

    #[test]
    fn a_checksum_left_to_the_device_comes_out_as_if_complete((from, to, change) in flow(), is_tcp: bool, payload: [u8; 33]) {
        let complete = packet(from, to, is_tcp, &payload);
        let partial = complete.clone().partial_checksum();
        let sent = rewritten(&partial.build(), partial.offload(), &change).unwrap();
        let expected = rewritten(&complete.build(), ChecksumOffload::Full, &change).unwrap();
        prop_assert_eq!(with_one_zero(sent), with_one_zero(expected));
    }

    #[test]
    fn fragments_are_rewritten_as_the_whole_would_be((from, to, change) in flow(), is_tcp: bool, len in 30usize..300, step in 3usize..20) {
        let packet = packet(from, to, is_tcp, &vec![0x5c; len]);
        let whole = rewritten(&packet.build(), ChecksumOffload::Full, &change).unwrap();
        let fragments: Vec<_> = packet
            .fragments(step * 8)
            .iter()
            .map(|fragment| rewritten(fragment, ChecksumOffload::Full, &change).unwrap())
            .collect();
        let datagram = oracle::reassemble(fragments.iter().map(Vec::as_slice)).expect("still one datagram");
        prop_assert_eq!(&datagram, oracle::parse(&whole).unwrap().segment);
    }
}

#[test]
fn only_a_whole_sctp_packet_gets_a_new_crc() {
    let packet = sctp("10.0.0.1:1", "10.0.0.2:2").chunk(0, &[7; 100]);
    let to = |port| Rewrite { source: None, destination: Some(Endpoint::new([10, 0, 0, 3].into(), port)) };
    let fragment = &packet.fragments(64)[0];
    assert_eq!(rewritten(fragment, ChecksumOffload::Full, &to(4)), Err(DropReason::NotForwardable));
    // The addresses are not covered: with the same port, a fragment and a wrong CRC pass as they are.
    assert_eq!(rewritten(fragment, ChecksumOffload::Full, &to(2)).unwrap()[20..], fragment[20..]);
    let wrong = packet.bad_checksum().build();
    assert_eq!(rewritten(&wrong, ChecksumOffload::Full, &to(2)).unwrap()[20..], wrong[20..]);
    let healed = rewritten(&wrong, ChecksumOffload::Full, &to(4)).unwrap();
    assert_eq!(oracle::checksum_errors(&healed), Vec::<&str>::new());
}

#[test]
fn an_address_of_the_other_family_is_refused() {
    let packet = udp("10.0.0.1:1", "10.0.0.2:2").build();
    let change = Rewrite { source: None, destination: Some(Endpoint::new([0xfd00, 0, 0, 0, 0, 0, 0, 1].into(), 4)) };
    assert_eq!(rewritten(&packet, ChecksumOffload::Full, &change), Err(DropReason::NotForwardable));
}

#[test]
fn an_offload_context_that_names_no_checksum_is_refused() {
    let packet = tcp("10.0.0.1:1", "10.0.0.2:2").payload_len(10).build();
    let change = Rewrite { source: None, destination: Some(Endpoint::new([10, 0, 0, 3].into(), 4)) };
    for (start, offset) in [(20, 6), (0, 10), (22, 16), (20, 60), (45, 4), (u16::MAX, u16::MAX)] {
        let mut storage = Storage::new(&packet);
        storage.offload.checksum = ChecksumOffload::Partial { start, offset };
        let headers = parse(&packet).unwrap();
        assert_eq!(rewrite(&mut storage.packet(), &headers, &change), Err(DropReason::BadOffload), "{start} {offset}");
    }
    for (start, offset) in [(45, 4), (50, 0), (51, 0), (u16::MAX, u16::MAX)] {
        let mut storage = Storage::new(&packet);
        storage.offload.checksum = ChecksumOffload::Partial { start, offset };
        assert_eq!(complete_checksum(&mut storage.packet()), Err(DropReason::BadOffload), "{start} {offset}");
    }
}

#[test]
fn an_sctp_crc_left_to_the_device_is_computed() {
    let packet = sctp("10.0.0.1:1", "10.0.0.2:2").chunk(0, &[7; 100]).bad_checksum().build();
    let mut storage = Storage::new(&packet);
    storage.offload.checksum = ChecksumOffload::Partial { start: 20, offset: 8 };
    let mut packet = storage.packet();
    let headers = parse(packet.bytes()).unwrap();
    let change = Rewrite { source: None, destination: Some(Endpoint::new([10, 0, 0, 3].into(), 2)) };
    rewrite(&mut packet, &headers, &change).unwrap();
    assert_eq!(packet.offload.checksum, ChecksumOffload::Full);
    assert_eq!(oracle::checksum_errors(packet.bytes()), Vec::<&str>::new());
}

#[test]
fn a_udp_checksum_never_becomes_none() {
    let packet = udp("10.0.0.1:1", "10.0.0.2:2").payload(b"abc").build();
    let mut all_ones = 0;
    for port in 0..=u16::MAX {
        let change = Rewrite { source: None, destination: Some(Endpoint::new([10, 0, 0, 3].into(), port)) };
        let sent = rewritten(&packet, ChecksumOffload::Full, &change).unwrap();
        assert_ne!(sent[26..28], [0, 0], "port {port}");
        all_ones += usize::from(sent[26..28] == [0xff, 0xff]);
    }
    assert!(all_ones > 0, "some port makes the sum zero");
}

#[test]
fn a_packet_in_which_nothing_changes_keeps_its_transport_header() {
    let packet = udp("10.0.0.1:1", "10.0.0.2:2").no_checksum().payload(b"abc").build();
    assert_eq!(rewritten(&packet, ChecksumOffload::Full, &Rewrite::default()), Ok(packet));
}

#[test]
fn a_checksum_inside_a_udp_tunnel_stays_with_the_device() {
    let inner = tcp("10.9.0.1:1", "10.9.0.2:2").payload_len(10).build();
    let outer = udp("10.0.0.1:5000", "10.0.0.2:6080").payload(&inner).build();
    let mut storage = Storage::new(&outer);
    storage.offload.checksum = ChecksumOffload::Partial { start: 48, offset: 16 };
    let mut packet = storage.packet();
    let headers = parse(packet.bytes()).unwrap();
    let change = Rewrite { source: None, destination: Some(Endpoint::new([10, 0, 0, 3].into(), 4)) };
    rewrite(&mut packet, &headers, &change).unwrap();
    assert_eq!(packet.offload.checksum, ChecksumOffload::Partial { start: 48, offset: 16 });
    assert_eq!(oracle::checksum_errors(packet.bytes()), Vec::<&str>::new());
}

#[test]
fn the_checksums_of_a_super_packet_are_not_completed() {
    let packet = tcp("10.0.0.1:1", "10.0.0.2:2").partial_checksum().payload_len(3000);
    let gso = Some(Gso { kind: GsoKind::TcpV4, size: 1460, ecn: false });
    let mut storage = Storage::new(&packet.build()).offload(Offload { checksum: packet.offload(), gso });
    assert_eq!(complete_checksum(&mut storage.packet()), Err(DropReason::BadOffload));
}

#[test]
fn a_fragment_without_udp_checksum_gets_none() {
    let packet = udp("10.0.0.1:1", "10.0.0.2:2").no_checksum().payload_len(100);
    let change = Rewrite { source: None, destination: Some(Endpoint::new([10, 0, 0, 3].into(), 4)) };
    let first = rewritten(&packet.fragments(64)[0], ChecksumOffload::Full, &change).unwrap();
    assert_eq!(first[26..28], [0, 0]);
    let whole = rewritten(&packet.build(), ChecksumOffload::Full, &change).unwrap();
    assert_ne!(whole[26..28], [0, 0]);
}
