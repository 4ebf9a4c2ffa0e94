//! Full NAT (DPVS: `-b`, printed `FullNat`): both ends are translated. `C → V` becomes `L → R` and `R → L` becomes
//! `V → C`, where `L` is an endpoint of the director's own, so that the server may stand anywhere and still answers
//! through us. Client and server may be of different families (NAT64).
//! Source: the published behaviour of DPVS and Alibaba LVS.

pub(crate) mod client_address;
mod ending;
mod segment;
pub(crate) mod sequence;
pub(crate) mod uoa;

use crate::drop_reason::DropReason;
use crate::flow::{AddressFamily, Endpoint, Protocol};
use crate::forward::full_nat::segment::Edit;
use crate::forward::full_nat::sequence::Translation;
use crate::forward::{Path, answer, check_way_out, segment_len};
use crate::packet::PacketBuf;
use crate::verdict::{Direction, Verdict};
use crate::wire::checksum::Delta;
use crate::wire::icmp::{self, IcmpError, Related};
use crate::wire::ipv4::fill_record_route;
use crate::wire::parse::Headers;
use crate::wire::rewrite::{Care, Rewrite, decrement_hop_limit, rewrite_with};
use crate::wire::{family, ipv6, read_u16, tcp, udp, write_u16};

/// What FullNAT adds to [`Path`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FullNatPath {
    /// The director's own endpoint towards the server.
    pub local: Option<Endpoint>,
    /// What else changes; `None` where only addresses and ports do.
    pub translation: Option<Translation>,
}

/// New source and destination of a packet.
#[derive(Clone, Copy)]
struct Ends {
    source: Endpoint,
    destination: Endpoint,
}

/// `C → V` becomes `L → R`.
pub(crate) fn request(packet: &mut PacketBuf<'_>, headers: &Headers, path: &Path) -> Verdict {
    send(packet, headers, Direction::Request, path)
}

/// `R → L` becomes `V → C`.
pub(crate) fn reply(packet: &mut PacketBuf<'_>, headers: &Headers, path: &Path) -> Verdict {
    send(packet, headers, Direction::Reply, path)
}

/// Whether the client's address was to be in this packet, and there is no room for it.
pub(crate) fn omits_client_address(packet: &PacketBuf<'_>, headers: &Headers, path: &Path) -> bool {
    match Edit::plan(packet, headers, Direction::Request, path) {
        Ok(Edit::Tcp(segment)) => segment.omits_client_address,
        Ok(Edit::Nothing) => path.full_nat.translation.is_some_and(|translation| translation.tells_client()),
        _ => false,
    }
}

fn send(packet: &mut PacketBuf<'_>, headers: &Headers, direction: Direction, path: &Path) -> Verdict {
    let Some(ends) = ends(direction, path) else { return Verdict::Drop(DropReason::NotForwardable) };
    let edit = match Edit::plan(packet, headers, direction, path) {
        Ok(edit) => edit,
        Err(reason) => return Verdict::Drop(reason),
    };
    // A super-packet is cut into segments once more, so that only the first of them holds the preamble.
    let preamble_len = if packet.offload.gso.is_some() { 0 } else { edit.preamble_len() };
    if let Err(verdict) = check(packet, headers, direction, path, preamble_len) {
        return verdict;
    }
    let (new_family, transport) = match translate(packet, headers, ends, path.identification as u16) {
        Ok(place) => place,
        Err(reason) => return Verdict::Drop(reason),
    };
    edit.apply(packet, new_family, transport);
    if new_family == headers.family {
        if direction == Direction::Request {
            uoa::blank_spoofed(packet, headers);
        }
        fill_record_route(packet.bytes_mut(), headers, path.virtual_endpoint.address);
    }
    decrement_hop_limit(packet.bytes_mut(), new_family);
    Verdict::Forward { next_hop: ends.destination.address, direction, mtu: path.mtu }
}

/// By how much a packet may grow on this path, not counting what a helper puts in.
pub(crate) fn other_growth(headers: &Headers, direction: Direction, path: &Path) -> usize {
    let inserted = path.full_nat.translation.filter(|_| direction == Direction::Request);
    let inserted = inserted.map_or(0, |translation| segment::still_inserted_len(&translation, path));
    path.header_growth(headers).max(0).unsigned_abs() + usize::from(inserted)
}

/// Hop limit, and MTU as it is from this side: less what the packet will grow by.
fn check(
    packet: &mut PacketBuf<'_>,
    headers: &Headers,
    direction: Direction,
    path: &Path,
    preamble_len: usize,
) -> Result<(), Verdict> {
    let growth = path.header_growth(headers) + preamble_len as isize;
    let mut mtu = usize::from(path.mtu).saturating_add_signed(growth.saturating_neg());
    if path.header_growth(headers) < 0 {
        // No sender makes IPv6 packets shorter; what they become may be fragmented (RFC 7915 §5.1).
        mtu = mtu.max(usize::from(ipv6::LEAST_MTU));
    }
    let path = Path { mtu: u16::try_from(mtu).unwrap_or(u16::MAX), ..*path };
    check_way_out(packet, headers, direction, &path)?;
    // What becomes IPv6 cannot be cut on its way any more, whatever its DF says (RFC 7915 §4). Errors are cut by us, to
    // what every IPv6 link takes; of fragments, whoever sends them makes more.
    let is_cut = headers.protocol == icmp::ICMP || headers.fragment.is_some();
    let becomes_ipv6 = path.header_growth(headers) > 0 && !is_cut;
    if becomes_ipv6 && segment_len(packet, headers) > mtu {
        let error = IcmpError::TooBig { mtu: u32::from(path.mtu) };
        return Err(answer(packet, headers, error, &path, DropReason::TooBig));
    }
    Ok(())
}

/// Translates addresses, ports and, where the ends are of the other one, the family. Where the transport header is
/// then.
fn translate(
    packet: &mut PacketBuf<'_>,
    headers: &Headers,
    ends: Ends,
    identification: u16,
) -> Result<(AddressFamily, usize), DropReason> {
    let new_family = AddressFamily::of(ends.destination.address);
    if new_family == headers.family {
        let change = Rewrite { source: Some(ends.source), destination: Some(ends.destination) };
        rewrite_with(packet, headers, &change, Care::Strict)?;
        return Ok((new_family, headers.transport));
    }
    let transport = family::translate(packet, headers, (ends.source, ends.destination), identification)?;
    Ok((new_family, transport))
}

fn ends(direction: Direction, path: &Path) -> Option<Ends> {
    let local = path.full_nat.local?;
    Some(match direction {
        Direction::Request => Ends { source: local, destination: path.real },
        Direction::Reply => Ends { source: path.virtual_endpoint, destination: path.client },
    })
}

/// An ICMP error about a reply, from the client or a router on its side, on to the server: it quotes `V → C`, the
/// server knows `R → L`.
pub(crate) fn related_request(
    packet: &mut PacketBuf<'_>,
    headers: &Headers,
    related: &Related,
    path: &Path,
) -> Verdict {
    translate_related(packet, headers, related, Direction::Request, path)
}

/// An ICMP error about a request, on to the client: it quotes `L → R`, the client knows `C → V`. Whoever sent it, it
/// now comes from the virtual address.
pub(crate) fn related_reply(packet: &mut PacketBuf<'_>, headers: &Headers, related: &Related, path: &Path) -> Verdict {
    translate_related(packet, headers, related, Direction::Reply, path)
}

fn translate_related(
    packet: &mut PacketBuf<'_>,
    headers: &Headers,
    related: &Related,
    direction: Direction,
    path: &Path,
) -> Verdict {
    let Some(ends) = ends(direction, path) else { return Verdict::Drop(DropReason::NotForwardable) };
    // Our own packet going the other way is what is quoted.
    let quoted = Ends { source: ends.destination, destination: ends.source };
    if let Err(verdict) = check(packet, headers, direction, path, 0) {
        return verdict;
    }
    let sequence = quoted_sequence(packet, related, direction, path);
    let (source, destination) = related.quoted.ports(packet.bytes()).unwrap_or((0, 0));
    let before = Ends {
        source: Endpoint::new(related.quoted.source, source),
        destination: Endpoint::new(related.quoted.destination, destination),
    };
    let new_family = AddressFamily::of(ends.destination.address);
    let translated = if new_family == headers.family {
        let outer = Rewrite { source: Some(ends.source), destination: Some(ends.destination) };
        let quoted = Rewrite { source: Some(quoted.source), destination: Some(quoted.destination) };
        icmp::rewrite_error(packet, headers, related, &outer, &quoted)
            .map(|()| family::ErrorPlaces { message: headers.transport, quoted_transport: related.quoted.transport })
    } else {
        let outer = (ends.source.address, ends.destination.address);
        family::translate_error(packet, headers, related, outer, (quoted.source, quoted.destination))
    };
    let places = match translated {
        Ok(places) => places,
        Err(reason) => return Verdict::Drop(reason),
    };
    if let Some((old, new)) = sequence {
        patch_message(packet, &places, places.quoted_transport + 4, old, new);
    }
    patch_quoted_checksum(packet, related, &before, &quoted, sequence, &places);
    lower_reported_mtu(packet, new_family, &places, direction, path);
    decrement_hop_limit(packet.bytes_mut(), new_family);
    Verdict::Forward { next_hop: ends.destination.address, direction, mtu: path.mtu }
}

/// The sequence number a quoted segment of the client's has, and the one the client knows it by.
fn quoted_sequence(packet: &PacketBuf<'_>, related: &Related, direction: Direction, path: &Path) -> Option<(u32, u32)> {
    let translation = path.full_nat.translation.filter(|_| direction == Direction::Reply)?;
    if related.quoted.protocol != Protocol::Tcp.number() {
        return None;
    }
    let &[_, _, _, _, a, b, c, d] = related.quoted.transport_header(packet.bytes())?;
    let old = u32::from_be_bytes([a, b, c, d]);
    Some((old, translation.to_client(old)))
}

/// What the way to the server takes is more than what the client may send while we still put something into it.
fn lower_reported_mtu(
    packet: &mut PacketBuf<'_>,
    new_family: AddressFamily,
    places: &family::ErrorPlaces,
    direction: Direction,
    path: &Path,
) {
    let Some(translation) = path.full_nat.translation.filter(|_| direction == Direction::Reply) else { return };
    let bytes = packet.bytes();
    let type_and_code = bytes.get(places.message..places.message + 2);
    let is_too_big = matches!(
        (new_family, type_and_code),
        (AddressFamily::Ipv4, Some([3, 4])) | (AddressFamily::Ipv6, Some([2, _]))
    );
    let inserted = segment::still_inserted_len(&translation, path);
    let Some(high) = read_u16(bytes, places.message + 4).filter(|_| is_too_big) else { return };
    let low = read_u16(bytes, places.message + 6).unwrap_or(0);
    let old = u32::from(high) << 16 | u32::from(low);
    // RFC 8201 §4: nobody lowers an IPv6 path below 1280 bytes.
    let least = if new_family == AddressFamily::Ipv6 { 1280 } else { 68 };
    let new = old.saturating_sub(u32::from(inserted)).max(least);
    if new < old {
        patch_message(packet, places, places.message + 4, old, new);
    }
}

/// Keeps the transport checksum of the quoted packet in step with its new ends (RFC 5508 REQ-4), as far as it is quoted.
/// SCTP's cannot be: it covers what is not quoted.
fn patch_quoted_checksum(
    packet: &mut PacketBuf<'_>,
    related: &Related,
    before: &Ends,
    after: &Ends,
    sequence: Option<(u32, u32)>,
    places: &family::ErrorPlaces,
) {
    let offset = match Protocol::from_number(related.quoted.protocol) {
        Some(Protocol::Tcp) => tcp::CHECKSUM,
        Some(Protocol::Udp) => udp::CHECKSUM,
        _ => return,
    };
    let field = places.quoted_transport + offset;
    let Some(old) = read_u16(packet.bytes(), field) else { return };
    if old == 0 && offset == udp::CHECKSUM {
        // RFC 768: there is none.
        return;
    }
    let mut delta = Delta::new();
    for (before, after) in [(before.source, after.source), (before.destination, after.destination)] {
        delta.replace_address(before.address, after.address);
        delta.replace_u16(before.port, after.port);
    }
    if let Some((before, after)) = sequence {
        delta.replace_bytes(before.to_be_bytes(), after.to_be_bytes());
    }
    let new = match delta.apply(old) {
        0 if offset == udp::CHECKSUM => 0xffff,
        new => new,
    };
    let message = places.message + icmp::CHECKSUM;
    let mut of_message = Delta::new();
    of_message.replace_u16(old, new);
    let sum = of_message.apply(read_u16(packet.bytes(), message).unwrap_or(0));
    write_u16(packet.bytes_mut(), field, new);
    write_u16(packet.bytes_mut(), message, sum);
}

/// Replaces four bytes of an ICMP message and updates its checksum.
fn patch_message(packet: &mut PacketBuf<'_>, places: &family::ErrorPlaces, at: usize, old: u32, new: u32) {
    let bytes = packet.bytes_mut();
    let mut delta = Delta::new();
    delta.replace_u16((old >> 16) as u16, (new >> 16) as u16);
    delta.replace_u16(old as u16, new as u16);
    write_u16(bytes, at, (new >> 16) as u16);
    write_u16(bytes, at + 2, new as u16);
    let field = places.message + icmp::CHECKSUM;
    let before = read_u16(bytes, field).unwrap_or(0);
    write_u16(bytes, field, delta.apply(before));
}
