//! Closing a connection whose server is gone: a RST for each side.

use crate::connection::tcp::TcpState;
use crate::connection::{ConnectionId, State};
use crate::director::Director;
use crate::director::decide::classify::Route;
use crate::director::plan::Moved;
use crate::forward;
use crate::packet::{HEADROOM, PacketBuf};
use crate::time::Instant;
use crate::verdict::Direction;
use crate::wire::parse::{self, Headers};
use crate::wire::reset;
use crate::wire::stream;

impl Director {
    /// Closes a TCP connection on a segment of one side: that side is answered with a RST, and the other one gets a RST
    /// in the segment's place through `poll_transmit`. In state CLOSE it stays a moment, to answer what is under way.
    pub(in crate::director) fn close(
        &mut self,
        now: Instant,
        id: ConnectionId,
        direction: Direction,
        packet: &PacketBuf<'_>,
        headers: &Headers,
    ) {
        let connection = self.flows.connections.get(id).expect("it was just found");
        let closed = State::Tcp(TcpState::Close);
        if connection.state != closed {
            let end = self.tables().related_route(now, Some(id), connection, direction, headers);
            let timeout = self.services.timeout_of(connection.server, closed);
            self.reset_in_place_of(id, packet, headers, &end);
            self.enter_state(id, Moved { state: closed, timeout }, direction);
            self.flows.connections.rearm(id, now, timeout);
        }
    }

    /// Queues a RST that goes where this segment would have gone.
    fn reset_in_place_of(&mut self, id: ConnectionId, packet: &PacketBuf<'_>, headers: &Headers, end: &Route) {
        let segment = &packet.bytes()[..headers.packet_len];
        let mut storage = alloc::vec![0; HEADROOM + segment.len()];
        storage[HEADROOM..].copy_from_slice(segment);
        let mut copy = PacketBuf::new(&mut storage, HEADROOM, segment.len());
        if reset::replace(&mut copy, headers).is_err() {
            return;
        }
        let Ok(headers) = parse::parse(copy.bytes()) else { return };
        let sequence = stream::numbers(copy.bytes(), &headers).map_or(0, |(sequence, _)| sequence);
        let verdict = match end.direction {
            Direction::Request => forward::request(&mut copy, &headers, &end.path),
            Direction::Reply => forward::reply(&mut copy, &headers, &end.path),
        };
        let headers = parse::parse(copy.bytes()).unwrap_or(headers);
        self.tables().keep_in_step(id, end.direction, sequence, &mut copy, &headers);
        let (start, len) = (copy.start(), copy.len());
        self.transmit_later(storage, (start, len), 0, verdict);
    }
}
