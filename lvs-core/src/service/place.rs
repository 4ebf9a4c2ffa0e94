//! The order in which a kernel tells its services, as far as it shows: `ipvsadm` sorts what it is told, and its
//! comparison is no order for networks more than 2³¹ apart, so that what came first decides.
//! Services that differ in high address bytes alone come from one chain, which has the newest first; marks come last.
//! Source: recordings `zug_sort`, `bug_text_1`, `ctl_sort_addresses`.

use core::cmp::Reverse;
use core::net::IpAddr;

use crate::service::ServiceKey;

/// Where a service comes among those of its director.
///
/// ```
/// use lvs_core::service::ServicePlace;
/// use lvs_core::{Protocol, ServiceKey};
/// let key = |at: &str| ServiceKey::address(Protocol::Tcp, at.parse().unwrap());
/// let (older, newer) = (ServicePlace::new(key("10.0.0.1:80"), 0), ServicePlace::new(key("172.16.0.1:80"), 1));
/// assert!(newer < older);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ServicePlace {
    is_mark: bool,
    chain: u8,
    newest: Reverse<u64>,
    key: ServiceKey,
}

impl ServicePlace {
    /// The place of a service before which so many were added.
    ///
    /// Which chain comes first differs in Linux from one network namespace to the next; this is one of the orders there
    /// are, and that of recording `bug_text_1`.
    pub const fn new(key: ServiceKey, added: u64) -> Self {
        let (is_mark, chain) = match key {
            ServiceKey::Address { protocol, address, port } => {
                let low = match address {
                    IpAddr::V4(address) => address.octets()[3],
                    IpAddr::V6(address) => {
                        let octets = address.octets();
                        octets[3] ^ octets[7] ^ octets[11] ^ octets[15]
                    }
                };
                let [high_port, low_port] = port.to_be_bytes();
                (false, low ^ high_port ^ low_port ^ protocol.number() ^ 0x10)
            }
            ServiceKey::FwMark { .. } => (true, 0),
        };
        Self { is_mark, chain, newest: Reverse(added), key }
    }

    /// How many services were added before it.
    pub const fn added(&self) -> u64 {
        self.newest.0
    }

    /// Whose place it is.
    pub const fn key(&self) -> ServiceKey {
        self.key
    }
}
