//! Parties for tests and benches of the device: threads in network namespaces of their own, each reached by a TUN
//! device that this process holds.

use std::error::Error;
use std::net::IpAddr;
use std::sync::mpsc;
use std::thread;

use lvs_io_tun::{TunOptions, TunQueue, netdev, netns};

pub type Failure = Box<dyn Error + Send + Sync>;

/// A thread in a network namespace of its own, waiting for the word to start.
pub struct Party<T> {
    thread: thread::JoinHandle<Result<T, Failure>>,
    start: mpsc::Sender<()>,
    ready: mpsc::Receiver<()>,
}

impl<T: Send + 'static> Party<T> {
    /// Makes a namespace with a TUN device that everything is routed into and that has these addresses; `act` will run
    /// there, and calls what it is given when others may turn to it.
    pub fn new(
        options: TunOptions,
        addresses: Vec<IpAddr>,
        act: impl FnOnce(&dyn Fn()) -> Result<T, Failure> + Send + 'static,
    ) -> Result<(TunQueue, Self), Failure> {
        let (mut queues, party) = Self::with_queues(options, addresses, act)?;
        Ok((queues.remove(0), party))
    }

    /// The same, with as many queues as `options` say.
    pub fn with_queues(
        options: TunOptions,
        addresses: Vec<IpAddr>,
        act: impl FnOnce(&dyn Fn()) -> Result<T, Failure> + Send + 'static,
    ) -> Result<(Vec<TunQueue>, Self), Failure> {
        let (give, take) = mpsc::channel();
        let (start, started) = mpsc::channel();
        let (say_ready, ready) = mpsc::channel();
        let thread = thread::spawn(move || {
            give.send(device(options, &addresses)).expect("somebody waits");
            started.recv()?;
            act(&|| {
                // Nobody may wait for it.
                let _ = say_ready.send(());
            })
        });
        let queues = take.recv()??;
        Ok((queues, Self { thread, start, ready }))
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

fn device(options: TunOptions, addresses: &[IpAddr]) -> Result<Vec<TunQueue>, Failure> {
    netns::enter_new_network_namespace()?;
    let queues = TunQueue::open_all("lvs0", &options)?;
    netdev::set_up("lvs0")?;
    for address in addresses {
        netdev::add_address("lvs0", *address, if address.is_ipv4() { 32 } else { 128 })?;
    }
    if addresses.iter().any(IpAddr::is_ipv4) {
        netdev::add_route(IpAddr::from([0; 4]), 0, "lvs0")?;
    }
    if addresses.iter().any(IpAddr::is_ipv6) {
        netdev::add_route(IpAddr::from([0; 16]), 0, "lvs0")?;
    }
    Ok(queues)
}
