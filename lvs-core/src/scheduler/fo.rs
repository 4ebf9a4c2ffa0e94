//! `fo`, weighted failover: `choice = argmax over eligible servers of weight`.
//!
//! One server takes everything, the one of the highest weight; when it is quiesced or overloaded the next heaviest
//! takes over, and hands back when it returns.
//!
//! Traps: nothing is balanced. Of equal weights the server added last takes everything.

use alloc::boxed::Box;

use super::tournament::{RelativeLoad, Tournament};
use super::{Change, LoadFormula, Request, Scheduler, SchedulerInit};
use crate::service::RealServer;

/// The heaviest server that can be had.
#[derive(Clone, Debug)]
pub struct WeightedFailover {
    tournament: Tournament,
}

impl WeightedFailover {
    /// Keeps nothing but the order of the servers by load.
    pub const fn new(init: &SchedulerInit) -> Self {
        Self { tournament: Tournament::new(rank, init.load_formula) }
    }
}

fn rank(server: &RealServer, _: LoadFormula) -> RelativeLoad {
    RelativeLoad::new(-i64::from(server.weight), u32::from(server.is_eligible()))
}

impl Scheduler for WeightedFailover {
    fn name(&self) -> &'static str {
        "fo"
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::script::{Traffic, check};

    fn fo() -> WeightedFailover {
        WeightedFailover::new(&crate::scheduler::script::init())
    }

    #[test]
    fn the_heaviest_takes_all_until_it_cannot() {
        check(&mut fo(), Traffic::Tcp, "+A:1 +B:3 +C:2 [BBB] B:=0 [CC] C:=0 [AA] B:=1 [BB] A:=0 B:=0 [-]");
    }

    #[test]
    fn passes_over_overloaded_servers() {
        check(&mut fo(), Traffic::Tcp, "+A:1(u3) +B:1(u2) +C:2(u4) [CCCCBBAAA---]");
    }
}
