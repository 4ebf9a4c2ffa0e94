//! `lblcr`, locality-based least connection with replication: `choice = the least loaded of the destination's servers,
//! unless it is overloaded; else the least loaded of all, which joins them`.
//!
//! As `lblc`, but a destination has a set of servers. A request goes to the least loaded of the set; if that one is
//! overloaded (more active connections than its weight, while some server is at less than half of its own), the least
//! loaded server of the service joins the set. A set that has not changed for a while loses its busiest member, so that
//! a popular destination is spread over several caches only as long as it is popular.
//!
//! Traps: those of `lblc`, but thresholds do bind here. `lblcr_expiration` (a day) is both how long an unused
//! destination is remembered and how long a set must be unchanged before it shrinks, at its next request.
//! Deleted servers stay in the sets and count again when they are added back; Linux may find a deleted server to be the
//! busiest of a set by counts it still has, where here deleted members leave first. A set never holds more deleted
//! members than would make it one longer than the list of servers.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use super::destination_cache::DestinationCache;
use super::lblc::Pool;
use super::server_ids::References;
use super::tournament::RelativeLoad;
use super::{Change, LoadFormula, Request, Scheduler, SchedulerInit, wlc};
use crate::service::{RealServer, ServerId};
use crate::time::Instant;

/// Destinations stay with their set of servers.
#[derive(Clone, Debug)]
pub struct LocalityBasedReplicated {
    cache: DestinationCache<ServerSet>,
    references: References,
    pool: Pool,
    formula: LoadFormula,
}

#[derive(Clone, Debug)]
struct ServerSet {
    /// Newest member first.
    members: Vec<ServerId>,
    changed: Instant,
}

impl LocalityBasedReplicated {
    /// Remembers nothing yet.
    pub fn new(init: &SchedulerInit) -> Self {
        Self {
            cache: DestinationCache::new(init.seed),
            references: References::default(),
            pool: Pool::new(init.load_formula),
            formula: init.load_formula,
        }
    }
}

impl Scheduler for LocalityBasedReplicated {
    fn name(&self) -> &'static str {
        "lblcr"
    }

    fn schedule(&mut self, request: &Request<'_>, servers: &[RealServer]) -> Option<usize> {
        let Self { cache, references, pool, formula } = self;
        let expiration = request.settings.lblcr_expiration;
        cache.advance(request.now, expiration, |set| set.members.iter().for_each(|id| references.release(*id)));
        let destination = request.destination.address;

        if let Some((set, now)) = cache.touch(destination) {
            let least = set.least(pool, *formula, servers);
            if set.members.len() > 1 && now > set.changed + expiration {
                if let Some(removed) = set.shrink(pool, *formula, servers) {
                    references.release(removed);
                }
                set.changed = now;
            }
            if let Some(index) = least.filter(|index| !pool.is_overburdened(*index, servers)) {
                return Some(index);
            }
            let choice = pool.least.leader(servers)?;
            let id = servers[choice].id;
            if !set.members.contains(&id) {
                set.members.insert(0, id);
                set.changed = now;
                references.take(id);
                if let Some(removed) = set.drop_surplus(pool, servers) {
                    references.release(removed);
                }
            }
            return Some(choice);
        }

        let choice = pool.least.leader(servers)?;
        let id = servers[choice].id;
        references.take(id);
        if let Some(replaced) = cache.store(destination, ServerSet { members: vec![id], changed: cache.now() }) {
            replaced.members.iter().for_each(|id| references.release(*id));
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

impl ServerSet {
    /// The least loaded member that can be had, the newest on ties.
    fn least(&self, pool: &Pool, formula: LoadFormula, servers: &[RealServer]) -> Option<usize> {
        let mut best = (RelativeLoad::NEVER, None);
        for index in self.members.iter().filter_map(|id| pool.positions.find(*id)) {
            let rank = wlc::rank(&servers[index], formula);
            if rank.beats(best.0) {
                best = (rank, Some(index));
            }
        }
        best.1
    }

    /// Removes the busiest member, overloaded or not; a deleted one before any other.
    fn shrink(&mut self, pool: &Pool, formula: LoadFormula, servers: &[RealServer]) -> Option<ServerId> {
        let mut busiest: Option<(RelativeLoad, usize)> = None;
        for (place, id) in self.members.iter().enumerate() {
            let Some(index) = pool.positions.find(*id) else { return Some(self.members.remove(place)) };
            let rank = wlc::rank_with_overloaded(&servers[index], formula);
            if rank.is_finite() && busiest.is_none_or(|(busiest, _)| busiest.beats(rank)) {
                busiest = Some((rank, place));
            }
        }
        busiest.map(|(_, place)| self.members.remove(place))
    }

    /// Removes the oldest deleted member of a set that has become longer than the list of servers.
    fn drop_surplus(&mut self, pool: &Pool, servers: &[RealServer]) -> Option<ServerId> {
        if self.members.len() <= servers.len() + 1 {
            return None;
        }
        let gone = self.members.iter().rposition(|id| pool.positions.find(*id).is_none())?;
        Some(self.members.remove(gone))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Endpoint;
    use crate::scheduler::script::{Stage, Traffic, init};

    fn choose(stage: &mut Stage<'_>, destination: &str) -> char {
        stage.destination = Endpoint::new(destination.parse().unwrap(), 80);
        stage.choose()
    }

    #[test]
    fn a_popular_destination_gains_servers_and_uses_the_least_loaded_of_them() {
        let mut scheduler = LocalityBasedReplicated::new(&init());
        let mut stage = Stage::new(&mut scheduler, Traffic::Tcp);
        stage.play("+A:3 +B:1");
        // B until it is over its weight, then A joins; from then on the less loaded of both, relative to weight.
        let letters = [(); 8].map(|()| choose(&mut stage, "10.0.1.1"));
        assert_eq!(letters, ['B', 'B', 'A', 'A', 'A', 'A', 'A', 'A']);
        // Loads 2/1 and 6/3: a tie, which the newer member of the set wins.
        assert_eq!(choose(&mut stage, "10.0.1.1"), 'A');
        assert_eq!(choose(&mut stage, "10.0.1.1"), 'B');
    }

    #[test]
    fn thresholds_bind_members() {
        let mut scheduler = LocalityBasedReplicated::new(&init());
        let mut stage = Stage::new(&mut scheduler, Traffic::Udp);
        stage.play("+A:1 +B:9(u2)");
        assert_eq!([(); 4].map(|()| choose(&mut stage, "10.0.1.1")), ['B', 'B', 'A', 'A']);
    }

    #[test]
    fn a_set_that_did_not_change_loses_its_busiest_member() {
        let mut scheduler = LocalityBasedReplicated::new(&init());
        let mut stage = Stage::new(&mut scheduler, Traffic::Udp);
        stage.settings.lblcr_expiration = core::time::Duration::from_secs(600);
        stage.play("+A:1 +B:1 B:=0");
        assert_eq!(choose(&mut stage, "10.0.1.1"), 'A');
        stage.play("B:=1 A:=0");
        assert_eq!(choose(&mut stage, "10.0.1.1"), 'B'); // the set is {B, A} now
        stage.play("A:=1");
        stage.count(stage.index('A'), 0, 3);
        stage.now = Instant::from_secs(600);
        assert_eq!(choose(&mut stage, "10.0.1.1"), 'B', "not yet more than 600 s");
        assert!(stage.scheduler.remembers(ServerId('A'.into())));
        stage.now = Instant::from_secs(601);
        assert_eq!(choose(&mut stage, "10.0.1.1"), 'B');
        assert!(!stage.scheduler.remembers(ServerId('A'.into())), "the busiest left");
        assert!(stage.scheduler.remembers(ServerId('B'.into())));
    }

    #[test]
    fn deleted_members_are_remembered_and_ignored() {
        let mut scheduler = LocalityBasedReplicated::new(&init());
        let mut stage = Stage::new(&mut scheduler, Traffic::Udp);
        stage.play("+A:1 +B:1");
        assert_eq!(choose(&mut stage, "10.0.1.1"), 'B');
        stage.play("-B");
        assert_eq!(choose(&mut stage, "10.0.1.1"), 'A');
        assert!(stage.scheduler.remembers(ServerId('B'.into())));
        stage.play("+B:1");
        // B is back in its set without connections.
        assert_eq!(choose(&mut stage, "10.0.1.1"), 'B');
    }

    #[test]
    fn churn_does_not_make_a_set_grow_without_bound() {
        let mut scheduler = LocalityBasedReplicated::new(&init());
        let mut stage = Stage::new(&mut scheduler, Traffic::Udp);
        for letter in 'A'..='Z' {
            stage.play(&alloc::format!("+{letter}:1"));
            assert_eq!(choose(&mut stage, "10.0.1.1"), letter);
            stage.play(&alloc::format!("-{letter}"));
        }
        let remembered = ('A'..='Z').filter(|letter| stage.scheduler.remembers(ServerId((*letter).into()))).count();
        assert!(remembered <= 2, "{remembered}");
    }
}
