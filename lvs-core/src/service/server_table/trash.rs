//! Deleted servers. One waits in the trash with its counters; it is revived when it is added back in time, and forgotten
//! 120 to 180 s after its last use.

use alloc::vec::Vec;
use core::time::Duration;

use super::{Place, ServerRecord, ServerTable};
use crate::service::table::ServiceIndex;
use crate::service::{RealServer, ServerConfig, ServerId, ServiceKey};
use crate::time::Instant;

/// How often the trash is looked through.
pub(crate) const TRASH_PERIOD: Duration = Duration::from_secs(60);
/// How long a server must have been without connections to be forgotten.
const TRASH_IDLE: Duration = Duration::from_secs(120);

impl ServerTable {
    /// How many deleted servers are not forgotten yet.
    pub fn deleted_len(&self) -> u32 {
        self.trash.len() as u32
    }

    /// Puts a server that has just left its service's list into the trash, with its counters.
    pub fn bury(&mut self, id: ServerId, counts: RealServer, now: Instant, service_was_deleted: bool) {
        let Some(mut record) = self.slots.get_mut(id.0 as usize).and_then(Option::take) else { return };
        self.note(&record, -1);
        record.place = Place::Trash { counts, idle_since: None };
        record.service_was_deleted |= service_was_deleted;
        record.ramp_since = None;
        record.drain = None;
        self.slots[id.0 as usize] = Some(record);
        if self.trash.is_empty() {
            self.trash_due = Some(now + TRASH_PERIOD);
        }
        self.trash.push(id);
    }

    /// The most recently deleted server with this identity.
    pub fn find_buried(&self, service: &ServiceKey, config: &ServerConfig) -> Option<ServerId> {
        self.trash.iter().rev().copied().find(|id| {
            self.get(*id)
                .is_some_and(|record| record.config.key == config.key && is_same_service(&record.service, service))
        })
    }

    /// Takes a server out of the trash into a service's list; returns its counters. The caller sets its position.
    pub fn revive(
        &mut self,
        id: ServerId,
        service: ServiceKey,
        config: ServerConfig,
        index: ServiceIndex,
    ) -> Option<RealServer> {
        let mut record = self.slots.get_mut(id.0 as usize)?.take()?;
        if let Some(at) = self.trash.iter().position(|buried| *buried == id) {
            self.trash.remove(at);
            self.trash_seen -= usize::from(at < self.trash_seen);
        }
        if self.trash.is_empty() {
            self.trash_due = None;
        }
        let place = core::mem::replace(&mut record.place, Place::Listed { service: index, position: 0 });
        let Place::Trash { counts, .. } = place else { unreachable!("only buried servers are in the trash") };
        record.service = service;
        record.config = config;
        record.factor = 1024;
        if core::mem::take(&mut record.service_was_deleted) {
            record.meter.zero();
        }
        self.note(&record, 1);
        self.slots[id.0 as usize] = Some(record);
        Some(counts)
    }

    pub fn trash_due(&self) -> Option<Instant> {
        self.trash_due
    }

    /// Looks through the trash (every 60 s): servers nobody refers to become idle, and those idle for 120 s are
    /// forgotten. `is_remembered` tells whether a service's scheduler still holds the id. Stops when the budget is used
    /// up, and goes on from there when it is called again, which is due at once. Returns the forgotten ones.
    pub fn sweep_trash(
        &mut self,
        now: Instant,
        budget: &mut u32,
        is_remembered: impl Fn(&ServiceKey, ServerId) -> bool,
    ) -> Vec<ServerRecord> {
        let mut forgotten = Vec::new();
        let (start, end) = (self.trash_seen, self.trash.len().min(self.trash_seen + *budget as usize));
        *budget -= (end - start) as u32;
        let mut kept = start;
        for at in start..end {
            let id = self.trash[at];
            if !self.is_to_be_forgotten(now, id, &is_remembered) {
                self.trash[kept] = id;
                kept += 1;
            } else if let Some(record) = self.slots[id.0 as usize].take() {
                self.free.push(id.0);
                self.leave_address(record.config.key.address);
                forgotten.push(record);
            }
        }
        self.trash.drain(kept..end);
        self.trash_seen = kept;
        if self.trash_seen == self.trash.len() {
            self.trash_seen = 0;
            self.trash_due = if self.trash.is_empty() { None } else { Some(now + TRASH_PERIOD) };
        }
        forgotten
    }

    /// Whether a deleted server has been idle long enough; notes since when it is.
    fn is_to_be_forgotten(
        &mut self,
        now: Instant,
        id: ServerId,
        is_remembered: &impl Fn(&ServiceKey, ServerId) -> bool,
    ) -> bool {
        let Some(record) = self.get_mut(id) else { return true };
        let Place::Trash { counts, idle_since } = &mut record.place else { return true };
        let is_used = counts.total_connections + counts.expected_connections + counts.persistent_connections > 0
            || is_remembered(&record.service, id);
        !is_used && now.duration_since(*idle_since.get_or_insert(now)) >= TRASH_IDLE
    }
}

/// Linux matches fwmark services in the trash by their mark alone, whatever the family.
fn is_same_service(buried: &ServiceKey, wanted: &ServiceKey) -> bool {
    match (buried, wanted) {
        (ServiceKey::FwMark { mark: buried, .. }, ServiceKey::FwMark { mark: wanted, .. }) => buried == wanted,
        _ => buried == wanted,
    }
}
