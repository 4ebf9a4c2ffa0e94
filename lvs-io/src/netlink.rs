//! Rtnetlink messages (RFC 3549 §2.3.2): written, sent, and their answer waited for. Knows no kind of message;
//! `netdev.rs` and `links.rs` do.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// Length of the header before each message.
pub(crate) const HEADER_LEN: usize = 16;

/// A socket for messages of the calling thread's network namespace.
pub(crate) fn socket() -> io::Result<OwnedFd> {
    // Protocol 0 of this family is NETLINK_ROUTE.
    Ok(rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?)
}

/// A message being written: header, fixed part, attributes.
pub(crate) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// A message that changes something and wants to be acknowledged.
    pub(crate) fn new(kind: u16, flags: i32) -> Self {
        Self::with_flags(kind, flags | libc::NLM_F_ACK)
    }

    /// A message that asks for one thing and wants it instead of an acknowledgement.
    pub(crate) fn query(kind: u16) -> Self {
        Self::with_flags(kind, 0)
    }

    /// Asks for everything of one kind: `fixed` is the fixed part of the question. Returns the answers without their
    /// headers.
    pub(crate) fn list(kind: u16, fixed: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        let socket = socket()?;
        let mut message = Self::with_flags(kind, libc::NLM_F_DUMP);
        message.put(fixed);
        let mut answer = message.ask(&socket)?;
        let mut all = Vec::new();
        loop {
            for (kind, body) in split(&answer) {
                match i32::from(kind) {
                    libc::NLMSG_DONE => return Ok(all),
                    libc::NLMSG_ERROR => acknowledgement(&answer)?,
                    _ => all.push(body.to_vec()),
                }
            }
            answer = receive(&socket)?;
        }
    }

    fn with_flags(kind: u16, flags: i32) -> Self {
        let mut message = Self { bytes: vec![0; HEADER_LEN] };
        let flags = (flags | libc::NLM_F_REQUEST) as u16;
        message.bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        message.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        message
    }

    pub(crate) fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// Adds an attribute, padded to four bytes.
    pub(crate) fn attribute(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        self.nested(kind, |inner| {
            inner.put(value);
        })
    }

    /// Adds an attribute whose value `fill` writes.
    pub(crate) fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.bytes.len();
        self.put(&[0; 2]).put(&kind.to_ne_bytes());
        fill(self);
        let len = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    /// Sends the message and waits for the kernel's verdict.
    pub(crate) fn send(self, socket: &OwnedFd) -> io::Result<()> {
        acknowledgement(&self.ask(socket)?)
    }

    /// Sends the message and waits for the answer.
    pub(crate) fn ask(mut self, socket: &OwnedFd) -> io::Result<Vec<u8>> {
        let len = self.bytes.len() as u32;
        self.bytes[..4].copy_from_slice(&len.to_ne_bytes());
        rustix::net::send(socket, &self.bytes, SendFlags::empty())?;
        receive(socket)
    }
}

fn receive(socket: &OwnedFd) -> io::Result<Vec<u8>> {
    // The kernel never makes longer ones (NLMSG_GOODSIZE).
    let mut answer = vec![0; 32 * 1024];
    let (_, len) = rustix::net::recv(socket, &mut answer[..], RecvFlags::empty())?;
    if len == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    answer.truncate(len);
    Ok(answer)
}

/// The messages in one answer: types, and what follows their headers.
fn split(mut answer: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = u32::from_ne_bytes(*answer.first_chunk()?) as usize;
        let message = answer.get(..len).filter(|message| message.len() >= HEADER_LEN)?;
        answer = answer.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([message[4], message[5]]), &message[HEADER_LEN..]))
    })
}

/// The attributes that follow the fixed part of a message: types and values.
pub(crate) fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let [l0, l1, k0, k1] = *rest.first_chunk()?;
        let len = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = rest.get(4..len)?;
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([k0, k1]), value))
    })
}

/// Reads an acknowledgement: a message of type NLMSG_ERROR whose first word is 0 or a negated error number.
pub(crate) fn acknowledgement(answer: &[u8]) -> io::Result<()> {
    let word = |at: usize| answer.get(at..at + 4)?.first_chunk::<4>().copied();
    let kind = word(4).map(|bytes| u16::from_ne_bytes([bytes[0], bytes[1]]));
    match (kind.map(i32::from), word(HEADER_LEN).map(i32::from_ne_bytes)) {
        (Some(libc::NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(libc::NLMSG_ERROR), Some(error)) => Err(io::Error::from_raw_os_error(error.wrapping_neg())),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer is no acknowledgement")),
    }
}
