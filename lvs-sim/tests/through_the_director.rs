//! Clients talk to virtual addresses, servers answer behind a NAT director: every byte arrives, whatever the links do.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lvs_core::{AfterDrain, Command, ForwardMethod, Instant, Protocol, Seed, ServerConfig, ServiceConfig, ServiceKey};
use lvs_sim::{Conversation, Dialogue, Faults, HostId, HttpSite, Outcome, Report, Simulation};

/// A client, and three servers behind one virtual address of each family: HTTP on port 80, echo on port 7.
struct Site {
    sim: Simulation,
    client: HostId,
    servers: [HostId; 3],
}

const VIRTUAL: [&str; 2] = ["192.0.2.80", "2001:db8:3::80"];
const WEIGHTS: [u32; 3] = [1, 2, 3];

impl Site {
    fn new(seed: u64) -> Self {
        let mut sim = Simulation::new(Seed::new(seed));
        let client = sim.client(&[address("198.51.100.7"), address("2001:db8:1::7")]);
        let servers = [1, 2, 3].map(|number| sim.server(&real_addresses(number)));
        for (number, server) in (1..).zip(servers) {
            sim.serve_http(server, 8080, HttpSite { name: format!("web{number}"), body_len: 10_000 });
            sim.serve_echo(server, 7);
        }
        for (index, address) in VIRTUAL.map(address).into_iter().enumerate() {
            for (protocol, port, real_port) in [(Protocol::Tcp, 80, 8080), (Protocol::Tcp, 7, 7), (Protocol::Udp, 7, 7)]
            {
                let service = ServiceKey::Address { protocol, address, port };
                sim.apply(&Command::AddService(service, ServiceConfig::new("wrr"))).unwrap();
                for (number, weight) in (1..).zip(WEIGHTS) {
                    let real = SocketAddr::new(real_addresses(number)[index], real_port);
                    sim.apply(&Command::AddServer(service, ServerConfig::nat(real).weight(weight))).unwrap();
                }
            }
        }
        Self { sim, client, servers }
    }

    fn converse(&mut self, conversation: Conversation) {
        self.sim.converse(self.client, conversation);
    }

    /// Lets everything that was begun end, and wants all of it complete.
    fn check_all_complete(&mut self, context: &str) {
        self.sim.run_until_idle().unwrap();
        for report in self.sim.reports() {
            assert_eq!(report.outcome, Outcome::Complete, "{context}: {report:?}");
        }
    }
}

fn real_addresses(number: u8) -> [IpAddr; 2] {
    [address(&format!("10.0.0.{number}")), address(&format!("fd00::{number}"))]
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn virtual_at(port: u16) -> [SocketAddr; 2] {
    VIRTUAL.map(|text| SocketAddr::new(address(text), port))
}

fn answered_by(reports: &[Report], name: &str) -> usize {
    reports.iter().filter(|report| report.server.as_deref() == Some(name)).count()
}

#[test]
fn every_byte_arrives_in_both_families_under_loss_duplication_reordering_and_corruption() {
    for (seed, loss_permille) in (1..=5).zip([10, 20, 30, 40, 50]) {
        let mut site = Site::new(seed);
        let faults = Faults { loss_permille, duplicate_permille: 20, reorder_permille: 50, ..Faults::NONE };
        site.sim.set_all_faults(Faults { corrupt_permille: 5, ..faults });
        for (echo, web) in virtual_at(7).into_iter().zip(virtual_at(80)) {
            site.converse(Conversation::echo(echo, 200_000));
            site.converse(Conversation::datagrams(echo, 20, 1_000));
            for _ in 0..6 {
                site.converse(Conversation::http(web));
            }
        }
        site.check_all_complete(&format!("seed {seed}"));
    }
}

#[test]
fn the_same_seed_gives_the_same_packets_on_every_link() {
    let run = |seed| {
        let mut site = Site::new(seed);
        site.sim.set_all_faults(Faults { loss_permille: 30, duplicate_permille: 30, ..Faults::NONE });
        let hosts = [site.client, site.servers[0], site.servers[1], site.servers[2]];
        hosts.into_iter().for_each(|host| site.sim.capture(host));
        for (echo, web) in virtual_at(7).into_iter().zip(virtual_at(80)) {
            site.converse(Conversation::echo(echo, 20_000));
            site.converse(Conversation::http(web));
        }
        site.sim.run_until_idle().unwrap();
        hosts.map(|host| site.sim.pcap(host).unwrap().to_vec())
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn requests_are_shared_out_by_weight_and_each_tells_who_answered_and_when() {
    let mut site = Site::new(1);
    for index in 0..60 {
        site.converse(Conversation::http(virtual_at(80)[index % 2]).after(Duration::from_millis(index as u64)));
    }
    site.check_all_complete("a perfect network");
    let reports = site.sim.reports();
    assert_eq!(["web1", "web2", "web3"].map(|name| answered_by(reports, name)), [10, 20, 30]);
    // Two round trips of four links of 1 ms.
    assert!(reports.iter().all(|report| report.latency() == Some(Duration::from_millis(8))), "{reports:?}");
}

#[test]
fn a_server_taken_out_of_service_gets_no_new_connections_and_keeps_its_old_ones() {
    let mut site = Site::new(1);
    let [vip, _] = virtual_at(7);
    let [web, _] = virtual_at(80);
    // Long enough to be under way when the servers change; on three servers, whatever the order.
    for _ in 0..6 {
        site.converse(Conversation::echo(vip, 2_000_000));
    }
    site.sim.after(Duration::from_millis(200), move |sim| {
        assert!(sim.reports().iter().all(|report| report.outcome == Outcome::Running));
        for (port, real) in [(7, "10.0.0.3:7"), (80, "10.0.0.3:8080")] {
            let service = ServiceKey::address(Protocol::Tcp, SocketAddr::new(vip.ip(), port));
            let server = ServerConfig::nat(real.parse().unwrap()).weight(0);
            sim.apply(&Command::EditServer(service, server)).unwrap();
        }
    });
    for index in 0..30 {
        site.converse(Conversation::http(web).after(Duration::from_millis(201 + index)));
    }
    site.check_all_complete("one server quiesced");
    assert_eq!(answered_by(site.sim.reports(), "web3"), 0);
    assert_eq!(answered_by(site.sim.reports(), "web2"), 20);
}

#[test]
fn connections_of_a_server_that_lost_power_end_and_the_others_live_on() {
    let mut site = Site::new(1);
    let [vip, _] = virtual_at(7);
    for _ in 0..6 {
        site.converse(Conversation::echo(vip, 2_000_000).patience(Duration::from_secs(60)));
    }
    let dead = site.servers[0];
    site.sim.after(Duration::from_millis(200), move |sim| sim.switch_off(dead));
    site.sim.run_until_idle().unwrap();
    let outcomes: Vec<_> = site.sim.reports().iter().map(|report| report.outcome).collect();
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Outcome::Complete).count(), 5, "{outcomes:?}");
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Outcome::TimedOut).count(), 1, "{outcomes:?}");
}

#[test]
fn a_virtual_address_without_a_service_on_that_port_resets() {
    let mut site = Site::new(1);
    site.converse(Conversation::http(virtual_at(81)[0]));
    site.converse(Conversation::http(virtual_at(81)[1]));
    site.sim.run_until_idle().unwrap();
    assert!(site.sim.reports().iter().all(|report| report.outcome == Outcome::Reset), "{:?}", site.sim.reports());
}

#[test]
fn a_service_without_servers_is_unreachable_and_so_is_a_server_without_the_service() {
    let mut site = Site::new(1);
    for (index, vip) in VIRTUAL.map(address).into_iter().enumerate() {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let service = ServiceKey::Address { protocol, address: vip, port: 9 };
            site.sim.apply(&Command::AddService(service, ServiceConfig::new("rr"))).unwrap();
        }
        // Nobody there: the director says so itself.
        site.converse(Conversation::http(SocketAddr::new(vip, 9)));
        site.converse(Conversation::datagrams(SocketAddr::new(vip, 9), 1, 100));
        // A server that does not listen: what it says is translated, together with the packet it quotes.
        let service = ServiceKey::Address { protocol: Protocol::Udp, address: vip, port: 10 };
        let real = SocketAddr::new(real_addresses(1)[index], 10);
        site.sim.apply(&Command::AddService(service, ServiceConfig::new("rr"))).unwrap();
        site.sim.apply(&Command::AddServer(service, ServerConfig::nat(real))).unwrap();
        site.converse(Conversation::datagrams(SocketAddr::new(vip, 10), 1, 100));
    }
    site.sim.run_until_idle().unwrap();
    for report in site.sim.reports() {
        assert_eq!(report.outcome, Outcome::Unreachable, "{report:?}");
    }
}

#[test]
fn directly_routed_replies_do_not_meet_the_director() {
    let mut site = Site::new(1);
    let vips = VIRTUAL.map(address);
    let server = site.servers[0];
    site.sim.route_directly(server, &vips);
    site.sim.serve_http(server, 90, HttpSite::new("direct"));
    for (index, vip) in vips.into_iter().enumerate() {
        let service = ServiceKey::Address { protocol: Protocol::Tcp, address: vip, port: 90 };
        let real = ServerConfig::new(SocketAddr::new(real_addresses(1)[index], 90), ForwardMethod::DirectRouting);
        site.sim.apply(&Command::AddService(service, ServiceConfig::new("rr"))).unwrap();
        site.sim.apply(&Command::AddServer(service, real)).unwrap();
        site.converse(Conversation::http(SocketAddr::new(vip, 90)));
    }
    site.check_all_complete("a perfect network");
    assert_eq!(answered_by(site.sim.reports(), "direct"), 2);
    let statistics = site.sim.director().statistics().live;
    assert!(statistics.in_packets > 0);
    assert_eq!(statistics.out_packets, 0);
}

#[test]
fn fragmented_datagrams_arrive_through_the_director_whatever_the_order_of_their_fragments() {
    for seed in 1..=3 {
        let mut site = Site::new(seed);
        site.sim.set_all_faults(Faults { reorder_permille: 200, ..Faults::NONE });
        site.converse(Conversation::datagrams(virtual_at(7)[0], 20, 4_000));
        site.check_all_complete(&format!("seed {seed}"));
        assert!(site.sim.verdicts().held > 0, "no fragment came before its first one");
        assert_eq!(site.sim.reports()[0].bytes_sent, 80_000, "a datagram had to be sent again");
    }
}

#[test]
fn every_connection_is_forgotten_when_its_time_is_over() {
    let mut site = Site::new(1);
    for web in virtual_at(80) {
        site.converse(Conversation::http(web));
        site.converse(Conversation::datagrams(SocketAddr::new(web.ip(), 7), 3, 100));
    }
    site.check_all_complete("a perfect network");
    let count = |sim: &Simulation| sim.director().connections(sim.now()).count();
    assert_eq!(count(&site.sim), 4);
    // ipvsadm's default timeouts: 120 s after FIN, 300 s for UDP.
    site.sim.run_for(Duration::from_secs(301)).unwrap();
    assert_eq!(count(&site.sim), 0);
    for service in site.sim.director().services(site.sim.now()) {
        for server in service.servers {
            assert_eq!((server.active_connections, server.inactive_connections), (0, 0));
        }
    }
}

/// A server that takes requests and never answers.
struct Silent;

impl Dialogue for Silent {
    fn hear(&mut self, _: &[u8]) {}

    fn speak(&mut self, _: &mut [u8]) -> usize {
        0
    }

    fn has_said_all(&self) -> bool {
        false
    }
}

#[test]
fn at_the_end_of_a_drain_silent_connections_are_reset_at_once() {
    let mut site = Site::new(1);
    let service = ServiceKey::address(Protocol::Tcp, virtual_at(81)[0]);
    site.sim.apply(&Command::AddService(service, ServiceConfig::new("rr"))).unwrap();
    let server = ServerConfig::nat(SocketAddr::new(real_addresses(1)[0], 81));
    site.sim.apply(&Command::AddServer(service, server.clone())).unwrap();
    site.sim.serve(site.servers[0], 81, || Box::new(Silent));
    for _ in 0..10 {
        site.converse(Conversation::http(virtual_at(81)[0]));
    }
    site.sim.run_for(Duration::from_secs(10)).unwrap();
    let deadline = Duration::from_secs(5);
    let drain = Command::Drain { service, server: server.key, deadline, then: AfterDrain::Reset };
    site.sim.apply(&drain).unwrap();
    site.sim.run_until_idle().unwrap();
    for report in site.sim.reports() {
        let after = report.ended.map(|at| at.duration_since(Instant::from_secs(15)));
        assert_eq!(report.outcome, Outcome::Reset, "{report:?}");
        assert!(after.is_some_and(|after| after < Duration::from_millis(100)), "{report:?}");
    }
    // The server has forgotten them, too.
    site.sim.run_for(Duration::from_secs(20)).unwrap();
    let now = site.sim.now();
    assert_eq!(site.sim.director().connection_count(now), 0);
}
