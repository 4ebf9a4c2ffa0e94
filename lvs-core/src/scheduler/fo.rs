//! `fo`, weighted failover: `choice = argmax over eligible servers of weight`.
//!
//! One server takes everything, the one of the highest weight; when it is quiesced or overloaded the next heaviest
//! takes over, and hands back when it returns.
//!
//! Traps: nothing is balanced. Of equal weights the server added last takes everything.

use super::least_rank::LeastRank;
use super::tournament::RelativeLoad;
use super::{LoadFormula, SchedulerInit};
use crate::service::RealServer;

/// The heaviest server that can be had.
pub const fn weighted_failover(init: &SchedulerInit) -> LeastRank {
    LeastRank::new("fo", rank, init)
}

fn rank(server: &RealServer, _: LoadFormula) -> RelativeLoad {
    RelativeLoad::new(-i64::from(server.weight), u32::from(server.is_eligible()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::script::{Traffic, check};

    fn fo() -> LeastRank {
        weighted_failover(&crate::scheduler::script::init())
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
