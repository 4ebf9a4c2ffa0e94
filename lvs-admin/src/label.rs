//! How single things are written in listings and rules: endpoints with or without names, services, flags, masks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use lvs_core::service::SchedulerFlags;
use lvs_core::{Endpoint, Netmask, Protocol, ServiceConfig, ServiceKey};

use crate::Names;

/// Writes endpoints, with names unless numbers were asked for.
pub(crate) struct Labels<'a> {
    names: Option<&'a Names>,
}

impl<'a> Labels<'a> {
    pub(crate) fn new(numeric: bool, names: &'a Names) -> Self {
        Self { names: (!numeric).then_some(names) }
    }

    /// `10.0.0.2:80`, `[2001:db8::1]:80`, `host:http`.
    pub(crate) fn endpoint(&self, address: IpAddr, port: u16, protocol: Protocol) -> String {
        let host = match (self.names.and_then(|names| names.host_name(address)), address) {
            (Some(name), IpAddr::V4(_)) => name.to_owned(),
            (Some(name), IpAddr::V6(_)) => format!("[{name}]"),
            (None, IpAddr::V4(address)) => address.to_string(),
            (None, IpAddr::V6(address)) => format!("[{}]", ipv6(address)),
        };
        match self.names.and_then(|names| names.port_name(port, protocol)) {
            Some(name) => format!("{host}:{name}"),
            None => format!("{host}:{port}"),
        }
    }

    /// A real server of `service`, whose protocol names its port.
    pub(crate) fn server(&self, service: ServiceKey, server: Endpoint) -> String {
        let protocol = match service {
            ServiceKey::Address { protocol, .. } => protocol,
            ServiceKey::FwMark { .. } => Protocol::Tcp,
        };
        self.endpoint(server.address, server.port, protocol)
    }
}

/// `mh-fallback,mh-port`: the names sh and mh have for the first two flags, the plain ones for the rest.
pub(crate) fn scheduler_flag_names(config: &ServiceConfig) -> Option<String> {
    flag_names(config, "flag-3")
}

/// The same as listings show them: ipvsadm has no name for the third flag of `sh` and `mh`, and leaves it out.
pub(crate) fn listed_flag_names(config: &ServiceConfig) -> Option<String> {
    flag_names(config, "")
}

fn flag_names(config: &ServiceConfig, third: &'static str) -> Option<String> {
    let names = match config.scheduler.as_str() {
        "sh" => ["sh-fallback", "sh-port", third],
        "mh" => ["mh-fallback", "mh-port", third],
        _ => ["flag-1", "flag-2", "flag-3"],
    };
    let bits = [SchedulerFlags::FALLBACK, SchedulerFlags::PORT, SchedulerFlags::FLAG_3];
    let has = |bit| config.scheduler_flags.has(bit);
    let set: Vec<_> = names.into_iter().zip(bits).filter(|&(name, bit)| has(bit) && !name.is_empty()).collect();
    let names: Vec<_> = set.into_iter().map(|(name, _)| name).collect();
    bits.into_iter().any(has).then(|| names.join(","))
}

/// An IPv6 address as the C library writes it: with an IPv4 address at its end where six words of zeros come before
/// (`::1.2.3.4`) or five and `ffff`. Recording `bug6_text`.
pub(crate) fn ipv6(address: Ipv6Addr) -> String {
    match address.segments() {
        [0, 0, 0, 0, 0, 0, high, _] if high != 0 => format!("::{}", Ipv4Addr::from_bits(address.to_bits() as u32)),
        _ => address.to_string(),
    }
}

/// A time in seconds, begun ones included.
pub(crate) fn whole_seconds(time: Duration) -> u64 {
    time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0))
}

/// A persistence mask, unless every bit counts.
pub(crate) fn netmask(mask: Option<Netmask>) -> Option<String> {
    match mask? {
        Netmask::V4(Ipv4Addr::BROADCAST) | Netmask::V6(128) => None,
        Netmask::V4(mask) => Some(mask.to_string()),
        Netmask::V6(prefix) => Some(prefix.to_string()),
    }
}
