//! The sweep over connections of deleted servers (`expire_nodest_conn`).

use crate::director::Director;
use crate::director::carry_out::end::Along;
use crate::director::tables::Tables;
use crate::service::ServerId;
use crate::time::Instant;
use core::time::Duration;

/// How long after a server's deletion its connections are swept: one tick of Linux's clock.
const SWEEP_DELAY: Duration = Duration::from_millis(4);

/// The sweep after a server's deletion (`expire_nodest_conn`): which places of the tables are still to be looked at.
#[derive(Clone, Copy, Debug)]
pub(in crate::director) struct Sweep {
    /// When the next part of it is due.
    pub due: Instant,
    connection: u32,
    template: u32,
}

impl Director {
    /// A server was deleted: where `expire_nodest_conn` says so, its connections are swept soon.
    pub(in crate::director) fn servers_left(&mut self, now: Instant) {
        if self.site.config.settings.expire_nodest_conn {
            self.upkeep.sweep = Some(Sweep { due: now + SWEEP_DELAY, connection: 0, template: 0 });
        }
    }

    pub(in crate::director) fn sweep_deleted(&mut self, now: Instant, budget: &mut u32) {
        let Some(mut sweep) = self.upkeep.sweep.filter(|sweep| sweep.due <= now) else { return };
        while *budget > 0 && sweep.connection < self.flows.connections.capacity() {
            let found = self
                .flows
                .connections
                .at(sweep.connection)
                .map(|(id, connection)| (id, connection.server, connection.children));
            sweep.connection += 1;
            *budget -= 1;
            if let Some((id, server, 0)) = found {
                if self.tables().is_deleted(server) {
                    self.end_connection(now, id, Along::Holders);
                }
            }
        }
        while *budget > 0
            && sweep.connection == self.flows.connections.capacity()
            && sweep.template < self.flows.templates.capacity()
        {
            let found = self.flows.templates.at(sweep.template).map(|(id, template)| (id, template.server));
            sweep.template += 1;
            *budget -= 1;
            if let Some((id, server)) = found {
                let is_childless = self.flows.templates.get(id).is_some_and(|template| template.children == 0);
                if is_childless && self.tables().is_deleted(Some(server)) {
                    self.end_template(now, id);
                }
            }
        }
        let is_done =
            sweep.connection == self.flows.connections.capacity() && sweep.template == self.flows.templates.capacity();
        sweep.due = now;
        self.upkeep.sweep = (!is_done).then_some(sweep);
    }
}

impl Tables<'_> {
    fn is_deleted(&self, server: Option<ServerId>) -> bool {
        server.and_then(|id| self.services.servers.get(id)).is_some_and(|record| !record.is_listed())
    }
}
