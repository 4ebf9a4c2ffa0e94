//! The demo's network: clients and servers in a network namespace each, and between them, in this process, a director
//! that holds both TUN devices. Within a single namespace the kernel would route client to server over its loopback,
//! past the director.
//!
//! ```text
//!    clients' namespace              this process              servers' namespace
//!   ┌──────────────────┐       ┌──────────────────────┐       ┌──────────────────┐
//!   │ clients ── lvs0 ─┼─ fd ──┤ worker with director ├── fd ─┼─ lvs0 ── servers │
//!   └──────────────────┘       └──────────────────────┘       └──────────────────┘
//! ```

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::sync::Arc;
use std::sync::mpsc::{self, SyncSender};
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use lvs_core::Director;
use lvs_io::{Arm, MonotonicClock, Worker, WorkerHandle};
use lvs_io_tun::{TunOptions, TunQueue, netdev};

use super::namespaces::enter_network_namespace;
use super::plan::{self, InterfaceAddress};
use super::servers::Servers;
use crate::denied::Denied;

/// What a visit to the lab leaves behind.
#[derive(Debug)]
pub struct Visit<T> {
    /// What the clients returned.
    pub outcome: T,
    /// The worker, stopped, with the director and its counters as they were at the end.
    pub worker: Worker,
    /// The clock the worker went by.
    pub clock: MonotonicClock,
    /// Whether the worker ran until the clients were done, or a device failed under way.
    pub ended: io::Result<()>,
}

/// Puts `director` between clients and servers and runs `clients` on a thread in the clients' namespace; threads and
/// processes it starts are there too. When it returns, everything is taken down.
///
/// [`super::namespaces::enter_user_namespace`] must have been called.
///
/// # Errors
/// If a namespace, a TUN device, an address or a socket is denied: then no client has run.
pub fn visit<T: Send>(director: Director, clients: impl FnOnce() -> T + Send) -> Result<Visit<T>, Denied> {
    visit_shown(director, clients, |_, _| Ok(()))
}

/// The same, and hands the worker to `show` before it runs, on the thread and in the network that this was called in.
///
/// # Errors
/// As [`visit`], and what `show` says.
pub fn visit_shown<T: Send>(
    director: Director,
    clients: impl FnOnce() -> T + Send,
    show: impl FnOnce(WorkerHandle, MonotonicClock) -> Result<(), Denied>,
) -> Result<Visit<T>, Denied> {
    thread::scope(|scope| {
        let (server_arm, servers) = start_servers(scope)?;
        let clients = prepare_clients(scope, clients)?;
        let clock = MonotonicClock::new();
        let mut worker = Worker::new(director, clients.arm, Some(server_arm))
            .map_err(|cause| Denied::new("start the director", cause))?
            .with_clock(clock);
        show(worker.handle(), clock)?;
        // The thread waits for this: it cannot be gone.
        clients.start.send(StopOnDrop(worker.handle())).expect("the clients wait to be started");
        let ended = worker.run();
        let outcome = clients.thread.join();
        drop(servers);
        match outcome {
            Ok(outcome) => Ok(Visit { outcome: outcome.expect("it was started"), worker, clock, ended }),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// The servers' side: a namespace with every server in it, answering until the guard is dropped.
fn start_servers<'scope>(scope: &'scope Scope<'scope, '_>) -> Result<(Arm, CloseOnDrop), Denied> {
    let (ready, is_ready) = mpsc::sync_channel(1);
    scope.spawn(move || {
        let site = enter_site(&plan::server_addresses().collect::<Vec<_>>()).and_then(|arm| {
            let servers = Arc::new(Servers::listen()?);
            Ok((servers.clone(), (arm, CloseOnDrop(servers))))
        });
        match site {
            Ok((servers, site)) => {
                // If nobody waits any more, the guard is dropped and the servers are closed before they serve.
                let _ = ready.send(Ok(site));
                servers.serve();
            }
            Err(denied) => drop(ready.send(Err(denied))),
        }
    });
    is_ready.recv().expect("the thread always reports")
}

/// A namespace and, in it, clients that wait to be started.
struct WaitingClients<'scope, T> {
    arm: Arm,
    /// Starts the clients, and tells them which worker to stop when they are done.
    start: SyncSender<StopOnDrop>,
    /// What they return; `None` if they were never started.
    thread: ScopedJoinHandle<'scope, Option<T>>,
}

/// The clients' side.
fn prepare_clients<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    clients: impl FnOnce() -> T + Send + 'scope,
) -> Result<WaitingClients<'scope, T>, Denied> {
    let (ready, is_ready) = mpsc::sync_channel(1);
    let (start, is_started) = mpsc::sync_channel::<StopOnDrop>(1);
    let thread = scope.spawn(move || {
        let site = enter_site(&plan::CLIENTS);
        let is_usable = site.is_ok();
        let _ = ready.send(site);
        let _stop_at_the_end = is_usable.then(|| is_started.recv().ok()).flatten()?;
        Some(clients())
    });
    let arm = is_ready.recv().expect("the thread always reports")?;
    Ok(WaitingClients { arm, start, thread })
}

/// Moves this thread into a new network namespace with a TUN device that has `addresses` and leads everywhere.
fn enter_site(addresses: &[InterfaceAddress]) -> Result<Arm, Denied> {
    enter_network_namespace()?;
    let tun = TunQueue::open(DEVICE, &TunOptions::default())?;
    set_up_network(addresses).map_err(|error| Denied::described(&error))?;
    for InterfaceAddress { address, .. } in addresses {
        await_address(*address).map_err(|cause| Denied::new(format_args!("use the address {address}"), cause))?;
    }
    Ok(tun.into_arm())
}

fn set_up_network(addresses: &[InterfaceAddress]) -> io::Result<()> {
    netdev::set_up("lo")?;
    netdev::set_up(DEVICE)?;
    for InterfaceAddress { address, prefix_len } in addresses {
        netdev::add_address(DEVICE, *address, *prefix_len)?;
    }
    netdev::add_route(Ipv4Addr::UNSPECIFIED.into(), 0, DEVICE)?;
    netdev::add_route(Ipv6Addr::UNSPECIFIED.into(), 0, DEVICE)
}

/// Waits until a datagram to `address` from itself arrives. Linux routes packets to a new IPv6 address a moment after
/// it has confirmed the address, even without duplicate address detection; a SYN in between is lost, and repeated after
/// a whole second.
fn await_address(address: IpAddr) -> io::Result<()> {
    let socket = UdpSocket::bind((address, 0))?;
    let own = socket.local_addr()?;
    socket.connect(own)?;
    socket.set_read_timeout(Some(Duration::from_millis(1)))?;
    let deadline = Instant::now() + ADDRESS_TIMEOUT;
    loop {
        socket.send(b"?")?;
        match socket.recv(&mut [0]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {}
            outcome => return outcome.map(drop),
        }
    }
}

/// How long a new address may take: far longer than it does on a busy machine.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(5);

/// The TUN device's name in either namespace.
const DEVICE: &str = "lvs0";

/// Ends the worker when the clients are done, even by a panic.
struct StopOnDrop(WorkerHandle);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Ends the servers when the visit is over, however it ends.
struct CloseOnDrop(Arc<Servers>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}
