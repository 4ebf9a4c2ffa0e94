//! Direct routing (ipvsadm: `-g`, printed `Route`): the packet stays as it is, hop limit apart; the verdict names the
//! real server as next hop. Bypass connections go the same way, to their own destination.
//! Source: Linux IPVS, as recorded in `conformance/`.

use core::net::IpAddr;

use crate::forward::{Path, check_way_out, pass_through};
use crate::packet::PacketBuf;
use crate::verdict::{Direction, Verdict};
use crate::wire::parse::Headers;

/// Hands the packet to `next_hop`.
pub(crate) fn request(packet: &mut PacketBuf<'_>, headers: &Headers, next_hop: IpAddr, path: &Path) -> Verdict {
    pass_on(packet, headers, next_hop, Direction::Request, path)
}

/// A server that answers through the director: routed on, not rewritten.
pub(crate) fn reply(packet: &mut PacketBuf<'_>, headers: &Headers, path: &Path) -> Verdict {
    pass_on(packet, headers, headers.destination, Direction::Reply, path)
}

fn pass_on(
    packet: &mut PacketBuf<'_>,
    headers: &Headers,
    next_hop: IpAddr,
    direction: Direction,
    path: &Path,
) -> Verdict {
    if let Err(verdict) = check_way_out(packet, headers, direction, path) {
        return verdict;
    }
    packet.set_len(headers.packet_len);
    pass_through(packet, headers, path);
    Verdict::Forward { next_hop, direction, mtu: path.mtu }
}
