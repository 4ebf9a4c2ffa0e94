//! Fragmented datagrams: followed, held, put together where they must be, and never let grow.

use core::time::Duration;

use lvs_core::{DropReason, Verdict};
use lvs_testkit::{Desk, oracle, sctp, udp};

const RULES: &str = "
-A -u 192.0.2.1:53 -s rr
-a -u 192.0.2.1:53 -r 10.0.0.2:5353 -m
-A --sctp-service 192.0.2.1:36412 -s rr
-a --sctp-service 192.0.2.1:36412 -r 10.0.0.2:36413 -m
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
        let expected = if id < 4 { Verdict::Held } else { Verdict::Drop(DropReason::FragmentTableFull) };
        assert_eq!(desk.send(&parts[1]).verdict, expected);
    }
    let after = desk.send(&udp("198.51.100.9:9", "192.0.2.1:53").payload(b"after").build());
    assert!(matches!(after.verdict, Verdict::Forward { .. }));
}
