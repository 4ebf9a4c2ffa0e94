//! A director behind a control socket, without packets: a peer for the tests of programs that ask one. Keeps every
//! request it is sent, in order.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lvs_core::{Director, DirectorConfig, Instant, Seed};
use lvs_genl::server::{Access, Master, Session, SyncDaemons};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

/// A director that answers at a socket until the process ends.
///
/// ```
/// let served = lvs_testkit::served::Served::start(Default::default());
/// assert!(served.path().exists());
/// ```
#[derive(Debug)]
pub struct Served {
    folder: PathBuf,
    state: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// A request was answered.
    answered: Condvar,
}

struct State {
    director: Director,
    daemons: SyncDaemons,
    requests: Vec<Vec<u8>>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("requests", &self.requests.len()).finish_non_exhaustive()
    }
}

impl Served {
    /// Starts one at a path of its own.
    ///
    /// # Panics
    /// If the machine lends no socket.
    pub fn start(config: DirectorConfig) -> Self {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("lvs-served-{}-{count}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder for the socket");
        let state =
            State { director: Director::new(config, Seed::new(1)), daemons: SyncDaemons::default(), requests: vec![] };
        let served = Self { folder, state: Arc::new(Shared { state: Mutex::new(state), answered: Condvar::new() }) };
        let listener = listen(&served.path());
        let state = Arc::clone(&served.state);
        std::thread::spawn(move || {
            while let Ok(client) = rustix::net::accept_with(&listener, SocketFlags::CLOEXEC) {
                let state = Arc::clone(&state);
                std::thread::spawn(move || converse(&client, &state));
            }
        });
        served
    }

    /// Where it answers.
    pub fn path(&self) -> PathBuf {
        self.folder.join("control.sock")
    }

    /// The datagrams it was sent since this was last asked, in order.
    pub fn requests(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut lock(&self.state).requests)
    }

    /// Waits until what programs ask has made `is_so` true, for `limit` at most; says whether it is.
    pub fn wait_until(&self, limit: Duration, mut is_so: impl FnMut(&mut Director) -> bool) -> bool {
        let state = lock(&self.state);
        let outcome = self.state.answered.wait_timeout_while(state, limit, |state| !is_so(&mut state.director));
        !outcome.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Does something with the director.
    pub fn with<R>(&self, job: impl FnOnce(&mut Director) -> R) -> R {
        job(&mut lock(&self.state).director)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn listen(path: &Path) -> OwnedFd {
    let address = SocketAddrUnix::new(path).expect("a short path");
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .expect("a socket");
    rustix::net::bind(&socket, &address).expect("a path of its own");
    rustix::net::listen(&socket, 128).expect("a socket that listens");
    socket
}

fn converse(client: &OwnedFd, state: &Shared) {
    let mut session = Session::new(Access::Full);
    let (mut buffer, mut answer) = (vec![0; 1 << 16], Vec::new());
    while let Ok((len @ 1.., _)) = rustix::net::recv(client, &mut buffer[..], RecvFlags::empty()) {
        lock(state).requests.push(buffer[..len].to_vec());
        if session.receive(&buffer[..len]).is_err() {
            return;
        }
        loop {
            let is_answer = {
                let state = &mut *lock(state);
                let mut table = Master::new(&mut state.director, &mut state.daemons, Instant::ZERO);
                session.next_datagram(&mut table, &mut answer)
            };
            if !is_answer {
                break;
            }
            state.answered.notify_all();
            if rustix::net::send(client, &answer, SendFlags::NOSIGNAL).is_err() {
                return;
            }
        }
    }
}

fn lock(state: &Shared) -> MutexGuard<'_, State> {
    state.state.lock().unwrap_or_else(PoisonError::into_inner)
}
