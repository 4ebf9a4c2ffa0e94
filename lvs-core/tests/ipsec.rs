//! AH and ESP have no ports: they follow the key exchange (UDP 500) between the same addresses. In IPv6 AH is an
//! extension header instead, and the ports are behind it.

use std::time::Duration;

use lvs_core::{DirectorConfig, ServiceConfig, Verdict};
use lvs_testkit::desk::{nat, udp_service};
use lvs_testkit::{Desk, raw, udp};

const ESP: u8 = 50;
const AH: u8 = 51;
const GATEWAY: &str = "192.0.2.50";
const CLIENT: &str = "198.51.100.7";

fn desk() -> Desk {
    let mut desk = Desk::bare(DirectorConfig::default());
    desk.add(udp_service("192.0.2.50:500"), ServiceConfig::new("rr"), [nat("10.0.0.2:500"), nat("10.0.0.3:500")]);
    desk
}

fn next_hop(verdict: Verdict) -> Option<String> {
    match verdict {
        Verdict::Forward { next_hop, .. } => Some(next_hop.to_string()),
        _ => None,
    }
}

#[test]
fn they_pass_without_a_key_exchange_and_open_nothing() {
    let mut desk = desk();
    for protocol in [AH, ESP] {
        assert_eq!(desk.send(&raw(CLIENT, GATEWAY, protocol).payload(&[1; 24]).build()).verdict, Verdict::Pass);
    }
    assert_eq!(desk.connections(), []);
}

#[test]
fn they_follow_the_key_exchange_both_ways_are_counted_with_it_and_keep_it_alive() {
    let mut desk = desk();
    let server = next_hop(desk.send(&udp("198.51.100.7:500", "192.0.2.50:500").build()).verdict).unwrap();
    for protocol in [AH, ESP] {
        desk.pass(Duration::from_secs(299));
        assert_eq!(
            next_hop(desk.send(&raw(CLIENT, GATEWAY, protocol).payload(&[1; 24]).build()).verdict),
            Some(server.clone())
        );
    }
    desk.pass(Duration::from_secs(299));
    assert_eq!(next_hop(desk.send(&raw(&*server, CLIENT, ESP).payload(&[1; 24]).build()).verdict), Some(CLIENT.into()));
    let counters = desk.director.statistics().live;
    assert_eq!((counters.connections, counters.in_packets, counters.out_packets), (1, 3, 1));
    assert_eq!(desk.connections()[0].expires_in, Duration::from_secs(300));
    // Another client's do not.
    assert_eq!(desk.send(&raw("198.51.100.8", GATEWAY, ESP).payload(&[1; 24]).build()).verdict, Verdict::Pass);
}

#[test]
fn in_ipv6_what_is_behind_ah_is_scheduled_by_its_ports() {
    // Recording nat6_exthdr_ah.
    let mut desk = Desk::new("-A -u [2001:db8::1]:53 -s rr\n-a -u [2001:db8::1]:53 -r [fd00::2]:5353 -m");
    let request = udp("[2001:db8:c::7]:1024", "[2001:db8::1]:53").extension(AH, &[7; 22]).payload(b"q");
    let sent = desk.send(&request.build());
    let translated = udp("[2001:db8:c::7]:1024", "[fd00::2]:5353").extension(AH, &[7; 22]).payload(b"q");
    assert_eq!(sent.bytes, translated.hop_limit(63).build(), "{}", sent.line());
}
