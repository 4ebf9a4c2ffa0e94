//! What a device is told to let in: as little as will do, and for no longer than it is open. How often it has been
//! asked for the frames of all stations is what the kernel says of it (IFLA_PROMISCUITY). Where namespaces cannot be
//! had, the tests say why and return.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use lvs_core::Seed;
use lvs_io::l2::MacAddress;
use lvs_io::{Steering, netdev};
use lvs_io_afpacket::{AfPacketDevice, AfPacketOptions, Delivery};
use lvs_testkit::network::{self, Failure};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netdevice, recv, send, socket_with};

const OWN: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);

/// Opens the device that `make` makes, with each kind of ring. It is asked for everything as often as `expected` says
/// when a director on it shares its Ethernet address, and when it has one of its own. `test` is the calling test's
/// name.
fn check(test: &str, device: &str, make: impl Fn() -> Result<(), Failure>, expected: [u32; 2]) {
    network::isolated(test, make, || {
        for delivery in [Delivery::AtOnce, Delivery::BLOCKS] {
            for (mac, times) in [None, Some(OWN)].into_iter().zip(expected) {
                let options = AfPacketOptions { mac, delivery, ..AfPacketOptions::default() };
                assert_eq!(while_open(device, &options)?, [times; 2], "{mac:?}, {delivery:?}");
                // Once more for each socket that wants it.
                let options = AfPacketOptions { is_promiscuous: true, ..options };
                assert_eq!(while_open(device, &options)?, [times + 1, times + 3], "{mac:?}, {delivery:?}");
            }
        }
        Ok(())
    });
}

/// How often the device is asked for everything while it is open, and while three queues of it are; not at all before
/// and after.
fn while_open(device: &str, options: &AfPacketOptions) -> Result<[u32; 2], Failure> {
    assert_eq!(promiscuity(device)?, 0);
    let open = AfPacketDevice::open(device, options)?;
    let with_one = promiscuity(device)?;
    drop(open);
    assert_eq!(promiscuity(device)?, 0);
    let queues = AfPacketDevice::open_all(device, options, &Steering::new(3, Vec::new(), Seed::new(5)), None)?;
    let with_three = promiscuity(device)?;
    drop(queues);
    assert_eq!(promiscuity(device)?, 0);
    Ok([with_one, with_three])
}

#[test]
fn a_device_that_knows_one_address_lets_everything_in_for_a_station_of_its_own_only() {
    let test = "a_device_that_knows_one_address_lets_everything_in_for_a_station_of_its_own_only";
    check(test, "left", add_veth, [0, 1]);
}

#[test]
fn a_device_that_knows_several_addresses_lets_everything_in_only_if_told_to() {
    let test = "a_device_that_knows_several_addresses_lets_everything_in_only_if_told_to";
    check(test, "upper", || add_veth().and_then(|()| Ok(add_macvlan("upper", "left")?)), [0, 0]);
}

fn add_veth() -> Result<(), Failure> {
    netdev::add_veth("left", "right", File::open("/proc/self/ns/net")?.as_fd())?;
    netdev::set_up("left")?;
    Ok(netdev::set_up("right")?)
}

/// A device of its own address on another.
fn add_macvlan(name: &str, lower: &str) -> io::Result<()> {
    let socket = netlink()?;
    let lower = netdevice::name_to_index(&socket, lower)?.to_ne_bytes();
    let kind = attribute(libc::IFLA_INFO_KIND, b"macvlan");
    let attributes = [
        attribute(libc::IFLA_IFNAME, &[name.as_bytes(), &[0]].concat()),
        attribute(libc::IFLA_LINK, &lower),
        attribute(libc::IFLA_LINKINFO, &kind),
    ];
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    let answer = ask(&socket, libc::RTM_NEWLINK, flags, 0, &attributes.concat())?;
    // `struct nlmsgerr`: a negated error number.
    match answer.get(16..).and_then(|rest| rest.first_chunk()).copied().map(i32::from_ne_bytes) {
        Some(0) => netdev::set_up(name),
        error => Err(io::Error::from_raw_os_error(error.map_or(libc::EPROTO, i32::wrapping_neg))),
    }
}

/// How often the device has been asked for the frames of all stations.
fn promiscuity(device: &str) -> Result<u32, Failure> {
    let socket = netlink()?;
    let index = netdevice::name_to_index(&socket, device)?;
    let answer = ask(&socket, libc::RTM_GETLINK, libc::NLM_F_REQUEST, index, &[])?;
    let mut attributes = answer.get(32..).ok_or("no answer")?;
    while let [l0, l1, k0, k1, value @ ..] = attributes {
        if u16::from_ne_bytes([*k0, *k1]) == libc::IFLA_PROMISCUITY {
            return Ok(u32::from_ne_bytes(*value.first_chunk().ok_or("a short attribute")?));
        }
        let len = usize::from(u16::from_ne_bytes([*l0, *l1])).max(4);
        attributes = attributes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Err("the kernel does not say".into())
}

/// Protocol 0 of this family is NETLINK_ROUTE.
fn netlink() -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?)
}

/// A message about a link (RFC 3549 §2.3.3.1), and the answer.
fn ask(socket: &OwnedFd, kind: u16, flags: i32, index: u32, attributes: &[u8]) -> io::Result<Vec<u8>> {
    // `struct nlmsghdr`, then `struct ifinfomsg`.
    let (len, flags) = (32 + attributes.len() as u32, flags as u16);
    let header = [&len.to_ne_bytes()[..], &kind.to_ne_bytes(), &flags.to_ne_bytes(), &[0; 8]].concat();
    let link = [[0; 4], index.to_ne_bytes(), [0; 4], [0; 4]].concat();
    send(socket, &[&header, &link, attributes].concat(), SendFlags::empty())?;
    let mut answer = vec![0; 32 * 1024];
    let (_, len) = recv(socket, &mut answer[..], RecvFlags::empty())?;
    answer.truncate(len);
    Ok(answer)
}

/// An attribute, padded to four bytes.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let len = 4 + value.len();
    let mut bytes = [&(len as u16).to_ne_bytes(), &kind.to_ne_bytes(), value].concat();
    bytes.resize(len.next_multiple_of(4), 0);
    bytes
}
