//! Every real server the director knows, living or deleted, by its id: what connections need of it.
//! A deleted server waits in the trash with its counters; it is revived when it is added back in time, and forgotten
//! 120 to 180 s after its last use.

use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;

use ahash::RandomState;
use hashbrown::HashMap;

use crate::command::AfterDrain;
use crate::flow::{Endpoint, Protocol};
use crate::rng::Seed;
use crate::service::stats::Meter;
use crate::service::table::ServiceIndex;
use crate::service::{ForwardMethod, RealServer, ServerConfig, ServerId, ServiceKey, TunnelKind};
use crate::time::Instant;
use crate::wire::ipv6;

/// How often the trash is looked through.
pub(crate) const TRASH_PERIOD: Duration = Duration::from_secs(60);
/// How long a learned path MTU is believed: Linux's `net.ipv4.route.mtu_expires`.
const PATH_MTU_LIFETIME: Duration = Duration::from_secs(600);
/// Less than this is not believed: Linux's `net.ipv4.route.min_pmtu`. It keeps forged errors from doing much harm.
const PATH_MTU_MIN: u16 = 552;
/// How long a server must have been without connections to be forgotten.
const TRASH_IDLE: Duration = Duration::from_secs(120);

/// Where a server is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// In its service's list.
    Listed { service: ServiceIndex, position: usize },
    /// Deleted; its counters are kept here. `idle_since` is set once nothing refers to it.
    Trash { counts: RealServer, idle_since: Option<Instant> },
}

/// A server that is taken out of service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Drain {
    /// When what remains is closed.
    pub deadline: Instant,
    pub then: AfterDrain,
    /// Whether its end was told.
    pub is_told: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct ServerRecord {
    /// The service it belongs to, or belonged to.
    pub service: ServiceKey,
    pub config: ServerConfig,
    pub place: Place,
    pub meter: Meter,
    /// The service object it was deleted from is gone: a revival zeroes its statistics.
    pub service_was_deleted: bool,
    /// Since when it has been warming up; `None` once it is warm.
    pub ramp_since: Option<Instant>,
    /// While it drains, and after.
    pub drain: Option<Drain>,
    /// How many of its connections are over and wait to be forgotten ([`crate::connection::State::is_over`]).
    pub over: u32,
    /// Reported load factor in 1/1024ths.
    pub factor: u32,
    /// Whether it was told that there are no local ports towards it, and there are none still (FullNAT).
    pub told_ports_exhausted: bool,
    /// The way to it as it was last used; tunnels only.
    pub route: Option<UsedRoute>,
    /// What only the path to it knows ([`crate::tunnel::Tunnel::proof`]); the table fills it in.
    pub proof: u32,
}

/// The way to a server when a packet last took it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UsedRoute {
    pub at: Instant,
    /// Longest packet it took then.
    pub mtu: u16,
}

impl ServerRecord {
    /// Whether it is in its service's list: only then are packets sent to it.
    pub fn is_listed(&self) -> bool {
        matches!(self.place, Place::Listed { .. })
    }
}

/// How many services have a NAT server at one endpoint.
#[derive(Clone, Copy, Default, Debug)]
struct NatServers {
    tcp: u32,
    udp: u32,
    sctp: u32,
    fwmark: u32,
}

/// What is known of an address that servers have.
#[derive(Clone, Copy, Default, Debug)]
struct KnownAddress {
    /// How many servers have it.
    servers: u32,
    path_mtu: Option<PathMtu>,
}

/// What routers told of the way to an address.
#[derive(Clone, Copy, Debug)]
struct PathMtu {
    /// Longest packet it takes.
    mtu: u16,
    /// When the first of them told so.
    since: Instant,
    /// How long it is believed.
    until: Instant,
}

impl KnownAddress {
    fn believed(&self, now: Instant) -> Option<PathMtu> {
        self.path_mtu.filter(|path| path.until > now)
    }

    /// What is believed once a router has reported this.
    fn told(&self, now: Instant, reported: u32, least: u16) -> PathMtu {
        let mtu = u16::try_from(reported).unwrap_or(u16::MAX).max(least);
        let until = now + PATH_MTU_LIFETIME;
        match self.believed(now) {
            None => PathMtu { mtu, since: now, until },
            Some(before) if mtu <= before.mtu => PathMtu { mtu, until, ..before },
            Some(before) => before,
        }
    }
}

/// The far end of a tunnel, as its packets show it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct TunnelEnd {
    pub address: IpAddr,
    pub kind: TunnelKind,
    /// GUE's UDP port; 0 for the others.
    pub port: u16,
}

#[derive(Debug)]
pub(crate) struct ServerTable {
    slots: Vec<Option<ServerRecord>>,
    free: Vec<u32>,
    /// Deleted servers, newest last.
    trash: Vec<ServerId>,
    /// When the trash is looked through next; `None` while it is empty.
    trash_due: Option<Instant>,
    /// How many of them this look has already come to.
    trash_seen: usize,
    nat_servers: HashMap<Endpoint, NatServers, RandomState>,
    /// Where tunnels lead to, with how many listed servers are there.
    tunnel_ends: HashMap<TunnelEnd, u32, RandomState>,
    /// Addresses of every known server.
    addresses: HashMap<IpAddr, KnownAddress, RandomState>,
    /// Whether a path MTU was ever learned: until then nobody looks for one.
    has_learned_mtu: bool,
    proofs: Seed,
}

impl ServerTable {
    pub fn new(seed: Seed) -> Self {
        let word = |n| seed.derive(n).value();
        let state = || RandomState::with_seeds(word(1), word(2), word(3), word(4));
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            trash: Vec::new(),
            trash_due: None,
            trash_seen: 0,
            nat_servers: HashMap::with_hasher(state()),
            tunnel_ends: HashMap::with_hasher(state()),
            addresses: HashMap::with_hasher(state()),
            has_learned_mtu: false,
            proofs: seed.derive(5),
        }
    }

    /// The id the next `insert` will use.
    pub fn next_id(&self) -> ServerId {
        ServerId(self.free.last().copied().unwrap_or(self.slots.len() as u32))
    }

    pub fn insert(&mut self, mut record: ServerRecord) -> ServerId {
        let id = self.next_id();
        record.proof = self.proof(record.config.key.address);
        self.note(&record, 1);
        self.addresses.entry(record.config.key.address).or_default().servers += 1;
        if self.free.pop().is_some() {
            self.slots[id.0 as usize] = Some(record);
        } else {
            self.slots.push(Some(record));
        }
        id
    }

    /// How many servers are known, deleted ones included.
    pub fn len(&self) -> u32 {
        (self.slots.len() - self.free.len()) as u32
    }

    /// How many deleted servers are not forgotten yet.
    pub fn deleted_len(&self) -> u32 {
        self.trash.len() as u32
    }

    pub fn get(&self, id: ServerId) -> Option<&ServerRecord> {
        self.slots.get(id.0 as usize)?.as_ref()
    }

    pub fn get_mut(&mut self, id: ServerId) -> Option<&mut ServerRecord> {
        self.slots.get_mut(id.0 as usize)?.as_mut()
    }

    /// Places there are, empty ones included.
    pub fn places(&self) -> u32 {
        self.slots.len() as u32
    }

    /// The server at a place.
    pub fn at_mut(&mut self, place: u32) -> Option<&mut ServerRecord> {
        self.get_mut(ServerId(place))
    }

    /// Replaces a listed server's configuration.
    pub fn edit(&mut self, id: ServerId, config: ServerConfig) {
        let Some(mut record) = self.slots.get_mut(id.0 as usize).and_then(Option::take) else { return };
        self.note(&record, -1);
        record.config = config;
        self.note(&record, 1);
        self.slots[id.0 as usize] = Some(record);
    }

    /// Puts a server that has just left its service's list into the trash, with its counters.
    pub fn bury(&mut self, id: ServerId, counts: RealServer, now: Instant, service_was_deleted: bool) {
        let Some(mut record) = self.slots.get_mut(id.0 as usize).and_then(Option::take) else { return };
        self.note(&record, -1);
        record.place = Place::Trash { counts, idle_since: None };
        record.service_was_deleted |= service_was_deleted;
        record.ramp_since = None;
        record.drain = None;
        self.slots[id.0 as usize] = Some(record);
        if self.trash.is_empty() {
            self.trash_due = Some(now + TRASH_PERIOD);
        }
        self.trash.push(id);
    }

    /// The most recently deleted server with this identity.
    pub fn find_buried(&self, service: &ServiceKey, config: &ServerConfig) -> Option<ServerId> {
        self.trash.iter().rev().copied().find(|id| {
            self.get(*id)
                .is_some_and(|record| record.config.key == config.key && is_same_service(&record.service, service))
        })
    }

    /// Takes a server out of the trash into a service's list; returns its counters. The caller sets its position.
    pub fn revive(
        &mut self,
        id: ServerId,
        service: ServiceKey,
        config: ServerConfig,
        index: ServiceIndex,
    ) -> Option<RealServer> {
        let mut record = self.slots.get_mut(id.0 as usize)?.take()?;
        if let Some(at) = self.trash.iter().position(|buried| *buried == id) {
            self.trash.remove(at);
            self.trash_seen -= usize::from(at < self.trash_seen);
        }
        if self.trash.is_empty() {
            self.trash_due = None;
        }
        let place = core::mem::replace(&mut record.place, Place::Listed { service: index, position: 0 });
        let Place::Trash { counts, .. } = place else { unreachable!("only buried servers are in the trash") };
        record.service = service;
        record.config = config;
        record.factor = 1024;
        if core::mem::take(&mut record.service_was_deleted) {
            record.meter.zero();
        }
        self.note(&record, 1);
        self.slots[id.0 as usize] = Some(record);
        Some(counts)
    }

    pub fn trash_due(&self) -> Option<Instant> {
        self.trash_due
    }

    /// Looks through the trash (every 60 s): servers nobody refers to become idle, and those idle for 120 s are
    /// forgotten. `is_remembered` tells whether a service's scheduler still holds the id. Stops when the budget is used
    /// up, and goes on from there when it is called again, which is due at once. Returns the forgotten ones.
    pub fn sweep_trash(
        &mut self,
        now: Instant,
        budget: &mut u32,
        is_remembered: impl Fn(&ServiceKey, ServerId) -> bool,
    ) -> Vec<ServerRecord> {
        let mut forgotten = Vec::new();
        let (start, end) = (self.trash_seen, self.trash.len().min(self.trash_seen + *budget as usize));
        *budget -= (end - start) as u32;
        let mut kept = start;
        for at in start..end {
            let id = self.trash[at];
            if !self.is_to_be_forgotten(now, id, &is_remembered) {
                self.trash[kept] = id;
                kept += 1;
            } else if let Some(record) = self.slots[id.0 as usize].take() {
                self.free.push(id.0);
                self.leave_address(record.config.key.address);
                forgotten.push(record);
            }
        }
        self.trash.drain(kept..end);
        self.trash_seen = kept;
        if self.trash_seen == self.trash.len() {
            self.trash_seen = 0;
            self.trash_due = if self.trash.is_empty() { None } else { Some(now + TRASH_PERIOD) };
        }
        forgotten
    }

    /// Whether a deleted server has been idle long enough; notes since when it is.
    fn is_to_be_forgotten(
        &mut self,
        now: Instant,
        id: ServerId,
        is_remembered: &impl Fn(&ServiceKey, ServerId) -> bool,
    ) -> bool {
        let Some(record) = self.get_mut(id) else { return true };
        let Place::Trash { counts, idle_since } = &mut record.place else { return true };
        let is_used = counts.total_connections + counts.expected_connections + counts.persistent_connections > 0
            || is_remembered(&record.service, id);
        !is_used && now.duration_since(*idle_since.get_or_insert(now)) >= TRASH_IDLE
    }

    /// Whether some service has a NAT server at this endpoint (for a fwmark service the protocol does not matter).
    pub fn is_nat_server(&self, protocol: Protocol, endpoint: Endpoint) -> bool {
        self.nat_servers.get(&endpoint).is_some_and(|servers| {
            servers.fwmark > 0
                || match protocol {
                    Protocol::Tcp => servers.tcp > 0,
                    Protocol::Udp => servers.udp > 0,
                    Protocol::Sctp => servers.sctp > 0,
                }
        })
    }

    /// Whether a known server, deleted ones included, has this address.
    pub fn has_address(&self, address: IpAddr) -> bool {
        self.addresses.contains_key(&address)
    }

    /// What only the path to this address knows.
    pub fn proof(&self, address: IpAddr) -> u32 {
        let bits = match address {
            IpAddr::V4(address) => u128::from(address.to_bits()),
            IpAddr::V6(address) => address.to_bits(),
        };
        let proof = self.proofs.derive(bits as u64).derive((bits >> 64) as u64).value() as u32 & 0xf_ffff;
        // None is told by zero.
        if proof & 0xffff == 0 { proof | 1 } else { proof }
    }

    /// Remembers the path MTU a router reported, if it is not above the one known.
    pub fn learn_path_mtu(&mut self, now: Instant, address: IpAddr, reported: u32) {
        if let Some(known) = self.addresses.get_mut(&address) {
            known.path_mtu = Some(known.told(now, reported, least_mtu(address)));
            self.has_learned_mtu = true;
        }
    }

    /// The path MTU learned for this address, while it is believed.
    pub fn path_mtu(&self, now: Instant, address: IpAddr) -> Option<u16> {
        if !self.has_learned_mtu {
            return None;
        }
        self.addresses.get(&address)?.believed(now).map(|path| path.mtu)
    }

    /// The MTU of the route a server's tunnel used last, once a router has `reported` another. Linux keeps it as it was
    /// then until the next packet; but a route a router had told of already follows at once.
    pub fn used_route_mtu(&self, now: Instant, address: IpAddr, route: UsedRoute, reported: u32) -> u16 {
        let known = self.addresses.get(&address).copied().unwrap_or_default();
        match known.believed(now) {
            Some(path) if path.since < route.at => known.told(now, reported, least_mtu(address)).mtu,
            _ => route.mtu,
        }
    }

    fn leave_address(&mut self, address: IpAddr) {
        if let Some(known) = self.addresses.get_mut(&address) {
            known.servers -= 1;
            if known.servers == 0 {
                self.addresses.remove(&address);
            }
        }
    }

    /// Whether a listed server is reached through a tunnel.
    pub fn has_tunnels(&self) -> bool {
        !self.tunnel_ends.is_empty()
    }

    /// Whether a listed server's tunnel ends there.
    pub fn is_tunnel_end(&self, end: &TunnelEnd) -> bool {
        self.tunnel_ends.contains_key(end)
    }

    /// Notes that a listed server came (1) or went (-1).
    fn note(&mut self, record: &ServerRecord, by: i32) {
        self.note_nat(record, by);
        self.note_tunnel(record, by);
    }

    fn note_tunnel(&mut self, record: &ServerRecord, by: i32) {
        if record.config.forward != ForwardMethod::Tunnel || !record.is_listed() {
            return;
        }
        let tunnel = &record.config.tunnel;
        let port = if tunnel.kind == TunnelKind::Gue { tunnel.port } else { 0 };
        let end = TunnelEnd { address: record.config.key.address, kind: tunnel.kind, port };
        let servers = self.tunnel_ends.entry(end).or_insert(0);
        *servers = servers.wrapping_add_signed(by);
        if *servers == 0 {
            self.tunnel_ends.remove(&end);
        }
    }

    fn note_nat(&mut self, record: &ServerRecord, by: i32) {
        if record.config.forward != ForwardMethod::Nat || !record.is_listed() {
            return;
        }
        let servers = self.nat_servers.entry(record.config.key).or_default();
        let counter = match record.service {
            ServiceKey::FwMark { .. } => &mut servers.fwmark,
            ServiceKey::Address { protocol: Protocol::Tcp, .. } => &mut servers.tcp,
            ServiceKey::Address { protocol: Protocol::Udp, .. } => &mut servers.udp,
            ServiceKey::Address { protocol: Protocol::Sctp, .. } => &mut servers.sctp,
        };
        *counter = counter.wrapping_add_signed(by);
        if servers.tcp + servers.udp + servers.sctp + servers.fwmark == 0 {
            self.nat_servers.remove(&record.config.key);
        }
    }
}

/// Less than this is not believed of the way to an address.
fn least_mtu(address: IpAddr) -> u16 {
    if address.is_ipv4() { PATH_MTU_MIN } else { ipv6::LEAST_MTU }
}

/// Linux matches fwmark services in the trash by their mark alone, whatever the family.
fn is_same_service(buried: &ServiceKey, wanted: &ServiceKey) -> bool {
    match (buried, wanted) {
        (ServiceKey::FwMark { mark: buried, .. }, ServiceKey::FwMark { mark: wanted, .. }) => buried == wanted,
        _ => buried == wanted,
    }
}
