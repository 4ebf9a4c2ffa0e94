//! Drains: a server gets nothing new, its connections get a deadline, and what remains then is closed.

use std::time::Duration;

use lvs_core::{AfterDrain, Command, ControlError, DirectorConfig, DropReason, Event, ServiceConfig, Verdict};
use lvs_testkit::rig::{Rig, nat, tcp_service, udp_service};
use lvs_testkit::{Packet, describe, tcp, udp};

const WEB: &str = "192.0.2.80:80";
const OLD: &str = "10.0.0.2:80";
const MINUTE: Duration = Duration::from_secs(60);

fn is_forwarded(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Forward { .. })
}

fn client(number: u8) -> String {
    format!("198.51.100.{number}:1024")
}

fn segment(number: u8) -> Packet {
    tcp(&*client(number), WEB).numbers(5_000, 9_000)
}

/// Two servers; the first connection of each kind is the draining one's.
fn rig(config: ServiceConfig) -> Rig {
    let mut rig = Rig::new(DirectorConfig::default());
    for service in [tcp_service(WEB), udp_service(WEB)] {
        rig.add(service, config.clone(), [nat("10.0.0.3:80"), nat(OLD)]);
    }
    rig.feed(&segment(1).syn().build());
    rig.feed(&segment(1).ack().build());
    rig.feed(&udp(&*client(1), WEB).payload(b"?").build());
    assert_eq!(total(&rig), 1);
    rig
}

fn drain(then: AfterDrain) -> Command {
    Command::Drain { service: tcp_service(WEB), server: nat(OLD).key, deadline: MINUTE, then }
}

fn drain_udp(then: AfterDrain) -> Command {
    Command::Drain { service: udp_service(WEB), server: nat(OLD).key, deadline: MINUTE, then }
}

fn total(rig: &Rig) -> u32 {
    let server = rig.server(tcp_service(WEB), OLD);
    server.active_connections + server.inactive_connections
}

fn drained(remaining: u32) -> Vec<Event> {
    vec![Event::Drained { service: tcp_service(WEB), server: nat(OLD).key, remaining }]
}

#[test]
fn a_draining_server_gets_nothing_new_and_keeps_what_it_has() {
    let mut rig = rig(ServiceConfig::new("rr"));
    rig.apply(&drain(AfterDrain::Reset));
    for number in 2..10 {
        assert!(is_forwarded(rig.send(&segment(number).syn().build())));
        assert_eq!(rig.bytes[16..20], [10, 0, 0, 3]);
    }
    assert!(is_forwarded(rig.send(&segment(1).ack().payload(b"on").build())));
    assert_eq!(rig.bytes[16..20], [10, 0, 0, 2]);
    let server = rig.server(tcp_service(WEB), OLD);
    assert_eq!((server.config.weight, server.effective_weight), (1, 0));
    assert_eq!(rig.events(), []);
}

#[test]
fn a_draining_server_gets_no_new_connections_of_clients_that_were_its_own_by_persistence() {
    let mut rig = rig(ServiceConfig::new("rr").persistent(3_600));
    let again = tcp("198.51.100.1:1025", WEB).syn().build();
    assert!(is_forwarded(rig.send(&again)));
    assert_eq!(rig.bytes[16..20], [10, 0, 0, 2]);
    rig.apply(&drain(AfterDrain::Silence));
    assert!(is_forwarded(rig.send(&tcp("198.51.100.1:1026", WEB).syn().build())));
    assert_eq!(rig.bytes[16..20], [10, 0, 0, 3]);
    // From now on the client is the other server's.
    assert!(is_forwarded(rig.send(&tcp("198.51.100.1:1027", WEB).syn().build())));
    assert_eq!(rig.bytes[16..20], [10, 0, 0, 3]);
}

#[test]
fn the_end_of_the_last_connection_is_told_at_once() {
    let mut rig = rig(ServiceConfig::new("rr"));
    rig.apply(&drain(AfterDrain::Reset));
    rig.feed(&segment(1).rst().build());
    rig.pass(Duration::from_secs(11));
    assert_eq!(rig.events(), drained(0));
    rig.pass(MINUTE);
    assert_eq!(rig.events(), []);
    // Still out of service.
    rig.feed(&segment(2).syn().build());
    rig.feed(&segment(3).syn().build());
    assert_eq!(total(&rig), 0);
}

#[test]
fn a_server_without_connections_is_drained_at_once() {
    let mut rig = Rig::new(DirectorConfig::default());
    rig.add(tcp_service(WEB), ServiceConfig::new("rr"), [nat(OLD)]);
    rig.apply(&drain(AfterDrain::Reset));
    assert_eq!(rig.events(), drained(0));
}

#[test]
fn at_the_deadline_both_sides_are_reset_by_the_clients_next_segment() {
    let mut rig = rig(ServiceConfig::new("rr"));
    rig.apply(&drain(AfterDrain::Reset));
    rig.pass(MINUTE - Duration::from_nanos(1));
    assert!(is_forwarded(rig.send(&segment(1).ack().build())));
    rig.pass(Duration::from_nanos(1));
    assert_eq!(rig.events(), drained(1));
    assert_eq!(transmits(&mut rig).len(), 4, "both are made to speak");
    let verdict = rig.send(&segment(1).ack().payload(b"late").build());
    assert_eq!(verdict, Verdict::Reply { next_hop: "198.51.100.1".parse().unwrap() });
    let expected = "192.0.2.80.80 > 198.51.100.1.1024 TCP R seq=9000 ack=0 pl=0 id=0 DF ttl=64 len=40";
    assert_eq!(describe(&rig.bytes), expected);
    let (verdict, bytes) = rig.transmit().expect("the server is told too");
    assert!(is_forwarded(verdict));
    let expected = "198.51.100.1.1024 > 10.0.0.2.80 TCP RA seq=5000 ack=9000 pl=0 id=0 DF ttl=63 len=40";
    assert_eq!(describe(&bytes), expected);
    rig.pass(Duration::from_secs(11));
    assert_eq!(total(&rig), 0);
}

#[test]
fn at_the_deadline_both_sides_are_reset_by_the_servers_next_segment() {
    let mut rig = rig(ServiceConfig::new("rr"));
    rig.apply(&drain(AfterDrain::Reset));
    rig.pass(MINUTE);
    transmits(&mut rig);
    let segment = tcp(OLD, &*client(1)).ack().numbers(9_000, 5_000).payload(b"late").build();
    assert_eq!(rig.send(&segment), Verdict::Reply { next_hop: "10.0.0.2".parse().unwrap() });
    let expected = "198.51.100.1.1024 > 10.0.0.2.80 TCP R seq=5000 ack=0 pl=0 id=0 DF ttl=64 len=40";
    assert_eq!(describe(&rig.bytes), expected);
    let (_, bytes) = rig.transmit().expect("the client is told too");
    let expected = "192.0.2.80.80 > 198.51.100.1.1024 TCP RA seq=9000 ack=5000 pl=0 id=0 DF ttl=63 len=40";
    assert_eq!(describe(&bytes), expected);
}

/// What the director sends by itself.
fn transmits(rig: &mut Rig) -> Vec<(Verdict, String)> {
    std::iter::from_fn(|| rig.transmit()).map(|(verdict, bytes)| (verdict, describe(&bytes))).collect()
}

#[test]
fn at_the_deadline_silent_peers_are_sent_what_they_must_answer() {
    let mut rig = rig(ServiceConfig::new("rr"));
    // Neither what has ended nor what has another server.
    rig.feed(&segment(2).syn().build());
    rig.feed(&segment(3).syn().build());
    rig.feed(&segment(3).rst().build());
    // Nor what is half open: its client may be made up.
    rig.feed(&segment(4).syn().build());
    rig.feed(&segment(5).syn().build());
    rig.apply(&drain(AfterDrain::Reset));
    rig.pass(MINUTE / 2);
    rig.feed(&segment(5).syn().build());
    rig.pass(MINUTE / 2);
    let sent = transmits(&mut rig);
    let expected = |number: u32| {
        let tail = format!("seq={number} ack={number} pl=0 id=0 DF");
        [
            format!("192.0.2.80.80 > 198.51.100.1.1024 TCP A {tail} ttl=64 len=40"),
            format!("198.51.100.1.1024 > 10.0.0.2.80 TCP A {tail} ttl=63 len=40"),
        ]
    };
    assert_eq!(
        sent.iter().map(|(_, line)| line.clone()).collect::<Vec<_>>(),
        [expected(0), expected(1 << 31)].concat()
    );
    let next_hops = sent.iter().map(|(verdict, _)| match verdict {
        Verdict::Forward { next_hop, .. } => next_hop.to_string(),
        other => panic!("{other:?}"),
    });
    assert_eq!(next_hops.collect::<Vec<_>>(), ["198.51.100.1", "10.0.0.2", "198.51.100.1", "10.0.0.2"]);
    // Once; and with silence nobody is disturbed.
    rig.pass(MINUTE);
    assert_eq!(transmits(&mut rig), []);
}

#[test]
fn many_silent_connections_are_gone_through_in_bounded_steps_and_no_further_than_the_queue_holds() {
    let config =
        DirectorConfig { connections_max: 20_000, fragment_bytes_max: 160 * 1_000, ..DirectorConfig::default() };
    let mut rig = Rig::new(config);
    rig.add(tcp_service(WEB), ServiceConfig::new("rr"), [nat(OLD)]);
    for port in 0..5_000u16 {
        rig.feed(&tcp(&*format!("198.51.100.1:{}", 2_000 + port), WEB).syn().build());
    }
    rig.apply(&drain(AfterDrain::Reset));
    rig.now = rig.now + Duration::from_secs(59);
    for port in 0..5_000u16 {
        rig.feed(&tcp(&*format!("198.51.100.1:{}", 2_000 + port), WEB).ack().build());
    }
    rig.now = rig.now + Duration::from_secs(1);
    let (mut calls, mut sent) = (0, 0);
    while rig.director.poll_timeout().is_some_and(|due| due <= rig.now) {
        rig.director.handle_timeout(rig.now);
        let now = transmits(&mut rig).len();
        // 40 bytes each.
        assert!(now <= 4_000, "{now}");
        (calls, sent) = (calls + 1, sent + now);
    }
    assert!(calls >= 20_000 / 4_096, "{calls}");
    let dropped = rig.director.drops(DropReason::TransmitQueueFull);
    assert_eq!((sent as u64 + dropped, sent >= 4_000), (4 * 5_000, true), "{sent} sent, {dropped} not");
}

#[test]
fn at_the_deadline_silence_drops_both_sides_until_the_connection_times_out() {
    let mut rig = rig(ServiceConfig::new("rr"));
    rig.apply(&drain(AfterDrain::Silence));
    rig.pass(MINUTE);
    assert_eq!(rig.send(&segment(1).ack().build()), Verdict::Drop(DropReason::ServerDrained));
    assert_eq!(rig.send(&tcp(OLD, &*client(1)).ack().build()), Verdict::Drop(DropReason::ServerDrained));
    assert_eq!(rig.transmit(), None);
    rig.pass(Duration::from_secs(840));
    assert_eq!(total(&rig), 0);
}

#[test]
fn after_the_deadline_a_syn_and_a_datagram_go_to_another_server() {
    for then in [AfterDrain::Reset, AfterDrain::Silence] {
        let mut rig = rig(ServiceConfig::new("rr"));
        rig.apply(&drain(then));
        rig.apply(&drain_udp(then));
        rig.pass(MINUTE);
        assert!(is_forwarded(rig.send(&segment(1).syn().build())));
        assert_eq!(rig.bytes[16..20], [10, 0, 0, 3]);
        assert_eq!(rig.send(&udp(OLD, &*client(1)).build()), Verdict::Drop(DropReason::ServerDrained));
        assert!(is_forwarded(rig.send(&udp(&*client(1), WEB).payload(b"?").build())));
        assert_eq!(rig.bytes[16..20], [10, 0, 0, 3]);
    }
}

#[test]
fn an_edit_puts_the_server_back_into_service_and_a_deletion_ends_the_drain() {
    let mut rig = rig(ServiceConfig::new("rr"));
    rig.apply(&drain(AfterDrain::Reset));
    rig.apply(&Command::EditServer(tcp_service(WEB), nat(OLD)));
    rig.pass(2 * MINUTE);
    assert_eq!(rig.events(), []);
    assert!(is_forwarded(rig.send(&segment(1).ack().build())));
    (2..6).for_each(|number| rig.feed(&segment(number).syn().build()));
    assert_eq!(total(&rig), 3);

    rig.apply(&drain(AfterDrain::Reset));
    rig.apply(&Command::DeleteServer(tcp_service(WEB), nat(OLD).key));
    rig.apply(&Command::AddServer(tcp_service(WEB), nat(OLD)));
    rig.pass(2 * MINUTE);
    assert_eq!(rig.events(), []);
    assert_eq!(rig.server(tcp_service(WEB), OLD).effective_weight, 1);
}

#[test]
fn repeating_a_drain_sets_a_new_deadline() {
    let mut rig = rig(ServiceConfig::new("rr"));
    rig.apply(&drain(AfterDrain::Reset));
    rig.pass(MINUTE / 2);
    rig.apply(&drain(AfterDrain::Reset));
    rig.pass(MINUTE / 2);
    assert_eq!(rig.events(), []);
    rig.pass(MINUTE / 2);
    assert_eq!(rig.events(), drained(1));
}

#[test]
fn only_what_exists_can_be_drained() {
    let mut rig = Rig::new(DirectorConfig::default());
    let (service, server) = (tcp_service(WEB), nat(OLD).key);
    let now = rig.now;
    assert_eq!(rig.director.apply(now, &drain(AfterDrain::Reset)), Err(ControlError::ServiceNotDefined(service)));
    rig.add(service, ServiceConfig::new("rr"), []);
    assert_eq!(rig.director.apply(now, &drain(AfterDrain::Reset)), Err(ControlError::NoSuchServer(server)));
}
