//! What strangers who prove nothing can fill, and who gets through all the same: whoever has proved nothing gives way
//! first, no one client takes a whole table, and what one flow holds is freed together.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use lvs_core::{Command, DropReason, HalfOpenPolicy, ServerConfig, Verdict};
use lvs_testkit::desk::{tcp_service, udp_service};
use lvs_testkit::{Desk, sctp, tcp, udp};

const WEB: &str = "192.0.2.1:80";
const FTP: &str = "192.0.2.1:21";
const SIP: &str = "192.0.2.1:5060";

/// Somebody who does not exist.
fn made_up(number: u32) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::from_bits(0x2d00_0000 + number).into(), 1024)
}

/// One of many who do not exist, all in one IPv6 /64.
fn made_up_in_a_64(number: u32) -> SocketAddr {
    SocketAddr::new(Ipv6Addr::from_bits(0x2001_0db8_0666_u128 << 80 | u128::from(number)).into(), 1024)
}

/// A client who is there.
fn client(number: u32) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::from_bits(0xc633_6400 + number).into(), 5000)
}

fn is_forwarded(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Forward { .. })
}

/// A handshake and a request go through.
#[track_caller]
fn check_served(desk: &mut Desk, client: SocketAddr, service: &str) {
    for packet in [
        tcp(client, service).syn().numbers(1, 0),
        tcp(client, service).ack().numbers(2, 7),
        tcp(client, service).ack().psh().numbers(2, 7).payload(b"hello"),
    ] {
        let verdict = desk.send(&packet.build()).verdict;
        assert!(is_forwarded(verdict), "{client}: {verdict:?} {:?}", desk.director.gauges());
    }
}

/// Hands over these packets, so long apart.
fn flood(desk: &mut Desk, apart: Duration, packets: impl IntoIterator<Item = Vec<u8>>) {
    for packet in packets {
        desk.pass(apart);
        desk.feed(&packet);
    }
}

#[test]
fn made_up_syns_do_not_shut_a_persistent_service() {
    let v6 = "[2001:db8::1]:80";
    let rules = "-A -t 192.0.2.1:80 -s rr -p 300\n-a -t 192.0.2.1:80 -r 10.0.0.2:80 -m\n\
                 -a -t 192.0.2.1:80 -r 10.0.0.3:80 -m\n\
                 -A -t [2001:db8::1]:80 -s rr -p 300\n-a -t [2001:db8::1]:80 -r [fd00::2]:80 -m";
    let mut desk = Desk::new(rules);
    check_served(&mut desk, client(0), WEB);
    let server = desk.templates()[0].real;
    let half = Duration::from_micros(500);
    flood(&mut desk, half, (0..10_000).map(|n| tcp(made_up(n), WEB).syn().build()));
    flood(&mut desk, half, (0..10_000).map(|n| tcp(made_up_in_a_64(n), v6).syn().build()));
    for number in 1..100 {
        check_served(&mut desk, client(number), WEB);
        desk.pass(Duration::from_secs(1));
    }
    let mut other = client(0);
    other.set_port(5001);
    check_served(&mut desk, other, WEB);
    let row = desk.connections().into_iter().find(|row| row.client.port == 5001).unwrap();
    assert_eq!(row.real.address, server.address, "who was there before stays with his server");
}

#[test]
fn one_network_of_made_up_ipv6_addresses_takes_no_more_than_its_share_of_the_templates() {
    let rules = "-A -t [2001:db8::1]:80 -s rr -p 300\n-a -t [2001:db8::1]:80 -r [fd00::2]:80 -m";
    let mut desk = Desk::new(rules);
    let web = "[2001:db8::1]:80";
    for number in 0..20_000 {
        let somebody = made_up_in_a_64(number);
        desk.pass(Duration::from_micros(100));
        // Complete: the network is somebody's.
        desk.feed(&tcp(somebody, web).syn().build());
        desk.feed(&tcp(somebody, web).ack().build());
    }
    assert_eq!(desk.director.gauges().templates, 16_384 / 4);
    check_served(&mut desk, "[2001:db8:c::1]:1024".parse().unwrap(), web);
}

#[test]
fn one_sip_client_with_changing_call_ids_takes_no_more_than_its_share_of_the_templates() {
    for mode in ["", " -o"] {
        let rules = format!("-A -u {SIP} -s rr -p 300 --pe sip{mode}\n-a -u {SIP} -r 10.0.0.2:5060 -m");
        let mut desk = Desk::new(&rules);
        let call = |from: SocketAddr, number: u32| {
            udp(from, SIP).payload(format!("OPTIONS sip:a@b SIP/2.0\r\nCall-ID: {number}@x\r\n\r\n").as_bytes()).build()
        };
        for number in 0..17_000u32 {
            let from = SocketAddr::new(client(0).ip(), 1024 + number as u16);
            desk.feed(&call(from, number));
            // The server answers every one.
            desk.feed(
                &udp("10.0.0.2:5060", from)
                    .payload(format!("SIP/2.0 401 No\r\nCall-ID: {number}@x\r\n\r\n").as_bytes())
                    .build(),
            );
        }
        assert!(desk.director.gauges().templates <= 16_384 / 4, "{mode}: {:?}", desk.director.gauges());
        assert!(is_forwarded(desk.send(&call(client(1), 0)).verdict), "{mode}");
    }
}

/// A control connection that has announced a data connection and begins again: half-open, with a child.
fn pin(desk: &mut Desk, number: u32) {
    let from = made_up(number);
    for packet in [
        tcp(from, FTP).syn().numbers(1, 0),
        tcp(from, FTP).ack().numbers(2, 7),
        tcp(from, FTP).ack().psh().numbers(2, 7).payload(format!("PORT 198,51,100,7,4,{}\r\n", number + 1).as_bytes()),
        tcp(from, FTP).fin().ack().numbers(30, 7),
        tcp(from, FTP).syn().numbers(99, 0),
    ] {
        desk.feed(&packet.build());
    }
}

#[test]
fn half_open_connections_that_expect_others_do_not_keep_the_oldest_from_making_room() {
    let config = Desk::config().with(|config| {
        config.half_open_max = 100;
        config.half_open_policy = HalfOpenPolicy::EvictOldest;
    });
    let rules = "-A -t 192.0.2.1:80 -s rr\n-a -t 192.0.2.1:80 -r 10.0.0.2:80 -m\n\
                 -A -t 192.0.2.1:21 -s rr --helper ftp\n-a -t 192.0.2.1:21 -r 10.0.0.2:21 -m";
    let mut desk = Desk::with_config(config, rules);
    (0..64).for_each(|number| pin(&mut desk, number));
    let half_open = desk.states().into_iter().filter(|state| *state == "SYN_RECV").count();
    assert_eq!(half_open, 64, "they are there: {:?}", desk.states());
    flood(&mut desk, Duration::from_micros(10), (100..300).map(|n| tcp(made_up(n), WEB).syn().build()));
    (0..100).for_each(|number| check_served(&mut desk, client(number), WEB));
    assert_eq!(desk.director.drops(DropReason::HalfOpenFull), 0);
    assert!(desk.director.gauges().half_open <= 100, "{:?}", desk.director.gauges());
    // When what they expected ends unseen, they are half-open like others.
    for _ in 0..200 {
        desk.pass(Duration::from_secs(1));
        flood(&mut desk, Duration::ZERO, (300..350).map(|n| tcp(made_up(n), WEB).syn().build()));
        assert!(desk.director.gauges().half_open <= 100, "{:?}", desk.director.gauges());
    }
}

#[test]
fn one_control_connection_fills_neither_the_table_nor_its_servers_threshold() {
    let rules = "-A -t 192.0.2.1:80 -s rr\n-a -t 192.0.2.1:80 -r 10.0.0.2:80 -m\n\
                 -A -t 192.0.2.1:21 -s rr --helper ftp\n-a -t 192.0.2.1:21 -r 10.0.0.2:21 -m -x 5 -y 4";
    let mut desk = Desk::new(rules);
    let from = client(0);
    desk.feed(&tcp(from, FTP).syn().numbers(1, 0).build());
    desk.feed(&tcp(from, FTP).ack().numbers(2, 7).build());
    for number in 0..2_000u32 {
        let [a, b, c, d] = (0x0500_0000 + number).to_be_bytes();
        let text = format!("PORT {a},{b},{c},{d},4,1\r\n");
        let verdict = desk.send(&tcp(from, FTP).ack().psh().numbers(2, 7).payload(text.as_bytes()).build()).verdict;
        assert!(is_forwarded(verdict), "{number}: {verdict:?}");
    }
    assert!(desk.director.gauges().connections <= 1 + 8, "{:?}", desk.director.gauges());
    assert!(!desk.server(tcp_service(FTP), "10.0.0.2:21").is_overloaded);
    check_served(&mut desk, client(1), FTP);
    check_served(&mut desk, client(2), WEB);
    // What was announced last is still expected.
    let data = tcp("10.0.0.2:20", "5.0.7.207:1025").syn();
    assert!(is_forwarded(desk.send(&data.build()).verdict));
}

#[test]
fn a_reset_to_what_is_expected_takes_nothing_out_of_its_bound() {
    let mut desk = Desk::new("-A -t 192.0.2.1:21 -s rr --helper ftp\n-a -t 192.0.2.1:21 -r 10.0.0.2:21 -m");
    let from = client(0);
    desk.feed(&tcp(from, FTP).syn().numbers(1, 0).build());
    desk.feed(&tcp(from, FTP).ack().numbers(2, 7).build());
    for number in 0..200u32 {
        let text = format!("PORT 5,0,0,1,5,{number}\r\n");
        desk.feed(&tcp(from, FTP).ack().psh().numbers(2, 7).payload(text.as_bytes()).build());
        let data = SocketAddr::new([5, 0, 0, 1].into(), 5 * 256 + number as u16);
        desk.feed(&tcp(data, "192.0.2.1:20").rst().numbers(9, 0).build());
    }
    assert!(desk.director.gauges().connections <= 1 + 8, "{:?} {:?}", desk.director.gauges(), desk.states());
}

fn full_nat() -> Desk {
    let mut config = Desk::config();
    (config.local_ports.first, config.local_ports.last) = (2_000, 2_999);
    let mut desk = Desk::with_config(config, "-A -t 192.0.2.1:80 -s rr");
    let local = IpAddr::from([10, 0, 1, 1]);
    desk.apply(&Command::AddLocalAddress(tcp_service(WEB), local));
    let server = ServerConfig::full_nat("10.0.0.2:80".parse().unwrap());
    desk.apply(&Command::AddServer(tcp_service(WEB), server));
    desk
}

#[test]
fn one_client_address_leases_no_more_than_its_share_of_the_local_ports() {
    let mut desk = full_nat();
    let evil = |port| SocketAddr::new(made_up(0).ip(), port);
    for port in 1_000..3_000 {
        desk.feed(&tcp(evil(port), WEB).syn().build());
        desk.feed(&tcp(evil(port), WEB).ack().build());
    }
    let leased: u32 = desk.director.local_ports(desk.now).iter().map(|ports| ports.leased).sum();
    assert_eq!(leased, 250);
    check_served(&mut desk, client(0), WEB);
}

#[test]
fn half_open_connections_give_their_local_ports_back_first() {
    let mut desk = full_nat();
    check_served(&mut desk, client(0), WEB);
    flood(&mut desk, Duration::from_micros(10), (0..5_000).map(|n| tcp(made_up(n), WEB).syn().build()));
    (1..100).for_each(|number| check_served(&mut desk, client(number), WEB));
    let again = desk.send(&tcp(client(0), WEB).ack().numbers(7, 7).payload(b"still here").build());
    assert!(is_forwarded(again.verdict));
    assert_eq!(desk.director.drops(DropReason::LocalPortsExhausted), 0);
    // Somebody in the place of a client who is there shuts nobody out but himself, and him only until he comes.
    let spoofed = client(500);
    flood(
        &mut desk,
        Duration::ZERO,
        (1_024..2_048).map(|port| tcp(SocketAddr::new(spoofed.ip(), port), WEB).syn().build()),
    );
    check_served(&mut desk, spoofed, WEB);
}

/// Only for the place of one that came after them do flows of datagrams go to the end of the line.
#[test]
fn a_port_that_is_taken_back_passes_over_nobody_who_has_none() {
    let (dns, relay) = ("192.0.2.1:53", "192.0.2.1:54");
    let mut config = Desk::config().with(|config| config.connections_max = 7);
    (config.local_ports.first, config.local_ports.last) = (2_000, 2_000);
    let rules = "-A -u 192.0.2.1:53 -s rr\n-a -u 192.0.2.1:53 -r 10.0.0.2:53 -g\n-A -u 192.0.2.1:54 -s rr";
    let mut desk = Desk::with_config(config, rules);
    desk.apply(&Command::AddLocalAddress(udp_service(relay), IpAddr::from([10, 0, 1, 1])));
    desk.apply(&Command::AddServer(udp_service(relay), ServerConfig::full_nat("10.0.0.2:54".parse().unwrap())));
    // Four that ask twice and fall silent, then two that came later.
    for packet in [0, 0, 1, 1, 2, 2, 3, 3, 4, 5].map(|n| udp(client(n), dns).payload(b"?").build()) {
        desk.pass(Duration::from_secs(1));
        desk.feed(&packet);
    }
    for number in 0..3 {
        desk.pass(Duration::from_secs(1));
        desk.feed(&udp(made_up(number), relay).payload(b"?").build());
    }
    assert_eq!(desk.director.defence_counters().ports_taken_back, 2);
    desk.feed(&udp(client(6), dns).payload(b"?").build());
    let mut rest: Vec<_> = desk.connections().into_iter().map(|row| row.client.address).collect();
    rest.sort_unstable();
    let expected: Vec<_> = [made_up(2)].into_iter().chain((1..7).map(client)).map(|client| client.ip()).collect();
    assert_eq!(rest, expected, "the one silent longest has given way");
}

#[test]
fn bypass_connections_count_as_half_open_ones() {
    let config = Desk::config().with(|config| {
        config.half_open_max = 2;
        config.half_open_policy = HalfOpenPolicy::EvictOldest;
    });
    let mut desk = Desk::with_config(config, "-A -f 1 -s rr");
    desk.set(|settings| settings.cache_bypass = true);
    for number in 0..10 {
        let packet = tcp(made_up(number), "203.0.113.80:80").syn().build();
        assert!(is_forwarded(desk.send_marked(1, &packet).verdict));
        assert!(desk.director.gauges().half_open <= 2, "{:?}", desk.director.gauges());
    }
    assert_eq!(desk.connections().len(), 2);
}

#[test]
fn a_flood_of_syns_leaves_a_director_with_default_bounds_open() {
    let mut desk = Desk::new("-A -t 192.0.2.1:80 -s wlc\n-a -t 192.0.2.1:80 -r 10.0.0.2:80 -m");
    for number in 0..90_000 {
        // 1,200 a second.
        desk.pass(Duration::from_micros(833));
        desk.feed(&tcp(made_up(number), WEB).syn().build());
        if number % 1_000 == 0 {
            check_served(&mut desk, client(number / 1_000), WEB);
        }
    }
    assert_eq!(desk.director.drops(DropReason::ConnectionTableFull), 0);
}

#[test]
fn a_flood_of_datagrams_or_inits_leaves_room_for_those_who_come_about() {
    let rules = "-A -t 192.0.2.1:80 -s rr\n-a -t 192.0.2.1:80 -r 10.0.0.2:80 -m\n\
                 -A -u 192.0.2.1:53 -s rr\n-a -u 192.0.2.1:53 -r 10.0.0.2:53 -m\n\
                 -A --sctp-service 192.0.2.1:53 -s rr\n-a --sctp-service 192.0.2.1:53 -r 10.0.0.2:53 -m";
    let dns = "192.0.2.1:53";
    let mut desk = Desk::with_config(Desk::config().with(|config| config.connections_max = 500), rules);
    // A client who talks on.
    let talk = udp(client(0), dns).payload(b"?").build();
    let answer = udp("10.0.0.2:53", client(0)).payload(b"!").build();
    for packet in [&talk, &answer, &talk] {
        assert!(is_forwarded(desk.send(packet).verdict));
    }
    for number in 0..5_000 {
        desk.pass(Duration::from_millis(1));
        desk.feed(&udp(made_up(number), dns).payload(b"?").build());
        // The server answers who is not there, too.
        desk.feed(&udp("10.0.0.2:53", made_up(number)).payload(b"!").build());
        desk.feed(&sctp(made_up(number), dns).chunk(1, &[0; 16]).build());
    }
    (1..50).for_each(|number| check_served(&mut desk, client(number), WEB));
    assert_eq!(desk.director.drops(DropReason::ConnectionTableFull), 0);
    let known = desk.connections().into_iter().any(|row| row.client.address == client(0).ip() && row.in_packets == 2);
    assert!(known, "who has talked on stays");
}

/// A sister has the same server, and local addresses of its own.
#[test]
fn half_open_connections_of_a_sister_service_shield_no_ports() {
    let mut config = Desk::config();
    (config.local_ports.first, config.local_ports.last) = (2_000, 2_019);
    let rules = "-A -t 192.0.2.1:80 -s rr\n-A -t 192.0.2.1:81 -s rr";
    let mut desk = Desk::with_config(config, rules);
    for (service, local) in [(WEB, [10, 0, 1, 1]), ("192.0.2.1:81", [10, 0, 1, 2])] {
        desk.apply(&Command::AddLocalAddress(tcp_service(service), IpAddr::from(local)));
        desk.apply(&Command::AddServer(tcp_service(service), ServerConfig::full_nat("10.0.0.2:80".parse().unwrap())));
    }
    desk.feed(&tcp(made_up(0), "192.0.2.1:81").syn().build());
    (0..100).for_each(|number| desk.feed(&tcp(made_up(number), WEB).syn().build()));
    check_served(&mut desk, client(0), WEB);
    // Nor does what one client has there count here.
    let evil = |port| SocketAddr::new(made_up(500).ip(), port);
    (1_000..1_050).for_each(|port| desk.feed(&tcp(evil(port), "192.0.2.1:81").syn().build()));
    (1_050..1_060).for_each(|port| check_served(&mut desk, evil(port), WEB));
    assert_eq!(desk.director.drops(DropReason::LocalPortsExhausted), 0);
    assert_eq!(desk.director.drops(DropReason::ClientPortsFull), 0);
}

#[test]
fn a_lasting_shortage_of_templates_wakes_the_defences() {
    let config = Desk::config().with(|config| {
        config.connections_max = 1_000;
        config.templates_max = 100;
    });
    let mut desk = Desk::with_config(config, "-A -t 192.0.2.1:80 -s rr -p 300\n-a -t 192.0.2.1:80 -r 10.0.0.2:80 -m");
    desk.set(|settings| settings.amemthresh = 100);
    desk.set(|settings| (settings.drop_entry, settings.secure_tcp, settings.drop_packet) = (1, 1, 1));
    let modes = |desk: &Desk| {
        let settings = desk.director.settings();
        (settings.drop_entry, settings.secure_tcp)
    };
    desk.pass(Duration::from_secs(1));
    assert_eq!(modes(&desk), (1, 1));
    (0..95).for_each(|number| desk.feed(&tcp(made_up(number), WEB).syn().build()));
    desk.pass(Duration::from_secs(1));
    assert_eq!(modes(&desk), (2, 2), "five of a hundred places are left, a tenth is the threshold");
    desk.pass(Duration::from_secs(400));
    assert_eq!(modes(&desk), (1, 1));
}

/// Connections of one client address and port share a chain that every packet of theirs walks.
#[test]
fn one_client_endpoint_makes_no_long_chain() {
    let mut desk = Desk::new("-A -u 192.0.2.1:0 -s rr -p 300\n-a -u 192.0.2.1:0 -r 10.0.0.2:0 -m");
    let forwarded = (1..=1_000).filter(|port| {
        let to = SocketAddr::new(IpAddr::from([192, 0, 2, 1]), *port);
        is_forwarded(desk.send(&udp(made_up(0), to).payload(b"?").build()).verdict)
    });
    assert_eq!(forwarded.count(), 256);
    assert_eq!(desk.director.drops(DropReason::ClientEndpointFull), 744);
}

/// When every local port that may be remembered is, those that have rested serve others.
#[test]
fn full_memory_for_local_ports_refuses_nobody_once_ports_have_rested() {
    let mut config = Desk::config();
    config.local_ports.remembered_max = 512;
    let dns = udp_service("192.0.2.1:53");
    let mut desk = Desk::with_config(config, "-A -u 192.0.2.1:53 -s rr\n--set 0 0 1");
    (1..=4).for_each(|n| desk.apply(&Command::AddLocalAddress(dns, IpAddr::from([10, 0, 1, n]))));
    let add = |desk: &mut Desk, net: u8| {
        for n in 1..=8 {
            let server = ServerConfig::full_nat(SocketAddr::from(([10, 0, net, n], 53)));
            desk.apply(&Command::AddServer(dns, server));
        }
    };
    add(&mut desk, 2);
    let mut asked = 0;
    let mut ask = |desk: &mut Desk, count: u32| {
        for number in asked..asked + count {
            let sent = desk.send(&udp(made_up(number), "192.0.2.1:53").payload(b"?").build());
            assert!(is_forwarded(sent.verdict), "{number}: {:?}", sent.verdict);
        }
        asked += count;
    };
    ask(&mut desk, 512);
    // Unanswered flows give their ports up at once, answered or not after their rest.
    ask(&mut desk, 100);
    desk.pass(Duration::from_secs(30));
    ask(&mut desk, 256);
    // Servers that come new need ports that others give back.
    add(&mut desk, 3);
    desk.pass(Duration::from_secs(30));
    ask(&mut desk, 256);
}
