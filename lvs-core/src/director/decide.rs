//! Deciding about one packet, and telling why. Changes nothing but the scheduler it is lent. `handle_packet` carries the
//! plan out; `explain` decides with a listener, on copies of the schedulers.

pub(super) mod answers;
pub(super) mod belief;
pub(super) mod choose;
pub(super) mod classify;
pub(super) mod fragment;
pub(super) mod icmp_error;
pub(super) mod martian;
pub(super) mod opening;
pub(super) mod payload_edit;
pub(super) mod reply_conflict;
pub(super) mod room;
pub(super) mod route;
pub(super) mod server_gone;
pub(super) mod server_initiated;
pub(super) mod super_packet;
pub(super) mod translation;
pub(super) mod tunnel_error;

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::connection::tcp::TcpState;
use crate::connection::{Connection, ConnectionId, State};
use crate::director::decide::choose::Choice;
use crate::director::decide::choose::Decision;
use crate::director::decide::choose::Persistence;
use crate::director::decide::classify::Classified;
use crate::director::decide::classify::FirstPacket;
use crate::director::decide::classify::Outcome;
use crate::director::decide::opening::bypass_connection;
use crate::director::decide::opening::new_connection;
use crate::director::decide::room::Refusal;
use crate::director::decide::room::Room;
use crate::director::decide::server_initiated::ServerInitiated;
use crate::director::plan::Act;
use crate::director::plan::Moved;
use crate::director::plan::Opening;
use crate::director::plan::Plan;
use crate::director::plan::Relating;
use crate::director::plan::Sending;
use crate::director::schedulers::Lend;
use crate::director::tables::Tables;
use crate::director::view::connection_view;
use crate::drop_reason::DropReason;
use crate::explanation::{Candidate, PassReason, Step};
use crate::forward::nat;
use crate::helper::table::Helped;
use crate::packet::PacketBuf;
use crate::service::ForwardMethod;
use crate::verdict::Direction;
use crate::wire::icmp::{self, Related};
use crate::wire::parse::Headers;

/// Who listens to a decision. `()` hears nothing and costs nothing.
pub(super) trait Tell {
    fn step(&mut self, step: impl FnOnce() -> Step);
}

impl Tell for () {
    #[inline(always)]
    fn step(&mut self, _: impl FnOnce() -> Step) {}
}

impl Tell for Vec<Step> {
    fn step(&mut self, step: impl FnOnce() -> Step) {
        self.push(step());
    }
}

/// A connection; its name if it is in the table, and what its helper keeps of it.
#[derive(Clone, Copy)]
struct Flow<'a> {
    id: Option<ConnectionId>,
    connection: &'a Connection,
    helped: Option<&'a Helped>,
}

/// Which ICMP error this is.
fn about(bytes: &[u8], headers: &Headers) -> Step {
    let &[icmp_type, code] = headers.transport_header(bytes).unwrap_or(&[0; 2]);
    Step::IcmpAbout { icmp_type, code }
}

impl Tables<'_> {
    /// What comes of a packet that was looked up. It carries its transport header.
    pub(super) fn decide<T: Tell>(
        &self,
        classified: Classified,
        packet: &PacketBuf<'_>,
        headers: &Headers,
        schedulers: &mut dyn Lend,
        tell: &mut T,
    ) -> Plan {
        let Classified { outcome, given_up, is_rescheduled } = classified;
        if is_rescheduled {
            tell.step(|| Step::Rescheduled);
        }
        if let Some(id) = given_up {
            tell.step(|| Step::GivenUp(connection_view(self.flow(id).connection, self.now)));
        }
        let mut plan = match outcome {
            Outcome::First(first) => self.decide_first(&first, given_up, packet, headers, schedulers, tell),
            Outcome::ServerInitiated(opened) => self.decide_server_initiated(*opened, packet, headers, tell),
            outcome => Plan::of(self.decide_known(outcome, packet, headers, tell)),
        };
        plan.given_up = given_up;
        plan
    }

    /// What opens nothing.
    #[inline(always)]
    fn decide_known<T: Tell>(&self, outcome: Outcome, packet: &PacketBuf<'_>, headers: &Headers, tell: &mut T) -> Act {
        let known = |id, direction| Step::KnownFlow {
            direction,
            connection: connection_view(self.flow(id).connection, self.now),
        };
        match outcome {
            Outcome::Pass(reason) => {
                tell.step(|| Step::Passed(reason));
                Act::Pass
            }
            Outcome::Drop(reason) => Act::Drop(reason),
            Outcome::Request(id) => {
                tell.step(|| known(id, Direction::Request));
                Act::Send(Some(id), self.decide_sending(self.flow(id), Direction::Request, packet, headers, tell))
            }
            Outcome::Reply(id) => {
                tell.step(|| known(id, Direction::Reply));
                Act::Send(Some(id), self.decide_sending(self.flow(id), Direction::Reply, packet, headers, tell))
            }
            Outcome::RelatedRequest(id, related) => {
                self.decide_related(self.flow(id), related, Direction::Request, packet, headers, tell)
            }
            Outcome::RelatedReply(id, related) => {
                self.decide_related(self.flow(id), related, Direction::Reply, packet, headers, tell)
            }
            Outcome::TunnelError(id, error) => {
                tell.step(|| Step::IcmpAbout { icmp_type: error.error_type, code: error.code });
                tell.step(|| known(id, Direction::Reply));
                Act::TellOfTunnel(id, error)
            }
            Outcome::PathMtu { address, mtu } => {
                tell.step(|| about(packet.bytes(), headers));
                Act::LearnPathMtu { address, mtu }
            }
            Outcome::UnprovenPathMtu { guessed } => {
                tell.step(|| about(packet.bytes(), headers));
                Act::DistrustPathMtu { guessed }
            }
            Outcome::Close(id, direction) => {
                tell.step(|| known(id, direction));
                tell.step(|| Step::ServerGone);
                let (connection, closed) = (self.flow(id).connection, State::Tcp(TcpState::Close));
                if connection.state != closed {
                    tell.step(|| self.state_step(connection, self.moved_to(connection, closed)));
                }
                Act::Close(id, direction)
            }
            Outcome::Unreachable(id) => {
                tell.step(|| known(id, Direction::Request));
                tell.step(|| Step::ServerGone);
                Act::RefuseOrphan
            }
            Outcome::UnknownReply => {
                tell.step(|| Step::UnknownReply);
                Act::RefuseReply
            }
            Outcome::First(_) | Outcome::ServerInitiated(_) => unreachable!("these open a connection"),
        }
    }

    fn flow(&self, id: ConnectionId) -> Flow<'_> {
        let connection = self.flows.connections.get(id).expect("it was just found");
        Flow { id: Some(id), connection, helped: self.flows.helped.get(id).filter(|_| connection.has_helper) }
    }

    /// The way of a packet with its connection, and what it does to it.
    fn decide_sending<T: Tell>(
        &self,
        flow: Flow<'_>,
        direction: Direction,
        packet: &PacketBuf<'_>,
        headers: &Headers,
        tell: &mut T,
    ) -> Sending {
        let Flow { id, connection, helped } = flow;
        let bytes = packet.bytes();
        let is_request = direction == Direction::Request;
        let told = self.next_state(connection, bytes, headers, direction);
        let next = told.filter(|next| self.is_believed(id, connection, *next, packet, headers, direction));
        // What is not believed moves no state, and needs no room for it.
        let gives_way = id.zip(next).filter(|_| is_request).and_then(|(id, next)| self.reopening_room(id, next));
        if let Some(id) = gives_way {
            tell.step(|| Step::Evicted(connection_view(self.flow(id).connection, self.now)));
        }
        if next != told {
            tell.step(|| Step::NotBelieved);
        }
        let mut route = self.route_of(self.now, connection, direction, headers);
        self.translate(self.now, id, connection, bytes, headers, &mut route);
        let help = helped.map(|helped| {
            // Requests move the state before they are sent, replies afterwards.
            let seen = next.filter(|_| is_request).unwrap_or(connection.state);
            self.consult(self.now, helped, connection, seen, &route, packet, headers).map(Box::new)
        });
        let client_port = headers.ports(bytes).filter(|_| is_request && connection.no_client_port);
        Sending {
            route,
            server: connection.server,
            // What lives for one packet has no state to go to.
            moved: next.filter(|_| !connection.one_packet).map(|next| self.moved_to(connection, next)),
            is_disbelieved: next != told,
            // What a client sends to a connection that is only expected is its first packet if it opens it.
            is_unheard: is_request && connection.is_expected && told == Some(State::Tcp(TcpState::Listen)),
            client_port: client_port.map(|(port, _)| port),
            omits_client_address: self.omits_client_address(packet, headers, &route),
            gives_way,
            help,
        }
    }

    #[inline]
    fn moved_to(&self, connection: &Connection, state: State) -> Moved {
        Moved { state, timeout: self.services.timeout_of(connection.server, state) }
    }

    /// Tells a move of a connection's state.
    pub(super) fn state_step(&self, connection: &Connection, moved: Moved) -> Step {
        Step::State { before: connection.state.name(), after: moved.state.name(), timeout: moved.timeout }
    }

    /// The way of an ICMP error about a connection.
    fn decide_related<T: Tell>(
        &self,
        flow: Flow<'_>,
        related: Related,
        direction: Direction,
        packet: &PacketBuf<'_>,
        headers: &Headers,
        tell: &mut T,
    ) -> Act {
        let Flow { id, connection, .. } = flow;
        tell.step(|| Step::IcmpAbout { icmp_type: related.error_type, code: related.code });
        if id.is_some() {
            tell.step(|| Step::KnownFlow { direction, connection: connection_view(connection, self.now) });
        }
        let is_translated = matches!(connection.forward, ForwardMethod::Nat | ForwardMethod::FullNat);
        if is_translated {
            if let Err(reason) = nat::check_related(packet, headers, &related) {
                return Act::Drop(reason);
            }
        }
        if direction == Direction::Reply && self.keeps_related(connection, headers) {
            tell.step(|| Step::Passed(PassReason::IcmpForTheHost));
            return Act::KeepRelated(connection.server);
        }
        let route = self.related_route(self.now, id, connection, direction, headers);
        Act::Relate(id, Relating { route, server: connection.server, related, is_translated })
    }

    /// A packet that a service takes.
    fn decide_first<T: Tell>(
        &self,
        first: &FirstPacket,
        given_up: Option<ConnectionId>,
        packet: &PacketBuf<'_>,
        headers: &Headers,
        schedulers: &mut dyn Lend,
        tell: &mut T,
    ) -> Plan {
        let service = self.services.table.get(first.service).expect("it was classified by it");
        tell.step(|| Step::Service(service.key));
        if self.defence.drop_packet.is_due() {
            return Plan::of(Act::Drop(DropReason::DropPacketDefence));
        }
        if self.refuses_half_open(first, packet.bytes(), headers) {
            return Plan::of(Act::RefuseForRoom(DropReason::HalfOpenFull));
        }
        let scheduler = schedulers.scheduler(first.service);
        let choice = self.choose(self.now, first, packet.bytes(), headers, scheduler);
        self.tell_choice(first, &choice, tell);
        let Choice { decision, invalid, .. } = choice;
        let only = |act| Plan { invalid, ..Plan::of(act) };
        let (connection, persistence) = match decision {
            Decision::Pass(reason) => {
                tell.step(|| Step::Passed(reason));
                return only(Act::Pass);
            }
            Decision::Drop(reason) => return only(Act::Drop(reason)),
            Decision::Refuse => return only(Act::RefuseUnserved(first.service)),
            Decision::Bypass => (bypass_connection(self.now, first), Persistence::None),
            Decision::Server { server, real, forward, template } => {
                let mut connection = new_connection(self.now, first, real, forward, Some(server));
                connection.one_packet = self.is_one_packet(first, forward);
                (connection, template)
            }
        };
        let templates = (&persistence, invalid);
        let room = match self.room_for(self.now, first, &connection, templates, (packet.bytes(), headers)) {
            Ok(room) => room,
            Err(Refusal::Full(reason)) => return only(Act::RefuseForRoom(reason)),
            Err(Refusal::NoPort(reason)) => {
                let Connection { server, real, .. } = connection;
                return only(Act::RefuseForPort { service: first.service, server, real, reason });
            }
        };
        let helper = self.helper_for(first, connection.forward).filter(|_| !connection.one_packet);
        let opening = Opening { first: *first, connection, persistence, room, helper };
        let mut plan = self.decide_opening(opening, given_up, Direction::Request, packet, headers, tell);
        plan.invalid = invalid;
        plan
    }

    /// The connection that a server opens.
    fn decide_server_initiated<T: Tell>(
        &self,
        opened: ServerInitiated,
        packet: &PacketBuf<'_>,
        headers: &Headers,
        tell: &mut T,
    ) -> Plan {
        let service = self.services.table.get(opened.first.service).expect("it was classified by it");
        tell.step(|| Step::Service(service.key));
        let connection = self.server_initiated_connection(self.now, &opened);
        let ServerInitiated { first, template: persistence, invalid, .. } = opened;
        let templates = (&persistence, invalid);
        let room = match self.room_for(self.now, &first, &connection, templates, (packet.bytes(), headers)) {
            Ok(room) => room,
            Err(Refusal::Full(reason) | Refusal::NoPort(reason)) => {
                return Plan { invalid, ..Plan::of(Act::RefuseForRoom(reason)) };
            }
        };
        let opening = Opening { first, connection, persistence, room, helper: None };
        let mut plan = self.decide_opening(opening, None, Direction::Reply, packet, headers, tell);
        plan.invalid = invalid;
        plan
    }

    /// There is room for the connection: it is opened, and the packet sent.
    fn decide_opening<T: Tell>(
        &self,
        mut opening: Opening,
        given_up: Option<ConnectionId>,
        direction: Direction,
        packet: &PacketBuf<'_>,
        headers: &Headers,
        tell: &mut T,
    ) -> Plan {
        self.tell_room(&opening.room, given_up, tell);
        let connection = &mut opening.connection;
        connection.local = opening.room.local;
        connection.has_helper = opening.helper.is_some();
        connection.is_local = self.is_local(connection);
        connection.client_is_host = self.site.config.host_addresses.contains(&connection.client.address);
        connection.checks_window = self.checks_window(connection);
        let connection = &opening.connection;
        tell.step(|| {
            let view = connection_view(connection, self.now);
            if connection.one_packet { Step::OnePacket(view) } else { Step::NewConnection(view) }
        });
        let helped = opening.helper.clone().map(Helped::by);
        let flow = Flow { id: None, connection, helped: helped.as_ref() };
        let act = match opening.first.is_quoted {
            // A flow read from an ICMP error gets no state; it keeps its first three seconds.
            true => match icmp::related(packet.bytes(), headers) {
                Ok(Some(related)) => self.decide_related(flow, related, direction, packet, headers, tell),
                _ => Act::Pass,
            },
            false => {
                let sending = self.decide_sending(flow, direction, packet, headers, tell);
                if connection.one_packet { Act::SendOnce(sending) } else { Act::Send(None, sending) }
            }
        };
        Plan { given_up: None, invalid: None, opening: Some(opening), act }
    }

    /// Tells who gives way, unless it is the one that is given up anyway.
    fn tell_room<T: Tell>(&self, room: &Room, given_up: Option<ConnectionId>, tell: &mut T) {
        let others = room.connections().filter(|id| Some(*id) != given_up);
        for connection in others.filter_map(|id| self.flows.connections.get(id)) {
            tell.step(|| Step::Evicted(connection_view(connection, self.now)));
        }
        if let Some(template) = room.template.and_then(|id| self.flows.templates.get(id)) {
            tell.step(|| Step::Evicted(self.template_view(template, self.now)));
        }
    }

    fn tell_choice<T: Tell>(&self, first: &FirstPacket, choice: &Choice, tell: &mut T) {
        let template = |id| self.flows.templates.get(id);
        if let Some(template) = choice.invalid.and_then(template) {
            tell.step(|| Step::TemplateInvalid(self.template_view(template, self.now)));
        }
        if let Decision::Server { template: Persistence::Existing(id), .. } = &choice.decision {
            if let Some(template) = template(*id) {
                tell.step(|| Step::Template(self.template_view(template, self.now)));
            }
        }
        if !choice.was_scheduled {
            return;
        }
        tell.step(|| {
            let service = self.services.table.get(first.service).expect("it was classified by it");
            let chosen = match &choice.decision {
                Decision::Server { server, .. } => self.services.servers.get(*server).map(|record| record.config.key),
                _ => None,
            };
            let candidates = service.servers.iter().map(|server| Candidate {
                server: server.key,
                weight: server.weight,
                active_connections: server.active_connections,
                inactive_connections: server.inactive_connections(),
                is_overloaded: server.is_overloaded,
            });
            Step::Scheduled { scheduler: service.config.scheduler.clone(), candidates: candidates.collect(), chosen }
        });
    }
}
