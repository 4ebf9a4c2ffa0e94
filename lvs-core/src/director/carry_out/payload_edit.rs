//! What a helper found is remembered, and the connection it expects is opened.

use crate::connection::ConnectionId;
use crate::director::Director;
use crate::director::carry_out::accounting::Count;
use crate::director::decide::payload_edit::Help;
use crate::director::decide::payload_edit::LISTEN;
use crate::director::plan::Moved;
use crate::time::Instant;
use crate::verdict::Direction;

impl Director {
    /// Remembers what a helper found, and opens what it expects.
    pub(in crate::director) fn keep_help(&mut self, now: Instant, id: ConnectionId, help: &Help, mark: u32) {
        if let Some(helped) = self.flows.helped.get_mut(id) {
            (helped.notes, helped.counts, helped.changed) = (help.notes, help.counts, help.changed.clone());
        }
        let Some(mut expected) = help.expected.clone() else { return };
        match self.tables().find_expected(now, &expected) {
            Some(known) => self.listen_again(now, known),
            None => {
                // Before anything gives way, so that it is the one that was chosen.
                self.lease_expected(now, &expected);
                let announced = self.flows.helped.get(id).map(|helped| &helped.announced[..]).unwrap_or_default();
                if let Some(gives_way) = help.gives_way {
                    let is_own = announced.contains(&gives_way);
                    self.make_room_for_expected(now, gives_way, is_own, expected.client.address);
                }
                expected.mark = mark;
                expected.parent = Some(id);
                expected.is_local = self.tables().is_local(&expected);
                expected.client_is_host = self.site.config.host_addresses.contains(&expected.client.address);
                let server = expected.server;
                let child = self.flows.connections.insert(now, expected).expect("room was made for it");
                if let Some(server) = server {
                    self.count_up(server, Count::Expected);
                }
                self.open_translation(child);
                self.flows.connections.adopt(id);
                let connections = &self.flows.connections;
                if let Some(helped) = self.flows.helped.get_mut(id) {
                    helped.announced.retain(|id| connections.is_expected(*id));
                    helped.announced.push(child);
                }
            }
        }
    }

    /// A connection that was announced again waits for its first packet again.
    fn listen_again(&mut self, now: Instant, id: ConnectionId) {
        let server = self.flows.connections.get(id).and_then(|connection| connection.server);
        let timeout = self.services.timeout_of(server, LISTEN);
        self.enter_state(id, Moved { state: LISTEN, timeout }, Direction::Request);
        self.flows.connections.rearm(id, now, timeout);
    }
}
