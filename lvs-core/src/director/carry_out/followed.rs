//! Following the numbers and tags of connections whose packets must be plausible (`--check-window`).

use crate::connection::followed::Followed;
use crate::connection::sctp::SctpState;
use crate::connection::tags::{Tagged, Tags};
use crate::connection::tcp::TcpState;
use crate::connection::window::Numbers;
use crate::connection::{ConnectionId, State};
use crate::director::Director;
use crate::director::decide::belief::rule;
use crate::flow::Protocol;
use crate::packet::PacketBuf;
use crate::verdict::Direction;
use crate::wire::parse::Headers;

impl Director {
    /// Follows a packet, as it came, and counts it if it was not believed.
    pub(in crate::director) fn note_belief(
        &mut self,
        id: ConnectionId,
        is_disbelieved: bool,
        packet: &PacketBuf<'_>,
        headers: &Headers,
        direction: Direction,
    ) {
        let connection = self.flows.connections.get(id).expect("the caller found it");
        let bytes = packet.bytes();
        if !connection.checks_window || headers.protocol != connection.protocol.number() {
            return;
        }
        if is_disbelieved {
            self.outlet.disbelieved += 1;
            return;
        }
        let is_open = match connection.state {
            State::Tcp(state) => state == TcpState::Established,
            State::Sctp(state) => state == SctpState::Established,
            State::Udp => false,
        };
        let rule = rule(connection);
        let segment = self.tables().segment_of(Some(id), connection, bytes, headers, direction);
        match self.flows.followed.get_mut(id) {
            Some(Followed::Tcp(numbers)) => {
                if let Some(segment) = segment {
                    numbers.note(direction, &segment, rule, is_open);
                }
            }
            Some(Followed::Sctp(tags)) => {
                if let Some(packet) = Tagged::read(bytes, headers) {
                    tags.note(direction, &packet, rule.replies_bypass, is_open);
                }
            }
            None => {}
        }
    }

    /// Begins to follow a new connection.
    pub(in crate::director) fn watch(&mut self, id: ConnectionId, protocol: Protocol) {
        let followed = match protocol {
            Protocol::Tcp => Followed::Tcp(Numbers::default()),
            Protocol::Sctp => Followed::Sctp(Tags::default()),
            Protocol::Udp => return,
        };
        self.flows.followed.insert(id, followed);
    }
}
