//! The host stand-in beyond what was recorded: routing, its refusals, fragments, and bytes of strangers.

use lvs_core::answer_limit::AnswerRates;
use lvs_core::{ChecksumOffload, Direction, Gso, GsoKind, Instant, Offload, Seed, Side};
use lvs_io::{Host, HostConfig, Transmit};
use lvs_testkit::{Storage, describe, icmp, icmp_error, oracle, raw, strategy, tcp, udp};
use proptest::prelude::*;

const CLIENT: &str = "203.0.113.7:1024";
const SERVER: &str = "10.0.0.2:8080";
const CLIENT_V6: &str = "[2001:db8::7]:1024";
const SERVER_V6: &str = "[fd00::2]:8080";

/// A host with 192.0.2.80 and 2001:db8:80::1, servers in 10/8 and fd00::/8, and MTU 1300 towards the clients.
fn host() -> Host {
    let side = |mtu, ipv4: &str, ipv6: &str| {
        Side::default().with(|side| {
            side.mtu = mtu;
            side.ipv4 = ipv4.parse().ok();
            side.ipv6 = ipv6.parse().ok();
        })
    };
    let config = HostConfig {
        answer_rates: AnswerRates::UNLIMITED,
        client_side: side(1300, "192.0.2.1", "2001:db8:c::1"),
        server_side: side(1500, "10.255.255.254", "fd00::ff"),
        local_addresses: vec!["192.0.2.80".parse().unwrap(), "2001:db8:80::1".parse().unwrap()],
        servers: vec![("10.0.0.0".parse().unwrap(), 8), ("fd00::".parse().unwrap(), 8)],
        answers_only: false,
    };
    Host::new(config, Seed::new(1))
}

/// What the host sends for a packet: the side it leaves by, whom it goes to, and the packet in a line.
fn sent(host: &mut Host, came: Direction, packet: &[u8]) -> Option<String> {
    let mut storage = Storage::with_room(packet, 64, 1500);
    let mut buffer = storage.packet();
    let Transmit { next_hop, direction, .. } = host.handle_packet(Instant::ZERO, came, &mut buffer)?;
    assert_eq!(oracle::checksum_errors(buffer.bytes()), [""; 0], "{}", describe(buffer.bytes()));
    let side = if direction == Direction::Request { "servers" } else { "clients" };
    Some(format!("to {side} by {next_hop}: {}", describe(buffer.bytes())))
}

#[track_caller]
fn check(came: Direction, packet: &[u8], wanted: &str) {
    let answer = sent(&mut host(), came, packet).unwrap_or_default();
    assert!(answer.starts_with(wanted), "\n  got    {answer:?}\n  wanted {wanted:?}");
}

use Direction::{Reply, Request};

#[test]
fn packets_for_elsewhere_are_routed_with_a_lower_hop_limit() {
    check(Request, &udp(CLIENT, SERVER).build(), "to servers by 10.0.0.2: 203.0.113.7.1024 > 10.0.0.2.8080 UDP");
    check(Reply, &tcp(SERVER, CLIENT).build(), "to clients by 203.0.113.7: 10.0.0.2.8080 > 203.0.113.7.1024 TCP");
    check(Reply, &udp(SERVER_V6, CLIENT_V6).build(), "to clients by 2001:db8::7: fd00::2.8080 > 2001:db8::7.1024 UDP");
    let routed = sent(&mut host(), Request, &udp(CLIENT, SERVER).hop_limit(2).build()).unwrap();
    assert!(routed.contains("ttl=1 "), "{routed}");
}

#[test]
fn a_routed_packet_that_records_its_route_gets_the_address_it_leaves_from() {
    let record_route = udp(SERVER, CLIENT).ipv4_options(&[7, 7, 4, 0, 0, 0, 0]).build();
    let mut storage = Storage::new(&record_route);
    let mut buffer = storage.packet();
    let _ = host().handle_packet(Instant::ZERO, Reply, &mut buffer).expect("routed");
    assert_eq!(buffer.bytes()[20..28], [7, 7, 8, 192, 0, 2, 1, 0]);
    assert_eq!(oracle::checksum_errors(buffer.bytes()), [""; 0]);
}

#[test]
fn a_used_up_hop_limit_is_told_from_the_side_the_packet_came_from() {
    check(
        Request,
        &udp(CLIENT, SERVER).hop_limit(1).build(),
        "to clients by 203.0.113.7: 192.0.2.1 > 203.0.113.7 ICMP 11/0",
    );
    check(
        Reply,
        &udp(SERVER_V6, CLIENT_V6).hop_limit(1).build(),
        "to servers by fd00::2: fd00::ff > fd00::2 ICMP6 3/0",
    );
}

#[test]
fn a_packet_too_long_for_the_way_out_is_refused_or_left_to_be_fragmented() {
    let long = || udp(SERVER, CLIENT).payload_len(1400);
    check(
        Reply,
        &long().dont_fragment().build(),
        "to servers by 10.0.0.2: 10.255.255.254 > 10.0.0.2 ICMP 3/4 info=00000514",
    );
    check(Reply, &long().build(), "to clients by 203.0.113.7: 10.0.0.2.8080 > 203.0.113.7.1024 UDP");
    let long_v6 = udp(SERVER_V6, CLIENT_V6).payload_len(1400).build();
    check(Reply, &long_v6, "to servers by fd00::2: fd00::ff > fd00::2 ICMP6 2/0 info=00000514");
}

#[test]
fn a_super_packet_is_measured_by_its_segments() {
    for (size, passes) in [(1248, true), (1260, false)] {
        let packet =
            tcp(SERVER, CLIENT).ack().dont_fragment().tcp_options(&[1; 12]).payload_len(4000).partial_checksum();
        let checksum = packet.offload();
        assert!(matches!(checksum, ChecksumOffload::Partial { .. }));
        let gso = Some(Gso { kind: GsoKind::TcpV4, size, ecn: false });
        let mut storage = Storage::new(&packet.build()).offload(Offload { checksum, gso });
        let mut buffer = storage.packet();
        let sent = host().handle_packet(Instant::ZERO, Reply, &mut buffer).expect("routed or refused");
        assert_eq!(sent.direction == Reply, passes, "segments of {size} bytes: {}", describe(buffer.bytes()));
        assert_eq!(buffer.offload.gso.is_some(), passes);
    }
}

#[test]
fn nobody_is_told_about_errors_resets_and_packets_from_nowhere() {
    let stray = udp("192.0.2.80:80", CLIENT).build();
    for packet in [
        icmp_error("203.0.113.7", 3, 3, 0, &stray).build(),
        tcp(CLIENT, "192.0.2.80:80").rst().build(),
        udp("0.0.0.0:68", "192.0.2.80:67").build(),
        udp("224.0.0.5:1", "192.0.2.80:67").build(),
        udp(CLIENT, "224.0.0.1:1").build(),
        udp(CLIENT, "255.255.255.255:67").build(),
        udp("[fe80::1]:1", "[ff02::1]:1").build(),
        udp("[fe80::1]:1", CLIENT_V6).build(),
        icmp("203.0.113.7", "192.0.2.80", 13, 0, 0).build(),
        tcp(CLIENT, "192.0.2.80:80").syn().bad_checksum().build(),
        udp(CLIENT, "192.0.2.80:80").payload(b"hello").bad_checksum().build(),
        udp(CLIENT_V6, "[2001:db8:80::1]:80").payload(b"hello").no_checksum().build(),
        udp(CLIENT, SERVER).bad_ip_checksum().build(),
    ] {
        assert_eq!(sent(&mut host(), Request, &packet), None, "{}", describe(&packet));
    }
}

#[test]
fn an_unknown_header_behind_extension_headers_is_pointed_at() {
    let packet = raw("2001:db8::7", "2001:db8:80::1", 99).hop_by_hop().destination_options().build();
    check(Request, &packet, "to clients by 2001:db8::7: 2001:db8:80::1 > 2001:db8::7 ICMP6 4/1 info=00000030");
}

#[test]
fn extension_headers_the_host_cannot_process_are_pointed_at() {
    let segment = || tcp(CLIENT_V6, "[2001:db8:80::1]:80").syn();
    let answer = "to clients by 2001:db8::7: 2001:db8:80::1 > 2001:db8::7 ICMP6 ";
    for (packet, told) in [
        (segment().extension(51, &[0; 22]), "4/1 info=00000006"),
        (segment().hop_by_hop().extension(51, &[0; 14]), "4/1 info=00000028"),
        (segment().extension(43, &[0, 1, 0, 0, 0, 0]), "4/0 info=0000002a"),
        (segment().destination_options().extension(43, &[5, 9, 0, 0, 0, 0]), "4/0 info=00000032"),
    ] {
        check(Request, &packet.build(), &format!("{answer}{told}"));
    }
    // Without segments left the header has done its work.
    check(
        Request,
        &segment().extension(43, &[0, 0, 0, 0, 0, 0]).build(),
        "to clients by 2001:db8::7: 2001:db8:80::1.80 > ",
    );
}

#[test]
fn a_reset_has_the_segments_traffic_class_without_ecn() {
    for (client, local) in [(CLIENT, "192.0.2.80:80"), (CLIENT_V6, "[2001:db8:80::1]:80")] {
        for (class, expected) in [(0xff, "tos=fc "), (0x03, "len="), (0xb8, "tos=b8 ")] {
            let reset = sent(&mut host(), Request, &tcp(client, local).syn().traffic_class(class).build()).unwrap();
            let class = reset.split("ttl=64 ").nth(1).unwrap();
            assert!(class.starts_with(expected), "{reset}");
        }
    }
}

#[test]
fn fragments_for_the_host_are_put_together_and_answered_once() {
    for whole in [
        udp(CLIENT, "192.0.2.80:80").payload_len(700).identification(7),
        udp(CLIENT_V6, "[2001:db8:80::1]:80").payload_len(700).identification(7),
    ] {
        let mut host = host();
        let mut fragments = whole.fragments(304);
        assert_eq!(fragments.len(), 3);
        fragments.rotate_left(1);
        let last = fragments.pop().unwrap();
        for fragment in &fragments {
            assert_eq!(sent(&mut host, Request, fragment), None);
        }
        let answer = sent(&mut host, Request, &last).expect("the datagram is whole");
        assert!(answer.contains("ICMP 3/3") || answer.contains("ICMP6 1/4"), "{answer}");
        assert_eq!(host.counters().fragments_kept, 2);
    }
}

#[test]
fn a_big_ping_in_fragments_is_answered() {
    let mut host = host();
    let request = icmp("203.0.113.7", "192.0.2.80", 8, 0, 0x0001_0002).payload_len(1200).identification(9);
    let fragments = request.fragments(600);
    for fragment in &fragments[..fragments.len() - 1] {
        assert_eq!(sent(&mut host, Request, fragment), None);
    }
    let mut storage = Storage::with_room(fragments.last().unwrap(), 64, 2000);
    let mut buffer = storage.packet();
    let sent = host.handle_packet(Instant::ZERO, Request, &mut buffer).expect("a reply");
    assert_eq!((sent.direction, buffer.len()), (Reply, 1228));
    assert!(describe(buffer.bytes()).contains("ICMP 0/0 info=00010002"), "{}", describe(buffer.bytes()));
}

proptest! {
    #[test]
    fn whatever_comes_in_nothing_panics_and_what_goes_out_is_well_formed(
        packets in prop::collection::vec((strategy::mutated(), any::<bool>()), 1..20),
    ) {
        let mut host = host();
        for (bytes, from_servers) in packets {
            let mut storage = Storage::new(&bytes);
            let mut buffer = storage.packet();
            let came = if from_servers { Reply } else { Request };
            if host.handle_packet(Instant::ZERO, came, &mut buffer).is_some() {
                prop_assert!(oracle::parse(buffer.bytes()).is_some(), "{}", describe(buffer.bytes()));
            }
        }
    }
}

#[test]
fn no_more_is_answered_than_the_limits_allow() {
    for (source, to) in [("198.51.100.7:1024", "192.0.2.80:53"), ("[2001:db8::7]:1024", "[2001:db8:80::1]:53")] {
        let mut host = host();
        host.set_answer_rates(AnswerRates::LINUX.with(|rates| rates.resets_per_sec = 3));
        let mut answered =
            |packet: &[u8]| (0..20).filter(|_| sent(&mut host, Direction::Request, packet).is_some()).count();
        assert_eq!(answered(&udp(source, to).payload(b"?").build()), 6);
        assert_eq!(answered(&tcp(source, to).syn().build()), 3);
        assert_eq!(host.counters().answers_limited, 14 + 17);
        host.set_answer_rates(AnswerRates::UNLIMITED);
        let all = (0..20).filter(|_| sent(&mut host, Direction::Request, &udp(source, to).build()).is_some());
        assert_eq!(all.count(), 20);
    }
}
