//! Fragments from people who mean no good, or whose networks lose some: what is not ours takes no room from what is,
//! nobody takes more than a share, and a datagram that will never be complete is in nobody's way.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use lvs_core::{DropReason, Verdict};
use lvs_testkit::{Desk, Packet, oracle, sctp, udp};

const RULES: &str = "
-A -u 192.0.2.1:53 -s rr
-a -u 192.0.2.1:53 -r 10.0.0.2:53 -m
-A -u [2001:db8::1]:53 -s rr
-a -u [2001:db8::1]:53 -r [fd00::2]:53 -m
-A --sctp-service 192.0.2.1:36412 -s rr
-a --sctp-service 192.0.2.1:36412 -r 10.0.0.2:36412 -m
";

const VIPS: [&str; 2] = ["192.0.2.1", "2001:db8::1"];

/// Somebody, in a network of their own.
fn somebody(number: u32, is_ipv4: bool) -> SocketAddr {
    let address = match is_ipv4 {
        true => IpAddr::V4(Ipv4Addr::from_bits(0x2d00_0000 + number)),
        false => IpAddr::V6(Ipv6Addr::from_bits((0x2a00_0000 << 96) | u128::from(number) << 64 | 7)),
    };
    SocketAddr::new(address, 1024)
}

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().expect("an address"), port)
}

/// Two parts of a datagram from somebody.
fn two_parts(number: u32, to: SocketAddr) -> [Vec<u8>; 2] {
    let parts = udp(somebody(number, to.is_ipv4()), to).identification(number).payload_len(64).fragments(40);
    parts.try_into().expect("two")
}

/// Sends the parts; the payload of all that left, put together again.
fn check(desk: &mut Desk, parts: &[Vec<u8>]) -> Option<Vec<u8>> {
    let mut left = Vec::new();
    for part in parts {
        let sent = desk.send(part);
        let outcomes = std::iter::once(sent).chain(desk.transmits());
        left.extend(
            outcomes.filter(|outcome| matches!(outcome.verdict, Verdict::Forward { .. })).map(|outcome| outcome.bytes),
        );
    }
    oracle::reassemble(left.iter().map(Vec::as_slice))
}

fn is_served(desk: &mut Desk, vip: &str) -> bool {
    let client = if vip.contains(':') { "[2001:db8:c::7]:1024" } else { "198.51.100.7:1024" };
    let parts = udp(client, at(vip, 53)).identification(7).payload_len(1000).fragments(400);
    let mut turned = parts.clone();
    turned.reverse();
    check(desk, &parts).is_some() && check(desk, &turned).is_some()
}

#[test]
fn fragments_for_others_take_no_room_at_all() {
    for (other, vip) in [("8.8.8.8", VIPS[0]), ("2600::8", VIPS[1])] {
        let mut desk = Desk::new(RULES);
        for number in 0..1_100 {
            assert_eq!(desk.send(&two_parts(number, at(other, 53))[0]).verdict, Verdict::Pass);
        }
        assert_eq!(desk.director.gauges().fragments, 0);
        assert!(is_served(&mut desk, vip));
    }
}

#[test]
fn fragments_nobody_serves_and_made_up_ones_give_way_to_a_client() {
    for vip in VIPS {
        // To a port nobody serves; the first parts only, the second ones only.
        for (port, which) in [(9, 0), (53, 0), (53, 1)] {
            let mut desk = Desk::new(RULES);
            for number in 0..1_500 {
                let sent = desk.send(&two_parts(number, at(vip, port))[which]);
                assert!(!matches!(sent.verdict, Verdict::Drop(_)), "{number}: {sent:?}");
            }
            assert!(desk.director.gauges().fragments <= 1_024);
            assert!(is_served(&mut desk, vip), "{vip} {port} {which}");
        }
    }
}

#[test]
fn a_servers_answer_in_parts_is_not_pushed_out_by_newcomers() {
    for vip in VIPS {
        let is_ipv4 = !vip.contains(':');
        let (server, client) = (if is_ipv4 { "10.0.0.2" } else { "fd00::2" }, somebody(0xffff, is_ipv4));
        let mut desk = Desk::new(RULES);
        desk.send(&udp(client, at(vip, 53)).payload(b"?").build());
        let answer = udp(at(server, 53), client).payload_len(1000).fragments(600);
        assert!(matches!(desk.send(&answer[0]).verdict, Verdict::Forward { .. }));
        for number in 0..3_000 {
            desk.send(&two_parts(number, at(vip, 53))[number as usize % 2]);
        }
        assert!(matches!(desk.send(&answer[1]).verdict, Verdict::Forward { .. }), "{vip}");
    }
}

/// Who sends in a server's place, or from addresses beside it, pushes out nothing of what the server sends.
#[test]
fn made_up_parts_in_a_servers_place_do_not_push_its_answers_out() {
    for (vip, server) in [(VIPS[0], "10.0.0.2"), (VIPS[1], "fd00::2")] {
        let is_ipv4 = !vip.contains(':');
        let client = somebody(0xffff, is_ipv4);
        let mut desk = Desk::new(RULES);
        desk.send(&udp(client, at(vip, 53)).payload(b"?").build());
        let answer = udp(at(server, 53), client).identification(1).payload_len(1000).fragments(600);
        assert!(matches!(desk.send(&answer[0]).verdict, Verdict::Forward { .. }));
        for number in 0..3_000 {
            let made_up = udp(at(server, 53), somebody(number, is_ipv4)).identification(number).payload_len(1000);
            desk.send(&made_up.fragments(600)[1]);
        }
        assert!(matches!(desk.send(&answer[1]).verdict, Verdict::Forward { .. }), "{vip}");
    }
    // A server's /64 is not all its own.
    let (vip, client) = (at(VIPS[1], 53), somebody(0xffff, false));
    let mut desk = Desk::new(RULES);
    desk.send(&udp(client, vip).payload(b"?").build());
    let answer = udp(at("fd00::2", 53), client).identification(1).payload_len(1000).fragments(600);
    assert_eq!(desk.send(&answer[1]).verdict, Verdict::Held);
    for number in 0..3_000_u32 {
        let beside = SocketAddr::new(Ipv6Addr::from_bits((0xfd00 << 112) | u128::from(number + 9)).into(), 53);
        desk.send(&udp(beside, vip).identification(number).payload_len(1000).fragments(600)[1]);
    }
    assert!(matches!(desk.send(&answer[0]).verdict, Verdict::Forward { .. }));
    assert_eq!(desk.transmits().len(), 1, "the part that waited");
}

#[test]
fn one_source_takes_no_more_than_its_share() {
    for vip in VIPS {
        let mut desk = Desk::new(RULES);
        let [first, second] = two_parts(7, at(vip, 53));
        assert_eq!(desk.send(&second).verdict, Verdict::Held);
        let greedy = |number: u32, is_ipv4: bool| match somebody(8, is_ipv4).ip() {
            // In IPv6 a host has a whole /64.
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() + u128::from(number))),
            address => address,
        };
        for number in 0..5_000 {
            let from = SocketAddr::new(greedy(number, !vip.contains(':')), 1024);
            let parts = udp(from, at(vip, 53)).identification(number).payload_len(2_000).fragments(1_000);
            assert_eq!(desk.send(&parts[1]).verdict, Verdict::Held);
        }
        assert!(desk.director.gauges().fragments <= 1_024 / 8 + 1, "{:?}", desk.director.gauges());
        assert!(matches!(desk.send(&first).verdict, Verdict::Forward { .. }));
        assert_eq!(desk.transmits().len(), 1, "{vip}: the part that waited");
    }
}

#[test]
fn the_bound_in_bytes_is_one_of_memory_not_of_payload() {
    let config = Desk::config().with(|config| config.fragment_bytes_max = 100_000);
    let mut desk = Desk::with_config(config, RULES);
    for number in 0..1_000 {
        desk.send(&udp(somebody(number, true), "192.0.2.1:53").payload_len(8).fragments(8)[1]);
    }
    // Each has 28 bytes, the headroom before them and what the allocator and the list need.
    assert!(desk.director.gauges().fragments < 100_000 / (28 + 64 + 40), "{:?}", desk.director.gauges());
    assert!(desk.director.drops(DropReason::FragmentTableFull) > 250);
    assert!(is_served(&mut desk, VIPS[0]));
}

/// A datagram filled with `byte`, in three parts: UDP, and SCTP where it is served.
fn datagrams(vip: &str, byte: u8) -> Vec<Vec<Vec<u8>>> {
    let client = if vip.contains(':') { "[2001:db8:c::7]:1024" } else { "198.51.100.7:1024" };
    let filling = [byte; 1_000];
    let datagram = udp(client, at(vip, 53)).payload(&filling);
    let message = (!vip.contains(':')).then(|| sctp(client, at(vip, 36_412)).chunk(1, &filling));
    std::iter::once(datagram).chain(message).map(|packet: Packet| packet.identification(77).fragments(400)).collect()
}

#[test]
fn a_datagram_is_not_in_the_way_of_the_next_of_its_number() {
    for vip in VIPS {
        for kind in 0..datagrams(vip, 0).len() {
            let parts = |byte: u8| datagrams(vip, byte).swap_remove(kind);
            // Each lost part, and each order of what comes after. That what is missing is of another datagram, if it
            // comes first, no receiver can see (RFC 4963).
            let orders = [[0, 1, 2], [2, 1, 0], [1, 0, 2]];
            let cases = (0..3).flat_map(|lost| orders.map(|order| (lost, order)));
            for (lost, order) in cases.filter(|(lost, order)| order[0] != *lost) {
                let mut desk = Desk::new(RULES);
                for (_, part) in parts(1).iter().enumerate().filter(|(index, _)| *index != lost) {
                    assert!(!matches!(desk.send(part).verdict, Verdict::Drop(_)));
                }
                desk.transmits();
                // One that is lost may take the next of its number with it where the order is not kept.
                let tries = if order == [0, 1, 2] { 1 } else { 2 };
                let arrives = (2..2 + tries).any(|byte| {
                    let whole = check(&mut desk, &order.map(|index| parts(byte)[index].clone()));
                    whole.is_some_and(|payload| payload.ends_with(&[byte; 600]))
                });
                assert!(arrives, "{vip}, lost {lost}, then {order:?}");
            }
        }
    }
}

#[test]
fn a_part_that_comes_twice_harms_nothing() {
    for vip in VIPS {
        for parts in datagrams(vip, 7) {
            let mut desk = Desk::new(RULES);
            let twice = [1, 1, 2, 2, 0].map(|index| parts[index].clone());
            assert!(check(&mut desk, &twice).is_some(), "{vip}");
            assert_eq!(desk.director.drops(DropReason::OverlappingFragment), 2);
        }
    }
}

#[test]
fn no_more_parts_wait_for_one_first_than_a_step_may_release() {
    let mut desk = Desk::new(RULES);
    let parts = udp("198.51.100.7:1024", "192.0.2.1:53").payload_len(65_000).fragments(8);
    let mut held = 0;
    for part in &parts[1..] {
        match desk.send(part).verdict {
            Verdict::Held => held += 1,
            verdict => assert_eq!(verdict, Verdict::Drop(DropReason::FragmentTableFull)),
        }
    }
    assert!(held <= 256, "{held}");
    assert!(matches!(desk.send(&parts[0]).verdict, Verdict::Forward { .. }));
    assert_eq!(desk.director.gauges().transmits, held);
    assert_eq!(desk.transmits().len(), held as usize);
}
