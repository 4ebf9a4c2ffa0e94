//! Network address translation (ipvsadm: `-m`, printed `Masq`): requests get the real server's address and port,
//! replies the virtual ones. Source: Linux IPVS, as recorded in `conformance/`.

use crate::drop_reason::DropReason;
use crate::forward::{Path, check_way_out, local, pass_through};
use crate::packet::PacketBuf;
use crate::verdict::{Direction, Verdict};
use crate::wire::icmp::{self, Related};
use crate::wire::parse::Headers;
use crate::wire::rewrite::{Rewrite, decrement_hop_limit, rewrite_with};

/// `C → V` becomes `C → R`.
pub(crate) fn request(packet: &mut PacketBuf<'_>, headers: &Headers, path: &Path) -> Verdict {
    if let Err(verdict) = check_way_out(packet, headers, Direction::Request, path) {
        return verdict;
    }
    let change = Rewrite { source: None, destination: Some(path.real) };
    translate(packet, headers, &change, Direction::Request, path)
}

/// `R → C` becomes `V → C`.
pub(crate) fn reply(packet: &mut PacketBuf<'_>, headers: &Headers, path: &Path) -> Verdict {
    if let Err(verdict) = check_way_out(packet, headers, Direction::Reply, path) {
        return verdict;
    }
    let change = Rewrite { source: Some(path.virtual_endpoint), destination: None };
    translate(packet, headers, &change, Direction::Reply, path)
}

fn translate(
    packet: &mut PacketBuf<'_>,
    headers: &Headers,
    change: &Rewrite,
    direction: Direction,
    path: &Path,
) -> Verdict {
    if let Err(reason) = rewrite_with(packet, headers, change, path.care) {
        return Verdict::Drop(reason);
    }
    pass_through(packet, headers, path);
    let next_hop = match direction {
        Direction::Request => path.real.address,
        Direction::Reply => path.client.address,
    };
    Verdict::Forward { next_hop, direction, mtu: path.mtu }
}

/// Whether an ICMP error about a NAT connection may be translated: its own checksum must be right, and it must quote
/// the ports.
pub(crate) fn check_related(packet: &PacketBuf<'_>, headers: &Headers, related: &Related) -> Result<(), DropReason> {
    if !icmp::checksum_is_valid(packet.bytes(), headers) {
        return Err(DropReason::BadIcmpChecksum);
    }
    if related.quoted.ports(packet.bytes()).is_none() {
        return Err(DropReason::TruncatedIcmp);
    }
    Ok(())
}

/// An ICMP error about a reply, on to the real server: it quotes `V → C`, the server knows `R → C`.
pub(crate) fn related_request(
    packet: &mut PacketBuf<'_>,
    headers: &Headers,
    related: &Related,
    path: &Path,
) -> Verdict {
    let outer = Rewrite { source: None, destination: Some(path.real) };
    let quoted = Rewrite { source: Some(path.real), destination: None };
    translate_related(packet, headers, related, &outer, &quoted, Direction::Request, path)
}

/// An ICMP error about a request, on to the client: it quotes `C → R`, the client knows `C → V`. Whoever sent it,
/// it now comes from the virtual address.
pub(crate) fn related_reply(packet: &mut PacketBuf<'_>, headers: &Headers, related: &Related, path: &Path) -> Verdict {
    let outer = Rewrite { source: Some(path.virtual_endpoint), destination: None };
    let quoted = Rewrite { source: None, destination: Some(path.virtual_endpoint) };
    translate_related(packet, headers, related, &outer, &quoted, Direction::Reply, path)
}

fn translate_related(
    packet: &mut PacketBuf<'_>,
    headers: &Headers,
    related: &Related,
    outer: &Rewrite,
    quoted: &Rewrite,
    direction: Direction,
    path: &Path,
) -> Verdict {
    if path.is_local {
        return local::related(packet, headers, related, (outer, quoted), direction, path);
    }
    if let Err(verdict) = check_way_out(packet, headers, direction, path) {
        return verdict;
    }
    if let Err(reason) = icmp::rewrite_error(packet, headers, related, outer, quoted) {
        return Verdict::Drop(reason);
    }
    decrement_hop_limit(packet.bytes_mut(), headers.family);
    let next_hop = match direction {
        Direction::Request => path.real.address,
        // The error goes where it was going: to the client, or to a router between.
        Direction::Reply => headers.destination,
    };
    Verdict::Forward { next_hop, direction, mtu: path.mtu }
}
