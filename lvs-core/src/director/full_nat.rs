//! FullNAT's part of the director: leases of local endpoints, what each connection translates besides addresses, and
//! the commands for local addresses. How packets are rewritten is in `forward/full_nat.rs`, which ports there are in
//! `local_address.rs`.

use alloc::vec::Vec;
use core::net::IpAddr;

use ahash::RandomState;
use hashbrown::HashMap;

use super::Director;
use super::look::{FirstPacket, FlowEnd};
use super::tables::Tables;
use crate::client_group::ClientGroups;
use crate::connection::{Connection, ConnectionId};
use crate::drop_reason::DropReason;
use crate::error::ControlError;
use crate::event::Event;
use crate::flow::{Endpoint, Protocol};
use crate::forward::full_nat;
use crate::forward::full_nat::client_address::preamble;
use crate::forward::full_nat::sequence::{SegmentNumbers, Translation, initial_sequence_number};
use crate::local_address::{LOCAL_ADDRESSES_MAX, LocalAddressPool, LocalPorts, LocalPortsView};
use crate::packet::{HEADROOM, PacketBuf};
use crate::rng::Seed;
use crate::service::table::ServiceIndex;
use crate::service::{ClientAddress, ForwardMethod, ServerId, ServiceKey};
use crate::time::Instant;
use crate::verdict::{Direction, Verdict};
use crate::wire::parse::Headers;
use crate::wire::stream;

/// What a director keeps for FullNAT.
#[derive(Debug)]
pub(super) struct FullNat {
    pub pool: LocalAddressPool,
    /// Beside the connection table, so that other connections do not pay for it; at most one for each connection.
    translations: HashMap<ConnectionId, Translation, RandomState>,
    /// Keys the initial sequence numbers.
    isn_key: (u64, u64),
    client_addresses_omitted: u64,
}

impl FullNat {
    pub fn new(config: LocalPorts, groups: ClientGroups, seed: Seed) -> Self {
        let word = |n| seed.derive(n).value();
        Self {
            pool: LocalAddressPool::new(config, groups, seed.derive(0)),
            translations: HashMap::with_hasher(RandomState::with_seeds(word(1), word(2), word(3), word(4))),
            isn_key: (word(5), word(6)),
            client_addresses_omitted: 0,
        }
    }

    /// What a connection translates besides addresses and ports.
    pub fn translation(&self, id: ConnectionId) -> Option<Translation> {
        self.translations.get(&id).copied()
    }

    /// A connection has ended.
    pub fn release(&mut self, now: Instant, id: ConnectionId, connection: &Connection) {
        let Some(local) = connection.local else { return };
        self.pool.release(now, connection.protocol, connection.real, local, connection.client.address);
        self.translations.remove(&id);
    }
}

/// Looking at local addresses.
impl Director {
    /// Every local address a service uses, sorted: whoever answers for the director on the server side answers for
    /// these.
    pub fn local_addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.flows.full_nat.pool.addresses()
    }

    /// How many local ports are in which state, for each pair of real server and local address used so far, sorted.
    /// Leased, free and quarantined ones together are always [`LocalPorts::count`].
    pub fn local_ports(&self, now: Instant) -> Vec<LocalPortsView> {
        self.flows.full_nat.pool.views(self.clock.time_at(now))
    }

    /// Packets that should have carried their client's address ([`ClientAddress::Toa`], [`ClientAddress::Uoa`]) and
    /// went without, because header, MTU or buffer had no room for it; with UOA, those beside which none could be sent
    /// either.
    pub fn client_addresses_omitted(&self) -> u64 {
        self.flows.full_nat.client_addresses_omitted
    }
}

impl Tables<'_> {
    /// A reply's connection, whichever way it is found.
    pub(super) fn find_reply(
        &self,
        now: Instant,
        protocol: Protocol,
        source: Endpoint,
        destination: Endpoint,
    ) -> Option<ConnectionId> {
        self.flows.connections.find_reply(now, protocol, source, destination).or_else(|| {
            let may_be_full_nat = self.flows.full_nat.pool.has_leases();
            may_be_full_nat
                .then(|| self.flows.connections.find_full_nat_reply(now, protocol, source, destination))
                .flatten()
        })
    }
}

/// The commands.
impl Director {
    pub(super) fn add_local_address(&mut self, key: &ServiceKey, address: IpAddr) -> Result<(), ControlError> {
        let index = self.services.table.index_of(key).ok_or(ControlError::ServiceNotDefined(*key))?;
        super::control::check_unicast(address, "the local address is not unicast")?;
        let service = self.services.table.get_mut(index).expect("the index was just found");
        if service.local_addresses.contains(&address) {
            return Err(ControlError::LocalAddressExists(address));
        }
        if service.local_addresses.len() == LOCAL_ADDRESSES_MAX {
            return Err(ControlError::TableFull("local addresses of a service"));
        }
        service.local_addresses.push(address);
        self.flows.full_nat.pool.join(address);
        Ok(())
    }

    pub(super) fn delete_local_address(&mut self, key: &ServiceKey, address: IpAddr) -> Result<(), ControlError> {
        let index = self.services.table.index_of(key).ok_or(ControlError::ServiceNotDefined(*key))?;
        let service = self.services.table.get_mut(index).expect("the index was just found");
        let position = service.local_addresses.iter().position(|known| *known == address);
        let position = position.ok_or(ControlError::NoSuchLocalAddress(address))?;
        service.local_addresses.remove(position);
        self.flows.full_nat.pool.leave(address);
        Ok(())
    }
}

/// Opening connections.
impl Director {
    /// Leases the local endpoint that was found for a new connection: what the pool says, or what somebody has just given
    /// up.
    pub(super) fn lease_local(&mut self, now: Instant, first: &FirstPacket, connection: &Connection, local: Endpoint) {
        let Connection { protocol, real, client, server, .. } = *connection;
        let service = self.services.table.get(first.service).expect("look found it");
        let pool = &mut self.flows.full_nat.pool;
        if !pool.lease_again(protocol, real, local, client.address) {
            let leased = pool.lease(now, protocol, real, &service.local_addresses, client.address);
            debug_assert_eq!(leased, Ok(local), "what was found is leased");
        }
        if let Some(record) = server.and_then(|id| self.services.servers.get_mut(id)) {
            record.told_ports_exhausted = false;
        }
    }

    /// The same for a connection that a helper expects, and that has the endpoint already.
    pub(super) fn lease_expected(&mut self, now: Instant, expected: &Connection) {
        let Some(local) = expected.local else { return };
        let (real, client) = (expected.real, expected.client.address);
        let leased = self.flows.full_nat.pool.lease(now, expected.protocol, real, &[local.address], client);
        debug_assert_eq!(leased, Ok(local), "what was found is leased");
    }

    /// No local endpoint is left for a new connection: told once for each server.
    pub(super) fn tell_ports_exhausted(
        &mut self,
        service: ServiceIndex,
        server: Option<ServerId>,
        real: Endpoint,
        reason: DropReason,
    ) {
        let key = self.services.table.get(service).expect("its service was just found").key;
        self.flows.full_nat.pool.look_elsewhere();
        let record = server.and_then(|id| self.services.servers.get_mut(id));
        let record = record.filter(|_| reason == DropReason::LocalPortsExhausted);
        if record.is_some_and(|record| !core::mem::replace(&mut record.told_ports_exhausted, true)) {
            self.outlet.events.push(Event::LocalPortsExhausted { service: key, server: real });
        }
    }

    /// Remembers what a connection just opened translates.
    pub(super) fn open_translation(&mut self, id: ConnectionId) {
        let translation =
            self.flows.connections.get(id).and_then(|connection| self.tables().initial_translation(connection));
        if let Some(translation) = translation {
            self.flows.full_nat.translations.insert(id, translation);
        }
    }
}

impl Tables<'_> {
    /// What a new connection translates besides addresses and ports.
    fn initial_translation(&self, connection: &Connection) -> Option<Translation> {
        if connection.forward != ForwardMethod::FullNat {
            return None;
        }
        let record = connection.server.and_then(|id| self.services.servers.get(id))?;
        let service = self.services.find(&record.service)?;
        let mut options = service.config.full_nat;
        let is_proxied = matches!(options.client_address, ClientAddress::ProxyV1 | ClientAddress::ProxyV2);
        if is_proxied && connection.parent.is_some() {
            // The header goes with what is announced (FTP), whose sides know each other.
            options.client_address = ClientAddress::None;
        }
        let (client, to) = (connection.client, connection.virtual_endpoint);
        let preamble_len = preamble(options.client_address, connection.protocol, client, to).as_bytes().len();
        let has_uoa = connection.protocol == Protocol::Udp && options.client_address == ClientAddress::Uoa;
        let is_needed = connection.protocol == Protocol::Tcp || preamble_len > 0 || has_uoa;
        is_needed.then(|| Translation::new(options, preamble_len))
    }
}

/// Packets.
impl Tables<'_> {
    /// The way of a packet, with the connection's translation as it is after this packet. `id` is `None` for a
    /// connection that is still to be opened.
    pub(super) fn translate(
        &self,
        now: Instant,
        id: Option<ConnectionId>,
        connection: &Connection,
        bytes: &[u8],
        headers: &Headers,
        end: &mut FlowEnd,
    ) {
        if connection.forward == ForwardMethod::FullNat {
            let translation = self.translation(id, connection);
            end.path.full_nat.translation =
                translation.map(|before| self.after_segment(now, before, connection, bytes, headers, end.direction));
        }
    }

    /// The way of what belongs to a connection but is no packet of its hosts (an ICMP error, a RST of ours), with the
    /// connection's translation as it is.
    pub(super) fn related_end(
        &self,
        now: Instant,
        id: Option<ConnectionId>,
        connection: &Connection,
        direction: Direction,
        headers: &Headers,
    ) -> FlowEnd {
        let mut end = self.flow_end(now, connection, direction, headers);
        if connection.forward == ForwardMethod::FullNat {
            end.path.full_nat.translation = self.translation(id, connection);
        }
        end
    }
}

impl Director {
    /// Remembers the translation after a packet that counted.
    pub(super) fn keep_translation(&mut self, id: ConnectionId, end: &FlowEnd) {
        if let Some(after) = end.path.full_nat.translation {
            if let Some(translation) = self.flows.full_nat.translations.get_mut(&id) {
                *translation = after;
            }
        }
    }
}

impl Tables<'_> {
    /// Whether this packet will leave without the client's address it should carry.
    pub(super) fn omits_client_address(&self, packet: &PacketBuf<'_>, headers: &Headers, end: &FlowEnd) -> bool {
        let translation = end.path.full_nat.translation.filter(|_| end.direction == Direction::Request);
        let is_asked_for =
            translation.is_some_and(|of| of.options.client_address == ClientAddress::Toa || of.tells_client());
        is_asked_for && full_nat::omits_client_address(packet, headers, &end.path)
    }
}

impl Director {
    /// A packet has left without the client's address it should carry: UOA sends it beside, TOA cannot.
    pub(super) fn make_up_for_client_address(&mut self, headers: &Headers, end: &FlowEnd, verdict: Verdict) {
        let has_uoa = end.path.full_nat.translation.is_some_and(|of| of.tells_client());
        let alone = if has_uoa { full_nat::uoa::alone(headers, &end.path) } else { None };
        let sent = alone.is_some_and(|storage| {
            let place = (HEADROOM, storage.len() - HEADROOM);
            self.outlet.outbox.push(storage, place, 0, verdict).is_ok()
        });
        self.outlet.answers += u64::from(sent);
        self.flows.full_nat.client_addresses_omitted += u64::from(!sent);
    }
}

impl Tables<'_> {
    fn translation(&self, id: Option<ConnectionId>, connection: &Connection) -> Option<Translation> {
        match id {
            Some(id) => self.flows.full_nat.translation(id),
            None => self.initial_translation(connection),
        }
    }

    fn after_segment(
        &self,
        now: Instant,
        before: Translation,
        connection: &Connection,
        bytes: &[u8],
        headers: &Headers,
        direction: Direction,
    ) -> Translation {
        if connection.protocol == Protocol::Udp && direction == Direction::Request {
            return before.after_client_datagram();
        }
        if connection.protocol != Protocol::Tcp || headers.protocol != Protocol::Tcp.number() {
            return before;
        }
        let (Some(flags), Some(segment)) = (headers.tcp_flags(bytes), segment_numbers(bytes, headers)) else {
            return before;
        };
        match (direction, segment.acknowledgment) {
            (Direction::Request, _) if flags.rst() => before.after_client_reset(segment.sequence),
            (Direction::Reply, _) if flags.rst() => before.after_server_reset(),
            (Direction::Request, _) if flags.syn() && !flags.ack() => {
                let local = connection.local.unwrap_or(connection.client);
                let isn = initial_sequence_number(self.flows.full_nat.isn_key, now, local, connection.real);
                before.after_client_syn(segment.sequence, connection.state.is_half_open(), isn)
            }
            (Direction::Reply, Some(acknowledgment)) if flags.syn() => {
                before.after_server_syn(now, segment.sequence, acknowledgment)
            }
            (Direction::Reply, _) if !flags.syn() => before.after_server_segment(now, &segment),
            (Direction::Request, _) if !flags.syn() => before.after_client_segment(now, &segment),
            _ => before,
        }
    }
}

/// What a segment's header says; `None` if it is cut off.
fn segment_numbers(bytes: &[u8], headers: &Headers) -> Option<SegmentNumbers> {
    let (sequence, acknowledgment) = stream::numbers(bytes, headers)?;
    let len = stream::payload(bytes, headers)?.len() as u32;
    let fin = headers.tcp_flags(bytes)?.fin();
    Some(SegmentNumbers { sequence, acknowledgment, len, fin })
}
