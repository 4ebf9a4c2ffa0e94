//! ICMP errors about tunnel packets of ours: what a server or a router says of the outside is told to the client about
//! the inside, for IPv4 in IPv4 as in Linux. The path MTU is learned of every tunnel, from errors that quote what only
//! the path knows (`tunnel_mtu_proof`), or as in Linux.
//! Source: Linux IPVS, as recorded in `conformance/`; recording `tun_icmp`.

use crate::connection::Connection;
use crate::director::decide::classify::Outcome;
use crate::director::decide::classify::flow_of;
use crate::director::tables::Tables;
use crate::drop_reason::DropReason;
use crate::flow::{AddressFamily, Protocol};
use crate::packet::PacketBuf;
use crate::service::TunnelKind;
use crate::service::server_table::TunnelEnd;
use crate::time::Instant;
use crate::tunnel::{IPV4_IN_IP, IPV6_IN_IP, gre, gue};
use crate::verdict::Verdict;
use crate::wire::icmp::{self, IcmpError, Related};
use crate::wire::parse::{Headers, parse_quoted};
use crate::wire::{read_u16, udp};

/// An ICMP error about a packet of ours, stripped of the tunnel.
#[derive(Clone, Copy, Debug)]
pub(in crate::director) struct TunnelError {
    pub error_type: u8,
    pub code: u8,
    /// Bytes of the outer IP and tunnel headers.
    overhead: u16,
    rest: u32,
    /// Offset of the client's packet in the error.
    inner_start: usize,
    /// The client's packet, as far as it is quoted. Offsets count from its own start.
    pub inner: Headers,
}

impl TunnelError {
    /// The path MTU it reports (RFC 1191 §4).
    pub fn path_mtu(&self) -> Option<u32> {
        ((self.error_type, self.code) == FRAGMENTATION_NEEDED).then_some(self.rest & 0xffff)
    }
}

impl Tables<'_> {
    /// What an ICMP error is if it quotes a tunnel packet to one of our servers; `None` if it does not.
    pub(in crate::director) fn classify_tunnel_error(
        &self,
        now: Instant,
        packet: &PacketBuf<'_>,
        headers: &Headers,
        related: &Related,
    ) -> Option<Outcome> {
        if !self.is_host_address(headers.destination) {
            return None;
        }
        let bytes = packet.bytes().get(..headers.packet_len)?;
        let inside = match headers.family {
            AddressFamily::Ipv4 => self.classify_inside(now, bytes, headers, related),
            AddressFamily::Ipv6 => None,
        };
        inside.or_else(|| self.classify_outside(now, bytes, headers, related))
    }

    /// An error about a packet of a known connection inside a tunnel.
    fn classify_inside(&self, now: Instant, bytes: &[u8], headers: &Headers, related: &Related) -> Option<Outcome> {
        let error = self.strip(bytes, related)?;
        let (protocol, source, destination) = flow_of(bytes, &error.inner.moved_by(error.inner_start))?;
        let id = self.flows.connections.find_request(now, protocol, source, destination)?;
        if self.flows.connections.get(id)?.real.address != related.quoted.destination {
            return None;
        }
        if !icmp::checksum_is_valid(bytes, headers) {
            return Some(Outcome::Drop(DropReason::BadIcmpChecksum));
        }
        let unproven = error.path_mtu().and_then(|_| self.unproven(now, bytes, related));
        Some(unproven.unwrap_or(Outcome::TunnelError(id, error)))
    }

    /// The path MTU of a tunnel, whatever is inside and however little of it is quoted. Linux learns it of GUE over IPv4
    /// alone in this way.
    fn classify_outside(&self, now: Instant, bytes: &[u8], headers: &Headers, related: &Related) -> Option<Outcome> {
        let quoted = &related.quoted;
        let mtu = reported_mtu(headers.family, related)?;
        let (kind, port) = match quoted.protocol {
            UDP => {
                let &[_, _, high, low, ..] = quoted.transport_header::<{ udp::HEADER_LEN }>(bytes)?;
                (TunnelKind::Gue, u16::from_be_bytes([high, low]))
            }
            IPV4_IN_IP | IPV6_IN_IP => (TunnelKind::Ipip, 0),
            gre::PROTOCOL => (TunnelKind::Gre, 0),
            _ => return None,
        };
        let as_in_linux = !self.site.config.settings.tunnel_mtu_proof;
        if as_in_linux && (kind != TunnelKind::Gue || headers.family != AddressFamily::Ipv4) {
            return None;
        }
        let end = TunnelEnd { address: quoted.destination, kind, port };
        let is_ours = self.services.servers.is_tunnel_end(&end) && self.is_own_address(quoted.source);
        if !is_ours || !icmp::checksum_is_valid(bytes, headers) {
            return None;
        }
        let unproven = self.unproven(now, bytes, related);
        Some(unproven.unwrap_or(Outcome::PathMtu { address: end.address, mtu }))
    }

    /// What an error about a tunnel packet is if it does not quote what only the path knows, where that is asked for.
    /// While too many guess at it, no error about that end is believed.
    fn unproven(&self, now: Instant, bytes: &[u8], related: &Related) -> Option<Outcome> {
        if !self.site.config.settings.tunnel_mtu_proof {
            return None;
        }
        let address = related.quoted.destination;
        let proof = self.services.servers.proof(address);
        let is_right = bytes.get(related.quoted_start..).is_some_and(|quoted| match related.quoted.family {
            AddressFamily::Ipv4 => related.quoted.dont_fragment && read_u16(quoted, 4) == Some(proof as u16),
            AddressFamily::Ipv6 => {
                quoted.first_chunk().is_some_and(|first| u32::from_be_bytes(*first) & 0xf_ffff == proof)
            }
        });
        let is_believed = is_right && self.services.servers.believes_errors(now, address);
        let guessed = (!is_right).then_some(address);
        (!is_believed).then_some(Outcome::UnprovenPathMtu { guessed })
    }

    /// Reads the quoted tunnel packet down to the client's.
    fn strip(&self, bytes: &[u8], related: &Related) -> Option<TunnelError> {
        let quoted = &related.quoted;
        let behind_ip = bytes.get(quoted.transport..)?;
        let (kind, port, header_len) = match quoted.protocol {
            IPV4_IN_IP => (TunnelKind::Ipip, 0, 0),
            gre::PROTOCOL => (TunnelKind::Gre, 0, gre::len_around_ipv4(behind_ip)?),
            UDP => (TunnelKind::Gue, read_u16(behind_ip, 2)?, gue::len_around_ipv4(behind_ip)?),
            _ => return None,
        };
        if !self.services.servers.is_tunnel_end(&TunnelEnd { address: quoted.destination, kind, port }) {
            return None;
        }
        let inner_start = quoted.transport + header_len;
        let inner = parse_quoted(bytes.get(inner_start..)?)?;
        if inner.family != AddressFamily::Ipv4 || inner.is_later_fragment() {
            return None;
        }
        Some(TunnelError {
            error_type: related.error_type,
            code: related.code,
            rest: related.rest,
            overhead: (inner_start - related.quoted_start) as u16,
            inner_start,
            inner,
        })
    }

    /// Turns the error into one about the client's own packet, on a packet that may be a copy.
    pub(in crate::director) fn tell_client(
        &self,
        now: Instant,
        packet: &mut PacketBuf<'_>,
        connection: &Connection,
        error: &TunnelError,
    ) -> Verdict {
        let rest = match error.path_mtu() {
            // The client's packets may be fragmented: it need not know.
            Some(_) if !error.inner.dont_fragment => return Verdict::Drop(DropReason::PathMtuLearned),
            Some(reported) => {
                let route = connection.server.and_then(|id| self.services.servers.get(id)?.route);
                let used = |route| self.services.servers.used_route_mtu(now, connection.real.address, route, reported);
                let mtu = route.map(used).map_or(reported, u32::from);
                let overhead = u32::from(error.overhead);
                if mtu > LEAST_MTU + overhead { mtu - overhead } else { mtu }
            }
            None => error.rest,
        };
        let quoted = &packet.bytes()[error.inner_start..];
        if !icmp::may_answer(&error.inner, quoted) {
            return Verdict::Drop(DropReason::NotForwardable);
        }
        let refused = self.refused_answers(now, error.inner.source);
        if refused.is_error(true, error.error_type, error.code) {
            return Verdict::Drop(DropReason::AnswerLimited);
        }
        let told = IcmpError::Other { error_type: error.error_type, code: error.code, rest };
        packet.shrink_front(error.inner_start);
        let (source, identification) = (error.inner.destination, self.identification() as u16);
        match icmp::make_error(packet, &error.inner, told, source, identification) {
            Ok(()) => Verdict::Reply { next_hop: error.inner.source },
            Err(reason) => Verdict::Drop(reason),
        }
    }
}

/// The path MTU that an error tells (RFC 1191 §4, RFC 4443 §3.2).
fn reported_mtu(family: AddressFamily, related: &Related) -> Option<u32> {
    match (family, related.error_type, related.code) {
        (AddressFamily::Ipv4, 3, 4) => Some(related.rest & 0xffff),
        (AddressFamily::Ipv6, 2, _) => Some(related.rest),
        _ => None,
    }
}

/// RFC 791: what every link must take.
const LEAST_MTU: u32 = 68;

/// ICMP type and code that tell a path MTU (RFC 1191 §4).
const FRAGMENTATION_NEEDED: (u8, u8) = (3, 4);

const UDP: u8 = Protocol::Udp.number();
