//! ICMP errors behind FullNAT and NAT64: the packet they quote is the one their receiver sent, its checksum too (RFC 5508
//! REQ-4).

use lvs_core::Verdict;
use lvs_testkit::{Desk, Packet, icmp_error, oracle, tcp, udp};

const SERVER: &str = "10.0.0.2";

fn desk(vip: &str, protocol: char, options: &str) -> Desk {
    Desk::new(&format!(
        "-A -{protocol} {vip}:80 -s rr {options}\n-a -{protocol} {vip}:80 -r {SERVER}:80 --fullnat\n\
         --add-laddr -{protocol} {vip}:80 --local-address 10.0.0.250"
    ))
}

/// Sends the request on, has the server answer it with an error, and compares what the client's error quotes with what
/// the client has sent.
fn check(desk: &mut Desk, request: &Packet) {
    let sent = desk.send(&request.build());
    assert!(matches!(sent.verdict, Verdict::Forward { .. }), "{sent:?}");
    let told = desk.send(&icmp_error(SERVER, 3, 3, 0, &sent.bytes).build());
    assert!(matches!(told.verdict, Verdict::Forward { .. }), "{told:?}");
    let is_ipv4 = told.bytes[0] >> 4 == 4;
    let quoted = &told.bytes[if is_ipv4 { 28 } else { 48 }..];
    assert_eq!(oracle::checksum_errors(quoted), Vec::<String>::new(), "{}", lvs_testkit::describe(quoted));
    let transport = if is_ipv4 { 20 } else { 40 };
    assert_eq!(quoted[transport..], request.build()[transport..], "what the client sent");
}

#[test]
fn the_quoted_checksum_is_right_again() {
    for (client, vip) in [("198.51.100.7:1024", "192.0.2.1"), ("[2001:db8:c::7]:1024", "[2001:db8::1]")] {
        let service = format!("{vip}:80");
        for payload in [&b"odd"[..], b"even", b""] {
            check(&mut desk(vip, 'u', ""), &udp(client, service.as_str()).payload(payload));
        }
        // Also where the sequence number is not another one on the server's side.
        for options in ["", "--keep-sequence"] {
            let mut desk = desk(vip, 't', options);
            check(&mut desk, &tcp(client, service.as_str()).syn().numbers(1_000, 0));
        }
    }
}

#[test]
fn where_there_is_no_checksum_none_is_made_up() {
    let mut desk = desk("192.0.2.1", 'u', "");
    check(&mut desk, &udp("198.51.100.7:1024", "192.0.2.1:80").payload(b"none").no_checksum());
}
