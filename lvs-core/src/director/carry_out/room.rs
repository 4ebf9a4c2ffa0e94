//! Making room for a new connection: what `decide/room.rs` has chosen ends.

use crate::connection::ConnectionId;
use crate::connection::newcomer::Newcomer;
use crate::director::Director;
use crate::director::HalfOpenPolicy;
use crate::director::carry_out::end::Along;
use crate::director::decide::choose::Persistence;
use crate::director::decide::room::Room;
use crate::drop_reason::DropReason;
use crate::event::Table;
use crate::time::Instant;
use core::net::IpAddr;

/// Why a connection gives way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Short {
    HalfOpen,
    /// To a connection of this client.
    Place(IpAddr),
    Port,
    Expectation,
}

impl Director {
    /// Ends what gives way to a connection of this client. `kept` is the template it will hang on.
    pub(in crate::director) fn make_room(&mut self, now: Instant, room: &Room, kept: &Persistence, client: IpAddr) {
        // What is evicted must not take the newcomer's own template along.
        let kept = match kept {
            Persistence::Existing(id) => Some(*id),
            _ => None,
        };
        if let Some(template) = kept.and_then(|id| self.flows.templates.get_mut(id)) {
            template.children += 1;
        }
        for (id, short) in
            [(room.port, Short::Port), (room.half_open, Short::HalfOpen), (room.place, Short::Place(client))]
        {
            if let Some(id) = id {
                self.evict(now, id, short);
            }
        }
        if let Some(template) = kept.and_then(|id| self.flows.templates.get_mut(id)) {
            template.children -= 1;
        }
        if let Some(id) = room.template {
            self.tell_full(Table::Templates);
            self.defence.templates_evicted += u64::from(self.flows.templates.get(id).is_some());
            self.remove_template(id);
        }
    }

    /// Tells that there was no room.
    pub(in crate::director) fn tell_refusal(&mut self, reason: DropReason) {
        match reason {
            DropReason::HalfOpenFull => self.tell_full(Table::HalfOpen),
            DropReason::ConnectionTableFull | DropReason::ClientEndpointFull => self.tell_full(Table::Connections),
            DropReason::TemplateTableFull | DropReason::ClientTemplatesFull => self.tell_full(Table::Templates),
            _ => {}
        }
    }

    /// Ends what gives way to an expected connection: one announced on the same connection, or somebody else's.
    pub(in crate::director) fn make_room_for_expected(
        &mut self,
        now: Instant,
        id: ConnectionId,
        is_own: bool,
        client: IpAddr,
    ) {
        self.evict(now, id, if is_own { Short::Expectation } else { Short::Place(client) });
    }

    /// Ends what gives way to a connection that was opened again.
    pub(in crate::director) fn make_room_for_reopened(&mut self, now: Instant, id: ConnectionId) {
        self.evict(now, id, Short::HalfOpen);
    }

    /// What hung on a connection has ended, and it may be half-open like others.
    pub(in crate::director) fn keep_half_open_bound(&mut self, now: Instant) {
        let is_over = self.flows.connections.newcomers_len(Newcomer::HalfOpen) > self.site.config.half_open_bound();
        if is_over && self.site.config.half_open_policy == HalfOpenPolicy::EvictOldest {
            if let Some(id) = self.flows.connections.oldest_half_open(None) {
                self.evict(now, id, Short::HalfOpen);
            }
        }
    }

    /// Ends a connection for another one, with the template that it alone held.
    fn evict(&mut self, now: Instant, id: ConnectionId, short: Short) {
        let kind = self.flows.connections.kind(id);
        let counter = match short {
            Short::HalfOpen => {
                self.tell_full(Table::HalfOpen);
                &mut self.defence.half_open_evicted
            }
            Short::Place(_) => {
                self.tell_full(Table::Connections);
                match kind {
                    Some(Newcomer::Talked) => &mut self.defence.talked_evicted,
                    _ => &mut self.defence.newcomers_evicted,
                }
            }
            Short::Port => &mut self.defence.ports_taken_back,
            Short::Expectation => &mut self.defence.expectations_evicted,
        };
        *counter += 1;
        // Others were passed over for it only where any of them would have made room.
        if let Short::Place(client) = short {
            self.flows.connections.pass_over(id, client);
        }
        self.end_connection(now, id, Along::Template);
    }

    /// Once a quarter is free again, the next time a table is full is worth telling.
    pub(in crate::director) fn note_room(&mut self) {
        let fill = [
            (Table::Connections, self.flows.connections.len(), self.flows.connections.capacity()),
            (Table::Templates, self.flows.templates.len(), self.flows.templates.capacity()),
            (
                Table::HalfOpen,
                self.flows.connections.newcomers_len(Newcomer::HalfOpen),
                self.site.config.half_open_bound(),
            ),
        ];
        for (table, len, capacity) in fill {
            self.outlet.full_announced[table as usize] &= len > capacity / 4 * 3;
        }
    }
}
