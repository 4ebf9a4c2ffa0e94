//! `lblc`, locality-based least connection: `choice = the server remembered for the destination, unless it is
//! overloaded; else (and from then on) argmin of (256 · active + total) / weight`.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Endpoint;
    use crate::scheduler::script::{Stage, Traffic, init};
    use crate::time::Instant;

    fn choose(stage: &mut Stage<'_>, destination: &str) -> char {
        stage.destination = Endpoint::new(destination.parse().unwrap(), 80);
        stage.choose()
    }

    #[test]
    fn a_destination_stays_with_its_server_while_others_idle() {
        let mut scheduler = LocalityBased::new(&init());
        let mut stage = Stage::new(&mut scheduler, Traffic::Udp);
        stage.play("+A:1 +B:1");
        assert_eq!(choose(&mut stage, "10.0.1.1"), 'B');
        assert_eq!(choose(&mut stage, "10.0.1.2"), 'A');
        for _ in 0..9 {
            assert_eq!(choose(&mut stage, "10.0.1.1"), 'B');
        }
        assert_eq!(choose(&mut stage, "2001:db8::1"), 'A');
    }

    #[test]
    fn an_overburdened_server_loses_the_destination_to_the_least_loaded() {
        let mut scheduler = LocalityBased::new(&init());
        let mut stage = Stage::new(&mut scheduler, Traffic::Tcp);
        stage.play("+A:3 +B:1");
        // B has room for one and takes a second; at two it is over, and A at less than half of 3.
        let letters = [(); 8].map(|()| choose(&mut stage, "10.0.1.1"));
        assert_eq!(letters, ['B', 'B', 'A', 'A', 'A', 'A', 'A', 'A']);
    }

    #[test]
    fn an_overburdened_server_keeps_the_destination_if_nobody_is_half_idle() {
        let mut scheduler = LocalityBased::new(&init());
        let mut stage = Stage::new(&mut scheduler, Traffic::Tcp);
        stage.play("+A:2 +B:2");
        stage.count(stage.index('A'), 1, 1); // half of its weight is not less than half
        assert_eq!([(); 6].map(|()| choose(&mut stage, "10.0.1.1")), ['B'; 6]);
    }

    #[test]
    fn a_threshold_does_not_bind_remembered_destinations() {
        let mut scheduler = LocalityBased::new(&init());
        let mut stage = Stage::new(&mut scheduler, Traffic::Udp);
        stage.play("+A:1 +B:9(u2)");
        let letters = [(); 4].map(|()| choose(&mut stage, "10.0.1.1"));
        assert_eq!(letters, ['B'; 4]);
        assert_eq!(choose(&mut stage, "10.0.1.2"), 'A');
    }

    #[test]
    fn a_quiesced_or_deleted_server_loses_its_destinations() {
        let mut scheduler = LocalityBased::new(&init());
        let mut stage = Stage::new(&mut scheduler, Traffic::Udp);
        stage.play("+A:1 +B:1 +C:1");
        assert_eq!(choose(&mut stage, "10.0.1.1"), 'C');
        stage.play("C:=0");
        assert_eq!(choose(&mut stage, "10.0.1.1"), 'B');
        stage.play("C:=1");
        assert_eq!(choose(&mut stage, "10.0.1.1"), 'B');
        assert!(stage.scheduler.remembers(ServerId('B'.into())));
        stage.play("-B");
        assert_eq!(choose(&mut stage, "10.0.1.1"), 'A');
        assert!(!stage.scheduler.remembers(ServerId('B'.into())), "nothing names it any more");
    }

    #[test]
    fn an_unused_destination_is_forgotten_after_its_time() {
        let mut scheduler = LocalityBased::new(&init());
        let mut stage = Stage::new(&mut scheduler, Traffic::Udp);
        stage.settings.lblc_expiration = core::time::Duration::from_secs(600);
        stage.play("+A:1 +B:1");
        assert_eq!(choose(&mut stage, "10.0.1.1"), 'B');
        stage.now = Instant::from_secs(1_799);
        assert_eq!(choose(&mut stage, "10.0.1.2"), 'A');
        stage.count(stage.index('B'), 0, 5);
        stage.now = Instant::from_secs(1_800);
        assert_eq!(choose(&mut stage, "10.0.1.1"), 'A', "forgotten at the check after 30 minutes");
        assert_eq!(choose(&mut stage, "10.0.1.2"), 'A');
    }
}
