//! `wrr`, weighted round robin: `choice = the next server with weight ≥ level, the level sinking from the greatest
//! weight to 1 in steps of the weights' greatest common divisor, round after round`.
//!
//! As `rr`, for servers of unequal power: in each full turn a server of weight w is chosen w times, and the choices are
//! interleaved. Whatever asks the servers for their load may move the weights as it goes.
//!
//! Traps: adding servers one at a time leaves the level in the middle of a turn, so the first round is usually *not*
//! "heaviest first". Any addition, deletion or edit (even of a threshold only) goes back to the head of the list.
//! Overloaded servers still count for the step and the greatest weight. Linux walks the list, level by level: with
//! great, co-prime weights and the heavy servers overloaded that is a long walk in one packet; here levels that nobody
//! reaches are passed over in one step, and a long list is searched by a tree. The choices are the same.

use alloc::boxed::Box;

use super::weight_tree::WeightTree;
use super::{Change, Position, Request, Scheduler};
use crate::service::RealServer;

/// Each server in turn, as often as it weighs.
#[derive(Clone, Debug)]
pub struct WeightedRoundRobin {
    /// Index of the last choice; `None` is before the first server. Every change of the list resets it.
    last: Option<usize>,
    /// Servers at least this heavy are chosen in this round. Linux: `cw`.
    level: i64,
    /// The level a turn starts at. Linux: `mw`.
    top: i64,
    /// From one level to the next. Linux: `di`.
    step: i64,
    weights: WeightTree,
}

impl WeightedRoundRobin {
    /// Starts at the head of the list, at the top level.
    pub const fn new() -> Self {
        Self { last: None, level: 0, top: 0, step: 1, weights: WeightTree::of_maxima() }
    }

    fn measure(&mut self, servers: &[RealServer]) {
        self.weights.rebuild(servers);
        let divisor = servers.iter().map(|server| server.weight).fold(0, greatest_common_divisor);
        let max = servers.iter().map(|server| server.weight).max().unwrap_or(0);
        self.step = i64::from(divisor.max(1));
        self.top = i64::from(max) - (self.step - 1);
    }

    /// Sinks past all levels that no server reaches but the last of them.
    fn sink_to(&mut self, highest: i64) {
        let surplus = self.level - highest - 1;
        if surplus > 0 {
            self.level -= surplus / self.step * self.step;
        }
    }
}

impl Default for WeightedRoundRobin {
    fn default() -> Self {
        Self::new()
    }
}

impl Scheduler for WeightedRoundRobin {
    fn name(&self) -> &'static str {
        "wrr"
    }

    fn schedule(&mut self, _: &Request<'_>, servers: &[RealServer]) -> Option<usize> {
        if self.top == 0 {
            return None;
        }
        let previous = self.last;
        let mut start = previous.map_or(0, |last| last + 1);
        let (mut is_last_round, mut has_restarted, mut stop) = (false, false, None);
        loop {
            let found = self.weights.first_at_least(self.level as u64, start, servers);
            // A search that came round through all levels ends where it began.
            let found = found.filter(|found| stop.is_none_or(|stop| *found <= stop));
            if found.is_some() || stop.is_some() {
                self.last = found.or(stop);
                return found;
            }
            start = 0;
            self.level -= self.step;
            if self.level <= 0 {
                self.level = self.top;
                if is_last_round || previous.is_none() {
                    self.last = None;
                    return None;
                }
                has_restarted = true;
            }
            self.sink_to(self.weights.total(servers) as i64);
            is_last_round = self.level <= self.step;
            if is_last_round && has_restarted {
                stop = previous;
            }
        }
    }

    fn servers_changed(&mut self, change: Change, servers: &[RealServer]) {
        self.last = None;
        self.measure(servers);
        if change == Change::Reset || self.level > self.top || self.level == 0 {
            self.level = self.top;
        } else if self.step > 1 {
            self.level = self.level / self.step * self.step + 1;
        }
    }

    fn load_changed(&mut self, index: usize, servers: &[RealServer]) {
        self.weights.update(index, servers);
    }

    fn position(&self) -> Option<Position> {
        Some(Position { last: self.last, word: self.level as u64 })
    }

    fn resume(&mut self, position: Position, servers: &[RealServer]) {
        self.last = position.last.filter(|last| *last < servers.len());
        let level = position.word as i64;
        if (1..=self.top).contains(&level) {
            self.level = level;
        }
    }

    fn boxed_clone(&self) -> Box<dyn Scheduler> {
        Box::new(self.clone())
    }
}

/// Of two weights; 0 leaves the other as it is.
pub(super) const fn greatest_common_divisor(mut a: u32, mut b: u32) -> u32 {
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::script::{Traffic, check};

    #[test]
    fn interleaves_by_weight_and_starts_over_at_every_edit() {
        check(
            &mut WeightedRoundRobin::new(),
            Traffic::Tcp,
            "+A:3 +B:2 +C:1 [CBAABACBAABACBAABACB] B:=4 [CBABBABACBABBABACBAB] -A [BBBCBBBBCBBB] B:=0 [CCCCC] \
             C:=0 [--] C:=6 B:=9 [CBBCBCBBCBCBBCBCBBCB]",
        );
    }

    #[test]
    fn keeps_its_level_while_servers_are_added() {
        check(
            &mut WeightedRoundRobin::new(),
            Traffic::Tcp,
            "+A:10 [A] +B:20 [BAB] +C:30 [CBCBACCBCBACCBCBACCB] A:=0 [CBCBCCBCBC] A:=15 [CCBCBACBACBACCC]",
        );
    }

    #[test]
    fn passes_over_overloaded_servers() {
        check(&mut WeightedRoundRobin::new(), Traffic::Tcp, "+A:4(u3) +B:2(u4) +C:1(u2) [CBAAABCBB-----]");
    }
}
