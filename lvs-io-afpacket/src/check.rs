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
        /// `ipv4` or `ipv6`.
        family: &'static str,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HostOwnsAddress(address) => write!(
                f,
                "this host owns the virtual or local address {address} and would answer for it itself; take it away: \
                 'ip address delete {address} dev DEVICE' (with DR, only the real servers have it, on lo)"
            ),
            Self::HostForwards { device, family } => write!(
                f,
                "this host forwards packets that come by {device} and would do so beside the director; switch it off: \
                 'sysctl net.{family}.conf.{device}.forwarding=0'"
            ),
        }
    }
}

/// Looks for what stands in the way of a director for `addresses` on `device`. Ownership comes first. What cannot be
/// found out counts as harmless.
pub fn host(device: &str, addresses: &[IpAddr]) -> Vec<Finding> {
    let owned = addresses.iter().filter(|address| netdev::is_local(**address).unwrap_or(false));
    let mut findings: Vec<Finding> = owned.map(|address| Finding::HostOwnsAddress(*address)).collect();
    for family in ["ipv4", "ipv6"] {
        let path = format!("/proc/sys/net/{family}/conf/{device}/forwarding");
        if fs::read_to_string(path).is_ok_and(|value| value.trim() != "0") {
            findings.push(Finding::HostForwards { device: device.to_owned(), family });
        }
    }
    findings
}
