//! Drains: a server gets nothing new, its connections get a deadline, and what remains then is closed.

use std::time::Duration;

use lvs_core::{AfterDrain, Command, ControlError, DirectorConfig, DropReason, Event, ServiceConfig, Verdict};
use lvs_testkit::desk::{nat, tcp_service, udp_service};
use lvs_testkit::{Desk, Outcome, Packet, describe, sctp, tcp, udp};

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
fn desk(config: ServiceConfig) -> Desk {
    let mut desk = Desk::bare(DirectorConfig::default());
    for service in [tcp_service(WEB), udp_service(WEB)] {
        desk.add(service, config.clone(), [nat("10.0.0.3:80"), nat(OLD)]);
    }
    desk.feed(&segment(1).syn().build());
    desk.feed(&segment(1).ack().build());
    desk.feed(&udp(&*client(1), WEB).payload(b"?").build());
    assert_eq!(total(&desk), 1);
    desk
}

fn drain(then: AfterDrain) -> Command {
    Command::Drain { service: tcp_service(WEB), server: nat(OLD).key, deadline: MINUTE, then }
}

fn drain_udp(then: AfterDrain) -> Command {
    Command::Drain { service: udp_service(WEB), server: nat(OLD).key, deadline: MINUTE, then }
}

fn total(desk: &Desk) -> u32 {
    let server = desk.server(tcp_service(WEB), OLD);
    server.active_connections + server.inactive_connections
}

fn drained(remaining: u32) -> Vec<Event> {
    vec![Event::Drained { service: tcp_service(WEB), server: nat(OLD).key, remaining }]
}

#[test]
fn a_draining_server_gets_nothing_new_and_keeps_what_it_has() {
    let mut desk = desk(ServiceConfig::new("rr"));
    desk.apply(&drain(AfterDrain::Reset));
    for number in 2..10 {
        assert!(is_forwarded(desk.send(&segment(number).syn().build()).verdict));
        assert_eq!(desk.bytes[16..20], [10, 0, 0, 3]);
    }
    assert!(is_forwarded(desk.send(&segment(1).ack().payload(b"on").build()).verdict));
    assert_eq!(desk.bytes[16..20], [10, 0, 0, 2]);
    let server = desk.server(tcp_service(WEB), OLD);
    assert_eq!((server.config.weight, server.effective_weight), (1, 0));
    assert_eq!(desk.events(), []);
}

#[test]
fn a_draining_server_gets_no_new_connections_of_clients_that_were_its_own_by_persistence() {
    let mut desk = desk(ServiceConfig::new("rr").persistent(3_600));
    let again = tcp("198.51.100.1:1025", WEB).syn().build();
    assert!(is_forwarded(desk.send(&again).verdict));
    assert_eq!(desk.bytes[16..20], [10, 0, 0, 2]);
    desk.apply(&drain(AfterDrain::Silence));
    assert!(is_forwarded(desk.send(&tcp("198.51.100.1:1026", WEB).syn().build()).verdict));
    assert_eq!(desk.bytes[16..20], [10, 0, 0, 3]);
    // From now on the client is the other server's.
    assert!(is_forwarded(desk.send(&tcp("198.51.100.1:1027", WEB).syn().build()).verdict));
    assert_eq!(desk.bytes[16..20], [10, 0, 0, 3]);
}

#[test]
fn the_end_of_the_last_connection_is_told_at_once() {
    let mut desk = desk(ServiceConfig::new("rr"));
    desk.apply(&drain(AfterDrain::Reset));
    desk.feed(&segment(1).rst().build());
    desk.pass(Duration::from_secs(11));
    assert_eq!(desk.events(), drained(0));
    desk.pass(MINUTE);
    assert_eq!(desk.events(), []);
    // Still out of service.
    desk.feed(&segment(2).syn().build());
    desk.feed(&segment(3).syn().build());
    assert_eq!(total(&desk), 0);
}

#[test]
fn a_server_without_connections_is_drained_at_once() {
    let mut desk = Desk::bare(DirectorConfig::default());
    desk.add(tcp_service(WEB), ServiceConfig::new("rr"), [nat(OLD)]);
    desk.apply(&drain(AfterDrain::Reset));
    assert_eq!(desk.events(), drained(0));
}

#[test]
fn at_the_deadline_both_sides_are_reset_by_the_clients_next_segment() {
    let mut desk = desk(ServiceConfig::new("rr"));
    desk.apply(&drain(AfterDrain::Reset));
    desk.pass(MINUTE - Duration::from_nanos(1));
    assert!(is_forwarded(desk.send(&segment(1).ack().build()).verdict));
    desk.pass(Duration::from_nanos(1));
    assert_eq!(desk.events(), drained(1));
    assert_eq!(transmits(&mut desk).len(), 4, "both are made to speak");
    let verdict = desk.send(&segment(1).ack().payload(b"late").build()).verdict;
    assert_eq!(verdict, Verdict::reply("198.51.100.1".parse().unwrap()));
    let expected = "192.0.2.80.80 > 198.51.100.1.1024 TCP R seq=9000 ack=0 pl=0 id=0 DF ttl=64 len=40";
    assert_eq!(describe(&desk.bytes), expected);
    let Outcome { verdict, bytes, .. } = desk.transmit().expect("the server is told too");
    assert!(is_forwarded(verdict));
    let expected = "198.51.100.1.1024 > 10.0.0.2.80 TCP RA seq=5000 ack=9000 pl=0 id=0 DF ttl=63 len=40";
    assert_eq!(describe(&bytes), expected);
    desk.pass(Duration::from_secs(11));
    assert_eq!(total(&desk), 0);
}

#[test]
fn at_the_deadline_both_sides_are_reset_by_the_servers_next_segment() {
    let mut desk = desk(ServiceConfig::new("rr"));
    desk.apply(&drain(AfterDrain::Reset));
    desk.pass(MINUTE);
    transmits(&mut desk);
    let segment = tcp(OLD, &*client(1)).ack().numbers(9_000, 5_000).payload(b"late").build();
    assert_eq!(desk.send(&segment).verdict, Verdict::reply("10.0.0.2".parse().unwrap()));
    let expected = "198.51.100.1.1024 > 10.0.0.2.80 TCP R seq=5000 ack=0 pl=0 id=0 DF ttl=64 len=40";
    assert_eq!(describe(&desk.bytes), expected);
    let Outcome { bytes, .. } = desk.transmit().expect("the client is told too");
    let expected = "192.0.2.80.80 > 198.51.100.1.1024 TCP RA seq=9000 ack=5000 pl=0 id=0 DF ttl=63 len=40";
    assert_eq!(describe(&bytes), expected);
}

/// What the director sends by itself.
fn transmits(desk: &mut Desk) -> Vec<(Verdict, String)> {
    desk.transmits().into_iter().map(|sent| (sent.verdict, describe(&sent.bytes))).collect()
}

#[test]
fn at_the_deadline_silent_peers_are_sent_what_they_must_answer() {
    let mut desk = desk(ServiceConfig::new("rr"));
    // Neither what has ended nor what has another server.
    desk.feed(&segment(2).syn().build());
    desk.feed(&segment(3).syn().build());
    desk.feed(&segment(3).rst().build());
    // Nor what is half open: its client may be made up.
    desk.feed(&segment(4).syn().build());
    desk.feed(&segment(5).syn().build());
    desk.apply(&drain(AfterDrain::Reset));
    desk.pass(MINUTE / 2);
    desk.feed(&segment(5).syn().build());
    desk.pass(MINUTE / 2);
    let sent = transmits(&mut desk);
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
    desk.pass(MINUTE);
    assert_eq!(transmits(&mut desk), []);
}

#[test]
fn many_silent_connections_are_gone_through_in_bounded_steps_and_no_further_than_the_queue_holds() {
    let config = DirectorConfig::default().with(|config| {
        config.connections_max = 20_000;
        config.fragment_bytes_max = 1_000_000;
    });
    let mut desk = Desk::bare(config);
    desk.add(tcp_service(WEB), ServiceConfig::new("rr"), [nat(OLD)]);
    for port in 0..5_000u16 {
        desk.feed(&tcp(&*format!("198.51.100.1:{}", 2_000 + port), WEB).syn().build());
    }
    desk.apply(&drain(AfterDrain::Reset));
    desk.now = desk.now + Duration::from_secs(59);
    for port in 0..5_000u16 {
        desk.feed(&tcp(&*format!("198.51.100.1:{}", 2_000 + port), WEB).ack().build());
    }
    desk.now = desk.now + Duration::from_secs(1);
    let (mut calls, mut sent) = (0, 0);
    while desk.director.poll_timeout().is_some_and(|due| due <= desk.now) {
        desk.director.handle_timeout(desk.now);
        let now = transmits(&mut desk).len();
        // 40 bytes each, and what it takes to keep them.
        assert!(now <= 5_000, "{now}");
        (calls, sent) = (calls + 1, sent + now);
    }
    assert!(calls >= 20_000 / 4_096, "{calls}");
    let dropped = desk.director.drops(DropReason::TransmitQueueFull);
    assert_eq!((sent as u64 + dropped, sent >= 4_000), (4 * 5_000, true), "{sent} sent, {dropped} not");
}

#[test]
fn at_the_deadline_silence_drops_both_sides_until_the_connection_times_out() {
    let mut desk = desk(ServiceConfig::new("rr"));
    desk.apply(&drain(AfterDrain::Silence));
    desk.pass(MINUTE);
    assert_eq!(desk.send(&segment(1).ack().build()).verdict, Verdict::Drop(DropReason::ServerDrained));
    assert_eq!(desk.send(&tcp(OLD, &*client(1)).ack().build()).verdict, Verdict::Drop(DropReason::ServerDrained));
    assert_eq!(desk.transmit(), None);
    desk.pass(Duration::from_secs(840));
    assert_eq!(total(&desk), 0);
}

#[test]
fn after_the_deadline_a_syn_and_a_datagram_go_to_another_server() {
    for then in [AfterDrain::Reset, AfterDrain::Silence] {
        let mut desk = desk(ServiceConfig::new("rr"));
        desk.apply(&drain(then));
        desk.apply(&drain_udp(then));
        desk.pass(MINUTE);
        assert!(is_forwarded(desk.send(&segment(1).syn().build()).verdict));
        assert_eq!(desk.bytes[16..20], [10, 0, 0, 3]);
        assert_eq!(desk.send(&udp(OLD, &*client(1)).build()).verdict, Verdict::Drop(DropReason::ServerDrained));
        assert!(is_forwarded(desk.send(&udp(&*client(1), WEB).payload(b"?").build()).verdict));
        assert_eq!(desk.bytes[16..20], [10, 0, 0, 3]);
    }
}

#[test]
fn an_edit_puts_the_server_back_into_service_and_a_deletion_ends_the_drain() {
    let mut desk = desk(ServiceConfig::new("rr"));
    desk.apply(&drain(AfterDrain::Reset));
    desk.apply(&Command::EditServer(tcp_service(WEB), nat(OLD)));
    desk.pass(2 * MINUTE);
    assert_eq!(desk.events(), []);
    assert!(is_forwarded(desk.send(&segment(1).ack().build()).verdict));
    (2..6).for_each(|number| desk.feed(&segment(number).syn().build()));
    assert_eq!(total(&desk), 3);

    desk.apply(&drain(AfterDrain::Reset));
    desk.apply(&Command::DeleteServer(tcp_service(WEB), nat(OLD).key));
    desk.apply(&Command::AddServer(tcp_service(WEB), nat(OLD)));
    desk.pass(2 * MINUTE);
    assert_eq!(desk.events(), []);
    assert_eq!(desk.server(tcp_service(WEB), OLD).effective_weight, 1);
}

#[test]
fn repeating_a_drain_sets_a_new_deadline() {
    let mut desk = desk(ServiceConfig::new("rr"));
    desk.apply(&drain(AfterDrain::Reset));
    desk.pass(MINUTE / 2);
    desk.apply(&drain(AfterDrain::Reset));
    desk.pass(MINUTE / 2);
    assert_eq!(desk.events(), []);
    desk.pass(MINUTE / 2);
    assert_eq!(desk.events(), drained(1));
}

#[test]
fn only_what_exists_can_be_drained() {
    let mut desk = Desk::bare(DirectorConfig::default());
    let (service, server) = (tcp_service(WEB), nat(OLD).key);
    let now = desk.now;
    assert_eq!(desk.director.apply(now, &drain(AfterDrain::Reset)), Err(ControlError::ServiceNotDefined(service)));
    desk.add(service, ServiceConfig::new("rr"), []);
    assert_eq!(desk.director.apply(now, &drain(AfterDrain::Reset)), Err(ControlError::NoSuchServer(server)));
}

/// A web service in both families and an SCTP one, each with one NAT server.
fn three_services() -> Desk {
    Desk::new(
        "-A -t 192.0.2.80:80 -s rr\n-a -t 192.0.2.80:80 -r 10.0.0.2:80 -m\n\
         -A -t [2001:db8::80]:80 -s rr\n-a -t [2001:db8::80]:80 -r [fd00::2]:80 -m\n\
         -A --sctp-service 192.0.2.80:80 -s rr\n-a --sctp-service 192.0.2.80:80 -r 10.0.0.2:80 -m",
    )
}

/// A request, its answer, and both sides' farewell.
fn finish(desk: &mut Desk, client: &str, service: &str, server: &str) {
    desk.feed(&tcp(client, service).syn().build());
    desk.feed(&tcp(server, client).syn().ack().build());
    desk.feed(&tcp(client, service).ack().payload(b"GET /").build());
    desk.feed(&tcp(server, client).fin().ack().payload(b"200").build());
    desk.feed(&tcp(client, service).fin().ack().build());
}

fn remaining(events: &[Event]) -> Vec<u32> {
    let drained = events.iter().filter_map(|event| match event {
        Event::Drained { remaining, .. } => Some(*remaining),
        _ => None,
    });
    drained.collect()
}

#[test]
fn what_is_over_and_waits_to_be_forgotten_does_not_remain() {
    for (service, server, client) in
        [(WEB, OLD, "198.51.100.7"), ("[2001:db8::80]:80", "[fd00::2]:80", "[2001:db8:9::7]")]
    {
        let mut desk = three_services();
        (0..8).for_each(|port| finish(&mut desk, &format!("{client}:{}", 2_000 + port), service, server));
        assert_eq!(desk.states(), ["TIME_WAIT"; 8]);
        desk.ipvsadm(&format!("-e -t {service} -r {server} -m --drain 20"));
        assert_eq!(remaining(&desk.events()), [0], "{service}");
        desk.pass(MINUTE);
        assert_eq!(remaining(&desk.events()), [0; 0], "it is told once");
    }
}

#[test]
fn an_aborted_association_does_not_remain() {
    let mut desk = three_services();
    let (client, service) = ("198.51.100.7:1024", WEB);
    desk.feed(&sctp(client, service).chunk(1, &[0; 16]).build());
    desk.ipvsadm("-e --sctp-service 192.0.2.80:80 -r 10.0.0.2:80 -m --drain 20");
    assert_eq!(remaining(&desk.events()), [0; 0]);
    desk.feed(&sctp(OLD, client).chunk(6, &[]).build());
    assert_eq!((desk.states(), remaining(&desk.events())), (vec!["REJECTED"], vec![0]));
}

#[test]
fn what_goes_on_remains_beside_what_is_over() {
    let mut desk = three_services();
    (0..8).for_each(|port| finish(&mut desk, &format!("198.51.100.7:{}", 2_000 + port), WEB, OLD));
    desk.feed(&segment(1).syn().build());
    desk.feed(&segment(1).ack().build());
    desk.ipvsadm("-e -t 192.0.2.80:80 -r 10.0.0.2:80 -m --drain 20");
    desk.pass(Duration::from_secs(20));
    assert_eq!(remaining(&desk.events()), [1]);
    // When all are forgotten, nothing is left to count wrongly.
    desk.pass(Duration::from_secs(1_000));
    assert_eq!(total(&desk), 0);
    finish(&mut desk, "198.51.100.7:3000", WEB, OLD);
    desk.ipvsadm("-e -t 192.0.2.80:80 -r 10.0.0.2:80 -m");
    finish(&mut desk, "198.51.100.7:3000", WEB, OLD);
    assert_eq!((total(&desk), desk.states()), (1, vec!["TIME_WAIT"]));
}

#[test]
fn a_view_says_until_when_a_server_drains_and_what_is_left() {
    let mut desk = three_services();
    finish(&mut desk, "198.51.100.7:2000", WEB, OLD);
    desk.feed(&segment(1).syn().build());
    let view =
        |desk: &Desk| desk.server(tcp_service(WEB), OLD).drain.map(|drain| (drain.ends_in.as_secs(), drain.open));
    assert_eq!(view(&desk), None);
    desk.apply(&drain(AfterDrain::Reset));
    desk.pass(Duration::from_secs(25));
    assert_eq!(view(&desk), Some((35, 1)));
    desk.pass(MINUTE);
    assert_eq!(view(&desk), Some((0, 0)), "the half-open one has timed out");
    let text = lvs_admin::list(&desk.director.services(desk.now), &Default::default(), &lvs_admin::Names::none());
    assert!(text.is_ok_and(|text| text.contains("Masq    1      0          1          drained, 0 left\n")));
    desk.ipvsadm("-e -t 192.0.2.80:80 -r 10.0.0.2:80 -m");
    assert_eq!(view(&desk), None);
}

#[test]
fn rules_end_a_udp_flow_that_never_pauses() {
    let mut desk = Desk::new(
        "-A -u 192.0.2.80:80 -s rr\n-a -u 192.0.2.80:80 -r 10.0.0.3:80 -m\n-a -u 192.0.2.80:80 -r 10.0.0.2:80 -m",
    );
    let ask = |desk: &mut Desk| {
        desk.pass(Duration::from_secs(10));
        assert!(is_forwarded(desk.send(&udp("198.51.100.7:5000", WEB).payload(b"?").build()).verdict));
        desk.bytes[19]
    };
    assert_eq!(ask(&mut desk), 2);
    // Weight 0 alone leaves it there for ever.
    desk.ipvsadm("-e -u 192.0.2.80:80 -r 10.0.0.2:80 -m -w 0");
    assert!((0..100).all(|_| ask(&mut desk) == 2));
    desk.ipvsadm("-e -u 192.0.2.80:80 -r 10.0.0.2:80 -m -w 0 --drain 60");
    assert_eq!((0..8).map(|_| ask(&mut desk)).collect::<Vec<_>>(), [2, 2, 2, 2, 2, 3, 3, 3]);
}

#[test]
fn a_server_may_be_added_drained_and_rules_keep_it_so() {
    let mut desk = three_services();
    desk.ipvsadm("-a -t 192.0.2.80:80 -r 10.0.0.3:80 -m --drain 60 --drain-reset\n-a -t 192.0.2.80:80 -r 10.0.0.4:80 -m --drain 0");
    assert_eq!(remaining(&desk.events()), [0, 0]);
    desk.pass(Duration::from_millis(20_500));
    let saved =
        |desk: &Desk| lvs_admin::save(&desk.director.services(desk.now), Default::default(), &lvs_admin::Names::none());
    let text = saved(&desk);
    assert!(text.contains("-r 10.0.0.3:80 -m -w 1 --drain 40 --drain-reset\n"), "{text}");
    assert!(text.contains("-r 10.0.0.4:80 -m -w 1 --drain 0\n"), "{text}");
    let mut restored = Desk::new(&text);
    assert_eq!(saved(&restored), text);
    for number in 1..5 {
        restored.feed(&segment(number).syn().build());
        assert_eq!(restored.bytes[16..20], [10, 0, 0, 2]);
    }
}
