//! Network address translation, as clients and servers see it: both directions, both families, all three protocols.

use core::net::SocketAddr;
use core::time::Duration;

use lvs_core::{ChecksumOffload, DropReason, Gso, GsoKind, Offload, Verdict};
use lvs_testkit::{Desk, Storage, describe, icmp, icmp_error, sctp, tcp, udp};

const RULES: &str = "
-A -t 192.0.2.1:80 -s rr
-a -t 192.0.2.1:80 -r 10.0.0.2:8080 -m
-A -u 192.0.2.1:53 -s rr
-a -u 192.0.2.1:53 -r 10.0.0.2:5353 -m
-A --sctp-service 192.0.2.1:36412 -s rr
-a --sctp-service 192.0.2.1:36412 -r 10.0.0.2:36413 -m
-A -t [2001:db8::1]:80 -s rr
-a -t [2001:db8::1]:80 -r [fd00::2]:8080 -m
-A -u [2001:db8::1]:53 -s rr
-a -u [2001:db8::1]:53 -r [fd00::2]:5353 -m
";

/// Sends packets one by one and compares what comes of each with a line that names the ends.
fn check(steps: &[(Vec<u8>, &str)]) {
    let mut desk = Desk::new(RULES);
    for (index, (packet, expected)) in steps.iter().enumerate() {
        let line = desk.send(packet).line();
        assert!(line.starts_with(expected), "step {index}: {line}, expected {expected}");
    }
}

#[test]
fn a_tcp_conversation_passes_in_both_directions() {
    check(&[
        (
            tcp("198.51.100.7:1024", "192.0.2.1:80").syn().build(),
            "-> 10.0.0.2: 198.51.100.7.1024 > 10.0.0.2.8080 TCP S",
        ),
        (
            tcp("10.0.0.2:8080", "198.51.100.7:1024").syn().ack().build(),
            "-> 198.51.100.7: 192.0.2.1.80 > 198.51.100.7.1024 TCP SA",
        ),
        (
            tcp("198.51.100.7:1024", "192.0.2.1:80").ack().payload(b"odd").build(),
            "-> 10.0.0.2: 198.51.100.7.1024 > 10.0.0.2.8080 TCP A",
        ),
    ]);
}

#[test]
fn udp_and_sctp_and_ipv6_pass_too() {
    check(&[
        (
            udp("198.51.100.7:1024", "192.0.2.1:53").payload(b"q").build(),
            "-> 10.0.0.2: 198.51.100.7.1024 > 10.0.0.2.5353 UDP",
        ),
        (
            udp("10.0.0.2:5353", "198.51.100.7:1024").payload(b"a").build(),
            "-> 198.51.100.7: 192.0.2.1.53 > 198.51.100.7.1024 UDP",
        ),
        (
            sctp("198.51.100.7:1024", "192.0.2.1:36412").chunk(1, &[0; 16]).build(),
            "-> 10.0.0.2: 198.51.100.7.1024 > 10.0.0.2.36413 SCTP",
        ),
        (
            sctp("10.0.0.2:36413", "198.51.100.7:1024").chunk(2, &[0; 16]).build(),
            "-> 198.51.100.7: 192.0.2.1.36412 > 198.51.100.7.1024 SCTP",
        ),
        (
            tcp("[2001:db8:c::7]:1024", "[2001:db8::1]:80").syn().build(),
            "-> fd00::2: 2001:db8:c::7.1024 > fd00::2.8080 TCP S",
        ),
        (
            tcp("[fd00::2]:8080", "[2001:db8:c::7]:1024").syn().ack().build(),
            "-> 2001:db8:c::7: 2001:db8::1.80 > 2001:db8:c::7.1024 TCP SA",
        ),
        (
            udp("[2001:db8:c::7]:1024", "[2001:db8::1]:53").payload(b"q").build(),
            "-> fd00::2: 2001:db8:c::7.1024 > fd00::2.5353 UDP",
        ),
    ]);
}

#[test]
fn what_is_not_ours_passes_untouched() {
    check(&[
        (tcp("198.51.100.7:1024", "192.0.2.1:81").syn().build(), "Pass"),
        (tcp("198.51.100.7:1024", "192.0.2.1:80").ack().build(), "Pass"),
        (tcp("198.51.100.7:1024", "192.0.2.1:80").syn().rst().build(), "Pass"),
        (tcp("198.51.100.7:20", "192.0.2.1:80").syn().build(), "Pass"),
        (tcp("10.0.0.2:8080", "198.51.100.7:1024").syn().ack().build(), "Pass"),
        (icmp("198.51.100.7", "192.0.2.1", 8, 0, 1).build(), "Pass"),
    ]);
}

#[test]
fn a_service_without_a_usable_server_answers_port_unreachable() {
    let mut desk = Desk::new(RULES);
    desk.ipvsadm("-e -t 192.0.2.1:80 -r 10.0.0.2:8080 -m -w 0");
    let line = desk.send(&tcp("198.51.100.7:1024", "192.0.2.1:80").syn().build()).line();
    assert!(line.starts_with("<- 198.51.100.7: 192.0.2.1 > 198.51.100.7 ICMP 3/3"), "{line}");
}

#[test]
fn a_connection_outlives_its_servers_quiescing_but_not_its_deletion() {
    let mut desk = Desk::new(RULES);
    desk.send(&tcp("198.51.100.7:1024", "192.0.2.1:80").syn().build());
    let data = tcp("198.51.100.7:1024", "192.0.2.1:80").ack().payload(b"x").build();
    desk.ipvsadm("-e -t 192.0.2.1:80 -r 10.0.0.2:8080 -m -w 0");
    assert!(matches!(desk.send(&data).verdict, Verdict::Forward { .. }));
    desk.ipvsadm("-d -t 192.0.2.1:80 -r 10.0.0.2:8080");
    assert_eq!(desk.send(&data).verdict, Verdict::Drop(DropReason::ServerGone));
    let reply = tcp("10.0.0.2:8080", "198.51.100.7:1024").ack().build();
    assert!(matches!(desk.send(&reply).verdict, Verdict::Forward { .. }), "replies still flow");
    desk.ipvsadm("-a -t 192.0.2.1:80 -r 10.0.0.2:8080 -m");
    assert!(matches!(desk.send(&data).verdict, Verdict::Forward { .. }), "revived");
}

#[test]
fn a_hop_limit_of_one_is_answered_by_the_virtual_address_and_the_connection_stays() {
    let mut desk = Desk::new(RULES);
    let line = desk.send(&tcp("198.51.100.7:1024", "192.0.2.1:80").syn().hop_limit(1).build()).line();
    assert!(line.starts_with("<- 198.51.100.7: 192.0.2.1 > 198.51.100.7 ICMP 11/0"), "{line}");
    assert_eq!(desk.connections().len(), 1);
}

#[test]
fn a_reply_that_cannot_go_on_changes_nothing() {
    let mut desk = Desk::new(RULES);
    desk.send(&tcp("198.51.100.7:1024", "192.0.2.1:80").syn().build());
    let before = desk.connections();
    let line = desk.send(&tcp("10.0.0.2:8080", "198.51.100.7:1024").rst().hop_limit(1).build()).line();
    assert!(line.starts_with("<- 10.0.0.2: 10.0.0.254 > 10.0.0.2 ICMP 11/0"), "{line}");
    assert_eq!(desk.connections(), before);
}

#[test]
fn an_udp_datagram_without_checksum_leaves_with_one() {
    let mut desk = Desk::new(RULES);
    let sent = desk.send(&udp("198.51.100.7:1024", "192.0.2.1:53").no_checksum().payload(b"q").build());
    assert!(!describe(&sent.bytes).contains("csum0"));
}

#[test]
fn a_super_packet_is_judged_by_its_segments_and_passes_whole() {
    let mut desk = Desk::new(RULES);
    desk.send(&tcp("198.51.100.7:1024", "192.0.2.1:80").syn().build());
    let big = tcp("198.51.100.7:1024", "192.0.2.1:80").ack().dont_fragment().payload_len(30_000).partial_checksum();
    let offload = |size| Offload {
        checksum: ChecksumOffload::Partial { start: 20, offset: 16 },
        gso: Some(Gso { kind: GsoKind::TcpV4, size, ecn: false }),
    };
    let sent = desk.send_storage(Storage::with_room(&big.build(), 64, 64).offload(offload(1400)));
    assert!(matches!(sent.verdict, Verdict::Forward { .. }));
    assert_eq!(sent.bytes.len(), 30_040);
    let refused = desk.send_storage(Storage::with_room(&big.build(), 64, 64).offload(offload(1500)));
    assert!(matches!(refused.verdict, Verdict::Reply { .. }), "segments of 1540 bytes do not fit: {refused:?}");
}

#[test]
fn idle_connections_end_exactly_at_their_deadline() {
    let mut desk = Desk::new(RULES);
    desk.send(&udp("198.51.100.7:1024", "192.0.2.1:53").payload(b"q").build());
    desk.pass(Duration::from_millis(299_999));
    assert_eq!(desk.connections().len(), 1);
    desk.pass(Duration::from_millis(1));
    assert_eq!(desk.connections().len(), 0);
    let reply = udp("10.0.0.2:5353", "198.51.100.7:1024").payload(b"late").build();
    assert_eq!(desk.send(&reply).verdict, Verdict::Pass);
}

#[test]
fn a_connection_past_its_deadline_is_dead_though_nobody_cleared_it_away() {
    let mut desk = Desk::new(RULES);
    desk.send(&udp("198.51.100.7:1024", "192.0.2.1:53").payload(b"q").build());
    desk.now = desk.now + Duration::from_secs(300);
    assert_eq!(desk.connections().len(), 0);
    let service = desk.director.services(desk.now).into_iter().find(|s| s.key.port() == 53).unwrap();
    assert_eq!(service.servers[0].inactive_connections, 0);
    let reply = udp("10.0.0.2:5353", "198.51.100.7:1024").payload(b"late").build();
    assert_eq!(desk.send(&reply).verdict, Verdict::Pass);
}

#[test]
fn a_source_routed_packet_is_refused() {
    let mut desk = Desk::new(RULES);
    let loose_source_route = [131, 7, 4, 10, 9, 9, 9, 0];
    let packet = udp("198.51.100.7:1024", "192.0.2.1:53").ipv4_options(&loose_source_route).payload(b"q").build();
    assert_eq!(desk.send(&packet).verdict, Verdict::Drop(DropReason::SourceRouted));
    assert_eq!(desk.director.drops(DropReason::SourceRouted), 1);
}

#[test]
fn an_ipv6_routing_header_is_for_the_server_to_judge() {
    // Recording nat6_exthdr_ah: Linux schedules before the host looks at the header.
    let with_waypoint =
        |destination: &str| udp("[2001:db8:c::7]:1024", destination).extension(43, &[0, 1, 0, 0, 0, 0]).payload(b"q");
    let mut desk = Desk::new(RULES);
    let sent = desk.send(&with_waypoint("[2001:db8::1]:53").build());
    assert_eq!(describe(&sent.bytes), describe(&with_waypoint("[fd00::2]:5353").hop_limit(63).build()));
}

#[test]
fn a_servers_error_to_a_virtual_address_is_counted_and_stays_here() {
    // Recordings nat_icmp_to_director, nat6_icmp_to_director.
    for (client, service, real, method) in [
        ("198.51.100.7:1024", "192.0.2.1:53", "10.0.0.2:5353", "-m"),
        ("198.51.100.7:1024", "192.0.2.1:53", "10.0.0.2:53", "-g"),
        ("[2001:db8:c::7]:1024", "[2001:db8::1]:53", "[fd00::2]:5353", "-m"),
        ("[2001:db8:c::7]:1024", "[2001:db8::1]:53", "[fd00::2]:53", "-g"),
    ] {
        let mut desk = Desk::new(&format!("-A -u {service} -s rr\n-a -u {service} -r {real} {method}"));
        let request = desk.send(&udp(client, service).payload(b"q").build()).bytes;
        let (server, director) = (real.parse::<SocketAddr>().unwrap(), service.parse::<SocketAddr>().unwrap());
        let unreachable = |quoted: &[u8]| {
            let icmp_type = if server.is_ipv4() { 3 } else { 1 };
            icmp(server.ip(), director.ip(), icmp_type, 1, 0).payload(quoted)
        };
        let error = unreachable(&request).build();
        assert_eq!(desk.send(&error).verdict, Verdict::Pass);
        let live = desk.director.statistics().live;
        assert_eq!((live.out_packets, live.out_bytes), (1, error.len() as u64), "{service} {method}");
        let damaged = desk.send(&unreachable(&request).bad_checksum().build()).verdict;
        let expected = if method == "-m" { Verdict::Drop(DropReason::BadIcmpChecksum) } else { Verdict::Pass };
        assert_eq!(damaged, expected);
    }
}

#[test]
fn an_error_that_may_open_a_flow_but_quotes_no_ports_is_dropped() {
    // Recordings misc_icmp_portless, misc_icmp6_portless.
    for (server, client, service, icmp_type) in [
        ("10.0.0.2:5353", "198.51.100.7:1024", "192.0.2.1:53", 3),
        ("[fd00::2]:5353", "[2001:db8:c::7]:1024", "[2001:db8::1]:53", 1),
    ] {
        let [source, target, director] =
            [server, client, service].map(|end| end.parse::<SocketAddr>().expect("an endpoint").ip());
        let quoted = udp(client, server).payload(b"q").build();
        let header_len = quoted.len() - 9;
        for (destination, schedules, ports, expected) in [
            (target, false, 2, Verdict::Pass),
            (target, true, 2, Verdict::Drop(DropReason::TruncatedIcmp)),
            (director, true, 0, Verdict::Drop(DropReason::TruncatedIcmp)),
            (target, true, 4, Verdict::Pass),
        ] {
            let mut desk = Desk::new(RULES);
            desk.set(|settings| settings.schedule_icmp = schedules);
            let error = icmp(source, destination, icmp_type, 1, 0).payload(&quoted[..header_len + ports]);
            assert_eq!(desk.send(&error.build()).verdict, expected, "{destination} {schedules} {ports}");
        }
    }
}

#[test]
fn an_error_that_opens_a_flow_is_translated_also_where_datagrams_are_scheduled_one_by_one() {
    let mut desk = Desk::new("-A -u 192.0.2.1:53 -s rr -o\n-a -u 192.0.2.1:53 -r 10.0.0.2:5353 -m");
    desk.set(|settings| settings.schedule_icmp = true);
    let reply = udp("192.0.2.1:53", "198.51.100.7:5353").payload(b"answer").build();
    let error = icmp_error("198.51.100.7", 3, 3, 0, &reply);
    let line = desk.send(&error.build()).line();
    assert!(line.contains("{10.0.0.2.5353 > 198.51.100.7.5353 UDP"), "what is quoted is translated: {line}");
    let damaged = icmp_error("198.51.100.8", 3, 3, 0, &udp("192.0.2.1:53", "198.51.100.8:5353").build()).bad_checksum();
    assert_eq!(desk.send(&damaged.build()).verdict, Verdict::Drop(DropReason::BadIcmpChecksum));
}

#[test]
fn a_packet_without_room_for_the_answer_is_dropped_as_it_came() {
    let mut desk = Desk::new(RULES);
    let big = udp("198.51.100.7:1024", "192.0.2.1:53").dont_fragment().payload_len(1600).build();
    let refused = desk.send_storage(Storage::with_room(&big, 8, 64));
    assert_eq!(refused.verdict, Verdict::Drop(DropReason::NoHeadroom));
    assert_eq!(refused.bytes, big);
}
