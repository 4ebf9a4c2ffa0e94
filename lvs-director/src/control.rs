//! `lvsd` driven while it runs: a thread that answers at the control socket. It owns a *master director*, which never
//! sees a packet: commands are checked on it and then handed, in order, to every worker; packets never wait for one.
//!
//! | file | what it decides |
//! |---|---|
//! | `listener.rs` | where the socket is, who may use it, what becomes of one that is there already |
//! | `clients.rs` | conversations: when one is read, answered, or ended |
//! | `tables.rs` | what a command or a question comes to, over all workers |

mod clients;
mod listener;
mod tables;

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread::JoinHandle;

use lvs_core::Director;
use lvs_io::{MonotonicClock, WorkerHandle};

use self::clients::Clients;
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
        let tables = Tables::new(setup.master, setup.workers, setup.clock);
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
