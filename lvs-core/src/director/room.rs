//! Room for a new connection: which bounds it meets, and who gives way to it. `room_for` decides and changes nothing, so
//! `explain` asks it too; `make_room` carries it out. Who has proved nothing gives way first, whatever is short: places,
//! templates, local ports. Then goes what is over, then what was proved by talk alone. What came about by a handshake gives
//! way to nobody.

use core::net::IpAddr;

use super::choose::Persistence;
use super::look::FirstPacket;
use super::tables::Tables;
use super::timeout::Along;
use super::{Director, HalfOpenPolicy};
use crate::connection::newcomer::Newcomer;
use crate::connection::{Connection, ConnectionId, State};
use crate::drop_reason::DropReason;
use crate::event::Table;
use crate::flow::{Endpoint, Protocol};
use crate::local_address::pool::PortsFull;
use crate::persistence::{TemplateId, TemplateKey, TemplateRoom, TemplatesFull};
use crate::service::ForwardMethod;
use crate::time::Instant;
use crate::wire::parse::Headers;
use crate::wire::sctp;

/// What has to end so that a new connection finds room, and the local port it gets.
#[derive(Default)]
pub(super) struct Room {
    pub template: Option<TemplateId>,
    half_open: Option<ConnectionId>,
    place: Option<ConnectionId>,
    port: Option<ConnectionId>,
    /// The local endpoint of a FullNAT connection.
    pub local: Option<Endpoint>,
}

impl Room {
    /// The connections that end.
    pub fn connections(&self) -> impl Iterator<Item = ConnectionId> {
        [self.port, self.half_open, self.place].into_iter().flatten()
    }
}

/// Why there is no room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refusal {
    /// The packet is dropped.
    Full(DropReason),
    /// The client is told.
    NoPort(DropReason),
}

/// Why a connection gives way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Short {
    HalfOpen,
    /// To a connection of this client.
    Place(IpAddr),
    Port,
    Expectation,
}

impl Tables<'_> {
    /// Whether one more half-open connection is refused, if the packet opens one.
    pub(super) fn refuses_half_open(&self, first: &FirstPacket, bytes: &[u8], headers: &Headers) -> bool {
        self.is_half_open_full()
            && opens_half(first, bytes, headers)
            && (self.site.config.half_open_policy == HalfOpenPolicy::Refuse
                || self.flows.connections.oldest_half_open(None).is_none())
    }

    /// Who gives way to this connection, which is still to be opened by the packet. `invalid` is a template that was
    /// found to be of no use any more.
    pub(super) fn room_for(
        &self,
        now: Instant,
        first: &FirstPacket,
        connection: &Connection,
        (persistence, invalid): (&Persistence, Option<TemplateId>),
        (bytes, headers): (&[u8], &Headers),
    ) -> Result<Room, Refusal> {
        let mut room = Room { template: self.template_room(persistence, invalid)?, ..Room::default() };
        if connection.one_packet {
            return Ok(room);
        }
        if self.flows.connections.is_full_for(now, connection.protocol, connection.client) {
            return Err(Refusal::Full(DropReason::ClientEndpointFull));
        }
        if connection.forward == ForwardMethod::FullNat {
            (room.local, room.port) = self.port_room(now, first, connection)?;
        }
        let gives_way = |room: &Room| room.port.or(room.half_open);
        let port_is_half_open = room.port.is_some_and(|id| self.flows.connections.kind(id) == Some(Newcomer::HalfOpen));
        if self.is_half_open_full() && opens_half(first, bytes, headers) && !port_is_half_open {
            room.half_open = self.flows.connections.oldest_half_open(None);
        }
        if self.flows.connections.is_full() && gives_way(&room).is_none() {
            room.place = Some(self.place_room(connection.client.address)?);
        }
        Ok(room)
    }
}

impl Director {
    /// Ends what gives way to a connection of this client. `kept` is the template it will hang on.
    pub(super) fn make_room(&mut self, now: Instant, room: &Room, kept: &Persistence, client: IpAddr) {
        // What is evicted must not take the newcomer's own template along.
        let kept = match kept {
            Persistence::Existing(id) => Some(*id),
            _ => None,
        };
        if let Some(template) = kept.and_then(|id| self.flows.templates.get_mut(id)) {
            template.children += 1;
        }
        for (id, short) in
            [(room.port, Short::Port), (room.half_open, Short::HalfOpen), (room.place, Short::Place(client))]
        {
            if let Some(id) = id {
                self.evict(now, id, short);
            }
        }
        if let Some(template) = kept.and_then(|id| self.flows.templates.get_mut(id)) {
            template.children -= 1;
        }
        if let Some(id) = room.template {
            self.tell_full(Table::Templates);
            self.defence.templates_evicted += u64::from(self.flows.templates.get(id).is_some());
            self.remove_template(id);
        }
    }

    /// Tells that there was no room.
    pub(super) fn tell_refusal(&mut self, reason: DropReason) {
        match reason {
            DropReason::HalfOpenFull => self.tell_full(Table::HalfOpen),
            DropReason::ConnectionTableFull | DropReason::ClientEndpointFull => self.tell_full(Table::Connections),
            DropReason::TemplateTableFull | DropReason::ClientTemplatesFull => self.tell_full(Table::Templates),
            _ => {}
        }
    }
}

impl Tables<'_> {
    /// The place of a new connection of this client in a full table.
    fn place_room(&self, client: IpAddr) -> Result<ConnectionId, Refusal> {
        let with_half_open = self.site.config.half_open_policy == HalfOpenPolicy::EvictOldest;
        let giving = self.flows.connections.giving_place(client, with_half_open);
        giving.ok_or(Refusal::Full(DropReason::ConnectionTableFull))
    }

    /// The template that gives way to the one persistence asks for.
    fn template_room(
        &self,
        persistence: &Persistence,
        invalid: Option<TemplateId>,
    ) -> Result<Option<TemplateId>, Refusal> {
        let Persistence::New { key: TemplateKey { client, .. }, .. } = persistence else { return Ok(None) };
        match self.flows.templates.room_for(*client) {
            TemplateRoom::Free => Ok(None),
            TemplateRoom::After(id) => Ok(Some(id)),
            TemplateRoom::Full(full) => invalid.map(Some).ok_or(Refusal::Full(template_refusal(full))),
        }
    }

    /// A FullNAT connection's local endpoint, and the connection that has it still.
    fn port_room(
        &self,
        now: Instant,
        first: &FirstPacket,
        connection: &Connection,
    ) -> Result<(Option<Endpoint>, Option<ConnectionId>), Refusal> {
        let Connection { protocol, real, client, .. } = *connection;
        let addresses = &self.services.table.get(first.service).expect("look found it").local_addresses;
        let full = match self.flows.full_nat.pool.choose(now, protocol, real, addresses, client.address) {
            Ok(local) => return Ok((Some(local), None)),
            Err(full) => full,
        };
        let of = (full == PortsFull::Client).then_some(client.address);
        let holder = self.flows.connections.giving_port((protocol, real), addresses, of);
        match holder.and_then(|id| self.flows.connections.get(id)?.local) {
            Some(local) => Ok((Some(local), holder)),
            None => Err(Refusal::NoPort(no_port(full))),
        }
    }

    /// Room for a connection that a helper expects on the connection that announced it: the one of its own that was
    /// announced first, where it has as many as it may have, or somebody's place.
    pub(super) fn expectation_room(
        &self,
        now: Instant,
        waiting: &[ConnectionId],
        expected: &Connection,
    ) -> Result<Option<ConnectionId>, DropReason> {
        if self.flows.connections.is_full_for(now, expected.protocol, expected.client) {
            return Err(DropReason::ClientEndpointFull);
        }
        let mut waiting = waiting.iter().filter(|id| self.flows.connections.is_expected(**id));
        let oldest = waiting.next();
        if waiting.count() + 1 >= self.site.config.expectations_max.max(1) as usize && oldest.is_some() {
            return Ok(oldest.copied());
        }
        match self.flows.connections.is_full() {
            false => Ok(None),
            true => self.place_room(expected.client.address).map(Some).map_err(|_| DropReason::ConnectionTableFull),
        }
    }
}

impl Director {
    /// Ends what gives way to an expected connection: one announced on the same connection, or somebody else's.
    pub(super) fn make_room_for_expected(&mut self, now: Instant, id: ConnectionId, is_own: bool, client: IpAddr) {
        self.evict(now, id, if is_own { Short::Expectation } else { Short::Place(client) });
    }
}

impl Tables<'_> {
    fn is_half_open_full(&self) -> bool {
        self.flows.connections.newcomers_len(Newcomer::HalfOpen) >= self.site.config.half_open_bound()
    }

    /// The half-open connection that gives way to a known one, if that goes on to this state, as one that is opened again.
    #[inline]
    pub(super) fn reopening_room(&self, id: ConnectionId, next: State) -> Option<ConnectionId> {
        if !self.is_half_open_full() || self.site.config.half_open_policy == HalfOpenPolicy::Refuse {
            return None;
        }
        let connection = self.flows.connections.get(id)?;
        let reopens =
            next.is_half_open() && connection.children == 0 && connection.newcomer() != Some(Newcomer::HalfOpen);
        self.flows.connections.oldest_half_open(Some(id)).filter(|_| reopens)
    }
}

impl Director {
    /// Ends what gives way to a connection that was opened again.
    pub(super) fn make_room_for_reopened(&mut self, now: Instant, id: ConnectionId) {
        self.evict(now, id, Short::HalfOpen);
    }

    /// What hung on a connection has ended, and it may be half-open like others.
    pub(super) fn keep_half_open_bound(&mut self, now: Instant) {
        let is_over = self.flows.connections.newcomers_len(Newcomer::HalfOpen) > self.site.config.half_open_bound();
        if is_over && self.site.config.half_open_policy == HalfOpenPolicy::EvictOldest {
            if let Some(id) = self.flows.connections.oldest_half_open(None) {
                self.evict(now, id, Short::HalfOpen);
            }
        }
    }

    /// Ends a connection for another one, with the template that it alone held.
    fn evict(&mut self, now: Instant, id: ConnectionId, short: Short) {
        let kind = self.flows.connections.kind(id);
        let counter = match short {
            Short::HalfOpen => {
                self.tell_full(Table::HalfOpen);
                &mut self.defence.half_open_evicted
            }
            Short::Place(_) => {
                self.tell_full(Table::Connections);
                match kind {
                    Some(Newcomer::Talked) => &mut self.defence.talked_evicted,
                    _ => &mut self.defence.newcomers_evicted,
                }
            }
            Short::Port => &mut self.defence.ports_taken_back,
            Short::Expectation => &mut self.defence.expectations_evicted,
        };
        *counter += 1;
        // Others were passed over for it only where any of them would have made room.
        if let Short::Place(client) = short {
            self.flows.connections.pass_over(id, client);
        }
        self.end_connection(now, id, Along::Template);
    }

    /// Once a quarter is free again, the next time a table is full is worth telling.
    pub(super) fn note_room(&mut self) {
        let fill = [
            (Table::Connections, self.flows.connections.len(), self.flows.connections.capacity()),
            (Table::Templates, self.flows.templates.len(), self.flows.templates.capacity()),
            (
                Table::HalfOpen,
                self.flows.connections.newcomers_len(Newcomer::HalfOpen),
                self.site.config.half_open_bound(),
            ),
        ];
        for (table, len, capacity) in fill {
            self.outlet.told_full[table as usize] &= len > capacity / 4 * 3;
        }
    }
}

/// Whether the packet opens a half-open connection.
fn opens_half(first: &FirstPacket, bytes: &[u8], headers: &Headers) -> bool {
    first.is_quoted
        || match first.protocol {
            Protocol::Tcp => headers.tcp_flags(bytes).is_some_and(|flags| flags.syn()),
            Protocol::Sctp => headers.sctp_chunks(bytes).is_some_and(|chunks| chunks.first == sctp::INIT),
            Protocol::Udp => false,
        }
}

const fn template_refusal(full: TemplatesFull) -> DropReason {
    match full {
        TemplatesFull::Capacity => DropReason::TemplateTableFull,
        TemplatesFull::Client => DropReason::ClientTemplatesFull,
    }
}

pub(super) const fn no_port(full: PortsFull) -> DropReason {
    match full {
        PortsFull::Exhausted => DropReason::LocalPortsExhausted,
        PortsFull::Client => DropReason::ClientPortsFull,
    }
}
