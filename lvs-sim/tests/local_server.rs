//! Real servers on the director's own host: what the host answers meets the director on its way out, so that clients
//! hear from the virtual address and the director sees both halves of every connection.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lvs_core::{Command, DirectorConfig, ForwardMethod, Protocol, Seed, ServerConfig, ServiceConfig, ServiceKey, Side};
use lvs_sim::{Conversation, Faults, HostId, HttpSite, Outcome, Simulation};

const VIRTUAL: [&str; 2] = ["192.0.2.80", "2001:db8:3::80"];
/// The director's own addresses on the servers' side.
const OWN: [&str; 2] = ["10.0.0.254", "fd00::fe"];

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A director with HTTP and echo services that its own host is to serve; and a client.
fn site(forward: ForwardMethod) -> (Simulation, HostId) {
    let server_side = Side::default().with(|side| {
        side.ipv4 = OWN[0].parse().ok();
        side.ipv6 = OWN[1].parse().ok();
    });
    let mut sim = Simulation::with_config(
        Seed::new(1),
        DirectorConfig::default().with(|config| config.server_side = server_side),
    );
    let client = sim.client(&[address("198.51.100.7"), address("2001:db8:1::7")]);
    for (virtual_address, own) in VIRTUAL.into_iter().zip(OWN) {
        for (protocol, port) in [(Protocol::Tcp, 80), (Protocol::Tcp, 7), (Protocol::Udp, 7)] {
            let service = ServiceKey::Address { protocol, address: address(virtual_address), port };
            sim.apply(&Command::AddService(service, ServiceConfig::new("rr"))).unwrap();
            // Only NAT translates the port, too.
            let real_port = if forward == ForwardMethod::Nat { port + 8000 } else { port };
            let server = ServerConfig::new(SocketAddr::new(address(own), real_port), forward);
            sim.apply(&Command::AddServer(service, server)).unwrap();
        }
    }
    (sim, client)
}

#[test]
fn a_server_on_the_directors_own_host_is_reached_by_every_method_that_leaves_it_the_packets() {
    for forward in [ForwardMethod::Local, ForwardMethod::Nat, ForwardMethod::DirectRouting] {
        let (mut sim, client) = site(forward);
        let server = sim.server(&OWN.map(address));
        let real_port = |port| if forward == ForwardMethod::Nat { port + 8000 } else { port };
        sim.serve_http(server, real_port(80), HttpSite { name: "own".into(), body_len: 10_000 });
        sim.serve_echo(server, real_port(7));
        sim.place_on_director(server, &VIRTUAL.map(address));
        sim.set_all_faults(Faults { loss_permille: 20, reorder_permille: 50, ..Faults::NONE });
        for virtual_address in VIRTUAL.map(address) {
            sim.converse(client, Conversation::http((virtual_address, 80).into()));
            sim.converse(client, Conversation::echo((virtual_address, 7).into(), 100_000));
            sim.converse(client, Conversation::datagrams((virtual_address, 7).into(), 20, 1_000));
        }
        sim.run_until_idle().unwrap();
        for report in sim.reports() {
            assert_eq!(report.outcome, Outcome::Complete, "{forward:?}: {report:?}");
        }
        // Both halves were seen: connections went through their states, replies were counted.
        let now = sim.now();
        let states: Vec<_> = sim.director().connections(now).map(|connection| connection.state).collect();
        assert!(states.iter().all(|state| matches!(*state, "TIME_WAIT" | "FIN_WAIT" | "CLOSE" | "UDP")), "{states:?}");
        let counters = sim.director().statistics().live;
        assert!(counters.out_packets > 20 && counters.out_bytes > 100_000, "{forward:?}: {counters:?}");
        assert_eq!(sim.unroutable(), 0);
    }
}

#[test]
fn a_port_on_which_the_directors_own_host_does_not_listen_refuses_from_the_virtual_address() {
    for forward in [ForwardMethod::Local, ForwardMethod::Nat] {
        let (mut sim, client) = site(forward);
        for virtual_address in VIRTUAL.map(address) {
            sim.http_get(client, (virtual_address, 80).into());
        }
        sim.run_until_idle().unwrap();
        for report in sim.reports() {
            assert_eq!(report.outcome, Outcome::Reset, "{forward:?}: {report:?}");
            assert!(
                report.ended.is_some_and(|at| at.duration_since(report.started) < Duration::from_millis(100)),
                "{report:?}"
            );
        }
        let now = sim.now();
        let states: Vec<_> = sim.director().connections(now).map(|connection| connection.state).collect();
        assert_eq!(states, ["CLOSE", "CLOSE"], "{forward:?}");
    }
}
