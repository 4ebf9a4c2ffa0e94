//! A SYN flood of ten times the connection table's capacity, while real conversations run through the same director.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lvs_core::{
    Command, DirectorConfig, DropReason, HalfOpenPolicy, Protocol, Seed, ServerConfig, ServiceConfig, ServiceKey,
};
use lvs_sim::{Conversation, ConversationId, Flood, HostId, HttpSite, Outcome, Simulation};

const CAPACITY: u32 = 500;

/// A director with a small table, and one server behind it: echo on port 7, HTTP on port 80, in both families.
struct Site {
    sim: Simulation,
    client: HostId,
    attacker: HostId,
}

impl Site {
    fn new(config: DirectorConfig) -> Self {
        let config = config.with(|config| config.connections_max = CAPACITY);
        let mut sim = Simulation::with_config(Seed::new(1), config);
        let client = sim.client(&[address("198.51.100.7"), address("2001:db8:1::7")]);
        let attacker = sim.client(&[address("203.0.113.66")]);
        let real_addresses = [address("10.0.0.2"), address("fd00::2")];
        let server = sim.server(&real_addresses);
        sim.serve_echo(server, 7);
        sim.serve_http(server, 80, HttpSite::new("web"));
        for (real_address, port) in real_addresses.into_iter().flat_map(|address| [(address, 7), (address, 80)]) {
            let address = virtual_address(real_address.is_ipv6());
            let service = ServiceKey::Address { protocol: Protocol::Tcp, address, port };
            let real = ServerConfig::nat(SocketAddr::new(real_address, port));
            sim.apply(&Command::AddService(service, ServiceConfig::new("rr"))).unwrap();
            sim.apply(&Command::AddServer(service, real)).unwrap();
        }
        Self { sim, client, attacker }
    }

    fn all_complete(&self, conversations: &[ConversationId]) -> bool {
        self.complete(conversations) == conversations.len()
    }

    fn complete(&self, conversations: &[ConversationId]) -> usize {
        conversations.iter().filter(|id| self.sim.report(**id).is_complete()).count()
    }
}

fn virtual_address(is_ipv6: bool) -> IpAddr {
    address(if is_ipv6 { "2001:db8:3::80" } else { "192.0.2.80" })
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn a_syn_flood_of_ten_times_the_capacity_does_not_grow_the_table_nor_kill_established_connections() {
    for is_ipv6 in [false, true] {
        let mut site = Site::new(DirectorConfig::default());
        let (echo, web) = (SocketAddr::new(virtual_address(is_ipv6), 7), SocketAddr::new(virtual_address(is_ipv6), 80));
        let established: Vec<_> = (0..5).map(|_| site.sim.transfer(site.client, echo, 1_000_000)).collect();
        site.sim.run_for(Duration::from_millis(20)).unwrap();

        site.sim.flood(site.attacker, Flood::syn(u64::from(CAPACITY) * 10, 20_000, web));
        let (client, later) = (site.client, Duration::from_millis(50));
        let during: Vec<_> = (0..10).map(|_| site.sim.converse(client, Conversation::http(web).after(later))).collect();
        site.sim.run_for(Duration::from_millis(200)).unwrap();
        assert!(established.iter().all(|id| site.sim.report(*id).outcome == Outcome::Running), "the flood is too late");
        let director = site.sim.director();
        assert!(director.connections(site.sim.now()).count() <= CAPACITY as usize);
        assert_eq!(director.drops(DropReason::ConnectionTableFull), 0);
        assert!(director.defence_counters().half_open_evicted > u64::from(CAPACITY) * 6);

        site.sim.run_until_idle().unwrap();
        assert!(site.all_complete(&established), "{:?}", site.sim.reports());
        assert!(site.all_complete(&during), "{:?}", site.sim.reports());
    }
}

/// Half-open connections may take half of the table.
fn with_half_open_bound(half_open_policy: HalfOpenPolicy) -> DirectorConfig {
    DirectorConfig::default().with(|config| {
        config.half_open_max = CAPACITY / 2;
        config.half_open_policy = half_open_policy;
    })
}

#[test]
fn requests_that_meet_a_flood_complete_at_once_where_the_oldest_half_open_connection_makes_room() {
    for is_ipv6 in [false, true] {
        let mut site = Site::new(with_half_open_bound(HalfOpenPolicy::EvictOldest));
        let (echo, web) = (SocketAddr::new(virtual_address(is_ipv6), 7), SocketAddr::new(virtual_address(is_ipv6), 80));
        let established: Vec<_> = (0..20).map(|_| site.sim.transfer(site.client, echo, 1_000_000)).collect();
        site.sim.run_for(Duration::from_millis(20)).unwrap();

        // Slow enough for the server's own backlog of 128 to outlive a round trip of 4 ms.
        site.sim.flood(site.attacker, Flood::syn(u64::from(CAPACITY) * 10, 20_000, web));
        let client = site.client;
        let during: Vec<_> = (0..20)
            .map(|n| site.sim.converse(client, Conversation::http(web).after(Duration::from_millis(20 + 10 * n))))
            .collect();
        site.sim.run_for(Duration::from_millis(240)).unwrap();
        // The flood goes on for another 10 ms; the requests are through.
        let completed = site.complete(&during);
        println!("IPv6 {is_ipv6}: {completed} of 20 requests completed while the flood ran");
        assert_eq!(completed, 20, "{:?}", site.sim.reports());
        let director = site.sim.director();
        assert!(director.connections(site.sim.now()).count() <= CAPACITY as usize / 2 + 40);
        assert_eq!(director.drops(DropReason::ConnectionTableFull), 0);
        assert!(director.defence_counters().half_open_evicted > u64::from(CAPACITY) * 8);

        site.sim.run_until_idle().unwrap();
        let survived = site.complete(&established);
        println!("IPv6 {is_ipv6}: {survived} of 20 established conversations completed through the flood");
        assert_eq!(survived, 20, "{:?}", site.sim.reports());
    }
}

#[test]
fn a_flood_takes_no_more_than_the_half_open_bound_where_new_ones_are_refused() {
    let mut site = Site::new(with_half_open_bound(HalfOpenPolicy::Refuse));
    let (echo, web) = (SocketAddr::new(virtual_address(false), 7), SocketAddr::new(virtual_address(false), 80));
    let established: Vec<_> = (0..20).map(|_| site.sim.transfer(site.client, echo, 1_000_000)).collect();
    site.sim.run_for(Duration::from_millis(20)).unwrap();
    site.sim.flood(site.attacker, Flood::syn(u64::from(CAPACITY) * 10, 50_000, web));
    site.sim.run_for(Duration::from_millis(150)).unwrap();
    let director = site.sim.director();
    assert!(director.connections(site.sim.now()).count() <= CAPACITY as usize / 2 + 20);
    assert_eq!(director.drops(DropReason::ConnectionTableFull), 0);
    assert!(director.drops(DropReason::HalfOpenFull) >= u64::from(CAPACITY) * 9);

    site.sim.run_until_idle().unwrap();
    assert_eq!(site.complete(&established), 20, "{:?}", site.sim.reports());
}
