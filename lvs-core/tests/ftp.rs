//! FTP through NAT: data connections are expected where PORT, EPRT, PASV and EPSV say, and both sides keep count.

use std::time::Duration;

use lvs_core::helper::ftp::Ftp;
use lvs_core::helper::{Findings, Helper, Notes, Session};
use lvs_core::{Command, ControlError, DirectorConfig, DropReason, HelperRegistry, ServiceConfig, Verdict};
use lvs_testkit::desk::{nat, tcp_service};
use lvs_testkit::{Desk, Packet, Storage, describe, oracle, tcp};
use proptest::prelude::*;

const FTP: &str = "192.0.2.121:21";
const SERVER: &str = "10.0.0.2:21";
const CLIENT: &str = "198.51.100.7:1024";
/// Where the two sides' numbers start.
const C: u32 = 1_000;
const S: u32 = 9_000;
const PASSIVE: &[u8] = b"227 Entering Passive Mode (10,0,0,2,200,10).\r\n";
const TRANSLATED: &[u8] = b"227 Entering Passive Mode (192,0,2,121,200,10).\r\n";
/// By how much the second is longer.
const GROWN: u32 = 3;

/// A control connection that is established.
fn desk_with(config: DirectorConfig) -> Desk {
    let mut desk = Desk::bare(config);
    desk.add(tcp_service(FTP), ServiceConfig::new("rr").helper("ftp"), [nat(SERVER)]);
    desk.feed(&tcp(CLIENT, FTP).syn().numbers(C - 1, 0).build());
    desk.feed(&tcp(SERVER, CLIENT).syn().ack().numbers(S - 1, C).build());
    desk.feed(&request(0, 0, b"").build());
    assert_eq!(desk.states(), ["ESTABLISHED"]);
    desk
}

fn desk() -> Desk {
    desk_with(DirectorConfig::default())
}

/// A segment of the client, by how many bytes each side has said.
fn request(said: u32, heard: u32, text: &[u8]) -> Packet {
    tcp(CLIENT, FTP).ack().numbers(C + said, S + heard).payload(text)
}

fn reply(said: u32, heard: u32, text: &[u8]) -> Packet {
    tcp(SERVER, CLIENT).ack().numbers(S + said, C + heard).payload(text)
}

/// What the server gets, and the client, where nothing but the addresses changes.
fn arrives_at_server(said: u32, heard: u32, text: &[u8]) -> Packet {
    tcp(CLIENT, SERVER).ack().numbers(C + said, S + heard).payload(text).hop_limit(63)
}

fn arrives_at_client(said: u32, heard: u32, text: &[u8]) -> Packet {
    tcp(FTP, CLIENT).ack().numbers(S + said, C + heard).payload(text).hop_limit(63)
}

/// Sends a packet and wants this one, byte for byte, to go on.
fn check(desk: &mut Desk, sent: &Packet, expected: &Packet) {
    let verdict = desk.send(&sent.build()).verdict;
    assert!(matches!(verdict, Verdict::Forward { .. }), "{verdict:?}: {}", describe(&sent.build()));
    let expected = expected.build();
    assert_eq!(describe(&desk.bytes), describe(&expected));
    assert_eq!(desk.bytes, expected);
}

/// `client > virtual > real state` of every connection but the control connection, sorted.
fn data_connections(desk: &Desk) -> Vec<String> {
    let data = desk.connections().into_iter().filter(|row| row.virtual_endpoint.port != 21);
    let mut rows: Vec<_> =
        data.map(|row| format!("{} > {} > {} {}", row.client, row.virtual_endpoint, row.real, row.state)).collect();
    rows.sort();
    rows
}

/// PASV, and the reply with the virtual address.
fn pasv(desk: &mut Desk) {
    check(desk, &request(0, 0, b"PASV\r\n"), &arrives_at_server(0, 0, b"PASV\r\n"));
    check(desk, &reply(0, 6, PASSIVE), &arrives_at_client(0, 6, TRANSLATED));
}

#[test]
fn a_passive_data_connection_is_expected_from_any_port_of_the_client() {
    let mut desk = desk();
    pasv(&mut desk);
    assert_eq!(data_connections(&desk), ["198.51.100.7:0 > 192.0.2.121:51210 > 10.0.0.2:51210 LISTEN"]);
    let syn = tcp("198.51.100.7:3100", "192.0.2.121:51210").syn();
    check(&mut desk, &syn, &tcp("198.51.100.7:3100", "10.0.0.2:51210").syn().hop_limit(63));
    assert_eq!(data_connections(&desk), ["198.51.100.7:3100 > 192.0.2.121:51210 > 10.0.0.2:51210 SYN_RECV"]);
    let answer = tcp("10.0.0.2:51210", "198.51.100.7:3100").syn().ack();
    check(&mut desk, &answer, &tcp("192.0.2.121:51210", "198.51.100.7:3100").syn().ack().hop_limit(63));
    // The port is known now: a second connection to it is not expected.
    let second = tcp("198.51.100.7:3101", "192.0.2.121:51210").syn().build();
    assert_eq!(desk.send(&second).verdict, Verdict::Pass);
    let server = desk.server(tcp_service(FTP), SERVER);
    assert_eq!((server.active_connections, server.inactive_connections), (2, 0));
    assert_eq!(desk.director.statistics().live.connections, 1, "data connections are not scheduled");
}

#[test]
fn a_client_port_that_has_too_many_connections_gets_no_data_connection() {
    let mut desk = desk_with(DirectorConfig::default().with(|config| config.client_endpoint_max = 1));
    pasv(&mut desk);
    // The control connection's own port.
    let syn = |port: u16| tcp(&*format!("198.51.100.7:{port}"), "192.0.2.121:51210").syn().build();
    assert_eq!(desk.send(&syn(1024)).verdict, Verdict::Drop(DropReason::ClientEndpointFull));
    assert_eq!(data_connections(&desk), ["198.51.100.7:0 > 192.0.2.121:51210 > 10.0.0.2:51210 LISTEN"]);
    assert!(matches!(desk.send(&syn(3100)).verdict, Verdict::Forward { .. }));
}

#[test]
fn an_active_data_connection_comes_from_the_port_below_the_service() {
    for command in [&b"PORT 198,51,100,7,166,149\r\n"[..], b"EPRT |1|198.51.100.7|42645|\r\n"] {
        let mut desk = desk();
        check(&mut desk, &request(0, 0, command), &arrives_at_server(0, 0, command));
        assert_eq!(data_connections(&desk), ["198.51.100.7:42645 > 192.0.2.121:20 > 10.0.0.2:20 LISTEN"]);
        let syn = tcp("10.0.0.2:20", "198.51.100.7:42645").syn();
        check(&mut desk, &syn, &tcp("192.0.2.121:20", "198.51.100.7:42645").syn().hop_limit(63));
        let answer = tcp("198.51.100.7:42645", "192.0.2.121:20").syn().ack();
        check(&mut desk, &answer, &tcp("198.51.100.7:42645", "10.0.0.2:20").syn().ack().hop_limit(63));
        assert_eq!(data_connections(&desk), ["198.51.100.7:42645 > 192.0.2.121:20 > 10.0.0.2:20 SYN_RECV"]);
    }
}

#[test]
fn both_sides_keep_count_after_a_reply_has_grown() {
    let mut desk = desk();
    pasv(&mut desk);
    let len = PASSIVE.len() as u32;
    check(&mut desk, &request(6, len + GROWN, b""), &arrives_at_server(6, len, b""));
    check(&mut desk, &reply(len, 6, b"150 ok\r\n"), &arrives_at_client(len + GROWN, 6, b"150 ok\r\n"));
    // Acknowledgements and numbers from before the change stay as they are.
    check(&mut desk, &request(6, 0, b""), &arrives_at_server(6, 0, b""));
    // A second time, in a shorter form; the client's numbers never change.
    check(&mut desk, &request(6, len + 8 + GROWN, b"PASV\r\n"), &arrives_at_server(6, len + 8, b"PASV\r\n"));
    let short = [b"227 (10,0,0,2,200,10,192,0,2,121)".as_slice(), b"\r\n"].concat();
    let translated = [b"227 (192,0,2,121,200,10,192,0,2,121)".as_slice(), b"\r\n"].concat();
    check(&mut desk, &reply(len + 8, 12, &short), &arrives_at_client(len + 8 + GROWN, 12, &translated));
    check(&mut desk, &reply(len + 8 + 35, 12, b"."), &arrives_at_client(len + 8 + 35 + 2 * GROWN, 12, b"."));
}

#[test]
fn selective_acknowledgements_are_in_the_receivers_count_wherever_they_stand() {
    for padding in [&[][..], &[1], &[1, 1], &[1, 1, 1]] {
        let mut desk = desk();
        pasv(&mut desk);
        let (len, sack) = (PASSIVE.len() as u32, |left: u32, right: u32| {
            [padding, &[5, 10], &(S + left).to_be_bytes(), &(S + right).to_be_bytes(), &[0]].concat()
        });
        let sent = request(6, 0, b"").tcp_options(&sack(len + GROWN, len + GROWN + 9));
        check(&mut desk, &sent, &arrives_at_server(6, 0, b"").tcp_options(&sack(len, len + 9)));
        assert_eq!(oracle::checksum_errors(&desk.bytes), [""; 0]);
    }
}

#[test]
fn a_reply_sent_again_passes_as_it_is_unless_the_helper_repeats() {
    let mut linux = desk();
    pasv(&mut linux);
    check(&mut linux, &reply(0, 6, PASSIVE), &arrives_at_client(0, 6, PASSIVE));

    let mut helpers = HelperRegistry::default();
    helpers.register("ftp", Ftp { repeats: true });
    let mut desk = desk_with(DirectorConfig::default().with(|config| config.helpers = helpers));
    pasv(&mut desk);
    check(&mut desk, &reply(0, 6, PASSIVE), &arrives_at_client(0, 6, TRANSLATED));
    let len = PASSIVE.len() as u32;
    check(&mut desk, &request(6, len + GROWN, b""), &arrives_at_server(6, len, b""));
}

#[test]
fn both_sides_keep_count_after_a_reply_has_shrunk() {
    // Recording ftp_shrunk.
    let mut desk = desk();
    desk.feed(&request(0, 0, b"PASV\r\n").build());
    let (said, heard) = (b"227 (010,000,000,002,200,10)\r\n", b"227 (192,0,2,121,200,10)\r\n");
    check(&mut desk, &reply(0, 6, said), &arrives_at_client(0, 6, heard));
    let (said, heard) = (said.len() as u32, heard.len() as u32);
    assert!(heard < said);
    check(&mut desk, &request(6, heard, b"NOOP\r\n"), &arrives_at_server(6, said, b"NOOP\r\n"));
    check(&mut desk, &reply(said, 12, b"200 ok\r\n"), &arrives_at_client(heard, 12, b"200 ok\r\n"));
}

#[test]
fn the_control_connection_lives_as_long_as_its_data_connections() {
    let mut desk = desk();
    pasv(&mut desk);
    desk.feed(&tcp("198.51.100.7:3100", "192.0.2.121:51210").syn().build());
    let data = |desk: &mut Desk| {
        desk.feed(&tcp("198.51.100.7:3100", "192.0.2.121:51210").ack().build());
    };
    for _ in 0..3 {
        data(&mut desk);
        desk.pass(Duration::from_secs(600));
    }
    // It was not refreshed for 1800 s.
    assert_eq!(desk.states(), ["ESTABLISHED", "ESTABLISHED"]);
    desk.pass(Duration::from_secs(1_000));
    assert_eq!(desk.states(), [""; 0]);
    let server = desk.server(tcp_service(FTP), SERVER);
    assert_eq!((server.active_connections, server.inactive_connections), (0, 0));
}

#[test]
fn an_announcement_that_is_repeated_waits_for_the_same_connection_again() {
    let mut desk = desk();
    let command = b"PORT 198,51,100,7,166,149\r\n";
    desk.feed(&request(0, 0, command).build());
    desk.feed(&tcp("10.0.0.2:20", "198.51.100.7:42645").syn().build());
    desk.feed(&tcp("198.51.100.7:42645", "192.0.2.121:20").syn().ack().build());
    desk.feed(&request(27, 0, command).build());
    assert_eq!(data_connections(&desk), ["198.51.100.7:42645 > 192.0.2.121:20 > 10.0.0.2:20 LISTEN"]);
    let server = desk.server(tcp_service(FTP), SERVER);
    assert_eq!((server.active_connections, server.inactive_connections), (1, 1));
}

#[test]
fn a_helper_reads_only_where_it_was_asked_for() {
    let command = b"PORT 198,51,100,7,166,149\r\n";
    let expects = |config: ServiceConfig, server| {
        let mut desk = Desk::bare(DirectorConfig::default());
        desk.add(tcp_service(FTP), config, [server]);
        desk.feed(&tcp(CLIENT, FTP).syn().build());
        desk.feed(&tcp(SERVER, CLIENT).syn().ack().build());
        desk.feed(&request(0, 0, b"").build());
        desk.feed(&request(0, 0, command).build());
        desk.connections().len() - 1
    };
    let asked = || ServiceConfig::new("rr").helper("ftp");
    assert_eq!(expects(asked(), nat(SERVER)), 1);
    assert_eq!(expects(ServiceConfig::new("rr"), nat(SERVER)), 0);
    let mut direct = nat(SERVER);
    direct.forward = lvs_core::ForwardMethod::DirectRouting;
    assert_eq!(expects(asked(), direct), 0);
    let refused = Command::AddService(tcp_service(FTP), ServiceConfig::new("rr").helper("gopher"));
    let mut desk = Desk::bare(DirectorConfig::default());
    let error = desk.director.apply(desk.now, &refused).unwrap_err();
    assert_eq!(error, ControlError::NoSuchHelper("gopher".into()));
    assert_eq!(desk.director.services(desk.now), []);
}

#[test]
fn a_damaged_segment_is_dropped_and_one_split_in_two_is_not_understood() {
    let mut desk = desk();
    let damaged = request(0, 0, b"PORT 198,51,100,7,166,149\r\n").bad_checksum().build();
    assert_eq!(desk.send(&damaged).verdict, Verdict::Drop(DropReason::BadTransportChecksum));
    desk.feed(&request(0, 0, b"PORT 198,51,").build());
    desk.feed(&request(12, 0, b"100,7,166,149\r\n").build());
    assert_eq!(data_connections(&desk), [""; 0]);
}

/// Hands over a reply in a buffer with this much room before and behind it.
fn with_room(headroom: usize, tailroom: usize, reply: &Packet) -> (Verdict, Vec<u8>) {
    let mut desk = desk();
    desk.feed(&request(0, 0, b"PASV\r\n").build());
    let storage = Storage::with_room(&reply.build(), headroom, tailroom);
    let sent = desk.send_storage(storage);
    (sent.verdict, sent.bytes)
}

#[test]
fn a_reply_grows_into_whatever_room_there_is() {
    let sent = reply(0, 6, PASSIVE);
    let grown = arrives_at_client(0, 6, TRANSLATED).build();
    for (headroom, tailroom) in [(0, 3), (3, 0), (64, 2)] {
        assert_eq!(with_room(headroom, tailroom, &sent).1, grown, "{headroom} before, {tailroom} behind");
    }
    let padded = reply(0, 6, PASSIVE).trailing(&[0; 4]);
    assert_eq!(with_room(0, 0, &padded).1, grown, "link padding is room");
    let refused = (Verdict::Drop(DropReason::HelperFailed), sent.build());
    assert_eq!(with_room(2, 2, &sent), refused);
}

#[test]
fn what_would_not_fit_the_way_out_any_more_is_dropped_unless_it_may_be_fragmented() {
    let text = [PASSIVE, &b"x".repeat(1_460 - PASSIVE.len())].concat();
    let whole = reply(0, 6, &text).dont_fragment();
    assert_eq!(with_room(64, 64, &whole), (Verdict::Drop(DropReason::TooBig), whole.build()));
    let (verdict, bytes) = with_room(64, 64, &reply(0, 6, &text));
    assert!(matches!(verdict, Verdict::Forward { mtu: 1_500, .. }) && bytes.len() == 1_503, "{verdict:?}");
}

#[test]
fn a_checksum_left_to_the_device_covers_the_new_text() {
    let mut desk = desk();
    desk.feed(&request(0, 0, b"PASV\r\n").build());
    let sent = reply(0, 6, PASSIVE).partial_checksum();
    let offload = lvs_core::Offload { checksum: sent.offload(), gso: None };
    let sent = desk.send_storage(Storage::with_room(&sent.build(), 64, 64).offload(offload));
    assert_eq!(sent.bytes, arrives_at_client(0, 6, TRANSLATED).partial_checksum().build());
    let mut storage = Storage::new(&sent.bytes).offload(sent.offload);
    let mut packet = storage.packet();
    lvs_core::wire::rewrite::complete_checksum(&mut packet).unwrap();
    assert_eq!(oracle::checksum_errors(packet.bytes()), [""; 0]);
}

#[test]
fn ftp_over_ipv6_only_has_the_extended_commands() {
    let (ftp, server, client) = ("[2001:db8:21::1]:21", "[fd00::2]:21", "[2001:db8::7]:1024");
    let mut desk = Desk::bare(DirectorConfig::default());
    desk.add(tcp_service(ftp), ServiceConfig::new("rr").helper("ftp"), [nat(server)]);
    desk.feed(&tcp(client, ftp).syn().build());
    desk.feed(&tcp(server, client).syn().ack().build());
    let from_client = |text: &[u8]| tcp(client, ftp).ack().numbers(C, S).payload(text);
    desk.feed(&from_client(b"EPSV 2\r\n").build());
    let said = tcp(server, client).ack().numbers(S, C).payload(b"229 (|2|fd00::2|51210|)\r\n");
    let heard = tcp(ftp, client).ack().numbers(S, C).payload(b"229 (|||51210|)\r\n").hop_limit(63);
    check(&mut desk, &said, &heard);
    // It has become shorter.
    let acknowledged = tcp(client, ftp).ack().numbers(C, S + 17);
    check(&mut desk, &acknowledged, &tcp(client, server).ack().numbers(C, S + 25).hop_limit(63));
    desk.feed(&from_client(b"EPRT |2|2001:db8::7|42645|\r\n").build());
    let expected = [
        "[2001:db8::7]:0 > [2001:db8:21::1]:51210 > [fd00::2]:51210 LISTEN",
        "[2001:db8::7]:42645 > [2001:db8:21::1]:20 > [fd00::2]:20 LISTEN",
    ];
    assert_eq!(data_connections(&desk), expected);
}

/// Says everything twice, in both directions.
struct Stammer;

impl Helper for Stammer {
    fn port(&self) -> u16 {
        21
    }

    fn request(&self, _session: &Session, _notes: &mut Notes, payload: &[u8]) -> Findings {
        Findings::edit(0..payload.len(), payload.repeat(2))
    }

    fn reply(&self, session: &Session, notes: &mut Notes, payload: &[u8]) -> Findings {
        self.request(session, notes, payload)
    }
}

#[test]
fn a_helper_of_ones_own_may_change_both_directions() {
    let mut helpers = HelperRegistry::empty();
    helpers.register("ftp", Stammer);
    let mut desk = desk_with(DirectorConfig::default().with(|config| config.helpers = helpers));
    check(&mut desk, &request(0, 0, b"ab"), &arrives_at_server(0, 0, b"abab"));
    check(&mut desk, &request(0, 0, b"ab"), &arrives_at_server(0, 0, b"abab"));
    check(&mut desk, &reply(0, 4, b"xyz"), &arrives_at_client(0, 2, b"xyzxyz"));
    check(&mut desk, &request(2, 6, b"c"), &arrives_at_server(4, 3, b"cc"));
    check(&mut desk, &reply(3, 6, b""), &arrives_at_client(6, 3, b""));
}

#[test]
fn a_full_table_refuses_the_announcement_and_changes_nothing() {
    let mut desk = desk_with(DirectorConfig::default().with(|config| config.connections_max = 1));
    let command = request(0, 0, b"PORT 198,51,100,7,166,149\r\n").build();
    assert_eq!(desk.send(&command).verdict, Verdict::Drop(DropReason::ConnectionTableFull));
    assert_eq!(desk.states(), ["ESTABLISHED"]);
}

#[test]
fn a_reset_at_the_end_of_a_drain_is_in_the_receivers_count() {
    let mut desk = desk();
    pasv(&mut desk);
    let (service, server) = (tcp_service(FTP), nat(SERVER).key);
    let then = lvs_core::AfterDrain::Reset;
    desk.apply(&Command::Drain { service, server, deadline: Duration::from_secs(1), then });
    desk.pass(Duration::from_secs(2));
    while desk.transmit().is_some() {}
    let len = PASSIVE.len() as u32;
    desk.feed(&reply(len, 6, b"x").build());
    let reset = desk.transmit().expect("a RST for the client").bytes;
    let shown = describe(&reset);
    assert!(shown.contains(&format!("seq={}", S + len + GROWN)), "{shown}");
}

fn ftp_like() -> impl Strategy<Value = Vec<u8>> {
    let words =
        ["PASV\r\n", "EPSV", "PORT ", "EPRT ", "227 ", "229 ", "(", "|", "|||", ",", "1", "255", " ", "\r\n", "::1"];
    let word = prop_oneof![
        4 => proptest::sample::select(words.to_vec()).prop_map(|word| word.as_bytes().to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..4),
    ];
    proptest::collection::vec(word, 0..12).prop_map(|words| words.concat())
}

proptest! {
    #![proptest_config(lvs_testkit::strategy::config())]

    #[test]
    fn whatever_is_said_the_checksums_are_right_and_nothing_panics(
        texts in proptest::collection::vec((any::<bool>(), ftp_like()), 1..12),
    ) {
        let mut desk = desk();
        let (mut said, mut heard) = (0, 0);
        for (is_request, text) in texts {
            let (packet, count) = if is_request {
                (request(said, heard, &text), &mut said)
            } else {
                (reply(heard, said, &text), &mut heard)
            };
            desk.feed(&packet.build());
            prop_assert_eq!(oracle::checksum_errors(&desk.bytes), [""; 0]);
            *count += text.len() as u32;
        }
    }

    #[test]
    fn a_call_id_is_part_of_its_message(message in proptest::collection::vec(any::<u8>(), 0..200), text in ftp_like()) {
        let headed = [&text[..], b"\r\ni: ", &message[..]].concat();
        if let Ok(found) = lvs_core::persistence::sip::call_id(&headed) {
            prop_assert!(!found.is_empty() && headed.windows(found.len()).any(|window| window == found));
        }
    }
}

/// A super-packet of 64 kB costs no more than a full segment: what comes later in it is not read.
#[test]
fn a_command_deep_inside_a_super_packet_is_not_looked_for() {
    for (before, is_heard) in [(0, true), (1_494, true), (1_495, false), (60_000, false)] {
        let mut desk = desk();
        let text = [vec![b'x'; before], b"PASV\r\n".to_vec()].concat();
        desk.feed(&request(0, 0, &text).build());
        desk.feed(&reply(0, text.len() as u32, PASSIVE).build());
        assert_eq!(!data_connections(&desk).is_empty(), is_heard, "{before} bytes before it");
    }
}
