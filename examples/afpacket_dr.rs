//! A direct-routing load balancer on one Ethernet device: requests pass it, answers go from the servers to the clients.
//!
//! ```text
//! cargo run --release -p lvs-examples --example afpacket_dr -- eth0 192.0.2.80:80 10.0.0.2 10.0.0.3
//! ```
//!
//! Needs root (CAP_NET_RAW). The virtual address belongs to no host's link: the director answers ARP and Neighbor
//! Discovery for it. Each server has it on `lo` and keeps quiet about it, which is one command there:
//! ```text
//! lvsd realserver start --vip 192.0.2.80
//! ```
//! Servers are neighbours of the director; clients come by a router, or are neighbours too.
use std::error::Error;
use std::net::{IpAddr, SocketAddr};

use lvs_core::{
    Command, Director, DirectorConfig, ForwardMethod, Instant, Protocol, Seed, ServerConfig, ServiceConfig, ServiceKey,
    Side,
};
use lvs_io::Worker;
use lvs_io_afpacket::{AfPacketDevice, AfPacketOptions, check};

fn main() {
    if let Err(error) = run() {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: afpacket_dr DEVICE VIRTUAL:PORT SERVER…";
    let name = arguments.next().ok_or(usage)?;
    let virtual_address: SocketAddr = arguments.next().ok_or(usage)?.parse()?;

    // The host's own stack receives the same packets. It must neither answer nor forward them.
    for finding in check::host(&name, &[virtual_address.ip()]) {
        eprintln!("warning: {finding}");
    }

    // A device finds its way as the host does, and speaks for the virtual address.
    let host = AfPacketOptions::of_host(&name)?;
    let side = Side::default().with(|side| {
        side.ipv4 = host.source_ipv4;
        side.ipv6 = host.source_ipv6;
    });
    let options = AfPacketOptions { answers_for: vec![virtual_address.ip()], ..host };
    let device = AfPacketDevice::open(&name, &options)?;
    println!("balancing {virtual_address} on {name} ({})", device.mac());

    // A director decides. It speaks of problems from the host's address.
    let mtu = u16::try_from(device.mtu()).unwrap_or(u16::MAX);
    let side = side.with(|side| side.mtu = mtu);
    let config = DirectorConfig::default().with(|config| {
        config.client_side = side;
        config.server_side = side;
    });
    let mut director = Director::new(config, Seed::new(std::process::id().into()));
    let service = ServiceKey::address(Protocol::Tcp, virtual_address);
    director.apply(Instant::ZERO, &Command::AddService(service, ServiceConfig::new("wlc")))?;
    for server in arguments {
        // The packet stays as it is, port and all: only its Ethernet header names the server.
        let address: IpAddr = server.parse()?;
        let mut server = ServerConfig::nat(SocketAddr::new(address, virtual_address.port()));
        server.forward = ForwardMethod::DirectRouting;
        director.apply(Instant::ZERO, &Command::AddServer(service, server))?;
    }

    // The loop. What is no service's is the host's, which has its own copy.
    let mut worker = Worker::new(director, device.into_arm(), None)?;
    worker.run()?;
    Ok(())
}
