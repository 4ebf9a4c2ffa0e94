//! Setting up a network device: up, MTU, addresses, routes, by rtnetlink (RFC 3549). What `ip` would do, for programs
//! that may not call it. Everything happens in the calling thread's network namespace and needs CAP_NET_ADMIN there.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netdevice};

/// Whether the kernel has IPv6 and lets new devices of this namespace use it. Containers often do not.
pub fn has_ipv6() -> bool {
    let disabled = std::fs::read_to_string("/proc/sys/net/ipv6/conf/default/disable_ipv6");
    disabled.is_ok_and(|disabled| disabled.trim() == "0")
}

/// Brings the device up.
///
/// # Errors
/// Names the device and what the kernel said.
pub fn set_up(name: &str) -> io::Result<()> {
    let request = |index| {
        let mut message = Message::new(libc::RTM_NEWLINK, 0);
        let up = libc::IFF_UP as u32;
        message.put(&[0, 0]).put(&0u16.to_ne_bytes()).put(&index_bytes(index)).put(&up.to_ne_bytes());
        message.put(&up.to_ne_bytes());
        message
    };
    execute(name, request).map_err(|error| describe(&error, format_args!("cannot bring {name} up")))?;
    Ok(())
}

/// Sets the device's MTU, in bytes.
///
/// # Errors
/// Names the device and what the kernel said.
pub fn set_mtu(name: &str, mtu: u32) -> io::Result<()> {
    let request = |index| {
        let mut message = Message::new(libc::RTM_NEWLINK, 0);
        message.put(&[0, 0]).put(&0u16.to_ne_bytes()).put(&index_bytes(index)).put(&[0; 8]);
        message.attribute(libc::IFLA_MTU, &mtu.to_ne_bytes());
        message
    };
    execute(name, request).map_err(|error| describe(&error, format_args!("cannot set the MTU of {name} to {mtu}")))?;
    Ok(())
}

/// Gives the device an address; the network of `prefix` bits around it becomes reachable through the device.
///
/// An IPv6 address skips duplicate address detection. The kernel makes it reachable a little later, from a work queue:
/// if the device is up this waits for that, at most a second. So bring the device up first; added to a device that is
/// down, the address becomes reachable some milliseconds after [`set_up`].
///
/// # Errors
/// `AlreadyExists` if the device has it. The text names device, address and what the kernel said.
pub fn add_address(name: &str, address: IpAddr, prefix: u8) -> io::Result<()> {
    let request = |index| {
        let mut message = Message::new(libc::RTM_NEWADDR, libc::NLM_F_CREATE | libc::NLM_F_EXCL);
        message.put(&[family(address), prefix, 0, libc::RT_SCOPE_UNIVERSE]).put(&index_bytes(index));
        message.attribute(libc::IFA_LOCAL, &octets(address)).attribute(libc::IFA_ADDRESS, &octets(address));
        if address.is_ipv6() {
            message.attribute(libc::IFA_FLAGS, &libc::IFA_F_NODAD.to_ne_bytes());
        }
        message
    };
    let socket = execute(name, request)
        .map_err(|error| describe(&error, format_args!("cannot give {name} the address {address}/{prefix}")))?;
    if address.is_ipv6() && is_up(&socket, name)? {
        wait_until_local(&socket, address)?;
    }
    Ok(())
}

/// Routes everything under `destination`/`prefix` into the device, without a gateway. `0.0.0.0`/0 or `::`/0 is the
/// default route.
///
/// # Errors
/// `AlreadyExists` if there is such a route. The text names device, destination and what the kernel said.
pub fn add_route(destination: IpAddr, prefix: u8, name: &str) -> io::Result<()> {
    let request = |index| {
        let mut message = Message::new(libc::RTM_NEWROUTE, libc::NLM_F_CREATE | libc::NLM_F_EXCL);
        // IPv4 routes without a gateway have link scope; IPv6 routes have no scope.
        let scope = if destination.is_ipv4() { libc::RT_SCOPE_LINK } else { libc::RT_SCOPE_UNIVERSE };
        let table = libc::RT_TABLE_MAIN;
        message.put(&[family(destination), prefix, 0, 0, table, libc::RTPROT_STATIC, scope, libc::RTN_UNICAST]);
        message.put(&0u32.to_ne_bytes());
        if prefix > 0 {
            message.attribute(libc::RTA_DST, &octets(destination));
        }
        message.attribute(libc::RTA_OIF, &index_bytes(index));
        message
    };
    execute(name, request)
        .map_err(|error| describe(&error, format_args!("cannot route {destination}/{prefix} into {name}")))?;
    Ok(())
}

/// Sends the request about the device's index and returns the socket for more.
fn execute(name: &str, request: impl FnOnce(u32) -> Message) -> io::Result<OwnedFd> {
    // Protocol 0 of this family is NETLINK_ROUTE.
    let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    let index = netdevice::name_to_index(&socket, name)?;
    request(index).send(&socket)?;
    Ok(socket)
}

fn is_up(socket: &OwnedFd, name: &str) -> io::Result<bool> {
    let index = netdevice::name_to_index(socket, name)?;
    let mut message = Message::query(libc::RTM_GETLINK);
    message.put(&[0; 4]).put(&index_bytes(index)).put(&[0; 8]);
    let answer = message.ask(socket)?;
    let flags = answer.get(HEADER_LEN + 8..).and_then(|rest| rest.first_chunk()).copied().map(u32::from_ne_bytes);
    Ok(flags.is_some_and(|flags| flags & libc::IFF_UP as u32 != 0))
}

/// Waits until packets to the address are delivered here: until its route is a local one.
fn wait_until_local(socket: &OwnedFd, address: IpAddr) -> io::Result<()> {
    for _ in 0..1000 {
        let mut message = Message::query(libc::RTM_GETROUTE);
        message.put(&[family(address), 128, 0, 0, 0, 0, 0, 0]).put(&[0; 4]);
        message.attribute(libc::RTA_DST, &octets(address));
        let answer = message.ask(socket)?;
        // The type of a route is the eighth byte of its fixed part.
        if answer.get(HEADER_LEN + 7) == Some(&libc::RTN_LOCAL) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, format!("the kernel does not make {address} reachable")))
}

fn describe(error: &io::Error, what: std::fmt::Arguments<'_>) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

fn family(address: IpAddr) -> u8 {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    family as u8
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn index_bytes(index: u32) -> [u8; 4] {
    index.to_ne_bytes()
}

/// A netlink message being written (RFC 3549 §2.3.2): header, fixed part, attributes.
struct Message {
    bytes: Vec<u8>,
}

const HEADER_LEN: usize = 16;

impl Message {
    fn new(kind: u16, flags: i32) -> Self {
        let mut message = Self { bytes: vec![0; HEADER_LEN] };
        let flags = (flags | libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
        message.bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        message.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        message
    }

    fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// Adds an attribute, padded to four bytes.
    fn attribute(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let len = 4 + value.len() as u16;
        self.put(&len.to_ne_bytes()).put(&kind.to_ne_bytes()).put(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    /// A message that asks for one thing and wants it instead of an acknowledgement.
    fn query(kind: u16) -> Self {
        let mut message = Self::new(kind, 0);
        message.bytes[6..8].copy_from_slice(&(libc::NLM_F_REQUEST as u16).to_ne_bytes());
        message
    }

    /// Sends the message and waits for the kernel's verdict.
    fn send(self, socket: &OwnedFd) -> io::Result<()> {
        acknowledgement(&self.ask(socket)?)
    }

    /// Sends the message and waits for the answer.
    fn ask(mut self, socket: &OwnedFd) -> io::Result<Vec<u8>> {
        let len = self.bytes.len() as u32;
        self.bytes[..4].copy_from_slice(&len.to_ne_bytes());
        rustix::net::send(socket, &self.bytes, SendFlags::empty())?;
        let mut answer = vec![0; 16 * 1024];
        let (_, len) = rustix::net::recv(socket, &mut answer[..], RecvFlags::empty())?;
        answer.truncate(len);
        Ok(answer)
    }
}

/// Reads an acknowledgement: a message of type NLMSG_ERROR whose first word is 0 or a negated error number.
fn acknowledgement(answer: &[u8]) -> io::Result<()> {
    let word = |at: usize| answer.get(at..at + 4)?.first_chunk::<4>().copied();
    let kind = word(4).map(|bytes| u16::from_ne_bytes([bytes[0], bytes[1]]));
    match (kind.map(i32::from), word(HEADER_LEN).map(i32::from_ne_bytes)) {
        (Some(libc::NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(libc::NLMSG_ERROR), Some(error)) => Err(io::Error::from_raw_os_error(error.wrapping_neg())),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer is no acknowledgement")),
    }
}
