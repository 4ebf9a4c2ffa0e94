//! The way out: the real server's side. Strangers' bytes; everything is checked before anything is changed.

use super::{IPV4_IN_IP, IPV6_IN_IP, Partial, UDP, ecn, gre, gue};
use crate::drop_reason::DropReason;
use crate::flow::AddressFamily;
use crate::packet::{ChecksumOffload, PacketBuf};
use crate::service::TunnelKind;
use crate::wire::parse::{Headers, parse};
use crate::wire::read_u16;

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
/// `Ok(None)` is a packet to be treated like any other: no tunnel, or one that is not accepted, or in a dialect we do
/// not speak (GRE with key or sequence number, a GUE control message), or a fragment, which has to be put together
/// first ([`super::TunnelEnd`] does).
/// Checksums that are there are verified. The inner packet's ECN afterwards follows RFC 6040 §4.2. An inner checksum
/// that was left to us (GUE remote checksum offload) is left to the device in turn:
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
pub(super) struct Found {
    pub kind: TunnelKind,
    /// Bytes between the outer IP header and the inner packet.
    pub header_len: usize,
    /// Family of the inner packet, as the header announces it.
    pub family: AddressFamily,
    /// GUE: start and field of the inner checksum that is ours to compute.
    pub remote: Option<(u16, u16)>,
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
