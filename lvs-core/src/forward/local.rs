//! Real servers on the director's own host, whatever their method: packets go to its stack without a step on the way,
//! so neither hop limit nor MTU counts, and what the stack answers is translated as it leaves.
//! Source: Linux IPVS, as recorded in `conformance/`.

use crate::drop_reason::DropReason;
use crate::flow::Endpoint;
use crate::forward::{Path, full_nat};
use crate::packet::PacketBuf;
use crate::service::ForwardMethod;
use crate::verdict::{Direction, Verdict};
use crate::wire::icmp::{self, Related};
use crate::wire::parse::Headers;
use crate::wire::rewrite::{Rewrite, rewrite_with};

/// `C → V` becomes `C → R` with NAT and stays as it is otherwise.
pub(crate) fn request(packet: &mut PacketBuf<'_>, headers: &Headers, path: &Path) -> Verdict {
    let change = Rewrite { source: None, destination: Some(path.real) };
    or_drop(translate(packet, headers, &change, path), Verdict::Local)
}

/// `R → C` becomes `V → C` with NAT and stays as it is otherwise.
pub(crate) fn reply(packet: &mut PacketBuf<'_>, headers: &Headers, path: &Path) -> Verdict {
    let change = Rewrite { source: Some(path.virtual_endpoint), destination: None };
    or_drop(translate(packet, headers, &change, path), leaving(path.client, path))
}

/// `R → C` becomes `V → C` for a client that is the director's own host: it goes no further, so neither hop limit nor MTU
/// counts.
pub(crate) fn reply_to_host(packet: &mut PacketBuf<'_>, headers: &Headers, path: &Path) -> Verdict {
    if path.method == ForwardMethod::FullNat {
        return match full_nat::reply(packet, headers, path) {
            Verdict::Forward { .. } => Verdict::Local,
            other => other,
        };
    }
    let change = Rewrite { source: Some(path.virtual_endpoint), destination: None };
    or_drop(translate(packet, headers, &change, path), Verdict::Local)
}

/// An ICMP error about a NAT connection with such a server; `outer` and `quoted` say how it is translated.
pub(crate) fn related(
    packet: &mut PacketBuf<'_>,
    headers: &Headers,
    related: &Related,
    (outer, quoted): (&Rewrite, &Rewrite),
    direction: Direction,
    path: &Path,
) -> Verdict {
    let verdict = match direction {
        Direction::Request => Verdict::Local,
        Direction::Reply => leaving(Endpoint::new(headers.destination, 0), path),
    };
    or_drop(icmp::rewrite_error(packet, headers, related, outer, quoted), verdict)
}

fn translate(packet: &mut PacketBuf<'_>, headers: &Headers, change: &Rewrite, path: &Path) -> Result<(), DropReason> {
    if path.method == ForwardMethod::Nat { rewrite_with(packet, headers, change, path.care) } else { Ok(()) }
}

fn leaving(to: Endpoint, path: &Path) -> Verdict {
    Verdict::Forward { next_hop: to.address, direction: Direction::Reply, mtu: path.mtu }
}

fn or_drop(done: Result<(), DropReason>, verdict: Verdict) -> Verdict {
    done.map_or_else(Verdict::Drop, |()| verdict)
}
