//! The weights schedulers see: kept up to date as operators edit, agents report, servers warm up and drain.
//! The arithmetic is `service/effective_weight.rs`'s; a weight that moved reaches the scheduler as an edit would.

use crate::director::Director;
use crate::director::server_timers::ServerTimer;
use crate::director::tables::Tables;
use crate::error::ControlError;
use crate::scheduler::Change;
use crate::service::effective_weight::{Ramp, effective_weight, next_change};
use crate::service::table::ServiceIndex;
use crate::service::{ServerId, ServerKey, ServiceKey};
use crate::time::Instant;

/// Neutral load factor.
pub(in crate::director) const FACTOR_ONE: u32 = 1024;

impl Tables<'_> {
    /// The weight schedulers use: the operator's, moved by slow start and the reported factor; 0 while draining.
    pub(in crate::director) fn effective_weight(&self, now: Instant, id: ServerId) -> u32 {
        self.services.servers.get(id).map_or(0, |record| match record.drain {
            Some(_) => 0,
            None => effective_weight(record.config.weight, self.ramp(now, id), record.factor),
        })
    }

    fn ramp(&self, now: Instant, id: ServerId) -> Option<Ramp> {
        let record = self.services.servers.get(id)?;
        let slow_start = self.services.list_of_record(record)?.config.slow_start?;
        Some(Ramp { slow_start, elapsed: now.duration_since(record.ramp_since?) })
    }
}

impl Director {
    /// A listed server was added or came back from weight 0: it warms up if its service says so.
    pub(in crate::director) fn start_ramp(&mut self, now: Instant, id: ServerId) {
        let Some(record) = self.services.servers.get_mut(id) else { return };
        record.ramp_since = Some(now);
        self.time_ramp(now, id);
    }

    /// Sets the timer for the next step of a server's ramp; the ramp is over if there is none.
    pub(in crate::director) fn time_ramp(&mut self, now: Instant, id: ServerId) {
        let ramp = self.tables().ramp(now, id);
        let Some(record) = self.services.servers.get_mut(id) else { return };
        let next = ramp.and_then(|ramp| next_change(record.config.weight, ramp, record.factor));
        let due = next.and_then(|elapsed| record.ramp_since.map(|since| since + elapsed));
        let is_over = ramp.is_none_or(|ramp| ramp.elapsed >= ramp.slow_start.window);
        if is_over {
            record.ramp_since = None;
        }
        self.services.timers.set(id, ServerTimer::Ramp, due);
    }

    /// The next step of a server's ramp.
    pub(in crate::director) fn step_ramp(&mut self, now: Instant, id: ServerId) {
        let Some((service, position)) = self.services.position_of(id) else { return };
        self.refresh_weight(now, service, position);
    }

    /// Brings a server's effective weight up to date and tells the scheduler if it moved.
    pub(in crate::director) fn refresh_weight(&mut self, now: Instant, index: ServiceIndex, position: usize) {
        let Some(id) = self.services.table.get(index).and_then(|service| service.servers.get(position)).map(|s| s.id)
        else {
            return;
        };
        let before = self.services.table.get(index).map_or(0, |service| service.servers[position].weight);
        if before == 0 && self.tables().effective_weight(now, id) != 0 {
            self.start_ramp(now, id);
        } else {
            self.time_ramp(now, id);
        }
        let weight = self.tables().effective_weight(now, id);
        if weight == before {
            return;
        }
        let service = self.services.table.get_mut(index).expect("it was just found");
        let server = &mut service.servers[position];
        server.weight = weight;
        if weight != 0 {
            server.last_weight = weight;
        }
        service.is_unavailable = false;
        self.schedulers.servers_changed(index, Change::Edited { index: position }, &service.servers);
    }

    /// The service's slow start changed: those that are warming up go on by the new one.
    pub(in crate::director) fn refresh_weights(&mut self, now: Instant, index: ServiceIndex) {
        let count = self.services.table.get(index).map_or(0, |service| service.servers.len());
        for position in 0..count {
            self.refresh_weight(now, index, position);
        }
    }

    pub(in crate::director) fn set_factor(
        &mut self,
        now: Instant,
        key: &ServiceKey,
        server: &ServerKey,
        factor: u32,
    ) -> Result<(), ControlError> {
        let (index, position, id) = self.services.locate(key, server)?;
        if factor > FACTOR_ONE * FACTOR_ONE {
            return Err(ControlError::OutOfRange("factor"));
        }
        if let Some(record) = self.services.servers.get_mut(id) {
            record.factor = factor;
        }
        self.refresh_weight(now, index, position);
        Ok(())
    }
}
