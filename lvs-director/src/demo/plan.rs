//! What the demo consists of: addresses, servers, weights, and which request is the how-manieth.
//! Data only, the same for the kernel's network and the simulated one.
//! Virtual addresses come from the blocks reserved for documentation (RFC 5737, RFC 3849).

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};

/// A real server of the demo.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Server {
    /// Its name, as it signs its answers.
    pub name: &'static str,
    /// Its share of the connections, relative to the other weights.
    pub weight: u32,
    /// Its IPv4 address.
    pub ipv4: Ipv4Addr,
    /// Its IPv6 address.
    pub ipv6: Ipv6Addr,
}

impl Server {
    /// Where it listens.
    pub fn endpoints(&self) -> [SocketAddr; 2] {
        [SocketAddr::new(self.ipv4.into(), SERVER_PORT), SocketAddr::new(self.ipv6.into(), SERVER_PORT)]
    }
}

/// One address of a network device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InterfaceAddress {
    /// The address.
    pub address: IpAddr,
    /// How many leading bits are shared by everything on the link.
    pub prefix_len: u8,
}

/// The demo's servers.
pub const SERVERS: [Server; 3] = [
    Server {
        name: "ant",
        weight: 3,
        ipv4: Ipv4Addr::new(10, 2, 0, 11),
        ipv6: Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, 0x11),
    },
    Server {
        name: "bee",
        weight: 2,
        ipv4: Ipv4Addr::new(10, 2, 0, 12),
        ipv6: Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, 0x12),
    },
    Server {
        name: "cat",
        weight: 1,
        ipv4: Ipv4Addr::new(10, 2, 0, 13),
        ipv6: Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, 0x13),
    },
];

/// The port the servers listen on; not the virtual port, so that port translation is shown too.
pub const SERVER_PORT: u16 = 8080;

/// The virtual services: what clients connect to.
pub const VIRTUAL: [SocketAddr; 2] =
    [SocketAddr::V4(EXPLAINED_TO), SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x80)), 80)];

/// The packet that is explained at the end is sent from here: the client, at a port it has not used.
pub const EXPLAINED_FROM: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 1, 0, 1), 1024);

/// The packet that is explained at the end is sent to here: the IPv4 service.
pub const EXPLAINED_TO: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 80), 80);

/// The clients' addresses.
pub const CLIENTS: [InterfaceAddress; 2] = [
    InterfaceAddress { address: IpAddr::V4(Ipv4Addr::new(10, 1, 0, 1)), prefix_len: 24 },
    InterfaceAddress { address: IpAddr::V6(Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 1)), prefix_len: 64 },
];

/// The director's own addresses towards the clients: where its ICMP errors come from.
pub const DIRECTOR_CLIENT_SIDE: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(10, 1, 0, 254), Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 0xfe));

/// The director's own addresses towards the servers.
pub const DIRECTOR_SERVER_SIDE: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(10, 2, 0, 254), Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, 0xfe));

/// The servers' addresses, as their device gets them.
pub fn server_addresses() -> impl Iterator<Item = InterfaceAddress> {
    SERVERS.iter().flat_map(|server| {
        [
            InterfaceAddress { address: server.ipv4.into(), prefix_len: 24 },
            InterfaceAddress { address: server.ipv6.into(), prefix_len: 64 },
        ]
    })
}

/// The director's configuration as `ipvsadm-save` would write it.
pub fn rules() -> String {
    let mut rules = String::new();
    for (index, service) in VIRTUAL.iter().enumerate() {
        let _ = writeln!(rules, "-A -t {service} -s wrr");
        for server in &SERVERS {
            let _ = writeln!(rules, "-a -t {service} -r {} -m -w {}", server.endpoints()[index], server.weight);
        }
    }
    rules
}

/// One request of the load: whom to ask for how much.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// The virtual service.
    pub to: SocketAddr,
    /// How many bytes of body to ask for.
    pub len: usize,
}

/// The `index`-th request: IPv4 and IPv6 in turn, sizes from one segment to many.
pub fn request(index: usize) -> Request {
    Request { to: VIRTUAL[index % VIRTUAL.len()], len: BODY_LENS[index / VIRTUAL.len() % BODY_LENS.len()] }
}

/// How many of the first `requests` requests go to `VIRTUAL[service]`.
pub fn requests_to(service: usize, requests: usize) -> usize {
    (requests + VIRTUAL.len() - 1 - service) / VIRTUAL.len()
}

/// How many requests the demo makes unless told otherwise: a multiple of the weights' sum for each service.
pub const REQUESTS: usize = 600;

/// How many requests are under way at once.
pub const CONCURRENCY: usize = 8;

/// Body sizes in turn: below one segment, a few, and enough for the kernel to build 64 KiB super-packets.
const BODY_LENS: [usize; 5] = [100, 2_000, 500, 20_000, 250_000];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_take_turns_between_the_services() {
        for requests in [1, 2, 7, 600] {
            for (index, service) in VIRTUAL.iter().enumerate() {
                let count = (0..requests).filter(|&number| request(number).to == *service).count();
                assert_eq!(count, requests_to(index, requests), "{requests} requests");
            }
        }
    }

    #[test]
    fn the_rules_read_as_ipvsadm_save_writes_them() {
        let rules = rules();
        let lines: Vec<_> = rules.lines().collect();
        assert_eq!(lines.len(), 8);
        assert_eq!(lines[0], "-A -t 192.0.2.80:80 -s wrr");
        assert_eq!(lines[1], "-a -t 192.0.2.80:80 -r 10.2.0.11:8080 -m -w 3");
        assert_eq!(lines[7], "-a -t [2001:db8::80]:80 -r [fd00:2::13]:8080 -m -w 1");
    }
}
