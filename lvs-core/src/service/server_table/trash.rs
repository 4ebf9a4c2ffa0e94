//! Deleted servers. One waits in the trash with its counters; it is revived when it is added back in time, and forgotten
//! 120 to 180 s after its last use.

use alloc::vec::Vec;
use core::time::Duration;

use super::{Place, ServerRecord, ServerTable};
use crate::flow::Endpoint;
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
        record.place = Place::Trash { counts, idle_since: None, at: self.trash.len() };
        record.service_was_deleted |= service_was_deleted;
        record.ramp_since = None;
        record.drain = None;
        self.buried.entry(Identity::of(&record.service, &record.config)).or_default().push(id);
        self.slots[id.0 as usize] = Some(record);
        if self.trash.is_empty() {
            self.trash_due = Some(now + TRASH_PERIOD);
        }
        self.trash.push(id);
    }

    /// The most recently deleted server with this identity.
    pub fn find_buried(&self, service: &ServiceKey, config: &ServerConfig) -> Option<ServerId> {
        self.buried.get(&Identity::of(service, config))?.last().copied()
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
        self.exhume(id, &record);
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

    /// Takes a server out of the trash. The last one that this look has come to takes its place, and the last one of all
    /// that one's, so that none is missed and none looked at twice.
    fn exhume(&mut self, id: ServerId, record: &ServerRecord) {
        let identity = Identity::of(&record.service, &record.config);
        if let Some(ids) = self.buried.get_mut(&identity) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.buried.remove(&identity);
            }
        }
        let Place::Trash { mut at, .. } = record.place else { return };
        if at < self.trash_seen {
            self.trash_seen -= 1;
            self.move_in_trash(self.trash_seen, at);
            at = self.trash_seen;
        }
        let last = self.trash.len() - 1;
        self.move_in_trash(last, at);
        self.trash.pop();
    }

    fn move_in_trash(&mut self, from: usize, to: usize) {
        let id = self.trash[from];
        self.trash[to] = id;
        if let Some(Place::Trash { at, .. }) = self.get_mut(id).map(|record| &mut record.place) {
            *at = to;
        }
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
        while *budget > 0 && self.trash_seen < self.trash.len() {
            *budget -= 1;
            let id = self.trash[self.trash_seen];
            if !self.is_to_be_forgotten(now, id, &is_remembered) {
                self.trash_seen += 1;
            } else if let Some(record) = self.slots[id.0 as usize].take() {
                self.exhume(id, &record);
                self.free.push(id.0);
                self.revision += 1;
                self.leave_address(record.config.key.address);
                forgotten.push(record);
            } else {
                self.trash_seen += 1;
            }
        }
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
        let Place::Trash { counts, idle_since, .. } = &mut record.place else { return true };
        let is_used = counts.total_connections + counts.expected_connections + counts.persistent_connections > 0
            || is_remembered(&record.service, id);
        !is_used && now.duration_since(*idle_since.get_or_insert(now)) >= TRASH_IDLE
    }
}

/// What a server that is added back must be to be one that was deleted. Linux matches fwmark services in the trash by
/// their mark alone, whatever the family.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Identity {
    OfService(ServiceKey, Endpoint),
    OfMark(u32, Endpoint),
}

impl Identity {
    fn of(service: &ServiceKey, config: &ServerConfig) -> Self {
        match service {
            ServiceKey::FwMark { mark, .. } => Self::OfMark(*mark, config.key),
            address => Self::OfService(*address, config.key),
        }
    }
}
