//! What is loaded of a snapshot, and what is not.

use core::time::Duration;

use lvs_core::snapshot::{Entry, Snapshot};
use lvs_core::{Seed, Verdict};
use lvs_testkit::{Desk, tcp, udp};

use super::{RULES, read, restored, save, step};

const NAT: &str =
    "-A -t 192.0.2.1:80 -s rr\n-a -t 192.0.2.1:80 -r 10.0.0.2:8080 -m\n-a -t 192.0.2.1:80 -r 10.0.0.3:8080 -m\n";
const UDP: &str = "-A -u 192.0.2.1:53 -s rr\n-a -u 192.0.2.1:53 -r 10.0.0.2:53 -m\n";
const FULL_NAT: &str = "-A -t 192.0.2.80:80 -s rr\n\
    --add-laddr -t 192.0.2.80:80 --local-address 10.0.0.200\n\
    -a -t 192.0.2.80:80 -r 10.0.0.2:8080 --fullnat\n\
    -A -t [2001:db8::80]:80 -s rr\n\
    --add-laddr -t [2001:db8::80]:80 --local-address 10.0.0.200\n\
    -a -t [2001:db8::80]:80 -r 10.0.0.2:8080 --fullnat\n";

fn open(desk: &mut Desk, port: u16) {
    let client = format!("198.51.100.7:{port}");
    desk.send(&tcp(client.as_str(), "192.0.2.1:80").syn().build());
}

#[test]
fn a_connection_takes_22_bytes_with_ipv4_and_34_with_ipv6() {
    let mut desk = Desk::new(RULES);
    let len = |desk: &Desk| save(desk).len();
    let empty = len(&desk);
    desk.send(&tcp("198.51.100.7:1024", "192.0.2.1:80").syn().build());
    let one = len(&desk);
    assert_eq!(one - empty, 22);
    desk.send(&tcp("[2001:db8:c::7]:1024", "[2001:db8::1]:80").syn().build());
    assert_eq!(len(&desk) - one, 34);
}

#[test]
fn full_nat_keeps_its_local_endpoint_and_its_sequence_numbers() {
    let mut first = Desk::new(FULL_NAT);
    let clients = ["198.51.100.7:1024", "[2001:db8:c::7]:1024"];
    let services = ["192.0.2.80:80", "[2001:db8::80]:80"];
    for (client, service) in clients.into_iter().zip(services) {
        first.send(&tcp(client, service).syn().numbers(1000, 0).build());
    }
    let bytes = save(&first);
    let (mut second, outcome) = restored(FULL_NAT, &bytes, first.now, Duration::ZERO);
    assert_eq!((outcome.connections, outcome.no_port), (2, 0));
    assert_eq!(first.connections(), second.connections());
    for connection in first.connections() {
        let local = connection.local.expect("FullNAT");
        let reply = tcp(connection.real, local).flags(18).numbers(5, 1001).build();
        assert_eq!(first.send(&reply), second.send(&reply));
    }
    for (client, service) in clients.into_iter().zip(services) {
        let request = tcp(client, service).ack().numbers(1001, 6).payload(b"GET").build();
        assert_eq!(first.send(&request), second.send(&request));
    }
    // The ports are leased: nobody else gets them.
    let gauges = [&first, &second].map(|desk| desk.director.gauges().local_ports);
    assert_eq!(gauges, [2, 2]);
}

#[test]
fn a_port_that_is_another_shards_is_not_taken() {
    let first = {
        let mut desk = Desk::new(FULL_NAT);
        desk.send(&tcp("198.51.100.7:1024", "192.0.2.80:80").syn().build());
        desk
    };
    let port = first.connections()[0].local.expect("FullNAT").port;
    let config = Desk::config().with(|config| {
        config.local_ports = config.local_ports.with(|ports| (ports.shards, ports.shard) = (2, (port + 1) % 2));
    });
    let mut other = Desk::with_config(config, FULL_NAT);
    let saved = read(&save(&first)).expect("a snapshot");
    let outcome = other.director.restore(other.now, &saved, Duration::ZERO, |_| true);
    assert_eq!((outcome.connections, outcome.no_port), (0, 1));
}

#[test]
fn what_would_have_ended_meanwhile_is_left_out() {
    let mut desk = Desk::new(NAT);
    open(&mut desk, 1024);
    let bytes = save(&desk);
    let left = |away| restored(NAT, &bytes, desk.now, Duration::from_secs(away)).1;
    assert_eq!((left(59).connections, left(59).ended), (1, 0));
    assert_eq!((left(60).connections, left(60).ended), (0, 1));
}

#[test]
fn a_director_with_less_room_takes_as_many_as_it_holds() {
    let mut desk = Desk::new(NAT);
    desk.ipvsadm(UDP);
    for port in 1024..1034 {
        desk.send(&udp(format!("198.51.100.7:{port}").as_str(), "192.0.2.1:53").payload(b"x").build());
    }
    let saved = read(&save(&desk)).expect("a snapshot");
    let config = Desk::config().with(|config| config.connections_max = 4);
    let mut small = Desk::with_config(config, UDP);
    let outcome = small.director.restore(small.now, &saved, Duration::ZERO, |_| true);
    assert_eq!((outcome.connections, outcome.no_room), (4, 6));
    assert_eq!(small.connections().len(), 4);
}

#[test]
fn a_server_that_the_rules_do_not_name_any_more_is_a_deleted_one() {
    let mut desk = Desk::new(NAT);
    open(&mut desk, 1024);
    open(&mut desk, 1025);
    let rules = "-A -t 192.0.2.1:80 -s rr\n-a -t 192.0.2.1:80 -r 10.0.0.2:8080 -m\n";
    let (mut second, outcome) = restored(rules, &save(&desk), desk.now, Duration::ZERO);
    assert_eq!((outcome.connections, second.director.gauges().deleted_servers), (2, 1));
    let sent: Vec<_> = [1024, 1025]
        .map(|port| second.send(&tcp(format!("198.51.100.7:{port}").as_str(), "192.0.2.1:80").ack().build()))
        .into();
    let forwarded = sent.iter().filter(|sent| matches!(sent.verdict, Verdict::Forward { .. })).count();
    assert_eq!(forwarded, 1, "the other one's server is gone");
    // It comes back, and its connection with it.
    second.ipvsadm("-a -t 192.0.2.1:80 -r 10.0.0.3:8080 -m");
    for port in [1024, 1025] {
        let sent = second.send(&tcp(format!("198.51.100.7:{port}").as_str(), "192.0.2.1:80").ack().build());
        assert!(matches!(sent.verdict, Verdict::Forward { .. }), "{}", sent.line());
    }
}

#[test]
fn a_deleted_server_is_still_deleted_and_its_counts_come_out_even() {
    let mut desk = Desk::new(NAT);
    open(&mut desk, 1024);
    open(&mut desk, 1025);
    desk.ipvsadm("-d -t 192.0.2.1:80 -r 10.0.0.3:8080");
    let rules = "-A -t 192.0.2.1:80 -s rr\n-a -t 192.0.2.1:80 -r 10.0.0.2:8080 -m\n";
    let (mut second, _) = restored(rules, &save(&desk), desk.now, Duration::ZERO);
    assert_eq!(second.director.gauges().deleted_servers, 1);
    second.pass(Duration::from_secs(600));
    assert_eq!((second.connections().len(), second.director.gauges().deleted_servers), (0, 0));
    let servers = &second.director.services(second.now)[0].servers;
    assert_eq!((servers[0].active_connections, servers[0].inactive_connections), (0, 0));
}

#[test]
fn two_directors_share_what_one_had() {
    let mut desk = Desk::new(NAT);
    (1024..1034).for_each(|port| open(&mut desk, port));
    for client in 1..=10 {
        desk.send(&tcp(format!("203.0.113.{client}:999").as_str(), "192.0.2.1:80").syn().build());
    }
    let saved = read(&save(&desk)).expect("a snapshot");
    let mut together = 0;
    for shard in 0..2 {
        let mut part = Desk::seeded(Desk::config(), Seed::new(shard), NAT);
        let outcome = part.director.restore(part.now, &saved, Duration::ZERO, |entry| match entry {
            Entry::Connection(client) | Entry::Template(client) => {
                u64::from(client.to_string().ends_with('7')) == shard
            }
            Entry::Counts => shard == 0,
        });
        assert_eq!(outcome.left_out as usize + part.connections().len(), 20);
        together += part.connections().len();
    }
    assert_eq!(together, 20);
}

#[test]
fn each_step_looks_at_no_more_entries_than_it_says() {
    let config = Desk::config().with(|config| config.connections_max = 10_000);
    let mut desk = Desk::with_config(config, NAT);
    for client in 0..5_000u16 {
        let [high, low] = client.to_be_bytes();
        desk.feed(&tcp(format!("198.51.{high}.{low}:999").as_str(), "192.0.2.1:80").syn().build());
    }
    let (mut snapshot, mut bytes, mut longest) = (Snapshot::new(), Vec::new(), 0);
    let mut before = 0;
    while step(&desk.director, &desk, &mut snapshot, &mut bytes) {
        longest = longest.max(bytes.len() - before);
        before = bytes.len();
    }
    assert!(longest <= Snapshot::ENTRIES_PER_STEP as usize * 22 + 9, "{longest}");
    assert_eq!(restored(NAT, &bytes, desk.now, Duration::ZERO).1.connections, 5_000);
}

#[test]
fn a_snapshot_taken_while_packets_and_commands_go_on_can_be_loaded() {
    let config = || Desk::config().with(|config| config.connections_max = 10_000);
    let mut desk = Desk::with_config(config(), NAT);
    let client = |number: u32| format!("198.{}.{}.{}:999", number >> 16, number >> 8 & 255, number & 255);
    for number in 0..5_000 {
        desk.feed(&tcp(client(number).as_str(), "192.0.2.1:80").syn().build());
    }
    let (mut snapshot, mut bytes, mut number, mut server) = (Snapshot::new(), Vec::new(), 0, 4);
    while step(&desk.director, &desk, &mut snapshot, &mut bytes) {
        // A connection ends, and is opened anew in another place; servers come and go.
        for again in number..number + 50 {
            desk.feed(&tcp(client(again).as_str(), "192.0.2.1:80").rst().build());
        }
        desk.pass(Duration::from_secs(1));
        for again in number..number + 50 {
            desk.feed(&tcp(client(again).as_str(), "192.0.2.1:80").syn().build());
        }
        number += 50;
        if number % 100 == 0 {
            desk.ipvsadm(&format!("-a -t 192.0.2.1:80 -r 10.0.0.{server}:8080 -m"));
            server += 1;
        }
    }
    let mut second = Desk::with_config(config(), NAT);
    let saved = read(&bytes).expect("a snapshot");
    let outcome = second.director.restore(second.now, &saved, Duration::ZERO, |_| true);
    assert_eq!((outcome.no_server, outcome.no_room), (0, 0), "{outcome:?}");
    assert!(outcome.connections > 4_000, "{outcome:?}");
}

#[test]
fn rates_and_counts_go_on() {
    let mut desk = Desk::new(RULES);
    for port in 0..20 {
        desk.send(&udp(format!("198.51.100.7:{}", 1024 + port).as_str(), "192.0.2.1:80").payload(b"x").build());
    }
    desk.pass(Duration::from_secs(3));
    let (mut second, _) = restored(RULES, &save(&desk), desk.now, Duration::ZERO);
    for _ in 0..3 {
        assert_eq!(desk.director.services(desk.now), second.director.services(second.now));
        desk.pass(Duration::from_secs(2));
        second.pass(Duration::from_secs(2));
    }
}
