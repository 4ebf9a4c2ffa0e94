//! Sockets: a generic-netlink socket is ours, every other is the C library's.
//! Both programs use `socket`, `bind`, `getsockname`, `setsockopt`, `sendmsg`, `recvmsg` and `close`; the others are here
//! so that a socket of ours never reaches the kernel as what it is not.

use std::ffi::{c_int, c_void};
use std::mem::size_of;
use std::os::fd::{AsRawFd, IntoRawFd, RawFd};
use std::sync::Arc;

use libc::{AF_NETLINK, NETLINK_GENERIC, msghdr, size_t, sockaddr, sockaddr_nl, socklen_t, ssize_t};
use rustix::io::Errno;
use rustix::net::SocketFlags;

use super::{fail, result};
use crate::conversation::{Conversation, Lost};
use crate::next;
use crate::registry::{self, Ours};

/// `socket(2)`.
#[unsafe(no_mangle)]
pub extern "C" fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    if domain != AF_NETLINK || protocol != NETLINK_GENERIC {
        // SAFETY: arguments as the program gave them.
        return unsafe { next::socket(domain, kind, protocol) };
    }
    let mut flags = SocketFlags::empty();
    flags.set(SocketFlags::CLOEXEC, kind & libc::SOCK_CLOEXEC != 0);
    flags.set(SocketFlags::NONBLOCK, kind & libc::SOCK_NONBLOCK != 0);
    result(Conversation::open(flags).and_then(|(socket, conversation)| {
        if registry::insert(socket.as_raw_fd(), Ours::Socket(Arc::new(conversation))) {
            Ok(socket.into_raw_fd())
        } else {
            Err(Errno::MFILE)
        }
    }))
}

/// `bind(2)`: the port id is kept.
///
/// # Safety
/// `address` holds `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bind(fd: c_int, address: *const sockaddr, len: socklen_t) -> c_int {
    let Some(conversation) = registry::socket(fd) else {
        // SAFETY: arguments as the program gave them.
        return unsafe { next::bind(fd, address, len) };
    };
    // SAFETY: the caller gives `len` bytes at `address`.
    match unsafe { read_address(address, len) } {
        Some(address) => {
            conversation.set_port(address.nl_pid);
            0
        }
        None => fail(Errno::INVAL),
    }
}

/// `connect(2)`: netlink's only destination is the kernel, and `lvsd` is connected to already.
///
/// # Safety
/// `address` holds `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn connect(fd: c_int, address: *const sockaddr, len: socklen_t) -> c_int {
    if registry::socket(fd).is_some() {
        return 0;
    }
    // SAFETY: arguments as the program gave them.
    unsafe { next::connect(fd, address, len) }
}

/// `getsockname(2)`: a netlink address with the port id.
///
/// # Safety
/// `address` takes `*len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getsockname(fd: c_int, address: *mut sockaddr, len: *mut socklen_t) -> c_int {
    let Some(conversation) = registry::socket(fd) else {
        // SAFETY: arguments as the program gave them.
        return unsafe { next::getsockname(fd, address, len) };
    };
    // SAFETY: the caller gives room for `*len` bytes at `address`.
    unsafe { write_address(conversation.port(), address.cast(), len) };
    0
}

/// `setsockopt(2)`: the sizes of buffers are the unix socket's too; netlink's own options have no meaning there.
///
/// # Safety
/// `value` holds `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn setsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *const c_void,
    len: socklen_t,
) -> c_int {
    if level == libc::SOL_NETLINK && registry::socket(fd).is_some() {
        return 0;
    }
    // SAFETY: arguments as the program gave them.
    unsafe { next::setsockopt(fd, level, name, value, len) }
}

/// `getsockopt(2)`: netlink's own options are all off.
///
/// # Safety
/// `value` takes `*len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    len: *mut socklen_t,
) -> c_int {
    if level == libc::SOL_NETLINK && registry::socket(fd).is_some() {
        return fail(Errno::NOPROTOOPT);
    }
    // SAFETY: arguments as the program gave them.
    unsafe { next::getsockopt(fd, level, name, value, len) }
}

/// `sendmsg(2)`: the request, gathered into one datagram. Its address, the kernel's, falls away.
///
/// # Safety
/// `message` is valid, with everything it points to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t {
    let Some(conversation) = registry::socket(fd) else {
        // SAFETY: arguments as the program gave them.
        return unsafe { next::sendmsg(fd, message, flags) };
    };
    let mut request = Vec::new();
    // SAFETY: the caller gives a valid message: `msg_iov` points to `msg_iovlen` parts, each to `iov_len` bytes.
    unsafe {
        let message = &*message;
        for index in 0..message.msg_iovlen {
            let part = &*message.msg_iov.add(index);
            append(&mut request, part.iov_base, part.iov_len);
        }
    }
    sent(&conversation, fd, &request)
}

/// `sendto(2)`.
///
/// # Safety
/// `bytes` holds `len` bytes, `to` holds `to_len`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sendto(
    fd: c_int,
    bytes: *const c_void,
    len: size_t,
    flags: c_int,
    to: *const sockaddr,
    to_len: socklen_t,
) -> ssize_t {
    let Some(conversation) = registry::socket(fd) else {
        // SAFETY: arguments as the program gave them.
        return unsafe { next::sendto(fd, bytes, len, flags, to, to_len) };
    };
    let mut request = Vec::new();
    // SAFETY: the caller gives `len` bytes.
    unsafe { append(&mut request, bytes, len) };
    sent(&conversation, fd, &request)
}

/// `send(2)`.
///
/// # Safety
/// `bytes` holds `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn send(fd: c_int, bytes: *const c_void, len: size_t, flags: c_int) -> ssize_t {
    if registry::socket(fd).is_none() {
        // SAFETY: arguments as the program gave them.
        return unsafe { next::send(fd, bytes, len, flags) };
    }
    // SAFETY: the caller gives `len` bytes; without an address there are none to read.
    unsafe { sendto(fd, bytes, len, flags, std::ptr::null(), 0) }
}

/// `recvmsg(2)`: never 0 for a socket of ours. The sender is the kernel, as for netlink.
///
/// # Safety
/// `message` is valid, with everything it points to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t {
    let Some(conversation) = registry::socket(fd) else {
        // SAFETY: arguments as the program gave them.
        return unsafe { next::recvmsg(fd, message, flags) };
    };
    // SAFETY: the caller gives a valid message and nobody else uses it during the call.
    let message = unsafe { &mut *message };
    let mut plain = *message;
    (plain.msg_name, plain.msg_namelen) = (std::ptr::null_mut(), 0);
    (plain.msg_control, plain.msg_controllen) = (std::ptr::null_mut(), 0);
    let len = receive(&conversation, fd, flags, || {
        // SAFETY: `plain` is the caller's message without what we fill in ourselves.
        let len = unsafe { next::recvmsg(fd, &raw mut plain, flags) };
        // SAFETY: the call has written `len` bytes at most, beginning at the first part.
        (len, unsafe { start_of(&plain, len) })
    });
    if len >= 0 {
        if !message.msg_name.is_null() {
            // SAFETY: the caller gives room for `msg_namelen` bytes.
            unsafe { write_address(0, message.msg_name, &raw mut message.msg_namelen) };
        }
        message.msg_controllen = 0;
        message.msg_flags = plain.msg_flags & libc::MSG_TRUNC;
    }
    len
}

/// `recvfrom(2)`.
///
/// # Safety
/// `bytes` takes `len` bytes, `from` takes `*from_len`; both may be null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn recvfrom(
    fd: c_int,
    bytes: *mut c_void,
    len: size_t,
    flags: c_int,
    from: *mut sockaddr,
    from_len: *mut socklen_t,
) -> ssize_t {
    let Some(conversation) = registry::socket(fd) else {
        // SAFETY: arguments as the program gave them.
        return unsafe { next::recvfrom(fd, bytes, len, flags, from, from_len) };
    };
    let received = receive(&conversation, fd, flags, || {
        // SAFETY: the caller gives room for `len` bytes; no sender is asked for.
        let received = unsafe { next::recv(fd, bytes, len, flags) };
        let mut start = Vec::new();
        // SAFETY: `received` bytes at most have been written, and no more than `len`.
        unsafe { append(&mut start, bytes, usize::try_from(received).unwrap_or(0).min(len).min(START)) };
        (received, start)
    });
    if received >= 0 && !from.is_null() && !from_len.is_null() {
        // SAFETY: the caller gives room for `*from_len` bytes.
        unsafe { write_address(0, from.cast(), from_len) };
    }
    received
}

/// `recv(2)`.
///
/// # Safety
/// `bytes` takes `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn recv(fd: c_int, bytes: *mut c_void, len: size_t, flags: c_int) -> ssize_t {
    if registry::socket(fd).is_none() {
        // SAFETY: arguments as the program gave them.
        return unsafe { next::recv(fd, bytes, len, flags) };
    }
    // SAFETY: the caller gives room for `len` bytes; no sender is asked for.
    unsafe { recvfrom(fd, bytes, len, flags, std::ptr::null_mut(), std::ptr::null_mut()) }
}

fn sent(conversation: &Conversation, fd: RawFd, request: &[u8]) -> ssize_t {
    match conversation.send(fd, request) {
        Ok(()) => ssize_t::try_from(request.len()).unwrap_or(ssize_t::MAX),
        Err(error) => fail(error) as ssize_t,
    }
}

/// Receives until there is something to tell the program: `call` gives what the C library's function returned and the
/// first bytes it wrote.
fn receive(
    conversation: &Conversation,
    fd: RawFd,
    flags: c_int,
    mut call: impl FnMut() -> (ssize_t, Vec<u8>),
) -> ssize_t {
    loop {
        let (len, start) = call();
        // SAFETY: the calling thread's own errno.
        let errno = unsafe { *libc::__errno_location() };
        let is_lost = len == 0 || (len < 0 && matches!(errno, libc::ECONNRESET | libc::ENOTCONN | libc::EPIPE));
        if !is_lost {
            if len > 0 && flags & libc::MSG_PEEK == 0 {
                conversation.has_read(&start);
            }
            return len;
        }
        if conversation.lost(fd) == Lost::Nothing {
            return fail(Errno::CONNRESET) as ssize_t;
        }
    }
}

/// The first bytes of what was received, as far as they lie in the first part.
///
/// # Safety
/// `len` bytes at most have been written to the message's parts.
unsafe fn start_of(message: &msghdr, len: ssize_t) -> Vec<u8> {
    let mut start = Vec::new();
    if message.msg_iovlen > 0 {
        // SAFETY: there is a first part.
        let part = unsafe { &*message.msg_iov };
        let len = usize::try_from(len).unwrap_or(0).min(part.iov_len).min(START);
        // SAFETY: the first part holds that many bytes.
        unsafe { append(&mut start, part.iov_base, len) };
    }
    start
}

/// # Safety
/// `bytes` holds `len` bytes.
unsafe fn append(to: &mut Vec<u8>, bytes: *const c_void, len: usize) {
    if len > 0 && !bytes.is_null() {
        // SAFETY: as the caller promises.
        to.extend_from_slice(unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), len) });
    }
}

/// # Safety
/// `address` holds `len` bytes.
unsafe fn read_address(address: *const sockaddr, len: socklen_t) -> Option<sockaddr_nl> {
    if address.is_null() || (len as usize) < size_of::<sockaddr_nl>() {
        return None;
    }
    // SAFETY: there are enough bytes, and any bytes are a `sockaddr_nl`; they need not be aligned.
    let address = unsafe { address.cast::<sockaddr_nl>().read_unaligned() };
    (c_int::from(address.nl_family) == AF_NETLINK).then_some(address)
}

/// Writes a netlink address, cut to the room there is, and its length.
///
/// # Safety
/// `into` takes `*len` bytes.
unsafe fn write_address(port: u32, into: *mut c_void, len: *mut socklen_t) {
    // SAFETY: `sockaddr_nl` is plain numbers; all zero is valid.
    let mut address: sockaddr_nl = unsafe { std::mem::zeroed() };
    address.nl_family = AF_NETLINK as libc::sa_family_t;
    address.nl_pid = port;
    // SAFETY: the caller gives room for `*len` bytes, and no more than that are written.
    unsafe {
        let room = (*len as usize).min(size_of::<sockaddr_nl>());
        std::ptr::copy_nonoverlapping((&raw const address).cast::<u8>(), into.cast::<u8>(), room);
        *len = size_of::<sockaddr_nl>() as socklen_t;
    }
}

/// As many bytes of a datagram as say what it is.
const START: usize = crate::netlink::HEADER;
