//! Real servers on the director's own host: packets go to its stack, and what it answers is translated on its way out.

use lvs_core::{DirectorConfig, ForwardMethod, ServerConfig, ServiceConfig, Side, Verdict};
use lvs_testkit::desk::tcp_service;
use lvs_testkit::{Desk, describe, icmp_error, oracle, tcp};

const WEB: [&str; 2] = ["192.0.2.80:80", "[2001:db8:80::1]:80"];
const OWN: [&str; 2] = ["10.0.0.254:8080", "[fd00::ff]:8080"];
const CLIENT: [&str; 2] = ["198.51.100.7:1024", "[2001:db8::7]:1024"];

fn desk(forward: ForwardMethod, own: [&str; 2]) -> Desk {
    let server_side = Side::default().with(|side| {
        side.ipv4 = "10.0.0.254".parse().ok();
        side.ipv6 = "fd00::ff".parse().ok();
        side.mtu = 1280;
    });
    let mut desk = Desk::bare(DirectorConfig::default().with(|config| config.server_side = server_side));
    for (web, own) in WEB.into_iter().zip(own) {
        let server = ServerConfig::new(own.parse().unwrap(), forward);
        desk.add(tcp_service(web), ServiceConfig::new("rr"), [server]);
    }
    desk
}

fn to_client(client: &str) -> impl Fn(Verdict) -> bool {
    let address = client.parse::<std::net::SocketAddr>().unwrap().ip();
    move |verdict| matches!(verdict, Verdict::Forward { next_hop, .. } if next_hop == address)
}

#[test]
fn nat_to_the_own_host_translates_both_ways_and_takes_no_hop() {
    for ((web, own), client) in WEB.into_iter().zip(OWN).zip(CLIENT) {
        let mut desk = desk(ForwardMethod::Nat, OWN);
        // Neither a hop limit that would not last nor a length that would not fit counts.
        let syn = tcp(client, web).syn().payload_len(1_300).dont_fragment().hop_limit(1);
        assert_eq!(desk.send(&syn.build()).verdict, Verdict::Local);
        assert_eq!(
            describe(&desk.bytes),
            describe(&tcp(client, own).syn().payload_len(1_300).dont_fragment().hop_limit(1).build())
        );
        let verdict = desk.send(&tcp(own, client).syn().ack().hop_limit(64).build()).verdict;
        assert!(to_client(client)(verdict), "{verdict:?}");
        assert_eq!(describe(&desk.bytes), describe(&tcp(web, client).syn().ack().hop_limit(64).build()));
        assert_eq!(oracle::checksum_errors(&desk.bytes), [""; 0]);
        assert_eq!(desk.states(), ["SYN_RECV"]);
        assert_eq!(desk.director.statistics().live.out_packets, 1);
    }
}

#[test]
fn other_methods_leave_packets_to_the_own_host_as_they_are() {
    for forward in [ForwardMethod::DirectRouting, ForwardMethod::Tunnel, ForwardMethod::Local] {
        let mut desk = desk(forward, OWN);
        for (web, client) in WEB.into_iter().zip(CLIENT) {
            let syn = tcp(client, web).syn().hop_limit(1).build();
            assert_eq!(desk.send(&syn).verdict, Verdict::Local, "{forward:?}");
            assert_eq!(desk.bytes, syn);
            let reset = tcp(web, client).rst().hop_limit(64).build();
            let verdict = desk.send(&reset).verdict;
            assert!(to_client(client)(verdict), "{forward:?}: {verdict:?}");
            assert_eq!(desk.bytes, reset);
        }
        assert_eq!(desk.states(), ["CLOSE", "CLOSE"]);
    }
}

#[test]
fn a_server_said_to_be_local_is_local_whatever_its_address() {
    let mut desk = desk(ForwardMethod::Local, ["10.0.0.2:80", "[fd00::2]:80"]);
    assert_eq!(desk.send(&tcp(CLIENT[0], WEB[0]).syn().build()).verdict, Verdict::Local);
}

/// As in Linux, the quoted segment keeps its checksum, which does not matter there.
fn check_error(desk: &Desk, expected: &[u8]) {
    assert_eq!(describe(&desk.bytes).replace(" BADL4}", "}"), describe(expected));
}

#[test]
fn an_icmp_error_of_the_own_host_is_about_the_virtual_address() {
    let mut desk = desk(ForwardMethod::Nat, OWN);
    desk.feed(&tcp(CLIENT[0], WEB[0]).syn().build());
    let delivered = desk.bytes.clone();
    let verdict = desk.send(&icmp_error("10.0.0.254", 3, 3, 0, &delivered).hop_limit(64).build()).verdict;
    // From the own address to the source of what is quoted.
    assert!(to_client(CLIENT[0])(verdict), "{verdict:?}");
    let expected = icmp_error("192.0.2.80", 3, 3, 0, &tcp(CLIENT[0], WEB[0]).syn().build()).hop_limit(64).build();
    check_error(&desk, &expected);
}

#[test]
fn a_clients_icmp_error_about_a_reply_reaches_the_own_host_translated() {
    let mut desk = desk(ForwardMethod::Nat, OWN);
    desk.feed(&tcp(CLIENT[0], WEB[0]).syn().build());
    desk.feed(&tcp(OWN[0], CLIENT[0]).syn().ack().build());
    let reply = desk.bytes.clone();
    assert_eq!(desk.send(&icmp_error("198.51.100.7", 3, 3, 0, &reply).build()).verdict, Verdict::Local);
    let expected = icmp_error("198.51.100.7", 3, 3, 0, &tcp(OWN[0], CLIENT[0]).syn().ack().build()).build();
    check_error(&desk, &expected);
}
