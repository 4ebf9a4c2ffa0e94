//! `ovf`, weighted overflow: `choice = argmax of weight over eligible servers with active ≤ weight`.
//!
//! The heaviest server takes connections until it has more active ones than its weight; then they overflow to the next
//! heaviest. Weight is a capacity here.
//!
//! Traps: a server of weight w takes w + 1 connections, not w. When all are full there is no choice and clients are
//! refused, unlike in every other scheduler without thresholds. UDP connections are never active, so nothing overflows.

use super::least_rank::LeastRank;
use super::tournament::RelativeLoad;
use super::{LoadFormula, SchedulerInit};
use crate::service::RealServer;

/// The heaviest server that is not full.
pub const fn weighted_overflow(init: &SchedulerInit) -> LeastRank {
    LeastRank::new("ovf", rank, init)
}

fn rank(server: &RealServer, _: LoadFormula) -> RelativeLoad {
    let has_room = server.is_eligible() && server.active_connections <= server.weight;
    RelativeLoad::new(-i64::from(server.weight), u32::from(has_room))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::script::{Traffic, check};

    fn ovf() -> LeastRank {
        weighted_overflow(&crate::scheduler::script::init())
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
