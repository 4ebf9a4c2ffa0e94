//! IPv6 clients of IPv4 servers (FullNAT): what errors and odd packets become on the other side. Plain packets:
//! `full_nat.rs`.

use std::net::SocketAddr;

use lvs_core::{DropReason, Verdict};
use lvs_testkit::{Desk, Outcome, describe, icmp_error, tcp};

const CLIENT: &str = "[2001:db8:c::7]:1024";
const VIRTUAL: &str = "[2001:db8::80]:80";
const REAL: &str = "10.0.0.2:8080";

/// One connection.
struct Talk {
    desk: Desk,
    local: SocketAddr,
}

impl Talk {
    fn open(options: &str) -> Self {
        let mut desk = Desk::new(&format!(
            "-A -t [2001:db8::80]:80 -s rr {options}\n\
             --add-laddr -t [2001:db8::80]:80 --local-address 10.0.0.200\n\
             -a -t [2001:db8::80]:80 -r 10.0.0.2:8080 --fullnat"
        ));
        let syn = forwarded(desk.send(&tcp(CLIENT, VIRTUAL).syn().numbers(1000, 0).build()));
        let isn = u32::from_be_bytes(syn[24..28].try_into().unwrap());
        let local = desk.connections()[0].local.expect("a FullNAT connection has one");
        let local = SocketAddr::new(local.address, local.port);
        forwarded(desk.send(&tcp(REAL, local).syn().ack().numbers(5000, isn.wrapping_add(1)).build()));
        Self { desk, local }
    }

    /// A segment of the client, as the server gets it.
    fn request(&mut self, payload_len: usize) -> Vec<u8> {
        let request = tcp(CLIENT, VIRTUAL).ack().numbers(1001, 5001).payload_len(payload_len);
        forwarded(self.desk.send(&request.build()))
    }
}

#[track_caller]
fn forwarded(outcome: Outcome) -> Vec<u8> {
    assert!(matches!(outcome.verdict, Verdict::Forward { .. }), "{}", outcome.line());
    outcome.bytes
}

#[test]
fn an_error_that_quotes_much_is_cut_to_what_every_link_takes() {
    let mut talk = Talk::open("");
    let sent = talk.request(1440);
    // As much as routers quote at most (RFC 1812), about what fits, as much as came.
    for (quoted_len, expected) in [(548, 40 + 8 + 20 + 548), (1172, 1240), (1452, 1280), (1480, 1280)] {
        let error = icmp_error("10.0.0.1", 3, 4, 1400, &sent[..quoted_len]);
        let told = forwarded(talk.desk.send(&error.build()));
        assert_eq!(told.len(), expected, "{quoted_len}");
        assert!(describe(&told).starts_with("2001:db8::80 > 2001:db8:c::7 ICMP6 2/0 info=0000058c {"));
    }
}

#[test]
fn the_reported_mtu_leaves_room_for_what_is_still_put_in() {
    // The PROXY header of an IPv6 client has 16 + 36 bytes, the TOA option 20; the other family's header has 20 more.
    for (options, told) in [("", 1420), ("--client-address proxy-v2", 1420 - 52), ("--client-address toa", 1400)] {
        let mut talk = Talk::open(options);
        let sent = talk.request(900);
        let error = forwarded(talk.desk.send(&icmp_error("10.0.0.1", 3, 4, 1400, &sent).build()));
        let expected = format!("2001:db8::80 > 2001:db8:c::7 ICMP6 2/0 info={told:08x} {{");
        assert!(describe(&error).starts_with(&expected), "{options}: {}", describe(&error));
    }
}

#[test]
fn nothing_with_a_route_of_its_own_changes_its_family() {
    let mut talk = Talk::open("");
    let source_route = [131, 7, 4, 10, 0, 0, 9, 0];
    let reply = tcp(REAL, talk.local).ack().ipv4_options(&source_route).build();
    assert_eq!(talk.desk.send(&reply).verdict, Verdict::Drop(DropReason::SourceRouted));
    let sent = talk.request(100);
    let error = icmp_error("10.0.0.1", 3, 1, 0, &sent).ipv4_options(&source_route).build();
    assert_eq!(talk.desk.send(&error).verdict, Verdict::Drop(DropReason::NotForwardable));
}
