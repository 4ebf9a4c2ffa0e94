//! The order of listings, which is ipvsadm's: services by mark, family, protocol, address and port, servers by address
//! and port. Each is compared as ipvsadm compares it, by the sign of a 32-bit difference, so that 192.168.0.1 comes
//! before 10.0.0.1: half the numbers are less than any one. Never the order of a table in memory.
//! Source: recordings `ctl_sort_addresses`, `zug_sort`.

use core::cmp::Ordering;
use core::net::IpAddr;

use lvs_core::view::{ServerView, ServiceView};
use lvs_core::{AddressFamily, Endpoint, ServiceKey};

/// A service and its servers, borrowed in the order they are shown in.
pub(crate) type Shown<'a> = (&'a ServiceView, Vec<&'a ServerView>);

/// Services and servers in ipvsadm's order.
pub(crate) fn sorted(services: &[ServiceView]) -> Vec<Shown<'_>> {
    let mut shown = unsorted(services);
    shown.sort_by_key(|(service, _)| service.place());
    let mut shown = merge_sort(&shown, &|(one, _), (other, _)| compare_services(one.key, other.key));
    for (_, servers) in &mut shown {
        *servers = merge_sort(servers, &|one, other| compare_endpoints(one.config.key, other.config.key));
    }
    shown
}

/// Services and servers as they come.
pub(crate) fn unsorted(services: &[ServiceView]) -> Vec<Shown<'_>> {
    services.iter().map(|service| (service, service.servers.iter().collect())).collect()
}

fn compare_services(one: ServiceKey, other: ServiceKey) -> Ordering {
    // A service without a mark has mark 0; one with a mark has no protocol and no address.
    let parts = |key| match key {
        ServiceKey::Address { protocol, address, port } => {
            (0, AddressFamily::of(address), protocol.number(), Some(Endpoint::new(address, port)))
        }
        ServiceKey::FwMark { family, mark } => (mark, family, 0, None),
    };
    let ((mark, family, protocol, at), (its_mark, its_family, its_protocol, its_at)) = (parts(one), parts(other));
    by_difference(mark, its_mark).then(family.cmp(&its_family)).then(protocol.cmp(&its_protocol)).then_with(|| {
        match (at, its_at) {
            (Some(one), Some(other)) => compare_endpoints(one, other),
            _ => Ordering::Equal,
        }
    })
}

fn compare_endpoints(one: Endpoint, other: Endpoint) -> Ordering {
    let by_address = match (one.address, other.address) {
        (IpAddr::V6(one), IpAddr::V6(other)) => {
            let words = words(one.octets()).into_iter().zip(words(other.octets()));
            words.map(|(one, other)| by_difference(one, other)).fold(Ordering::Equal, Ordering::then)
        }
        // Of two families: the IPv4 address against the first four bytes of the other.
        (one, other) => by_difference(first_word(one), first_word(other)),
    };
    by_address.then(one.port.cmp(&other.port))
}

fn first_word(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(address) => address.to_bits(),
        IpAddr::V6(address) => words(address.octets())[0],
    }
}

fn words(octets: [u8; 16]) -> [u32; 4] {
    let bits = u128::from_be_bytes(octets);
    [96, 64, 32, 0].map(|shift| (bits >> shift) as u32)
}

fn by_difference(one: u32, other: u32) -> Ordering {
    (one.wrapping_sub(other) as i32).cmp(&0)
}

/// Sorts by a comparison that is no order: a may come before b, b before c and c before a. What comes out then depends
/// on how it is sorted; this is how the C library that ipvsadm is linked with does it.
fn merge_sort<T: Clone>(items: &[T], compare: &impl Fn(&T, &T) -> Ordering) -> Vec<T> {
    if items.len() < 2 {
        return items.to_vec();
    }
    let (before, behind) = items.split_at(items.len() / 2);
    let (before, behind) = (merge_sort(before, compare), merge_sort(behind, compare));
    let mut merged = Vec::with_capacity(items.len());
    let (mut before, mut behind) = (before.into_iter().peekable(), behind.into_iter().peekable());
    while let (Some(one), Some(other)) = (before.peek(), behind.peek()) {
        let takes_first = compare(one, other) != Ordering::Greater;
        merged.extend(if takes_first { before.next() } else { behind.next() });
    }
    merged.extend(before);
    merged.extend(behind);
    merged
}

/// Services in the order of listings, their servers as they are: for programs that ask for the servers one service after
/// the other, as ipvsadm does.
pub fn sort(services: Vec<ServiceView>) -> Vec<ServiceView> {
    merge_sort(&services, &|one, other| compare_services(one.key, other.key))
}
