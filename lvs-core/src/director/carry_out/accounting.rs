//! Counting: connections bound to servers, the overload flag, statistics, events. Every count that goes up here comes
//! down here, exactly once. Source: Linux IPVS, as recorded in `conformance/`.

use crate::connection::Connection;
use crate::director::Director;
use crate::director::services::Overload;
use crate::drop_reason::DropReason;
use crate::event::{Event, Table};
use crate::service::table::ServiceIndex;
use crate::service::{RealServer, ServerId};
use alloc::collections::VecDeque;

/// Events waiting to be polled, bounded.
#[derive(Debug)]
pub(in crate::director) struct EventQueue {
    queue: VecDeque<Event>,
    capacity: usize,
    lost: u64,
}

impl EventQueue {
    pub fn new(capacity: u32) -> Self {
        Self { queue: VecDeque::new(), capacity: capacity as usize, lost: 0 }
    }

    pub fn push(&mut self, event: Event) {
        if self.queue.len() < self.capacity {
            self.queue.push_back(event);
        } else {
            self.lost += 1;
        }
    }

    pub fn pop(&mut self) -> Option<Event> {
        self.queue.pop_front().or_else(|| {
            let count = core::mem::take(&mut self.lost);
            (count > 0).then_some(Event::Lost { count })
        })
    }
}

/// A count of a server that moves by one.
#[derive(Clone, Copy)]
pub(in crate::director) enum Count {
    /// A connection bound to it; the total moves.
    Connection,
    /// A connection became active.
    Active,
    /// A template bound to it.
    Template,
    /// A connection expected for it, of which no packet has come.
    Expected,
}

impl Count {
    /// Where a connection bound to a server counts.
    pub const fn of(connection: &Connection) -> Self {
        if connection.is_expected { Self::Expected } else { Self::Connection }
    }
}

impl Director {
    pub(in crate::director) fn count_drop(&mut self, reason: DropReason) {
        self.count_drops(reason, 1);
    }

    /// Counts so many packets refused for one reason.
    pub(in crate::director) fn count_drops(&mut self, reason: DropReason, count: u32) {
        self.outlet.drops[reason as usize] += u64::from(count);
    }

    /// Counts up for a server, listed or in the trash.
    pub(in crate::director) fn count_up(&mut self, id: ServerId, count: Count) {
        let upper = self.services.servers.get(id).map_or(0, |record| record.config.upper_threshold);
        self.change_counts(id, |server| {
            match count {
                Count::Active => server.active_connections += 1,
                Count::Template => server.persistent_connections += 1,
                Count::Expected => server.expected_connections += 1,
                Count::Connection => {
                    server.total_connections += 1;
                    // Evaluated on the exact crossing only, as Linux 6.1.183 and later do.
                    if upper != 0 && server.total_connections == upper {
                        server.is_overloaded = true;
                    }
                }
            }
        });
    }

    /// Counts down for a server, listed or in the trash.
    pub(in crate::director) fn count_down(&mut self, id: ServerId, count: Count) {
        let (upper, lower) = self
            .services
            .servers
            .get(id)
            .map_or((0, 0), |record| thresholds(record.config.upper_threshold, record.config.lower_threshold));
        self.change_counts(id, |server| match count {
            Count::Active => server.active_connections -= 1,
            Count::Template => server.persistent_connections -= 1,
            Count::Expected => server.expected_connections -= 1,
            Count::Connection => {
                if upper != 0 && server.total_connections == lower {
                    server.is_overloaded = server.total_connections > upper;
                }
                server.total_connections -= 1;
            }
        });
        self.note_count_down(id, count);
    }

    pub(in crate::director) fn change_counts(&mut self, id: ServerId, change: impl FnOnce(&mut RealServer)) {
        let schedulers = &mut self.schedulers;
        let told = |service, position, servers: &[RealServer]| schedulers.load_changed(service, position, servers);
        match self.services.change_counts(id, change, told) {
            Overload::Same => {}
            Overload::Begun(service, server) => self.outlet.events.push(Event::ServerOverloaded { service, server }),
            Overload::Over(service, server) => self.outlet.events.push(Event::ServerAvailable { service, server }),
        }
    }

    /// Counts a packet from a client, with its length on the wire. Only while the server is listed.
    pub(in crate::director) fn count_in(&mut self, server: Option<ServerId>, packets: u64, bytes: u64) {
        self.services.measure(server, |counters| counters.count_in(packets, bytes));
    }

    /// Counts a packet from a server.
    pub(in crate::director) fn count_out(&mut self, server: Option<ServerId>, packets: u64, bytes: u64) {
        self.services.measure(server, |counters| counters.count_out(packets, bytes));
    }

    /// Counts a scheduled connection.
    pub(in crate::director) fn count_connection(&mut self, server: Option<ServerId>) {
        self.services.measure(server, |counters| counters.connections += 1);
    }

    /// Tells once that a table became full.
    pub(in crate::director) fn tell_full(&mut self, table: Table) {
        let told = &mut self.outlet.full_announced[table as usize];
        if !*told {
            *told = true;
            self.outlet.events.push(Event::TableFull { table });
        }
    }

    /// Tells once that a service turned unavailable.
    pub(in crate::director) fn tell_unavailable(&mut self, service: ServiceIndex) {
        let Some(service) = self.services.table.get_mut(service) else { return };
        if !service.is_unavailable {
            service.is_unavailable = true;
            self.outlet.events.push(Event::ServiceUnavailable { service: service.key });
        }
    }
}

/// The upper threshold, and the lower one in force: three quarters of the upper, rounded up, where none is set.
pub(in crate::director) const fn thresholds(upper: u32, lower: u32) -> (u32, u32) {
    (upper, if lower != 0 { lower } else { upper - upper / 4 })
}
