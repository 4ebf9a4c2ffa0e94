//! Setting up a network device: up, MTU, addresses, routes, by rtnetlink (RFC 3549). What `ip` would do, for programs
//! that may not call it. Everything happens in the calling thread's network namespace and needs CAP_NET_ADMIN there.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::netdevice;

use crate::l2::MacAddress;
use crate::netlink::{self, HEADER_LEN, Message, attributes};

pub use crate::host_network::{addresses, all_addresses, routes};
pub use crate::links::{add_bridge, add_veth, delete_link, set_bridge};

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

/// Takes the device down: its addresses stay, routes by way of it go.
///
/// # Errors
/// Names the device and what the kernel said.
pub fn set_down(name: &str) -> io::Result<()> {
    let request = |index| {
        let mut message = Message::new(libc::RTM_NEWLINK, 0);
        message.put(&[0, 0]).put(&0u16.to_ne_bytes()).put(&index_bytes(index)).put(&0u32.to_ne_bytes());
        message.put(&(libc::IFF_UP as u32).to_ne_bytes());
        message
    };
    execute(name, request).map_err(|error| describe(&error, format_args!("cannot take {name} down")))?;
    Ok(())
}

/// Whether the device is up.
///
/// # Errors
/// Names the device and what the kernel said.
pub fn is_up(name: &str) -> io::Result<bool> {
    netlink::socket()
        .and_then(|socket| is_link_up(&socket, name))
        .map_err(|error| describe(&error, format_args!("cannot look at {name}")))
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
    if address.is_ipv6() && is_link_up(&socket, name)? {
        wait_until_local(&socket, address)?;
    }
    Ok(())
}

/// Takes an address from the device.
///
/// # Errors
/// `AddrNotAvailable` if the device does not have it. The text names device, address and what the kernel said.
pub fn remove_address(name: &str, address: IpAddr, prefix: u8) -> io::Result<()> {
    let request = |index| {
        let mut message = Message::new(libc::RTM_DELADDR, 0);
        message.put(&[family(address), prefix, 0, 0]).put(&index_bytes(index));
        message.attribute(libc::IFA_LOCAL, &octets(address));
        message
    };
    execute(name, request)
        .map_err(|error| describe(&error, format_args!("cannot take {address}/{prefix} from {name}")))?;
    Ok(())
}

/// Whether packets to the address are delivered to this host's own stack.
///
/// # Errors
/// If the kernel answers no questions.
pub fn is_local(address: IpAddr) -> io::Result<bool> {
    is_delivered_here(&netlink::socket()?, address)
}

/// By which device the host would send on what comes in by the device `name`, from `source` to `destination`.
/// `None` if it would not: it has no route, does not forward, keeps it for itself, or mistrusts the source.
///
/// # Errors
/// If there is no such device, or the kernel answers no questions.
pub fn way_on(name: &str, source: IpAddr, destination: IpAddr) -> io::Result<Option<String>> {
    let socket = netlink::socket()?;
    let index = netdevice::name_to_index(&socket, name)?;
    let mut message = Message::query(libc::RTM_GETROUTE);
    let address_len = if destination.is_ipv4() { 32 } else { 128 };
    message.put(&[family(destination), address_len, address_len, 0, 0, 0, 0, 0]).put(&[0; 4]);
    message.attribute(libc::RTA_DST, &octets(destination)).attribute(libc::RTA_SRC, &octets(source));
    message.attribute(libc::RTA_IIF, &index_bytes(index));
    way_in(&socket, &message.ask(&socket)?)
}

/// By which device the host would send a packet of its own to `destination`. `None` if it has no route, or keeps it for
/// itself.
///
/// # Errors
/// If the kernel answers no questions.
pub fn way_out(destination: IpAddr) -> io::Result<Option<String>> {
    let socket = netlink::socket()?;
    let mut message = Message::query(libc::RTM_GETROUTE);
    let address_len = if destination.is_ipv4() { 32 } else { 128 };
    message.put(&[family(destination), address_len, 0, 0, 0, 0, 0, 0]).put(&[0; 4]);
    message.attribute(libc::RTA_DST, &octets(destination));
    way_in(&socket, &message.ask(&socket)?)
}

/// The device in the kernel's answer to a question about a route.
fn way_in(socket: &OwnedFd, answer: &[u8]) -> io::Result<Option<String>> {
    let kind = answer.get(4..6).map(|kind| u16::from_ne_bytes([kind[0], kind[1]]));
    let is_route = kind == Some(libc::RTM_NEWROUTE) && answer.get(HEADER_LEN + 7) == Some(&libc::RTN_UNICAST);
    let Some(rest) = answer.get(HEADER_LEN + 12..).filter(|_| is_route) else { return Ok(None) };
    let out = attributes(rest).find(|(kind, _)| *kind == libc::RTA_OIF);
    let out = out.and_then(|(_, index)| index.first_chunk()).copied().map(u32::from_ne_bytes);
    out.map(|out| netdevice::index_to_name(socket, out)).transpose().map_err(io::Error::from)
}

/// Routes everything under `destination`/`prefix` into the device, without a gateway. `0.0.0.0`/0 or `::`/0 is the
/// default route.
///
/// # Errors
/// `AlreadyExists` if there is such a route. The text names device, destination and what the kernel said.
pub fn add_route(destination: IpAddr, prefix: u8, name: &str) -> io::Result<()> {
    route_in(libc::RT_TABLE_MAIN, destination, prefix, None, name)
        .map_err(|error| describe(&error, format_args!("cannot route {destination}/{prefix} into {name}")))
}

/// Routes everything under `destination`/`prefix` to the gateway behind the device.
///
/// # Errors
/// As [`add_route`]; also if the gateway cannot be reached directly.
pub fn add_route_via(destination: IpAddr, prefix: u8, gateway: IpAddr, name: &str) -> io::Result<()> {
    route_in(libc::RT_TABLE_MAIN, destination, prefix, Some(gateway), name)
        .map_err(|error| describe(&error, format_args!("cannot route {destination}/{prefix} via {gateway} on {name}")))
}

/// Sends everything IPv4 or IPv6 that comes in by the device `incoming` and is not for the host into the device `name`,
/// whatever the main routing table says: a rule of its own (`ip rule add iif`), and a table of that number with a
/// default route. What a director on a TUN device needs for the servers' replies.
///
/// # Errors
/// `AlreadyExists` if the table has a default route. The text names both devices and what the kernel said.
pub fn divert(incoming: &str, name: &str, table: u8) -> io::Result<()> {
    [IpAddr::from([0; 4]), IpAddr::from([0; 16])]
        .into_iter()
        .try_for_each(|any| divert_family(incoming, any, None, name, table))
        .map_err(|error| describe(&error, format_args!("cannot divert {incoming} into {name}")))
}

/// Sends everything of the gateway's family that comes in by the device `incoming` and is not for the host to the
/// gateway behind the device `name`, as [`divert`] does. What direct routing by a TUN device needs: the packets name no
/// server, so each server has a TUN device, and what comes out of it goes there.
///
/// # Errors
/// As [`divert`]; also if the gateway cannot be reached directly.
pub fn divert_to(incoming: &str, gateway: IpAddr, name: &str, table: u8) -> io::Result<()> {
    let any = if gateway.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
    divert_family(incoming, any, Some(gateway), name, table)
        .map_err(|error| describe(&error, format_args!("cannot divert {incoming} to {gateway} on {name}")))
}

fn divert_family(incoming: &str, any: IpAddr, gateway: Option<IpAddr>, name: &str, table: u8) -> io::Result<()> {
    route_in(table, any, 0, gateway, name)?;
    let mut message = Message::new(libc::RTM_NEWRULE, libc::NLM_F_CREATE | libc::NLM_F_EXCL);
    // `struct fib_rule_hdr`: family, prefix lengths, TOS, table, two reserved bytes, action, flags.
    message.put(&[family(any), 0, 0, 0, table, 0, 0, FR_ACT_TO_TBL]).put(&[0; 4]);
    message.attribute(FRA_IIFNAME, &[incoming.as_bytes(), &[0]].concat());
    message.send(&netlink::socket()?)
}

/// Sets where a neighbour on the device's link is, for good: it is never asked for (`ip neigh replace … nud
/// permanent`).
///
/// # Errors
/// `NotFound`/ENODEV if there is no such device. The text names neighbour and device and what the kernel said.
pub fn set_neighbour(name: &str, address: IpAddr, mac: MacAddress) -> io::Result<()> {
    let request = |index| {
        let mut message = Message::new(libc::RTM_NEWNEIGH, libc::NLM_F_CREATE | libc::NLM_F_REPLACE);
        // `struct ndmsg`: family, three bytes of padding, device, state, flags, type.
        message.put(&[family(address), 0, 0, 0]).put(&index_bytes(index));
        message.put(&libc::NUD_PERMANENT.to_ne_bytes()).put(&[0; 2]);
        message.attribute(libc::NDA_DST, &octets(address)).attribute(libc::NDA_LLADDR, &mac.0);
        message
    };
    execute(name, request)
        .map(drop)
        .map_err(|error| describe(&error, format_args!("cannot say where {address} is on {name}")))
}

/// Actions and attributes of rules (`linux/fib_rules.h`).
const FR_ACT_TO_TBL: u8 = 1;
const FRA_IIFNAME: u16 = 3;

fn route_in(table: u8, destination: IpAddr, prefix: u8, gateway: Option<IpAddr>, name: &str) -> io::Result<()> {
    let request = |index| {
        let mut message = Message::new(libc::RTM_NEWROUTE, libc::NLM_F_CREATE | libc::NLM_F_EXCL);
        // IPv4 routes without a gateway have link scope; IPv6 routes have no scope.
        let is_direct = destination.is_ipv4() && gateway.is_none();
        let scope = if is_direct { libc::RT_SCOPE_LINK } else { libc::RT_SCOPE_UNIVERSE };
        message.put(&[family(destination), prefix, 0, 0, table, libc::RTPROT_STATIC, scope, libc::RTN_UNICAST]);
        message.put(&0u32.to_ne_bytes());
        if prefix > 0 {
            message.attribute(libc::RTA_DST, &octets(destination));
        }
        if let Some(gateway) = gateway {
            message.attribute(libc::RTA_GATEWAY, &octets(gateway));
        }
        message.attribute(libc::RTA_OIF, &index_bytes(index));
        message
    };
    execute(name, request)?;
    Ok(())
}

/// Sends the request about the device's index and returns the socket for more.
fn execute(name: &str, request: impl FnOnce(u32) -> Message) -> io::Result<OwnedFd> {
    let socket = netlink::socket()?;
    let index = netdevice::name_to_index(&socket, name)?;
    request(index).send(&socket)?;
    Ok(socket)
}

fn is_link_up(socket: &OwnedFd, name: &str) -> io::Result<bool> {
    let index = netdevice::name_to_index(socket, name)?;
    let mut message = Message::query(libc::RTM_GETLINK);
    message.put(&[0; 4]).put(&index_bytes(index)).put(&[0; 8]);
    let answer = message.ask(socket)?;
    let flags = answer.get(HEADER_LEN + 8..).and_then(|rest| rest.first_chunk()).copied().map(u32::from_ne_bytes);
    Ok(flags.is_some_and(|flags| flags & libc::IFF_UP as u32 != 0))
}

/// Waits until packets to the address are delivered here.
fn wait_until_local(socket: &OwnedFd, address: IpAddr) -> io::Result<()> {
    for _ in 0..1000 {
        if is_delivered_here(socket, address)? {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, format!("the kernel does not make {address} reachable")))
}

fn is_delivered_here(socket: &OwnedFd, address: IpAddr) -> io::Result<bool> {
    let mut message = Message::query(libc::RTM_GETROUTE);
    let address_len = if address.is_ipv4() { 32 } else { 128 };
    message.put(&[family(address), address_len, 0, 0, 0, 0, 0, 0]).put(&[0; 4]);
    message.attribute(libc::RTA_DST, &octets(address));
    let answer = message.ask(socket)?;
    let kind = answer.get(4..6).map(|kind| u16::from_ne_bytes([kind[0], kind[1]]));
    // The type of a route is the eighth byte of its fixed part.
    Ok(kind == Some(libc::RTM_NEWROUTE) && answer.get(HEADER_LEN + 7) == Some(&libc::RTN_LOCAL))
}

pub(crate) fn describe(error: &io::Error, what: std::fmt::Arguments<'_>) -> io::Error {
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

pub(crate) fn index_bytes(index: u32) -> [u8; 4] {
    index.to_ne_bytes()
}
