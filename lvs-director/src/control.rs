//! `lvsd` driven while it runs: a thread that answers at the control socket. It owns a *master director*, which never
//! sees a packet: commands are checked on it and then handed, in order, to every worker; packets never wait for one.
//!
//! | file | what it decides |
//! |---|---|
//! | `listener.rs` | where the socket is, who may use it, what becomes of one that is there already |
//! | `clients.rs` | conversations: when one is read, answered, or ended |
//! | `tables.rs` | what a command or a question comes to, over all workers |
//! | `addresses.rs` | addresses taken over and given up as services come and go |
//! | `journal.rs`, `overlay.rs` | what was set, kept for the next start; what is left of it when it has grown long |

mod addresses;
mod clients;
mod group;
pub mod journal;
mod listener;
mod overlay;
mod tables;

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use lvs_core::Director;
use lvs_io::{MonotonicClock, WorkerHandle};
use lvs_io_afpacket::AddressesHandle;

use self::addresses::Addresses;
use self::clients::Clients;
pub use self::group::group_number;
use self::listener::Listener;
pub use self::listener::{ListenError, default_path};
use self::tables::Tables;

/// What the control thread works with.
pub struct Setup {
    /// Where it listens.
    pub path: PathBuf,
    /// A director with the workers' rules and settings, which sees no packets.
    pub master: Director,
    /// The workers; none is right too.
    pub workers: Vec<WorkerHandle>,
    /// The workers' clock.
    pub clock: MonotonicClock,
    /// The addresses that the clients' device and the servers' answer for: one where it is the same device, none for TUN.
    pub addresses: Vec<AddressesHandle>,
    /// Where what is set is kept for the next start: see [`journal_path`].
    pub journal: Option<PathBuf>,
}

/// Where what a control socket sets is kept: beside it.
pub fn journal_path(control: &Path) -> PathBuf {
    control.with_extension("rules")
}

/// The running control thread. It ends when this is dropped.
#[derive(Debug)]
pub struct Control {
    stop: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl Control {
    /// Listens, and starts the thread.
    ///
    /// # Errors
    /// The socket cannot be had: the sentence says why.
    pub fn start(setup: Setup) -> Result<Self, ListenError> {
        let listener = Listener::open(&setup.path)?;
        let (stop, stopped) = UnixStream::pair().map_err(|cause| ListenError::new(&setup.path, cause))?;
        let journal = setup.journal.as_deref().map(journal::Journal::open).transpose();
        let journal =
            journal.map_err(|cause| ListenError::new(setup.journal.as_deref().unwrap_or(&setup.path), cause))?;
        let addresses = Addresses::new(&setup.master, setup.addresses);
        let tables = Tables::new(setup.master, setup.workers, setup.clock, addresses, journal);
        let thread = std::thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || Clients::new(listener, stopped, tables).serve())
            .map_err(|cause: io::Error| ListenError::new(&setup.path, cause))?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = (&self.stop).write(&[0]);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
