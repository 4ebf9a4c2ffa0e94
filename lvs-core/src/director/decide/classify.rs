//! Looking a packet up, without changing anything: which flow it belongs to, and whether it may open one.
//! The order of questions is Linux's. `handle_packet` and `explain` both start here.

use crate::connection::sctp::SctpState;
use crate::connection::tcp::TcpState;
use crate::connection::{Connection, ConnectionId, State};
use crate::director::decide::martian::is_no_source;
use crate::director::decide::server_initiated::ServerInitiated;
use crate::director::decide::tunnel_error::TunnelError;
use crate::director::tables::Tables;
use crate::drop_reason::DropReason;
use crate::explanation::PassReason;
use crate::flow::{AddressFamily, Endpoint, Protocol};
use crate::forward::Path;
use crate::packet::PacketBuf;
use crate::service::ServerId;
use crate::service::table::ServiceIndex;
use crate::time::Instant;
use crate::verdict::Direction;
use crate::wire::damage;
use crate::wire::icmp::{self, Related};
use crate::wire::parse::Headers;
use crate::wire::sctp;
use alloc::boxed::Box;
use core::net::IpAddr;

/// Port of IKE: AH and ESP packets follow the UDP connection between the same addresses.
const ISAKMP_PORT: u16 = 500;

/// What a packet is to the director.
pub(in crate::director) struct Classified {
    pub outcome: Outcome,
    /// A connection that this packet ends: it is opened anew, or its server is gone (`expire_nodest_conn`).
    pub given_up: Option<ConnectionId>,
    /// Whether the packet opens a connection again that was known.
    pub is_rescheduled: bool,
}

pub(in crate::director) enum Outcome {
    Pass(PassReason),
    Drop(DropReason),
    Request(ConnectionId),
    Reply(ConnectionId),
    RelatedRequest(ConnectionId, Related),
    RelatedReply(ConnectionId, Related),
    /// An ICMP error about a tunnel packet of ours.
    TunnelError(ConnectionId, TunnelError),
    /// An ICMP error that tells the path MTU of a tunnel and nothing else.
    PathMtu {
        address: IpAddr,
        mtu: u32,
    },
    /// One that would, and may come from anybody.
    UnprovenPathMtu {
        /// Whose proof was guessed wrong.
        guessed: Option<IpAddr>,
    },
    /// Its TCP connection is closed: RST to both sides.
    Close(ConnectionId, Direction),
    /// Its server is gone and the client is told by ICMP.
    Unreachable(ConnectionId),
    /// From a NAT server, without a connection, and `nat_icmp_send` is on.
    UnknownReply,
    /// May open a connection.
    First(FirstPacket),
    /// From a server, and opens a connection.
    ServerInitiated(Box<ServerInitiated>),
}

/// A packet that a service takes.
#[derive(Clone, Copy, Debug)]
pub(in crate::director) struct FirstPacket {
    pub service: ServiceIndex,
    pub protocol: Protocol,
    pub client: Endpoint,
    /// The packet's destination; becomes the connection's virtual endpoint.
    pub destination: Endpoint,
    pub mark: u32,
    /// The flow was read from an ICMP error (`schedule_icmp`).
    pub is_quoted: bool,
}

/// Where later fragments of a datagram go: with the first one.
#[derive(Clone, Copy, Debug)]
pub(in crate::director) struct Route {
    pub path: Path,
    pub direction: Direction,
    pub server: Option<ServerId>,
}

/// What a known connection's packet may do.
pub(in crate::director) enum Fate {
    Continue,
    /// The connection ends; the packet may open a new one.
    Ended,
    /// The connection ends; the packet opens a new one, though it is no SYN.
    Elsewhere,
    /// The connection is closed by RSTs.
    Close,
    /// The client is told by ICMP that nobody serves the connection.
    Unreachable,
    Drop(DropReason),
}

/// Whether a packet may open a connection, by its protocol.
enum Opening {
    Yes,
    No(PassReason),
    Truncated,
}

impl Classified {
    fn of(outcome: Outcome) -> Self {
        Self { outcome, given_up: None, is_rescheduled: false }
    }
}

impl Tables<'_> {
    /// Looks up a packet that carries its transport header (no later fragment).
    pub(in crate::director) fn classify(&self, now: Instant, packet: &PacketBuf<'_>, headers: &Headers) -> Classified {
        let is_icmp = headers.protocol == icmp_number(headers.family);
        // An IPv6 service's tunnels may be IPv4 ones.
        let may_concern_tunnels = is_icmp && self.services.servers.has_tunnels();
        if !self.serves(headers.family) && !may_concern_tunnels {
            return Classified::of(Outcome::Pass(PassReason::NoServiceOfFamily));
        }
        if is_icmp {
            return Classified::of(self.classify_icmp(now, packet, headers));
        }
        let Some((protocol, source, destination)) = flow_of(packet.bytes(), headers) else {
            let outcome = match Protocol::from_number(headers.protocol) {
                None => Outcome::Pass(PassReason::UnknownProtocol),
                Some(_) if self.services.table.is_virtual(headers.destination) => {
                    Outcome::Drop(DropReason::TruncatedTransport)
                }
                Some(_) => Outcome::Pass(PassReason::NoPorts),
            };
            return Classified::of(outcome);
        };
        // Linux routes no IPv4 packet that chose its own route, whoever it is for (`accept_source_route`,
        // `nat_ipopts`). An IPv6 routing header is for the server to judge.
        let is_replying = || self.find_reply(now, protocol, source, destination).is_some();
        let is_ours = || self.services.table.is_virtual(headers.destination) || is_replying();
        if headers.source_route && headers.family == AddressFamily::Ipv4 && is_ours() {
            return Classified::of(Outcome::Drop(DropReason::SourceRouted));
        }
        if self.refuses_unknown_reply(protocol, source, packet.bytes(), headers) {
            return Classified::of(match self.find_reply(now, protocol, source, destination) {
                Some(id) => self.classify_reply(now, id, packet, headers),
                None => match self.classify_server_initiated(now, source, destination, packet.bytes(), headers) {
                    Some(opened) => Outcome::ServerInitiated(Box::new(opened)),
                    None => Outcome::UnknownReply,
                },
            });
        }
        if let Some(id) = self.flows.connections.find_request(now, protocol, source, destination) {
            // Linux looks for a reply first. Only few requests can be one, and those are marked.
            let is_marked = self.flows.connections.get(id).is_some_and(|connection| connection.both_ways);
            return match is_marked.then(|| self.find_reply(now, protocol, source, destination)).flatten() {
                Some(id) => Classified::of(self.classify_reply(now, id, packet, headers)),
                None => self.classify_known(now, id, packet, headers),
            };
        }
        if let Some(id) = self.find_reply(now, protocol, source, destination) {
            return Classified::of(self.classify_reply(now, id, packet, headers));
        }
        if let Some(opened) = self.classify_server_initiated(now, source, destination, packet.bytes(), headers) {
            return Classified::of(Outcome::ServerInitiated(Box::new(opened)));
        }
        Classified::of(self.classify_first(packet, headers, false))
    }

    /// Whether packets of this family may be ours: a service's, or, behind an IPv6 service with IPv4 servers, replies.
    pub(in crate::director) fn serves(&self, family: AddressFamily) -> bool {
        self.services.table.serves(family) || self.flows.full_nat.pool.has_leases()
    }

    fn classify_known(&self, now: Instant, id: ConnectionId, packet: &PacketBuf<'_>, headers: &Headers) -> Classified {
        let connection = self.flows.connections.get(id).expect("it was just found");
        let fate = self.fate(now, connection, packet.bytes(), headers);
        let is_deciding = matches!(fate, Fate::Ended | Fate::Elsewhere) || connection.is_unproven();
        if is_deciding && self.refuses_damaged(packet, headers) {
            return Classified::of(Outcome::Drop(DropReason::BadTransportChecksum));
        }
        let any_segment = match fate {
            Fate::Continue if self.refuses_client_port(now, connection, packet.bytes(), headers) => {
                return Classified::of(Outcome::Drop(DropReason::ClientEndpointFull));
            }
            Fate::Continue => return Classified::of(Outcome::Request(id)),
            Fate::Drop(reason) => return Classified::of(Outcome::Drop(reason)),
            Fate::Close => return Classified::of(Outcome::Close(id, Direction::Request)),
            Fate::Unreachable => return Classified::of(Outcome::Unreachable(id)),
            Fate::Ended => false,
            Fate::Elsewhere => true,
        };
        let given_up = (connection.children == 0).then_some(id);
        Classified { outcome: self.classify_first(packet, headers, any_segment), given_up, is_rescheduled: true }
    }

    /// Whether an expected connection would get a client endpoint with this packet that has too many already.
    fn refuses_client_port(&self, now: Instant, connection: &Connection, bytes: &[u8], headers: &Headers) -> bool {
        let port = headers.ports(bytes).filter(|_| connection.no_client_port).map(|(port, _)| port);
        let client = port.map(|port| Endpoint::new(connection.client.address, port));
        client.is_some_and(|client| self.flows.connections.is_full_for(now, connection.protocol, client))
    }

    fn classify_reply(&self, now: Instant, id: ConnectionId, packet: &PacketBuf<'_>, headers: &Headers) -> Outcome {
        let connection = self.flows.connections.get(id).expect("it was just found");
        match self.fate_of_reply(now, connection, headers.tcp_flags(packet.bytes())) {
            Fate::Drop(reason) => Outcome::Drop(reason),
            Fate::Close => Outcome::Close(id, Direction::Reply),
            _ => Outcome::Reply(id),
        }
    }

    /// May the packet go on with its connection, or does it open another one, or is its server gone?
    fn fate(&self, now: Instant, connection: &Connection, bytes: &[u8], headers: &Headers) -> Fate {
        let settings = &self.site.config.settings;
        let is_opening = opens_connection(bytes, headers, connection.protocol);
        if is_opening {
            let is_quiesced =
                || connection.server.is_some_and(|id| self.services.counts(id).map_or(0, |counts| counts.weight) == 0);
            if settings.expire_nodest_conn && is_quiesced() {
                return Fate::Ended;
            }
            if settings.conn_reuse_mode != 0 && is_reuse_expected(connection, settings.conn_reuse_mode) {
                return Fate::Ended;
            }
            if self.reuse_reschedules(connection) {
                return Fate::Ended;
            }
        }
        self.fate_by_server(now, connection, headers.tcp_flags(bytes), is_opening)
    }

    /// What a service may add to `conn_reuse_mode`: persistent connections, and those whose server was deleted.
    fn reuse_reschedules(&self, connection: &Connection) -> bool {
        let Some(record) = connection.server.and_then(|id| self.services.servers.get(id)) else { return false };
        let service = self.services.find(&record.service);
        service.is_some_and(|service| service.config.reuse_reschedules)
            && (is_finished(connection, self.site.config.settings.conn_reuse_mode) || !record.is_listed())
    }

    /// A packet without a connection: may it open one, and which service takes it?
    /// With `any_segment`, a TCP segment need not be a SYN.
    fn classify_first(&self, packet: &PacketBuf<'_>, headers: &Headers, any_segment: bool) -> Outcome {
        let bytes = packet.bytes();
        let Some(protocol) = Protocol::from_number(headers.protocol) else {
            return Outcome::Pass(PassReason::UnknownProtocol);
        };
        let Some((source_port, destination_port)) = headers.ports(bytes) else {
            return Outcome::Drop(DropReason::TruncatedTransport);
        };
        let is_local = self.services.table.is_virtual(headers.destination) || packet.mark != 0;
        match self.may_open(protocol, bytes, headers, any_segment) {
            Opening::Yes => {}
            Opening::No(reason) => return Outcome::Pass(reason),
            Opening::Truncated if is_local => return Outcome::Drop(DropReason::TruncatedTransport),
            Opening::Truncated => return Outcome::Pass(PassReason::NoService),
        }
        let client = Endpoint::new(headers.source, source_port);
        let destination = Endpoint::new(headers.destination, destination_port);
        match self.classify_service(protocol, client, destination, packet, false) {
            Outcome::First(_) if self.refuses_damaged(packet, headers) => {
                Outcome::Drop(DropReason::BadTransportChecksum)
            }
            outcome => outcome,
        }
    }

    /// Whether a packet that opens a connection or brings one about is refused for its checksum.
    fn refuses_damaged(&self, packet: &PacketBuf<'_>, headers: &Headers) -> bool {
        self.site.config.settings.drop_damaged_openings && damage::is_damaged(packet, headers)
    }

    /// The service for a flow that may open a connection.
    fn classify_service(
        &self,
        protocol: Protocol,
        client: Endpoint,
        destination: Endpoint,
        packet: &PacketBuf<'_>,
        is_quoted: bool,
    ) -> Outcome {
        let mark = packet.mark;
        match self.services.table.lookup(mark, protocol, destination) {
            None => Outcome::Pass(PassReason::NoService),
            Some(service) => {
                let first = FirstPacket { service, protocol, client, destination, mark, is_quoted };
                self.unless_martian(first, packet)
            }
        }
    }

    /// The protocol's own rule for opening a connection.
    fn may_open(&self, protocol: Protocol, bytes: &[u8], headers: &Headers, any_segment: bool) -> Opening {
        let settings = &self.site.config.settings;
        match protocol {
            Protocol::Tcp => match headers.tcp_flags(bytes) {
                None => Opening::Truncated,
                Some(flags) if flags.rst() => Opening::No(PassReason::NotATcpOpening),
                Some(flags) if flags.syn() || settings.sloppy_tcp || any_segment => Opening::Yes,
                Some(_) => Opening::No(PassReason::NotATcpOpening),
            },
            Protocol::Udp if headers.payload(bytes).len() < 8 => Opening::Truncated,
            Protocol::Udp => Opening::Yes,
            Protocol::Sctp => match headers.sctp_chunks(bytes) {
                None => Opening::Truncated,
                Some(chunks) if chunks.first == sctp::ABORT => Opening::No(PassReason::NotAnSctpOpening),
                Some(chunks) if chunks.first == sctp::INIT || settings.sloppy_sctp => Opening::Yes,
                Some(_) => Opening::No(PassReason::NotAnSctpOpening),
            },
        }
    }

    /// ICMP: an error about a flow of ours in either direction, or nothing. One that nobody can have sent is no error.
    fn classify_icmp(&self, now: Instant, packet: &PacketBuf<'_>, headers: &Headers) -> Outcome {
        match self.classify_icmp_error(now, packet, headers) {
            Outcome::Pass(reason) => Outcome::Pass(reason),
            _ if is_no_source(headers.source) => Outcome::Drop(DropReason::MartianSource),
            outcome => outcome,
        }
    }

    fn classify_icmp_error(&self, now: Instant, packet: &PacketBuf<'_>, headers: &Headers) -> Outcome {
        let unrelated = Outcome::Pass(PassReason::UnrelatedIcmp);
        let related = match icmp::related(packet.bytes(), headers) {
            Ok(Some(related)) => related,
            Ok(None) => return unrelated,
            Err(reason) if self.services.table.is_virtual(headers.destination) => return Outcome::Drop(reason),
            Err(_) => return unrelated,
        };
        if let Some(outcome) = self.classify_tunnel_error(now, packet, headers, &related) {
            return outcome;
        }
        let may_open =
            self.site.config.settings.schedule_icmp && Protocol::from_number(related.quoted.protocol).is_some();
        let Some((protocol, source, destination)) = flow_of(packet.bytes(), &related.quoted) else {
            return if may_open { Outcome::Drop(DropReason::TruncatedIcmp) } else { unrelated };
        };
        // What the real server quotes is the request as it saw it: client → real server.
        if let Some(id) = self.find_reply(now, protocol, destination, source) {
            return Outcome::RelatedReply(id, related);
        }
        // What the client's side quotes is the reply as it saw it: virtual endpoint → client.
        if let Some(id) = self.flows.connections.find_request(now, protocol, destination, source) {
            return Outcome::RelatedRequest(id, related);
        }
        if may_open {
            return match self.classify_service(protocol, destination, source, packet, true) {
                Outcome::Pass(_) => unrelated,
                outcome => outcome,
            };
        }
        unrelated
    }

    fn refuses_unknown_reply(&self, protocol: Protocol, source: Endpoint, bytes: &[u8], headers: &Headers) -> bool {
        if !self.site.config.settings.nat_icmp_send || !self.services.servers.is_nat_server(protocol, source) {
            return false;
        }
        match protocol {
            Protocol::Tcp => headers.tcp_flags(bytes).is_none_or(|flags| !flags.rst()),
            Protocol::Udp => true,
            Protocol::Sctp => headers.sctp_chunks(bytes).is_none_or(|chunks| chunks.first != sctp::ABORT),
        }
    }
}

/// The flow a packet belongs to; AH and ESP belong to the IKE flow between the same addresses.
pub(in crate::director) fn flow_of(bytes: &[u8], headers: &Headers) -> Option<(Protocol, Endpoint, Endpoint)> {
    if matches!(headers.protocol, AH | ESP) {
        let source = Endpoint::new(headers.source, ISAKMP_PORT);
        let destination = Endpoint::new(headers.destination, ISAKMP_PORT);
        return Some((Protocol::Udp, source, destination));
    }
    let protocol = Protocol::from_number(headers.protocol)?;
    let (source, destination) = headers.ports(bytes)?;
    Some((protocol, Endpoint::new(headers.source, source), Endpoint::new(headers.destination, destination)))
}

/// Whether the packet looks like the first of a connection: SYN set, or INIT.
fn opens_connection(bytes: &[u8], headers: &Headers, protocol: Protocol) -> bool {
    match protocol {
        Protocol::Tcp => headers.tcp_flags(bytes).is_some_and(|flags| flags.syn()),
        Protocol::Udp => false,
        Protocol::Sctp => headers.sctp_chunks(bytes).is_some_and(|chunks| chunks.first == sctp::INIT),
    }
}

/// Whether a packet that opens a connection is expected to reuse this one's addresses and ports (`conn_reuse_mode`).
fn is_reuse_expected(connection: &Connection, mode: u8) -> bool {
    connection.template.is_none() && connection.parent.is_none() && is_finished(connection, mode)
}

/// Whether the connection is over, by its state.
fn is_finished(connection: &Connection, mode: u8) -> bool {
    match connection.state {
        State::Tcp(TcpState::TimeWait | TcpState::Close) => true,
        State::Tcp(TcpState::FinWait) => mode & 2 != 0 && connection.no_output,
        State::Sctp(SctpState::Closed) => true,
        _ => false,
    }
}

const fn icmp_number(family: AddressFamily) -> u8 {
    match family {
        AddressFamily::Ipv4 => icmp::ICMP,
        AddressFamily::Ipv6 => icmp::ICMPV6,
    }
}

const ESP: u8 = 50;

const AH: u8 = 51;
