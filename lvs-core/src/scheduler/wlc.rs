//! `wlc`, weighted least connection: `choice = argmin over eligible servers of (256 · active + total) / weight`.
//!
//! As `lc`, for servers of unequal power: one of twice the weight carries twice the connections. The default of IPVS.
//!
//! Traps: the first connections after a start go round by tie-break (all loads are 0), newest server first. A newly
//! added server gets everything until it has caught up: give it a slow start. Compared exactly, by cross-multiplying
//! signed integers; loads are 32-bit, as in Linux: they turn negative above 8.3 million active connections on one
//! server.

use super::least_rank::LeastRank;
use super::tournament::RelativeLoad;
use super::{LoadFormula, SchedulerInit};
use crate::service::RealServer;

/// The server with the fewest connections for its weight.
pub const fn weighted_least_connection(init: &SchedulerInit) -> LeastRank {
    LeastRank::new("wlc", rank, init)
}

/// `lblc` and `lblcr` go by it, too.
pub(super) fn rank(server: &RealServer, formula: LoadFormula) -> RelativeLoad {
    if server.is_overloaded { RelativeLoad::NEVER } else { rank_with_overloaded(server, formula) }
}

/// The same, whatever the thresholds.
pub(super) fn rank_with_overloaded(server: &RealServer, formula: LoadFormula) -> RelativeLoad {
    RelativeLoad::new(i64::from(formula.load(server) as i32), server.weight)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::script::{Stage, Traffic, check};

    fn wlc() -> LeastRank {
        weighted_least_connection(&crate::scheduler::script::init())
    }

    #[test]
    fn chooses_the_fewest_connections_for_the_weight() {
        for traffic in [Traffic::Tcp, Traffic::Udp] {
            check(
                &mut wlc(),
                traffic,
                "+A:1 +B:2 +C:3 [CBACBCCBACBCCBACBCCB] C:=0 [ABBA] +D:3 [DDDDDDDDDDDDDD] C:=5 [CCCCCCCCCC] -C [BDDBA]",
            );
        }
    }

    #[test]
    fn passes_over_overloaded_servers() {
        check(&mut wlc(), Traffic::Tcp, "+A:1(u3) +B:1(u2) +C:2(u4) [CBACCBACA---]");
    }

    #[test]
    fn the_load_formula_decides_between_one_active_and_256_inactive() {
        for (formula, choice) in [(LoadFormula::ActiveAndTotal, B), (LoadFormula::ActiveAndInactive, A)] {
            let init = SchedulerInit { load_formula: formula, ..crate::scheduler::script::init() };
            let mut scheduler = weighted_least_connection(&init);
            let mut stage = Stage::new(&mut scheduler, Traffic::Tcp);
            stage.play("+B:7 +A:7");
            stage.count(stage.index(A), 1, 1);
            stage.count(stage.index(B), 0, 256);
            assert_eq!(stage.choose(), choice);
        }
    }

    const A: char = 'A';
    const B: char = 'B';
}
