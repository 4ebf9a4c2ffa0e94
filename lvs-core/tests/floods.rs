//! Random floods of strangers and clients over every kind of service, through tables so small that somebody gives way
//! all the time: what counts goes up and down exactly once, no bound is exceeded, and at the end nothing is left.

use std::net::SocketAddr;
use std::time::Duration;

use lvs_core::view::Gauges;
use lvs_core::{Command, ForwardMethod, Protocol, ServerConfig, ServiceConfig};
use lvs_testkit::desk::{nat, tcp_service, udp_service};
use lvs_testkit::{Desk, sctp, strategy, tcp, udp};
use proptest::prelude::*;
use proptest::sample::{Index, select};

const BOUNDS: Bounds = Bounds { connections: 12, half_open: 4, templates: 4, expected: 2, ports: 8 };

struct Bounds {
    connections: u32,
    half_open: u32,
    templates: u32,
    expected: u32,
    ports: u32,
}

/// Where requests go, by protocol. `[…]:80` is persistent, as is 443; 21 has a helper, 8080 is FullNAT, 5060 knows
/// Call-IDs and takes datagrams one by one; what is for 203.0.113.9 is marked and passes all servers.
const SERVICES: [(Protocol, &str); 11] = [
    (Protocol::Tcp, "192.0.2.1:80"),
    (Protocol::Tcp, "192.0.2.1:443"),
    (Protocol::Tcp, "[2001:db8::1]:80"),
    (Protocol::Tcp, "192.0.2.1:21"),
    (Protocol::Tcp, "192.0.2.1:8080"),
    (Protocol::Tcp, "203.0.113.9:80"),
    (Protocol::Udp, "192.0.2.1:53"),
    (Protocol::Udp, "[2001:db8::1]:53"),
    (Protocol::Udp, "192.0.2.1:8080"),
    (Protocol::Udp, "192.0.2.1:5060"),
    (Protocol::Sctp, "192.0.2.1:80"),
];
const PAYLOADS: [&[u8]; 7] = [
    b"",
    b"?",
    b"PORT 198,51,100,1,4,1\r\n",
    b"PORT 198,51,100,1,4,2\r\n",
    b"PORT 198,51,100,1,4,3\r\n",
    b"X\r\nCall-ID: a@b\r\n\r\n",
    b"X\r\nCall-ID: c@d\r\n\r\n",
];
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const FLAGS: [u8; 6] = [SYN, SYN, ACK, ACK, 0x11, 0x04];

fn desk() -> Desk {
    let mut config = Desk::config().with(|config| {
        config.connections_max = BOUNDS.connections;
        config.half_open_max = BOUNDS.half_open;
        config.templates_max = BOUNDS.templates;
        config.client_templates_max = 2;
        config.client_endpoint_max = 3;
        config.expectations_max = BOUNDS.expected;
    });
    (config.local_ports.first, config.local_ports.last) = (2000, 1999 + BOUNDS.ports as u16 / 2);
    config.local_ports.client_max = 2;
    let mut desk = Desk::with_config(
        config,
        "-A -t 192.0.2.1:80 -s rr\n-a -t 192.0.2.1:80 -r 10.0.0.2:80 -m\n-a -t 192.0.2.1:80 -r 10.0.0.3:80 -g\n\
         -A -t 192.0.2.1:443 -s wlc -p 60\n-a -t 192.0.2.1:443 -r 10.0.0.2:443 -m\n\
         -a -t 192.0.2.1:443 -r 10.0.0.3:443 -m -x 3\n\
         -A -t [2001:db8::1]:80 -s rr -p 60\n-a -t [2001:db8::1]:80 -r [fd00::2]:80 -m\n\
         -A -t 192.0.2.1:21 -s rr --helper ftp\n-a -t 192.0.2.1:21 -r 10.0.0.2:21 -m -x 2\n\
         -A -u 192.0.2.1:53 -s rr -p 60\n-a -u 192.0.2.1:53 -r 10.0.0.2:53 -m\n-a -u 192.0.2.1:53 -r 10.0.0.3:53 -g\n\
         -A -u [2001:db8::1]:53 -s rr -p 60\n-a -u [2001:db8::1]:53 -r [fd00::2]:53 -m\n\
         -A -u 192.0.2.1:5060 -s rr -p 60 --pe sip -o\n-a -u 192.0.2.1:5060 -r 10.0.0.2:5060 -m\n\
         -A --sctp-service 192.0.2.1:80 -s rr\n-a --sctp-service 192.0.2.1:80 -r 10.0.0.2:80 -m\n\
         -A -f 7 -s rr",
    );
    for service in [tcp_service("192.0.2.1:8080"), udp_service("192.0.2.1:8080")] {
        desk.add(service, ServiceConfig::new("rr"), []);
        desk.apply(&Command::AddLocalAddress(service, "10.0.1.1".parse().unwrap()));
        desk.apply(&Command::AddServer(service, ServerConfig::full_nat("10.0.0.4:80".parse().unwrap())));
    }
    desk.set(|settings| settings.cache_bypass = true);
    desk
}

#[derive(Clone, Debug)]
enum Step {
    Request {
        service: usize,
        client: u16,
        flags: u8,
        payload: usize,
    },
    Reply {
        connection: Index,
        flags: u8,
        payload: usize,
    },
    /// A client announces a data connection, on a control connection that it opens if there is none.
    Announce {
        client: u16,
        payload: usize,
    },
    /// A server opens what was announced.
    Data {
        client_port: u16,
    },
    Wait {
        milliseconds: u64,
    },
    /// A server goes, with what it has, or comes back.
    Delete,
    Add,
}

fn step() -> impl Strategy<Value = Step> {
    let (flags, payload) = (|| select(FLAGS.to_vec()), || 0..PAYLOADS.len());
    prop_oneof![
        12 => (0..SERVICES.len(), 0..8u16, flags(), payload())
            .prop_map(|(service, client, flags, payload)| Step::Request { service, client, flags, payload }),
        6 => (any::<Index>(), flags(), payload())
            .prop_map(|(connection, flags, payload)| Step::Reply { connection, flags, payload }),
        3 => (0..2u16, 2..5usize).prop_map(|(client, payload)| Step::Announce { client, payload }),
        1 => (1025..1028u16).prop_map(|client_port| Step::Data { client_port }),
        3 => select(vec![1, 900, 5_000, 61_000, 130_000]).prop_map(|milliseconds| Step::Wait { milliseconds }),
        1 => Just(Step::Delete),
        1 => Just(Step::Add),
    ]
}

fn segment(protocol: Protocol, from: SocketAddr, to: SocketAddr, flags: u8, payload: usize) -> Vec<u8> {
    match protocol {
        Protocol::Tcp => tcp(from, to).flags(flags).numbers(1, 1).payload(PAYLOADS[payload]).build(),
        Protocol::Udp => udp(from, to).payload(PAYLOADS[payload]).build(),
        // INIT, its ACK, COOKIE ECHO, its ACK, DATA, ABORT.
        Protocol::Sctp => sctp(from, to).chunk([1, 2, 10, 11, 0, 6][payload % 6], &[0; 16]).build(),
    }
}

fn socket(end: lvs_core::Endpoint) -> SocketAddr {
    SocketAddr::new(end.address, end.port)
}

fn take(desk: &mut Desk, step: &Step) {
    match *step {
        Step::Request { service, client, flags, payload } => {
            let (protocol, at) = SERVICES[service];
            let at: SocketAddr = at.parse().unwrap();
            let from = match at {
                SocketAddr::V4(_) => format!("198.51.100.{}:{}", 1 + client / 4, 1024 + client % 4),
                SocketAddr::V6(_) => format!("[2001:db8:c:{}::{client}]:1024", client / 5),
            };
            let mark = if at.ip().to_string() == "203.0.113.9" { 7 } else { 0 };
            let _ = desk.send_marked(mark, &segment(protocol, from.parse().unwrap(), at, flags, payload));
        }
        Step::Reply { connection, flags, payload } => {
            let rows = desk.connections();
            if rows.is_empty() {
                return;
            }
            let row = connection.get(&rows);
            let (from, to) = match row.forward {
                ForwardMethod::Nat => (row.real, row.client),
                ForwardMethod::FullNat => (row.real, row.local.unwrap()),
                _ => (row.virtual_endpoint, row.client),
            };
            let protocol = row.protocol.unwrap();
            let flags = if flags == SYN { SYN | ACK } else { flags };
            desk.feed(&segment(protocol, socket(from), socket(to), flags, payload));
        }
        Step::Announce { client, payload } => {
            let (from, to) = (SocketAddr::from(([198, 51, 100, 1], 1024 + client)), "192.0.2.1:21".parse().unwrap());
            for (flags, payload) in [(SYN, 0), (ACK, 0), (ACK, payload)] {
                desk.feed(&segment(Protocol::Tcp, from, to, flags, payload));
            }
        }
        Step::Data { client_port } => {
            let client = SocketAddr::from(([198, 51, 100, 1], client_port));
            desk.feed(&segment(Protocol::Tcp, "10.0.0.2:20".parse().unwrap(), client, SYN, 0));
        }
        Step::Wait { milliseconds } => desk.pass(Duration::from_millis(milliseconds)),
        Step::Delete => {
            let key = tcp_service("192.0.2.1:443");
            let _ = desk.director.apply(desk.now, &Command::DeleteServer(key, nat("10.0.0.2:443").key));
        }
        Step::Add => {
            let _ =
                desk.director.apply(desk.now, &Command::AddServer(tcp_service("192.0.2.1:443"), nat("10.0.0.2:443")));
        }
    }
}

/// No bound is exceeded, and each server counts the connections and templates that it has.
fn check(desk: &Desk) {
    let gauges = desk.director.gauges();
    let Gauges { connections, half_open, unproven, expected, templates, templates_unproven, local_ports, .. } = gauges;
    assert!(connections <= BOUNDS.connections && half_open <= BOUNDS.half_open, "{gauges:?}");
    assert!(half_open + unproven + expected <= connections, "{gauges:?}");
    assert!(templates <= BOUNDS.templates && templates_unproven <= templates, "{gauges:?}");
    assert!(local_ports <= BOUNDS.ports, "{gauges:?}");
    for service in desk.director.services(desk.now) {
        for server in service.servers {
            let (protocol, at) = match service.key {
                lvs_core::ServiceKey::Address { protocol, address, .. } => (protocol, address),
                lvs_core::ServiceKey::FwMark { .. } => continue,
            };
            let is_its = |row: &&lvs_core::view::ConnectionView| {
                let own_port = row.real == server.config.key || (row.real.port == 20 && server.config.key.port == 21);
                row.protocol == Some(protocol)
                    && row.virtual_endpoint.address == at
                    && own_port
                    && row.real.address == server.config.key.address
            };
            let rows = desk.connections().iter().filter(is_its).count() as u32;
            assert_eq!(server.active_connections + server.inactive_connections, rows, "{}", server.config.key);
        }
    }
    let servers = desk.director.services(desk.now).into_iter().flat_map(|service| service.servers);
    let persistent: u32 = servers.map(|server| server.persistent_connections).sum();
    assert!(persistent as usize <= desk.templates().len(), "{persistent} {:?}", desk.templates());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..strategy::config() })]

    #[test]
    fn counts_go_down_exactly_once_whoever_gives_way(steps in prop::collection::vec(step(), 1..200)) {
        let mut desk = desk();
        for step in &steps {
            take(&mut desk, step);
            check(&desk);
        }
        desk.pass(Duration::from_secs(4_000));
        prop_assert_eq!(desk.director.gauges(), Gauges::default());
        prop_assert!(desk.director.local_ports(desk.now).iter().all(|ports| ports.leased == 0));
        for server in desk.director.services(desk.now).into_iter().flat_map(|service| service.servers) {
            let counts = (server.active_connections, server.inactive_connections, server.persistent_connections);
            prop_assert_eq!(counts, (0, 0, 0), "{}", server.config.key);
        }
        // Nobody is left who counts as a client: the shares are whole again.
        for port in [1, 2] {
            let at = "192.0.2.1:8080".parse().unwrap();
            desk.feed(&segment(Protocol::Tcp, SocketAddr::from(([198, 51, 100, 1], port)), at, SYN, 0));
        }
        prop_assert_eq!(desk.director.gauges().local_ports, 2);
        prop_assert_eq!(desk.director.defence_counters().ports_taken_back, before_that(&steps));
    }
}

/// How often a port was taken back in a run of these steps.
fn before_that(steps: &[Step]) -> u64 {
    let mut desk = desk();
    steps.iter().for_each(|step| take(&mut desk, step));
    desk.director.defence_counters().ports_taken_back
}

/// Keeps the generators honest: somebody gives way for every reason.
#[test]
fn random_floods_make_somebody_give_way_for_every_reason() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut seen = [0; 5];
    for _ in 0..60 {
        let steps = prop::collection::vec(step(), 200).new_tree(&mut runner).unwrap().current();
        let mut desk = desk();
        steps.iter().for_each(|step| take(&mut desk, step));
        let of = desk.director.defence_counters();
        let counts = [
            of.half_open_evicted,
            of.newcomers_evicted,
            of.templates_evicted,
            of.expectations_evicted,
            of.ports_taken_back,
        ];
        seen.iter_mut().zip(counts).for_each(|(seen, count)| *seen += count);
    }
    assert!(seen.iter().all(|count| *count > 5), "{seen:?}");
}
