//! FullNAT as clients, servers and routers see it, against packets built by hand. Vectors: the published behaviour of
//! DPVS and Alibaba LVS; the tests that end in a number hold a known defect of DPVS that is not to be had here. What
//! belongs to SYN proxy, rate limiting and passive checks of servers (48 to 50) has no counterpart, but for the first.

use core::time::Duration;
use std::net::SocketAddr;

use lvs_core::local_address::LocalPorts;
use lvs_core::{
    ChecksumOffload, Command, ControlError, DropReason, Event, Gso, GsoKind, Offload, Protocol, ServiceKey, Verdict,
};
use lvs_testkit::{Desk, Outcome, Packet, Storage, describe, icmp_error, oracle, sctp, tcp, udp};

const CLIENT: &str = "198.51.100.7:1024";
const VIRTUAL: &str = "192.0.2.80:80";
const REAL: &str = "10.0.0.2:8080";

/// One service, one server, one local address.
const WEB: &str = "-A -t 192.0.2.80:80 -s rr\n\
    --add-laddr -t 192.0.2.80:80 --local-address 10.0.0.200\n\
    -a -t 192.0.2.80:80 -r 10.0.0.2:8080 --fullnat";

fn with_options(options: &str) -> String {
    WEB.replace("-s rr\n", &format!("-s rr {options}\n"))
}

/// The same over IPv6.
const WEB6: &str = "-A -t [2001:db8::80]:80 -s rr\n\
    --add-laddr -t [2001:db8::80]:80 --local-address fd00::200\n\
    -a -t [2001:db8::80]:80 -r [fd00::2]:8080 --fullnat";

/// IPv6 in front, IPv4 behind.
const WEB64: &str = "-A -t [2001:db8::80]:80 -s rr\n\
    --add-laddr -t [2001:db8::80]:80 --local-address 10.0.0.200\n\
    -a -t [2001:db8::80]:80 -r 10.0.0.2:8080 --fullnat";

const CLIENT6: &str = "[2001:db8:c::7]:1024";
const VIRTUAL6: &str = "[2001:db8::80]:80";
const REAL6: &str = "[fd00::2]:8080";

/// A TCP conversation through a director: its ends, and what the director made of the client's first number.
struct Conversation {
    desk: Desk,
    client: SocketAddr,
    virtual_endpoint: SocketAddr,
    real: SocketAddr,
    local: SocketAddr,
    isn: u32,
}

/// The client's number in its SYN, and the server's.
const CLIENT_ISN: u32 = 1000;
const SERVER_ISN: u32 = 5000;

impl Conversation {
    /// The client has sent its SYN.
    fn begin(rules: &str, client: &str, virtual_endpoint: &str, real: &str) -> Self {
        Self::begin_at(Desk::new(rules), client, virtual_endpoint, real)
    }

    fn begin_at(mut desk: Desk, client: &str, virtual_endpoint: &str, real: &str) -> Self {
        let [client, virtual_endpoint, real] = [client, virtual_endpoint, real].map(|end| end.parse().unwrap());
        let sent = forwarded(desk.send(&tcp(client, virtual_endpoint).syn().numbers(CLIENT_ISN, 0).build()));
        let local = local_endpoint(&desk);
        Self { desk, client, virtual_endpoint, real, local, isn: sequence(&sent) }
    }

    /// And the server its SYN|ACK.
    fn open(rules: &str, client: &str, virtual_endpoint: &str, real: &str) -> Self {
        let mut conversation = Self::begin(rules, client, virtual_endpoint, real);
        let ack = conversation.isn.wrapping_add(1);
        let reply = tcp(conversation.real, conversation.local).syn().ack().numbers(SERVER_ISN, ack);
        forwarded(conversation.desk.send(&reply.build()));
        conversation
    }

    fn request(&self) -> Packet {
        tcp(self.client, self.virtual_endpoint).ack()
    }

    /// As the server is to see it.
    fn at_server(&self) -> Packet {
        tcp(self.local, self.real).ack().hop_limit(63)
    }

    fn reply(&self) -> Packet {
        tcp(self.real, self.local).ack()
    }

    /// As the client is to see it.
    fn at_client(&self) -> Packet {
        tcp(self.virtual_endpoint, self.client).ack().hop_limit(63)
    }

    /// A number of the client as the server sees it.
    fn shifted(&self, number: u32) -> u32 {
        number.wrapping_sub(CLIENT_ISN).wrapping_add(self.isn)
    }
}

/// The one connection's local endpoint.
fn local_endpoint(desk: &Desk) -> SocketAddr {
    let local = desk.connections()[0].local.expect("a FullNAT connection has one");
    SocketAddr::new(local.address, local.port)
}

#[track_caller]
fn forwarded(outcome: Outcome) -> Vec<u8> {
    assert!(matches!(outcome.verdict, Verdict::Forward { .. }), "{}", outcome.line());
    outcome.bytes
}

/// A packet becomes another one.
#[track_caller]
fn check(desk: &mut Desk, packet: &Packet, expected: &Packet) {
    let sent = forwarded(desk.send(&packet.build()));
    assert_eq!(describe(&sent), describe(&expected.build()));
    assert_eq!(sent, expected.build());
}

fn transport(packet: &[u8]) -> usize {
    if packet[0] >> 4 == 4 { 20 } else { 40 }
}

fn sequence(packet: &[u8]) -> u32 {
    let at = transport(packet) + 4;
    u32::from_be_bytes(packet[at..at + 4].try_into().unwrap())
}

/// The TCP options of a packet.
fn options(packet: &[u8]) -> &[u8] {
    let segment = &packet[transport(packet)..];
    &segment[20..usize::from(segment[12] >> 4) * 4]
}

#[test]
fn both_ends_are_translated_both_ways() {
    for (rules, client, virtual_endpoint, real) in [(WEB, CLIENT, VIRTUAL, REAL), (WEB6, CLIENT6, VIRTUAL6, REAL6)] {
        let mut tcp_talk = Conversation::open(rules, client, virtual_endpoint, real);
        let request = tcp_talk.request().numbers(1001, 5001).payload(b"hello");
        let expected = tcp_talk.at_server().numbers(tcp_talk.shifted(1001), 5001).payload(b"hello");
        check(&mut tcp_talk.desk, &request, &expected);
        let reply = tcp_talk.reply().numbers(5001, tcp_talk.shifted(1006)).payload(b"world");
        let expected = tcp_talk.at_client().numbers(5001, 1006).payload(b"world");
        check(&mut tcp_talk.desk, &reply, &expected);

        let mut desk = Desk::new(&rules.replace("-t ", "-u "));
        let sent = forwarded(desk.send(&udp(client, virtual_endpoint).payload(b"hello").build()));
        let local = local_endpoint(&desk);
        assert_eq!(sent, udp(local, real).payload(b"hello").hop_limit(63).build());
        check(
            &mut desk,
            &udp(real, local).payload(b"world"),
            &udp(virtual_endpoint, client).payload(b"world").hop_limit(63),
        );

        let mut desk = Desk::new(&rules.replace("-t ", "--sctp-service "));
        let sent = forwarded(desk.send(&sctp(client, virtual_endpoint).chunk(1, &[9; 16]).build()));
        let local = local_endpoint(&desk);
        assert_eq!(sent, sctp(local, real).chunk(1, &[9; 16]).hop_limit(63).build());
        check(
            &mut desk,
            &sctp(real, local).tag(7).chunk(2, &[9; 16]),
            &sctp(virtual_endpoint, client).tag(7).chunk(2, &[9; 16]).hop_limit(63),
        );
    }
}

#[test]
fn next_hops_are_the_server_and_the_client() {
    let mut talk = Conversation::begin(WEB, CLIENT, VIRTUAL, REAL);
    let to_server = talk.desk.send(&talk.request().build());
    assert!(to_server.line().starts_with("-> 10.0.0.2:"), "{}", to_server.line());
    let to_client = talk.desk.send(&talk.reply().build());
    assert!(to_client.line().starts_with("-> 198.51.100.7:"), "{}", to_client.line());
}

#[test]
fn a_hop_limit_used_up_is_answered_by_the_address_the_packet_was_for() {
    let mut talk = Conversation::begin(WEB, CLIENT, VIRTUAL, REAL);
    let late = talk.desk.send(&talk.request().hop_limit(1).build());
    assert!(late.line().starts_with("<- 198.51.100.7: 192.0.2.80 > 198.51.100.7 ICMP 11/0"), "{}", late.line());
    let late = talk.desk.send(&talk.reply().hop_limit(1).build());
    assert!(late.line().starts_with("<- 10.0.0.2: 10.0.0.200 > 10.0.0.2 ICMP 11/0"), "{}", late.line());
}

/// What Linux sends in a SYN: MSS 1460, SACK permitted, timestamps, a no-operation, window scale 7.
const SYN_OPTIONS: [u8; 20] = [2, 4, 0x05, 0xb4, 4, 2, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0, 1, 3, 3, 7];

// 43
#[test]
fn timestamps_leave_a_syn_as_no_operations_unless_they_are_kept() {
    let without = [2, 4, 0x05, 0xb4, 4, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 3, 3, 7];
    for (rules, expected) in [(WEB.to_owned(), without), (with_options("--keep-timestamps"), SYN_OPTIONS)] {
        let mut desk = Desk::new(&rules);
        let sent = forwarded(desk.send(&tcp(CLIENT, VIRTUAL).syn().tcp_options(&SYN_OPTIONS).build()));
        assert_eq!(options(&sent), expected);
    }
}

// 43
#[test]
fn the_edges_of_a_servers_selective_acknowledgments_are_the_clients_again() {
    let mut talk = Conversation::open(WEB, CLIENT, VIRTUAL, REAL);
    let sack = |edges: [u32; 2]| [&[1, 1, 5, 10][..], &edges[0].to_be_bytes(), &edges[1].to_be_bytes()].concat();
    let edges = [talk.shifted(2000), talk.shifted(3000)];
    let reply = talk.reply().numbers(5001, talk.shifted(1001)).tcp_options(&sack(edges));
    let expected = talk.at_client().numbers(5001, 1001).tcp_options(&sack([2000, 3000]));
    check(&mut talk.desk, &reply, &expected);
}

// 44
#[test]
fn a_repeated_syn_gets_the_number_of_the_first() {
    let mut talk = Conversation::begin(WEB, CLIENT, VIRTUAL, REAL);
    talk.desk.pass(Duration::from_secs(1));
    let again = tcp(talk.client, talk.virtual_endpoint).syn().numbers(CLIENT_ISN, 0);
    let expected = tcp(talk.local, talk.real).syn().numbers(talk.isn, 0).hop_limit(63);
    check(&mut talk.desk, &again, &expected);
}

// 44, 47
#[test]
fn a_local_port_used_anew_gets_a_number_beyond_the_old_one() {
    let config = Desk::config().with(|config| {
        config.local_ports = LocalPorts::default().with(|ports| {
            ports.first = 2000;
            ports.last = 2000;
        })
    });
    let mut talk = Conversation::begin_at(Desk::with_config(config, WEB), CLIENT, VIRTUAL, REAL);
    forwarded(talk.desk.send(&talk.reply().rst().build()));
    talk.desk.pass(Duration::from_secs(10 + 5 + 1)); // CLOSE, quarantine
    let other = tcp("203.0.113.9:4000", VIRTUAL).syn().numbers(77, 0).build();
    let second = sequence(&forwarded(talk.desk.send(&other)));
    assert_eq!(local_endpoint(&talk.desk), talk.local);
    // 16 s and a bit, in ticks of 64 ns.
    let elapsed = second.wrapping_sub(talk.isn);
    assert!((250_000_000..260_000_000).contains(&elapsed), "{elapsed}");
}

// 44
#[test]
fn a_syn_on_a_finished_connection_gets_another_number_also_where_connections_are_not_rescheduled() {
    let mut talk = Conversation::open(WEB, CLIENT, VIRTUAL, REAL);
    talk.desk.set(|settings| settings.conn_reuse_mode = 0);
    forwarded(talk.desk.send(&talk.reply().rst().build()));
    talk.desk.pass(Duration::from_secs(1));
    let anew = tcp(talk.client, talk.virtual_endpoint).syn().numbers(90_000, 0).build();
    let second = sequence(&forwarded(talk.desk.send(&anew)));
    assert!(second.wrapping_sub(talk.isn) < 1 << 31, "beyond the old one");
    assert_ne!(second.wrapping_sub(talk.isn), 90_000 - CLIENT_ISN, "not shifted as before");
}

#[test]
fn a_stray_syn_does_not_shift_a_connection_that_stands() {
    let mut talk = Conversation::open(WEB, CLIENT, VIRTUAL, REAL);
    let ack = talk.request().numbers(1001, 5001);
    let expected = talk.at_server().numbers(talk.shifted(1001), 5001);
    check(&mut talk.desk, &ack, &expected);
    let stray = tcp(talk.client, talk.virtual_endpoint).syn().numbers(77_777, 0).build();
    let _ = talk.desk.send(&stray);
    check(&mut talk.desk, &ack, &expected);
}

// 51
#[test]
fn numbers_differ_in_every_byte_from_one_endpoint_to_another() {
    let first_number = |server: &str, client: &str| {
        let rules = WEB6.replace("[fd00::2]", server);
        sequence(&forwarded(Desk::new(&rules).send(&tcp(client, VIRTUAL6).syn().build())))
    };
    // Servers that differ in the highest bits only, and in the lowest only.
    let numbers: Vec<u32> = (0..16)
        .flat_map(|n| {
            [first_number(&format!("[fd{n:02x}::2]"), CLIENT6), first_number(&format!("[fd00::{n:x}2]"), CLIENT6)]
        })
        .collect();
    for byte in 0..4 {
        let mut values: Vec<u8> = numbers.iter().map(|number| number.to_be_bytes()[byte]).collect();
        values.sort_unstable();
        values.dedup();
        assert!(values.len() > 20, "byte {byte} has {} values in 32", values.len());
    }
}

#[test]
fn sequence_numbers_stay_where_they_are_kept() {
    let talk = Conversation::begin(&with_options("--keep-sequence"), CLIENT, VIRTUAL, REAL);
    assert_eq!(talk.isn, CLIENT_ISN);
}

/// 198.51.100.7:1024 in DPVS's option.
const TOA: [u8; 8] = [254, 8, 4, 0, 198, 51, 100, 7];

// 45
#[test]
fn the_clients_address_comes_first_until_the_servers_first_data_is_acknowledged() {
    let mut talk = Conversation::open(&with_options("--client-address toa"), CLIENT, VIRTUAL, REAL);
    let timestamps = [1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 8];
    let with_address = [&TOA[..], &timestamps].concat();
    let (first, second) = (talk.shifted(1001), talk.shifted(1006));
    for (number, expected, payload) in
        [(1001, first, ""), (1001, first, "hello"), (1001, first, "hello"), (1006, second, "you")]
    {
        let request = talk.request().numbers(number, 5001).tcp_options(&timestamps).payload(payload.as_bytes());
        let expected = talk.at_server().numbers(expected, 5001).tcp_options(&with_address).payload(payload.as_bytes());
        check(&mut talk.desk, &request, &expected);
    }
    let later = talk.request().numbers(1009, 5002).tcp_options(&timestamps);
    let expected = talk.at_server().numbers(talk.shifted(1009), 5002).tcp_options(&timestamps);
    check(&mut talk.desk, &later, &expected);
    assert_eq!(talk.desk.director.client_addresses_omitted(), 0);
}

// 45
#[test]
fn no_syn_and_no_reset_carries_the_clients_address() {
    let mut talk = Conversation::begin(&with_options("--client-address toa"), CLIENT, VIRTUAL, REAL);
    let syn = tcp(talk.client, talk.virtual_endpoint).syn().numbers(CLIENT_ISN, 0);
    check(&mut talk.desk, &syn, &tcp(talk.local, talk.real).syn().numbers(talk.isn, 0).hop_limit(63));
    let reply = talk.reply().syn().numbers(SERVER_ISN, talk.isn.wrapping_add(1)).build();
    forwarded(talk.desk.send(&reply));
    let reset = talk.request().rst().numbers(1001, 5001);
    let expected = talk.at_server().rst().numbers(talk.shifted(1001), 5001);
    check(&mut talk.desk, &reset, &expected);
}

// 45
#[test]
fn a_goodbye_before_the_server_has_spoken_carries_the_clients_address() {
    let mut talk = Conversation::open(&with_options("--client-address toa"), CLIENT, VIRTUAL, REAL);
    let fin = talk.request().fin().numbers(1001, 5001);
    let expected = talk.at_server().fin().numbers(talk.shifted(1001), 5001).tcp_options(&TOA);
    check(&mut talk.desk, &fin, &expected);
}

#[test]
fn a_fragment_goes_without_the_clients_address() {
    let mut talk = Conversation::open(&with_options("--client-address toa"), CLIENT, VIRTUAL, REAL);
    let parts = talk.request().numbers(1001, 5001).payload_len(100).fragments(64);
    let expected = talk.at_server().numbers(talk.shifted(1001), 5001).payload_len(100).fragments(64);
    for (part, expected) in parts.iter().zip(expected) {
        assert_eq!(forwarded(talk.desk.send(part)), expected);
    }
    assert_eq!(talk.desk.director.client_addresses_omitted(), 1);
}

// 45
#[test]
fn an_ipv6_client_has_an_option_of_twenty_bytes() {
    let option = [&[254, 20, 4, 0, 0x20, 1, 0x0d, 0xb8, 0, 12][..], &[0; 9], &[7]].concat();
    let rules = |rules: &str| rules.replace("-s rr\n", "-s rr --client-address toa\n");
    for (rules, real) in [(rules(WEB6), REAL6), (rules(WEB64), REAL)] {
        let mut talk = Conversation::open(&rules, CLIENT6, VIRTUAL6, real);
        let sent = forwarded(talk.desk.send(&talk.request().numbers(1001, 5001).payload(b"odd").build()));
        assert_eq!(options(&sent), option);
        assert!(sent.ends_with(b"odd"));
    }
}

// 45
#[test]
fn what_a_client_says_of_its_own_address_is_blanked_in_every_segment() {
    let spoofed = [254, 8, 0, 80, 10, 9, 8, 7, 253, 4, 1, 2, 3, 3, 7, 0];
    let blanked = [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 3, 3, 7, 0];
    for rules in [WEB.to_owned(), with_options("--client-address toa")] {
        let mut talk = Conversation::open(&rules, CLIENT, VIRTUAL, REAL);
        let syn = tcp(talk.client, talk.virtual_endpoint).syn().tcp_options(&spoofed).build();
        assert_eq!(options(&forwarded(talk.desk.send(&syn))), blanked);
        let late = talk.request().numbers(1001, 6000).tcp_options(&spoofed).build();
        assert_eq!(options(&forwarded(talk.desk.send(&late))), blanked);
    }
    let mut talk = Conversation::open(&with_options("--client-address toa"), CLIENT, VIRTUAL, REAL);
    let early = talk.request().numbers(1001, 5001).tcp_options(&spoofed).build();
    assert_eq!(options(&forwarded(talk.desk.send(&early))), [&TOA[..], &blanked].concat());
}

// 45
#[test]
fn the_client_is_told_a_segment_size_that_leaves_room() {
    let proxy_v1_len = "PROXY TCP4 198.51.100.7 192.0.2.80 1024 80\r\n".len() as u16;
    for (kind, less) in [("none", 0), ("toa", 8), ("proxy-v1", proxy_v1_len), ("proxy-v2", 28)] {
        let rules = with_options(&format!("--client-address {kind}"));
        let mut talk = Conversation::begin(&rules, CLIENT, VIRTUAL, REAL);
        let reply = talk.reply().syn().numbers(SERVER_ISN, talk.isn + 1).tcp_options(&SYN_OPTIONS).build();
        let sent = forwarded(talk.desk.send(&reply));
        assert_eq!(options(&sent)[..4], [&[2, 4][..], &(1460 - less).to_be_bytes()].concat(), "{kind}");
    }
    let mut talk =
        Conversation::begin(&WEB6.replace("-s rr\n", "-s rr --client-address toa\n"), CLIENT6, VIRTUAL6, REAL6);
    let reply = talk.reply().syn().numbers(SERVER_ISN, talk.isn + 1).tcp_options(&SYN_OPTIONS).build();
    assert_eq!(options(&forwarded(talk.desk.send(&reply)))[..4], [2, 4, 0x05, 0xa0]);
}

// 45
#[test]
fn a_header_without_room_is_cleared_and_a_packet_without_room_goes_without() {
    let mut talk = Conversation::open(&with_options("--client-address toa"), CLIENT, VIRTUAL, REAL);
    let timestamps = [8, 10, 0, 0, 0, 9, 0, 0, 0, 8];
    let sack = [&[5, 26][..], &[0; 24]].concat();
    let full = [&[1, 1][..], &timestamps, &[1, 1], &sack].concat();
    let sent = forwarded(talk.desk.send(&talk.request().numbers(1001, 5001).tcp_options(&full).build()));
    assert_eq!(options(&sent), [&TOA[..], &timestamps, &[0, 0]].concat());

    let long = talk.request().numbers(1001, 5001).payload_len(1460 - 7).dont_fragment();
    let expected = talk.at_server().numbers(talk.shifted(1001), 5001).payload_len(1460 - 7).dont_fragment();
    check(&mut talk.desk, &long, &expected);
    assert_eq!(talk.desk.director.client_addresses_omitted(), 1);
    let fits = talk.request().numbers(1001, 5001).payload_len(1460 - 8).dont_fragment().build();
    assert_eq!(options(&forwarded(talk.desk.send(&fits))), TOA);
    assert_eq!(talk.desk.director.client_addresses_omitted(), 1);
}

/// PROXY protocol version 2, TCP over IPv4, 198.51.100.7:1024 to 192.0.2.80:80.
const PROXY_V2: [u8; 28] = [
    0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a, 0x21, 0x11, 0, 12, 198, 51, 100, 7, 192, 0,
    2, 80, 4, 0, 0, 80,
];

#[test]
fn a_proxy_header_comes_before_the_clients_first_byte_and_moves_the_rest() {
    let text = b"PROXY TCP4 198.51.100.7 192.0.2.80 1024 80\r\n".to_vec();
    let other = b"PROXY TCP4 198.51.100.7 192.0.2.80 10240 80\r\n".to_vec();
    assert_ne!(text.len() % 2, other.len() % 2, "one of them shifts the data by an odd number of bytes");
    let cases = [
        ("proxy-v1", CLIENT, text),
        ("proxy-v1", "198.51.100.7:10240", other),
        ("proxy-v2", CLIENT, PROXY_V2.to_vec()),
    ];
    for (kind, client, header) in cases {
        let rules = with_options(&format!("--client-address {kind}"));
        let mut talk = Conversation::open(&rules, client, VIRTUAL, REAL);
        let len = header.len() as u32;
        // It goes with the handshake's last segment, and with all that begin there until the server has it.
        let ack = talk.request().numbers(1001, 5001);
        let expected = talk.at_server().numbers(talk.shifted(1001), 5001).payload(&header);
        check(&mut talk.desk, &ack, &expected);
        // The second segment overtakes the first; then the first, and once more.
        let second = talk.request().numbers(1006, 5001).payload(b"you");
        let expected = talk.at_server().numbers(talk.shifted(1006) + len, 5001).payload(b"you");
        check(&mut talk.desk, &second, &expected);
        let first = talk.request().numbers(1001, 5001).payload(b"hello");
        let expected = [&header[..], b"hello"].concat();
        let expected = talk.at_server().numbers(talk.shifted(1001), 5001).payload(&expected);
        check(&mut talk.desk, &first, &expected);
        check(&mut talk.desk, &first, &expected);
        // Half of the header acknowledged, then all and some of the data.
        let reply = talk.reply().numbers(5001, talk.shifted(1001) + 9);
        let expected = talk.at_client().numbers(5001, 1001);
        check(&mut talk.desk, &reply, &expected);
        let reply = talk.reply().numbers(5001, talk.shifted(1003) + len);
        let expected = talk.at_client().numbers(5001, 1003);
        check(&mut talk.desk, &reply, &expected);
        // What the server has it does not get again.
        let expected = talk.at_server().numbers(talk.shifted(1001) + len, 5001).payload(b"hello");
        check(&mut talk.desk, &first, &expected);
    }
}

#[test]
fn nobody_gets_data_to_the_server_before_the_server_knows_whose_it_is() {
    let fast_open = [34, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 1];
    for (kind, expected) in [("none", fast_open), ("toa", [1; 12]), ("proxy-v1", [1; 12]), ("proxy-v2", [1; 12])] {
        let mut desk = Desk::new(&with_options(&format!("--client-address {kind}")));
        let syn = tcp(CLIENT, VIRTUAL).syn().tcp_options(&fast_open);
        assert_eq!(options(&forwarded(desk.send(&syn.build()))), expected, "{kind}");
        let with_data = desk.send(&syn.payload(b"PROXY TCP4 10.9.8.7 192.0.2.80 1 80\r\n").build());
        let is_refused = with_data.verdict == Verdict::Drop(DropReason::NotForwardable);
        assert_eq!(is_refused, kind.starts_with("proxy"), "{kind}");
    }
}

#[test]
fn a_client_that_only_says_goodbye_is_announced_too() {
    let mut talk = Conversation::open(&with_options("--client-address proxy-v2"), CLIENT, VIRTUAL, REAL);
    let fin = talk.request().fin().numbers(1001, 5001);
    let expected = talk.at_server().fin().numbers(talk.shifted(1001), 5001).payload(&PROXY_V2);
    check(&mut talk.desk, &fin, &expected);
    let reply = talk.reply().fin().numbers(5001, talk.shifted(1001)).build();
    forwarded(talk.desk.send(&reply));
    let last = talk.request().numbers(1002, 5002);
    let expected = talk.at_server().numbers(talk.shifted(1002) + 28, 5002);
    check(&mut talk.desk, &last, &expected);
}

#[test]
fn a_segment_without_room_for_the_proxy_header_is_too_big_by_that_much() {
    let mut talk = Conversation::open(&with_options("--client-address proxy-v2"), CLIENT, VIRTUAL, REAL);
    let long = talk.request().numbers(1001, 5001).payload_len(1460).dont_fragment();
    let answer = talk.desk.send(&long.build());
    let expected = format!("<- 198.51.100.7: 192.0.2.80 > 198.51.100.7 ICMP 3/4 info={:08x}", 1500 - 28);
    assert!(answer.line().starts_with(&expected), "{}", answer.line());
    let fits = talk.request().numbers(1001, 5001).payload_len(1460 - 28).dont_fragment().build();
    assert_eq!(forwarded(talk.desk.send(&fits)).len(), 1500);
}

#[test]
fn a_long_proxy_header_takes_room_on_both_sides_of_the_packet() {
    let rules = WEB6.replace("-s rr\n", "-s rr --client-address proxy-v1\n");
    let client = "[2001:db8:1111:2222:3333:4444:5555:6666]:50000";
    let header = "PROXY TCP6 2001:db8:1111:2222:3333:4444:5555:6666 2001:db8::80 50000 80\r\n";
    assert!(header.len() > lvs_core::HEADROOM);
    let mut talk = Conversation::open(&rules, client, VIRTUAL6, REAL6);
    let first = talk.request().numbers(1001, 5001).payload(b"hello");
    let expected = talk.at_server().numbers(talk.shifted(1001), 5001).payload(format!("{header}hello").as_bytes());
    check(&mut talk.desk, &first, &expected);
    let tight = talk.desk.send_storage(Storage::with_room(&first.build(), 40, 20));
    assert_eq!(tight.verdict, Verdict::Drop(DropReason::NoHeadroom));
}

#[test]
fn link_padding_does_not_get_behind_the_proxy_header() {
    let rules = with_options("--client-address proxy-v1");
    for client in [CLIENT, "198.51.100.7:10240"] {
        let mut talk = Conversation::open(&rules, client, VIRTUAL, REAL);
        let first = talk.request().numbers(1001, 5001).payload(b"hi").trailing(&[0xaa; 5]);
        let sent = forwarded(talk.desk.send(&first.build()));
        let len = usize::from(u16::from_be_bytes([sent[2], sent[3]]));
        assert!(sent[..len].ends_with(b"80\r\nhi"));
        assert_eq!(oracle::checksum_errors(&sent[..len]), [""; 0]);
    }
}

#[test]
fn a_packet_that_would_pass_the_longest_there_is_goes_nowhere() {
    for (room, expected) in [(0, true), (1, false)] {
        let mut talk = Conversation::open(&with_options("--client-address proxy-v2"), CLIENT, VIRTUAL, REAL);
        let payload_len = usize::from(u16::MAX) - 40 - PROXY_V2.len() + room;
        let request = talk.request().numbers(1001, 5001).payload_len(payload_len).partial_checksum();
        let gso = Some(Gso { kind: GsoKind::TcpV4, size: 1400, ecn: false });
        let offload = Offload { checksum: request.offload(), gso };
        let sent = talk.desk.send_storage(Storage::with_room(&request.build(), 64, 2048).offload(offload));
        assert_eq!(matches!(sent.verdict, Verdict::Forward { .. }), expected);
        assert_eq!(sent.verdict == Verdict::Drop(DropReason::TooBig), !expected);
    }
}

#[test]
fn datagrams_that_are_still_to_be_cut_cannot_have_a_proxy_header_each() {
    let mut desk = Desk::new(&with_options("--client-address proxy-v2").replace("-t ", "-u "));
    let datagrams = udp(CLIENT, VIRTUAL).payload_len(2400).partial_checksum();
    let gso = Some(Gso { kind: GsoKind::Udp, size: 1200, ecn: false });
    let offload = Offload { checksum: datagrams.offload(), gso };
    let sent = desk.send_storage(Storage::with_room(&datagrams.build(), 64, 2048).offload(offload));
    assert_eq!(sent.verdict, Verdict::Drop(DropReason::NotForwardable));
}

#[test]
fn every_datagram_has_its_proxy_header() {
    let rules = with_options("--client-address proxy-v2").replace("-t ", "-u ");
    let mut desk = Desk::new(&rules);
    let mut header = PROXY_V2;
    header[13] = 0x12; // over UDP
    for payload in ["one", "other"] {
        let sent = forwarded(desk.send(&udp(CLIENT, VIRTUAL).payload(payload.as_bytes()).build()));
        let expected = [&header[..], payload.as_bytes()].concat();
        assert_eq!(sent, udp(local_endpoint(&desk), REAL).payload(&expected).hop_limit(63).build());
    }
    let parts = udp(CLIENT, VIRTUAL).payload_len(2000).fragments(1200);
    assert_eq!(desk.send(&parts[0]).verdict, Verdict::Drop(DropReason::NotForwardable));
    assert_eq!(desk.send(&parts[1]).verdict, Verdict::Drop(DropReason::NotForwardable));
}

#[test]
fn a_connection_keeps_the_options_it_began_with() {
    let mut talk = Conversation::open(&with_options("--client-address proxy-v2"), CLIENT, VIRTUAL, REAL);
    talk.desk.ipvsadm("-E -t 192.0.2.80:80 -s rr");
    let first = talk.request().numbers(1001, 5001).payload(b"hello");
    let expected = [&PROXY_V2[..], b"hello"].concat();
    let expected = talk.at_server().numbers(talk.shifted(1001), 5001).payload(&expected);
    check(&mut talk.desk, &first, &expected);
}

#[test]
fn super_packets_with_checksums_left_to_the_device_get_all_of_it_once() {
    for (kind, inserted) in [("toa", &TOA[..]), ("proxy-v2", &PROXY_V2)] {
        let rules = with_options(&format!("--client-address {kind}"));
        let mut talk = Conversation::open(&rules, CLIENT, VIRTUAL, REAL);
        let request = talk.request().numbers(1001, 5001).payload_len(20_000).partial_checksum();
        let gso = Some(Gso { kind: GsoKind::TcpV4, size: 1400, ecn: false });
        let offload = Offload { checksum: request.offload(), gso };
        let sent = talk.desk.send_storage(Storage::with_room(&request.build(), 64, 2048).offload(offload));
        assert!(matches!(sent.verdict, Verdict::Forward { .. }));
        let expected = talk.at_server().numbers(talk.shifted(1001), 5001).partial_checksum();
        let whole = request.build();
        let expected = match kind {
            "toa" => expected.tcp_options(inserted).payload(&whole[40..]),
            _ => expected.payload(&[inserted, &whole[40..]].concat()),
        };
        assert_eq!(sent.bytes, expected.build(), "{kind}");
        assert_eq!(sent.offload, Offload { checksum: ChecksumOffload::Partial { start: 20, offset: 16 }, gso });
    }
}

// 46
#[test]
fn an_error_from_the_servers_side_is_about_what_the_client_sent() {
    for (kind, less) in [("none", 0), ("toa", 8), ("proxy-v2", 28)] {
        let rules = with_options(&format!("--client-address {kind}"));
        let mut talk = Conversation::open(&rules, CLIENT, VIRTUAL, REAL);
        let sent = forwarded(talk.desk.send(&talk.request().numbers(1001, 5001).payload_len(900).build()));
        let error = icmp_error("10.0.0.1", 3, 4, 700, &sent[..28]).build();
        let relayed = forwarded(talk.desk.send(&error));
        let line = describe(&relayed);
        let expected =
            format!("192.0.2.80 > 198.51.100.7 ICMP 3/4 info={:08x} {{198.51.100.7.1024 > 192.0.2.80.80 ", 700 - less);
        assert!(line.starts_with(&expected), "{line}");
        assert_eq!(sequence(&relayed[28..]), 1001, "{kind}");
    }
}

#[test]
fn no_ipv6_client_is_told_less_than_every_link_takes() {
    let rules = WEB6.replace("-s rr\n", "-s rr --client-address toa\n");
    for (mtu, told) in [(1400, 1380), (1290, 1280), (1280, 1280)] {
        let mut talk = Conversation::open(&rules, CLIENT6, VIRTUAL6, REAL6);
        let sent = forwarded(talk.desk.send(&talk.request().numbers(1001, 5001).payload_len(900).build()));
        let relayed = forwarded(talk.desk.send(&icmp_error("fd00::1", 2, 0, mtu, &sent).build()));
        let expected = format!("2001:db8::80 > 2001:db8:c::7 ICMP6 2/0 info={told:08x} ");
        assert!(describe(&relayed).starts_with(&expected), "{}", describe(&relayed));
    }
}

#[test]
fn an_error_from_the_clients_side_is_about_what_the_server_sent() {
    let mut talk = Conversation::open(WEB, CLIENT, VIRTUAL, REAL);
    let sent = forwarded(talk.desk.send(&talk.reply().numbers(5001, talk.shifted(1001)).payload_len(900).build()));
    let error = icmp_error("198.51.100.254", 3, 1, 0, &sent[..28]).build();
    let relayed = talk.desk.send(&error);
    let expected = "-> 10.0.0.2: 10.0.0.200 > 10.0.0.2 ICMP 3/1 info=00000000 {10.0.0.2.8080 > 10.0.0.200.";
    assert!(relayed.line().starts_with(expected), "{}", relayed.line());
    assert_eq!(sequence(&relayed.bytes[28..]), 5001);
}

#[test]
fn a_damaged_error_is_dropped() {
    let mut talk = Conversation::open(WEB, CLIENT, VIRTUAL, REAL);
    let sent = forwarded(talk.desk.send(&talk.request().numbers(1001, 5001).build()));
    let error = icmp_error("10.0.0.1", 3, 1, 0, &sent[..28]).bad_checksum().build();
    assert_eq!(talk.desk.send(&error).verdict, Verdict::Drop(DropReason::BadIcmpChecksum));
}

#[test]
fn a_tcp_header_cut_in_two_does_not_pass() {
    let mut talk = Conversation::open(&with_options("--keep-sequence"), CLIENT, VIRTUAL, REAL);
    let spoofed = talk.request().numbers(1001, 5001).tcp_options(&[1, 1, 1, 1, 254, 8, 0, 80, 10, 9, 8, 7]);
    let parts = spoofed.payload_len(40).fragments(24);
    assert_eq!(talk.desk.send(&parts[0]).verdict, Verdict::Drop(DropReason::TruncatedTransport));
    assert_eq!(talk.desk.send(&parts[1]).verdict, Verdict::Drop(DropReason::TruncatedTransport));
}

#[test]
fn fragments_follow_their_first_one_both_ways_whatever_their_order() {
    for (rules, client, virtual_endpoint, real) in [(WEB, CLIENT, VIRTUAL, REAL), (WEB6, CLIENT6, VIRTUAL6, REAL6)] {
        let mut desk = Desk::new(&rules.replace("-t ", "-u "));
        let parts = udp(client, virtual_endpoint).payload_len(3000).fragments(1200);
        assert_eq!(desk.send(&parts[1]).verdict, Verdict::Held);
        let first = forwarded(desk.send(&parts[0]));
        let local = local_endpoint(&desk);
        let expected = udp(local, real).payload_len(3000).hop_limit(63).fragments(1200);
        assert_eq!(first, expected[0]);
        assert_eq!(desk.transmits().iter().map(|sent| &sent.bytes).collect::<Vec<_>>(), [&expected[1]]);
        assert_eq!(forwarded(desk.send(&parts[2])), expected[2]);

        let parts = udp(real, local).payload_len(3000).fragments(1200);
        let expected = udp(virtual_endpoint, client).payload_len(3000).hop_limit(63).fragments(1200);
        assert_eq!(desk.send(&parts[2]).verdict, Verdict::Held);
        assert_eq!(forwarded(desk.send(&parts[0])), expected[0]);
        assert_eq!(desk.transmits().iter().map(|sent| &sent.bytes).collect::<Vec<_>>(), [&expected[2]]);
        assert_eq!(forwarded(desk.send(&parts[1])), expected[1]);
    }
}

/// A director with two local ports for each server.
fn two_ports(rules: &str) -> Desk {
    let local_ports = LocalPorts::default().with(|ports| {
        ports.first = 2000;
        ports.last = 2001;
    });
    Desk::with_config(Desk::config().with(|config| config.local_ports = local_ports), rules)
}

fn syn_from(port: u16) -> Vec<u8> {
    tcp(SocketAddr::from(([198, 51, 100, 7], port)), VIRTUAL).syn().build()
}

fn exhausted_events(desk: &mut Desk) -> usize {
    core::iter::from_fn(|| desk.director.poll_event())
        .filter(|event| matches!(event, Event::LocalPortsExhausted { server, .. } if server.to_string() == REAL))
        .count()
}

/// Opens a connection that comes about: a half-open one would give its port to the next.
fn open_from(desk: &mut Desk, port: u16) {
    forwarded(desk.send(&syn_from(port)));
    forwarded(desk.send(&tcp(SocketAddr::from(([198, 51, 100, 7], port)), VIRTUAL).ack().numbers(1, 1).build()));
}

// 47, 51
#[test]
fn running_out_of_ports_is_counted_answered_and_told_once() {
    let mut desk = two_ports(WEB);
    open_from(&mut desk, 1);
    open_from(&mut desk, 2);
    for (port, drops) in [(3, 1), (4, 2)] {
        let answer = desk.send(&syn_from(port));
        assert!(answer.line().starts_with("<- 198.51.100.7: 192.0.2.80 > 198.51.100.7 ICMP 3/3"), "{}", answer.line());
        assert_eq!(desk.director.drops(DropReason::LocalPortsExhausted), drops);
    }
    assert_eq!(exhausted_events(&mut desk), 1);
    desk.pass(Duration::from_secs(900 + 6)); // ESTABLISHED, quarantine
    open_from(&mut desk, 5);
    open_from(&mut desk, 6);
    let _ = desk.send(&syn_from(7));
    assert_eq!(exhausted_events(&mut desk), 1, "it was over in between");
}

#[test]
fn another_server_another_local_address_and_another_protocol_have_ports_of_their_own() {
    let mut desk = two_ports(WEB);
    open_from(&mut desk, 1);
    open_from(&mut desk, 2);
    assert!(matches!(desk.send(&syn_from(3)).verdict, Verdict::Reply { .. }));
    desk.ipvsadm("--add-laddr -t 192.0.2.80:80 --local-address 10.0.0.201");
    open_from(&mut desk, 4);
    open_from(&mut desk, 5);
    assert!(matches!(desk.send(&syn_from(6)).verdict, Verdict::Reply { .. }));
    desk.ipvsadm(&WEB.replace("-t ", "-u "));
    forwarded(desk.send(&udp(CLIENT, VIRTUAL).build()));
    desk.ipvsadm("-e -t 192.0.2.80:80 -r 10.0.0.2:8080 --fullnat -w 0");
    desk.ipvsadm("-a -t 192.0.2.80:80 -r 10.0.0.3:8080 --fullnat");
    (7..11).for_each(|port| open_from(&mut desk, port));
    assert!(matches!(desk.send(&syn_from(11)).verdict, Verdict::Reply { .. }));
}

// 51
#[test]
fn every_server_sees_every_local_address_though_both_lists_are_as_long() {
    let mut desk = Desk::new(WEB);
    desk.ipvsadm("--add-laddr -t 192.0.2.80:80 --local-address 10.0.0.201");
    desk.ipvsadm("-a -t 192.0.2.80:80 -r 10.0.0.3:8080 --fullnat");
    (1001..=1128).for_each(|port| drop(forwarded(desk.send(&syn_from(port)))));
    for real in ["10.0.0.2:8080", "10.0.0.3:8080"] {
        for local in ["10.0.0.200", "10.0.0.201"] {
            let is_theirs = |connection: &&lvs_core::view::ConnectionView| {
                connection.real.to_string() == real && connection.local.unwrap().address.to_string() == local
            };
            let count = desk.connections().iter().filter(is_theirs).count();
            assert!(count >= 16, "{real} sees {local} {count} times in 64");
        }
    }
}

#[test]
fn services_that_share_server_and_local_address_share_its_ports() {
    let mut desk = two_ports(WEB);
    desk.ipvsadm(&WEB.replace("192.0.2.80", "192.0.2.81"));
    let other = |port| tcp(SocketAddr::from(([198, 51, 100, 7], port)), "192.0.2.81:80").syn().build();
    open_from(&mut desk, 1);
    open_from(&mut desk, 2);
    assert!(matches!(desk.send(&other(2)).verdict, Verdict::Reply { .. }));
}

// 51
#[test]
fn a_service_without_local_addresses_is_not_silent_either() {
    let mut desk = Desk::new(WEB);
    desk.ipvsadm("--del-laddr -t 192.0.2.80:80 --local-address 10.0.0.200");
    let answer = desk.send(&syn_from(1));
    assert!(answer.line().contains("ICMP 3/3"), "{}", answer.line());
    assert_eq!(desk.director.drops(DropReason::LocalPortsExhausted), 1);
    assert_eq!(exhausted_events(&mut desk), 1);
}

#[test]
fn a_deleted_local_address_serves_its_connections_to_the_end() {
    let mut talk = Conversation::open(WEB, CLIENT, VIRTUAL, REAL);
    talk.desk.ipvsadm("--add-laddr -t 192.0.2.80:80 --local-address 10.0.0.201");
    talk.desk.ipvsadm("--del-laddr -t 192.0.2.80:80 --local-address 10.0.0.200");
    let reply = talk.reply().numbers(5001, talk.shifted(1001));
    let expected = talk.at_client().numbers(5001, 1001);
    check(&mut talk.desk, &reply, &expected);
    let sent = forwarded(talk.desk.send(&syn_from(9)));
    assert!(describe(&sent).starts_with("10.0.0.201."), "{}", describe(&sent));
    assert_eq!(
        talk.desk.director.local_addresses().collect::<Vec<_>>(),
        ["10.0.0.201".parse::<std::net::IpAddr>().unwrap()]
    );
}

#[test]
fn a_port_comes_back_only_after_its_quarantine() {
    let mut desk = two_ports(WEB);
    for port in [1, 2] {
        forwarded(desk.send(&syn_from(port)));
    }
    let locals: Vec<_> = desk.connections().iter().filter_map(|connection| connection.local).collect();
    desk.pass(Duration::from_secs(60)); // SYN_RECV
    let ports = desk.director.local_ports(desk.now)[0];
    assert_eq!((ports.leased, ports.free, ports.quarantined), (0, 0, 2));
    assert!(matches!(desk.send(&syn_from(3)).verdict, Verdict::Reply { .. }));
    desk.pass(Duration::from_millis(5_100));
    forwarded(desk.send(&syn_from(4)));
    assert!(locals.contains(&desk.connections()[0].local.unwrap()));
}

#[test]
fn local_address_commands_say_what_is_wrong() {
    let mut desk = Desk::new(WEB);
    let key = ServiceKey::address(Protocol::Tcp, VIRTUAL.parse().unwrap());
    let nobody = ServiceKey::address(Protocol::Udp, VIRTUAL.parse().unwrap());
    let local = "10.0.0.200".parse().unwrap();
    let other = "10.0.0.201".parse().unwrap();
    let mut refusal = |command: Command| desk.director.apply(desk.now, &command).unwrap_err();
    assert_eq!(refusal(Command::AddLocalAddress(key, local)), ControlError::LocalAddressExists(local));
    assert_eq!(refusal(Command::AddLocalAddress(nobody, local)), ControlError::ServiceNotDefined(nobody));
    assert_eq!(refusal(Command::DeleteLocalAddress(key, other)), ControlError::NoSuchLocalAddress(other));
    let many = "224.0.0.1".parse().unwrap();
    assert!(matches!(refusal(Command::AddLocalAddress(key, many)), ControlError::Invalid(_)));
}

#[test]
fn a_service_is_deleted_with_its_local_addresses_and_its_ports_stay_taken() {
    let mut talk = Conversation::open(WEB, CLIENT, VIRTUAL, REAL);
    talk.desk.ipvsadm("-D -t 192.0.2.80:80");
    assert_eq!(talk.desk.director.local_addresses().count(), 0);
    assert_eq!(talk.desk.director.local_ports(talk.desk.now)[0].leased, 1);
    talk.desk.pass(Duration::from_secs(1000));
    assert_eq!(talk.desk.director.local_ports(talk.desk.now)[0].leased, 0);
}

// 48
#[test]
fn a_stray_segment_to_a_virtual_address_is_not_reset() {
    let mut desk = Desk::new(WEB);
    assert_eq!(desk.send(&tcp(CLIENT, VIRTUAL).ack().build()).verdict, Verdict::Pass);
}

// 51
#[test]
fn a_persistent_connection_outlives_its_servers_quiescence() {
    let mut talk = Conversation::open(&with_options("-p 300"), CLIENT, VIRTUAL, REAL);
    talk.desk.ipvsadm("-e -t 192.0.2.80:80 -r 10.0.0.2:8080 --fullnat -w 0");
    let request = talk.request().numbers(1001, 5001);
    let expected = talk.at_server().numbers(talk.shifted(1001), 5001);
    check(&mut talk.desk, &request, &expected);
}

// DPVS looks up neither.
#[test]
fn marked_and_any_port_services_have_full_nat_too() {
    let any_port = WEB.replace("192.0.2.80:80 -s rr", "192.0.2.80:0 -s rr -p 300").replace(":80 -", ":0 -");
    let mut desk = Desk::new(&any_port);
    let sent = forwarded(desk.send(&tcp(CLIENT, "192.0.2.80:443").syn().build()));
    assert!(describe(&sent).contains("> 10.0.0.2.443 TCP S"), "{}", describe(&sent));

    let mut desk =
        Desk::new("-A -f 7 -s rr\n--add-laddr -f 7 --local-address 10.0.0.200\n-a -f 7 -r 10.0.0.2 --fullnat");
    let sent = desk.send_storage(Storage::with_room(&tcp(CLIENT, VIRTUAL).syn().build(), 64, 64).mark(7));
    assert!(describe(&forwarded(sent)).contains("> 10.0.0.2.80 TCP S"));
}

#[test]
fn one_packet_scheduling_gives_way_so_that_replies_find_their_client() {
    let mut desk = Desk::new(&with_options("-o").replace("-t ", "-u "));
    forwarded(desk.send(&udp(CLIENT, VIRTUAL).build()));
    let local = local_endpoint(&desk);
    check(&mut desk, &udp(REAL, local), &udp(VIRTUAL, CLIENT).hop_limit(63));
}

#[test]
fn from_ipv6_to_ipv4_and_back() {
    let mut talk = Conversation::begin(WEB64, CLIENT6, VIRTUAL6, REAL);
    // RFC 7915: traffic class and hop limit stay (but for our own hop); no DF, an identification of our own.
    let at_server = |packet: Packet, sent: &[u8]| {
        let identification = u16::from_be_bytes([sent[4], sent[5]]);
        packet.identification(identification.into()).hop_limit(63).traffic_class(0xb9).build()
    };
    let reply = talk.reply().syn().numbers(SERVER_ISN, talk.isn + 1).traffic_class(0xb9);
    let expected = talk.at_client().syn().numbers(SERVER_ISN, CLIENT_ISN + 1).traffic_class(0xb9);
    check(&mut talk.desk, &reply, &expected);
    let request = talk.request().numbers(1001, 5001).payload(b"hello").traffic_class(0xb9);
    let expected = talk.at_server().numbers(talk.shifted(1001), 5001).payload(b"hello");
    let sent = forwarded(talk.desk.send(&request.build()));
    assert_eq!(sent, at_server(expected, &sent));
    assert_eq!(talk.desk.connections()[0].state, "ESTABLISHED");

    let mut desk = Desk::new(&WEB64.replace("-t ", "-u "));
    let sent = forwarded(desk.send(&udp(CLIENT6, VIRTUAL6).payload(b"hello").traffic_class(0xb9).build()));
    let local = local_endpoint(&desk);
    assert_eq!(sent, at_server(udp(local, REAL).payload(b"hello"), &sent));
    for reply in [udp(REAL, local).payload(b"world"), udp(REAL, local).payload(b"world").no_checksum()] {
        check(&mut desk, &reply, &udp(VIRTUAL6, CLIENT6).payload(b"world").hop_limit(63));
        let with_options = reply.ipv4_options(&[148, 4, 0, 0]);
        check(&mut desk, &with_options, &udp(VIRTUAL6, CLIENT6).payload(b"world").hop_limit(63));
    }

    let mut desk = Desk::new(&WEB64.replace("-t ", "--sctp-service "));
    let sent = forwarded(desk.send(&sctp(CLIENT6, VIRTUAL6).chunk(1, &[9; 16]).traffic_class(0xb9).build()));
    let local = local_endpoint(&desk);
    assert_eq!(sent, at_server(sctp(local, REAL).chunk(1, &[9; 16]), &sent));
    check(
        &mut desk,
        &sctp(REAL, local).tag(7).chunk(2, &[9; 16]),
        &sctp(VIRTUAL6, CLIENT6).tag(7).chunk(2, &[9; 16]).hop_limit(63),
    );
}

#[test]
fn between_families_a_packet_may_be_as_long_as_the_other_side_takes() {
    let mut talk = Conversation::open(WEB64, CLIENT6, VIRTUAL6, REAL);
    // 40 + 20 + 1460 = 1520 bytes become 1500.
    let fits = talk.request().numbers(1001, 5001).payload_len(1460);
    assert_eq!(forwarded(talk.desk.send(&fits.build())).len(), 1500);
    let answer = talk.desk.send(&talk.request().numbers(1001, 5001).payload_len(1461).build());
    let expected = format!("<- 2001:db8:c::7: 2001:db8::80 > 2001:db8:c::7 ICMP6 2/0 info={:08x}", 1520);
    assert!(answer.line().starts_with(&expected), "{}", answer.line());

    let fits = talk.reply().numbers(5001, talk.shifted(1001)).payload_len(1440);
    assert_eq!(forwarded(talk.desk.send(&fits.build())).len(), 1500);
    // Longer ones are refused whatever their DF says: IPv6 is not fragmented on its way.
    let answer = talk.desk.send(&talk.reply().numbers(5001, talk.shifted(1001)).payload_len(1441).build());
    let expected = format!("<- 10.0.0.2: 10.0.0.200 > 10.0.0.2 ICMP 3/4 info={:08x}", 1480);
    assert!(answer.line().starts_with(&expected), "{}", answer.line());
}

#[test]
fn errors_are_translated_between_families() {
    // (type, code, last bytes) from the server's side, and as the client gets them: RFC 7915 §4.2.
    let from_server = [
        ((3, 1, 0), Some((1, 0, 0))),
        ((3, 3, 0), Some((1, 4, 0))),
        ((3, 4, 1400), Some((2, 0, 1420))),
        ((3, 4, 0), Some((2, 0, 1280))),
        ((3, 13, 0), Some((1, 1, 0))),
        ((11, 0, 0), Some((3, 0, 0))),
        ((3, 14, 0), None),
        ((4, 0, 0), None),
    ];
    let mut talk = Conversation::open(WEB64, CLIENT6, VIRTUAL6, REAL);
    let request = talk.request().numbers(1001, 5001).payload_len(200);
    let sent = forwarded(talk.desk.send(&request.build()));
    for ((error_type, code, rest), expected) in from_server {
        let outcome = talk.desk.send(&icmp_error("10.0.0.1", error_type, code, rest, &sent).build());
        let Some((new_type, new_code, new_rest)) = expected else {
            assert_eq!(outcome.verdict, Verdict::Drop(DropReason::NotForwardable));
            continue;
        };
        // The quoted packet is the client's own again, but for the hop limit it lost and its transport checksum.
        let mut quoted = request.clone().hop_limit(63).build();
        let checksum = forwarded_checksum(&outcome.bytes, 48 + 40);
        quoted[56..58].copy_from_slice(&checksum);
        let expected = icmp_error(VIRTUAL6.parse::<SocketAddr>().unwrap().ip(), new_type, new_code, new_rest, &quoted);
        assert_eq!(forwarded(outcome), expected.hop_limit(63).build(), "{error_type}/{code}");
    }

    let from_client = [
        ((1, 0, 0), Some((3, 1, 0))),
        ((1, 1, 0), Some((3, 10, 0))),
        ((1, 4, 0), Some((3, 3, 0))),
        ((2, 0, 1400), Some((3, 4, 1380))),
        ((3, 1, 0), Some((11, 1, 0))),
        ((4, 0, 0), None),
    ];
    let reply = talk.reply().numbers(5001, talk.shifted(1001)).payload_len(200);
    let sent = forwarded(talk.desk.send(&reply.build()));
    for ((error_type, code, rest), expected) in from_client {
        let outcome = talk.desk.send(&icmp_error("2001:db8:c::ff", error_type, code, rest, &sent).build());
        let Some((new_type, new_code, new_rest)) = expected else {
            assert_eq!(outcome.verdict, Verdict::Drop(DropReason::NotForwardable));
            continue;
        };
        // The client's number in it stays as the client knows it: senders look at their own only.
        let mut quoted = reply.clone().numbers(5001, 1001).hop_limit(63).identification(0).dont_fragment().build();
        let checksum = forwarded_checksum(&outcome.bytes, 28 + 20);
        quoted[36..38].copy_from_slice(&checksum);
        let expected = icmp_error(talk.local.ip(), new_type, new_code, new_rest, &quoted);
        let expected = expected.hop_limit(63).identification(0).dont_fragment().build();
        assert_eq!(forwarded(outcome), expected, "{error_type}/{code}");
    }
}

/// The checksum of the TCP header at `at`, which errors leave as it was quoted.
fn forwarded_checksum(packet: &[u8], at: usize) -> [u8; 2] {
    packet[at + 16..at + 18].try_into().unwrap()
}

#[test]
fn what_cannot_change_its_family_is_dropped_by_name() {
    let mut desk = Desk::new(&WEB64.replace("-t ", "-u "));
    forwarded(desk.send(&udp(CLIENT6, VIRTUAL6).build()));
    let local = local_endpoint(&desk);
    let not_forwardable = Verdict::Drop(DropReason::NotForwardable);
    assert_eq!(desk.send(&udp(CLIENT6, VIRTUAL6).hop_by_hop().build()).verdict, not_forwardable);
    let fragment = udp(CLIENT6, VIRTUAL6).payload_len(3000).destination_options().fragments(1200);
    assert_eq!(desk.send(&fragment[0]).verdict, not_forwardable);
    // RFC 7915 §4.5: IPv6 asks for a checksum, which is not to be had from a first fragment.
    let fragments = udp(REAL, local).payload_len(3000).no_checksum().fragments(1200);
    assert_eq!(desk.send(&fragments[0]).verdict, not_forwardable);
    assert_eq!(desk.send(&fragments[1]).verdict, not_forwardable);
}

#[test]
fn only_full_nat_reaches_from_ipv6_to_ipv4_and_nothing_back() {
    let rules = "-A -t 192.0.2.80:80 -s rr\n-A -t [2001:db8::80]:80 -s rr";
    let mut desk = Desk::new(rules);
    let ipv4 = ServiceKey::address(Protocol::Tcp, VIRTUAL.parse().unwrap());
    let ipv6 = ServiceKey::address(Protocol::Tcp, VIRTUAL6.parse().unwrap());
    let server = |at: &str| lvs_core::ServerConfig::full_nat(at.parse().unwrap());
    let mut apply = |command: Command| desk.director.apply(desk.now, &command);
    assert_eq!(apply(Command::AddServer(ipv6, server(REAL))), Ok(()));
    assert!(matches!(apply(Command::AddServer(ipv4, server(REAL6))), Err(ControlError::Invalid(_))));
}

#[test]
fn super_packets_change_their_family_as_they_are() {
    let mut talk = Conversation::open(WEB64, CLIENT6, VIRTUAL6, REAL);
    let request = talk.request().numbers(1001, 5001).payload_len(20_000).partial_checksum();
    let gso = |kind| Some(Gso { kind, size: 1400, ecn: false });
    let offload = Offload { checksum: request.offload(), gso: gso(GsoKind::TcpV6) };
    let sent = talk.desk.send_storage(Storage::with_room(&request.build(), 64, 64).offload(offload));
    assert!(matches!(sent.verdict, Verdict::Forward { .. }), "{sent:?}");
    let expected = talk.at_server().numbers(talk.shifted(1001), 5001).payload_len(20_000).partial_checksum();
    assert_eq!(sent.bytes, expected.identification(0).dont_fragment().build());
    let checksum = ChecksumOffload::Partial { start: 20, offset: 16 };
    assert_eq!(sent.offload, Offload { checksum, gso: gso(GsoKind::TcpV4) });
}

#[test]
fn a_clamped_segment_size_and_room_for_the_address_go_together() {
    let mut talk = Conversation::begin(&with_options("--client-address toa"), CLIENT, VIRTUAL, REAL);
    let key = ServiceKey::address(Protocol::Tcp, VIRTUAL.parse().unwrap());
    let mut config = talk.desk.director.service(talk.desk.now, &key).unwrap().config;
    for (clamp, expected) in [(1400, 1400_u16), (1456, 1452)] {
        config.mss_clamp = Some(clamp);
        talk.desk.director.apply(talk.desk.now, &Command::EditService(key, config.clone())).unwrap();
        let reply = talk.reply().syn().numbers(SERVER_ISN, talk.isn + 1).tcp_options(&SYN_OPTIONS).build();
        let sent = forwarded(talk.desk.send(&reply));
        assert_eq!(options(&sent)[2..4], expected.to_be_bytes());
        let syn = tcp(talk.client, talk.virtual_endpoint).syn().tcp_options(&SYN_OPTIONS).build();
        assert_eq!(options(&forwarded(talk.desk.send(&syn)))[2..4], clamp.to_be_bytes());
    }
}

#[test]
fn a_drained_server_and_its_client_are_reset_with_the_numbers_each_of_them_knows() {
    // Lengths: of the PROXY header, and of a segment without anything in it.
    let ends = [(WEB, CLIENT, VIRTUAL, REAL, 28, 40), (WEB6, CLIENT6, VIRTUAL6, REAL6, 52, 60)];
    for (rules, client, virtual_endpoint, real, header_len, reset_len) in ends {
        let rules = rules.replace("-s rr\n", "-s rr --client-address proxy-v2\n");
        let mut talk = Conversation::open(&rules, client, virtual_endpoint, real);
        forwarded(talk.desk.send(&talk.request().numbers(1001, 5001).build()));
        let key = ServiceKey::address(Protocol::Tcp, virtual_endpoint.parse().unwrap());
        let drain = Command::Drain {
            service: key,
            server: lvs_core::Endpoint::new(talk.real.ip(), talk.real.port()),
            deadline: Duration::ZERO,
            then: lvs_core::command::AfterDrain::Reset,
        };
        talk.desk.director.apply(talk.desk.now, &drain).unwrap();
        talk.desk.pass(Duration::from_secs(1));
        let probes = talk.desk.transmits();
        assert_eq!(probes.len(), 4, "both are made to speak");
        assert_eq!(oracle::addresses(&probes[1].bytes), Some((talk.local.ip(), talk.real.ip())));
        let request = talk.request().numbers(1006, 5001).payload(b"you");
        // The window of a RST means nothing.
        let told = |packet: &[u8]| describe(packet).split(" pl=").next().map(str::to_owned);
        let answer = talk.desk.send(&request.build()).bytes;
        assert_eq!(told(&answer), told(&tcp(virtual_endpoint, client).rst().numbers(5001, 0).build()));
        let to_server = talk.desk.transmits();
        let expected = talk.at_server().rst().numbers(talk.shifted(1006) + header_len, 5001).build();
        assert_eq!(told(&to_server[0].bytes), told(&expected));
        for reset in [&answer, &to_server[0].bytes] {
            assert_eq!(reset.len(), reset_len);
            assert_eq!(oracle::parse(reset).unwrap().segment.len(), 20);
            assert_eq!(oracle::checksum_errors(reset), [""; 0]);
        }
    }
}

#[test]
fn listings_call_the_method_by_its_name() {
    let desk = Desk::new(WEB);
    let services = desk.director.services(desk.now);
    assert_eq!(services[0].servers[0].config.forward.name(), "FullNat");
    assert_eq!(services[0].local_addresses, ["10.0.0.200".parse::<std::net::IpAddr>().unwrap()]);
}

#[test]
fn packets_are_counted_as_with_nat() {
    let mut talk = Conversation::open(WEB, CLIENT, VIRTUAL, REAL);
    forwarded(talk.desk.send(&talk.request().numbers(1001, 5001).build()));
    let counters = talk.desk.director.statistics().live;
    assert_eq!((counters.connections, counters.in_packets, counters.out_packets), (1, 2, 1));
    assert_eq!((counters.in_bytes, counters.out_bytes), (80, 40));
    assert!(oracle::checksum_errors(&talk.request().build()).is_empty());
}
