//! The director of a row: its services, and its devices, of either backend.

use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

use lvs_core::service::ClientAddress;
use lvs_core::service::stats::Counters as Statistics;
use lvs_core::{
    Command, Director, DirectorConfig, ForwardMethod, Instant, PacketBuf, Protocol, Seed, ServerConfig, ServiceConfig,
    ServiceKey, Side,
};
use lvs_io::tap::{Seen, Tap};
use lvs_io::{Arm, Counters, PacketSink, SinkOffloads, Worker, WorkerHandle, netdev};
use lvs_io_afpacket::{AfPacketDevice, AfPacketOptions, check};
use lvs_io_tun::{TunOptions, TunQueue};
use lvs_testkit::network::Failure;

use crate::ground::{SERVERS, become_a_router, received_by};
use crate::rows::{Backend, Method, Row};
use crate::wire::{Capture, Wire};

/// What a director did, and what arrived at its port.
#[derive(Debug)]
pub struct Directed {
    pub counters: Counters,
    pub statistics: Statistics,
    /// ICMP and ICMPv6 messages to the client: that packets do not fit into the tunnel.
    pub icmp_errors: u64,
    /// On the cable towards the servers: packets, and bytes, link headers included.
    pub wire: Wire,
    pub received: u64,
}

/// Runs the row's director in the calling thread's namespace until the handle it sends says stop.
pub fn run(row: Row, give_handle: &mpsc::Sender<WorkerHandle>, ready: &dyn Fn()) -> Result<Directed, Failure> {
    let device = row.director_ports().last().ok_or("a port")?.device;
    let capture = Capture::start(device)?;
    let (client_arm, server_arm) = match row.backend {
        Backend::AfPacket => ethernet(&row)?,
        Backend::Tun => tun(&row)?,
    };
    let icmp_errors = IcmpErrors::default();
    let mut worker = Worker::new(director(&row)?, client_arm.with_tap(icmp_errors.clone()), server_arm)?;
    give_handle.send(worker.handle())?;
    ready();
    worker.run()?;
    Ok(Directed {
        counters: worker.counters().clone(),
        statistics: worker.director().statistics().live,
        icmp_errors: icmp_errors.0.load(Ordering::Relaxed),
        wire: capture.stop()?,
        received: received_by(device)?,
    })
}

fn director(row: &Row) -> Result<Director, Failure> {
    let [ipv4, ipv6] = row.director_addresses();
    let (IpAddr::V4(ipv4), IpAddr::V6(ipv6)) = (ipv4, ipv6) else { return Err("one of each family".into()) };
    let side = Side::default().with(|side| {
        side.ipv4 = Some(ipv4);
        side.ipv6 = Some(ipv6);
    });
    let config = DirectorConfig::default().with(|config| {
        config.client_side = side;
        config.server_side = side;
    });
    let mut director = Director::new(config, Seed::new(1));
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let service = ServiceKey::address(protocol, row.virtual_address());
        let mut config = ServiceConfig::new("rr");
        if (row.method, protocol) == (Method::FullNat, Protocol::Tcp) {
            config.full_nat.client_address = ClientAddress::Toa;
        }
        director.apply(Instant::ZERO, &Command::AddService(service, config))?;
        if row.method == Method::FullNat {
            director.apply(Instant::ZERO, &Command::AddLocalAddress(service, row.local_address()))?;
        }
        for index in 0..SERVERS.len() {
            director.apply(Instant::ZERO, &Command::AddServer(service, server_config(row, index)))?;
        }
    }
    Ok(director)
}

fn server_config(row: &Row, index: usize) -> ServerConfig {
    let at = row.server(index);
    match row.method {
        Method::Nat => ServerConfig::nat(at),
        Method::DirectRouting => ServerConfig::new(at, ForwardMethod::DirectRouting),
        Method::Tunnel(config) => {
            let mut server = ServerConfig::new(at, ForwardMethod::Tunnel);
            server.tunnel = config;
            server
        }
        Method::FullNat => ServerConfig::full_nat(at),
    }
}

fn ethernet(row: &Row) -> Result<(Arm, Option<Arm>), Failure> {
    let mut arms = Vec::new();
    for (index, port) in row.director_ports().iter().enumerate() {
        let answers_for = if index == 0 { row.answered_addresses() } else { Vec::new() };
        assert_eq!(check::host(port.device, &answers_for), []);
        let options = AfPacketOptions { answers_for, ..AfPacketOptions::of_host(port.device)? };
        arms.push(AfPacketDevice::open(port.device, &options)?.into_arm());
    }
    let mut arms = arms.into_iter();
    Ok((arms.next().ok_or("a device")?, arms.next()))
}

/// One TUN device for each of the host's, and what comes by the one goes into the other. A TUN device knows no next
/// hops; direct routing, where nothing but the next hop names the server, takes one for each server, with a route.
fn tun(row: &Row) -> Result<(Arm, Option<Arm>), Failure> {
    become_a_router()?;
    let mut arms = Vec::new();
    for (table, port) in (100..).zip(row.director_ports()) {
        let name = format!("lvs{table}");
        arms.push(open_tun(&name)?);
        netdev::divert(port.device, &name, table)?;
    }
    if row.method == Method::DirectRouting {
        let mut to_servers = Vec::new();
        let mut source = None;
        for (index, table) in (0..SERVERS.len()).zip(200..) {
            let (name, server) = (format!("lvs{table}"), row.server(index).ip());
            let arm = open_tun(&name)?;
            netdev::divert_to(&name, server, "eth0", table)?;
            to_servers.push((server, arm.sink));
            source = Some(arm.source);
        }
        arms.push(Arm { source: source.ok_or("a server")?, sink: Box::new(ByNextHop(to_servers)) });
    }
    let mut arms = arms.into_iter();
    Ok((arms.next().ok_or("a device")?, arms.next()))
}

fn open_tun(name: &str) -> Result<Arm, Failure> {
    let arm = TunQueue::open(name, &TunOptions::default())?.into_arm();
    netdev::set_up(name)?;
    Ok(arm)
}

/// A device for each server.
struct ByNextHop(Vec<(IpAddr, Box<dyn PacketSink>)>);

impl PacketSink for ByNextHop {
    fn send(&mut self, packet: &mut PacketBuf<'_>, next_hop: IpAddr) -> io::Result<()> {
        let sink = self.0.iter_mut().find(|(server, _)| *server == next_hop);
        sink.ok_or(io::ErrorKind::HostUnreachable)?.1.send(packet, next_hop)
    }

    fn offloads(&self) -> SinkOffloads {
        self.0.first().map_or(SinkOffloads::default(), |(_, sink)| sink.offloads())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.iter_mut().try_for_each(|(_, sink)| sink.flush())
    }
}

/// Counts ICMP and ICMPv6 messages to the client.
#[derive(Clone, Default)]
struct IcmpErrors(Arc<AtomicU64>);

impl Tap for IcmpErrors {
    fn packet(&mut self, seen: Seen, packet: &PacketBuf<'_>) {
        let bytes = packet.bytes();
        // Protocol (RFC 791 §3.1) and next header (RFC 8200 §3).
        let is_icmp = if bytes[0] >> 4 == 4 { bytes[9] == 1 } else { bytes[6] == 58 };
        self.0.fetch_add(u64::from(seen == Seen::Sent && is_icmp), Ordering::Relaxed);
    }
}
