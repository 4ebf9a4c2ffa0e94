//! What a packet does to its connection: who was heard, and the state it goes to, with what hangs on that.

use crate::connection::sctp::SctpState;
use crate::connection::tcp::TcpState;
use crate::connection::{Connection, ConnectionId, State, Talk};
use crate::director::Director;
use crate::director::carry_out::accounting::Count;
use crate::director::plan::Moved;
use crate::flow::Protocol;
use crate::persistence::Proof;
use crate::verdict::Direction;

impl Director {
    /// Notes who was heard: an expected connection counts from its first packet on, and datagrams to and fro prove that
    /// the client is there.
    pub(in crate::director) fn heard(&mut self, id: ConnectionId, direction: Direction) {
        let is_settled = |connection: &Connection| connection.talk == Talk::Mutual && !connection.is_expected;
        if self.flows.connections.get(id).is_some_and(is_settled) {
            return;
        }
        let was_expected = self.flows.connections.heard(id, direction);
        let connection = self.flows.connections.get(id).expect("the caller found it");
        let (server, template) = (connection.server, connection.template);
        let is_proven = connection.talk == Talk::Mutual && connection.protocol == Protocol::Udp;
        if let (Some(server), true) = (server, was_expected) {
            self.count_down(server, Count::Expected);
            self.count_up(server, Count::Connection);
        }
        if let (Some(template), true) = (template, is_proven) {
            self.flows.templates.prove(template, Proof::Talk);
        }
    }

    /// Puts a connection into a state: timeout, activity of its server, its template's assurance.
    pub(in crate::director) fn enter_state(&mut self, id: ConnectionId, moved: Moved, direction: Direction) {
        let Moved { state: next, timeout } = moved;
        let connection = self.flows.connections.get_mut(id).expect("the caller found it");
        let (server, template, before) = (connection.server, connection.template, connection.state);
        let (was_active, is_active) = (connection.is_active, next.is_active());
        connection.timeout = timeout;
        connection.is_active = is_active;
        if direction == Direction::Reply {
            connection.no_output = false;
        }
        if next == before && was_active == is_active && next != State::Udp {
            return;
        }
        self.flows.connections.set_state(id, next);
        if let (Some(server), true) = (server, before.is_over() != next.is_over()) {
            self.note_over(server, next.is_over());
        }
        if let (Some(server), true) = (server, was_active != is_active) {
            if is_active {
                self.count_up(server, Count::Active);
            } else {
                self.count_down(server, Count::Active);
            }
        }
        let assures = match next {
            State::Udp => direction == Direction::Reply,
            _ => {
                next != before
                    && matches!(next, State::Tcp(TcpState::Established) | State::Sctp(SctpState::Established))
            }
        };
        if let (Some(id), true) = (template, assures) {
            if let Some(template) = self.flows.templates.get_mut(id) {
                template.assured = true;
            }
            if next != State::Udp {
                self.flows.templates.prove(id, Proof::Handshake);
            }
        }
    }
}
