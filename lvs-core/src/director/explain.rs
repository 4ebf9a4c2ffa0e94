//! Explaining a packet: the same look-up, choice and forwarding as `handle_packet`, on copies, with every step told.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::choose::{Choice, Decision, Persistence};
use super::closing::answer_with_reset;
use super::first_packet::{bypass_connection, new_connection};
use super::fragments::Fate;
use super::help::Help;
use super::look::{FirstPacket, FlowEnd, Look, Outcome};
use super::related::translate_related;
use super::room::{Refusal, Room};
use super::schedulers::Lend;
use super::server_first::ServerFirst;
use super::tables::Tables;
use super::view::connection_view;
use crate::connection::tcp::TcpState;
use crate::connection::{Connection, ConnectionId, State};
use crate::drop_reason::DropReason;
use crate::explanation::{Candidate, Explanation, PassReason, Step};
use crate::flow::{AddressFamily, Endpoint, Protocol};
use crate::forward;
use crate::forward::full_nat::client_address::UOA_PROTOCOL;
use crate::helper::table::Helped;
use crate::packet::PacketBuf;
use crate::service::ForwardMethod;
use crate::time::Instant;
use crate::verdict::{Direction, Verdict};
use crate::wire::icmp::{self, IcmpError, Related};
use crate::wire::parse::{self, Headers};
use crate::wire::read_u16;

/// A connection; its name if it is in the table, and what its helper keeps of it.
#[derive(Clone, Copy)]
struct Flow<'a> {
    id: Option<ConnectionId>,
    connection: &'a Connection,
    helped: Option<&'a Helped>,
}

/// The steps so far, and a copy of the packet to try the rewrite on.
struct Trial<'a> {
    schedulers: &'a mut dyn Lend,
    steps: Vec<Step>,
    packet: PacketBuf<'a>,
}

impl Tables<'_> {
    pub(super) fn explain_packet(
        &self,
        now: Instant,
        packet: &PacketBuf<'_>,
        schedulers: &mut dyn Lend,
    ) -> Explanation {
        let mut storage = alloc::vec![0; packet.headroom() + packet.len() + packet.tailroom()];
        let start = packet.headroom();
        storage[start..start + packet.len()].copy_from_slice(packet.bytes());
        let mut copy = PacketBuf::new(&mut storage, start, packet.len());
        (copy.offload, copy.mark, copy.from_host) = (packet.offload, packet.mark, packet.from_host);
        let mut trial = Trial { schedulers, steps: Vec::new(), packet: copy };
        let verdict = match parse::parse(packet.bytes()) {
            Ok(headers) => {
                trial.steps.push(arrival(packet, &headers));
                self.try_packet(now, &mut trial, &headers)
            }
            Err(reason) => Verdict::Drop(reason),
        };
        match verdict {
            Verdict::Drop(reason) => trial.steps.push(Step::Dropped(reason)),
            Verdict::Reply { .. } => trial.steps.extend(answer(trial.packet.bytes())),
            _ => {}
        }
        let bytes = trial.packet.bytes().to_vec();
        tell_changes(&mut trial.steps, packet.bytes(), &bytes, verdict);
        Explanation { steps: trial.steps, verdict, bytes }
    }

    fn try_packet(&self, now: Instant, trial: &mut Trial<'_>, headers: &Headers) -> Verdict {
        let Some(part) = headers.fragment else { return self.try_whole(now, trial, headers) };
        match self.fragment_fate(now, &trial.packet, headers, &part) {
            Fate::Pass | Fate::PassedOn(_) => {
                trial.steps.push(Step::Passed(PassReason::UnknownFragment));
                Verdict::Pass
            }
            Fate::Drop(reason) => Verdict::Drop(reason),
            Fate::First => self.try_whole(now, trial, headers),
            Fate::Wait => {
                trial.steps.push(Step::FragmentWaits);
                Verdict::Held
            }
            Fate::Follow(_, end) => {
                trial.steps.push(Step::FollowsFirstFragment);
                self.try_send(trial, headers, &end)
            }
        }
    }

    fn try_whole(&self, now: Instant, trial: &mut Trial<'_>, headers: &Headers) -> Verdict {
        let Look { outcome, is_rescheduled, given_up } = self.look(now, &trial.packet, headers);
        if is_rescheduled {
            trial.steps.push(Step::Rescheduled);
        }
        if let Some(id) = given_up {
            trial.steps.push(Step::GivenUp(connection_view(self.flow(id).connection, now)));
        }
        match outcome {
            Outcome::Pass(reason) => {
                trial.steps.push(Step::Passed(reason));
                Verdict::Pass
            }
            Outcome::Drop(reason) => Verdict::Drop(reason),
            Outcome::Request(id) => self.try_known(now, trial, headers, self.flow(id), Direction::Request),
            Outcome::Reply(id) => self.try_known(now, trial, headers, self.flow(id), Direction::Reply),
            Outcome::RelatedRequest(id, related) => {
                self.try_related(now, trial, headers, self.flow(id), &related, Direction::Request)
            }
            Outcome::RelatedReply(id, related) => {
                self.try_related(now, trial, headers, self.flow(id), &related, Direction::Reply)
            }
            Outcome::TunnelError(id, error) => {
                let connection = self.flows.connections.get(id).expect("it was just found");
                trial.steps.push(Step::IcmpAbout { icmp_type: error.error_type, code: error.code });
                let connection_view = connection_view(connection, now);
                trial.steps.push(Step::KnownFlow { direction: Direction::Reply, connection: connection_view });
                self.tell_client(now, &mut trial.packet, connection, &error)
            }
            Outcome::PathMtu { .. } => {
                trial.steps.push(Step::IcmpAbout { icmp_type: 3, code: 4 });
                Verdict::Drop(DropReason::PathMtuLearned)
            }
            Outcome::UnprovenPathMtu => Verdict::Drop(DropReason::UnprovenPathMtu),
            Outcome::Close(id, direction) => {
                let connection = self.flows.connections.get(id).expect("it was just found");
                trial.steps.push(Step::KnownFlow { direction, connection: connection_view(connection, now) });
                trial.steps.push(Step::ServerGone);
                let closed = State::Tcp(TcpState::Close);
                if connection.state != closed {
                    trial.steps.push(self.tell_state(connection, closed));
                }
                answer_with_reset(&mut trial.packet, headers, self.refused_answers(now, headers.source))
            }
            Outcome::Unreachable(id) => {
                let connection = self.flows.connections.get(id).expect("it was just found");
                let view = connection_view(connection, now);
                trial.steps.push(Step::KnownFlow { direction: Direction::Request, connection: view });
                trial.steps.push(Step::ServerGone);
                let path = self.answer_path(now, Direction::Request, headers);
                let error = IcmpError::PortUnreachable;
                forward::answer(&mut trial.packet, headers, error, &path, DropReason::ServerGone)
            }
            Outcome::UnknownReply => self.try_refuse_unknown_reply(now, trial, headers),
            Outcome::First(first) => self.try_first(now, trial, headers, &first),
            Outcome::ServerFirst(opened) => self.try_server_first(now, trial, headers, &opened),
        }
    }

    fn flow(&self, id: ConnectionId) -> Flow<'_> {
        let connection = self.flows.connections.get(id).expect("it was just found");
        Flow { id: Some(id), connection, helped: self.flows.helped.get(id).filter(|_| connection.has_helper) }
    }

    fn try_known(
        &self,
        now: Instant,
        trial: &mut Trial<'_>,
        headers: &Headers,
        flow: Flow<'_>,
        direction: Direction,
    ) -> Verdict {
        trial.steps.push(Step::KnownFlow { direction, connection: connection_view(flow.connection, now) });
        self.try_forward(now, trial, headers, flow, direction)
    }

    /// The state's next step, and the way out.
    fn try_forward(
        &self,
        now: Instant,
        trial: &mut Trial<'_>,
        headers: &Headers,
        flow: Flow<'_>,
        direction: Direction,
    ) -> Verdict {
        let connection = flow.connection;
        let known = flow.id.filter(|_| direction == Direction::Request);
        if let Some(id) = known.and_then(|id| self.reopening_room(id, trial.packet.bytes(), headers)) {
            trial.steps.push(Step::Evicted(connection_view(self.flow(id).connection, now)));
        }
        let told = self.next_state(connection, trial.packet.bytes(), headers, direction);
        let next = self.believed_state(flow.id, connection, &trial.packet, headers, direction);
        if next != told {
            trial.steps.push(Step::NotBelieved);
        }
        // What lives for one packet has no state to go to.
        let state = next.filter(|_| !connection.one_packet).map(|next| self.tell_state(connection, next));
        let end = self.flow_end(now, connection, direction, headers);
        let end = self.with_translation(now, flow.id, connection, trial.packet.bytes(), headers, end);
        let verdict = match flow.helped {
            None => self.try_send(trial, headers, &end),
            Some(helped) => {
                // Requests move the state before they are sent, replies afterwards.
                let seen = next.filter(|_| direction == Direction::Request).unwrap_or(connection.state);
                let help = self.consult(now, helped, connection, seen, &end, &trial.packet, headers);
                self.try_helped(now, trial, headers, &end, help)
            }
        };
        let is_counted = direction == Direction::Request || matches!(verdict, Verdict::Forward { .. });
        trial.steps.extend(state.filter(|_| is_counted));
        verdict
    }

    fn tell_state(&self, connection: &Connection, next: State) -> Step {
        let timeout = self.timeout_of(connection.server, next);
        Step::State { before: connection.state.name(), after: next.name(), timeout }
    }

    fn try_related(
        &self,
        now: Instant,
        trial: &mut Trial<'_>,
        headers: &Headers,
        flow: Flow<'_>,
        related: &Related,
        direction: Direction,
    ) -> Verdict {
        let connection = flow.connection;
        trial.steps.push(Step::IcmpAbout { icmp_type: related.error_type, code: related.code });
        if flow.id.is_some() {
            trial.steps.push(Step::KnownFlow { direction, connection: connection_view(connection, now) });
        }
        let is_translated = matches!(connection.forward, ForwardMethod::Nat | ForwardMethod::FullNat);
        if is_translated {
            if let Err(reason) = forward::nat::check_related(&trial.packet, headers, related) {
                return Verdict::Drop(reason);
            }
        }
        if direction == Direction::Reply && self.keeps_related(connection, headers) {
            trial.steps.push(Step::Passed(PassReason::IcmpForTheHost));
            return Verdict::Pass;
        }
        let end = self.related_end(now, flow.id, connection, direction, headers);
        if !is_translated {
            return self.try_send(trial, headers, &end);
        }
        translate_related(&mut trial.packet, headers, related, &end)
    }

    fn try_send(&self, trial: &mut Trial<'_>, headers: &Headers, end: &FlowEnd) -> Verdict {
        if let Some(reason) = self.refuses_super_packet(&trial.packet, end) {
            return Verdict::Drop(reason);
        }
        match end.direction {
            Direction::Request => forward::request(&mut trial.packet, headers, &end.path),
            Direction::Reply => forward::reply(&mut trial.packet, headers, &end.path),
        }
    }

    fn try_helped(
        &self,
        now: Instant,
        trial: &mut Trial<'_>,
        headers: &Headers,
        end: &FlowEnd,
        help: Result<Help, DropReason>,
    ) -> Verdict {
        let help = match help {
            Ok(help) => help,
            Err(reason) => return Verdict::Drop(reason),
        };
        let expected = help.expected.as_ref().map(|connection| {
            let ends = Connection { deadline: now + connection.timeout, ..connection.clone() };
            connection_view(&ends, now)
        });
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let said = help.edit.as_ref().map(|(range, said)| (text(&trial.packet.bytes()[range.clone()]), text(said)));
        let verdict = self.try_send(trial, headers, end);
        // A helper is heard only with what is sent.
        if matches!(verdict, Verdict::Forward { .. } | Verdict::Local) {
            help.write(&mut trial.packet, headers);
            if expected.is_some() || said.is_some() {
                trial.steps.push(Step::Helped { expected, said });
            }
        }
        verdict
    }

    fn try_refuse_unknown_reply(&self, now: Instant, trial: &mut Trial<'_>, headers: &Headers) -> Verdict {
        trial.steps.push(Step::UnknownReply);
        let verdict = self.refuse_reply_on(now, &mut trial.packet, headers);
        if verdict == Verdict::Pass {
            trial.steps.push(Step::Passed(PassReason::LastHop));
        }
        verdict
    }

    fn try_first(&self, now: Instant, trial: &mut Trial<'_>, headers: &Headers, first: &FirstPacket) -> Verdict {
        let service = self.services.table.get(first.service).expect("look found it");
        trial.steps.push(Step::Service(service.key));
        if self.defence.drop_packet.is_due() {
            return Verdict::Drop(DropReason::DropPacketDefence);
        }
        if self.refuses_half_open(first, trial.packet.bytes(), headers) {
            return Verdict::Drop(DropReason::HalfOpenFull);
        }
        let scheduler = trial.schedulers.scheduler(first.service);
        let choice = self.choose(now, first, trial.packet.bytes(), headers, scheduler);
        self.tell_choice(now, trial, first, &choice);
        let (mut connection, persistence) = match choice.decision {
            Decision::Pass(reason) => {
                trial.steps.push(Step::Passed(reason));
                return Verdict::Pass;
            }
            Decision::Drop(reason) => return Verdict::Drop(reason),
            Decision::Refuse => {
                let path = self.answer_path(now, Direction::Request, headers);
                let error = IcmpError::PortUnreachable;
                return forward::answer(&mut trial.packet, headers, error, &path, DropReason::NoServer);
            }
            Decision::Bypass => (bypass_connection(now, first), Persistence::None),
            Decision::Server { server, real, forward, template } => {
                let mut connection = new_connection(now, first, real, forward, Some(server));
                connection.one_packet = self.is_one_packet(first, forward);
                (connection, template)
            }
        };
        let templates = (&persistence, choice.invalid);
        match self.room_for(now, first, &connection, templates, (trial.packet.bytes(), headers)) {
            Ok(room) => {
                self.tell_room(now, trial, &room);
                connection.local = room.local;
            }
            Err(Refusal::Full(reason)) => return Verdict::Drop(reason),
            Err(Refusal::NoPort(reason)) => {
                let path = self.answer_path(now, Direction::Request, headers);
                let error = IcmpError::PortUnreachable;
                return forward::answer(&mut trial.packet, headers, error, &path, reason);
            }
        }
        trial.steps.push(opened(now, &connection));
        let helped = self.helper_for(first, connection.forward).map(Helped::by);
        let flow = Flow { id: None, connection: &connection, helped: helped.as_ref() };
        if first.is_quoted {
            return match icmp::related(trial.packet.bytes(), headers) {
                Ok(Some(related)) => self.try_related(now, trial, headers, flow, &related, Direction::Request),
                _ => Verdict::Pass,
            };
        }
        self.try_forward(now, trial, headers, flow, Direction::Request)
    }

    fn try_server_first(
        &self,
        now: Instant,
        trial: &mut Trial<'_>,
        headers: &Headers,
        opened: &ServerFirst,
    ) -> Verdict {
        let service = self.services.table.get(opened.first.service).expect("look found it");
        trial.steps.push(Step::Service(service.key));
        let connection = self.server_first_connection(now, opened);
        let packet = (trial.packet.bytes(), headers);
        match self.room_for(now, &opened.first, &connection, (&opened.template, opened.invalid), packet) {
            Ok(room) => self.tell_room(now, trial, &room),
            Err(Refusal::Full(reason) | Refusal::NoPort(reason)) => return Verdict::Drop(reason),
        }
        trial.steps.push(self::opened(now, &connection));
        let flow = Flow { id: None, connection: &connection, helped: None };
        self.try_forward(now, trial, headers, flow, Direction::Reply)
    }

    /// Tells who gives way, unless it is the one that is given up anyway.
    fn tell_room(&self, now: Instant, trial: &mut Trial<'_>, room: &Room) {
        for connection in room.connections().filter_map(|id| self.flows.connections.get(id)) {
            let view = connection_view(connection, now);
            if !trial.steps.contains(&Step::GivenUp(view.clone())) {
                trial.steps.push(Step::Evicted(view));
            }
        }
        let template = room.template.and_then(|id| self.flows.templates.get(id));
        trial.steps.extend(template.map(|template| Step::Evicted(self.template_view(template, now))));
    }

    fn tell_choice(&self, now: Instant, trial: &mut Trial<'_>, first: &FirstPacket, choice: &Choice) {
        let service = self.services.table.get(first.service).expect("look found it");
        let view = |id| self.flows.templates.get(id).map(|template| self.template_view(template, now));
        if let Some(template) = choice.invalid.and_then(view) {
            trial.steps.push(Step::TemplateInvalid(template));
        }
        if let Decision::Server { template: Persistence::Existing(id), .. } = &choice.decision {
            trial.steps.extend(view(*id).map(Step::Template));
        }
        if !choice.was_scheduled {
            return;
        }
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
        trial.steps.push(Step::Scheduled {
            scheduler: service.config.scheduler.clone(),
            candidates: candidates.collect(),
            chosen,
        });
    }
}

fn opened(now: Instant, connection: &Connection) -> Step {
    let view = connection_view(connection, now);
    if connection.one_packet { Step::OnePacket(view) } else { Step::NewConnection(view) }
}

fn arrival(packet: &PacketBuf<'_>, headers: &Headers) -> Step {
    let (source, destination) = ports(headers, packet.bytes()).unwrap_or((0, 0));
    Step::Packet {
        source: Endpoint::new(headers.source, source),
        destination: Endpoint::new(headers.destination, destination),
        protocol: headers.protocol,
        len: headers.packet_len,
    }
}

/// The ports of protocols that have them, also behind the header by which UOA says whose a datagram is.
fn ports(headers: &Headers, bytes: &[u8]) -> Option<(u16, u16)> {
    if headers.protocol != UOA_PROTOCOL {
        return headers.ports(bytes).filter(|_| Protocol::from_number(headers.protocol).is_some());
    }
    let transport = headers.transport + usize::from(read_u16(bytes, headers.transport + 2)?);
    Some((read_u16(bytes, transport)?, read_u16(bytes, transport + 2)?))
}

/// What the sender is told.
fn answer(bytes: &[u8]) -> Option<Step> {
    let headers = parse::parse(bytes).ok()?;
    if headers.protocol == Protocol::Tcp.number() {
        return Some(Step::AnsweredByReset);
    }
    let &[icmp_type, code] = headers.transport_header(bytes)?;
    Some(Step::AnsweredByIcmp { icmp_type, code })
}

/// Adds a step for every header field that differs.
fn tell_changes(steps: &mut Vec<Step>, before: &[u8], after: &[u8], verdict: Verdict) {
    if !matches!(verdict, Verdict::Forward { .. } | Verdict::Local) {
        return;
    }
    let (Ok(old), Ok(new)) = (parse::parse(before), parse::parse(after)) else { return };
    let mut tell = |field, before: String, after: String| {
        if before != after {
            steps.push(Step::Changed { field, before, after });
        }
    };
    let shown = |headers: &Headers, bytes: &[u8], is_source: bool| {
        let address = if is_source { headers.source } else { headers.destination };
        match ports(headers, bytes) {
            Some((source, destination)) => {
                Endpoint::new(address, if is_source { source } else { destination }).to_string()
            }
            None => address.to_string(),
        }
    };
    tell("source", shown(&old, before, true), shown(&new, after, true));
    tell("destination", shown(&old, before, false), shown(&new, after, false));
    let hop_limit = if old.family == AddressFamily::Ipv4 { "TTL" } else { "hop limit" };
    tell(hop_limit, old.hop_limit.to_string(), new.hop_limit.to_string());
    tell("protocol", old.protocol.to_string(), new.protocol.to_string());
    tell("length", format!("{} bytes", old.packet_len), format!("{} bytes", new.packet_len));
}
