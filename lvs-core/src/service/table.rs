//! The virtual services: found by key for commands, and for packets in Linux's order
//! (fwmark, exact address and port, FTP data, any port).

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;

use ahash::RandomState;
use hashbrown::HashMap;

use crate::flow::{AddressFamily, Endpoint, Protocol};
use crate::helper::Helper;
use crate::rng::Seed;
use crate::service::stats::Meter;
use crate::service::{RealServer, ServerKey, ServiceConfig, ServiceKey};
use crate::time::Instant;

/// FTP control; persistent FTP services also take data connections.
pub(crate) const FTP_PORT: u16 = 21;
const FTP_DATA_PORT: u16 = 20;
/// Linux: `net.ipv4.ip_unprivileged_port_start`.
const FIRST_UNPRIVILEGED_PORT: u16 = 1024;

/// A virtual service with its servers in list order, newest first.
pub(crate) struct Service {
    pub key: ServiceKey,
    pub config: ServiceConfig,
    pub helper: Option<Arc<dyn Helper>>,
    pub servers: Vec<RealServer>,
    /// The director's own addresses towards its servers, for FullNAT, in the order they were added.
    pub local_addresses: Vec<IpAddr>,
    pub meter: Meter,
    /// How many services were added before it.
    pub added: u64,
    /// Whether the last attempt to choose a server failed; used to tell of it once.
    pub is_unavailable: bool,
    /// When a conflict of replies was last told.
    pub told_conflict: Option<Instant>,
}

impl Service {
    pub fn position(&self, server: &ServerKey) -> Option<usize> {
        self.servers.iter().position(|candidate| candidate.key == *server)
    }

    pub fn is_persistent(&self) -> bool {
        self.config.persistence_timeout_s.is_some()
    }

    /// Whether a persistence engine reads its packets.
    pub fn has_engine(&self) -> bool {
        self.config.persistence_engine.as_ref().is_some_and(|name| !name.is_empty())
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("key", &self.key).field("config", &self.config).finish_non_exhaustive()
    }
}

/// A service's place in the table; stays the same while the service lives.
pub(crate) type ServiceIndex = u32;

#[derive(Debug)]
pub(crate) struct ServiceTable {
    slots: Vec<Option<Service>>,
    free: Vec<ServiceIndex>,
    by_key: HashMap<ServiceKey, ServiceIndex, RandomState>,
    /// Virtual addresses, with how many services each has.
    addresses: HashMap<IpAddr, u32, RandomState>,
    ftp_services: u32,
    /// Services whose port is 0, fwmark services included.
    any_port_services: u32,
    /// Services with a persistence engine.
    engine_services: u32,
    ipv4_services: u32,
    ipv6_services: u32,
}

impl ServiceTable {
    pub fn new(seed: Seed) -> Self {
        let state = || {
            let word = |n| seed.derive(n).value();
            RandomState::with_seeds(word(1), word(2), word(3), word(4))
        };
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_key: HashMap::with_hasher(state()),
            addresses: HashMap::with_hasher(state()),
            ftp_services: 0,
            any_port_services: 0,
            engine_services: 0,
            ipv4_services: 0,
            ipv6_services: 0,
        }
    }

    pub fn insert(&mut self, service: Service) -> ServiceIndex {
        let key = service.key;
        self.count(&key, 1);
        self.note_engine(false, service.config.persistence_engine.is_some());
        let index = match self.free.pop() {
            Some(index) => {
                self.slots[index as usize] = Some(service);
                index
            }
            None => {
                self.slots.push(Some(service));
                (self.slots.len() - 1) as ServiceIndex
            }
        };
        self.by_key.insert(key, index);
        index
    }

    pub fn remove(&mut self, index: ServiceIndex) -> Option<Service> {
        let service = self.slots.get_mut(index as usize)?.take()?;
        self.by_key.remove(&service.key);
        self.free.push(index);
        self.count(&service.key, -1);
        self.note_engine(service.config.persistence_engine.is_some(), false);
        Some(service)
    }

    pub fn index_of(&self, key: &ServiceKey) -> Option<ServiceIndex> {
        self.by_key.get(key).copied()
    }

    pub fn get(&self, index: ServiceIndex) -> Option<&Service> {
        self.slots.get(index as usize)?.as_ref()
    }

    pub fn get_mut(&mut self, index: ServiceIndex) -> Option<&mut Service> {
        self.slots.get_mut(index as usize)?.as_mut()
    }

    /// How many services there are.
    pub fn len(&self) -> u32 {
        self.ipv4_services + self.ipv6_services
    }

    /// Every service in slot order.
    pub fn iter(&self) -> impl Iterator<Item = &Service> {
        self.slots.iter().flatten()
    }

    /// Places there are, empty ones included: every index is below.
    pub fn places(&self) -> u32 {
        self.slots.len() as u32
    }

    /// Every index in use, in the order Linux flushes: address services first, then fwmark services.
    pub fn indexes(&self) -> Vec<ServiceIndex> {
        let of = |fwmark: bool| {
            self.slots.iter().enumerate().filter_map(move |(index, slot)| {
                let service = slot.as_ref()?;
                (matches!(service.key, ServiceKey::FwMark { .. }) == fwmark).then_some(index as ServiceIndex)
            })
        };
        of(false).chain(of(true)).collect()
    }

    /// Whether any service of this family exists. Without one, IPVS's hooks are not there at all.
    pub fn serves(&self, family: AddressFamily) -> bool {
        match family {
            AddressFamily::Ipv4 => self.ipv4_services > 0,
            AddressFamily::Ipv6 => self.ipv6_services > 0,
        }
    }

    /// A service's configuration had a persistence engine before, and has one now.
    pub fn note_engine(&mut self, before: bool, after: bool) {
        self.engine_services = self.engine_services + u32::from(after) - u32::from(before);
    }

    /// Whether any service has a persistence engine.
    pub fn has_engines(&self) -> bool {
        self.engine_services > 0
    }

    /// Whether a service has this virtual address.
    pub fn is_virtual(&self, address: IpAddr) -> bool {
        self.addresses.contains_key(&address)
    }

    /// The service for a packet without a connection.
    pub fn lookup(&self, mark: u32, protocol: Protocol, destination: Endpoint) -> Option<ServiceIndex> {
        let family = AddressFamily::of(destination.address);
        let at = |port| ServiceKey::Address { protocol, address: destination.address, port };
        if mark != 0 {
            if let Some(index) = self.index_of(&ServiceKey::FwMark { family, mark }) {
                return Some(index);
            }
        }
        if let Some(index) = self.index_of(&at(destination.port)) {
            return Some(index);
        }
        let may_be_ftp_data = protocol == Protocol::Tcp
            && self.ftp_services > 0
            && (destination.port == FTP_DATA_PORT || destination.port >= FIRST_UNPRIVILEGED_PORT);
        if may_be_ftp_data {
            if let Some(index) = self.index_of(&at(FTP_PORT)) {
                return Some(index);
            }
        }
        if self.any_port_services > 0 { self.index_of(&at(0)) } else { None }
    }

    fn count(&mut self, key: &ServiceKey, by: i32) {
        let add = |counter: &mut u32| *counter = counter.wrapping_add_signed(by);
        match key.family() {
            AddressFamily::Ipv4 => add(&mut self.ipv4_services),
            AddressFamily::Ipv6 => add(&mut self.ipv6_services),
        }
        match key.port() {
            FTP_PORT => add(&mut self.ftp_services),
            0 => add(&mut self.any_port_services),
            _ => {}
        }
        if let ServiceKey::Address { address, .. } = key {
            let services = self.addresses.entry(*address).or_insert(0);
            add(services);
            if *services == 0 {
                self.addresses.remove(address);
            }
        }
    }
}
