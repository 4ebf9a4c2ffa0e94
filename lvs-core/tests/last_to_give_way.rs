//! Who gives way where nobody is left who has proved nothing: what is over, then who has only talked in datagrams, which a
//! made-up address can do too; never who came about by a handshake.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use lvs_core::{Command, DropReason, ServerConfig, Verdict};
use lvs_testkit::desk::udp_service;
use lvs_testkit::{Desk, sctp, tcp, udp};

const WEB: &str = "192.0.2.1:80";
const DNS: &str = "192.0.2.1:53";
const RULES: &str = "-A -t 192.0.2.1:80 -s rr\n-a -t 192.0.2.1:80 -r 10.0.0.2:80 -m\n\
                     -A -u 192.0.2.1:53 -s rr\n-a -u 192.0.2.1:53 -r 10.0.0.2:53 -m";

/// Somebody who does not exist.
fn made_up(number: u32) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::from_bits(0x2d00_0000 + number).into(), 1024)
}

/// A client who is there.
fn client(number: u32) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::from_bits(0xc633_6400 + number).into(), 5000)
}

fn desk(connections_max: u32) -> Desk {
    Desk::with_config(Desk::config().with(|config| config.connections_max = connections_max), RULES)
}

fn is_forwarded(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Forward { .. })
}

/// A handshake and a request go through.
#[track_caller]
fn check_served(desk: &mut Desk, client: SocketAddr) {
    for packet in [
        tcp(client, WEB).syn().numbers(1, 0),
        tcp(client, WEB).ack().numbers(2, 7),
        tcp(client, WEB).ack().psh().numbers(2, 7).payload(b"hello"),
    ] {
        let verdict = desk.send(&packet.build()).verdict;
        assert!(is_forwarded(verdict), "{client}: {verdict:?} {:?}", desk.director.gauges());
    }
}

/// A question, its answer and another question.
fn talk(desk: &mut Desk, from: SocketAddr) {
    for packet in [udp(from, DNS), udp("10.0.0.2:53", from), udp(from, DNS)] {
        desk.feed(&packet.payload(b"?").build());
    }
}

/// A stranger who knows how long a server takes sends one datagram before its answer and one after it.
#[test]
fn datagrams_that_guess_the_time_of_the_answer_shut_no_service() {
    let rules = "-A -t 192.0.2.1:80 -s rr -p 300\n-a -t 192.0.2.1:80 -r 10.0.0.2:80 -m\n\
                 -A -u 192.0.2.1:53 -s rr -p 300\n-a -u 192.0.2.1:53 -r 10.0.0.2:53 -m";
    for made_up in [made_up as fn(u32) -> SocketAddr, |n| SocketAddr::new(made_up(n / 64).ip(), 1024 + n as u16)] {
        let config = Desk::config().with(|config| {
            config.connections_max = 1_000;
            config.templates_max = 400;
        });
        let mut desk = Desk::with_config(config, rules);
        check_served(&mut desk, client(0));
        for number in 0..3_000 {
            desk.pass(Duration::from_millis(2));
            talk(&mut desk, made_up(number));
        }
        (1..50).for_each(|number| check_served(&mut desk, client(number)));
        check_served(&mut desk, client(0));
        // Nor a service of datagrams.
        for packet in [udp(client(60), DNS), udp("10.0.0.2:53", client(60)), udp(client(60), DNS)] {
            assert!(is_forwarded(desk.send(&packet.payload(b"?").build()).verdict));
        }
        let drops = [DropReason::ConnectionTableFull, DropReason::TemplateTableFull];
        assert_eq!(drops.map(|reason| desk.director.drops(reason)), [0, 0]);
        assert!(desk.director.defence_counters().talked_evicted > 1_000);
    }
}

/// Nor does who opens and ends a connection with a made-up address, or makes up a cookie.
#[test]
fn made_up_connections_that_end_at_once_and_made_up_cookies_shut_no_service() {
    let at = "192.0.2.1:90";
    let rules = "-A -t 192.0.2.1:80 -s rr\n-a -t 192.0.2.1:80 -r 10.0.0.2:80 -m\n\
                 -A --sctp-service 192.0.2.1:90 -s rr\n-a --sctp-service 192.0.2.1:90 -r 10.0.0.2:90 -m";
    type Flood = fn(SocketAddr) -> [Vec<u8>; 3];
    let floods: [Flood; 5] = [
        |from| [tcp(from, WEB).syn(), tcp(from, WEB).rst(), tcp(from, WEB).rst()].map(|packet| packet.build()),
        |from| [tcp(from, WEB).syn(), tcp(from, WEB).fin(), tcp(from, WEB).fin()].map(|packet| packet.build()),
        |from| [1, 6, 6].map(|kind| sctp(from, "192.0.2.1:90").chunk(kind, &[0; 16]).build()),
        |from| [1, 2, 2].map(|kind| sctp(from, "192.0.2.1:90").chunk(kind, &[0; 16]).build()),
        |from| {
            let answer = sctp("10.0.0.2:90", from).chunk(2, &[0; 16]).build();
            let [init, echo] = [1, 10].map(|kind| sctp(from, "192.0.2.1:90").chunk(kind, &[0; 16]).build());
            [init, answer, echo]
        },
    ];
    for (index, packets) in floods.into_iter().enumerate() {
        let mut desk = Desk::with_config(Desk::config().with(|config| config.connections_max = 500), rules);
        check_served(&mut desk, client(0));
        for number in 0..1_000 {
            desk.pass(Duration::from_micros(500));
            packets(made_up(number)).iter().for_each(|packet| desk.feed(packet));
        }
        (0..50).for_each(|number| check_served(&mut desk, client(number)));
        for (from, kind) in [(client(60), 1), (client(60), 10)] {
            assert!(is_forwarded(desk.send(&sctp(from, at).chunk(kind, &[0; 16]).build()).verdict), "{index}");
        }
        assert_eq!(desk.director.drops(DropReason::ConnectionTableFull), 0, "{index}");
    }
}

/// What is over, or was proved by talk alone, gives its local port back where nobody else does.
#[test]
fn ports_of_flows_that_have_only_talked_are_taken_back_last() {
    let mut config = Desk::config();
    (config.local_ports.first, config.local_ports.last) = (2_000, 2_099);
    let mut desk = Desk::with_config(config, "-A -u 192.0.2.1:53 -s rr");
    desk.apply(&Command::AddLocalAddress(udp_service(DNS), IpAddr::from([10, 0, 1, 1])));
    desk.apply(&Command::AddServer(udp_service(DNS), ServerConfig::full_nat("10.0.0.2:53".parse().unwrap())));
    let talk = |desk: &mut Desk, from: SocketAddr| {
        assert!(is_forwarded(desk.send(&udp(from, DNS).payload(b"?").build()).verdict));
        let local = desk.connections().iter().find(|row| row.client.address == from.ip()).unwrap().local.unwrap();
        let local = SocketAddr::new(local.address, local.port);
        desk.feed(&udp("10.0.0.2:53", local).payload(b"!").build());
        desk.feed(&udp(from, DNS).payload(b"?").build());
    };
    (0..200).for_each(|number| talk(&mut desk, made_up(number)));
    assert_eq!(desk.director.defence_counters().ports_taken_back, 100);
    desk.feed(&udp(made_up(900), DNS).payload(b"?").build());
    talk(&mut desk, client(0));
    assert!(!desk.connections().iter().any(|row| row.client.address == made_up(900).ip()), "it has proved nothing");
}

#[test]
fn of_flows_that_were_proved_by_talk_those_that_go_on_give_way_last() {
    let mut desk = desk(8);
    (0..8).for_each(|number| talk(&mut desk, client(number)));
    for second in 0..50 {
        desk.pass(Duration::from_secs(1));
        (0..4).for_each(|number| desk.feed(&udp(client(number), DNS).payload(b"on").build()));
        talk(&mut desk, client(100 + second));
    }
    let left: Vec<_> = desk.connections().iter().map(|row| row.client.address).collect();
    assert!((0..4).all(|number| left.contains(&client(number).ip())), "{left:?}");
    assert_eq!(desk.director.defence_counters().talked_evicted, 50);
}

#[test]
fn a_client_that_has_a_quarter_of_all_places_by_talk_gives_up_its_own() {
    let mut desk = desk(80);
    let one = |number: u16| SocketAddr::from(([203, 0, 113, 9], 1024 + number));
    (0..60).for_each(|number| talk(&mut desk, client(number)));
    (0..200).for_each(|number| talk(&mut desk, one(number)));
    let own = desk.connections().iter().filter(|row| row.client.address == one(0).ip()).count();
    // One or two whose hashes agree with its own may have gone first.
    assert!((20..23).contains(&own), "{own}");
}

#[test]
fn what_is_over_gives_way_to_who_comes() {
    for closing in [tcp(client(0), WEB).rst(), tcp(client(0), WEB).fin().ack()] {
        let mut desk = desk(4);
        (0..4).for_each(|number| check_served(&mut desk, client(number)));
        desk.feed(&closing.build());
        desk.feed(&tcp("10.0.0.2:80", client(0)).fin().ack().build());
        check_served(&mut desk, client(4));
        assert!(desk.connections().iter().all(|row| row.state == "ESTABLISHED"), "{:?}", desk.states());
        let another = desk.send(&tcp(client(5), WEB).syn().build()).verdict;
        assert_eq!(another, Verdict::Drop(DropReason::ConnectionTableFull));
    }
}

#[test]
fn a_clients_templates_that_came_about_by_a_handshake_give_way_to_nobody() {
    let config = Desk::config().with(|config| {
        config.templates_max = 8;
        config.client_templates_max = 2;
    });
    let rules = "-A -t 192.0.2.80:0 -s rr -p 300\n-a -t 192.0.2.80:0 -r 10.0.0.2:0 -m\n\
                 -A -t 192.0.2.81:0 -s rr -p 300\n-a -t 192.0.2.81:0 -r 10.0.0.2:0 -m\n\
                 -A -u 192.0.2.80:5060 -s rr -p 300\n-a -u 192.0.2.80:5060 -r 10.0.0.2:5060 -m";
    let mut desk = Desk::with_config(config, rules);
    for service in ["192.0.2.80:443", "192.0.2.81:443"] {
        desk.feed(&tcp(client(0), service).syn().build());
        desk.feed(&tcp(client(0), service).ack().build());
    }
    let datagram = udp(client(0), "192.0.2.80:5060").payload(b"?").build();
    assert_eq!(desk.send(&datagram).verdict, Verdict::Drop(DropReason::ClientTemplatesFull));
    assert_eq!(desk.templates().len(), 2);
}
