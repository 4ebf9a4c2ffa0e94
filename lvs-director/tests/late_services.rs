//! Services that come while `lvsd` runs, on a TUN device with two workers: every client's replies find its worker, and what
//! is deleted is given up.

mod bed;

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use bed::{Folder, Lvsd, Machine};
use lvs_io::netdev;
use lvs_testkit::network::{Failure, Port, add_switch, isolated, tun_can_be_had};
use rustix::net::{AddressFamily, SocketType, sockopt};

/// A client with many addresses, a host that routes everything through `lvsd`, and a server.
struct Network {
    client: Machine,
    _server: Machine,
    _host: Machine,
    lvsd: Lvsd,
    _folder: Folder,
}

const CLIENTS: u8 = 16;
/// IPv4, and IPv6.
const EARLY: [&str; 2] = ["192.0.2.81", "fd05::81"];
const LATE: [&str; 2] = ["192.0.2.80", "fd05::80"];
const LOCALS: [&str; 2] = ["10.3.0.1", "fd03::1"];
const SERVERS: [&str; 2] = ["10.2.0.11", "fd02::11"];
const NAT: u16 = 80;
const FULLNAT: u16 = 81;
/// Nobody's.
const CLOSED: u16 = 99;

/// IPv4 only where the kernel has no IPv6.
fn families() -> usize {
    if netdev::has_ipv6() { 2 } else { 1 }
}

fn client(number: u8, family: usize) -> IpAddr {
    ["10.1.0.", "fd01::"].map(|base| format!("{base}{}", 10 + number))[family].parse().expect("an address")
}

fn at(addresses: [&str; 2], family: usize, port: u16) -> SocketAddr {
    SocketAddr::new(addresses[family].parse().expect("a constant"), port)
}

impl Network {
    fn new() -> Result<Self, Failure> {
        add_switch("front")?;
        add_switch("back")?;
        let port = |device, switch, addresses: &[String], gateways: [&str; 2]| {
            let all = ["0.0.0.0/0", "::/0"].into_iter().zip(gateways).take(families());
            let gateways = all.filter(|(_, gateway)| !gateway.is_empty());
            gateways.fold(Port::new(device, switch, addresses), |port, (all, gateway)| port.route(all, Some(gateway)))
        };
        let of_clients: Vec<String> = (0..families())
            .flat_map(|family| (0..CLIENTS).map(move |number| (family, client(number, family))))
            .map(|(family, address)| format!("{address}/{}", [24, 64][family]))
            .collect();
        let both = |ipv4: &str, ipv6: &str| [format!("{ipv4}/24"), format!("{ipv6}/64")][..families()].to_vec();
        let host = vec![
            port("eth0", "front", &both("10.1.0.1", "fd01::1"), [""; 2]),
            port("eth1", "back", &both("10.2.0.1", "fd02::1"), [""; 2]),
        ];
        let client = Machine::new("client", vec![port("eth0", "front", &of_clients, ["10.1.0.1", "fd01::1"])])?;
        let host = Machine::new("host", host)?;
        let server = both(SERVERS[0], SERVERS[1]);
        let server = Machine::new("server", vec![port("eth0", "back", &server, ["10.2.0.1", "fd02::1"])])?;
        let folder = Folder::new();
        let early: String =
            EARLY[..families()].iter().map(|vip| format!("-A -t {} -s rr\n", endpoint(vip, NAT))).collect();
        let lvsd = Lvsd::start_with(&host, &folder, "lvsd", &early, &["--tun", "lvs0", "--workers", "2"]);
        host.run(|| -> io::Result<()> {
            for setting in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"].iter().take(families()) {
                std::fs::write(format!("/proc/sys/net/{setting}"), "1")?;
            }
            for device in ["all", "eth0", "eth1", "lvs0"] {
                std::fs::write(format!("/proc/sys/net/ipv4/conf/{device}/rp_filter"), "0")?;
            }
            for addresses in [EARLY, LATE, LOCALS] {
                for address in &addresses[..families()] {
                    let address: IpAddr = address.parse().expect("a constant");
                    netdev::add_route(address, if address.is_ipv4() { 32 } else { 128 }, "lvs0")?;
                }
            }
            netdev::divert("eth1", "lvs0", 101)
        })?;
        for family in 0..families() {
            let listener = server.run(move || TcpListener::bind(at(SERVERS, family, 8080)))?;
            thread::spawn(move || {
                for mut stream in listener.incoming().flatten() {
                    thread::spawn(move || {
                        let mut byte = [0];
                        stream.read_exact(&mut byte).and_then(|()| stream.write_all(&byte))
                    });
                }
            });
        }
        Ok(Self { client, _server: server, _host: host, lvsd, _folder: folder })
    }

    /// Has `lvsd` carry out rules, and waits until every worker has done so.
    fn change(&self, rules: &str) {
        self.lvsd.change(rules);
        self.lvsd.ask(|running| running.state()).expect("it answers");
    }

    /// One byte there and back, over TCP.
    fn echo(&self, from: IpAddr, to: SocketAddr) -> io::Result<()> {
        self.client.run(move || {
            let mut stream = connect(from, to, Duration::from_secs(10))?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            stream.write_all(&[7])?;
            stream.read_exact(&mut [0])
        })
    }

    /// Whether a connection there is refused before another one of the same client has come and gone.
    fn is_refused(&self, family: usize, to: SocketAddr, other: SocketAddr) -> bool {
        let from = client(0, family);
        let socket = self.client.run(move || begin(from, to)).expect("a socket");
        self.echo(from, other).expect("the other service is there");
        matches!(sockopt::socket_error(&socket), Ok(Err(rustix::io::Errno::CONNREFUSED)))
    }
}

fn endpoint(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().expect("a constant"), port)
}

fn socket(from: IpAddr, flags: rustix::net::SocketFlags) -> io::Result<std::os::fd::OwnedFd> {
    let family = if from.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    rustix::net::bind(&socket, &SocketAddr::new(from, 0))?;
    Ok(socket)
}

fn connect(from: IpAddr, to: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    let socket = socket(from, rustix::net::SocketFlags::CLOEXEC)?;
    // Of connecting, too.
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(patience))?;
    rustix::net::connect(&socket, &to)?;
    Ok(socket.into())
}

fn begin(from: IpAddr, to: SocketAddr) -> io::Result<std::os::fd::OwnedFd> {
    let socket = socket(from, rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK)?;
    match rustix::net::connect(&socket, &to) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(socket),
        Err(errno) => Err(errno.into()),
    }
}

/// NAT and FullNAT to the server.
fn services() -> String {
    let of_family = |family: usize| {
        let [nat, fullnat] = [NAT, FULLNAT].map(|port| at(LATE, family, port));
        let (server, local) = (at(SERVERS, family, 8080), LOCALS[family]);
        format!(
            "-A -t {nat} -s rr\n-a -t {nat} -r {server} -m\n\
             -A -t {fullnat} -s rr\n--add-laddr -t {fullnat} --local-address {local}\n\
             -a -t {fullnat} -r {server} --fullnat\n"
        )
    };
    (0..families()).map(of_family).collect()
}

#[test]
fn replies_of_servers_that_came_later_find_the_worker_of_their_client() {
    check("replies_of_servers_that_came_later_find_the_worker_of_their_client", |network| {
        network.change(&services());
        for family in 0..families() {
            for (number, port) in (0..CLIENTS).flat_map(|number| [(number, NAT), (number, FULLNAT)]) {
                let (from, to) = (client(number, family), at(LATE, family, port));
                network.echo(from, to).unwrap_or_else(|error| panic!("{from} to {to}: {error}"));
            }
        }
    });
}

#[test]
fn virtual_addresses_are_answered_for_as_they_come_and_given_up_as_they_go() {
    check("virtual_addresses_are_answered_for_as_they_come_and_given_up_as_they_go", |network| {
        network.change(&services());
        for family in 0..families() {
            let other = at(LATE, family, NAT);
            assert!(network.is_refused(family, at(EARLY, family, CLOSED), other), "it came with the rules");
            assert!(network.is_refused(family, at(LATE, family, CLOSED), other), "it came later");
            network.change(&format!("-D -t {}\n", at(EARLY, family, NAT)));
            assert!(!network.is_refused(family, at(EARLY, family, CLOSED), other), "it is gone");
            // It has another service.
            network.change(&format!("-D -t {}\n", at(LATE, family, FULLNAT)));
            assert!(network.is_refused(family, at(LATE, family, CLOSED), other), "it is still there");
        }
    });
}

fn check(name: &str, body: impl FnOnce(Network)) {
    isolated(name, tun_can_be_had, || Network::new().map(body));
}
