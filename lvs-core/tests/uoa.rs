//! UOA: a server's first datagrams from behind FullNAT say whose they are. Layouts: the published behaviour of DPVS,
//! its default form (IP protocol 248).

use std::net::SocketAddr;

use lvs_core::{ChecksumOffload, Gso, GsoKind, Offload, Verdict};
use lvs_testkit::{Desk, Outcome, Packet, Storage, oracle, raw, strategy, udp};
use proptest::prelude::*;

const CLIENT: &str = "198.51.100.7:1024";
const VIRTUAL: &str = "192.0.2.80:53";
const REAL: &str = "10.0.0.2:5353";
const CLIENT6: &str = "[2001:db8:c::7]:1024";
const VIRTUAL6: &str = "[2001:db8::80]:53";
const REAL6: &str = "[fd00::2]:5353";

const V4: &str = "-A -u 192.0.2.80:53 -s rr --client-address uoa\n\
    --add-laddr -u 192.0.2.80:53 --local-address 10.0.0.200\n\
    -a -u 192.0.2.80:53 -r 10.0.0.2:5353 --fullnat";
const V6: &str = "-A -u [2001:db8::80]:53 -s rr --client-address uoa\n\
    --add-laddr -u [2001:db8::80]:53 --local-address fd00::200\n\
    -a -u [2001:db8::80]:53 -r [fd00::2]:5353 --fullnat";
const V64: &str = "-A -u [2001:db8::80]:53 -s rr --client-address uoa\n\
    --add-laddr -u [2001:db8::80]:53 --local-address 10.0.0.200\n\
    -a -u [2001:db8::80]:53 -r 10.0.0.2:5353 --fullnat";

/// Version 1, UDP follows, 12 bytes; option 31, 8 bytes, 198.51.100.7:1024.
const HEADER: [u8; 12] = [0x10, 17, 0, 12, 31, 8, 4, 0, 198, 51, 100, 7];
/// Version 2, UDP follows, 24 bytes; option 31, 20 bytes, [2001:db8:c::7]:1024.
const HEADER6: [u8; 24] = [0x20, 17, 0, 24, 31, 20, 4, 0, 0x20, 1, 0x0d, 0xb8, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];

/// Rules, client, virtual and real endpoint, the header.
type Case = (&'static str, &'static str, &'static str, &'static str, &'static [u8]);

const CASES: [Case; 3] = [
    (V4, CLIENT, VIRTUAL, REAL, &HEADER),
    (V6, CLIENT6, VIRTUAL6, REAL6, &HEADER6),
    (V64, CLIENT6, VIRTUAL6, REAL, &HEADER6),
];

fn local(desk: &Desk) -> SocketAddr {
    let local = desk.connections()[0].local.expect("a FullNAT connection has one");
    SocketAddr::new(local.address, local.port)
}

#[track_caller]
fn forwarded(outcome: Outcome) -> Vec<u8> {
    assert!(matches!(outcome.verdict, Verdict::Forward { .. }), "{}", outcome.line());
    outcome.bytes
}

/// What the server gets of a datagram: the header, then the UDP header and its payload.
fn told(packet: Packet, header: &[u8], datagram: &Packet) -> Vec<u8> {
    let datagram = datagram.build();
    let segment = oracle::parse(&datagram).expect("a packet").segment.to_vec();
    packet.payload(&[header, &segment].concat()).hop_limit(63).build()
}

/// The datagram as it goes to the server without the header.
fn plain(desk: &Desk, real: &str, payload: &[u8]) -> Packet {
    udp(local(desk), real).payload(payload).hop_limit(63)
}

/// Between families, what was `sent` has an identification of our own.
fn between_families(packet: Packet, is_so: bool, sent: &[u8]) -> Packet {
    if is_so { packet.identification(u16::from_be_bytes([sent[4], sent[5]]).into()) } else { packet }
}

#[test]
fn the_first_three_datagrams_of_a_connection_say_whose_they_are() {
    for (rules, client, to, real, header) in CASES {
        let is_translated = rules == V64;
        let mut desk = Desk::new(rules);
        for payload in ["one", "other", "third"] {
            let sent = forwarded(desk.send(&udp(client, to).payload(payload.as_bytes()).build()));
            let datagram = plain(&desk, real, payload.as_bytes());
            // Over IPv4 they have no checksum.
            let datagram = if real == REAL { datagram.no_checksum() } else { datagram };
            let outside = raw(local(&desk).ip().to_string().as_str(), host(real), 248);
            let outside = between_families(outside, is_translated, &sent);
            assert_eq!(sent, told(outside, header, &datagram), "{client} > {real}");
        }
        let sent = forwarded(desk.send(&udp(client, to).payload(b"more").build()));
        let expected = between_families(plain(&desk, real, b"more"), is_translated, &sent);
        assert_eq!(sent, expected.build(), "{client} > {real}");
        assert!(desk.transmits().is_empty());
        assert_eq!(desk.director.client_addresses_omitted(), 0);
        let reply = udp(real, local(&desk)).payload(b"answer").build();
        let sent = forwarded(desk.send(&reply));
        assert!(sent.ends_with(b"answer") && oracle::parse(&sent).expect("a packet").protocol == 17);
    }
}

fn host(endpoint: &str) -> &str {
    endpoint.rsplit_once(':').expect("an endpoint").0.trim_matches(['[', ']'])
}

/// The packet that only says whose the datagrams are.
fn alone(desk: &Desk, real: &str, header: &[u8], like: &[u8]) -> Vec<u8> {
    let empty = udp(local(desk), real);
    let empty = if real == REAL { empty.no_checksum() } else { empty };
    let outside = raw(local(desk).ip().to_string().as_str(), host(real), 248).dont_fragment();
    let like = oracle::parse(like).expect("a packet");
    let outside = outside.identification(like.identification).traffic_class(like.traffic_class);
    told(outside, header, &empty)
}

#[test]
fn a_datagram_without_room_has_a_packet_beside_it_that_says_whose_it_is() {
    for (rules, client, to, real, header) in CASES {
        let headers_len = if real == REAL { 28 } else { 48 };
        let fits = 1500 - headers_len - header.len();
        for (payload_len, is_beside) in [(fits, false), (fits + 1, true), (1500 - headers_len, true)] {
            if rules == V64 && payload_len > 1500 - 48 {
                continue; // more than the client's own link takes
            }
            let mut desk = Desk::new(rules);
            let request = udp(client, to).payload_len(payload_len).traffic_class(0xb8).build();
            let sent = forwarded(desk.send(&request));
            let others = desk.transmits();
            assert_eq!(oracle::parse(&sent).expect("a packet").protocol, if is_beside { 17 } else { 248 });
            assert_eq!(others.len(), usize::from(is_beside), "{client} > {real}, {payload_len} bytes");
            for other in others {
                assert_eq!(other.bytes, alone(&desk, real, header, &other.bytes));
                assert_eq!(oracle::parse(&other.bytes).expect("a packet").traffic_class, 0xb8);
                assert!(
                    matches!(other.verdict, Verdict::Forward { next_hop, .. } if next_hop.to_string() == host(real))
                );
            }
            assert_eq!(desk.director.client_addresses_omitted(), 0);
        }
    }
}

#[test]
fn fragments_super_packets_and_extension_headers_have_one_beside_them_too() {
    let mut desk = Desk::new(V4);
    let parts = udp(CLIENT, VIRTUAL).payload_len(2000).fragments(1200);
    for part in &parts {
        assert_eq!(oracle::parse(&forwarded(desk.send(part))).expect("a packet").protocol, 17);
    }
    assert_eq!(desk.transmits().len(), 1);

    let request = udp(CLIENT, VIRTUAL).payload_len(4000).partial_checksum();
    let gso = Some(Gso { kind: GsoKind::Udp, size: 1000, ecn: false });
    let offload = Offload { checksum: request.offload(), gso };
    let sent = desk.send_storage(Storage::with_room(&request.build(), 64, 2048).offload(offload));
    assert_eq!(forwarded(sent), udp(local(&desk), REAL).payload_len(4000).partial_checksum().hop_limit(63).build());
    assert_eq!(desk.transmits().len(), 1);

    let mut desk = Desk::new(V6);
    let sent = forwarded(desk.send(&udp(CLIENT6, VIRTUAL6).destination_options().payload(b"x").build()));
    assert_eq!(oracle::parse(&sent).expect("a packet").protocol, 17);
    assert_eq!(desk.transmits().len(), 1);
}

#[test]
fn where_nothing_can_be_sent_beside_it_is_counted() {
    let config = Desk::config().with(|config| config.fragment_bytes_max = 250);
    let mut desk = Desk::with_config(config, V4);
    for omitted in [0, 1, 2, 2] {
        forwarded(desk.send(&udp(CLIENT, VIRTUAL).payload_len(1472).build()));
        assert_eq!(desk.director.client_addresses_omitted(), omitted);
    }
    assert_eq!(desk.transmits().len(), 1);
}

#[test]
fn a_tight_buffer_is_no_room() {
    for (front, back, is_beside) in [(12, 0, false), (5, 7, false), (0, 12, false), (5, 6, true)] {
        let mut desk = Desk::new(V4);
        let sent = forwarded(desk.send_storage(Storage::with_room(
            &udp(CLIENT, VIRTUAL).payload(b"hello").build(),
            front,
            back,
        )));
        assert_eq!(desk.transmits().len(), usize::from(is_beside), "{front} + {back}");
        let datagram = plain(&desk, REAL, b"hello");
        let expected = if is_beside {
            datagram.build()
        } else {
            told(raw("10.0.0.200", "10.0.0.2", 248), &HEADER, &datagram.no_checksum())
        };
        assert_eq!(sent, expected, "{front} + {back}");
    }
}

#[test]
fn checksums_left_to_the_device_follow_the_header() {
    for (rules, client, to, real, header) in [CASES[0], CASES[1]] {
        let mut desk = Desk::new(rules);
        let request = udp(client, to).payload(b"hello").partial_checksum();
        let offload = Offload { checksum: request.offload(), gso: None };
        let storage = Storage::with_room(&request.build(), 64, 64).offload(offload);
        let sent = desk.send_storage(storage);
        assert!(matches!(sent.verdict, Verdict::Forward { .. }));
        let datagram = plain(&desk, real, b"hello");
        let (datagram, offload) = match real {
            REAL => (datagram.no_checksum(), ChecksumOffload::Full),
            _ => (datagram.partial_checksum(), ChecksumOffload::Partial { start: 40 + 24, offset: 6 }),
        };
        let outside = raw(local(&desk).ip().to_string().as_str(), host(real), 248);
        assert_eq!(sent.bytes, told(outside, header, &datagram));
        assert_eq!(sent.offload.checksum, offload);
    }
}

#[test]
fn what_a_client_says_of_its_own_address_is_blanked_in_every_datagram() {
    let mut desk = Desk::new(V4);
    let spoofed = [31, 8, 0, 80, 10, 9, 8, 7, 148, 4, 0, 0];
    let blanked = [1, 1, 1, 1, 1, 1, 1, 1, 148, 4, 0, 0];
    for number in 0..5 {
        let sent = forwarded(desk.send(&udp(CLIENT, VIRTUAL).ipv4_options(&spoofed).payload(&[number]).build()));
        let parsed = oracle::parse(&sent).expect("a packet");
        assert_eq!(parsed.ip_header[20..], blanked, "datagram {number}");
        assert_eq!(parsed.protocol, if number < 3 { 248 } else { 17 });
    }
}

#[test]
fn tcp_and_other_ways_of_telling_know_nothing_of_it() {
    let mut desk = Desk::new(&V4.replace("-u ", "-t "));
    let syn = lvs_testkit::tcp(CLIENT, VIRTUAL).syn().build();
    assert_eq!(oracle::parse(&forwarded(desk.send(&syn))).expect("a packet").protocol, 6);
    for kind in ["none", "toa", "proxy-v1"] {
        let mut desk = Desk::new(&V4.replace("uoa", kind));
        let sent = forwarded(desk.send(&udp(CLIENT, VIRTUAL).payload(b"hello").build()));
        assert_eq!(sent, plain(&desk, REAL, b"hello").build(), "{kind}");
    }
}

#[test]
fn an_explanation_shows_the_ports_behind_the_header() {
    let desk = Desk::new(V4);
    let mut storage = Storage::with_room(&udp(CLIENT, VIRTUAL).payload(b"hello").build(), 64, 64);
    let explanation = desk.director.explain(desk.now, &storage.packet()).to_string();
    for line in ["10.0.0.2:5353", "17 -> 248", "33 bytes -> 45 bytes"] {
        assert!(explanation.contains(line), "{line:?} in {explanation}");
    }
}

proptest! {
    #![proptest_config(strategy::config())]

    /// A server that takes the header out has the datagram FullNAT would have sent it without.
    #[test]
    fn without_the_header_the_datagram_is_the_one_without_uoa(
        case in 0..3usize,
        payload in prop::collection::vec(any::<u8>(), 0..1600),
        options in prop::collection::vec(any::<u8>(), 0..9),
        room in (0..80usize, 0..80usize),
    ) {
        let (rules, client, to, _, header) = CASES[case];
        // Those that are no broken options; NAT64 loses them.
        let options: Vec<u8> = if case == 0 { options.iter().map(|_| 1).collect() } else { Vec::new() };
        let request = udp(client, to).payload(&payload).ipv4_options(&options).build();
        let sent = |rules: &str| {
            let mut desk = Desk::new(rules);
            let outcome = desk.send_storage(Storage::with_room(&request, room.0, room.1));
            (outcome, desk.transmits().len())
        };
        let (with, beside) = sent(rules);
        let (without, _) = sent(&rules.replace("uoa", "none"));
        if !matches!(without.verdict, Verdict::Forward { .. }) {
            prop_assert_eq!(with.verdict, without.verdict);
            return Ok(());
        }
        let mut stripped = forwarded(with);
        let parsed = oracle::parse(&stripped).expect("a packet");
        let (at, is_ipv4) = (parsed.ip_header.len(), parsed.source.is_ipv4());
        prop_assert_eq!(beside == 0, parsed.protocol == 248);
        let mut expected = without.bytes;
        if parsed.protocol == 248 {
            prop_assert_eq!(&stripped[at..at + header.len()], header);
            stripped.drain(at..at + header.len());
            let (protocol, length) = if is_ipv4 { (9, 2) } else { (6, 4) };
            stripped[protocol] = 17;
            stripped[length..length + 2].copy_from_slice(&expected[length..length + 2]);
            if is_ipv4 {
                stripped[10..12].copy_from_slice(&expected[10..12]);
                expected[at + 6..at + 8].fill(0);
            }
        }
        prop_assert_eq!(stripped, expected);
    }
}
