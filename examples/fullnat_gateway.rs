//! A FullNAT gateway on one TUN device: servers see the gateway's local address as their client and need neither a route
//! through it nor an address of the service; whom they really serve they learn from a TCP option (TOA).
//!
//! ```text
//! cargo run --release -p lvs-examples --example fullnat_gateway -- lvs0 192.0.2.80:80 10.0.0.200 10.0.0.2:80 10.0.0.3:80
//! ```
//!
//! While it runs (the device lives as long as it does), in another terminal, as root. The machine is a router:
//! `sysctl net.ipv4.ip_forward=1`. Requests are for the virtual address, replies for the local one; both go into the
//! device. No policy routing. Servers may be anywhere, as long as packets for the local address come here; for those
//! that are its neighbours (here by eth1) the machine answers ARP:
//! ```text
//! ip link set lvs0 up; ip route add 192.0.2.80 dev lvs0; ip route add 10.0.0.200 dev lvs0
//! ip neighbour add proxy 10.0.0.200 dev eth1
//! ```
//! IPv6 clients may have IPv4 servers: `-- lvs0 [2001:db8::80]:80 10.0.0.200 10.0.0.2:80`, and
//! `sysctl net.ipv6.conf.all.forwarding=1`.
use std::error::Error;
use std::net::{IpAddr, SocketAddr};

use lvs_core::service::ClientAddress;
use lvs_core::{Command, Director, DirectorConfig, Instant, Protocol, Seed, ServerConfig, ServiceConfig, ServiceKey};
use lvs_io::{Host, HostConfig, OnPass, Worker};
use lvs_io_tun::{TunOptions, TunQueue};

fn main() {
    if let Err(error) = run() {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: fullnat_gateway DEVICE VIRTUAL:PORT LOCAL SERVER:PORT…";
    let device = arguments.next().ok_or(usage)?;
    let virtual_address: SocketAddr = arguments.next().ok_or(usage)?.parse()?;
    let local_address: IpAddr = arguments.next().ok_or(usage)?.parse()?;

    // How servers learn their clients' addresses is the service's business.
    let mut config = ServiceConfig::new("wlc");
    config.full_nat.client_address = ClientAddress::Toa;
    let service = ServiceKey::address(Protocol::Tcp, virtual_address);
    let mut director = Director::new(DirectorConfig::default(), Seed::new(std::process::id().into()));
    director.apply(Instant::ZERO, &Command::AddService(service, config))?;

    // Requests leave with this source, and a port that no other connection to the same server has. One local address
    // is enough for 60,000 connections to each server, more of them for more.
    director.apply(Instant::ZERO, &Command::AddLocalAddress(service, local_address))?;
    for server in arguments {
        director.apply(Instant::ZERO, &Command::AddServer(service, ServerConfig::full_nat(server.parse()?)))?;
    }

    // Pings and closed ports of both addresses are answered as a host that has them would.
    let host = HostConfig { local_addresses: vec![virtual_address.ip(), local_address], ..HostConfig::default() };
    let on_pass = OnPass::Route(Box::new(Host::new(host, Seed::new(1))));

    // One arm: clients and servers are behind the same device.
    let queue = TunQueue::open(&device, &TunOptions::default())?;
    println!("balancing {virtual_address} on {} as {local_address}", queue.name());
    let mut worker = Worker::new(director, queue.into_arm(), None)?.with_on_pass(on_pass);
    worker.run()?;
    Ok(())
}
