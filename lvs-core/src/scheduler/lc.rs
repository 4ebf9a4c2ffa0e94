//! `lc`, least connection: `choice = argmin over eligible servers of 256 · active + total`.
//!
//! New connections go to the server that has the fewest. Servers of similar power are balanced well.
//!
//! Traps: weight only switches a server on or off; unequal servers want `wlc`. A connection in an active state counts
//! 257 times one that is not, so a server full of connections in TIME_WAIT still looks idle. Ties go to the server
//! added last. A newly added server gets every connection until it has caught up. Loads are 32-bit, as in Linux: they
//! wrap above 16.7 million active connections on one server. [`LoadFormula`] chooses between the two rules Linux has
//! had.

use super::least_rank::LeastRank;
use super::tournament::RelativeLoad;
use super::{LoadFormula, SchedulerInit};
use crate::service::RealServer;

/// The server with the fewest connections.
pub const fn least_connection(init: &SchedulerInit) -> LeastRank {
    LeastRank::new("lc", rank, init)
}

fn rank(server: &RealServer, formula: LoadFormula) -> RelativeLoad {
    RelativeLoad::new(i64::from(formula.load(server)), u32::from(server.is_eligible()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::script::{Stage, Traffic, check};

    fn lc() -> LeastRank {
        least_connection(&crate::scheduler::script::init())
    }

    #[test]
    fn chooses_the_fewest_connections_whatever_the_weights() {
        for traffic in [Traffic::Tcp, Traffic::Udp] {
            check(
                &mut lc(),
                traffic,
                "+A:1 +B:2 +C:3 [CBACBACBACBACBACBACB] C:=0 [ABAB] +D:3 [DDDDDDDDDADBAD] C:=5 [CCCCBADCBA] -C [DBADB]",
            );
        }
    }

    #[test]
    fn passes_over_overloaded_servers() {
        check(&mut lc(), Traffic::Tcp, "+A:1(u3) +B:1(u2) +C:2(u4) [CBACBACAC---]");
    }

    #[test]
    fn one_active_connection_outweighs_256_inactive_ones_by_the_default_formula() {
        for (formula, choice) in [(LoadFormula::ActiveAndTotal, B), (LoadFormula::ActiveAndInactive, A)] {
            let init = SchedulerInit { load_formula: formula, ..crate::scheduler::script::init() };
            let mut scheduler = least_connection(&init);
            let mut stage = Stage::new(&mut scheduler, Traffic::Tcp);
            stage.play("+B:1 +A:1");
            stage.count(stage.index(A), 1, 1);
            stage.count(stage.index(B), 0, 256);
            assert_eq!(stage.choose(), choice);
        }
    }

    const A: char = 'A';
    const B: char = 'B';
}
