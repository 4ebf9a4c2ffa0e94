//! Every real server the director knows, living or deleted, by its id: what connections need of it.
//! The deleted ones are in `trash.rs`, what is known of servers' addresses in `addresses.rs`.

mod addresses;
mod trash;

use alloc::vec::Vec;
use core::net::IpAddr;

use ahash::RandomState;
use hashbrown::HashMap;

use self::addresses::KnownAddress;
use self::trash::Identity;
use crate::command::AfterDrain;
use crate::flow::{Endpoint, Protocol};
use crate::rng::Seed;
use crate::service::stats::Meter;
use crate::service::table::ServiceIndex;
use crate::service::{ForwardMethod, RealServer, ServerConfig, ServerId, ServiceKey, TunnelKind};
use crate::time::Instant;

/// Where a server is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// In its service's list.
    Listed { service: ServiceIndex, position: usize },
    /// Deleted; its counters are kept here. `idle_since` is set once nothing refers to it, `at` is its place in the trash.
    Trash { counts: RealServer, idle_since: Option<Instant>, at: usize },
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
    /// Deleted servers; where each is, its place says.
    trash: Vec<ServerId>,
    /// The same by what they are, the newest of each last.
    buried: HashMap<Identity, Vec<ServerId>, RandomState>,
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
    /// Moves whenever an id begins or ends to name a server.
    pub revision: u64,
}

impl ServerTable {
    pub fn new(seed: Seed) -> Self {
        let word = |n| seed.derive(n).value();
        let state = || RandomState::with_seeds(word(1), word(2), word(3), word(4));
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            trash: Vec::new(),
            buried: HashMap::with_hasher(state()),
            trash_due: None,
            trash_seen: 0,
            nat_servers: HashMap::with_hasher(state()),
            tunnel_ends: HashMap::with_hasher(state()),
            addresses: HashMap::with_hasher(state()),
            has_learned_mtu: false,
            proofs: seed.derive(5),
            revision: 0,
        }
    }

    /// The id the next `insert` will use.
    pub fn next_id(&self) -> ServerId {
        ServerId(self.free.last().copied().unwrap_or(self.slots.len() as u32))
    }

    pub fn insert(&mut self, mut record: ServerRecord) -> ServerId {
        let id = self.next_id();
        self.revision += 1;
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
