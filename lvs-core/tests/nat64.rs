//! IPv6 clients of IPv4 servers (FullNAT): what errors and odd packets become on the other side. Plain packets:
//! `full_nat.rs`.

use std::net::SocketAddr;

use lvs_core::wire::fragment::fragment;
use lvs_core::{DropReason, Gso, GsoKind, Offload, Verdict};
use lvs_testkit::{Desk, Outcome, Storage, describe, icmp_error, oracle, tcp, udp};

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

/// The same service for UDP, and the local endpoint of its one connection.
fn datagrams() -> (Desk, SocketAddr) {
    let mut desk = Desk::new(
        "-A -u [2001:db8::80]:80 -s rr\n\
         --add-laddr -u [2001:db8::80]:80 --local-address 10.0.0.200\n\
         -a -u [2001:db8::80]:80 -r 10.0.0.2:8080 --fullnat",
    );
    forwarded(desk.send(&udp(CLIENT, VIRTUAL).build()));
    let local = desk.connections()[0].local.expect("a FullNAT connection has one");
    (desk, SocketAddr::new(local.address, local.port))
}

#[test]
fn fragments_stay_fragments_whatever_their_order() {
    let (mut desk, local) = datagrams();
    // RFC 7915 §5.1.1: the lower half of the identification; §4.1: all of it, with zeros before.
    let there = udp(CLIENT, VIRTUAL).payload_len(3000).identification(0x1234_5678);
    let at_server = udp(local, REAL).payload_len(3000).identification(0x5678).hop_limit(63);
    let back = udp(REAL, local).payload_len(3000).identification(0x4321);
    let at_client = udp(VIRTUAL, CLIENT).payload_len(3000).identification(0x4321).hop_limit(63);
    for (sent, expected) in [(there, at_server), (back, at_client)] {
        let (sent, expected) = (sent.fragments(1200), expected.fragments(1200));
        assert_eq!(desk.send(&sent[2]).verdict, Verdict::Held);
        assert_eq!(forwarded(desk.send(&sent[0])), expected[0]);
        assert_eq!(desk.transmits().iter().map(|sent| &sent.bytes).collect::<Vec<_>>(), [&expected[2]]);
        assert_eq!(forwarded(desk.send(&sent[1])), expected[1]);
    }
}

#[test]
fn a_fragment_as_long_as_its_link_takes_leaves_in_two() {
    let (mut desk, local) = datagrams();
    let back = udp(REAL, local).payload_len(3000).fragments(1480);
    let mut parts = Vec::new();
    for part in &back {
        let sent = desk.send(part);
        let Verdict::Forward { mtu, .. } = sent.verdict else { panic!("{sent:?}") };
        fragment(&sent.bytes, mtu.into(), 0, &mut [0; 1500], |part| parts.push(part.to_vec())).unwrap();
    }
    // 1480, 1480 and 48 bytes of data; 1452 fit behind 48 bytes of headers.
    assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [1496, 80, 1496, 80, 96]);
    let whole = oracle::reassemble(parts.iter().map(Vec::as_slice)).expect("all of it");
    assert_eq!(whole, udp(VIRTUAL, CLIENT).payload_len(3000).build()[40..]);
}

#[test]
fn a_super_packet_longer_than_ipv4_knows_goes_nowhere() {
    let (mut desk, _) = datagrams();
    let longest_payload_len = usize::from(u16::MAX) - 20 - 8;
    for (more, is_sent) in [(0, true), (1, false)] {
        let request = udp(CLIENT, VIRTUAL).payload_len(longest_payload_len + more).partial_checksum();
        let gso = Some(Gso { kind: GsoKind::Udp, size: 1400, ecn: false });
        let offload = Offload { checksum: request.offload(), gso };
        let sent = desk.send_storage(Storage::with_room(&request.build(), 64, 64).offload(offload));
        assert_eq!(matches!(sent.verdict, Verdict::Forward { .. }), is_sent);
        assert_eq!(sent.verdict == Verdict::Drop(DropReason::TooBig), !is_sent);
    }
}
