//! The network of a case: addresses, ports, and the director with its services.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc;

use lvs_core::service::ClientAddress;
use lvs_core::{
    Command, Director, DirectorConfig, DropReason, Instant, Protocol, Seed, ServerConfig, ServiceConfig, ServiceKey,
    Side,
};
use lvs_io::{Worker, WorkerHandle, netdev};
use lvs_io_afpacket::{AfPacketDevice, AfPacketOptions};
use lvs_testkit::network::{Failure, Port};

/// Which families the two sides are of, and what lies between.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    Ipv4,
    Ipv6,
    Nat64,
    /// The same with a router, beyond which packets are 1,000 bytes long at most.
    NarrowNat64,
}

/// Where the server speaks first, and where the client does.
pub const GREETING: u16 = 25;
pub const ASKING: u16 = 80;

const NARROW: u32 = 1_000;

/// An IPv4 and an IPv6 address of each.
const CLIENT: [&str; 2] = ["10.9.0.7", "fd09::7"];
const DIRECTOR: [&str; 2] = ["10.9.0.1", "fd09::1"];
const VIRTUAL: [&str; 2] = ["10.9.0.80", "fd09::80"];
const LOCAL: [&str; 2] = ["10.9.0.200", "fd09::200"];
const SERVER: [&str; 2] = ["10.9.0.11", "fd09::11"];
const FAR_SERVER: [&str; 2] = ["10.10.0.11", "fd10::11"];
const ROUTER: [[&str; 2]; 2] = [["10.9.0.21", "fd09::21"], ["10.10.0.21", "fd10::21"]];

impl Place {
    fn clients(self) -> usize {
        usize::from(self != Self::Ipv4)
    }

    fn servers(self) -> usize {
        usize::from(self == Self::Ipv6)
    }

    pub fn virtual_endpoint(self, port: u16) -> SocketAddr {
        SocketAddr::new(address(VIRTUAL[self.clients()]), port)
    }

    /// The server's address, as the director knows it.
    pub fn server(self) -> IpAddr {
        let addresses = if self == Self::NarrowNat64 { FAR_SERVER } else { SERVER };
        address(addresses[self.servers()])
    }

    fn local_address(self) -> IpAddr {
        address(LOCAL[self.servers()])
    }

    pub fn switches(self) -> &'static [&'static str] {
        if self == Self::NarrowNat64 { &["lan", "far"] } else { &["lan"] }
    }

    pub fn client_port(self) -> Port {
        port("eth0", "lan", CLIENT)
    }

    pub fn director_port(self) -> Port {
        let port = port("eth0", "lan", DIRECTOR);
        if self == Self::NarrowNat64 { port.route("10.10.0.0/24", Some(ROUTER[0][0])) } else { port }
    }

    pub fn router_ports(self) -> Option<Vec<Port>> {
        let ports = || vec![port("eth0", "lan", ROUTER[0]), port("eth1", "far", ROUTER[1])];
        (self == Self::NarrowNat64).then(ports)
    }

    pub fn server_port(self) -> Port {
        match self {
            Self::NarrowNat64 => port("eth0", "far", FAR_SERVER).route("10.9.0.0/24", Some(ROUTER[1][0])),
            _ => port("eth0", "lan", SERVER),
        }
    }

    /// A server behind a narrow link that does not know it: it announces segments of 1,460 bytes.
    pub fn set_up_server(self) -> Result<(), Failure> {
        if self == Self::NarrowNat64 { Ok(netdev::set_mtu("eth0", 1_500)?) } else { Ok(()) }
    }
}

fn port(device: &'static str, switch: &'static str, addresses: [&str; 2]) -> Port {
    let texts = [format!("{}/24", addresses[0]), format!("{}/64", addresses[1])];
    Port::new(device, switch, &texts[..if netdev::has_ipv6() { 2 } else { 1 }])
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("a constant")
}

/// Makes this namespace's kernel a router whose second link is narrow.
pub fn become_a_router() -> Result<(), Failure> {
    fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
    Ok(netdev::set_mtu("eth1", NARROW)?)
}

/// Runs the director in the calling thread's namespace until the handle it sends says stop. Returns what it has to say
/// of it.
pub fn director(
    kind: ClientAddress,
    place: Place,
    give_handle: &mpsc::Sender<WorkerHandle>,
    ready: &dyn Fn(),
) -> Result<String, Failure> {
    let [IpAddr::V4(ipv4), IpAddr::V6(ipv6)] = DIRECTOR.map(address) else { return Err("one of each family".into()) };
    let side = Side::default().with(|side| {
        side.ipv4 = Some(ipv4);
        side.ipv6 = Some(ipv6);
    });
    let config = DirectorConfig::default().with(|config| {
        config.client_side = side;
        config.server_side = side;
    });
    let mut director = Director::new(config, Seed::new(1));
    for port in [GREETING, ASKING] {
        let service = ServiceKey::address(Protocol::Tcp, place.virtual_endpoint(port));
        let mut config = ServiceConfig::new("rr");
        config.full_nat.client_address = kind;
        let server = ServerConfig::full_nat(SocketAddr::new(place.server(), port));
        director.apply(Instant::ZERO, &Command::AddService(service, config))?;
        director.apply(Instant::ZERO, &Command::AddLocalAddress(service, place.local_address()))?;
        director.apply(Instant::ZERO, &Command::AddServer(service, server))?;
    }
    let answers_for = vec![place.virtual_endpoint(ASKING).ip(), place.local_address()];
    let options = AfPacketOptions { answers_for, ..AfPacketOptions::of_host("eth0")? };
    let arm = AfPacketDevice::open("eth0", &options)?.into_arm();
    let mut worker = Worker::new(director, arm, None)?;
    give_handle.send(worker.handle())?;
    ready();
    worker.run()?;
    let dropped = DropReason::ALL.iter().map(|reason| (reason, worker.director().drops(*reason)));
    let dropped: Vec<_> = dropped.filter(|(_, count)| *count > 0).collect();
    Ok(format!("{:?}, dropped: {dropped:?}", worker.counters()))
}
