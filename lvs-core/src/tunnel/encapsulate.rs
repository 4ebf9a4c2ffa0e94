//! The way in: checks that the packet fits, then writes the outer IP header and the tunnel's own in front of it.

use core::net::IpAddr;

use super::{Partial, Tunnel, ecn, gre, gue, inner_protocol, ip_header_len};
use crate::drop_reason::DropReason;
use crate::flow::{AddressFamily, Protocol};
use crate::packet::{ChecksumOffload, Offload, PacketBuf};
use crate::service::{TunnelChecksum, TunnelKind};
use crate::wire::parse::Headers;
use crate::wire::{ipv4, ipv6};

/// Puts the packet into another one towards the tunnel's destination; it grows into its headroom by 20 to 64 bytes.
///
/// The outer header takes DSCP, hop limit and DF (see [`Tunnel::copies_dont_fragment`]) from the packet as it stands,
/// and its ECN by RFC 6040 except that CE becomes ECT(0), as in Linux (`tun_ipip`). Its identification is 0 where it
/// has DF, or the tunnel's proof. The inner packet is not changed: whoever forwards it takes one from its hop limit first. Link padding is cut
/// off. A checksum left to the device stays so (`start` moves), or is left to the receiver
/// ([`TunnelChecksum::Remote`]).
///
/// # Errors
/// The packet is unchanged. [`DropReason::NoHeadroom`]: too little room before it. [`DropReason::TooBig`]: it would
/// become longer than an IP packet can be. [`DropReason::NotForwardable`]: source and destination are of different
/// families, or it is a super-packet; those are cut first
/// ([`crate::wire::segment`]).
/// [`DropReason::BadOffload`]: the offload context points outside the packet.
pub fn encapsulate(packet: &mut PacketBuf<'_>, headers: &Headers, tunnel: &Tunnel) -> Result<(), DropReason> {
    let inner = headers.into();
    Plan::new(packet.offload, &inner, tunnel)?.carry_out(packet, &inner, tunnel)
}

/// What the outside of a tunnel depends on of the packet inside.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inner {
    pub family: AddressFamily,
    pub traffic_class: u8,
    pub dont_fragment: bool,
    pub len: usize,
}

impl From<&Headers> for Inner {
    fn from(headers: &Headers) -> Self {
        let Headers { family, traffic_class, dont_fragment, packet_len: len, .. } = *headers;
        Self { family, traffic_class, dont_fragment, len }
    }
}

/// Whether [`encapsulate`] would succeed with this packet, were its offload context and headers these.
pub(crate) fn check(
    packet: &PacketBuf<'_>,
    offload: Offload,
    headers: &Headers,
    tunnel: &Tunnel,
) -> Result<(), DropReason> {
    let plan = Plan::new(offload, &headers.into(), tunnel)?;
    if packet.headroom() < plan.overhead() { Err(DropReason::NoHeadroom) } else { Ok(()) }
}

/// The outside of one packet, once every check but that of the headroom has passed.
pub(crate) struct Plan {
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

impl Plan {
    /// What [`encapsulate`] makes of a packet with this offload context. Inlined, so that where the context is known,
    /// nothing is asked about it.
    #[inline(always)]
    pub fn new(offload: Offload, inner: &Inner, tunnel: &Tunnel) -> Result<Self, DropReason> {
        let is_one_family = AddressFamily::of(tunnel.source) == AddressFamily::of(tunnel.destination);
        if !is_one_family || offload.gso.is_some() {
            return Err(DropReason::NotForwardable);
        }
        let partial = Partial::read(offload.checksum, inner.len)?;
        let base_len = ip_header_len(tunnel.destination);
        let mut is_remote = tunnel.is_remote(offload.checksum);
        let len = base_len + tunnel.tunnel_header_len(is_remote) + inner.len;
        let has_fragment_header = base_len == ipv6::HEADER_LEN && len > usize::from(tunnel.mtu);
        // What is to be fragmented needs its checksum anyway, and the headroom has no place for both headers.
        is_remote &= !has_fragment_header;
        let tunnel_len = tunnel.tunnel_header_len(is_remote);
        let ip_len = base_len + if has_fragment_header { ipv6::FRAGMENT_HEADER_LEN } else { 0 };
        let counted = match base_len {
            ipv4::HEADER_LEN => ip_len,
            _ => ip_len - base_len,
        };
        if counted + tunnel_len + inner.len > usize::from(u16::MAX) {
            return Err(DropReason::TooBig);
        }
        let outer = match offload.checksum {
            ChecksumOffload::Partial { start, offset } if !is_remote => {
                let start = usize::from(start) + ip_len + tunnel_len;
                let start = u16::try_from(start).map_err(|_| DropReason::BadOffload)?;
                ChecksumOffload::Partial { start, offset }
            }
            _ => ChecksumOffload::Full,
        };
        Ok(Self { ip_len, tunnel_len, has_fragment_header, partial, is_remote, offload: outer })
    }

    /// Bytes the packet grows by.
    #[inline]
    pub fn overhead(&self) -> usize {
        self.ip_len + self.tunnel_len
    }

    /// Writes the outside around the packet it was made for. On `Err` ([`DropReason::NoHeadroom`]) nothing has changed.
    #[inline(always)]
    pub fn carry_out(&self, packet: &mut PacketBuf<'_>, inner: &Inner, tunnel: &Tunnel) -> Result<(), DropReason> {
        packet.grow_front(self.overhead()).ok_or(DropReason::NoHeadroom)?;
        packet.set_len(self.overhead() + inner.len);
        packet.offload.checksum = self.offload;

        let bytes = packet.bytes_mut();
        self.write_tunnel_header(&mut bytes[self.ip_len..], inner, tunnel);
        self.write_ip_header(bytes, inner, tunnel);
        Ok(())
    }

    /// Writes what comes behind the outer IP header; `bytes` starts there.
    #[inline(always)]
    fn write_tunnel_header(&self, bytes: &mut [u8], inner: &Inner, tunnel: &Tunnel) {
        let partial = self.partial.map(|partial| partial.moved_by(self.tunnel_len));
        let has_checksum = tunnel.config.checksum != TunnelChecksum::None;
        match tunnel.config.kind {
            TunnelKind::Ipip => {}
            TunnelKind::Gre => {
                let has_checksum = tunnel.config.checksum == TunnelChecksum::Full;
                gre::write(bytes, inner.family, has_checksum, partial);
            }
            TunnelKind::Gue => {
                let remote = self.partial.filter(|_| self.is_remote);
                gue::write(bytes, inner.family, (tunnel.source_port, tunnel.config.port), remote);
                if has_checksum {
                    // What the receiver is to compute is summed as it stands.
                    let partial = partial.filter(|_| !self.is_remote);
                    gue::write_checksum(bytes, tunnel.source, tunnel.destination, partial);
                }
            }
        }
    }

    #[inline(always)]
    fn write_ip_header(&self, bytes: &mut [u8], inner: &Inner, tunnel: &Tunnel) {
        let len = bytes.len();
        let hop_limit_at = if inner.family == AddressFamily::Ipv4 { 8 } else { 7 };
        let hop_limit = bytes[self.overhead() + hop_limit_at];
        let traffic_class = ecn::outer(inner.traffic_class);
        let protocol = match tunnel.config.kind {
            TunnelKind::Ipip => inner_protocol(inner.family),
            TunnelKind::Gre => gre::PROTOCOL,
            TunnelKind::Gue => Protocol::Udp.number(),
        };
        match (tunnel.source, tunnel.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let dont_fragment = tunnel.copies_dont_fragment && inner.dont_fragment;
                let header = ipv4::Header {
                    traffic_class,
                    total_len: len as u16,
                    // RFC 6864 §4.1: the identification of an atomic datagram means nothing.
                    identification: if dont_fragment { tunnel.proof as u16 } else { tunnel.identification as u16 },
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
                let [_, high, middle, low] = (tunnel.proof & 0xf_ffff).to_be_bytes();
                bytes[1] |= high;
                (bytes[2], bytes[3]) = (middle, low);
                if self.has_fragment_header {
                    let [a, b, c, d] = tunnel.identification.to_be_bytes();
                    bytes[ipv6::HEADER_LEN..self.ip_len].copy_from_slice(&[protocol, 0, 0, 0, a, b, c, d]);
                }
            }
            _ => {}
        }
    }
}
