//! How packets reach a real server and come back: one file for each forward method.
//! This file holds what all of them share: hop limit, MTU, and the ICMP answers to packets that fail them.
//! Methods know a [`Path`], never a service.

pub(crate) mod direct_routing;
pub(crate) mod full_nat;
mod local;
pub(crate) mod nat;
pub(crate) mod tunnel;

use core::net::IpAddr;

use crate::answer_limit::Refused;
use crate::drop_reason::DropReason;
use crate::flow::{AddressFamily, Endpoint};
use crate::forward::full_nat::FullNatPath;
use crate::forward::tunnel::TunnelPath;
use crate::packet::{GsoKind, PacketBuf};
use crate::service::ForwardMethod;
use crate::verdict::{Direction, Verdict};
use crate::wire::icmp::{self, IcmpError};
use crate::wire::ipv4::fill_record_route;
use crate::wire::mss;
use crate::wire::parse::Headers;
use crate::wire::rewrite::{Care, decrement_hop_limit};
use crate::wire::{ipv4, ipv6};

/// All a forward method needs to know of a connection and its surroundings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path {
    pub method: ForwardMethod,
    /// The server is the director's own host.
    pub is_local: bool,
    /// So is the client: replies end here.
    pub client_is_host: bool,
    pub client: Endpoint,
    pub virtual_endpoint: Endpoint,
    pub real: Endpoint,
    pub tunnel: TunnelPath,
    pub full_nat: FullNatPath,
    /// Longest packet the way out takes.
    pub mtu: u16,
    /// Highest MSS a SYN may announce (MSS clamping).
    pub mss_clamp: Option<u16>,
    /// What NAT looks at before it writes checksums; FullNAT is always strict.
    pub care: Care,
    /// Source of ICMP errors about packets on this path; `None` where the director has no address to speak from.
    pub error_source: Option<IpAddr>,
    /// What may not be answered now to whoever sends packets on this path.
    pub refused: Refused,
    /// Identification for a packet the director makes itself; ICMP errors take the lower half.
    pub identification: u32,
}

impl Path {
    /// Whether requests become IPv4 packets on this path (NAT64).
    pub fn leaves_ipv6(&self) -> bool {
        self.client.address.is_ipv6() && self.real.address.is_ipv4() && self.method == ForwardMethod::FullNat
    }

    /// How much longer the IP header of such a packet becomes on this path (NAT64).
    pub fn header_growth(&self, headers: &Headers) -> isize {
        if self.client.address.is_ipv4() == self.real.address.is_ipv4() {
            return 0;
        }
        let fragment_header = if headers.fragment.is_some() { 8 } else { 0 };
        match headers.family {
            AddressFamily::Ipv4 => 20 + fragment_header,
            AddressFamily::Ipv6 => -20 - fragment_header,
        }
    }
}

/// Sends a packet from a client to the path's real server.
#[inline]
pub(crate) fn request(packet: &mut PacketBuf<'_>, headers: &Headers, path: &Path) -> Verdict {
    match path.method {
        _ if path.is_local => local::request(packet, headers, path),
        ForwardMethod::Nat => nat::request(packet, headers, path),
        ForwardMethod::DirectRouting => direct_routing::request(packet, headers, path.real.address, path),
        ForwardMethod::Bypass => direct_routing::request(packet, headers, headers.destination, path),
        ForwardMethod::Tunnel => tunnel::request(packet, headers, path),
        ForwardMethod::FullNat => full_nat::request(packet, headers, path),
        ForwardMethod::Local => Verdict::Drop(DropReason::NotForwardable),
    }
}

/// Sends a packet from a real server to the path's client.
pub(crate) fn reply(packet: &mut PacketBuf<'_>, headers: &Headers, path: &Path) -> Verdict {
    match path.method {
        _ if path.client_is_host => local::reply_to_host(packet, headers, path),
        _ if path.is_local => local::reply(packet, headers, path),
        ForwardMethod::Nat => nat::reply(packet, headers, path),
        ForwardMethod::FullNat => full_nat::reply(packet, headers, path),
        _ => direct_routing::reply(packet, headers, path),
    }
}

/// Whether the packet may go on, or what to say instead: hop limit, then MTU. Changes nothing when it may.
///
/// Errors about requests quote a hop limit already decremented where it was the MTU that failed, as Linux does;
/// errors about replies quote the packet as it came.
#[inline]
pub(crate) fn check_way_out(
    packet: &mut PacketBuf<'_>,
    headers: &Headers,
    direction: Direction,
    path: &Path,
) -> Result<(), Verdict> {
    if headers.hop_limit <= 1 {
        return Err(answer(packet, headers, IcmpError::TimeExceeded, path, DropReason::TtlExceeded));
    }
    if is_too_big(packet, headers, path.mtu) {
        let error = IcmpError::TooBig { mtu: u32::from(path.mtu) };
        if direction == Direction::Request && can_answer(packet, headers, error, path) {
            decrement_hop_limit(packet.bytes_mut(), headers.family);
        }
        return Err(answer(packet, headers, error, path, DropReason::TooBig));
    }
    Ok(())
}

/// Turns the packet into an ICMP error about itself, or refuses it where none may be sent.
pub(crate) fn answer(
    packet: &mut PacketBuf<'_>,
    headers: &Headers,
    error: IcmpError,
    path: &Path,
    otherwise: DropReason,
) -> Verdict {
    match path.error_source {
        Some(_) if may_answer(packet, headers, path) && is_limited(headers, error, path) => {
            Verdict::Drop(DropReason::AnswerLimited)
        }
        Some(source) if may_answer(packet, headers, path) => {
            match icmp::make_error(packet, headers, error, source, path.identification as u16) {
                Ok(()) => Verdict::Reply { next_hop: headers.source },
                Err(reason) => Verdict::Drop(reason),
            }
        }
        _ => Verdict::Drop(otherwise),
    }
}

pub(crate) fn may_answer(packet: &PacketBuf<'_>, headers: &Headers, path: &Path) -> bool {
    path.error_source.is_some() && icmp::may_answer(headers, packet.bytes())
}

/// The same, and there is room for the answer: from here on the packet may be changed.
pub(crate) fn can_answer(packet: &PacketBuf<'_>, headers: &Headers, error: IcmpError, path: &Path) -> bool {
    let headers_len = match headers.family {
        AddressFamily::Ipv4 => ipv4::HEADER_LEN + icmp::HEADER_LEN,
        AddressFamily::Ipv6 => ipv6::HEADER_LEN + icmp::HEADER_LEN,
    };
    packet.headroom() >= headers_len && may_answer(packet, headers, path) && !is_limited(headers, error, path)
}

/// Whether enough errors like this one have been sent for now.
fn is_limited(headers: &Headers, error: IcmpError, path: &Path) -> bool {
    let (error_type, code, _) = error.header(headers.family);
    path.refused.is_error(headers.family == AddressFamily::Ipv4, error_type, code)
}

/// What every method does to a packet that goes on. Writes the virtual address into a record-route option that has room
/// (RFC 791 §3.1), as Linux does both ways; lowers the MSS of a SYN where the service asks for it; takes one from the
/// hop limit.
#[inline]
pub(crate) fn pass_through(packet: &mut PacketBuf<'_>, headers: &Headers, path: &Path) {
    fill_record_route(packet.bytes_mut(), headers, path.virtual_endpoint.address);
    if let Some(most) = path.mss_clamp {
        mss::clamp(packet, headers, most);
    }
    decrement_hop_limit(packet.bytes_mut(), headers.family);
}

/// Longer than `mtu` and not to be fragmented on its way. Super-packets are judged by their segments; relayed ICMP
/// errors are fragmented whatever their DF says.
fn is_too_big(packet: &PacketBuf<'_>, headers: &Headers, mtu: u16) -> bool {
    if segment_len(packet, headers) <= usize::from(mtu) {
        return false;
    }
    match headers.family {
        AddressFamily::Ipv4 => headers.dont_fragment && headers.protocol != icmp::ICMP,
        // RFC 8200 §4.5: only what its sender has fragmented already may be split again.
        AddressFamily::Ipv6 => !is_atomic_fragment(headers),
    }
}

/// An IPv6 datagram put together, its fragment header kept.
fn is_atomic_fragment(headers: &Headers) -> bool {
    headers.fragment.is_some_and(|part| part.offset == 0 && !part.more)
}

/// The length of the longest packet this one becomes on the wire.
fn segment_len(packet: &PacketBuf<'_>, headers: &Headers) -> usize {
    let Some(gso) = packet.offload.gso else { return headers.packet_len };
    let transport_len = match gso.kind {
        GsoKind::TcpV4 | GsoKind::TcpV6 => {
            packet.bytes().get(headers.transport + 12).map_or(20, |offset| usize::from(offset >> 4) * 4)
        }
        GsoKind::Udp => 8,
    };
    (headers.transport + transport_len + usize::from(gso.size)).min(headers.packet_len)
}
