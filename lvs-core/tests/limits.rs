//! Every table has a bound, and a full table turns the new away without harming what it holds.

use std::net::SocketAddr;
use std::time::Duration;

use lvs_core::event::Table;
use lvs_core::{
    Command, ControlError, DirectorConfig, DropReason, Event, HalfOpenPolicy, ServerConfig, ServiceConfig, ServiceKey,
    Verdict,
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
    let mut desk = desk(DirectorConfig::default().with(|config| config.connections_max = 8));
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
    let mut desk = desk(DirectorConfig::default().with(|config| config.client_endpoint_max = 4));
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
    let mut desk = desk(DirectorConfig::default().with(|config| config.templates_max = 3));
    let shop = tcp_service("192.0.2.80:443");
    desk.add(shop, ServiceConfig::new("rr").persistent(600), [nat("10.0.0.2:443"), nat("10.0.0.3:443")]);
    establish(&mut desk, 0);
    let syn = |client: u8, port: u16| tcp(SocketAddr::from(([203, 0, 113, client], port)), "192.0.2.80:443").syn();
    let ack = |client: u8| tcp(SocketAddr::from(([203, 0, 113, client], 2000)), "192.0.2.80:443").ack();
    for client in 0..3 {
        assert!(is_forwarded(desk.send(&syn(client, 2000).build()).verdict));
        assert!(is_forwarded(desk.send(&ack(client).build()).verdict));
    }
    check_full(&mut desk, &syn(9, 2000).build(), DropReason::TemplateTableFull, Table::Templates);
    // A client with a template opens as many connections as it likes.
    (0..3).for_each(|client| assert!(is_forwarded(desk.send(&syn(client, 2001).build()).verdict)));
    check_alive(&mut desk, 1);
}

#[test]
fn in_full_fragment_memory_the_oldest_datagram_gives_way_and_nothing_else() {
    let mut desk = desk(DirectorConfig::default().with(|config| config.fragments_max = 2));
    establish(&mut desk, 0);
    let part = |id: u32| udp(client(1), WEB).payload_len(64).identification(id).fragments(40).remove(0);
    let rest = |id: u32| udp(client(1), WEB).payload_len(64).identification(id).fragments(40).remove(1);
    assert!(is_forwarded(desk.send(&part(1)).verdict));
    assert_eq!(desk.send(&rest(2)).verdict, Verdict::Held);
    let _ = desk.events();
    assert!(is_forwarded(desk.send(&part(3)).verdict));
    assert_eq!(desk.events(), [Event::TableFull { table: Table::Fragments }]);
    assert_eq!(desk.director.defence_counters().datagrams_given_up, 1);
    check_alive(&mut desk, 1);
    // Both datagrams in progress complete, the rest of the oldest waits for a first part.
    assert!(is_forwarded(desk.send(&rest(3)).verdict));
    assert!(is_forwarded(desk.send(&part(2)).verdict));
    assert!(desk.transmit().is_some_and(|sent| is_forwarded(sent.verdict)));
    assert_eq!(desk.send(&rest(1)).verdict, Verdict::Held);
    assert_eq!(desk.director.drops(DropReason::FragmentTableFull), 0);
}

#[test]
fn without_fragment_memory_datagrams_in_parts_are_refused_and_nothing_else() {
    let mut desk = desk(DirectorConfig::default().with(|config| config.fragments_max = 0));
    establish(&mut desk, 0);
    let parts = udp(client(1), WEB).payload_len(64).fragments(40);
    check_full(&mut desk, &parts[0], DropReason::FragmentTableFull, Table::Fragments);
    assert_eq!(desk.send(&parts[1]).verdict, Verdict::Drop(DropReason::FragmentTableFull));
    check_alive(&mut desk, 1);
}

#[test]
fn packets_nobody_fetches_are_bounded_in_bytes() {
    let mut desk = desk(DirectorConfig::default().with(|config| config.fragment_bytes_max = 4_000));
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
    let mut desk = Desk::bare(DirectorConfig::default().with(|config| config.events_max = 2));
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
    let mut desk = desk(DirectorConfig::default().with(|config| {
        config.services_max = 3;
        config.servers_max = 4;
    }));
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
    let config = DirectorConfig::default().with(|config| {
        config.connections_max = 100;
        config.half_open_max = 10;
        config.half_open_policy = HalfOpenPolicy::Refuse;
    });
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
    let half_open_policy = HalfOpenPolicy::Refuse;
    let mut desk = desk(DirectorConfig::default().with(|config| {
        config.half_open_max = 1;
        config.half_open_policy = half_open_policy;
    }));
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
    let config = DirectorConfig::default().with(|config| {
        config.connections_max = 100;
        config.half_open_max = 10;
        config.half_open_policy = HalfOpenPolicy::EvictOldest;
    });
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
fn an_evicted_connections_template_goes_with_it_unless_something_else_holds_it() {
    let config = DirectorConfig::default().with(|config| {
        config.half_open_max = 1;
        config.half_open_policy = HalfOpenPolicy::EvictOldest;
    });
    let mut desk = Desk::bare(config);
    let shop: ServiceKey = tcp_service("192.0.2.80:443");
    desk.add(shop, ServiceConfig::new("rr").persistent(600), [nat("10.0.0.2:443"), nat("10.0.0.3:443")]);
    let from = |client: u8, port: u16| tcp(SocketAddr::from(([203, 0, 113, client], port)), "192.0.2.80:443");
    let rows = |desk: &Desk| (desk.connections().len(), desk.templates().len());
    // The client's own next connection: it keeps its server.
    desk.feed(&from(9, 2000).syn().build());
    let real = desk.connections()[0].real;
    desk.feed(&from(9, 2001).syn().build());
    assert_eq!((rows(&desk), desk.connections()[0].real), ((1, 1), real));
    // Another client's.
    desk.feed(&from(8, 2000).syn().build());
    assert_eq!(rows(&desk), (1, 1));
    assert_eq!(desk.templates()[0].client.address, SocketAddr::from(([203, 0, 113, 8], 0)).ip());
    // One that came about holds its template, also when another one of its client is evicted.
    desk.feed(&from(8, 2000).ack().build());
    desk.feed(&from(8, 2001).syn().build());
    desk.feed(&from(7, 2000).syn().build());
    assert_eq!(rows(&desk), (2, 2));
    desk.pass(Duration::from_secs(1_700));
    assert_eq!(rows(&desk), (0, 0));
    assert_eq!(desk.director.gauges(), lvs_core::view::Gauges::default());
}

#[test]
fn a_known_connection_that_is_opened_again_counts_as_half_open_too() {
    let mut desk = desk(DirectorConfig::default().with(|config| config.half_open_max = 2));
    desk.set(|settings| settings.conn_reuse_mode = 0);
    (0..2).for_each(|number| establish(&mut desk, number));
    (0..2).for_each(|number| desk.feed(&segment(number).rst().build()));
    (10..12).for_each(|number| desk.feed(&segment(number).syn().build()));
    for number in 0..2 {
        assert!(is_forwarded(desk.send(&segment(number).syn().build()).verdict));
        assert_eq!(desk.director.gauges().half_open, 2);
    }
    let mut left: Vec<_> = desk.connections().iter().map(|row| (row.client.port, row.state)).collect();
    left.sort_unstable();
    assert_eq!(left, [(1024, "SYN_RECV"), (1025, "SYN_RECV")]);
}

/// Flows of datagrams from clients that prove themselves or do not.
fn talk(desk: &mut Desk, number: u16, is_proven: bool) {
    let to_and_fro = [
        udp(client(number), WEB).payload(b"?"),
        udp("10.0.0.2:80", client(number)).payload(b"!"),
        udp(client(number), WEB).payload(b"??"),
    ];
    for packet in to_and_fro.iter().take(if is_proven { 3 } else { 2 }) {
        assert!(is_forwarded(desk.send(&packet.build()).verdict), "{number}");
    }
}

#[test]
fn a_full_connection_table_makes_those_give_way_who_have_proved_nothing_then_those_who_only_talk() {
    let mut desk = desk(DirectorConfig::default().with(|config| config.connections_max = 8));
    (0..3).for_each(|number| establish(&mut desk, number));
    (10..13).for_each(|number| talk(&mut desk, number, true));
    (20..22).for_each(|number| {
        talk(&mut desk, number, false);
        desk.pass(Duration::from_secs(1));
    });
    let _ = desk.events();
    talk(&mut desk, 30, true);
    talk(&mut desk, 31, true);
    assert_eq!(desk.director.defence_counters().newcomers_evicted, 2);
    assert_eq!(desk.events(), [Event::TableFull { table: Table::Connections }]);
    assert_eq!(desk.director.gauges().unproven, 0);
    // Then who has only talked gives way, to somebody who comes about too, until nobody is left.
    (3..8).for_each(|number| establish(&mut desk, number));
    let counters = desk.director.defence_counters();
    assert_eq!((counters.newcomers_evicted, counters.talked_evicted), (2, 5));
    check_full_again(&mut desk);
    check_alive(&mut desk, 8);
}

#[track_caller]
fn check_full_again(desk: &mut Desk) {
    let newcomer = udp(client(40), WEB).payload(b"?").build();
    assert_eq!(desk.send(&newcomer).verdict, Verdict::Drop(DropReason::ConnectionTableFull));
}

#[test]
fn of_flows_of_datagrams_without_answers_the_one_that_is_used_gives_way_last() {
    let mut desk = Desk::with_config(
        Desk::config().with(|config| config.connections_max = 6),
        "-A -u 192.0.2.80:53 -s rr\n-a -u 192.0.2.80:53 -r 10.0.0.2:53 -g",
    );
    let datagram = |number: u16| udp(client(number), "192.0.2.80:53").payload(b"?").build();
    for second in 0..100 {
        // One client goes on; replies bypass the director, so nothing ever proves it.
        desk.feed(&datagram(0));
        (0..5).for_each(|n| desk.feed(&datagram(1 + second * 5 + n)));
        desk.pass(Duration::from_secs(1));
    }
    let row = desk.connections().into_iter().find(|row| row.client.port == 1024).expect("it goes on");
    assert_eq!(row.in_packets, 100);
}

#[test]
fn one_client_has_a_bounded_part_of_the_templates_and_those_of_talk_give_way_last() {
    let config = Desk::config().with(|config| {
        config.templates_max = 8;
        config.client_templates_max = 2;
    });
    let rules = "-A -u 192.0.2.80:5060 -s rr -p 300 --pe sip -o\n-a -u 192.0.2.80:5060 -r 10.0.0.2:5060 -m";
    let mut desk = Desk::with_config(config, rules);
    let say = |call: u8| format!("X\r\nCall-ID: {call}@x\r\n\r\n").into_bytes();
    let ask = |from: u16, call| udp(client(from), "192.0.2.80:5060").payload(&say(call)).build();
    // One that is not proven gives way.
    (0..3).for_each(|call| assert!(is_forwarded(desk.send(&ask(0, call)).verdict)));
    assert_eq!((desk.templates().len(), desk.director.defence_counters().templates_evicted), (2, 1));
    // The server answers, and the client talks on: these stay.
    for call in [1, 2] {
        desk.feed(&udp("10.0.0.2:5060", client(0)).payload(&say(call)).build());
        desk.feed(&ask(0, call));
    }
    assert_eq!((desk.director.gauges().templates, desk.director.gauges().templates_unproven), (2, 0));
    // Until it has no other: then the one used longest ago gives way.
    desk.feed(&ask(0, 1));
    assert!(is_forwarded(desk.send(&ask(0, 4)).verdict));
    let mut calls: Vec<_> = desk.templates().into_iter().map(|row| row.persistence_key.unwrap().1).collect();
    calls.sort_unstable();
    assert_eq!(calls, [b"1@x", b"4@x"]);
    let somebody_else = udp("203.0.113.1:5060", "192.0.2.80:5060").payload(&say(9)).build();
    assert!(is_forwarded(desk.send(&somebody_else).verdict));
}

#[test]
fn a_helpers_expectations_are_bounded_and_the_one_announced_first_gives_way() {
    let config = Desk::config().with(|config| {
        config.expectations_max = 2;
        config.connections_max = 5;
    });
    let rules = "-A -t 192.0.2.80:21 -s rr --helper ftp\n-a -t 192.0.2.80:21 -r 10.0.0.2:21 -m\n\
                 -A -t 192.0.2.80:80 -s rr\n-a -t 192.0.2.80:80 -r 10.0.0.2:80 -m";
    let mut desk = Desk::with_config(config, rules);
    let ftp = "192.0.2.80:21";
    desk.feed(&tcp(client(0), ftp).syn().numbers(1, 0).build());
    desk.feed(&tcp(client(0), ftp).ack().numbers(2, 7).build());
    let announce = |port: u8| {
        let text = format!("PORT 198,51,100,7,4,{port}\r\n");
        tcp(client(0), ftp).ack().psh().numbers(2, 7).payload(text.as_bytes()).build()
    };
    let counts = |desk: &Desk| (desk.director.gauges().expected, desk.director.defence_counters().expectations_evicted);
    (1..4).for_each(|port| assert!(is_forwarded(desk.send(&announce(port)).verdict)));
    assert_eq!(counts(&desk), (2, 1));
    // From its first packet on it is a connection like others.
    let server = |desk: &Desk| {
        let server = desk.server(tcp_service(ftp), "10.0.0.2:21");
        (server.active_connections, server.inactive_connections)
    };
    assert_eq!(server(&desk), (1, 2), "they are listed as Linux lists them");
    assert!(is_forwarded(desk.send(&tcp("10.0.0.2:20", "198.51.100.7:1027").syn().build()).verdict));
    assert_eq!((counts(&desk), server(&desk)), ((1, 1), (1, 2)));
    desk.feed(&announce(4));
    assert_eq!(counts(&desk), (2, 1));
    // Where places are short, what is only expected gives way to whoever comes.
    desk.feed(&tcp("203.0.113.1:1024", WEB).syn().build());
    desk.feed(&tcp("203.0.113.1:1024", WEB).ack().build());
    desk.feed(&tcp("203.0.113.2:1024", WEB).syn().build());
    assert_eq!((counts(&desk), desk.director.defence_counters().newcomers_evicted), ((1, 1), 1));
    desk.pass(Duration::from_secs(2_000));
    assert_eq!(desk.director.gauges(), lvs_core::view::Gauges::default());
    assert_eq!(server(&desk), (0, 0));
}

#[test]
fn one_client_has_a_bounded_part_of_the_local_ports_and_its_half_open_ones_give_way_first() {
    let mut config = Desk::config();
    config.local_ports.client_max = 3;
    let rules = "-A -t 192.0.2.80:80 -s rr\n-A -t [2001:db8::80]:80 -s rr";
    let mut desk = Desk::with_config(config, rules);
    for (service, local, server) in
        [(WEB, "10.0.1.1", "10.0.0.2:80"), ("[2001:db8::80]:80", "fd00::200", "[fd00::2]:80")]
    {
        desk.apply(&Command::AddLocalAddress(tcp_service(service), local.parse().unwrap()));
        desk.apply(&Command::AddServer(tcp_service(service), ServerConfig::full_nat(server.parse().unwrap())));
    }
    let v6 = |n: u16| SocketAddr::new(format!("2001:db8:c::{n:x}").parse().unwrap(), 1024);
    type Client<'a> = &'a dyn Fn(u16) -> SocketAddr;
    for (from, service) in [(&client as Client<'_>, WEB), (&v6, "[2001:db8::80]:80")] {
        let taken = desk.director.defence_counters().ports_taken_back;
        let leased = desk.director.gauges().local_ports;
        for number in 1..6 {
            assert!(is_forwarded(desk.send(&tcp(from(number), service).syn().build()).verdict));
        }
        assert_eq!(desk.director.defence_counters().ports_taken_back, taken + 2);
        for number in 3..6 {
            assert!(is_forwarded(desk.send(&tcp(from(number), service).ack().build()).verdict), "the newest are there");
        }
        let next = desk.send(&tcp(from(7), service).syn().build()).verdict;
        assert!(matches!(next, Verdict::Reply { .. }), "{next:?}");
        assert_eq!(desk.director.gauges().local_ports, leased + 3);
    }
    assert_eq!(desk.director.drops(DropReason::ClientPortsFull), 2);
    assert!(is_forwarded(desk.send(&tcp("203.0.113.1:1024", WEB).syn().build()).verdict));
}

#[test]
fn many_services_and_servers_are_sampled_and_forgotten_in_bounded_steps() {
    const SERVICES: u32 = 5_000;
    let mut desk = Desk::bare(DirectorConfig::default().with(|config| config.connections_max = 64));
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
