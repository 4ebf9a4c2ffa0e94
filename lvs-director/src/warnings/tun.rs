//! What stands in the way of a director on TUN devices: everything reaches it by the host's own routes, and goes on by
//! them. Asks the host, as it is at the start.

use std::fs;
use std::net::IpAddr;

use lvs_core::view::ServiceView;
use lvs_core::{ForwardMethod, ServiceKey};
use lvs_io_tun::netdev;

use crate::denied::Denied;

/// Refuses virtual and local addresses that the host owns: it would keep their packets for itself, and the director
/// would never see one.
///
/// # Errors
/// The first such address.
pub fn refuse_owned(addresses: impl IntoIterator<Item = IpAddr>) -> Result<(), Denied> {
    match addresses.into_iter().find(|address| netdev::is_local(*address).unwrap_or(false)) {
        None => Ok(()),
        Some(address) => Err(Denied::said(format_args!(
            "this host owns the virtual or local address {address} and keeps packets for it to itself; take it away: \
             'ip address delete {address} dev DEVICE'"
        ))),
    }
}

/// Why a virtual or local address that came later is not reached by the devices: the host owns it, or leads nowhere.
pub fn unreachable(address: IpAddr, names: &[String]) -> Option<String> {
    let device = names.first()?;
    if let Err(denied) = refuse_owned([address]) {
        return Some(denied.to_string());
    }
    let is_routed = netdev::way_out(address).ok().flatten().is_some_and(|way| names.contains(&way));
    (!is_routed)
        .then(|| format!("nothing leads to the director yet for {address}: 'ip route add {address} dev {device}'"))
}

/// Sentences about forwarding that is off, addresses that are not routed into the devices, and replies that come back
/// another way.
pub fn findings(services: &[ServiceView], names: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    let virtual_addresses = services.iter().filter_map(|service| address(&service.key));
    for (is_ipv4, setting) in [(true, "net.ipv4.ip_forward"), (false, "net.ipv6.conf.all.forwarding")] {
        let is_needed = virtual_addresses.clone().any(|address| address.is_ipv4() == is_ipv4);
        let value = fs::read_to_string(format!("/proc/sys/{}", setting.replace('.', "/")));
        if is_needed && value.is_ok_and(|value| value.trim() == "0") {
            found.push(format!(
                "this host does not forward: only its own packets reach the director; switch it on: 'sysctl {setting}=1'"
            ));
        }
    }
    let (routed, unrouted): (Vec<IpAddr>, Vec<IpAddr>) = virtual_addresses
        .partition(|address| netdev::way_out(*address).ok().flatten().is_some_and(|way| names.contains(&way)));
    if let Some(device) = names.first() {
        let mut unrouted: Vec<String> = unrouted.iter().map(|address| address.to_string()).collect();
        unrouted.sort_unstable();
        unrouted.dedup();
        if !unrouted.is_empty() {
            found.push(format!(
                "nothing leads to the director yet for {}: 'ip route add ADDRESS dev {device}' for each",
                unrouted.join(", ")
            ));
        }
    }
    // Whoever has not set up the way there has not set up the way back either.
    if !routed.is_empty() {
        found.extend(services.iter().flat_map(|service| astray(service, names)));
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// Replies of servers by NAT and FullNAT that the host would send past the director.
fn astray<'a>(service: &'a ServiceView, names: &'a [String]) -> impl Iterator<Item = String> + 'a {
    let is_translated = |method| matches!(method, ForwardMethod::Nat | ForwardMethod::FullNat);
    let servers = service.servers.iter().filter(move |server| is_translated(server.config.forward));
    servers.filter_map(|server| {
        let address = server.config.key.address;
        let to = match server.config.forward {
            ForwardMethod::FullNat => {
                *service.local_addresses.iter().find(|local| local.is_ipv4() == address.is_ipv4())?
            }
            _ => anybody(address),
        };
        let came_out = names.last()?;
        let device = way(came_out, anybody(address), address)?;
        let back = way(&device, address, to)?;
        let is_astray = !names.contains(&device) && !names.contains(&back);
        is_astray.then(|| {
            format!(
                "replies of the server {address} come by {device}, and the host sends them on by {back}, past the \
                 director: 'ip rule add iif {device} lookup 101' and 'ip route add default dev {came_out} table 101'"
            )
        })
    })
}

/// By which device the host sends on what comes by the device `from`.
fn way(from: &str, source: IpAddr, destination: IpAddr) -> Option<String> {
    netdev::way_on(from, source, destination).ok().flatten()
}

/// A client anywhere: a documentation address (RFC 5737, RFC 3849).
pub(super) fn anybody(family: IpAddr) -> IpAddr {
    if family.is_ipv4() { [203, 0, 113, 1].into() } else { [0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1].into() }
}

fn address(key: &ServiceKey) -> Option<IpAddr> {
    match key {
        ServiceKey::Address { address, .. } => Some(*address),
        ServiceKey::FwMark { .. } => None,
    }
}
