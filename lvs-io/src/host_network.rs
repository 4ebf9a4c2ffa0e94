//! What the host knows of a link: its addresses there and its routes over it, read by rtnetlink.

use std::io;
use std::net::IpAddr;

use rustix::net::netdevice;

use crate::netlink::{self, Message, attributes};
use crate::prefix::Prefix;

/// The addresses of the device, with the lengths of their networks' prefixes.
///
/// # Errors
/// `ENODEV` if there is no such device; what the kernel says otherwise.
pub fn addresses(device: &str) -> io::Result<Vec<(IpAddr, u8)>> {
    let index = netdevice::name_to_index(&netlink::socket()?, device)?;
    addresses_where(|other| other == index)
}

/// The addresses of all devices of the host, as they are at the time.
///
/// # Errors
/// What the kernel says.
pub fn all_addresses() -> io::Result<Vec<IpAddr>> {
    Ok(addresses_where(|_| true)?.into_iter().map(|(address, _)| address).collect())
}

/// The addresses of the devices with these numbers.
fn addresses_where(is_wanted: impl Fn(u32) -> bool) -> io::Result<Vec<(IpAddr, u8)>> {
    let mut found = Vec::new();
    // `struct ifaddrmsg`: family, prefix length, flags, scope, device.
    for message in Message::list(libc::RTM_GETADDR, &[0; 8])? {
        let Some((fixed, rest)) = message.split_first_chunk::<8>() else { continue };
        if !is_wanted(u32::from_ne_bytes([fixed[4], fixed[5], fixed[6], fixed[7]])) {
            continue;
        }
        // Point-to-point links have their own address in one and the peer's in the other; others have one of them.
        let find = |kind| attributes(rest).find(|(other, _)| *other == kind).and_then(|(_, value)| address(value));
        if let Some(address) = find(libc::IFA_LOCAL).or_else(|| find(libc::IFA_ADDRESS)) {
            found.push((address, fixed[1]));
        }
    }
    Ok(found)
}

/// The unicast routes over the device in the main table: networks, and gateways where they are not direct.
///
/// # Errors
/// As [`addresses`].
pub fn routes(device: &str) -> io::Result<Vec<(Prefix, Option<IpAddr>)>> {
    let index = netdevice::name_to_index(&netlink::socket()?, device)?;
    let mut found = Vec::new();
    // `struct rtmsg`: family, prefix lengths of destination and source, TOS, table, protocol, scope, type, flags.
    for message in Message::list(libc::RTM_GETROUTE, &[0; 12])? {
        let Some((fixed, rest)) = message.split_first_chunk::<12>() else { continue };
        if fixed[4] != libc::RT_TABLE_MAIN || fixed[7] != libc::RTN_UNICAST {
            continue;
        }
        let find = |kind| attributes(rest).find(|(other, _)| *other == kind).map(|(_, value)| value);
        let over = find(libc::RTA_OIF).and_then(|value| value.first_chunk()).copied().map(u32::from_ne_bytes);
        if over != Some(index) {
            continue;
        }
        let any: IpAddr = if i32::from(fixed[0]) == libc::AF_INET { [0; 4].into() } else { [0; 16].into() };
        let destination = find(libc::RTA_DST).and_then(address).unwrap_or(any);
        if let Some(network) = Prefix::new(destination, fixed[1]) {
            found.push((network, find(libc::RTA_GATEWAY).and_then(address)));
        }
    }
    Ok(found)
}

fn address(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => value.first_chunk::<4>().map(|octets| IpAddr::from(*octets)),
        16 => value.first_chunk::<16>().map(|octets| IpAddr::from(*octets)),
        _ => None,
    }
}
