//! ICMP errors about connections, in both directions: translated for NAT, passed on as they are otherwise.
//! They are counted but move neither state nor timer. Source: Linux IPVS, as recorded in `conformance/`.

use core::net::IpAddr;

use super::Director;
use super::look::FlowEnd;
use super::tables::Tables;
use crate::connection::{Connection, ConnectionId};
use crate::forward::{full_nat, nat};
use crate::packet::PacketBuf;
use crate::service::ForwardMethod;
use crate::verdict::{Direction, Verdict};
use crate::wire::icmp::Related;
use crate::wire::parse::Headers;

impl Director {
    /// An error from the client's side about a reply: on to the real server.
    pub(super) fn related_request(
        &mut self,
        id: ConnectionId,
        packet: &mut PacketBuf<'_>,
        headers: &Headers,
        related: &Related,
    ) -> Verdict {
        let connection = self.flows.connections.get(id).expect("it was just found");
        let (method, server) = (connection.forward, connection.server);
        let is_translated = matches!(method, ForwardMethod::Nat | ForwardMethod::FullNat);
        if is_translated {
            if let Err(reason) = nat::check_related(packet, headers, related) {
                return Verdict::Drop(reason);
            }
        }
        let end = self.tables().related_end(self.clock.now, Some(id), connection, Direction::Request, headers);
        self.count_in(server, 1, headers.packet_len as u64);
        if is_translated {
            return translate_related(packet, headers, related, &end);
        }
        let connection = self.flows.connections.get_mut(id).expect("it was just found");
        connection.in_packets += 1;
        self.send(packet, headers, &end)
    }

    /// An error from a server, or from a router on the way to it, about a request: on to the client.
    pub(super) fn related_reply(
        &mut self,
        id: ConnectionId,
        packet: &mut PacketBuf<'_>,
        headers: &Headers,
        related: &Related,
    ) -> Verdict {
        let connection = self.flows.connections.get(id).expect("it was just found");
        let (method, server) = (connection.forward, connection.server);
        let is_translated = matches!(method, ForwardMethod::Nat | ForwardMethod::FullNat);
        if is_translated {
            if let Err(reason) = nat::check_related(packet, headers, related) {
                return Verdict::Drop(reason);
            }
        }
        if self.tables().keeps_related(connection, headers) {
            self.count_out(server, 1, headers.packet_len as u64);
            return Verdict::Pass;
        }
        let end = self.tables().related_end(self.clock.now, Some(id), connection, Direction::Reply, headers);
        let verdict = if is_translated {
            translate_related(packet, headers, related, &end)
        } else {
            self.send(packet, headers, &end)
        };
        if matches!(verdict, Verdict::Forward { .. }) {
            self.count_out(server, 1, headers.packet_len as u64);
        }
        verdict
    }
}

impl Tables<'_> {
    /// Whether a server sent an error about a request to the host itself: it is counted and stays here. With FullNAT
    /// the director is the client the server knows, and the error is for the client behind.
    pub(super) fn keeps_related(&self, connection: &Connection, headers: &Headers) -> bool {
        connection.forward != ForwardMethod::FullNat && self.is_host_address(headers.destination)
    }

    /// Whether packets to this address end here: one of the director's own, or a virtual one.
    pub(super) fn is_host_address(&self, address: IpAddr) -> bool {
        self.is_own_address(address) || self.services.table.is_virtual(address)
    }
}

/// Translates an ICMP error about a connection whose addresses are translated.
pub(super) fn translate_related(
    packet: &mut PacketBuf<'_>,
    headers: &Headers,
    related: &Related,
    end: &FlowEnd,
) -> Verdict {
    match (end.path.method, end.direction) {
        (ForwardMethod::FullNat, Direction::Request) => full_nat::related_request(packet, headers, related, &end.path),
        (ForwardMethod::FullNat, Direction::Reply) => full_nat::related_reply(packet, headers, related, &end.path),
        (_, Direction::Request) => nat::related_request(packet, headers, related, &end.path),
        (_, Direction::Reply) => nat::related_reply(packet, headers, related, &end.path),
    }
}
