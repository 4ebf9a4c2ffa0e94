//! Server names in a scheduler's memory: where in the list a name stands now, and how many memories name it.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::service::{RealServer, ServerId};

/// From a server's name to its index. Rebuilt whenever the list changes.
#[derive(Clone, Debug, Default)]
pub(super) struct Positions {
    /// Sorted by name.
    by_id: Vec<(ServerId, u32)>,
}

impl Positions {
    pub(super) fn rebuild(&mut self, servers: &[RealServer]) {
        self.by_id.clear();
        self.by_id.extend(servers.iter().zip(0..).map(|(server, index)| (server.id, index)));
        self.by_id.sort_unstable();
    }

    /// `None` if the server is not in the list (any more).
    pub(super) fn find(&self, id: ServerId) -> Option<usize> {
        let found = self.by_id.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        Some(self.by_id[found].1 as usize)
    }
}

/// How many entries name each server.
#[derive(Clone, Debug, Default)]
pub(super) struct References {
    counts: BTreeMap<ServerId, u32>,
}

impl References {
    pub(super) fn take(&mut self, id: ServerId) {
        *self.counts.entry(id).or_insert(0) += 1;
    }

    pub(super) fn release(&mut self, id: ServerId) {
        let count = self.counts.get_mut(&id).expect("released as often as taken");
        *count -= 1;
        if *count == 0 {
            self.counts.remove(&id);
        }
    }

    pub(super) fn contains(&self, id: ServerId) -> bool {
        self.counts.contains_key(&id)
    }
}
