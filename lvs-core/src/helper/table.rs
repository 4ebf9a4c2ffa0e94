//! What is kept for connections a helper listens to, beside their records: most connections have no helper, so the records
//! stay small. There is at most one entry for each connection of the table, whose bound is this one's too.

use alloc::sync::Arc;
use core::fmt;

use ahash::RandomState;
use hashbrown::HashMap;

use crate::connection::ConnectionId;
use crate::helper::sequence::Offsets;
use crate::helper::{Helper, Notes};
use crate::rng::Seed;

/// A connection's helper, what it remembers, and how far the two sides' counts are apart.
#[derive(Clone)]
pub(crate) struct Helped {
    pub helper: Arc<dyn Helper>,
    pub notes: Notes,
    /// What was added to the client's bytes.
    pub requests: Offsets,
    /// What was added to the server's bytes.
    pub replies: Offsets,
}

impl Helped {
    pub fn by(helper: Arc<dyn Helper>) -> Self {
        Self { helper, notes: Notes::default(), requests: Offsets::default(), replies: Offsets::default() }
    }
}

impl fmt::Debug for Helped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Helped").field("notes", &self.notes).finish_non_exhaustive()
    }
}

/// The helped connections of one director.
#[derive(Debug)]
pub(crate) struct HelpedTable {
    entries: HashMap<ConnectionId, Helped, RandomState>,
}

impl HelpedTable {
    pub fn new(seed: Seed) -> Self {
        let word = |part| seed.derive(part).value();
        let state = RandomState::with_seeds(word(0), word(1), word(2), word(3));
        Self { entries: HashMap::with_hasher(state) }
    }

    pub fn insert(&mut self, id: ConnectionId, helped: Helped) {
        self.entries.insert(id, helped);
    }

    pub fn remove(&mut self, id: ConnectionId) {
        self.entries.remove(&id);
    }

    pub fn get(&self, id: ConnectionId) -> Option<&Helped> {
        self.entries.get(&id)
    }

    pub fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Helped> {
        self.entries.get_mut(&id)
    }
}
