//! Virtual addresses that the host owns: it answers for them as before, `lvsd` balances their services, and the host's own
//! stack says nothing to those services' clients, whatever becomes of `lvsd`.

mod bed;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use bed::{Folder, Lvsd, Machine, Process, is_refusal, refuses};
use lvs_io::netdev;
use lvs_testkit::network::{Failure, Port, add_switch, isolated};
use rustix::process::Signal;

/// One switch: a client, a host whose addresses are virtual ones too, and a server that answers by way of it.
struct Network {
    client: Machine,
    host: Machine,
    server: Machine,
    folder: Folder,
}

const VIPS: [&str; 2] = ["10.9.0.80", "fd09::80"];
const SERVERS: [&str; 2] = ["10.9.0.11", "fd09::11"];
const HOST: [&str; 2] = ["10.9.0.1", "fd09::1"];

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().expect("a constant"), port)
}

/// IPv4 only where the kernel has no IPv6.
fn families() -> usize {
    if netdev::has_ipv6() { 2 } else { 1 }
}

impl Network {
    fn new() -> Result<Self, Failure> {
        add_switch("lan")?;
        let port = |addresses: [&str; 2]| {
            let texts = [format!("{}/24", addresses[0]), format!("{}/64", addresses[1])];
            Port::new("eth0", "lan", &texts[..families()])
        };
        let client = port(["10.9.0.7", "fd09::7"]);
        let mut server = port(SERVERS).route("10.9.0.7/32", Some(HOST[0]));
        if families() == 2 {
            server = server.route("fd09::7/128", Some(HOST[1]));
        }
        let network = Self {
            client: Machine::new("client", vec![client])?,
            host: Machine::new("host", vec![port(HOST)])?,
            server: Machine::new("server", vec![server])?,
            folder: Folder::new(),
        };
        network.take(&VIPS[..families()]);
        Ok(network)
    }

    /// Gives the host these addresses.
    fn take(&self, vips: &'static [&'static str]) {
        self.host.run(move || {
            for vip in vips {
                let vip: IpAddr = vip.parse().expect("a constant");
                netdev::add_address("eth0", vip, if vip.is_ipv4() { 32 } else { 128 }).expect("the device is there");
            }
        });
    }

    fn lvsd(&self, rules: &str) -> Lvsd {
        Lvsd::start(&self.host, &self.folder, "lvsd", rules)
    }

    /// Whether a client that asks at `at` is told nothing, neither yes nor no. What is asked afterwards and refused, at
    /// another port of the same address, says when an answer would have come.
    fn says_nothing(&self, at: SocketAddr) -> bool {
        let wire = self.client.listen();
        let _pending = self.client.run(move || begin_to_connect(at));
        let refused = SocketAddr::new(at.ip(), 81);
        assert!(refuses(&self.client, refused), "the host refuses at other ports");
        bed::wait_until("the refusal was heard", || wire.count(|frame| is_refusal(frame, refused)) > 0);
        wire.count(|frame| is_refusal(frame, at)) == 0
    }

    fn clean(&self) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lvsd"));
        command.arg("clean");
        self.host.spawn(command, &self.folder.path("clean.said"))
    }
}

/// A SYN leaves.
fn begin_to_connect(at: SocketAddr) -> std::os::fd::OwnedFd {
    use rustix::net::{AddressFamily, SocketFlags, SocketType};
    let family = if at.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None).expect("a socket");
    let _ = rustix::net::connect(&socket, &at);
    socket
}

fn rules(port: u16, protocol: &str) -> String {
    let text = |address: &str, port: u16| at(address, port).to_string();
    (0..families())
        .map(|family| {
            let (vip, server) = (text(VIPS[family], port), text(SERVERS[family], port));
            format!("-A -{protocol} {vip} -s rr\n-a -{protocol} {vip} -r {server} -m\n")
        })
        .collect()
}

fn probe() -> Result<(), Failure> {
    Ok(())
}

fn check(name: &str, body: impl FnOnce(Network) -> Result<(), Failure>) {
    isolated(name, probe, || body(Network::new()?));
}

#[test]
fn services_at_addresses_of_the_host_are_balanced_and_everything_else_there_is_the_hosts() {
    check("services_at_addresses_of_the_host_are_balanced_and_everything_else_there_is_the_hosts", |network| {
        let _lvsd = network.lvsd(&(rules(80, "t") + &rules(53, "u")));
        let wire = network.client.listen();
        for family in 0..families() {
            let _server = network.server.serve("server", at(SERVERS[family], 80));
            let _shell = network.host.serve("host", at(VIPS[family], 22));
            for _ in 0..20 {
                assert_eq!(network.client.get(at(VIPS[family], 80))?, "server");
            }
            assert_eq!(network.client.get(at(VIPS[family], 22))?, "host");
            assert!(refuses(&network.client, at(VIPS[family], 81)));
            assert!(refuses(&network.client, at(HOST[family], 80)), "it is nobody's service");
            // What the host asks itself is answered by itself.
            assert!(refuses(&network.host, at(VIPS[family], 80)));
            assert_eq!(network.host.get(at(VIPS[family], 22))?, "host");
            assert_eq!(ask_by_udp(&network, at(VIPS[family], 53), at(SERVERS[family], 53))?, *b"answer");
            let refusals = |port| wire.count(|frame| is_refusal(frame, at(VIPS[family], port)));
            assert_eq!((refusals(80), refusals(53)), (0, 0));
        }
        Ok(())
    });
}

/// A datagram there and one back.
fn ask_by_udp(network: &Network, to: SocketAddr, server: SocketAddr) -> Result<[u8; 6], Failure> {
    let socket = network.server.run(move || UdpSocket::bind(server))?;
    let client = network.client.run(move || {
        let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        UdpSocket::bind((any, 0)).and_then(|socket| socket.connect(to).map(|()| socket))
    })?;
    for socket in [&socket, &client] {
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    }
    client.send(b"question")?;
    let (_, from) = socket.recv_from(&mut [0; 16])?;
    socket.send_to(b"answer", from)?;
    let mut answer = [0; 6];
    client.recv(&mut answer)?;
    Ok(answer)
}

#[test]
fn services_that_come_and_go_are_the_hosts_when_they_are_gone() {
    check("services_that_come_and_go_are_the_hosts_when_they_are_gone", |network| {
        let lvsd = network.lvsd("");
        for family in 0..families() {
            let (vip, server) = (at(VIPS[family], 80), at(SERVERS[family], 80));
            let _server = network.server.serve("server", server);
            assert!(refuses(&network.client, vip));
            lvsd.change(&format!("-A -t {vip} -s rr\n-a -t {vip} -r {server} -m"));
            assert_eq!(network.client.get(vip)?, "server");
            lvsd.change(&format!("-D -t {vip}"));
            assert!(refuses(&network.client, vip));
        }
        let _server = network.server.serve("server", at(SERVERS[0], 80));
        lvsd.change(&rules(80, "t"));
        assert_eq!(network.client.get(at(VIPS[0], 80))?, "server");
        lvsd.change("-C");
        assert!(refuses(&network.client, at(VIPS[0], 80)));
        Ok(())
    });
}

#[test]
fn the_host_stays_silent_while_lvsd_is_dead_and_the_next_one_takes_over() {
    check("the_host_stays_silent_while_lvsd_is_dead_and_the_next_one_takes_over", |network| {
        let lvsd = network.lvsd(&rules(80, "t"));
        lvsd.process.signal(Signal::KILL);
        assert!(!lvsd.process.wait());
        for vip in &VIPS[..families()] {
            assert!(network.says_nothing(at(vip, 80)));
        }
        // What the next one does not have is the host's again.
        let lvsd = network.lvsd(&rules(8080, "t"));
        let _server = network.server.serve("server", at(SERVERS[0], 8080));
        assert_eq!(network.client.get(at(VIPS[0], 8080))?, "server");
        assert!(refuses(&network.client, at(VIPS[0], 80)));
        // To be started again.
        lvsd.process.signal(Signal::QUIT);
        assert!(lvsd.process.wait());
        assert!(network.says_nothing(at(VIPS[0], 8080)));
        // For good.
        let lvsd = network.lvsd(&rules(8080, "t"));
        lvsd.process.signal(Signal::TERM);
        assert!(lvsd.process.wait());
        assert!(refuses(&network.client, at(VIPS[0], 8080)));
        Ok(())
    });
}

#[test]
fn what_a_killed_lvsd_leaves_behind_is_taken_away_and_nothing_of_one_that_runs() {
    check("what_a_killed_lvsd_leaves_behind_is_taken_away_and_nothing_of_one_that_runs", |network| {
        let lvsd = network.lvsd(&rules(80, "t"));
        assert!(!network.clean().wait(), "it is in use");
        let _server = network.server.serve("server", at(SERVERS[0], 80));
        let wire = network.client.listen();
        assert_eq!(network.client.get(at(VIPS[0], 80))?, "server");
        assert_eq!(wire.count(|frame| is_refusal(frame, at(VIPS[0], 80))), 0);
        lvsd.process.signal(Signal::KILL);
        lvsd.process.wait();
        assert!(network.clean().wait());
        assert!(refuses(&network.client, at(VIPS[0], 80)));
        assert!(network.clean().wait(), "there is nothing to be done");
        Ok(())
    });
}

#[test]
fn where_a_helper_opens_ports_the_host_resets_none() {
    check("where_a_helper_opens_ports_the_host_resets_none", |network| {
        let ftp = at(VIPS[0], 21);
        let _lvsd = network.lvsd(&format!("-A -t {ftp} -s rr --helper ftp\n"));
        let (wire, data) = (network.client.listen(), at(VIPS[0], 40_000));
        let _pending = network.client.run(move || begin_to_connect(data));
        let refused = at(HOST[0], 81);
        assert!(refuses(&network.client, refused), "at other addresses it does");
        bed::wait_until("the refusal was heard", || wire.count(|frame| is_refusal(frame, refused)) > 0);
        assert_eq!(wire.count(|frame| is_refusal(frame, data)), 0);
        Ok(())
    });
}

#[test]
fn an_address_that_arrives_later_finds_the_host_silent() {
    check("an_address_that_arrives_later_finds_the_host_silent", |network| {
        let vip = at("10.9.0.90", 80);
        let _server = network.server.serve("server", at(SERVERS[0], 80));
        let lvsd = network.lvsd(&format!("-A -t {vip} -s rr\n-a -t {vip} -r {}:80 -m", SERVERS[0]));
        let wire = network.client.listen();
        network.take(&["10.9.0.90"]);
        assert_eq!(network.client.get(vip)?, "server");
        assert_eq!(wire.count(|frame| is_refusal(frame, vip)), 0);
        assert!(!lvsd.said().contains("warning: this host owns"), "{}", lvsd.said());
        Ok(())
    });
}
