//! `twos`, power of two choices: `choice = the less loaded, by (256 · active + total) / weight, of two servers drawn
//! with probability ∝ weight` (Mitzenmacher 2001).
//!
//! Two servers are drawn at random and the better one is taken. Almost as even as asking all of them, and many
//! directors that share servers do not all run after the same one, as they do with `wlc`.
//!
//! Traps: the two may be the same server. Linux draws from 0 up to *and including* the sum of weights, which favours
//! the first server of the list by one part in the sum. Linux's random numbers cannot be reproduced; here the
//! director's seed decides, so a run replays. Products are not cut to 32 bits as in Linux. Debian's kernel does not
//! have it.

use alloc::boxed::Box;

use super::weight_tree::WeightTree;
use super::{Change, LoadFormula, Position, Request, Scheduler, SchedulerInit};
use crate::rng::{Rng, Seed};
use crate::service::RealServer;

/// The better of two random servers.
#[derive(Clone, Debug)]
pub struct PowerOfTwoChoices {
    random: Rng,
    formula: LoadFormula,
    weights: WeightTree,
}

impl PowerOfTwoChoices {
    /// Draws from `init.seed`.
    pub const fn new(init: &SchedulerInit) -> Self {
        Self { random: Rng::new(init.seed), formula: init.load_formula, weights: WeightTree::of_sums() }
    }
}

impl Scheduler for PowerOfTwoChoices {
    fn name(&self) -> &'static str {
        "twos"
    }

    fn schedule(&mut self, _: &Request<'_>, servers: &[RealServer]) -> Option<usize> {
        let total = match self.weights.total(servers) {
            0 => return None,
            total => u32::try_from(total).unwrap_or(u32::MAX),
        };
        let tickets = [self.random.up_to(total), self.random.up_to(total)];
        let [first, second] = tickets.map(|ticket| self.weights.first_reaching(u64::from(ticket), servers));
        let (first, second) = (first?, second?);
        let (one, other) = (&servers[first], &servers[second]);
        let load = |server: &RealServer| i64::from(self.formula.load(server) as i32);
        let prefers_second = i64::from(other.weight) * load(one) > i64::from(one.weight) * load(other);
        Some(if prefers_second { second } else { first })
    }

    fn servers_changed(&mut self, change: Change, servers: &[RealServer]) {
        match change {
            Change::Edited { index } => self.weights.update(index, servers),
            Change::Reset | Change::Added { .. } | Change::Removed { .. } => self.weights.rebuild(servers),
        }
    }

    fn load_changed(&mut self, index: usize, servers: &[RealServer]) {
        self.weights.update(index, servers);
    }

    fn position(&self) -> Option<Position> {
        Some(Position { last: None, word: self.random.position().value() })
    }

    fn resume(&mut self, position: Position, _: &[RealServer]) {
        self.random = Rng::new(Seed::new(position.word));
    }

    fn boxed_clone(&self) -> Box<dyn Scheduler> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::script::{Stage, Traffic, check, init};

    #[test]
    fn the_first_server_whose_weights_add_up_to_the_ticket_wins_it() {
        let mut scheduler = PowerOfTwoChoices::new(&init());
        let mut stage = Stage::new(&mut scheduler, Traffic::Tcp);
        stage.play("+A:3 +X:0 +B:2 +C:1");
        // List C B X A; 0 belongs to the first server too.
        let winner = |ticket| WeightTree::of_sums().first_reaching(ticket, &stage.servers);
        assert_eq!([0, 1, 2, 3, 4, 5, 6].map(|ticket| winner(ticket).unwrap()), [0, 0, 1, 1, 3, 3, 3]);
        assert_eq!(winner(7), None);
    }

    #[test]
    fn never_keeps_a_server_that_loses_to_most_others() {
        let mut scheduler = PowerOfTwoChoices::new(&init());
        let mut stage = Stage::new(&mut scheduler, Traffic::Tcp);
        stage.play("+A:1 +B:1 +C:1 +D:1");
        stage.count(stage.index('A'), 100, 100);
        let picks: alloc::string::String = (0..200).map(|_| stage.choose()).collect();
        let count = |letter| picks.chars().filter(|pick| *pick == letter).count();
        // A is chosen only when both tickets are its own: one time in some 16.
        assert!(count('A') < 30, "{picks}");
        // The others stay even, as one random choice would not leave them.
        let others = ['B', 'C', 'D'].map(count);
        assert!(others.iter().max().unwrap() - others.iter().min().unwrap() < 20, "{others:?}");
    }

    #[test]
    fn nobody_eligible_is_no_choice() {
        check(&mut PowerOfTwoChoices::new(&init()), Traffic::Tcp, "[-] +A:0 [-] +B:1(u2) [BB--] A:=1 [AA]");
    }
}
