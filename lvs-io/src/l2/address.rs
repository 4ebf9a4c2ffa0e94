//! Ethernet addresses: 48 bits, and what IPv6 derives from them.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// An Ethernet (MAC) address.
///
/// ```
/// use lvs_io::l2::MacAddress;
/// let address: MacAddress = "02:00:00:00:00:2a".parse().unwrap();
/// assert_eq!(address.to_string(), "02:00:00:00:00:2a");
/// assert_eq!(address.link_local().to_string(), "fe80::ff:fe00:2a");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress(pub [u8; 6]);

/// The text is no Ethernet address: six bytes in hexadecimal with colons between.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InvalidMacAddress;

impl MacAddress {
    /// Every station on the link.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Whether this is one station's address, and not zero.
    pub fn is_unicast(self) -> bool {
        // IEEE 802: the lowest bit of the first byte marks groups.
        self.0[0] & 1 == 0 && self != Self([0; 6])
    }

    /// Where packets for an IPv6 group go (RFC 2464 §7).
    pub fn of_group(group: Ipv6Addr) -> Self {
        let [.., a, b, c, d] = group.octets();
        Self([0x33, 0x33, a, b, c, d])
    }

    /// The link-local IPv6 address a station with this Ethernet address gives itself (RFC 4291 appendix A).
    pub fn link_local(self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.0;
        Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
    }

    /// The group that a station with this IP address must hear to be found: its solicited-node group for IPv6 (RFC 4291
    /// §2.7.1), broadcast for IPv4. A device whose receiver filters groups has to let this one in.
    pub fn to_be_heard_for(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::BROADCAST,
            IpAddr::V6(address) => Self::of_group(solicited_node(address)),
        }
    }
}

/// RFC 4291 §2.7.1.
pub(super) fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for MacAddress {
    type Err = InvalidMacAddress;

    fn from_str(text: &str) -> Result<Self, InvalidMacAddress> {
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().filter(|part| part.len() == 2).ok_or(InvalidMacAddress)?;
            *octet = u8::from_str_radix(part, 16).map_err(|_| InvalidMacAddress)?;
        }
        if parts.next().is_some() { Err(InvalidMacAddress) } else { Ok(Self(octets)) }
    }
}

impl fmt::Display for InvalidMacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an Ethernet address: six bytes in hexadecimal with colons between")
    }
}

impl std::error::Error for InvalidMacAddress {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_have_the_addresses_of_rfc_2464() {
        let address: Ipv6Addr = "2001:db8::12:3456:789a".parse().unwrap();
        assert_eq!(solicited_node(address), "ff02::1:ff56:789a".parse::<Ipv6Addr>().unwrap());
        assert_eq!(MacAddress::to_be_heard_for(address.into()).to_string(), "33:33:ff:56:78:9a");
    }

    #[test]
    fn what_is_no_ethernet_address_is_refused() {
        for text in ["", "02:00:00:00:00", "02:00:00:00:00:00:00", "2:0:0:0:0:0", "02:00:00:00:00:0g"] {
            assert_eq!(text.parse::<MacAddress>(), Err(InvalidMacAddress), "{text}");
        }
    }
}
