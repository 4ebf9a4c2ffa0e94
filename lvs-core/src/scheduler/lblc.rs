//! `lblc`, locality-based least connection: `choice = the server remembered for the destination, unless it is overloaded;
//! else (and from then on) argmin of (256 · active + total) / weight`.
//!
//! For clusters of caches, balanced by destination address: a request goes to the server its destination used last, as
//! long as that server is usable and not overloaded. If it is (more active connections than its weight, while some
//! server is at less than half of its own), or if there is none yet, the least loaded server is chosen and remembered.
//!
//! Traps: a service with one virtual address has one destination, so all goes to one server until it is overloaded;
//! `lblc` is meant for firewall marks that cover many destinations. Weight is a capacity here. A remembered server is
//! used even when its upper threshold is passed, as in Linux: thresholds bind only new destinations. Destinations are
//! forgotten after `lblc_expiration` (a day) unused, by a check every 30 minutes; at most 24,576 are kept, and further
//! ones are scheduled without being remembered. Without requests nothing ages.

use alloc::boxed::Box;

use super::destination_cache::DestinationCache;
use super::server_ids::{Positions, References};
use super::tournament::{RelativeLoad, Tournament};
use super::wlc;
use super::{Change, LoadFormula, Request, Scheduler, SchedulerInit};
use crate::service::{RealServer, ServerId};

/// Destinations stay with their server.
#[derive(Clone, Debug)]
pub struct LocalityBased {
    cache: DestinationCache<ServerId>,
    references: References,
    pool: Pool,
}

impl LocalityBased {
    /// Remembers nothing yet.
    pub fn new(init: &SchedulerInit) -> Self {
        Self {
            cache: DestinationCache::new(init.seed),
            references: References::default(),
            pool: Pool::new(init.load_formula),
        }
    }
}

impl Scheduler for LocalityBased {
    fn name(&self) -> &'static str {
        "lblc"
    }

    fn schedule(&mut self, request: &Request<'_>, servers: &[RealServer]) -> Option<usize> {
        let Self { cache, references, pool } = self;
        cache.advance(request.now, request.settings.lblc_expiration, |id| references.release(id));
        let destination = request.destination.address;
        let remembered = cache.touch(destination).and_then(|(id, _)| pool.positions.find(*id));
        if let Some(index) = remembered {
            // Not `is_eligible`: Linux does not look at the threshold here.
            if servers[index].weight > 0 && !pool.is_overburdened(index, servers) {
                return Some(index);
            }
        }
        let choice = pool.least.leader(servers)?;
        references.take(servers[choice].id);
        if let Some(replaced) = cache.store(destination, servers[choice].id) {
            references.release(replaced);
        }
        Some(choice)
    }

    fn servers_changed(&mut self, change: Change, servers: &[RealServer]) {
        self.pool.servers_changed(change, servers);
    }

    fn load_changed(&mut self, index: usize, servers: &[RealServer]) {
        self.pool.load_changed(index, servers);
    }

    fn remembers(&self, id: ServerId) -> bool {
        self.references.contains(id)
    }

    fn boxed_clone(&self) -> Box<dyn Scheduler> {
        Box::new(self.clone())
    }
}

/// What `lblc` and `lblcr` know about all servers of the service.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    pub(super) positions: Positions,
    /// By `wlc`'s rule.
    pub(super) least: Tournament,
    /// By how far a server is below half of its weight: negative if it is.
    spare: Tournament,
}

impl Pool {
    pub(super) fn new(formula: LoadFormula) -> Self {
        let spare = |server: &RealServer, _| {
            RelativeLoad::new(2 * i64::from(server.active_connections) - i64::from(server.weight), 1)
        };
        Self {
            positions: Positions::default(),
            least: Tournament::new(wlc::rank, formula),
            spare: Tournament::new(spare, formula),
        }
    }

    /// Has more active connections than its weight, while some server has less than half of its own.
    pub(super) fn is_overburdened(&self, index: usize, servers: &[RealServer]) -> bool {
        servers[index].active_connections > servers[index].weight && self.spare.least(servers).is_negative()
    }

    pub(super) fn servers_changed(&mut self, change: Change, servers: &[RealServer]) {
        if !matches!(change, Change::Edited { .. }) {
            self.positions.rebuild(servers);
        }
        self.least.servers_changed(change, servers);
        self.spare.servers_changed(change, servers);
    }

    pub(super) fn load_changed(&mut self, index: usize, servers: &[RealServer]) {
        self.least.load_changed(index, servers);
        self.spare.load_changed(index, servers);
    }
}
