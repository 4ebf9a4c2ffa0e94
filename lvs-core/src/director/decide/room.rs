//! Room for a new connection: which bounds it meets, and who gives way to it. Who has proved nothing gives way first,
//! whatever is short: places, templates, local ports. Then goes what is over, then what was proved by talk alone. What came
//! about by a handshake gives way to nobody.

use crate::connection::newcomer::Newcomer;
use crate::connection::{Connection, ConnectionId, State};
use crate::director::HalfOpenPolicy;
use crate::director::decide::choose::Persistence;
use crate::director::decide::classify::FirstPacket;
use crate::director::tables::Tables;
use crate::drop_reason::DropReason;
use crate::flow::{Endpoint, Protocol};
use crate::local_address::pool::PortsFull;
use crate::persistence::{TemplateId, TemplateKey, TemplateRoom, TemplatesFull};
use crate::service::ForwardMethod;
use crate::time::Instant;
use crate::wire::parse::Headers;
use crate::wire::sctp;
use core::net::IpAddr;

/// What has to end so that a new connection finds room, and the local port it gets.
#[derive(Default)]
pub(in crate::director) struct Room {
    pub template: Option<TemplateId>,
    pub half_open: Option<ConnectionId>,
    pub place: Option<ConnectionId>,
    pub port: Option<ConnectionId>,
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
pub(in crate::director) enum Refusal {
    /// The packet is dropped.
    Full(DropReason),
    /// The client is told.
    NoPort(DropReason),
}

impl Tables<'_> {
    /// Whether one more half-open connection is refused, if the packet opens one.
    pub(in crate::director) fn refuses_half_open(&self, first: &FirstPacket, bytes: &[u8], headers: &Headers) -> bool {
        self.is_half_open_full()
            && opens_half(first, bytes, headers)
            && (self.site.config.half_open_policy == HalfOpenPolicy::Refuse
                || self.flows.connections.oldest_half_open(None).is_none())
    }

    /// Who gives way to this connection, which is still to be opened by the packet. `invalid` is a template that was
    /// found to be of no use any more.
    pub(in crate::director) fn room_for(
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
        let addresses = &self.services.table.get(first.service).expect("it was classified by it").local_addresses;
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
    pub(in crate::director) fn expectation_room(
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

    fn is_half_open_full(&self) -> bool {
        self.flows.connections.newcomers_len(Newcomer::HalfOpen) >= self.site.config.half_open_bound()
    }

    /// The half-open connection that gives way to a known one, if that goes on to this state, as one that is opened again.
    #[inline]
    pub(in crate::director) fn reopening_room(&self, id: ConnectionId, next: State) -> Option<ConnectionId> {
        if !self.is_half_open_full() || self.site.config.half_open_policy == HalfOpenPolicy::Refuse {
            return None;
        }
        let connection = self.flows.connections.get(id)?;
        let reopens =
            next.is_half_open() && connection.children == 0 && connection.newcomer() != Some(Newcomer::HalfOpen);
        self.flows.connections.oldest_half_open(Some(id)).filter(|_| reopens)
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

pub(in crate::director) const fn no_port(full: PortsFull) -> DropReason {
    match full {
        PortsFull::Exhausted => DropReason::LocalPortsExhausted,
        PortsFull::Client => DropReason::ClientPortsFull,
    }
}
