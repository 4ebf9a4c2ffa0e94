//! Who owes his server a PROXY header and has not shown where it begins carries nothing; neither does who has ended his
//! connection, since a server with SYN cookies takes the answer to any of its SYN|ACKs, however old, for a new one.

use core::time::Duration;

use lvs_core::local_address::LocalPorts;
use lvs_core::{DropReason, Verdict};
use lvs_testkit::{Desk, Outcome, Packet, oracle, strategy, tcp};
use proptest::prelude::*;

const CLIENT: &str = "198.51.100.7:1024";
const VIRTUAL: &str = "192.0.2.80:80";
const REAL: &str = "10.0.0.2:8080";
const LOCAL: &str = "10.0.0.200:2000";
const SPOOFED: &[u8] = b"PROXY TCP4 10.9.8.7 192.0.2.80 1 80\r\nGET / HTTP/1.0\r\n\r\n";
const HEADER_LEN: u32 = b"PROXY TCP4 198.51.100.7 192.0.2.80 1024 80\r\n".len() as u32;

fn rules(more: &str) -> String {
    format!(
        "-A -t 192.0.2.80:80 -s rr --client-address proxy-v1 {more}\n\
         --add-laddr -t 192.0.2.80:80 --local-address 10.0.0.200\n\
         -a -t 192.0.2.80:80 -r 10.0.0.2:8080 --fullnat"
    )
}

/// A director with one local port, so that a server meets the same client endpoint again.
fn desk(more: &str) -> Desk {
    let local_ports = LocalPorts::default().with(|ports| {
        ports.first = 2000;
        ports.last = 2000;
    });
    let mut desk = Desk::with_config(Desk::config().with(|config| config.local_ports = local_ports), &rules(more));
    desk.set(|settings| settings.conn_reuse_mode = 0);
    desk
}

fn client() -> Packet {
    tcp(CLIENT, VIRTUAL)
}

fn server() -> Packet {
    tcp(REAL, LOCAL)
}

#[track_caller]
fn check_refused(desk: &mut Desk, packet: &Packet) {
    assert_eq!(desk.send(&packet.build()).verdict, Verdict::Drop(DropReason::OutOfSequence));
}

#[track_caller]
fn forwarded(outcome: &Outcome) -> (u32, u32, Vec<u8>) {
    assert!(matches!(outcome.verdict, Verdict::Forward { .. }), "{}", outcome.line());
    let parsed = oracle::parse(&outcome.bytes).expect("a packet");
    let number = |at: usize| u32::from_be_bytes(parsed.segment[at..at + 4].try_into().unwrap());
    (number(4), number(8), parsed.segment[usize::from(parsed.segment[12] >> 4) * 4..].to_vec())
}

/// A connection over which the header and a request of ten bytes have gone, answered by a hundred; the server's first
/// number is 5000. Returns the client's first number as the server knows it.
fn talk(desk: &mut Desk) -> u32 {
    let (isn, ..) = forwarded(&desk.send(&client().syn().numbers(1000, 0).build()));
    forwarded(&desk.send(&server().syn().ack().numbers(5000, isn.wrapping_add(1)).build()));
    forwarded(&desk.send(&client().ack().numbers(1001, 5001).payload_len(10).build()));
    let all = isn.wrapping_add(1 + HEADER_LEN + 10);
    let (_, acknowledged, _) = forwarded(&desk.send(&server().ack().numbers(5001, all).payload_len(100).build()));
    assert_eq!(acknowledged, 1011);
    isn
}

/// What a server with SYN cookies would take for the answer to its first SYN|ACK: the numbers add up to it.
fn replayed(sequence: u32) -> Packet {
    let past = sequence.wrapping_sub(1001).wrapping_add(HEADER_LEN);
    client().ack().numbers(sequence, 5001_u32.wrapping_add(past)).payload(SPOOFED)
}

#[test]
fn a_connection_that_no_syn_opened_carries_nothing() {
    for more in ["", "--keep-sequence"] {
        let mut desk = desk(more);
        desk.send(&client().syn().numbers(1000, 0).build());
        desk.send(&server().syn().ack().numbers(777_000, 1001).build());
        desk.send(&client().rst().numbers(0x4000_0000, 0).build());
        desk.pass(Duration::from_secs(70));
        assert_eq!(desk.connections(), []);
        check_refused(&mut desk, &client().syn().ack().numbers(5, 5));
        check_refused(&mut desk, &client().ack().psh().numbers(1001, 777_001).payload(SPOOFED));
        check_refused(&mut desk, &client().ack().numbers(1001, 777_001));
    }
}

#[test]
fn a_connection_taken_over_in_its_middle_carries_nothing() {
    let mut desk = desk("--keep-sequence");
    desk.set(|settings| settings.sloppy_tcp = true);
    check_refused(&mut desk, &client().ack().numbers(1001, 777_001).payload(SPOOFED));
    check_refused(&mut desk, &client().ack().fin().numbers(1001, 777_001));
    // What ends it may pass, and so may what begins it.
    forwarded(&desk.send(&client().rst().numbers(1001, 0).build()));
    forwarded(&desk.send(&client().syn().numbers(2000, 0).build()));
}

#[test]
fn a_syn_ack_of_a_client_does_not_pass_on_a_connection_that_stands_either() {
    let mut desk = desk("");
    talk(&mut desk);
    check_refused(&mut desk, &client().syn().ack().numbers(1000, 5101));
}

#[test]
fn nothing_passes_after_the_clients_rst_until_the_server_shows_that_it_goes_on() {
    let mut desk = desk("");
    talk(&mut desk);
    let (at_server, ..) = forwarded(&desk.send(&client().rst().numbers(1011, 0).build()));
    check_refused(&mut desk, &replayed(1011));
    check_refused(&mut desk, &replayed(1001));
    check_refused(&mut desk, &client().ack().numbers(1011, 5101));
    // What the server sent before the RST reached it proves nothing.
    forwarded(&desk.send(&server().ack().numbers(5101, at_server).payload_len(100).build()));
    check_refused(&mut desk, &replayed(1011));
    // It begins again, and is told again.
    let (anew, ..) = forwarded(&desk.send(&client().syn().numbers(90_000, 0).build()));
    forwarded(&desk.send(&server().syn().ack().numbers(7000, anew.wrapping_add(1)).build()));
    let (sequence, _, payload) = forwarded(&desk.send(&client().ack().numbers(90_001, 7001).payload(b"x").build()));
    assert_eq!((sequence, payload.len()), (anew.wrapping_add(1), HEADER_LEN as usize + 1));
}

#[test]
fn a_rst_that_the_server_did_not_take_ends_nothing() {
    let mut desk = desk("");
    let isn = talk(&mut desk);
    let all = isn.wrapping_add(1 + HEADER_LEN + 10);
    // Somebody else's, far from the numbers in use; or an old one.
    for (number, answer) in [(0x7000_0000, all), (1005, all)] {
        forwarded(&desk.send(&client().rst().numbers(number, 0).build()));
        forwarded(&desk.send(&server().ack().numbers(5101, answer).build()));
        forwarded(&desk.send(&client().ack().numbers(1011, 5101).payload_len(10).build()));
    }
}

#[test]
fn nothing_passes_after_the_servers_rst() {
    let mut desk = desk("");
    talk(&mut desk);
    forwarded(&desk.send(&server().rst().numbers(5101, 0).build()));
    check_refused(&mut desk, &replayed(1011));
    check_refused(&mut desk, &client().ack().numbers(1011, 5101));
}

#[test]
fn no_data_pass_when_both_sides_have_ended() {
    for server_first in [false, true] {
        let mut desk = desk("");
        let isn = talk(&mut desk);
        let all = isn.wrapping_add(1 + HEADER_LEN + 10);
        if server_first {
            forwarded(&desk.send(&server().ack().fin().numbers(5101, all).build()));
            forwarded(&desk.send(&client().ack().fin().numbers(1011, 5102).build()));
            forwarded(&desk.send(&server().ack().numbers(5102, all.wrapping_add(1)).build()));
        } else {
            forwarded(&desk.send(&client().ack().fin().numbers(1011, 5101).build()));
            forwarded(&desk.send(&server().ack().fin().numbers(5101, all.wrapping_add(1)).build()));
        }
        // The last acknowledgment, and a FIN whose own was lost.
        forwarded(&desk.send(&client().ack().numbers(1012, 5102).build()));
        forwarded(&desk.send(&client().ack().fin().numbers(1011, 5102).build()));
        check_refused(&mut desk, &replayed(1012));
        // Another end makes nothing of it undone.
        forwarded(&desk.send(&client().ack().fin().numbers(5000, 5102).build()));
        check_refused(&mut desk, &replayed(1012));
        check_refused(&mut desk, &replayed(1001));
    }
}

#[test]
fn a_side_that_has_not_ended_goes_on_sending() {
    let mut desk = desk("");
    let isn = talk(&mut desk);
    let all = isn.wrapping_add(1 + HEADER_LEN + 10);
    forwarded(&desk.send(&server().ack().fin().numbers(5101, all).build()));
    forwarded(&desk.send(&client().ack().numbers(1011, 5102).payload_len(500).build()));
    forwarded(&desk.send(&client().ack().numbers(1511, 5102).payload_len(500).build()));
    // The same numbers as of an answer to the SYN|ACK: the server may have forgotten the connection a minute later.
    let alike = client().ack().numbers(1001 + 101 - HEADER_LEN, 5102);
    forwarded(&desk.send(&alike.build()));
    desk.pass(Duration::from_secs(60));
    check_refused(&mut desk, &alike.payload(SPOOFED));
    // Empty, it could open a connection for what has other numbers.
    check_refused(&mut desk, &client().ack().numbers(1001 + 101 - HEADER_LEN, 5102));
    forwarded(&desk.send(&client().ack().numbers(2011, 5102).payload_len(500).build()));
}

#[test]
fn an_end_of_the_client_alone_leaves_the_server_talking() {
    let mut desk = desk("");
    let isn = talk(&mut desk);
    let all = isn.wrapping_add(1 + HEADER_LEN + 10);
    forwarded(&desk.send(&client().ack().fin().numbers(1011, 5101).payload_len(5).build()));
    forwarded(&desk.send(&server().ack().numbers(5101, all.wrapping_add(6)).payload_len(100).build()));
    // Its last data again, because that acknowledgment was lost.
    forwarded(&desk.send(&client().ack().fin().numbers(1011, 5101).payload_len(5).build()));
    forwarded(&desk.send(&client().ack().numbers(1017, 5201).build()));
}

proptest! {
    #![proptest_config(strategy::config())]

    #[test]
    fn no_conversation_brings_a_server_a_header_of_the_clients(script in prop::collection::vec(any::<u8>(), 0..300)) {
        lvs_testkit::conversation::play(&script);
    }
}
