//! The control socket: a unix socket that keeps datagrams apart (`SOCK_SEQPACKET`). Decides where it is and how long a
//! restart of `lvsd` is waited for.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

/// Where `lvsd` listens unless it is told otherwise.
pub const DEFAULT_PATH: &str = "/run/lvs/control.sock";

/// The environment's word for another place: for `lvsd`, `lvsadm` and the preload alike.
pub const VARIABLE: &str = "LVS_CONTROL";

/// `given`, else the environment's, else [`DEFAULT_PATH`].
pub fn path(given: Option<&Path>) -> PathBuf {
    let named = || std::env::var_os(VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
    given.map(Path::to_owned).or_else(named).unwrap_or_else(|| DEFAULT_PATH.into())
}

/// The socket beside that at `path` where a group may read, if `lvsd` was told of one.
pub fn read_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".read");
    name.into()
}

/// A connection to `lvsd`.
#[derive(Debug)]
pub struct Socket {
    socket: OwnedFd,
    path: PathBuf,
    buffer: Vec<u8>,
}

/// `lvsd` cannot be reached, or went away.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unreachable {
    path: PathBuf,
    /// What the system said.
    pub cause: Errno,
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match self.cause {
            Errno::ACCESS | Errno::PERM => {
                write!(f, "you may not use the control socket {path}: ask as its owner, or as root")
            }
            Errno::NOENT | Errno::CONNREFUSED => {
                write!(f, "no lvsd listens at {path}: start one, or name its socket with {VARIABLE}")
            }
            Errno::CONNRESET => write!(f, "lvsd has closed the connection to {path}"),
            cause => write!(f, "cannot talk to lvsd at {path}: {cause}"),
        }
    }
}

impl std::error::Error for Unreachable {}

impl Unreachable {
    /// Whether nobody listens there, so that somebody who starts may yet.
    pub fn is_nobody(&self) -> bool {
        matches!(self.cause, Errno::NOENT | Errno::CONNREFUSED)
    }
}

impl Socket {
    /// Connects; where this user may not, to the socket beside it where members of a group may read ([`read_path`]).
    ///
    /// # Errors
    /// [`Unreachable`]. A socket file that nobody listens on is that of an `lvsd` on its way: it is waited for, five
    /// seconds at most.
    pub fn connect(path: &Path) -> Result<Self, Unreachable> {
        let end = Instant::now() + PATIENCE;
        loop {
            match Self::connect_once(path) {
                Err(Unreachable { cause: Errno::CONNREFUSED, .. }) if Instant::now() < end => std::thread::sleep(PAUSE),
                Err(denied @ Unreachable { cause: Errno::ACCESS, .. }) => {
                    return Self::connect_once(&read_path(path)).map_err(|_| denied);
                }
                outcome => return outcome,
            }
        }
    }

    fn connect_once(path: &Path) -> Result<Self, Unreachable> {
        let failed = |cause| Unreachable { path: path.to_owned(), cause };
        let address = SocketAddrUnix::new(path).map_err(failed)?;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(failed)?;
        rustix::net::connect(&socket, &address).map_err(failed)?;
        Ok(Self { socket, path: path.to_owned(), buffer: vec![0; DATAGRAM_MAX] })
    }

    /// Sends a datagram.
    ///
    /// # Errors
    /// [`Unreachable`] if `lvsd` has gone away.
    pub fn send(&self, datagram: &[u8]) -> Result<(), Unreachable> {
        loop {
            match rustix::net::send(&self.socket, datagram, SendFlags::NOSIGNAL) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::PIPE) => return Err(self.failed(Errno::CONNRESET)),
                Err(cause) => return Err(self.failed(cause)),
            }
        }
    }

    /// Waits for a datagram.
    ///
    /// # Errors
    /// [`Unreachable`] if `lvsd` has gone away.
    pub fn receive(&mut self) -> Result<&[u8], Unreachable> {
        let len = loop {
            match rustix::net::recv(&self.socket, &mut self.buffer[..], RecvFlags::empty()) {
                Ok((0, _)) => return Err(self.failed(Errno::CONNRESET)),
                Ok((len, _)) => break len,
                Err(Errno::INTR) => {}
                Err(cause) => return Err(self.failed(cause)),
            }
        };
        Ok(&self.buffer[..len])
    }

    fn failed(&self, cause: Errno) -> Unreachable {
        Unreachable { path: self.path.clone(), cause }
    }
}

const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);

/// `lvsd`'s datagrams are as long as libnl's buffer takes; room for a single longer message.
const DATAGRAM_MAX: usize = 1 << 16;
