//! The control socket: dialling it, dialling it again.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

/// The path of the control socket.
pub fn path() -> PathBuf {
    lvs_client::socket::path(None)
}

/// Connects to `lvsd`; where this user may not, to the socket beside it where members of a group may read. Closed on `exec`.
pub fn dial() -> Result<OwnedFd, Errno> {
    match dial_at(&path()) {
        Err(Errno::ACCESS) => dial_at(&lvs_client::socket::read_path(&path())).map_err(|_| Errno::ACCESS),
        outcome => outcome,
    }
}

fn dial_at(path: &Path) -> Result<OwnedFd, Errno> {
    let address = SocketAddrUnix::new(path)?;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    rustix::net::connect(&socket, &address)?;
    Ok(socket)
}

/// Connects to an `lvsd` that is being restarted: tries again for [`PATIENCE`] at most, as long as `worth_it` says that
/// the error may pass.
pub fn dial_patiently(worth_it: impl Fn(Errno) -> bool) -> Result<OwnedFd, Errno> {
    let end = Instant::now() + PATIENCE;
    loop {
        match dial() {
            Err(error) if worth_it(error) && Instant::now() < end => std::thread::sleep(PAUSE),
            outcome => return outcome,
        }
    }
}

/// Nobody listens, or the socket is not there: an `lvsd` between its end and its next start.
pub fn is_away(error: Errno) -> bool {
    matches!(error, Errno::CONNREFUSED | Errno::NOENT | Errno::AGAIN)
}

/// Sends one datagram. Waits while `lvsd` has much to read, never raises SIGPIPE.
pub fn send(socket: impl AsFd, datagram: &[u8]) -> Result<(), Errno> {
    loop {
        match rustix::net::send(&socket, datagram, SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            outcome => return outcome.map(drop),
        }
    }
}

/// A line to the user, on standard error, by a plain system call: the C library's buffers are the program's.
pub fn tell(sentence: &str) {
    let line = format!("lvs: {sentence}\n");
    // SAFETY: standard error is the process's own for its whole life; a closed one only makes the write fail.
    let stderr = unsafe { std::os::fd::BorrowedFd::borrow_raw(2) };
    let _ = rustix::io::write(stderr, line.as_bytes());
}

/// How long an `lvsd` that went away is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);
