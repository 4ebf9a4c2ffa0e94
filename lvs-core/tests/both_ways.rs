//! A packet that is a known request of one connection and a known reply of another is the reply, as in Linux: two who
//! talk from their own ports (NTP, IKE, GTP) meet it, and each packet would else keep the wrong connection alive.

use lvs_core::{Instant, PacketBuf, Verdict};
use lvs_testkit::{Desk, Storage, describe, sctp, tcp, udp};

/// Two services, each the other's client: the packets open `server → second`, then `second → first`, then answer it.
const CASES: [(&str, &str, [&str; 4]); 4] = [
    ("-u", "-m", ["192.0.2.1:123", "192.0.2.2:123", "10.0.0.1:123", "10.0.0.2:123"]),
    ("-t", "-m", ["192.0.2.1:80", "192.0.2.2:80", "10.0.0.1:80", "10.0.0.2:80"]),
    ("--sctp-service", "-m", ["192.0.2.1:80", "192.0.2.2:80", "10.0.0.1:80", "10.0.0.2:80"]),
    ("-u", "-m", ["[2001:db8::1]:500", "[2001:db8::2]:500", "[fd00::1]:500", "[fd00::2]:500"]),
];

fn packet(protocol: &str, from: &str, to: &str, is_first: bool) -> Vec<u8> {
    match protocol {
        "-t" if is_first => tcp(from, to).syn().build(),
        "-t" => tcp(from, to).ack().build(),
        "-u" => udp(from, to).payload(b"tick").build(),
        _ => sctp(from, to).chunk(if is_first { 1 } else { 10 }, &[0; 16]).build(),
    }
}

/// A director after both connections were opened, and the packet that is both.
fn between(protocol: &str, method: &str, [first, second, one, two]: [&str; 4]) -> (Desk, Vec<u8>) {
    let mut desk = Desk::new(&format!(
        "-A {protocol} {first} -s rr\n-a {protocol} {first} -r {one} {method}\n\
         -A {protocol} {second} -s rr\n-a {protocol} {second} -r {two} {method}"
    ));
    // Virtual addresses that speak for themselves.
    desk.set(|settings| settings.accept_local = true);
    let answers_as = if method == "-m" { one } else { first };
    for (from, to) in [(answers_as, second), (second, first)] {
        let sent = desk.send(&packet(protocol, from, to, true));
        assert!(matches!(sent.verdict, Verdict::Forward { .. }), "{from} -> {to}: {sent:?}");
    }
    (desk, packet(protocol, answers_as, second, false))
}

#[test]
fn what_is_both_a_request_and_a_reply_is_the_reply() {
    for (protocol, method, ends) in CASES {
        let (mut desk, answer) = between(protocol, method, ends);
        let before = desk.connections();
        for _ in 0..3 {
            let sent = desk.send(&answer);
            let said = format!("{protocol} {method}: {}", describe(&sent.bytes));
            // It goes to the client `second`, which has no route of its own here: the verdict names it all the same.
            let expected = ends[1].parse::<std::net::SocketAddr>().unwrap().ip();
            assert!(matches!(sent.verdict, Verdict::Forward { next_hop, .. } if next_hop == expected), "{said}");
        }
        let requests =
            |rows: &[lvs_core::view::ConnectionView]| rows.iter().map(|row| row.in_packets).collect::<Vec<_>>();
        assert_eq!(requests(&desk.connections()), requests(&before), "{protocol} {method}: no request was counted");
    }
}

#[test]
fn batches_and_the_short_way_take_it_for_the_reply_too() {
    for (protocol, method, ends) in CASES {
        let (mut desk, answer) = between(protocol, method, ends);
        let expected = desk.send(&answer);
        let mut storages: Vec<_> = (0..40).map(|_| Storage::with_room(&answer, 64, 64)).collect();
        let mut lent: Vec<PacketBuf<'_>> = storages.iter_mut().map(Storage::packet).collect();
        desk.director.handle_batch(desk.now, &mut lent, |_, packet, verdict| {
            assert_eq!((verdict, packet.bytes()), (expected.verdict, &expected.bytes[..]), "{protocol} {method}");
        });
    }
}

#[test]
fn once_the_other_connection_has_ended_it_is_a_request_again() {
    let (protocol, method, ends) = CASES[0];
    let (mut desk, answer) = between(protocol, method, ends);
    desk.pass(core::time::Duration::from_secs(200));
    // Its own connection lives on by what its client sends, and the other one ends.
    desk.director.handle_timeout(Instant::ZERO);
    desk.ipvsadm("-D -u 192.0.2.1:123");
    desk.set(|settings| settings.expire_nodest_conn = true);
    desk.pass(core::time::Duration::from_secs(99));
    desk.now = desk.now + core::time::Duration::from_secs(2);
    let sent = desk.send(&answer);
    assert!(describe(&sent.bytes).starts_with("10.0.0.1.123 > 10.0.0.2.123"), "{}", describe(&sent.bytes));
}
