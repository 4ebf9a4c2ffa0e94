//! Tunnels to real servers, both ends: IP in IP, GRE and GUE in every combination of address families.
//! This file holds the outside IP header and decides what fits; what stands between the two IP headers is in `gre` and
//! `gue`, the rules for congestion marks in `ecn`.
//! Sources: RFC 2003, RFC 2473, RFC 2784, RFC 6040, draft-ietf-intarea-gue; spec datapath §4; recordings `tun_*`.

mod ecn;
pub(crate) mod gre;
pub(crate) mod gue;

use core::net::IpAddr;

use crate::drop_reason::DropReason;
use crate::flow::{AddressFamily, Protocol};
use crate::packet::{ChecksumOffload, Offload, PacketBuf};
use crate::service::{TunnelChecksum, TunnelConfig, TunnelKind};
use crate::wire::checksum;
use crate::wire::parse::{Headers, parse};
use crate::wire::{ipv4, ipv6, read_u16};

/// The outside of a tunnel: everything [`encapsulate`] does not find in the packet itself.
///
/// ```
/// use lvs_core::service::TunnelConfig;
/// use lvs_core::tunnel::{Accepts, Tunnel, decapsulate, encapsulate};
/// use lvs_core::wire::parse::parse;
/// use lvs_core::{HEADROOM, PacketBuf};
/// // 203.0.113.7:1024 > 192.0.2.1:80 UDP "hi", checksum none
/// let datagram = [
///     0x45, 0, 0, 30, 0, 0, 0, 0, 64, 17, 0x7c, 0xc6, 203, 0, 113, 7, 192, 0, 2, 1,
///     4, 0, 0, 80, 0, 10, 0, 0, b'h', b'i',
/// ];
/// let mut storage = [0; HEADROOM + 30];
/// storage[HEADROOM..].copy_from_slice(&datagram);
/// let mut packet = PacketBuf::new(&mut storage, HEADROOM, 30);
///
/// let ipip = TunnelConfig::default();
/// let tunnel = Tunnel::new(ipip, "10.0.0.254".parse().unwrap(), "10.0.0.2".parse().unwrap());
/// let headers = parse(packet.bytes()).unwrap();
/// encapsulate(&mut packet, &headers, &tunnel).unwrap();
/// assert_eq!(packet.len(), 50);
///
/// let accepts = Accepts { ipip: true, ..Accepts::default() };
/// assert_eq!(decapsulate(&mut packet, &accepts), Ok(Some(ipip.kind)));
/// assert_eq!(packet.bytes(), datagram);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tunnel {
    /// Encapsulation, port and checksum.
    pub config: TunnelConfig,
    /// Outer source: the director's own address.
    pub source: IpAddr,
    /// Outer destination: the real server. Of the source's family.
    pub destination: IpAddr,
    /// UDP source port, for GUE: the same for all packets of a flow, so that routers keep them on one path.
    pub source_port: u16,
    /// Identification of an outer packet that may be fragmented; IPv4 takes the lower half of it.
    pub identification: u32,
    /// Longest packet the way to the destination takes, in bytes. An outer IPv6 packet that is longer gets a fragment
    /// header, so that whoever sends it can split it.
    pub mtu: u16,
    /// Whether an inner IPv4 packet's DF is copied outside (path-MTU discovery through the tunnel).
    pub copies_dont_fragment: bool,
}

impl Tunnel {
    /// A tunnel over a way that takes packets of any length; DF is copied.
    pub const fn new(config: TunnelConfig, source: IpAddr, destination: IpAddr) -> Self {
        Self {
            config,
            source,
            destination,
            source_port: 0,
            identification: 0,
            mtu: u16::MAX,
            copies_dont_fragment: true,
        }
    }

    /// Bytes a packet with this checksum state grows by, a fragment header apart.
    pub fn overhead(&self, checksum: ChecksumOffload) -> usize {
        ip_header_len(self.destination) + self.tunnel_header_len(self.is_remote(checksum))
    }

    fn tunnel_header_len(&self, is_remote: bool) -> usize {
        match self.config.kind {
            TunnelKind::Ipip => 0,
            TunnelKind::Gre => gre::header_len(self.config.checksum == TunnelChecksum::Full),
            TunnelKind::Gue => gue::header_len(is_remote),
        }
    }

    /// Whether the receiver is left to compute the inner checksum: only where it is still to be computed at all.
    fn is_remote(&self, checksum: ChecksumOffload) -> bool {
        self.config.kind == TunnelKind::Gue
            && self.config.checksum == TunnelChecksum::Remote
            && checksum != ChecksumOffload::Full
    }
}

/// Puts the packet into another one towards the tunnel's destination; it grows into its headroom by 20 to 64 bytes.
///
/// The outer header takes DSCP, hop limit and DF (see [`Tunnel::copies_dont_fragment`]) from the packet as it stands, and
/// its ECN by RFC 6040 except that CE becomes ECT(0), as in Linux (`tun_ipip`). Its identification is 0 where it has DF.
/// The inner packet is not changed: whoever forwards it takes one from its hop limit first. Link padding is cut off.
/// A checksum left to the device stays so (`start` moves), or is left to the receiver ([`TunnelChecksum::Remote`]).
///
/// # Errors
/// The packet is unchanged. [`DropReason::NoHeadroom`]: too little room before it. [`DropReason::TooBig`]: it would
/// become longer than an IP packet can be. [`DropReason::NotForwardable`]: source and destination are of different
/// families, or it is a super-packet; those are cut first
/// ([`crate::wire::segment`]).
/// [`DropReason::BadOffload`]: the offload context points outside the packet.
pub fn encapsulate(packet: &mut PacketBuf<'_>, headers: &Headers, tunnel: &Tunnel) -> Result<(), DropReason> {
    let plan = Plan::new(packet.offload, headers, tunnel)?;
    packet.grow_front(plan.overhead()).ok_or(DropReason::NoHeadroom)?;
    packet.set_len(plan.overhead() + headers.packet_len);
    packet.offload.checksum = plan.offload;

    let bytes = packet.bytes_mut();
    plan.write_tunnel_header(&mut bytes[plan.ip_len..], headers, tunnel);
    plan.write_ip_header(bytes, headers, tunnel);
    Ok(())
}

/// Whether [`encapsulate`] would succeed with this packet, were its offload context and headers these.
pub(crate) fn check(
    packet: &PacketBuf<'_>,
    offload: Offload,
    headers: &Headers,
    tunnel: &Tunnel,
) -> Result<(), DropReason> {
    let plan = Plan::new(offload, headers, tunnel)?;
    if packet.headroom() < plan.overhead() { Err(DropReason::NoHeadroom) } else { Ok(()) }
}

/// The outside of one packet, once every check has passed.
struct Plan {
    /// Length of the outer IP header, with a fragment header where there is one.
    ip_len: usize,
    /// Length of the GRE, or the UDP and GUE headers.
    tunnel_len: usize,
    has_fragment_header: bool,
    /// The inner checksum that is still to be computed, counted from the inner packet.
    partial: Option<Partial>,
    /// Whether the receiver computes it.
    is_remote: bool,
    /// The offload context of the outer packet.
    offload: ChecksumOffload,
}

/// A checksum that is still to be computed: where the summed bytes start, and where the checksum goes.
#[derive(Clone, Copy)]
struct Partial {
    start: usize,
    field: usize,
}

impl Plan {
    fn new(inner: Offload, headers: &Headers, tunnel: &Tunnel) -> Result<Self, DropReason> {
        let is_one_family = AddressFamily::of(tunnel.source) == AddressFamily::of(tunnel.destination);
        if !is_one_family || inner.gso.is_some() {
            return Err(DropReason::NotForwardable);
        }
        let partial = Partial::read(inner.checksum, headers.packet_len)?;
        let base_len = ip_header_len(tunnel.destination);
        let mut is_remote = tunnel.is_remote(inner.checksum);
        let len = base_len + tunnel.tunnel_header_len(is_remote) + headers.packet_len;
        let has_fragment_header = base_len == ipv6::HEADER_LEN && len > usize::from(tunnel.mtu);
        // What is to be fragmented needs its checksum anyway, and the headroom has no place for both headers.
        is_remote &= !has_fragment_header;
        let tunnel_len = tunnel.tunnel_header_len(is_remote);
        let ip_len = base_len + if has_fragment_header { ipv6::FRAGMENT_HEADER_LEN } else { 0 };
        let counted = match base_len {
            ipv4::HEADER_LEN => ip_len,
            _ => ip_len - base_len,
        };
        if counted + tunnel_len + headers.packet_len > usize::from(u16::MAX) {
            return Err(DropReason::TooBig);
        }
        let offload = match inner.checksum {
            ChecksumOffload::Partial { start, offset } if !is_remote => {
                let start = usize::from(start) + ip_len + tunnel_len;
                let start = u16::try_from(start).map_err(|_| DropReason::BadOffload)?;
                ChecksumOffload::Partial { start, offset }
            }
            _ => ChecksumOffload::Full,
        };
        Ok(Self { ip_len, tunnel_len, has_fragment_header, partial, is_remote, offload })
    }

    fn overhead(&self) -> usize {
        self.ip_len + self.tunnel_len
    }

    /// Writes what comes behind the outer IP header; `bytes` starts there.
    fn write_tunnel_header(&self, bytes: &mut [u8], headers: &Headers, tunnel: &Tunnel) {
        let partial = self.partial.map(|partial| partial.moved_by(self.tunnel_len));
        let has_checksum = tunnel.config.checksum != TunnelChecksum::None;
        match tunnel.config.kind {
            TunnelKind::Ipip => {}
            TunnelKind::Gre => {
                let has_checksum = tunnel.config.checksum == TunnelChecksum::Full;
                gre::write(bytes, headers.family, has_checksum, partial);
            }
            TunnelKind::Gue => {
                let remote = self.partial.filter(|_| self.is_remote);
                gue::write(bytes, headers.family, (tunnel.source_port, tunnel.config.port), remote);
                if has_checksum {
                    // What the receiver is to compute is summed as it stands.
                    let partial = partial.filter(|_| !self.is_remote);
                    gue::write_checksum(bytes, tunnel.source, tunnel.destination, partial);
                }
            }
        }
    }

    fn write_ip_header(&self, bytes: &mut [u8], headers: &Headers, tunnel: &Tunnel) {
        let len = bytes.len();
        let hop_limit_at = if headers.family == AddressFamily::Ipv4 { 8 } else { 7 };
        let hop_limit = bytes[self.overhead() + hop_limit_at];
        let traffic_class = ecn::outer(headers.traffic_class);
        let protocol = match tunnel.config.kind {
            TunnelKind::Ipip => inner_protocol(headers.family),
            TunnelKind::Gre => gre::PROTOCOL,
            TunnelKind::Gue => Protocol::Udp.number(),
        };
        match (tunnel.source, tunnel.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let dont_fragment = tunnel.copies_dont_fragment && headers.dont_fragment;
                let header = ipv4::Header {
                    traffic_class,
                    total_len: len as u16,
                    // RFC 6864 §4.1: the identification of an atomic datagram means nothing.
                    identification: if dont_fragment { 0 } else { tunnel.identification as u16 },
                    dont_fragment,
                    hop_limit,
                    protocol,
                    source,
                    destination,
                };
                bytes.first_chunk_mut().into_iter().for_each(|bytes| ipv4::write_header(bytes, &header));
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let header = ipv6::Header {
                    traffic_class,
                    payload_len: (len - ipv6::HEADER_LEN) as u16,
                    next_header: if self.has_fragment_header { ipv6::FRAGMENT } else { protocol },
                    hop_limit,
                    source,
                    destination,
                };
                bytes.first_chunk_mut().into_iter().for_each(|bytes| ipv6::write_header(bytes, &header));
                if self.has_fragment_header {
                    let [a, b, c, d] = tunnel.identification.to_be_bytes();
                    bytes[ipv6::HEADER_LEN..self.ip_len].copy_from_slice(&[protocol, 0, 0, 0, a, b, c, d]);
                }
            }
            _ => {}
        }
    }
}

impl Partial {
    /// What the offload context says of a packet of `len` bytes.
    fn read(offload: ChecksumOffload, len: usize) -> Result<Option<Self>, DropReason> {
        let ChecksumOffload::Partial { start, offset } = offload else { return Ok(None) };
        let partial = Self { start: start.into(), field: usize::from(start) + usize::from(offset) };
        if partial.start % 2 != 0 || partial.field + 2 > len {
            return Err(DropReason::BadOffload);
        }
        Ok(Some(partial))
    }

    fn moved_by(self, count: usize) -> Self {
        Self { start: self.start + count, field: self.field + count }
    }
}

/// The sum of `bytes` as they will be once the device has filled in a checksum that was left to it.
fn sum_when_sent(bytes: &[u8], partial: Option<Partial>) -> u32 {
    let Some(partial) = partial else { return checksum::sum(bytes) };
    // From `start` on, the bytes with their finished checksum sum to the complement of what the field holds now.
    let field = read_u16(bytes, partial.field).unwrap_or(0);
    checksum::sum(&bytes[..partial.start.min(bytes.len())]) + u32::from(!field)
}

/// Which tunnels end here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Accepts {
    /// IP in IP.
    pub ipip: bool,
    /// GRE, with and without checksum.
    pub gre: bool,
    /// GUE on this UDP port.
    pub gue_port: Option<u16>,
}

/// Takes the packet out of its tunnel: the real server's side.
///
/// `Ok(None)` is a packet to be treated like any other: no tunnel, or one that is not accepted, or in a dialect we do not
/// speak (GRE with key or sequence number, a GUE control message), or a fragment, which has to be put together first.
/// Checksums that are there are verified. The inner packet's ECN afterwards follows RFC 6040 §4.2. An inner checksum that
/// was left to us (GUE remote checksum offload) is left to the device in turn:
/// [`crate::wire::rewrite::complete_checksum`] computes it for those without one.
/// Whether the inner packet is welcome is for the caller to say.
///
/// # Errors
/// The packet is unchanged. [`DropReason::MalformedTunnel`]: headers that are cut off or contradict each other.
/// [`DropReason::BadTunnelChecksum`]: a GRE or outer UDP checksum is wrong. [`DropReason::CongestionLost`]: a router
/// marked congestion outside, and the packet inside cannot carry the mark. Or what [`parse`] finds wrong with either
/// packet.
pub fn decapsulate(packet: &mut PacketBuf<'_>, accepts: &Accepts) -> Result<Option<TunnelKind>, DropReason> {
    let bytes = packet.bytes();
    let outer = parse(bytes)?;
    if outer.fragment.is_some_and(|part| part.more || part.offset != 0) {
        return Ok(None);
    }
    let partial = Partial::read(packet.offload.checksum, outer.packet_len)?;
    let Some(found) = find(bytes, &outer, partial, accepts)? else { return Ok(None) };
    let inner_start = outer.transport + found.header_len;
    let inner_bytes = bytes.get(inner_start..outer.packet_len).ok_or(DropReason::MalformedTunnel)?;
    let inner = parse(inner_bytes)?;
    if inner.family != found.family {
        return Err(DropReason::MalformedTunnel);
    }
    let checksum = match (found.remote, partial) {
        (Some((start, field)), _) => remote_checksum(start, field, inner.packet_len)?,
        (None, Some(partial)) if partial.start >= inner_start => ChecksumOffload::Partial {
            start: (partial.start - inner_start) as u16,
            offset: (partial.field - partial.start) as u16,
        },
        _ => ChecksumOffload::Full,
    };
    let traffic_class = ecn::inner(inner.traffic_class, outer.traffic_class).ok_or(DropReason::CongestionLost)?;

    packet.shrink_front(inner_start);
    packet.set_len(inner.packet_len);
    packet.offload.checksum = checksum;
    if traffic_class != inner.traffic_class {
        ecn::write(packet.bytes_mut(), inner.family, traffic_class);
    }
    Ok(Some(found.kind))
}

/// A tunnel header that was understood.
struct Found {
    kind: TunnelKind,
    /// Bytes between the outer IP header and the inner packet.
    header_len: usize,
    /// Family of the inner packet, as the header announces it.
    family: AddressFamily,
    /// GUE: start and field of the inner checksum that is ours to compute.
    remote: Option<(u16, u16)>,
}

fn find(
    bytes: &[u8],
    outer: &Headers,
    partial: Option<Partial>,
    accepts: &Accepts,
) -> Result<Option<Found>, DropReason> {
    let payload = outer.payload(bytes);
    let inside = partial
        .filter(|partial| partial.start >= outer.transport)
        .map(|partial| Partial { start: partial.start - outer.transport, field: partial.field - outer.transport });
    match outer.protocol {
        IPV4_IN_IP if accepts.ipip => Ok(Some(Found::ipip(AddressFamily::Ipv4))),
        IPV6_IN_IP if accepts.ipip => Ok(Some(Found::ipip(AddressFamily::Ipv6))),
        gre::PROTOCOL if accepts.gre => gre::read(payload, inside),
        UDP => match (read_u16(payload, 2), accepts.gue_port) {
            (Some(port), Some(accepted)) if port == accepted => gue::read(payload, outer, inside),
            _ => Ok(None),
        },
        _ => Ok(None),
    }
}

impl Found {
    const fn ipip(family: AddressFamily) -> Self {
        Self { kind: TunnelKind::Ipip, header_len: 0, family, remote: None }
    }
}

fn remote_checksum(start: u16, field: u16, inner_len: usize) -> Result<ChecksumOffload, DropReason> {
    let offset = field.checked_sub(start).ok_or(DropReason::MalformedTunnel)?;
    if usize::from(field) + 2 > inner_len {
        return Err(DropReason::MalformedTunnel);
    }
    Ok(ChecksumOffload::Partial { start, offset })
}

const fn ip_header_len(address: IpAddr) -> usize {
    match address {
        IpAddr::V4(_) => ipv4::HEADER_LEN,
        IpAddr::V6(_) => ipv6::HEADER_LEN,
    }
}

/// The IANA number of a whole IP packet as payload.
const fn inner_protocol(family: AddressFamily) -> u8 {
    match family {
        AddressFamily::Ipv4 => IPV4_IN_IP,
        AddressFamily::Ipv6 => IPV6_IN_IP,
    }
}

/// RFC 2003.
pub(crate) const IPV4_IN_IP: u8 = 4;
/// RFC 2473.
const IPV6_IN_IP: u8 = 41;
const UDP: u8 = Protocol::Udp.number();
