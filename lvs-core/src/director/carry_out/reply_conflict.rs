//! Telling of a connection that takes the replies of another one.

use crate::connection::Connection;
use crate::director::Director;
use crate::event::Event;
use crate::flow::Endpoint;
use crate::time::Instant;
use core::time::Duration;

/// How often a service's conflicts are told.
const TOLD_EVERY: Duration = Duration::from_secs(60);

impl Director {
    /// A connection was opened that takes the replies of the one to `other`: counted, and told once a minute.
    pub(in crate::director) fn note_conflict(&mut self, now: Instant, connection: &Connection, other: Endpoint) {
        self.outlet.reply_conflicts += 1;
        let key = connection.server.and_then(|id| self.services.servers.get(id)).map(|record| record.service);
        let Some(index) = key.and_then(|key| self.services.table.index_of(&key)) else { return };
        let Some(service) = self.services.table.get_mut(index) else { return };
        if service.told_conflict.is_some_and(|told| now.duration_since(told) < TOLD_EVERY) {
            return;
        }
        service.told_conflict = Some(now);
        self.outlet.events.push(Event::ReplyConflict {
            service: service.key,
            server: connection.real,
            client: connection.client,
            other,
        });
    }
}
