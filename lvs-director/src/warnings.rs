//! What `lvsd run` says before it starts, about rules that can be carried out and still not do what was meant.

pub(crate) mod tun;

use std::net::{IpAddr, SocketAddr};

use lvs_core::service::effect;
use lvs_core::{Director, ForwardMethod, Instant, ServiceKey};
use lvs_io_tun::netdev;

use crate::devices::Devices;

/// Sentences about the rules of `director` alone.
pub fn about_rules(director: &Director) -> Vec<String> {
    let mut warnings = Vec::new();
    for service in director.services(Instant::ZERO) {
        let lacks_local = |is_ipv4: bool| {
            let mut servers = service.servers.iter().map(|server| &server.config);
            servers.any(|server| server.forward == ForwardMethod::FullNat && server.key.address.is_ipv4() == is_ipv4)
                && !service.local_addresses.iter().any(|address| address.is_ipv4() == is_ipv4)
        };
        if service.config.scheduler == "mh" && service.servers.len() > MH_SERVERS_MAX {
            warnings.push(format!(
                "the service {} spreads {} servers over the 4,093 slots of 'mh': shares differ by up to a fifth, and light \
                 servers beside heavy ones may get none",
                name(&service.key),
                service.servers.len()
            ));
        }
        for (is_ipv4, family) in [(true, "IPv4"), (false, "IPv6")] {
            if lacks_local(is_ipv4) {
                warnings.push(format!(
                    "the service {} reaches servers by FullNAT but has no local {family} address to reach them from, and \
                     refuses its clients; add '--add-laddr … --local-address ADDRESS' to the rules",
                    name(&service.key)
                ));
            }
        }
    }
    warnings.extend(without_effect(director));
    warnings
}

/// Options that do nothing for some of a service's servers.
fn without_effect(director: &Director) -> Vec<String> {
    let mut warnings = Vec::new();
    for service in director.services(Instant::ZERO) {
        let mut methods: Vec<ForwardMethod> = service.servers.iter().map(|server| server.config.forward).collect();
        methods.sort_unstable();
        methods.dedup();
        for method in methods {
            for option in effect::without_effect(&service.key, &service.config, method) {
                let (service, method) = (name(&service.key), method.name());
                warnings.push(format!("the service {service}: '{option}' does nothing for its {method} servers"));
            }
        }
    }
    warnings
}

/// Sentences about the rules on devices that are open already.
pub fn about_devices(director: &Director, devices: &Devices) -> Vec<String> {
    let (Devices::Tun(names), Some(device)) = (devices, devices.names().last()) else { return Vec::new() };
    let services = director.services(Instant::ZERO);
    let is_direct = |method| method == ForwardMethod::DirectRouting;
    let direct =
        services.iter().filter(|service| service.servers.iter().any(|server| is_direct(server.config.forward)));
    let goes_astray = |address: &IpAddr| {
        let way = netdev::way_on(device, tun::anybody(*address), *address);
        way.is_ok_and(|way| way.is_none_or(|device| names.contains(&device)))
    };
    let mut addresses: Vec<IpAddr> = direct.filter_map(|service| address(&service.key)).filter(goes_astray).collect();
    addresses.sort_unstable();
    addresses.dedup();
    let warn = |address| {
        format!(
            "direct routing by TUN leaves the address {address} in the packets, and the host sends what comes out of \
             {device} for it into the director again, or nowhere; give it a way of its own: 'ip route add default via \
             SERVER dev DEVICE table 100' and 'ip rule add iif {device} lookup 100', or use --afpacket"
        )
    };
    addresses.into_iter().map(warn).collect()
}

/// With more servers than this, `mh` gives each fewer than 40 slots.
const MH_SERVERS_MAX: usize = 100;

fn address(key: &ServiceKey) -> Option<IpAddr> {
    match key {
        ServiceKey::Address { address, .. } => Some(*address),
        ServiceKey::FwMark { .. } => None,
    }
}

/// As listings write it.
fn name(key: &ServiceKey) -> String {
    match key {
        ServiceKey::Address { protocol, address, port } => {
            format!("{} {}", format!("{protocol:?}").to_uppercase(), SocketAddr::new(*address, *port))
        }
        ServiceKey::FwMark { mark, .. } => format!("FWM {mark}"),
    }
}
