//! The end of a connection or a template, with what hangs on it. Every count that went up for it comes down here.

use crate::connection::ConnectionId;
use crate::director::Director;
use crate::director::carry_out::accounting::Count;
use crate::persistence::TemplateId;
use crate::time::Instant;
use core::time::Duration;

/// A connection or template that cannot end yet, because others hang on it, is looked at again this much later.
const LATER: Duration = Duration::from_secs(60);

/// What ends with a connection, once nothing else hangs on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::director) enum Along {
    /// Nothing: it has timed out.
    Nothing,
    /// Its template, unless that has proved itself: it has made room.
    Template,
    /// That, and the connection it belonged to.
    Holders,
}

impl Director {
    /// Ends a connection, or puts its end off while others hang on it.
    pub(in crate::director) fn end_connection(&mut self, now: Instant, id: ConnectionId, along: Along) {
        let Some(connection) = self.flows.connections.get(id) else { return };
        if connection.children > 0 {
            self.flows.connections.rearm(id, now, LATER);
            return;
        }
        let Some(connection) = self.flows.connections.remove(id) else { return };
        self.flows.full_nat.release(now, id, &connection);
        self.note_room();
        if connection.has_helper {
            self.flows.helped.remove(id);
        }
        if connection.checks_window {
            self.flows.followed.remove(id);
        }
        if let Some(server) = connection.server {
            if connection.state.is_over() {
                self.note_over(server, false);
            }
            if connection.is_active {
                self.count_down(server, Count::Active);
            }
            self.count_down(server, Count::of(&connection));
        }
        if let Some(template) = connection.template {
            self.release_template(now, template, along);
        }
        if let Some(parent) = connection.parent {
            self.release_parent(now, parent, along);
        }
    }

    fn release_template(&mut self, now: Instant, id: TemplateId, along: Along) {
        let Some(template) = self.flows.templates.get_mut(id) else { return };
        template.children -= 1;
        if along != Along::Nothing && template.children == 0 && !template.assured {
            self.end_template(now, id);
        }
    }

    fn release_parent(&mut self, now: Instant, id: ConnectionId, along: Along) {
        let Some(left) = self.flows.connections.disown(id) else { return };
        if along == Along::Holders && left == 0 {
            self.end_connection(now, id, Along::Holders);
        } else {
            self.keep_half_open_bound(now);
        }
    }

    /// Ends a template, or puts its end off while connections hang on it: from then on it is refreshed by 60 s, not
    /// by the service's timeout, as Linux does.
    pub(in crate::director) fn end_template(&mut self, now: Instant, id: TemplateId) {
        let Some(template) = self.flows.templates.get(id) else { return };
        if template.children > 0 {
            self.flows.templates.rearm(id, now, LATER);
            return;
        }
        self.remove_template(id);
    }

    /// Ends a template, whatever hangs on it.
    pub(in crate::director) fn remove_template(&mut self, id: TemplateId) {
        let Some(template) = self.flows.templates.remove(id) else { return };
        self.note_room();
        self.count_down(template.server, Count::Template);
    }
}
