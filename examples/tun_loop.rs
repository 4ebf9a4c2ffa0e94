//! A NAT load balancer on one TUN device, as a library user writes it.
//!
//! ```text
//! cargo run --release -p lvs-examples --example tun_loop -- lvs0 192.0.2.80:80 10.0.0.2:80 10.0.0.3:80
//! ```
//!
//! While it runs (the device lives as long as it does), in another terminal, as root. The machine is a router:
//! `sysctl net.ipv4.ip_forward=1`. What is for the virtual address goes into the device, and so do the servers' replies
//! (here they come in by eth1):
//! ```text
//! ip link set lvs0 up; ip route add 192.0.2.80 dev lvs0
//! ip route add default dev lvs0 table 80; ip rule add iif eth1 from 10.0.0.0/24 lookup 80
//! ```
use std::error::Error;
use std::net::SocketAddr;

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
    let usage = "usage: tun_loop DEVICE VIRTUAL:PORT SERVER:PORT…";
    let device = arguments.next().ok_or(usage)?;
    let virtual_address: SocketAddr = arguments.next().ok_or(usage)?.parse()?;

    // A director decides; it owns no socket and reads no clock.
    let mut director = Director::new(DirectorConfig::default(), Seed::new(std::process::id().into()));
    let service = ServiceKey::address(Protocol::Tcp, virtual_address);
    director.apply(Instant::ZERO, &Command::AddService(service, ServiceConfig::new("wlc")))?;
    for server in arguments {
        director.apply(Instant::ZERO, &Command::AddServer(service, ServerConfig::nat(server.parse()?)))?;
    }

    // A device carries: packets of up to 64 KiB, checksums left to the hardware behind it.
    let queue = TunQueue::open(&device, &TunOptions::default())?;
    println!("balancing {virtual_address} on {} ({:?})", queue.name(), queue.offloads());

    // What is no service's is answered as a host with the virtual address would: pings, closed ports.
    let host = HostConfig { local_addresses: vec![virtual_address.ip()], ..HostConfig::default() };
    let on_pass = OnPass::Route(Box::new(Host::new(host, Seed::new(1))));

    // The loop: receive, decide, send, keep the timers. `worker.handle()` steers it from other threads.
    let mut worker = Worker::new(director, queue.into_arm(), None)?.with_on_pass(on_pass);
    worker.run()?;
    Ok(())
}
