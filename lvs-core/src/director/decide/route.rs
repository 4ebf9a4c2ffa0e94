//! Where packets of a connection go, and the state they lead to: the path for `forward/`, with MTU, tunnel and what may be
//! answered.

use crate::connection::sctp::ChunkEvent;
use crate::connection::tcp::Segment;
use crate::connection::{Connection, Role, State};
use crate::defence::is_on;
use crate::director::config::DirectorConfig;
use crate::director::decide::classify::Route;
use crate::director::tables::Tables;
use crate::drop_reason::DropReason;
use crate::flow::{AddressFamily, Endpoint};
use crate::forward::full_nat::FullNatPath;
use crate::forward::tunnel::{self, TunnelPath};
use crate::forward::{self, Path};
use crate::packet::PacketBuf;
use crate::rng::Seed;
use crate::service::server_table::ServerRecord;
use crate::service::{ForwardMethod, TunnelKind};
use crate::time::Instant;
use crate::verdict::{Direction, Verdict};
use crate::wire::icmp::IcmpError;
use crate::wire::parse::Headers;
use crate::wire::rewrite::{Care, decrement_hop_limit};
use core::net::IpAddr;

impl Tables<'_> {
    /// Where packets of this connection go in this direction.
    #[inline(always)]
    pub(in crate::director) fn route_of(
        &self,
        now: Instant,
        connection: &Connection,
        direction: Direction,
        headers: &Headers,
    ) -> Route {
        let record = connection.server.and_then(|id| self.services.servers.get(id));
        let mtu = match direction {
            Direction::Request => self.request_mtu(now, connection, record),
            Direction::Reply => self.site.config.client_side.mtu,
        };
        let tunnel = match connection.forward {
            ForwardMethod::Tunnel => {
                let source_port = || gue_source_port(self.site.seed, connection);
                record.map_or_else(Default::default, |record| {
                    tunnel_path(&self.site.config, source_port, connection.real.address, record)
                })
            }
            _ => TunnelPath::default(),
        };
        let path = Path {
            method: connection.forward,
            is_local: self.is_local(connection),
            client_is_host: connection.client_is_host,
            client: connection.client,
            virtual_endpoint: connection.virtual_endpoint,
            real: connection.real,
            tunnel,
            full_nat: FullNatPath { local: connection.local, translation: None },
            mtu,
            mss_clamp: self.mss_clamp(record),
            care: if self.site.config.settings.drop_damaged_sctp { Care::ChecksSctp } else { Care::AsLinux },
            error_source: self.error_source(direction, headers),
            refused: self.refused_answers(now, headers.source),
            identification: self.identification(),
        };
        Route { path, direction, server: connection.server }
    }

    /// Whether the connection's server is the director's own host. With FullNAT it is a host like any other.
    pub(in crate::director) fn is_local(&self, connection: &Connection) -> bool {
        match connection.forward {
            ForwardMethod::Local => true,
            ForwardMethod::FullNat => false,
            _ => self.is_own_address(connection.real.address),
        }
    }

    /// Highest MSS the connection's service lets SYNs announce.
    fn mss_clamp(&self, record: Option<&ServerRecord>) -> Option<u16> {
        self.services.list_of_record(record?)?.config.mss_clamp
    }

    /// Longest packet the way to the connection's server takes: its own MTU or the side's, and for tunnels, whose
    /// errors come to us, what routers on the way have told.
    fn request_mtu(&self, now: Instant, connection: &Connection, record: Option<&ServerRecord>) -> u16 {
        let mtu = record.and_then(|record| record.config.mtu).unwrap_or(self.site.config.server_side.mtu);
        match connection.forward {
            ForwardMethod::Tunnel => {
                self.services.servers.path_mtu(now, connection.real.address).map_or(mtu, |path_mtu| path_mtu.min(mtu))
            }
            _ => mtu,
        }
    }

    /// Who an ICMP error about this packet comes from: the virtual address it was sent to, else the director's own
    /// address on the side it came from.
    pub(in crate::director) fn error_source(&self, direction: Direction, headers: &Headers) -> Option<IpAddr> {
        match direction {
            Direction::Request => Some(headers.destination),
            Direction::Reply if self.is_service_address(headers.destination) => Some(headers.destination),
            Direction::Reply => self.site.config.server_side.address(headers.family),
        }
    }

    /// Whether packets to this address come to the director for its own sake: a virtual or a local address.
    pub(in crate::director) fn is_service_address(&self, address: IpAddr) -> bool {
        self.services.table.is_virtual(address) || self.flows.full_nat.pool.has(address)
    }

    /// Identification of the next packet the director makes itself. No two of 65,536 in a row have one lower half.
    pub(in crate::director) fn identification(&self) -> u32 {
        identification(self.outlet.answers, self.site.identification_secret)
    }

    /// The state after this packet; `None` if its transport header cannot be read or says nothing (AH, ESP).
    pub(in crate::director) fn next_state(
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

    /// The same on a packet that may be a copy.
    pub(in crate::director) fn refuse_reply_on(
        &self,
        now: Instant,
        packet: &mut PacketBuf<'_>,
        headers: &Headers,
    ) -> Verdict {
        let (path, error) = (self.answer_path(now, Direction::Reply, headers), IcmpError::PortUnreachable);
        // On its way through, the packet has already been routed: its hop limit counts down before it is quoted.
        if !self.services.table.is_virtual(headers.destination) {
            if headers.hop_limit <= 1 {
                return Verdict::Pass;
            }
            if !forward::may_answer(packet, headers, &path) {
                return Verdict::Drop(DropReason::NoServer);
            }
            if forward::can_answer(packet, headers, error, &path) {
                decrement_hop_limit(packet.bytes_mut(), headers.family);
            }
        }
        forward::answer(packet, headers, error, &path, DropReason::NoServer)
    }

    /// A path that leads nowhere: only good for answers.
    pub(in crate::director) fn answer_path(&self, now: Instant, direction: Direction, headers: &Headers) -> Path {
        Path {
            method: ForwardMethod::Local,
            is_local: false,
            client_is_host: false,
            client: Endpoint::new(headers.source, 0),
            virtual_endpoint: Endpoint::new(headers.destination, 0),
            real: Endpoint::new(headers.destination, 0),
            tunnel: Default::default(),
            full_nat: FullNatPath::default(),
            mtu: u16::MAX,
            mss_clamp: None,
            care: Care::AsLinux,
            error_source: self.error_source(direction, headers),
            refused: self.refused_answers(now, headers.source),
            identification: self.identification(),
        }
    }

    pub(in crate::director) fn is_secure_tcp(&self) -> bool {
        is_on(self.site.config.settings.secure_tcp)
    }
}

/// What seeds are derived for: identifications, and GUE's source ports. Far from the schedulers' numbers.
pub(in crate::director) const IDENTIFICATION: u64 = u64::MAX;

const SOURCE_PORTS: u64 = u64::MAX - 1;

/// Identification of the packet that the director makes after so many others.
#[inline]
pub(in crate::director) fn identification(answers: u64, secret: u64) -> u32 {
    (answers as u32).wrapping_mul(secret as u32 | 1).wrapping_add((secret >> 32) as u32)
}

/// UDP source port of a connection's GUE packets.
pub(in crate::director) fn gue_source_port(seed: Seed, connection: &Connection) -> u16 {
    let flow = (connection.protocol, connection.client, connection.virtual_endpoint);
    tunnel::source_port(seed.derive(SOURCE_PORTS), flow)
}

/// The tunnel of a connection, as its server has it now: a server edited from GRE to IPIP changes it for connections
/// it already has (`tun_mixed_types`). Only GUE asks for a source port.
#[inline(always)]
pub(in crate::director) fn tunnel_path(
    config: &DirectorConfig,
    source_port: impl FnOnce() -> u16,
    real_address: IpAddr,
    record: &ServerRecord,
) -> TunnelPath {
    let source_port = match record.config.tunnel.kind {
        TunnelKind::Gue => source_port(),
        TunnelKind::Ipip | TunnelKind::Gre => 0,
    };
    TunnelPath {
        config: record.config.tunnel,
        source: config.server_side.address(AddressFamily::of(real_address)),
        source_port,
        proof: if config.settings.tunnel_mtu_proof { record.proof } else { 0 },
        lets_least_in: config.settings.tunnel_least_mtu,
        discovers_mtu: config.settings.pmtu_disc,
    }
}

/// The length that is counted: of the whole packet, less an IPv6 fragment header, as if it had been reassembled.
pub(in crate::director) fn datagram_len(headers: &Headers) -> u64 {
    let fragment_header = match headers.fragment {
        Some(fragment) if fragment.header != 0 => 8,
        _ => 0,
    };
    (headers.packet_len - fragment_header) as u64
}
