//! Packets that are answered: no more ICMP errors and RSTs than Linux's limits allow, and what is not sent is counted.

use core::time::Duration;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use lvs_core::{DropReason, Settings, Verdict};
use lvs_testkit::{Desk, tcp, udp};

/// Services without servers: every packet is answered.
const NOBODY: &str = "-A -t 192.0.2.1:80 -s rr\n-A -u 192.0.2.1:53 -s rr\n-A -t [2001:db8::1]:80 -s rr";

/// Sends so many packets; how many were answered. What was not is dropped for the limit.
fn check(desk: &mut Desk, packet: impl Fn(u32) -> Vec<u8>, count: u32) -> u32 {
    let before = desk.director.drops(DropReason::AnswerLimited);
    let mut answered = 0;
    for number in 0..count {
        match desk.send(&packet(number)).verdict {
            Verdict::Reply { .. } => answered += 1,
            verdict => assert_eq!(verdict, Verdict::Drop(DropReason::AnswerLimited)),
        }
    }
    assert_eq!(desk.director.drops(DropReason::AnswerLimited) - before, u64::from(count - answered));
    answered
}

fn with(settings: Settings, rules: &str) -> Desk {
    Desk::with_config(Desk::config().with(|config| config.settings = settings), rules)
}

#[test]
fn one_receiver_gets_six_errors_and_then_one_a_second() {
    for (client, service) in [("198.51.100.7:1024", "192.0.2.1:80"), ("[2001:db8:c::7]:1024", "[2001:db8::1]:80")] {
        let mut desk = Desk::new(NOBODY);
        let syn = |_| tcp(client, service).syn().build();
        assert_eq!(check(&mut desk, syn, 20), 6);
        desk.pass(Duration::from_secs(1));
        assert_eq!(check(&mut desk, syn, 20), 1);
        desk.pass(Duration::from_secs(100));
        assert_eq!(check(&mut desk, syn, 20), 6);
        // Who sets them to zero has no limits.
        desk.set(|settings| (settings.icmp_ratelimit, settings.icmpv6_ratelimit) = Default::default());
        desk.set(|settings| settings.icmp_msgs_per_sec = 0);
        assert_eq!(check(&mut desk, syn, 200), 200);
    }
}

#[test]
fn all_receivers_together_get_fifty_at_once() {
    let mut desk = Desk::new(NOBODY);
    let from = |number: u32| SocketAddr::new(IpAddr::V4(Ipv4Addr::from_bits(0x2d00_0000 + number)), 1024);
    assert_eq!(check(&mut desk, |number| tcp(from(number), "192.0.2.1:80").syn().build(), 200), 50);
    desk.pass(Duration::from_millis(10));
    assert_eq!(check(&mut desk, |number| tcp(from(1_000 + number), "192.0.2.1:80").syn().build(), 200), 10);
}

#[test]
fn a_limited_kind_leaves_the_others_alone() {
    let mut desk = with(Settings::default().with(|settings| settings.icmp_ratemask = 1 << 11), NOBODY);
    let wanted = |number| udp("198.51.100.7:1024", "192.0.2.1:53").payload(&[number as u8]).build();
    assert_eq!(check(&mut desk, wanted, 60), 60);
}

#[test]
fn path_mtus_are_always_told() {
    let rules = "-A -t 192.0.2.1:80 -s rr\n-a -t 192.0.2.1:80 -r 10.0.0.2:80 -m\n\
                 -A -t [2001:db8::1]:80 -s rr\n-a -t [2001:db8::1]:80 -r [fd00::2]:80 -m";
    let mut config = Desk::config();
    config.server_side.mtu = 1_300;
    let mut desk = Desk::with_config(config, rules);
    for (client, service) in [("198.51.100.7:1024", "192.0.2.1:80"), ("[2001:db8:c::7]:1024", "[2001:db8::1]:80")] {
        desk.send(&tcp(client, service).syn().build());
        let long = |_| tcp(client, service).ack().payload_len(1_400).dont_fragment().build();
        assert_eq!(check(&mut desk, long, 100), 100);
    }
}

#[test]
fn resets_are_limited_where_it_is_said_so() {
    let rules = "-A -t 192.0.2.1:80 -s rr --on-server-gone reset\n-a -t 192.0.2.1:80 -r 10.0.0.2:80 -m";
    for (resets_per_sec, expected) in [(0, 20), (3, 3)] {
        let mut desk = with(Settings::default().with(|settings| settings.resets_per_sec = resets_per_sec), rules);
        let client = |number: u32| format!("198.51.100.7:{}", 1_024 + number);
        for number in 0..20 {
            desk.send(&tcp(client(number).as_str(), "192.0.2.1:80").syn().build());
        }
        desk.ipvsadm("-d -t 192.0.2.1:80 -r 10.0.0.2:80");
        let segment = |number| tcp(client(number).as_str(), "192.0.2.1:80").ack().build();
        assert_eq!(check(&mut desk, segment, 20), expected);
    }
}
