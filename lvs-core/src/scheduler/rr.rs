//! `rr`, round robin: `choice = the first eligible server after the last choice, going round`.
//!
//! Requests are handed to the servers in turn, one after the other in a circle. Every server gets the same number,
//! whatever its weight, its connections or its load.
//!
//! Traps: the list is newest first, so the server added **last** starts. A new server enters at the front and is
//! reached when the current round ends. Editing a server does not move the place; deleting the one that was chosen
//! last steps back to its predecessor. Weight only switches a server on (> 0) or off (0). A run of quiesced or
//! overloaded servers is walked over: one choice costs one step when all are eligible, the length of the run otherwise.

use alloc::boxed::Box;

use super::{Change, Request, Scheduler};
use crate::service::RealServer;

/// Each eligible server in turn.
#[derive(Clone, Debug, Default)]
pub struct RoundRobin {
    /// Where the last choice stands in the list now; `None` is before the first server. The one index a scheduler may
    /// keep: `servers_changed` moves it along with the list.
    last: Option<usize>,
}

impl RoundRobin {
    /// Starts at the head of the list.
    pub const fn new() -> Self {
        Self { last: None }
    }
}

impl Scheduler for RoundRobin {
    fn name(&self) -> &'static str {
        "rr"
    }

    fn schedule(&mut self, _: &Request<'_>, servers: &[RealServer]) -> Option<usize> {
        let start = self.last.map_or(0, |last| last + 1).min(servers.len());
        let (before, after) = servers.split_at(start);
        let ahead = after.iter().position(RealServer::is_eligible).map(|offset| start + offset);
        // Round to the head, up to and including the last choice itself.
        let choice = ahead.or_else(|| before.iter().position(RealServer::is_eligible))?;
        self.last = Some(choice);
        Some(choice)
    }

    fn servers_changed(&mut self, change: Change, _: &[RealServer]) {
        self.last = match (change, self.last) {
            (Change::Reset, _) | (_, None) => None,
            (Change::Added { index }, Some(last)) if index <= last => Some(last + 1),
            (Change::Removed { index, .. }, Some(last)) if index <= last => last.checked_sub(1),
            (_, unmoved) => unmoved,
        };
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
    fn stays_where_it_is_when_nobody_is_eligible() {
        check(&mut RoundRobin::new(), Traffic::Tcp, "+A:1 +B:1 +C:1 [CB] A:=0 B:=0 C:=0 [--] A:=1 B:=1 C:=1 [ACB]");
    }
}
