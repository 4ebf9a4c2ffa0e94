//! Packets of connections the director remembers: count them, move the state, restart the timer, send them on.
//! Requests are counted before anything can refuse them, replies only once they are on their way (spec datapath §1.8).

use core::net::IpAddr;

use super::Director;
use super::accounting::Count;
use super::look::FlowEnd;
use crate::connection::sctp::{ChunkEvent, SctpState};
use crate::connection::tcp::{Segment, TcpState};
use crate::connection::{Connection, ConnectionId, Role, State};
use crate::drop_reason::DropReason;
use crate::flow::Endpoint;
use crate::forward::{self, Path};
use crate::packet::PacketBuf;
use crate::service::ForwardMethod;
use crate::time::Instant;
use crate::verdict::{Direction, Verdict};
use crate::wire::icmp::IcmpError;
use crate::wire::parse::Headers;
use crate::wire::rewrite::decrement_hop_limit;

impl Director {
    /// A packet from the client of a connection.
    pub(super) fn known_request(
        &mut self,
        now: Instant,
        id: ConnectionId,
        packet: &mut PacketBuf<'_>,
        headers: &Headers,
    ) -> (Verdict, Option<FlowEnd>) {
        let connection = self.connections.get(id).expect("it was just found");
        let (server, has_helper) = (connection.server, connection.has_helper);
        let end = self.flow_end(connection, Direction::Request, headers);
        if connection.no_client_port {
            self.learn_client_port(id, packet.bytes(), headers);
        }
        self.count_in(server, 1, datagram_len(headers));
        self.move_state(id, packet.bytes(), headers, Direction::Request);
        let verdict = if has_helper {
            self.send_helped(now, id, packet, headers, &end)
        } else {
            self.send(packet, headers, &end)
        };
        let connection = self.connections.get_mut(id).expect("nothing removed it");
        connection.in_packets += 1;
        let timeout = connection.timeout;
        self.connections.rearm(id, now, timeout);
        (verdict, Some(end))
    }

    /// A packet from the real server of a connection.
    pub(super) fn known_reply(
        &mut self,
        now: Instant,
        id: ConnectionId,
        packet: &mut PacketBuf<'_>,
        headers: &Headers,
    ) -> (Verdict, Option<FlowEnd>) {
        let connection = self.connections.get(id).expect("it was just found");
        let (server, has_helper) = (connection.server, connection.has_helper);
        let end = self.flow_end(connection, Direction::Reply, headers);
        let verdict = if has_helper {
            self.send_helped(now, id, packet, headers, &end)
        } else {
            self.send(packet, headers, &end)
        };
        if matches!(verdict, Verdict::Forward { .. }) {
            let counted_len = if has_helper { resized_len(headers, packet) } else { datagram_len(headers) };
            self.count_out(server, 1, counted_len);
            self.move_state(id, packet.bytes(), headers, Direction::Reply);
            let timeout = self.connections.get(id).expect("nothing removed it").timeout;
            self.connections.rearm(id, now, timeout);
        }
        (verdict, Some(end))
    }

    /// The first packet of an FTP data connection tells whence the client comes, even if it gets no further.
    fn learn_client_port(&mut self, id: ConnectionId, bytes: &[u8], headers: &Headers) {
        if let Some((port, _)) = headers.ports(bytes) {
            self.connections.set_client_port(id, port);
        }
    }

    /// Rewrites the packet for its way out.
    pub(super) fn send(&mut self, packet: &mut PacketBuf<'_>, headers: &Headers, end: &FlowEnd) -> Verdict {
        let verdict = match end.direction {
            Direction::Request => forward::request(packet, headers, &end.path),
            Direction::Reply => forward::reply(packet, headers, &end.path),
        };
        if matches!(verdict, Verdict::Reply { .. }) {
            self.answers += 1;
            // Our own answer passes for a packet from the server where replies bypass us: it comes from the VIP.
            if end.direction == Direction::Request && end.path.method != ForwardMethod::Nat {
                self.count_out(end.server, 1, packet.len() as u64);
            }
        }
        verdict
    }

    /// Where packets of this connection go in this direction.
    pub(super) fn flow_end(&self, connection: &Connection, direction: Direction, headers: &Headers) -> FlowEnd {
        let record = connection.server.and_then(|id| self.servers.get(id));
        let mtu = match direction {
            Direction::Request => record.and_then(|record| record.config.mtu).unwrap_or(self.config.server_side.mtu),
            Direction::Reply => self.config.client_side.mtu,
        };
        let path = Path {
            method: connection.forward,
            is_local: connection.forward == ForwardMethod::Local || self.is_own_address(connection.real.address),
            client: connection.client,
            virtual_endpoint: connection.virtual_endpoint,
            real: connection.real,
            tunnel: record.map(|record| record.config.tunnel).unwrap_or_default(),
            mtu,
            error_source: self.error_source(direction, headers),
            identification: self.identification(),
        };
        FlowEnd { path, direction, server: connection.server }
    }

    /// Who an ICMP error about this packet comes from: the virtual address it was sent to, else the director's own
    /// address on the side it came from.
    pub(super) fn error_source(&self, direction: Direction, headers: &Headers) -> Option<IpAddr> {
        match direction {
            Direction::Request => Some(headers.destination),
            Direction::Reply if self.services.is_virtual(headers.destination) => Some(headers.destination),
            Direction::Reply => self.config.server_side.address(headers.family),
        }
    }

    /// Identification of the next packet the director makes itself.
    pub(super) fn identification(&self) -> u16 {
        (self.seed.derive(self.answers).value() >> 48) as u16
    }

    /// The state after this packet; `None` if its transport header cannot be read or says nothing (AH, ESP).
    pub(super) fn next_state(
        &self,
        connection: &Connection,
        bytes: &[u8],
        headers: &Headers,
        direction: Direction,
    ) -> Option<State> {
        if headers.protocol != connection.protocol.number() {
            return None;
        }
        let role = match direction {
            Direction::Reply => Role::Output,
            Direction::Request => connection.request_role(),
        };
        match connection.state {
            State::Tcp(state) => {
                let segment = Segment::from_flags(headers.tcp_flags(bytes)?.0);
                Some(State::Tcp(state.next(segment, role, self.is_secure_tcp())))
            }
            State::Sctp(state) => {
                let chunks = headers.sctp_chunks(bytes)?;
                let event = ChunkEvent::from_chunks(chunks.first, chunks.second);
                Some(State::Sctp(state.next(event, role)))
            }
            State::Udp => Some(State::Udp),
        }
    }

    /// Moves a connection to its next state: timeout, activity of its server, its template's assurance.
    pub(super) fn move_state(&mut self, id: ConnectionId, bytes: &[u8], headers: &Headers, direction: Direction) {
        let connection = self.connections.get(id).expect("the caller found it");
        let Some(next) = self.next_state(connection, bytes, headers, direction) else { return };
        let timeout = self.timeouts.of(next);
        let connection = self.connections.get_mut(id).expect("the caller found it");
        let before = connection.state;
        let (server, template) = (connection.server, connection.template);
        let (was_active, is_active) = (connection.is_active, next.is_active());
        connection.state = next;
        connection.timeout = timeout;
        connection.is_active = is_active;
        if direction == Direction::Reply {
            connection.no_output = false;
        }
        if let (Some(server), true) = (server, was_active != is_active) {
            if is_active {
                self.count_up(server, Count::Active);
            } else {
                self.count_down(server, Count::Active);
            }
        }
        let assures = match next {
            State::Udp => direction == Direction::Reply,
            _ => {
                next != before
                    && matches!(next, State::Tcp(TcpState::Established) | State::Sctp(SctpState::Established))
            }
        };
        if let (Some(template), true) = (template, assures) {
            if let Some(template) = self.templates.get_mut(template) {
                template.assured = true;
            }
        }
    }

    /// A packet from a NAT server that belongs to no connection: port unreachable (`nat_icmp_send`).
    pub(super) fn refuse_unknown_reply(&mut self, packet: &mut PacketBuf<'_>, headers: &Headers) -> Verdict {
        let verdict = self.refuse_reply_on(packet, headers);
        if matches!(verdict, Verdict::Reply { .. }) {
            self.answers += 1;
        }
        verdict
    }

    /// The same on a packet that may be a copy.
    pub(super) fn refuse_reply_on(&self, packet: &mut PacketBuf<'_>, headers: &Headers) -> Verdict {
        let path = self.answer_path(Direction::Reply, headers);
        // On its way through, the packet has already been routed: its hop limit counts down before it is quoted.
        if !self.services.is_virtual(headers.destination) {
            if headers.hop_limit <= 1 {
                return Verdict::Pass;
            }
            if !forward::may_answer(packet, headers, &path) {
                return Verdict::Drop(DropReason::NoServer);
            }
            decrement_hop_limit(packet.bytes_mut(), headers.family);
        }
        forward::answer(packet, headers, IcmpError::PortUnreachable, &path, DropReason::NoServer)
    }

    /// Answers a packet with an ICMP error, or refuses it.
    pub(super) fn answer(
        &mut self,
        packet: &mut PacketBuf<'_>,
        headers: &Headers,
        error: IcmpError,
        path: &Path,
        otherwise: DropReason,
    ) -> Verdict {
        let verdict = forward::answer(packet, headers, error, path, otherwise);
        if matches!(verdict, Verdict::Reply { .. }) {
            self.answers += 1;
        }
        verdict
    }

    /// A path that leads nowhere: only good for answers.
    pub(super) fn answer_path(&self, direction: Direction, headers: &Headers) -> Path {
        Path {
            method: ForwardMethod::Local,
            is_local: false,
            client: Endpoint::new(headers.source, 0),
            virtual_endpoint: Endpoint::new(headers.destination, 0),
            real: Endpoint::new(headers.destination, 0),
            tunnel: Default::default(),
            mtu: u16::MAX,
            error_source: self.error_source(direction, headers),
            identification: self.identification(),
        }
    }

    pub(super) fn is_secure_tcp(&self) -> bool {
        self.config.settings.secure_tcp >= 2
    }
}

/// The length that is counted: of the whole packet, less an IPv6 fragment header, as if it had been reassembled.
pub(super) fn datagram_len(headers: &Headers) -> u64 {
    let fragment_header = match headers.fragment {
        Some(fragment) if fragment.header != 0 => 8,
        _ => 0,
    };
    (headers.packet_len - fragment_header) as u64
}

/// The same for a packet that a helper may have made longer or shorter than its `headers` say.
fn resized_len(headers: &Headers, packet: &PacketBuf<'_>) -> u64 {
    datagram_len(headers) + packet.len() as u64 - headers.packet_len as u64
}
