//! Opening a connection: the defences first, then the choice (`choose.rs`) is carried out: template, connection,
//! counts, and the packet on its way.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::time::Duration;

use super::Director;
use super::accounting::Count;
use super::choose::{Choice, Decision, Persistence};
use super::look::{FirstPacket, FlowEnd};
use super::room::Refusal;
use super::schedulers::Lend;
use super::tables::Tables;
use super::timeout::Along;
use crate::connection::{Connection, ConnectionId};
use crate::drop_reason::DropReason;
use crate::event::Table;
use crate::flow::{AddressFamily, Endpoint, Protocol};
use crate::helper::table::Helped;
use crate::packet::PacketBuf;
use crate::persistence::{Proof, Template, TemplateId};
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
        if self.tables().refuses_half_open(first, packet.bytes(), headers) {
            self.tell_full(Table::HalfOpen);
            return (Verdict::Drop(DropReason::HalfOpenFull), None);
        }
        let (tables, schedulers) = self.apart();
        let choice = tables.choose(now, first, packet.bytes(), headers, schedulers.scheduler(first.service));
        let invalid = choice.invalid;
        let sent = self.carry_out_choice(now, first, choice, packet, headers);
        if let Some(template) = invalid {
            self.flows.templates.invalidate(template);
        }
        sent
    }

    fn carry_out_choice(
        &mut self,
        now: Instant,
        first: &FirstPacket,
        choice: Choice,
        packet: &mut PacketBuf<'_>,
        headers: &Headers,
    ) -> (Verdict, Option<FlowEnd>) {
        match choice.decision {
            Decision::Pass(_) => (Verdict::Pass, None),
            Decision::Drop(reason) => (Verdict::Drop(reason), None),
            Decision::Refuse => {
                let key = self.services.table.get(first.service).expect("look found it").key;
                self.tell_unavailable(&key);
                let path = self.tables().answer_path(now, Direction::Request, headers);
                (self.answer(packet, headers, IcmpError::PortUnreachable, &path, DropReason::NoServer), None)
            }
            Decision::Bypass => {
                let connection = bypass_connection(now, first);
                self.make_room_and_open(now, first, connection, (Persistence::None, None), packet, headers)
            }
            Decision::Server { server, real, forward, template } => {
                let mut connection = new_connection(now, first, real, forward, Some(server));
                connection.one_packet = self.tables().is_one_packet(first, forward);
                self.make_room_and_open(now, first, connection, (template, choice.invalid), packet, headers)
            }
        }
    }

    /// Makes room for the connection and opens it, or says that there is none.
    fn make_room_and_open(
        &mut self,
        now: Instant,
        first: &FirstPacket,
        mut connection: Connection,
        (persistence, invalid): (Persistence, Option<TemplateId>),
        packet: &mut PacketBuf<'_>,
        headers: &Headers,
    ) -> (Verdict, Option<FlowEnd>) {
        let templates = (&persistence, invalid);
        let room = match self.tables().room_for(now, first, &connection, templates, (packet.bytes(), headers)) {
            Ok(room) => room,
            Err(refusal) => {
                let reason = self.tell_refusal(refusal);
                return match refusal {
                    Refusal::Full(_) => (Verdict::Drop(reason), None),
                    Refusal::NoPort(_) => (self.refuse_ports(first, &connection, reason, packet, headers), None),
                };
            }
        };
        self.make_room(now, &room, &persistence, connection.client.address);
        if let Some(local) = room.local {
            self.lease_local(now, first, &connection, local);
            connection.local = Some(local);
        }
        connection.template = self.bind_template(now, first, &connection, persistence);
        self.open_and_send(now, first, connection, packet, headers)
    }
}

impl Tables<'_> {
    /// One-packet scheduling; not with FullNAT, where a reply finds its client through the connection only, and not for
    /// flows read from ICMP errors, whose translation needs the connection.
    pub(super) fn is_one_packet(&self, first: &FirstPacket, forward: ForwardMethod) -> bool {
        first.protocol == Protocol::Udp
            && !first.is_quoted
            && forward != ForwardMethod::FullNat
            && self.services.table.get(first.service).is_some_and(|service| service.config.one_packet)
    }
}

impl Director {
    /// Finds or makes the template a new connection hangs on. There is room for it.
    pub(super) fn bind_template(
        &mut self,
        now: Instant,
        first: &FirstPacket,
        connection: &Connection,
        persistence: Persistence,
    ) -> Option<TemplateId> {
        let (key, real_port) = match persistence {
            Persistence::None => return None,
            Persistence::Existing(id) => return Some(id),
            Persistence::New { key, real_port } => (key, real_port),
        };
        let server = connection.server?;
        let service = self.services.table.get(first.service).expect("look found it");
        let seconds = service.config.persistence_timeout_s.unwrap_or(0);
        let timeout = Duration::from_secs(u64::from(seconds));
        let template = Template {
            key,
            server,
            real_port,
            forward: connection.forward,
            timeout,
            deadline: now,
            children: 0,
            assured: false,
            proof: Proof::Nothing,
            in_packets: 0,
            mark: first.mark,
            invalidated: false,
        };
        let id = self.flows.templates.insert(now, template).expect("room was made for it");
        self.count_up(server, Count::Template);
        Some(id)
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
        let helper = self.tables().helper_for(first, connection.forward);
        connection.has_helper = helper.is_some();
        let id = self.open(now, connection);
        self.open_translation(id);
        if let Some(helper) = helper {
            self.flows.helped.insert(id, Helped::by(helper));
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

    /// Puts a connection into the table, where there is room for it, and counts it.
    pub(super) fn open(&mut self, now: Instant, mut connection: Connection) -> ConnectionId {
        let (server, template) = (connection.server, connection.template);
        connection.is_local = self.tables().is_local(&connection);
        connection.checks_window = self.tables().checks_window(&connection);
        let checks_window = connection.checks_window;
        let conflict = self.tables().conflict_of(now, &connection);
        let id = self.flows.connections.insert(now, connection).expect("room was made for it");
        if checks_window {
            self.follow_numbers(id);
        }
        if let Some(other) = conflict {
            let connection = self.flows.connections.get(id).expect("it was just opened").clone();
            self.note_conflict(now, &connection, other);
        }
        if let Some(server) = server {
            self.count_up(server, Count::Connection);
        }
        self.hold_template(now, template);
        self.count_connection(server);
        id
    }

    /// A new connection of a template: one more child, and the template's timer starts again.
    fn hold_template(&mut self, now: Instant, template: Option<TemplateId>) {
        let Some(id) = template else { return };
        let Some(template) = self.flows.templates.get_mut(id) else { return };
        template.children += 1;
        self.flows.templates.renew(id, now);
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
        let end = self.tables().flow_end(now, connection, direction, headers);
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
            if let Some(template) = self.flows.templates.get_mut(id) {
                template.in_packets += u64::from(direction == Direction::Request);
                let talks_on = template.assured && direction == Direction::Request;
                template.assured |= is_answered;
                self.flows.templates.renew(id, now);
                if talks_on {
                    self.flows.templates.prove(id, Proof::Talk);
                }
            }
        }
        (verdict, Some(end))
    }

    /// A client that comes again is told that nobody serves it. Where replies bypass us that passes for a packet of the
    /// connection it had, which Linux finds a last time.
    pub(super) fn count_refusal(&mut self, id: ConnectionId, answer_len: usize) {
        let connection = self.flows.connections.get(id).expect("it is about to end");
        if !matches!(connection.forward, ForwardMethod::Nat | ForwardMethod::FullNat) {
            self.count_out(connection.server, 1, answer_len as u64);
        }
    }

    /// Ends a connection whose addresses and ports were just used anew, or whose server is gone.
    pub(super) fn give_up(&mut self, now: Instant, id: ConnectionId) {
        self.flows.connections.expire_now(id, now);
        self.end_connection(now, id, Along::Nothing);
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
