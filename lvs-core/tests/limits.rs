//! Every table has a bound, and a full table turns the new away without harming what it holds.

use std::net::SocketAddr;
use std::time::Duration;

use lvs_core::event::Table;
use lvs_core::{
    Command, ControlError, DirectorConfig, DropReason, Event, HalfOpenPolicy, ServiceConfig, ServiceKey, Verdict,
};
use lvs_testkit::rig::{Rig, nat, tcp_service, udp_service};
use lvs_testkit::{Packet, tcp, udp};

const WEB: &str = "192.0.2.80:80";

fn rig(config: DirectorConfig) -> Rig {
    let mut rig = Rig::new(config);
    rig.add(tcp_service(WEB), ServiceConfig::new("rr"), [nat("10.0.0.2:80"), nat("10.0.0.3:80")]);
    rig.add(udp_service(WEB), ServiceConfig::new("rr"), [nat("10.0.0.2:80")]);
    rig
}

fn client(number: u16) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 7], 1024 + number))
}

fn segment(number: u16) -> Packet {
    tcp(client(number), WEB)
}

fn establish(rig: &mut Rig, number: u16) {
    assert!(is_forwarded(rig.send(&segment(number).syn().build())));
    assert!(is_forwarded(rig.send(&segment(number).ack().build())));
}

fn is_forwarded(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Forward { .. })
}

/// The established connections 0..`count` still carry data both ways.
#[track_caller]
fn check_alive(rig: &mut Rig, count: u16) {
    for number in 0..count {
        assert!(is_forwarded(rig.send(&segment(number).ack().payload(b"still here").build())), "{number}");
        let row = rig.connections().into_iter().find(|row| row.client.port == 1024 + number).expect("it is listed");
        assert!(is_forwarded(rig.send(&tcp(row.real, client(number)).ack().build())), "{number}");
    }
}

/// With `full` made so, the first packet of a new flow is refused for `reason`, once told of; known flows go on.
#[track_caller]
fn check_full(rig: &mut Rig, newcomer: &[u8], reason: DropReason, table: Table) {
    let _ = rig.events();
    for _ in 0..3 {
        assert_eq!(rig.send(newcomer), Verdict::Drop(reason));
    }
    assert_eq!(rig.director.drops(reason), 3);
    assert_eq!(rig.events(), [Event::TableFull { table }]);
}

#[test]
fn a_full_connection_table_refuses_new_connections_and_keeps_those_it_has() {
    let mut rig = rig(DirectorConfig { connections_max: 8, ..DirectorConfig::default() });
    (0..8).for_each(|n| establish(&mut rig, n));
    check_full(&mut rig, &segment(100).syn().build(), DropReason::ConnectionTableFull, Table::Connections);
    check_alive(&mut rig, 8);
    // One that ends makes room.
    let _ = rig.send(&segment(7).rst().build());
    rig.pass(Duration::from_secs(11));
    assert!(is_forwarded(rig.send(&segment(100).syn().build())));
    check_alive(&mut rig, 7);
}

#[test]
fn one_client_endpoint_has_a_bounded_number_of_connections() {
    let mut rig = rig(DirectorConfig { client_endpoint_max: 4, ..DirectorConfig::default() });
    let any_port = tcp_service("192.0.2.81:0");
    rig.add(any_port, ServiceConfig::new("rr").persistent(60), [nat("10.0.0.2:80")]);
    establish(&mut rig, 0);
    let probe = |port: u16| tcp(client(1), &*format!("192.0.2.81:{port}")).syn().build();
    for port in 1..=4 {
        assert!(is_forwarded(rig.send(&probe(port))));
    }
    assert_eq!(rig.send(&probe(5)), Verdict::Drop(DropReason::ClientEndpointFull));
    assert!(is_forwarded(rig.send(&probe(4))));
    check_alive(&mut rig, 1);
}

#[test]
fn a_full_template_table_refuses_new_clients_only() {
    let mut rig = rig(DirectorConfig { templates_max: 3, ..DirectorConfig::default() });
    let shop = tcp_service("192.0.2.80:443");
    rig.add(shop, ServiceConfig::new("rr").persistent(600), [nat("10.0.0.2:443"), nat("10.0.0.3:443")]);
    establish(&mut rig, 0);
    let syn = |client: u8, port: u16| tcp(SocketAddr::from(([203, 0, 113, client], port)), "192.0.2.80:443").syn();
    (0..3).for_each(|client| assert!(is_forwarded(rig.send(&syn(client, 2000).build()))));
    check_full(&mut rig, &syn(9, 2000).build(), DropReason::TemplateTableFull, Table::Templates);
    // A client with a template opens as many connections as it likes.
    (0..3).for_each(|client| assert!(is_forwarded(rig.send(&syn(client, 2001).build()))));
    check_alive(&mut rig, 1);
}

#[test]
fn full_fragment_memory_refuses_new_datagrams_and_nothing_else() {
    let mut rig = rig(DirectorConfig { fragments_max: 2, ..DirectorConfig::default() });
    establish(&mut rig, 0);
    let part = |id: u32| udp(client(1), WEB).payload_len(64).identification(id).fragments(40).remove(0);
    let rest = |id: u32| udp(client(1), WEB).payload_len(64).identification(id).fragments(40).remove(1);
    assert!(is_forwarded(rig.send(&part(1))));
    assert_eq!(rig.send(&rest(2)), Verdict::Held);
    check_full(&mut rig, &part(3), DropReason::FragmentTableFull, Table::Fragments);
    check_alive(&mut rig, 1);
    // Both datagrams in progress complete.
    assert!(is_forwarded(rig.send(&rest(1))));
    assert!(is_forwarded(rig.send(&part(2))));
    assert!(rig.transmit().is_some_and(|(verdict, _)| is_forwarded(verdict)));
}

#[test]
fn packets_nobody_fetches_are_bounded_in_bytes() {
    let mut rig = rig(DirectorConfig { fragment_bytes_max: 4_000, ..DirectorConfig::default() });
    let parts = |id: u32| udp(client(1), WEB).payload_len(1_000).identification(id).fragments(496);
    for id in 0..100 {
        let parts = parts(id);
        let _ = rig.send(&parts[1]);
        let _ = rig.send(&parts[0]);
    }
    assert!(rig.director.drops(DropReason::TransmitQueueFull) > 80);
    let fetched: usize = std::iter::from_fn(|| rig.transmit()).map(|(_, bytes)| bytes.len()).sum();
    assert!(fetched <= 4_000, "{fetched}");
    // Fetched, they make room.
    let parts = parts(200);
    assert_eq!(rig.send(&parts[1]), Verdict::Held);
    let _ = rig.send(&parts[0]);
    assert!(rig.transmit().is_some());
}

#[test]
fn events_nobody_polls_are_counted() {
    let mut rig = Rig::new(DirectorConfig { events_max: 2, ..DirectorConfig::default() });
    for port in 1..=5 {
        let key = tcp_service(&format!("192.0.2.80:{port}"));
        rig.add(key, ServiceConfig::new("rr"), []);
        let _ = rig.send(&tcp(client(0), &*format!("192.0.2.80:{port}")).syn().build());
    }
    let events = rig.events();
    assert_eq!(events.len(), 3);
    assert_eq!(events[2], Event::Lost { count: 3 });
    assert_eq!(rig.events(), []);
}

#[test]
fn services_and_servers_are_bounded_and_a_refusal_changes_nothing() {
    let mut rig = rig(DirectorConfig { services_max: 3, servers_max: 4, ..DirectorConfig::default() });
    establish(&mut rig, 0);
    let third = tcp_service("192.0.2.80:443");
    rig.add(third, ServiceConfig::new("rr"), [nat("10.0.0.4:443")]);
    let refused = |rig: &mut Rig, command| rig.director.apply(rig.now, &command).unwrap_err();
    let fourth = Command::AddService(tcp_service("192.0.2.80:8443"), ServiceConfig::new("rr"));
    assert_eq!(refused(&mut rig, fourth.clone()), ControlError::TableFull("services_max"));
    let fifth = Command::AddServer(third, nat("10.0.0.5:443"));
    assert_eq!(refused(&mut rig, fifth.clone()), ControlError::TableFull("servers_max"));
    check_alive(&mut rig, 1);

    // A deleted server counts until it is forgotten, and may be revived meanwhile.
    rig.apply(&Command::DeleteServer(third, nat("10.0.0.4:443").key));
    assert_eq!(refused(&mut rig, fifth.clone()), ControlError::TableFull("servers_max"));
    rig.apply(&Command::AddServer(third, nat("10.0.0.4:443")));
    rig.apply(&Command::DeleteService(third));
    rig.apply(&fourth);
    rig.pass(Duration::from_secs(200));
    rig.apply(&Command::AddServer(tcp_service("192.0.2.80:8443"), nat("10.0.0.5:443")));
    check_alive(&mut rig, 1);
}

fn flood(rig: &mut Rig, count: u32) -> u32 {
    let service: SocketAddr = WEB.parse().unwrap();
    let syn = |n: u32| tcp(SocketAddr::from((std::net::Ipv4Addr::from(0x6440_0000 + n), 5_000)), service).syn().build();
    (0..count).filter(|n| is_forwarded(rig.send(&syn(*n)))).count() as u32
}

#[test]
fn half_open_connections_have_a_bound_of_their_own_and_leave_room_for_others() {
    let config = DirectorConfig { connections_max: 100, half_open_max: 10, ..DirectorConfig::default() };
    let mut rig = rig(config);
    (0..20).for_each(|n| establish(&mut rig, n));
    assert_eq!(flood(&mut rig, 1_000), 10);
    check_full_half_open(&mut rig);
    check_alive(&mut rig, 20);
    // A datagram is no SYN; a segment of a known connection is none either.
    assert!(is_forwarded(rig.send(&udp(client(0), WEB).payload(b"?").build())));
    // They time out, and it begins again.
    rig.pass(Duration::from_secs(61));
    assert_eq!(flood(&mut rig, 20), 10);
    assert_eq!(rig.events(), [Event::TableFull { table: Table::HalfOpen }]);
}

fn check_full_half_open(rig: &mut Rig) {
    assert_eq!(rig.events(), [Event::TableFull { table: Table::HalfOpen }]);
    assert_eq!(rig.director.drops(DropReason::HalfOpenFull), 990);
    assert_eq!(rig.connections().len(), 30);
}

#[test]
fn a_connection_that_comes_about_gives_its_half_open_place_back() {
    let mut rig = rig(DirectorConfig { half_open_max: 1, ..DirectorConfig::default() });
    (0..50).for_each(|n| establish(&mut rig, n));
    assert!(is_forwarded(rig.send(&segment(60).syn().build())));
    assert_eq!(rig.send(&segment(61).syn().build()), Verdict::Drop(DropReason::HalfOpenFull));
    // The SYN once more is the same connection's.
    assert!(is_forwarded(rig.send(&segment(60).syn().build())));
    let _ = rig.send(
        &tcp(rig.connections().iter().find(|row| row.client.port == 1084).unwrap().real, client(60)).rst().build(),
    );
    assert!(is_forwarded(rig.send(&segment(61).syn().build())));
}

#[test]
fn the_oldest_half_open_connection_makes_room_where_the_policy_says_so() {
    let config = DirectorConfig {
        connections_max: 100,
        half_open_max: 10,
        half_open_policy: HalfOpenPolicy::EvictOldest,
        ..DirectorConfig::default()
    };
    let mut rig = rig(config);
    (0..20).for_each(|n| establish(&mut rig, n));
    let _ = rig.send(&segment(30).syn().build());
    assert_eq!(flood(&mut rig, 9), 9);
    establish_syn_sent(&mut rig, 30); // answered in time
    assert_eq!(flood(&mut rig, 1_000), 1_000);
    assert_eq!((rig.connections().len(), rig.director.drops(DropReason::HalfOpenFull)), (31, 0));
    // Nine came first, of which the flood's second round knew all; then each new one cost an old one.
    assert_eq!(rig.director.defence_counters().half_open_evicted, 990);
    check_alive(&mut rig, 20);
    let server = |at| rig.server(tcp_service(WEB), at);
    let total = |view: lvs_core::view::ServerView| view.active_connections + view.inactive_connections;
    assert_eq!(total(server("10.0.0.2:80")) + total(server("10.0.0.3:80")), 31);
}

fn establish_syn_sent(rig: &mut Rig, number: u16) {
    assert!(is_forwarded(rig.send(&segment(number).ack().build())));
}

#[test]
fn an_evicted_connections_template_stays() {
    let config =
        DirectorConfig { half_open_max: 1, half_open_policy: HalfOpenPolicy::EvictOldest, ..DirectorConfig::default() };
    let mut rig = Rig::new(config);
    let shop: ServiceKey = tcp_service("192.0.2.80:443");
    rig.add(shop, ServiceConfig::new("rr").persistent(600), [nat("10.0.0.2:443")]);
    let syn = |port: u16| tcp(SocketAddr::from(([203, 0, 113, 9], port)), "192.0.2.80:443").syn().build();
    (2000..2004).for_each(|port| assert!(is_forwarded(rig.send(&syn(port)))));
    assert_eq!((rig.connections().len(), rig.templates().len()), (1, 1));
    rig.pass(Duration::from_secs(700));
    assert_eq!((rig.connections().len(), rig.templates().len()), (0, 0));
}

#[test]
fn many_services_and_servers_are_sampled_and_forgotten_in_bounded_steps() {
    const SERVICES: u32 = 5_000;
    let mut rig = Rig::new(DirectorConfig { connections_max: 64, ..DirectorConfig::default() });
    let service = |number: u32| tcp_service(&format!("192.0.{}.{}:80", number / 256, number % 256));
    let server = |number: u32| nat(&format!("10.1.{}.{}:80", number / 256, number % 256));
    for number in 0..SERVICES {
        rig.add(service(number), ServiceConfig::new("rr"), [server(number)]);
    }
    for number in [0, SERVICES - 1] {
        let to = match service(number) {
            lvs_core::ServiceKey::Address { address, port, .. } => SocketAddr::new(address, port),
            other => panic!("{other:?}"),
        };
        rig.feed(&tcp("198.51.100.7:1024", to).syn().build());
    }
    let calls = |rig: &mut Rig, time| {
        rig.now = rig.now + time;
        let mut calls = 0;
        while rig.director.poll_timeout().is_some_and(|due| due <= rig.now) {
            rig.director.handle_timeout(rig.now);
            calls += 1;
        }
        calls
    };
    // Ten thousand meters, 4,096 a call.
    assert_eq!(calls(&mut rig, Duration::from_secs(2)), 3);
    let views = rig.director.services(rig.now);
    let counted: Vec<_> = views.iter().filter(|view| view.statistics.published.connections == 1).collect();
    assert_eq!(counted.len(), 2);
    assert!(counted.iter().all(|view| view.servers[0].statistics.published.connections == 1));
    assert!(counted.iter().all(|view| view.statistics.rates.in_bytes == 5), "{:?}", counted[0].statistics);

    for number in 1..SERVICES {
        rig.apply(&Command::DeleteServer(service(number), server(number).key));
    }
    assert_eq!(rig.director.gauges().deleted_servers, SERVICES - 1);
    // One comes back in the middle of it.
    let deleted = |rig: &Rig| rig.director.gauges().deleted_servers;
    rig.now = rig.now + Duration::from_secs(181);
    let mut seen = Vec::new();
    while rig.director.poll_timeout().is_some_and(|due| due <= rig.now) {
        rig.director.handle_timeout(rig.now);
        seen.push(deleted(&rig));
        if seen.len() == 1 {
            rig.apply(&Command::AddServer(service(1), server(1)));
        }
    }
    rig.pass(Duration::from_secs(60));
    rig.pass(Duration::from_secs(120));
    assert_eq!(deleted(&rig), 0);
    assert_eq!(rig.server(service(1), "10.1.0.1:80").config.key, server(1).key);
}
