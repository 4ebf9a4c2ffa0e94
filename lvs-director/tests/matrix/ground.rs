//! The network of a row: addresses, ports, and what the kernels in between are told about routes.

use std::fs;
use std::net::{IpAddr, SocketAddr};

use lvs_io::netdev;
use lvs_testkit::network::{Failure, Port};

use crate::rows::{Backend, Layout, Method, Row};

/// An IPv4 and an IPv6 address of each. The client and the director's device towards it have others on a switch of
/// their own.
const CLIENT: [[&str; 2]; 2] = [["10.9.0.7", "fd09::7"], ["203.0.113.7", "2001:db8::7"]];
const DIRECTOR: [[&str; 2]; 2] = [["10.9.0.1", "fd09::1"], ["203.0.113.1", "2001:db8::1"]];
pub const SERVERS: [[&str; 2]; 2] = [["10.9.0.11", "fd09::11"], ["10.9.0.12", "fd09::12"]];
const VIRTUAL: [&str; 2] = ["10.9.0.80", "fd09::80"];
/// Whom servers see with FullNAT. No host has it.
const LOCAL: [&str; 2] = ["10.9.0.200", "fd09::200"];
/// Where tunnels start that leave by a TUN device: the kernel would not take packets from an address of its own.
const TUNNEL_SOURCE: [&str; 2] = ["10.9.0.201", "fd09::201"];
pub const PORT: u16 = 80;

/// The names of the servers' parties, and of what the servers themselves say.
pub const NAMES: [&str; 2] = ["one", "two"];

impl Row {
    pub fn client(&self) -> IpAddr {
        self.of_clients(CLIENT[self.layout as usize])
    }

    pub fn virtual_address(&self) -> SocketAddr {
        SocketAddr::new(self.of_clients(VIRTUAL), PORT)
    }

    /// Both virtual addresses, as curl takes them; -4 and -6 choose.
    pub fn resolved(&self) -> String {
        format!("{},[{}]", VIRTUAL[0], VIRTUAL[1])
    }

    /// By which the director reaches the server.
    pub fn server(&self, index: usize) -> SocketAddr {
        SocketAddr::new(address(SERVERS[index][self.servers as usize]), PORT)
    }

    pub fn local_address(&self) -> IpAddr {
        address(LOCAL[self.servers as usize])
    }

    fn of_clients(&self, pair: [&str; 2]) -> IpAddr {
        address(pair[self.clients as usize])
    }

    /// The address of either family that the director speaks from.
    pub fn director_addresses(&self) -> [IpAddr; 2] {
        match self.backend {
            Backend::AfPacket => DIRECTOR[0].map(address),
            Backend::Tun => TUNNEL_SOURCE.map(address),
        }
    }

    /// The addresses that the director answers ARP and Neighbor Discovery for on Ethernet.
    pub fn answered_addresses(&self) -> Vec<IpAddr> {
        vec![self.virtual_address().ip(), self.local_address()]
    }

    pub fn client_port(&self) -> Port {
        let near = usize::from(self.layout == Layout::TwoSwitches);
        let port = port("eth0", ["lan", "front"][near], CLIENT[near]);
        match self.backend {
            // The director answers for the virtual address.
            Backend::AfPacket => port.route(&host(self.of_clients(VIRTUAL)), None),
            Backend::Tun => port.route(&host(self.of_clients(VIRTUAL)), Some(DIRECTOR[near][self.clients as usize])),
        }
    }

    pub fn director_ports(&self) -> Vec<Port> {
        match self.layout {
            Layout::OneSwitch => vec![port("eth0", "lan", DIRECTOR[0])],
            Layout::TwoSwitches => vec![port("eth0", "front", DIRECTOR[1]), port("eth1", "lan", DIRECTOR[0])],
        }
    }

    pub fn server_port(&self, index: usize) -> Port {
        let port = port("eth0", "lan", SERVERS[index]);
        // Replies that have to pass the director do not find it by themselves.
        match (self.method, self.backend) {
            (Method::Nat, _) => port.route(&host(self.client()), Some(DIRECTOR[0][self.clients as usize])),
            (Method::FullNat, Backend::Tun) => {
                port.route(&host(self.local_address()), Some(DIRECTOR[0][self.servers as usize]))
            }
            _ => port,
        }
    }

    pub fn switches(&self) -> &'static [&'static str] {
        match self.layout {
            Layout::OneSwitch => &["lan"],
            Layout::TwoSwitches => &["lan", "front"],
        }
    }
}

fn port(device: &'static str, switch: &'static str, addresses: [&str; 2]) -> Port {
    let texts = [format!("{}/24", addresses[0]), format!("{}/64", addresses[1])];
    Port::new(device, switch, &texts[..if netdev::has_ipv6() { 2 } else { 1 }])
}

/// The network of one address.
fn host(address: IpAddr) -> String {
    format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 })
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("a constant")
}

/// Makes this namespace's kernel a router, and one that does not ask where packets came from.
pub fn become_a_router() -> Result<(), Failure> {
    set("ipv4/ip_forward", "1")?;
    set("ipv4/conf/all/rp_filter", "0")?;
    set("ipv4/conf/default/rp_filter", "0")?;
    if netdev::has_ipv6() {
        set("ipv6/conf/all/forwarding", "1")?;
    }
    Ok(())
}

/// Sets `net.NAME` for this namespace.
pub fn set(name: &str, value: &str) -> Result<(), Failure> {
    fs::write(format!("/proc/sys/net/{name}"), value).map_err(|error| format!("{name}: {error}").into())
}

/// Bytes that came by the device, in the calling thread's namespace: the kernel's own count.
pub fn received_by(device: &str) -> Result<u64, Failure> {
    let table = fs::read_to_string("/proc/thread-self/net/dev")?;
    let line = table.lines().find_map(|line| line.trim().strip_prefix(device)?.strip_prefix(':')).ok_or("no device")?;
    Ok(line.split_whitespace().next().ok_or("a column")?.parse()?)
}
