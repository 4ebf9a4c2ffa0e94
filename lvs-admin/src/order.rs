//! The order of listings: services by protocol, address and port, fwmark services last, servers by address and port;
//! IPv4 before IPv6. Never the order of a table in memory.

use core::cmp::Ordering;

use lvs_core::view::{ServerView, ServiceView};
use lvs_core::{AddressFamily, ServiceKey};

/// A service and its servers, borrowed in the order they are shown in.
pub(crate) type Shown<'a> = (&'a ServiceView, Vec<&'a ServerView>);

/// Services and servers in ipvsadm's order.
pub(crate) fn sorted(services: &[ServiceView]) -> Vec<Shown<'_>> {
    let mut shown = unsorted(services);
    shown.sort_by(|(one, _), (other, _)| compare(one.key, other.key));
    for (_, servers) in &mut shown {
        servers.sort_by_key(|server| server.config.key);
    }
    shown
}

/// Services and servers as they come.
pub(crate) fn unsorted(services: &[ServiceView]) -> Vec<Shown<'_>> {
    services.iter().map(|service| (service, service.servers.iter().collect())).collect()
}

fn compare(one: ServiceKey, other: ServiceKey) -> Ordering {
    rank(one).cmp(&rank(other))
}

/// What services are ordered by: whether marked, then protocol or mark, family, address, port.
fn rank(key: ServiceKey) -> (bool, u32, AddressFamily, Option<std::net::IpAddr>, u16) {
    match key {
        ServiceKey::Address { protocol, address, port } => {
            (false, protocol.number().into(), AddressFamily::of(address), Some(address), port)
        }
        ServiceKey::FwMark { family, mark } => (true, mark, family, None, 0),
    }
}
