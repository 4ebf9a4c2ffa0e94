//! A small routing table for one link: which station a packet for an address is handed to.

use std::net::IpAddr;

use crate::prefix::Prefix;

/// Next hops by prefix; the longest prefix wins, and of two equal ones the later.
///
/// For a handful of routes: a lookup walks the table.
///
/// ```
/// use lvs_io::l2::Routes;
/// let mut routes = Routes::new();
/// routes.add_direct("10.0.0.0/24".parse().unwrap());
/// routes.add_gateway("0.0.0.0/0".parse().unwrap(), "10.0.0.254".parse().unwrap());
/// assert_eq!(routes.next_hop("10.0.0.7".parse().unwrap()), Some("10.0.0.7".parse().unwrap()));
/// assert_eq!(routes.next_hop("203.0.113.7".parse().unwrap()), Some("10.0.0.254".parse().unwrap()));
/// assert_eq!(routes.next_hop("2001:db8::7".parse().unwrap()), None);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Routes {
    /// Longest prefix first.
    table: Vec<Route>,
}

#[derive(Clone, Copy, Debug)]
struct Route {
    network: Prefix,
    /// `None`: the stations of this network are on the link.
    gateway: Option<IpAddr>,
}

impl Routes {
    /// A table without routes: nothing can be reached.
    pub fn new() -> Self {
        Self::default()
    }

    /// A table by which every station is on the link.
    pub fn all_direct() -> Self {
        let mut routes = Self::new();
        for any in ["0.0.0.0/0", "::/0"] {
            routes.add_direct(any.parse().expect("a constant"));
        }
        routes
    }

    /// The stations of this network are on the link.
    pub fn add_direct(&mut self, network: Prefix) {
        self.add(Route { network, gateway: None });
    }

    /// What is for this network is handed to the gateway, which is on the link.
    pub fn add_gateway(&mut self, network: Prefix, gateway: IpAddr) {
        self.add(Route { network, gateway: Some(gateway) });
    }

    fn add(&mut self, route: Route) {
        let at = self.table.partition_point(|other| other.network.bits() > route.network.bits());
        self.table.insert(at, route);
    }

    /// Whom to hand a packet for `address` to; `None` if there is no route.
    pub fn next_hop(&self, address: IpAddr) -> Option<IpAddr> {
        if is_link_local(address) {
            return Some(address);
        }
        let route = self.table.iter().find(|route| route.network.contains(address))?;
        Some(route.gateway.unwrap_or(address))
    }

    /// Whether the station with this address is on the link.
    pub fn is_direct(&self, address: IpAddr) -> bool {
        self.next_hop(address) == Some(address) || self.is_gateway(address)
    }

    fn is_gateway(&self, address: IpAddr) -> bool {
        self.table.iter().any(|route| route.gateway == Some(address))
    }
}

/// RFC 4291 §2.5.6: on this link by definition.
fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_wins_in_whatever_order_routes_were_added() {
        let all = [("0.0.0.0/0", "10.0.0.1"), ("192.0.2.0/24", "10.0.0.2"), ("192.0.2.128/25", "10.0.0.3")];
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let mut routes = Routes::new();
            for (network, gateway) in order.map(|index| all[index]) {
                routes.add_gateway(network.parse().unwrap(), gateway.parse().unwrap());
            }
            let next_hop = |address: &str| routes.next_hop(address.parse().unwrap()).unwrap().to_string();
            assert_eq!(next_hop("203.0.113.1"), "10.0.0.1");
            assert_eq!(next_hop("192.0.2.1"), "10.0.0.2");
            assert_eq!(next_hop("192.0.2.200"), "10.0.0.3");
        }
    }

    #[test]
    fn a_later_route_replaces_an_equal_one() {
        let mut routes = Routes::all_direct();
        routes.add_gateway("::/0".parse().unwrap(), "fe80::1".parse().unwrap());
        assert_eq!(routes.next_hop("2001:db8::1".parse().unwrap()), Some("fe80::1".parse().unwrap()));
        assert!(routes.is_direct("fe80::2".parse().unwrap()) && !routes.is_direct("2001:db8::1".parse().unwrap()));
    }
}
