//! Opening a connection: the defences first, then the choice (`choose.rs`) is carried out: template, connection,
//! counts, and the packet on its way.

use alloc::boxed::Box;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::time::Duration;

use super::Director;
use super::accounting::Count;
use super::choose::{Decision, Persistence};
use super::defend::HalfOpenRoom;
use super::look::{FirstPacket, FlowEnd};
use crate::connection::table::TableFull;
use crate::connection::{Connection, ConnectionId};
use crate::drop_reason::DropReason;
use crate::event::Table;
use crate::flow::{AddressFamily, Endpoint, Protocol};
use crate::helper::table::Helped;
use crate::packet::PacketBuf;
use crate::persistence::{Template, TemplateId};
use crate::scheduler::none::NeverChoose;
use crate::service::{ForwardMethod, ServerId};
use crate::time::Instant;
use crate::verdict::{Direction, Verdict};
use crate::wire::icmp::{self, IcmpError};
use crate::wire::parse::Headers;

impl Director {
    /// Opens a connection for the packet and sends it, or says why not.
    pub(super) fn first_packet(
        &mut self,
        now: Instant,
        first: &FirstPacket,
        packet: &mut PacketBuf<'_>,
        headers: &Headers,
    ) -> (Verdict, Option<FlowEnd>) {
        if self.defence.drop_packet.refuses() {
            return (Verdict::Drop(DropReason::DropPacketDefence), None);
        }
        self.expire_some(now);
        let room = self.half_open_room(first, packet.bytes(), headers);
        if matches!(room, HalfOpenRoom::Full) {
            self.tell_full(Table::HalfOpen);
            return (Verdict::Drop(DropReason::HalfOpenFull), None);
        }
        self.note_half_open();
        let service = self.services.get_mut(first.service).expect("look found it");
        let mut scheduler = core::mem::replace(&mut service.scheduler, Box::new(NeverChoose));
        let choice = self.choose(now, first, packet.bytes(), headers, scheduler.as_mut());
        let service = self.services.get_mut(first.service).expect("look found it");
        service.scheduler = scheduler;
        if let Some(template) = choice.invalid {
            self.templates.invalidate(template);
        }
        match choice.decision {
            Decision::Pass(_) => (Verdict::Pass, None),
            Decision::Drop(reason) => (Verdict::Drop(reason), None),
            Decision::Refuse => {
                let key = self.services.get(first.service).expect("look found it").key;
                self.tell_unavailable(&key);
                let path = self.answer_path(Direction::Request, headers);
                (self.answer(packet, headers, IcmpError::PortUnreachable, &path, DropReason::NoServer), None)
            }
            Decision::Bypass => {
                let connection = bypass_connection(now, first);
                if let Some(reason) = self.refuses_opening(now, &connection, &room) {
                    self.tell_full(Table::Connections);
                    return (Verdict::Drop(reason), None);
                }
                self.make_room(now, &room);
                self.open_and_send(now, first, connection, packet, headers)
            }
            Decision::Server { server, real, forward, template } => {
                if let Some(reason) = self.refuses_template(&template) {
                    self.tell_full(Table::Templates);
                    return (Verdict::Drop(reason), None);
                }
                let mut connection = new_connection(now, first, real, forward, Some(server));
                connection.one_packet = self.is_one_packet(first, forward);
                if let Some(reason) = self.refuses_opening(now, &connection, &room) {
                    self.tell_full(Table::Connections);
                    return (Verdict::Drop(reason), None);
                }
                if forward == ForwardMethod::FullNat {
                    match self.lease_local(now, first, (server, real), packet, headers) {
                        Ok(local) => connection.local = Some(local),
                        Err(verdict) => return (verdict, None),
                    }
                }
                self.make_room(now, &room);
                match self.bind_template(now, first, server, forward, template) {
                    Ok(template) => connection.template = template,
                    Err(reason) => {
                        self.give_back_local(now, &connection);
                        return (Verdict::Drop(reason), None);
                    }
                }
                self.open_and_send(now, first, connection, packet, headers)
            }
        }
    }

    /// One-packet scheduling; not with FullNAT, where a reply finds its client through the connection only, and not for
    /// flows read from ICMP errors, whose translation needs the connection.
    pub(super) fn is_one_packet(&self, first: &FirstPacket, forward: ForwardMethod) -> bool {
        first.protocol == Protocol::Udp
            && !first.is_quoted
            && forward != ForwardMethod::FullNat
            && self.services.get(first.service).is_some_and(|service| service.config.one_packet)
    }

    /// Finds or makes the template a new connection hangs on.
    pub(super) fn bind_template(
        &mut self,
        now: Instant,
        first: &FirstPacket,
        server: ServerId,
        forward: ForwardMethod,
        persistence: Persistence,
    ) -> Result<Option<TemplateId>, DropReason> {
        let (key, real_port) = match persistence {
            Persistence::None => return Ok(None),
            Persistence::Existing(id) => return Ok(Some(id)),
            Persistence::New { key, real_port } => (key, real_port),
        };
        let service = self.services.get(first.service).expect("look found it");
        let seconds = service.config.persistence_timeout_s.unwrap_or(0);
        let timeout = Duration::from_secs(u64::from(seconds));
        let template = Template {
            key,
            server,
            real_port,
            forward,
            timeout,
            deadline: now,
            children: 0,
            assured: false,
            in_packets: 0,
            mark: first.mark,
            invalidated: false,
        };
        match self.templates.insert(now, template) {
            Ok(id) => {
                self.count_up(server, Count::Template);
                Ok(Some(id))
            }
            Err(_) => {
                self.tell_full(Table::Templates);
                Err(DropReason::TemplateTableFull)
            }
        }
    }

    /// Puts the connection into the table (unless it lives for one packet only) and sends its first packet.
    fn open_and_send(
        &mut self,
        now: Instant,
        first: &FirstPacket,
        mut connection: Connection,
        packet: &mut PacketBuf<'_>,
        headers: &Headers,
    ) -> (Verdict, Option<FlowEnd>) {
        if connection.one_packet {
            return self.send_one_packet(now, &connection, Direction::Request, packet, headers);
        }
        let helper = self.helper_for(first, connection.forward);
        connection.has_helper = helper.is_some();
        let id = match self.open(now, connection) {
            Ok(id) => id,
            Err(reason) => return (Verdict::Drop(reason), None),
        };
        self.open_translation(id);
        if let Some(helper) = helper {
            self.helped.insert(id, Helped::by(helper));
        }
        if first.is_quoted {
            // A flow read from an ICMP error gets no state; it keeps its first three seconds.
            return match icmp::related(packet.bytes(), headers) {
                Ok(Some(related)) => (self.related_request(id, packet, headers, &related), None),
                _ => (Verdict::Pass, None),
            };
        }
        self.known_request(now, id, packet, headers)
    }

    /// Puts a connection into the table and counts it.
    pub(super) fn open(&mut self, now: Instant, mut connection: Connection) -> Result<ConnectionId, DropReason> {
        let (server, template) = (connection.server, connection.template);
        connection.is_local = self.is_local(&connection);
        let id = self.connections.insert(now, connection).map_err(|full| {
            self.tell_full(Table::Connections);
            refusal(full)
        })?;
        if let Some(server) = server {
            self.count_up(server, Count::Connection);
        }
        self.hold_template(now, template);
        self.count_connection(server);
        Ok(id)
    }

    /// A new connection of a template: one more child, and the template's timer starts again.
    fn hold_template(&mut self, now: Instant, template: Option<TemplateId>) {
        let Some(id) = template else { return };
        let Some(template) = self.templates.get_mut(id) else { return };
        template.children += 1;
        let timeout = template.timeout;
        self.templates.rearm(id, now, timeout);
    }

    /// One-packet scheduling: the connection lives for this packet only.
    pub(super) fn send_one_packet(
        &mut self,
        now: Instant,
        connection: &Connection,
        direction: Direction,
        packet: &mut PacketBuf<'_>,
        headers: &Headers,
    ) -> (Verdict, Option<FlowEnd>) {
        let end = self.flow_end(now, connection, direction, headers);
        if let Some(server) = connection.server {
            self.count_up(server, Count::Connection);
        }
        self.count_connection(connection.server);
        if direction == Direction::Request {
            self.count_in(connection.server, 1, super::known_flow::datagram_len(headers));
        }
        let verdict = self.send(packet, headers, &end);
        let is_answered = direction == Direction::Reply && matches!(verdict, Verdict::Forward { .. });
        if is_answered {
            self.count_out(connection.server, 1, super::known_flow::datagram_len(headers));
        }
        if let Some(server) = connection.server {
            self.count_down(server, Count::Connection);
        }
        if let Some(id) = connection.template {
            if let Some(template) = self.templates.get_mut(id) {
                template.in_packets += u64::from(direction == Direction::Request);
                template.assured |= is_answered;
                let timeout = template.timeout;
                self.templates.rearm(id, now, timeout);
            }
        }
        (verdict, Some(end))
    }

    /// Why a new connection is refused, before another one ends for it.
    pub(super) fn refuses_opening(
        &self,
        now: Instant,
        connection: &Connection,
        room: &HalfOpenRoom,
    ) -> Option<DropReason> {
        match room {
            // It gets the place of the other one; its client's share is another matter.
            HalfOpenRoom::After(_) => {
                let is_full = self.connections.is_full_for(now, connection.protocol, connection.client);
                is_full.then_some(DropReason::ClientEndpointFull)
            }
            HalfOpenRoom::Free | HalfOpenRoom::Full => self.refuses_insertion(now, connection),
        }
    }

    /// Ends the half-open connection whose place the new one takes.
    fn make_room(&mut self, now: Instant, room: &HalfOpenRoom) {
        if let HalfOpenRoom::After(id) = room {
            self.evict_half_open(now, *id);
        }
    }

    /// Why the table would refuse a new connection now.
    pub(super) fn refuses_insertion(&self, now: Instant, connection: &Connection) -> Option<DropReason> {
        if connection.one_packet {
            return None;
        }
        self.connections.would_refuse(now, connection).map(refusal)
    }

    /// Why a template that persistence asks for would not be made now.
    pub(super) fn refuses_template(&self, persistence: &Persistence) -> Option<DropReason> {
        let is_full = self.templates.len() == self.templates.capacity();
        (is_full && matches!(persistence, Persistence::New { .. })).then_some(DropReason::TemplateTableFull)
    }

    /// A client that comes again is told that nobody serves it. Where replies bypass us that passes for a packet of the
    /// connection it had, which Linux finds a last time.
    pub(super) fn count_refusal(&mut self, id: ConnectionId, answer_len: usize) {
        let connection = self.connections.get(id).expect("it is about to end");
        if !matches!(connection.forward, ForwardMethod::Nat | ForwardMethod::FullNat) {
            self.count_out(connection.server, 1, answer_len as u64);
        }
    }

    /// Ends a connection whose addresses and ports were just used anew, or whose server is gone.
    pub(super) fn give_up(&mut self, now: Instant, id: ConnectionId) {
        self.connections.expire_now(id, now);
        self.end_connection(now, id, false);
    }
}

/// A connection as it begins.
pub(super) fn new_connection(
    now: Instant,
    first: &FirstPacket,
    real: Endpoint,
    forward: ForwardMethod,
    server: Option<ServerId>,
) -> Connection {
    let mut connection = Connection::new(first.protocol, first.client, first.destination, real, forward);
    connection.server = server;
    connection.mark = first.mark;
    connection.deadline = now + connection.timeout;
    connection
}

/// A connection past all servers, to the packet's own destination; shown with server 0.0.0.0:0.
pub(super) fn bypass_connection(now: Instant, first: &FirstPacket) -> Connection {
    let nowhere = match AddressFamily::of(first.destination.address) {
        AddressFamily::Ipv4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AddressFamily::Ipv6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    new_connection(now, first, Endpoint::new(nowhere, 0), ForwardMethod::Bypass, None)
}

pub(super) const fn refusal(full: TableFull) -> DropReason {
    match full {
        TableFull::Capacity => DropReason::ConnectionTableFull,
        TableFull::ClientEndpoint => DropReason::ClientEndpointFull,
    }
}
