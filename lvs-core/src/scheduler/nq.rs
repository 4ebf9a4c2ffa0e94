//! `nq`, never queue: `choice = the first eligible server with active = 0, else argmin of (active + 1) / weight`.
//!
//! As `sed`, but no server idles while another is busy: a server without a connection is given one at once, without
//! any calculation.
//!
//! Traps: among idle servers list order decides, not weight. UDP connections are never active, so a UDP service sends
//! everything to the first eligible server of the list, the one added last.

use super::least_rank::LeastRank;
use super::sed::expected_delay;
use super::tournament::RelativeLoad;
use super::{LoadFormula, SchedulerInit};
use crate::service::RealServer;

/// An idle server if there is one, else the shortest expected delay.
pub const fn never_queue(init: &SchedulerInit) -> LeastRank {
    LeastRank::new("nq", rank, init)
}

fn rank(server: &RealServer, _: LoadFormula) -> RelativeLoad {
    if server.is_overloaded {
        return RelativeLoad::NEVER;
    }
    // Idle servers are all equal, and before every busy one: the leftmost of them wins.
    let delay = if server.active_connections == 0 { 0 } else { expected_delay(server) };
    RelativeLoad::new(delay, server.weight)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::script::{Traffic, check};

    fn nq() -> LeastRank {
        never_queue(&crate::scheduler::script::init())
    }

    #[test]
    fn no_server_idles_while_another_is_busy() {
        check(
            &mut nq(),
            Traffic::Tcp,
            "+A:1 +B:2 +C:3 [CBACCBCBCCBACBCCBACB] C:=0 [BABB] +D:3 [DDDDDDDDDDDDDD] C:=5 [CCCCCCCCCC] -C [DADBD]",
        );
    }

    #[test]
    fn sends_all_udp_to_the_newest() {
        check(&mut nq(), Traffic::Udp, "+A:9 +B:2 [BBBB] +C:1 [CCCC]");
    }

    #[test]
    fn passes_over_overloaded_servers() {
        check(&mut nq(), Traffic::Tcp, "+A:1(u3) +B:1(u2) +C:2(u4) [CBACCCBAA---]");
    }
}
