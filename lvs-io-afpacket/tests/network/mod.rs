//! A small network for tests and benches: switches in the namespace of this process, and parties, threads in network
//! namespaces of their own, each plugged into one or more of them.

#![allow(dead_code)] // Not everybody needs everything.

use std::error::Error;
use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::mpsc;
use std::thread;

use lvs_io::netdev;
use lvs_io_tun::netns;

pub type Failure = Box<dyn Error + Send + Sync>;

/// One end of a cable in a party's namespace.
#[derive(Clone, Debug)]
pub struct Port {
    /// The device there.
    pub device: &'static str,
    /// The switch it is plugged into.
    pub switch: &'static str,
    /// Its addresses, with the prefixes of their networks.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Routes by way of it: networks, and gateways.
    pub routes: Vec<(IpAddr, u8, Option<IpAddr>)>,
}

impl Port {
    pub fn new(device: &'static str, switch: &'static str, addresses: &[impl AsRef<str>]) -> Self {
        Self {
            device,
            switch,
            addresses: addresses.iter().map(|text| network(text.as_ref())).collect(),
            routes: Vec::new(),
        }
    }

    pub fn route(mut self, to: &str, gateway: Option<&str>) -> Self {
        let (address, prefix) = network(to);
        self.routes.push((address, prefix, gateway.map(|text| text.parse().expect("a constant"))));
        self
    }
}

fn network(text: &str) -> (IpAddr, u8) {
    let (address, prefix) = text.split_once('/').expect("an address with a prefix");
    (address.parse().expect("a constant"), prefix.parse().expect("a constant"))
}

/// Makes a switch. The calling thread's namespace is where the cables meet.
pub fn add_switch(name: &str) -> Result<(), Failure> {
    netdev::add_bridge(name)?;
    Ok(netdev::set_up(name)?)
}

/// A thread in a network namespace of its own, waiting for the word to start.
pub struct Party<T> {
    thread: thread::JoinHandle<Result<T, Failure>>,
    start: mpsc::Sender<()>,
    ready: mpsc::Receiver<()>,
}

impl<T: Send + 'static> Party<T> {
    /// Makes a namespace called `name` with these ports; `act` will run there, and calls what it is given when others
    /// may turn to it.
    pub fn new(
        name: &str,
        ports: Vec<Port>,
        act: impl FnOnce(&dyn Fn()) -> Result<T, Failure> + Send + 'static,
    ) -> Result<Self, Failure> {
        let (give_namespace, namespace) = mpsc::channel();
        let (plugged_in, cables) = mpsc::channel();
        let (say_set_up, set_up) = mpsc::channel();
        let (start, started) = mpsc::channel();
        let (say_ready, ready) = mpsc::channel();
        let there = ports.clone();
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            give_namespace.send(enter())?;
            cables.recv()?;
            say_set_up.send(configure(&there))?;
            started.recv()?;
            act(&|| {
                // Nobody may wait for it.
                let _ = say_ready.send(());
            })
        })?;
        let namespace = namespace.recv()??;
        for (index, port) in ports.iter().enumerate() {
            let here = format!("{name}{index}");
            netdev::add_veth(&here, port.device, namespace.as_fd())?;
            netdev::set_bridge(&here, port.switch)?;
            netdev::set_up(&here)?;
        }
        plugged_in.send(())?;
        set_up.recv()??;
        Ok(Self { thread, start, ready })
    }

    /// Lets the party start and waits until it is ready for others.
    pub fn start(&self) -> Result<(), Failure> {
        self.start.send(())?;
        // An error: the party has ended already, `join` says why.
        let _ = self.ready.recv();
        Ok(())
    }

    /// Waits for the party's end.
    pub fn join(self) -> Result<T, Failure> {
        self.thread.join().expect("the party does not panic")
    }
}

fn enter() -> Result<File, Failure> {
    netns::enter_new_network_namespace()?;
    netdev::set_up("lo")?;
    Ok(File::open("/proc/thread-self/ns/net")?)
}

fn configure(ports: &[Port]) -> Result<(), Failure> {
    for port in ports {
        netdev::set_up(port.device)?;
        for (address, prefix) in &port.addresses {
            netdev::add_address(port.device, *address, *prefix)?;
        }
    }
    for port in ports {
        for (to, prefix, gateway) in &port.routes {
            match gateway {
                Some(gateway) => netdev::add_route_via(*to, *prefix, *gateway, port.device)?,
                None => netdev::add_route(*to, *prefix, port.device)?,
            }
        }
    }
    Ok(())
}
