//! Fragmented datagrams: followed, held, put together where they must be, and never let grow.

use core::time::Duration;

use lvs_core::{DropReason, Verdict};
use lvs_testkit::{Desk, oracle, sctp, udp};

const RULES: &str = "
-A -u 192.0.2.1:53 -s rr
-a -u 192.0.2.1:53 -r 10.0.0.2:5353 -m
-A --sctp-service 192.0.2.1:36412 -s rr
-a --sctp-service 192.0.2.1:36412 -r 10.0.0.2:36413 -m
-A --sctp-service [2001:db8::1]:36412 -s rr
-a --sctp-service [2001:db8::1]:36412 -r [fd00::2]:36413 -m
-A -u [2001:db8::1]:53 -s rr
-a -u [2001:db8::1]:53 -r [fd00::2]:5353 -m
";

/// Sends the parts in this order; the payload of everything that left, put together again.
fn check(desk: &mut Desk, parts: &[Vec<u8>]) -> Option<Vec<u8>> {
    let mut left = Vec::new();
    for part in parts {
        let sent = desk.send(part);
        if matches!(sent.verdict, Verdict::Forward { .. }) {
            left.push(sent.bytes);
        }
        for late in desk.transmits() {
            assert!(matches!(late.verdict, Verdict::Forward { .. }), "{late:?}");
            left.push(late.bytes);
        }
    }
    oracle::reassemble(left.iter().map(Vec::as_slice))
}

#[test]
fn fragments_arrive_whole_in_whatever_order_they_come() {
    for (client, vip, server, header_len) in [
        ("198.51.100.7:1024", "192.0.2.1:53", "10.0.0.2:5353", 20),
        ("[2001:db8:c::7]:1024", "[2001:db8::1]:53", "[fd00::2]:5353", 40),
    ] {
        let parts = udp(client, vip).payload_len(1000).identification(77).fragments(400);
        assert_eq!(parts.len(), 3);
        let sent_to_the_server_itself = udp(client, server).payload_len(1000).build();
        for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [2, 0, 1]] {
            let mut desk = Desk::new(RULES);
            let whole = check(&mut desk, &order.map(|index| parts[index].clone())).expect("it is complete");
            assert_eq!(whole, sent_to_the_server_itself[header_len..], "in order {order:?}");
        }
    }
}

#[test]
fn a_datagram_counts_once_with_its_whole_length() {
    let mut desk = Desk::new(RULES);
    let parts = udp("198.51.100.7:1024", "192.0.2.1:53").payload_len(1000).fragments(400);
    check(&mut desk, &parts);
    let live = desk.director.statistics().live;
    assert_eq!((live.in_packets, live.in_bytes), (1, 1028));
}

#[test]
fn sctp_is_put_together_because_its_checksum_needs_every_byte() {
    let mut desk = Desk::new(RULES);
    let parts = sctp("198.51.100.7:1024", "192.0.2.1:36412").chunk(1, &[7; 1000]).fragments(400);
    for part in &parts[..parts.len() - 1] {
        assert_eq!(desk.send(part).verdict, Verdict::Held);
    }
    assert_eq!(desk.send(&parts[parts.len() - 1]).verdict, Verdict::Held);
    let late = desk.transmits();
    assert_eq!(late.len(), 1);
    assert!(oracle::checksum_errors(&late[0].bytes).is_empty());
    assert!(matches!(late[0].verdict, Verdict::Forward { mtu, .. } if usize::from(mtu) < late[0].bytes.len()));
}

/// An IPv6 packet in parts, with `data_len` bytes in each but the last, and all its extension headers behind the
/// fragment header, in the first.
fn split_before_extensions(packet: &[u8], data_len: usize) -> Vec<Vec<u8>> {
    let (header, data) = packet.split_at(40);
    let part = |(index, part): (usize, &[u8])| {
        let offset = index * data_len;
        let more = u16::from(offset + part.len() < data.len());
        let mut bytes = header.to_vec();
        bytes[4..6].copy_from_slice(&(8 + part.len() as u16).to_be_bytes());
        bytes[6] = 44;
        bytes.extend([header[6], 0]);
        bytes.extend((offset as u16 | more).to_be_bytes());
        bytes.extend([0, 0, 0, 9]);
        bytes.extend(part);
        bytes
    };
    data.chunks(data_len).enumerate().map(part).collect()
}

#[test]
fn headers_behind_an_ipv6_fragment_header_are_part_of_the_datagram() {
    let parts = |packet: Vec<u8>| split_before_extensions(&packet, 400);
    let datagram = udp("[2001:db8:c::7]:1024", "[2001:db8::1]:53").destination_options().payload_len(1000);
    let [first, second, third] = parts(datagram.build()).try_into().expect("three");
    // A second part that begins where the first one's payload would end, without its extension header.
    let mut overlapping = second.clone();
    overlapping[42..44].copy_from_slice(&(392_u16 | 1).to_be_bytes());
    let mut desk = Desk::new(RULES);
    for part in [&first, &second, &third] {
        assert!(matches!(desk.send(part).verdict, Verdict::Forward { .. }));
    }
    // Which protocol the others are of only the first one says: they wait for it, and leave as one.
    for order in [[&third, &second, &first], [&second, &third, &first]] {
        let mut desk = Desk::new(RULES);
        assert_eq!(order.map(|part| desk.send(part).verdict), [Verdict::Held; 3]);
        let [late] = desk.transmits().try_into().expect("one");
        assert!(matches!(late.verdict, Verdict::Forward { .. }) && oracle::checksum_errors(&late.bytes).is_empty());
    }
    let mut desk = Desk::new(RULES);
    desk.send(&first);
    assert_eq!(desk.send(&overlapping).verdict, Verdict::Drop(DropReason::OverlappingFragment));
    // What is put together is complete when all of it is there, wherever the extension headers are.
    let message = sctp("[2001:db8:c::7]:1024", "[2001:db8::1]:36412").destination_options().chunk(1, &[7; 1000]);
    let mut desk = Desk::new(RULES);
    assert!(parts(message.build()).iter().all(|part| desk.send(part).verdict == Verdict::Held));
    let [late] = desk.transmits().try_into().expect("one");
    assert!(matches!(late.verdict, Verdict::Forward { .. }) && oracle::checksum_errors(&late.bytes).is_empty());
}

#[test]
fn an_overlap_is_refused_and_counted() {
    let mut desk = Desk::new(RULES);
    let packet = udp("198.51.100.7:1024", "192.0.2.1:53").payload_len(1000);
    let (coarse, fine) = (packet.fragments(400), packet.fragments(392));
    assert!(matches!(desk.send(&coarse[0]).verdict, Verdict::Forward { .. }));
    assert_eq!(desk.send(&fine[1]).verdict, Verdict::Drop(DropReason::OverlappingFragment));
    assert_eq!(desk.director.drops(DropReason::OverlappingFragment), 1);
}

#[test]
fn parts_whose_first_never_comes_are_given_up_and_counted() {
    let mut desk = Desk::new(RULES);
    let parts = udp("198.51.100.7:1024", "192.0.2.1:53").payload_len(1000).fragments(400);
    assert_eq!(desk.send(&parts[1]).verdict, Verdict::Held);
    desk.pass(Duration::from_secs(31));
    assert_eq!(desk.director.drops(DropReason::FragmentTimeout), 1);
    assert!(desk.transmits().is_empty());
}

#[test]
fn the_memory_for_fragments_is_bounded_and_connections_go_on() {
    let mut config = Desk::config();
    config.fragments_max = 4;
    let mut desk = Desk::with_config(config, RULES);
    desk.send(&udp("198.51.100.9:9", "192.0.2.1:53").payload(b"before").build());
    for id in 0..10 {
        let parts = udp("198.51.100.7:1024", "192.0.2.1:53").identification(id).payload_len(1000).fragments(400);
        assert_eq!(desk.send(&parts[1]).verdict, Verdict::Held);
        assert!(desk.director.gauges().fragments <= 4);
    }
    // The oldest six gave way.
    assert_eq!(desk.director.drops(DropReason::FragmentTableFull), 6);
    assert_eq!(desk.director.defence_counters().datagrams_given_up, 6);
    let after = desk.send(&udp("198.51.100.9:9", "192.0.2.1:53").payload(b"after").build());
    assert!(matches!(after.verdict, Verdict::Forward { .. }));
}
