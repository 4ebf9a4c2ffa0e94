//! A small network of the kernel's, for tests: switches in the namespace of this process, and parties, threads in
//! network namespaces of their own, each plugged into one or more of them. What the kernel does not allow is said, and
//! skipped.

use std::error::Error;
use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::mpsc;
use std::thread;

use lvs_io::netdev;
use lvs_io_tun::netns::{self, Rerun, rerun_test_isolated};
use lvs_io_tun::{TunOptions, TunQueue};

/// Whatever went wrong.
pub type Failure = Box<dyn Error + Send + Sync>;

/// Runs `body` inside namespaces of its own, with `test` being the calling `#[test]`'s name, if `probe` says that what
/// it needs is to be had there. Otherwise prints a line that begins with `skipped: ` and cannot be overlooked: past the
/// test runner, which shows only what failing tests print.
///
/// # Panics
/// If `body` fails.
pub fn isolated<E: Display>(
    test: &str,
    probe: impl FnOnce() -> Result<(), E>,
    body: impl FnOnce() -> Result<(), Failure>,
) {
    let skipped = |reason: &dyn Display| {
        // Nobody may be listening.
        let _ = writeln!(io::stderr(), "skipped: {test}: {reason}");
    };
    match rerun_test_isolated(test) {
        Rerun::Inside => match probe() {
            Ok(()) => body().unwrap_or_else(|error| panic!("{error}")),
            Err(denied) => skipped(&denied),
        },
        Rerun::Passed => {}
        Rerun::Denied(reason) => skipped(&reason),
    }
}

/// Whether a TUN device can be made.
///
/// # Errors
/// Which step was denied.
pub fn tun_can_be_had() -> Result<(), Failure> {
    Ok(TunQueue::open("probe%d", &TunOptions::default()).map(drop)?)
}

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
    /// A port without routes; addresses are written with a prefix, `10.9.0.1/24`.
    ///
    /// # Panics
    /// If they are not.
    pub fn new(device: &'static str, switch: &'static str, addresses: &[impl AsRef<str>]) -> Self {
        Self {
            device,
            switch,
            addresses: addresses.iter().map(|text| network(text.as_ref())).collect(),
            routes: Vec::new(),
        }
    }

    /// The port with one more route: to a network, by a gateway or without.
    ///
    /// # Panics
    /// If something is no address, or lacks its prefix.
    #[must_use]
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

/// Makes a switch. The calling thread's namespace is where the cables meet: the cable of a party's first port is called
/// as the party with a 0 behind it, and so on.
///
/// # Errors
/// What the kernel denied.
pub fn add_switch(name: &str) -> Result<(), Failure> {
    netdev::add_bridge(name)?;
    Ok(netdev::set_up(name)?)
}

/// A thread in a network namespace of its own, waiting for the word to start.
#[derive(Debug)]
pub struct Party<T> {
    thread: thread::JoinHandle<Result<T, Failure>>,
    start: mpsc::Sender<()>,
    ready: mpsc::Receiver<()>,
}

impl<T: Send + 'static> Party<T> {
    /// Makes a namespace called `name` with these ports; `act` will run there, and calls what it is given when others
    /// may turn to it.
    ///
    /// # Errors
    /// What the kernel denied.
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
    ///
    /// # Errors
    /// If its thread is gone.
    pub fn start(&self) -> Result<(), Failure> {
        self.start.send(())?;
        // An error: the party has ended already, `join` says why.
        let _ = self.ready.recv();
        Ok(())
    }

    /// Waits for the party's end.
    ///
    /// # Errors
    /// What went wrong with it.
    ///
    /// # Panics
    /// If it has panicked.
    pub fn join(self) -> Result<T, Failure> {
        self.thread.join().expect("the party does not panic")
    }
}

fn enter() -> Result<File, Failure> {
    netns::enter_new_network_namespace()?;
    netdev::set_up("lo")?;
    // Link-local addresses are there at once: a kernel that forwards asks for neighbours from them (ip-sysctl). Without
    // IPv6 there is no such setting.
    let _ = fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0");
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
