//! Making links between network namespaces, by rtnetlink: pairs of virtual Ethernet devices and bridges. What tests and
//! demonstrations need to build a small network of their own. Needs CAP_NET_ADMIN in every namespace concerned.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::net::netdevice;

use crate::netdev::{describe, index_bytes};
use crate::netlink::{self, Message};

/// Makes a pair of virtual Ethernet devices: `name` here, `peer` in the namespace that `namespace` is a file of
/// (`/proc/PID/ns/net`). Both are down. What one sends the other receives. They vanish together, with either namespace.
///
/// # Errors
/// `AlreadyExists` if a name is taken. The text names the devices and what the kernel said.
pub fn add_veth(name: &str, peer: &str, namespace: BorrowedFd<'_>) -> io::Result<()> {
    let mut message = new_link();
    message.attribute(libc::IFLA_IFNAME, &zero_terminated(name));
    message.nested(libc::IFLA_LINKINFO, |info| {
        info.attribute(libc::IFLA_INFO_KIND, b"veth");
        info.nested(libc::IFLA_INFO_DATA, |data| {
            data.nested(VETH_INFO_PEER, |other| {
                other.put(&[0; INTERFACE_INFO_LEN]);
                other.attribute(libc::IFLA_IFNAME, &zero_terminated(peer));
                other.attribute(libc::IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes());
            });
        });
    });
    send(message).map_err(|error| describe(&error, format_args!("cannot make the veth pair {name} and {peer}")))
}

/// Makes a bridge, a switch of this host, without ports and down.
///
/// # Errors
/// As [`add_veth`].
pub fn add_bridge(name: &str) -> io::Result<()> {
    let mut message = new_link();
    message.attribute(libc::IFLA_IFNAME, &zero_terminated(name));
    message.nested(libc::IFLA_LINKINFO, |info| {
        info.attribute(libc::IFLA_INFO_KIND, b"bridge");
    });
    send(message).map_err(|error| describe(&error, format_args!("cannot make the bridge {name}")))
}

/// Makes the device a port of the bridge.
///
/// # Errors
/// `NotFound`/ENODEV if there is no such device or bridge. The text names both and what the kernel said.
pub fn set_bridge(name: &str, bridge: &str) -> io::Result<()> {
    let attach = || {
        let socket = netlink::socket()?;
        let index = netdevice::name_to_index(&socket, name)?;
        let bridge_index = netdevice::name_to_index(&socket, bridge)?;
        let mut message = Message::new(libc::RTM_NEWLINK, 0);
        message.put(&[0; 4]).put(&index_bytes(index)).put(&[0; 8]);
        message.attribute(libc::IFLA_MASTER, &index_bytes(bridge_index));
        message.send(&socket)
    };
    attach().map_err(|error| describe(&error, format_args!("cannot make {name} a port of {bridge}")))
}

/// Deletes the device, and with one end of a pair the other.
///
/// # Errors
/// `NotFound`/ENODEV if there is no such device. The text names it and what the kernel said.
pub fn delete_link(name: &str) -> io::Result<()> {
    let delete = || {
        let socket = netlink::socket()?;
        let index = netdevice::name_to_index(&socket, name)?;
        let mut message = Message::new(libc::RTM_DELLINK, 0);
        message.put(&[0; 4]).put(&index_bytes(index)).put(&[0; 8]);
        message.send(&socket)
    };
    delete().map_err(|error| describe(&error, format_args!("cannot delete {name}")))
}

fn new_link() -> Message {
    let mut message = Message::new(libc::RTM_NEWLINK, libc::NLM_F_CREATE | libc::NLM_F_EXCL);
    message.put(&[0; INTERFACE_INFO_LEN]);
    message
}

fn send(message: Message) -> io::Result<()> {
    message.send(&netlink::socket()?)
}

fn zero_terminated(name: &str) -> Vec<u8> {
    [name.as_bytes(), &[0]].concat()
}

/// The fixed part of a message about a link (`struct ifinfomsg`).
const INTERFACE_INFO_LEN: usize = 16;

/// The other end of a pair (`linux/veth.h`).
const VETH_INFO_PEER: u16 = 1;
