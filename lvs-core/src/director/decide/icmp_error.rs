//! ICMP errors about connections, in both directions: translated for NAT, passed on as they are otherwise.
//! They are counted but move neither state nor timer. Source: Linux IPVS, as recorded in `conformance/`.

use crate::connection::Connection;
use crate::director::decide::classify::Route;
use crate::director::tables::Tables;
use crate::forward::{full_nat, nat};
use crate::packet::PacketBuf;
use crate::service::ForwardMethod;
use crate::verdict::{Direction, Verdict};
use crate::wire::icmp::Related;
use crate::wire::parse::Headers;
use core::net::IpAddr;

impl Tables<'_> {
    /// Whether a server sent an error about a request to the host itself: it is counted and stays here. With FullNAT
    /// the director is the client the server knows, and the error is for the client behind.
    pub(in crate::director) fn keeps_related(&self, connection: &Connection, headers: &Headers) -> bool {
        connection.forward != ForwardMethod::FullNat && self.is_host_address(headers.destination)
    }

    /// Whether packets to this address end here: one of the director's own, or a virtual one.
    pub(in crate::director) fn is_host_address(&self, address: IpAddr) -> bool {
        self.is_own_address(address) || self.services.table.is_virtual(address)
    }
}

/// Translates an ICMP error about a connection whose addresses are translated.
pub(in crate::director) fn translate_related(
    packet: &mut PacketBuf<'_>,
    headers: &Headers,
    related: &Related,
    end: &Route,
) -> Verdict {
    match (end.path.method, end.direction) {
        (ForwardMethod::FullNat, Direction::Request) => full_nat::related_request(packet, headers, related, &end.path),
        (ForwardMethod::FullNat, Direction::Reply) => full_nat::related_reply(packet, headers, related, &end.path),
        (_, Direction::Request) => nat::related_request(packet, headers, related, &end.path),
        (_, Direction::Reply) => nat::related_reply(packet, headers, related, &end.path),
    }
}
