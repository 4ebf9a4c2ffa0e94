//! ICMP errors about connections, in both directions: translated for NAT, passed on as they are otherwise.
//! They are counted but move neither state nor timer. Source: spec datapath §§1.5–1.6, 2.6, 6.

use super::Director;
use crate::connection::ConnectionId;
use crate::forward;
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
        if method == ForwardMethod::Nat {
            if let Err(reason) = forward::nat::check_related(packet, headers, related) {
                return Verdict::Drop(reason);
            }
        }
        let end = self.flow_end(self.now, connection, Direction::Request, headers);
        self.count_in(server, 1, headers.packet_len as u64);
        if method == ForwardMethod::Nat {
            return forward::nat::related_request(packet, headers, related, &end.path);
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
        let end = self.flow_end(self.now, connection, Direction::Reply, headers);
        let verdict = if method == ForwardMethod::Nat {
            match forward::nat::check_related(packet, headers, related) {
                Ok(()) => forward::nat::related_reply(packet, headers, related, &end.path),
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
