//! One netlink socket of the program: a connection to `lvsd` in the kernel's place.
//!
//! The program never learns that `lvsd` may go away. A request that was not answered is sent again on a new connection;
//! where that is of no avail, an error is made up, as the kernel would word it. To read 0 bytes, which libnl takes for
//! success, never happens.

use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::io::{DupFlags, Errno, FdFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::{control, netlink};

/// A netlink socket's state. The descriptor itself is the program's.
pub struct Conversation {
    inner: Mutex<Inner>,
}

struct Inner {
    /// The netlink port id, which the program asks for by `getsockname`.
    port: u32,
    /// The request that has not been answered to its end.
    pending: Option<Request>,
    /// `lvsd` is not reached: answers are made here and written to this end of a pair.
    made_up: Option<OwnedFd>,
    /// Why it is not reached, if that will not pass: `EACCES` for users without the right to.
    refused: Option<Errno>,
}

struct Request {
    bytes: Vec<u8>,
    /// A part of the answer has been read: the request cannot be sent again without telling that part twice.
    is_begun: bool,
}

/// What is to be done after nothing could be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lost {
    /// Read again: the request was sent again, or an error lies ready.
    ReadAgain,
    /// Nothing was asked, so nothing will come.
    Nothing,
}

impl Conversation {
    /// A new netlink socket: the descriptor for the program, not closed on `exec` unless `flags` say so.
    ///
    /// # Errors
    /// `lvsd` is not there. A user who may not reach it gets a socket all the same, on which every request is refused.
    pub fn open(flags: SocketFlags) -> Result<(OwnedFd, Self), Errno> {
        // A socket file that nobody listens on is an lvsd's that is being restarted; none at all is no lvsd.
        let (socket, made_up, refused) = match control::dial_patiently(|error| error == Errno::CONNREFUSED) {
            Ok(socket) => (socket, None, None),
            Err(error @ (Errno::ACCESS | Errno::PERM)) => {
                let (ours, theirs) = pair()?;
                (theirs, Some(ours), Some(error))
            }
            Err(error) => {
                control::tell(&format!("lvsd does not answer at {}: {error}", control::path().display()));
                return Err(error);
            }
        };
        set_flags(&socket, flags)?;
        let inner = Inner { port: std::process::id(), pending: None, made_up, refused };
        Ok((socket, Self { inner: Mutex::new(inner) }))
    }

    /// The netlink port id.
    pub fn port(&self) -> u32 {
        self.lock().port
    }

    /// `bind`: 0 leaves the choice to the kernel, which takes the process id.
    pub fn set_port(&self, port: u32) {
        if port != 0 {
            self.lock().port = port;
        }
    }

    /// Sends a request.
    ///
    /// # Errors
    /// What a datagram socket may say: it is too long, or the socket does not block and `lvsd` is busy.
    pub fn send(&self, fd: RawFd, request: &[u8]) -> Result<(), Errno> {
        let mut inner = self.lock();
        inner.pending = Some(Request { bytes: request.to_vec(), is_begun: false });
        if inner.refused.is_some() {
            inner.refuse(request);
            return Ok(());
        }
        let outcome = if inner.made_up.is_some() { Err(Errno::NOTCONN) } else { control::send(borrow(fd), request) };
        match outcome {
            Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN | Errno::CONNREFUSED) => {
                inner.again(fd);
                Ok(())
            }
            outcome => outcome,
        }
    }

    /// Takes note of a datagram that the program has taken off the socket, by its first bytes.
    pub fn has_read(&self, start: &[u8]) {
        let mut inner = self.lock();
        let Some(pending) = &mut inner.pending else { return };
        let is_last = match netlink::answer(start) {
            netlink::Answer::Last => true,
            netlink::Answer::Part => false,
            netlink::Answer::Whole => !netlink::wants_ack(&pending.bytes),
        };
        pending.is_begun = true;
        if is_last {
            inner.pending = None;
        }
    }

    /// `lvsd` has gone away while the program waits for an answer.
    pub fn lost(&self, fd: RawFd) -> Lost {
        let mut inner = self.lock();
        if inner.pending.is_none() {
            return Lost::Nothing;
        }
        inner.again(fd);
        Lost::ReadAgain
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Sends what is pending on a new connection, or makes up its answer.
    fn again(&mut self, fd: RawFd) {
        let Some(pending) = self.pending.take() else { return };
        if !pending.is_begun
            && let Ok(socket) = control::dial_patiently(control::is_away)
            && control::send(&socket, &pending.bytes).is_ok()
            && become_socket(fd, &socket).is_ok()
        {
            self.made_up = None;
            self.pending = Some(pending);
            return;
        }
        let error = if pending.is_begun { Errno::CONNRESET } else { Errno::CONNREFUSED };
        self.make_up(fd, &netlink::error(&pending.bytes, error.raw_os_error()));
    }

    /// Puts a datagram where the program reads next.
    fn make_up(&mut self, fd: RawFd, datagram: &[u8]) {
        if let Some(ours) = self.made_up.take().or_else(|| {
            let (ours, theirs) = pair().ok()?;
            become_socket(fd, &theirs).ok()?;
            Some(ours)
        }) {
            let _ = control::send(&ours, datagram);
            self.made_up = Some(ours);
        }
    }

    /// Answers a user who may not reach `lvsd` as the kernel answers one who is not root: the family may be looked up,
    /// everything else is refused.
    fn refuse(&mut self, request: &[u8]) {
        let Some(ours) = &self.made_up else { return };
        for datagram in crate::tables::refusal(request) {
            let _ = control::send(ours, &datagram);
        }
    }
}

/// Makes `fd` another name of `socket`, with the flags it had.
fn become_socket(fd: RawFd, socket: &OwnedFd) -> Result<(), Errno> {
    let old = borrow(fd);
    let status = rustix::fs::fcntl_getfl(old)?;
    let flags =
        if rustix::io::fcntl_getfd(old)?.contains(FdFlags::CLOEXEC) { DupFlags::CLOEXEC } else { DupFlags::empty() };
    // SAFETY: the program's call is under way on this descriptor, so it is open; it is not closed here.
    let mut program = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(fd) });
    rustix::io::dup3(socket, &mut program, flags)?;
    rustix::fs::fcntl_setfl(borrow(fd), status)
}

fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// Sockets are dialled closed-on-exec and blocking; the program may want it otherwise.
fn set_flags(socket: &OwnedFd, flags: SocketFlags) -> Result<(), Errno> {
    if !flags.contains(SocketFlags::CLOEXEC) {
        rustix::io::fcntl_setfd(socket, FdFlags::empty())?;
    }
    if flags.contains(SocketFlags::NONBLOCK) {
        rustix::io::ioctl_fionbio(socket.as_fd(), true)?;
    }
    Ok(())
}

fn borrow(fd: RawFd) -> BorrowedFd<'static> {
    // SAFETY: used within a call of the program's on this descriptor, which stays open as long as the call lasts.
    unsafe { BorrowedFd::borrow_raw(fd) }
}
