//! ICMP errors about connections, in both directions: translated for NAT, passed on as they are otherwise.
//! They are counted but move neither state nor timer. Source: Linux IPVS, as recorded in `conformance/`.

use super::Director;
use super::look::FlowEnd;
use crate::connection::ConnectionId;
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
        let connection = self.connections.get(id).expect("it was just found");
        let (method, server) = (connection.forward, connection.server);
        let is_translated = matches!(method, ForwardMethod::Nat | ForwardMethod::FullNat);
        if is_translated {
            if let Err(reason) = nat::check_related(packet, headers, related) {
                return Verdict::Drop(reason);
            }
        }
        let end = self.related_end(self.now, Some(id), connection, Direction::Request, headers);
        self.count_in(server, 1, headers.packet_len as u64);
        if is_translated {
            return translate_related(packet, headers, related, &end);
        }
        let connection = self.connections.get_mut(id).expect("it was just found");
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
        let connection = self.connections.get(id).expect("it was just found");
        let (method, server) = (connection.forward, connection.server);
        let end = self.related_end(self.now, Some(id), connection, Direction::Reply, headers);
        let verdict = if matches!(method, ForwardMethod::Nat | ForwardMethod::FullNat) {
            match nat::check_related(packet, headers, related) {
                Ok(()) => translate_related(packet, headers, related, &end),
                Err(reason) => Verdict::Drop(reason),
            }
        } else {
            self.send(packet, headers, &end)
        };
        if matches!(verdict, Verdict::Forward { .. }) {
            self.count_out(server, 1, headers.packet_len as u64);
        }
        verdict
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
