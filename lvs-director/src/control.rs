//! `lvsd` driven while it runs: a thread that answers at the control socket. It owns a *master director*, which never
//! sees a packet: commands are checked on it and then handed, in order, to every worker; packets never wait for one.
//!
//! | file | what it decides |
//! |---|---|
//! | `listener.rs` | where the socket is, who may use it, what becomes of one that is there already |
//! | `group.rs` | which group may read at a second socket |
//! | `clients.rs` | conversations: when one is read, answered, or ended |
//! | `places.rs` | how many programs may be connected, and who makes room |
//! | `asks.rs` | what the HTTP thread asks of the tables, piece by piece |
//! | `orders.rs` | what the control thread is told to do, beside what it hears at its sockets |
//! | `tables.rs` | what a command or a question comes to, over all workers |
//! | `owned.rs` | what is refused because the host owns the address |
//! | `transaction.rs` | many commands, all or none of them |
//! | `plan.rs` | what leads to other rules, and what connections it touches |
//! | `reload.rs` | what has changed in the files, carried out |
//! | `print.rs` | the tables as they are, printed |
//! | `addresses.rs` | addresses taken over and given up as services come and go |
//! | `drains.rs` | how the journal tells drains and load factors |
//! | `known.rs` | what workers are told of addresses, to tell replies from requests and to answer in a host's place |
//! | `journal.rs`, `overlay.rs` | what was set, kept for the next start; what is left of it when it has grown long |

mod addresses;
mod asks;
mod clients;
mod drains;
mod group;
pub mod journal;
mod known;
mod listener;
mod orders;
mod overlay;
pub mod owned;
mod places;
mod plan;
mod print;
mod reload;
mod tables;
mod transaction;

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use lvs_core::{Director, DirectorConfig};
use lvs_genl::server::SyncDaemons;
use lvs_io::{MonotonicClock, Steering, WorkerHandle};
use lvs_io_afpacket::{AddressesHandle, SourceCountersHandle};
use rustix::process::{Signal, getpid, kill_process};

use self::addresses::Addresses;
pub(crate) use self::asks::{Asker, Unanswered};
use self::clients::Clients;
pub use self::group::group_number;
use self::known::KnownAddresses;
pub use self::listener::{ListenError, Listener, default_path, lets_pass};
pub use self::orders::{Order, Orders};
pub(crate) use self::plan::{Plan, Touched, WrongLine};
pub(crate) use self::tables::{Peer, ROWS, Tables};
use crate::files::Files;
use crate::host_rules::HostRules;
use crate::say;

/// What the control thread works with.
pub struct Setup {
    /// The sockets it answers at; none is right too.
    pub listeners: Vec<Listener>,
    /// A director with the workers' rules and settings, which sees no packets.
    pub master: Director,
    /// What it was made with.
    pub config: DirectorConfig,
    /// The workers; none is right too.
    pub workers: Vec<WorkerHandle>,
    /// The workers' clock.
    pub clock: MonotonicClock,
    /// Which worker gets a packet.
    pub steering: Option<Steering>,
    /// The addresses that the clients' device and the servers' answer for: one where it is the same device, none for TUN.
    pub addresses: Vec<AddressesHandle>,
    /// What the queues of Ethernet devices count.
    pub queues: Vec<SourceCountersHandle>,
    /// What keeps the host quiet, where it owns the virtual addresses: the devices do not answer for them then.
    pub host_rules: Option<HostRules>,
    /// Where what is set is kept for the next start: see [`journal_path`].
    pub journal: Option<PathBuf>,
    /// The files that configured it, to be read again.
    pub files: Files,
}

/// Where what a control socket sets is kept: beside it.
pub fn journal_path(control: &Path) -> PathBuf {
    control.with_extension("rules")
}

/// The running control thread. It ends when this is dropped.
#[derive(Debug)]
pub struct Control {
    orders: Orders,
    asker: Asker,
    thread: Option<JoinHandle<()>>,
    has_failed: Arc<AtomicBool>,
}

impl Control {
    /// Starts the thread.
    ///
    /// # Errors
    /// What is set cannot be kept: the sentence says why.
    pub fn start(setup: Setup) -> Result<Self, ListenError> {
        let path = setup.journal.clone().unwrap_or_default();
        let failed = |cause: io::Error| ListenError::new(&path, cause);
        let (give, orders) = orders::pair().map_err(failed)?;
        let (asker, asks) = asks::pair(&give).map_err(failed)?;
        let journal = setup.journal.as_deref().map(journal::Journal::open).transpose().map_err(failed)?;
        let known = KnownAddresses::new(&setup.master, setup.host_rules.is_some());
        let addresses = Addresses::new(&setup.master, setup.addresses, setup.host_rules);
        let tables = Tables {
            master: setup.master,
            config: setup.config,
            workers: setup.workers,
            clock: setup.clock,
            steering: setup.steering,
            addresses,
            known,
            queues: setup.queues,
            journal,
            files: setup.files,
            daemons: SyncDaemons::default(),
            peer: None,
            printing: None,
            trial: None,
            remembered: VecDeque::new(),
            generation: first_generation(),
        };
        let listeners = setup.listeners;
        let has_failed = Arc::new(AtomicBool::new(false));
        let failing = Arc::clone(&has_failed);
        let thread = std::thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || {
                let serve = AssertUnwindSafe(|| Clients::new(listeners, orders, asks, tables).serve());
                if !catch_unwind(serve).unwrap_or(false) {
                    fail(&failing);
                }
            })
            .map_err(failed)?;
        Ok(Self { orders: give, asker, thread: Some(thread), has_failed })
    }

    /// Ends the thread.
    ///
    /// # Errors
    /// It had ended by a fault of its own.
    pub fn end(self) -> Result<(), String> {
        let has_failed = Arc::clone(&self.has_failed);
        drop(self);
        if has_failed.load(Ordering::Acquire) {
            return Err("stopped: the control thread has ended, which is a fault in lvsd".to_owned());
        }
        Ok(())
    }

    /// What gives it orders.
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub fn orders(&self) -> io::Result<Orders> {
        self.orders.try_clone()
    }

    /// What asks it.
    pub(crate) fn asker(&self) -> Asker {
        self.asker.clone()
    }
}

/// A generation that no `lvsd` before this one has had, as long as none changes more than once a millisecond: the time, in
/// milliseconds since 1970. A number of JSON holds it exactly (RFC 8259 §6).
fn first_generation() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or_default()
}

/// The control thread has ended though nobody told it to: a director that nobody can drive ends, and whoever watches over
/// it starts another.
fn fail(has_failed: &AtomicBool) {
    say::error("the control thread has ended, which is a fault in lvsd: it ends");
    has_failed.store(true, Ordering::Release);
    // As if it had been told from outside: every other thread ends as it does then.
    let _ = kill_process(getpid(), Signal::TERM);
}

impl Drop for Control {
    fn drop(&mut self) {
        self.orders.give(Order::End);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
