//! What `lc`, `wlc`, `sed`, `nq`, `fo` and `ovf` share: each only says how it ranks a server, and the least rank wins.

use alloc::boxed::Box;

use super::tournament::{Rank, Tournament};
use super::{Change, Request, Scheduler, SchedulerInit};
use crate::service::RealServer;

/// Takes the server of least rank, the one added last on ties. `lc`, `wlc`, `sed`, `nq`, `fo` and `ovf` are each one of
/// these with a rank of its own.
#[derive(Clone, Debug)]
pub struct LeastRank {
    name: &'static str,
    tournament: Tournament,
}

impl LeastRank {
    /// Keeps nothing but the order of the servers by `rank`.
    pub(super) const fn new(name: &'static str, rank: Rank, init: &SchedulerInit) -> Self {
        Self { name, tournament: Tournament::new(rank, init.load_formula) }
    }
}

impl Scheduler for LeastRank {
    fn name(&self) -> &'static str {
        self.name
    }

    fn schedule(&mut self, _: &Request<'_>, servers: &[RealServer]) -> Option<usize> {
        self.tournament.leader(servers)
    }

    fn servers_changed(&mut self, change: Change, servers: &[RealServer]) {
        self.tournament.servers_changed(change, servers);
    }

    fn load_changed(&mut self, index: usize, servers: &[RealServer]) {
        self.tournament.load_changed(index, servers);
    }

    fn boxed_clone(&self) -> Box<dyn Scheduler> {
        Box::new(self.clone())
    }
}
