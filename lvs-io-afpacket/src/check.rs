//! What would go wrong beside the host's own network stack, which keeps receiving every frame the director receives:
//! found before the start, with what to do about it.

use std::fmt;
use std::fs;
use std::net::IpAddr;

use lvs_io::netdev;

/// Something about the host that stands in a director's way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Finding {
    /// The host owns a virtual address: its stack would answer clients itself, with resets.
    HostOwnsAddress(IpAddr),
    /// The host forwards what comes by this device: packets for virtual addresses, and replies from servers, would be
    /// forwarded twice, once by the host and unbalanced.
    HostForwards {
        /// The device.
        device: String,
        /// The setting that makes it, as `sysctl` names it.
        setting: String,
    },
    /// The device is down, and receives nothing until it comes up.
    DeviceDown(String),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HostOwnsAddress(address) => write!(
                f,
                "this host owns the virtual or local address {address} and would answer for it itself; take it away: \
                 'ip address delete {address} dev DEVICE' (with DR, only the real servers have it, on lo), or, if it is \
                 a virtual one, leave it to the host: 'lvsd run --addresses host'"
            ),
            Self::HostForwards { device, setting } => write!(
                f,
                "this host forwards packets that come by {device} and would do so beside the director; switch it off: \
                 'sysctl {setting}=0'"
            ),
            Self::DeviceDown(device) => {
                write!(f, "{device} is down and receives nothing until it comes up: 'ip link set {device} up'")
            }
        }
    }
}

/// Looks for what stands in the way of a director for `addresses` on `device`. Ownership comes first. What cannot be
/// found out counts as harmless.
pub fn host(device: &str, addresses: &[IpAddr]) -> Vec<Finding> {
    let owned = addresses.iter().filter(|address| netdev::is_local(**address).unwrap_or(false));
    let mut findings: Vec<Finding> = owned.map(|address| Finding::HostOwnsAddress(*address)).collect();
    for [family, name, setting] in FORWARDING {
        let name = if name.is_empty() { device } else { name };
        let path = format!("/proc/sys/net/{family}/conf/{name}/{setting}");
        if fs::read_to_string(path).is_ok_and(|value| value.trim() != "0") {
            // sysctl(8): a dot in a device's name is written as a slash.
            let setting = format!("net.{family}.conf.{}.{setting}", name.replace('.', "/"));
            findings.push(Finding::HostForwards { device: device.to_owned(), setting });
        }
    }
    if netdev::is_up(device).is_ok_and(|is_up| !is_up) {
        findings.push(Finding::DeviceDown(device.to_owned()));
    }
    findings
}

/// What makes a host forward what comes by a device; the empty name is the device's. For IPv4 its own setting does, for
/// IPv6 that of `all`, whatever the device's says, or, since Linux 6.17, the device's `force_forwarding`.
const FORWARDING: [[&str; 3]; 3] =
    [["ipv4", "", "forwarding"], ["ipv6", "all", "forwarding"], ["ipv6", "", "force_forwarding"]];
