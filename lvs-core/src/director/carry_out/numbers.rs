//! Following the numbers of connections whose segments must be plausible (`--check-window`).

use crate::connection::tcp::TcpState;
use crate::connection::window::Numbers;
use crate::connection::{ConnectionId, State};
use crate::director::Director;
use crate::director::decide::belief::rule;
use crate::packet::PacketBuf;
use crate::verdict::Direction;
use crate::wire::parse::Headers;

impl Director {
    /// Follows the numbers of a packet, as it came, and counts it if it was not believed. `believed`: the state it leads
    /// to, if it was.
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
        let is_open = connection.state == State::Tcp(TcpState::Established);
        let rule = rule(connection);
        let segment = self.tables().segment_of(Some(id), connection, bytes, headers, direction);
        if let (Some(numbers), Some(segment)) = (self.flows.numbers.get_mut(id), segment) {
            numbers.note(direction, &segment, rule, is_open);
        }
    }

    /// Begins to follow a new connection's numbers.
    pub(in crate::director) fn follow_numbers(&mut self, id: ConnectionId) {
        self.flows.numbers.insert(id, Numbers::default());
    }
}
