//! The system calls that need `unsafe`: the ioctls of `/dev/net/tun` and `unshare`. All of this crate's unsafe code is
//! here; every function takes and returns safe types and reports the kernel's error as it is.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use libc::{c_int, c_short, c_uint, c_ulong};

/// Room for an interface name and its terminating zero (`IFNAMSIZ`).
pub(crate) const NAME_SIZE: usize = libc::IFNAMSIZ;

/// The kernel's `struct ifreq` as the TUN ioctls use it: a name and flags; 40 bytes on every 64-bit system, and never
/// more on others.
#[repr(C, align(8))]
struct InterfaceRequest {
    name: [u8; NAME_SIZE],
    flags: c_short,
    rest: [u8; 22],
}

const _: () = assert!(size_of::<InterfaceRequest>() >= size_of::<libc::ifreq>());

/// Attaches a file of `/dev/net/tun` to the device `name` (zero-terminated; `%d` is replaced by a number), made if need
/// be. Returns the device's name.
pub(crate) fn tun_attach(tun: BorrowedFd<'_>, name: [u8; NAME_SIZE], flags: c_int) -> io::Result<[u8; NAME_SIZE]> {
    // The flags of a TUN device fit 16 bits; IFF_MULTI_QUEUE and the others used here are below 0x8000.
    let mut request = InterfaceRequest { name, flags: flags as c_short, rest: [0; 22] };
    // SAFETY: TUNSETIFF reads and writes one `struct ifreq` at the pointer; `request` is at least that large (asserted
    // above), initialised, exclusively borrowed and outlives the call.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
    Ok(request.name)
}

/// The name and flags of the device a file is attached to.
pub(crate) fn tun_attached(tun: BorrowedFd<'_>) -> io::Result<([u8; NAME_SIZE], c_int)> {
    let mut request = InterfaceRequest { name: [0; NAME_SIZE], flags: 0, rest: [0; 22] };
    // SAFETY: TUNGETIFF writes one `struct ifreq` at the pointer; as above.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNGETIFF, &raw mut request) })?;
    Ok((request.name, c_int::from(request.flags) & 0xffff))
}

/// Sets the length of the virtio-net header before each packet.
pub(crate) fn tun_set_header_len(tun: BorrowedFd<'_>, len: c_int) -> io::Result<()> {
    // SAFETY: TUNSETVNETHDRSZ reads one `int` at the pointer; `len` is one and outlives the call.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const len) })
}

/// The length of the virtio-net header before each packet.
pub(crate) fn tun_header_len(tun: BorrowedFd<'_>) -> io::Result<c_int> {
    let mut len: c_int = 0;
    // SAFETY: TUNGETVNETHDRSZ writes one `int` at the pointer; `len` is one and outlives the call.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNGETVNETHDRSZ, &raw mut len) })?;
    Ok(len)
}

/// Says which offloads the reader of the device understands (`TUN_F_…`).
pub(crate) fn tun_set_offload(tun: BorrowedFd<'_>, offloads: c_uint) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes its argument by value and touches no memory of ours.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETOFFLOAD, c_ulong::from(offloads)) })
}

/// Says whether the device outlives the last file that is attached to it.
pub(crate) fn tun_set_persistent(tun: BorrowedFd<'_>, is_persistent: bool) -> io::Result<()> {
    // SAFETY: TUNSETPERSIST takes its argument by value and touches no memory of ours.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETPERSIST, c_ulong::from(is_persistent)) })
}

/// Moves the whole process (it must have one thread) into a new user namespace, or the calling thread into a new
/// network namespace.
pub(crate) fn unshare(namespace: Namespace) -> io::Result<()> {
    let flag = match namespace {
        Namespace::User => libc::CLONE_NEWUSER,
        Namespace::Network => libc::CLONE_NEWNET,
    };
    // SAFETY: `unshare` with these flags changes credentials and the network stack; it touches no memory and, without
    // CLONE_FILES, no file descriptors, so nothing the compiler relies on changes.
    check(unsafe { libc::unshare(flag) })
}

/// Makes the program `command` starts live in a new user and network namespace, where it is root; `map_user` and
/// `map_group` are the lines of its `uid_map` and `gid_map`.
pub(crate) fn isolate(command: &mut Command, map_user: String, map_group: String) {
    let enter = move || {
        // SAFETY: as in `unshare`; the new process has one thread, as CLONE_NEWUSER demands.
        check(unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET) })?;
        write_file(c"/proc/self/setgroups", b"deny")?;
        write_file(c"/proc/self/uid_map", map_user.as_bytes())?;
        write_file(c"/proc/self/gid_map", map_group.as_bytes())
    };
    // SAFETY: between fork and exec only async-signal-safe functions may run and nothing may be allocated: `enter`
    // calls unshare, open, write and close on memory made before the fork, and its errors hold no allocation.
    unsafe { command.pre_exec(enter) };
}

/// Writes a file with a single `write`, without allocating.
fn write_file(path: &CStr, content: &[u8]) -> io::Result<()> {
    // SAFETY: `path` is zero-terminated and outlives the call.
    let fd = unsafe { libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC) };
    check(fd)?;
    // SAFETY: `fd` was just opened and nobody else knows it, so it is owned here and closed once.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: the pointer and length are those of a live slice.
    let written = unsafe { libc::write(fd.as_raw_fd(), content.as_ptr().cast(), content.len()) };
    if written < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A kind of namespace.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Namespace {
    User,
    Network,
}

fn check(outcome: c_int) -> io::Result<()> {
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
