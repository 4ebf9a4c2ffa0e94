//! The system calls of AF_PACKET sockets that rustix does not have: binding, options and interface requests; and two
//! options of sockets of any kind.
//! Every function takes and returns safe types and reports the kernel's error as it is.
#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;

use libc::{c_int, c_void, socklen_t};
use lvs_io::l2::MacAddress;

/// Values that may be handed to the kernel as bytes, and filled by it.
///
/// # Safety
/// The type has no padding, and any bytes are a value of it.
pub(crate) unsafe trait OptionValue: Copy {}

// SAFETY: integers.
unsafe impl OptionValue for c_int {}
// SAFETY: four integers of four bytes.
unsafe impl OptionValue for libc::tpacket_req {}
// SAFETY: seven integers of four bytes.
unsafe impl OptionValue for libc::tpacket_req3 {}
// SAFETY: 4 + 2 + 2 + 8 bytes, aligned to four, without holes.
unsafe impl OptionValue for Membership {}

/// `struct packet_mreq`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Membership {
    index: c_int,
    kind: u16,
    address_len: u16,
    address: [u8; 8],
}

impl Membership {
    /// Of the device `index`, in frames of a kind (`PACKET_MR_…`): those to `address`, if the kind has addresses.
    pub(crate) fn new(index: u32, kind: c_int, address: Option<MacAddress>) -> Self {
        let mut padded = [0; 8];
        padded[..6].copy_from_slice(&address.map_or([0; 6], |address| address.0));
        Self { index: index as c_int, kind: kind as u16, address_len: 6, address: padded }
    }
}

/// Sets an option of level SOL_PACKET.
pub(crate) fn set_option<T: OptionValue>(socket: BorrowedFd<'_>, option: c_int, value: T) -> io::Result<()> {
    let len = size_of::<T>() as socklen_t;
    let pointer = (&raw const value).cast::<c_void>();
    // SAFETY: `pointer` is good for reading `len` initialised bytes (`OptionValue`: no padding) during the call.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_PACKET, option, pointer, len) })
}

/// Reads, and thereby resets, the socket's counters of packets and drops. The last of them, how often there was no free
/// block, stays zero where the ring has none (TPACKET_V2).
pub(crate) fn take_statistics(socket: BorrowedFd<'_>) -> io::Result<libc::tpacket_stats_v3> {
    let mut statistics = libc::tpacket_stats_v3 { tp_packets: 0, tp_drops: 0, tp_freeze_q_cnt: 0 };
    let mut len = size_of_val(&statistics) as socklen_t;
    let pointer = (&raw mut statistics).cast::<c_void>();
    // SAFETY: `pointer` is good for writing `len` bytes, any of which are a value, during the call.
    check(unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_PACKET, libc::PACKET_STATISTICS, pointer, &raw mut len)
    })?;
    Ok(statistics)
}

/// Lets the socket receive only what the program accepts.
pub(crate) fn attach_filter(socket: BorrowedFd<'_>, program: &[libc::sock_filter]) -> io::Result<()> {
    set_program(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, program)
}

/// Lets a socket of any kind receive nothing: what comes for it counts as received, so that the kernel sends no error
/// back, and is thrown away. A socket that merely is not read would do so until its buffer is full.
///
/// # Errors
/// What the kernel says.
pub fn receive_nothing(socket: BorrowedFd<'_>) -> io::Result<()> {
    attach_filter(socket, &[NOTHING])
}

/// The number of the calling thread's network namespace, which the kernel gives to no other one until the machine
/// starts again; that of its file in `/proc` it does give again. `SO_NETNS_COOKIE`.
///
/// # Errors
/// What the kernel says; `ENOPROTOOPT` before Linux 5.14.
pub fn netns_cookie() -> io::Result<u64> {
    let socket = UnixDatagram::unbound()?;
    let mut cookie: u64 = 0;
    let mut len = size_of_val(&cookie) as socklen_t;
    let pointer = (&raw mut cookie).cast::<c_void>();
    // SAFETY: `pointer` is good for writing `len` bytes, any of which are a value, during the call.
    check(unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_NETNS_COOKIE, pointer, &raw mut len)
    })?;
    Ok(cookie)
}

/// A program that accepts nothing.
pub(crate) const NOTHING: libc::sock_filter =
    libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: 0 };

/// Lets the socket receive everything again.
pub(crate) fn detach_filter(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_buffer(socket, libc::SO_DETACH_FILTER, 0)
}

/// Joins the fanout group `group` of the device, whose members are chosen by a program; a new one, whose number is
/// returned, if there is none yet. The socket is bound. Members are numbered in the order they join.
pub(crate) fn join_fanout(socket: BorrowedFd<'_>, group: Option<u16>) -> io::Result<u16> {
    let new = if group.is_none() { libc::PACKET_FANOUT_FLAG_UNIQUEID } else { 0 };
    // A group does not look at PACKET_IGNORE_OUTGOING of its members.
    let flags = new | libc::PACKET_FANOUT_FLAG_IGNORE_OUTGOING;
    let kind = (libc::PACKET_FANOUT_CBPF | flags) << 16 | u32::from(group.unwrap_or(0));
    set_option(socket, libc::PACKET_FANOUT, kind as c_int)?;
    let mut joined: c_int = 0;
    let mut len = size_of::<c_int>() as socklen_t;
    let pointer = (&raw mut joined).cast::<c_void>();
    // SAFETY: `pointer` is good for writing `len` bytes, any of which are a value, during the call.
    check(unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_PACKET, libc::PACKET_FANOUT, pointer, &raw mut len)
    })?;
    Ok(joined as u16)
}

/// Sets the program of the socket's fanout group.
pub(crate) fn set_fanout_program(socket: BorrowedFd<'_>, program: &[libc::sock_filter]) -> io::Result<()> {
    set_program(socket, libc::SOL_PACKET, libc::PACKET_FANOUT_DATA, program)
}

fn set_program(socket: BorrowedFd<'_>, level: c_int, option: c_int, program: &[libc::sock_filter]) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    let pointer = (&raw const program).cast::<c_void>();
    // SAFETY: `pointer` is good for reading one `sock_fprog`, and its own pointer for reading `len` instructions,
    // during the call; the kernel copies them.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, pointer, size_of_val(&program) as socklen_t) })
}

/// Room for so many bytes on their way out; more than the system's limit if this process is privileged.
pub(crate) fn set_send_buffer(socket: BorrowedFd<'_>, bytes: c_int) -> io::Result<()> {
    set_buffer(socket, libc::SO_SNDBUFFORCE, bytes).or_else(|_| set_buffer(socket, libc::SO_SNDBUF, bytes))
}

/// The same for frames that wait to be received.
pub(crate) fn set_receive_buffer(socket: BorrowedFd<'_>, bytes: c_int) -> io::Result<()> {
    set_buffer(socket, libc::SO_RCVBUFFORCE, bytes).or_else(|_| set_buffer(socket, libc::SO_RCVBUF, bytes))
}

fn set_buffer(socket: BorrowedFd<'_>, option: c_int, bytes: c_int) -> io::Result<()> {
    let pointer = (&raw const bytes).cast::<c_void>();
    let len = size_of::<c_int>() as socklen_t;
    // SAFETY: as in `set_option`, with an integer.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, pointer, len) })
}

/// Binds the socket to a device; it receives frames of `protocol` (`ETH_P_…`; 0: none).
pub(crate) fn bind(socket: BorrowedFd<'_>, index: u32, protocol: c_int) -> io::Result<()> {
    // SAFETY: all-zero bytes are a `sockaddr_ll`.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (protocol as u16).to_be();
    address.sll_ifindex = index as c_int;
    let len = size_of_val(&address) as socklen_t;
    // SAFETY: the pointer is good for reading `len` bytes during the call.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) })
}

/// The device's Ethernet address; `Unsupported` if it is no Ethernet device.
pub(crate) fn hardware_address(socket: BorrowedFd<'_>, name: &str) -> io::Result<MacAddress> {
    let request = interface_request(socket, name, libc::SIOCGIFHWADDR)?;
    // SAFETY: SIOCGIFHWADDR filled `ifru_hwaddr`; any bytes are a value of it.
    let address = unsafe { request.ifr_ifru.ifru_hwaddr };
    if address.sa_family != libc::ARPHRD_ETHER {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "it is no Ethernet device"));
    }
    let [a, b, c, d, e, f, ..] = address.sa_data;
    Ok(MacAddress([a, b, c, d, e, f].map(|byte| byte as u8)))
}

/// The device's MTU, in bytes.
pub(crate) fn mtu(socket: BorrowedFd<'_>, name: &str) -> io::Result<u32> {
    let request = interface_request(socket, name, libc::SIOCGIFMTU)?;
    // SAFETY: SIOCGIFMTU filled `ifru_mtu`, an integer.
    Ok(unsafe { request.ifr_ifru.ifru_mtu }.max(0) as u32)
}

fn interface_request(socket: BorrowedFd<'_>, name: &str, request: libc::c_ulong) -> io::Result<libc::ifreq> {
    // SAFETY: all-zero bytes are an `ifreq`.
    let mut interface: libc::ifreq = unsafe { mem::zeroed() };
    if name.len() >= interface.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in interface.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    // SAFETY: these requests read and write one `ifreq` at the pointer, which is exclusively borrowed.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), request as _, &raw mut interface) })?;
    Ok(interface)
}

fn check(outcome: c_int) -> io::Result<()> {
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
