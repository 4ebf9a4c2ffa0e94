//! Servers behind tunnels, as clients, servers and routers on the way see them.

use core::time::Duration;

use lvs_core::tunnel::{Accepts, decapsulate};
use lvs_core::wire::fragment::fragment;
use lvs_core::wire::rewrite::complete_checksum;
use lvs_core::{DropReason, Gso, GsoKind, Offload, Verdict};
use lvs_testkit::{Desk, Outcome, Packet, Storage, describe, icmp, icmp_error, oracle, tcp, udp};

/// Every encapsulation, and what is left of 1500 bytes inside it over IPv4 and over IPv6 (`tun_*_mtu`, `tun6_*_mtu`).
const KINDS: [(&str, u16, u16); 6] = [
    ("--tun-type ipip", 1480, 1460),
    ("--tun-type gre", 1476, 1456),
    ("--tun-type gre --tun-csum", 1472, 1452),
    ("--tun-type gue --tun-port 6080", 1468, 1448),
    ("--tun-type gue --tun-port 6080 --tun-csum", 1468, 1448),
    ("--tun-type gue --tun-port 6080 --tun-remcsum", 1468, 1448),
];
const SERVER: &str = "10.0.0.2";
const SERVER_V6: &str = "fd00::2";

/// Services on port 80 of 192.0.2.1 and 2001:db8::1, TCP and UDP, each with this one server.
fn desk(server: &str, options: &str) -> Desk {
    let server = if server.contains(':') { format!("[{server}]:80") } else { format!("{server}:80") };
    let mut rules = String::new();
    for service in ["-t 192.0.2.1:80", "-u 192.0.2.1:80", "-t [2001:db8::1]:80", "-u [2001:db8::1]:80"] {
        rules += &format!("-A {service} -s rr\n-a {service} -r {server} -i {options}\n");
    }
    Desk::new(&rules)
}

/// A request of `len` bytes, IP header included.
fn request(v6: bool, len: u16) -> Packet {
    if v6 {
        udp("[2001:db8:c::7]:1024", "[2001:db8::1]:80").payload_len(usize::from(len) - 48)
    } else {
        udp("198.51.100.7:1024", "192.0.2.1:80").payload_len(usize::from(len) - 28)
    }
}

/// What the server takes out of its tunnel.
fn taken_out(packet: &[u8]) -> Vec<u8> {
    let accepts = Accepts { ipip: true, gre: true, gue_port: Some(6080) };
    let mut storage = Storage::new(packet);
    let mut buffer = storage.packet();
    let kind = decapsulate(&mut buffer, &accepts);
    assert!(matches!(kind, Ok(Some(_))), "{kind:?}: {}", describe(packet));
    buffer.bytes().to_vec()
}

fn check(outcome: &Outcome, expected: &str) {
    let line = outcome.line();
    assert!(line.starts_with(expected), "{line}\nexpected {expected}");
}

#[test]
fn every_tunnel_carries_both_families_over_both() {
    for (options, ..) in KINDS {
        for server in [SERVER, SERVER_V6] {
            for v6 in [false, true] {
                let mut desk = desk(server, options);
                let sent = desk.send(&request(v6, 100).build());
                check(&sent, &format!("-> {server}: "));
                assert_eq!(taken_out(&sent.bytes), request(v6, 100).hop_limit(63).build(), "{options}");
            }
        }
    }
}

#[test]
fn a_packet_too_long_for_the_tunnel_is_answered_with_what_fits() {
    for (options, over_ipv4, over_ipv6) in KINDS {
        for (server, mtu) in [(SERVER, over_ipv4), (SERVER_V6, over_ipv6)] {
            for v6 in [false, true] {
                let mut desk = desk(server, options);
                let fits = desk.send(&request(v6, mtu).dont_fragment().build());
                check(&fits, &format!("-> {server}: "));
                assert!(fits.bytes.len() <= 1500, "{options}");
                let answer = desk.send(&request(v6, mtu + 1).dont_fragment().build());
                let expected = if v6 {
                    format!("<- 2001:db8:c::7: 2001:db8::1 > 2001:db8:c::7 ICMP6 2/0 info={mtu:08x} ")
                } else {
                    format!("<- 198.51.100.7: 192.0.2.1 > 198.51.100.7 ICMP 3/4 info={mtu:08x} ")
                };
                check(&answer, &expected);
            }
        }
    }
}

#[test]
fn a_long_packet_that_may_be_fragmented_is_sent_in_fragments_of_the_outside() {
    for (server, pmtu_disc, packet) in [
        (SERVER, true, request(false, 1500)),
        (SERVER, false, request(false, 1500).dont_fragment()),
        (SERVER_V6, true, request(false, 1500)),
        (SERVER_V6, false, request(false, 1500).dont_fragment()),
    ] {
        let mut desk = desk(server, "--tun-type gre --tun-csum");
        desk.set(|settings| settings.pmtu_disc = pmtu_disc);
        let sent = desk.send(&packet.build());
        let Verdict::Forward { mtu: 1500, .. } = sent.verdict else { panic!("{sent:?}") };
        let mut parts = Vec::new();
        fragment(&sent.bytes, 1500, 0, &mut [0; 1500], |part| parts.push(part.to_vec())).unwrap();
        assert_eq!(parts.len(), 2);
        let gre = oracle::reassemble(parts.iter().map(Vec::as_slice)).unwrap();
        assert_eq!(gre[8..], packet.hop_limit(63).build());
    }
}

#[test]
fn outer_packets_that_may_be_fragmented_have_identifications_of_their_own() {
    let mut desk = desk(SERVER, "");
    let mut seen: Vec<u16> = (0..1000)
        .map(|_| desk.send(&request(false, 40).build()).bytes)
        .map(|bytes| u16::from_be_bytes([bytes[4], bytes[5]]))
        .collect();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 1000);
}

#[test]
fn a_flow_keeps_its_gue_source_port_and_flows_differ() {
    let mut desk = desk(SERVER, "--tun-type gue --tun-port 6080");
    let mut ports = Vec::new();
    for client_port in 1024..1056u16 {
        let client = format!("198.51.100.7:{client_port}");
        let source_port = |desk: &mut Desk, packet: Packet| {
            let bytes = desk.send(&packet.build()).bytes;
            u16::from_be_bytes([bytes[20], bytes[21]])
        };
        let first = source_port(&mut desk, tcp(client.as_str(), "192.0.2.1:80").syn());
        let second = source_port(&mut desk, tcp(client.as_str(), "192.0.2.1:80").ack().payload(b"GET"));
        assert_eq!(first, second);
        assert!((32_768..=60_999).contains(&first), "{first}");
        ports.push(first);
    }
    ports.sort_unstable();
    ports.dedup();
    assert!(ports.len() > 28, "32 flows have {} ports", ports.len());
}

#[test]
fn a_server_edited_to_another_tunnel_changes_it_for_the_connections_it_has() {
    // Recording tun_mixed_types.
    let mut desk = desk(SERVER, "--tun-type gre");
    check(&desk.send(&request(false, 60).build()), "-> 10.0.0.2: 10.0.0.254 > 10.0.0.2 GRE");
    desk.ipvsadm("-e -u 192.0.2.1:80 -r 10.0.0.2:80 -i --tun-type ipip");
    check(&desk.send(&request(false, 60).build()), "-> 10.0.0.2: 10.0.0.254 > 10.0.0.2 IPIP");
}

#[test]
fn without_an_address_of_the_servers_family_there_is_no_tunnel() {
    let mut config = Desk::config();
    config.server_side.ipv6 = None;
    let rules = "-A -u 192.0.2.1:80 -s rr\n-a -u 192.0.2.1:80 -r [fd00::2]:80 -i";
    let mut desk = Desk::with_config(config, rules);
    assert_eq!(desk.send(&request(false, 60).build()).verdict, Verdict::Drop(DropReason::NotForwardable));
}

#[test]
fn a_server_that_is_the_directors_own_host_gets_packets_as_they_came() {
    let mut desk = desk("10.0.0.254", "");
    let sent = desk.send(&request(false, 60).build());
    assert_eq!((sent.verdict, sent.bytes), (Verdict::Local, request(false, 60).build()));
    assert_eq!(desk.connections().len(), 1);
}

#[test]
fn a_way_too_short_for_any_tunnel_carries_nothing() {
    // Linux asks of a way over IPv6 that 1280 bytes fit into the tunnel.
    for (server, mtu, is_linux, expected) in [
        (SERVER, 87, false, false),
        (SERVER, 88, false, true),
        (SERVER_V6, 107, false, false),
        (SERVER_V6, 108, false, true),
        (SERVER_V6, 1_319, true, false),
        (SERVER_V6, 1_320, true, true),
    ] {
        let mut config = Desk::config();
        config.server_side.mtu = mtu;
        config.settings.tunnel_least_mtu = !is_linux;
        let server = if server.contains(':') { format!("[{server}]:80") } else { format!("{server}:80") };
        let mut desk =
            Desk::with_config(config, &format!("-A -u 192.0.2.1:80 -s rr\n-a -u 192.0.2.1:80 -r {server} -i"));
        let verdict = desk.send(&request(false, 60).build()).verdict;
        assert_eq!(matches!(verdict, Verdict::Forward { .. }), expected, "{mtu}: {verdict:?}");
        assert!(expected || verdict == Verdict::Drop(DropReason::NotForwardable));
    }
}

#[test]
fn too_little_headroom_is_a_drop() {
    let mut desk = desk(SERVER_V6, "--tun-type gue --tun-port 6080");
    let packet = request(false, 60).build();
    // 40 bytes of IPv6, 8 of UDP, 4 of GUE.
    let verdict = desk.send_storage(Storage::with_room(&packet, 51, 2048)).verdict;
    assert_eq!(verdict, Verdict::Drop(DropReason::NoHeadroom));
    check(&desk.send_storage(Storage::with_room(&packet, 52, 2048)), "-> fd00::2: ");
}

#[test]
fn a_fragmented_datagram_enters_the_tunnel_whole() {
    // Recordings tun_frag, tun6_frag.
    for (options, ..) in KINDS {
        for v6 in [false, true] {
            let parts = request(v6, 1000).identification(7).fragments(400);
            for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
                let mut desk = desk(SERVER, options);
                for index in order {
                    assert_eq!(desk.send(&parts[index]).verdict, Verdict::Held);
                }
                let sent = desk.transmits();
                assert_eq!(sent.len(), 1);
                assert_eq!(taken_out(&sent[0].bytes), request(v6, 1000).identification(7).hop_limit(63).build());
                assert_eq!(desk.connections().len(), 1);
            }
        }
    }
}

#[test]
fn a_datagram_that_stays_incomplete_is_dropped_in_time() {
    let mut desk = desk(SERVER, "");
    let parts = request(false, 1000).fragments(400);
    assert_eq!(desk.send(&parts[0]).verdict, Verdict::Held);
    assert_eq!(desk.send(&parts[2]).verdict, Verdict::Held);
    desk.pass(Duration::from_secs(31));
    assert_eq!(desk.transmits(), []);
    assert_eq!(desk.director.drops(DropReason::FragmentTimeout), 2);
}

#[test]
fn a_servers_error_about_the_tunnel_reaches_the_client_as_one_about_its_packet() {
    // Recording tun_icmp; GRE and GUE are mix_12 and others.
    for (options, ..) in KINDS {
        for (icmp_type, code, rest) in [(3, 1, 0), (3, 3, 0x578), (11, 0, 0)] {
            let mut desk = desk(SERVER, options);
            let sent = desk.send(&request(false, 100).build());
            let error = icmp_error("10.0.0.2", icmp_type, code, rest, &sent.bytes).build();
            let told = desk.send(&error);
            let quoted = describe(&request(false, 100).hop_limit(63).build());
            let expected = format!(
                "<- 198.51.100.7: 192.0.2.1 > 198.51.100.7 ICMP {icmp_type}/{code} info={rest:08x} {{{quoted}}}"
            );
            check(&told, &expected);
        }
    }
}

#[test]
fn a_reported_path_mtu_holds_for_ten_minutes() {
    let mut desk = desk(SERVER, "");
    let long = request(false, 1400).dont_fragment().build();
    let sent = desk.send(&long);
    let error = icmp_error("10.0.0.9", 3, 4, 1300, &sent.bytes[..100]).build();
    // As Linux does: the client is told of the route as it was last used, and the truth with its next packet.
    check(&desk.send(&error), "<- 198.51.100.7: 192.0.2.1 > 198.51.100.7 ICMP 3/4 info=000005c8");
    check(&desk.send(&long), "<- 198.51.100.7: 192.0.2.1 > 198.51.100.7 ICMP 3/4 info=00000500");
    check(&desk.send(&error), "<- 198.51.100.7: 192.0.2.1 > 198.51.100.7 ICMP 3/4 info=00000500");
    desk.pass(Duration::from_secs(599));
    check(&desk.send(&long), "<- 198.51.100.7: ");
    desk.pass(Duration::from_secs(1));
    check(&desk.send(&long), "-> 10.0.0.2: ");
}

#[test]
fn a_refusal_of_a_client_that_comes_again_counts_as_an_answer_of_the_server_it_had() {
    // Recording reuse_refused.
    for (method, answers) in [("-i", 1), ("-g", 1), ("-m", 0)] {
        let service = "-t 192.0.2.1:80";
        let mut desk = Desk::new(&format!("-A {service} -s rr\n-a {service} -r {SERVER}:80 {method}"));
        desk.set(|settings| settings.expire_nodest_conn = true);
        let syn = tcp("198.51.100.7:1024", "192.0.2.1:80").syn().build();
        check(&desk.send(&syn), "-> 10.0.0.2: ");
        desk.ipvsadm(&format!("-e {service} -r {SERVER}:80 {method} -w 0"));
        let refusal = desk.send(&syn);
        check(&refusal, "<- 198.51.100.7: 192.0.2.1 > 198.51.100.7 ICMP 3/3");
        let live = desk.director.statistics().live;
        assert_eq!((live.out_packets, live.out_bytes), (answers, answers * refusal.bytes.len() as u64), "{method}");
        // The connection is gone: the next refusal is nobody's.
        check(&desk.send(&syn), "<- ");
        assert_eq!(desk.director.statistics().live.out_packets, answers, "{method}");
    }
}

#[test]
fn a_route_a_router_told_of_before_follows_at_once() {
    // Recording tun_icmp_pmtu.
    let mut desk = desk(SERVER, "");
    let sent = desk.send(&request(false, 1000).dont_fragment().build());
    let report = |desk: &mut Desk, mtu: u32| desk.send(&icmp_error("10.0.0.9", 3, 4, mtu, &sent.bytes).build());
    desk.pass(Duration::from_millis(5));
    check(&report(&mut desk, 1400), "<- 198.51.100.7: 192.0.2.1 > 198.51.100.7 ICMP 3/4 info=000005c8");
    desk.pass(Duration::from_millis(5));
    check(&report(&mut desk, 1390), "<- 198.51.100.7: 192.0.2.1 > 198.51.100.7 ICMP 3/4 info=000005c8");
    check(&desk.send(&request(false, 1000).dont_fragment().build()), "-> 10.0.0.2: ");
    desk.pass(Duration::from_millis(5));
    check(&report(&mut desk, 1300), "<- 198.51.100.7: 192.0.2.1 > 198.51.100.7 ICMP 3/4 info=00000500");
    check(&report(&mut desk, 1350), "<- 198.51.100.7: 192.0.2.1 > 198.51.100.7 ICMP 3/4 info=00000500");
}

#[test]
fn as_in_linux_the_path_mtu_of_a_gue_tunnel_is_learned_from_its_udp_header_alone() {
    // Recordings tun_icmp_pmtu_gue, tun_6over4_icmp_pmtu_gue; the other tunnels' is not (tun_6over4_icmp_pmtu_gre).
    let rules = |options: &str| {
        let service = "-u [2001:db8::1]:80";
        format!("-A {service} -s rr\n-a {service} -r {SERVER}:80 -i {options}")
    };
    for (options, learns) in [("--tun-type gue --tun-port 6080", true), ("--tun-type gre", false), ("", false)] {
        let mut desk = Desk::new(&rules(options));
        desk.set(|settings| (settings.tunnel_mtu_proof, settings.tunnel_least_mtu) = (false, false));
        let long = request(true, 1400).build();
        let sent = desk.send(&long).bytes;
        let error = |len: usize| icmp_error("10.0.0.9", 3, 4, 1300, &sent[..len]);
        let mut of_another_director = sent[..28].to_vec();
        of_another_director[15] ^= 1;
        let of_another_director = icmp("10.0.0.9", "10.0.0.254", 3, 4, 1300).payload(&of_another_director);
        for refused in [error(27), error(28).bad_checksum(), of_another_director].map(|packet| packet.build()) {
            assert_eq!(desk.send(&refused).verdict, Verdict::Pass);
        }
        check(&desk.send(&long), "-> 10.0.0.2: ");
        let expected = if learns { Verdict::Drop(DropReason::PathMtuLearned) } else { Verdict::Pass };
        assert_eq!(desk.send(&error(28).build()).verdict, expected);
        let told = if learns { "<- 2001:db8:c::7: 2001:db8::1 > 2001:db8:c::7 ICMP6 2/0 info=000004f4" } else { "-> " };
        check(&desk.send(&long), told);
    }
}

#[test]
fn a_path_mtu_only_shrinks_and_not_below_552() {
    let mut desk = desk(SERVER, "");
    let long = request(false, 1400).dont_fragment().build();
    let sent = desk.send(&long);
    for (reported, told) in [(1000, 980), (1200, 980), (9000, 980), (68, 532), (0, 532)] {
        let _ = desk.send(&icmp_error("10.0.0.9", 3, 4, reported, &sent.bytes[..100]).build());
        check(&desk.send(&long), &format!("<- 198.51.100.7: 192.0.2.1 > 198.51.100.7 ICMP 3/4 info={told:08x}"));
    }
}

#[test]
fn a_client_whose_packets_may_be_fragmented_is_not_told_of_the_path_mtu() {
    let mut desk = desk(SERVER, "");
    // Without DF there is no proof.
    desk.set(|settings| settings.tunnel_mtu_proof = false);
    let sent = desk.send(&request(false, 1400).build());
    let error = icmp_error("10.0.0.9", 3, 4, 1300, &sent.bytes).build();
    assert_eq!(desk.send(&error).verdict, Verdict::Drop(DropReason::PathMtuLearned));
    let Verdict::Forward { mtu, .. } = desk.send(&request(false, 1400).build()).verdict else { panic!("refused") };
    assert_eq!(mtu, 1300);
}

#[test]
fn errors_that_are_not_about_our_tunnels_are_not_relayed() {
    let mut desk = desk(SERVER, "");
    let sent = desk.send(&request(false, 100).build()).bytes;
    desk.ipvsadm("-a -u 192.0.2.1:80 -r 10.0.0.9:80 -i");
    let error = |quoted: &[u8]| icmp_error("10.0.0.2", 3, 1, 0, quoted).build();
    let mut to_another_server = sent.clone();
    to_another_server[19] = 9;
    let mut of_another_flow = sent.clone();
    of_another_flow[41] ^= 1;
    let mut from_another_director = sent.clone();
    from_another_director[15] = 9;
    for quoted in [&to_another_server[..], &of_another_flow, &from_another_director, &sent[..30], &sent[..43]] {
        assert_eq!(desk.send(&error(quoted)).verdict, Verdict::Pass, "{}", describe(quoted));
    }
    let mut damaged = error(&sent);
    *damaged.last_mut().unwrap() ^= 1;
    assert_eq!(desk.send(&damaged).verdict, Verdict::Drop(DropReason::BadIcmpChecksum));
    check(&desk.send(&error(&sent)), "<- 198.51.100.7: ");
}

#[test]
fn a_clients_error_about_a_reply_goes_through_the_tunnel() {
    // Recording tun_icmp, step 36.
    let mut desk = desk(SERVER, "");
    let _ = desk.send(&request(false, 100).build());
    let reply = udp("192.0.2.1:80", "198.51.100.7:1024").payload(b"answer").build();
    let error = icmp_error("198.51.100.7", 3, 3, 0, &reply);
    let sent = desk.send(&error.build());
    check(&sent, "-> 10.0.0.2: 10.0.0.254 > 10.0.0.2 IPIP {198.51.100.7 > 192.0.2.1 ICMP 3/3");
    assert_eq!(taken_out(&sent.bytes), error.hop_limit(63).build());
}

#[test]
fn a_super_packet_enters_the_tunnel_in_segments() {
    for (options, mtu, _) in KINDS {
        let mut desk = desk(SERVER, options);
        let _ = desk.send(&tcp("198.51.100.7:1024", "192.0.2.1:80").syn().build());
        let request = tcp("198.51.100.7:1024", "192.0.2.1:80").psh().ack().payload_len(4000).partial_checksum();
        let size = mtu - 40;
        let gso = Gso { kind: GsoKind::TcpV4, size, ecn: false };
        let offload = Offload { checksum: request.offload(), gso: Some(gso) };
        let first = desk.send_storage(Storage::with_room(&request.build(), 64, 2048).offload(offload));
        let mut sent = vec![first];
        sent.extend(desk.transmits());
        assert_eq!(sent.len(), 3);
        let mut data = Vec::new();
        for outcome in &sent {
            check(outcome, "-> 10.0.0.2: 10.0.0.254");
            assert!(outcome.bytes.len() <= 1500, "{options}");
            let segment = taken_out(&outcome.bytes);
            assert_eq!(oracle::checksum_errors(&segment), [""; 0]);
            data.extend_from_slice(&segment[40..]);
        }
        assert_eq!(data, request.build()[40..]);
    }
}

#[test]
fn a_checksum_left_to_the_device_moves_with_the_fragment_header_that_goes() {
    let mut desk = desk(SERVER, "--tun-type ipip");
    let request = request(true, 200).fragment(0, false).partial_checksum();
    let storage = Storage::new(&request.build()).offload(Offload { checksum: request.offload(), gso: None });
    let sent = desk.send_storage(storage);
    assert!(matches!(sent.verdict, Verdict::Forward { .. }));
    let mut storage = Storage::new(&sent.bytes).offload(sent.offload);
    let mut packet = storage.packet();
    complete_checksum(&mut packet).unwrap();
    let sent = taken_out(packet.bytes());
    assert_eq!(sent, self::request(true, 200).hop_limit(63).build());
}

#[test]
fn a_super_packet_whose_segments_are_too_long_is_answered() {
    let mut desk = desk(SERVER, "");
    let _ = desk.send(&tcp("198.51.100.7:1024", "192.0.2.1:80").syn().build());
    let request = tcp("198.51.100.7:1024", "192.0.2.1:80").ack().dont_fragment().payload_len(4000).partial_checksum();
    let gso = Gso { kind: GsoKind::TcpV4, size: 1460, ecn: false };
    let offload = Offload { checksum: request.offload(), gso: Some(gso) };
    let answer = desk.send_storage(Storage::with_room(&request.build(), 64, 2048).offload(offload));
    check(&answer, "<- 198.51.100.7: 192.0.2.1 > 198.51.100.7 ICMP 3/4 info=000005c8");
    assert_eq!(desk.transmits(), []);
}

#[test]
fn segments_nobody_fetches_are_bounded() {
    let mut config = Desk::config();
    config.fragment_bytes_max = 10_000;
    let rules = "-A -t 192.0.2.1:80 -s rr\n-a -t 192.0.2.1:80 -r 10.0.0.2:80 -i";
    let mut desk = Desk::with_config(config, rules);
    let _ = desk.send(&tcp("198.51.100.7:1024", "192.0.2.1:80").syn().build());
    let request = tcp("198.51.100.7:1024", "192.0.2.1:80").ack().payload_len(4000).partial_checksum();
    let gso = Gso { kind: GsoKind::TcpV4, size: 1000, ecn: false };
    let offload = Offload { checksum: request.offload(), gso: Some(gso) };
    let send =
        |desk: &mut Desk| desk.send_storage(Storage::with_room(&request.build(), 64, 2048).offload(offload)).verdict;
    assert!(matches!(send(&mut desk), Verdict::Forward { .. }));
    assert!(matches!(send(&mut desk), Verdict::Forward { .. }));
    assert_eq!(send(&mut desk), Verdict::Drop(DropReason::TransmitQueueFull));
    assert_eq!(desk.transmits().len(), 6);
    assert!(matches!(send(&mut desk), Verdict::Forward { .. }));
}
