//! `rr`, round robin: `choice = the first eligible server after the last choice, going round`.
//!
//! Requests are handed to the servers in turn, one after the other in a circle. Every server gets the same number,
//! whatever its weight, its connections or its load.
//!
//! Traps: the list is newest first, so the server added **last** starts. A new server enters at the front and is
//! reached when the current round ends. Editing a server does not move the place; deleting the one that was chosen
//! last steps back to its predecessor. Weight only switches a server on (> 0) or off (0).

use alloc::boxed::Box;

use super::weight_tree::WeightTree;
use super::{Change, Position, Request, Scheduler};
use crate::service::RealServer;

/// Each eligible server in turn.
#[derive(Clone, Debug)]
pub struct RoundRobin {
    /// Where the last choice stands in the list now; `None` is before the first server. An index may be kept here
    /// because `servers_changed` moves it along with the list.
    last: Option<usize>,
    /// To pass over long runs of quiesced and overloaded servers.
    weights: WeightTree,
}

impl RoundRobin {
    /// Starts at the head of the list.
    pub const fn new() -> Self {
        Self { last: None, weights: WeightTree::of_maxima() }
    }
}

impl Default for RoundRobin {
    fn default() -> Self {
        Self::new()
    }
}

impl Scheduler for RoundRobin {
    fn name(&self) -> &'static str {
        "rr"
    }

    fn schedule(&mut self, _: &Request<'_>, servers: &[RealServer]) -> Option<usize> {
        let start = self.last.map_or(0, |last| last + 1);
        let ahead = self.weights.first_at_least(1, start, servers);
        // Round to the head. Nobody is eligible ahead, so a hit lies before or at the last choice.
        let choice = ahead.or_else(|| self.weights.first_at_least(1, 0, servers))?;
        self.last = Some(choice);
        Some(choice)
    }

    fn servers_changed(&mut self, change: Change, servers: &[RealServer]) {
        match change {
            Change::Edited { index } => self.weights.update(index, servers),
            Change::Reset | Change::Added { .. } | Change::Removed { .. } => self.weights.rebuild(servers),
        }
        self.last = match (change, self.last) {
            (Change::Reset, _) | (_, None) => None,
            (Change::Added { index }, Some(last)) if index <= last => Some(last + 1),
            (Change::Removed { index, .. }, Some(last)) if index <= last => last.checked_sub(1),
            (_, unmoved) => unmoved,
        };
    }

    fn load_changed(&mut self, index: usize, servers: &[RealServer]) {
        self.weights.update(index, servers);
    }

    fn position(&self) -> Option<Position> {
        Some(Position { last: self.last, word: 0 })
    }

    fn resume(&mut self, position: Position, servers: &[RealServer]) {
        self.last = position.last.filter(|last| *last < servers.len());
    }

    fn boxed_clone(&self) -> Box<dyn Scheduler> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::script::{Traffic, check};

    #[test]
    fn follows_the_list_through_additions_edits_and_deletions() {
        check(
            &mut RoundRobin::new(),
            Traffic::Tcp,
            "+A:1 +B:1 +C:1 [CBACBAC] +D:1 [BADCBA] -C [DBADB] A:=0 [DBDBDB] A:=5 [ADBA] -A -B [DDD] -D [--] +E:1 [EE]",
        );
    }

    #[test]
    fn a_deletion_at_or_before_the_place_moves_it_back() {
        check(&mut RoundRobin::new(), Traffic::Tcp, "+A:1 +B:1 +C:1 +D:1 [DC] -C [BA] +C:1 [CDB] -D [AC]");
        check(&mut RoundRobin::new(), Traffic::Tcp, "+A:1 +B:1 +C:1 +D:1 [D] -D [CB]");
    }

    #[test]
    fn stays_where_it_is_when_nobody_is_eligible() {
        check(&mut RoundRobin::new(), Traffic::Tcp, "+A:1 +B:1 +C:1 [CB] A:=0 B:=0 C:=0 [--] A:=1 B:=1 C:=1 [ACB]");
    }
}
