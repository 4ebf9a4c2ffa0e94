//! Every table has a bound, and a full table turns the new away without harming what it holds.

use std::net::SocketAddr;
use std::time::Duration;

use lvs_core::event::Table;
use lvs_core::{
    Command, ControlError, DirectorConfig, DropReason, Event, HalfOpenPolicy, ServiceConfig, ServiceKey, Verdict,
};
use lvs_testkit::desk::{nat, tcp_service, udp_service};
use lvs_testkit::{Desk, Packet, tcp, udp};

const WEB: &str = "192.0.2.80:80";

fn desk(config: DirectorConfig) -> Desk {
    let mut desk = Desk::bare(config);
    desk.add(tcp_service(WEB), ServiceConfig::new("rr"), [nat("10.0.0.2:80"), nat("10.0.0.3:80")]);
    desk.add(udp_service(WEB), ServiceConfig::new("rr"), [nat("10.0.0.2:80")]);
    desk
}

fn client(number: u16) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 7], 1024 + number))
}

fn segment(number: u16) -> Packet {
    tcp(client(number), WEB)
}

fn establish(desk: &mut Desk, number: u16) {
    assert!(is_forwarded(desk.send(&segment(number).syn().build()).verdict));
    assert!(is_forwarded(desk.send(&segment(number).ack().build()).verdict));
}

fn is_forwarded(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Forward { .. })
}

/// The established connections 0..`count` still carry data both ways.
#[track_caller]
fn check_alive(desk: &mut Desk, count: u16) {
    for number in 0..count {
        assert!(is_forwarded(desk.send(&segment(number).ack().payload(b"still here").build()).verdict), "{number}");
        let row = desk.connections().into_iter().find(|row| row.client.port == 1024 + number).expect("it is listed");
        assert!(is_forwarded(desk.send(&tcp(row.real, client(number)).ack().build()).verdict), "{number}");
    }
}

/// With `full` made so, the first packet of a new flow is refused for `reason`, once told of; known flows go on.
#[track_caller]
fn check_full(desk: &mut Desk, newcomer: &[u8], reason: DropReason, table: Table) {
    let _ = desk.events();
    for _ in 0..3 {
        assert_eq!(desk.send(newcomer).verdict, Verdict::Drop(reason));
    }
    assert_eq!(desk.director.drops(reason), 3);
    assert_eq!(desk.events(), [Event::TableFull { table }]);
}

#[test]
fn a_full_connection_table_refuses_new_connections_and_keeps_those_it_has() {
    let mut desk = desk(DirectorConfig { connections_max: 8, ..DirectorConfig::default() });
    (0..8).for_each(|n| establish(&mut desk, n));
    check_full(&mut desk, &segment(100).syn().build(), DropReason::ConnectionTableFull, Table::Connections);
    check_alive(&mut desk, 8);
    // One that ends makes room.
    let _ = desk.send(&segment(7).rst().build()).verdict;
    desk.pass(Duration::from_secs(11));
    assert!(is_forwarded(desk.send(&segment(100).syn().build()).verdict));
    check_alive(&mut desk, 7);
}

#[test]
fn one_client_endpoint_has_a_bounded_number_of_connections() {
    let mut desk = desk(DirectorConfig { client_endpoint_max: 4, ..DirectorConfig::default() });
    let any_port = tcp_service("192.0.2.81:0");
    desk.add(any_port, ServiceConfig::new("rr").persistent(60), [nat("10.0.0.2:80")]);
    establish(&mut desk, 0);
    let probe = |port: u16| tcp(client(1), &*format!("192.0.2.81:{port}")).syn().build();
    for port in 1..=4 {
        assert!(is_forwarded(desk.send(&probe(port)).verdict));
    }
    assert_eq!(desk.send(&probe(5)).verdict, Verdict::Drop(DropReason::ClientEndpointFull));
    assert!(is_forwarded(desk.send(&probe(4)).verdict));
    check_alive(&mut desk, 1);
}

#[test]
fn a_full_template_table_refuses_new_clients_only() {
    let mut desk = desk(DirectorConfig { templates_max: 3, ..DirectorConfig::default() });
    let shop = tcp_service("192.0.2.80:443");
    desk.add(shop, ServiceConfig::new("rr").persistent(600), [nat("10.0.0.2:443"), nat("10.0.0.3:443")]);
    establish(&mut desk, 0);
    let syn = |client: u8, port: u16| tcp(SocketAddr::from(([203, 0, 113, client], port)), "192.0.2.80:443").syn();
    (0..3).for_each(|client| assert!(is_forwarded(desk.send(&syn(client, 2000).build()).verdict)));
    check_full(&mut desk, &syn(9, 2000).build(), DropReason::TemplateTableFull, Table::Templates);
    // A client with a template opens as many connections as it likes.
    (0..3).for_each(|client| assert!(is_forwarded(desk.send(&syn(client, 2001).build()).verdict)));
    check_alive(&mut desk, 1);
}

#[test]
fn full_fragment_memory_refuses_new_datagrams_and_nothing_else() {
    let mut desk = desk(DirectorConfig { fragments_max: 2, ..DirectorConfig::default() });
    establish(&mut desk, 0);
    let part = |id: u32| udp(client(1), WEB).payload_len(64).identification(id).fragments(40).remove(0);
    let rest = |id: u32| udp(client(1), WEB).payload_len(64).identification(id).fragments(40).remove(1);
    assert!(is_forwarded(desk.send(&part(1)).verdict));
    assert_eq!(desk.send(&rest(2)).verdict, Verdict::Held);
    check_full(&mut desk, &part(3), DropReason::FragmentTableFull, Table::Fragments);
    check_alive(&mut desk, 1);
    // Both datagrams in progress complete.
    assert!(is_forwarded(desk.send(&rest(1)).verdict));
    assert!(is_forwarded(desk.send(&part(2)).verdict));
    assert!(desk.transmit().is_some_and(|sent| is_forwarded(sent.verdict)));
}

#[test]
fn packets_nobody_fetches_are_bounded_in_bytes() {
    let mut desk = desk(DirectorConfig { fragment_bytes_max: 4_000, ..DirectorConfig::default() });
    let parts = |id: u32| udp(client(1), WEB).payload_len(1_000).identification(id).fragments(496);
    for id in 0..100 {
        let parts = parts(id);
        let _ = desk.send(&parts[1]).verdict;
        let _ = desk.send(&parts[0]).verdict;
    }
    assert!(desk.director.drops(DropReason::TransmitQueueFull) > 80);
    let fetched: usize = desk.transmits().iter().map(|sent| sent.bytes.len()).sum();
    assert!(fetched <= 4_000, "{fetched}");
    // Fetched, they make room.
    let parts = parts(200);
    assert_eq!(desk.send(&parts[1]).verdict, Verdict::Held);
    let _ = desk.send(&parts[0]).verdict;
    assert!(desk.transmit().is_some());
}

#[test]
fn events_nobody_polls_are_counted() {
    let mut desk = Desk::bare(DirectorConfig { events_max: 2, ..DirectorConfig::default() });
    for port in 1..=5 {
        let key = tcp_service(&format!("192.0.2.80:{port}"));
        desk.add(key, ServiceConfig::new("rr"), []);
        let _ = desk.send(&tcp(client(0), &*format!("192.0.2.80:{port}")).syn().build()).verdict;
    }
    let events = desk.events();
    assert_eq!(events.len(), 3);
    assert_eq!(events[2], Event::Lost { count: 3 });
    assert_eq!(desk.events(), []);
}

#[test]
fn services_and_servers_are_bounded_and_a_refusal_changes_nothing() {
    let mut desk = desk(DirectorConfig { services_max: 3, servers_max: 4, ..DirectorConfig::default() });
    establish(&mut desk, 0);
    let third = tcp_service("192.0.2.80:443");
    desk.add(third, ServiceConfig::new("rr"), [nat("10.0.0.4:443")]);
    let refused = |desk: &mut Desk, command| desk.director.apply(desk.now, &command).unwrap_err();
    let fourth = Command::AddService(tcp_service("192.0.2.80:8443"), ServiceConfig::new("rr"));
    assert_eq!(refused(&mut desk, fourth.clone()), ControlError::TableFull("services_max"));
    let fifth = Command::AddServer(third, nat("10.0.0.5:443"));
    assert_eq!(refused(&mut desk, fifth.clone()), ControlError::TableFull("servers_max"));
    check_alive(&mut desk, 1);

    // A deleted server counts until it is forgotten, and may be revived meanwhile.
    desk.apply(&Command::DeleteServer(third, nat("10.0.0.4:443").key));
    assert_eq!(refused(&mut desk, fifth.clone()), ControlError::TableFull("servers_max"));
    desk.apply(&Command::AddServer(third, nat("10.0.0.4:443")));
    desk.apply(&Command::DeleteService(third));
    desk.apply(&fourth);
    desk.pass(Duration::from_secs(200));
    desk.apply(&Command::AddServer(tcp_service("192.0.2.80:8443"), nat("10.0.0.5:443")));
    check_alive(&mut desk, 1);
}

fn flood(desk: &mut Desk, count: u32) -> u32 {
    let service: SocketAddr = WEB.parse().unwrap();
    let syn = |n: u32| tcp(SocketAddr::from((std::net::Ipv4Addr::from(0x6440_0000 + n), 5_000)), service).syn().build();
    (0..count).filter(|n| is_forwarded(desk.send(&syn(*n)).verdict)).count() as u32
}

#[test]
fn half_open_connections_have_a_bound_of_their_own_and_leave_room_for_others() {
    let config = DirectorConfig { connections_max: 100, half_open_max: 10, ..DirectorConfig::default() };
    let mut desk = desk(config);
    (0..20).for_each(|n| establish(&mut desk, n));
    assert_eq!(flood(&mut desk, 1_000), 10);
    check_full_half_open(&mut desk);
    check_alive(&mut desk, 20);
    // A datagram is no SYN; a segment of a known connection is none either.
    assert!(is_forwarded(desk.send(&udp(client(0), WEB).payload(b"?").build()).verdict));
    // They time out, and it begins again.
    desk.pass(Duration::from_secs(61));
    assert_eq!(flood(&mut desk, 20), 10);
    assert_eq!(desk.events(), [Event::TableFull { table: Table::HalfOpen }]);
}

fn check_full_half_open(desk: &mut Desk) {
    assert_eq!(desk.events(), [Event::TableFull { table: Table::HalfOpen }]);
    assert_eq!(desk.director.drops(DropReason::HalfOpenFull), 990);
    assert_eq!(desk.connections().len(), 30);
}

#[test]
fn a_connection_that_comes_about_gives_its_half_open_place_back() {
    let mut desk = desk(DirectorConfig { half_open_max: 1, ..DirectorConfig::default() });
    (0..50).for_each(|n| establish(&mut desk, n));
    assert!(is_forwarded(desk.send(&segment(60).syn().build()).verdict));
    assert_eq!(desk.send(&segment(61).syn().build()).verdict, Verdict::Drop(DropReason::HalfOpenFull));
    // The SYN once more is the same connection's.
    assert!(is_forwarded(desk.send(&segment(60).syn().build()).verdict));
    let _ = desk
        .send(
            &tcp(desk.connections().iter().find(|row| row.client.port == 1084).unwrap().real, client(60)).rst().build(),
        )
        .verdict;
    assert!(is_forwarded(desk.send(&segment(61).syn().build()).verdict));
}

#[test]
fn the_oldest_half_open_connection_makes_room_where_the_policy_says_so() {
    let config = DirectorConfig {
        connections_max: 100,
        half_open_max: 10,
        half_open_policy: HalfOpenPolicy::EvictOldest,
        ..DirectorConfig::default()
    };
    let mut desk = desk(config);
    (0..20).for_each(|n| establish(&mut desk, n));
    let _ = desk.send(&segment(30).syn().build()).verdict;
    assert_eq!(flood(&mut desk, 9), 9);
    establish_syn_sent(&mut desk, 30); // answered in time
    assert_eq!(flood(&mut desk, 1_000), 1_000);
    assert_eq!((desk.connections().len(), desk.director.drops(DropReason::HalfOpenFull)), (31, 0));
    // Nine came first, of which the flood's second round knew all; then each new one cost an old one.
    assert_eq!(desk.director.defence_counters().half_open_evicted, 990);
    check_alive(&mut desk, 20);
    let server = |at| desk.server(tcp_service(WEB), at);
    let total = |view: lvs_core::view::ServerView| view.active_connections + view.inactive_connections;
    assert_eq!(total(server("10.0.0.2:80")) + total(server("10.0.0.3:80")), 31);
}

fn establish_syn_sent(desk: &mut Desk, number: u16) {
    assert!(is_forwarded(desk.send(&segment(number).ack().build()).verdict));
}

#[test]
fn an_evicted_connections_template_stays() {
    let config =
        DirectorConfig { half_open_max: 1, half_open_policy: HalfOpenPolicy::EvictOldest, ..DirectorConfig::default() };
    let mut desk = Desk::bare(config);
    let shop: ServiceKey = tcp_service("192.0.2.80:443");
    desk.add(shop, ServiceConfig::new("rr").persistent(600), [nat("10.0.0.2:443")]);
    let syn = |port: u16| tcp(SocketAddr::from(([203, 0, 113, 9], port)), "192.0.2.80:443").syn().build();
    (2000..2004).for_each(|port| assert!(is_forwarded(desk.send(&syn(port)).verdict)));
    assert_eq!((desk.connections().len(), desk.templates().len()), (1, 1));
    desk.pass(Duration::from_secs(700));
    assert_eq!((desk.connections().len(), desk.templates().len()), (0, 0));
}

#[test]
fn many_services_and_servers_are_sampled_and_forgotten_in_bounded_steps() {
    const SERVICES: u32 = 5_000;
    let mut desk = Desk::bare(DirectorConfig { connections_max: 64, ..DirectorConfig::default() });
    let service = |number: u32| tcp_service(&format!("192.0.{}.{}:80", number / 256, number % 256));
    let server = |number: u32| nat(&format!("10.1.{}.{}:80", number / 256, number % 256));
    for number in 0..SERVICES {
        desk.add(service(number), ServiceConfig::new("rr"), [server(number)]);
    }
    for number in [0, SERVICES - 1] {
        let to = match service(number) {
            lvs_core::ServiceKey::Address { address, port, .. } => SocketAddr::new(address, port),
            other => panic!("{other:?}"),
        };
        desk.feed(&tcp("198.51.100.7:1024", to).syn().build());
    }
    let calls = |desk: &mut Desk, time| {
        desk.now = desk.now + time;
        let mut calls = 0;
        while desk.director.poll_timeout().is_some_and(|due| due <= desk.now) {
            desk.director.handle_timeout(desk.now);
            calls += 1;
        }
        calls
    };
    // Ten thousand meters, 4,096 a call.
    assert_eq!(calls(&mut desk, Duration::from_secs(2)), 3);
    let views = desk.director.services(desk.now);
    let counted: Vec<_> = views.iter().filter(|view| view.statistics.published.connections == 1).collect();
    assert_eq!(counted.len(), 2);
    assert!(counted.iter().all(|view| view.servers[0].statistics.published.connections == 1));
    assert!(counted.iter().all(|view| view.statistics.rates.in_bytes == 5), "{:?}", counted[0].statistics);

    for number in 1..SERVICES {
        desk.apply(&Command::DeleteServer(service(number), server(number).key));
    }
    assert_eq!(desk.director.gauges().deleted_servers, SERVICES - 1);
    // One comes back in the middle of it.
    let deleted = |desk: &Desk| desk.director.gauges().deleted_servers;
    desk.now = desk.now + Duration::from_secs(181);
    let mut seen = Vec::new();
    while desk.director.poll_timeout().is_some_and(|due| due <= desk.now) {
        desk.director.handle_timeout(desk.now);
        seen.push(deleted(&desk));
        if seen.len() == 1 {
            desk.apply(&Command::AddServer(service(1), server(1)));
        }
    }
    desk.pass(Duration::from_secs(60));
    desk.pass(Duration::from_secs(120));
    assert_eq!(deleted(&desk), 0);
    assert_eq!(desk.server(service(1), "10.1.0.1:80").config.key, server(1).key);
}
