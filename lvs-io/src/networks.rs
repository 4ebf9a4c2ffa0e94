//! A set of networks that says whether an address lies in one of them, in a time that hardly grows with their number:
//! ranges of addresses, sorted and joined where they touch. One more address, or one less, takes as little.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::prefix::Prefix;

/// A set of networks.
///
/// ```
/// use lvs_io::{Networks, Prefix};
///
/// let servers: Networks = ["10.0.0.0/25", "10.0.0.128/25", "2001:db8::1"].iter().map(|text| text.parse().unwrap()).collect();
/// assert!(servers.contains("10.0.0.200".parse().unwrap()));
/// assert!(!servers.contains("10.0.1.0".parse().unwrap()));
/// // As few as say the same.
/// let fewest: Vec<String> = servers.prefixes().iter().map(Prefix::to_string).collect();
/// assert_eq!(fewest, ["10.0.0.0/24", "2001:db8::1/128"]);
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Networks {
    ipv4: Ranges,
    ipv6: Ranges,
}

/// Last addresses by first ones, as numbers; with a gap between each range and the next.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Ranges(BTreeMap<u128, u128>);

impl Networks {
    /// Whether the address lies in one of the networks.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.ipv4.contains(address.to_bits().into()),
            IpAddr::V6(address) => self.ipv6.contains(address.to_bits()),
        }
    }

    /// Adds an address.
    ///
    /// ```
    /// use lvs_io::Networks;
    /// let mut servers = Networks::default();
    /// servers.insert("10.0.0.2".parse().unwrap());
    /// assert!(servers.contains("10.0.0.2".parse().unwrap()));
    /// servers.remove("10.0.0.2".parse().unwrap());
    /// assert!(servers.is_empty());
    /// ```
    pub fn insert(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => self.ipv4.insert(address.to_bits().into()),
            IpAddr::V6(address) => self.ipv6.insert(address.to_bits()),
        }
    }

    /// Takes an address out, also one of a larger network: the rest of that stays.
    pub fn remove(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => self.ipv4.remove(address.to_bits().into()),
            IpAddr::V6(address) => self.ipv6.remove(address.to_bits()),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ipv4.0.is_empty() && self.ipv6.0.is_empty()
    }

    /// The fewest networks that contain the same addresses: IPv4 first, in order.
    pub fn prefixes(&self) -> Vec<Prefix> {
        let ipv4 = self.ipv4.blocks(32).map(|(first, len)| (IpAddr::V4(Ipv4Addr::from_bits(first as u32)), len));
        let ipv6 = self.ipv6.blocks(128).map(|(first, len)| (IpAddr::V6(Ipv6Addr::from_bits(first)), len));
        ipv4.chain(ipv6).map(|(first, len)| Prefix::new(first, len).expect("not longer than an address")).collect()
    }
}

impl FromIterator<Prefix> for Networks {
    fn from_iter<I: IntoIterator<Item = Prefix>>(networks: I) -> Self {
        let (mut ipv4, mut ipv6) = (Vec::new(), Vec::new());
        for network in networks {
            let (ranges, bits, width) = match network.address() {
                IpAddr::V4(address) => (&mut ipv4, u128::from(address.to_bits()), 32),
                IpAddr::V6(address) => (&mut ipv6, address.to_bits(), 128),
            };
            // How many addresses there are, less one.
            let rest = all_ones(width - u32::from(network.bits()));
            ranges.push((bits & !rest, bits | rest));
        }
        Self { ipv4: Ranges::new(ipv4), ipv6: Ranges::new(ipv6) }
    }
}

impl Ranges {
    fn new(mut ranges: Vec<(u128, u128)>) -> Self {
        ranges.sort_unstable();
        ranges.dedup_by(|next, last| {
            let touches = last.1.checked_add(1).is_none_or(|behind| next.0 <= behind);
            if touches {
                last.1 = last.1.max(next.1);
            }
            touches
        });
        Self(ranges.into_iter().collect())
    }

    /// The range an address lies in.
    fn around(&self, address: u128) -> Option<(u128, u128)> {
        let (first, last) = self.0.range(..=address).next_back()?;
        (address <= *last).then_some((*first, *last))
    }

    fn contains(&self, address: u128) -> bool {
        self.around(address).is_some()
    }

    fn insert(&mut self, address: u128) {
        if self.contains(address) {
            return;
        }
        let before = address.checked_sub(1).and_then(|before| self.around(before));
        let last = address.checked_add(1).and_then(|behind| self.0.remove(&behind)).unwrap_or(address);
        self.0.insert(before.map_or(address, |(first, _)| first), last);
    }

    fn remove(&mut self, address: u128) {
        let Some((first, last)) = self.around(address) else { return };
        self.0.remove(&first);
        if first < address {
            self.0.insert(first, address - 1);
        }
        if address < last {
            self.0.insert(address + 1, last);
        }
    }

    /// The ranges cut into networks, as large as they can be: first addresses, and how many bits count.
    fn blocks(&self, width: u32) -> impl Iterator<Item = (u128, u8)> {
        self.0.iter().flat_map(move |(&first, &last)| {
            let mut next = Some(first);
            std::iter::from_fn(move || {
                let first = next?;
                // As many low bits as are zero in the first address and do not lead past the last one.
                let mut free = first.trailing_zeros().min(width);
                while all_ones(free) > last - first {
                    free -= 1;
                }
                let end = first + all_ones(free);
                next = (end < last).then(|| end + 1);
                Some((first, (width - free) as u8))
            })
        })
    }
}

/// The number whose `count` lowest bits are set.
fn all_ones(count: u32) -> u128 {
    u128::MAX.checked_shr(128 - count).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use lvs_testkit::strategy::config;
    use proptest::prelude::*;

    use super::*;

    /// Networks near each other and at the ends of the address space.
    fn any_prefix() -> impl Strategy<Value = Prefix> {
        let ipv4 = (any::<u32>(), prop::sample::select(vec![0u32, 0x0a00_0000, u32::MAX - 255]), 0u8..=32);
        let ipv6 = (any::<u128>(), prop::sample::select(vec![0u128, 0xfd << 120, u128::MAX - 255]), 0u8..=128);
        prop_oneof![
            ipv4.prop_map(|(low, base, len)| (IpAddr::V4(Ipv4Addr::from_bits(base | low & 0xff)), len.max(22))),
            ipv6.prop_map(|(low, base, len)| (IpAddr::V6(Ipv6Addr::from_bits(base | low & 0xff)), len.max(118))),
            Just((IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0)),
            Just((IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0)),
        ]
        .prop_map(|(address, len)| Prefix::new(address, len).expect("not longer than an address"))
    }

    proptest! {
        #![proptest_config(config())]

        #[test]
        fn addresses_come_and_go_as_they_would_in_a_list(
            changes in prop::collection::vec((any::<bool>(), any_prefix()), 0..200),
        ) {
            let mut set = Networks::default();
            let mut list = std::collections::BTreeSet::new();
            for (is_there, address) in changes.into_iter().map(|(is_there, network)| (is_there, network.address())) {
                if is_there {
                    set.insert(address);
                    list.insert(address);
                } else {
                    set.remove(address);
                    list.remove(&address);
                }
                prop_assert_eq!(&set, &list.iter().copied().map(Prefix::from).collect::<Networks>());
            }
        }

        #[test]
        fn the_set_contains_what_one_of_its_networks_contains(
            networks in prop::collection::vec(any_prefix(), 0..12),
            asked in prop::collection::vec(any_prefix(), 1..40),
        ) {
            let set: Networks = networks.iter().copied().collect();
            let fewest = set.prefixes();
            prop_assert_eq!(&fewest.iter().copied().collect::<Networks>(), &set);
            prop_assert!(fewest.len() <= networks.len());
            prop_assert_eq!(set.is_empty(), networks.is_empty());
            for address in asked.iter().chain(&networks).map(Prefix::address) {
                let expected = networks.iter().any(|network| network.contains(address));
                prop_assert_eq!(set.contains(address), expected, "{}", address);
                prop_assert_eq!(fewest.iter().any(|network| network.contains(address)), expected, "{}", address);
            }
        }
    }
}
