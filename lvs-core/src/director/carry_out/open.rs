//! Opening a connection: its template, its place in the table, and the counts.

use crate::connection::{Connection, ConnectionId};
use crate::director::Director;
use crate::director::carry_out::accounting::Count;
use crate::director::carry_out::end::Along;
use crate::director::decide::choose::Persistence;
use crate::director::decide::classify::FirstPacket;
use crate::persistence::{Proof, Template, TemplateId};
use crate::service::ForwardMethod;
use crate::time::Instant;
use core::time::Duration;

impl Director {
    /// Finds or makes the template a new connection hangs on. There is room for it.
    pub(in crate::director) fn bind_template(
        &mut self,
        now: Instant,
        first: &FirstPacket,
        connection: &Connection,
        persistence: Persistence,
    ) -> Option<TemplateId> {
        let (key, real_port) = match persistence {
            Persistence::None => return None,
            Persistence::Existing(id) => return Some(id),
            Persistence::New { key, real_port } => (key, real_port),
        };
        let server = connection.server?;
        let service = self.services.table.get(first.service).expect("it was classified by it");
        let seconds = service.config.persistence_timeout_s.unwrap_or(0);
        let timeout = Duration::from_secs(u64::from(seconds));
        let template = Template {
            key,
            server,
            real_port,
            forward: connection.forward,
            timeout,
            deadline: now,
            children: 0,
            assured: false,
            proof: Proof::Nothing,
            in_packets: 0,
            mark: first.mark,
            invalidated: false,
        };
        let id = self.flows.templates.insert(now, template).expect("room was made for it");
        self.count_up(server, Count::Template);
        Some(id)
    }

    /// Puts a connection into the table, where there is room for it, and counts it.
    pub(in crate::director) fn open(&mut self, now: Instant, connection: Connection) -> ConnectionId {
        let (server, template) = (connection.server, connection.template);
        let (checks_window, protocol) = (connection.checks_window, connection.protocol);
        let conflict = self.tables().conflict_of(now, &connection);
        let id = self.flows.connections.insert(now, connection).expect("room was made for it");
        if checks_window {
            self.watch(id, protocol);
        }
        if let Some(other) = conflict {
            let connection = self.flows.connections.get(id).expect("it was just opened").clone();
            self.note_conflict(now, &connection, other);
        }
        if let Some(server) = server {
            self.count_up(server, Count::Connection);
        }
        self.hold_template(now, template);
        self.count_connection(server);
        id
    }

    /// A new connection of a template: one more child, and the template's timer starts again.
    fn hold_template(&mut self, now: Instant, template: Option<TemplateId>) {
        let Some(id) = template else { return };
        let Some(template) = self.flows.templates.get_mut(id) else { return };
        template.children += 1;
        self.flows.templates.renew(id, now);
    }

    /// A connection of its own for each packet: its template is used all the same.
    pub(in crate::director) fn use_template_once(&mut self, id: TemplateId, is_request: bool, is_answered: bool) {
        let Some(template) = self.flows.templates.get_mut(id) else { return };
        template.in_packets += u64::from(is_request);
        let talks_on = template.assured && is_request;
        template.assured |= is_answered;
        self.flows.templates.renew(id, self.clock.now);
        if talks_on {
            self.flows.templates.prove(id, Proof::Talk);
        }
    }

    /// A client that comes again is told that nobody serves it. Where replies bypass us that passes for a packet of the
    /// connection it had, which Linux finds a last time.
    pub(in crate::director) fn count_refusal(&mut self, id: ConnectionId, answer_len: usize) {
        let connection = self.flows.connections.get(id).expect("it is about to end");
        if !matches!(connection.forward, ForwardMethod::Nat | ForwardMethod::FullNat) {
            self.count_out(connection.server, 1, answer_len as u64);
        }
    }

    /// Ends a connection whose addresses and ports were just used anew, or whose server is gone.
    pub(in crate::director) fn give_up(&mut self, now: Instant, id: ConnectionId) {
        self.flows.connections.expire_now(id, now);
        self.end_connection(now, id, Along::Nothing);
    }
}
