//! Carrying a plan out: the only place on a packet's way that changes anything but its bytes. What comes of a packet
//! whatever becomes of it is done before it is written, what comes of one that is sent afterwards. Requests are counted
//! before anything can refuse them, replies only once they are on their way.

pub(super) mod accounting;
pub(super) mod answers;
pub(super) mod close;
pub(super) mod end;
pub(super) mod followed;
pub(super) mod fragment;
pub(super) mod local_ports;
pub(super) mod open;
pub(super) mod payload_edit;
pub(super) mod reply_conflict;
pub(super) mod room;
pub(super) mod state;
pub(super) mod super_packet;

use super::Director;
use crate::connection::{Connection, ConnectionId};
use crate::director::carry_out::accounting::Count;
use crate::director::decide::classify::Route;
use crate::director::decide::route::datagram_len;
use crate::director::decide::tunnel_error::TunnelError;
use crate::director::plan::Act;
use crate::director::plan::Opening;
use crate::director::plan::Plan;
use crate::director::plan::Relating;
use crate::director::plan::Sending;
use crate::director::tables::Tables;
use crate::drop_reason::DropReason;
use crate::event::Table;
use crate::helper::table::Helped;
use crate::packet::PacketBuf;
use crate::service::ForwardMethod;
use crate::service::server_table::UsedRoute;
use crate::verdict::{Direction, Verdict};
use crate::wire::parse::Headers;

/// A connection that was opened for a packet.
enum Opened {
    Lasting(ConnectionId),
    /// It lives for this packet only and is in no table.
    Once(Connection),
}

impl Director {
    /// Does what was decided.
    pub(super) fn carry_out(&mut self, plan: &mut Plan, packet: &mut PacketBuf<'_>, headers: &Headers) -> Verdict {
        if let Some(template) = plan.invalid {
            self.flows.templates.invalidate(template);
        }
        let is_opening = plan.opening.is_some();
        let opened = if is_opening { plan.opening.take().map(|opening| self.open_for(opening)) } else { None };
        let id = |known: &Option<ConnectionId>| match opened {
            Some(Opened::Lasting(id)) => id,
            _ => known.expect("it is known where none is opened"),
        };
        let verdict = match (&plan.act, &opened) {
            (Act::Send(known, sending), _) => self.send_known(id(known), sending, packet, headers),
            (Act::SendOnce(sending), Some(Opened::Once(connection))) => {
                self.send_once(connection, sending, packet, headers)
            }
            (Act::Relate(known, relating), _) => self.relate(id(known), relating, packet, headers),
            (act, _) => self.refuse(act, packet, headers),
        };
        if let Some(id) = plan.given_up {
            if plan.route().is_none() && matches!(verdict, Verdict::Reply { .. }) {
                self.count_refusal(id, packet.len());
            }
            self.give_up(self.clock.now, id);
        }
        verdict
    }

    /// Opens a connection; what gives way to it ends first.
    fn open_for(&mut self, opening: Opening) -> Opened {
        let now = self.clock.now;
        let Opening { first, mut connection, persistence, room, helper } = opening;
        self.make_room(now, &room, &persistence, connection.client.address);
        if let Some(local) = room.local {
            self.lease_local(now, &first, &connection, local);
        }
        connection.template = self.bind_template(now, &first, &connection, persistence);
        if connection.one_packet {
            return Opened::Once(connection);
        }
        let id = self.open(now, connection);
        self.open_translation(id);
        if let Some(helper) = helper {
            self.flows.helped.insert(id, Helped::by(helper));
        }
        Opened::Lasting(id)
    }

    /// A packet of a connection.
    fn send_known(
        &mut self,
        id: ConnectionId,
        sending: &Sending,
        packet: &mut PacketBuf<'_>,
        headers: &Headers,
    ) -> Verdict {
        match sending.route.direction {
            Direction::Request => self.send_request(id, sending, packet, headers),
            Direction::Reply => self.send_reply(id, sending, packet, headers),
        }
    }

    fn send_request(
        &mut self,
        id: ConnectionId,
        sending: &Sending,
        packet: &mut PacketBuf<'_>,
        headers: &Headers,
    ) -> Verdict {
        let (now, mark) = (self.clock.now, packet.mark);
        if let Some(port) = sending.client_port {
            // Even if the packet gets no further.
            self.flows.connections.set_client_port(id, port);
        }
        self.count_in(sending.server, 1, datagram_len(headers));
        if !sending.is_unheard {
            self.heard(id, Direction::Request);
        }
        self.note_belief(id, sending.is_disbelieved, packet, headers, Direction::Request);
        if let Some(moved) = sending.moved {
            self.enter_state(id, moved, Direction::Request);
        }
        self.keep_translation(id, &sending.route);
        let verdict = self.send(sending, packet, headers);
        self.keep_heard_help(id, sending, verdict, mark);
        if sending.omits_client_address && matches!(verdict, Verdict::Forward { .. }) {
            self.make_up_for_client_address(headers, &sending.route, verdict);
        }
        let connection = self.flows.connections.get_mut(id).expect("nothing removed it");
        connection.in_packets += 1;
        let timeout = connection.timeout;
        self.flows.connections.rearm(id, now, timeout);
        if let Some(gives_way) = sending.gives_way {
            self.make_room_for_reopened(now, gives_way);
        }
        verdict
    }

    fn send_reply(
        &mut self,
        id: ConnectionId,
        sending: &Sending,
        packet: &mut PacketBuf<'_>,
        headers: &Headers,
    ) -> Verdict {
        let mark = packet.mark;
        // Of the packet as it came: between families its headers move.
        self.note_belief(id, sending.is_disbelieved, packet, headers, Direction::Reply);
        let verdict = self.send(sending, packet, headers);
        self.keep_heard_help(id, sending, verdict, mark);
        if sending.is_counted(verdict) {
            let resized = sending.help.is_some().then(|| (packet.len() as u64).wrapping_sub(headers.packet_len as u64));
            self.count_out(sending.server, 1, datagram_len(headers).wrapping_add(resized.unwrap_or(0)));
            self.keep_translation(id, &sending.route);
            self.heard(id, Direction::Reply);
            if let Some(moved) = sending.moved {
                self.enter_state(id, moved, Direction::Reply);
            }
            let timeout = self.flows.connections.get(id).expect("nothing removed it").timeout;
            self.flows.connections.rearm(id, self.clock.now, timeout);
        }
        verdict
    }

    #[inline]
    fn keep_heard_help(&mut self, id: ConnectionId, sending: &Sending, verdict: Verdict, mark: u32) {
        if sending.help.is_none() {
            return;
        }
        if matches!(sending.help, Some(Err(DropReason::ConnectionTableFull))) {
            self.tell_full(Table::Connections);
        }
        if let Some(help) = sending.heard_help(verdict) {
            self.keep_help(self.clock.now, id, help, mark);
        }
    }

    /// One-packet scheduling: the connection lives for this packet only.
    fn send_once(
        &mut self,
        connection: &Connection,
        sending: &Sending,
        packet: &mut PacketBuf<'_>,
        headers: &Headers,
    ) -> Verdict {
        let is_request = sending.route.direction == Direction::Request;
        if let Some(server) = connection.server {
            self.count_up(server, Count::Connection);
        }
        self.count_connection(connection.server);
        if is_request {
            self.count_in(connection.server, 1, datagram_len(headers));
        }
        let verdict = self.send(sending, packet, headers);
        let is_answered = !is_request && sending.is_counted(verdict);
        if is_answered {
            self.count_out(connection.server, 1, datagram_len(headers));
        }
        if let Some(server) = connection.server {
            self.count_down(server, Count::Connection);
        }
        if let Some(id) = connection.template {
            self.use_template_once(id, is_request, is_answered);
        }
        verdict
    }

    /// Writes a packet of a connection, and sees to what the director itself adds to the wire.
    fn send(&mut self, sending: &Sending, packet: &mut PacketBuf<'_>, headers: &Headers) -> Verdict {
        self.send_by(&sending.route, packet, |tables, packet| tables.write_sending(sending, packet, headers))
    }

    /// The same for what belongs to a connection and has no part in its conversation.
    pub(super) fn send_along(&mut self, route: &Route, packet: &mut PacketBuf<'_>, headers: &Headers) -> Verdict {
        self.send_by(route, packet, |tables, packet| tables.write_route(route, packet, headers))
    }

    #[inline(always)]
    fn send_by(
        &mut self,
        route: &Route,
        packet: &mut PacketBuf<'_>,
        write: impl FnOnce(&Tables<'_>, &mut PacketBuf<'_>) -> Verdict,
    ) -> Verdict {
        let segments = packet.offload.gso.map(|_| self.tables().later_segments(packet, route));
        let verdict = write(&self.tables(), packet);
        self.note_sent(route, verdict, packet.len());
        if let (Some(segments), Verdict::Forward { .. }) = (segments, verdict) {
            self.send_segments(segments, route);
        }
        verdict
    }

    /// Counts packets of the director's own making, and remembers the way a tunnel took.
    fn note_sent(&mut self, route: &Route, verdict: Verdict, len: usize) {
        let is_request = route.direction == Direction::Request;
        let is_sent = matches!(verdict, Verdict::Forward { .. });
        if is_request && route.path.method == ForwardMethod::Tunnel {
            self.outlet.answers += u64::from(is_sent);
            if let Some(record) = route.server.and_then(|id| self.services.servers.get_mut(id)) {
                record.route = Some(UsedRoute { at: self.clock.now, mtu: route.path.mtu });
            }
        }
        if is_request && route.path.leaves_ipv6() {
            // It may have been given an identification.
            self.outlet.answers += u64::from(is_sent);
        }
        if matches!(verdict, Verdict::Reply { .. }) {
            self.outlet.answers += 1;
            // Our own answer passes for a packet from the server where replies bypass us: it comes from the VIP.
            let is_nat = matches!(route.path.method, ForwardMethod::Nat | ForwardMethod::FullNat);
            if is_request && !is_nat {
                self.count_out(route.server, 1, len as u64);
            }
        }
    }

    /// An ICMP error about a connection. It moves neither state nor timer.
    fn relate(
        &mut self,
        id: ConnectionId,
        relating: &Relating,
        packet: &mut PacketBuf<'_>,
        headers: &Headers,
    ) -> Verdict {
        let Relating { ref route, server, ref related, is_translated } = *relating;
        let is_request = route.direction == Direction::Request;
        let len = headers.packet_len as u64;
        if is_request {
            self.count_in(server, 1, len);
        }
        if is_request && !is_translated {
            let connection = self.flows.connections.get_mut(id).expect("nothing removed it");
            connection.in_packets += 1;
        }
        let verdict = match is_translated {
            true => crate::director::decide::icmp_error::translate_related(packet, headers, related, route),
            false => self.send_along(route, packet, headers),
        };
        if !is_request && matches!(verdict, Verdict::Forward { .. }) {
            self.count_out(server, 1, len);
        }
        verdict
    }

    /// What is passed on, dropped, or answered by the director.
    fn refuse(&mut self, act: &Act, packet: &mut PacketBuf<'_>, headers: &Headers) -> Verdict {
        let now = self.clock.now;
        match act {
            Act::KeepRelated(server) => self.count_out(*server, 1, headers.packet_len as u64),
            Act::LearnPathMtu { address, mtu } => self.services.servers.learn_path_mtu(now, *address, *mtu),
            Act::DistrustPathMtu { guessed: Some(address) } => self.services.servers.note_wrong_guess(now, *address),
            Act::DistrustPathMtu { guessed: None } => {}
            Act::Close(id, direction) => self.close(now, *id, *direction, packet, headers),
            Act::RefuseUnserved(service) => self.tell_unavailable(*service),
            Act::RefuseForRoom(reason) => self.tell_refusal(*reason),
            Act::RefuseForPort { service, server, real, reason } => {
                self.tell_ports_exhausted(*service, *server, *real, *reason);
            }
            _ => {}
        }
        let verdict = self.tables().write(act, packet, headers);
        let is_answered = matches!(verdict, Verdict::Reply { .. });
        match act {
            Act::TellOfTunnel(id, error) => self.note_tunnel_error(*id, error, is_answered, packet.len()),
            // A RST has no identification of its own.
            Act::Close(..) => {}
            // Answered or not, it is a connection that could not be opened.
            Act::RefuseForPort { reason, .. } if is_answered => {
                self.outlet.answers += 1;
                self.count_drop(*reason);
            }
            _ => self.outlet.answers += u64::from(is_answered),
        }
        verdict
    }

    /// A tunnel's error has been told, or not: its path MTU is remembered all the same.
    fn note_tunnel_error(&mut self, id: ConnectionId, error: &TunnelError, is_told: bool, len: usize) {
        let connection = self.flows.connections.get(id).expect("nothing removed it");
        let (server, address) = (connection.server, connection.real.address);
        if let Some(mtu) = error.path_mtu() {
            self.services.servers.learn_path_mtu(self.clock.now, address, mtu);
        }
        if is_told {
            self.outlet.answers += 1;
            // Twice: the error as it came, which Linux counts without its wrapping, and what the client is told.
            self.count_out(server, 1, error.inner.packet_len as u64);
            self.count_out(server, 1, len as u64);
        }
    }
}
