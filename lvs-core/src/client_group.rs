//! Whom the bounds for one client count together. An IPv4 client is an address; an IPv6 client has a whole network of
//! them, so that a bound by address would be none.

use core::net::IpAddr;

use crate::service::Netmask;

/// How clients are told apart where one of them may have only so much.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ClientGroups {
    ipv6_prefix: u8,
}

impl ClientGroups {
    /// IPv6 clients are told apart by this many bits of their addresses ([`crate::DirectorConfig::client_ipv6_prefix`]).
    pub const fn new(ipv6_prefix: u8) -> Self {
        Self { ipv6_prefix }
    }

    /// Stands for everybody who counts as the same client as `address`.
    pub fn of(self, address: IpAddr) -> IpAddr {
        Netmask::V6(self.ipv6_prefix).apply(address)
    }
}

/// A part of `whole` for one client: what is configured, or, for `u32::MAX`, a quarter, and 16 where that is less.
pub(crate) const fn share(configured: u32, whole: u32) -> u32 {
    match configured {
        u32::MAX if whole / 4 < SHARE_MIN => SHARE_MIN,
        u32::MAX => whole / 4,
        configured => configured,
    }
}

/// Tables too small to be divided are not.
const SHARE_MIN: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv6_clients_count_by_network_and_ipv4_clients_by_address() {
        let groups = ClientGroups::new(64);
        let of = |address: &str| groups.of(address.parse().unwrap());
        assert_eq!(of("2001:db8:0:1::1"), of("2001:db8:0:1:ffff::2"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8:0:2::1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_ne!(ClientGroups::new(128).of("2001:db8::1".parse().unwrap()), of("2001:db8::1"));
    }

    #[test]
    fn a_share_is_a_quarter_unless_it_is_named() {
        assert_eq!(
            [(u32::MAX, 16_384), (u32::MAX, 8), (5, 8), (0, 8)].map(|(of, whole)| share(of, whole)),
            [4_096, 16, 5, 0]
        );
    }
}
