//! A FullNAT load balancer on one Ethernet device: servers anywhere, with nothing set up on them. IPv6 clients reach
//! IPv4 servers too, where the virtual address is IPv6 and the local one IPv4.
//!
//! ```text
//! cargo run --release -p lvs-examples --example fullnat_gateway -- eth0 192.0.2.80:80 10.0.0.200 10.0.0.2:8080 10.1.0.3:8080
//! ```
//!
//! Needs root (CAP_NET_RAW). Servers see the local address (here 10.0.0.200) as their client, and answer to it. Neither
//! that nor the virtual address may belong to a host: the director answers ARP and Neighbor Discovery for both.
use std::error::Error;
use std::net::{IpAddr, SocketAddr};

use lvs_core::{
    Command, Director, DirectorConfig, ForwardMethod, Instant, Protocol, Seed, ServerConfig, ServiceConfig, ServiceKey,
    Side,
};
use lvs_io::Worker;
use lvs_io_afpacket::{AfPacketDevice, AfPacketOptions, check};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: fullnat_gateway DEVICE VIRTUAL:PORT LOCAL SERVER:PORT…";
    let name = arguments.next().ok_or(usage)?;
    let virtual_address: SocketAddr = arguments.next().ok_or(usage)?.parse()?;
    let local_address: IpAddr = arguments.next().ok_or(usage)?.parse()?;

    // Both addresses are the director's alone.
    let answers_for = vec![virtual_address.ip(), local_address];
    for finding in check::host(&name, &answers_for) {
        eprintln!("warning: {finding}");
    }
    let device = AfPacketDevice::open(&name, &AfPacketOptions { answers_for, ..AfPacketOptions::of_host(&name)? })?;
    println!("balancing {virtual_address} on {name}; servers see {local_address}");

    // A connection is a row with two keys: the client's, and a port of the local address.
    let side = Side::default().with(|side| side.mtu = u16::try_from(device.mtu()).unwrap_or(u16::MAX));
    let config = DirectorConfig::default().with(|config| {
        config.client_side = side;
        config.server_side = side;
    });
    let mut director = Director::new(config, Seed::new(std::process::id().into()));
    let service = ServiceKey::address(Protocol::Tcp, virtual_address);
    director.apply(Instant::ZERO, &Command::AddService(service, ServiceConfig::new("wlc")))?;
    director.apply(Instant::ZERO, &Command::AddLocalAddress(service, local_address))?;
    for server in arguments {
        let mut server = ServerConfig::nat(server.parse()?);
        server.forward = ForwardMethod::FullNat;
        director.apply(Instant::ZERO, &Command::AddServer(service, server))?;
    }

    let mut worker = Worker::new(director, device.into_arm(), None)?;
    worker.run()?;
    Ok(())
}
