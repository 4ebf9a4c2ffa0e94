//! `ovf`, weighted overflow: `choice = argmax of weight over eligible servers with active ≤ weight`.
//!
//! The heaviest server takes connections until it has more active ones than its weight; then they overflow to the next
//! heaviest. Weight is a capacity here.
//!
//! Traps: a server of weight w takes w + 1 connections, not w. When all are full there is no choice and clients are
//! refused, unlike in every other scheduler without thresholds. UDP connections are never active, so nothing overflows.

use alloc::boxed::Box;

use super::tournament::{RelativeLoad, Tournament};
use super::{Change, LoadFormula, Request, Scheduler, SchedulerInit};
use crate::service::RealServer;

/// The heaviest server that is not full.
#[derive(Clone, Debug)]
pub struct WeightedOverflow {
    tournament: Tournament,
}

impl WeightedOverflow {
    /// Keeps nothing but the order of the servers by load.
    pub const fn new(init: &SchedulerInit) -> Self {
        Self { tournament: Tournament::new(rank, init.load_formula) }
    }
}

fn rank(server: &RealServer, _: LoadFormula) -> RelativeLoad {
    let has_room = server.is_eligible() && server.active_connections <= server.weight;
    RelativeLoad::new(-i64::from(server.weight), u32::from(has_room))
}

impl Scheduler for WeightedOverflow {
    fn name(&self) -> &'static str {
        "ovf"
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

    fn ovf() -> WeightedOverflow {
        WeightedOverflow::new(&crate::scheduler::script::init())
    }

    #[test]
    fn overflows_to_the_next_heaviest_and_then_refuses() {
        check(&mut ovf(), Traffic::Tcp, "+A:1 +B:2 +C:3 [CCCCBBBAA-----------]");
    }

    #[test]
    fn udp_never_overflows() {
        check(&mut ovf(), Traffic::Udp, "+A:1 +B:2 +C:3 [CCCCCCCC]");
    }

    #[test]
    fn passes_over_overloaded_servers() {
        check(&mut ovf(), Traffic::Tcp, "+A:1(u3) +B:1(u2) +C:2(u4) [CCCBBAA-----]");
    }
}
