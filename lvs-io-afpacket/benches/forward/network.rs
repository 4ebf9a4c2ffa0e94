//! Three namespaces in a row, client, director and server, joined by two veth pairs; and a thread in each.

use std::error::Error;
use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::mpsc;
use std::thread;

use lvs_io::l2::MacAddress;
use lvs_io::netdev;
use lvs_io_tun::netns;

use crate::director::{self, Running};
use crate::{Way, transfer};

pub type Failure = Box<dyn Error + Send + Sync>;

pub const CLIENT: &str = "203.0.113.7";
pub const SERVER: &str = "10.9.0.11";
pub const VIRTUAL: &str = "192.0.2.80";
/// The director's host.
pub const HOST: [&str; 2] = ["203.0.113.1", "10.9.0.1"];
/// The director itself, where it is a station of its own.
pub const STATION: [&str; 2] = ["203.0.113.2", "10.9.0.2"];
/// Where floods end: behind the server's device, whose stack takes them for somebody else's and drops them at once.
pub const SWALLOWER: &str = "10.9.0.99";
pub const SWALLOWER_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 0x99]);

/// Whom the client turns to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    Server,
    Virtual,
}

/// The network of one way.
pub struct Network {
    pub client: Place,
    pub server: Place,
    pub target: Target,
    /// By whom the client reaches others.
    pub gateway: IpAddr,
    /// The program that forwards, if it is not the kernel. Ends with the network.
    pub running: Option<Running>,
    _director: Place,
}

impl Network {
    /// Builds it and lets `way` forward.
    pub fn new(way: Way) -> Result<Self, Failure> {
        let (client, client_namespace) = Place::new()?;
        let (server, server_namespace) = Place::new()?;
        let (director, _) = Place::new()?;
        director.run(move || {
            for (device, namespace, address) in
                [("eth0", client_namespace, HOST[0]), ("eth1", server_namespace, HOST[1])]
            {
                netdev::add_veth(device, "eth0", namespace.as_fd())?;
                netdev::set_up(device)?;
                netdev::add_address(device, address.parse()?, 24)?;
            }
            Ok(netdev::set_neighbour("eth1", SWALLOWER.parse()?, SWALLOWER_MAC)?)
        })?;
        let gateways = if matches!(way, Way::AfPacket(..)) { STATION } else { HOST };
        client.run(move || configure(CLIENT, gateways[0]))?;
        server.run(move || configure(SERVER, gateways[1]))?;
        server.run(transfer::serve)?;
        let running = director.run(move || director::forward(way))?;
        let (target, gateway) = (way.target(), gateways[0].parse()?);
        Ok(Self { client, server, target, gateway, running, _director: director })
    }
}

fn configure(address: &str, gateway: &str) -> Result<(), Failure> {
    netdev::set_up("eth0")?;
    netdev::add_address("eth0", address.parse()?, 24)?;
    Ok(netdev::add_route_via([0; 4].into(), 0, gateway.parse()?, "eth0")?)
}

type Errand = Box<dyn FnOnce() + Send>;

/// A thread in a network namespace of its own, to run things in.
pub struct Place {
    errands: mpsc::Sender<Errand>,
}

impl Place {
    fn new() -> Result<(Self, File), Failure> {
        let (errands, waiting) = mpsc::channel::<Errand>();
        let (give, namespace) = mpsc::channel();
        thread::spawn(move || {
            let entered = netns::enter_new_network_namespace().and_then(|()| File::open("/proc/thread-self/ns/net"));
            give.send(entered).expect("somebody waits");
            for errand in waiting {
                errand();
            }
        });
        Ok((Self { errands }, namespace.recv()??))
    }

    pub fn run<T: Send + 'static>(
        &self,
        errand: impl FnOnce() -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let (give, outcome) = mpsc::channel();
        // Nobody may wait for it.
        self.errands.send(Box::new(move || drop(give.send(errand())))).map_err(|_| "the place is closed")?;
        outcome.recv()?
    }
}

/// Keeps the calling thread on one processor; where that is denied, or there is only one, it stays where it is.
pub fn pin(processor: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(processor);
    let _ = rustix::thread::sched_setaffinity(None, &set);
}
