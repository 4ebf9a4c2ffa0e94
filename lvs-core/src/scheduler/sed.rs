//! `sed`, shortest expected delay: `choice = argmin over eligible servers of (active + 1) / weight`.
//!
//! As `wlc`, but the connection to be placed is counted too: servers of weight 1, 2 and 3 with as many connections
//! have (1+1)/1, (2+1)/2 and (3+1)/3, and the third gets it. The heaviest server is filled first.
//!
//! Traps: only active connections count. UDP connections are never active, so a UDP service sends everything to the
//! heaviest server. At low load the light servers idle: `nq` mends that.

use super::least_rank::LeastRank;
use super::tournament::RelativeLoad;
use super::{LoadFormula, SchedulerInit};
use crate::service::RealServer;

/// The server that would be least busy with this connection added.
pub const fn shortest_expected_delay(init: &SchedulerInit) -> LeastRank {
    LeastRank::new("sed", rank, init)
}

fn rank(server: &RealServer, _: LoadFormula) -> RelativeLoad {
    if server.is_overloaded {
        return RelativeLoad::NEVER;
    }
    RelativeLoad::new(expected_delay(server), server.weight)
}

/// Active connections with the one to come; a 32-bit signed count, as in Linux.
pub(super) fn expected_delay(server: &RealServer) -> i64 {
    i64::from(server.active_connections.min(i32::MAX as u32)) + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::script::{Traffic, check};

    fn sed() -> LeastRank {
        shortest_expected_delay(&crate::scheduler::script::init())
    }

    #[test]
    fn counts_the_connection_to_come() {
        check(
            &mut sed(),
            Traffic::Tcp,
            "+A:1 +B:2 +C:3 [CBCCBACBCCBACBCCBACB] C:=0 [BABB] +D:3 [DDDDDDDDDDDDDD] C:=5 [CCCCCCCCCC] -C [DADBD]",
        );
    }

    #[test]
    fn sends_all_udp_to_the_heaviest() {
        check(&mut sed(), Traffic::Udp, "+A:1 +B:2 +C:3 [CCCCCCCCCCCCCCCCCCCC]");
    }

    #[test]
    fn passes_over_overloaded_servers() {
        check(&mut sed(), Traffic::Tcp, "+A:1(u3) +B:1(u2) +C:2(u4) [CCBACCBAA---]");
    }
}
